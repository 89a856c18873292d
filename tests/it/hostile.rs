//! A fleet whose way to the store goes through a proxy that means harm.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use certfleet::domain::bundle::Bundle;
use certfleet::domain::certificate::Certificate;
use certfleet::domain::object_key::ObjectKey;
use certfleet::domain::pem;
use certfleet::domain::site::SiteName;
use http::Method;

use crate::agent::fleet::{DAY, Fleet, until};
use crate::support::bucket::Bucket;
use crate::support::hostile_proxy::{Fault, HostileProxy, seed};
use crate::support::machine::{Ended, Machine, datastore, give_keys};
use crate::support::moto::Moto;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::radosgw;
use crate::support::s3_in_process::{self, Seen};

/// More than a run survives without luck, and few enough that a round meets all of them.
const FAULTS: usize = 14;

/// More than it takes to meet them all.
const MOST_RUNS: usize = 2 * FAULTS;

/// A build machine and two webservers of one fleet; generation 1 is a stopgap.
struct Scene {
    store: Bucket,
    prefix: String,
    proxy: HostileProxy,
    site: SiteName,
    build: Machine,
    nodes: Vec<Machine>,
}

impl Scene {
    fn new(store: &Bucket, seed: u64) -> Self {
        let (prefix, proxy) = (format!("fleet-{seed}"), HostileProxy::start(store, seed));
        // The DNS server of the CA is shared: every scene answers for a name of its own.
        let site: SiteName = format!("s{seed}.example.test").parse().expect("a name");
        let table = format!("contact = \"ops@example.test\"\n[[site]]\nname = \"{site}\"\nissuers = [\"self-signed\"]\n");
        let with = |more: &str| {
            let machine = Machine::new(&format!("{table}{more}{}", datastore(&proxy.bucket(store), &prefix)));
            give_keys(&machine, store);
            machine
        };
        let build = with("");
        build.run(&["ensure"]).expect(0);
        let node = |name: &str| {
            let agent = format!("[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n[agent]\nnode = \"{name}\"\nsplay = \"0s\"\n");
            let machine = with(&agent);
            build.share_identity(&machine);
            machine.run(&["bootstrap"]).expect(0);
            machine
        };
        let nodes = vec![node("ws-1"), node("ws-2")];
        Self { store: store.clone(), prefix, proxy, site, build, nodes }
    }

    /// Has the CA preferred from now on: generation 1 is due.
    fn prefer(&self, pebble: &Pebble) {
        for machine in self.machines() {
            ask(machine, pebble);
        }
    }

    fn machines(&self) -> impl Iterator<Item = &Machine> {
        self.nodes.iter().chain([&self.build])
    }

    /// Runs everybody at once. The build machine is the last.
    fn all_at_once(&self) -> Vec<Ended> {
        let nodes = self.nodes.iter().map(|node| node.start(&["agent", "--json"]));
        let running: Vec<_> = nodes.chain([self.build.start(&["ensure", "--json"])]).collect();
        running.into_iter().map(crate::support::machine::Running::wait).collect()
    }

    /// The same, and whoever fails runs again, as its timer would have it: a lease is given back by its holder, or after two minutes.
    fn all_until_done(&self) -> Vec<Ended> {
        let again = |machine: &Machine, arguments: &[&str]| {
            let runs = std::iter::repeat_with(|| machine.run(arguments)).take(MOST_RUNS);
            let mut last = None;
            for ended in runs {
                let done = ended.code == Some(0);
                last = Some(ended);
                if done {
                    break;
                }
            }
            last.expect("a run")
        };
        std::thread::scope(|scope| {
            let nodes = self.nodes.iter().map(|node| scope.spawn(move || again(node, &["agent", "--json"]))).collect::<Vec<_>>();
            let build = scope.spawn(|| again(&self.build, &["ensure", "--json"]));
            nodes.into_iter().chain([build]).map(|run| run.join().expect("a run")).collect()
        })
    }

    /// The generations that the store holds, asked without the proxy.
    fn generations(&self) -> BTreeMap<u64, Vec<u8>> {
        let prefix = ObjectKey::bundles_prefix(&self.site);
        let objects = self.store.objects(&self.prefix);
        objects.into_iter().filter_map(|(key, bytes)| Some((key.strip_prefix(&prefix)?.parse().ok()?, bytes))).collect()
    }

    /// Where a webserver finds the files, and what generation they are.
    fn live(&self, node: &Machine) -> (std::path::PathBuf, u64) {
        let live = node.path("ssl/live").join(self.site.file_name());
        let link = std::fs::read_link(&live).expect("a link");
        let number = link.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok()).expect("a number");
        (live, number)
    }

    /// What holds at any time: what lies on every machine is whole and one of the fleet's; and whoever said that all is well was right.
    fn assert_honest(&self, ended: &[Ended]) {
        let generations = self.generations();
        let told = |what: &str| format!("{what}\n{:?}\n{ended:#?}", self.proxy);
        assert!(generations.keys().copied().eq(1..=generations.len() as u64), "{}", told("a generation was skipped"));
        for node in &self.nodes {
            let (live, generation) = self.live(node);
            whole(&live, &told("a mixture"));
            let object = std::fs::read(live.join("bundle.json")).expect("a record");
            assert_eq!(generations.get(&generation), Some(&object), "{}", told("what is installed is not what the store has"));
        }
        let build = ended.last().expect("the build machine");
        assert!(ended.iter().all(|ended| matches!(ended.code, Some(0 | 1 | 4 | 75))), "{}", told("an exit code"));
        if build.code == Some(0) {
            let in_place = build.site()["in_place"].clone();
            let generation = in_place["generation"].as_u64().expect("a generation");
            let fingerprint = whole(&self.build.files(&self.site.file_name()), &told("a mixture in runtimedata"));
            assert_eq!(in_place["fingerprint_sha256"], fingerprint, "{}", told("another one in runtimedata"));
            let object = generations.get(&generation).unwrap_or_else(|| panic!("{}", told("a generation that is not there")));
            let record: serde_json::Value = serde_json::from_slice(object).expect("a record");
            assert_eq!(fingerprint_of(record["fullchain"].as_str().expect("a chain")), fingerprint, "{}", told("another one published"));
        }
        // What the store has once sent under a number, it sends for ever.
        let mut contents = BTreeMap::new();
        for (path, body) in self.proxy.objects().into_iter().filter(|(path, _)| path.contains("/bundles/")) {
            let first = contents.entry(path.clone()).or_insert_with(|| body.clone());
            assert!(*first == body, "{}", told(&format!("{path} has two contents")));
        }
    }
}

/// Has the CA asked, by a hook that puts the answer into the DNS server of the CA and leaves it there.
fn ask(machine: &Machine, pebble: &Pebble) {
    let hook = format!(
        "#!/bin/sh\nset -eu\n[ $1 = present ] || exit 0\n\
         curl -sS --fail -d \"{{\\\"host\\\": \\\"_acme-challenge.$CERTBOT_DOMAIN.\\\", \\\"value\\\": \\\"$CERTBOT_VALIDATION\\\"}}\" {}/set-txt\n",
        pebble.dns_api
    );
    machine.write("hook", hook);
    std::fs::set_permissions(machine.path("hook"), std::fs::Permissions::from_mode(0o700)).expect("executable");
    machine.write("pebble-tls.pem", pebble.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    let issuer = format!(
        "[issuer.pebble]\nkind = \"acme\"\ndirectory = \"{}\"\ntrust = \"pebble-tls.pem\"\nchain_trust = \"pebble-root.pem\"\n\
         [solver.dns]\nkind = \"dns-01\"\npresent = [\"./hook\", \"present\"]\ncleanup = [\"./hook\", \"cleanup\"]\n",
        pebble.directory_url()
    );
    let text = machine.read("certfleet.toml").replace("[\"self-signed\"]", "[\"pebble\"]\nsolver = \"dns\"");
    machine.write("certfleet.toml", text + &issuer);
}

/// The fingerprint of the leaf of files that must belong together.
fn whole(directory: &std::path::Path, otherwise: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{name}: {error}: {otherwise}"));
    let (chain, key) = (read("fullchain.pem"), read("privkey.pem"));
    Bundle::from_pem(&chain, &key).unwrap_or_else(|error| panic!("{error}: {otherwise}")).leaf().fingerprint.clone()
}

fn fingerprint_of(chain: &str) -> String {
    Certificate::from_der(&pem::blocks(chain).expect("PEM")[0].der).expect("a certificate").fingerprint
}

/// One fleet, one seed: trouble, and then none.
fn survives(store: &Bucket, pebble: &Pebble, seed: u64) {
    let scene = Scene::new(store, seed);
    scene.prefer(pebble);
    let issued = pebble.issued();
    scene.proxy.break_some(FAULTS);
    let ended = scene.all_until_done();
    scene.assert_honest(&ended);
    scene.proxy.behave();
    let ended = scene.all_at_once();
    scene.assert_honest(&ended);
    let told = || format!("{:?}\n{ended:#?}", scene.proxy);
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "after the last fault: {}", told());
    let generations = scene.generations();
    let newest = *generations.keys().last().expect("a generation");
    assert!(scene.nodes.iter().all(|node| scene.live(node).1 == newest), "not everybody has {newest}: {}", told());
    let lies = scene.proxy.met().iter().filter(|met| met.fault.is_a_lie()).count();
    let issued = pebble.issued() - issued;
    println!("seed {seed}: {} faults ({lies} lies), {issued} issued, generation {newest}", scene.proxy.met().len());
    assert!((1..=1 + lies).contains(&issued), "{issued} were issued with {lies} lies: {}", told());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_behind_a_hostile_proxy_before_radosgw_comes_through() {
    let (radosgw, pebble) = (radosgw::shared(), Pebble::start(PebbleOptions::default()).await);
    let seed = seed("before radosgw");
    for round in 0..2 {
        survives(&radosgw.bucket, &pebble, seed + round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_behind_a_hostile_proxy_before_moto_comes_through() {
    let (moto, pebble) = (Moto::start().await, Pebble::start(PebbleOptions::default()).await);
    survives(&moto.bucket, &pebble, seed("before moto"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_gets_through_is_never_called_done() {
    let radosgw = radosgw::shared();
    let scene = Scene::new(&radosgw.bucket, seed("nothing gets through"));
    let before = (scene.generations(), scene.nodes.iter().map(|node| scene.live(node)).collect::<Vec<_>>());
    for fault in [
        Fault::ResetBefore,
        Fault::ResetInRequest,
        Fault::Swallowed,
        Fault::ResetInReply,
        Fault::Truncated,
        Fault::Cut,
        Fault::InternalError,
        Fault::SlowDown,
        Fault::DoneThenInternalError,
        Fault::Garbage,
        Fault::DoneThenGarbage,
    ] {
        scene.proxy.break_all(fault);
        let ended = scene.all_at_once();
        assert!(ended.iter().all(|ended| matches!(ended.code, Some(1 | 75))), "{fault:?}: {ended:#?}");
        assert!(ended.iter().all(|ended| ended.stderr.contains("hint: ")), "{fault:?}: {ended:#?}");
        assert_eq!((scene.generations(), scene.nodes.iter().map(|node| scene.live(node)).collect()), before, "{fault:?}");
    }
    scene.proxy.behave();
    assert!(scene.all_at_once().iter().all(|ended| ended.code == Some(0)));
}

#[test]
fn a_page_in_the_place_of_the_awaited_generation_is_no_generation() {
    let fleet = Fleet::new();
    let (winner, loser) = (fleet.node("ws-1"), fleet.node("ws-2"));
    for node in [&winner, &loser] {
        node.agent().expect(0);
    }
    fleet.s3.advance(84 * DAY);
    let publishing = |seen: &Seen| seen.method == Method::PUT && seen.key.contains("/bundles/");
    fleet.s3.fault(s3_in_process::Fault::Delay(Duration::from_secs(4)), publishing);
    let run = winner.machine.start(&["agent"]);
    until("the publication", || fleet.s3.requests().iter().any(publishing));
    fleet.s3.fault(s3_in_process::Fault::Pretend, |seen| seen.method == Method::GET && seen.key.ends_with("/0000000002"));
    loser.agent().expect(0);
    run.wait().expect(0);
    assert_eq!((fleet.generations(), loser.installed()), (2, winner.installed()));
}
