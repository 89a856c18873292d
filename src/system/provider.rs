//! `provider.toml`: what a script of `providerscripts/` says about itself.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

/// Names that a provider may not ask for: they are set by the protocol.
const RESERVED: [&str; 5] = ["PATH", "HOME", "CERTFLEET_", "CERTBOT_", "RENEWED_"];

/// The declarations of one script.
///
/// ```toml
/// name = "Example DNS"
/// documentation = "https://dns.example/api"
/// deadline = "5m"                                      # optional, for one call
///
/// [credentials]                                        # needed: variable, and where to find its value
/// EXAMPLE_TOKEN = "an API token with write access to the zone"
///
/// [defaults]                                           # optional: variable, and its value where none is configured
/// EXAMPLE_TTL = "60"
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Provider {
    /// What people call it.
    pub name: String,
    /// The URL of the page that describes its interface.
    pub documentation: String,
    /// Variables that must be configured, each with a description.
    pub credentials: BTreeMap<String, String>,
    /// Variables that may be configured, each with its value otherwise.
    pub defaults: BTreeMap<String, String>,
    /// How long one call may take.
    pub deadline: Option<Duration>,
}

/// A provider that cannot be used as it is, or as it is configured.
#[derive(Debug, Error)]
#[error("{what}")]
pub struct ProviderError {
    /// What is wrong, with its object.
    pub what: String,
    /// What a person can do about it.
    pub hint: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    documentation: String,
    #[serde(default)]
    credentials: BTreeMap<String, String>,
    #[serde(default)]
    defaults: BTreeMap<String, String>,
    deadline: Option<String>,
}

impl Provider {
    /// Reads `dir/provider.toml`, and makes sure that `dir/run` can be run.
    pub fn read(dir: &Path) -> Result<Self, ProviderError> {
        let path = dir.join("provider.toml");
        let text = std::fs::read_to_string(&path).map_err(|error| {
            wrong(format!("{} cannot be read", path.display()), "a provider is a directory with provider.toml and run", error)
        })?;
        let provider = Self::parse(&text, &path)?;
        runnable(&dir.join("run"))?;
        Ok(provider)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ProviderError> {
        let hint = "keys: name, documentation, deadline, [credentials], [defaults]";
        let written: Written = toml::from_str(text).map_err(|error| wrong(format!("{} is not understood", path.display()), hint, error))?;
        for name in written.credentials.keys().chain(written.defaults.keys()) {
            if !usable(name) {
                return Err(ProviderError {
                    what: format!("{} declares {name:?}, which cannot be a setting", path.display()),
                    hint:
                        "settings are variables of capital letters, digits and _, and not PATH, HOME, CERTFLEET_…, CERTBOT_… or RENEWED_…"
                            .to_owned(),
                    source: None,
                });
            }
        }
        let deadline = written.deadline.map(|text| humantime::parse_duration(&text)).transpose();
        let deadline =
            deadline.map_err(|error| wrong(format!("{}: deadline is not a duration", path.display()), "write it like \"5m\"", error))?;
        Ok(Self {
            name: written.name,
            documentation: written.documentation,
            credentials: written.credentials,
            defaults: written.defaults,
            deadline,
        })
    }

    /// The whole path of `dir/run`, as an argument for the system.
    pub fn run_path(dir: &Path) -> Result<String, ProviderError> {
        let run = std::path::absolute(dir.join("run")).unwrap_or_else(|_| dir.join("run"));
        let not_text = || ProviderError {
            what: format!("the path of {} is not UTF-8", run.display()),
            hint: "move the script".to_owned(),
            source: None,
        };
        run.to_str().map(str::to_owned).ok_or_else(not_text)
    }

    /// The variables for the script: what is configured, over the defaults. Every declared credential must be there, and nothing else.
    pub fn settings(&self, configured: BTreeMap<String, Zeroizing<String>>) -> Result<BTreeMap<String, Zeroizing<String>>, ProviderError> {
        let missing: Vec<_> =
            self.credentials.iter().filter(|(name, _)| configured.get(*name).is_none_or(|value| value.is_empty())).collect();
        if !missing.is_empty() {
            let names = missing.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
            let what: Vec<_> = missing.iter().map(|(name, what)| format!("{name}: {what}")).collect();
            return Err(ProviderError {
                what: format!("the provider {} needs credentials that are not configured: {names}", self.name),
                hint: format!("add them to its credentials ({}); see {}", what.join("; "), self.documentation),
                source: None,
            });
        }
        let known = |name: &&String| self.credentials.contains_key(*name) || self.defaults.contains_key(*name);
        if let Some(unknown) = configured.keys().find(|name| !known(name)) {
            let all: Vec<_> = self.credentials.keys().chain(self.defaults.keys()).map(String::as_str).collect();
            return Err(ProviderError {
                what: format!("the provider {} knows no credential {unknown}", self.name),
                hint: format!("it takes: {}", all.join(", ")),
                source: None,
            });
        }
        check_values(&configured)?;
        let mut settings: BTreeMap<_, _> =
            self.defaults.iter().map(|(name, value)| (name.clone(), Zeroizing::new(value.clone()))).collect();
        settings.extend(configured);
        Ok(settings)
    }
}

/// The system takes no variable with a NUL in its value (execve(2)).
pub fn check_values(values: &BTreeMap<String, Zeroizing<String>>) -> Result<(), ProviderError> {
    let Some((name, _)) = values.iter().find(|(_, value)| value.contains('\0')) else { return Ok(()) };
    let hint = "set it again, as plain text".to_owned();
    Err(ProviderError { what: format!("the credential {name} contains a NUL character"), hint, source: None })
}

fn usable(name: &str) -> bool {
    let plain = name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    let begins = name.starts_with(|first: char| first.is_ascii_uppercase());
    let reserved = RESERVED.iter().any(|reserved| if reserved.ends_with('_') { name.starts_with(reserved) } else { name == *reserved });
    plain && begins && !reserved
}

fn runnable(run: &PathBuf) -> Result<(), ProviderError> {
    let metadata = std::fs::metadata(run).map_err(|error| {
        wrong(format!("{} cannot be found", run.display()), "a provider is a directory with provider.toml and run", error)
    })?;
    if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
        return Ok(());
    }
    Err(ProviderError { what: format!("{} is not executable", run.display()), hint: format!("chmod +x {}", run.display()), source: None })
}

fn wrong(what: String, hint: &str, source: impl std::error::Error + Send + Sync + 'static) -> ProviderError {
    ProviderError { what, hint: hint.to_owned(), source: Some(Box::new(source)) }
}
