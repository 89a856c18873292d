//! A datastore in memory, for tests: exact, and on tokio's clock, so that paused time moves it too.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use aws_lc_rs::digest;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::{Datastore, DatastoreError, Entry, Listing, Put, PutMode};
use crate::domain::certificate::hex;
use crate::domain::object_key::ObjectKey;

/// See the module.
#[derive(Debug)]
pub struct MemoryDatastore {
    objects: Mutex<BTreeMap<ObjectKey, Object>>,
    born: (DateTime<Utc>, Instant),
}

#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    last_modified: DateTime<Utc>,
}

impl MemoryDatastore {
    /// An empty datastore whose clock shows `now`.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { objects: Mutex::default(), born: (now, Instant::now()) }
    }

    fn now(&self) -> DateTime<Utc> {
        self.born.0 + self.born.1.elapsed()
    }

    fn objects(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectKey, Object>> {
        self.objects.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[async_trait]
impl Datastore for MemoryDatastore {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        Ok(self.objects().get(key).map(|object| object.body.clone()))
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
        let mut objects = self.objects();
        if mode == PutMode::Create && objects.contains_key(key) {
            return Ok(Put::Exists);
        }
        objects.insert(key.clone(), Object { body, last_modified: self.now() });
        Ok(Put::Stored)
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        let objects = self.objects();
        let wanted = |key: &&ObjectKey| key.as_str().starts_with(prefix) && start_after.is_none_or(|after| key.as_str() > after);
        let entry = |key: &ObjectKey| {
            let object = &objects[key];
            Entry {
                key: key.clone(),
                etag: hex(digest::digest(&digest::SHA256, &object.body).as_ref()),
                size_bytes: object.body.len() as u64,
                last_modified: object.last_modified,
            }
        };
        Ok(Listing { entries: objects.keys().filter(wanted).map(entry).collect(), now: self.now() })
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        self.objects().remove(key);
        Ok(())
    }
}
