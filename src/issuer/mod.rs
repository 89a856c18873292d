//! Where bundles come from.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::domain::bundle::Bundle;
use crate::domain::certificate::Certificate;
use crate::domain::identifier::Identifier;
use crate::domain::key_type::KeyType;
use crate::domain::private_key::PrivateKey;
use crate::domain::renewal_window::Suggestion;
use crate::domain::revocation::Reason;
use crate::domain::site::Profile;

pub mod acme;
pub mod leaf;
pub mod local_ca;
pub mod new_key;
pub mod self_signed;

/// Makes bundles.
#[async_trait]
pub trait Issuer: fmt::Debug + Send + Sync {
    /// Makes one bundle for `request`, or says why not. Before every step that cannot be taken back it asks `lease`, and it gives
    /// up as soon as [`Lease::ended`] resolves. Whatever it set up for challenges is gone again when this returns, however it returns.
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError>;

    /// Who can say when a certificate of this issuer should be renewed; `None` where nobody ever does.
    fn adviser(&self) -> Option<&dyn RenewalAdviser> {
        None
    }
}

/// Says when certificates should be renewed.
#[async_trait]
pub trait RenewalAdviser: Send + Sync {
    /// What is suggested for a certificate. Nothing is signed, and no account is needed.
    async fn suggestion(&self, leaf: &Certificate) -> Result<Suggestion, IssueError>;
}

/// Takes bundles back.
#[async_trait]
pub trait Revoker: fmt::Debug + Send + Sync {
    /// Revokes the leaf of a bundle. One that is revoked already is none the worse for it.
    async fn revoke(&self, bundle: &Bundle, reason: Reason) -> Result<Revoked, IssueError>;
}

/// How a leaf came to be revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Revoked {
    /// It is from now on.
    Now,
    /// It was already.
    Before,
}

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// What the certificate must vouch for, exactly; never empty.
    pub identifiers: Vec<Identifier>,
    /// The key to make.
    pub key_type: KeyType,
    /// The ACME profile to ask for.
    pub profile: Option<Profile>,
    /// The datastore's time: the only clock that dates are set by.
    pub now: DateTime<Utc>,
    /// An order that an earlier run placed with this issuer: resumed, if it still can be.
    pub unfinished: Option<Order>,
    /// Another one, which is resumed where nothing can come of the first.
    pub other_unfinished: Option<Order>,
}

/// What must be known to finish an order after a crash.
#[derive(Clone, Debug)]
pub struct Order {
    /// The order's URL at the CA.
    pub url: String,
    /// The key that the certificate is, or will be, for.
    pub key: PrivateKey,
}

/// The issuer's hold on the lease it works under.
#[async_trait]
pub trait Lease: Send + Sync {
    /// Writes the order down where a successor finds it. The issuer goes on only when this has succeeded.
    async fn record_order(&self, order: &Order) -> Result<(), LeaseEnded>;

    /// Asked right before a step that cannot be taken back (finalizing an order): is the lease still ours?
    async fn confirm(&self) -> Result<(), LeaseEnded>;

    /// Resolves when the work must stop: the lease was lost, or the person pressed Ctrl-C.
    async fn ended(&self) -> LeaseEnded;

    /// Tells what is happening, for people who wait: "asking for www.example.com".
    fn progress(&self, step: &str);

    /// Tells what a person must look after although the bundle was made: an answer that could not be taken away again.
    fn left_behind(&self, what: &str);

    /// Tells what is not as the configuration wants it although the bundle was made: another chain than the preferred one.
    fn makes_do(&self, what: &str);
}

/// Why the work under a lease must stop.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum LeaseEnded {
    /// The person, or the system, asked the program to end.
    #[error("interrupted")]
    Interrupted,
    /// Somebody else has taken over, or the lease could not be refreshed or written for too long.
    #[error("the lease was lost: {0}")]
    Lost(String),
}

/// Why no bundle came of it.
#[derive(Debug, Error)]
pub enum IssueError {
    /// The work was stopped, which says nothing about the issuer.
    #[error(transparent)]
    Ended(#[from] LeaseEnded),
    /// The fleet's account could not be read or kept, which says nothing about the issuer.
    #[error(transparent)]
    Account(#[from] acme::AccountsError),
    /// The issuer could not deliver.
    #[error("{reason}")]
    Refused {
        /// What failed and what the issuer answered, complete: the CA's own problem text is in it.
        reason: String,
        /// What a person can do about it.
        hint: String,
        /// How long the issuer asked to be left alone (`Retry-After`).
        retry_after: Option<Duration>,
    },
}
