//! The fleet's ACME accounts: one per issuer, sealed, created exclusively.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::seal::Seal;
use crate::datastore::{Datastore, DatastoreError, PutMode};
use crate::domain::object_key::ObjectKey;
use crate::domain::record::{self, AccountRecord};
use crate::issuer::acme::{self, Accounts, AccountsError};
use crate::system::error_chain::in_full;

/// One issuer's account, as `accounts/<issuer>`.
#[derive(Debug)]
pub struct StoredAccount {
    store: Arc<dyn Datastore>,
    seal: Arc<OnceLock<Seal>>,
    key: ObjectKey,
}

impl StoredAccount {
    /// The account kept at `key`. The seal is known only after the datastore has been looked at: by then `seal` must hold it.
    pub fn new(store: Arc<dyn Datastore>, seal: Arc<OnceLock<Seal>>, key: ObjectKey) -> Self {
        Self { store, seal, key }
    }

    /// The thumbprint of the account's key, which must be one at the CA with that directory; `None` where none is kept yet.
    pub async fn thumbprint(&self, directory: &str) -> Result<Option<String>, AccountsError> {
        let Some(kept) = self.read().await? else { return Ok(None) };
        acme::thumbprint(&kept, directory).map(Some).map_err(|why| AccountsError {
            what: format!("the account {} is unusable: {why}", self.key),
            hint: format!("give the issuer another name, or delete the object {} to have a new account opened", self.key),
            source: None,
        })
    }

    fn unreachable(&self, error: DatastoreError) -> AccountsError {
        let hint = error.hint.clone();
        AccountsError { what: format!("the account {} could not be reached", self.key), hint, source: Some(Box::new(error)) }
    }

    fn unusable(&self, error: &dyn std::error::Error) -> AccountsError {
        AccountsError {
            what: format!("the account {} cannot be used: {}", self.key, in_full(error)),
            hint: "check the identity file; to let the fleet make a new account, delete that object".to_owned(),
            source: None,
        }
    }

    fn seal(&self) -> Result<&Seal, AccountsError> {
        self.seal.get().ok_or_else(|| AccountsError {
            what: format!("the account {} was asked for before the seal was known", self.key),
            hint: "this is a fault of certfleet: please report it".to_owned(),
            source: None,
        })
    }

    async fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError> {
        let Some(bytes) = self.store.get(&self.key).await.map_err(|error| self.unreachable(error))? else { return Ok(None) };
        let record: AccountRecord = record::read(&bytes).map_err(|error| self.unusable(&error))?;
        let text = self.seal()?.open(&record.account, &["account", self.key.as_str()]).map_err(|error| self.unusable(&error))?;
        Ok(Some(Zeroizing::new(text.as_bytes().to_vec())))
    }
}

#[async_trait]
impl Accounts for StoredAccount {
    async fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError> {
        self.read().await
    }

    async fn keep_first(&self, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
        let text = std::str::from_utf8(&mine).map_err(|error| self.unusable(&error))?;
        let account = self.seal()?.close(text, &["account", self.key.as_str()]).map_err(|error| self.unusable(&error))?;
        let body = record::write(&AccountRecord { version: record::VERSION, account }).into();
        let created = self.store.put(&self.key, body, PutMode::Create).await;
        // Whatever the create answered, what lies there is the fleet's account: ours, or that of a machine that was quicker.
        match (self.read().await?, created) {
            (Some(kept), _) => Ok(kept),
            (None, Err(error)) => Err(self.unreachable(error)),
            (None, Ok(_)) => Err(AccountsError {
                what: format!("the account {} was stored, and is not there when read back", self.key),
                hint: "check the store's replication, and any program that removes objects".to_owned(),
                source: None,
            }),
        }
    }
}
