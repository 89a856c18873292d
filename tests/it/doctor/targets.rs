//! What certificates are installed into, on webservers with nginx.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::examine;
use crate::agent::fleet::{Fleet, SITE};
use crate::support::process::free_port;

#[test]
fn files_that_are_not_as_they_should_be_are_found_out() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    let found = examine(&node.machine);
    found.expect("files", "warning", &["nothing is installed", "certfleet bootstrap"]).expect("ssl_root", "ok", &["not there yet"]);
    assert!(!node.machine.path("ssl").exists());
    node.machine.run(&["bootstrap"]).expect(0);
    let found = examine(&node.machine);
    found.expect("files", "ok", &["1 site"]).expect("served", "skipped", &["no verify"]);

    let key = node.live().join("privkey.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    examine(&node.machine).expect("files", "failed", &["another owner or mode", "certfleet agent"]);
    node.agent().expect(0);
    examine(&node.machine).expect("files", "ok", &[]);
    fs::write(node.live().join("chain.pem"), "altered").expect("a file");
    examine(&node.machine).expect("files", "failed", &["altered"]);
    fs::remove_file(node.live()).expect("no link");
    fs::write(node.live(), "").expect("a file in its place");
    examine(&node.machine).expect("files", "failed", &["a file", "move "]);

    node.machine.change("certfleet.toml", "kind = \"files\"\n", "kind = \"files\"\nowner = \"no-such-user\"\n");
    examine(&node.machine).expect("settings", "failed", &["no-such-user", "getent passwd"]);
    node.machine.change("certfleet.toml", "owner = \"no-such-user\"\nssl_root = \"ssl\"", "ssl_root = \"certfleet.toml/ssl\"");
    examine(&node.machine).expect("ssl_root", "failed", &["is not a directory"]);
}

#[test]
fn a_server_that_does_not_pass_its_test_or_serves_something_else_is_found_out() {
    let fleet = Fleet::new();
    let mut node = fleet.serving("ws-1");
    examine(&node.machine).expect("server-test", "ok", &["nginx"]).expect("served", "ok", &["nginx at 127.0.0.1"]);

    // Installed by an agent that has told nobody.
    let (verify, reload) = (node.setting("verify"), node.setting("reload"));
    node.machine.change("certfleet.toml", &format!("{verify}\n"), "");
    node.machine.change("certfleet.toml", &reload, "reload = []");
    fleet.renew();
    node.agent().expect(0);
    node.machine.change("certfleet.toml", "reload = []", &format!("{verify}\n{reload}"));
    let reloads = node.nginx.as_ref().expect("nginx").reloads();
    let found = examine(&node.machine);
    found.expect("served", "failed", &[SITE, "presents another certificate", "certfleet agent"]).expect("files", "ok", &[]);
    assert_eq!(node.nginx.as_ref().expect("nginx").reloads(), reloads, "nothing is reloaded");

    node.machine.change("certfleet.toml", &verify, &format!("verify = \"127.0.0.1:{}\"", free_port()));
    examine(&node.machine).expect("served", "failed", &["refuses connections"]);
    node.nginx.as_mut().expect("nginx").break_configuration();
    examine(&node.machine).expect("server-test", "failed", &["does not pass its test", "no_such_setting", "correct it until"]);
    let test = node.setting("test");
    node.machine.change("certfleet.toml", &test, "test = [\"no-such-program\"]");
    examine(&node.machine).expect("server-test", "failed", &["no-such-program", "install the server"]);
}

#[test]
fn a_follower_needs_no_secret_and_a_build_machine_has_no_targets() {
    let fleet = Fleet::new();
    let node = fleet.node_with("ws-1", "", "role = \"follower\"\n");
    node.machine.run(&["bootstrap"]).expect(0);
    node.add(
        "[issuer.corp]\nkind = \"acme\"\ndirectory = \"https://127.0.0.1:1/dir\"\neab = { kid = \"k\", hmac_key = { env = \"NOT_HERE\" } }\n\
         [solver.dns]\nkind = \"dns-01\"\nprovider = \"script:nowhere\"\ncredentials = { TOKEN = { env = \"NOT_HERE\" } }\n",
    );
    node.machine.change("certfleet.toml", "[\"self-signed\"]", "[\"self-signed\", \"corp\"]\nsolver = \"dns\"");
    let found = examine(&node.machine);
    found.expect("issuers", "skipped", &["a follower asks no issuer"]).expect("files", "ok", &["1 site"]);
    assert!(!found.has_part("solvers") && found.all("settings").is_empty());
    node.machine.change("certfleet.toml", "role = \"follower\"\n", "");
    let found = examine(&node.machine);
    assert!(found.all("settings").len() >= 2, "an issuer's secret and a solver's: {:?}", found.all("settings"));

    assert!(!examine(&fleet.build).has_part("targets"));
}

#[test]
fn a_webserver_without_the_identity_or_a_bundle_is_found_out() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let path = node.machine.path("runtimedata/identity.age");
    let identity = fs::read(&path).expect("an identity");
    fs::remove_file(&path).expect("no identity");
    let found = examine(&node.machine);
    found.expect("identity", "failed", &["copy the fleet's identity"]).expect("files", "skipped", &["proven with the fleet's identity"]);
    fs::write(&path, identity).expect("an identity");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    fleet.s3.objects().delete(&format!("fleet-a/bundles/{SITE}/0000000001"));
    examine(&node.machine).expect(
        "bundles",
        "warning",
        &["none of www.example.test", "on the build machine: certfleet ensure www.example.test"],
    );
}
