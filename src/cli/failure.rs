//! Whatever ends a run early: what failed, what to do, and the exit code.

use super::exit::Exit;
use crate::config::ConfigError;
use crate::datastore::{DatastoreError, FailureKind};
use crate::domain::record::RecordError;
use crate::domain::site::SiteName;
use crate::fleet::bundle_object::OpenError;
use crate::fleet::delivery::ReceiveError;
use crate::fleet::first_use::FirstUseError;
use crate::fleet::identity::IdentityError;
use crate::fleet::look::LookError;
use crate::fleet::place::PlaceError;
use crate::fleet::prune::PruneError;
use crate::issuer::IssueError;
use crate::system::error_chain::in_full;
use crate::system::files::{self, FileError};
use crate::system::lock::LockError;

/// The end of a run.
#[derive(Debug)]
pub(super) struct Failure {
    /// What failed and why, complete.
    pub(super) what: String,
    /// What a person can do about it.
    pub(super) hint: String,
    /// How the run ends.
    pub(super) exit: Exit,
}

impl Failure {
    /// A failure with an error and all its causes.
    pub(super) fn new(error: &dyn std::error::Error, hint: impl Into<String>, exit: Exit) -> Self {
        Self { what: in_full(error), hint: hint.into(), exit }
    }

    /// A bundle that cannot be looked at.
    pub(super) fn from_look(error: &LookError) -> Self {
        match error {
            LookError::Datastore(error) => Self::of_store(error),
            LookError::Absent(site) => Self::new(error, format!("`certfleet ensure {}` makes one", site.in_shell()), Exit::Failed),
            LookError::Unusable { source: OpenError::Record(RecordError::Newer { .. }), .. } => {
                Self::new(error, "another machine of the fleet has a newer certfleet: update this one", Exit::Failed)
            }
            LookError::Unusable { .. } => {
                Self::new(error, "`certfleet ensure` passes it over, and publishes the next generation", Exit::Failed)
            }
        }
    }

    /// The same, of one site among several.
    pub(super) fn about(self, site: &SiteName) -> Self {
        Self { what: format!("{site}: {}", self.what), ..self }
    }

    /// A call that the store did not carry out.
    pub(super) fn of_store(error: &DatastoreError) -> Self {
        let exit = match error.kind {
            FailureKind::Lasting => Exit::Failed,
            FailureKind::Passing => Exit::Temporary,
        };
        Self::new(error, error.hint.clone(), exit)
    }

    /// Wrong usage.
    pub(super) fn usage(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into(), exit: Exit::Usage }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::new(&error, error.hint(), Exit::Usage)
    }
}

impl From<DatastoreError> for Failure {
    fn from(error: DatastoreError) -> Self {
        Self::of_store(&error)
    }
}

impl From<IssueError> for Failure {
    fn from(error: IssueError) -> Self {
        match error {
            IssueError::Refused { reason, hint, .. } => Self { what: reason, hint, exit: Exit::Failed },
            IssueError::Account(error) => {
                let hint = error.hint.clone();
                Self::new(&error, hint, Exit::Failed)
            }
            IssueError::Ended(ended) => Self::new(&ended, "run the same command again", Exit::Temporary),
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let exit = if matches!(error, IdentityError::Write(_)) { Exit::Failed } else { Exit::Usage };
        Self::new(&error, error.hint(), exit)
    }
}

impl From<FileError> for Failure {
    fn from(error: FileError) -> Self {
        Self::new(&error, error.hint(), Exit::Failed)
    }
}

impl From<ReceiveError> for Failure {
    fn from(error: ReceiveError) -> Self {
        let exit = match &error {
            ReceiveError::Write(_) | ReceiveError::Read { .. } => Exit::Failed,
            // Nothing was touched.
            _ => Exit::Usage,
        };
        Self::new(&error, error.hint(), exit)
    }
}

impl From<FirstUseError> for Failure {
    fn from(error: FirstUseError) -> Self {
        match error {
            FirstUseError::Datastore(error) => error.into(),
            FirstUseError::Identity(error) => error.into(),
            FirstUseError::Headless { .. } => {
                let hint = "restore the identity file of this fleet: a new one could not open what lies there";
                Self::new(&error, hint, Exit::Usage)
            }
            FirstUseError::Manifest(_) => {
                let hint = "update certfleet, or restore that object from the bucket's versions; the bundles are untouched";
                Self::new(&error, hint, Exit::Failed)
            }
            FirstUseError::Vanished => Self::new(&error, "the store contradicts itself: try again, or use another one", Exit::Failed),
        }
    }
}

impl From<PruneError> for Failure {
    fn from(error: PruneError) -> Self {
        match error {
            PruneError::Datastore(error) => error.into(),
            PruneError::Headless => {
                let hint = "restore that object from the bucket's versions; if the bundles are this fleet's, `certfleet ensure` on a machine with its identity writes it anew";
                Self::new(&error, hint, Exit::Usage)
            }
        }
    }
}

impl From<PlaceError> for Failure {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::File(error) => error.into(),
            PlaceError::Lock(LockError::Held { .. }) => {
                Self::new(&error, "another certfleet is at work here: try again when it has ended", Exit::Temporary)
            }
            PlaceError::Lock(LockError::Unusable { ref path, ref source }) => {
                Self::new(&error, files::hint(path, source.kind()), Exit::Failed)
            }
        }
    }
}
