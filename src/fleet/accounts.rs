//! The fleet's ACME accounts: one per issuer, sealed, created exclusively; and the keys they were to be given since.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::seal::Seal;
use crate::datastore::{Datastore, DatastoreError, PutMode};
use crate::domain::object_key::ObjectKey;
use crate::domain::record::{self, AccountRecord};
use crate::issuer::acme::{self, Accounts, AccountsError};
use crate::system::error_chain::in_full;

/// No account is given a new key more often: whoever finds so many is misled.
const MOST_ROLLOVERS: u32 = 1000;

/// One issuer's account, as `accounts/<issuer>`, and `rollovers/<issuer>/<number>`.
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
        let Some(kept) = self.read(&self.key).await? else { return Ok(None) };
        acme::thumbprint(&kept, directory).map(Some).map_err(|why| AccountsError {
            what: format!("the account {} is unusable: {why}", self.key),
            hint: format!("give the issuer another name, or delete the object {} to have a new account opened", self.key),
            source: None,
        })
    }

    fn seal(&self) -> Result<&Seal, AccountsError> {
        self.seal.get().ok_or_else(|| AccountsError {
            what: format!("the account {} was asked for before the seal was known", self.key),
            hint: "this is a fault of certfleet: please report it".to_owned(),
            source: None,
        })
    }

    async fn read(&self, key: &ObjectKey) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError> {
        let Some(bytes) = self.store.get(key).await.map_err(|error| unreachable(key, error))? else { return Ok(None) };
        let record: AccountRecord = record::read(&bytes).map_err(|error| unusable(key, &error))?;
        let text = self.seal()?.open(&record.account, &["account", key.as_str()]).map_err(|error| unusable(key, &error))?;
        Ok(Some(Zeroizing::new(text.as_bytes().to_vec())))
    }

    fn compose(&self, key: &ObjectKey, account: &[u8]) -> Result<bytes::Bytes, AccountsError> {
        let text = std::str::from_utf8(account).map_err(|error| unusable(key, &error))?;
        let account = self.seal()?.close(text, &["account", key.as_str()]).map_err(|error| unusable(key, &error))?;
        Ok(record::write(&AccountRecord { version: record::VERSION, account }).into())
    }

    /// Creates an object. Whatever the create answered, what lies there is the fleet's: ours, or that of a machine that was quicker.
    async fn create(&self, key: &ObjectKey, mine: &[u8]) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
        let created = self.store.put(key, self.compose(key, mine)?, PutMode::Create).await;
        match (self.read(key).await?, created) {
            (Some(kept), _) => Ok(kept),
            (None, Err(error)) => Err(unreachable(key, error)),
            (None, Ok(_)) => Err(AccountsError {
                what: format!("the account {key} was stored, and is not there when read back"),
                hint: "check the store's replication, and any program that removes objects".to_owned(),
                source: None,
            }),
        }
    }
}

#[async_trait]
impl Accounts for StoredAccount {
    async fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError> {
        self.read(&self.key).await
    }

    async fn keep_first(&self, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
        self.create(&self.key, &mine).await
    }

    async fn successors(&self, after: u32) -> Result<Vec<Zeroizing<Vec<u8>>>, AccountsError> {
        let mut found = Vec::new();
        for number in (after.saturating_add(1)..).take_while(|number| *number <= MOST_ROLLOVERS) {
            let Some(successor) = self.read(&ObjectKey::rollover(&self.key, number)).await? else { break };
            found.push(successor);
        }
        Ok(found)
    }

    async fn keep_successor(&self, number: u32, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
        self.create(&ObjectKey::rollover(&self.key, number), &mine).await
    }

    async fn replace(&self, account: Zeroizing<Vec<u8>>) -> Result<(), AccountsError> {
        let body = self.compose(&self.key, &account)?;
        self.store.put(&self.key, body, PutMode::Overwrite).await.map(drop).map_err(|error| unreachable(&self.key, error))
    }

    async fn forget(&self) -> Result<(), AccountsError> {
        self.store.delete(&self.key).await.map_err(|error| unreachable(&self.key, error))
    }
}

fn unreachable(key: &ObjectKey, error: DatastoreError) -> AccountsError {
    AccountsError { what: format!("the account {key} could not be reached"), hint: error.hint.clone(), source: Some(Box::new(error)) }
}

fn unusable(key: &ObjectKey, error: &dyn std::error::Error) -> AccountsError {
    // A successor may hold the only copy of the key that the CA knows by now.
    let way_out = if key.as_str().starts_with("rollovers/") {
        "restore that object from a version or a copy; where there is none, the account is lost: delete it and accounts/ of that issuer, and the next order opens another"
    } else {
        "to let the fleet make a new account, delete that object"
    };
    AccountsError {
        what: format!("the account {key} cannot be used: {}", in_full(error)),
        hint: format!("check the identity file; {way_out}"),
        source: None,
    }
}
