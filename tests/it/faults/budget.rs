//! What a CA's limits leave the fleet: it refuses itself before the CA would, and says when it may go on.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::*;
use crate::support::ca_front::Resource::NewOrder;
use crate::support::pebble::PebbleOptions;

/// A machine whose CA gives two certificates a week for the same names.
fn frugal(pebble: &Pebble) -> Scene {
    let scene = Scene::new(pebble);
    scene.machine.change("certfleet.toml", "[issuer.pebble]\n", "[issuer.pebble]\nweekly_limit = 2\n");
    scene
}

/// Makes what there is due although its names stay the same.
fn want_another_key(scene: &Scene, from: &str, to: &str) {
    scene.machine.change("certfleet.toml", &format!("key_type = \"{from}\""), &format!("key_type = \"{to}\""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_fleet_refuses_itself_what_the_ca_would_and_says_until_when() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = frugal(&pebble);
    scene.machine.change("certfleet.toml", "[[site]]\n", "[[site]]\nkey_type = \"ecdsa-p256\"\n");
    let begin = Utc::now();
    scene.machine.run(&["ensure", "--json"]).expect(0);
    want_another_key(&scene, "ecdsa-p256", "ecdsa-p384");
    scene.machine.run(&["ensure", "--json"]).expect(0);
    want_another_key(&scene, "ecdsa-p384", "ecdsa-p256");

    let asked = scene.front.seen().len();
    let ended = scene.machine.run(&["ensure", "--json"]).expect(4);
    let ended = ended
        .says("pebble: it was not asked: the fleet has had 2 certificates for exactly these names from it within a week, and it gives 2");
    let ended = ended.says(&format!("`certfleet ensure --force {SITE}` asks all the same"));
    let site = ended.site();
    assert_eq!((&site["in_place"]["generation"], &site["passed_over"][0]["issuer"]), (&2.into(), &"pebble".into()));
    assert_eq!(scene.front.count(NewOrder), 2);
    let retry_at: DateTime<Utc> = site["problem"]["retry_at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    let after = retry_at - begin;
    assert!(after > TimeDelta::hours(83) && after < TimeDelta::hours(86), "two a week are one in 84 hours: {after}");
    assert_eq!(scene.front.seen().len(), asked, "the CA was asked");

    // Other names are another matter.
    let other = scene.another_machine(&pebble);
    other.change("certfleet.toml", &format!("[\"{SITE}\"]"), &format!("[\"{SITE}\", \"shop.example.test\"]"));
    assert_eq!(other.run(&["ensure", "--force", SITE, "--json"]).expect(0).site()["in_place"]["generation"], 3);

    // In time it goes on by itself.
    scene.s3.advance((retry_at - Utc::now() + TimeDelta::seconds(1)).to_std().expect("a time ahead"));
    assert_eq!(scene.machine.run(&["ensure", "--json"]).expect(0).site()["in_place"]["generation"], 4);
    assert_eq!(scene.front.count(NewOrder), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn force_orders_beyond_the_budget_and_says_what_it_risks() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = frugal(&pebble);
    scene.machine.run(&["ensure"]).expect(0);
    let quiet = scene.machine.run(&["ensure", "--force", SITE]).expect(0);
    assert!(!quiet.stderr.contains("may refuse"), "{quiet:?}");
    let ended = scene.machine.run(&["ensure", "--force", SITE, "--json"]).expect(0);
    let ended = ended.says("pebble may refuse: the fleet has had 2 certificates for exactly these names from it within a week");
    assert_eq!(ended.site()["in_place"]["generation"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_older_than_a_week_and_what_others_made_does_not_count() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = frugal(&pebble);
    for _ in 0..2 {
        scene.machine.run(&["ensure", "--force", SITE]).expect(0);
        scene.s3.advance(Duration::from_secs(4 * 86_400));
    }
    scene.machine.change("certfleet.toml", "weekly_limit = 2", "weekly_limit = 1");
    let limited = scene.machine.run(&["ensure", "--force", SITE]).expect(0);
    assert!(limited.stderr.contains("has had 1 certificate for"), "{limited:?}");

    scene.machine.change("certfleet.toml", "[\"pebble\"]", "[\"self-signed\"]");
    let own = scene.machine.run(&["ensure", "--force", SITE, "--json"]).expect(0);
    assert_eq!((&own.site()["in_place"]["issuer_class"], own.stderr.contains("may refuse")), (&Value::from("self-signed"), false));
}
