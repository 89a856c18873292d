//! The account at the CA: one per fleet and issuer, made by whoever needs it first.

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use instant_acme::{Account, AccountCredentials, ExternalAccountKey, NewAccount};
use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use super::attempts::Attempts;
use super::jws::SigningKey;
use super::refusal::{Step, explain};
use super::{AcmeIssuer, OpenAccount};
use crate::issuer::IssueError;

/// Room for any account without growing: growing would leave copies of the key behind in memory.
pub(super) const ACCOUNT_BYTES: usize = 4096;

/// Where the fleet keeps one issuer's account. What is kept is secret: it holds the account's private key.
#[async_trait]
pub trait Accounts: std::fmt::Debug + Send + Sync {
    /// The account, if one was kept.
    async fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError>;

    /// Keeps `mine`, unless there is one by now. Returns the account that is kept from now on, `mine` or another machine's.
    async fn keep_first(&self, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError>;

    /// What was kept for the changes of key after number `after`, in order and without a gap.
    async fn successors(&self, after: u32) -> Result<Vec<Zeroizing<Vec<u8>>>, AccountsError>;

    /// Keeps `mine` for the change of key `number`, unless there is one by now. Returns what is kept, `mine` or another machine's.
    async fn keep_successor(&self, number: u32, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError>;

    /// Keeps `account` in the place of whatever is there.
    async fn replace(&self, account: Zeroizing<Vec<u8>>) -> Result<(), AccountsError>;

    /// Keeps none any more.
    async fn forget(&self) -> Result<(), AccountsError>;
}

/// The account could not be read or kept.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct AccountsError {
    /// What failed, with its object.
    pub what: String,
    /// What a person can do about it.
    pub hint: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// External account binding (RFC 8555 section 7.3.4): which customer of the CA the account belongs to.
#[derive(Clone)]
pub struct ExternalAccount {
    /// The key identifier that the CA gave.
    pub kid: String,
    /// The MAC key that the CA gave, base64url.
    pub hmac_key: Zeroizing<String>,
}

impl std::fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalAccount").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl ExternalAccount {
    /// The MAC key itself, or `None` where it is not base64url. CAs print it with and without padding.
    pub(super) fn mac_key(&self) -> Option<Zeroizing<Vec<u8>>> {
        let text = self.hmac_key.trim().trim_end_matches('=');
        let key = Zeroizing::new(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?);
        (!key.is_empty()).then_some(key)
    }
}

/// What of a kept account the library does not show, or does not know.
#[derive(Deserialize)]
pub(super) struct Kept {
    /// Its URL.
    pub(super) id: String,
    directory: Option<String>,
    /// How often its key was changed.
    #[serde(default)]
    pub(super) rollover: u32,
}

/// Who is told of each step.
pub type Told<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// The thumbprint (RFC 7638) of the key of a kept account, which must be one at the CA with that directory; else why there is none.
pub fn thumbprint(kept: &[u8], directory: &str) -> Result<String, String> {
    let unreadable = |_| "it cannot be read".to_owned();
    let theirs = serde_json::from_slice::<Kept>(kept).map_err(unreadable)?.directory.unwrap_or_default();
    if theirs != directory {
        return Err(format!("it belongs to {theirs}, and the configuration says {directory}"));
    }
    let credentials: AccountCredentials = serde_json::from_slice(kept).map_err(unreadable)?;
    let key = SigningKey::from_pkcs8(credentials.private_key().secret_pkcs8_der());
    Ok(key.ok_or("its key is of a kind that certfleet does not make")?.thumbprint())
}

impl AcmeIssuer {
    /// The account, opened once per process however many sites are issued at once.
    pub(super) async fn account(&self, told: Told<'_>) -> Result<&OpenAccount, IssueError> {
        self.account.get_or_try_init(|| self.opened(told)).await
    }

    /// Opens the account, if the fleet has none yet, and yields the thumbprint of its key.
    pub async fn open_account(&self, told: Told<'_>) -> Result<String, IssueError> {
        Ok(self.account(told).await?.library.key_thumbprint().to_owned())
    }

    async fn opened(&self, told: Told<'_>) -> Result<OpenAccount, IssueError> {
        match self.kept().await? {
            Some(kept) => self.open_kept(&kept).await,
            None => self.open_new(told).await,
        }
    }

    /// The account that the fleet keeps, with the key that the CA knows: a change of key may have got no further than there.
    pub(super) async fn kept(&self) -> Result<Option<Zeroizing<Vec<u8>>>, IssueError> {
        let accounts = &self.options.accounts;
        let Some(kept) = accounts.load().await? else { return Ok(None) };
        let known = self.read_kept(&kept)?;
        for successor in accounts.successors(known.rollover).await?.into_iter().rev() {
            if self.read_kept(&successor)?.id == known.id && self.is_known(&successor).await? {
                accounts.replace(successor.clone()).await?;
                return Ok(Some(successor));
            }
        }
        Ok(Some(kept))
    }

    /// Opens an account at the CA and keeps it, unless another machine's was kept meanwhile: then that one is the fleet's.
    async fn open_new(&self, told: Told<'_>) -> Result<OpenAccount, IssueError> {
        told("opening an account");
        let (account, mine) = match self.register().await {
            Ok(made) => made,
            // Another machine may have used the binding up, which is often good for one account only: then its account is there by now.
            Err(refused) => match self.options.accounts.load().await {
                Ok(Some(kept)) => return self.open_kept(&kept).await,
                _ => return Err(refused),
            },
        };
        let kept = self.options.accounts.keep_first(mine.clone()).await?;
        if *kept == *mine {
            return Ok(OpenAccount { library: account, key: self.signing_key(&self.credentials(&mine)?)? });
        }
        // Nobody knows its key any more after this: no use to leave it open. But nothing depends on it either.
        if let Err(error) = account.deactivate().await {
            tracing::debug!(issuer = self.options.name, %error, "a surplus account could not be deactivated");
        }
        self.open_kept(&kept).await
    }

    async fn register(&self) -> Result<(Account, Zeroizing<Vec<u8>>), IssueError> {
        let contact = self.options.contact.as_ref().map(|address| format!("mailto:{address}"));
        let contact: Vec<_> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
        let binding = self.options.eab.as_ref().and_then(|eab| Some(ExternalAccountKey::new(eab.kid.clone(), &eab.mac_key()?)));
        let mut attempts = Attempts::default();
        let (account, credentials) = loop {
            let builder = Account::builder_with_http(Box::new(self.client.clone()));
            match builder.create(&wanted, self.options.directory.clone(), binding.as_ref()).await {
                Ok(made) => break made,
                Err(error) => attempts.again(error).await.map_err(|error| explain(&self.options.name, Step::Account, &error))?,
            }
        };
        let mut mine = Zeroizing::new(Vec::with_capacity(ACCOUNT_BYTES));
        serde_json::to_writer(&mut *mine, &credentials).map_err(|error| self.unusable(&format!("it cannot be written down: {error}")))?;
        Ok((account, mine))
    }

    async fn open_kept(&self, kept: &[u8]) -> Result<OpenAccount, IssueError> {
        let mut attempts = Attempts::default();
        loop {
            let credentials = self.credentials(kept)?;
            let key = self.signing_key(&credentials)?;
            match Account::builder_with_http(Box::new(self.client.clone())).from_credentials(credentials).await {
                Ok(library) => return Ok(OpenAccount { library, key }),
                Err(error) => attempts.again(error).await.map_err(|error| explain(&self.options.name, Step::Account, &error))?,
            }
        }
    }

    /// Reads a kept account, which must be one at this CA.
    pub(super) fn credentials(&self, kept: &[u8]) -> Result<AccountCredentials, IssueError> {
        self.read_kept(kept)?;
        serde_json::from_slice(kept).map_err(|_| self.unusable("it cannot be read"))
    }

    pub(super) fn read_kept(&self, kept: &[u8]) -> Result<Kept, IssueError> {
        let read: Kept = serde_json::from_slice(kept).map_err(|_| self.unusable("it cannot be read"))?;
        let directory = read.directory.as_deref().unwrap_or_default();
        if directory == self.options.directory {
            return Ok(read);
        }
        Err(self.unusable(&format!("it belongs to {directory}, and the configuration says {}", self.options.directory)))
    }

    pub(super) fn signing_key(&self, credentials: &AccountCredentials) -> Result<SigningKey, IssueError> {
        SigningKey::from_pkcs8(credentials.private_key().secret_pkcs8_der()).ok_or_else(|| self.unusable("its key cannot be used"))
    }

    pub(super) fn unusable(&self, why: &str) -> IssueError {
        let name = &self.options.name;
        IssueError::Refused {
            reason: format!("the account that the fleet keeps for it is unusable: {why}"),
            hint: format!("give the issuer another name, or delete the object accounts/{name} to have a new account opened"),
            retry_after: None,
        }
    }
}
