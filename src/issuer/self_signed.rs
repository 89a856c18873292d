//! Certificates that vouch for themselves: they encrypt, but nobody trusts them. The last resort of a list of issuers.

use std::time::Duration;

use async_trait::async_trait;

use super::leaf::{self, SigningError};
use super::{IssueError, Issuer, Lease, Request};
use crate::domain::bundle::Bundle;

/// Signs each certificate with its own key. They are no CA certificates: whoever imports one trusts this one site and no other.
#[derive(Clone, Copy, Debug)]
pub struct SelfSigned {
    lifetime: Duration,
}

impl SelfSigned {
    /// `lifetime` is counted from the moment of issuance.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime }
    }
}

#[async_trait]
impl Issuer for SelfSigned {
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError> {
        lease.progress("making a self-signed certificate");
        let (lifetime, request) = (self.lifetime, request.clone());
        leaf::in_background(move || sign(lifetime, &request)).await
    }
}

fn sign(lifetime: Duration, request: &Request) -> Result<Bundle, IssueError> {
    let make = || {
        let key = leaf::generate_key(request.key_type)?;
        let mut params = leaf::leaf_params(request, leaf::last_second(request.now, lifetime)?)?;
        // Issuer and subject must be the same name, and some readers take an empty one for none.
        if params.distinguished_name.iter().next().is_none() {
            let id = params.key_identifier(&key).iter().take(4).fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("certfleet self-signed {id}"));
        }
        let certificate = params.self_signed(&key).map_err(SigningError::Sign)?;
        Ok((certificate, key))
    };
    let (certificate, key) = make().map_err(|error| leaf::refused(&error))?;
    leaf::bundle(certificate.der(), &key)
}
