//! `certfleet rollback`

use std::sync::Arc;

use super::args::{Arguments, Rollback};
use super::assemble;
use super::console::Console;
use super::ensure;
use super::exit::Exit;
use super::failure::Failure;
use super::session::{Purpose, Session};
use crate::domain::object_key::Generation;
use crate::fleet::progress::Progress as _;
use crate::fleet::rollback::{self, RollbackError, Target};

/// Publishes an earlier bundle as the next generation. No issuer is asked, and none of their secrets is needed.
pub(super) async fn run(arguments: &Arguments, options: &Rollback, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let sites = settings.select(std::slice::from_ref(&options.site))?;
    let target = options.to.map_or(Target::Previous, |number| Target::Generation(Generation(number)));
    let failed = |error: RollbackError| Failure::new(&error, error.hint(), error.outcome().into());
    // Before a datastore is prepared that has nothing to go back to: it may be the wrong one.
    let store = assemble::datastore(&settings).await?;
    rollback::must_have_bundles(&*store, &sites[0].name).await.map_err(failed)?;
    let session = Session::begin(&settings, &sites, Purpose::WorkWithoutIssuers, console).await?;
    let report = session.fleet.rollback(&sites[0], target, &session.snapshot).await.map_err(failed)?;
    if let Some(due) = &report.due {
        console.warning(&format!("{}: the next run of ensure or agent renews it again: {due}", report.site));
    }
    ensure::answer(arguments, &settings, &session.snapshot, &[report], console)
}
