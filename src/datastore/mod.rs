//! Where a fleet keeps everything it shares: an object store, seen through four calls.

use std::fmt;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use thiserror::Error;

use crate::domain::object_key::ObjectKey;

pub mod directory;
pub mod memory;
pub mod probe;
pub mod s3;

/// An object store. Every backend passes one and the same contract suite (`tests/it/datastore.rs`).
///
/// There is no compare-and-swap: stores disagree about `If-Match` far more than about `If-None-Match: *`, and nothing here needs it.
#[async_trait]
pub trait Datastore: fmt::Debug + Send + Sync {
    /// The whole object, or `None` where there is none. Never part of one, and never a mixture of two.
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError>;

    /// Stores an object. When this returns [`Put::Stored`], every later `get` and `list` by anybody sees it, also after a crash.
    ///
    /// With [`PutMode::Create`], [`Put::Exists`] may also stand for a create of one's own whose answer was lost and that was
    /// sent again: the caller reads the object to find out. An error leaves it open whether the object was stored.
    async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError>;

    /// Every object whose key begins with `prefix` and comes after `start_after`, in the order of the keys' bytes. Pages are
    /// fetched until there are no more. Objects whose keys cannot be ours are left out.
    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError>;

    /// Removes an object; removing what is not there succeeds.
    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError>;
}

/// What a store does when the key is taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PutMode {
    /// Refuse: of any number of creates, one wins (`If-None-Match: *`).
    Create,
    /// Replace it.
    Overwrite,
}

/// What became of a put.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Put {
    /// The object is as it was sent.
    Stored,
    /// A create was refused, because the key is taken.
    Exists,
}

/// One listing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listing {
    /// Its objects, in the order of their keys.
    pub entries: Vec<Entry>,
    /// The store's own time when it answered: the only clock that ages are measured by.
    pub now: DateTime<Utc>,
}

/// One listed object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Its key, without the datastore's own prefix.
    pub key: ObjectKey,
    /// Changes when the content does; empty where the store does not list it.
    pub etag: String,
    /// Its length.
    pub size_bytes: u64,
    /// When it was last stored, by the store's clock.
    pub last_modified: DateTime<Utc>,
}

/// A call that a store did not carry out.
#[derive(Debug, Error)]
#[error("{call} failed")]
pub struct DatastoreError {
    /// What was asked, with its object: "get s3://bucket/prefix/certfleet.json".
    pub call: String,
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What the person at the keyboard can check.
    pub hint: String,
    /// What the store, or the way to it, said.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// What a failed call means for the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailureKind {
    /// It will fail again until a person changes something: no such bucket, access denied, certificate refused.
    Lasting,
    /// The same call may succeed later: unreachable, timed out, throttled, 5xx.
    Passing,
}
