//! The issuers of a configuration by name, and whom their bundles must lead to.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::bundle_object::Origin;
use crate::domain::bundle::Bundle;
use crate::domain::certificate::Certificate;
use crate::domain::policy::MANUAL;
use crate::domain::record::IssuerClass;
use crate::domain::site::{Method, Site};
use crate::domain::trust::{Trust, TrustError};
use crate::issuer::Issuer;

/// One issuer.
#[derive(Clone, Debug)]
pub struct NamedIssuer {
    /// What kind it is.
    pub class: IssuerClass,
    /// Whom its chains must lead to.
    pub anchors: Anchors,
    /// The issuer itself; `None` on machines that never ask it, and need none of its secrets.
    pub issuer: Option<Arc<dyn Issuer>>,
}

/// Whom the chains of an issuer must lead to.
#[derive(Clone, Debug)]
pub enum Anchors {
    /// Known roots.
    Given(Trust),
    /// The local CA's root, which is only there once the CA has been made.
    RootFile(PathBuf),
    /// Nobody: the leaf signed itself.
    OwnLeaf,
    /// Anybody: test CAs make their roots anew whenever they start. Only for the staging lineage.
    Anyone,
}

/// The issuers of a configuration, by name and by the solver that a site has them use.
#[derive(Clone, Debug, Default)]
pub struct Issuers {
    named: BTreeMap<(String, Option<String>), NamedIssuer>,
    weekly_limits: BTreeMap<String, u32>,
}

impl Anchors {
    /// Whether a bundle leads where it must; the reason if not.
    pub fn vouch_for(&self, bundle: &Bundle, now: DateTime<Utc>) -> Result<(), String> {
        self.vouch_for_chain(bundle.chain(), now)
    }

    /// The same, of a chain whose key is not at hand, leaf first.
    pub fn vouch_for_chain(&self, chain: &[Certificate], now: DateTime<Utc>) -> Result<(), String> {
        let Some(leaf) = chain.first() else { return Err(TrustError::Empty.to_string()) };
        let trust = match self {
            Self::Given(trust) => trust.clone(),
            Self::RootFile(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| format!("the root {} cannot be read: {error}", path.display()))?;
                Trust::from_pem(&text).map_err(|error| format!("{}: {error}", path.display()))?
            }
            Self::Anyone => return Ok(()),
            Self::OwnLeaf if leaf.is_self_signed() => return Ok(()),
            Self::OwnLeaf => return Err("it is not self-signed".to_owned()),
        };
        // Whether it has begun is judged by `Bundle::check`, with a tolerance for clocks that this verifier does not know.
        let now = now.max(leaf.not_before);
        trust.leads_to(chain, now).map_err(|error: TrustError| error.to_string())
    }
}

impl Issuers {
    /// Adds an issuer for a site, and for every other site with the same solver.
    pub fn add(&mut self, site: &Site, name: &str, issuer: NamedIssuer) {
        self.named.insert((name.to_owned(), site.solver.clone()), issuer);
    }

    /// The issuer of that name, as the site uses it.
    pub fn get(&self, site: &Site, name: &str) -> Option<&NamedIssuer> {
        self.named.get(&(name.to_owned(), site.solver.clone()))
    }

    /// Notes that an issuer gives no more than `limit` certificates for the same identifiers in seven days.
    pub fn limit_weekly(&mut self, name: &str, limit: u32) {
        self.weekly_limits.insert(name.to_owned(), limit);
    }

    /// How many certificates for the same identifiers an issuer gives in seven days, where it is known to count.
    pub fn weekly_limit(&self, name: &str) -> Option<u32> {
        self.weekly_limits.get(name).copied()
    }

    /// Whether the issuer that the site prefers can be asked on this machine. Where it cannot, another machine renews: a lesser issuer
    /// would replace what the fleet has for no reason.
    pub fn can_issue(&self, site: &Site) -> bool {
        let preferred = site.issuers.first().and_then(|name| self.get(site, name));
        preferred.is_some_and(|named| named.issuer.is_some())
    }

    /// Whether a bundle of a known issuer leads to that issuer's roots. What a person supplied, and what an issuer made that is no
    /// longer configured, has no roots to be held to; the latter is due anyway. Nor has what the local CA made, on machines that its
    /// root was not brought to: that a machine of the fleet published it is proven all the same.
    pub fn vouch_for(&self, site: &Site, origin: &Origin, bundle: &Bundle, now: DateTime<Utc>) -> Result<(), String> {
        match self.get(site, &origin.issuer) {
            Some(NamedIssuer { anchors: Anchors::RootFile(path), .. }) if !path.exists() => Ok(()),
            Some(named) if origin.class != IssuerClass::Manual => named.anchors.vouch_for(bundle, now),
            _ => Ok(()),
        }
    }

    /// Finds out whose work a bundle without a record is: of the site's issuers, the first whose roots it leads to.
    pub fn recognise(&self, site: &Site, bundle: &Bundle, now: DateTime<Utc>) -> Result<Origin, String> {
        let origin = |issuer: &str, class| Origin { issuer: issuer.to_owned(), class, profile: None, passed_over: Vec::new() };
        if site.method == Method::Manual {
            return Ok(origin(MANUAL, IssuerClass::Manual));
        }
        let mut reasons = Vec::new();
        for name in &site.issuers {
            let Some(named) = self.get(site, name) else { continue };
            match named.anchors.vouch_for(bundle, now) {
                Ok(()) => return Ok(Origin { profile: site.profile_name().map(str::to_owned), ..origin(name, named.class) }),
                Err(reason) => reasons.push(format!("{name}: {reason}")),
            }
        }
        Err(format!("it comes from none of the site's issuers ({})", reasons.join("; ")))
    }
}
