//! Durable files: the one place with the steps that make a file appear whole, or not at all, and survive a power cut.
//!
//! A file is written beside its place under a hidden name, synced, moved there in one step, and its directory synced. A run that
//! is killed in between leaves only the hidden file, which [`remove_leftovers`] takes away.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use tempfile::NamedTempFile;
use thiserror::Error;
use zeroize::Zeroizing;

use super::owner::Owner;
use super::{random, steps};

/// The mode of files that hold secrets.
pub const SECRET_FILE: u32 = 0o600;

/// The mode of directories that hold secrets.
pub const SECRET_DIRECTORY: u32 = 0o700;

/// What files that are still being written are called like.
const TEMPORARY_PREFIX: &str = ".certfleet-";

/// A hidden file older than this belongs to no living run: writing one takes seconds.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);

/// A step that failed, and the file it failed at.
#[derive(Debug, Error)]
#[error("cannot {operation} {}", path.display())]
pub struct FileError {
    /// What was tried, as an infinitive: "create", "read", "replace".
    pub operation: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl FileError {
    /// What a person can do about it. Whatever was at the path is as it was.
    pub fn hint(&self) -> String {
        hint(&self.path, self.source.kind())
    }
}

/// What a person can do when a file could not be read or written.
pub fn hint(path: &Path, kind: ErrorKind) -> String {
    let directory = directory_of(path).display();
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            format!("free some space on the file system of {directory}; what was there is as it was")
        }
        ErrorKind::ReadOnlyFilesystem => {
            format!("the file system of {directory} is read-only: mount it for writing, or name another directory")
        }
        ErrorKind::NotFound => format!("make the directory {directory} first"),
        _ => format!("check the owner and the mode of {directory}; what was there is as it was"),
    }
}

/// What became of an exclusive creation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Creation {
    /// The file is there, and as it was given.
    Created,
    /// There was one already; it was left alone.
    Exists,
}

/// All of a file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(|source| FileError { operation: "read", path: path.to_owned(), source })
}

/// All of a text file; wiped when it is dropped, because it may be a secret.
pub fn read_text(path: &Path) -> Result<Zeroizing<String>, FileError> {
    fs::read_to_string(path).map(Zeroizing::new).map_err(|source| FileError { operation: "read", path: path.to_owned(), source })
}

/// Puts `bytes` at `path`, in the place of whatever file is there: a reader sees the old or the new content, never part of one.
/// When this returns, the new content survives a power cut.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError { operation: "replace", path: path.to_owned(), source };
    let (directory, file) = written_beside(path, bytes, mode).map_err(failed)?;
    steps::before("replace", path).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    sync(directory).map_err(failed)
}

/// Writes a file that is not there yet, into a directory that nobody reads yet: whoever puts that directory in place syncs it.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError { operation: "write", path: path.to_owned(), source };
    steps::before("write", path).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    // The mode given at creation is cut by the umask.
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// The same for a file that belongs to `owner`: it has its owner, its mode and its bytes before it is synced, and nobody else can open it
/// in between.
pub fn write_new_owned(path: &Path, bytes: &[u8], mode: u32, owner: Owner) -> Result<(), FileError> {
    let failed = |source| FileError { operation: "write", path: path.to_owned(), source };
    steps::before("write", path).map_err(failed)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(SECRET_FILE).open(path).map_err(failed)?;
    let given = owner.take(&file).map_err(|source| FileError { operation: "give away", path: path.to_owned(), source });
    given?;
    file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

/// Whether there is room for a file of that length: space is allotted to a file without a name, and given back.
pub fn make_room(directory: &Path, bytes: u64) -> Result<(), FileError> {
    let failed = |source| FileError { operation: "make room in", path: directory.to_owned(), source };
    steps::before("make room", directory).map_err(failed)?;
    let mut file = tempfile::tempfile_in(directory).map_err(failed)?;
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        // Some file systems allot only what is written.
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
            io::copy(&mut io::repeat(b' ').take(bytes), &mut file).and_then(|_| file.sync_all()).map_err(failed)
        }
        Err(error) => Err(failed(error.into())),
        Ok(()) => Ok(()),
    }
}

/// Puts `bytes` at `path` unless there is something already: of any number of threads and processes, one creates it. Nobody ever
/// sees part of it. When this returns [`Creation::Created`], the file survives a power cut.
pub fn create(path: &Path, bytes: &[u8], mode: u32) -> Result<Creation, FileError> {
    let failed = |source| FileError { operation: "create", path: path.to_owned(), source };
    // Most refusals are seen here, without a write.
    if fs::symlink_metadata(path).is_ok() {
        return Ok(Creation::Exists);
    }
    let (directory, file) = written_beside(path, bytes, mode).map_err(failed)?;
    steps::before("create", path).map_err(failed)?;
    match file.persist_noclobber(path) {
        Ok(_) => {}
        Err(error) if error.error.kind() == ErrorKind::AlreadyExists => return Ok(Creation::Exists),
        Err(error) => return Err(failed(error.error)),
    }
    sync(directory).map_err(failed)?;
    Ok(Creation::Created)
}

/// Makes a directory, and those above it that are missing, all with `mode`. Directories that are there keep theirs.
pub fn create_dir_all(path: &Path, mode: u32) -> Result<(), FileError> {
    let failed = |source| FileError { operation: "make the directory", path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    steps::before("make the directory", path).map_err(failed)?;
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && !parent(path).as_os_str().is_empty() => {
            create_dir_all(parent(path), mode)?;
            return create_dir_all(path, mode);
        }
        Err(error) => return Err(failed(error)),
    }
    // The umask may have taken bits away.
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(failed)?;
    sync(directory_of(path)).map_err(failed)
}

/// A hidden name that nobody else will choose, for what is made beside its place. [`remove_leftovers`] knows it.
pub fn temporary_name() -> String {
    format!("{TEMPORARY_PREFIX}{}", random::name())
}

/// Whether a file of this name is one that is, or was, still being written.
pub fn is_temporary(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(TEMPORARY_PREFIX.as_bytes())
}

/// Removes what killed runs left in `directory`: hidden files and empty directories of ours that have not changed for an hour before
/// `now`. Whoever can list the directory can call this at any time; what cannot be removed stays.
pub fn remove_leftovers(directory: &Path, now: SystemTime) {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_temporary(&entry.file_name())) {
        let changed = entry.metadata().and_then(|metadata| metadata.modified());
        if changed.is_ok_and(|changed| now.duration_since(changed).is_ok_and(|age| age >= LEFTOVER_AGE)) {
            let _ = fs::remove_file(entry.path()).or_else(|_| fs::remove_dir(entry.path()));
        }
    }
}

/// Makes what happened to the names in `directory` survive a power cut.
pub fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// A complete and synced file in the directory of `path`, under a hidden name that goes away when it is not moved.
fn written_beside<'a>(path: &'a Path, bytes: &[u8], mode: u32) -> io::Result<(&'a Path, NamedTempFile)> {
    let directory = directory_of(path);
    steps::before("write", path)?;
    let created = tempfile::Builder::new().prefix(TEMPORARY_PREFIX).permissions(Permissions::from_mode(SECRET_FILE)).tempfile_in(directory);
    // The library's own error names the hidden file, which nobody has heard of.
    let mut file = created.map_err(|error| io::Error::from(error.kind()))?;
    // Not left to the umask, and before there is anything to see.
    file.as_file().set_permissions(Permissions::from_mode(mode))?;
    file.as_file_mut().write_all(bytes)?;
    file.as_file().sync_all()?;
    Ok((directory, file))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

fn directory_of(path: &Path) -> &Path {
    let parent = parent(path);
    if parent.as_os_str().is_empty() { Path::new(".") } else { parent }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("metadata").permissions().mode() & 0o7777
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn replaces_content_and_mode_and_leaves_nothing_else() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        for (bytes, wanted) in [("one", 0o600), ("two", 0o640), ("three", 0o666)] {
            replace(&path, bytes.as_bytes(), wanted).expect("replaced");
            assert_eq!(fs::read_to_string(&path).expect("a file"), bytes);
            assert_eq!(mode(&path), wanted);
        }
        assert_eq!(names(root.path()), ["file"]);
    }

    #[test]
    fn creates_once_and_leaves_the_first_alone() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        assert_eq!(create(&path, b"first", 0o600).expect("created"), Creation::Created);
        assert_eq!(create(&path, b"second", 0o644).expect("refused"), Creation::Exists);
        assert_eq!(fs::read(&path).expect("a file"), b"first");
        assert_eq!(mode(&path), 0o600);
        assert_eq!(names(root.path()), ["file"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_the_reason() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("file");
        let error = read(&path).expect_err("nothing there");
        assert_eq!((error.to_string(), error.source.kind()), (format!("cannot read {}", path.display()), ErrorKind::NotFound));
        fs::write(&path, [0xff]).expect("a file");
        assert_eq!(read(&path).expect("bytes"), [0xff]);
        let error = read_text(&path).expect_err("no text");
        assert_eq!((error.to_string(), error.source.kind()), (format!("cannot read {}", path.display()), ErrorKind::InvalidData));
    }

    #[test]
    fn of_racing_creates_one_wins_and_its_bytes_stay() {
        let root = tempfile::tempdir().expect("a directory");
        for round in 0..20 {
            let path = root.path().join(round.to_string());
            let barrier = std::sync::Barrier::new(16);
            let winners: Vec<String> = std::thread::scope(|scope| {
                let racer = |index: usize| {
                    let (path, barrier) = (&path, &barrier);
                    scope.spawn(move || {
                        let bytes = index.to_string().repeat(5000);
                        barrier.wait();
                        (create(path, bytes.as_bytes(), 0o600).expect("an answer") == Creation::Created).then_some(bytes)
                    })
                };
                let racers: Vec<_> = (0..16).map(racer).collect();
                racers.into_iter().filter_map(|racer| racer.join().expect("a thread")).collect()
            });
            assert_eq!(winners.len(), 1);
            assert_eq!(fs::read_to_string(&path).expect("a file"), winners[0]);
        }
        assert_eq!(names(root.path()).len(), 20);
    }

    #[test]
    fn directories_are_made_with_their_mode_and_kept_with_theirs() {
        let root = tempfile::tempdir().expect("a directory");
        let outer = root.path().join("a");
        let inner = outer.join("b/c");
        create_dir_all(&inner, 0o770).expect("made");
        assert_eq!([mode(&outer), mode(&inner)], [0o770, 0o770]);
        create_dir_all(&inner, 0o700).expect("there");
        assert_eq!(mode(&inner), 0o770);
        fs::write(root.path().join("file"), "").expect("a file");
        let error = create_dir_all(&root.path().join("file"), 0o700).expect_err("a file is in the way");
        assert_eq!(error.to_string(), format!("cannot make the directory {}", root.path().join("file").display()));
    }

    #[test]
    fn only_old_leftovers_are_removed() {
        let root = tempfile::tempdir().expect("a directory");
        for name in [".certfleet-old", "kept"] {
            fs::write(root.path().join(name), "").expect("a file");
        }
        let now = SystemTime::now();
        remove_leftovers(root.path(), now + Duration::from_secs(3500));
        assert_eq!(names(root.path()).len(), 2);
        remove_leftovers(root.path(), now + Duration::from_secs(3700));
        assert_eq!(names(root.path()), ["kept"]);
    }
}
