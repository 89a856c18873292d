//! What a run tells while it works.

use std::fmt::Display;

/// Told of every step. The command line shows it; nothing depends on it.
pub trait Progress: Send + Sync {
    /// Something has begun; it replaces the last step of the same subject: a site, or a host.
    fn step(&self, subject: &dyn Display, what: &str);

    /// Something happened that the person should know also afterwards.
    fn note(&self, what: &str);

    /// Something is left for the person to do, although nothing failed. It is shown whatever is to be left out.
    fn warning(&self, what: &str);
}
