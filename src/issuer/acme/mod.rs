//! Bundles from any CA that speaks ACME (RFC 8555; IP addresses: RFC 8738).
//!
//! ```text
//! account ─ order ─ recorded in the lease ─ answers presented ─ validated ─ answers taken away ─ lease confirmed ─ finalized ─ bundle
//! ```
//!
//! The order's URL and the key are in the lease before anything is asked of the CA, so a successor goes on wherever a crash left off.

use std::borrow::Cow;
use std::sync::Arc;

use async_trait::async_trait;
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use instant_acme::{Account, NewOrder, OrderState};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use tokio::sync::OnceCell;

use super::{IssueError, Issuer, Lease, Order, RenewalAdviser, Request, new_key};
use crate::domain::bundle::Bundle;
use crate::domain::identifier::Identifier;
use crate::domain::pem;
use crate::domain::site::IfMissing;
use crate::domain::trust::Trust;
use crate::solver::Solver;

mod account;
mod answers;
mod attempts;
mod chains;
mod http_client;
mod jws;
mod look;
mod refusal;
mod renewal;
mod revocation;
mod signed;
mod upkeep;
mod work;

pub use account::{Accounts, AccountsError, ExternalAccount, Told, thumbprint};
pub use look::{Offer, Standing};
pub use refusal::Refusal;
pub use upkeep::AccountView;

use answers::Answers;
use attempts::Attempts;
use http_client::{CaClient, ClientError, TlsTrust};
use jws::SigningKey;
use refusal::{Step, clip, explain, is_gone};
use work::{Setback, Work};

/// What there is to know about a CA.
#[derive(Clone, Debug)]
pub struct AcmeOptions {
    /// Its name in the configuration.
    pub name: String,
    /// The URL of its directory.
    pub directory: String,
    /// PEM text of the roots that the directory's own TLS certificate leads to, where it is not one that the system trusts.
    pub trust: Option<String>,
    /// The e-mail address that the CA may write to. Configuring a CA is agreeing to its terms of service.
    pub contact: Option<String>,
    /// Binding to a customer of the CA.
    pub eab: Option<ExternalAccount>,
    /// Of several chains that it offers for a leaf, the one whose last certificate was issued by somebody of this common name.
    pub preferred_chain: Option<String>,
    /// Whom its chains must lead to; `None`: anybody.
    pub chain_trust: Option<Trust>,
    /// Who answers challenges.
    pub solver: Arc<dyn Solver>,
    /// Where the fleet keeps its account.
    pub accounts: Arc<dyn Accounts>,
}

/// Options that cannot work.
#[derive(Debug, Error)]
pub enum AcmeOptionsError {
    /// Not a URL, or not one of https (RFC 8555 section 6.1).
    #[error("{issuer}: directory = {directory:?} is not an https URL")]
    Directory {
        /// The issuer's name.
        issuer: String,
        /// What was configured.
        directory: String,
    },
    /// Text that is not PEM, or has no certificate in it.
    #[error("{issuer}: trust holds no certificate that can be used: {why}")]
    Trust {
        /// The issuer's name.
        issuer: String,
        /// What is wrong with it.
        why: String,
    },
    /// Not base64url.
    #[error("{issuer}: hmac_key of eab is not base64url")]
    MacKey {
        /// The issuer's name.
        issuer: String,
    },
    /// One that does not speak plain HTTP.
    #[error(
        "{issuer}: the proxy {proxy} of HTTPS_PROXY cannot be used: certfleet speaks plain HTTP to proxies (http://), or name the CA in NO_PROXY"
    )]
    Proxy {
        /// The issuer's name.
        issuer: String,
        /// The proxy, without user and password.
        proxy: String,
    },
    /// The system's roots cannot be read.
    #[error("{issuer}: TLS cannot be set up")]
    Tls {
        /// The issuer's name.
        issuer: String,
        /// Why.
        #[source]
        source: rustls::Error,
    },
}

/// An ACME CA. Any number of bundles can be issued at once.
#[derive(Debug)]
pub struct AcmeIssuer {
    options: AcmeOptions,
    client: CaClient,
    account: OnceCell<OpenAccount>,
    renewal_info: OnceCell<Result<Option<String>, String>>,
}

/// The library shows its account's innards in no way, and neither do we.
struct OpenAccount {
    library: Account,
    key: SigningKey,
}

impl std::fmt::Debug for OpenAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenAccount({})", self.library.id())
    }
}

impl AcmeIssuer {
    /// Checks the options. Nothing is asked of the CA before the first bundle is. The CA is reached through the proxy that `HTTPS_PROXY`
    /// and `NO_PROXY` name for it, if any.
    pub fn new(options: AcmeOptions) -> Result<Self, AcmeOptionsError> {
        let issuer = options.name.clone();
        let directory = options.directory.parse::<Uri>().ok().filter(|uri| uri.scheme_str() == Some("https") && uri.host().is_some());
        let Some(directory) = directory else {
            return Err(AcmeOptionsError::Directory { issuer, directory: options.directory });
        };
        if options.eab.as_ref().is_some_and(|eab| eab.mac_key().is_none()) {
            return Err(AcmeOptionsError::MacKey { issuer });
        }
        let trust = options.trust.as_deref().map_or(Ok(TlsTrust::System), roots);
        let trust = trust.map_err(|why| AcmeOptionsError::Trust { issuer: issuer.clone(), why })?;
        let client = CaClient::new(&directory, trust, &Matcher::from_env()).map_err(|error| match error {
            ClientError::Tls(source) => AcmeOptionsError::Tls { issuer, source },
            ClientError::Proxy(proxy) => AcmeOptionsError::Proxy { issuer, proxy },
        })?;
        Ok(Self { options, client, account: OnceCell::new(), renewal_info: OnceCell::new() })
    }

    /// How many HTTP requests were sent to the CA so far.
    pub fn requests(&self) -> u64 {
        self.client.requests()
    }

    async fn obtain(&self, request: &Request, lease: &dyn Lease, answers: &mut Answers) -> Result<Bundle, IssueError> {
        let account = &self.account(&|step| lease.progress(step)).await?.library;
        let request = &*Self::with_offered_profile(account, request, lease)?;
        for unfinished in request.unfinished.iter().chain(&request.other_unfinished) {
            if let Some(bundle) = self.resume(account, request, unfinished, lease, answers).await? {
                return Ok(bundle);
            }
        }
        let key = new_key::generate(request.key_type).await.map_err(|error| no_key(&error))?;
        lease.progress("placing the order");
        let order = self.place(account, request).await?;
        let record = Order { url: order.url().to_owned(), key };
        lease.record_order(&record).await?;
        let mut work = Work { issuer: self, request, lease, answers, order, key: record.key };
        work.finish().await.map_err(Setback::into_error)
    }

    /// Takes up an order that was placed before. `None`: nothing will ever come of it, and a fresh one is needed.
    async fn resume(
        &self,
        account: &Account,
        request: &Request,
        unfinished: &Order,
        lease: &dyn Lease,
        answers: &mut Answers,
    ) -> Result<Option<Bundle>, IssueError> {
        if new_key::key_type(&unfinished.key) != Some(request.key_type) {
            return Ok(None);
        }
        lease.progress(&format!("taking up the order that was placed with {} before", self.options.name));
        let mut attempts = Attempts::default();
        let order = loop {
            match account.order(unfinished.url.clone()).await {
                Ok(order) => break order,
                Err(error) => match attempts.again(error).await {
                    Ok(()) => {}
                    Err(error) if is_gone(&error) => return Ok(None),
                    Err(error) => return Err(explain(&self.options.name, Step::Order, &error)),
                },
            }
        };
        let mut work = Work { issuer: self, request, lease, answers, order, key: unfinished.key.clone() };
        if !work.is_for_request().await? {
            return Ok(None);
        }
        match work.finish().await {
            Ok(bundle) => Ok(Some(bundle)),
            Err(Setback::Useless(error)) => {
                tracing::info!(issuer = self.options.name, %error, "the earlier order is of no use");
                // Its answers are for tokens that nobody asks for any more.
                work.answers.take_away(lease).await;
                Ok(None)
            }
            Err(Setback::Failed(error)) => Err(error),
        }
    }

    /// The request as this CA can fulfil it. The library sends a profile that the CA does not have, and CAs may pass over it: a certificate
    /// of another profile would come.
    fn with_offered_profile<'a>(account: &Account, request: &'a Request, lease: &dyn Lease) -> Result<Cow<'a, Request>, IssueError> {
        let Some(profile) = &request.profile else { return Ok(Cow::Borrowed(request)) };
        let offered: Vec<_> = account.profiles().map(|offered| offered.name).collect();
        if offered.contains(&profile.name.as_str()) {
            return Ok(Cow::Borrowed(request));
        }
        let reason = format!("the CA has no profile {:?}", profile.name);
        if profile.if_missing == IfMissing::TakeDefault {
            lease.progress(&format!("{reason}: ordering without one"));
            return Ok(Cow::Owned(Request { profile: None, ..request.clone() }));
        }
        let hint = match offered.as_slice() {
            [] => "this CA offers no profiles: remove profile from the site, or add profile_fallback = true".to_owned(),
            offered => format!(
                "set profile to one of: {}; or add profile_fallback = true to order without one",
                clip(offered.join(", ").as_bytes())
            ),
        };
        Err(IssueError::Refused { reason, hint, retry_after: None })
    }

    /// A CA that passes over a profile would have us install, and renew at other times, what nobody asked for.
    fn of_profile(order: &OrderState, request: &Request) -> Result<(), IssueError> {
        if !has_another_profile(order, request) {
            return Ok(());
        }
        let made = clip(order.profile.as_deref().unwrap_or_default().as_bytes());
        Err(protests(&format!("it was asked for another profile, and placed an order of the profile {made:?}")))
    }

    async fn place(&self, account: &Account, request: &Request) -> Result<instant_acme::Order, IssueError> {
        let identifiers: Vec<_> = request.identifiers.iter().map(acme_identifier).collect();
        let mut wanted = NewOrder::new(&identifiers);
        if let Some(profile) = &request.profile {
            wanted = wanted.profile(&profile.name);
        }
        let mut attempts = Attempts::default();
        loop {
            match account.new_order(&wanted).await {
                Ok(mut order) => return Self::of_profile(order.state(), request).map(|()| order),
                Err(error) => attempts.again(error).await.map_err(|error| explain(&self.options.name, Step::Order, &error))?,
            }
        }
    }

    fn not_offered(&self, identifier: &Identifier, offered: &[String]) -> IssueError {
        let kind = self.options.solver.kind();
        let offered = clip(offered.join(", ").as_bytes());
        let hint = match identifier {
            Identifier::Wildcard(_) => "wildcards are proven by dns-01: give the site a solver of kind dns-01".to_owned(),
            Identifier::Ip(_) => "addresses are proven by http-01: give the site a solver of kind http-01".to_owned(),
            Identifier::Dns(_) => "give the site a solver of a kind that the CA offers".to_owned(),
        };
        let reason = format!("the CA offers no {kind} challenge for {identifier}; it offers: {offered}");
        IssueError::Refused { reason, hint, retry_after: None }
    }
}

/// Whether an order says that it is of another profile than was asked for. Where none was, the CA may have chosen one and say so.
fn has_another_profile(order: &OrderState, request: &Request) -> bool {
    let (made, wanted) = (order.profile.as_ref(), request.profile.as_ref());
    made.zip(wanted).is_some_and(|(made, wanted)| *made != wanted.name)
}

/// The CA does what no CA may do.
fn protests(why: &str) -> IssueError {
    IssueError::Refused {
        reason: format!("the CA does not keep to the rules: {why}"),
        hint: "tell the CA, and use another issuer meanwhile".to_owned(),
        retry_after: None,
    }
}

fn no_key(error: &new_key::NewKeyError) -> IssueError {
    IssueError::Refused { reason: refusal::chain(error), hint: "try another key_type".to_owned(), retry_after: None }
}

#[async_trait]
impl Issuer for AcmeIssuer {
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError> {
        let mut answers = Answers::new(Arc::clone(&self.options.solver));
        // Every wait is inside: whatever is being awaited is dropped when the lease ends, and only the answers are left to take away.
        let issued = tokio::select! {
            biased;
            ended = lease.ended() => Err(IssueError::Ended(ended)),
            issued = self.obtain(request, lease, &mut answers) => issued,
        };
        answers.take_away(lease).await;
        issued
    }

    fn adviser(&self) -> Option<&dyn RenewalAdviser> {
        Some(self)
    }
}

fn roots(text: &str) -> Result<TlsTrust, String> {
    let blocks = pem::blocks(text).map_err(|error| error.to_string())?;
    let certificates = blocks.into_iter().filter(|block| block.label == "CERTIFICATE");
    let roots: Vec<_> = certificates.map(|block| CertificateDer::from(block.der.to_vec())).collect();
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(TlsTrust::Roots(roots)) }
}

fn acme_identifier(identifier: &Identifier) -> instant_acme::Identifier {
    match identifier {
        Identifier::Ip(address) => instant_acme::Identifier::Ip(*address),
        Identifier::Dns(_) | Identifier::Wildcard(_) => instant_acme::Identifier::Dns(identifier.to_string()),
    }
}

fn list(identifiers: &[Identifier]) -> String {
    identifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
