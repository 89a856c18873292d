//! Publication: the exclusive create of a generation. It is the fence on which all safety rests, and it is always proven.
//!
//! On a store that accepts second creates there is no fence: whoever publishes looks first, writes, waits, and looks again. What lies there
//! then is the generation, whoever wrote it; it is one object, so its key and its chain belong together whatever happens.

use bytes::Bytes;
use thiserror::Error;

use super::bundle_object::{self, OpenError, Opened};
use super::{Creates, Fleet};
use crate::datastore::{DatastoreError, Put, PutMode};
use crate::domain::candidacy::SETTLING;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::site::SiteName;
use crate::system::clock;

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
    /// The program is to end: what was sent is not looked at any more.
    #[error("interrupted before {0} was proven")]
    Interrupted(ObjectKey),
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

impl Fleet {
    /// Creates a generation and reads it back. Whatever the create answered, or if it did not answer, what lies there decides.
    pub(super) async fn publish(&self, site: &SiteName, generation: Generation, object: Bytes) -> Result<Published, PublishError> {
        let key = ObjectKey::bundle(site, generation);
        let unfenced = self.creates == Creates::BestEffort;
        if unfenced && let Some(found) = self.store.get(&key).await? {
            return self.published(site, generation, key, &object, &found);
        }
        let created = self.store.put(&key, object.clone(), PutMode::Create).await;
        if unfenced {
            // Whoever looked before ours was there has written by the time that we look again, and looks after us.
            tokio::select! {
                biased;
                () = self.interrupt.cancelled() => return Err(created.err().map_or(PublishError::Interrupted(key), Into::into)),
                () = clock::sleep(SETTLING) => {}
            }
        }
        match (created, self.store.get(&key).await?) {
            (Ok(Put::Stored), Some(found)) if found != object && !unfenced => Err(PublishError::OtherBytes(key)),
            (_, Some(found)) => self.published(site, generation, key, &object, &found),
            (Ok(Put::Stored | Put::Exists), None) => Err(PublishError::Vanished(key)),
            (Err(error), None) => Err(error.into()),
        }
    }

    fn published(
        &self,
        site: &SiteName,
        generation: Generation,
        key: ObjectKey,
        object: &Bytes,
        found: &Bytes,
    ) -> Result<Published, PublishError> {
        if found != object {
            return Ok(Published::Taken);
        }
        match bundle_object::open(&self.seal, site, generation, found) {
            Ok(opened) => Ok(Published::Proven(Box::new(opened))),
            Err(source) => Err(PublishError::Unusable { key, source }),
        }
    }
}
