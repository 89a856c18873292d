//! `[solver.NAME]` with `kind = "dns-01"`: who changes the DNS, and how one sees that it has changed.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{Program, credentials, program};
use crate::config::error::ConfigError;
use crate::config::paths::{Base, is_name};
use crate::config::read::{Field, Table};
use crate::config::secret::Secret;

/// The keys of a solver whose program sees to everything.
const PROGRAM: &[&str] = &["kind", "provider", "credentials", "present", "cleanup"];

/// The keys of a solver at a provider.
const PROVIDER: &[&str] = &["kind", "provider", "credentials", "settings", "alias", "resolver", "propagation_timeout"];

/// The same, and where acme.sh is.
const ACME_SH: &[&str] = &["kind", "provider", "credentials", "settings", "alias", "resolver", "propagation_timeout", "acme_sh"];

/// How long servers may take to show a value: some providers publish every few minutes.
const PROPAGATION_TIMEOUT: Duration = Duration::from_secs(10 * 60);

/// Where DNS servers are asked.
const DNS_PORT: u16 = 53;

/// TXT records at a provider.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DnsSettings {
    /// Who changes them.
    pub provider: DnsProvider,
    /// What it is told, and nobody else may read.
    pub credentials: BTreeMap<String, Secret>,
    /// What else it is told.
    pub settings: BTreeMap<String, String>,
    /// Where the CNAME records of all challenges lead.
    pub alias: Option<String>,
    /// Who is asked where zones and their servers are; `None`: the system's resolvers.
    pub resolver: Option<SocketAddr>,
    /// How long the servers of a zone may take to show a value.
    pub propagation_timeout: Duration,
}

/// Who changes records.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum DnsProvider {
    /// One that is built in.
    BuiltIn(String),
    /// A script that was written for acme.sh.
    AcmeSh {
        /// Its name: `dns_cf`.
        script: String,
        /// The user's acme.sh, with `dnsapi/` beside it.
        acme_sh: PathBuf,
    },
}

/// What answers on dns-01: programs, or a provider.
pub(super) enum Dns {
    Program(Program),
    Provider(DnsSettings),
}

pub(super) fn read(table: &Table<'_>, base: &Base) -> Result<Dns, ConfigError> {
    let Some(field) = table.get("provider") else {
        table.only(PROGRAM, "dns-01 with a program")?;
        return program(table, base).map(Dns::Program);
    };
    let text = field.text()?;
    if text.starts_with("script:") {
        table.only(PROGRAM, "dns-01 with a script")?;
        return program(table, base).map(Dns::Program);
    }
    let provider = if let Some(script) = text.strip_prefix("acme.sh:") {
        table.only(ACME_SH, "a script of acme.sh")?;
        if !script.starts_with("dns_") || !script.chars().all(|character| character.is_ascii_alphanumeric() || character == '_') {
            return Err(
                field.rejected(format!("{script:?} is not a script of acme.sh's dnsapi"), "write it as acme.sh does: \"acme.sh:dns_cf\"")
            );
        }
        let acme_sh = table.require("acme_sh", r#"acme_sh = "/path/to/acme.sh", with dnsapi/ beside it"#)?.path(base)?;
        DnsProvider::AcmeSh { script: script.to_owned(), acme_sh }
    } else {
        table.only(PROVIDER, "a DNS provider that is built in")?;
        if !is_name(text) {
            let hint = r#"name one that is built in, "script:NAME", or "acme.sh:dns_NAME""#;
            return Err(field.rejected(format!("{text:?} cannot be a DNS provider"), hint));
        }
        DnsProvider::BuiltIn(text.to_owned())
    };
    Ok(Dns::Provider(DnsSettings {
        provider,
        credentials: table.get("credentials").map_or_else(|| Ok(BTreeMap::new()), |field| credentials(&field, base))?,
        settings: table.get("settings").map_or_else(|| Ok(BTreeMap::new()), |field| settings(&field))?,
        alias: table.text("alias")?,
        resolver: table.get("resolver").map(|field| resolver(&field)).transpose()?,
        propagation_timeout: table.duration(
            "propagation_timeout",
            Duration::from_secs(1)..=Duration::from_secs(60 * 60),
            PROPAGATION_TIMEOUT,
        )?,
    }))
}

impl DnsSettings {
    /// A built-in provider with these credentials, and everything else as it is where nothing is configured.
    pub(in crate::config) fn built_in(name: &str, credentials: BTreeMap<String, Secret>) -> Self {
        Self {
            provider: DnsProvider::BuiltIn(name.to_owned()),
            credentials,
            settings: BTreeMap::new(),
            alias: None,
            resolver: None,
            propagation_timeout: PROPAGATION_TIMEOUT,
        }
    }
}

/// Names and values that anybody may read. Names are checked as those of credentials are: both may become variables of a program.
fn settings(field: &Field<'_>) -> Result<BTreeMap<String, String>, ConfigError> {
    let read = |(name, field): (&str, Field<'_>)| {
        super::check_variable(name, &field)?;
        Ok((name.to_owned(), field.text()?.to_owned()))
    };
    field.named()?.into_iter().map(read).collect()
}

fn resolver(field: &Field<'_>) -> Result<SocketAddr, ConfigError> {
    let text = field.text()?;
    let address = text.parse().or_else(|_| text.parse().map(|address: IpAddr| SocketAddr::new(address, DNS_PORT)));
    address.map_err(|_| field.rejected(format!("{text:?} is not an address"), r#"write "192.0.2.53" or "192.0.2.53:5353""#))
}
