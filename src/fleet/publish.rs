//! Publication: the exclusive create of a generation. It is the fence on which all safety rests, and it is always proven.

use bytes::Bytes;
use thiserror::Error;

use super::bundle_object::{self, OpenError, Opened};
use super::seal::Seal;
use crate::datastore::{Datastore, DatastoreError, Put, PutMode};
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::site::SiteName;

/// How a publication went.
#[derive(Debug)]
pub enum Published {
    /// The object lies in the datastore, byte for byte, and was read back as the bundle it is.
    Proven(Box<Opened>),
    /// The generation exists with another content: ours is not needed.
    Taken,
}

/// A publication that cannot be proven.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The store did not answer, or refused the call.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// The store took the object and does not have it.
    #[error("{0} was stored, and is not there when read back")]
    Vanished(ObjectKey),
    /// The store took the object and has another.
    #[error("{0} was stored, and other bytes come back when it is read")]
    OtherBytes(ObjectKey),
    /// What came back is byte for byte what was sent, and cannot be used.
    #[error("{key} cannot be used after all")]
    Unusable {
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: OpenError,
    },
}

/// Creates a generation and reads it back. Whatever the create answered, or if it did not answer, what lies there decides.
pub async fn publish(
    store: &dyn Datastore,
    seal: &Seal,
    site: &SiteName,
    generation: Generation,
    object: Bytes,
) -> Result<Published, PublishError> {
    let key = ObjectKey::bundle(site, generation);
    let created = store.put(&key, object.clone(), PutMode::Create).await;
    let found = store.get(&key).await?;
    match (created, found) {
        (_, Some(found)) if found == object => match bundle_object::open(seal, site, generation, &found) {
            Ok(opened) => Ok(Published::Proven(Box::new(opened))),
            Err(source) => Err(PublishError::Unusable { key, source }),
        },
        (Ok(Put::Stored), Some(_)) => Err(PublishError::OtherBytes(key)),
        (Ok(Put::Stored | Put::Exists), None) => Err(PublishError::Vanished(key)),
        (Err(error), None) => Err(error.into()),
        (Ok(Put::Exists) | Err(_), Some(_)) => Ok(Published::Taken),
    }
}
