//! Switching whole directories, so that a reader finds all of the old one or all of the new one.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::files::{self, FileError};
use super::steps;

/// Puts the directory `staged` in the place of `target` by one rename, and what was there, if anything, at `previous`, in place of
/// what an earlier switch had put there. Entries of the old directory that are not named in `owned` move along into the new one.
///
/// All three must be on one file system. Where it cannot exchange two directories in one step (some network file systems), `target`
/// is absent for a moment, but never mixed.
pub fn switch(staged: &Path, target: &Path, previous: &Path, owned: &[&str]) -> Result<(), FileError> {
    sync(staged)?;
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { operation, path, source }
    };
    steps::before("put in place", target).map_err(failed("put in place", target))?;
    match renameat_with(CWD, staged, CWD, target, RenameFlags::NOREPLACE) {
        Ok(()) => return sync_parent(target),
        Err(Errno::INVAL) if !target.exists() => {
            fs::rename(staged, target).map_err(failed("put in place", target))?;
            return sync_parent(target);
        }
        Err(Errno::EXIST | Errno::INVAL) => {}
        Err(error) => return Err(failed("put in place", target)(error.into())),
    }
    carry_along(target, staged, owned)?;
    remove(previous)?;
    steps::before("exchange", target).map_err(failed("put in place", target))?;
    match renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE) {
        Ok(()) => steps::before("keep", previous)
            .and_then(|()| fs::rename(staged, previous))
            .map_err(failed("keep as the previous one", previous))?,
        Err(Errno::INVAL) => {
            fs::rename(target, previous).map_err(failed("keep as the previous one", previous))?;
            fs::rename(staged, target).map_err(failed("put in place", target))?;
        }
        Err(error) => return Err(failed("put in place", target)(error.into())),
    }
    move_directories_along(previous, target)?;
    sync_parent(target)?;
    sync_parent(previous)
}

/// Has two things change places: one moment each has its own name, the next the other's.
pub fn exchange(one: &Path, other: &Path) -> Result<(), FileError> {
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { operation, path, source }
    };
    steps::before("exchange", other).map_err(failed("exchange", other))?;
    match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        // Some network file systems do not know that flag (rename(2)): then there is a moment with nothing at `other`.
        Err(Errno::INVAL) => {
            let beside = one.with_file_name(files::temporary_name());
            fs::rename(one, &beside).map_err(failed("move aside", one))?;
            fs::rename(other, one).map_err(failed("move aside", other))?;
            fs::rename(&beside, other).map_err(failed("put in place", other))
        }
        Err(error) => Err(failed("exchange", other)(error.into())),
    }
}

/// Removes a directory and all in it; one that is not there is no matter.
pub fn remove(path: &Path) -> Result<(), FileError> {
    match steps::before("remove", path).and_then(|()| fs::remove_dir_all(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError { operation: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Removes a file; one that is not there is no matter.
pub fn remove_file(path: &Path) -> Result<(), FileError> {
    match steps::before("remove", path).and_then(|()| fs::remove_file(path)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError { operation: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Whether the file holds exactly these bytes, with exactly this mode.
pub fn holds(path: &Path, bytes: &[u8], mode: u32) -> bool {
    let mode_is = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o7777 == mode);
    mode_is && fs::read(path).is_ok_and(|found| found == bytes)
}

/// Directories cannot be linked: they follow after the switch. None is ours.
fn move_directories_along(from: &Path, to: &Path) -> Result<(), FileError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| FileError { operation: "carry along", path, source }
    };
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let entry = entry.map_err(failed(from))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::rename(entry.path(), to.join(entry.file_name())).map_err(failed(&entry.path()))?;
        }
    }
    Ok(())
}

/// Links, rather than moves, what is not ours: until the switch the old directory stays whole.
fn carry_along(from: &Path, to: &Path, owned: &[&str]) -> Result<(), FileError> {
    let failed = |operation: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| FileError { operation, path, source }
    };
    for entry in fs::read_dir(from).map_err(failed("list", from))? {
        let entry = entry.map_err(failed("list", from))?;
        let stranger = entry.file_name().to_str().is_none_or(|name| !owned.contains(&name));
        if stranger && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            let place = to.join(entry.file_name());
            fs::hard_link(entry.path(), &place).map_err(failed("carry along", &entry.path()))?;
        }
    }
    Ok(())
}

fn sync_parent(path: &Path) -> Result<(), FileError> {
    path.parent().map_or(Ok(()), sync)
}

fn sync(directory: &Path) -> Result<(), FileError> {
    files::sync(directory).map_err(|source| FileError { operation: "sync", path: directory.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(path).expect("a directory");
        for (name, text) in files {
            fs::write(path.join(name), text).expect("a file");
        }
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| error.kind().to_string())
    }

    #[test]
    fn the_old_directory_is_exchanged_and_kept_and_strangers_move_along() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        directory(&path("new"), &[("key", "new key")]);
        switch(&path("new"), &path("live"), &path("old"), &["key"]).expect("a first switch");
        assert_eq!(read(&path("live/key")), "new key");

        fs::write(path("live/notes.txt"), "a person's").expect("a file");
        directory(&path("live/old-keys"), &[("1.pem", "older")]);
        std::os::unix::fs::symlink("key", path("live/current")).expect("a link");
        directory(&path("newer"), &[("key", "newer key")]);
        switch(&path("newer"), &path("live"), &path("old"), &["key"]).expect("a second switch");
        assert_eq!(read(&path("live/key")), "newer key");
        assert_eq!(read(&path("live/notes.txt")), "a person's");
        assert_eq!(read(&path("old/key")), "new key");
        assert!(!path("newer").exists());

        directory(&path("newest"), &[("key", "newest key")]);
        switch(&path("newest"), &path("live"), &path("old"), &["key"]).expect("a third switch");
        assert_eq!((read(&path("live/key")), read(&path("old/key"))), ("newest key".to_owned(), "newer key".to_owned()));
        assert_eq!((read(&path("live/old-keys/1.pem")), read(&path("live/current"))), ("older".to_owned(), "newest key".to_owned()));
    }

    #[test]
    fn a_reader_never_finds_a_mixture() {
        let root = tempfile::tempdir().expect("a directory");
        let path = |name: &str| root.path().join(name);
        directory(&path("live"), &[("a", "0"), ("b", "0")]);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for round in 1..200 {
                    let text = round.to_string();
                    directory(&path("new"), &[("a", &text), ("b", &text)]);
                    switch(&path("new"), &path("live"), &path("old"), &["a", "b"]).expect("a switch");
                }
            });
            while !writer.is_finished() {
                // One open directory is one of the two; the names in it are looked up through it.
                let live = rustix::fs::open(path("live"), rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).expect("always there");
                let read = |name| {
                    let file = rustix::fs::openat(&live, name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
                    Ok::<_, Errno>(io::read_to_string(fs::File::from(file)).expect("readable"))
                };
                if let (Ok(a), Ok(b)) = (read("a"), read("b")) {
                    assert_eq!(a, b);
                }
            }
            writer.join().expect("the writer");
        });
    }
}
