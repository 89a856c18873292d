//! A node that is killed, or frozen for longer than its lease lives, while it makes a generation.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::mpsc;
use std::time::Duration;

use certfleet::domain::lease::TIME_TO_LIVE;
use http::Method;
use rustix::process::{Pid, Signal, kill_process};

use super::fleet::{Fleet, Node, SITE, until};
use crate::support::machine::{Running, strike};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::s3_in_process::Fault;

/// Two nodes with generation 1, a stopgap: by their configuration the CA is to make generation 2.
struct Scene {
    fleet: Fleet,
    pebble: Pebble,
    first: Node,
    second: Node,
}

impl Scene {
    async fn new() -> Self {
        let (fleet, pebble) = (Fleet::new(), Pebble::start(PebbleOptions::default()).await);
        let [first, second] = ["ws-1", "ws-2"].map(|name| fleet.node(name));
        for node in [&first, &second] {
            node.machine.run(&["bootstrap"]).expect(0);
            ask(node, &pebble);
        }
        // Only the first one's hook waits.
        second.machine.write("go", "");
        Self { fleet, pebble, first, second }
    }

    /// The first node, which holds the lease and waits for its hook.
    fn hold(&self) -> Running {
        let run = self.first.machine.start(&["agent", "--json"]);
        until("the hook", || self.first.machine.path("begun").exists());
        assert!(self.lease(1).contains("\"held\""), "{}", self.lease(1));
        run
    }

    fn lease(&self, attempt: u32) -> String {
        let key = format!("fleet-a/leases/{SITE}/0000000002-{attempt:04}");
        self.fleet.s3.objects().get(&key).map(|object| String::from_utf8_lossy(&object).into_owned()).unwrap_or_default()
    }

    fn second_generation(&self) -> Option<bytes::Bytes> {
        self.fleet.s3.objects().get(&format!("fleet-a/bundles/{SITE}/0000000002"))
    }

    /// One more run on each: both have the generation that there is, and nobody has made another.
    fn assert_settled(&self, published: &bytes::Bytes) {
        let nodes = [&self.first, &self.second];
        for node in nodes {
            node.agent().expect(0);
        }
        assert_eq!(self.second_generation().as_ref(), Some(published), "a generation has one content for ever");
        assert_eq!(self.fleet.generations(), 2);
        assert_eq!(self.first.installed(), self.second.installed());
        assert!(nodes.iter().all(|node| node.link().ends_with("2")));
        // The successor has resumed the order of the one before it.
        assert_eq!(self.pebble.issued(), 1);
    }
}

/// Has the CA asked for the site's certificates, with a hook that waits for the file `go`.
fn ask(node: &Node, pebble: &Pebble) {
    let machine = &node.machine;
    let file = |name: &str| machine.path(name).display().to_string();
    let hook = format!(
        "#!/bin/sh\nset -eu\nname=_acme-challenge.$CERTBOT_DOMAIN.\ncase $1 in\n\
         present) : >{begun}\nwhile [ -e {begun} ] && [ ! -e {go} ]; do sleep 0.05; done\n\
         curl -sS --fail -d \"{{\\\"host\\\": \\\"$name\\\", \\\"value\\\": \\\"$CERTBOT_VALIDATION\\\"}}\" {api}/set-txt ;;\n\
         cleanup) curl -sS --fail -d \"{{\\\"host\\\": \\\"$name\\\"}}\" {api}/clear-txt ;;\nesac\n",
        begun = file("begun"),
        go = file("go"),
        api = pebble.dns_api
    );
    machine.write("hook", hook);
    fs::set_permissions(machine.path("hook"), fs::Permissions::from_mode(0o700)).expect("executable");
    machine.write("pebble-tls.pem", pebble.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    let issuer = format!(
        "[issuer.pebble]\nkind = \"acme\"\ndirectory = \"{}\"\ntrust = \"pebble-tls.pem\"\nchain_trust = \"pebble-root.pem\"\n\
         [solver.dns]\nkind = \"dns-01\"\npresent = [\"./hook\", \"present\"]\ncleanup = [\"./hook\", \"cleanup\"]\n",
        pebble.directory_url()
    );
    let text = machine.read("certfleet.toml").replace("[\"self-signed\"]", "[\"pebble\"]\nsolver = \"dns\"");
    machine.write("certfleet.toml", format!("contact = \"ops@example.test\"\n{text}{issuer}"));
}

fn signal(run: &Running, signal: Signal) {
    kill_process(Pid::from_raw(run.pid()).expect("a process id"), signal).expect("a living process");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_frozen_for_longer_than_its_lease_finds_the_work_done_and_follows() {
    let scene = Scene::new().await;
    let frozen = scene.hold();
    signal(&frozen, Signal::STOP);
    scene.fleet.s3.advance(TIME_TO_LIVE + Duration::from_secs(1));
    let made = scene.second.machine.run(&["agent", "--json"]).expect(0);
    assert_eq!(made.site()["source"], "issued", "{made:?}");
    assert!(scene.lease(2).contains("\"done\""), "{}", scene.lease(2));
    let published = scene.second_generation().expect("generation 2");

    scene.first.machine.write("go", "");
    signal(&frozen, Signal::CONT);
    let woken = frozen.wait().expect(0);
    assert_eq!(woken.site()["places"][0]["generation"], 2, "{woken:?}");
    assert_ne!(woken.site()["source"], "issued", "{woken:?}");
    scene.assert_settled(&published);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_frozen_while_it_publishes_finds_its_generation_taken_and_follows() {
    let scene = Scene::new().await;
    let frozen = scene.hold();
    let (pid, (sender, stopped)) = (Pid::from_raw(frozen.pid()).expect("a process id"), mpsc::channel());
    scene.fleet.s3.fault(Fault::DropBefore, move |seen| {
        let publishes = seen.method == Method::PUT && seen.key.contains("/bundles/");
        if publishes {
            kill_process(pid, Signal::STOP).expect("a living process");
            sender.send(()).expect("a test that waits");
        }
        publishes
    });
    scene.first.machine.write("go", "");
    stopped.recv_timeout(Duration::from_secs(60)).expect("a publication");
    scene.fleet.s3.advance(TIME_TO_LIVE + Duration::from_secs(1));
    scene.second.agent().expect(0);
    let published = scene.second_generation().expect("generation 2");
    kill_process(pid, Signal::CONT).expect("a living process");
    frozen.wait().expect(0);
    scene.assert_settled(&published);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_killed_while_it_holds_the_lease_goes_on_with_its_order_at_once() {
    let scene = Scene::new().await;
    let killed = scene.hold();
    strike(killed.pid());
    assert_eq!(killed.wait().code, None);
    scene.first.machine.write("go", "");
    // No time passes on the store's clock: a machine knows of its own earlier run that it is over.
    let made = scene.first.machine.run(&["agent", "--json"]).expect(0);
    assert_eq!(made.site()["source"], "issued", "{made:?}");
    assert!(!made.stderr.contains("waiting"), "{}", made.stderr);
    scene.assert_settled(&scene.second_generation().expect("generation 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lease_of_a_node_that_was_killed_passes_to_another_once_it_is_old() {
    let scene = Scene::new().await;
    let killed = scene.hold();
    strike(killed.pid());
    assert_eq!(killed.wait().code, None);
    scene.fleet.s3.advance(TIME_TO_LIVE + Duration::from_secs(1));
    // Nobody waits for the dead.
    scene.second.machine.change("certfleet.toml", "splay = \"0s\"\n", "splay = \"0s\"\nrole = \"follower\"\n");
    let followed = scene.second.agent().expect(0);
    assert!(!followed.stderr.contains("waiting"), "{}", followed.stderr);
    scene.fleet.s3.advance(Duration::from_secs(2));
    scene.second.machine.change("certfleet.toml", "role = \"follower\"\n", "");
    let made = scene.second.machine.run(&["agent", "--json"]).expect(0);
    assert_eq!(made.site()["source"], "issued", "{made:?}");
    scene.first.machine.write("go", "");
    scene.assert_settled(&scene.second_generation().expect("generation 2"));
}
