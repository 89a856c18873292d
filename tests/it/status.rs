//! `certfleet status`: how every site and every node stands, told without a lock, a write, or a secret of an issuer.

use std::process::Command;

use certfleet::domain::fleet_status::ObservedNode;
use certfleet::domain::node_report::{Installed, InstalledSite, NodeProblem, NodeReport, Served};
use certfleet::domain::object_key::{Generation, ObjectKey};
use certfleet::domain::policy::MANUAL;
use certfleet::domain::record::{self, IssuerClass, LeaseState, PassedOver};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::support::fleet_files::{self as files, Made, SITE};
use crate::support::machine::{Machine, datastore, give_keys};
use crate::support::s3_in_process::InProcessS3;

const SELF_SIGNED: &str = "[[site]]\nname = \"www.example.test\"\nissuers = [\"self-signed\"]\n";

/// Another issuer is preferred; its account needs a secret that no machine here has.
const PREFERRED: &str = "contact = \"ops@example.test\"\n\
    [[site]]\nname = \"www.example.test\"\nissuers = [\"corp\", \"self-signed\"]\nsolver = \"web\"\n\
    [issuer.corp]\nkind = \"acme\"\ndirectory = \"https://ca.example.test/directory\"\n\
    eab = { kid = \"k\", hmac_key = { env = \"MISSING_SECRET\" } }\n\
    [solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\n";

const MANUAL_SITE: &str = "[[site]]\nname = \"www.example.test\"\nmethod = \"manual\"\n";

/// A machine whose fleet has the first generation of one site.
fn fleet() -> Machine {
    let machine = Machine::new(SELF_SIGNED);
    machine.run(&["ensure"]).expect(0);
    machine
}

fn ago(hours: i64) -> DateTime<Utc> {
    Utc::now() - TimeDelta::hours(hours)
}

/// What a node says that has this generation, with a server that presents the same.
fn installed(generation: u64, fingerprint: &str) -> InstalledSite {
    let installed = Installed { generation: Generation(generation), fingerprint: fingerprint.to_owned(), not_after: ago(-1_000) };
    InstalledSite {
        site: SITE.to_owned(),
        ssl_root: "/etc/ssl/fleet".to_owned(),
        installed: Some(installed),
        servers: vec![served(Some(fingerprint))],
        problem: None,
    }
}

fn served(fingerprint: Option<&str>) -> Served {
    Served {
        target: "nginx".to_owned(),
        address: Some("127.0.0.1:443".to_owned()),
        fingerprint: fingerprint.map(str::to_owned),
        checked_at: Some(Utc::now()),
    }
}

fn said_by(node: &str, last_run: DateTime<Utc>, sites: Vec<InstalledSite>) -> NodeReport {
    NodeReport { version: 1, node: node.to_owned(), certfleet: "0.2.0".to_owned(), last_run, clock_offset_secs: 2, sites }
}

/// The report of a node that has run since everything else was stored. Files are dated in steps of some milliseconds.
fn report(machine: &Machine, node: &str, sites: Vec<InstalledSite>) {
    let report = said_by(node, Utc::now() + TimeDelta::seconds(9), sites);
    let stored = || {
        put_report(machine, &report);
        let path = machine.path(&format!("runtimedata/datastore/nodes/{node}"));
        std::fs::metadata(path).expect("a file").modified().expect("a time")
    };
    let first = stored();
    while stored() == first {}
}

fn put_report(machine: &Machine, report: &NodeReport) {
    files::put(machine, &ObjectKey::node(&report.node).expect("a key"), record::write(report));
}

/// The fingerprint of what the first generation holds.
fn fingerprint(machine: &Machine) -> String {
    let status = machine.run(&["status", "--json"]).json();
    status["sites"][0]["bundle"]["fingerprint_sha256"].as_str().expect("a fingerprint").to_owned()
}

/// The reasons why something needs a person, worst first.
fn reasons(machine: &Machine) -> Vec<String> {
    let ended = machine.run(&["status", "--json"]);
    let status = ended.json();
    let attention = status["attention"].as_array().expect("a list");
    assert_eq!(ended.code, Some(if attention.is_empty() { 0 } else { 3 }), "{ended:?}");
    let told = machine.run(&["status"]);
    for one in attention {
        let text = |field: &str| one[field].as_str().expect("a text").to_owned();
        // A second may have begun between the two runs: what is told of the present is left out.
        let what = text("what").split(" (now: ").next().expect("a beginning").to_owned();
        assert!(told.stdout.contains(&what) && told.stdout.contains(&text("hint")), "{one}\n{told:?}");
    }
    attention.iter().map(|one| one["reason"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn a_fleet_in_order_needs_nobody() {
    let machine = fleet();
    let before = files::keys(&machine);
    assert!(reasons(&machine).is_empty(), "no node has reported yet: that is no fault");
    let leaf = fingerprint(&machine);
    report(&machine, "ws-1", vec![installed(1, &leaf)]);
    let unprobed = Served { address: None, fingerprint: None, checked_at: None, ..served(None) };
    report(&machine, "ws-2", vec![InstalledSite { servers: vec![unprobed], ..installed(1, &leaf) }]);
    assert!(reasons(&machine).is_empty());

    let status = machine.run(&["status", "--json"]).expect(0).json();
    let site = &status["sites"][0];
    assert_eq!(
        site["nodes"],
        json!([
            { "node": "ws-1", "state": "serving", "generation": 1, "problem": null },
            { "node": "ws-2", "state": "not-probed", "generation": 1, "problem": null },
        ])
    );
    assert_eq!((&site["serving"], &site["attention"], &site["bundle"]["proven"]), (&json!(1), &Value::Null, &json!(true)));
    assert_eq!((&site["due"]["rule"], &site["object"]), (&json!("expiry"), &json!("bundles/www.example.test/0000000001")));
    let due: DateTime<Utc> = site["due"]["at"].as_str().expect("a time").parse().expect("a time");
    let not_after: DateTime<Utc> = site["bundle"]["not_after"].as_str().expect("a time").parse().expect("a time");
    assert!(due < not_after && due > Utc::now());
    assert_eq!((&status["nodes"][0]["clock_offset_secs"], &status["nodes"][0]["certfleet"]), (&json!(2), &json!("0.2.0")));

    let people = machine.run(&["status"]).expect(0);
    assert!(people.stdout.starts_with("SITE") && people.stdout.contains("1/2") && people.stdout.contains("ok, 1 not probed"), "{people:?}");
    assert!(!people.stdout.contains("needs attention") && people.stderr.is_empty(), "{people:?}");
    assert_eq!(machine.run(&["status", "--quiet"]).expect(0).stdout, "");
    let now: Vec<_> = files::keys(&machine).into_iter().filter(|key| !key.starts_with("nodes/")).collect();
    assert_eq!(now, before, "looking writes nothing");
}

/// What went wrong on a node three hours ago, told by a release that knew no hints.
fn problem(what: &str) -> NodeProblem {
    NodeProblem { what: what.to_owned(), hint: None, since: ago(3) }
}

fn failed(retry_at: DateTime<Utc>) -> LeaseState {
    LeaseState::Failed { reason: "CAA forbids it".to_owned(), retry_at }
}

/// A report as somebody may write it who means harm.
fn boundless(leaf: &str) -> NodeReport {
    let problem = Some(NodeProblem { since: DateTime::<Utc>::MAX_UTC, ..problem("nginx -t failed") });
    let mut site = InstalledSite { problem, ..installed(u64::MAX, leaf) };
    site.installed.as_mut().expect("a generation").not_after = DateTime::<Utc>::MIN_UTC;
    NodeReport { clock_offset_secs: i64::MIN, ..said_by("ws-1", ago(0), vec![site]) }
}

/// What is put into the datastore of a fleet with one generation, by the fingerprint of that.
type Scene = fn(&Machine, &str);

#[test]
fn what_needs_a_person_is_named() {
    let rows: &[(&str, &[&str], Scene)] = &[
        ("no-bundle", &["no-bundle"], |machine, _| std::fs::remove_file(files::object_path(machine, 1)).expect("a file")),
        ("altered", &["unusable"], |machine, _| files::change_object(machine, 1, |record| record["issuer"] = "other".into())),
        ("expired", &["unusable"], |machine, _| made(machine, 2, &Made { days_old: 90, days_left: -1, ..Made::default() })),
        ("other names", &["unusable"], |machine, _| made(machine, 2, &Made { names: &["b.test"], ..Made::default() })),
        ("expiring", &["expiring"], |machine, _| made(machine, 2, &Made { days_old: 87, days_left: 3, ..Made::default() })),
        ("overdue", &["overdue"], |machine, _| made(machine, 2, &Made { days_old: 85, days_left: 5, ..Made::default() })),
        ("due since yesterday", &[], |machine, _| made(machine, 2, &Made { days_old: 84, days_left: 6, ..Made::default() })),
        ("being renewed", &[], |machine, _| {
            made(machine, 2, &Made { days_old: 87, days_left: 3, ..Made::default() });
            files::put_lease(machine, 3, 1, LeaseState::Held);
        }),
        ("by a person", &["ask-person"], |machine, _| {
            machine.write("certfleet.toml", MANUAL_SITE);
            made(machine, 2, &Made { days_old: 84, days_left: 6, issuer: MANUAL, class: IssuerClass::Manual, ..Made::default() });
        }),
        ("renewal failed", &["renewal-failed"], |machine, _| {
            made(machine, 2, &Made { days_old: 84, days_left: 6, ..Made::default() });
            files::put_lease(machine, 3, 1, LeaseState::Released);
            files::put_lease(machine, 3, 2, failed(ago(-1)));
        }),
        ("the first one failed", &["no-bundle", "renewal-failed"], |machine, _| {
            std::fs::remove_file(files::object_path(machine, 1)).expect("a file");
            files::put_lease(machine, 1, 1, failed(ago(-1)));
        }),
        ("the one that cannot serve is not replaced", &["unusable", "renewal-failed"], |machine, _| {
            files::change_object(machine, 1, |record| record["issuer"] = "other".into());
            files::put_lease(machine, 2, 1, failed(ago(-1)));
        }),
        ("forced when nothing was due, and failed", &[], |machine, _| files::put_lease(machine, 2, 1, failed(ago(1)))),
        ("an old failure", &[], |machine, _| {
            files::put_lease(machine, 1, 1, failed(ago(1)));
        }),
        ("lease unreadable", &["lease-unreadable"], |machine, _| {
            files::put(machine, &ObjectKey::from_listing("leases/www.example.test/0000000002-0001").expect("a key"), "{");
        }),
        ("stopgap", &["stopgap"], |machine, _| {
            machine.write("certfleet.toml", PREFERRED);
            let passed_over = vec![PassedOver { issuer: "corp".to_owned(), reason: "it is down".to_owned(), retry_at: ago(-1) }];
            made(machine, 2, &Made { passed_over, ..Made::default() });
        }),
        ("not served", &["not-served"], |machine, leaf| {
            report(machine, "ws-1", vec![InstalledSite { servers: vec![served(Some("another"))], ..installed(1, leaf) }]);
        }),
        ("nothing served", &["not-served"], |machine, leaf| {
            report(machine, "ws-1", vec![InstalledSite { servers: vec![served(Some(leaf)), served(None)], ..installed(1, leaf) }]);
        }),
        ("problem", &["node-problem"], |machine, leaf| {
            let problem = Some(problem("nginx -t failed"));
            report(machine, "ws-1", vec![InstalledSite { problem, ..installed(1, leaf) }]);
        }),
        ("problem of another site", &["node-problem"], |machine, leaf| {
            let problem = Some(problem("nginx -t failed"));
            let other = InstalledSite { site: "other.example.test".to_owned(), problem, ..installed(1, leaf) };
            report(machine, "ws-1", vec![installed(1, leaf), other]);
        }),
        ("differs", &["differs"], |machine, _| report(machine, "ws-1", vec![installed(1, "another")])),
        ("lagging", &["lagging"], |machine, leaf| {
            made(machine, 2, &Made::default());
            report(machine, "ws-1", vec![installed(1, leaf)]);
        }),
        ("has not run since", &[], |machine, leaf| {
            put_report(machine, &said_by("ws-1", ago(1), vec![installed(1, leaf)]));
            made(machine, 2, &Made::default());
        }),
        ("nothing installed", &["lagging"], |machine, leaf| {
            report(machine, "ws-1", vec![InstalledSite { installed: None, ..installed(1, leaf) }]);
        }),
        ("one of two directories", &["lagging"], |machine, leaf| {
            let missing = InstalledSite { installed: None, ssl_root: "/srv/ssl".to_owned(), ..installed(1, leaf) };
            report(machine, "ws-1", vec![missing, installed(1, leaf)]);
        }),
        ("ahead", &["ahead"], |machine, leaf| report(machine, "ws-1", vec![installed(9, leaf)])),
        ("nowhere", &["nowhere"], |machine, _| report(machine, "ws-1", Vec::new())),
        ("silent", &["silent"], |machine, leaf| put_report(machine, &said_by("ws-1", ago(37), vec![installed(1, leaf)]))),
        ("quiet, not silent", &[], |machine, leaf| put_report(machine, &said_by("ws-1", ago(35), vec![installed(1, leaf)]))),
        ("clock ahead", &["clock-wrong"], |machine, leaf| {
            put_report(machine, &NodeReport { clock_offset_secs: 301, ..said_by("ws-1", ago(0), vec![installed(1, leaf)]) });
        }),
        ("clock behind", &["clock-wrong"], |machine, leaf| {
            put_report(machine, &NodeReport { clock_offset_secs: -2_600_000, ..said_by("ws-1", ago(0), vec![installed(1, leaf)]) });
        }),
        ("numbers and times beyond all bounds", &["node-problem", "clock-wrong"], |machine, leaf| put_report(machine, &boundless(leaf))),
        ("clock as it may be", &[], |machine, leaf| {
            put_report(machine, &NodeReport { clock_offset_secs: -300, ..said_by("ws-1", ago(0), vec![installed(1, leaf)]) });
        }),
        ("report unreadable", &["report-unreadable"], |machine, _| {
            files::put(machine, &ObjectKey::node("ws-1").expect("a key"), "{}");
        }),
        ("report of another", &["report-unreadable"], |machine, leaf| {
            let copied = record::write(&said_by("ws-2", Utc::now(), vec![installed(1, leaf)]));
            files::put(machine, &ObjectKey::node("ws-1").expect("a key"), copied);
        }),
    ];
    for (row, expected, scene) in rows {
        let machine = fleet();
        scene(&machine, &fingerprint(&machine));
        assert_eq!(reasons(&machine), *expected, "{row}");
    }
}

fn made(machine: &Machine, generation: u64, made: &Made) {
    files::put_bundle(machine, generation, made);
}

#[test]
fn what_a_node_says_can_be_done_is_told() {
    let machine = fleet();
    let leaf = fingerprint(&machine);
    for (hint, told) in
        [(None, "on ws-1: certfleet agent"), (Some("correct line 7 of nginx.conf"), "on ws-1: correct line 7 of nginx.conf")]
    {
        let problem = Some(NodeProblem { hint: hint.map(str::to_owned), ..problem("nginx -t failed") });
        report(&machine, "ws-1", vec![InstalledSite { problem, ..installed(1, &leaf) }]);
        let status = machine.run(&["status", "--json"]).expect(3).json();
        assert_eq!(status["attention"][0]["hint"], told);
        machine.run(&["status"]).expect(3).stdout.find(told).expect("the hint");
    }
}

#[test]
fn the_worst_comes_first_and_whoever_renews_is_named() {
    let machine = fleet();
    let leaf = fingerprint(&machine);
    machine.write("certfleet.toml", format!("{SELF_SIGNED}[[site]]\nname = \"a.example.test\"\nissuers = [\"self-signed\"]\n"));
    report(&machine, "ws-1", vec![installed(1, &leaf)]);
    put_report(&machine, &said_by("ws-2", ago(40), vec![installed(1, &leaf)]));
    files::put_lease(&machine, 2, 1, LeaseState::Held);
    let status = machine.run(&["status", "--json"]).expect(3).json();
    let names = |list: &str, field: &str| status[list].as_array().expect("a list").iter().map(|one| one[field].clone()).collect::<Vec<_>>();
    assert_eq!(names("attention", "reason"), ["no-bundle", "silent"]);
    assert_eq!(
        (names("sites", "site"), names("nodes", "node")),
        (vec![json!("a.example.test"), json!(SITE)], vec![json!("ws-2"), json!("ws-1")])
    );
    let lease = &status["sites"][1]["lease"];
    assert_eq!((&lease["state"], &lease["node"], &lease["generation"]), (&json!("held"), &json!("ws-1"), &json!(2)));
    assert_eq!(status["sites"][1]["nodes"][1]["state"], "silent");
    let people = machine.run(&["status"]).expect(3);
    assert!(people.stdout.contains("ws-1 renews it"), "{people:?}");
}

#[test]
fn it_asks_for_nothing_twice_and_writes_nothing() {
    let s3 = InProcessS3::start();
    let sites = "[[site]]\nname = \"a.example.test\"\nissuers = [\"self-signed\"]\n";
    let machine = Machine::new(&format!("{}{SELF_SIGNED}{sites}", datastore(&s3.bucket(), "fleet")));
    give_keys(&machine, &s3.bucket());
    machine.run(&["ensure"]).expect(0);
    for node in ["ws-1", "ws-2"] {
        s3.objects().put(&format!("fleet/nodes/{node}"), record::write(&said_by(node, ago(0), Vec::new())));
    }
    s3.objects().put("fleet/leases/a.example.test/0000000002-0001", "{");
    s3.forget_requests();
    machine.run(&["status"]).expect(3);
    let requests = s3.requests();
    assert!(requests.iter().all(|seen| seen.method == "GET"), "{requests:?}");
    assert_eq!(requests.len(), 7, "the listing, the manifest, two bundles, a lease and two nodes: {requests:?}");
}

#[test]
fn no_secret_is_needed_and_without_an_identity_it_says_that_nothing_is_proven() {
    let machine = fleet();
    machine.write("certfleet.toml", PREFERRED);
    machine.run(&["ensure"]).expect(2).says("MISSING_SECRET");
    machine.write("certfleet.toml", SELF_SIGNED);
    std::fs::remove_file(machine.path("runtimedata/identity.age")).expect("a file");
    let ended = machine.run(&["status", "--json"]).expect(0).says("note: not proven");
    let bundle = &ended.json()["sites"][0]["bundle"];
    assert_eq!((&bundle["proven"], &bundle["identifiers"]), (&json!(false), &json!([SITE])));
    // Somebody else's identity is a mistake, though.
    let other = fleet();
    std::fs::copy(other.path("runtimedata/identity.age"), machine.path("runtimedata/identity.age")).expect("a copy");
    machine.run(&["status"]).expect(2).says("point [datastore] identity at");
}

#[test]
fn without_a_configuration_it_shows_what_the_datastore_has() {
    let machine = Machine::new("");
    machine.run(&["status"]).expect(2).says("no site is configured");
    machine.run(&["ensure", SITE]).expect(0);
    assert!(machine.run(&["status"]).expect(0).stdout.contains(SITE));
}

#[test]
fn the_table_fits_the_terminal_and_strangers_do_not_play_with_it() {
    let machine = fleet();
    let leaf = fingerprint(&machine);
    let problem = Some(problem("\u{1b}[2Jgone"));
    let name = "a-node-with-a-very-long-name.frankfurt.example.test";
    put_report(
        &machine,
        &NodeReport {
            certfleet: "\u{1b}[31m9".to_owned(),
            ..said_by(name, ago(0), vec![InstalledSite { problem, ..installed(1, &leaf) }])
        },
    );
    let plain = machine.run(&["status"]).expect(3);
    assert!(!plain.stdout.contains('\u{1b}'), "{plain:?}");
    assert!(machine.run(&["status", "--color", "always"]).expect(3).stdout.contains("\u{1b}[1mSITE\u{1b}[0m"));
    let binary = machine.command(&[]);
    for columns in [40, 60, 100] {
        let inside = format!("stty cols {columns}; {} --color never status", binary.get_program().display());
        let mut command = Command::new("script");
        command.args(["--quiet", "--command", &inside, "/dev/null"]).env_clear().env("SHELL", "/bin/sh").current_dir(machine.path(""));
        command.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let shown = String::from_utf8(command.output().expect("script").stdout).expect("text");
        let table: Vec<_> = shown.lines().take_while(|line| !line.starts_with("needs attention")).collect();
        assert!(table.len() >= 5 && table.iter().all(|line| line.trim_end().chars().count() <= columns), "{columns}:\n{shown}");
        assert_eq!(shown.contains('…'), columns < 100, "{columns}:\n{shown}");
    }
}

#[test]
fn a_copied_or_forged_report_makes_no_node_look_alive() {
    let (then, now) = (ago(48), ago(0));
    for (last_run, reported_at) in [(then, now), (now, then)] {
        let node = ObservedNode { name: "ws-1".to_owned(), reported_at, report: Ok(said_by("ws-1", last_run, Vec::new())) };
        assert_eq!(node.last_run(), then);
    }
}
