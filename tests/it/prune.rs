//! `certfleet prune`: what nobody needs is deleted, and nothing else. The store's clock decides what is old.

use std::collections::BTreeSet;
use std::time::Duration;

use certfleet::domain::node_report::{Installed, InstalledSite, NodeReport};
use certfleet::domain::object_key::Generation;
use certfleet::domain::record;
use chrono::{DateTime, Utc};
use http::Method;
use serde_json::json;

use crate::support::fleet_files::SITE;
use crate::support::machine::{Machine, datastore, give_keys};
use crate::support::s3_in_process::{Fault, InProcessS3};

const DAY: Duration = Duration::from_secs(86_400);

/// A fleet with five generations of one site.
struct Scene {
    s3: InProcessS3,
    machine: Machine,
    /// How far the store's clock has been put forward.
    ahead: Duration,
}

impl Scene {
    fn new() -> Self {
        let s3 = InProcessS3::start();
        let site = format!("[[site]]\nname = \"{SITE}\"\nissuers = [\"self-signed\"]\n");
        let machine = Machine::new(&format!("{}{site}", datastore(&s3.bucket(), "fleet")));
        give_keys(&machine, &s3.bucket());
        machine.run(&["ensure"]).expect(0);
        for _ in 2..=5 {
            machine.run(&["ensure", "--force"]).expect(0);
        }
        Self { s3, machine, ahead: Duration::ZERO }
    }

    fn advance(&mut self, by: Duration) {
        self.s3.advance(by);
        self.ahead += by;
    }

    /// A node says, now, that it has this generation.
    fn report(&self, node: &str, generation: u64) {
        let now = Utc::now() + self.ahead;
        let installed = Installed { generation: Generation(generation), fingerprint: "f".to_owned(), not_after: DateTime::UNIX_EPOCH };
        let site = InstalledSite {
            site: SITE.to_owned(),
            ssl_root: "/etc/ssl/fleet".to_owned(),
            installed: Some(installed),
            servers: Vec::new(),
            problem: None,
        };
        let certfleet = "0.2.0".to_owned();
        let report = NodeReport { version: 1, node: node.to_owned(), certfleet, last_run: now, clock_offset_secs: 0, sites: vec![site] };
        self.s3.objects().put(&format!("fleet/nodes/{node}"), record::write(&report));
    }

    fn keys(&self) -> BTreeSet<String> {
        self.s3.objects().keys().into_iter().collect()
    }

    /// The generations that are there.
    fn generations(&self) -> Vec<u64> {
        let prefix = format!("fleet/bundles/{SITE}/");
        self.keys().iter().filter_map(|key| key.strip_prefix(&prefix)?.parse().ok()).collect()
    }
}

#[test]
fn what_nobody_needs_goes_and_nothing_else() {
    let mut scene = Scene::new();
    scene.report("ws-2", 1);
    let strangers = ["elsewhere/bundles/x", "fleet/notes", "fleet/probes/notes", "fleet/bundles/www.example.test/readme"];
    for key in strangers {
        scene.s3.objects().put(key, "a stranger's");
    }
    let of_the_next = format!("fleet/leases/{SITE}/0000000006-0001");
    scene.s3.objects().put(&of_the_next, "{}");
    scene.advance(40 * DAY);
    scene.report("ws-1", 2);
    let before = scene.keys();

    let planned = scene.machine.run(&["prune", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((scene.keys(), &planned["dry_run"]), (before.clone(), &json!(true)), "only planned");
    scene.s3.forget_requests();
    let done = scene.machine.run(&["prune", "--json"]).expect(0).json();
    assert_eq!((&done["objects"], &done["dry_run"]), (&planned["objects"], &json!(false)), "done as planned");
    let deletes = done["objects"].as_array().expect("a list").len();
    assert_eq!(scene.s3.requests().len(), deletes + 4, "the listing, the manifest, two nodes, and the deletes");

    assert_eq!(scene.generations(), [1, 2, 3, 4, 5], "the nodes have the first two, whatever the age of their reports");
    let after = scene.keys();
    let gone = |part: &str| before.difference(&after).filter(|key| key.contains(part)).count();
    assert_eq!((gone("/leases/"), gone("/nodes/ws-2"), gone("/nodes/ws-1")), (5, 1, 0));
    assert!(!after.iter().any(|key| key.starts_with("fleet/probes/") && !key.ends_with("notes")), "{after:?}");
    assert!(strangers.iter().all(|key| after.contains(*key)) && after.contains(&of_the_next), "{after:?}");

    // The node that vanished needs nothing any more.
    let told = scene.machine.run(&["prune"]).expect(0);
    assert_eq!(told.stdout, format!("deleted bundles/{SITE}/0000000001: old generation\n"));
    assert_eq!(scene.machine.run(&["prune"]).expect(0).stdout, "nothing to delete\n");
    assert_eq!(scene.machine.run(&["prune", "--quiet"]).expect(0).stdout, "");
    scene.report("ws-1", 5);
    scene.machine.run(&["prune", "--keep", "0"]).expect(0);
    assert_eq!(scene.generations(), [5], "the highest never goes");
    assert_eq!(scene.machine.run(&["ensure", "--json"]).expect(0).site()["in_place"]["generation"], 5);
}

#[test]
fn what_was_published_today_stays() {
    let mut scene = Scene::new();
    scene.advance(Duration::from_secs(85_800));
    scene.machine.run(&["prune", "--keep", "1"]).expect(0);
    assert_eq!(scene.generations(), [1, 2, 3, 4, 5]);
    scene.advance(Duration::from_secs(1_200));
    scene.machine.run(&["prune", "--keep", "1"]).expect(0);
    assert_eq!(scene.generations(), [5]);
}

#[test]
fn a_node_whose_needs_are_unknown_keeps_every_bundle() {
    let mut scene = Scene::new();
    scene.advance(2 * DAY);
    for unreadable in ["{", "{\"version\": 2}"] {
        scene.s3.objects().put("fleet/nodes/ws-1", unreadable);
        let ended = scene.machine.run(&["prune", "--json"]).expect(4).says("error: no bundle was deleted").says("on ws-1: certfleet agent");
        assert_eq!(ended.json()["unknown"][0]["node"], "ws-1");
        assert_eq!(scene.generations(), [1, 2, 3, 4, 5]);
    }
    assert!(!scene.keys().iter().any(|key| key.contains("/leases/")), "leases are no node's need");
}

#[test]
fn a_delete_that_fails_is_told_and_holds_up_no_other() {
    let mut scene = Scene::new();
    scene.advance(2 * DAY);
    scene.s3.fault_always(Fault::Refuse(403, "AccessDenied"), |seen| seen.method == Method::DELETE && seen.key.ends_with("/0000000001"));
    scene.machine.run(&["prune"]).expect(1).says("error: ").says("0000000001").says("hint: ");
    assert_eq!(scene.generations(), [1, 3, 4, 5]);
}

#[test]
fn without_a_manifest_nothing_is_deleted() {
    let mut scene = Scene::new();
    scene.advance(2 * DAY);
    let manifest = scene.s3.objects().get("fleet/certfleet.json").expect("the manifest");
    scene.s3.objects().delete("fleet/certfleet.json");
    let before = scene.keys();
    for arguments in [&["prune"][..], &["prune", "--dry-run"]] {
        scene.machine.run(arguments).expect(2).says("holds bundles but no manifest certfleet.json").says("hint: ");
        assert_eq!(scene.keys(), before);
    }
    scene.s3.objects().put("fleet/certfleet.json", manifest);
    scene.machine.run(&["prune"]).expect(0);
    assert_eq!(scene.generations(), [3, 4, 5]);
}

#[test]
fn it_works_without_an_identity_but_not_with_another_fleets() {
    let mut scene = Scene::new();
    scene.advance(2 * DAY);
    let identity = scene.machine.path("runtimedata/identity.age");
    let other = Machine::new("");
    other.run(&["init"]).expect(0);
    std::fs::copy(other.path("runtimedata/identity.age"), &identity).expect("a copy");
    scene.machine.run(&["prune"]).expect(2);
    assert_eq!(scene.generations(), [1, 2, 3, 4, 5]);
    std::fs::remove_file(&identity).expect("a file");
    scene.machine.run(&["prune"]).expect(0);
    assert_eq!(scene.generations(), [3, 4, 5]);
}
