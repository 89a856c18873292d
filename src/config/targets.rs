//! `[[target]]` and `[agent]`: what a node installs, and who it is. The commands of this release only check them.

use std::path::PathBuf;
use std::time::Duration;

use super::DAY;
use super::error::{ConfigError, Place, Setting};
use super::paths::{Base, is_name, is_segment};
use super::read::{Choice, Field, Table};
use super::settings::{AgentSettings, Role};
use crate::domain::identifier::Identifier;
use crate::domain::site::Site;

/// The keys of `[[target]]`.
pub(super) const KEYS: &[&str] = &["kind", "sites", "ssl_root", "owner", "key_mode", "verify"];

/// The keys of `[agent]`.
pub(super) const AGENT_KEYS: &[&str] = &["node", "role", "splay", "stale_after"];

/// Overrides `[agent] node`.
pub(super) const NODE_VARIABLE: &str = "CERTFLEET_NODE";

const DEFAULT_SPLAY: Duration = Duration::from_secs(300);
const DEFAULT_STALE_AFTER: Duration = Duration::from_secs(36 * 3_600);

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
    tables.iter().map(|table| read_one(table, sites, base)).collect()
}

fn read_one(table: &Table<'_>, sites: &[Site], base: &Base) -> Result<TargetSettings, ConfigError> {
    let kind = table.require("kind", r#"kind = "nginx""#)?.choose(&KINDS)?;
    let ssl_root = match table.path("ssl_root", base)? {
        Some(path) => path,
        None => {
            base.resolve("~/ssl").map_err(|_| table.missing("ssl_root", r#"ssl_root = "/etc/ssl/fleet": there is no HOME to put it in"#))?
        }
    };
    Ok(TargetSettings {
        kind,
        sites: table.get("sites").map_or(Ok(Wanted::All), |field| wanted(&field, sites))?,
        ssl_root,
        owner: table.get("owner").map(|field| owner(&field)).transpose()?,
        key_mode: table.get("key_mode").map_or(Ok(DEFAULT_KEY_MODE), |field| key_mode(&field))?,
        verify: table.get("verify").map(|field| host_and_port(&field)).transpose()?,
    })
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
