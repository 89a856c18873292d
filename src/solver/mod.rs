//! Answers to ACME challenges (RFC 8555 section 8).

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::identifier::Identifier;

pub mod confirm;
pub mod dns;
mod listening;
pub mod look;
pub mod redirect;
pub mod script;
pub mod standalone;
pub mod stateless;
pub mod tls_alpn;
pub mod webroot;

/// About how long a CA nearby takes to look at an answer and to make up its mind.
const FAST_LOOK: Duration = Duration::from_millis(30);

/// Answers challenges of one kind.
#[async_trait]
pub trait Solver: fmt::Debug + Send + Sync {
    /// The kind of challenge it answers.
    fn kind(&self) -> ChallengeKind;

    /// Puts the answer where the CA will look for it. When this returns, the CA may be asked to look.
    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError>;

    /// Looks for a presented answer where the CA will, and returns once it can be seen there. Asked after all answers of an order were
    /// presented and before the CA is: a look that fails here costs nothing, and one that fails at the CA counts against its limits.
    async fn confirm(&self, _challenge: &Challenge) -> Result<(), SolverError> {
        Ok(())
    }

    /// Takes the answer away again, and nothing else. Called once for every challenge whose `present` was called, also when that failed.
    async fn clean_up(&self, challenge: &Challenge, presented: &Presented) -> Result<(), SolverError>;

    /// Resolves when it is worth asking the CA for its verdict for the first time: when it has looked at the answer, where the solver can
    /// tell, else after a moment that suits a fast CA.
    async fn looked_at(&self, _challenge: &Challenge) {
        tokio::time::sleep(FAST_LOOK).await;
    }
}

/// The kinds of challenges that can be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChallengeKind {
    /// A TXT record (RFC 8555 section 8.4).
    Dns01,
    /// A file on port 80 (RFC 8555 section 8.3).
    Http01,
    /// A certificate in a handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

impl ChallengeKind {
    /// The name that ACME and the configuration use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns01 => "dns-01",
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

impl fmt::Display for ChallengeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where an http-01 answer is looked for: this, followed by the token (RFC 8555 section 8.3).
pub const HTTP_01_PATH: &str = "/.well-known/acme-challenge/";

/// The label under which dns-01 answers are looked for (RFC 8555 section 8.4).
const DNS_01_LABEL: &str = "_acme-challenge";

/// One challenge, with what certbot's hooks are told about the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// What is being proven. For a wildcard the challenge is at the name below the star.
    pub identifier: Identifier,
    /// The CA's token: base64url, checked before it gets here.
    pub token: String,
    /// Token and account thumbprint (RFC 8555 section 8.1): the body of the http-01 answer.
    pub key_authorization: String,
    /// The value of the dns-01 TXT record.
    pub dns_value: String,
    /// How many challenges of this order come after this one.
    pub remaining: usize,
    /// Every identifier of the order.
    pub all: Vec<Identifier>,
}

/// What `present` leaves for `clean_up`: a script's output.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Presented(pub String);

/// A challenge that could not be answered, or not be cleaned up after.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct SolverError {
    /// What failed, with its object.
    pub what: String,
    /// What a person can do about it.
    pub hint: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}
