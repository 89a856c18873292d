//! A lock that keeps two runs on one machine apart. The kernel releases it when its holder dies, however it dies.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{major, minor};
use thiserror::Error;
use tokio::time::Instant;

/// The kernel tells nobody when a lock becomes free without a thread that waits for it, and such a thread cannot be called off.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Every lock there is, with its process (proc_locks(5)).
const LOCK_TABLE: &str = "/proc/locks";

/// A held lock. It is released when this is dropped, or when the process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A lock that could not be taken.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another process has it.
    #[error("process {holder} holds the lock {}", path.display())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// The process, or `unknown`.
        holder: String,
    },
    /// The lock file cannot be opened or locked.
    #[error("cannot lock {}", path.display())]
    Unusable {
        /// The lock file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Lock {
    /// Takes the lock, waiting for `patience` at most; `waiting` is called once, with the holder, if it has to wait. Nothing is written
    /// where the lock file is there already.
    pub async fn take(path: &Path, patience: Duration, waiting: impl FnOnce(&str)) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable { path: path.to_owned(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(unusable)?;
        let deadline = Instant::now() + patience;
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            if Instant::now() >= deadline {
                return Err(LockError::Held { path: path.to_owned(), holder: holder(&file) });
            }
            if let Some(waiting) = waiting.take() {
                waiting(&holder(&file));
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
    }
}

/// The process that has locked the file, as the kernel knows it; `unknown` where it does not tell: the process is in another process
/// namespace, or has just ended, or the file system shows other numbers than the kernel uses inside.
fn holder(file: &File) -> String {
    let table = fs::read_to_string(LOCK_TABLE).unwrap_or_default();
    let locked = file.metadata().map(|metadata| format!("{:02x}:{:02x}:{}", major(metadata.dev()), minor(metadata.dev()), metadata.ino()));
    let holder = locked.ok().and_then(|locked| holder_in(&table, &locked).map(str::to_owned));
    holder.unwrap_or_else(|| "unknown".to_owned())
}

/// The process that holds the exclusive lock on the file `locked` (`major:minor:inode`, as in proc_locks(5)). Lines of those who wait for
/// a lock have an arrow in the second place.
fn holder_in<'a>(table: &'a str, locked: &str) -> Option<&'a str> {
    table.lines().find_map(|line| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [_, "FLOCK", _, "WRITE", process, file, ..] if *file == locked => Some(*process),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_found_among_other_locks() {
        let table = "1: POSIX  ADVISORY  WRITE 10 08:01:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 20 08:02:77 0 EOF\n\
                     3: FLOCK  ADVISORY  READ 30 08:01:77 0 EOF\n4: FLOCK  ADVISORY  WRITE 40 08:01:777 0 EOF\n\
                     5: FLOCK  ADVISORY  WRITE 50 08:01:77 0 EOF\n5: -> FLOCK  ADVISORY  WRITE 60 08:01:99 0 EOF\n";
        assert_eq!(holder_in(table, "08:01:77"), Some("50"));
        assert_eq!(holder_in(table, "08:01:7"), None);
        assert_eq!(holder_in(table, "08:01:99"), None);
    }

    #[tokio::test]
    async fn whoever_is_refused_learns_who_holds_it_and_nothing_is_written() {
        let root = tempfile::tempdir().expect("a directory");
        let path = root.path().join("lock");
        let nobody = |holder: &str| panic!("{holder} is waited for");
        let held = Lock::take(&path, Duration::ZERO, nobody).await.expect("free");
        let refused = Lock::take(&path, Duration::ZERO, nobody).await.expect_err("held");
        assert_eq!(refused.to_string(), format!("process {} holds the lock {}", std::process::id(), path.display()));
        drop(held);
        Lock::take(&path, Duration::ZERO, nobody).await.expect("free again");
        assert_eq!(fs::read(&path).expect("a file"), b"");
    }
}
