//! When a CA would like its certificates renewed (ARI): asked by one machine, known to all, and never a reason to fail.

use std::time::Duration;

use serde_json::{Value, json};

use crate::main_job::machine;
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::s3_in_process::InProcessS3;

const HOUR: Duration = Duration::from_secs(3_600);
const SITE: &str = "www.example.test";
const WINDOW: &str = "fleet/windows/www.example.test";

/// A certificate that was made twelve hours ago: it is everybody's turn to ask.
fn half_a_day_old(pebble: &Pebble, s3: &InProcessS3) -> Machine {
    let machine = machine(pebble, &s3.bucket(), "fleet");
    machine.run(&["ensure"]).expect(0);
    s3.advance(13 * HOUR);
    machine
}

/// Has pebble suggest a window for what is in place.
async fn suggest(pebble: &Pebble, machine: &Machine, start: &str, end: &str) {
    let pem = machine.read(&format!("runtimedata/local/default/ssl/{SITE}/cert.pem"));
    let window = json!({ "suggestedWindow": { "start": start, "end": end }, "explanationURL": "https://ca.example/incident", "more": 1 });
    let body = json!({ "certificate": pem, "ariResponse": window.to_string() });
    let request = http::Request::post(format!("{}/set-renewal-info/", pebble.management))
        .header("User-Agent", "test")
        .body(body.to_string().into())
        .expect("a request");
    let answer = pebble.client().send(request).await;
    assert_eq!(answer.status(), 200, "{:?}", answer.body());
}

fn window(s3: &InProcessS3) -> Value {
    serde_json::from_slice(&s3.objects().get(WINDOW).expect("a window")).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_in_the_past_renews_at_the_next_run() {
    let (pebble, s3) = (Pebble::start(PebbleOptions::default()).await, InProcessS3::start());
    let machine = half_a_day_old(&pebble, &s3);
    suggest(&pebble, &machine, "2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z").await;
    let report = machine.run(&["ensure", "--json"]).expect(0).site();
    assert_eq!((report["in_place"]["source"].as_str(), report["due"]["rule"].as_str()), (Some("issued"), Some("window")), "{report}");
    assert_eq!(window(&s3)["explanation"], "https://ca.example/incident");
    // It is about the certificate before, and says nothing about the new one.
    assert_eq!(machine.run(&["ensure", "--json"]).expect(0).site()["in_place"]["source"], "datastore");
    assert_eq!(pebble.issued(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_in_the_far_future_changes_nothing_and_is_asked_about_again() {
    let (pebble, s3) = (Pebble::start(PebbleOptions::default()).await, InProcessS3::start());
    let machine = half_a_day_old(&pebble, &s3);
    suggest(&pebble, &machine, "2120-01-01T00:00:00Z", "2120-01-02T00:00:00Z").await;
    machine.run(&["ensure"]).expect(0);
    let first = window(&s3);
    machine.run(&["ensure"]).expect(0);
    assert_eq!(window(&s3), first, "it is too early to ask again");
    s3.advance(31 * HOUR);
    machine.run(&["ensure"]).expect(0);
    assert_ne!(window(&s3)["asked_at"], first["asked_at"]);
    assert_eq!(pebble.issued(), 1);
    // No later than without it.
    s3.advance((90 * 24 - 50 - 6 * 24) * HOUR);
    assert_eq!(machine.run(&["ensure", "--json"]).expect(0).site()["due"]["rule"], "expiry");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_that_ends_before_it_starts_or_was_forged_is_no_window() {
    let (pebble, s3) = (Pebble::start(PebbleOptions::default()).await, InProcessS3::start());
    let machine = half_a_day_old(&pebble, &s3);
    suggest(&pebble, &machine, "2020-01-02T00:00:00Z", "2020-01-01T00:00:00Z").await;
    machine.run(&["ensure"]).expect(0);
    let mut forged = window(&s3);
    assert_eq!(forged["window"], Value::Null);
    forged["window"] = json!({ "start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z" });
    for body in [forged.to_string(), "not a record".to_owned()] {
        s3.objects().put(WINDOW, body);
        machine.run(&["ensure"]).expect(0);
        assert_eq!(pebble.issued(), 1);
    }
}
