//! `[[target]]` and `[agent]`: what a node installs, and who it is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::DAY;
use super::error::{ConfigError, Place, Setting};
use super::paths::{Base, is_name, is_segment};
use super::read::{Choice, Field, Table};
use super::secret::Secret;
use super::settings::{AgentSettings, Role};
use super::solvers;
use crate::domain::identifier::Identifier;
use crate::domain::site::Site;

/// The keys of `[[target]]`.
pub(super) const KEYS: &[&str] =
    &["kind", "sites", "ssl_root", "owner", "key_mode", "verify", "test", "reload", "deadline", "provider", "credentials"];

/// The keys of a server that programs tell.
const SERVER_KEYS: &[&str] = &["kind", "sites", "ssl_root", "owner", "key_mode", "verify", "test", "reload", "deadline"];

/// The keys of `kind = "script"`.
const SCRIPT_KEYS: &[&str] = &["kind", "sites", "ssl_root", "owner", "key_mode", "verify", "deadline", "provider", "credentials"];

/// Where the toolkit keeps certificates on its webservers.
const TOOLKIT_SSL_ROOT: &str = "~/ssl";

/// Where the toolkit's webservers listen.
const TOOLKIT_VERIFY: &str = "127.0.0.1:443";

/// The keys of `[agent]`.
pub(super) const AGENT_KEYS: &[&str] = &["node", "role", "splay", "stale_after"];

/// Overrides `[agent] node`.
pub(super) const NODE_VARIABLE: &str = "CERTFLEET_NODE";

const DEFAULT_SPLAY: Duration = Duration::from_secs(300);
const DEFAULT_STALE_AFTER: Duration = Duration::from_secs(36 * 3_600);

const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// Only the owner may read private keys.
const DEFAULT_KEY_MODE: u32 = 0o600;

/// What bundles are installed into on a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetSettings {
    /// The server.
    pub kind: TargetKind,
    /// The sites it serves.
    pub sites: Wanted,
    /// The directory with `live` and `archive`.
    pub ssl_root: PathBuf,
    /// `user` or `user:group`; `None` for whoever runs the agent.
    pub owner: Option<String>,
    /// The permission bits of private keys.
    pub key_mode: u32,
    /// `host:port` to shake hands with after a reload; `None` for no probe.
    pub verify: Option<String>,
    /// What tests the server's configuration.
    pub test: CommandSetting,
    /// What makes it load its files again.
    pub reload: CommandSetting,
    /// How long each of them may take, and how long a new certificate is waited for until it is served.
    pub deadline: Duration,
    /// The script; there is one exactly where the kind is [`TargetKind::Script`].
    pub script: Option<ScriptSettings>,
}

/// A program that a server is told by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandSetting {
    /// What suits the server as its package has it.
    Packaged,
    /// None.
    Nothing,
    /// This program with these arguments; never empty.
    Program(Vec<String>),
}

/// `providerscripts/deploy/<name>/run`, checked against its `provider.toml`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScriptSettings {
    /// The script's name.
    pub name: String,
    /// What it is given in its environment.
    pub credentials: BTreeMap<String, Secret>,
}

/// Which sites a target serves.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Wanted {
    /// All of them.
    All,
    /// These.
    These(Vec<Identifier>),
}

/// The kinds of targets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TargetKind {
    /// nginx.
    Nginx,
    /// The Apache HTTP server.
    Apache,
    /// lighttpd.
    Lighttpd,
    /// HAProxy.
    Haproxy,
    /// Caddy.
    Caddy,
    /// Postfix.
    Postfix,
    /// Nothing to reload: files only.
    Files,
    /// A program of the user's own.
    Script,
}

impl TargetKind {
    /// The kind, as the configuration spells it.
    pub fn name(self) -> &'static str {
        KINDS.words.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

const KINDS: Choice<'_, TargetKind> = Choice {
    what: "kind of target",
    words: &[
        ("nginx", TargetKind::Nginx),
        ("apache", TargetKind::Apache),
        ("lighttpd", TargetKind::Lighttpd),
        ("haproxy", TargetKind::Haproxy),
        ("caddy", TargetKind::Caddy),
        ("postfix", TargetKind::Postfix),
        ("files", TargetKind::Files),
        ("script", TargetKind::Script),
    ],
    later: &[],
};

pub(super) fn read(field: Option<&Field<'_>>, sites: &[Site], base: &Base) -> Result<Vec<TargetSettings>, ConfigError> {
    let tables = field.map_or_else(|| Ok(Vec::new()), |field| field.tables("[[target]]", KEYS))?;
    let mut targets: Vec<TargetSettings> = Vec::new();
    for table in &tables {
        let target = read_one(table, sites, base)?;
        let same_root = targets.iter().position(|earlier| earlier.ssl_root == target.ssl_root);
        if let Some(index) = same_root.filter(|index| access(&targets[*index]) != access(&target)) {
            let at = Setting::new(table.place(), "[[target]] ssl_root");
            let earlier = tables[index].place();
            let why = format!("{} is that of the [[target]] at {earlier} too, with another owner or key_mode", target.ssl_root.display());
            return Err(at.rejected(why, "give both the same owner and key_mode, or another ssl_root"));
        }
        targets.push(target);
    }
    Ok(targets)
}

/// What targets must agree on that share their files.
fn access(target: &TargetSettings) -> (Option<&str>, u32) {
    (target.owner.as_deref(), target.key_mode)
}

fn read_one(table: &Table<'_>, sites: &[Site], base: &Base) -> Result<TargetSettings, ConfigError> {
    let kind = table.require("kind", r#"kind = "nginx""#)?.choose(&KINDS)?;
    let script = if kind == TargetKind::Script {
        table.only(SCRIPT_KEYS, r#"kind "script""#)?;
        Some(script(table, base)?)
    } else {
        table.only(SERVER_KEYS, r#"any kind but "script""#)?;
        None
    };
    let ssl_root = match table.path("ssl_root", base)? {
        Some(path) => path,
        None => {
            base.resolve("~/ssl").map_err(|_| table.missing("ssl_root", r#"ssl_root = "/etc/ssl/fleet": there is no HOME to put it in"#))?
        }
    };
    let deadlines = Duration::from_secs(1)..=Duration::from_secs(600);
    Ok(TargetSettings {
        kind,
        sites: table.get("sites").map_or(Ok(Wanted::All), |field| wanted(&field, sites))?,
        ssl_root,
        owner: table.get("owner").map(|field| owner(&field)).transpose()?,
        key_mode: table.get("key_mode").map_or(Ok(DEFAULT_KEY_MODE), |field| key_mode(&field))?,
        verify: table.get("verify").map(|field| host_and_port(&field)).transpose()?,
        test: command(table.get("test"), base)?,
        reload: command(table.get("reload"), base)?,
        deadline: table.duration("deadline", deadlines, DEFAULT_DEADLINE)?,
        script,
    })
}

/// The target of a webserver of the toolkit, which keeps its certificates where certbot would, below the home directory.
pub(super) fn of_the_toolkit(kind: TargetKind, base: &Base) -> Option<TargetSettings> {
    Some(TargetSettings {
        kind,
        sites: Wanted::All,
        ssl_root: base.resolve(TOOLKIT_SSL_ROOT).ok()?,
        owner: None,
        key_mode: DEFAULT_KEY_MODE,
        verify: Some(TOOLKIT_VERIFY.to_owned()),
        test: CommandSetting::Packaged,
        reload: CommandSetting::Packaged,
        deadline: DEFAULT_DEADLINE,
        script: None,
    })
}

fn command(field: Option<Field<'_>>, base: &Base) -> Result<CommandSetting, ConfigError> {
    let Some(field) = field else { return Ok(CommandSetting::Packaged) };
    Ok(field.program_or_none(base)?.map_or(CommandSetting::Nothing, CommandSetting::Program))
}

fn script(table: &Table<'_>, base: &Base) -> Result<ScriptSettings, ConfigError> {
    let provider = table.require("provider", r#"provider = "NAME", for providerscripts/deploy/NAME"#)?;
    let name = provider.text()?;
    if !is_name(name) {
        return Err(provider.rejected(format!("{name:?} cannot be the name of a script"), "names are made of letters, digits, - and _"));
    }
    let credentials = table.get("credentials").map_or_else(|| Ok(BTreeMap::new()), |field| solvers::credentials(&field, base))?;
    Ok(ScriptSettings { name: name.to_owned(), credentials })
}

fn wanted(field: &Field<'_>, sites: &[Site]) -> Result<Wanted, ConfigError> {
    let items = field.list()?;
    if items.iter().any(|item| item.text().is_ok_and(|text| text == "*")) {
        return Ok(Wanted::All);
    }
    let find = |item: &Field<'_>| {
        let text = item.text()?;
        let parsed: Option<Identifier> = text.parse().ok();
        let known = || sites.iter().map(|site| site.name.identifier().to_string()).collect();
        parsed.filter(|name| sites.iter().any(|site| site.name.identifier() == name)).ok_or_else(|| item.unknown("site", text, known()))
    };
    items.iter().map(find).collect::<Result<_, _>>().map(Wanted::These)
}

fn owner(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    let parts: Vec<_> = text.split(':').collect();
    if parts.len() <= 2 && parts.iter().all(|part| is_name(part)) {
        return Ok(text.to_owned());
    }
    Err(field.rejected(format!("{text:?} is not an owner"), r#"write "user" or "user:group""#))
}

/// Octal digits. What everybody may read is no secret, and a key that its owner cannot read is of no use.
fn key_mode(field: &Field<'_>) -> Result<u32, ConfigError> {
    const HINT: &str = r#"write "0600", or "0640" for a group that may read keys"#;
    let text = field.text()?;
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && !text.starts_with('+'));
    match mode {
        Some(mode) if mode & 0o007 != 0 => Err(field.rejected(format!("with {text:?} everybody could use the private keys"), HINT)),
        Some(mode) if mode & 0o400 != 0 => Ok(mode),
        _ => Err(field.rejected(format!("{text:?} is not the mode of a readable file"), HINT)),
    }
}

fn host_and_port(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    let parts = text.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    let valid = parts
        .is_some_and(|(host, port)| port != 0 && host.parse::<Identifier>().is_ok_and(|name| !matches!(name, Identifier::Wildcard(_))));
    let bare_ipv6 = parts.is_some_and(|(host, _)| host.contains(':') && !host.starts_with('['));
    if valid && !bare_ipv6 {
        return Ok(text.to_owned());
    }
    Err(field.rejected(format!("{text:?} is not a host and a port"), r#"write "127.0.0.1:443" or "[::1]:443""#))
}

pub(super) fn read_agent(table: &Table<'_>, override_node: Option<String>, host_name: &str) -> Result<AgentSettings, ConfigError> {
    let field = table.get("node");
    let (node, place) = match (override_node, field) {
        (Some(name), _) => (name, Place::Variable(NODE_VARIABLE.to_owned())),
        (None, Some(field)) => (field.text()?.to_owned(), field.setting().place),
        (None, None) => (host_name.to_owned(), Place::HostName),
    };
    if !is_segment(&node) {
        let hint = "a node's name is part of a file name: write node = \"ws-1\" in [agent]";
        return Err(Setting::new(place, "[agent] node").rejected(format!("{node:?} cannot be the name of a node"), hint));
    }
    let roles = Choice { what: "role", words: &[("renewer", Role::Renewer), ("follower", Role::Follower)], later: &[] };
    let day = Duration::from_secs(DAY);
    Ok(AgentSettings {
        node,
        role: table.choose("role", &roles, Role::Renewer)?,
        splay: table.duration("splay", Duration::ZERO..=day, DEFAULT_SPLAY)?,
        stale_after: table.duration("stale_after", Duration::from_secs(60)..=365 * day, DEFAULT_STALE_AFTER)?,
    })
}
