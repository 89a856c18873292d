//! The spool: what a CA has issued lies on this disk before it is uploaded, and until the upload is proven.

use std::io;
use std::path::PathBuf;

use crate::domain::site::SiteName;
use crate::system::directories;
use crate::system::files::{self, FileError};

/// More than any bundle object needs: room is made before anything is ordered.
const ROOM_BYTES: u64 = 65_536;

/// The spool directory of a build. An entry holds the very bytes that are, or will be, the object.
#[derive(Clone, Debug)]
pub struct Spool {
    directory: PathBuf,
}

impl Spool {
    /// The spool in `directory`.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Where a site's entry is.
    pub fn path(&self, site: &SiteName) -> PathBuf {
        self.directory.join(format!("{}.json", site.file_name()))
    }

    /// Makes sure that an entry can be written: a full disk must stop a run before a CA has issued anything, not after.
    pub fn make_room(&self) -> Result<(), FileError> {
        files::create_dir_all(&self.directory, files::SECRET_DIRECTORY)?;
        files::make_room(&self.directory, ROOM_BYTES)
    }

    /// Writes an entry; when this returns it survives a crash.
    pub fn keep(&self, site: &SiteName, object: &[u8]) -> Result<(), FileError> {
        files::replace(&self.path(site), object, 0o600)
    }

    /// Reads an entry.
    pub fn read(&self, site: &SiteName) -> Result<Option<Vec<u8>>, io::Error> {
        match std::fs::read(self.path(site)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry whose upload is proven, or that nobody needs any more.
    pub fn clear(&self, site: &SiteName) -> Result<(), FileError> {
        directories::remove_file(&self.path(site))
    }
}
