//! Datastores that cannot be used, or not any more: no CA is asked before a store was proven writable.

use std::time::Duration;

use certfleet::fleet::identity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::*;
use crate::support::bucket::Bucket;
use crate::support::ca_front::Resource;
use crate::support::machine::{Ended, datastore, give_keys};
use crate::support::pebble::PebbleOptions;
use crate::support::process::free_port;
use crate::support::s3_in_process::{Fault, Seen};
use crate::support::s3rver::S3rver;
use crate::support::s3s_fs::S3sFs;

type Spoil<'a> = Box<dyn Fn(&Scene) + 'a>;

/// How a store is spoiled; the exit code; what is said; the hint.
fn spoiled_stores<'a>(nobody: &'a str, tls: &'a InProcessS3) -> Vec<(&'static str, Spoil<'a>, i32, &'static str, &'a str)> {
    let endpoint = |by: &'a str| move |scene: &Scene| scene.machine.change("certfleet.toml", &scene.s3.endpoint(), by);
    let refuse = |status, code| move |scene: &Scene| scene.s3.fault_always(Fault::Refuse(status, code), |_| true);
    vec![
        (
            "no bucket",
            Box::new(|scene| scene.machine.change("certfleet.toml", "s3://fleet/", "s3://gone/")),
            1,
            "list s3://gone/fleet/ failed: the store answered 404 NoSuchBucket",
            "create the bucket gone, or check its name",
        ),
        (
            "wrong secret",
            Box::new(|scene| scene.machine.write("s3-secret", "wrong")),
            1,
            "list s3://fleet/fleet/ failed: the store answered 403 SignatureDoesNotMatch",
            "check secret_key",
        ),
        (
            "no credentials",
            Box::new(|scene| {
                let keys = "access_key = { file = \"s3-access\" }\nsecret_key = { env = \"S3_SECRET\" }\n";
                scene.machine.change("certfleet.toml", keys, "");
            }),
            1,
            "list s3://fleet/fleet/ failed: there are no credentials",
            "set access_key and secret_key in [datastore]",
        ),
        (
            "denied",
            Box::new(refuse(403, "AccessDenied")),
            1,
            "list s3://fleet/fleet/ failed: the store answered 403 AccessDenied",
            "allow these credentials to get, put, list and delete objects in s3://fleet/fleet/",
        ),
        (
            "read only",
            Box::new(|scene| scene.s3.fault_always(Fault::Refuse(403, "AccessDenied"), |seen| seen.method == "PUT")),
            1,
            "create s3://fleet/fleet/probes/",
            "s3:PutObject",
        ),
        (
            "busy",
            Box::new(refuse(503, "SlowDown")),
            75,
            "list s3://fleet/fleet/ failed: the store answered 503 SlowDown",
            "try again later",
        ),
        (
            "nobody there",
            Box::new(endpoint(nobody)),
            75,
            "list s3://fleet/fleet/ failed: the store cannot be reached: Connection refused",
            nobody,
        ),
        (
            "a certificate of nobody",
            Box::new(move |scene| scene.machine.change("certfleet.toml", &scene.s3.endpoint(), &tls.endpoint())),
            1,
            "list s3://fleet/fleet/ failed: the endpoint's TLS certificate was refused: invalid peer certificate: UnknownIssuer",
            "name that CA's root in ca_file",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_issued_before_the_store_was_proven_writable() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let (nobody, tls) = (format!("http://127.0.0.1:{}", free_port()), InProcessS3::start_tls());
    for (name, spoil, code, said, hint) in spoiled_stores(&nobody, &tls) {
        let scene = Scene::new(&pebble);
        spoil(&scene);
        let ended = scene.machine.run(&["ensure", "--json"]).expect(code).says(&format!("error: {said}")).says(hint);
        assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 2), "{name}: {ended:?}");
        assert_eq!(scene.front.seen(), [], "{name}: the CA was asked");
        assert!(!scene.machine.path(IDENTITY).exists(), "{name}: an identity was made for nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_turns_read_only_costs_no_order_and_keeps_what_serves() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    scene.machine.run(&["ensure"]).expect(0);
    let (asked, files, object) = (scene.front.seen().len(), tree(&scene.machine.files(SITE)), scene.s3.objects().get(&bundle(1)));
    scene.want_another_name();
    scene.s3.fault_always(Fault::Refuse(403, "AccessDenied"), |seen| seen.method == "PUT");
    let ended = scene.machine.run(&["ensure", "--json"]).expect(4);
    let ended =
        ended.says("create s3://fleet/fleet/leases/www.example.test/0000000002-0001 failed: the store answered 403").says("s3:PutObject");
    let ended = ended.says("generation 1 is in place and valid until");
    assert_eq!(ended.site()["in_place"]["generation"], 1);
    assert_eq!((scene.front.seen().len(), tree(&scene.machine.files(SITE)), scene.s3.objects().get(&bundle(1))), (asked, files, object));

    // Refused only once the CA has issued: what it issued waits in the spool, and is published without another order.
    scene.s3.clear_faults();
    scene.s3.fault_always(Fault::Refuse(403, "AccessDenied"), |seen| seen.method == "PUT" && seen.key == bundle(2));
    scene.machine.run(&["ensure"]).expect(4).says("create s3://fleet/fleet/bundles/www.example.test/0000000002 failed");
    scene.machine.run(&["ensure"]).expect(4).says("create s3://fleet/fleet/bundles/www.example.test/0000000002 failed");
    scene.s3.clear_faults();
    let orders = scene.front.seen().len();
    let ended = scene.machine.run(&["ensure", "--json"]).expect(0);
    assert_eq!((ended.site()["in_place"]["source"].as_str(), scene.front.seen().len()), (Some("spool"), orders));
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_ignore_conditions_are_found_out_and_nothing_is_ordered() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let (s3rver, s3s_fs, in_process) = (S3rver::start(), S3sFs::start().await, InProcessS3::start());
    in_process.fault_always(Fault::IgnoreCondition, |_| true);
    for bucket in [&s3rver.bucket, &s3s_fs.bucket, &in_process.bucket()] {
        let front = CaFront::start(&pebble);
        let machine = crash::machine(&pebble, &front, bucket);
        let said = "the datastore accepts a second create of the same object";
        for _ in 0..2 {
            let ended = machine.run(&["ensure", "--json"]).expect(1).says(said).says("election = \"sole\"");
            assert_eq!(ended.site()["problem"]["what"].as_str().map(|what| what.starts_with(said)), Some(true), "{ended:?}");
        }
        assert_eq!(front.seen(), [], "{}", bucket.endpoint);
        assert_eq!(verdict(bucket).await, json!("broken"), "{}", bucket.endpoint);
        machine.change("certfleet.toml", "[datastore]\n", "[datastore]\nelection = \"sole\"\n");
        let ended = machine.run(&["ensure", "--json"]).expect(0);
        assert_eq!(ended.site()["in_place"]["generation"], 1);
        // Read only, there, to everybody who does not say so: what serves is kept.
        machine.change("certfleet.toml", "election = \"sole\"\n", "");
        let ended = machine.run(&["ensure", "--json"]);
        assert_eq!(ended.code, Some(0), "{} {ended:?}", bucket.endpoint);
        machine.run(&["ensure", "--force"]).expect(4).says(said).says("generation 1 is in place");
    }
}

const MANIFEST: &str = "fleet/certfleet.json";
const IDENTITY: &str = "runtimedata/identity.age";

/// A machine with one site, on a store that it is the first to use.
fn newcomer(s3: &InProcessS3) -> Machine {
    let configuration = datastore(&s3.bucket(), "fleet") + "[[site]]\nname = \"www.example.test\"\nissuers = [\"self-signed\"]\n";
    let machine = Machine::new(&configuration);
    give_keys(&machine, &s3.bucket());
    machine
}

#[test]
fn whoever_has_made_an_identity_is_told_so_however_the_run_goes_on() {
    let is_first_write = |seen: &Seen| seen.method == "PUT" && seen.key == MANIFEST;
    for (fault, code) in [(Fault::DropAfter, 0), (Fault::Refuse(403, "AccessDenied"), 1), (Fault::Refuse(412, "PreconditionFailed"), 1)] {
        let s3 = InProcessS3::start();
        let machine = newcomer(&s3);
        s3.fault(fault.clone(), is_first_write);
        let ended = machine.run(&["ensure"]).expect(code);
        assert_eq!(ended.stderr.matches("made the fleet's identity").count(), 1, "{fault:?}: {ended:?}");
        assert!(machine.path(IDENTITY).exists() && !ended.stderr.contains("removed the identity"), "{fault:?}: {ended:?}");
    }

    // Ended from outside while the answer is awaited.
    let s3 = InProcessS3::start();
    let machine = newcomer(&s3);
    let (sender, asked) = std::sync::mpsc::channel();
    s3.fault(Fault::Delay(Duration::from_secs(60)), move |seen| is_first_write(seen) && sender.send(()).is_ok());
    let running = machine.start(&["ensure"]);
    asked.recv_timeout(Duration::from_secs(60)).expect("a manifest is written");
    kill_process(Pid::from_raw(running.pid()).expect("a process id"), Signal::TERM).expect("a living process");
    running.wait().expect(75).says("made the fleet's identity").says("interrupted");
    assert!(machine.path(IDENTITY).exists());
}

#[test]
fn an_identity_that_another_machine_forestalled_goes_away_and_that_is_said() {
    let s3 = InProcessS3::start();
    let (first, second) = (newcomer(&s3), newcomer(&s3));
    first.run(&["ensure"]).expect(0);
    s3.objects().keys().iter().filter(|key| *key != MANIFEST).for_each(|key| s3.objects().delete(key));
    // As if the first machine's manifest had arrived only after this look.
    s3.fault(Fault::Refuse(404, "NoSuchKey"), |seen| seen.method == "GET" && seen.key == MANIFEST);
    let ended = second.run(&["ensure"]).expect(2).says("made the fleet's identity").says("removed the identity");
    ended.says("the datastore is sealed to age1").says("copy the fleet's identity file");
    assert!(!second.path(IDENTITY).exists());
}

async fn verdict(bucket: &Bucket) -> serde_json::Value {
    use certfleet::datastore::Datastore as _;
    let manifest = bucket.datastore("fleet").await.get(&certfleet::domain::object_key::ObjectKey::manifest()).await;
    let manifest = manifest.expect("an answer").expect("a manifest");
    serde_json::from_slice::<serde_json::Value>(&manifest).expect("JSON")["exclusive_create"].clone()
}

/// Two machines of one fleet that know nothing of each other's first use: one identity was shared beforehand, as `init` allows.
#[tokio::test(flavor = "multi_thread")]
async fn first_uses_that_race_end_with_one_manifest() {
    let s3 = InProcessS3::start();
    let configuration = datastore(&s3.bucket(), "fleet") + "[[site]]\nname = \"www.example.test\"\nissuers = [\"self-signed\"]\n";
    let machines: Vec<_> = (0..6).map(|_| Machine::new(&configuration)).collect();
    for machine in &machines {
        give_keys(machine, &s3.bucket());
    }
    // Four share an identity; two make one of their own, and must not prevail with it or lose anything.
    machines[0].run(&["init"]).expect(0);
    machines[1..4].iter().for_each(|other| machines[0].share_identity(other));
    let running: Vec<_> = machines.iter().map(|machine| machine.start(&["ensure", "--json"])).collect();
    let ended: Vec<_> = running.into_iter().map(crate::support::machine::Running::wait).collect();
    let done: Vec<_> = ended.iter().filter(|ended| ended.code == Some(0)).map(|ended| ended.site()["in_place"]["serial"].clone()).collect();
    assert!(!done.is_empty() && done.iter().all(|serial| *serial == done[0]), "{ended:?}");
    for ended in ended.iter().filter(|ended| ended.code != Some(0)) {
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains("the datastore is sealed to age1") && ended.stderr.contains("hint: "), "{ended:?}");
    }
    let keys = s3.objects().keys();
    assert_eq!(keys.iter().filter(|key| key.contains("/bundles/")).count(), 1, "{keys:?}");
    assert!(!keys.iter().any(|key| key.contains("/probes/")), "{keys:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_best_effort_such_stores_elect_one_of_many_and_all_end_with_its_certificate() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let (s3rver, s3s_fs, in_process) = (S3rver::start(), S3sFs::start().await, InProcessS3::start());
    in_process.fault_always(Fault::IgnoreCondition, |_| true);
    for bucket in [&s3rver.bucket, &s3s_fs.bucket, &in_process.bucket()] {
        let front = CaFront::start(&pebble);
        let machines: Vec<_> = (0..4).map(|_| crash::machine(&pebble, &front, bucket)).collect();
        identity::create(&machines[0].path("runtimedata/identity.age")).expect("an identity");
        for machine in &machines {
            machine.change("certfleet.toml", "[datastore]\n", "[datastore]\nelection = \"best-effort\"\n");
        }
        machines[1..].iter().for_each(|machine| machines[0].share_identity(machine));
        let running: Vec<_> = machines.iter().map(|machine| machine.start(&["ensure", "--json"])).collect();
        let ended: Vec<_> = running.into_iter().map(|run| run.wait().expect(0)).collect();
        let leaf = |ended: &Ended| ended.site()["in_place"]["fingerprint_sha256"].clone();
        assert!(ended.iter().all(|one| leaf(one) == leaf(&ended[0])), "{}", bucket.endpoint);
        assert_eq!(ended.iter().filter(|one| one.site()["in_place"]["source"] == "issued").count(), 1, "{}", bucket.endpoint);
        assert_eq!(verdict(bucket).await, json!("broken"), "{}", bucket.endpoint);
        assert_eq!(front.count(Resource::Finalize), 1, "{}", bucket.endpoint);
    }
}
