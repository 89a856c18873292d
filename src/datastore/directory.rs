//! A datastore in a directory: on one machine, or on a file system that several share.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};

use super::{Datastore, DatastoreError, Entry, FailureKind, Listing, Put, PutMode};
use crate::domain::object_key::ObjectKey;
use crate::system::files::{self, Creation, FileError, SECRET_DIRECTORY, SECRET_FILE};
use crate::system::steps;

/// See the module. An object is a file below `root`, under its key. A root that does not exist is an empty datastore, and made
/// by the first put.
#[derive(Clone, Debug)]
pub struct DirectoryDatastore {
    root: PathBuf,
}

impl DirectoryDatastore {
    /// A datastore in `root`. Nothing is read or made yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// Does the blocking `work` on a thread that may block: a sync takes as long as the disk does.
    async fn run<T, W>(&self, verb: &'static str, key: &str, work: W) -> Result<T, DatastoreError>
    where
        T: Send + 'static,
        W: FnOnce(&Path) -> io::Result<T> + Send + 'static,
    {
        let root = self.root.clone();
        let result = tokio::task::spawn_blocking(move || work(&root)).await;
        // It is not aborted, so it can only have panicked.
        let result = result.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        result.map_err(|source| failed(verb, &self.root.join(key), source))
    }
}

#[async_trait]
impl Datastore for DirectoryDatastore {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        let path = key.as_str().to_owned();
        self.run("get", key.as_str(), move |root| optional(fs::read(root.join(path))).map(|found| found.map(Bytes::from))).await
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
        let verb = match mode {
            PutMode::Create => "create",
            PutMode::Overwrite => "put",
        };
        let path = key.as_str().to_owned();
        self.run(verb, key.as_str(), move |root| put(&root.join(path), &body, mode).map_err(|error| error.source)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        let (wanted, after) = (prefix.to_owned(), start_after.map(str::to_owned));
        self.run("list", prefix, move |root| list(root, &wanted, after.as_deref())).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        let path = key.as_str().to_owned();
        self.run("delete", key.as_str(), move |root| delete(&root.join(path))).await
    }
}

fn put(path: &Path, body: &[u8], mode: PutMode) -> Result<Put, FileError> {
    let write = || match mode {
        PutMode::Create => files::create(path, body, SECRET_FILE),
        PutMode::Overwrite => files::replace(path, body, SECRET_FILE).map(|()| Creation::Created),
    };
    let written = match write() {
        Err(error) if error.source.kind() == ErrorKind::NotFound => {
            files::create_dir_all(path.parent().unwrap_or(path), SECRET_DIRECTORY)?;
            write()
        }
        written => written,
    };
    Ok(match written? {
        Creation::Created => Put::Stored,
        Creation::Exists => Put::Exists,
    })
}

fn delete(path: &Path) -> io::Result<()> {
    if optional(steps::before("delete", path).and_then(|()| fs::remove_file(path)))?.is_some() {
        files::sync(path.parent().unwrap_or(path))?;
    }
    Ok(())
}

fn list(root: &Path, prefix: &str, after: Option<&str>) -> io::Result<Listing> {
    // Before anything is read: no file can then be made out to be older than it was when it was listed.
    let now = filesystem_time(root);
    let (directory, _) = prefix.rsplit_once('/').unwrap_or_default();
    let mut entries = Vec::new();
    if directory.is_empty() || ObjectKey::from_listing(directory).is_some() {
        walk(&root.join(directory), directory, now, &mut entries)?;
    }
    entries.retain(|entry| entry.key.as_str().starts_with(prefix) && after.is_none_or(|after| entry.key.as_str() > after));
    entries.sort_by(|one, other| one.key.cmp(&other.key));
    Ok(Listing { entries, now: now.into() })
}

fn walk(directory: &Path, key: &str, now: SystemTime, entries: &mut Vec<Entry>) -> io::Result<()> {
    let mut leftovers = false;
    for file in optional(fs::read_dir(directory))?.into_iter().flatten() {
        let file = file?;
        leftovers |= files::is_temporary(&file.file_name());
        // Hidden files and names that are not text cannot be ours.
        let Some(name) = file.file_name().to_str().filter(|name| !name.starts_with('.')).map(str::to_owned) else { continue };
        let key = if key.is_empty() { name } else { format!("{key}/{name}") };
        // What is gone by now was deleted while we were looking.
        let Some(metadata) = optional(file.metadata())? else { continue };
        if metadata.is_dir() {
            walk(&file.path(), &key, now, entries)?;
        } else if let Some(key) = ObjectKey::from_listing(&key).filter(|_| metadata.is_file()) {
            entries.push(entry(key, &metadata));
        }
    }
    if leftovers {
        files::remove_leftovers(directory, now);
    }
    Ok(())
}

fn entry(key: ObjectKey, metadata: &Metadata) -> Entry {
    // The change time is that of the move that put the file in its place, and nobody can set it; the modification time is that
    // of the last byte written, before it was synced.
    let modified = (metadata.mtime(), metadata.mtime_nsec()).max((metadata.ctime(), metadata.ctime_nsec()));
    let last_modified = u32::try_from(modified.1).ok().and_then(|nanoseconds| DateTime::from_timestamp(modified.0, nanoseconds));
    Entry {
        key,
        etag: format!("{:x}-{:x}.{:09}-{:x}", metadata.ino(), modified.0, modified.1, metadata.len()),
        size_bytes: metadata.len(),
        last_modified: last_modified.unwrap_or(DateTime::<Utc>::MAX_UTC),
    }
}

/// The time by the clock that also dates the files, which on a network file system is the server's: that of a file without a
/// name, made for the purpose. Where none can be made, the system's.
fn filesystem_time(root: &Path) -> SystemTime {
    let unnamed = tempfile::tempfile_in(root);
    unnamed.and_then(|file| file.metadata()?.modified()).unwrap_or_else(|_| SystemTime::now())
}

/// `None` where there is nothing of that name, or not a file.
fn optional<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::IsADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn failed(verb: &str, path: &Path, source: io::Error) -> DatastoreError {
    let (kind, hint) = match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => (FailureKind::Lasting, "the disk is full: make room"),
        ErrorKind::ReadOnlyFilesystem => {
            (FailureKind::Lasting, "the file system is read-only: mount it for writing, or use another directory")
        }
        ErrorKind::PermissionDenied => (FailureKind::Lasting, "run as the directory's owner, or correct its owner and mode"),
        ErrorKind::Interrupted | ErrorKind::TimedOut | ErrorKind::StaleNetworkFileHandle | ErrorKind::ResourceBusy => {
            (FailureKind::Passing, "the file system did not answer: try again")
        }
        _ => (FailureKind::Lasting, "check the directory of the datastore"),
    };
    DatastoreError { call: format!("{verb} {}", path.display()), kind, hint: hint.to_owned(), source: Box::new(source) }
}
