//! Nodes: the real binary on webservers of one fleet.

mod contents;
pub mod fleet;
mod frozen;
mod healing;
mod refusals;
mod reports;
mod runs;

use std::time::Duration;

use http::Method;

use self::fleet::{DAY, Fleet, SITE, until};
use crate::support::machine::Ended;
use crate::support::s3_in_process::{Fault, Seen};

#[test]
fn a_night_in_which_nothing_happens_costs_one_request_no_write_and_no_word() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let (before, reloads) = (node.traces(), node.nginx.as_ref().expect("nginx").reloads());
    fleet.s3.forget_requests();
    let ended = node.machine.run(&["agent", "--quiet"]).expect(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    let requests = fleet.s3.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].key.is_empty(), "a listing: {requests:?}");
    assert_eq!(node.traces(), before);
    assert_eq!(node.nginx.as_ref().expect("nginx").reloads(), reloads);
}

#[test]
fn one_renews_and_all_serve_what_it_renewed() {
    let fleet = Fleet::new();
    let nodes: Vec<_> = ["ws-1", "ws-2", "ws-3"].map(|name| fleet.serving(name)).into();
    let old = nodes[0].installed();
    let reloads = |node: &fleet::Node| node.nginx.as_ref().expect("nginx").reloads();
    let before: Vec<_> = nodes.iter().map(reloads).collect();
    fleet.s3.advance(84 * DAY);
    let running: Vec<_> = nodes.iter().map(|node| node.machine.start(&["agent", "--json"])).collect();
    let ended: Vec<_> = running.into_iter().map(|run| run.wait().expect(0)).collect();
    assert_eq!(fleet.generations(), 2);
    let issued = ended.iter().filter(|ended| ended.site()["source"] == "issued").count();
    assert_eq!(issued, 1);
    let new = nodes[0].installed();
    assert_ne!(new, old);
    assert_eq!(nodes.iter().map(reloads).collect::<Vec<_>>(), before.iter().map(|count| count + 1).collect::<Vec<_>>());
    for (node, name) in nodes.iter().zip(["ws-1", "ws-2", "ws-3"]) {
        assert_eq!((node.installed(), node.served()), (new.clone(), new.clone()));
        assert_eq!(node.link(), std::path::Path::new("../archive/www.example.test/2"));
        let report = fleet.report(name);
        let site = &report.sites[0];
        assert_eq!(site.installed.as_ref().expect("installed").fingerprint, new);
        assert_eq!(site.servers[0].fingerprint.as_deref(), Some(new.as_str()));
        assert!(site.servers[0].checked_at.is_some() && site.problem.is_none(), "{site:?}");
    }
}

#[test]
fn those_that_lose_the_election_cost_the_store_eight_requests_at_most() {
    let fleet = Fleet::new();
    let (winner, loser) = (fleet.serving("ws-1"), fleet.serving("ws-2"));
    fleet.s3.advance(84 * DAY);
    // The winner's publication takes as long as a CA does.
    let publishing = |seen: &Seen| seen.method == Method::PUT && seen.key.contains("/bundles/");
    fleet.s3.fault(Fault::Delay(Duration::from_secs(6)), publishing);
    let run = winner.machine.start(&["agent"]);
    until("a lease", || fleet.s3.objects().keys().iter().any(|key| key.contains("/0000000002-")));
    until("the publication", || fleet.s3.requests().iter().any(publishing));
    fleet.s3.forget_requests();
    loser.agent().expect(0);
    run.wait().expect(0);
    // Those of the winner: it looks at its site's bundles and leases alone, publishes, and tells.
    let by_winner = |seen: &Seen| {
        let of_one_site = seen.key.is_empty() && seen.query.contains(SITE);
        seen.key.ends_with("/nodes/ws-1") || seen.method == Method::PUT && !seen.key.contains("/nodes/") || of_one_site
    };
    let requests: Vec<_> = fleet.s3.requests().into_iter().filter(|seen| !by_winner(seen)).collect();
    // The winner has read its publication back.
    assert!((5..=8 + 1).contains(&requests.len()), "{requests:#?}");
    assert_eq!((loser.served(), fleet.generations()), (winner.served(), 2));
}

#[test]
fn a_follower_installs_what_others_renew_and_never_issues() {
    let fleet = Fleet::new();
    // Neither the issuer's secret nor the solver's is there.
    let node = fleet.serving_with("ws-1", "", "role = \"follower\"\n");
    let extra = "[issuer.corp]\nkind = \"acme\"\ndirectory = \"https://127.0.0.1:1/dir\"\neab = { kid = \"k\", hmac_key = { env = \"NOT_HERE\" } }\n\
                 [solver.dns]\nkind = \"dns-01\"\nprovider = \"script:nowhere\"\ncredentials = { TOKEN = { env = \"NOT_HERE\" } }\n";
    let text = node.machine.read("certfleet.toml");
    node.machine
        .write("certfleet.toml", format!("{text}{extra}").replace("[\"self-signed\"]", "[\"self-signed\", \"corp\"]\nsolver = \"dns\""));
    fleet.s3.advance(84 * DAY);
    node.agent().expect(0);
    assert_eq!(fleet.generations(), 1);
    let new = fleet.renew();
    node.agent().expect(0);
    assert_eq!((node.installed(), node.served()), (new.clone(), new));
}

#[test]
fn a_plan_is_printed_and_nothing_is_done() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    fleet.s3.advance(84 * DAY);
    let before = node.traces();
    fleet.s3.forget_requests();
    let plan = node.machine.run(&["agent", "--dry-run", "--json"]).expect(0).site();
    assert_eq!((plan["obtain"].as_str(), plan["generation"].as_u64(), plan["due"].as_str()), (Some("renew"), Some(2), Some("expiry")));
    assert_eq!(plan["places"][0]["step"], "install");
    let text = node.machine.run(&["agent", "--dry-run"]).expect(0).stdout;
    assert!(text.contains("renew as generation 2") && text.contains("install into"), "{text}");
    assert!(fleet.s3.requests().iter().all(|seen| seen.method == Method::GET));
    assert_eq!(node.traces(), before);
}

#[test]
fn a_clock_that_is_wrong_by_a_month_renews_nothing_early_or_late_and_is_told() {
    for (stored_days, node_days, generations, name) in [(65, 95, 1, "ws-ahead"), (84, 54, 2, "ws-behind")] {
        let fleet = Fleet::new();
        let node = fleet.node(name);
        node.machine.run(&["bootstrap"]).expect(0);
        fleet.s3.advance(stored_days * DAY);
        let mut command = node.machine.command(&["agent"]);
        command.env("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1").env("FAKETIME", format!("+{node_days}d"));
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        Ended::from(command.output().expect("the binary")).expect(0);
        assert_eq!(fleet.generations(), generations, "{name}");
        let offset = fleet.report(name).clock_offset_secs - (node_days - i64::from(stored_days)) * 86_400;
        assert!(offset.abs() < 60, "{name}: {offset} s");
    }
}

#[test]
fn what_is_served_is_looked_at_again_while_nothing_changes() {
    let fleet = Fleet::new();
    let mut node = fleet.serving("ws-1");
    let checked = |fleet: &Fleet| fleet.report("ws-1").sites[0].servers[0].checked_at.expect("checked");
    let first = checked(&fleet);
    fleet.s3.advance(DAY);
    let (before, reloads) = (node.link(), node.nginx.as_ref().expect("nginx").reloads());
    node.agent().expect(0);
    assert!(checked(&fleet) - first > chrono::Duration::hours(23));
    assert_eq!(node.link(), before);
    assert_eq!(node.nginx.as_ref().expect("nginx").reloads(), reloads);
    // Somebody has stopped it.
    node.nginx.as_mut().expect("nginx").stop();
    fleet.s3.advance(DAY);
    let ended = node.agent().expect(4);
    assert!(ended.stderr.contains("does not run") && ended.stderr.contains(SITE), "{}", ended.stderr);
    assert!(fleet.report("ws-1").sites[0].problem.is_some());
}
