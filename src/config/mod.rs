//! File, environment and flags → typed settings.
//!
//! Flags win over the environment, the environment over the file, the file over defaults. Whatever is not understood is refused,
//! with its place and the nearest thing that would be; nothing is touched before the whole configuration has been checked.
//! Neither the process's environment nor its current directory are read here: they are handed in with [`Sources`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

mod adt;
mod datastore;
mod error;
mod issuers;
mod paths;
mod read;
mod secret;
mod settings;
mod sites;
mod solvers;
mod targets;

pub use datastore::{Addressing, DatastoreSettings, Election, Location, S3Credentials, S3Settings, Seal, ServerSideEncryption};
pub use error::{ConfigError, Place, Setting};
pub use issuers::{AcmeSettings, DEFAULT_LIFETIME, EabSettings, IssuerSettings};
pub use secret::{IdentitySource, Secret};
pub use settings::{AgentSettings, Origin, Role, Settings};
pub use solvers::{DnsProvider, DnsSettings, Http01Settings, HttpAnswer, HttpCheck, Program, SolverSettings};
pub use targets::{CommandSetting, ScriptSettings, TargetKind, TargetSettings, Wanted};

use toml::de::DeTable;

use paths::{Base, is_segment};
use read::{Document, Field, Table, directory_of};

/// Seconds of a day.
const DAY: u64 = 86_400;

/// Looked for in the current directory.
const LOCAL_FILE: &str = "certfleet.toml";

/// Looked for last.
const SYSTEM_FILE: &str = "/etc/certfleet/certfleet.toml";

/// Names the configuration file where `--config` does not.
const FILE_VARIABLE: &str = "CERTFLEET_CONFIG";

const TOP_KEYS: &[&str] =
    &["contact", "cloudhost", "build_identifier", "runtimedata", "datastore", "site", "issuer", "solver", "target", "agent"];

/// Looks an environment variable up.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Everything that settings are made of.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// The file that the command line names.
    pub config: Option<&'a Path>,
    /// The environment.
    pub environment: Environment<'a>,
    /// The current directory, whole.
    pub current_dir: &'a Path,
    /// The machine's name for itself: the node's name unless it is configured.
    pub host_name: &'a str,
}

/// Finds the configuration, reads it and checks all of it.
pub fn load(sources: Sources<'_>) -> Result<Settings, ConfigError> {
    match find(sources)? {
        Some(document) => read(&document, sources, Origin::File(document.path.clone())),
        None => read(&Document { path: PathBuf::from(LOCAL_FILE), text: String::new() }, sources, Origin::Defaults),
    }
}

/// Checks a configuration that is, or will be, at `path`: relative paths in it are relative to that file, whether it is there or not.
pub fn load_text(path: &Path, text: &str, sources: Sources<'_>) -> Result<Settings, ConfigError> {
    read(&Document { path: path.to_owned(), text: text.to_owned() }, sources, Origin::File(path.to_owned()))
}

/// A commented configuration to start from: it works as it is, and shows every key of sites, issuers, solvers and the datastore.
pub fn starter() -> &'static str {
    include_str!("starter.toml")
}

/// Every table of the file with its keys. The first, nameless one is the top level.
pub fn keys() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("", TOP_KEYS),
        ("[datastore]", datastore::KEYS),
        ("[[site]]", sites::KEYS),
        ("[issuer.NAME]", issuers::KEYS),
        ("eab", issuers::EAB_KEYS),
        ("[solver.NAME]", solvers::KEYS),
        ("[[target]]", targets::KEYS),
        ("[agent]", targets::AGENT_KEYS),
        ("a secret", secret::KEYS),
    ]
}

/// The environment variables that stand for a key of the file, with that key.
pub fn variables() -> Vec<(&'static str, &'static str)> {
    vec![
        ("CERTFLEET_CONTACT", "contact"),
        ("CERTFLEET_CLOUDHOST", "cloudhost"),
        ("CERTFLEET_BUILD_IDENTIFIER", "build_identifier"),
        ("CERTFLEET_RUNTIMEDATA", "runtimedata"),
        (datastore::VARIABLE, "[datastore] url"),
        (targets::NODE_VARIABLE, "[agent] node"),
    ]
}

/// The file that was named, else the first that exists. One that was named must exist.
fn find(sources: Sources<'_>) -> Result<Option<Document>, ConfigError> {
    let variable = set(sources.environment, FILE_VARIABLE).map(PathBuf::from);
    if let Some(path) = sources.config.map(Path::to_path_buf).or(variable) {
        return read_file(path.clone(), sources).and_then(|found| {
            let not_there = || ConfigError::Unreadable { path, source: io::ErrorKind::NotFound.into() };
            found.map(Some).ok_or_else(not_there)
        });
    }
    for path in [LOCAL_FILE, SYSTEM_FILE] {
        if let Some(document) = read_file(PathBuf::from(path), sources)? {
            return Ok(Some(document));
        }
    }
    Ok(None)
}

fn read_file(path: PathBuf, sources: Sources<'_>) -> Result<Option<Document>, ConfigError> {
    match fs::read_to_string(sources.current_dir.join(&path)) {
        Ok(text) => Ok(Some(Document { path, text })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

/// A variable that is set to something.
fn set(environment: Environment<'_>, name: &str) -> Option<String> {
    environment(name).filter(|value| !value.is_empty())
}

fn read(document: &Document, sources: Sources<'_>, origin: Origin) -> Result<Settings, ConfigError> {
    let home = set(sources.environment, "HOME").map(PathBuf::from);
    let current = Base { directory: sources.current_dir.to_path_buf(), home: home.clone() };
    let base = match origin {
        Origin::Defaults => Base { directory: sources.current_dir.to_path_buf(), home },
        _ => Base { directory: directory_of(&document.path, sources.current_dir), home },
    };
    let parsed = document.parse()?;
    let top = document.root(&parsed, TOP_KEYS)?;
    let toolkit = if top.get("site").is_none() { adt::read(sources.environment)? } else { None };

    let layers = Layers { environment: sources.environment, table: &top, base: &base, current: &current };
    let said = |value: fn(&adt::Toolkit) -> Option<adt::Said>| toolkit.as_ref().and_then(value);
    let contact = layers.text("CERTFLEET_CONTACT", "contact", said(|toolkit| toolkit.contact.clone()), mail_problem)?;
    let cloudhost = layers.text("CERTFLEET_CLOUDHOST", "cloudhost", said(|toolkit| toolkit.cloudhost.clone()), segment_problem)?;
    let build =
        layers.text("CERTFLEET_BUILD_IDENTIFIER", "build_identifier", said(|toolkit| toolkit.build_identifier.clone()), segment_problem)?;
    let runtimedata = layers.runtimedata(toolkit.as_ref().and_then(|toolkit| toolkit.runtimedata.clone()))?;

    let issuers = issuers::read(top.get("issuer").as_ref(), contact.as_deref(), &base)?;
    let mut solvers = solvers::read(top.get("solver").as_ref(), &base)?;
    if let (true, Some(dns)) = (solvers.is_empty(), toolkit.as_ref().and_then(|toolkit| toolkit.dns.clone())) {
        solvers.insert(adt::SOLVER.to_owned(), SolverSettings::Dns01(dns));
    }
    let known = sites::Known { issuers: &issuers, solvers: &solvers };
    let sites = match &toolkit {
        Some(toolkit) => vec![toolkit.site(&known)?],
        None => sites::read(top.get("site").as_ref(), &known)?,
    };
    let nothing = DeTable::new();
    let around = datastore::Surroundings {
        environment: sources.environment,
        base: &base,
        current: &current,
        runtimedata: &runtimedata,
        toolkit: toolkit.as_ref().and_then(|toolkit| toolkit.bucket.clone()),
    };
    let datastore = datastore::read(&top.section("datastore", datastore::KEYS, &nothing)?, &around)?;
    let targets = match (top.get("target"), toolkit.as_ref().and_then(|toolkit| toolkit.webserver)) {
        (None, Some(webserver)) => targets::of_the_toolkit(webserver, &base).into_iter().collect(),
        (field, _) => targets::read(field.as_ref(), &sites, &base)?,
    };
    let node = set(sources.environment, targets::NODE_VARIABLE);
    let agent = targets::read_agent(&top.section("agent", targets::AGENT_KEYS, &nothing)?, node, sources.host_name)?;
    Ok(Settings {
        origin: match (toolkit, origin) {
            (Some(_), Origin::File(path)) => Origin::Toolkit(Some(path)),
            (Some(_), _) => Origin::Toolkit(None),
            (None, origin) => origin,
        },
        contact,
        cloudhost: cloudhost.unwrap_or_else(|| "local".to_owned()),
        build_identifier: build.unwrap_or_else(|| "default".to_owned()),
        providerscripts: base.directory.join("providerscripts"),
        runtimedata,
        datastore,
        sites,
        issuers,
        solvers,
        targets,
        agent,
    })
}

/// The top level of the file, below the environment.
struct Layers<'a> {
    environment: Environment<'a>,
    table: &'a Table<'a>,
    base: &'a Base,
    current: &'a Base,
}

impl Layers<'_> {
    /// The value from the highest layer that has one, checked by `problem`, which says what is wrong with it.
    fn text(&self, variable: &'static str, key: &str, toolkit: Option<adt::Said>, problem: Check) -> Result<Option<String>, ConfigError> {
        let from_environment = set(self.environment, variable).map(|text| (variable, text)).or(toolkit);
        let (text, at) = match (from_environment, self.table.get(key)) {
            (Some((variable, text)), _) => (text, Setting::new(Place::Variable(variable.to_owned()), key)),
            (None, Some(field)) => (field.text()?.to_owned(), field.setting()),
            (None, None) => return Ok(None),
        };
        match problem(&text) {
            None => Ok(Some(text)),
            Some((why, hint)) => Err(at.rejected(why, hint)),
        }
    }

    fn runtimedata(&self, toolkit: Option<PathBuf>) -> Result<PathBuf, ConfigError> {
        const VARIABLE: &str = "CERTFLEET_RUNTIMEDATA";
        if let Some(text) = set(self.environment, VARIABLE) {
            let at = Setting::new(Place::Variable(VARIABLE.to_owned()), "runtimedata");
            return self.current.resolve(&text).map_err(|why| at.rejected(why, "write the whole path"));
        }
        match (toolkit, self.table.path("runtimedata", self.base)?) {
            (Some(path), _) => Ok(self.current.directory.join(path)),
            (None, Some(path)) => Ok(path),
            (None, None) => Ok(self.base.directory.join("runtimedata")),
        }
    }
}

/// What is wrong with a text, and what to do about it.
type Check = fn(&str) -> Option<(String, &'static str)>;

fn segment_problem(text: &str) -> Option<(String, &'static str)> {
    let hint = "it becomes the name of a directory: no slashes, and neither . nor ..";
    (!is_segment(text)).then(|| (format!("{text:?} cannot be used"), hint))
}

/// Enough to catch slips; whether a mailbox exists only mail can tell.
fn mail_problem(text: &str) -> Option<(String, &'static str)> {
    let parts = text.split_once('@');
    let plain = parts.is_some_and(|(user, host)| !user.is_empty() && !host.is_empty() && !host.contains('@'));
    let clean = !text.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, ',' | ':'));
    (!plain || !clean).then(|| (format!("{text:?} is not a mail address"), "write one address: \"ops@example.com\""))
}

fn mail_address(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    mail_problem(text).map_or_else(|| Ok(text.to_owned()), |(why, hint)| Err(field.rejected(why, hint)))
}
