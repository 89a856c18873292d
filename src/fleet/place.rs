//! The working directory of a machine: its lock, its name, and the spool.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use thiserror::Error;

use super::spool::Spool;
use crate::domain::certificate::hex;
use crate::system::files::{self, FileError};
use crate::system::lock::{Lock, LockError};
use crate::system::random;

/// A place that this run holds: no other run works there, and any earlier run there is over.
#[derive(Debug)]
pub struct Place {
    directory: PathBuf,
    id: String,
    _lock: Lock,
}

/// A place that cannot be worked in.
#[derive(Debug, Error)]
pub enum PlaceError {
    /// A file in it cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Another run is at work there.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl Place {
    /// Takes the place in `directory`, making it where it is missing, and waiting for `patience` at most while another run has it.
    pub async fn take(directory: PathBuf, patience: Duration, waiting: impl FnOnce(&str)) -> Result<Self, PlaceError> {
        files::create_dir_all(&directory, files::SECRET_DIRECTORY)?;
        let lock = Lock::take(&directory.join("lock"), patience, waiting).await?;
        files::remove_leftovers(&directory, std::time::SystemTime::now());
        let id = id(&directory)?;
        Ok(Self { directory, id, _lock: lock })
    }

    /// The place's name, which leases carry.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The spool in it.
    pub fn spool(&self) -> Spool {
        spool_in(&self.directory)
    }
}

/// The spool of a place, for those who only look.
pub fn spool_in(directory: &Path) -> Spool {
    Spool::new(directory.join("spool"))
}

/// A random name kept in the directory, bound to the machine: a copied disk is another place.
fn id(directory: &Path) -> Result<String, PlaceError> {
    let path = directory.join("place");
    files::create(&path, random::name().as_bytes(), files::SECRET_FILE)?;
    let own = files::read(&path)?;
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let host = rustix::system::uname().nodename().to_bytes().to_vec();
    let whole = [own, machine, host].join(&b'\n');
    Ok(hex(&digest::digest(&digest::SHA256, &whole).as_ref()[..16]))
}
