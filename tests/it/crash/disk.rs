//! `ensure`, `rollback`, `import` and deliveries, killed at every change that they make to the disk; and `prune`, at every request.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use certfleet::domain::bundle::Bundle;
use certfleet::domain::delivery::Delivery;
use certfleet::domain::record::{self, BundleRecord, Manifest};
use certfleet::fleet::identity;
use zeroize::Zeroizing;

use super::{SITE, killed_at_request, walk};
use crate::main_job::{acme, site};
use crate::support::bucket::Bucket;
use crate::support::fleet_files as files;
use crate::support::machine::{Ended, Machine, Running, datastore, give_keys};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::radosgw;
use crate::support::s3_in_process::{Fault, InProcessS3};

/// Runs it and kills it at its `step`th change of a file; `None` where it has made fewer.
pub fn killed_at(machine: &Machine, arguments: &[&str], step: usize) -> Option<Ended> {
    let mut command = machine.command(arguments);
    command.env(certfleet::system::steps::CRASH_AT, step.to_string());
    let ended = Running::start(command).wait();
    if ended.code.is_none() {
        return Some(ended);
    }
    ended.expect(0);
    None
}

/// What a killed run may leave on a disk: what is in place is whole, and nobody else can read a secret.
pub fn assert_disk(machine: &Machine, live: &Path, what: &str) {
    if live.exists() {
        fingerprint(live, what);
    }
    let mut left = vec![machine.path("")];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory").flatten() {
            let found = std::fs::symlink_metadata(entry.path()).expect("metadata");
            if found.is_dir() {
                left.push(entry.path());
                continue;
            }
            let text = if found.is_file() { std::fs::read(entry.path()).expect("a file") } else { Vec::new() };
            let secret =
                [&b"PRIVATE KEY--"[..], b"AGE-SECRET-KEY-1"].iter().any(|word| text.windows(word.len()).any(|bytes| bytes == *word));
            assert!(!secret || found.permissions().mode() & 0o777 == 0o600, "{what}: others can read {}", entry.path().display());
        }
    }
}

/// The fingerprint of the leaf in a directory, whose files must belong together.
pub fn fingerprint(directory: &Path, what: &str) -> String {
    let read = |name: &str| std::fs::read_to_string(directory.join(name)).unwrap_or_else(|error| panic!("{what}: {name}: {error}"));
    let (chain, key) = (read("fullchain.pem"), read("privkey.pem"));
    let bundle = Bundle::from_pem(&chain, &key).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(chain, read("cert.pem") + &read("chain.pem"), "{what}");
    bundle.leaf().fingerprint.clone()
}

/// The bundles among the objects of a bucket: whole, of the fleet whose identity this is, and none of them skipped.
fn assert_bucket(machine: &Machine, objects: &BTreeMap<String, Vec<u8>>, what: &str) -> u64 {
    let prefix = format!("bundles/{SITE}/");
    let numbers: Vec<u64> = objects.keys().filter_map(|key| key.strip_prefix(&prefix)?.parse().ok()).collect();
    assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "{what}: {numbers:?}");
    let manifest: Option<Manifest> = objects.get("certfleet.json").map(|bytes| record::read(bytes).expect("a manifest"));
    assert!(manifest.is_some() || numbers.is_empty(), "{what}: bundles without a manifest");
    if let Some(recipient) = manifest.and_then(|manifest| manifest.recipient) {
        let text = Zeroizing::new(machine.read("runtimedata/identity.age"));
        assert_eq!(identity::recipient(&text, "identity.age").expect("an identity"), recipient, "{what}: sealed to nobody");
    }
    numbers.len() as u64
}

/// A machine that has pebble issue, with its datastore below a prefix.
fn machine(pebble: &Pebble, bucket: &Bucket, prefix: &str) -> Machine {
    let text = site(&format!("\"{SITE}\"")) + &datastore(bucket, prefix) + &acme(&pebble.directory_url(), pebble.http_port);
    let machine = Machine::new(&text);
    give_keys(&machine, bucket);
    machine.write("pebble-tls.pem", pebble.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    machine
}

/// One kill, and the run after it: `false` where the run ended before the step. The CA has issued once for both.
fn ensure_killed_at(pebble: &Pebble, bucket: &Bucket, prefix: &str, machine: &Machine, step: usize, generation: u64) -> bool {
    let what = format!("generation {generation}, step {step}");
    let issued = pebble.issued();
    let killed = killed_at(machine, &["ensure", "--json"], step).is_some();
    assert_disk(machine, &machine.files(SITE), &what);
    let before = bucket.objects(prefix);
    assert_bucket(machine, &before, &what);
    let ended = machine.run(&["ensure", "--json"]);
    assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
    assert_disk(machine, &machine.files(SITE), &what);
    let in_place = ended.site()["in_place"].clone();
    assert_eq!(in_place["generation"], generation, "{what}");
    assert_eq!(in_place["fingerprint_sha256"], fingerprint(&machine.files(SITE), &what), "{what}");
    let after = bucket.objects(prefix);
    assert_eq!(assert_bucket(machine, &after, &what), generation, "{what}");
    let same = |key: &&String| key.starts_with("bundles/") || **key == "certfleet.json";
    assert!(before.keys().filter(same).all(|key| after.get(key) == before.get(key)), "{what}: an object changed");
    assert_eq!(pebble.issued() - issued, 1, "{what}: issuances");
    killed
}

/// As many CAs as scenes: their answers to challenges are looked for in one place each.
async fn two_pebbles() -> Vec<Pebble> {
    let (one, other) = tokio::join!(Pebble::start(PebbleOptions::default()), Pebble::start(PebbleOptions::default()));
    vec![one, other]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_run_killed_at_every_change_of_the_disk_issues_once() {
    let (mut pebbles, s3) = (two_pebbles().await, InProcessS3::start());
    let steps = walk(&mut pebbles, |pebble, step| {
        let prefix = format!("first-{step}");
        let machine = machine(pebble, &s3.bucket(), &prefix);
        ensure_killed_at(pebble, &s3.bucket(), &prefix, &machine, step, 1)
    });
    assert!(steps > 15, "a first run changes more than {steps} files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_killed_at_every_change_of_the_disk_issues_once() {
    let radosgw = radosgw::shared();
    let machines = two_pebbles().await.into_iter().zip(["renewed-1", "renewed-2"]).map(|(pebble, prefix)| {
        let machine = machine(&pebble, &radosgw.bucket, prefix);
        machine.run(&["ensure"]).expect(0);
        (machine, pebble, prefix, 1)
    });
    let steps = walk(&mut machines.collect::<Vec<_>>(), |(machine, pebble, prefix, generation), step| {
        // It is due because another name is wanted.
        let text = machine.read("certfleet.toml");
        let names = text.lines().find(|line| line.starts_with("identifiers = ")).expect("names");
        machine.change("certfleet.toml", names, &format!("identifiers = [\"{SITE}\", \"n{step}.example.test\"]"));
        *generation += 1;
        ensure_killed_at(pebble, &radosgw.bucket, prefix, machine, step, *generation)
    });
    assert!(steps > 12, "a renewal changes more than {steps} files");
}

/// A machine with a datastore in a directory: what it does to that is killed, too.
fn three_generations() -> Machine {
    let machine = Machine::new("");
    machine.run(&["ensure", SITE]).expect(0);
    for _ in 2..=3 {
        machine.run(&["ensure", SITE, "--force"]).expect(0);
    }
    machine
}

fn stored(machine: &Machine) -> BTreeMap<u64, BundleRecord> {
    let prefix = format!("bundles/{SITE}/");
    let numbers = files::keys(machine).into_iter().filter_map(|key| key.strip_prefix(&prefix)?.parse().ok()).collect::<Vec<u64>>();
    numbers.into_iter().map(|number| (number, record::read(&files::object(machine, number)).expect("a record"))).collect()
}

#[test]
fn a_rollback_killed_at_every_change_of_the_disk_is_done_or_not() {
    let steps = walk(&mut [(), ()], |(), step| {
        let (machine, what) = (three_generations(), format!("step {step}"));
        let chains = stored(&machine);
        let killed = killed_at(&machine, &["rollback", SITE], step).is_some();
        assert_disk(&machine, &machine.files(SITE), &what);
        // Whatever was reached: the next run goes on from there, and makes nothing anew.
        let ended = machine.run(&["ensure", SITE, "--json"]).expect(0);
        let generation = ended.site()["in_place"]["generation"].as_u64().expect("a generation");
        let expected = match (generation, killed) {
            (3, true) => &chains[&3],
            (4, _) => &chains[&2],
            _ => panic!("{what}: {ended:?}"),
        };
        assert_eq!(machine.read(&format!("runtimedata/local/default/ssl/{SITE}/fullchain.pem")), expected.fullchain, "{what}");
        assert!(stored(&machine).keys().copied().eq(1..=generation), "{what}");
        // Named, it can be repeated whatever became of it.
        let again = machine.run(&["rollback", SITE, "--to", "2", "--json"]).expect(0);
        assert_eq!(again.site()["in_place"]["generation"], generation + 1, "{what}");
        assert_eq!(fingerprint(&machine.files(SITE), &what), again.site()["in_place"]["fingerprint_sha256"], "{what}");
        killed
    });
    assert!(steps > 8, "a rollback changes more than {steps} files");
}

#[test]
fn an_import_killed_at_every_change_of_the_disk_can_be_repeated() {
    let steps = walk(&mut [(), ()], |(), step| {
        let (machine, what) = (Machine::new(""), format!("step {step}"));
        machine.run(&["ensure", SITE]).expect(0);
        let key = rcgen::KeyPair::generate().expect("a key");
        let supplied = rcgen::CertificateParams::new([SITE.to_owned()]).expect("a name").self_signed(&key).expect("a certificate");
        machine.write("supplied.pem", supplied.pem());
        machine.write("supplied.key", key.serialize_pem());
        std::fs::set_permissions(machine.path("supplied.key"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let import = ["import", SITE, "--fullchain", "supplied.pem", "--privkey", "supplied.key", "--json"];
        let killed = killed_at(&machine, &import, step).is_some();
        assert_disk(&machine, &machine.files(SITE), &what);
        let ended = machine.run(&import);
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
        let stored = stored(&machine);
        assert!(stored.len() <= 3 && stored.keys().copied().eq(1..=stored.len() as u64), "{what}: {:?}", stored.keys());
        assert_eq!(stored[&(stored.len() as u64)].fullchain, machine.read("supplied.pem"), "{what}");
        assert_eq!(fingerprint(&machine.files(SITE), &what), ended.site()["in_place"]["fingerprint_sha256"], "{what}");
        killed
    });
    assert!(steps > 8, "an import changes more than {steps} files");
}

/// A prune changes nothing on its own disk: it is killed at each of its requests.
#[test]
fn a_pruning_killed_at_every_request_deletes_nothing_that_is_needed() {
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        let s3 = InProcessS3::start();
        let text = format!("[[site]]\nname = \"{SITE}\"\nissuers = [\"self-signed\"]\n{}", datastore(&s3.bucket(), "fleet"));
        let machine = Machine::new(&text);
        give_keys(&machine, &s3.bucket());
        machine.run(&["ensure"]).expect(0);
        let steps = walk(&mut [1_u64], |newest, step| {
            let what = format!("{fault:?} at request {step}");
            machine.run(&["ensure", "--force"]).expect(0);
            *newest += 1;
            s3.advance(Duration::from_secs(2 * 86_400));
            let there = |generation: u64| s3.objects().get(&format!("fleet/bundles/{SITE}/{generation:010}")).is_some();
            let killed = killed_at_request(&s3, &machine, &["prune", "--keep", "1"], &fault, step);
            assert!(there(*newest), "{what}");
            machine.run(&["prune", "--keep", "1"]).expect(0);
            assert!(there(*newest) && !there(*newest - 1), "{what}");
            let ended = machine.run(&["ensure", "--json"]).expect(0);
            assert_eq!(ended.site()["in_place"]["generation"], *newest, "{what}");
            killed
        });
        assert!(steps > 3, "{steps} requests");
    }
}

#[test]
fn a_delivery_killed_at_every_change_of_the_disk_can_be_repeated() {
    let build = three_generations();
    let store = build.path("runtimedata/datastore");
    let configuration = format!(
        "[datastore]\nurl = \"file:{}\"\n[[site]]\nname = \"{SITE}\"\nissuers = [\"local-ca\"]\n[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n",
        store.display()
    );
    let identity = Some(Zeroizing::new(build.read("runtimedata/identity.age")));
    let root = Some(build.read("runtimedata/local-ca/root.pem"));
    let mut delivery = Delivery::new(configuration.clone(), identity, root);
    delivery.bundles.insert(SITE.to_owned(), String::from_utf8(files::object(&build, 3)).expect("text"));
    let steps = walk(&mut [(), ()], |(), step| {
        let (node, what) = (Machine::new(""), format!("step {step}"));
        node.write("delivery.json", delivery.write().as_slice());
        std::fs::set_permissions(node.path("delivery.json"), std::fs::Permissions::from_mode(0o600)).expect("a mode");
        let take = ["--config", "etc/certfleet.toml", "--json", "bootstrap", "--delivery", "delivery.json"];
        let live = node.path("etc/ssl/live").join(SITE);
        let killed = killed_at(&node, &take, step).is_some();
        assert_disk(&node, &live, &what);
        // The configuration makes everything else count: where it is, a run needs nothing more.
        if node.path("etc/certfleet.toml").exists() {
            node.run(&["--config", "etc/certfleet.toml", "agent", "--splay", "0s"]).expect(0);
            assert!(live.exists(), "{what}");
        }
        let ended = node.run(&take);
        assert_eq!(ended.code, Some(0), "{what}: {ended:?}");
        assert_eq!(fingerprint(&live, &what), fingerprint(&build.files(SITE), &what), "{what}");
        assert_eq!(node.read("etc/certfleet.toml"), configuration, "{what}");
        killed
    });
    assert!(steps > 20, "a delivery and its bootstrap change more than {steps} files");
}
