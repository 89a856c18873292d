//! Answers to ACME challenges (RFC 8555 section 8).

use std::fmt;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::identifier::Identifier;

/// Answers challenges of one kind.
#[async_trait]
pub trait Solver: fmt::Debug + Send + Sync {
    /// The kind of challenge it answers.
    fn kind(&self) -> ChallengeKind;

    /// Puts the answer where the CA will look for it. When this returns, the CA may be asked to look.
    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError>;

    /// Takes the answer away again, and nothing else. Called once for every challenge whose `present` was called, also when that failed.
    async fn clean_up(&self, challenge: &Challenge, presented: &Presented) -> Result<(), SolverError>;
}

/// The kinds of challenges that can be answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChallengeKind {
    /// A TXT record (RFC 8555 section 8.4).
    Dns01,
    /// A file on port 80 (RFC 8555 section 8.3).
    Http01,
}

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
