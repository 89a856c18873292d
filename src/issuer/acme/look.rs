//! Looking at a CA without asking it for anything: what it offers, and whether it still knows the fleet's account.

use bytes::Bytes;
use http::Request;
use instant_acme::{Account, AccountCredentials, BodyWrapper, Error, HttpClient as _, Key};
use rustls::pki_types::PrivateKeyDer;
use serde::Deserialize;

use super::AcmeIssuer;
use super::attempts::Attempts;
use super::refusal::{Step, clip, explain, is_of_kind};
use crate::issuer::IssueError;

/// What a CA's directory says about it (RFC 8555 section 7.1.1).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Offer {
    /// Where its terms of service are.
    pub terms: Option<String>,
    /// Whether accounts must be bound to one of its customers.
    pub binding_required: bool,
    /// The certificate profiles that can be asked for, by name.
    pub profiles: Vec<String>,
}

/// The fleet's account, as the CA sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// The fleet keeps none yet: the first order opens it.
    NoneYet,
    /// The CA knows it, by this URL.
    Known(String),
}

/// The parts of a directory that everything else rests on, and what it says about the CA.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Directory {
    pub(super) new_nonce: String,
    #[serde(rename = "newAccount")]
    _new_account: String,
    #[serde(rename = "newOrder")]
    _new_order: String,
    pub(super) revoke_cert: Option<String>,
    pub(super) key_change: Option<String>,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    terms_of_service: Option<String>,
    #[serde(default)]
    external_account_required: bool,
    #[serde(default)]
    profiles: std::collections::BTreeMap<String, serde_json::Value>,
}

impl AcmeIssuer {
    /// The URL of the CA's directory.
    pub fn directory(&self) -> &str {
        &self.options.directory
    }

    /// Whether its accounts are bound to a customer of the CA.
    pub fn is_bound(&self) -> bool {
        self.options.eab.is_some()
    }

    /// Fetches the CA's directory.
    pub async fn offer(&self) -> Result<Offer, IssueError> {
        let mut attempts = Attempts::default();
        let directory = loop {
            match self.fetch_directory().await {
                Ok(directory) => break directory,
                Err(error) => attempts.again(error).await.map_err(|error| explain(&self.options.name, Step::Directory, &error))?,
            }
        };
        let Meta { terms_of_service, external_account_required, profiles } = directory.meta;
        Ok(Offer {
            terms: terms_of_service.map(|terms| clip(terms.as_bytes())),
            binding_required: external_account_required,
            profiles: profiles.into_keys().map(|name| clip(name.as_bytes())).collect(),
        })
    }

    /// Asks the CA whether it knows the account that the fleet keeps. It is not asked to open one (`onlyReturnExisting`, RFC 8555
    /// section 7.3.1), and an account that was deactivated is refused.
    pub async fn standing(&self) -> Result<Standing, IssueError> {
        let Some(kept) = self.options.accounts.load().await? else { return Ok(Standing::NoneYet) };
        let mut attempts = Attempts::default();
        loop {
            // A key cannot be copied: each try reads it anew.
            let credentials = self.credentials(&kept)?;
            match self.find(&credentials).await {
                Ok(account) => return Ok(Standing::Known(clip(account.id().as_bytes()))),
                Err(error) => attempts.again(error).await.map_err(|error| explain(&self.options.name, Step::Lookup, &error))?,
            }
        }
    }

    /// Whether the CA knows an account of this key.
    pub(super) async fn is_known(&self, kept: &[u8]) -> Result<bool, IssueError> {
        let mut attempts = Attempts::default();
        loop {
            match self.find(&self.credentials(kept)?).await {
                Ok(_) => return Ok(true),
                Err(error) if is_of_kind(&error, "accountDoesNotExist") => return Ok(false),
                Err(error) => attempts.again(error).await.map_err(|error| explain(&self.options.name, Step::Lookup, &error))?,
            }
        }
    }

    async fn find(&self, credentials: &AccountCredentials) -> Result<Account, Error> {
        let der = credentials.private_key();
        let key = (Key::from_pkcs8_der(der.clone_key())?, PrivateKeyDer::from(der.clone_key()));
        let builder = Account::builder_with_http(Box::new(self.client.clone()));
        Ok(builder.from_key(key, self.options.directory.clone()).await?.0)
    }

    pub(super) async fn fetch_directory(&self) -> Result<Directory, Error> {
        let body: BodyWrapper<Bytes> = BodyWrapper::default();
        let request = Request::get(&self.options.directory).body(body)?;
        let mut answer = self.client.request(request).await?;
        let body = answer.body.into_bytes().await.map_err(Error::Other)?;
        Ok(serde_json::from_slice(&body)?)
    }
}
