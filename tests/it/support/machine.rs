//! A build machine: a directory with a configuration, in which the real binary runs with an environment of its own.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::bucket::Bucket;

/// See the module.
pub struct Machine {
    directory: TempDir,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// A run that is under way. Dropping it kills it and waits for its end.
pub struct Running(Option<std::process::Child>);

impl Machine {
    /// A machine with nothing but this configuration; with nothing at all where it is empty.
    pub fn new(configuration: &str) -> Self {
        let machine = Self { directory: tempfile::tempdir().expect("a directory") };
        if !configuration.is_empty() {
            machine.write("certfleet.toml", configuration);
        }
        machine
    }

    /// A file of the machine.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Replaces a piece of a file that must be there.
    #[track_caller]
    pub fn change(&self, name: &str, piece: &str, by: &str) {
        let text = self.read(name);
        assert!(text.contains(piece), "no {piece:?} in {name}:\n{text}");
        self.write(name, text.replace(piece, by));
    }

    /// Gives it the identity of another machine of its fleet.
    pub fn share_identity(&self, with: &Self) {
        with.create_dir("runtimedata");
        std::fs::copy(self.path("runtimedata/identity.age"), with.path("runtimedata/identity.age")).expect("a copy");
    }

    pub fn create_dir(&self, name: &str) {
        std::fs::create_dir_all(self.path(name)).expect("a directory");
    }

    /// The binary with these arguments, in this machine's directory and with nothing of the test's environment.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_certfleet"));
        command.args(arguments).current_dir(self.directory.path()).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", self.directory.path()).env("AWS_EC2_METADATA_DISABLED", "true").env("S3_SECRET", self.secret());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn secret(&self) -> String {
        std::fs::read_to_string(self.path("s3-secret")).unwrap_or_else(|_| "unset".to_owned())
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().expect("the binary").into()
    }

    pub fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ended {
        use std::io::Write as _;
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("the binary");
        child.stdin.take().expect("a pipe").write_all(input).expect("input");
        child.wait_with_output().expect("an end").into()
    }

    pub fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Where a site's files are.
    pub fn files(&self, site: &str) -> PathBuf {
        self.path("runtimedata/local/default/ssl").join(site)
    }
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        Self(Some(command.process_group(0).spawn().expect("the binary")))
    }

    pub fn pid(&self) -> i32 {
        self.0.as_ref().map_or(0, |child| i32::try_from(child.id()).expect("a process id"))
    }

    pub fn wait(mut self) -> Ended {
        self.0.take().expect("a child").wait_with_output().expect("an end").into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Kills a process by its id, as the kernel's out-of-memory killer does.
pub fn strike(pid: i32) {
    kill_process(Pid::from_raw(pid).expect("a process id"), Signal::KILL).expect("a living process");
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Panics with everything the run printed unless it ended like that.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}\nstdout:\n{}\nstderr:\n{}", self.stdout, self.stderr))
    }

    /// The one site of the answer.
    #[track_caller]
    pub fn site(&self) -> Value {
        self.json()["sites"][0].clone()
    }

    /// Panics unless standard error holds the text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "no {text:?} in:\n{}", self.stderr);
        self
    }
}

/// The `[datastore]` table of a bucket. The secret comes from the environment, as on a real machine.
pub fn datastore(bucket: &Bucket, prefix: &str) -> String {
    let ca_file = bucket.ca_file.as_ref().map(|path| format!("ca_file = \"{}\"\n", path.display())).unwrap_or_default();
    format!(
        "[datastore]\nurl = \"s3://{}/{prefix}\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\npath_style = true\n{ca_file}access_key = {{ file = \"s3-access\" }}\nsecret_key = {{ env = \"S3_SECRET\" }}\n",
        bucket.name, bucket.endpoint
    )
}

/// Puts the bucket's keys where [`datastore`] looks for them.
pub fn give_keys(machine: &Machine, bucket: &Bucket) {
    machine.write("s3-access", &bucket.access_key);
    machine.write("s3-secret", &bucket.secret_key);
}

/// What `openssl` says about a chain, judged by `root` alone.
pub fn openssl_verify(root: &Path, fullchain: &Path, name: &str) {
    let mut command = Command::new("openssl");
    command.args(["verify", "-x509_strict", "-no-CApath", "-no-CAfile", "-no-CAstore", "-verify_hostname", name, "-CAfile"]);
    command.arg(root).arg("-untrusted").arg(fullchain).arg(fullchain);
    let output = command.output().expect("openssl");
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}
