//! What is not installed, or not served, is told by name, and what was served before goes on being served.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use certfleet::domain::record::IssuerClass;
use certfleet::target::server::Daemon;
use serde_json::Value;

use super::fleet::{DAY, Fleet, Node, SITE};
use crate::support::fleet_files::{Made, compose, seal_of, site};
use crate::support::webserver::Webserver;

const FOLLOWER: &str = "role = \"follower\"\n";

/// Puts a generation 2 into the datastore that a member of the fleet has made.
fn publish(fleet: &Fleet, made: &Made, change: impl FnOnce(&mut Value)) {
    let seal = seal_of(&fleet.build.read("runtimedata/identity.age"));
    let (object, _) = compose(&seal, &site(), 2, made);
    let mut record: Value = serde_json::from_slice(&object).expect("JSON");
    change(&mut record);
    fleet.s3.objects().put(&format!("fleet-a/bundles/{SITE}/0000000002"), record.to_string());
}

/// Runs the agent, which is to fail like that, and leave everything as it was.
#[track_caller]
fn expect_refusal(fleet: &Fleet, node: &Node, name: &str, reason: &str) {
    let (installed, served, link) = (node.installed(), node.served(), node.link());
    let ended = node.agent().expect(4);
    assert!(ended.stderr.contains(reason) && ended.stderr.contains(SITE), "no {reason:?} in:\n{}", ended.stderr);
    assert_eq!((node.installed(), node.served(), node.link()), (installed, served, link));
    let problem = fleet.report(name).sites[0].problem.clone().expect("a problem");
    assert!(problem.what.contains(reason), "{problem:?}");
}

type Change = fn(&mut Value);

#[test]
fn a_bundle_that_fails_its_checks_is_not_installed() {
    let made = Made::default;
    let same: Change = |_| {};
    let cases: [(&str, Made, Change); 4] = [
        ("it does not cover www.example.test", Made { names: &["other.example.test"], ..made() }, same),
        ("expires at", Made { days_left: 40, ..made() }, same),
        ("sealed part was altered", made(), |record| {
            let text = record["key"]["ciphertext"].as_str().expect("text").to_owned();
            record["key"]["ciphertext"] = text.replacen('A', "B", 3).into();
        }),
        ("it expired at", Made { days_old: 60, days_left: -1, ..made() }, same),
    ];
    for (reason, made, change) in cases {
        let fleet = Fleet::new();
        let node = fleet.serving_with("ws-1", "", FOLLOWER);
        publish(&fleet, &made, change);
        expect_refusal(&fleet, &node, "ws-1", reason);
    }
}

#[test]
fn a_key_that_does_not_fit_is_not_installed() {
    let fleet = Fleet::new();
    let node = fleet.serving_with("ws-1", "", FOLLOWER);
    let seal = seal_of(&fleet.build.read("runtimedata/identity.age"));
    let (other, _) = compose(&seal, &site(), 2, &Made::default());
    let other: Value = serde_json::from_slice(&other).expect("JSON");
    publish(&fleet, &Made::default(), |record| record["fullchain"] = other["fullchain"].clone());
    expect_refusal(&fleet, &node, "ws-1", "it was not written by this fleet");
}

#[test]
fn a_chain_that_leads_nowhere_trusted_is_not_installed() {
    let fleet = Fleet::new();
    let node = fleet.serving_with("ws-1", "", FOLLOWER);
    let text = node.machine.read("certfleet.toml").replace("[\"self-signed\"]", "[\"letsencrypt\"]\nsolver = \"web\"");
    node.machine.write("certfleet.toml", format!("{text}\n[solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\n"));
    publish(&fleet, &Made { issuer: "letsencrypt", class: IssuerClass::Acme, ..Made::default() }, |_| {});
    expect_refusal(&fleet, &node, "ws-1", "was not installed");
}

#[test]
fn a_configuration_that_was_broken_before_is_left_alone_and_said_to_be() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let nginx = node.nginx.as_ref().expect("nginx");
    let good = fs::read_to_string(&nginx.configuration).expect("a configuration");
    nginx.break_configuration();
    let new = fleet.renew();
    let changed = |node: &Node| fs::symlink_metadata(node.live()).expect("a link").modified().expect("a time");
    let before = changed(&node);
    expect_refusal(&fleet, &node, "ws-1", "is broken already");
    assert_eq!(changed(&node), before, "never switched, not even for a moment");
    fs::write(&nginx.configuration, good).expect("a configuration");
    node.agent().expect(0);
    assert_eq!((node.installed(), node.served()), (new.clone(), new));
    assert_eq!(fleet.report("ws-1").sites[0].problem, None);
}

/// Puts a script in the place of a command of the target.
fn replace_command(node: &Node, key: &str, script: &str) {
    let path = node.machine.path(key);
    fs::write(&path, script).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    node.machine.change("certfleet.toml", &node.setting(key), &format!("{key} = [{:?}]", path.display().to_string()));
}

#[test]
fn a_test_that_fails_only_with_the_new_files_has_them_switched_back() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    fleet.renew();
    let script =
        format!("#!/bin/sh\ncase $(readlink {}) in */1) ;; *) echo no such certificate >&2; exit 1;; esac\n", node.live().display());
    replace_command(&node, "test", &script);
    expect_refusal(&fleet, &node, "ws-1", "fails with the new certificate");
}

#[test]
fn a_reload_that_hangs_or_changes_nothing_has_the_old_certificate_switched_back_and_seen_to_be_served() {
    for (script, reason) in
        [("#!/bin/sh\nexec sleep 600\n", "could not be reloaded"), ("#!/bin/sh\nexit 0\n", "does not serve the certificate")]
    {
        let fleet = Fleet::new();
        let node = fleet.serving("ws-1");
        node.machine.change("certfleet.toml", "deadline = \"5s\"", "deadline = \"1s\"");
        fleet.renew();
        replace_command(&node, "reload", script);
        expect_refusal(&fleet, &node, "ws-1", reason);
        assert!(fleet.report("ws-1").sites[0].problem.as_ref().expect("a problem").what.contains("back in place"));
    }
}

#[test]
fn where_one_of_two_servers_fails_both_serve_what_they_served_before() {
    // The other one has taken the new certificate by then.
    for (reload, reason) in [("false", "apache could not be reloaded"), ("true", "does not serve the certificate")] {
        let fleet = Fleet::new();
        let node = fleet.serving("ws-1");
        let second = Webserver::start(Daemon::Nginx, &node.live());
        node.add(&format!(
            "[[target]]\nkind = \"apache\"\nssl_root = \"ssl\"\nverify = \"{}\"\ntest = []\nreload = [\"{reload}\"]\ndeadline = \"1s\"\n",
            second.address
        ));
        let old = node.served();
        node.agent().expect(0);
        let seen: Vec<_> = fleet.report("ws-1").sites[0].servers.iter().map(|served| served.fingerprint.clone()).collect();
        assert_eq!(seen, [Some(old.clone()), Some(old.clone())], "a server that was added is looked at");
        fleet.renew();
        expect_refusal(&fleet, &node, "ws-1", reason);
        let seen: Vec<_> = fleet.report("ws-1").sites[0].servers.iter().map(|served| served.fingerprint.clone()).collect();
        assert_eq!(seen, [Some(old.clone()), Some(old)]);
    }
}

#[test]
fn where_there_was_nothing_before_the_new_files_stay() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    node.machine.change("certfleet.toml", "kind = \"files\"\n", "kind = \"nginx\"\ntest = []\nreload = [\"false\"]\n");
    let ended = node.agent().expect(4);
    assert!(ended.stderr.contains("nginx could not be reloaded"), "{}", ended.stderr);
    assert!(node.live().join("privkey.pem").exists());
}

#[test]
fn a_certificate_that_has_expired_in_place_is_a_failure() {
    let fleet = Fleet::new();
    let node = fleet.node_with("ws-1", "", FOLLOWER);
    node.agent().expect(0);
    fleet.s3.advance(100 * DAY);
    let ended = node.agent().expect(1);
    assert!(ended.stderr.contains("generation 1 expired at"), "{}", ended.stderr);
}

#[test]
fn the_datastore_of_another_fleet_is_noticed_although_its_manifest_was_read_before() {
    let (fleet, other) = (Fleet::new(), Fleet::new());
    let node = fleet.node("ws-1");
    node.agent().expect(0);
    let manifest = other.s3.objects().get("fleet-a/certfleet.json").expect("a manifest");
    fleet.renew();
    fleet.s3.objects().put("fleet-a/certfleet.json", manifest);
    let (traces, requests) = (node.installed(), fleet.s3.requests().len());
    node.agent().expect(2);
    assert_eq!(node.installed(), traces);
    assert!(fleet.s3.requests()[requests..].iter().all(|seen| seen.method == http::Method::GET));
}

#[test]
fn without_the_datastore_a_node_goes_on_serving() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let (served, traces) = (node.served(), node.traces());
    let Fleet { s3, build: _build } = fleet;
    drop(s3);
    let ended = node.agent().expect(75);
    assert!(ended.stderr.contains("error: ") && ended.stderr.contains("hint: "), "{}", ended.stderr);
    assert_eq!((node.served(), node.traces()), (served, traces));
}

#[test]
fn what_others_put_in_the_place_of_a_link_is_left_alone() {
    type Put = fn(&Node);
    let puts: [(&str, Put); 3] = [
        ("a file", |node| fs::write(node.live(), "a file").expect("a file")),
        ("a link of others", |node| {
            fs::create_dir(node.machine.path("elsewhere")).expect("a directory");
            symlink("../../elsewhere", node.live()).expect("a link");
        }),
        ("a dangling link of others", |node| symlink("../nowhere", node.live()).expect("a link")),
    ];
    let fleet = Fleet::new();
    for (number, (what, put)) in puts.into_iter().enumerate() {
        let node = fleet.node(&format!("ws-{number}"));
        fs::create_dir_all(node.machine.path("ssl/live")).expect("a directory");
        put(&node);
        let state = |node: &Node| (fs::read_link(node.live()).ok(), fs::read(node.live()).ok());
        let before = state(&node);
        let ended = node.agent().expect(1);
        assert!(ended.stderr.contains("cannot be taken over"), "{what}: {}", ended.stderr);
        assert_eq!(state(&node), before, "{what}");
    }
    // One of ours that leads nowhere is healed.
    let node = fleet.node("ws-dangling");
    fs::create_dir_all(node.machine.path("ssl/live")).expect("a directory");
    symlink(format!("../archive/{SITE}/1"), node.live()).expect("a link");
    node.agent().expect(0);
    assert!(node.live().join("privkey.pem").exists());
}

#[test]
fn a_shorter_certificate_is_installed_where_the_configuration_or_a_rollback_wants_it() {
    let fleet = Fleet::new();
    let node = fleet.serving_with("ws-1", "", FOLLOWER);
    publish(&fleet, &Made { days_left: 40, ..Made::default() }, |_| {});
    expect_refusal(&fleet, &node, "ws-1", "expires at");
    // As the hint says.
    fleet.build.run(&["rollback", SITE, "--to", "2"]).expect(0);
    node.agent().expect(0);
    let third = node.installed();
    assert_eq!((node.served(), node.link()), (third, "../archive/www.example.test/3".into()));
    fleet.s3.advance(DAY);
    node.agent().expect(0);
}

#[test]
fn a_node_that_cannot_ask_the_preferred_issuer_makes_no_lesser_certificate() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    // The key of the local CA is on the build machine alone.
    node.machine.change("certfleet.toml", "[\"self-signed\"]", "[\"local-ca\", \"self-signed\"]");
    fleet.s3.advance(84 * DAY);
    node.agent().expect(0);
    assert_eq!(fleet.generations(), 1);
}

#[test]
fn only_what_may_have_mended_a_configuration_stays_where_its_server_does_not_take_it() {
    let sites = ["a", "b"].map(|site| format!("[[site]]\nname = \"{site}.example.test\"\nissuers = [\"self-signed\"]\n")).concat();
    let target =
        |kind: &str, test: &str, rest: &str| format!("[[target]]\nkind = \"{kind}\"\nssl_root = \"ssl\"\ntest = [\"{test}\"]\n{rest}\n");
    let agent = "[agent]\nsplay = \"0s\"\n";
    let machine = crate::support::machine::Machine::new(&format!("{sites}{}{agent}", target("nginx", "true", "reload = []")));
    machine.run(&["ensure"]).expect(0);
    machine.run(&["agent"]).expect(0);
    machine.run(&["ensure", "--force"]).expect(0);
    let link = |site: &str| machine.path(&format!("ssl/live/{site}.example.test"));
    // Nobody has seen postfix with the first generation of a.
    let other = target("postfix", "true", "reload = []\nsites = [\"a.example.test\"]");
    let script = machine.path("test");
    fs::write(&script, format!("#!/bin/sh\ncase $(readlink {}) in */1) exit 1;; esac\n", link("a").display())).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    let refusing = target("nginx", &script.display().to_string(), "reload = [\"false\"]");
    machine.write("certfleet.toml", format!("{sites}{refusing}{other}{agent}"));
    let ended = machine.run(&["agent"]).expect(4);
    assert!(ended.stderr.contains("nginx could not be reloaded"), "{}", ended.stderr);
    let links = ["a", "b"].map(|site| fs::read_link(link(site)).expect("a link"));
    assert_eq!(links, ["../archive/a.example.test/2", "../archive/b.example.test/1"].map(std::path::PathBuf::from), "{}", ended.stderr);
}

#[test]
fn a_server_that_is_broken_holds_up_only_the_sites_that_it_reads() {
    let sites = "[[site]]\nname = \"a.example.test\"\nissuers = [\"self-signed\"]\n[[site]]\nname = \"b.example.test\"\nissuers = [\"self-signed\"]\n";
    let target = |kind: &str, site: &str, test: &str| {
        format!("[[target]]\nkind = \"{kind}\"\nsites = [\"{site}.example.test\"]\nssl_root = \"ssl\"\ntest = [\"{test}\"]\nreload = []\n")
    };
    let with = |test: &str| format!("{sites}{}{}[agent]\nsplay = \"0s\"\n", target("nginx", "a", "true"), target("postfix", "b", test));
    let machine = crate::support::machine::Machine::new(&with("true"));
    machine.run(&["ensure"]).expect(0);
    machine.run(&["agent"]).expect(0);
    machine.run(&["ensure", "--force"]).expect(0);
    machine.write("certfleet.toml", with("false"));
    let ended = machine.run(&["agent"]).expect(4);
    assert!(ended.stderr.contains("b.example.test: the configuration of postfix is broken already"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("error: a.example.test"), "{}", ended.stderr);
    let link = |site: &str| fs::read_link(machine.path(&format!("ssl/live/{site}.example.test"))).expect("a link");
    assert_eq!((link("a"), link("b")), ("../archive/a.example.test/2".into(), "../archive/b.example.test/1".into()));
}
