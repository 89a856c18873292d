//! bind9, as an authoritative server with zones that the test writes and that a TSIG key may change.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::process::{Subprocess, free_port, program, run};

/// The name of the key that may change everything, and control the server.
pub const KEY_NAME: &str = "certfleet";

/// The key.
pub const KEY: &str = "2vE1u0jPZ8q9l7n6y5xkW3tR4aBcDeFgHiJkLmNoPqQ=";

/// How long it may take to start on a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Bind9 {
    /// Where it is asked, and changed.
    pub address: SocketAddr,
    control: SocketAddr,
    process: Subprocess,
    directory: TempDir,
}

/// A zone: its name, what is in it beside SOA and NS, and whether the key may change it.
#[derive(Clone, Copy, Debug)]
pub struct Zone<'a> {
    pub name: &'a str,
    pub servers: &'a [(&'a str, IpAddr)],
    pub records: &'a str,
    pub ours: bool,
}

impl<'a> Zone<'a> {
    /// One that is ours, on one server, with these records.
    pub fn new(name: &'a str, records: &'a str) -> Self {
        Self { name, servers: &[("ns1", IpAddr::V4(Ipv4Addr::LOCALHOST))], records, ours: true }
    }
}

impl Bind9 {
    /// A primary at 127.0.0.1. It tells nobody of changes: secondaries have them when they are told to fetch them.
    pub fn primary(zones: &[Zone<'_>]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut configuration = String::new();
        for zone in zones {
            let name = zone.name;
            let mut text = format!("$TTL 1\n@ SOA ns1.{name}. ops.{name}. 1 3600 3600 3600000 1\n");
            for (server, address) in zone.servers {
                let kind = if address.is_ipv4() { "A" } else { "AAAA" };
                writeln!(text, "@ NS {server}.{name}.\n{server} {kind} {address}").expect("a string");
            }
            std::fs::write(directory.path().join(name), text + zone.records + "\n").expect("a zone");
            let update = if zone.ours { format!("key {KEY_NAME};") } else { "none;".to_owned() };
            writeln!(configuration, "zone \"{name}\" {{ type primary; file \"{name}\"; allow-update {{ {update} }}; }};")
                .expect("a string");
        }
        Self::start(directory, Ipv4Addr::LOCALHOST.into(), free_port(), &configuration)
    }

    /// A secondary of this server's `zone` at another address of the machine, with the same port. It has fetched the zone once.
    pub fn secondary(&self, zone: &str, address: IpAddr) -> Self {
        let configuration = format!(
            "zone \"{zone}\" {{ type secondary; file \"{zone}\"; primaries {{ {} port {}; }}; }};",
            self.address.ip(),
            self.address.port()
        );
        let mut secondary = Self::start(tempfile::tempdir().expect("a directory"), address, self.address.port(), &configuration);
        secondary.process.wait_for_line("Transfer status: success", START);
        secondary
    }

    fn start(directory: TempDir, address: IpAddr, port: u16, zones: &str) -> Self {
        let place = directory.path().display();
        let control = SocketAddr::from((address, free_port()));
        let listen = match address {
            IpAddr::V4(address) => format!("listen-on port {port} {{ {address}; }}; listen-on-v6 {{ none; }};"),
            IpAddr::V6(address) => format!("listen-on {{ none; }}; listen-on-v6 port {port} {{ {address}; }};"),
        };
        let configuration = format!(
            "options {{ directory \"{place}\"; pid-file \"{place}/pid\"; session-keyfile \"{place}/session\"; \
             {listen} recursion no; notify no; allow-transfer {{ any; }}; \
             dnssec-validation no; }};\n\
             key \"{KEY_NAME}\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n\
             controls {{ inet {} port {} allow {{ any; }} keys {{ {KEY_NAME}; }}; }};\n{zones}",
            control.ip(),
            control.port()
        );
        let file = directory.path().join("named.conf");
        std::fs::write(&file, configuration).expect("a file");
        std::fs::write(directory.path().join("rndc.key"), format!("key \"{KEY_NAME}\" {{ algorithm hmac-sha256; secret \"{KEY}\"; }};\n"))
            .expect("a file");
        let mut command = Command::new(program("named"));
        command.args(["-g", "-n", "1", "-c"]).arg(&file);
        let mut process = Subprocess::spawn(&command, directory.path().join("log"));
        process.wait_for_line("all zones loaded", START);
        Self { address: (address, port).into(), control, process, directory }
    }

    /// Has a secondary fetch a zone now.
    pub fn fetch(&self, zone: &str) {
        let mut rndc = Command::new(program("rndc"));
        rndc.args(["-s", &self.control.ip().to_string(), "-p", &self.control.port().to_string(), "-k"]).arg(self.file("rndc.key"));
        run(rndc.args(["retransfer", zone]));
    }

    /// The values of the TXT records at `name`, sorted.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let mut dig = Command::new(program("dig"));
        dig.args([&format!("@{}", self.address.ip()), "-p", &self.address.port().to_string(), "+short", "+norecurse", name, "TXT"]);
        let output = run(&mut dig);
        let mut texts: Vec<_> = output.lines().map(|line| line.trim_matches('"').to_owned()).collect();
        texts.sort();
        texts
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }
}
