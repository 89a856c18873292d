//! CAs that refuse: their own words are passed on with what to do; the whole fleet obeys the time to try again; what serves, stays.

use std::time::Duration;

use certfleet::domain::record::{LeaseRecord, LeaseState};
use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::support::ca_front::{Fault, Resource};
use crate::support::pebble::PebbleOptions;

struct Row {
    resource: Resource,
    fault: Fault,
    said: &'static str,
    hint: &'static str,
    /// How long it is left alone.
    pause_minutes: i64,
}

fn problem(status: u16, kind: &'static str, retry_after: Option<&'static str>) -> Fault {
    Fault::Problem { status, kind, detail: "in the words of the CA", retry_after }
}

fn rows() -> Vec<Row> {
    let row = |resource, fault, said, hint| Row { resource, fault, said, hint, pause_minutes: 1 };
    vec![
        Row {
            pause_minutes: 120,
            ..row(
                Resource::NewOrder,
                problem(429, "rateLimited", Some("7200")),
                "pebble: could not place the order: status 429 Too Many Requests: in the words of the CA (urn:ietf:params:acme:error:rateLimited)",
                "wait as long as it says",
            )
        },
        row(
            Resource::Finalize,
            problem(403, "caa", None),
            "pebble: could not finalize the order: status 403 Forbidden: in the words of the CA",
            "dig CAA",
        ),
        row(
            Resource::NewOrder,
            problem(403, "unauthorized", None),
            "in the words of the CA (urn:ietf:params:acme:error:unauthorized)",
            "delete the object accounts/pebble to open another",
        ),
        row(Resource::NewOrder, problem(400, "badNonce", None), "acme:error:badNonce", "disagree about its nonces: try again later"),
        row(
            Resource::NewOrder,
            Fault::Page(502, "<html>Bad Gateway</html>"),
            "status 502 Bad Gateway: <html>Bad Gateway</html>",
            "add another issuer",
        ),
        row(Resource::Directory, Fault::Unheard, "pebble: could not open the account: 127.0.0.1", "check the directory URL"),
        row(Resource::Directory, Fault::Page(200, "<html>log in</html>"), "pebble: could not open the account", "it must answer JSON"),
    ]
}

/// The latest lease of a generation.
fn failed_lease(scene: &Scene, generation: u64) -> (String, DateTime<Utc>) {
    let bytes = scene.s3.objects().get(&lease(generation)).expect("a lease");
    let record: LeaseRecord = certfleet::domain::record::read(&bytes).expect("a record");
    let LeaseState::Failed { reason, retry_at } = record.state else { panic!("{:?}", record.state) };
    (reason, retry_at)
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_are_passed_on_recorded_and_obeyed_by_the_fleet() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    for Row { resource, fault, said, hint, pause_minutes } in rows() {
        let scene = Scene::new(&pebble);
        let case = format!("{resource:?} {fault:?}");
        let begin = Utc::now();
        scene.front.inject(resource, 1000, fault);
        let ended = scene.machine.run(&["ensure", "--json"]).expect(1).says("error: www.example.test: pebble: ").says(said).says(hint);
        assert!(!ended.stderr.contains("pebble: pebble") && !ended.stderr.contains('<') || said.contains('<'), "{case}: {ended:?}");
        let (reason, retry_at) = failed_lease(&scene, 1);
        assert!(reason.contains(said), "{case}: {reason}");
        let pause = retry_at - begin;
        assert!(pause >= TimeDelta::minutes(pause_minutes) && pause < TimeDelta::minutes(pause_minutes + 2), "{case}: {pause}");
        let told = retry_at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
        assert!(ended.stderr.contains(&format!("; it is tried again by itself from {told} on")), "{case}: {ended:?}");
        assert_eq!(ended.site()["problem"]["retry_at"], told.as_str(), "{case}");
        assert_eq!(ended.site()["passed_over"][0]["issuer"], "pebble", "{case}");

        // Neither this machine nor another one bothers the CA before that.
        let asked = scene.front.seen().len();
        let other = scene.another_machine(&pebble);
        for machine in [&scene.machine, &other] {
            let ended = machine.run(&["ensure", "--json"]).expect(1).says("making generation 1 failed lately: pebble: ").says(said);
            let ended = ended.says("hint: `certfleet ensure --force www.example.test` tries now").says(&told);
            assert_eq!(ended.site()["passed_over"][0]["issuer"], "pebble", "{case}: {ended:?}");
        }
        assert_eq!(scene.front.seen().len(), asked, "{case}: the CA was asked again");
        scene.front.clear_faults();
        scene.s3.advance((retry_at - Utc::now() + TimeDelta::seconds(1)).to_std().expect("a time ahead"));
        let ended = other.run(&["ensure", "--json"]).expect(0);
        assert_eq!(ended.site()["in_place"]["generation"], 1, "{case}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_bundle_that_is_still_valid_stays_in_place() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    let first = scene.machine.run(&["ensure", "--json"]).expect(0).site()["in_place"].clone();
    let files = tree(&scene.machine.files(SITE));
    scene.want_another_name();
    scene.front.inject(Resource::NewOrder, 1000, problem(429, "rateLimited", Some("7200")));
    for said in ["error: www.example.test: pebble: could not place the order", "making generation 2 failed lately"] {
        let ended = scene.machine.run(&["ensure", "--json"]).expect(4).says(said).says("in the words of the CA");
        let until = first["not_after"].as_str().expect("a time");
        let ended = ended.says(&format!("; generation 1 is in place and valid until {until}\nhint: "));
        let site = ended.site();
        assert_eq!(
            (&site["outcome"], &site["in_place"]["serial"], &site["due"]["rule"]),
            (&"degraded".into(), &first["serial"], &"identifiers".into())
        );
        assert_eq!(site["in_place"]["source"], "datastore");
    }
    assert_eq!((tree(&scene.machine.files(SITE)), scene.s3.objects().get(&bundle(2))), (files, None));

    // --force does not wait, and asks again for this one site.
    scene.front.clear_faults();
    assert_eq!(scene.machine.run(&["ensure", "--force", SITE, "--json"]).expect(0).site()["in_place"]["generation"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopgap_is_replaced_as_soon_as_the_preferred_issuer_works() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    scene.machine.change("certfleet.toml", "[\"pebble\"]", "[\"pebble\", \"self-signed\"]");
    scene.front.inject(Resource::NewOrder, 1000, problem(429, "rateLimited", Some("7200")));
    let expect_stopgap = |source: &str| {
        let ended = scene.machine.run(&["ensure", "--json"]).expect(4).says("it makes do with a certificate of self-signed");
        let ended = ended.says("in the words of the CA").says("hint: clients that do not know this issuer will refuse it");
        let site = ended.site();
        assert_eq!((&site["in_place"]["source"], &site["in_place"]["issuer_class"]), (&source.into(), &"self-signed".into()));
        assert_eq!(site["passed_over"][0]["issuer"], "pebble");
        assert!(site["passed_over"][0]["reason"].as_str().expect("a reason").contains("in the words of the CA"));
    };
    expect_stopgap("issued");
    let asked = scene.front.seen().len();
    expect_stopgap("datastore");
    assert_eq!(scene.front.seen().len(), asked, "the CA was asked again");

    // Its time has come, and it still refuses: the stopgap stays, and no second one is made.
    scene.s3.advance(Duration::from_secs(7300));
    let ended = scene.machine.run(&["ensure", "--json"]).expect(4);
    assert_eq!(ended.site()["in_place"]["generation"], 1, "{ended:?}");
    assert!(scene.front.seen().len() > asked, "the CA is asked once more");

    scene.front.clear_faults();
    scene.s3.advance(Duration::from_secs(7300));
    let ended = scene.machine.run(&["ensure", "--json"]).expect(0);
    let site = ended.site();
    assert_eq!((&site["in_place"]["generation"], &site["in_place"]["issuer"]), (&2.into(), &"pebble".into()));
    assert_eq!((&site["due"]["rule"], &site["problem"]), (&"issuer".into(), &serde_json::Value::Null));
}
