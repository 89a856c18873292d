//! Hosts on one machine: each has its own network, host name, processes and mounts, and all are on one switch that nobody else is on.
//!
//! Nothing has a name outside, so nothing can be left over: a namespace lives as long as the process that was started with it, and
//! that one is killed with the test, however the test ends. The same addresses serve any number of tests at once. The machine's own
//! interfaces are not touched. Without being root the whole lives in a user namespace, where the machine allows them.

use std::ffi::OsStr;
use std::fs;
use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use rustix::process::Pid;
use tempfile::TempDir;

use super::process::{Subprocess, run, until};

/// How long a busy machine may take for a step that is usually done at once.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A bridge in a namespace of its own, and what hosts are plugged into.
#[derive(Debug)]
pub struct Network {
    switch: Holder,
    hosts: AtomicU8,
    directory: TempDir,
}

/// A host of a network. Dropping it kills every process on it.
#[derive(Debug)]
pub struct Namespace {
    /// Its address on the network; 198.18.0.0/15 is for tests (RFC 2544 appendix C.2.2).
    pub address: Ipv4Addr,
    holder: Holder,
}

/// The process that keeps namespaces alive: the first of its own process namespace, whose end is the end of all others in it.
#[derive(Debug)]
struct Holder(Subprocess);

impl Network {
    /// Makes the switch.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let switch = Holder::start("switch", None, &directory);
        run(switch.outside("ip").args(["link", "add", "bridge", "up", "type", "bridge"]));
        Self { switch, hosts: AtomicU8::new(0), directory }
    }

    /// Makes a host with the next address, and plugs it in.
    pub fn host(&self, name: &str) -> Namespace {
        let address = Ipv4Addr::new(198, 18, 0, self.hosts.fetch_add(1, Ordering::Relaxed) + 1);
        let holder = Holder::start(name, Some(&self.switch), &self.directory);
        let port = format!("to-{name}");
        let peer = ["peer", "name", "eth0", "netns", &holder.0.id().to_string()];
        run(self.switch.outside("ip").args(["link", "add", &port, "up", "master", "bridge", "type", "veth"]).args(peer));
        let host = Namespace { address, holder };
        host.ip(&["link", "set", "lo", "up"]);
        host.ip(&["address", "add", &format!("{address}/15"), "dev", "eth0"]);
        host.ip(&["link", "set", "eth0", "up"]);
        host
    }
}

impl Namespace {
    /// `program`, to be run on this host. It starts in `/`, with the environment of the test.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        self.holder.inside(program)
    }

    /// Configures its network: `ip` with these arguments.
    pub fn ip(&self, arguments: &[&str]) {
        run(self.command("ip").args(arguments));
    }

    /// No packet to `other` leaves this host any more; whoever tries is told at once.
    pub fn cut_off(&self, other: &Self) {
        self.ip(&["route", "add", "unreachable", &format!("{}/32", other.address)]);
    }

    /// The end of [`Namespace::cut_off`].
    pub fn reconnect(&self, other: &Self) {
        self.ip(&["route", "del", "unreachable", &format!("{}/32", other.address)]);
    }

    /// The body of the answer to a GET from this host, whatever its status, and whoever certified the server; `None` without an answer.
    pub fn get(&self, url: &str) -> Option<String> {
        let output = quiet(self.command("curl").args(["--silent", "--insecure", "--max-time", "10", url]));
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns the answer to a GET once there is one.
    pub fn wait_for(&self, url: &str) -> String {
        until(&format!("an answer from {url}"), PATIENCE, || self.get(url))
    }

    /// SHA-256 of the leaf that a TLS server on port 443 of `address` presents for `name`, in lower-case hexadecimal, as the `openssl`
    /// of this host sees it; `None` where it presents none.
    pub fn leaf_served(&self, address: Ipv4Addr, name: &str) -> Option<String> {
        let look =
            "openssl s_client -connect \"$1:443\" -servername \"$2\" </dev/null 2>/dev/null | openssl x509 -noout -fingerprint -sha256";
        let output = quiet(self.command("sh").args(["-c", look, "sh", &address.to_string(), name]));
        let text = String::from_utf8_lossy(&output.stdout);
        let (_, fingerprint) = text.trim().split_once('=')?;
        Some(fingerprint.replace(':', "").to_lowercase())
    }
}

impl Holder {
    fn start(name: &str, within: Option<&Self>, directory: &TempDir) -> Self {
        let mut command = within.map_or_else(first, |holder| holder.outside("unshare"));
        command.args(["--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", "hostname \"$1\" && echo ready && exec sleep infinity", "sh", name]);
        let mut holder = Subprocess::spawn(&command, directory.path().join(name));
        holder.wait_for_line("ready", PATIENCE);
        Self(holder)
    }

    /// `program` with the network of the namespace, among the processes and files of the test.
    fn outside(&self, program: &str) -> Command {
        let mut command = self.enter(&["--net"]);
        command.arg("--").arg(program);
        command
    }

    fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        // The holder itself stands outside of the process namespace that it made.
        let processes = format!("--pid=/proc/{}/ns/pid_for_children", self.0.id());
        let mut command = self.enter(&["--net", "--uts", "--mount", &processes]);
        command.arg("--").arg(program);
        command
    }

    fn enter(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.0.id().to_string()]).args(namespaces);
        if !is_root() {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
    }
}

/// What the first namespaces of a network are made by.
fn first() -> Command {
    let mut command = Command::new("unshare");
    if !is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
}

/// The process id of a program on a host, as the test sees it, where `entered` is that of the command it was started by: that one
/// enters the host, and its only child is the program.
pub fn program_of(entered: i32) -> Pid {
    let children = fs::read_to_string(format!("/proc/{entered}/task/{entered}/children")).expect("a running command");
    children.trim().parse().ok().and_then(Pid::from_raw).expect("one child")
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn quiet(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"))
}

#[test]
fn hosts_see_each_other_and_nothing_else() {
    let network = Network::start();
    let (left, right) = (network.host("left"), network.host("right"));
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = right.command("python3");
    server.args(["-m", "http.server", "--bind", &right.address.to_string(), "--directory"]).arg(directory.path()).arg("80");
    fs::write(directory.path().join("index.html"), "right").expect("a file");
    let mut server = Subprocess::spawn(&server, directory.path().join("log"));
    let url = format!("http://{}/", right.address);
    assert_eq!(left.wait_for(&url), "right");
    assert_eq!(run(&mut right.command("hostname")), "right\n");
    assert_eq!(run(left.command("ip").args(["-brief", "link"])).lines().count(), 2, "loopback, and the way to the switch");
    left.cut_off(&right);
    assert_eq!(left.get(&url), None);
    left.reconnect(&right);
    assert_eq!(left.get(&url).as_deref(), Some("right"));
    // The server is a process of its host: it ends with it.
    drop(right);
    server.wait(PATIENCE);
}
