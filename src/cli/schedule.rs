//! `certfleet schedule`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::args::{Arguments, Schedule as Options};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::{
    DnsProvider, HttpAnswer, IdentitySource, IssuerSettings, Location, Origin, Secret, Settings, SolverSettings, TargetKind,
};
use crate::domain::schedule::{MachineRole, Presence, Schedule, ScheduleFile, Unwritable, Written};
use crate::fleet::progress::Progress as _;
use crate::fleet::schedule::{self as fleet_schedule, Change, Placed, ScheduleError};
use crate::system::files;
use crate::system::owner::Owner;

/// Where cron looks for files of packages and programs (cron(8)).
const CRON_DIRECTORY: &str = "/etc/cron.d";

/// Where units of the administrator lie (systemd.unit(5)).
const UNIT_DIRECTORY: &str = "/etc/systemd/system";

/// Exists exactly where systemd was booted (sd_booted(3)).
const SYSTEMD_BOOTED: &str = "/run/systemd/system";

/// Servers read through it: keys in it have modes of their own.
const SSL_ROOT_MODE: u32 = 0o755;

/// What starts the job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Starter {
    Cron,
    Systemd,
}

impl Starter {
    fn name(self) -> &'static str {
        match self {
            Self::Cron => "cron",
            Self::Systemd => "systemd",
        }
    }

    fn directory(self) -> &'static Path {
        Path::new(match self {
            Self::Cron => CRON_DIRECTORY,
            Self::Systemd => UNIT_DIRECTORY,
        })
    }
}

/// Prints the files that run this machine's job regularly, or puts them in place.
pub(super) async fn run(arguments: &Arguments, options: &Options, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let schedule = of_this_machine(&settings, options)?;
    let booted = Path::new(SYSTEMD_BOOTED).is_dir();
    let starter = match (options.cron, options.systemd) {
        (true, _) => Starter::Cron,
        (_, true) => Starter::Systemd,
        _ if booted => Starter::Systemd,
        _ => Starter::Cron,
    };
    let texts = match starter {
        Starter::Cron => schedule.cron(),
        Starter::Systemd => schedule.systemd(),
    };
    let texts = texts.map_err(|error: Unwritable| Failure::new(&error, "give it a plain name", Exit::Usage))?;
    let placed = if options.install { Some(install(&schedule, starter, &texts, console).await?) } else { None };
    let answer = match (arguments.json, &placed) {
        (true, _) => document(&schedule, starter, &texts, placed.as_deref()),
        (false, Some(placed)) => told(placed, arguments.quiet),
        (false, None) => printed(starter, &texts),
    };
    console.answer(&answer)?;
    Ok(Exit::Done)
}

async fn install(schedule: &Schedule, starter: Starter, texts: &[ScheduleFile], console: &Console) -> Result<Vec<Placed>, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::usage("only root can install a timer", "run it with sudo, or put what it prints without --install in place"));
    }
    if starter == Starter::Systemd {
        if !Path::new(SYSTEMD_BOOTED).is_dir() {
            return Err(Failure::usage(format!("systemd does not run here: there is no {SYSTEMD_BOOTED}"), "use --cron"));
        }
        // systemd starts no service whose writable directories are missing, and the job must be able to write there.
        let owner = Owner::find(&schedule.user).map_err(|error| Failure::new(&error, error.hint(), Exit::Usage))?;
        for written in schedule.written.iter().filter(|written| written.presence == Presence::Needed) {
            let mode = if written.what == SSL_ROOT { SSL_ROOT_MODE } else { files::SECRET_DIRECTORY };
            owner.create_dir_all(&written.path, mode)?;
        }
    }
    let placed = fleet_schedule::place(texts, starter.directory()).map_err(|error| failure(&error, starter))?;
    if starter == Starter::Systemd {
        let timer = format!("{}.timer", schedule.unit());
        fleet_schedule::enable(&timer).await.map_err(|error| failure(&error, starter))?;
    }
    for warning in rivals(schedule.role, starter) {
        console.warning(&warning);
    }
    Ok(placed)
}

/// What else starts certfleet here: another starter, or the timer of what the machine was before.
fn rivals(role: MachineRole, starter: Starter) -> Vec<String> {
    let mut found = Vec::new();
    let cron = Path::new(CRON_DIRECTORY).join("certfleet");
    if starter == Starter::Systemd && cron.exists() {
        found.push(format!("{} is there too, and starts certfleet as well: remove one of the two", cron.display()));
    }
    for of in [MachineRole::Webserver, MachineRole::BuildMachine] {
        let timer = format!("{}.timer", of.unit());
        let path = Path::new(UNIT_DIRECTORY).join(&timer);
        let job = match starter {
            Starter::Systemd if of == role => continue,
            Starter::Cron if of == role => "the same job: remove one of the two".to_owned(),
            _ => format!("the job of a {}: unless this machine is one too, remove it", of.name()),
        };
        if path.exists() {
            found.push(format!("{0} is there too, and starts {job} (systemctl disable --now {timer}; rm {0})", path.display()));
        }
    }
    found
}

fn failure(error: &ScheduleError, starter: Starter) -> Failure {
    let (hint, exit) = match error {
        ScheduleError::NoDirectory(_) if starter == Starter::Cron => ("install cron, or use --systemd".to_owned(), Exit::Usage),
        ScheduleError::NoDirectory(path) => (format!("make {}", path.display()), Exit::Usage),
        ScheduleError::Changed(path) => {
            let hint = format!(
                "compare: certfleet schedule --{} | diff {} -   then move the file away and install again",
                starter.name(),
                path.display()
            );
            (hint, Exit::Failed)
        }
        ScheduleError::Read { path, source } => (files::hint(path, source.kind()), Exit::Failed),
        ScheduleError::Write(error) => (error.hint(), Exit::Failed),
        ScheduleError::Systemctl(error) => (error.hint(), Exit::Failed),
    };
    Failure::new(error, hint, exit)
}

const SSL_ROOT: &str = "the installed certificates";

fn of_this_machine(settings: &Settings, options: &Options) -> Result<Schedule, Failure> {
    let Origin::File(configuration) = &settings.origin else {
        return Err(Failure::usage(
            "there is no configuration file with a [[site]], and a timer has nothing else to go by",
            "`certfleet init` writes one to start from; --config names one that lies elsewhere",
        ));
    };
    let role = match options.role {
        Some(role) => role.into(),
        None if settings.targets.is_empty() => MachineRole::BuildMachine,
        None => MachineRole::Webserver,
    };
    let here = |error: std::io::Error| Failure::new(&error, "change to a directory that exists", Exit::Failed);
    let program = std::env::current_exe().map_err(|error| Failure::new(&error, "is /proc mounted?", Exit::Failed))?;
    let configuration = std::path::absolute(configuration).map_err(here)?;
    let mut seen = homes_named_in(&configuration);
    // The AWS chain reads the credentials of the user that the job runs as.
    if matches!(&settings.datastore.location, Location::S3(s3) if s3.credentials.is_none()) {
        seen.push("/root/.aws".into());
    }
    if let IdentitySource::File(path) = &settings.datastore.identity {
        seen.push(path.clone());
    }
    // Password managers and command-line tools of providers keep what they know in the home of their user.
    if runs_programs_of_others(settings, role) {
        seen.push("/root".into());
    }
    Ok(Schedule {
        user: match role {
            MachineRole::Webserver => "root".to_owned(),
            MachineRole::BuildMachine => owner(settings, &configuration)?,
        },
        machine: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        splay: settings.agent.splay,
        written: written(settings, role),
        role,
        program,
        configuration,
        seen,
    })
}

fn runs_programs_of_others(settings: &Settings, role: MachineRole) -> bool {
    let identity = match &settings.datastore.identity {
        IdentitySource::Secret(secret) => Some(secret),
        IdentitySource::File(_) => None,
    };
    let store = match &settings.datastore.location {
        Location::S3(s3) => s3.credentials.as_ref(),
        Location::Directory(_) => None,
    };
    let accounts = settings.issuers.values().filter_map(|issuer| match issuer {
        IssuerSettings::Acme(acme) => acme.eab.as_ref().map(|eab| &eab.hmac_key),
        IssuerSettings::LocalCa { .. } | IssuerSettings::SelfSigned { .. } => None,
    });
    let store = store.into_iter().flat_map(|pair| [&pair.access_key, &pair.secret_key]);
    let solves = |solver: &SolverSettings| match solver {
        SolverSettings::Http01(http) => matches!(http.answer, HttpAnswer::Program(_)),
        SolverSettings::Dns01Program(_) => true,
        SolverSettings::TlsAlpn01 { .. } => false,
        SolverSettings::Dns01(dns) => {
            matches!(dns.provider, DnsProvider::AcmeSh { .. }) || dns.credentials.values().any(Secret::is_printed)
        }
    };
    identity.into_iter().chain(store).chain(accounts).any(Secret::is_printed)
        || settings.solvers.values().any(solves)
        || role == MachineRole::Webserver && settings.targets.iter().any(|target| target.script.is_some())
}

/// Scripts, hooks and secrets are named in many places: where the text speaks of a home directory, homes are not hidden.
fn homes_named_in(configuration: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(configuration).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let named = |root: &str| lines.clone().any(|line| line.contains(root));
    let roots = [("~", "/root"), ("/root", "/root"), ("/home", "/home"), ("/tmp/", "/tmp")];
    roots.iter().filter(|(word, _)| named(word)).map(|(_, root)| PathBuf::from(root)).collect()
}

fn written(settings: &Settings, role: MachineRole) -> Vec<Written> {
    let needed = |path: &Path, what| Written { path: path.to_owned(), what, presence: Presence::Needed };
    let mut written = vec![needed(&settings.runtimedata, "lock, spool, identity, certificates of the build machine")];
    if let Location::Directory(path) = &settings.datastore.location
        && !path.starts_with(&settings.runtimedata)
    {
        written.push(needed(path, "the datastore"));
    }
    for solver in settings.solvers.values() {
        if let SolverSettings::Http01(http) = solver
            && let HttpAnswer::Webroot { path } = &http.answer
        {
            written.push(Written { path: path.clone(), what: "answers to http-01 challenges", presence: Presence::Optional });
        }
    }
    if role == MachineRole::BuildMachine {
        return written;
    }
    let roots: BTreeSet<_> = settings.targets.iter().map(|target| &target.ssl_root).collect();
    written.extend(roots.into_iter().map(|root| needed(root, SSL_ROOT)));
    let mut kinds = BTreeSet::new();
    for target in settings.targets.iter().filter(|target| kinds.insert(target.kind.name())) {
        let paths = written_by_the_test_of(target.kind);
        written.extend(paths.iter().map(|(path, what)| Written { path: path.into(), what, presence: Presence::Optional }));
    }
    written
}

/// What Debian's servers write when they are asked whether their configuration is good; their reload is systemd's, not ours.
fn written_by_the_test_of(kind: TargetKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        TargetKind::Nginx => &[
            ("/run", "nginx -t makes its process id file"),
            ("/var/log/nginx", "nginx -t opens its logs"),
            ("/var/lib/nginx", "nginx -t makes its directories for temporary files"),
        ],
        TargetKind::Apache => &[
            ("/run", "apache2ctl configtest makes /run/apache2 and /run/lock/apache2"),
            ("/var/log/apache2", "apache2ctl configtest opens its logs"),
        ],
        TargetKind::Caddy => &[("/var/log/caddy", "caddy validate opens its logs"), ("/var/lib/caddy", "caddy validate opens its storage")],
        TargetKind::Postfix => &[
            ("/var/spool/postfix", "postfix check makes the directories of its queues"),
            ("/var/lib/postfix", "postfix check makes its data directory"),
        ],
        // lighttpd -tt and haproxy -c write nothing; files have no server, and what a script writes only its author knows.
        TargetKind::Lighttpd | TargetKind::Haproxy | TargetKind::Files | TargetKind::Script => &[],
    }
}

/// Whose runtimedata it is: what root wrote there, its owner could not use afterwards.
fn owner(settings: &Settings, configuration: &Path) -> Result<String, Failure> {
    let owned = [settings.runtimedata.as_path(), configuration].into_iter().find_map(|path| std::fs::metadata(path).ok());
    let id = owned.map_or(0, |metadata| metadata.uid());
    if id == 0 {
        return Ok("root".to_owned());
    }
    let found = Owner::name_of(id).map_err(|error| Failure::new(&error, error.hint(), Exit::Failed))?;
    found.ok_or_else(|| {
        let what = format!("the owner of {} is user {id}, who has no name on this machine", settings.runtimedata.display());
        Failure::usage(what, "chown it to the user that the job is to run as")
    })
}

fn printed(starter: Starter, texts: &[ScheduleFile]) -> String {
    let mut answer = String::new();
    for (index, file) in texts.iter().enumerate() {
        // One file alone can be piped as it is.
        if texts.len() > 1 {
            let gap = if index > 0 { "\n" } else { "" };
            let _ = writeln!(answer, "{gap}# ---- {}", starter.directory().join(&file.name).display());
        }
        answer.push_str(&file.text);
    }
    answer
}

fn told(placed: &[Placed], quiet: bool) -> String {
    let mut answer = String::new();
    for placed in placed {
        match placed.change {
            Change::Kept if quiet => {}
            Change::Kept => drop(writeln!(answer, "kept  {}", placed.path.display())),
            Change::Written => drop(writeln!(answer, "wrote {}", placed.path.display())),
        }
    }
    answer
}

fn document(schedule: &Schedule, starter: Starter, texts: &[ScheduleFile], placed: Option<&[Placed]>) -> String {
    let files = texts.iter().enumerate().map(|(index, file)| {
        let written = placed.map(|placed| placed[index].change == Change::Written);
        serde_json::json!({ "path": starter.directory().join(&file.name), "text": file.text, "written": written })
    });
    let files: Vec<_> = files.collect();
    let answer = serde_json::json!({ "version": 1, "role": schedule.role.name(), "starter": starter.name(), "files": files });
    format!("{answer:#}\n")
}
