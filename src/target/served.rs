//! The proof that a certificate is served: it was on the wire.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use thiserror::Error;

use super::handshake::{HandshakeError, presented_chain};
use crate::domain::certificate::hex;
use crate::domain::identifier::Identifier;
use crate::system::clock::{self, Instant};

/// How long after a look the next one comes: soon, because most servers need a few milliseconds; then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// A person or another machine waits for the outcome.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// nginx has both generations of its workers accept for 100 ms before it ends the old one (`ngx_master_process_cycle` in
/// src/os/unix/ngx_process_cycle.c).
const SETTLED_AFTER: Duration = Duration::from_millis(150);

/// One look may take as long: a server that does not answer one handshake, as in the middle of a restart, may answer the next.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// An address at which a server is looked at.
#[async_trait]
pub trait Endpoint: fmt::Debug + Send + Sync {
    /// What people call it: `host:port`.
    fn address(&self) -> &str;

    /// The SHA-256 fingerprint, hexadecimal, of the leaf that is presented there for `name` at this moment.
    async fn presented(&self, name: &Identifier, deadline: Duration) -> Result<String, HandshakeError>;
}

/// `host:port` on the network, where TLS is spoken.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TlsEndpoint(pub String);

#[async_trait]
impl Endpoint for TlsEndpoint {
    fn address(&self) -> &str {
        &self.0
    }

    async fn presented(&self, name: &Identifier, deadline: Duration) -> Result<String, HandshakeError> {
        let chain = presented_chain(&self.0, name, deadline).await?;
        // Where nothing at all is presented, there is no handshake either.
        let leaf = chain.first().map_or(&[][..], Vec::as_slice);
        Ok(hex(digest::digest(&digest::SHA256, leaf).as_ref()))
    }
}

/// The deadline has passed, and a certificate is still not served.
#[derive(Debug, Error)]
#[error("{address} does not serve the certificate {wanted} of {name} within {}", humantime::format_duration(*.deadline))]
pub struct NotServed {
    /// Where it was looked for.
    pub address: String,
    /// The name that was asked for.
    pub name: Identifier,
    /// The SHA-256 fingerprint of the leaf that was waited for, hexadecimal.
    pub wanted: String,
    /// How long it was waited for.
    pub deadline: Duration,
    /// What was there when it was last looked.
    #[source]
    pub seen: Seen,
}

/// What a server did in place of presenting what was wanted.
#[derive(Debug, Error)]
pub enum Seen {
    /// It presented another leaf, of this SHA-256 fingerprint.
    #[error("it serves another one, {0}")]
    Other(String),
    /// It presented nothing.
    #[error("no certificate was seen")]
    Nothing(#[source] HandshakeError),
}

impl NotServed {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match &self.seen {
            Seen::Other(_) => format!(
                "does the server at {} read live/<site>/ of this target's ssl_root for {}, and does its reload command reload that server?",
                self.address, self.name
            ),
            Seen::Nothing(error) => error.hint(),
        }
    }
}

/// Waits until the server at `endpoint` presents, for `name`, the leaf with this SHA-256 fingerprint (hexadecimal).
///
/// It must be seen twice, a moment apart: some servers answer with either leaf for a moment.
pub async fn await_leaf(endpoint: &dyn Endpoint, name: &Identifier, fingerprint: &str, deadline: Duration) -> Result<(), NotServed> {
    let end = Instant::now() + deadline;
    let mut pause = FIRST_PAUSE;
    let mut seen_once = false;
    loop {
        // The second look is not cut short by the deadline.
        let left = if seen_once { LONGEST_LOOK } else { end.saturating_duration_since(Instant::now()).min(LONGEST_LOOK) };
        let seen = match endpoint.presented(name, left).await {
            Ok(found) if found == fingerprint && seen_once => return Ok(()),
            Ok(found) if found == fingerprint => {
                seen_once = true;
                clock::sleep(SETTLED_AFTER).await;
                continue;
            }
            Ok(found) => Seen::Other(found),
            Err(error) => Seen::Nothing(error),
        };
        seen_once = false;
        if Instant::now() + pause >= end {
            let (address, wanted) = (endpoint.address().to_owned(), fingerprint.to_owned());
            return Err(NotServed { address, name: name.clone(), wanted, deadline, seen });
        }
        clock::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
