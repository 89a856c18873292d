//! Secrets: the configuration says where they are, never what they are.

use std::fmt;
use std::fs;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use zeroize::Zeroizing;

use super::Environment;
use super::error::{ConfigError, Place, Setting};
use super::paths::Base;
use super::read::Field;

/// The keys of a secret, of which exactly one is given.
pub(super) const KEYS: &[&str] = &["env", "file", "command"];

/// A command that has not delivered by then is ended: long enough for a password manager on the network.
const COMMAND_DEADLINE: Duration = Duration::from_secs(30);

/// More than any secret has: a bound on what a command or file can make us keep.
const LONGEST_SECRET_BYTES: usize = 65_536;

/// A secret that is fetched when it is needed.
#[derive(Clone, Eq, PartialEq)]
pub struct Secret {
    at: Setting,
    source: Source,
}

#[derive(Clone, Eq, PartialEq)]
enum Source {
    Variable(String),
    File(PathBuf),
    Command(Vec<String>),
    Held(Zeroizing<String>),
}

/// Where the fleet's identity (the age key that opens its sealed private keys) comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IdentitySource {
    /// A file, which is made where there is none.
    File(PathBuf),
    /// A secret from elsewhere, which must exist.
    Secret(Secret),
}

impl Secret {
    pub(super) fn read(field: &Field<'_>, base: &Base) -> Result<Self, ConfigError> {
        if field.is_text() {
            return Err(ConfigError::PlainSecret { at: field.setting().into() });
        }
        let table = field.inner(r#"{ env = "NAME" }, { file = "PATH" } or { command = ["prog", "arg"] }"#, KEYS)?;
        let source = match (table.text("env")?, table.path("file", base)?, table.get("command")) {
            (Some(name), None, None) => Source::Variable(name),
            (None, Some(path), None) => Source::File(path),
            (None, None, Some(command)) => Source::Command(command.program(base)?),
            _ => return Err(field.rejected("exactly one of env, file and command says where a secret is", "keep one of them")),
        };
        Ok(Self { at: field.setting(), source })
    }

    /// A secret that is already at hand, out of the environment variable named.
    pub(super) fn held(variable: &str, value: Zeroizing<String>) -> Self {
        Self { at: Setting::new(Place::Variable(variable.to_owned()), "secret"), source: Source::Held(value) }
    }

    /// Whether it is what a program prints.
    pub fn is_printed(&self) -> bool {
        matches!(self.source, Source::Command(_))
    }

    /// Fetches it. Line ends at the end of a file, and of what a command prints, are not part of it; an empty secret is an error.
    ///
    /// A command inherits the environment, which password managers need; its standard error stays the user's. It is ended after
    /// 30 seconds. This call blocks until then: asynchronous callers give it a thread of its own.
    pub fn resolve(&self, environment: Environment<'_>) -> Result<Zeroizing<String>, ConfigError> {
        let secret = match &self.source {
            Source::Held(value) => value.clone(),
            Source::Variable(name) => {
                let missing =
                    || self.failed(format!("the environment variable {name} is not set"), format!("set it: export {name}=…"), None);
                Zeroizing::new(environment(name).ok_or_else(missing)?)
            }
            Source::File(path) => self.read_file(path)?,
            Source::Command(argv) => self.run(argv)?,
        };
        if secret.trim().is_empty() {
            return Err(self.failed(format!("{} is empty", self.source), "put the secret there".to_owned(), None));
        }
        Ok(secret)
    }

    fn read_file(&self, path: &Path) -> Result<Zeroizing<String>, ConfigError> {
        let opened = fs::File::open(path).and_then(bounded_text);
        let unreadable =
            |error| self.failed(format!("cannot read {}", path.display()), "check the path and who may read it".to_owned(), Some(error));
        opened.map_err(unreadable)
    }

    fn run(&self, argv: &[String]) -> Result<Zeroizing<String>, ConfigError> {
        let program = &argv[0];
        let hint = || format!("try it: {}", argv.join(" "));
        match output(argv, COMMAND_DEADLINE) {
            Ok((status, text)) if status.success() => Ok(text),
            Ok((status, _)) => Err(self.failed(format!("{program} failed ({status})"), hint(), None)),
            Err(error) => Err(self.failed(format!("cannot get it from {program}"), hint(), Some(error))),
        }
    }

    fn failed(&self, why: String, hint: String, source: Option<io::Error>) -> ConfigError {
        ConfigError::Secret { at: self.at.clone().into(), why, hint, source }
    }
}

/// Runs a program without a shell and returns what it prints. Its whole process group is ended at the deadline.
///
/// This is not [`crate::system::command`], which gives programs a bare environment, keeps what they say on standard error, and drops the
/// beginning of long output: a password manager needs the user's environment, says to the user what it wants, and a secret is whole or
/// refused, and wiped.
fn output(argv: &[String], deadline: Duration) -> io::Result<(ExitStatus, Zeroizing<String>)> {
    let mut command = Command::new(&argv[0]);
    command.args(&argv[1..]).stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
    let mut child = command.spawn()?;
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let text = child.stdout.take().map_or_else(|| Ok(Zeroizing::default()), bounded_text);
        // Nobody listens any more after the deadline, and then there is nothing left to tell.
        let _ = sender.send(child.wait().and_then(|status| Ok((status, text?))));
    });
    receiver.recv_timeout(deadline).unwrap_or_else(|_| {
        if let Some(group) = group {
            // It may have ended in this very moment.
            let _ = kill_process_group(group, Signal::KILL);
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} seconds", deadline.as_secs())))
    })
}

/// The text of a reader without the line ends at its end, refused when it is longer than a secret can be.
fn bounded_text(reader: impl io::Read) -> io::Result<Zeroizing<String>> {
    // Room for all of it at once: a text that grows leaves copies behind that nobody wipes.
    let mut text = Zeroizing::new(String::with_capacity(2 * LONGEST_SECRET_BYTES));
    reader.take(LONGEST_SECRET_BYTES as u64 + 1).read_to_string(&mut text)?;
    if text.len() > LONGEST_SECRET_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {LONGEST_SECRET_BYTES} bytes")));
    }
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(f, "the environment variable {name}"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Command(argv) => write!(f, "what {} prints", argv[0]),
            Self::Held(_) => f.write_str("it"),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({} from {})", self.at.key, self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_past_its_deadline_is_ended_with_all_it_started() {
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = directory.path().join("fifo");
        assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
        let (sender, ended) = mpsc::channel();
        thread::spawn({
            let fifo = fifo.clone();
            move || sender.send(fs::read(fifo))
        });
        // Both processes hold the writing end: reading comes to an end once neither of them is there any more.
        let script = format!("exec 3>{}; sleep 90 & wait", fifo.display());
        let error = output(&["sh".to_owned(), "-c".to_owned(), script], Duration::from_secs(3)).expect_err("no answer");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let read = ended.recv_timeout(Duration::from_secs(30)).expect("what it started goes on");
        assert_eq!(read.expect("an end"), b"");
    }
}
