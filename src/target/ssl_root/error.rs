//! What can be in the way of a node's files.

use std::path::PathBuf;

use thiserror::Error;

use crate::system::files::FileError;

/// Why a root's files are not as they should be.
#[derive(Debug, Error)]
pub enum SslRootError {
    /// A step that failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Something lies in the way that is not ours to replace.
    #[error("{} is {what}", path.display())]
    Refused {
        /// Where.
        path: PathBuf,
        /// What it is, in words.
        what: String,
    },
    /// A generation that was to be switched to has no directory.
    #[error("{} is missing", .0.display())]
    NotStaged(PathBuf),
}

impl SslRootError {
    /// What a person can do about it. Nothing was deleted.
    pub fn hint(&self) -> String {
        match self {
            Self::File(error) => error.hint(),
            Self::Refused { path, .. } => format!("move {} away and run this again; nothing was changed there", path.display()),
            Self::NotStaged(_) => "somebody else removes files there; run this again".to_owned(),
        }
    }
}
