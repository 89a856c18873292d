//! A host with two CAs, which are one but for how long their certificates live, and the DNS server that they ask.

use std::process::Command;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use crate::support::namespace::Namespace;
use crate::support::pebble::certificates;
use crate::support::process::{Subprocess, tool};

const DNS: u16 = 53;
const DNS_MANAGEMENT: u16 = 8055;

/// Two pebbles. pebble has one lifetime for all its certificates, and the first of the fleet must come to its end within the test,
/// the others must not.
pub struct Authorities {
    /// Certificates of this one live for [`SHORT_LIFE`]: they are due in its second half.
    pub short_lived: Authority,
    /// Certificates of this one outlive the test by years.
    pub long_lived: Authority,
    host: Namespace,
    _dns: Subprocess,
    _directory: TempDir,
}

/// One of them.
pub struct Authority {
    /// The URL of its ACME directory.
    pub directory_url: String,
    /// The root of the chains it issues.
    pub issuance_root_pem: String,
    server: Subprocess,
}

/// What a pebble is told.
struct Order {
    name: &'static str,
    port: u16,
    lifetime: Duration,
}

/// How long certificates of the first authority live.
pub const SHORT_LIFE: Duration = Duration::from_secs(90);

const SHORT_LIVED: Order = Order { name: "short-lived", port: 14_000, lifetime: SHORT_LIFE };
const LONG_LIVED: Order = Order { name: "long-lived", port: 15_000, lifetime: Duration::from_secs(5 * 365 * 86_400) };

impl Authorities {
    /// Starts them on `host`; returns them with the root of their TLS certificate.
    pub fn start_on(host: Namespace) -> (Self, String) {
        let directory = tempfile::tempdir().expect("a directory");
        let root_pem = certificates(directory.path(), &[&host.address.to_string()]);
        let at = |port: u16| format!("{}:{port}", host.address);
        let mut dns = host.command(tool("pebble/usr/bin/pebble-challtestsrv"));
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "", "-defaultIPv6", ""]);
        dns.args(["-dnsserver", &at(DNS), "-doh", "", "-management", &at(DNS_MANAGEMENT)]);
        let dns = Subprocess::spawn(&dns, directory.path().join("dns.log"));
        host.wait_for(&format!("http://{}", at(DNS_MANAGEMENT)));

        let short_lived = pebble(&host, &directory, &SHORT_LIVED);
        let long_lived = pebble(&host, &directory, &LONG_LIVED);
        let authority = |order: &Order, server| Authority {
            directory_url: format!("https://{}/dir", at(order.port)),
            issuance_root_pem: host.wait_for(&format!("https://{}/roots/0", at(order.port + 1))),
            server,
        };
        let (short_lived, long_lived) = (authority(&SHORT_LIVED, short_lived), authority(&LONG_LIVED, long_lived));
        (Self { short_lived, long_lived, host, _dns: dns, _directory: directory }, root_pem)
    }

    /// The management API of the DNS server.
    pub fn dns_api(&self) -> String {
        format!("http://{}:{DNS_MANAGEMENT}", self.host.address)
    }

    /// How many certificates they have issued.
    pub fn issued(&self) -> usize {
        [&self.short_lived, &self.long_lived].iter().map(|one| one.server.log().matches("Issued certificate serial").count()).sum()
    }
}

fn pebble(host: &Namespace, directory: &TempDir, order: &Order) -> Subprocess {
    let at = |port: u16| format!("{}:{port}", host.address);
    let config = json!({ "pebble": {
        "listenAddress": at(order.port),
        "managementListenAddress": at(order.port + 1),
        "certificate": directory.path().join("server.pem"),
        "privateKey": directory.path().join("server.key"),
        "httpPort": 80,
        "tlsPort": 443,
        "profiles": { "default": { "description": "the only one", "validityPeriod": order.lifetime.as_secs() } },
    }});
    let file = directory.path().join(format!("{}.json", order.name));
    std::fs::write(&file, config.to_string()).expect("a file");
    let mut command: Command = host.command(tool("pebble/usr/bin/pebble"));
    command.arg("-config").arg(&file).args(["-dnsserver", &at(DNS)]);
    command.env("PEBBLE_WFE_NONCEREJECT", "0").env("PEBBLE_AUTHZREUSE", "0").env("PEBBLE_VA_NOSLEEP", "1");
    Subprocess::spawn(&command, directory.path().join(format!("{}.log", order.name)))
}
