//! The command line: the only place that prints, reads the environment, and knows about terminals.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;

mod account;
mod agent;
mod args;
mod assemble;
mod bootstrap;
mod console;
mod delivery;
mod doctor;
mod ensure;
mod exit;
mod export;
mod failure;
mod import;
mod init;
mod node;
mod node_rendering;
mod paste;
mod prune;
mod push;
mod rendering;
mod revoke;
mod rollback;
mod schedule;
mod session;
mod show;
mod snippet;
mod status;
mod supplied;
mod table;
mod targets;

use self::args::{Arguments, Command};
use self::console::{Console, Detail};
use self::exit::Exit;
use self::failure::Failure;
use crate::fleet::progress::Progress as _;
use crate::system::memory;

/// Runs the program on the process's own arguments.
pub fn main() -> ExitCode {
    let kept = memory::keep_to_ourselves();
    let arguments = Arguments::parse();
    watch(arguments.verbose);
    let detail = if arguments.quiet { Detail::Quiet } else { Detail::Steps };
    let console = Arc::new(Console::new(detail, arguments.color));
    if let Err(error) = kept {
        console.warning(&format!("other processes of this user may be able to read this one's memory: {error}"));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(run(&arguments, &console));
            // What still runs in the background (a prompt that nobody answers) must not hold up the end.
            runtime.shutdown_background();
            ended
        }
        Err(error) => Err(Failure::new(&error, "the system refuses what every program needs: check its limits", Exit::Failed)),
    };
    match ended {
        Ok(exit) => exit.into(),
        Err(failure) => {
            console.failure(&failure);
            failure.exit.into()
        }
    }
}

async fn run(arguments: &Arguments, console: &Arc<Console>) -> Result<Exit, Failure> {
    match &arguments.command {
        Command::Account(account) => account::run(arguments, account, console).await,
        Command::Agent(agent) => agent::run(arguments, agent, console).await,
        Command::Bootstrap(bootstrap) => bootstrap::run(arguments, bootstrap, console).await,
        Command::Doctor => doctor::run(arguments, console).await,
        Command::Ensure(ensure) => ensure::run(arguments, ensure, console).await,
        Command::Export(export) => export::run(arguments, export, console).await,
        Command::Import(import) => import::run(arguments, import, console).await,
        Command::Init => init::run(arguments, console),
        Command::Prune(prune) => prune::run(arguments, prune, console).await,
        Command::Revoke(revoke) => revoke::run(arguments, revoke, console).await,
        Command::Rollback(rollback) => rollback::run(arguments, rollback, console).await,
        Command::Push(push) => push::run(arguments, push, console).await,
        Command::Schedule(schedule) => schedule::run(arguments, schedule, console).await,
        Command::Show(show) => show::run(arguments, show, console).await,
        Command::Snippet(snippet) => snippet::run(arguments, snippet, console).await,
        Command::Status => status::run(arguments, console).await,
    }
}

/// Shows what the libraries tell, as far as `-v` asks for it. Secrets are in none of it: no layer logs bodies.
fn watch(verbose: u8) {
    let filter = match verbose {
        0 => return,
        1 => "certfleet=debug",
        _ => "certfleet=trace,aws_smithy_runtime=debug,hyper_util=debug",
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}
