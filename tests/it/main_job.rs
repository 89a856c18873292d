//! The main job, by the real binary: from an empty machine to a proven certificate in the bucket.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use serde_json::Value;

use crate::support::bucket::Bucket;
use crate::support::machine::{Ended, Machine, datastore, give_keys, openssl_verify};
use crate::support::moto::Moto;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::radosgw;
use crate::support::s3_in_process::InProcessS3;

const SITE: &str = "www.example.test";

/// The `[issuer.pebble]` table, with a standalone solver where pebble looks.
pub fn acme(directory_url: &str, http_port: u16) -> String {
    format!(
        "[issuer.pebble]\nkind = \"acme\"\ndirectory = \"{directory_url}\"\ntrust = \"pebble-tls.pem\"\nchain_trust = \"pebble-root.pem\"\n\
         [solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\nlisten = \"127.0.0.1:{http_port}\"\ncheck = \"127.0.0.1:{http_port}\"\n"
    )
}

pub fn site(names: &str) -> String {
    format!(
        "contact = \"ops@example.test\"\n[[site]]\nname = \"{SITE}\"\nidentifiers = [{names}]\nissuers = [\"pebble\"]\nsolver = \"web\"\n"
    )
}

/// A machine that uses pebble and a bucket.
pub fn machine(pebble: &Pebble, bucket: &Bucket, prefix: &str) -> Machine {
    let configuration =
        site(&format!("\"{SITE}\", \"example.test\"")) + &datastore(bucket, prefix) + &acme(&pebble.directory_url(), pebble.http_port);
    let machine = Machine::new(&configuration);
    give_keys(&machine, bucket);
    machine.write("pebble-tls.pem", pebble.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    machine
}

#[track_caller]
fn assert_in_place(ended: &Ended, source: &str, generation: u64) -> Value {
    let site = ended.site();
    assert_eq!(site["outcome"], "done", "{ended:?}");
    assert_eq!(
        (site["in_place"]["source"].as_str(), site["in_place"]["generation"].as_u64()),
        (Some(source), Some(generation)),
        "{ended:?}"
    );
    site["in_place"].clone()
}

fn mode(path: &std::path::Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn without_any_configuration_a_name_is_enough() {
    let machine = Machine::new("");
    let ended = machine.run(&["ensure", SITE]).expect(0).says("made the fleet's identity");
    assert!(ended.stdout.contains("generation 1 by local-ca, issued now") && ended.stdout.contains("certfleet show"), "{}", ended.stdout);
    let files = machine.files(SITE);
    openssl_verify(&machine.path("runtimedata/local-ca/root.pem"), &files.join("fullchain.pem"), SITE);
    for name in ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"] {
        assert_eq!(mode(&files.join(name)), 0o600, "{name}");
    }
    assert_eq!((mode(&files), mode(&machine.path("runtimedata/identity.age"))), (0o700, 0o600));

    assert_in_place(&machine.run(&["ensure", SITE, "--json"]).expect(0), "datastore", 1);
    let quiet = machine.run(&["ensure", SITE, "--quiet"]).expect(0);
    assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
    assert!(machine.run(&["show", SITE]).expect(0).stdout.contains("www.example.test"));
}

/// What a file system knows of everything below a directory: its number, and when it was last changed in any way.
fn stamps(directory: &std::path::Path) -> BTreeMap<PathBuf, (u64, i64, i64)> {
    let mut stamps = BTreeMap::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = std::fs::symlink_metadata(&path).expect("metadata");
        if found.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        }
        stamps.insert(path, (found.ino(), found.ctime(), found.ctime_nsec()));
    }
    stamps
}

#[test]
fn a_run_with_nothing_to_do_writes_nothing() {
    let machine = Machine::new("");
    machine.run(&["ensure", SITE]).expect(0);
    let before = stamps(&machine.path(""));
    assert_in_place(&machine.run(&["ensure", SITE, "--json"]).expect(0), "datastore", 1);
    assert_eq!(stamps(&machine.path("")), before);
}

/// Seed of the whole: every source, on a real CA and a real store.
async fn from_nothing_to_every_source(bucket: &Bucket, prefix: &str) {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let first = machine(&pebble, bucket, prefix);

    let planned = first.run(&["ensure", "--dry-run"]).expect(0);
    assert_eq!(planned.stdout, format!("{SITE}  have generation 1 issued: there is none that serves\n"));
    assert!(!first.path("runtimedata").exists(), "a dry run writes nothing");

    // Nothing at all.
    let in_place = assert_in_place(&first.run(&["ensure", "--json"]).expect(0), "issued", 1);
    assert_eq!(in_place["identifiers"], serde_json::json!(["example.test", SITE]));
    openssl_verify(&first.path("pebble-root.pem"), &first.files(SITE).join("fullchain.pem"), SITE);
    assert_in_place(&first.run(&["ensure", "--json"]).expect(0), "datastore", 1);

    // A bucket filled by an earlier build: a machine that has only the identity pulls.
    let second = machine(&pebble, bucket, prefix);
    first.share_identity(&second);
    assert_in_place(&second.run(&["ensure", "--json"]).expect(0), "datastore", 1);
    for name in ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"] {
        let read = |machine: &Machine| std::fs::read(machine.files(SITE).join(name)).expect("a file");
        assert_eq!(read(&first), read(&second), "{name}");
    }

    // Only local files: another, empty prefix is filled from them.
    let third = machine(&pebble, bucket, &format!("{prefix}-refilled"));
    first.share_identity(&third);
    third.create_dir("runtimedata/local/default/ssl");
    let copied = std::process::Command::new("cp").arg("-r").arg(first.files(SITE)).arg(third.files(SITE)).status().expect("cp");
    assert!(copied.success());
    assert_in_place(&third.run(&["ensure", "--json"]).expect(0), "runtimedata", 1);

    // A name more: a new order, with the account that is there already.
    let more = first.read("certfleet.toml").replace("\"example.test\"]", "\"example.test\", \"shop.example.test\"]");
    first.write("certfleet.toml", more);
    let renewed = first.run(&["ensure", "--json"]).expect(0);
    assert_in_place(&renewed, "issued", 2);
    assert_eq!(renewed.site()["due"]["rule"], "identifiers");
    assert_eq!(pebble.issued(), 2);

    // The sealed key is all that leaves the machine.
    let exported = first.run(&["export", SITE, "--format", "combined"]).expect(0);
    let key = std::fs::read_to_string(first.files(SITE).join("privkey.pem")).expect("a key");
    assert!(exported.stdout.ends_with(&key));
    let pem = first.run(&["export", SITE, "--format", "pem", "--output", "out.pem"]).expect(0);
    assert_eq!((pem.stdout, mode(&first.path("out.pem"))), (String::new(), 0o600));
    assert_eq!(first.read("out.pem"), std::fs::read_to_string(first.files(SITE).join("fullchain.pem")).expect("a chain"));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_ceph_radosgw_with_pebble() {
    let radosgw = radosgw::shared();
    from_nothing_to_every_source(&radosgw.bucket, "main-job").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_moto_with_pebble() {
    let moto = Moto::start().await;
    from_nothing_to_every_source(&moto.bucket, "main-job").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_with_everything_valid_makes_three_requests() {
    let s3 = InProcessS3::start();
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = machine(&pebble, &s3.bucket(), "fleet");
    machine.run(&["ensure"]).expect(0);
    s3.forget_requests();
    machine.run(&["ensure"]).expect(0);
    let requests: Vec<_> = s3.requests().iter().map(|seen| format!("{} {}", seen.method, seen.key)).collect();
    let mut sorted = requests.clone();
    sorted.sort();
    let expected = ["GET ", "GET fleet/bundles/www.example.test/0000000001", "GET fleet/certfleet.json"];
    assert_eq!(sorted, expected, "{requests:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_staging_certificate_is_never_taken_for_a_live_one() {
    let s3 = InProcessS3::start();
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = machine(&pebble, &s3.bucket(), "fleet");
    let staging = "[issuer.pebble-staging]\nkind = \"acme\"\nstaging = true\ntrust = \"pebble-tls.pem\"\n";
    let staging = format!("{staging}directory = \"{}\"\n", pebble.directory_url());
    machine.write("certfleet.toml", machine.read("certfleet.toml") + &staging);
    let staged = machine.run(&["ensure", "--staging", "--json"]).expect(0);
    assert_in_place(&staged, "issued", 1);
    assert_eq!(staged.site()["site"], "www.example.test+staging");
    assert_in_place(&machine.run(&["ensure", "--json"]).expect(0), "issued", 1);
    assert_in_place(&machine.run(&["ensure", "--staging", "--json"]).expect(0), "datastore", 1);
    assert_eq!(pebble.issued(), 2);
    assert!(s3.objects().keys().contains(&"fleet/bundles/www.example.test+staging/0000000001".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn manual_sites_take_what_a_person_supplies() {
    let donor = Machine::new("");
    donor.run(&["ensure", SITE]).expect(0);
    let machine = Machine::new("[[site]]\nname = \"www.example.test\"\nmethod = \"manual\"\n");
    machine.run(&["ensure"]).expect(1).says("its method is manual").says("hint: certfleet import www.example.test");
    let (chain, key) = (donor.files(SITE).join("fullchain.pem"), donor.files(SITE).join("privkey.pem"));
    let (chain, key) = (chain.to_str().expect("a path"), key.to_str().expect("a path"));
    let ca = std::fs::read_to_string(donor.path("runtimedata/local-ca/root.pem")).expect("a root");
    std::fs::write(chain, ca + &std::fs::read_to_string(chain).expect("a chain")).expect("written");
    let ended = machine.run(&["ensure", SITE, "--fullchain", chain, "--privkey", key, "--json"]).expect(0);
    assert_in_place(&ended, "supplied", 1);
    assert!(ended.stderr.contains("note:"), "the root was removed, and that is said: {}", ended.stderr);
    assert_in_place(&machine.run(&["ensure", "--json"]).expect(0), "datastore", 1);

    // By standard input, whatever the method; the same again makes no new generation.
    let both = std::fs::read_to_string(chain).expect("a chain") + &std::fs::read_to_string(key).expect("a key");
    let ended = machine.run_with_input(&["import", SITE, "--fullchain", "-", "--json"], both.as_bytes()).expect(0);
    assert_in_place(&ended, "datastore", 1);
    machine.run(&["import", SITE]).expect(2).says("no terminal to ask at");

    // What is refused changes nothing.
    let stranger = Machine::new("");
    stranger.run(&["ensure", "other.example.test"]).expect(0);
    let other = stranger.files("other.example.test");
    let (chain, key) = (other.join("fullchain.pem"), other.join("privkey.pem"));
    let arguments = ["import", SITE, "--fullchain", chain.to_str().expect("a path"), "--privkey", key.to_str().expect("a path")];
    machine.run(&arguments).expect(1).says("www.example.test").says("other.example.test");
    assert_in_place(&machine.run(&["ensure", "--json"]).expect(0), "datastore", 1);
}

#[test]
fn init_writes_what_works_and_never_overwrites() {
    let machine = Machine::new("");
    machine.run(&["init"]).expect(0);
    assert_eq!(mode(&machine.path("runtimedata/identity.age")), 0o600);
    let before = (machine.read("certfleet.toml"), machine.read("runtimedata/identity.age"));
    machine.run(&["init"]).expect(0);
    assert_eq!((machine.read("certfleet.toml"), machine.read("runtimedata/identity.age")), before);
}
