//! What SECURITY.md says is to be done by hand after a compromise, done.

use std::fs;

use crate::support::machine::{Machine, datastore, give_keys};
use crate::support::s3_in_process::InProcessS3;

const SITE: &str = "www.example.test";

fn key(machine: &Machine, path: &str) -> String {
    machine.read(&format!("{path}/privkey.pem"))
}

#[test]
fn a_fleet_changes_its_identity_and_all_its_keys() {
    let s3 = InProcessS3::start();
    let site = format!("[[site]]\nname = \"{SITE}\"\nissuers = [\"self-signed\"]\n");
    let build = Machine::new(&format!("{site}{}", datastore(&s3.bucket(), "fleet-a")));
    let target = "[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n[agent]\nnode = \"ws-1\"\nsplay = \"0s\"\n";
    let node = Machine::new(&format!("{site}{target}{}", datastore(&s3.bucket(), "fleet-a")));
    for machine in [&build, &node] {
        give_keys(machine, &s3.bucket());
    }
    build.run(&["ensure"]).expect(0);
    build.share_identity(&node);
    node.run(&["agent"]).expect(0);
    build.run(&["ensure", "--force"]).expect(0);
    node.run(&["agent"]).expect(0);
    let (copy, live) = (format!("runtimedata/local/default/ssl/{SITE}"), format!("ssl/live/{SITE}"));
    let stolen = key(&node, &live);
    let identity = build.read("runtimedata/identity.age");

    // The build machine: another identity, another prefix, and nothing of the old keys.
    fs::rename(build.path("runtimedata"), build.path("runtimedata.compromised")).expect("moved away");
    build.change("certfleet.toml", "/fleet-a", "/fleet-b");
    build.run(&["ensure"]).expect(0);
    assert_ne!((build.read("runtimedata/identity.age"), key(&build, &copy)), (identity, stolen.clone()));
    // A webserver.
    fs::rename(node.path("runtimedata"), node.path("runtimedata.compromised")).expect("moved away");
    node.change("certfleet.toml", "/fleet-a", "/fleet-b");
    build.share_identity(&node);
    node.run(&["agent"]).expect(0);
    let served = key(&node, &live);
    assert_eq!(served, key(&build, &copy), "generation 1 of the new fleet, although 2 of the old one was installed");
    assert_ne!(served, stolen);
    build.run(&["status"]).expect(0);
    // Nothing of the old fleet was published again.
    let old = fs::read_to_string(node.path("runtimedata.compromised/identity.age")).expect("the old identity");
    let recipient = old.lines().find_map(|line| line.strip_prefix("# public key: ")).expect("a recipient");
    for key in s3.objects().keys().iter().filter(|key| key.starts_with("fleet-b/")) {
        let object = s3.objects().get(key).expect("an object");
        assert!(!String::from_utf8_lossy(&object).contains(recipient), "{key} is sealed to the old identity");
    }
}
