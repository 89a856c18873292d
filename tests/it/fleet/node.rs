//! A node that waits for another.

use std::sync::Arc;
use std::time::Duration;

use certfleet::domain::node_plan::Part;
use certfleet::domain::object_key::Generation;
use certfleet::domain::plan::Source;
use certfleet::fleet::agent::NodeSiteReport;
use certfleet::fleet::delivery::Delivered;
use certfleet::fleet::node::{Node, NodeServer, Root};
use certfleet::fleet::node_state::NodeState;
use certfleet::fleet::report::Outcome;
use certfleet::fleet::snapshot::Snapshot;
use certfleet::target::server::{Commands, Programs};
use certfleet::target::ssl_root::{Files, SslRoot};
use chrono::TimeDelta;

use super::assert_done;
use super::careless::{Lag, careless};
use super::machine::{DAY, Machine, World, site};

fn node(machine: &Machine, part: Part) -> Node {
    let site = site(&["ca"]).site;
    let nothing = Commands { test: None, reload: None, deadline: Duration::from_secs(1) };
    let server = Arc::new(Programs::new("files", nothing));
    let servers = vec![NodeServer { server, verify: None, deadline: Duration::from_secs(1), sites: [site.name.clone()].into() }];
    let ssl = SslRoot::new(machine.directory.path().join("node"), None, 0o600, Files::Separate);
    Node {
        name: "ws-2".to_owned(),
        part,
        followed: [].into(),
        roots: vec![Root { ssl, servers }],
        sites: vec![site],
        place: machine.directory.path().to_owned(),
        delivered: Delivered::in_place(machine.directory.path()),
        stale_after: DAY,
        clock_offset_secs: 0,
    }
}

async fn run(world: &World, machine: &Machine) -> NodeSiteReport {
    run_as(Part::Renew, world, machine).await
}

async fn run_as(part: Part, world: &World, machine: &Machine) -> NodeSiteReport {
    let snapshot = Snapshot::take(&*world.store).await.expect("a listing");
    let node = node(machine, part);
    let mut state = NodeState::read(&node.place);
    let observed = node.observe(&world.seal(), &state, &snapshot);
    let report = machine.fleet.tend(&node, &observed, &snapshot).await.remove(0);
    state.places = report.places.iter().filter_map(|place| place.known.clone()).collect();
    state.keep(&node.place).expect("kept");
    report
}

#[tokio::test(start_paused = true)]
async fn a_node_that_waits_in_vain_leaves_it_to_its_next_run() {
    let world = World::new();
    let (first, second) = (world.machine("ws-1"), world.machine("ws-2"));
    assert_done(&first.ensure(site(&["ca"])).await, Source::Issued, 1);
    assert_eq!(run(&world, &second).await.outcome, Outcome::Done);
    tokio::time::advance(85 * DAY).await;
    world.ca.gate.forget_permits(1_000);
    let patient = async {
        let report = run(&world, &second).await;
        world.ca.gate.add_permits(1_000);
        report
    };
    let (made, report) = tokio::join!(first.ensure(site(&["ca"])), patient);
    assert_done(&made, Source::Issued, 2);
    let installed = |report: &NodeSiteReport| report.places[0].known.as_ref().expect("files").generation;
    assert_eq!((report.outcome, installed(&report)), (Outcome::Done, Generation(1)), "{report:?}");
    assert!(report.problem.is_none(), "{report:?}");
    let report = run(&world, &second).await;
    assert_eq!((report.outcome, installed(&report)), (Outcome::Done, Generation(2)), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_store_does_not_list_in_time_says_so() {
    let world = World::new();
    let late = TimeDelta::seconds(6);
    let (machine, _) = careless(&world, "ws-1", Lag { own: late, of_others: late });
    let report = run(&world, &machine).await;
    assert_eq!(report.outcome, Outcome::Failed, "nothing is in place");
    assert_done(&world.machine("ws-2").ensure(site(&["ca"])).await, Source::Issued, 1);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(run(&world, &machine).await.outcome, Outcome::Done);
    tokio::time::advance(85 * DAY).await;
    let report = run(&world, &machine).await;
    assert_eq!(report.outcome, Outcome::Degraded, "{report:?}");
    assert!(report.problem.expect("a problem").what.contains("does not list leases/"));
}

#[tokio::test(start_paused = true)]
async fn a_follower_waits_for_those_who_stand_for_election() {
    let world = World::new();
    let (first, second) = (careless(&world, "ws-1", Lag::default()).0, careless(&world, "ws-2", Lag::default()).0);
    assert_done(&first.ensure(site(&["ca"])).await, Source::Issued, 1);
    // Its second run finds that what is installed is what the datastore has.
    for _ in 0..2 {
        assert_eq!(run_as(Part::Follow, &world, &second).await.outcome, Outcome::Done);
    }
    tokio::time::advance(85 * DAY).await;
    let late = async {
        // The others have begun, and nobody has the lease yet.
        tokio::time::sleep(Duration::from_secs(1)).await;
        run_as(Part::Follow, &world, &second).await
    };
    let (made, report) = tokio::join!(first.ensure(site(&["ca"])), late);
    assert_done(&made, Source::Issued, 2);
    let known = report.places[0].known.as_ref().expect("files");
    assert_eq!((report.outcome, known.generation), (Outcome::Done, Generation(2)), "{report:?}");
}
