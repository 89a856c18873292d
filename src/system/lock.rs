//! A lock that keeps two runs on one machine apart. The kernel releases it when its holder dies, however it dies.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::time::Instant;

/// The kernel tells nobody when a lock becomes free without a thread that waits for it, and such a thread cannot be called off.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(20);

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
        /// The process, as it wrote itself down.
        holder: String,
    },
    /// The lock file cannot be opened, written or locked.
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
    /// Takes the lock, waiting for `patience` at most; `waiting` is called once, with the holder, if it has to wait.
    pub async fn take(path: &Path, patience: Duration, waiting: impl FnOnce(&str)) -> Result<Self, LockError> {
        let unusable = |source| LockError::Unusable { path: path.to_owned(), source };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(unusable)?;
        let deadline = Instant::now() + patience;
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(unusable(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            let holder = holder(&mut file).map_err(unusable)?;
            if Instant::now() >= deadline {
                return Err(LockError::Held { path: path.to_owned(), holder });
            }
            if let Some(waiting) = waiting.take() {
                waiting(&holder);
            }
            tokio::time::sleep(LOOK_AGAIN_AFTER).await;
        }
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| write!(file, "{}", std::process::id())).map_err(unusable)?;
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.take(32).read_to_string(&mut text)?;
    Ok(if text.is_empty() { "unknown".to_owned() } else { text })
}
