//! The spool: what a CA has issued lies on this disk before it is uploaded, and until the upload is proven; and so does the order before that.

use std::io;
use std::path::PathBuf;

use crate::domain::record::{self, KeptOrder};
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

    fn order_path(&self, site: &SiteName) -> PathBuf {
        self.directory.join("orders").join(format!("{}.json", site.file_name()))
    }

    /// Makes sure that an entry can be written: a full disk must stop a run before a CA has issued anything, not after.
    pub fn make_room(&self) -> Result<(), FileError> {
        files::create_dir_all(&self.directory.join("orders"), files::SECRET_DIRECTORY)?;
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

    /// Writes down an order that was placed; when this returns it survives a crash.
    pub fn keep_order(&self, site: &SiteName, order: &KeptOrder) -> Result<(), FileError> {
        files::replace(&self.order_path(site), &record::write(order), files::SECRET_FILE)
    }

    /// The order that was last placed here for a site. One that cannot be read is none: the lease may have it, and it runs out by itself.
    pub fn order(&self, site: &SiteName) -> Option<KeptOrder> {
        record::read(&std::fs::read(self.order_path(site)).ok()?).ok()
    }

    /// Removes an entry whose upload is proven, or that nobody needs any more, and the order before it.
    pub fn clear(&self, site: &SiteName) -> Result<(), FileError> {
        directories::remove_file(&self.path(site))?;
        directories::remove_file(&self.order_path(site))
    }
}
