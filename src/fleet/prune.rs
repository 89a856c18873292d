//! `prune`: deletes what nobody needs. One listing, the nodes' reports, then the deletes.

use chrono::{DateTime, Utc};
use futures_util::stream::{self, StreamExt as _};
use thiserror::Error;

use super::snapshot::Snapshot;
use super::status::REQUESTS_AT_ONCE;
use crate::datastore::{Datastore, DatastoreError, Listing};
use crate::domain::fleet_status::ObservedNode;
use crate::domain::object_key::ObjectKey;
use crate::domain::prune::{Inventory, Needless, PrunePlan, Retention, prune};

/// What was deleted, and what could not be.
#[derive(Debug, Default)]
pub struct Pruned {
    /// Gone.
    pub deleted: Vec<(ObjectKey, Needless)>,
    /// Still there.
    pub failed: Vec<DatastoreError>,
}

/// Why nothing may be deleted.
#[derive(Debug, Error)]
pub enum PruneError {
    /// The store did not answer, or refused the call.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// There are bundles but no manifest: whether they are this fleet's cannot be told.
    #[error("the datastore holds bundles but no manifest {}: nothing tells whose they are", ObjectKey::manifest())]
    Headless,
}

/// Decides what nobody needs, by what a listing of everything and the nodes' reports say. `now` is the store's.
pub fn plan(listing: &Listing, nodes: Vec<ObservedNode>, now: DateTime<Utc>, retention: Retention) -> PrunePlan {
    let objects = listing.entries.iter().map(|entry| (entry.key.clone(), entry.last_modified)).collect();
    prune(&Inventory { now, objects, nodes }, retention)
}

/// Lists everything, once, and reads it as bundles and leases too. Without a manifest nobody's identity can be refused.
pub async fn list(store: &dyn Datastore) -> Result<(Listing, Snapshot), PruneError> {
    let listing = store.list("", None).await?;
    let snapshot = Snapshot::read(&listing);
    match (snapshot.has_bundles(), snapshot.manifest_etag()) {
        (true, None) => Err(PruneError::Headless),
        _ => Ok((listing, snapshot)),
    }
}

/// Carries a plan out, many deletes at a time. One that fails holds up no other.
pub async fn execute(store: &dyn Datastore, plan: &PrunePlan) -> Pruned {
    let delete = |(key, why): &(ObjectKey, Needless)| {
        let (key, why) = (key.clone(), *why);
        async move { store.delete(&key).await.map(|()| (key, why)) }
    };
    let deleted: Vec<_> = stream::iter(&plan.delete).map(delete).buffered(REQUESTS_AT_ONCE).collect().await;
    let mut pruned = Pruned::default();
    for result in deleted {
        match result {
            Ok(deleted) => pruned.deleted.push(deleted),
            Err(error) => pruned.failed.push(error),
        }
    }
    pruned
}
