//! A machine of the fleet: a host of the network, its directory, and on webservers its nginx.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::OFlags;

use super::authority::Authorities;
use crate::support::bucket::Bucket;
use crate::support::machine::{Ended, Machine, Running, datastore, give_keys};
use crate::support::namespace::{Namespace, PATIENCE};
use crate::support::process::{Subprocess, program, run, until};

/// The one site of the fleet.
pub const SITE: &str = "www.example.test";

const SHORT_LIVED_FIRST: &str = r#"issuers = ["short-lived", "long-lived"]"#;
const LONG_LIVED_FIRST: &str = r#"issuers = ["long-lived", "short-lived"]"#;

/// See the module.
pub struct Host {
    nginx: Option<Subprocess>,
    namespace: Namespace,
    pub machine: Machine,
}

/// What every machine of the fleet is told.
pub struct Shared<'a> {
    pub bucket: &'a Bucket,
    pub authorities: &'a Authorities,
    /// The root of the authorities' TLS certificate.
    pub tls_root_pem: &'a str,
}

/// A fifo in the way of the DNS hook. The hook waits there until it is let pass, or turned away; gone with this value.
pub struct Gate(PathBuf);

/// A hook that waits at a gate. Dropping this turns it away: it fails.
pub struct Waiting(File);

impl Host {
    /// The machine that ensures the first certificate: one that soon comes into its window.
    pub fn build_machine(namespace: Namespace, shared: &Shared<'_>) -> Self {
        Self::new(namespace, shared, SHORT_LIVED_FIRST)
    }

    /// A webserver with all configuration, and neither certificates nor a running nginx.
    pub fn webserver(namespace: Namespace, shared: &Shared<'_>) -> Self {
        let host = Self::new(namespace, shared, LONG_LIVED_FIRST);
        let machine = &host.machine;
        let live = machine.path("ssl/live").join(SITE);
        machine.write("nginx.conf", nginx_configuration(&machine.path(""), &live));
        let options = nginx_options(machine).map(|option| format!("\"{option}\"")).join(", ");
        let configuration = machine.read("certfleet.toml")
            + &format!(
                "[[target]]\nkind = \"nginx\"\nssl_root = \"ssl\"\nverify = \"127.0.0.1:443\"\ntest = [\"nginx\", \"-t\", \"-q\", {options}]\n\
                 reload = [\"nginx\", \"-s\", \"reload\", {options}]\n"
            );
        machine.write("certfleet.toml", configuration);
        host
    }

    fn new(namespace: Namespace, shared: &Shared<'_>, issuers: &str) -> Self {
        let Shared { bucket, authorities, tls_root_pem } = shared;
        let machine = Machine::new("");
        give_keys(&machine, bucket);
        machine.write("tls-root.pem", tls_root_pem);
        let mut configuration = format!(
            "contact = \"ops@example.test\"\n[[site]]\nname = \"{SITE}\"\nidentifiers = [\"{SITE}\"]\n{issuers}\nsolver = \"dns\"\n\
             [agent]\nsplay = \"0s\"\n"
        ) + &datastore(bucket, "fleet");
        for (name, authority) in [("short-lived", &authorities.short_lived), ("long-lived", &authorities.long_lived)] {
            machine.write(&format!("{name}.pem"), &authority.issuance_root_pem);
            let url = &authority.directory_url;
            let _ = write!(
                configuration,
                "[issuer.{name}]\nkind = \"acme\"\ndirectory = \"{url}\"\ntrust = \"tls-root.pem\"\nchain_trust = \"{name}.pem\"\n",
            );
        }
        let hook = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fleet_of_hosts/dns-hook");
        let (api, gate) = (authorities.dns_api(), gate(&machine));
        let gate = gate.display();
        let _ = write!(
            configuration,
            "[solver.dns]\nkind = \"dns-01\"\npresent = [\"{hook}\", \"present\", \"{api}\", \"{gate}\"]\n\
             cleanup = [\"{hook}\", \"cleanup\", \"{api}\"]\n",
        );
        machine.write("certfleet.toml", configuration);
        Self { machine, nginx: None, namespace }
    }

    /// From now on its certificates outlive the test.
    pub fn prefer_long_lives(&self) {
        self.machine.change("certfleet.toml", SHORT_LIVED_FIRST, LONG_LIVED_FIRST);
    }

    /// Runs certfleet with these arguments to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).wait()
    }

    /// Starts certfleet with these arguments.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.namespace.command(env!("CARGO_BIN_EXE_certfleet"));
        command.arg("--config").arg(self.machine.path("certfleet.toml")).args(arguments);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.machine.path(""));
        command.env("S3_SECRET", self.machine.read("s3-secret"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Running::start(command)
    }

    /// Starts nginx, and returns once it serves.
    pub fn start_nginx(&mut self) {
        let mut nginx = self.namespace.command(program("nginx"));
        nginx.args(nginx_options(&self.machine));
        self.nginx = Some(Subprocess::spawn(&nginx, self.machine.path("nginx.log")));
        until("certificate on the wire", PATIENCE, || self.leaf_of(self));
    }

    /// The fingerprint of the leaf that `other` presents to this host.
    pub fn leaf_of(&self, other: &Self) -> Option<String> {
        self.namespace.leaf_served(other.namespace.address, SITE)
    }

    /// How often nginx has taken up its configuration since it was started.
    pub fn reloads(&self) -> usize {
        self.machine.read("error.log").lines().filter(|line| line.ends_with(": reconfiguring")).count()
    }

    /// Where `live/<site>` leads.
    pub fn live(&self) -> PathBuf {
        std::fs::read_link(self.machine.path("ssl/live").join(SITE)).expect("a link")
    }

    /// No packet to `other` leaves this host any more; whoever tries is told at once.
    pub fn cut_off(&self, other: &Namespace) {
        self.namespace.cut_off(other);
    }

    /// The end of [`Host::cut_off`].
    pub fn reconnect(&self, other: &Namespace) {
        self.namespace.reconnect(other);
    }

    /// From now on the DNS hook of this host gets no further than the gate.
    pub fn close_gate(&self) -> Gate {
        let path = gate(&self.machine);
        run(Command::new("mkfifo").arg(&path));
        Gate(path)
    }
}

impl Gate {
    /// Returns once the hook waits there.
    pub fn visitor(&self) -> Waiting {
        let nonblocking = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag");
        // Without a reader a fifo cannot be opened for writing like this (fifo(7)).
        let open = || OpenOptions::new().write(true).custom_flags(nonblocking).open(&self.0).ok();
        Waiting(until("hook at the gate", PATIENCE, open))
    }
}

impl Waiting {
    /// Lets it go on.
    pub fn pass(mut self) {
        self.0.write_all(b"pass\n").expect("a line");
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn gate(machine: &Machine) -> PathBuf {
    machine.path("gate")
}

/// The options of nginx with a machine's configuration. Before it has read that it would complain to `/var/log`.
fn nginx_options(machine: &Machine) -> [String; 4] {
    let path = |name: &str| machine.path(name).display().to_string();
    ["-c".to_owned(), path("nginx.conf"), "-e".to_owned(), path("error.log")]
}

/// An nginx in `directory` that serves the certificate and the key in `files`.
fn nginx_configuration(directory: &Path, files: &Path) -> String {
    let (directory, files) = (directory.display(), files.display());
    format!(
        "daemon off;
user root;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 443 ssl;
        ssl_certificate {files}/fullchain.pem;
        ssl_certificate_key {files}/privkey.pem;
        return 200;
    }}
}}
"
    )
}
