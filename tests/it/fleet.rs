//! The use cases on a datastore in memory, with time that the test moves. What is issued is real; what is lost, is lost on purpose.

mod best_effort;
mod careless;
mod machine;
mod node;

use std::time::Duration;

use certfleet::datastore::Datastore as _;
use certfleet::domain::bundle::Bundle;
use certfleet::domain::key_type::KeyType;
use certfleet::domain::object_key::{Attempt, Generation, ObjectKey};
use certfleet::domain::plan::{Intent, Source};
use certfleet::domain::record::{self, BundleRecord, IssuerClass, LeaseRecord, LeaseState};
use certfleet::domain::trust::Trust;
use certfleet::fleet::bundle_object;
use certfleet::fleet::issuers::Anchors;
use certfleet::fleet::report::Outcome;
use certfleet::fleet::seal::Seal;
use certfleet::fleet::snapshot::Snapshot;
use certfleet::issuer::self_signed::SelfSigned;
use certfleet::issuer::{Issuer as _, Request};
use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use self::machine::{DAY, Loss, World, forced, site};

fn bundle_key(generation: u64) -> ObjectKey {
    ObjectKey::bundle(&site(&["ca"]).site.name, Generation(generation))
}

fn lease_key(generation: u64, attempt: u32) -> ObjectKey {
    ObjectKey::lease(&site(&["ca"]).site.name, Generation(generation), Attempt(attempt))
}

async fn lease(world: &World, generation: u64, attempt: u32) -> LeaseRecord {
    record::read(&world.object(&lease_key(generation, attempt)).await).expect("a lease")
}

#[track_caller]
fn assert_done(report: &certfleet::fleet::report::SiteReport, source: Source, generation: u64) {
    assert_eq!(report.outcome, Outcome::Done, "{report:?}");
    let in_place = report.in_place.as_ref().expect("something in place");
    assert_eq!((in_place.source, in_place.generation()), (source, Generation(generation)));
}

#[tokio::test(start_paused = true)]
async fn twenty_machines_at_once_issue_once() {
    let world = World::new();
    let machines: Vec<_> = (0..20).map(|number| world.machine(&format!("ws-{number}"))).collect();
    let reports = join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))).await;
    assert_eq!(world.ca.issued(), 1);
    let fingerprint =
        |report: &certfleet::fleet::report::SiteReport| report.in_place.as_ref().expect("in place").leaf().fingerprint.clone();
    for (report, machine) in reports.iter().zip(&machines) {
        assert_eq!(report.outcome, Outcome::Done, "{report:?}");
        assert_eq!(fingerprint(report), fingerprint(&reports[0]));
        let local = machine.runtimedata().read(&report.site).expect("readable").expect("files");
        assert_eq!(local.leaf().fingerprint, fingerprint(report));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_with_everything_valid_asks_the_store_twice_and_writes_nothing() {
    let world = World::new();
    let machine = world.machine("build");
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
    world.store.calls.lock().expect("no panic").clear();
    let files = || std::fs::read_dir(machine.directory.path().join("ssl/www.example.test")).expect("files");
    let times = |entry: Result<std::fs::DirEntry, _>| entry.expect("a file").metadata().expect("metadata").modified().expect("a time");
    let before: Vec<_> = files().map(times).collect();
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Datastore, 1);
    assert_eq!(*world.store.calls.lock().expect("no panic"), ["list ", "get bundles/www.example.test/0000000001"]);
    assert_eq!(files().map(times).collect::<Vec<_>>(), before);
}

#[tokio::test(start_paused = true)]
async fn a_bundle_is_due_at_seven_days_to_the_second() {
    for (left_secs, issued) in [(604_801, 1), (604_800, 2)] {
        let world = World::new();
        let machine = world.machine("build");
        let report = machine.ensure(site(&["ca"])).await;
        let not_after = report.in_place.expect("in place").leaf().not_after;
        let now = certfleet::datastore::Datastore::list(&*world.store, "none", None).await.expect("a listing").now;
        let until = not_after - now - chrono::Duration::seconds(left_secs);
        tokio::time::advance(until.to_std().expect("ahead")).await;
        assert_eq!(machine.ensure(site(&["ca"])).await.outcome, Outcome::Done);
        assert_eq!(world.ca.issued(), issued, "{left_secs} s left");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_recorded_and_binds_the_whole_fleet_until_its_time() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    world.ca.refuse("CAA forbids it", None);
    let report = first.ensure(site(&["ca"])).await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.problem.expect("a problem").what.contains("CAA forbids it"));
    assert!(matches!(lease(&world, 1, 1).await.state, LeaseState::Failed { .. }));

    let report = second.ensure(site(&["ca"])).await;
    assert_eq!((report.outcome, world.ca.asked()), (Outcome::Failed, 1));
    assert!(report.problem.expect("a problem").what.contains("CAA forbids it"));

    world.ca.refuse("still forbidden", None);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!((second.ensure(site(&["ca"])).await.outcome, world.ca.asked()), (Outcome::Failed, 2));
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!((first.ensure(site(&["ca"])).await.outcome, world.ca.asked()), (Outcome::Failed, 2));
    tokio::time::advance(Duration::from_secs(540)).await;
    assert_done(&first.ensure(site(&["ca"])).await, Source::Issued, 1);
    assert_eq!(lease(&world, 1, 3).await.state, LeaseState::Done);
}

#[tokio::test(start_paused = true)]
async fn an_issuer_that_asks_for_patience_gets_it_and_force_overrules() {
    let world = World::new();
    let machine = world.machine("build");
    world.ca.refuse("rate limited", Some(2 * DAY));
    machine.ensure(site(&["ca"])).await;
    tokio::time::advance(DAY).await;
    assert_eq!((machine.ensure(site(&["ca"])).await.outcome, world.ca.asked()), (Outcome::Failed, 1));
    assert_done(&machine.ensure(forced(site(&["ca"]))).await, Source::Issued, 1);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_leaves_what_still_serves() {
    let world = World::new();
    let machine = world.machine("build");
    machine.ensure(site(&["ca"])).await;
    tokio::time::advance(85 * DAY).await;
    world.ca.refuse("the CA is down", None);
    let report = machine.ensure(site(&["ca"])).await;
    assert_eq!(report.outcome, Outcome::Degraded);
    assert_eq!(report.in_place.expect("in place").generation(), Generation(1));
    assert_eq!(report.due.expect("due").rule(), "expiry");
}

#[tokio::test(start_paused = true)]
async fn only_local_files_with_six_days_left_and_a_failing_issuer_are_published_all_the_same() {
    let world = World::new();
    let machine = world.machine("build");
    machine.ensure(site(&["ca"])).await;
    certfleet::datastore::Datastore::delete(&*world.store, &bundle_key(1)).await.expect("deleted");
    tokio::time::advance(84 * DAY).await;
    world.ca.refuse("the CA is down", None);
    let report = machine.ensure(site(&["ca"])).await;
    assert_eq!(report.outcome, Outcome::Degraded);
    assert_eq!(report.in_place.expect("in place").source, Source::Runtimedata);
    world.object(&bundle_key(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_dies_is_followed_after_its_time_and_its_order_is_resumed() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    world.ca.exit.forget_permits(1_000);
    {
        let dies = first.ensure(site(&["ca"]));
        tokio::pin!(dies);
        // Ordered and finalized, and dead before the certificate was stored anywhere.
        tokio::select! {
            _ = &mut dies => panic!("it waits at the exit"),
            () = async { while world.ca.issued() == 0 { tokio::task::yield_now().await } } => {}
        }
    }
    world.ca.exit.add_permits(1_000);
    let started = tokio::time::Instant::now();
    assert_done(&second.ensure(site(&["ca"])).await, Source::Issued, 1);
    assert!(started.elapsed() > Duration::from_secs(120), "{:?}", started.elapsed());
    assert_eq!((world.ca.issued(), world.ca.asked()), (1, 2));
    assert_eq!(lease(&world, 1, 2).await.holder.node, "ws-2");
}

#[tokio::test(start_paused = true)]
async fn the_next_run_of_a_machine_does_not_wait_for_its_own_dead() {
    let world = World::new();
    let machine = world.machine("build");
    world.ca.exit.forget_permits(1_000);
    tokio::select! {
        _ = machine.ensure(site(&["ca"])) => panic!("it waits at the exit"),
        () = async { while world.ca.issued() == 0 { tokio::task::yield_now().await } } => {}
    }
    world.ca.exit.add_permits(1_000);
    let machine = machine.restarted();
    let started = tokio::time::Instant::now();
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(world.ca.issued(), 1);
}

/// An order that the fleet has written down, and that the CA does not know any more.
fn useless_order(world: &World, bundle: &Bundle) -> record::OrderRecord {
    let wanted = record::Wanted { identifiers: vec!["www.example.test".to_owned()], key_type: KeyType::EcdsaP256, profile: None };
    let unsealed = record::Sealed::None { plaintext: String::new() };
    let mut order = record::OrderRecord { issuer: "ca".to_owned(), url: "https://ca.test/order/gone".to_owned(), wanted, key: unsealed };
    let beside = order.beside("www.example.test", Generation(1));
    order.key = world.seal().close(&bundle.key().to_pem(), &beside.each_ref().map(String::as_str)).expect("sealed");
    order
}

#[tokio::test(start_paused = true)]
async fn of_the_order_on_the_disk_and_the_one_in_the_lease_the_one_that_yields_is_taken() {
    for useless in ["in the lease", "on the disk"] {
        let world = World::new();
        let machine = world.machine("build");
        world.ca.exit.forget_permits(1_000);
        tokio::select! {
            _ = machine.ensure(site(&["ca"])) => panic!("it waits at the exit"),
            () = async { while world.ca.issued() == 0 { tokio::task::yield_now().await } } => {}
        }
        world.ca.exit.add_permits(1_000);
        let order = useless_order(&world, &strange_bundle().await.0);
        if useless == "in the lease" {
            // Another machine's was written over ours.
            let holder = world.machine("ws-3").fleet.holder;
            let over = LeaseRecord { holder, state: LeaseState::Released, order: Some(order), ..lease(&world, 1, 1).await };
            world.overwrite(&lease_key(1, 1), record::write(&over)).await;
        } else {
            let kept = record::KeptOrder { version: record::VERSION, generation: Generation(1), order };
            machine.fleet.spool.keep_order(&site(&["ca"]).site.name, &kept).expect("kept");
        }
        assert_done(&machine.restarted().ensure(site(&["ca"])).await, Source::Issued, 1);
        assert_eq!((world.ca.asked(), world.ca.issued()), (2, 1), "useless {useless}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_living_holder_keeps_its_lease_for_as_long_as_the_ca_takes() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    world.ca.gate.forget_permits(1_000);
    let slow = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        tokio::time::sleep(Duration::from_secs(500)).await;
        world.ca.gate.add_permits(1_000);
    };
    let (one, two, ()) = tokio::join!(first.ensure(site(&["ca"])), second.ensure(site(&["ca"])), slow);
    assert_eq!((one.outcome, two.outcome), (Outcome::Done, Outcome::Done));
    assert_eq!((world.ca.issued(), world.ca.asked()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_refresh_stops_before_it_finalizes() {
    let world = World::new();
    let machine = world.machine("ws-1");
    world.ca.gate.forget_permits(1_000);
    let cut_off = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        for _ in 0..3 {
            world.store.lose("leases/", Loss::Request);
        }
        // It gives up by itself; the second round then finds its own dead lease and a CA that answers.
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(world.ca.issued(), 0);
        world.ca.gate.add_permits(1_000);
    };
    let (report, ()) = tokio::join!(machine.ensure(site(&["ca"])), cut_off);
    assert_done(&report, Source::Issued, 1);
    assert_eq!((world.ca.issued(), world.ca.asked()), (1, 2));
    let steps = machine.steps();
    assert!(steps.contains(&"the lease was lost (it could not be refreshed for a minute): looking again".to_owned()), "{steps:?}");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_was_overtaken_discards_its_own_and_follows() {
    let world = World::new();
    let (frozen, other) = (world.machine("ws-1"), world.machine("ws-2"));
    world.ca.exit.forget_permits(1_000);
    let woken = async {
        while world.ca.issued() == 0 {
            tokio::task::yield_now().await;
        }
        // While the first sits on its finished certificate, somebody publishes another one as the same generation.
        let (bundle, origin) = strange_bundle().await;
        let name = site(&["ca"]).site.name;
        let object = bundle_object::compose(&world.seal(), &name, Generation(1), &bundle, &origin, &other.fleet.holder).expect("an object");
        world.overwrite(&bundle_key(1), object.to_vec()).await;
        world.ca.exit.add_permits(1_000);
        bundle.leaf().fingerprint.clone()
    };
    let (report, fingerprint) = tokio::join!(frozen.ensure(site(&["ca"])), woken);
    assert_done(&report, Source::Datastore, 1);
    assert_eq!(report.in_place.expect("in place").leaf().fingerprint, fingerprint);
    assert_eq!(frozen.fleet.spool.read(&report.site).expect("readable"), None);
}

struct NoLease;

#[async_trait::async_trait]
impl certfleet::issuer::Lease for NoLease {
    async fn record_order(&self, _: &certfleet::issuer::Order) -> Result<(), certfleet::issuer::LeaseEnded> {
        Ok(())
    }
    async fn confirm(&self) -> Result<(), certfleet::issuer::LeaseEnded> {
        Ok(())
    }
    async fn ended(&self) -> certfleet::issuer::LeaseEnded {
        std::future::pending().await
    }
    fn progress(&self, _: &str) {}

    fn left_behind(&self, _: &str) {}

    fn makes_do(&self, _: &str) {}
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_neither_a_defeat_nor_a_victory() {
    for (prefix, loss) in [("leases/", Loss::Reply), ("bundles/", Loss::Reply)] {
        let world = World::new();
        let machine = world.machine("build");
        world.store.lose(prefix, loss);
        let started = tokio::time::Instant::now();
        assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
        assert_eq!(world.ca.issued(), 1, "{prefix} {loss:?}");
        let attempts = world.store.inner.list("leases/", None).await.expect("a listing").entries.len();
        assert_eq!(attempts, 1, "{prefix} {loss:?}: it took itself for somebody else");
        assert!(started.elapsed() < Duration::from_secs(1), "{prefix} {loss:?}: it waited for itself");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_wins_a_lease_looks_again() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    world.ca.exit.forget_permits(1_000);
    tokio::select! {
        _ = first.ensure(site(&["ca"])) => panic!("it waits at the exit"),
        () = async { while world.ca.issued() == 0 { tokio::task::yield_now().await } } => {}
    }
    world.ca.exit.add_permits(1_000);
    tokio::time::advance(Duration::from_secs(121)).await;
    // The first, thought dead, publishes after the second has listed and before the second has its lease.
    let (bundle, origin) = strange_bundle().await;
    let name = site(&["ca"]).site.name;
    let object = bundle_object::compose(&world.seal(), &name, Generation(1), &bundle, &origin, &first.fleet.holder).expect("an object");
    world.store.precede("leases/", bundle_key(1), object.to_vec());
    assert_done(&second.ensure(site(&["ca"])).await, Source::Datastore, 1);
    assert_eq!(world.ca.asked(), 1, "nobody asked the CA again");
    assert_eq!(lease(&world, 1, 2).await.state, LeaseState::Done);
}

/// A bundle that somebody else had issued.
async fn strange_bundle() -> (Bundle, bundle_object::Origin) {
    strange_bundle_at(machine::start_time()).await
}

async fn strange_bundle_at(now: DateTime<Utc>) -> (Bundle, bundle_object::Origin) {
    let own = SelfSigned::new(90 * DAY);
    let identifiers = site(&["ca"]).site.identifiers;
    let request = Request { identifiers, key_type: KeyType::EcdsaP256, profile: None, now, unfinished: None, other_unfinished: None };
    let bundle = own.issue(&request, &NoLease).await.expect("a bundle");
    let origin = bundle_object::Origin { issuer: "ca".to_owned(), class: IssuerClass::Acme, profile: None, passed_over: Vec::new() };
    (bundle, origin)
}

#[tokio::test(start_paused = true)]
async fn an_upload_that_fails_is_made_good_from_the_spool_without_another_issuance() {
    let world = World::new();
    let machine = world.machine("build");
    world.store.lose("bundles/", Loss::Request);
    let report = machine.ensure(site(&["ca"])).await;
    assert_eq!(report.outcome, Outcome::Temporary);
    let machine = machine.restarted();
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Spool, 1);
    assert_eq!(world.ca.issued(), 1);
    assert_eq!(machine.fleet.spool.read(&report.site).expect("readable"), None);
}

#[tokio::test(start_paused = true)]
async fn objects_that_cannot_serve_are_refused_by_name_kept_and_passed_over() {
    let stranger = age::x25519::Identity::generate();
    let rows: [(&str, &str); 6] = [
        ("truncated", "is damaged"),
        ("altered", "proof is missing or wrong"),
        ("newer", "format 99"),
        ("sealed to a stranger", "is sealed to"),
        ("copied from another site", "it was copied from there"),
        ("in the clear", "proof is missing or wrong"),
    ];
    for (damage, message) in rows {
        let world = World::new();
        let machine = world.machine("build");
        machine.ensure(site(&["ca"])).await;
        let good = world.object(&bundle_key(1)).await;
        let mut record: BundleRecord = record::read(&good).expect("a record");
        let mut bad = match damage {
            "truncated" => good[..good.len() / 2].to_vec(),
            "newer" => String::from_utf8(good.clone()).expect("text").replacen("\"version\": 1", "\"version\": 99", 1).into_bytes(),
            _ => Vec::new(),
        };
        match damage {
            "altered" => record.issuer = "spare".to_owned(),
            "sealed to a stranger" => {
                let seal = Seal::Age { identity: stranger.clone(), origin: String::new() };
                record.key = seal.close("x", &[]).expect("sealed");
            }
            "copied from another site" => record.site = "other.example.test".to_owned(),
            "in the clear" => record.key = record::Sealed::None { plaintext: "-----BEGIN PRIVATE KEY-----".to_owned() },
            _ => {}
        }
        if bad.is_empty() {
            bad = record::write(&record);
        }
        world.overwrite(&bundle_key(1), bad.clone()).await;
        // The next source is runtimedata, which has the good copy.
        let report = machine.ensure(site(&["ca"])).await;
        assert_done(&report, Source::Runtimedata, 2);
        let (source, reason) = &report.refused[0];
        assert_eq!(*source, Source::Datastore, "{damage}");
        assert!(reason.contains("bundles/www.example.test/0000000001") && reason.contains(message), "{damage}: {reason}");
        assert_eq!(world.object(&bundle_key(1)).await, bad, "{damage}");
        assert_eq!(world.ca.issued(), 1, "{damage}");
    }
}

#[tokio::test(start_paused = true)]
async fn local_files_that_do_not_fit_each_other_are_refused_and_said() {
    let world = World::new();
    let (machine, other) = (world.machine("build"), World::new().machine("other"));
    let report = machine.ensure(site(&["ca"])).await;
    certfleet::datastore::Datastore::delete(&*world.store, &bundle_key(1)).await.expect("deleted");
    other.ensure(site(&["ca"])).await;
    let path = |machine: &machine::Machine| machine.runtimedata().directory(&report.site).join("privkey.pem");
    std::fs::copy(path(&other), path(&machine)).expect("copied");
    let report = machine.ensure(site(&["ca"])).await;
    assert_done(&report, Source::Issued, 1);
    assert!(report.refused[0].1.contains("the private key does not belong to the certificate"), "{:?}", report.refused);
}

#[tokio::test(start_paused = true)]
async fn chains_must_lead_to_the_roots_of_their_issuer_and_are_not_lost_when_they_do_not() {
    let world = World::new();
    let strict = world.machine_trusting("build", &Anchors::Given(Trust::web()));
    let report = strict.ensure(site(&["ca"])).await;
    assert_eq!((report.outcome, world.ca.issued()), (Outcome::Failed, 1));
    let what = report.problem.expect("a problem").what;
    assert!(what.contains("what it issued is not trusted") && what.contains("does not lead to a public root"), "{what}");

    // The configuration is corrected: what was issued is fetched again, not issued again.
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_done(&world.machine("corrected").ensure(site(&["ca"])).await, Source::Issued, 1);
    assert_eq!((world.ca.issued(), world.ca.asked()), (1, 2));

    // Nor does a strict machine take it from the datastore, or from its own files.
    let local = strict.ensure(site(&["ca"])).await;
    assert!(
        local.refused[0].1.contains("bundles/www.example.test/0000000001: the chain does not lead to a public root"),
        "{:?}",
        local.refused
    );
}

#[tokio::test(start_paused = true)]
async fn a_stopgap_is_replaced_as_soon_as_the_preferred_issuer_delivers() {
    let world = World::new();
    let machine = world.machine("build");
    let wanted = || site(&["ca", "spare"]);
    world.ca.refuse("unreachable", None);
    let report = machine.ensure(wanted()).await;
    assert_eq!(report.outcome, Outcome::Degraded);
    assert_eq!(report.in_place.expect("in place").opened.record.issuer, "spare");
    assert_eq!(report.passed_over[0].issuer, "ca");

    let report = machine.ensure(wanted()).await;
    assert_eq!((report.outcome, world.ca.asked()), (Outcome::Degraded, 1), "its retry time has not come");

    tokio::time::advance(Duration::from_secs(61)).await;
    world.ca.refuse("unreachable", None);
    let report = machine.ensure(wanted()).await;
    assert_eq!((report.outcome, world.ca.asked(), world.spare.issued()), (Outcome::Degraded, 2, 1), "no second stopgap");

    tokio::time::advance(Duration::from_secs(61)).await;
    let report = machine.ensure(wanted()).await;
    assert_done(&report, Source::Issued, 2);
    assert_eq!(report.in_place.expect("in place").opened.record.issuer, "ca");
}

#[tokio::test(start_paused = true)]
async fn staging_and_live_never_meet() {
    let world = World::new();
    let machine = world.machine("build");
    let mut staging = site(&["ca"]);
    staging.site.name = "www.example.test+staging".parse().expect("a name");
    assert_done(&machine.ensure(staging.clone()).await, Source::Issued, 1);
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
    assert_eq!(world.ca.issued(), 2);
    assert_done(&machine.ensure(staging).await, Source::Datastore, 1);
    assert!(machine.directory.path().join("ssl/www.example.test+staging/privkey.pem").exists());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_created_where_creates_are_not_exclusive() {
    let world = World::new();
    let mut machine = world.machine("build");
    machine.fleet.creates = certfleet::fleet::Creates::Refused;
    let report = machine.ensure(site(&["ca"])).await;
    assert_eq!((report.outcome, world.ca.asked()), (Outcome::Failed, 0));
    assert!(report.problem.expect("a problem").hint.contains("election = \"sole\""));
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_makes_a_new_order_and_force_a_new_bundle() {
    let world = World::new();
    let machine = world.machine("build");
    machine.ensure(site(&["ca"])).await;
    let mut more = site(&["ca"]);
    more.site.identifiers.push("example.test".parse().expect("a name"));
    let report = machine.ensure(more.clone()).await;
    assert_done(&report, Source::Issued, 2);
    assert_eq!(report.due.expect("due").rule(), "identifiers");
    assert_done(&machine.ensure(more.clone()).await, Source::Datastore, 2);
    assert_done(&machine.ensure(forced(more)).await, Source::Issued, 3);
}

#[tokio::test(start_paused = true)]
async fn ten_forced_runs_at_once_make_one_new_bundle() {
    let world = World::new();
    let machines: Vec<_> = (0..10).map(|number| world.machine(&format!("ws-{number}"))).collect();
    assert_done(&machines[0].ensure(site(&["ca"])).await, Source::Issued, 1);
    world.ca.arrived.forget_permits(1);
    // Held at the gate until all have listed: whoever comes later asks for another new one, and gets it.
    world.ca.gate.forget_permits(1_000);
    let open = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        world.ca.gate.add_permits(1_000);
    };
    let (reports, ()) = tokio::join!(join_all(machines.iter().map(|machine| machine.ensure(forced(site(&["ca"]))))), open);
    assert!(reports.iter().all(|report| report.outcome == Outcome::Done));
    assert_eq!(world.ca.issued(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_lease_stops_nobody_for_ever() {
    let world = World::new();
    let machine = world.machine("build");
    world.overwrite(&lease_key(1, 1), b"{\"version\": 1".to_vec()).await;
    assert_eq!(machine.ensure(site(&["ca"])).await.outcome, Outcome::Failed);
    tokio::time::advance(Duration::from_secs(121)).await;
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_run_gives_its_lease_back() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    world.ca.gate.forget_permits(1_000);
    let interrupt = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        first.fleet.interrupt.cancel();
    };
    let (report, ()) = tokio::join!(first.ensure(site(&["ca"])), interrupt);
    assert_eq!(report.outcome, Outcome::Temporary);
    assert_eq!(lease(&world, 1, 1).await.state, LeaseState::Released);
    world.ca.gate.add_permits(1_000);
    let started = tokio::time::Instant::now();
    assert_done(&second.ensure(site(&["ca"])).await, Source::Issued, 1);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_full_or_read_only_disk_stops_the_run_before_anything_is_ordered() {
    let world = World::new();
    let machine = world.machine("build");
    // A file where the spool's directory belongs: whoever runs the tests as root ignores modes.
    std::fs::write(machine.directory.path().join("spool"), "").expect("a file");
    let report = machine.ensure(site(&["ca"])).await;
    assert_eq!((report.outcome, world.ca.asked()), (Outcome::Failed, 0));
    assert_eq!(lease(&world, 1, 1).await.state, LeaseState::Released);
}

#[tokio::test(start_paused = true)]
async fn why_a_run_ended_is_told_also_where_its_lease_cannot_be_given_back() {
    let world = World::new();
    let full = world.machine("full");
    std::fs::write(full.directory.path().join("spool"), "").expect("a file");
    // The create of the lease arrives, its release does not.
    world.store.lose_after(1, "leases/", Loss::Request);
    let problem = full.ensure(site(&["ca"])).await.problem.expect("a problem");
    assert!(problem.what.contains("/spool") && !problem.what.contains("the connection was closed"), "{problem:?}");
    let warnings = full.warnings();
    assert!(warnings[0].contains("the lease could not be given back") && warnings[0].contains("the connection was closed"), "{warnings:?}");

    let world = World::new();
    let machine = world.machine("build");
    world.ca.gate.forget_permits(1_000);
    // The create arrives, and the order.
    world.store.lose_after(2, "leases/", Loss::Request);
    let interrupt = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        machine.fleet.interrupt.cancel();
    };
    let (report, ()) = tokio::join!(machine.ensure(site(&["ca"])), interrupt);
    assert_eq!(report.problem.expect("a problem").what, "interrupted");
    assert_eq!(machine.warnings().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_a_person_supplies_becomes_the_next_generation_once() {
    let world = World::new();
    let (machine, other) = (world.machine("build"), World::new().machine("other"));
    machine.ensure(site(&["ca"])).await;
    let mut wanted = site(&["ca"]);
    other.ensure(site(&["ca"])).await;
    wanted.supplied = other.runtimedata().read(&wanted.site.name).expect("readable");
    assert_done(&machine.ensure(wanted.clone()).await, Source::Supplied, 2);
    assert_done(&machine.ensure(wanted).await, Source::Datastore, 2);
    assert_eq!(site(&["ca"]).intent, Intent::IfDue);
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Datastore, 2);
}

#[tokio::test(start_paused = true)]
async fn nobody_can_have_the_fleet_finish_an_order_with_a_key_of_theirs() {
    let theirs = strange_bundle().await.0.key().to_pem();
    let stranger = Seal::Age { identity: age::x25519::Identity::generate(), origin: String::new() };
    let world = World::new();
    let in_the_clear = record::Sealed::None { plaintext: theirs.to_string() };
    // Whoever knows the fleet's recipient can encrypt to it; but only with a proof of another identity.
    let sealed_to_us = {
        let recipient = world.identity.to_public();
        let ciphertext = age::encrypt_and_armor(&recipient, theirs.as_bytes()).expect("encrypted");
        let record::Sealed::Age { proof, .. } = stranger.close(&theirs, &[]).expect("sealed") else { panic!("sealed") };
        record::Sealed::Age { recipient: recipient.to_string(), ciphertext, proof }
    };
    for key in [in_the_clear, sealed_to_us] {
        let world = World { identity: world.identity.clone(), ..World::new() };
        let machine = world.machine("build");
        let order = record::OrderRecord {
            issuer: "ca".to_owned(),
            url: "https://ca.test/order/genuine".to_owned(),
            wanted: record::Wanted { identifiers: vec!["www.example.test".to_owned()], key_type: KeyType::EcdsaP256, profile: None },
            key,
        };
        let planted = LeaseRecord {
            version: 1,
            site: "www.example.test".to_owned(),
            generation: Generation(1),
            attempt: Attempt(1),
            holder: world.machine("thief").fleet.holder,
            state: LeaseState::Released,
            order: Some(order),
            failures: 0,
            passed_over: Vec::new(),
        };
        world.overwrite(&lease_key(1, 1), record::write(&planted)).await;
        assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
        assert_eq!((world.ca.asked(), world.ca.resumed()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_refuses_to_write_an_order_down_costs_one_order() {
    let world = World::new();
    let machine = world.machine("build");
    world.store.lose_after(1, "leases/", Loss::Refused);
    let report = machine.ensure(site(&["ca"])).await;
    assert_eq!((report.outcome, world.ca.asked(), world.ca.issued()), (Outcome::Failed, 1, 0));
    assert_eq!(report.problem.expect("a problem").hint, "allow overwrites");
}

#[tokio::test(start_paused = true)]
async fn no_stopgap_replaces_what_still_serves_for_days() {
    let world = World::new();
    let machine = world.machine("build");
    assert_done(&machine.ensure(site(&["ca", "spare"])).await, Source::Issued, 1);
    tokio::time::advance(84 * DAY).await;
    world.ca.refuse("out of order", None);
    let report = machine.ensure(site(&["ca", "spare"])).await;
    assert_eq!((report.outcome, world.spare.issued()), (Outcome::Degraded, 0));
    assert_eq!(report.in_place.expect("in place").generation(), Generation(1));
    tokio::time::advance(5 * DAY).await;
    world.ca.refuse("still out of order", None);
    let report = machine.ensure(site(&["ca", "spare"])).await;
    assert_eq!(report.in_place.expect("in place").opened.record.issuer, "spare");
}

#[tokio::test(start_paused = true)]
async fn retry_times_count_from_the_answer() {
    let world = World::new();
    world.ca.think(Duration::from_secs(300));
    world.ca.refuse("rate limited", Some(Duration::from_secs(240)));
    let report = world.machine("build").ensure(site(&["ca"])).await;
    let retry_at = report.problem.expect("a problem").retry_at.expect("a time");
    assert_eq!((retry_at - machine::start_time()).num_seconds(), 540);
}

#[tokio::test(start_paused = true)]
async fn a_site_that_somebody_else_is_at_holds_up_no_other() {
    let world = World::new();
    let (other, machine) = (world.machine("ws-1"), world.machine("build"));
    let wanted: Vec<_> = (0..40)
        .map(|number| {
            let mut wanted = site(&["ca"]);
            wanted.site.name = format!("site-{number}.example.test").parse().expect("a name");
            wanted.site.identifiers = vec![wanted.site.name.identifier().clone()];
            wanted
        })
        .collect();
    let held = LeaseRecord {
        version: 1,
        site: wanted[0].site.name.file_name(),
        generation: Generation(1),
        attempt: Attempt(1),
        holder: other.fleet.holder.clone(),
        state: LeaseState::Held,
        order: None,
        failures: 0,
        passed_over: Vec::new(),
    };
    world.overwrite(&ObjectKey::lease(&wanted[0].site.name, Generation(1), Attempt(1)), record::write(&held)).await;
    let snapshot = Snapshot::take(&*world.store).await.expect("a listing");
    let watched = async {
        // Half the life of the lease.
        tokio::time::sleep(Duration::from_secs(60)).await;
        world.store.inner.list("bundles/", None).await.expect("a listing").entries.len()
    };
    let (reports, bundles) = tokio::join!(machine.fleet.ensure(&wanted, &snapshot), watched);
    assert_eq!(bundles, 39, "while one was held");
    let order: Vec<_> = reports.iter().map(|report| report.site.clone()).collect();
    assert_eq!(order, wanted.iter().map(|wanted| wanted.site.name.clone()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_waiting_says_so_and_keeps_what_serves() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    assert_done(&second.ensure(site(&["ca"])).await, Source::Issued, 1);
    tokio::time::advance(85 * DAY).await;
    world.ca.gate.forget_permits(1_000);
    let patient = async {
        let report = second.ensure(site(&["ca"])).await;
        world.ca.gate.add_permits(1_000);
        report
    };
    let (made, report) = tokio::join!(first.ensure(site(&["ca"])), patient);
    assert_eq!((report.outcome, report.in_place.expect("in place").generation()), (Outcome::Busy, Generation(1)));
    assert!(report.problem.expect("a problem").what.contains("ws-1 has been making generation 2"));
    assert_done(&made, Source::Issued, 2);
}

#[tokio::test(start_paused = true)]
async fn a_publication_counts_even_when_the_leases_last_word_is_lost() {
    let world = World::new();
    let machine = world.machine("build");
    world.store.lose_after(2, "leases/", Loss::Request);
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
}

#[tokio::test(start_paused = true)]
async fn who_loses_the_race_to_publish_a_standby_follows() {
    let world = World::new();
    let machine = world.machine("build");
    machine.ensure(site(&["ca"])).await;
    world.store.inner.delete(&bundle_key(1)).await.expect("deleted");
    tokio::time::advance(84 * DAY).await;
    world.ca.refuse("the CA is down", None);
    let (bundle, origin) = strange_bundle_at(machine::start_time() + 84 * DAY).await;
    let name = site(&["ca"]).site.name;
    let object = bundle_object::compose(&world.seal(), &name, Generation(1), &bundle, &origin, &world.machine("ws-2").fleet.holder);
    world.store.precede("bundles/", bundle_key(1), object.expect("an object").to_vec());
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Datastore, 1);
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_published_does_not_make_the_fleet_forget_when_to_ask_again() {
    let world = World::new();
    let machine = world.machine("build");
    machine.ensure(site(&["ca"])).await;
    world.store.inner.delete(&bundle_key(1)).await.expect("deleted");
    tokio::time::advance(84 * DAY).await;
    world.ca.refuse("rate limited", Some(2 * DAY));
    let asked = world.ca.asked();
    for _ in 0..3 {
        assert_eq!(machine.ensure(site(&["ca"])).await.outcome, Outcome::Degraded);
        tokio::time::advance(DAY / 2).await;
    }
    assert_eq!(world.ca.asked() - asked, 1);
    tokio::time::advance(DAY).await;
    assert_eq!(machine.ensure(site(&["ca"])).await.outcome, Outcome::Done);
}
