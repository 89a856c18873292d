//! `certfleet push`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use zeroize::Zeroizing;

use super::args::{Arguments, Push};
use super::assemble;
use super::console::Console;
use super::delivery::CONFIGURATION;
use super::exit::Exit;
use super::failure::Failure;
use super::node;
use super::session::{Purpose, Session, interrupt};
use crate::config::{IdentitySource, IssuerSettings, Location, Origin, Seal, Settings};
use crate::domain::delivery::Delivery;
use crate::domain::site::Site;
use crate::fleet::identity::{self, IdentityError, IdentityPlace, SealWanted};
use crate::fleet::push::{self, Becomes, PushedHost, Remote};
use crate::issuer::local_ca;
use crate::system::files;
use crate::system::ssh::Ssh;
use crate::system::text::printable;

/// How long certfleet may take on a host: it waits there for the datastore, and for the server to present the certificate.
const DEADLINE: Duration = Duration::from_secs(900);

/// How many bundles are fetched at once.
const FETCHES: usize = 16;

/// Delivers to every host, and says what became of each.
pub(super) async fn run(arguments: &Arguments, options: &Push, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let configuration = configuration(&settings, options)?;
    // Mistakes are better found here than on every host.
    let there = assemble::settings_elsewhere(Path::new(CONFIGURATION), &configuration)?;
    let hosts = distinct(&options.hosts);
    let sites = suits(&there, &hosts)?;
    let mut delivery = Delivery::new(configuration, identity(&settings, &there)?, local_ca_root(&settings, &there, &sites)?);
    let interrupt = interrupt(console)?;
    let pushing = async {
        let session = Session::begin(&settings, &[], Purpose::Look, console).await?;
        let (fleet, snapshot) = (&session.fleet, &session.snapshot);
        let fetched = futures_util::stream::iter(&sites).map(async |site: &Site| {
            let object = fleet.current_object(&site.name, snapshot).await.map_err(|error| Failure::from_look(&error))?;
            Ok::<_, Failure>((site.name.file_name(), object))
        });
        delivery.bundles = fetched.buffer_unordered(FETCHES).try_collect().await?;
        deliver(options, &hosts, &delivery, console).await
    };
    let pushed = tokio::select! {
        pushed = pushing => pushed?,
        // What was under way is dropped, and with it every connection.
        () = interrupt.cancelled() => {
            let hint = "hosts that were not told of as done may have all of the delivery or nothing: run the same command again";
            return Err(Failure { what: "interrupted".to_owned(), hint: hint.to_owned(), exit: Exit::Temporary });
        }
    };
    answer(arguments, &pushed, console)
}

/// Each host once, in the order in which they were named.
fn distinct(hosts: &[String]) -> Vec<String> {
    let mut seen = BTreeSet::new();
    hosts.iter().filter(|host| seen.insert(host.as_str())).cloned().collect()
}

/// The sites that the hosts serve. What would be refused, or go wrong, on every host is refused here.
fn suits(there: &Settings, hosts: &[String]) -> Result<Vec<Site>, Failure> {
    if there.targets.is_empty() {
        let what = "the configuration for the hosts has no [[target]]: nothing says what certificates are installed into there";
        return Err(Failure::usage(what, "keep one for the hosts beside this machine's own, and name it with --host-config"));
    }
    if let Location::Directory(path) = &there.datastore.location
        && path.starts_with(&there.runtimedata)
    {
        let what = format!("the datastore would be a directory of each host's own, {}, where nothing is ever renewed", path.display());
        return Err(Failure::usage(what, "set [datastore] url to a bucket, s3://…, or to a directory that all machines share"));
    }
    if hosts.len() > 1 && there.agent.node != assemble::ELSEWHERE {
        let what =
            format!("[agent] node = {:?} in the configuration for the hosts would give {} hosts one name", there.agent.node, hosts.len());
        return Err(Failure::usage(what, "leave it out: a host is called by its own host name then"));
    }
    node::sites(there)
}

async fn deliver(options: &Push, hosts: &[String], delivery: &Delivery, console: &Console) -> Result<Vec<PushedHost>, Failure> {
    // A short path, whatever TMPDIR says: the paths of sockets are limited.
    let sockets = tempfile::Builder::new().prefix("certfleet-").tempdir_in("/tmp");
    let sockets = sockets.map_err(|error| Failure::new(&error, files::hint(Path::new("/tmp/certfleet"), error.kind()), Exit::Failed))?;
    let ssh = Ssh { sockets: sockets.path().to_owned(), deadline: DEADLINE };
    let remote = Remote {
        program: options.remote_program.clone(),
        configuration: CONFIGURATION.to_owned(),
        becomes: if options.sudo { Becomes::Root } else { Becomes::Nobody },
    };
    Ok(push::push(hosts, &delivery.write(), &remote, &ssh, usize::from(options.jobs), console).await)
}

/// The text to be installed: the file that was named, or this machine's own.
fn configuration(settings: &Settings, options: &Push) -> Result<String, Failure> {
    let path = match (&options.host_config, &settings.origin) {
        (Some(path), _) | (None, Origin::File(path)) => path,
        (None, Origin::Toolkit(_) | Origin::Defaults) => {
            return Err(Failure::usage(
                "there is no configuration file with a [[site]] that could be installed there",
                "name one with --host-config",
            ));
        }
    };
    std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display()), "check the path and its mode"))
}

/// The identity, where the configuration for the hosts wants it in a file.
fn identity(settings: &Settings, there: &Settings) -> Result<Option<Zeroizing<String>>, Failure> {
    if !matches!((&there.datastore.seal, &there.datastore.identity), (Seal::Age, IdentitySource::File(_))) {
        return Ok(None);
    }
    match assemble::seal_wanted(settings)? {
        SealWanted::Age(IdentityPlace::Given { text, .. }) => Ok(Some(text)),
        SealWanted::Age(IdentityPlace::File(path)) => match identity::read(&path)? {
            Some(text) => Ok(Some(text)),
            None => Err(IdentityError::Unreadable { origin: path.display().to_string() }.into()),
        },
        SealWanted::None => Err(Failure::usage(
            "the configuration for the hosts says seal = \"age\", and this machine's says \"none\"",
            "make both say the same: they are for one datastore",
        )),
    }
}

/// What the hosts need to know about a CA of our own: its root, never its key.
fn local_ca_root(settings: &Settings, there: &Settings, sites: &[Site]) -> Result<Option<String>, Failure> {
    let is_local = |name: &String| matches!(there.issuers.get(name), Some(IssuerSettings::LocalCa { .. }));
    if !sites.iter().any(|site| site.issuers.iter().any(is_local)) {
        return Ok(None);
    }
    let path = settings.local_ca_dir().join(local_ca::ROOT_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        // The CA is on another machine, or not made yet.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::new(&error, files::hint(&path, error.kind()), Exit::Failed)),
    }
}

fn answer(arguments: &Arguments, pushed: &[PushedHost], console: &Console) -> Result<Exit, Failure> {
    let failed = pushed.iter().filter(|host| host.problem.is_some()).count();
    let word = |host: &PushedHost| if host.problem.is_some() { "failed" } else { "done" };
    if arguments.json {
        let hosts = pushed.iter().map(|host| {
            let problem = host.problem.as_ref().map(|problem| serde_json::json!({ "what": problem.what, "hint": problem.hint }));
            serde_json::json!({ "host": host.host, "outcome": word(host), "problem": problem, "answer": host.answer })
        });
        let outcome = if failed > 0 { "failed" } else { "done" };
        let answer = serde_json::json!({ "version": 1, "outcome": outcome, "hosts": hosts.collect::<Vec<_>>() });
        console.answer(&format!("{answer:#}\n"))?;
    } else {
        let width = pushed.iter().map(|host| host.host.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        for host in pushed {
            let _ = writeln!(text, "{:width$}  {}", printable(&host.host), word(host));
        }
        console.answer(&text)?;
    }
    for host in pushed {
        if let Some(problem) = &host.problem {
            console.error(&format!("{}: {}", printable(&host.host), printable(&problem.what)), &printable(&problem.hint));
        }
    }
    Ok(if failed > 0 { Exit::Failed } else { Exit::Done })
}
