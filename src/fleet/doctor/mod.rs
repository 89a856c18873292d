//! `doctor`: tries everything that the configuration relies on, and says what to do about what fails.
//!
//! What is written to try it out is taken away again, also after a deadline, Ctrl-C or SIGTERM; what cannot be taken away is a finding. What
//! stays: in a bucket with versions, the versions and delete markers of those objects, until a lifecycle rule ends them; after a kill, or where
//! the store carries out a request that was given up, objects below `probes/` (`prune` removes those), one named `….certfleet-doctor`
//! beside the prefix, a file named `certfleet-doctor-…` in a document root. Each check has a deadline, and what hangs or breaks in one of
//! them says nothing about the others.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio_util::sync::CancellationToken;

use crate::domain::checkup::{Check, Finding};

pub mod beside;
pub mod files;
pub mod identity;
pub mod issuers;
pub mod remains;
pub mod schedule;
pub mod solvers;
pub mod store;
pub mod targets;

/// How long the looks at one thing may take, where nothing else is said: longer than a call to the store takes to fail.
pub const DEADLINE: Duration = Duration::from_secs(40);

/// Ends looks: each at its deadline, and all of them once somebody asks for the end of the run.
#[derive(Clone, Debug, Default)]
pub struct Patience(CancellationToken);

impl Patience {
    /// Until `interrupt` is cancelled.
    pub fn until(interrupt: CancellationToken) -> Self {
        Self(interrupt)
    }

    /// Runs one check, as [`within`] does. Whatever has to be cleaned up comes after it, not in it.
    pub async fn within(&self, deadline: Duration, check: Check, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
        let interrupted = check.clone().skipped("interrupted");
        tokio::select! {
            biased;
            () = self.0.cancelled() => vec![interrupted],
            findings = within(deadline, check, work) => findings,
        }
    }
}

/// Runs one check. What has not ended in time, and what panics, becomes a finding of its own.
pub async fn within(deadline: Duration, check: Check, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
    match tokio::time::timeout(deadline, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(_)) => {
            vec![check.failed("the check itself broke off", "this is a fault of certfleet: please report it, with what was printed")]
        }
        Err(_) => vec![endless(check, deadline)],
    }
}

/// What has not come to an end in time.
fn endless(check: Check, deadline: Duration) -> Finding {
    let what = format!("no end after {}", humantime::format_duration(deadline));
    check.failed(what, "find out what it waits for (-vv shows more): the network, a name server, a program, or a file system")
}

/// Does what may block on a thread of its own: a file system on the network, a password manager.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let done = tokio::task::spawn_blocking(work).await;
    // It is not aborted, so it can only have panicked.
    done.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checkup::{Part, Verdict};

    #[tokio::test(start_paused = true)]
    async fn what_hangs_or_panics_becomes_a_finding_and_the_others_go_on() {
        let check = |name| Check::new(Part::Datastore, name);
        let hangs = within(DEADLINE, check("hangs"), std::future::pending());
        let panics = within(DEADLINE, check("panics"), async { panic!("on purpose") });
        let works = within(DEADLINE, check("works"), async { vec![check("works").ok("fine")] });
        let (hangs, panics, works) = tokio::join!(hangs, panics, works);
        assert_eq!((hangs[0].verdict, hangs[0].what.as_str()), (Verdict::Failed, "no end after 40s"));
        assert_eq!((panics[0].verdict, works[0].verdict), (Verdict::Failed, Verdict::Ok));
    }

    #[tokio::test]
    async fn a_panic_on_a_blocking_thread_is_one_of_the_check() {
        let check = Check::new(Part::Files, "modes");
        let found = within(DEADLINE, check, async { blocking(|| panic!("on purpose")).await }).await;
        assert_eq!(found[0].verdict, Verdict::Failed);
    }
}
