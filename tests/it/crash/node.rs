//! A webserver whose agent is killed anywhere: what nginx serves and what lies there is whole, and the next run finishes the work.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::disk::{assert_disk, fingerprint, killed_at};
use super::{killed_at_request, walk};
use crate::agent::fleet::{Fleet, Node, SITE, until};
use crate::main_job::acme;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::s3_in_process::Fault;

/// A fleet with one webserver, whose nginx serves the newest generation.
struct Scene {
    fleet: Fleet,
    node: Node,
}

impl Scene {
    fn new() -> Self {
        let fleet = Fleet::new();
        let node = fleet.serving("ws-1");
        Self { fleet, node }
    }

    /// After a kill: what is installed, and what is served, is whole, and `old` or the newest.
    fn assert_unharmed(&self, old: &str, what: &str) {
        assert_disk(&self.node.machine, &self.node.live(), what);
        let newest = self.newest();
        let (installed, served) = (fingerprint(&self.node.live(), what), self.node.served());
        assert!([old, &newest].contains(&installed.as_str()), "{what}: {installed} is installed");
        assert!([old, &newest].contains(&served.as_str()), "{what}: {served} is served");
    }

    /// After the next run: the newest is installed, served and reported, and in the end a run finds nothing to do.
    fn assert_settled(&self, what: &str) {
        let ended = self.node.agent();
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
        let newest = self.newest();
        assert_eq!((self.node.installed(), self.node.served()), (newest.clone(), newest.clone()), "{what}");
        let site = self.fleet.report("ws-1").sites.remove(0);
        assert_eq!(site.installed.map(|installed| installed.fingerprint), Some(newest.clone()), "{what}: reported as installed");
        assert_eq!(site.servers[0].fingerprint, Some(newest), "{what}: reported as served");
        assert_eq!(site.problem, None, "{what}");
        assert_disk(&self.node.machine, &self.node.live(), what);
        let left: Vec<_> = self.node.kept().into_iter().filter(|name| name.parse::<u64>().is_err()).collect();
        assert!(left.is_empty(), "{what}: {left:?} is left");
        // After a renewal, the next run compares once what was published with what the datastore lists.
        self.fleet.s3.forget_requests();
        self.node.agent().expect(0);
        let compared = self.fleet.s3.requests();
        assert!(compared.len() <= 2 && compared.iter().all(|seen| seen.method == "GET"), "{what}: {compared:?}");
        self.fleet.s3.forget_requests();
        self.node.agent().expect(0);
        assert_eq!(self.fleet.s3.requests().len(), 1, "{what}: there was something left to do");
    }

    /// The leaf of the newest generation in the datastore.
    fn newest(&self) -> String {
        let keys = self.fleet.s3.objects().keys();
        let key = keys.iter().filter(|key| key.starts_with("fleet-a/bundles/")).max().expect("a generation");
        let record: serde_json::Value = serde_json::from_slice(&self.fleet.s3.objects().get(key).expect("an object")).expect("a record");
        let directory = tempfile::tempdir().expect("a directory");
        fs::write(directory.path().join("chain"), record["fullchain"].as_str().expect("a chain")).expect("a file");
        crate::agent::fleet::fingerprint_of(&directory.path().join("chain"))
    }

    /// Another machine makes a generation, this one is killed while it follows, and runs again.
    fn follows(&self, what: &str, killed: impl FnOnce(&Node) -> bool) -> bool {
        let old = self.node.served();
        let new = self.fleet.renew();
        let killed = killed(&self.node);
        self.assert_unharmed(&old, what);
        self.assert_settled(what);
        assert_eq!(self.node.served(), new, "{what}");
        killed
    }

    /// Its own site becomes due, and it is killed while it renews, and runs again: the CA has issued once.
    fn renews(&self, pebble: &Pebble, what: &str, name: &str, killed: impl FnOnce(&Self) -> bool) -> bool {
        let (old, generations, issued) = (self.node.served(), self.fleet.generations(), pebble.issued());
        let wanted = format!("identifiers = [\"{SITE}\", \"{name}.example.test\"]");
        self.node.machine.change("certfleet.toml", &self.node.setting("identifiers"), &wanted);
        let killed = killed(self);
        self.assert_unharmed(&old, what);
        self.assert_settled(what);
        assert_ne!(self.node.served(), old, "{what}");
        assert_eq!((self.fleet.generations() - generations, pebble.issued() - issued), (1, 1), "{what}: generations and issuances");
        killed
    }

    /// Has the CA asked for certificates, which is asked for the first at once.
    fn asks(self, pebble: &Pebble) -> Self {
        let machine = &self.node.machine;
        machine.write("pebble-tls.pem", pebble.root_pem());
        machine.write("pebble-root.pem", pebble.issuance_root_pem());
        let table = format!("[\"pebble\"]\nsolver = \"web\"\nidentifiers = [\"{SITE}\"]");
        let text = machine.read("certfleet.toml").replace("[\"self-signed\"]", &table);
        let issuer = acme(&pebble.directory_url(), pebble.http_port);
        machine.write("certfleet.toml", format!("contact = \"ops@example.test\"\n{text}{issuer}"));
        self.node.agent().expect(0);
        self
    }
}

#[test]
fn a_webserver_that_follows_is_killed_at_every_change_of_the_disk() {
    let mut scenes = [Scene::new(), Scene::new()];
    let steps = walk(&mut scenes, |scene, step| {
        scene.follows(&format!("step {step}"), |node| killed_at(&node.machine, &["agent"], step).is_some())
    });
    assert!(steps > 12, "following changes more than {steps} files");
}

#[test]
fn a_webserver_that_follows_is_killed_at_every_request() {
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        let steps = walk(&mut [Scene::new()], |scene, step| {
            let killed = |node: &Node| killed_at_request(&scene.fleet.s3, &node.machine, &["agent"], &fault, step);
            scene.follows(&format!("{fault:?} at request {step}"), killed)
        });
        assert!(steps >= 3, "a listing, the bundle and the report are more than {steps} requests");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webserver_that_renews_is_killed_at_every_change_of_the_disk() {
    let (one, other) = tokio::join!(Pebble::start(PebbleOptions::default()), Pebble::start(PebbleOptions::default()));
    let mut scenes = [one, other].map(|pebble| (Scene::new().asks(&pebble), pebble));
    let steps = walk(&mut scenes, |(scene, pebble), step| {
        let killed = |scene: &Scene| killed_at(&scene.node.machine, &["agent"], step).is_some();
        scene.renews(pebble, &format!("step {step}"), &format!("n{step}"), killed)
    });
    assert!(steps > 12, "renewing changes more than {steps} files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webserver_that_renews_is_killed_at_every_request() {
    let (one, other) = tokio::join!(Pebble::start(PebbleOptions::default()), Pebble::start(PebbleOptions::default()));
    let scenes = [(one, Fault::DropBefore), (other, Fault::DropAfter)].map(|(pebble, fault)| (Scene::new().asks(&pebble), pebble, fault));
    std::thread::scope(|scope| {
        for (scene, pebble, fault) in scenes {
            scope.spawn(move || {
                let steps = walk(&mut [(scene, pebble)], |(scene, pebble), step| {
                    let killed = |scene: &Scene| killed_at_request(&scene.fleet.s3, &scene.node.machine, &["agent"], &fault, step);
                    scene.renews(pebble, &format!("{fault:?} at request {step}"), &format!("n{step}"), killed)
                });
                assert!(steps >= 10, "renewing makes more than {steps} requests");
            });
        }
    });
}

/// A webserver's commands behind a script that kills whoever called it: at the call that a file names, before or after the real command.
fn wrap(node: &Node) {
    let machine = &node.machine;
    let script = machine.path("wrap");
    let text = format!(
        "#!/bin/sh\ncalls=$(($(cat {directory}/calls) + 1))\necho $calls >{directory}/calls\n\
         if [ $calls -eq $(cat {directory}/before) ]; then kill -9 $PPID; exit 1; fi\n\"$@\"\ncode=$?\n\
         if [ $calls -eq $(cat {directory}/after) ]; then kill -9 $PPID; fi\nexit $code\n",
        directory = machine.path("").display()
    );
    fs::write(&script, text).expect("a script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("a mode");
    for command in ["test", "reload"] {
        let line = node.setting(command);
        let wrapped = line.replacen('[', &format!("[{:?}, ", script.display().to_string()), 1);
        machine.change("certfleet.toml", &line, &wrapped);
    }
    kill_at(node, "before", usize::MAX);
    kill_at(node, "after", usize::MAX);
}

fn kill_at(node: &Node, when: &str, call: usize) {
    node.machine.write("calls", "0");
    // The shell's numbers are signed.
    node.machine.write(when, i32::try_from(call).unwrap_or(i32::MAX).to_string());
}

#[test]
fn a_webserver_that_follows_is_killed_at_every_command_of_its_server() {
    let scenes = [(Scene::new(), "before"), (Scene::new(), "after")];
    for (scene, _) in &scenes {
        wrap(&scene.node);
    }
    std::thread::scope(|scope| {
        for (scene, when) in scenes {
            scope.spawn(move || {
                let steps = walk(&mut [scene], |scene, call| {
                    scene.follows(&format!("{when} call {call}"), |node| {
                        kill_at(node, when, call);
                        let ended = node.agent();
                        kill_at(node, when, usize::MAX);
                        assert!(ended.code.is_none_or(|code| code == 0), "{ended:?}");
                        ended.code.is_none()
                    })
                });
                assert_eq!(steps, 3, "test, test, reload");
            });
        }
    });
}

#[test]
fn a_first_boot_killed_at_every_change_of_the_disk_goes_on() {
    let fleet = Fleet::new();
    let steps = walk(&mut [(), ()], |(), step| {
        let (node, what) = (fleet.node("ws-1"), format!("step {step}"));
        let killed = killed_at(&node.machine, &["bootstrap"], step).is_some();
        assert_disk(&node.machine, &node.live(), &what);
        assert_link(&node.live(), &what);
        node.machine.run(&["bootstrap"]).expect(0);
        assert_eq!(fingerprint(&node.live(), &what), fingerprint(&fleet.build.files(SITE), &what), "{what}");
        assert_eq!(node.kept(), ["1"], "{what}");
        killed
    });
    assert!(steps > 12, "a first boot changes more than {steps} files");
}

/// Nothing, or a link to what is there.
fn assert_link(live: &Path, what: &str) {
    assert!(!live.is_symlink() || live.join("privkey.pem").exists(), "{what}: a link to nothing");
}

/// Whoever adopts a directory of another tool is killed on the way: it stays readable, and is kept.
#[test]
fn an_adoption_killed_at_every_change_of_the_disk_goes_on() {
    let fleet = Fleet::new();
    let files = fleet.build.files(SITE);
    let steps = walk(&mut [(), ()], |(), step| {
        let (node, what) = (fleet.node("ws-1"), format!("step {step}"));
        fs::create_dir_all(node.live()).expect("a directory");
        for name in ["fullchain.pem", "privkey.pem", "cert.pem", "chain.pem"] {
            fs::copy(files.join(name), node.live().join(name)).expect("a copy");
        }
        fs::write(node.live().join("theirs.txt"), "of another tool").expect("a file");
        let killed = killed_at(&node.machine, &["agent"], step).is_some();
        assert!(node.live().join("privkey.pem").exists(), "{what}: nothing is in place");
        assert_disk(&node.machine, &node.live(), &what);
        node.agent().expect(0);
        assert_eq!(node.link(), Path::new("../archive/www.example.test/1"), "{what}");
        let kept = node.machine.path("ssl/archive").join(format!("{SITE}+adopted")).join("theirs.txt");
        until("what was adopted", || kept.exists());
        killed
    });
    assert!(steps > 12, "an adoption changes more than {steps} files");
}
