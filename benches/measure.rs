//! Measuring programs, and showing what came of it.

use std::fmt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::support::process::program;

/// How long the runs of one command took.
pub struct Times(Vec<Duration>);

impl Times {
    /// Times that were taken elsewhere.
    pub fn of(mut times: Vec<Duration>) -> Self {
        times.sort();
        Self(times)
    }

    fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    fn fastest(&self) -> Duration {
        self.0[0]
    }
}

/// Runs each command `runs` times, by turns, after one run of each that does not count.
pub fn alternate<const N: usize>(runs: usize, mut commands: [&mut dyn FnMut() -> Command; N]) -> [Times; N] {
    let mut times: [Vec<Duration>; N] = std::array::from_fn(|_| Vec::with_capacity(runs));
    for round in 0..=runs {
        for (command, times) in commands.iter_mut().zip(&mut times) {
            let took = time(&mut command());
            if round > 0 {
                times.push(took);
            }
        }
    }
    times.map(Times::of)
}

fn time(command: &mut Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let started = Instant::now();
    let output = command.output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let took = started.elapsed();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    took
}

/// The peak resident memory of one run, in KiB.
///
/// Told by `time`(1): Linux counts what the parent had in memory at the moment of the fork too, and that program is small.
pub fn peak_memory(command: &Command) -> u64 {
    let report = tempfile::NamedTempFile::new().expect("a file");
    let mut measured = Command::new(program("time"));
    measured.args(["--quiet", "--format", "%M", "--output"]).arg(report.path()).arg(command.get_program()).args(command.get_args());
    measured.env_clear();
    for (name, value) in command.get_envs() {
        measured.env(name, value.unwrap_or_default());
    }
    if let Some(directory) = command.get_current_dir() {
        measured.current_dir(directory);
    }
    time(&mut measured);
    let text = std::fs::read_to_string(report.path()).expect("a report");
    text.trim().parse().unwrap_or_else(|_| panic!("no number of KiB: {text:?}"))
}

/// What a table tells of one command.
pub struct Row {
    what: String,
    times: Times,
    memory: Option<u64>,
    requests: Option<usize>,
    target: &'static str,
}

impl Row {
    pub fn new(what: &str, times: Times) -> Self {
        Self { what: what.to_owned(), times, memory: None, requests: None, target: "" }
    }

    /// Peak resident memory, in KiB.
    pub fn memory(mut self, kib: u64) -> Self {
        self.memory = Some(kib);
        self
    }

    /// Requests to the store, or to the CA.
    pub fn requests(mut self, count: usize) -> Self {
        self.requests = Some(count);
        self
    }

    /// What was to be reached.
    pub fn target(mut self, target: &'static str) -> Self {
        self.target = target;
        self
    }
}

/// All rows, as a table in Markdown.
#[derive(Default)]
pub struct Table(Vec<Row>);

impl Table {
    pub fn add(&mut self, row: Row) {
        eprintln!("{}: {}", row.what, milliseconds(row.times.median()));
        self.0.push(row);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | median | fastest | runs | peak memory | requests | target |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- | --- |")?;
        for row in &self.0 {
            let (median, fastest) = (milliseconds(row.times.median()), milliseconds(row.times.fastest()));
            let memory = row.memory.map(|kib| format!("{}.{} MB", kib / 1024, kib % 1024 * 10 / 1024)).unwrap_or_default();
            let requests = row.requests.map(|count| count.to_string()).unwrap_or_default();
            let runs = row.times.0.len();
            writeln!(f, "| {} | {median} | {fastest} | {runs} | {memory} | {requests} | {} |", row.what, row.target)?;
        }
        Ok(())
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// What the figures were measured on.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once([':', '=']))
            .map_or_else(|| "?".to_owned(), |(_, value)| value.trim().trim_matches('"').to_owned())
    };
    let (processors, system) = (read("/proc/cpuinfo"), read("/etc/os-release"));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = rustix::system::uname();
    format!(
        "{cores} cores of {}, {}, Linux {}; certfleet {} ({})",
        value(&processors, "model name"),
        value(&system, "PRETTY_NAME"),
        kernel.release().to_string_lossy(),
        env!("CARGO_PKG_VERSION"),
        if cfg!(debug_assertions) { "not optimised: the times mean nothing" } else { "release build" },
    )
}
