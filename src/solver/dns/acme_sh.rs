//! TXT records by the scripts that were written for acme.sh (its `dnsapi/`), unmodified, with the user's own acme.sh around them.
//!
//! acme.sh runs a first word that is no option as a function of its own; `eval` brings the script in. What is evaluated is always the same
//! text: the record, its value and the credentials are in the environment, where nothing is carried out. acme.sh keeps credentials in its
//! working directory, so that is one in memory where there is such a place, and gone again after each call. Its scripts hand them to curl in
//! arguments, which other users of the machine may see while it runs: that is theirs, and the manual says so.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::Records;
use super::redaction::without;
use super::zone::{Place, shown};
use crate::solver::SolverError;
use crate::system::command::Command;
use crate::system::error_chain::in_full;
use crate::system::provider;

/// What acme.sh is given to evaluate.
const CALL: &str = r#"_initpath; . "$CERTFLEET_DNSAPI" && "$CERTFLEET_CALL" "$CERTFLEET_RECORD" "$CERTFLEET_VALUE""#;

/// How long one call may take: some scripts sleep between their requests.
const DEADLINE: Duration = Duration::from_secs(5 * 60);

/// A file system in memory (hier(7) of Linux).
const MEMORY: &str = "/dev/shm";

/// A script of acme.sh.
pub struct AcmeSh {
    program: PathBuf,
    script: String,
    variables: BTreeMap<String, Zeroizing<String>>,
    secrets: Vec<Zeroizing<String>>,
}

impl AcmeSh {
    /// Takes the script `dns_NAME` out of the directory `dnsapi` beside `acme_sh`, and makes sure that both are there.
    pub fn new(
        acme_sh: &Path,
        script: &str,
        credentials: BTreeMap<String, Zeroizing<String>>,
        settings: BTreeMap<String, String>,
    ) -> Result<Self, SolverError> {
        provider::check_values(&credentials)?;
        let this = Self {
            program: acme_sh.to_owned(),
            script: script.to_owned(),
            secrets: credentials.values().cloned().collect(),
            variables: settings.into_iter().map(|(name, value)| (name, Zeroizing::new(value))).chain(credentials).collect(),
        };
        for path in [this.program.clone(), this.dnsapi()] {
            if !path.is_file() {
                let hint =
                    "set acme_sh to your copy of acme.sh, with its dnsapi/ beside it; scripts are named as there: \"acme.sh:dns_cf\"";
                return Err(SolverError { what: format!("there is no {}", path.display()), hint: hint.to_owned(), source: None });
            }
        }
        Ok(this)
    }

    fn dnsapi(&self) -> PathBuf {
        self.program.with_file_name("dnsapi").join(format!("{}.sh", self.script))
    }

    async fn call(&self, action: &str, doing: &str, place: &Place, value: &str) -> Result<(), SolverError> {
        let record = shown(&place.record);
        let failed = |why: String, hint: String| SolverError {
            what: format!("acme.sh's {} cannot {doing} {record}: {}", self.script, self.without_secrets(&why)),
            hint,
            source: None,
        };
        let directory = working_directory().map_err(|error| failed(format!("no directory for it: {error}"), "see the cause".to_owned()))?;
        let home = directory.path().to_string_lossy().into_owned();
        let mut command = Command::new("/bin/sh", DEADLINE).arg(&self.program).arg("eval").arg(CALL).inherit_path_and_home();
        for (name, value) in &self.variables {
            command = command.env(name, value.as_str());
        }
        let command = command
            .env("HOME", &home)
            .env("LE_WORKING_DIR", &home)
            .env("LE_CONFIG_HOME", &home)
            .env("CERTFLEET_DNSAPI", self.dnsapi().to_string_lossy())
            .env("CERTFLEET_CALL", format!("{}_{action}", self.script))
            .env("CERTFLEET_RECORD", record.as_str())
            .env("CERTFLEET_VALUE", value);
        let ran = command.directory(directory.path()).run().await;
        let gone = directory.close();
        ran.map_err(|error| {
            failed(in_full(&error), "what it wrote is shown; its page in acme.sh's wiki says which variables it wants".to_owned())
        })?;
        gone.map_err(|error| failed(format!("its credentials may be left in {home}: {error}"), format!("remove {home}")))
    }

    fn without_secrets(&self, text: &str) -> String {
        without(text, self.secrets.iter().map(|secret| secret.as_str()))
    }
}

/// One that only its owner may enter.
fn working_directory() -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("certfleet-").permissions(Permissions::from_mode(0o700));
    builder.tempdir_in(MEMORY).or_else(|_| builder.tempdir())
}

#[async_trait]
impl Records for AcmeSh {
    async fn add(&self, place: &Place, value: &str) -> Result<(), SolverError> {
        self.call("add", "add a value to", place, value).await
    }

    async fn remove(&self, place: &Place, value: &str) -> Result<(), SolverError> {
        self.call("rm", "remove our value from", place, value).await
    }
}

impl fmt::Debug for AcmeSh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcmeSh").field("program", &self.program).field("script", &self.script).finish_non_exhaustive()
    }
}
