//! Exit codes: a published contract.

use std::process::ExitCode;

/// How a run ended, for whoever called it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Exit {
    /// Everything asked for holds.
    Done = 0,
    /// Something asked for does not hold.
    Failed = 1,
    /// Wrong usage or configuration; nothing was touched.
    Usage = 2,
    /// `status`, `doctor`: something needs a person.
    Attention = 3,
    /// A renewal failed, but a certificate that is still valid is in place.
    Degraded = 4,
    /// The datastore cannot be reached, or somebody else is at work for longer than we wait: try again.
    Temporary = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}
