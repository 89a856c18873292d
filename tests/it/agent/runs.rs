//! How runs begin and end: first boots, two at once, one after the other, signals.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use rustix::process::{Pid, Signal, kill_process};

use super::fleet::{Fleet, SITE, fingerprint_of, until};
use crate::support::s3_in_process::Fault;

#[test]
fn a_new_machine_waits_for_the_datastore_and_installs_before_its_server_runs() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    // Its server is set up later: nothing listens, and there is no configuration to test yet.
    let target =
        "kind = \"nginx\"\nverify = \"127.0.0.1:1\"\ntest = [\"nginx\", \"-t\", \"-c\", \"/not/yet/there\"]\nreload = [\"false\"]\n";
    node.machine.change("certfleet.toml", "kind = \"files\"\n", target);
    let key = format!("fleet-a/bundles/{SITE}/0000000001");
    let object = fleet.s3.objects().get(&key).expect("an object");
    fleet.s3.objects().delete(&key);
    fleet.s3.forget_requests();
    let run = node.machine.start(&["bootstrap", "--wait", "60s"]);
    until("two looks", || fleet.s3.requests().iter().filter(|seen| seen.key.is_empty()).count() >= 2);
    fleet.s3.objects().put(&key, object);
    let ended = run.wait().expect(0);
    assert!(ended.stderr.contains("there is no certificate of www.example.test yet"), "{}", ended.stderr);
    assert!(ended.stderr.contains("nothing answers at 127.0.0.1:1"), "{}", ended.stderr);
    assert!(node.live().join("privkey.pem").exists());
    assert_eq!(fleet.generations(), 1);
}

#[test]
fn a_first_boot_never_issues_and_gives_up_in_the_end() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    fleet.s3.objects().delete(&format!("fleet-a/bundles/{SITE}/0000000001"));
    let ended = node.machine.run(&["bootstrap", "--wait", "1s"]).expect(1);
    assert!(ended.stderr.contains("there is no certificate for it in the datastore"), "{}", ended.stderr);
    assert!(ended.stderr.contains("hint: `certfleet ensure www.example.test` on the build machine makes one"), "{}", ended.stderr);
    assert_eq!(fleet.generations(), 0);
    let secret = node.machine.read("s3-secret");
    drop(fleet);
    node.machine.write("s3-secret", secret);
    node.machine.run(&["bootstrap", "--wait", "1s"]).expect(75);
}

#[test]
fn without_the_fleets_identity_nothing_is_touched() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    fs::remove_file(node.machine.path("runtimedata/identity.age")).expect("removed");
    for command in ["agent", "bootstrap"] {
        let ended = node.machine.run(&[command]).expect(2);
        assert!(ended.stderr.contains("the identity file") && ended.stderr.contains("is missing"), "{}", ended.stderr);
    }
    assert!(!node.machine.path("ssl").exists() && !node.machine.path("runtimedata/identity.age").exists());
}

#[test]
fn of_two_agents_on_one_machine_the_second_says_so_and_ends_well() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    let script = node.machine.path("slow");
    let (begun, go) = (node.machine.path("begun"), node.machine.path("go"));
    let text = format!("#!/bin/sh\n: > {}\nwhile [ ! -e {} ]; do sleep 0.05; done\n", begun.display(), go.display());
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    node.machine.change(
        "certfleet.toml",
        "kind = \"files\"\n",
        &format!("kind = \"nginx\"\ntest = []\nreload = [{:?}]\n", script.display().to_string()),
    );
    let first = node.machine.start(&["agent"]);
    until("the reload", || begun.exists());
    let second = node.agent().expect(0);
    assert!(second.stderr.contains("nothing done: process"), "{}", second.stderr);
    fs::write(&go, "").expect("a file");
    first.wait().expect(0);
    assert!(node.live().join("privkey.pem").exists());
}

#[test]
fn it_keeps_running_reads_its_configuration_again_on_sighup_and_ends_on_sigterm() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    let running = node.machine.start(&["agent", "--interval", "1h"]);
    let pid = Pid::from_raw(running.pid()).expect("a pid");
    until("the first run", || fleet.s3.objects().keys().iter().any(|key| key.ends_with("/nodes/ws-1")));

    node.machine.change("certfleet.toml", "ssl_root = \"ssl\"", "ssl_root = \"elsewhere\"");
    kill_process(pid, Signal::HUP).expect("a living process");
    until("the second run", || node.machine.path("elsewhere/live").join(SITE).join("bundle.json").exists());

    // A mistake is told, and the configuration before it stays.
    let good = node.machine.read("certfleet.toml");
    node.machine.write("certfleet.toml", "nonsense");
    let new = fleet.renew();
    kill_process(pid, Signal::HUP).expect("a living process");
    let live = node.machine.path("elsewhere/live").join(SITE).join("fullchain.pem");
    until("the third run", || fingerprint_of(&live) == new);
    node.machine.write("certfleet.toml", good);

    kill_process(pid, Signal::TERM).expect("a living process");
    let told = running.wait().expect(0).stderr;
    assert!(told.contains("error: ") && told.contains("the configuration before it stays in use"), "{told}");
}

#[test]
fn a_run_that_fails_does_not_end_those_that_come_after_it() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    fleet.s3.forget_requests();
    fleet.s3.fault_always(Fault::Refuse(403, "AccessDenied"), |_| true);
    let running = node.machine.start(&["agent", "--interval", "1h"]);
    until("the first run", || !fleet.s3.requests().is_empty());
    fleet.s3.clear_faults();
    let pid = Pid::from_raw(running.pid()).expect("a pid");
    kill_process(pid, Signal::HUP).expect("a living process");
    until("the second run", || node.live().join("privkey.pem").exists());
    kill_process(pid, Signal::TERM).expect("a living process");
    assert!(running.wait().expect(0).stderr.contains("error: "));
}

#[test]
fn a_renewer_follows_where_no_issuer_of_the_site_can_be_asked_on_it() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    node.agent().expect(0);
    // The local CA's key stays on the build machine.
    node.machine.change("certfleet.toml", "[\"self-signed\"]", "[\"local-ca\"]");
    assert_eq!(node.machine.run(&["agent", "--dry-run", "--json"]).expect(0).site()["obtain"], "await");
    node.agent().expect(0);
    assert_eq!(fleet.generations(), 1);
}

#[test]
fn the_start_is_put_off_by_less_than_the_splay() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    let run = node.machine.start(&["agent", "--splay", "24h"]);
    fleet.s3.forget_requests();
    let pid = Pid::from_raw(run.pid()).expect("a pid");
    // It has said so, and waits: nothing has been asked.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            until("its waiting", || fs::read_to_string(format!("/proc/{}/wchan", run.pid())).is_ok_and(|place| place.contains("poll")));
            kill_process(pid, Signal::TERM).expect("a living process");
        });
    });
    let ended = run.wait().expect(0);
    assert!(ended.stderr.contains("so that the fleet does not start at once"), "{}", ended.stderr);
    assert!(fleet.s3.requests().is_empty());
}

#[test]
fn reports_can_be_refused_without_harm_to_what_is_served() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    fleet.s3.fault_always(Fault::Refuse(403, "AccessDenied"), |seen| seen.key.contains("/nodes/"));
    let ended = node.agent().expect(4);
    assert!(ended.stderr.contains("the node's report could not be written"), "{}", ended.stderr);
    assert!(node.live().join("privkey.pem").exists());
    fleet.s3.clear_faults();
    node.agent().expect(0);
    assert_eq!(fleet.report("ws-1").sites.len(), 1);
}

#[test]
fn what_was_pushed_is_installed_where_the_datastore_cannot_be_reached() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    let object = fleet.s3.objects().get(&format!("fleet-a/bundles/{SITE}/0000000001")).expect("an object");
    let Fleet { s3, build: _build } = fleet;
    drop(s3);
    node.machine.run(&["bootstrap", "--wait", "1s"]).expect(75);
    assert!(!node.live().exists());
    node.machine.create_dir("runtimedata/local/default/.certfleet/delivered");
    node.machine.write(&format!("runtimedata/local/default/.certfleet/delivered/{SITE}.json"), object);
    let ended = node.machine.run(&["bootstrap", "--wait", "1s", "--json"]).expect(0);
    assert_eq!(ended.json()["outcome"], "done");
    let ended = ended.says("installing what was pushed here").says("note: the node's report could not be written");
    assert!(!ended.stderr.contains("error: "), "{}", ended.stderr);
    assert!(node.live().join("privkey.pem").exists());
}

#[test]
fn what_was_pushed_is_installed_where_the_datastore_lacks_the_site_and_the_agent_puts_it_back() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    let key = format!("fleet-a/bundles/{SITE}/0000000001");
    let object = fleet.s3.objects().get(&key).expect("an object");
    fleet.s3.objects().delete(&key);
    node.machine.create_dir("runtimedata/local/default/.certfleet/delivered");
    node.machine.write(&format!("runtimedata/local/default/.certfleet/delivered/{SITE}.json"), &object);
    // Nothing is waited for.
    let ended = node.machine.run(&["bootstrap", "--wait", "1h"]).expect(0);
    ended.says("the datastore has no certificate of www.example.test: installing generation 1, which was pushed here");
    assert!(node.live().join("privkey.pem").exists());
    assert_eq!(fleet.generations(), 0, "a first boot writes no certificates");
    node.agent().expect(0);
    assert_eq!(fleet.s3.objects().get(&key).as_deref(), Some(&object[..]));
}

#[test]
fn a_new_machine_installs_an_earlier_certificate_where_the_highest_is_damaged() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    fleet.renew();
    fleet.s3.objects().corrupt(&format!("fleet-a/bundles/{SITE}/0000000002"));
    let ended = node.machine.run(&["bootstrap", "--wait", "1s"]).expect(4);
    assert!(ended.stderr.contains("0000000002 cannot be used"), "{}", ended.stderr);
    assert_eq!(node.link(), std::path::Path::new("../archive/www.example.test/1"));
}
