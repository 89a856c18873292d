//! `[solver.NAME]`: who answers the challenges of ACME issuers.

use std::collections::BTreeMap;
use std::net::{Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use super::error::ConfigError;
use super::paths::{Base, is_name};
use super::read::{Choice, Field, Table};
use super::secret::Secret;

/// The keys of `[solver.NAME]`.
pub(super) const KEYS: &[&str] = &["kind", "mode", "listen", "path", "provider", "credentials", "present", "cleanup"];

/// The port that CAs ask for http-01 answers at (RFC 8555 section 8.3), on every address of the machine.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), 80);

/// Answers challenges.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SolverSettings {
    /// http-01: a server of our own, for as long as it takes.
    Standalone {
        /// What it listens at. `[::]` stands for every address, IPv4 included.
        listen: SocketAddr,
    },
    /// http-01: files in the directory of a server that is already there.
    Webroot {
        /// The directory it serves as `/`.
        path: PathBuf,
    },
    /// http-01: a program puts the answer where the CA will look.
    Http01Program(Program),
    /// dns-01: a program makes the TXT record.
    Dns01Program(Program),
}

/// A program that presents answers and cleans them up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Program {
    /// `providerscripts/dns/<name>/run`, checked against its `provider.toml`.
    Script {
        /// The provider's name.
        name: String,
        /// What it is given in its environment.
        credentials: BTreeMap<String, Secret>,
    },
    /// Programs of the user's own, such as certbot's hooks.
    Hooks {
        /// Program and arguments that present; never empty.
        present: Vec<String>,
        /// Program and arguments that clean up.
        cleanup: Option<Vec<String>>,
        /// What both are given in their environment.
        credentials: BTreeMap<String, Secret>,
    },
}

impl SolverSettings {
    /// Whether it answers at the DNS, rather than on port 80.
    pub fn is_dns(&self) -> bool {
        matches!(self, Self::Dns01Program(_))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Http01,
    Dns01,
}

#[derive(Clone, Copy)]
enum Mode {
    Standalone,
    Webroot,
    Script,
}

pub(super) fn read(field: Option<&Field<'_>>, base: &Base) -> Result<BTreeMap<String, SolverSettings>, ConfigError> {
    let mut solvers = BTreeMap::new();
    for (name, field) in field.map_or_else(|| Ok(Vec::new()), Field::named)? {
        if !is_name(name) {
            return Err(field.rejected(format!("{name:?} cannot be a name"), "names are made of letters, digits, - and _"));
        }
        let table = field.table(&format!("[solver.{name}]"), KEYS)?;
        solvers.insert(name.to_owned(), read_one(&table, base)?);
    }
    Ok(solvers)
}

fn read_one(table: &Table<'_>, base: &Base) -> Result<SolverSettings, ConfigError> {
    let kinds = Choice { what: "kind of solver", words: &[("http-01", Kind::Http01), ("dns-01", Kind::Dns01)], later: &["tls-alpn-01"] };
    match table.require("kind", r#"kind = "http-01" or kind = "dns-01""#)?.choose(&kinds)? {
        Kind::Http01 => http_01(table, base),
        Kind::Dns01 => {
            table.only(&["kind", "provider", "credentials", "present", "cleanup"], "dns-01")?;
            program(table, base).map(SolverSettings::Dns01Program)
        }
    }
}

fn http_01(table: &Table<'_>, base: &Base) -> Result<SolverSettings, ConfigError> {
    let words = &[("standalone", Mode::Standalone), ("webroot", Mode::Webroot), ("script", Mode::Script)];
    let modes = Choice { what: "mode", words, later: &["stateless", "redirect"] };
    match table.choose("mode", &modes, Mode::Standalone)? {
        Mode::Standalone => {
            table.only(&["kind", "mode", "listen"], r#"mode "standalone""#)?;
            let listen = table.get("listen").map_or(Ok(DEFAULT_LISTEN), |field| address(&field))?;
            Ok(SolverSettings::Standalone { listen })
        }
        Mode::Webroot => {
            table.only(&["kind", "mode", "path"], r#"mode "webroot""#)?;
            let path = table.require("path", r#"path = "/var/www/html", the directory that the web server serves"#)?.path(base)?;
            Ok(SolverSettings::Webroot { path })
        }
        Mode::Script => {
            table.only(&["kind", "mode", "provider", "credentials", "present", "cleanup"], r#"mode "script""#)?;
            program(table, base).map(SolverSettings::Http01Program)
        }
    }
}

fn address(field: &Field<'_>) -> Result<SocketAddr, ConfigError> {
    let text = field.text()?;
    text.parse().map_err(|_| field.rejected(format!("{text:?} is not an address with a port"), r#"write "0.0.0.0:80" or "[::]:80""#))
}

fn program(table: &Table<'_>, base: &Base) -> Result<Program, ConfigError> {
    let credentials = table.get("credentials").map_or_else(|| Ok(BTreeMap::new()), |field| credentials(&field, base))?;
    let cleanup = table.get("cleanup").map(|field| field.program(base)).transpose()?;
    match (table.get("provider"), table.get("present")) {
        (Some(provider), None) => match table.get("cleanup") {
            Some(field) => Err(field.rejected("does not apply to a provider", "its run script cleans up by itself")),
            None => Ok(Program::Script { name: script_name(&provider)?, credentials }),
        },
        (None, Some(present)) => Ok(Program::Hooks { present: present.program(base)?, cleanup, credentials }),
        (Some(provider), Some(_)) => Err(provider.rejected("provider and present exclude each other", "keep one of them")),
        (None, None) => Err(table.missing("provider", r#"provider = "script:NAME", or present = ["prog", "arg"]"#)),
    }
}

/// `script:NAME`. Every other provider belongs to a later release.
fn script_name(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    match text.strip_prefix("script:") {
        Some(name) if is_name(name) => Ok(name.to_owned()),
        Some(name) => Err(field.rejected(format!("{name:?} cannot be the name of a script"), "names are made of letters, digits, - and _")),
        None => Err(field.unsupported(text, r#""script:NAME", or hooks: present = ["prog", "arg"]"#)),
    }
}

/// Names of environment variables (POSIX.1-2017 section 8.1) and their values.
pub(super) fn credentials(field: &Field<'_>, base: &Base) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let read = |(name, field): (&str, Field<'_>)| {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
        let ours = ["CERTFLEET_", "CERTBOT_", "RENEWED_"].iter().any(|prefix| name.starts_with(prefix)) || matches!(name, "PATH" | "HOME");
        if !plain || name.is_empty() || ours {
            let why = format!("{name:?} cannot be the name of a credential");
            return Err(
                field.rejected(why, "it becomes an environment variable of the program: letters, digits and _, and none of our own")
            );
        }
        Ok((name.to_owned(), Secret::read(&field, base)?))
    };
    field.named()?.into_iter().map(read).collect()
}
