//! Why a program did not do its work, in words.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use thiserror::Error;

use crate::system::text::printable;

/// How much of standard error goes into a message, in bytes.
const SHOWN_OUTPUT_BYTES: usize = 2 * 1024;

/// A shorter setting, such as a TTL, is no secret: hiding it would only garble what a program says.
const SHORTEST_HIDDEN_BYTES: usize = 4;

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No such program, neither at that path nor in `PATH`.
    #[error("{} was not found", .0.display())]
    NotFound(PathBuf),
    /// It is there, but its first line names an interpreter that is not.
    #[error("{} cannot be started: the interpreter that its first line names is missing", .0.display())]
    NoInterpreter(PathBuf),
    /// It is there, but not as a program.
    #[error("{} is not executable", .0.display())]
    NotExecutable(PathBuf),
    /// The directory it was to run in is missing.
    #[error("{} cannot be run in {}: there is no such directory", .program.display(), .directory.display())]
    NoDirectory {
        /// The program.
        program: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// The system could not start it, or not talk to it.
    #[error("{} could not be run", .program.display())]
    System {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended, and not with success.
    #[error("{} {}{}", .program.display(), ending(*.status), said(.stderr))]
    Failed {
        /// The program.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its standard error.
        stderr: Vec<u8>,
    },
    /// It took too long and was ended, with every process it had started in its group.
    #[error("{} did not end within {}{}", .program.display(), humantime::format_duration(*.deadline), said(.stderr))]
    Deadline {
        /// The program.
        program: PathBuf,
        /// What it was given.
        deadline: Duration,
        /// The end of its standard error.
        stderr: Vec<u8>,
    },
}

impl CommandError {
    /// The same with `***` in the place of each of `secrets` in what the program wrote, but for those of three bytes and less.
    #[must_use]
    pub fn without<'a>(mut self, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        if let Self::Failed { stderr, .. } | Self::Deadline { stderr, .. } = &mut self {
            let mut secrets: Vec<_> = secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_HIDDEN_BYTES).collect();
            // One may be a part of another.
            secrets.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
            let text = String::from_utf8_lossy(stderr).into_owned();
            *stderr = secrets.into_iter().fold(text, |text, secret| text.replace(secret, "***")).into_bytes();
        }
        self
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::NotFound(program) => format!("install it, or correct the path: {}", program.display()),
            Self::NoInterpreter(program) => format!("correct the first line (#!) of {}, or install what it names", program.display()),
            Self::NotExecutable(program) => {
                format!("chmod +x {}; a script also needs a first line such as #!/bin/sh", program.display())
            }
            Self::NoDirectory { directory, .. } => format!("create {}", directory.display()),
            Self::System { .. } => "see the cause; the machine may be out of processes, memory or open files".to_owned(),
            Self::Failed { program, .. } => format!("what it wrote is shown above; run {} by hand to look further", program.display()),
            Self::Deadline { .. } => "find out what it waits for, or give it more time".to_owned(),
        }
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn said(stderr: &[u8]) -> String {
    let start = stderr.len().saturating_sub(SHOWN_OUTPUT_BYTES);
    let text = String::from_utf8_lossy(&stderr[start..]);
    let text = printable(text.trim());
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
