//! dns-01 and http-01 answered by a program: one of `providerscripts/`, or a hook that was written for certbot.
//!
//! The protocol: `run present` puts the answer in place and ends when it can be seen, `run cleanup` takes it away. Exit status 0 is
//! success; anything else fails the step, before the CA is asked. The environment is cleared but for
//!
//! | variable | is |
//! | --- | --- |
//! | `PATH`, `HOME` | as certfleet has them |
//! | the declared credentials and defaults | as configured |
//! | `CERTFLEET_CHALLENGE` | `dns-01` or `http-01` |
//! | `CERTFLEET_IDENTIFIER` | what is being proven: `*.example.com` |
//! | `CERTFLEET_RECORD` | dns-01: the name of the TXT record, `_acme-challenge.example.com` |
//! | `CERTFLEET_PATH` | http-01: the path of the answer, `/.well-known/acme-challenge/…` |
//! | `CERTFLEET_TOKEN` | the CA's token, whatever the kind of challenge |
//! | `CERTFLEET_VALUE` | the contents of the record, or of the answer |
//! | `CERTBOT_DOMAIN`, `CERTBOT_IDENTIFIER` | the name without a star |
//! | `CERTBOT_VALIDATION` | the same as `CERTFLEET_VALUE` |
//! | `CERTBOT_TOKEN` | http-01: the token |
//! | `CERTBOT_REMAINING_CHALLENGES` | how many come after this one |
//! | `CERTBOT_ALL_DOMAINS`, `CERTBOT_ALL_IDENTIFIERS` | all names of the order, without stars, joined by commas |
//! | `CERTBOT_AUTH_OUTPUT` | on cleanup: what `present` wrote to standard output |
//!
//! The certbot names are those of its manual plugin: <https://eff-certbot.readthedocs.io/en/stable/using.html#pre-and-post-validation-hooks>.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{Challenge, ChallengeKind, DNS_01_LABEL, HTTP_01_PATH, Presented, Solver, SolverError};
use crate::system::command::{Command, CommandError};
use crate::system::provider::{self, Provider, ProviderError};

/// How long one call may take where the provider does not say: a script that waits for a record to spread needs minutes.
const DEADLINE: Duration = Duration::from_secs(10 * 60);

/// What a cleanup call is told of the output of its present call, in bytes.
const LONGEST_OUTPUT_BYTES: usize = 64 * 1024;

/// Answers challenges by running a program.
pub struct Script {
    kind: ChallengeKind,
    present: Vec<String>,
    cleanup: Option<Vec<String>>,
    settings: BTreeMap<String, Zeroizing<String>>,
    deadline: Duration,
    turns: Turns,
}

/// Who has to wait for whom.
enum Turns {
    /// certbot runs hooks one after the other, and hooks rely on it: the one with no remaining challenges does the work of all.
    OneByOne(Arc<tokio::sync::Mutex<()>>),
    /// Calls for different names run at once. Calls for one name (`example.com` and `*.example.com`) change the same record.
    ByName(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>),
}

impl Turns {
    fn of(&self, challenge: &Challenge) -> Arc<tokio::sync::Mutex<()>> {
        match self {
            Self::OneByOne(turn) => Arc::clone(turn),
            Self::ByName(turns) => {
                let mut turns = turns.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(turns.entry(name(challenge)).or_default())
            }
        }
    }
}

impl Script {
    /// Takes `dir/run` and `dir/provider.toml`, and checks both and the credentials, so that mistakes show before any order is placed.
    pub fn load(dir: &Path, kind: ChallengeKind, credentials: BTreeMap<String, Zeroizing<String>>) -> Result<Self, SolverError> {
        let provider = Provider::read(dir)?;
        let settings = provider.settings(credentials)?;
        let run = Provider::run_path(dir)?;
        let call = |action: &str| vec![run.clone(), action.to_owned()];
        Ok(Self {
            kind,
            present: call("present"),
            cleanup: Some(call("cleanup")),
            settings,
            deadline: provider.deadline.unwrap_or(DEADLINE),
            turns: Turns::ByName(Mutex::default()),
        })
    }

    /// Takes existing certbot hooks (`--manual-auth-hook`, `--manual-cleanup-hook`) as lists of program and arguments. No shell sees them.
    pub fn from_hooks(kind: ChallengeKind, present: Vec<String>, cleanup: Option<Vec<String>>) -> Result<Self, SolverError> {
        for (name, command) in [("present", Some(&present)), ("cleanup", cleanup.as_ref())] {
            if command.is_some_and(Vec::is_empty) {
                let what = format!("the {name} hook is empty");
                return Err(SolverError { what, hint: format!("write {name} = [\"/path/of/program\"]"), source: None });
            }
        }
        let turns = Turns::OneByOne(Arc::default());
        Ok(Self { kind, present, cleanup, settings: BTreeMap::new(), deadline: DEADLINE, turns })
    }

    /// Gives every call these in its environment. One that cannot be there is refused before any order is placed.
    pub fn with_credentials(mut self, credentials: BTreeMap<String, Zeroizing<String>>) -> Result<Self, SolverError> {
        provider::check_values(&credentials)?;
        self.settings = credentials;
        Ok(self)
    }

    /// Gives every call `deadline` instead.
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// What a script writes goes to terminals and into the bucket, and one with `set -x` or `curl -v` in it writes its credentials.
    fn failed(&self, doing: &str, challenge: &Challenge, error: CommandError) -> SolverError {
        let error = error.without(self.settings.values().map(|value| value.as_str()));
        let what = format!("the script could not {doing} the answer for {}", challenge.identifier);
        SolverError { what, hint: error.hint(), source: Some(Box::new(error)) }
    }

    fn command(&self, call: &[String], challenge: &Challenge) -> Result<Command, SolverError> {
        let (program, args) = call.split_first().ok_or_else(|| SolverError {
            what: "there is no program to run".to_owned(),
            hint: "name one in the solver's configuration".to_owned(),
            source: None,
        })?;
        let mut command = args.iter().fold(Command::new(PathBuf::from(program), self.deadline), Command::arg).inherit_path_and_home();
        for (name, value) in &self.settings {
            command = command.env(name, value.as_str());
        }
        let base = name(challenge);
        command = command.env("CERTFLEET_CHALLENGE", self.kind.name()).env("CERTFLEET_IDENTIFIER", challenge.identifier.to_string());
        let value = match self.kind {
            ChallengeKind::Dns01 => {
                command = command.env("CERTFLEET_RECORD", format!("{DNS_01_LABEL}.{base}"));
                &challenge.dns_value
            }
            ChallengeKind::Http01 | ChallengeKind::TlsAlpn01 => {
                command = command.env("CERTFLEET_PATH", format!("{HTTP_01_PATH}{}", challenge.token));
                command = command.env("CERTBOT_TOKEN", &challenge.token);
                &challenge.key_authorization
            }
        };
        let all = challenge.all.iter().map(|identifier| identifier.base_name().map_or_else(|| identifier.to_string(), str::to_owned));
        let all = all.collect::<Vec<_>>().join(",");
        Ok(command
            .env("CERTFLEET_TOKEN", &challenge.token)
            .env("CERTFLEET_VALUE", value)
            .env("CERTBOT_VALIDATION", value)
            .env("CERTBOT_DOMAIN", &base)
            .env("CERTBOT_IDENTIFIER", &base)
            .env("CERTBOT_REMAINING_CHALLENGES", challenge.remaining.to_string())
            .env("CERTBOT_ALL_DOMAINS", &all)
            .env("CERTBOT_ALL_IDENTIFIERS", &all))
    }
}

/// What the challenge is at: a name without a star, or an address.
fn name(challenge: &Challenge) -> String {
    challenge.identifier.base_name().map_or_else(|| challenge.identifier.to_string(), str::to_owned)
}

impl From<ProviderError> for SolverError {
    fn from(error: ProviderError) -> Self {
        let ProviderError { what, hint, source } = error;
        Self { what, hint, source }
    }
}

#[async_trait]
impl Solver for Script {
    fn kind(&self) -> ChallengeKind {
        self.kind
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        let turn = self.turns.of(challenge);
        let _turn = turn.lock().await;
        let output = self.command(&self.present, challenge)?.run().await.map_err(|error| self.failed("present", challenge, error))?;
        Ok(Presented(String::from_utf8_lossy(&output.stdout).trim().to_owned()))
    }

    async fn clean_up(&self, challenge: &Challenge, presented: &Presented) -> Result<(), SolverError> {
        let Some(cleanup) = &self.cleanup else { return Ok(()) };
        let turn = self.turns.of(challenge);
        let _turn = turn.lock().await;
        // The system takes no variable with a NUL, nor one of 128 KiB (execve(2)).
        let output = presented.0[..presented.0.floor_char_boundary(LONGEST_OUTPUT_BYTES)].replace('\0', "");
        let command = self.command(cleanup, challenge)?.env("CERTBOT_AUTH_OUTPUT", output);
        command.run().await.map_err(|error| self.failed("take away", challenge, error))?;
        Ok(())
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<_> = self.settings.keys().collect();
        f.debug_struct("Script")
            .field("kind", &self.kind)
            .field("present", &self.present)
            .field("cleanup", &self.cleanup)
            .field("settings", &settings)
            .finish_non_exhaustive()
    }
}
