//! Child processes that never outlive the test, not even one that panics or is killed.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

/// How often readiness is asked for.
const POLL: Duration = Duration::from_millis(10);

/// A running program. Dropping it kills it, with whatever it started, and waits for its end.
#[derive(Debug)]
pub struct Subprocess {
    child: Child,
    log: PathBuf,
}

impl Subprocess {
    /// Starts `command`. Its output goes to the file `log`, which tests quote when something goes wrong.
    ///
    /// Should this process die without dropping it, the kernel kills the child (`setpriv --pdeathsig`).
    pub fn spawn(command: &Command, log: impl Into<PathBuf>) -> Self {
        let log = log.into();
        let output = File::create(&log).expect("a log file");
        let errors = output.try_clone().expect("a log file");
        let mut wrapped = Command::new("setpriv");
        wrapped.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            wrapped.current_dir(directory);
        }
        wrapped.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let child = on_the_spawning_thread(wrapped);
        Self { child, log }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Returns once it accepts connections at `address`; panics with its log when it ends, or `within` has passed.
    pub fn wait_for_port(&mut self, address: SocketAddr, within: Duration) {
        self.wait_for(&format!("a listener at {address}"), within, |_| {
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok().map(drop)
        });
    }

    /// Returns the first printed line that contains `text`; panics like [`Subprocess::wait_for_port`].
    pub fn wait_for_line(&mut self, text: &str, within: Duration) -> String {
        self.wait_for(&format!("the line {text:?}"), within, |log| {
            // The last piece may be half a line still.
            let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    }

    /// Waits until it ends by itself; panics when `within` has passed.
    pub fn wait(&mut self, within: Duration) -> ExitStatus {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait().expect("the state of a child") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {within:?}; it printed:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }

    /// Kills it, with whatever it started, and waits for its end.
    pub fn kill(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| running) {
            let _ = rustix::process::kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    fn wait_for<T>(&mut self, what: &str, within: Duration, mut ready: impl FnMut(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + within;
        loop {
            if let Some(found) = ready(&self.log()) {
                return found;
            }
            let ended = self.child.try_wait().expect("the state of a child");
            assert!(ended.is_none(), "ended ({}) before {what}; it printed:\n{}", ended.unwrap_or_default(), self.log());
            assert!(Instant::now() < deadline, "no {what} within {within:?}; it printed:\n{}", self.log());
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Subprocess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A child's death signal comes when the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), and a test's thread ends
/// long before a server that other tests share. So one thread that lives as long as the process starts them all.
fn on_the_spawning_thread(command: Command) -> Child {
    type Job = (Command, mpsc::Sender<std::io::Result<Child>>);
    static JOBS: LazyLock<Mutex<mpsc::Sender<Job>>> = LazyLock::new(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, answer) in jobs {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let shown = format!("{command:?}");
    let (sender, answer) = mpsc::channel();
    let jobs = JOBS.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    jobs.send((command, sender)).expect("the spawning thread");
    answer.recv().expect("the spawning thread").unwrap_or_else(|error| panic!("cannot start {shown}: {error}"))
}

/// Returns what `ready` finds once it finds something; panics when `within` has passed. For what tells nobody that it has happened.
#[track_caller]
pub fn until<T>(what: &str, within: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} within {within:?}");
        std::thread::sleep(POLL);
    }
}

/// Runs `command` to its end and returns what it printed; panics when it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}{}", advice(&error)));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn advice(error: &std::io::Error) -> &'static str {
    if error.kind() == ErrorKind::NotFound { " (run tests/install)" } else { "" }
}

/// The path of a program that `tests/install` puts below `target/test-tools`.
pub fn tool(path: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-tools").join(path);
    assert!(tool.exists(), "{} is missing: run tests/install", tool.display());
    tool
}

/// The path of a program that `tests/install` installs as a package.
pub fn program(name: &str) -> PathBuf {
    let found =
        ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().map(|directory| Path::new(directory).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed: run tests/install"))
}

/// A port of 127.0.0.1 that nobody listens on, for servers that cannot be told to choose one themselves.
///
/// It lies below the ports that the kernel gives to outgoing connections (32768 and up), which would take it again at any
/// moment; and no two calls get the same, not even in two processes: each port is a locked file for as long as the process lives.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let locks = std::env::temp_dir().join(format!("certfleet-test-ports-{}", rustix::process::getuid().as_raw()));
    fs::create_dir_all(&locks).expect("a directory for locks");
    for port in 20_000..32_000_u16 {
        let lock = File::create(locks.join(port.to_string())).expect("a lock");
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", port)).is_ok() {
            TAKEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(lock);
            return port;
        }
    }
    panic!("no free port");
}

#[test]
fn a_dropped_process_is_gone_with_its_children() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("sh");
    command.args(["-c", "sleep 600 & echo child $!; wait"]);
    let mut process = Subprocess::spawn(&command, directory.path().join("log"));
    let line = process.wait_for_line("child ", Duration::from_secs(10));
    let child: i32 = line.trim_start_matches("child ").parse().expect("a process id");
    let id = i32::try_from(process.id()).expect("a process id");
    drop(process);
    assert!(!Path::new(&format!("/proc/{id}")).exists());
    // Its child is killed as well, but reaped by somebody else.
    let deadline = Instant::now() + Duration::from_secs(10);
    let runs = || fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "));
    while runs() {
        assert!(Instant::now() < deadline, "process {child} still runs");
        std::thread::sleep(POLL);
    }
}
