//! `[solver.NAME]`: who answers the challenges of ACME issuers.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::error::ConfigError;
use super::paths::{Base, is_name};
use super::read::{Choice, Field, Table};
use super::secret::Secret;

mod dns;
mod http;

pub use dns::{DnsProvider, DnsSettings};
pub use http::{Http01Settings, HttpAnswer, HttpCheck};

/// The keys of `[solver.NAME]`.
pub(super) const KEYS: &[&str] = &[
    "kind",
    "mode",
    "check",
    "listen",
    "path",
    "url",
    "provider",
    "credentials",
    "present",
    "cleanup",
    "settings",
    "alias",
    "resolver",
    "propagation_timeout",
    "acme_sh",
];

/// Answers challenges.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SolverSettings {
    /// http-01: a file on port 80.
    Http01(Http01Settings),
    /// tls-alpn-01: a server of our own on port 443, for as long as it takes.
    TlsAlpn01 {
        /// What it listens at. `[::]` stands for every address, IPv4 included.
        listen: SocketAddr,
    },
    /// dns-01: a program makes the TXT record.
    Dns01Program(Program),
    /// dns-01: TXT records at a provider.
    Dns01(DnsSettings),
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
    /// Whether it answers at the DNS, rather than on a port of the servers.
    pub fn is_dns(&self) -> bool {
        matches!(self, Self::Dns01Program(_) | Self::Dns01(_))
    }

    /// Its kind of challenge, as the configuration spells it.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Http01(_) => "http-01",
            Self::TlsAlpn01 { .. } => "tls-alpn-01",
            Self::Dns01Program(_) | Self::Dns01(_) => "dns-01",
        }
    }

    /// Whether the servers answer by themselves, with the one thumbprint that their configuration has.
    pub fn is_stateless(&self) -> bool {
        matches!(self, Self::Http01(Http01Settings { answer: HttpAnswer::Stateless, .. }))
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Http01,
    Dns01,
    TlsAlpn01,
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
    let words = &[("http-01", Kind::Http01), ("dns-01", Kind::Dns01), ("tls-alpn-01", Kind::TlsAlpn01)];
    let kinds = Choice { what: "kind of solver", words, later: &[] };
    let kind = table.require("kind", r#"kind = "http-01", kind = "dns-01" or kind = "tls-alpn-01""#)?;
    if kind.text()? == "dns-persist-01" {
        // The ACME library drops the fields of its challenge, which say what the record must hold.
        let why = "dns-persist-01 is still a draft, whose records CAs have not agreed upon: it is not supported";
        return Err(kind.rejected(why, "use dns-01"));
    }
    match kind.choose(&kinds)? {
        Kind::Http01 => http::http_01(table, base).map(SolverSettings::Http01),
        Kind::TlsAlpn01 => http::tls_alpn_01(table).map(|listen| SolverSettings::TlsAlpn01 { listen }),
        Kind::Dns01 => dns::read(table, base).map(|dns| match dns {
            dns::Dns::Program(program) => SolverSettings::Dns01Program(program),
            dns::Dns::Provider(settings) => SolverSettings::Dns01(settings),
        }),
    }
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
        (None, None) => Err(table.missing("provider", r#"provider = "NAME" or "script:NAME", or present = ["prog", "arg"]"#)),
    }
}

/// `script:NAME`.
fn script_name(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    match text.strip_prefix("script:") {
        Some(name) if is_name(name) => Ok(name.to_owned()),
        Some(name) => Err(field.rejected(format!("{name:?} cannot be the name of a script"), "names are made of letters, digits, - and _")),
        None => {
            let why = format!("{text:?} is no script, and only dns-01 has other providers");
            Err(field.rejected(why, r#"write "script:NAME", or hooks: present = ["prog", "arg"]"#))
        }
    }
}

/// Names of environment variables (POSIX.1-2017 section 8.1) and their values.
pub(super) fn credentials(field: &Field<'_>, base: &Base) -> Result<BTreeMap<String, Secret>, ConfigError> {
    let read = |(name, field): (&str, Field<'_>)| {
        check_variable(name, &field)?;
        Ok((name.to_owned(), Secret::read(&field, base)?))
    };
    field.named()?.into_iter().map(read).collect()
}

fn check_variable(name: &str, field: &Field<'_>) -> Result<(), ConfigError> {
    let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    let ours = ["CERTFLEET_", "CERTBOT_", "RENEWED_"].iter().any(|prefix| name.starts_with(prefix)) || matches!(name, "PATH" | "HOME");
    if !plain || name.is_empty() || ours {
        let why = format!("{name:?} cannot be the name of a credential");
        return Err(field.rejected(why, "it becomes an environment variable of the program: letters, digits and _, and none of our own"));
    }
    Ok(())
}
