//! Runs a program: no shell, a cleared environment, a deadline, and nothing left behind.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;
use tokio::time::{Instant, timeout, timeout_at};
use zeroize::Zeroizing;

mod error;

pub use error::CommandError;

/// What is kept of each of standard output and standard error, in bytes: the end is where a program says why it failed.
const KEPT_OUTPUT_BYTES: usize = 64 * 1024;

/// Where administrators' programs are (hier(7)), and the others, for whoever has no `PATH` at all.
const SYSTEM_PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// How long output is still awaited after the program has ended: a process it left in the background may hold the pipes open for ever.
const DRAIN: Duration = Duration::from_secs(1);

/// A program to run. Its environment is what [`Command::env`] gives it and nothing else; the values are never shown.
pub struct Command {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, Zeroizing<String>)>,
    stdin: Option<Zeroizing<Vec<u8>>>,
    directory: Option<PathBuf>,
    deadline: Duration,
}

/// What a program that succeeded has written, the last 64 KiB of each.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Output {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
}

impl Command {
    /// Will run `program` (a path, or a name looked up in the `PATH` it is given) for `deadline` at most.
    pub fn new(program: impl Into<PathBuf>, deadline: Duration) -> Self {
        Self { program: program.into(), args: Vec::new(), env: Vec::new(), stdin: None, directory: None, deadline }
    }

    /// Adds an argument. Arguments are visible to every user of the machine: never a secret.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds a variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl Into<String>) -> Self {
        self.env.push((name.as_ref().to_owned(), Zeroizing::new(value.into())));
        self
    }

    /// Adds this process's own `PATH` and `HOME`, so that programs are found and find their files.
    pub fn inherit_path_and_home(mut self) -> Self {
        for name in ["PATH", "HOME"] {
            if let Ok(value) = std::env::var(name) {
                self = self.env(name, value);
            }
        }
        self
    }

    /// The same, with the directories of system programs at the end of `PATH`: cron and users who are not root have none of them there.
    pub fn inherit_path_with_system_programs(mut self) -> Self {
        let path = std::env::var("PATH").unwrap_or_default();
        let all = path.split(':').filter(|directory| !directory.is_empty()).chain(SYSTEM_PROGRAMS);
        let path = all.collect::<Vec<_>>().join(":");
        self = self.inherit_path_and_home();
        self.env("PATH", path)
    }

    /// Gives it `bytes` on standard input, which is empty otherwise.
    pub fn stdin(mut self, bytes: Zeroizing<Vec<u8>>) -> Self {
        self.stdin = Some(bytes);
        self
    }

    /// Runs it in `directory` instead of the current one.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Runs it to its end. Success is exit status 0. When the deadline passes, or the future is dropped, its whole process group is
    /// killed.
    pub async fn run(self) -> Result<Output, CommandError> {
        let system = |source| CommandError::System { program: self.program.clone(), source };
        let deadline = Instant::now() + self.deadline;
        let mut child = self.start()?;
        let mut group = Group::of(&child);
        let (mut stdout, mut stderr) = (Tail::default(), Tail::default());
        let stdin = child.stdin.take();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ended = {
            let reading = async { tokio::join!(stdout.fill(out), stderr.fill(err)) };
            let feeding = feed(stdin, self.stdin.as_ref());
            let ending = async {
                tokio::pin!(reading);
                let status = tokio::select! {
                    status = child.wait() => status,
                    // Both pipes are closed, and the input, which nobody reads any more, does not matter.
                    _ = async { tokio::join!(&mut reading, feeding) } => return child.wait().await,
                };
                let _ = timeout(DRAIN, reading).await;
                status
            };
            timeout_at(deadline, ending).await
        };
        let Ok(ended) = ended else {
            group.kill();
            let _ = child.start_kill();
            child.wait().await.map_err(system)?;
            group.disarm();
            return Err(CommandError::Deadline { program: self.program, deadline: self.deadline, stderr: stderr.into_bytes() });
        };
        group.disarm();
        let status = ended.map_err(system)?;
        if status.success() {
            return Ok(Output { stdout: stdout.into_bytes(), stderr: stderr.into_bytes() });
        }
        Err(CommandError::Failed { program: self.program, status, stderr: stderr.into_bytes() })
    }

    fn start(&self) -> Result<Child, CommandError> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(name, value)| (name, value.as_str())));
        command.stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command.spawn().map_err(|source| self.not_started(source))
    }

    /// The system answers "no such file" to three different mistakes: which one was it?
    fn not_started(&self, source: io::Error) -> CommandError {
        let program = self.program.clone();
        if let Some(directory) = self.directory.as_ref().filter(|directory| !directory.is_dir()) {
            return CommandError::NoDirectory { program, directory: directory.clone() };
        }
        let named_by_path = self.program.components().count() > 1;
        let place = self.directory.as_deref().unwrap_or(Path::new("")).join(&self.program);
        match source.kind() {
            io::ErrorKind::NotFound if named_by_path && place.is_file() => CommandError::NoInterpreter(program),
            io::ErrorKind::NotFound => CommandError::NotFound(program),
            io::ErrorKind::PermissionDenied => CommandError::NotExecutable(program),
            _ if source.raw_os_error() == Some(rustix::io::Errno::NOEXEC.raw_os_error()) => CommandError::NotExecutable(program),
            _ => CommandError::System { program, source },
        }
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command").field("program", &self.program).field("args", &self.args).field("env", &names).finish_non_exhaustive()
    }
}

/// The process group of a child: killed when this is dropped, unless the child has ended by itself.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw))
    }

    fn kill(&self) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }

    /// The child has been waited for: its number may soon be somebody else's.
    fn disarm(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The end of a stream.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    async fn fill(&mut self, stream: Option<impl AsyncRead + Unpin>) {
        let Some(mut stream) = stream else { return };
        let mut chunk = vec![0; 8 * 1024];
        while let Ok(length @ 1..) = stream.read(&mut chunk).await {
            self.0.extend(&chunk[..length]);
            let surplus = self.0.len().saturating_sub(KEPT_OUTPUT_BYTES);
            self.0.drain(..surplus);
        }
    }

    fn into_bytes(self) -> Vec<u8> {
        self.0.into()
    }
}

/// A program need not read its input: a closed pipe is no failure.
async fn feed(stdin: Option<tokio::process::ChildStdin>, bytes: Option<&Zeroizing<Vec<u8>>>) {
    if let (Some(mut stdin), Some(bytes)) = (stdin, bytes) {
        let _ = stdin.write_all(bytes).await;
        let _ = stdin.shutdown().await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::unix::pipe::{self, Receiver};

    use super::*;

    /// By then a killed process is gone, on any machine.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        Command::new("/bin/sh", PATIENCE).arg("-c").arg(script)
    }

    #[tokio::test]
    async fn gives_input_and_takes_output() {
        let output = shell("cat; echo oops >&2").stdin(Zeroizing::new(b"hello".to_vec())).run().await.expect("success");
        assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (b"hello".as_slice(), b"oops\n".as_slice()));
    }

    #[tokio::test]
    async fn the_environment_is_what_was_given() {
        let output = Command::new("/usr/bin/env", PATIENCE).env("ONE", "1").run().await.expect("success");
        assert_eq!(output.stdout, b"ONE=1\n");
    }

    #[tokio::test]
    async fn failures_name_program_ending_and_reason() {
        for (script, expected) in [
            ("echo first >&2; echo second >&2; exit 7", "/bin/sh ended with exit status 7: first | second"),
            ("kill -TERM $$", "/bin/sh was killed by signal 15"),
            ("printf 'a\\033[2Jb' >&2; exit 1", "/bin/sh ended with exit status 1: a [2Jb"),
        ] {
            assert_eq!(shell(script).run().await.expect_err("a failure").to_string(), expected);
        }
    }

    #[tokio::test]
    async fn what_cannot_start_is_told_apart() {
        let place = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str, mode| {
            let path = place.path().join(name);
            std::fs::write(&path, text).expect("a file");
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).expect("a mode");
            path
        };
        let (plain, orphan) = (file("plain", "x", 0o644), file("orphan", "#!/no/such/interpreter\n", 0o755));
        let run = |program: &Path| Command::new(program, PATIENCE).run();
        assert!(matches!(run(Path::new("/no/such/program")).await, Err(CommandError::NotFound(_))));
        assert!(matches!(run(Path::new("no-such-program-anywhere")).await, Err(CommandError::NotFound(_))));
        assert!(matches!(run(&plain).await, Err(CommandError::NotExecutable(_))));
        assert!(matches!(run(&orphan).await, Err(CommandError::NoInterpreter(_))));
        let nowhere = shell("true").directory(place.path().join("missing")).run().await;
        assert!(matches!(nowhere, Err(CommandError::NoDirectory { .. })));
    }

    #[tokio::test]
    async fn only_the_end_of_long_output_is_kept() {
        let output = shell("head -c 3000000 /dev/zero; echo end").run().await.expect("success");
        assert_eq!(output.stdout.len(), KEPT_OUTPUT_BYTES);
        assert!(output.stdout.ends_with(b"end\n"));
    }

    /// A shell that holds the writing end of `fifo` together with its child, and has said so into it: reading it to its end proves that
    /// the whole group is gone.
    async fn holding(fifo: &Path, deadline: Duration) -> Result<Output, CommandError> {
        let script = "exec 3> \"$FIFO\"; sleep 90 & echo started >&2; echo started >&3; wait";
        let command = Command::new("/bin/sh", deadline).arg("-c").arg(script).env("FIFO", fifo.to_string_lossy());
        command.inherit_path_and_home().run().await
    }

    fn fifo(place: &tempfile::TempDir) -> PathBuf {
        let path = place.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(made.success());
        path
    }

    /// Opening it does not wait for a writer, and so no test does for one that never comes.
    fn reading_end(fifo: &Path) -> Receiver {
        pipe::OpenOptions::new().open_receiver(fifo).expect("a fifo")
    }

    async fn read_to_end(mut reader: Receiver) -> String {
        let mut text = String::new();
        timeout(PATIENCE, reader.read_to_string(&mut text)).await.expect("what it started goes on").expect("an end");
        text
    }

    #[tokio::test]
    async fn a_deadline_ends_the_whole_group() {
        let place = tempfile::tempdir().expect("a directory");
        let path = fifo(&place);
        let reader = reading_end(&path);
        let error = holding(&path, Duration::from_secs(2)).await.expect_err("too late");
        assert_eq!(error.to_string(), "/bin/sh did not end within 2s: started");
        assert_eq!(read_to_end(reader).await, "started\n");
    }

    #[tokio::test]
    async fn dropping_the_future_ends_the_whole_group() {
        let place = tempfile::tempdir().expect("a directory");
        let path = fifo(&place);
        let mut reader = reading_end(&path);
        let running = tokio::spawn(async move { holding(&path, Duration::from_secs(1000)).await });
        let first = timeout(PATIENCE, reader.read_u8()).await.expect("it never began").expect("a byte");
        running.abort();
        assert_eq!((first, read_to_end(reader).await.as_str()), (b's', "tarted\n"));
    }

    #[tokio::test]
    async fn a_process_left_in_the_background_does_not_hold_us_up() {
        let place = tempfile::tempdir().expect("a directory");
        let path = fifo(&place);
        // The process left behind lives, and holds standard output, until this is closed at the end of the test.
        let _held = std::fs::File::options().read(true).write(true).open(&path).expect("a fifo");
        let command = shell("cat \"$FIFO\" & echo done").env("FIFO", path.to_string_lossy()).inherit_path_and_home();
        assert_eq!(command.run().await.expect("success").stdout, b"done\n");
    }

    #[test]
    fn debug_shows_no_values() {
        let command = Command::new("x", DRAIN).env("TOKEN", "hush");
        assert!(!format!("{command:?}").contains("hush"));
    }
}
