//! Running a program on another machine, by the system's own `ssh`: with the user's configuration, agent and known hosts.
//!
//! Host keys that are not known are refused, and nothing is asked: what ssh would ask for makes it fail, in its own words.

use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use openssh::{ControlPersist, KnownHosts, Session, SessionBuilder, Stdio};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::text::printable;

/// For the connection and the key exchange.
const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// How often ssh makes sure that the other side is still there; it gives up after three silent ones (ssh_config(5)).
const ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// ssh's master process ends by itself after that many seconds without work, should this process be killed.
const MASTER_IDLE_SECS: NonZeroUsize = NonZeroUsize::new(60).expect("not zero");

/// What is kept of each output of the program, in bytes. The rest is read and dropped.
const KEPT_OUTPUT_BYTES: u64 = 1024 * 1024;

/// The way to other machines.
#[derive(Clone, Debug)]
pub struct Ssh {
    /// A directory for sockets, mode 0700, with a short path: socket paths have 108 bytes (unix(7)).
    pub sockets: PathBuf,
    /// How long the program may take there.
    pub deadline: Duration,
}

/// A program that has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ended {
    /// Its exit code; `None` where it was killed, or the connection broke.
    pub code: Option<i32>,
    /// What it wrote to standard output, up to 1 MiB.
    pub stdout: String,
    /// What it wrote to standard error, up to 1 MiB.
    pub stderr: String,
}

/// Why nothing could be run there.
#[derive(Debug, Error)]
pub enum SshError {
    /// It would be read as an option.
    #[error("{0:?} is not a host")]
    Host(String),
    /// The program `ssh` is missing here.
    #[error("the program ssh was not found")]
    NoSsh,
    /// ssh could not connect, and said why.
    #[error("{0}")]
    Connect(String),
    /// The connection was there, and could not be used.
    #[error("the connection failed")]
    Session(#[source] openssh::Error),
    /// It took too long.
    #[error("no answer within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
}

impl SshError {
    /// What a person can do about it.
    pub fn hint(&self, host: &str) -> String {
        match self {
            Self::Host(_) => {
                "name it as ssh does: web1.example.com, deploy@web1.example.com, ssh://deploy@web1.example.com:2222".to_owned()
            }
            Self::NoSsh => "install openssh-client".to_owned(),
            Self::Connect(why) if why.contains("ost key") => {
                format!("compare its key with the machine's own; `ssh {host}` once, by hand, makes it known")
            }
            Self::Connect(why) if why.contains("Permission denied") => {
                format!("give the machine a key of yours, or name the user: make `ssh {host} true` work without a question")
            }
            Self::Connect(_) | Self::Session(_) => format!("make `ssh {host} true` work"),
            Self::Deadline(_) => format!("`ssh {host}` and see what the machine is busy with"),
        }
    }
}

impl Ssh {
    /// Runs `command` (the program first) on `host`, with `input` on its standard input, to its end. Arguments are seen by every user of
    /// both machines: never a secret.
    ///
    /// When this future is dropped the connection is closed, and with it the program's standard streams.
    pub async fn run(&self, host: &str, command: &[&str], input: &Zeroizing<Vec<u8>>) -> Result<Ended, SshError> {
        let [program, arguments @ ..] = command else { return Err(SshError::Host(host.to_owned())) };
        // Of ssh://user@host a part is handed on alone: none may be an option (ssh(1)).
        let option = host.split(['@', '/']).any(|part| part.starts_with('-'));
        if host.is_empty() || option || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(SshError::Host(host.to_owned()));
        }
        let session = self.connect(host).await?;
        let ended = timeout(self.deadline, run(&session, program, arguments, input)).await;
        // The answer counts, also where the connection does not end well.
        let _ = session.close().await;
        ended.unwrap_or(Err(SshError::Deadline(self.deadline)))
    }

    async fn connect(&self, host: &str) -> Result<Session, SshError> {
        let mut builder = SessionBuilder::default();
        builder.known_hosts_check(KnownHosts::Strict).control_directory(&self.sockets).clean_history_control_directory(false);
        builder.control_persist(ControlPersist::IdleFor(MASTER_IDLE_SECS));
        builder.connect_timeout(CONNECT_DEADLINE).server_alive_interval(ALIVE_INTERVAL);
        // ssh keeps to its own deadline but for what a server can make it wait for after the key exchange.
        let connected = timeout(3 * CONNECT_DEADLINE, builder.connect(host)).await.map_err(|_| SshError::Deadline(3 * CONNECT_DEADLINE))?;
        connected.map_err(|error| match error {
            openssh::Error::Connect(source) if source.kind() == io::ErrorKind::NotFound => SshError::NoSsh,
            openssh::Error::Connect(source) => SshError::Connect(printable(&source.to_string())),
            other => SshError::Session(other),
        })
    }
}

async fn run(session: &Session, program: &str, arguments: &[&str], input: &Zeroizing<Vec<u8>>) -> Result<Ended, SshError> {
    let mut command = session.command(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().await.map_err(SshError::Session)?;
    let (stdin, stdout, stderr) = (child.stdin().take(), child.stdout().take(), child.stderr().take());
    let feeding = async {
        if let Some(mut stdin) = stdin {
            // A program need not read its input: a closed pipe is no failure.
            let _ = stdin.write_all(input).await;
            let _ = stdin.shutdown().await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(feeding, text(stdout), text(stderr));
    let code = match child.wait().await {
        Ok(status) => status.code(),
        // 127 is what a shell ends with that finds no such program.
        Err(openssh::Error::Remote(error)) if error.kind() == io::ErrorKind::NotFound => Some(127),
        Err(openssh::Error::RemoteProcessTerminated) => None,
        Err(error) => return Err(SshError::Session(error)),
    };
    Ok(Ended { code, stdout, stderr })
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(KEPT_OUTPUT_BYTES).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}
