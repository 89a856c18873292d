//! The election on a store that accepts second creates.

use std::time::Duration;

use certfleet::datastore::Datastore as _;
use certfleet::domain::candidacy::SETTLING;
use certfleet::domain::lease::TIME_TO_LIVE;
use certfleet::domain::object_key::{Attempt, Generation, Listed, ObjectKey};
use certfleet::domain::plan::Source;
use certfleet::domain::record::{self, ExclusiveCreate, Holder, LeaseRecord, LeaseState};
use certfleet::fleet::bundle_object;
use certfleet::fleet::first_use;
use certfleet::fleet::identity::{IdentityPlace, SealWanted};
use certfleet::fleet::report::{Outcome, SiteReport};
use certfleet::fleet::snapshot::Snapshot;
use certfleet::system::random;
use chrono::TimeDelta;
use futures_util::future::join_all;

use super::careless::{Lag, careless};
use super::machine::{self, DAY, Machine, World, site};
use super::{assert_done, bundle_key, lease, lease_key, strange_bundle, strange_bundle_at};

const NO_LAG: Lag = Lag { own: TimeDelta::zero(), of_others: TimeDelta::zero() };

fn fleet_of(world: &World, count: usize) -> Vec<Machine> {
    (0..count).map(|number| careless(world, &format!("ws-{number}"), NO_LAG).0).collect()
}

fn fingerprint(report: &SiteReport) -> String {
    report.in_place.as_ref().expect("in place").leaf().fingerprint.clone()
}

/// What lies in the store, which is what everybody must have.
async fn stored(world: &World, generation: u64) -> String {
    let object = world.object(&bundle_key(generation)).await;
    let name = site(&["ca"]).site.name;
    let opened = bundle_object::open(&world.seal(), &name, Generation(generation), &object).expect("a bundle");
    opened.bundle.leaf().fingerprint.clone()
}

async fn candidacies(world: &World) -> Vec<(Attempt, String)> {
    let listing = world.store.inner.list("leases/", None).await.expect("a listing");
    let stood = listing.entries.iter().filter_map(|entry| match entry.key.listed() {
        Listed::Candidacy(_, _, attempt, run) => Some((attempt, run)),
        _ => None,
    });
    stood.collect()
}

fn held_by(node: &str, attempt: u32) -> LeaseRecord {
    LeaseRecord {
        version: 1,
        site: "www.example.test".to_owned(),
        generation: Generation(1),
        attempt: Attempt(attempt),
        holder: Holder { node: node.to_owned(), run: random::name(), place: format!("place of {node}") },
        state: LeaseState::Held,
        order: None,
        failures: 0,
        passed_over: Vec::new(),
    }
}

async fn leave_candidacy(world: &World, record: &LeaseRecord) {
    let name = site(&["ca"]).site.name;
    world.overwrite(&ObjectKey::candidacy(&name, Generation(1), record.attempt, &record.holder.run), record::write(record)).await;
}

#[tokio::test(start_paused = true)]
async fn of_twenty_at_once_one_issues_and_the_others_withdraw() {
    let world = World::new();
    let machines = fleet_of(&world, 20);
    let reports = join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))).await;
    assert_eq!(world.ca.issued(), 1);
    for report in &reports {
        assert_eq!((report.outcome, fingerprint(report)), (Outcome::Done, stored(&world, 1).await), "{report:?}");
    }
    let winner = lease(&world, 1, 1).await;
    assert_eq!((winner.state, candidacies(&world).await), (LeaseState::Done, vec![(Attempt(1), winner.holder.run)]));
}

#[tokio::test(start_paused = true)]
async fn whoever_comes_late_follows_however_slow_the_others_writes_are() {
    // The winner's lease arrives long after it was elected, and the CA takes a while.
    for slow in [0, 3, 12] {
        let world = World::new();
        let (first, store) = careless(&world, "ws-first", NO_LAG);
        let machines = fleet_of(&world, 24);
        let begun = async {
            // From the moment that it can be seen.
            while candidacies(&world).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            store.slow_down("leases/", Duration::from_secs(slow));
            let late = machines.iter().enumerate().map(|(number, machine)| async move {
                tokio::time::sleep(Duration::from_millis(700) * u32::try_from(number).expect("few")).await;
                machine.ensure(site(&["ca"])).await
            });
            join_all(late).await
        };
        let (report, late) = tokio::join!(first.ensure(site(&["ca"])), begun);
        assert_done(&report, Source::Issued, 1);
        assert_eq!((world.ca.asked(), world.ca.issued()), (1, 1), "{slow} s");
        assert!(late.iter().all(|late| fingerprint(late) == fingerprint(&report)));
    }
}

#[tokio::test(start_paused = true)]
async fn two_who_were_not_shown_each_other_in_time_notice_before_they_finalize() {
    let world = World::new();
    // Each is elected in its own eyes.
    let late = TimeDelta::seconds(8);
    let machines: Vec<_> = (0..3).map(|number| careless(&world, &format!("ws-{number}"), Lag { of_others: late, ..NO_LAG }).0).collect();
    world.ca.gate.forget_permits(1_000);
    let challenges = async {
        world.ca.arrived.acquire_many(3).await.expect("never closed").forget();
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.ca.gate.add_permits(1_000);
    };
    let (reports, ()) = tokio::join!(join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))), challenges);
    for report in &reports {
        assert_eq!((report.outcome, fingerprint(report)), (Outcome::Done, stored(&world, 1).await), "{report:?}");
    }
    assert_eq!((world.ca.asked() >= 3, world.ca.issued()), (true, 1));
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lease_was_written_over_stops_and_leaves_it_alone() {
    // It finds out before it finalizes, or when it would refresh.
    for refreshes in [false, true] {
        let world = World::new();
        let (machine, _) = careless(&world, "ws-1", NO_LAG);
        world.ca.gate.forget_permits(1_000);
        let rival = async {
            world.ca.arrived.acquire().await.expect("never closed").forget();
            world.overwrite(&lease_key(1, 1), record::write(&held_by("ws-3", 1))).await;
            if refreshes {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            world.ca.gate.add_permits(1_000);
            tokio::time::sleep(Duration::from_secs(30)).await;
            (world.ca.issued(), lease(&world, 1, 1).await.holder.node)
        };
        let (report, (issued, node)) = tokio::join!(machine.ensure(site(&["ca"])), rival);
        assert_eq!((issued, node.as_str()), (0, "ws-3"));
        let why = if refreshes { "another machine's was written over it" } else { "another machine has taken over" };
        let steps = machine.steps();
        assert!(steps.contains(&format!("the lease was lost ({why}): looking again")), "{steps:?}");
        // The rival is dead, and its time passes.
        assert_done(&report, Source::Issued, 1);
        assert_eq!((world.ca.issued(), lease(&world, 1, 2).await.state), (1, LeaseState::Done));
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_appears_while_a_candidate_waits_is_not_written_over() {
    let world = World::new();
    let (machine, _) = careless(&world, "ws-1", NO_LAG);
    let rival = async {
        while candidacies(&world).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A machine that needs no candidacy, because it says that it alone renews.
        world.overwrite(&lease_key(1, 1), record::write(&held_by("ws-3", 1))).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        (world.ca.asked(), lease(&world, 1, 1).await.holder.node)
    };
    let (report, (asked, node)) = tokio::join!(machine.ensure(site(&["ca"])), rival);
    assert_eq!((asked, node.as_str()), (0, "ws-3"));
    assert_done(&report, Source::Issued, 1);
}

#[tokio::test(start_paused = true)]
async fn a_candidacy_that_arrives_after_the_election_disturbs_nobody_whatever_its_name() {
    for lease_takes in [0, 10] {
        let world = World::new();
        let (first, store) = careless(&world, "ws-1", NO_LAG);
        let (mut late, slow) = careless(&world, "ws-2", NO_LAG);
        late.fleet.holder.run = "0".repeat(32);
        slow.slow_down("leases/", SETTLING + Duration::from_secs(2));
        world.ca.gate.forget_permits(1_000);
        let challenges = async {
            while candidacies(&world).await.is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            store.slow_down("leases/", Duration::from_secs(lease_takes));
            // The one that comes late is there, and has not looked yet.
            tokio::time::sleep(Duration::from_secs(9)).await;
            world.ca.gate.add_permits(1_000);
        };
        // It looks before anybody stands.
        let (late, report, ()) = tokio::join!(late.ensure(site(&["ca"])), first.ensure(site(&["ca"])), challenges);
        assert_done(&report, Source::Issued, 1);
        assert_done(&late, Source::Datastore, 1);
        assert_eq!((world.ca.asked(), world.ca.issued()), (1, 1), "{lease_takes} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_show_what_was_written_elects_nobody() {
    let world = World::new();
    let lag = Lag { own: TimeDelta::seconds(6), of_others: TimeDelta::seconds(6) };
    let machines: Vec<_> = (0..3).map(|number| careless(&world, &format!("ws-{number}"), lag).0).collect();
    let reports = join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))).await;
    for report in &reports {
        let problem = report.problem.as_ref().expect("a problem");
        assert!(report.outcome == Outcome::Failed && problem.what.contains("does not list leases/www.example.test/"), "{report:?}");
        assert!(problem.hint.contains("election = \"sole\""), "{problem:?}");
    }
    assert_eq!((world.ca.asked(), candidacies(&world).await), (0, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_died_is_in_the_way_for_as_long_as_a_lease_and_not_of_its_own_place() {
    for (node, waits) in [("ws-2", true), ("build", false)] {
        let world = World::new();
        leave_candidacy(&world, &held_by(node, 1)).await;
        let (machine, _) = careless(&world, "build", NO_LAG);
        let begun = tokio::time::Instant::now();
        assert_done(&machine.ensure(site(&["ca"])).await, Source::Issued, 1);
        assert_eq!(begun.elapsed() > TIME_TO_LIVE, waits, "{node} {:?}", begun.elapsed());
        assert_eq!(world.ca.issued(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_is_interrupted_withdraws() {
    let world = World::new();
    let (machine, _) = careless(&world, "build", NO_LAG);
    let interrupt = async {
        while candidacies(&world).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        machine.fleet.interrupt.cancel();
    };
    let (report, ()) = tokio::join!(machine.ensure(site(&["ca"])), interrupt);
    assert_eq!((report.outcome, report.problem.expect("a problem").what.as_str()), (Outcome::Temporary, "interrupted"));
    assert_eq!((candidacies(&world).await, world.ca.asked()), (Vec::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_failure_binds_the_fleet_here_too() {
    let world = World::new();
    world.ca.refuse("CAA forbids it", None);
    let machines = fleet_of(&world, 8);
    let reports = join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))).await;
    assert!(reports.iter().all(|report| report.outcome == Outcome::Failed), "{reports:?}");
    assert_eq!(world.ca.asked(), 1);
    tokio::time::advance(Duration::from_secs(61)).await;
    let reports = join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))).await;
    assert!(reports.iter().all(|report| report.outcome == Outcome::Done), "{reports:?}");
    assert_eq!((world.ca.asked(), world.ca.issued()), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn two_who_publish_at_once_end_with_one_bundle() {
    for slow in [1, 2, 4] {
        let world = World::new();
        let (first, _) = careless(&world, "build-1", NO_LAG);
        let (second, store) = careless(&world, "build-2", NO_LAG);
        for machine in [&first, &second] {
            let (bundle, _) = strange_bundle_at(machine::start_time()).await;
            machine.runtimedata().keep(&site(&["ca"]).site.name, &bundle).expect("kept");
        }
        // It looked before the other had written, and its own arrives later.
        store.slow_down("bundles/", Duration::from_secs(slow));
        let (other, one) = tokio::join!(second.ensure(site(&["ca"])), first.ensure(site(&["ca"])));
        let lies_there = stored(&world, 1).await;
        assert_eq!([fingerprint(&one), fingerprint(&other)], [lies_there.clone(), lies_there.clone()], "{slow} s");
        for machine in [&first, &second] {
            let local = machine.runtimedata().read(&one.site).expect("readable").expect("files");
            assert_eq!(local.leaf().fingerprint, lies_there);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_others_have_published_is_not_written_over() {
    let world = World::new();
    let (machine, _) = careless(&world, "build", NO_LAG);
    let (bundle, origin) = strange_bundle().await;
    let name = site(&["ca"]).site.name;
    let object = bundle_object::compose(&world.seal(), &name, Generation(1), &bundle, &origin, &world.machine("ws-2").fleet.holder);
    let object = object.expect("an object").to_vec();
    world.ca.exit.forget_permits(1_000);
    let overtake = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        world.overwrite(&bundle_key(1), object.clone()).await;
        world.ca.exit.add_permits(1_000);
    };
    let (report, ()) = tokio::join!(machine.ensure(site(&["ca"])), overtake);
    assert_done(&report, Source::Datastore, 1);
    assert_eq!(world.object(&bundle_key(1)).await, object);
    assert!(machine.fleet.spool.read(&name).expect("readable").is_none(), "what lies there is proven");
}

#[tokio::test(start_paused = true)]
async fn what_was_overwritten_stays_in_the_spool_until_something_is_proven() {
    let world = World::new();
    let (machine, _) = careless(&world, "build", NO_LAG);
    let overwrite = async {
        while world.store.inner.get(&bundle_key(1)).await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        world.overwrite(&bundle_key(1), b"{}".to_vec()).await;
    };
    let (report, ()) = tokio::join!(machine.ensure(site(&["ca"])), overwrite);
    assert_done(&report, Source::Spool, 2);
    assert_eq!(world.ca.issued(), 1);
}

#[tokio::test(start_paused = true)]
async fn whoever_is_interrupted_after_the_upload_has_proven_nothing_and_loses_nothing() {
    let world = World::new();
    let (machine, _) = careless(&world, "build", NO_LAG);
    let interrupt = async {
        while world.store.inner.get(&bundle_key(1)).await.expect("an answer").is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        machine.fleet.interrupt.cancel();
    };
    let (report, ()) = tokio::join!(machine.ensure(site(&["ca"])), interrupt);
    let problem = report.problem.expect("a problem");
    assert_eq!((report.outcome, report.in_place.is_some()), (Outcome::Temporary, false), "{problem:?}");
    assert_eq!(problem.what, format!("interrupted before {} was proven", bundle_key(1).as_str()));
    assert!(machine.fleet.spool.read(&report.site).expect("readable").is_some());
    let machine = machine.restarted();
    assert_done(&machine.ensure(site(&["ca"])).await, Source::Datastore, 1);
    assert_eq!((world.ca.issued(), machine.fleet.spool.read(&report.site).expect("readable")), (1, None));
}

#[tokio::test(start_paused = true)]
async fn the_next_renewal_is_elected_anew() {
    let world = World::new();
    let machines = fleet_of(&world, 5);
    for generation in 1..=3 {
        let reports = join_all(machines.iter().map(|machine| machine.ensure(site(&["ca"])))).await;
        assert!(reports.iter().all(|report| report.in_place.as_ref().expect("in place").generation() == Generation(generation)));
        assert_eq!(world.ca.issued() as u64, generation);
        tokio::time::advance(85 * DAY).await;
    }
}

#[tokio::test(start_paused = true)]
async fn two_who_use_a_store_first_have_one_identity() {
    let world = World::new();
    let directories = [tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory")];
    let stores = ["build-1", "build-2"].map(|node| careless(&world, node, NO_LAG));
    // It has looked before the other writes, and its own arrives later.
    stores[0].1.slow_down("certfleet.json", Duration::from_secs(2));
    let snapshot = Snapshot::take(&*world.store).await.expect("a listing");
    let use_first = async |at: usize, after: Duration| {
        tokio::time::sleep(after).await;
        let wanted = SealWanted::Age(IdentityPlace::File(directories[at].path().join("identity.age")));
        let run = random::name();
        first_use::prepare(&*stores[at].0.fleet.store, &wanted, &snapshot, &run, &*stores[at].0.fleet.progress).await
    };
    let (one, other) = tokio::join!(use_first(0, Duration::ZERO), use_first(1, Duration::from_secs(1)));
    let kept: record::Manifest = record::read(&world.object(&ObjectKey::manifest()).await).expect("a manifest");
    assert_eq!(kept.exclusive_create, ExclusiveCreate::Broken);
    let good = [one, other].into_iter().filter_map(Result::ok).map(|(manifest, seal)| (manifest.fleet, seal.recipient()));
    // The other lacks the fleet's identity, says so, and has not kept one of its own.
    assert_eq!(good.collect::<Vec<_>>(), [(kept.fleet, kept.recipient)]);
    assert_eq!(directories.iter().filter(|directory| directory.path().join("identity.age").exists()).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_stood_still_gives_up_also_when_its_lease_was_on_its_way() {
    // Its lease arrives when others have long taken it for dead.
    let world = World::new();
    let (first, store) = careless(&world, "ws-1", NO_LAG);
    let (second, _) = careless(&world, "ws-2", NO_LAG);
    world.ca.gate.forget_permits(1_000);
    let second_run = async {
        while candidacies(&world).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        store.slow_down("leases/", TIME_TO_LIVE + Duration::from_secs(30));
        tokio::time::sleep(SETTLING + Duration::from_secs(1)).await;
        store.speed_up();
        tokio::time::sleep(TIME_TO_LIVE).await;
        second.ensure(site(&["ca"])).await
    };
    let finish = async {
        world.ca.arrived.acquire().await.expect("never closed").forget();
        // The lease of the one that was slow arrives, and it orders nothing.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let asked = world.ca.asked();
        world.ca.gate.add_permits(1_000);
        asked
    };
    let (report, second, asked) = tokio::join!(first.ensure(site(&["ca"])), second_run, finish);
    assert_eq!((asked, world.ca.issued()), (1, 1));
    assert_eq!((report.outcome, second.outcome), (Outcome::Done, Outcome::Done));
    assert_eq!(fingerprint(&report), fingerprint(&second));
}
