//! `certfleet prune`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;

use super::args::{Arguments, Prune};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::rendering;
use super::session::seal_to_look;
use crate::datastore::FailureKind;
use crate::domain::object_key::ObjectKey;
use crate::domain::prune::{Needless, PrunePlan, Retention};
use crate::fleet::prune;
use crate::fleet::status::Observer;
use crate::system::text::printable;

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    dry_run: bool,
    objects: Vec<ObjectAnswer<'a>>,
    unknown: Vec<UnknownAnswer<'a>>,
}

#[derive(Serialize)]
struct ObjectAnswer<'a> {
    object: &'a str,
    why: &'static str,
}

#[derive(Serialize)]
struct UnknownAnswer<'a> {
    node: &'a str,
    reason: &'a str,
}

/// Deletes what nobody needs. Neither a lock nor an identity is needed: deleting twice is no harm.
pub(super) async fn run(arguments: &Arguments, options: &Prune, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let store = assemble::datastore(&settings).await?;
    let wanted = assemble::seal_wanted(&settings)?;
    // Whoever has another fleet's identity, or an older release, is at the wrong datastore, or the wrong machine, to delete anything.
    let (listed, seal) = tokio::join!(prune::list(&*store), seal_to_look(&*store, &wanted));
    let ((listing, snapshot), seal) = (listed?, seal?);
    let nodes = Observer::new(&*store, seal.as_ref(), &BTreeMap::new()).nodes(&snapshot).await?;
    let retention = Retention { keep: options.keep, vanished_after: options.vanished_after };
    let plan = prune::plan(&listing, nodes, snapshot.clock().now(), retention);
    if options.dry_run {
        answer(arguments, options, &plan.delete, &plan, console)?;
        return Ok(ending(&plan, console));
    }
    let pruned = prune::execute(&*store, &plan).await;
    answer(arguments, options, &pruned.deleted, &plan, console)?;
    for error in &pruned.failed {
        let failure = Failure::of_store(error);
        console.error(&printable(&failure.what), &failure.hint);
    }
    Ok(match pruned.failed.iter().map(|error| error.kind).collect::<Vec<_>>().as_slice() {
        [] => ending(&plan, console),
        kinds if kinds.contains(&FailureKind::Lasting) => Exit::Failed,
        _ => Exit::Temporary,
    })
}

fn answer(
    arguments: &Arguments,
    options: &Prune,
    objects: &[(ObjectKey, Needless)],
    plan: &PrunePlan,
    console: &Console,
) -> Result<(), Failure> {
    if arguments.json {
        let objects = objects.iter().map(|(key, why)| ObjectAnswer { object: key.as_str(), why: why.name() }).collect();
        let unknown = plan.unknown.iter().map(|(node, reason)| UnknownAnswer { node, reason }).collect();
        return console.answer(&rendering::document(&Answer { version: 1, dry_run: options.dry_run, objects, unknown }));
    }
    let mut text = String::new();
    let verb = if options.dry_run { "would delete" } else { "deleted" };
    for (key, why) in objects {
        let _ = writeln!(text, "{verb} {}: {}", printable(key.as_str()), why.name().replace('-', " "));
    }
    if objects.is_empty() && !arguments.quiet {
        text += "nothing to delete\n";
    }
    console.answer(&text)
}

/// Nodes whose needs are unknown hold up the deletion of bundles: that is said, and the run is not complete.
fn ending(plan: &PrunePlan, console: &Console) -> Exit {
    for (node, reason) in &plan.unknown {
        let what = format!("no bundle was deleted, because the report of {} cannot be used: {}", printable(node), printable(reason));
        console.error(
            &what,
            &format!("on {}: certfleet agent, which writes it anew; update certfleet here if that one is newer", printable(node)),
        );
    }
    if plan.unknown.is_empty() { Exit::Done } else { Exit::Degraded }
}
