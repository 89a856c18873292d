//! The manifest: written at the first use of a datastore, read at every other.

use std::path::PathBuf;

use thiserror::Error;

use super::identity::{self, IdentityError, SealWanted};
use super::progress::Progress;
use super::seal::Seal;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, DatastoreError, Put, PutMode, probe};
use crate::domain::candidacy::SETTLING;
use crate::domain::object_key::ObjectKey;
use crate::domain::record::{self, ExclusiveCreate, Manifest, RecordError};
use crate::system::{clock, directories, random};

/// A datastore that cannot be used, or not with this configuration.
#[derive(Debug, Error)]
pub enum FirstUseError {
    /// The store did not answer, or refused the call.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// No identity, or another one.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The manifest is not what this release can use.
    #[error("the datastore's manifest {} cannot be used", ObjectKey::manifest())]
    Manifest(#[source] RecordError),
    /// The store refuses to create the manifest, and does not have it.
    #[error("the datastore refuses to create {} because it exists, and does not have it when asked for it", ObjectKey::manifest())]
    Vanished,
    /// There is no manifest, but there are bundles: making a new identity would lock the fleet out of them.
    #[error("the datastore holds bundles but no manifest {}, and the identity file {} is missing", ObjectKey::manifest(), path.display())]
    Headless {
        /// Where the identity should be.
        path: PathBuf,
    },
}

/// Reads the manifest and finds the seal to it; `None` at the first use.
pub async fn known(store: &dyn Datastore, wanted: &SealWanted) -> Result<Option<(Manifest, Seal)>, FirstUseError> {
    let Some(bytes) = store.get(&ObjectKey::manifest()).await? else { return Ok(None) };
    let manifest: Manifest = record::read(&bytes).map_err(FirstUseError::Manifest)?;
    let seal = identity::seal_of_known(wanted, &manifest)?;
    Ok(Some((manifest, seal)))
}

/// Prepares a datastore that has not been used before: finds or makes the identity, races creates against each other to find out
/// whether the store honours them, and writes the manifest. Nothing is issued before this has shown that the store can be written.
pub async fn prepare(
    store: &dyn Datastore,
    wanted: &SealWanted,
    snapshot: &Snapshot,
    run: &str,
    progress: &dyn Progress,
) -> Result<(Manifest, Seal), FirstUseError> {
    if let SealWanted::Age(identity::IdentityPlace::File(path)) = wanted
        && snapshot.has_bundles()
        && !path.exists()
    {
        return Err(FirstUseError::Headless { path: path.clone() });
    }
    let exclusive_create = probe::exclusive_create(store, run).await?;
    let (seal, made) = identity::seal_at_first_use(wanted)?;
    if let Some(path) = &made {
        // At once: from here on the file stays, whatever ends this run.
        progress.note(&format!(
            "made the fleet's identity {}: it opens every private key in the datastore. Keep a copy somewhere safe, and give it to your webservers.",
            path.display()
        ));
    }
    let manifest = Manifest {
        version: record::VERSION,
        fleet: random::name(),
        recipient: seal.recipient(),
        exclusive_create,
        probed_at: snapshot.clock().now(),
    };
    let put = create(store, &manifest).await?;
    if put == Put::Stored && exclusive_create == ExclusiveCreate::Honoured {
        progress.note("the datastore is new, and refuses the second of two creates, as it must");
        return Ok((manifest, seal));
    }
    // Another machine was first, or the create that was refused is the second sending of ours.
    let kept = store.get(&ObjectKey::manifest()).await?.ok_or(FirstUseError::Vanished)?;
    let kept: Manifest = record::read(&kept).map_err(FirstUseError::Manifest)?;
    if let (Some(path), true) = (made, kept.recipient != manifest.recipient) {
        // The identity made a moment ago is nobody's: the fleet has one, which must be brought here.
        directories::remove_file(&path).map_err(IdentityError::from)?;
        progress.note(&format!("removed the identity {} again: another machine was first, and the fleet has its identity", path.display()));
    }
    Ok((kept.clone(), identity::seal_of_known(wanted, &kept)?))
}

/// Creates the manifest. Where the store accepts second creates, a fleet would have two identities if two machines began at the same time:
/// whoever finds none writes, and waits until what the other has written can be seen. What is read then is what both go by.
async fn create(store: &dyn Datastore, manifest: &Manifest) -> Result<Put, DatastoreError> {
    let key = ObjectKey::manifest();
    let decides = manifest.exclusive_create == ExclusiveCreate::Honoured;
    // It may have come while creates were raced.
    if !decides && store.get(&key).await?.is_some() {
        return Ok(Put::Exists);
    }
    let put = store.put(&key, record::write(manifest).into(), PutMode::Create).await?;
    if !decides {
        clock::sleep(SETTLING).await;
    }
    Ok(put)
}
