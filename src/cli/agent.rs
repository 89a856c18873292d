//! `certfleet agent`

use std::io::IsTerminal as _;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::args::{Agent, Arguments};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::node::{self, Access, Begun, NodeRun};
use super::node_rendering as rendering;
use super::session;
use crate::config::{Role, Settings};
use crate::domain::node_plan::Part;
use crate::fleet::progress::Progress as _;
use crate::system::random;

/// One run, or one after the other.
pub(super) async fn run(arguments: &Arguments, options: &Agent, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    // Mistakes are told at once, not after the splay.
    node::sites(&settings)?;
    if options.dry_run {
        return dry_run(arguments, &settings, console).await;
    }
    let interrupt = session::interrupt(console)?;
    if splay(options, &settings, console, &interrupt).await.is_err() {
        return Ok(Exit::Done);
    }
    match options.interval {
        None => once(arguments, &settings, console, &interrupt).await,
        Some(interval) => keep_running(arguments, settings, interval.into(), console, &interrupt).await,
    }
}

fn part(settings: &Settings) -> Part {
    match settings.agent.role {
        Role::Renewer => Part::Renew,
        Role::Follower => Part::Follow,
    }
}

async fn dry_run(arguments: &Arguments, settings: &Settings, console: &Arc<Console>) -> Result<Exit, Failure> {
    let never = CancellationToken::new();
    let Begun::Run(run) = NodeRun::look(settings, part(settings), Access::Look, console, &never, node::list).await? else {
        return Ok(Exit::Done);
    };
    console.answer(&if arguments.json { rendering::plans_json(&run) } else { rendering::plans(&run) })?;
    Ok(Exit::Done)
}

async fn once(arguments: &Arguments, settings: &Settings, console: &Arc<Console>, interrupt: &CancellationToken) -> Result<Exit, Failure> {
    let access = Access::Work { patience: Duration::ZERO };
    match NodeRun::look(settings, part(settings), access, console, interrupt, node::list).await? {
        Begun::Run(run) => rendering::tend(arguments, settings, console, interrupt, *run).await,
        // Whoever is at work here does what this run would do.
        Begun::Occupied(by) => {
            console.note(&format!("nothing done: {by}, and does what this run would do"));
            Ok(Exit::Done)
        }
    }
}

/// Runs until SIGTERM. SIGHUP reads the configuration again, and runs at once; a configuration with mistakes is told, and the one
/// before it stays.
async fn keep_running(
    arguments: &Arguments,
    mut settings: Settings,
    interval: Duration,
    console: &Arc<Console>,
    interrupt: &CancellationToken,
) -> Result<Exit, Failure> {
    let failed = |error: std::io::Error| Failure::new(&error, "the system refuses signal handlers: check its limits", Exit::Failed);
    let mut hangup = signal(SignalKind::hangup()).map_err(failed)?;
    loop {
        if let Err(failure) = once(arguments, &settings, console, interrupt).await
            && !interrupt.is_cancelled()
        {
            console.failure(&failure);
        }
        tokio::select! {
            () = interrupt.cancelled() => return Ok(Exit::Done),
            () = tokio::time::sleep(interval) => {}
            _ = hangup.recv() => match assemble::settings(arguments.config.as_deref()).and_then(|read| node::sites(&read).map(|_| read)) {
                Ok(read) => settings = read,
                Err(failure) => {
                    console.failure(&failure);
                    console.warning("the configuration before it stays in use");
                }
            },
        }
    }
}

/// Puts the start off by a random time, so that a fleet does not start at once; not for a person who waits. An error is an interruption.
async fn splay(options: &Agent, settings: &Settings, console: &Console, interrupt: &CancellationToken) -> Result<(), ()> {
    let waited_for = std::io::stderr().is_terminal() && options.splay.is_none();
    let most = if waited_for { Duration::ZERO } else { options.splay.map_or(settings.agent.splay, Into::into) };
    let delay = most.mul_f64(random::fraction());
    if delay.is_zero() {
        return Ok(());
    }
    console.note(&format!("starting in {}, so that the fleet does not start at once", crate::domain::time::in_words(delay)));
    tokio::select! {
        () = tokio::time::sleep(delay) => Ok(()),
        () = interrupt.cancelled() => Err(()),
    }
}
