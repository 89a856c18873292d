//! What a node tells the fleet: when it changes, and since when something is wrong.

use std::fs;
use std::time::Duration;

use super::fleet::{DAY, Fleet, SITE};
use crate::support::machine::Ended;

#[test]
fn a_problem_is_told_with_the_time_since_when_and_told_to_be_over() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let problem = || fleet.report("ws-1").sites[0].problem.clone();
    let configuration = &node.nginx.as_ref().expect("nginx").configuration;
    let good = fs::read_to_string(configuration).expect("a configuration");
    node.nginx.as_ref().expect("nginx").break_configuration();
    fleet.renew();
    node.agent().expect(4);
    let first = problem().expect("a problem");
    // nginx says the time and its process number with it: that does not make it another problem.
    fleet.s3.advance(DAY);
    node.agent().expect(4);
    let report = fleet.report("ws-1");
    assert!(report.last_run - first.since > chrono::Duration::hours(23), "{report:?}");
    assert_eq!(problem().expect("a problem").since, first.since);
    // Another one is told at once, with a time of its own.
    fs::write(configuration, good.replace("nginx.conf", "") + "no_such_block {}\n").expect("a configuration");
    fleet.s3.advance(Duration::from_secs(2));
    node.agent().expect(4);
    assert!(problem().expect("a problem").since > first.since);
    // With nothing else that is news: nothing is to be installed any more.
    fs::write(configuration, good).expect("a configuration");
    fleet.s3.objects().delete(&format!("fleet-a/bundles/{SITE}/0000000002"));
    node.agent().expect(0);
    assert_eq!(problem(), None);
}

#[test]
fn a_clock_that_has_gone_wrong_is_told_at_once() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    node.agent().expect(0);
    assert!(fleet.report("ws-1").clock_offset_secs.abs() < 60);
    let mut command = node.machine.command(&["agent"]);
    command.env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1").env("FAKETIME", "+2h");
    command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    Ended::from(command.output().expect("the binary")).expect(0);
    assert!((fleet.report("ws-1").clock_offset_secs - 7_200).abs() < 60);
}
