//! tls-alpn-01 on a port of our own.

use std::process::Command;
use std::time::Duration;

use certfleet::solver::tls_alpn::TlsAlpn;
use certfleet::solver::{Challenge, Presented, Solver as _};
use certfleet::target::handshake::presented_chain;

use super::{SITE, machine};
use crate::doctor::examine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::process::free_port;

#[tokio::test]
async fn a_ca_validates_names_and_addresses() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = machine(&pebble, &format!("kind = \"tls-alpn-01\"\nlisten = \"127.0.0.1:{}\"\n", pebble.tls_port), "");
    machine.change("certfleet.toml", "\"example.test\"]", "\"example.test\", \"127.0.0.1\"]");
    examine(&machine).expect("port", "ok", &["is free"]);
    let taken = std::net::TcpListener::bind(("127.0.0.1", pebble.tls_port)).expect("a port");
    let holder = format!("(process {}) listens", std::process::id());
    machine.run(&["ensure"]).expect(1).says("for tls-alpn-01").says(&holder).says("http-01 or dns-01");
    examine(&machine).expect("port", "failed", &[&holder]);
    drop(taken);
    let ended = machine.run(&["ensure", "--force", "--json"]).expect(0);
    assert_eq!(ended.site()["in_place"]["identifiers"], serde_json::json!(["127.0.0.1", "example.test", SITE]));
    std::net::TcpListener::bind(("127.0.0.1", pebble.tls_port)).expect("the port is free again");
    machine.change("certfleet.toml", "\"127.0.0.1\"]", "\"*.example.test\"]");
    machine.run(&["ensure"]).expect(2).says("*.example.test cannot be proven by a solver of kind tls-alpn-01").says("dns-01");
}

fn challenge(name: &str) -> Challenge {
    let identifier: certfleet::domain::identifier::Identifier = name.parse().expect("a name");
    Challenge {
        identifier: identifier.clone(),
        token: "token".to_owned(),
        key_authorization: "token.thumbprint".to_owned(),
        dns_value: String::new(),
        remaining: 0,
        all: vec![identifier],
    }
}

/// Openssl, not we ourselves, says what is shown, and to whom.
fn shown(port: u16, more: &[&str]) -> String {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &format!("127.0.0.1:{port}")]).args(more).stdin(std::process::Stdio::null());
    let output = command.output().expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(start) = text.find("-----BEGIN CERTIFICATE-----") else { return String::new() };
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), &text[start..]).expect("a file");
    let described = Command::new("openssl").args(["x509", "-noout", "-text", "-in"]).arg(file.path()).output().expect("openssl");
    String::from_utf8_lossy(&described.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_those_who_speak_acme_tls_are_shown_anything_and_only_for_the_name() {
    let port = free_port();
    let solver = TlsAlpn::new(([127, 0, 0, 1], port).into());
    // By its name in the reverse tree (RFC 8738 section 6).
    for (identifier, server_name, alternative) in [
        (SITE, SITE, "DNS:www.example.test"),
        ("192.0.2.7", "7.2.0.192.in-addr.arpa", "IP Address:192.0.2.7"),
        ("2001:db8::1", "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa", "IP Address:2001:DB8:0:0:0:0:0:1"),
    ] {
        let challenge = challenge(identifier);
        solver.present(&challenge).await.expect("it listens");
        let text = shown(port, &["-alpn", "acme-tls/1", "-servername", server_name]);
        // id-pe-acmeIdentifier, critical (RFC 8737 section 3).
        assert!(text.contains("1.3.6.1.5.5.7.1.31: critical") && text.contains(alternative), "{identifier}: {text}");
        for more in [
            &["-alpn", "acme-tls/1", "-servername", "other.example.test"] as &[_],
            &["-alpn", "acme-tls/1", "-noservername"],
            &["-alpn", "h2", "-servername", server_name],
            &["-servername", server_name],
        ] {
            assert_eq!(shown(port, more), "", "{more:?}");
        }
        solver.clean_up(&challenge, &Presented::default()).await.expect("clean");
        std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free again");
    }
    let name = SITE.parse().expect("a name");
    presented_chain(&format!("127.0.0.1:{port}"), &name, Duration::from_secs(10)).await.expect_err("nobody listens");
}
