//! Which of the chains that a CA offers for one leaf is taken (RFC 8555 section 7.4.2).
//!
//! Let's Encrypt offers several: a default one, and shorter ones that lead to roots which not every client knows yet, or no more.

use http::Uri;
use instant_acme::Error;

use super::refusal::{chain, clip};
use super::signed::Signer;
use super::work::Work;
use crate::domain::bundle::Bundle;
use crate::domain::trust::Trust;

/// No more alternates than this are fetched, each with two requests: CAs offer one or two.
const MOST_ALTERNATES: usize = 8;

/// What a chain should be like.
struct Wish<'a> {
    preferred: Option<&'a str>,
    trust: Option<&'a Trust>,
}

impl Wish<'_> {
    /// How well a chain fulfils it: that it is trusted counts for more than who is on top.
    fn rank(&self, bundle: &Bundle) -> (bool, bool) {
        // Whether it has begun already is judged elsewhere, with a tolerance for clocks.
        let trusted = self.trust.is_none_or(|trust| trust.leads_to(bundle.chain(), bundle.leaf().not_before).is_ok());
        let preferred = self.preferred.is_none_or(|name| top_issuer(bundle).as_deref() == Some(name));
        (trusted, preferred)
    }
}

impl Work<'_> {
    /// The chain that is wanted, or the best one there is: one that leads where chains must; of those the preferred one; of those the
    /// CA's own first choice. Alternates are asked for only where the default chain is not all that is wanted.
    pub(super) async fn best_chain(&mut self, default: Bundle) -> Bundle {
        let options = &self.issuer.options;
        let wish = Wish { preferred: options.preferred_chain.as_deref(), trust: options.chain_trust.as_ref() };
        let url = self.order.state().certificate.clone().unwrap_or_default();
        let alternates = self.issuer.client.take_alternates(&url);
        if wish.rank(&default) == (true, true) {
            return default;
        }
        let mut offered = vec![default];
        let mut failures = Vec::new();
        for alternate in alternates.iter().take(MOST_ALTERNATES) {
            self.lease.progress("fetching another chain that the CA offers");
            match self.alternate(&url, alternate, &offered[0]).await {
                Ok(bundle) => offered.push(bundle),
                Err(why) => failures.push(format!("{}: {why}", clip(alternate.as_bytes()))),
            }
        }
        // Of equally good ones the first: ranks are compared strictly.
        let best = (1..offered.len()).fold(0, |best, next| if wish.rank(&offered[next]) > wish.rank(&offered[best]) { next } else { best });
        if let Some(preferred) = wish.preferred.filter(|_| !wish.rank(&offered[best]).1) {
            self.lease.makes_do(&not_preferred(preferred, &offered, &offered[best], &failures));
        } else if !failures.is_empty() {
            tracing::info!(issuer = options.name, ?failures, "alternate chains that could not be had");
        }
        offered.swap_remove(best)
    }

    /// Fetches an alternate of the chain at `url`, for the same leaf and from the same server.
    async fn alternate(&self, url: &str, alternate: &str, default: &Bundle) -> Result<Bundle, String> {
        let place = |url: &str| url.parse::<Uri>().ok().map(|uri| (uri.scheme_str().map(str::to_owned), uri.authority().cloned()));
        if place(alternate).is_none() || place(alternate) != place(url) {
            return Err("it is not on the CA's own server".to_owned());
        }
        let text = self.fetch(alternate).await.map_err(|error| chain(&error))?;
        let bundle = self.bundle(&text)?;
        if bundle.leaf() == default.leaf() { Ok(bundle) } else { Err("it is for another certificate".to_owned()) }
    }

    async fn fetch(&self, url: &str) -> Result<String, Error> {
        let account = self.issuer.account.get().ok_or(Error::Str("no account"))?;
        let directory = self.issuer.fetch_directory().await?;
        let signer = Signer::Account { url: account.library.id(), key: &account.key };
        let answer = self.issuer.post(&directory, signer, url, None).await?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }
}

/// Who issued the last certificate of a chain, by common name.
fn top_issuer(bundle: &Bundle) -> Option<String> {
    bundle.chain().last()?.issuer_common_name()
}

fn not_preferred(preferred: &str, offered: &[Bundle], taken: &Bundle, failures: &[String]) -> String {
    let name = |bundle: &Bundle| top_issuer(bundle).map_or_else(|| "nobody named".to_owned(), |name| clip(name.as_bytes()));
    let all = offered.iter().map(name).collect::<Vec<_>>();
    let why = if all.iter().any(|name| name == preferred) {
        format!("the chain that leads to preferred_chain = {preferred:?} is not trusted")
    } else {
        format!("no chain leads to preferred_chain = {preferred:?}; the CA offers: {}", all.join(", "))
    };
    let failed = if failures.is_empty() { String::new() } else { format!("; could not be fetched: {}", failures.join("; ")) };
    format!("{why}{failed}; took the one that leads to {}", name(taken))
}
