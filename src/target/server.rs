//! The servers that read the files: they test their configuration and load it again.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::domain::identifier::Identifier;
use crate::domain::site::SiteName;
use crate::system::command::{Command, CommandError};
use crate::system::text::printable;

mod daemon;
mod script;

pub use daemon::{Daemon, Manager};
pub use script::DeployScript;

/// How long a server's program may take where nothing else is configured.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(30);

/// A server that can be told that files have changed.
#[async_trait]
pub trait Server: fmt::Debug + Send + Sync {
    /// What people call it: "nginx".
    fn name(&self) -> &str;

    /// Whether its configuration, with the files as they are now, would be accepted. Changes nothing.
    async fn test(&self) -> Result<(), ServerError>;

    /// Has it read all files again, those of `deployed` among them. A program is called once for all of them, a script once for each.
    ///
    /// Many servers do so in the background: that it has succeeded, only a handshake proves.
    async fn reload(&self, deployed: &[Deployed]) -> Result<(), ServerError>;
}

/// A site whose files have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Deployed {
    /// The site.
    pub site: SiteName,
    /// Where the server finds its files: `live/<site>`.
    pub directory: PathBuf,
    /// What its certificate vouches for.
    pub identifiers: Vec<Identifier>,
}

/// Why a server did not do as it was told. What it wrote itself is in the cause.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Its configuration would not be accepted.
    #[error("the configuration of {server} does not pass its test ({command})")]
    Test {
        /// The server.
        server: String,
        /// Program and arguments.
        command: String,
        /// How it ended, with its own words.
        #[source]
        source: CommandError,
    },
    /// It did not reload.
    #[error("{server} did not reload ({command})")]
    Reload {
        /// The server.
        server: String,
        /// Program and arguments.
        command: String,
        /// How it ended, with its own words.
        #[source]
        source: CommandError,
    },
    /// A script failed for a site.
    #[error("the script {script} did not deploy {site}")]
    Deploy {
        /// The script.
        script: String,
        /// The site.
        site: SiteName,
        /// How it ended, with its own words.
        #[source]
        source: CommandError,
    },
}

impl ServerError {
    fn source(&self) -> &CommandError {
        match self {
            Self::Test { source, .. } | Self::Reload { source, .. } | Self::Deploy { source, .. } => source,
        }
    }

    /// Whether the program does not exist, so that the server is probably not installed.
    pub fn is_missing_program(&self) -> bool {
        matches!(self.source(), CommandError::NotFound(_))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Test { .. } if self.is_missing_program() => "install the server, or configure test = [\"prog\", \"arg\"]".to_owned(),
            Self::Reload { .. } if self.is_missing_program() => "install the server, or configure reload = [\"prog\", \"arg\"]".to_owned(),
            Self::Test { source: CommandError::Failed { .. }, command, .. } => format!("correct it until this succeeds: {command}"),
            Self::Reload { source: CommandError::Failed { .. }, command, .. } => format!("is the server running? Try it: {command}"),
            Self::Deploy { source: CommandError::Failed { .. }, .. } => "what it wrote is shown above".to_owned(),
            _ => self.source().hint(),
        }
    }
}

/// What makes a server test its configuration, and load it again. Nothing of it goes through a shell.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Commands {
    /// Program and arguments; `None` for a server without a test.
    pub test: Option<Vec<OsString>>,
    /// Program and arguments; `None` where nothing needs to be told.
    pub reload: Option<Vec<OsString>>,
    /// How long each of them may take.
    pub deadline: Duration,
}

/// A server that is told by programs.
#[derive(Clone, Debug)]
pub struct Programs {
    name: String,
    commands: Commands,
}

impl Programs {
    /// The server of that name. A command without a program counts as none.
    pub fn new(name: impl Into<String>, commands: Commands) -> Self {
        Self { name: name.into(), commands }
    }

    async fn run(&self, argv: Option<&Vec<OsString>>, failed: Failed) -> Result<(), ServerError> {
        let Some((program, arguments)) = argv.and_then(|argv| argv.split_first()) else { return Ok(()) };
        let command = Command::new(Path::new(program), self.commands.deadline).inherit_path_with_system_programs();
        let ended = arguments.iter().fold(command, Command::arg).run().await;
        ended.map(drop).map_err(|source| failed(self.name.clone(), in_words(program, arguments), source))
    }
}

/// Makes an error of server, command and cause.
type Failed = fn(String, String, CommandError) -> ServerError;

#[async_trait]
impl Server for Programs {
    fn name(&self) -> &str {
        &self.name
    }

    async fn test(&self) -> Result<(), ServerError> {
        self.run(self.commands.test.as_ref(), |server, command, source| ServerError::Test { server, command, source }).await
    }

    async fn reload(&self, _: &[Deployed]) -> Result<(), ServerError> {
        self.run(self.commands.reload.as_ref(), |server, command, source| ServerError::Reload { server, command, source }).await
    }
}

/// A command as a person would type it, but for quotes.
fn in_words(program: &OsString, arguments: &[OsString]) -> String {
    let words = std::iter::once(program).chain(arguments).map(|word| word.to_string_lossy());
    printable(&words.collect::<Vec<_>>().join(" "))
}
