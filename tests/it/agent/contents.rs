//! A generation that lies in the datastore with another content than what was installed under its number.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::fleet::{Fleet, Node, SITE, fingerprint_of};
use crate::support::fleet_files::{Made, compose, seal_of, site};

/// Writes another content of generation 1 over the one that is there; its fingerprint.
fn overwrite(fleet: &Fleet, made: &Made) -> String {
    let seal = seal_of(&fleet.build.read("runtimedata/identity.age"));
    let (object, fingerprint) = compose(&seal, &site(), 1, made);
    fleet.s3.objects().put(&key(), object);
    fingerprint
}

fn key() -> String {
    format!("fleet-a/bundles/{SITE}/0000000001")
}

/// How often the agent asks for the bundle in a run that ends like that.
fn fetches(fleet: &Fleet, node: &Node, code: i32) -> usize {
    fleet.s3.forget_requests();
    node.agent().expect(code);
    fleet.s3.requests().iter().filter(|seen| seen.key == key()).count()
}

#[test]
fn nodes_take_the_content_that_the_datastore_ends_up_with_and_serve_it() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let first = node.installed();
    let other = overwrite(&fleet, &Made { days_left: 1_000, ..Made::default() });
    let reloads = node.nginx.as_ref().expect("nginx").reloads();
    assert_eq!(fetches(&fleet, &node, 0), 1);
    assert_ne!(first, other);
    assert_eq!((node.installed(), node.served(), node.kept()), (other.clone(), other.clone(), vec!["1".to_owned()]));
    assert_eq!(node.nginx.as_ref().expect("nginx").reloads(), reloads + 1);
    assert_eq!(fleet.report("ws-1").sites[0].installed.as_ref().expect("installed").fingerprint, other);
    // What was installed is compared once more, and then known.
    assert_eq!(fetches(&fleet, &node, 0), 1);
    assert_eq!(fetches(&fleet, &node, 0), 0);
    assert_eq!(node.nginx.as_ref().expect("nginx").reloads(), reloads + 1);
}

#[test]
fn a_content_that_ends_sooner_is_left_where_it_is() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let first = node.installed();
    overwrite(&fleet, &Made { days_left: 10, ..Made::default() });
    assert_eq!((fetches(&fleet, &node, 0), node.installed(), node.served()), (1, first.clone(), first));
    assert_eq!(fetches(&fleet, &node, 0), 0, "it is known by now");
}

#[test]
fn of_two_directories_with_different_contents_the_one_that_serves_longer_is_kept_and_copied() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let alone = node.machine.read("certfleet.toml");
    node.add("[[target]]\nkind = \"files\"\nssl_root = \"other\"\n");
    let both = node.machine.read("certfleet.toml");
    let other = || fingerprint_of(&node.machine.path("other/live").join(SITE).join("fullchain.pem"));
    node.agent().expect(0);
    assert_eq!(other(), node.installed());
    // Only one of them sees the content that serves longest.
    node.machine.write("certfleet.toml", alone);
    let longest = overwrite(&fleet, &Made { days_left: 1_000, ..Made::default() });
    node.agent().expect(0);
    assert_ne!(other(), longest);
    node.machine.write("certfleet.toml", both);
    overwrite(&fleet, &Made { days_left: 10, ..Made::default() });
    node.agent().expect(0);
    assert_eq!([node.installed(), node.served(), other()], [longest.clone(), longest.clone(), longest]);
}

#[test]
fn an_object_that_cannot_be_used_is_told_and_the_installed_one_stays() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let first = node.installed();
    fleet.s3.objects().corrupt(&key());
    assert_eq!((fetches(&fleet, &node, 4), node.installed(), node.served()), (1, first.clone(), first));
    let problem = fleet.report("ws-1").sites[0].problem.clone().expect("a problem");
    assert!(problem.what.contains("is not what is installed under that number, and cannot be used"), "{problem:?}");
}

#[test]
fn a_content_that_the_server_refuses_is_exchanged_back() {
    for (command, reason) in [("test", "fails with the new certificate"), ("reload", "could not be reloaded")] {
        let fleet = Fleet::new();
        let node = fleet.serving("ws-1");
        let first = node.installed();
        let original = node.setting(command);
        let path = node.machine.path(command);
        let serial = fs::read_to_string(node.live().join("cert.pem")).expect("a certificate");
        node.machine.write("first.pem", serial);
        let script = format!(
            "#!/bin/sh\ncmp -s {} {} || {{ echo no such certificate >&2; exit 1; }}\n",
            node.machine.path("first.pem").display(),
            node.live().join("cert.pem").display()
        );
        fs::write(&path, script).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        node.machine.change("certfleet.toml", &original, &format!("{command} = [{:?}]", path.display().to_string()));
        let other = overwrite(&fleet, &Made { days_left: 1_000, ..Made::default() });
        let ended = node.agent().expect(4);
        assert!(ended.stderr.contains(reason) && ended.stderr.contains("back in place"), "{}", ended.stderr);
        assert_eq!((node.installed(), node.served()), (first.clone(), first));
        // It is tried again, not taken for known.
        let now = node.setting(command);
        node.machine.change("certfleet.toml", &now, &original);
        node.agent().expect(0);
        assert_eq!((node.installed(), node.served()), (other.clone(), other));
    }
}
