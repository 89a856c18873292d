//! Revoking at the CA (RFC 8555 section 7.6).

use async_trait::async_trait;
use instant_acme::Error;
use serde_json::{Value, json};

use super::AcmeIssuer;
use super::jws::{SigningKey, base64url};
use super::refusal::{Step, explain, is_of_kind, is_passing};
use super::signed::Signer;
use super::upkeep::Member;
use crate::domain::bundle::Bundle;
use crate::domain::revocation::Reason;
use crate::issuer::{IssueError, Revoked, Revoker};

#[async_trait]
impl Revoker for AcmeIssuer {
    /// The account asks, and where it may not, or is gone, the key of the certificate itself. Where that key is compromised, it asks first:
    /// a CA then knows that it is, and accepts it for nobody any more.
    async fn revoke(&self, bundle: &Bundle, reason: Reason) -> Result<Revoked, IssueError> {
        let mut payload = json!({ "certificate": base64url(bundle.leaf().der()) });
        if reason != Reason::Unspecified {
            payload["reason"] = reason.code().into();
        }
        let (member, own) = (self.member_if_usable().await?, SigningKey::from_pkcs8(bundle.key().pkcs8()));
        let mut signers: Vec<_> = member.as_ref().map(Member::signer).into_iter().chain(own.as_ref().map(Signer::Key)).collect();
        if reason == Reason::KeyCompromise {
            signers.reverse();
        }
        // What the first was told is what counts where the other fares no better.
        let mut refused = None;
        for signer in signers {
            match self.ask_to_revoke(signer, &payload).await {
                Ok(()) => return Ok(Revoked::Now),
                Err(error) if is_of_kind(&error, "alreadyRevoked") => return Ok(Revoked::Before),
                Err(error) if is_passing(&error) => return Err(explain(&self.options.name, Step::Revoke, &error)),
                Err(error) => drop(refused.get_or_insert(error)),
            }
        }
        Err(explain(&self.options.name, Step::Revoke, &refused.unwrap_or(Error::Str("a key that can sign"))))
    }
}

impl AcmeIssuer {
    async fn ask_to_revoke(&self, signer: Signer<'_>, payload: &Value) -> Result<(), Error> {
        let directory = self.fetch_directory().await?;
        let url = directory.revoke_cert.as_deref().ok_or(Error::Unsupported("revocation"))?;
        self.post(&directory, signer, url, Some(payload)).await.map(drop)
    }

    /// An account of another CA, or one that is damaged, must not be in the way: the certificate's own key will do.
    async fn member_if_usable(&self) -> Result<Option<Member>, IssueError> {
        match self.member().await {
            Err(IssueError::Refused { reason, .. }) => {
                tracing::info!(issuer = self.options.name, reason, "revoking without the account");
                Ok(None)
            }
            Err(IssueError::Account(error)) => {
                tracing::info!(issuer = self.options.name, %error, "revoking without the account");
                Ok(None)
            }
            found => found,
        }
    }
}
