//! `certfleet revoke`: another certificate in place, then the old one taken back, and its key never used again.

use serde_json::Value;

use crate::main_job;
use crate::support::ca_front::{CaFront, Fault, Resource};
use crate::support::fleet_files::{self as files, SITE};
use crate::support::machine::{Ended, Machine};
use crate::support::pebble::{Pebble, PebbleOptions};

const SSL: &str = "runtimedata/local/default/ssl/www.example.test";

/// A machine whose site has one generation by a CA, with a front before that.
async fn world() -> (Machine, Pebble, CaFront) {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let configuration = main_job::site(&format!("\"{SITE}\"")) + &main_job::acme(&front.directory_url(), pebble.http_port);
    let machine = Machine::new(&configuration);
    machine.write("pebble-tls.pem", front.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    machine.run(&["ensure"]).expect(0);
    (machine, pebble, front)
}

/// What the CA says about the certificate of a generation: `Valid` or `Revoked`, and why.
async fn status(pebble: &Pebble, machine: &Machine, generation: u64) -> (String, Option<u64>) {
    let record: Value = serde_json::from_slice(&files::object(machine, generation)).expect("JSON");
    let chain = certfleet::domain::pem::blocks(record["fullchain"].as_str().expect("a chain")).expect("PEM");
    let leaf = certfleet::domain::certificate::Certificate::from_der(&chain[0].der).expect("a certificate");
    let serial = leaf.serial.trim_start_matches('0');
    let answer = pebble.client().get(&format!("{}/cert-status-by-serial/{serial}", pebble.management)).await;
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    (answer["Status"].as_str().expect("a status").to_owned(), answer["Reason"].as_u64())
}

fn generations(machine: &Machine) -> usize {
    files::keys(machine).iter().filter(|key| key.starts_with("bundles/")).count()
}

fn revoke(machine: &Machine, more: &[&str]) -> Ended {
    machine.run(&[&["revoke", SITE, "--json"], more].concat())
}

#[tokio::test]
async fn another_is_in_place_before_it_is_revoked_and_a_second_time_changes_nothing() {
    let (machine, pebble, front) = world().await;
    let answer = revoke(&machine, &["--reason", "superseded"]).expect(0).json();
    assert_eq!((&answer["revoked"], &answer["generation"], &answer["problem"]), (&"now".into(), &1.into(), &Value::Null), "{answer}");
    assert_eq!(answer["replacement"]["in_place"]["generation"], 2, "{answer}");
    assert_eq!(status(&pebble, &machine, 1).await, ("Revoked".to_owned(), Some(4)));
    let order = front.seen().iter().rposition(|seen| *seen == Resource::Certificate);
    assert!(order < front.seen().iter().position(|seen| *seen == Resource::Revocation), "{:?}", front.seen());

    // Whether it was repeated by mistake, or the next one is meant, only a person knows.
    revoke(&machine, &[]).expect(1).says("generation 1 of www.example.test was revoked before").says("--generation 2");
    let again = revoke(&machine, &["--generation", "1"]).expect(0).json();
    assert_eq!((&again["revoked"], &again["generation"], &again["replacement"]), (&"before".into(), &1.into(), &Value::Null), "{again}");
    assert_eq!((generations(&machine), status(&pebble, &machine, 2).await.0.as_str()), (2, "Valid"));
    assert_eq!(machine.run(&["ensure", "--json"]).expect(0).site()["in_place"]["source"], "datastore");

    // The one in its place is revoked where that is said.
    let next = revoke(&machine, &["--generation", "2", "--reason", "keyCompromise"]).expect(0).json();
    assert_eq!((&next["revoked"], &next["replacement"]["in_place"]["generation"]), (&"now".into(), &3.into()), "{next}");
    assert_eq!(status(&pebble, &machine, 2).await, ("Revoked".to_owned(), Some(1)));
    revoke(&machine, &[]).expect(1).says("generation 2 of www.example.test was revoked before").says("--generation 3");
    machine.run(&["revoke", SITE, "--generation", "9"]).expect(1).says("no generation 9");
    machine.run(&["revoke", SITE, "--reason", "boredom"]).expect(2).says("keyCompromise");
}

#[tokio::test]
async fn nothing_is_revoked_while_nothing_is_in_its_place_and_the_next_run_goes_on() {
    let (machine, pebble, front) = world().await;
    let down = Fault::Problem { status: 403, kind: "rejectedIdentifier", detail: "not today", retry_after: None };
    front.inject(Resource::NewOrder, 1, down);
    let answer = revoke(&machine, &["--reason", "superseded"]).expect(1);
    assert_eq!((&answer.json()["revoked"], status(&pebble, &machine, 1).await.0.as_str()), (&"not".into(), "Valid"));
    let answer = answer.says("nothing is in its place").says("not today").says("--without-replacement");
    assert!(answer.json()["problem"]["what"].as_str().expect("a text").contains("not today"));

    // Any run sees that it is to be replaced: here the retry time has not come.
    let waiting = machine.run(&["ensure", "--json"]).expect(4).site();
    assert_eq!((&waiting["due"]["rule"], &waiting["in_place"]["generation"]), (&"revoked".into(), &1.into()), "{waiting}");
    // The decision stands, whatever reason is given now, and whoever revokes does not wait.
    let answer = revoke(&machine, &["--reason", "unspecified"]).expect(0).json();
    assert_eq!((&answer["reason"], &answer["replacement"]["in_place"]["generation"]), (&"superseded".into(), &2.into()), "{answer}");
    assert_eq!(status(&pebble, &machine, 1).await, ("Revoked".to_owned(), Some(4)));
}

#[tokio::test]
async fn a_run_that_is_cut_off_after_the_replacement_revokes_the_old_one_later() {
    let (machine, pebble, front) = world().await;
    front.inject(Resource::Revocation, 9, Fault::Unheard);
    let answer = revoke(&machine, &[]).expect(1);
    assert_eq!((&answer.json()["revoked"], generations(&machine)), (&"not".into(), 2));
    answer.says("did not answer").says("goes on from here");
    front.clear_faults();
    // In the meantime the reason has become a worse one: that is what the CA is told.
    let answer = revoke(&machine, &["--reason", "keyCompromise"]).expect(0).json();
    assert_eq!((&answer["revoked"], &answer["generation"], generations(&machine)), (&"now".into(), &1.into(), 2), "{answer}");
    assert_eq!((&answer["reason"], status(&pebble, &machine, 1).await.1), (&"keyCompromise".into(), Some(1)));
    assert_eq!([status(&pebble, &machine, 1).await.0, status(&pebble, &machine, 2).await.0], ["Revoked", "Valid"]);
}

/// Whoever can write to the bucket must not choose which certificate is revoked, nor have one revoked that nothing replaces.
#[tokio::test]
async fn notes_and_bundles_of_strangers_do_not_choose() {
    let (machine, pebble, _front) = world().await;
    machine.run(&["ensure", "--force", SITE]).expect(0);
    let planted = |name: &str| {
        let path = machine.path(&format!("runtimedata/datastore/{name}"));
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, "{}").expect("a file");
    };
    planted(&format!("revoked/{SITE}/0000000001-{}", "0".repeat(64)));
    planted(&format!("bundles/{SITE}/0000000003"));
    let answer = revoke(&machine, &["--generation", "2"]).expect(0).json();
    assert_eq!((&answer["revoked"], &answer["replacement"]["in_place"]["generation"]), (&"now".into(), &4.into()), "{answer}");
    assert_eq!([status(&pebble, &machine, 1).await.0, status(&pebble, &machine, 2).await.0], ["Valid", "Revoked"]);
    revoke(&machine, &[]).expect(1).says("generation 2 of www.example.test was revoked before").says("--generation 4");
}

#[tokio::test]
async fn an_answer_that_was_lost_is_no_failure() {
    let (machine, pebble, front) = world().await;
    front.inject(Resource::Revocation, 1, Fault::Swallowed);
    assert_eq!(revoke(&machine, &[]).expect(0).json()["revoked"], "before");
    assert_eq!(status(&pebble, &machine, 1).await.0, "Revoked");
}

#[tokio::test]
async fn without_the_account_the_key_of_the_certificate_revokes_it() {
    let (machine, pebble, _front) = world().await;
    std::fs::remove_file(machine.path("runtimedata/datastore/accounts/pebble")).expect("an account");
    assert_eq!(revoke(&machine, &[]).expect(0).json()["revoked"], "now");
    assert_eq!(status(&pebble, &machine, 1).await.0, "Revoked");
}

#[tokio::test]
async fn in_an_emergency_it_is_revoked_although_nothing_takes_its_place() {
    let (machine, pebble, front) = world().await;
    let down = Fault::Problem { status: 403, kind: "rejectedIdentifier", detail: "not today", retry_after: None };
    front.inject(Resource::NewOrder, 9, down);
    let answer = revoke(&machine, &["--without-replacement"]).expect(4).says("not today").json();
    assert_eq!((&answer["revoked"], status(&pebble, &machine, 1).await.0.as_str()), (&"now".into(), "Revoked"), "{answer}");
}

#[tokio::test]
async fn a_key_that_was_revoked_does_not_come_back() {
    let (machine, _pebble, _front) = world().await;
    let before: Vec<_> = ["fullchain", "cert", "chain", "privkey"].map(|name| (name, machine.read(&format!("{SSL}/{name}.pem")))).into();
    revoke(&machine, &[]).expect(0);
    machine
        .run(&["rollback", SITE])
        .expect(1)
        .says("generation 1 of www.example.test has a key whose certificate is revoked (unspecified)");
    machine.run(&["rollback", SITE, "--to", "1"]).expect(1).says("is revoked");

    // Neither from the files of a machine, where the datastore has lost its bundles.
    for (name, text) in before {
        machine.write(&format!("{SSL}/{name}.pem"), text);
    }
    std::fs::remove_dir_all(machine.path("runtimedata/datastore/bundles")).expect("bundles");
    let site = machine.run(&["ensure", "--json"]).expect(0).site();
    assert_eq!(site["in_place"]["source"], "issued", "{site}");
    assert!(site["refused"].to_string().contains("a certificate of its key is revoked"), "{site}");
}

#[test]
fn what_no_ca_can_take_back_is_replaced_and_named() {
    let machine = Machine::new("");
    machine.run(&["ensure", SITE]).expect(0);
    let answer = revoke(&machine, &["--reason", "keyCompromise"]).expect(1).says("local-ca made it").json();
    assert_eq!((&answer["revoked"], &answer["replacement"]["in_place"]["generation"]), (&"not".into(), &2.into()), "{answer}");
    // Again: that is still about the first, and nothing more is made.
    assert_eq!(revoke(&machine, &[]).expect(1).json()["generation"], 1);
    assert_eq!(generations(&machine), 2);
    machine.run(&["revoke", "other.example.test"]).expect(1).says("the datastore has no bundle of other.example.test");
}

#[test]
fn what_a_stranger_wrote_revokes_nothing() {
    let machine = Machine::new("");
    machine.run(&["ensure", SITE]).expect(0);
    revoke(&machine, &["--reason", "keyCompromise"]).expect(1);
    let note = files::keys(&machine).into_iter().find(|key| key.starts_with("revoked/")).expect("a record");
    let path = machine.path(&format!("runtimedata/datastore/{note}"));
    let mut record: Value = serde_json::from_slice(&std::fs::read(&path).expect("a file")).expect("JSON");
    record["reason"] = "superseded".into();
    std::fs::write(&path, record.to_string()).expect("a file");
    // The earlier certificate can come back: nobody who may say so has said that it is revoked.
    machine.run(&["rollback", SITE]).expect(0);
}
