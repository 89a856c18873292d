//! Reading one bundle, for those who only look.

use thiserror::Error;

use super::Fleet;
use super::bundle_object::{self, OpenError, Opened};
use super::snapshot::Snapshot;
use crate::datastore::DatastoreError;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::site::SiteName;

/// A bundle that cannot be read.
#[derive(Debug, Error)]
pub enum LookError {
    /// The store did not answer, or refused the call.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// There is none.
    #[error("the datastore has no bundle of {0}")]
    Absent(SiteName),
    /// It cannot be opened.
    #[error("{key} cannot be used")]
    Unusable {
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: OpenError,
    },
}

impl Fleet {
    /// The site's highest generation, proven, whatever its dates.
    pub async fn stored_bundle(&self, site: &SiteName, snapshot: &Snapshot) -> Result<Opened, LookError> {
        let highest = snapshot.highest(site);
        let key = ObjectKey::bundle(site, highest);
        let bytes = if highest == Generation(0) { None } else { self.store.get(&key).await? };
        let bytes = bytes.ok_or_else(|| LookError::Absent(site.clone()))?;
        bundle_object::open(&self.seal, site, highest, &bytes).map_err(|source| LookError::Unusable { key, source })
    }
}
