//! `certfleet doctor`: each check on what is good and on what is bad, by the real binary on real parts.

mod issuers;
mod local;
mod solvers;
mod store;
mod targets;

use std::fs;

use serde_json::Value;
use tempfile::TempDir;

use crate::agent::fleet::Fleet;
use crate::support::machine::{Ended, Machine};
use crate::support::private_mounts::{PrivateMounts, directory};

/// What was found.
pub struct Found(Vec<Value>);

/// Examines a machine.
pub fn examine(machine: &Machine) -> Found {
    Found::of(&machine.run(&["doctor", "--json"]))
}

impl Found {
    /// Reads the answer, which keeps its promises: exit 3 exactly where something is left to do, and a remedy for each such thing.
    pub fn of(ended: &Ended) -> Self {
        let answer = ended.json();
        let findings = answer["findings"].as_array().expect("a list").clone();
        let open = |finding: &&Value| matches!(finding["verdict"].as_str(), Some("warning" | "failed"));
        assert_eq!(ended.code, Some(if findings.iter().any(|finding| open(&finding)) { 3 } else { 0 }), "{ended:?}");
        for finding in &findings {
            assert_eq!(finding["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), open(&finding), "{finding}");
        }
        Self(findings)
    }

    /// The worst that a check has found, with its text and remedy.
    #[track_caller]
    pub fn verdict(&self, check: &str) -> (&str, String) {
        let worst = self.all(check).into_iter().next();
        let finding = worst.unwrap_or_else(|| panic!("nothing about {check:?} in {:#?}", self.0));
        (finding["verdict"].as_str().expect("a verdict"), finding.to_string())
    }

    /// Panics unless the worst of a check is this verdict, and its finding has all of these texts.
    #[track_caller]
    pub fn expect(&self, check: &str, verdict: &str, texts: &[&str]) -> &Self {
        let (found, finding) = self.verdict(check);
        assert_eq!(found, verdict, "{finding}");
        for text in texts {
            assert!(finding.contains(text), "no {text:?} in {finding}");
        }
        self
    }

    /// Everything that a check has found, the worst first.
    pub fn all(&self, check: &str) -> Vec<&Value> {
        self.0.iter().filter(|finding| finding["check"] == check).collect()
    }

    /// The parts that were looked at.
    pub fn has_part(&self, part: &str) -> bool {
        self.0.iter().any(|finding| finding["part"] == part)
    }
}

/// A machine in whose `/etc` a crontab has the job of the machine.
pub struct Scheduled<'a> {
    machine: &'a Machine,
    mounts: PrivateMounts,
    place: TempDir,
}

impl<'a> Scheduled<'a> {
    pub fn new(machine: &'a Machine, crontab: &str) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let own = |name: &str| directory(place.path(), name);
        fs::write(own("etc/upper/cron.d").join("certfleet"), crontab).expect("a crontab");
        // In the place of whatever starts the machine that runs the tests.
        let mounts = PrivateMounts::new("ws-1").overlay("/etc", own("etc")).bind("/run", own("run"));
        Self { machine, mounts, place }
    }

    /// The same, on a machine that systemd runs, with these units.
    pub fn with_units(machine: &'a Machine, units: &[(&str, &str)]) -> Self {
        let Self { mounts, place, .. } = Self::new(machine, "");
        directory(place.path(), "run/systemd/system");
        for (name, text) in units {
            let path = place.path().join("etc/upper/systemd/system").join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a unit");
        }
        Self { machine, mounts, place }
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        let bin = self.place.path().join("bin");
        let mut command = self.mounts.command(&bin, env!("CARGO_BIN_EXE_certfleet"), arguments);
        command.current_dir(self.machine.path("")).env("S3_SECRET", fs::read_to_string(self.machine.path("s3-secret")).unwrap_or_default());
        command.output().expect("unshare").into()
    }

    pub fn examine(&self) -> Found {
        Found::of(&self.run(&["doctor", "--json"]))
    }
}

const HOURLY: &str = "17 * * * *  root  /usr/local/bin/certfleet --config /etc/certfleet/certfleet.toml agent --quiet\n";

#[test]
fn where_all_is_well_nothing_is_to_be_done_and_nothing_is_changed() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    store::limit_to_prefix(&fleet.s3);
    let scheduled = Scheduled::new(&node.machine, HOURLY);
    let (traces, reloads) = (node.traces(), node.nginx.as_ref().expect("nginx").reloads());
    let objects = || fleet.s3.objects().keys().into_iter().map(|key| (fleet.s3.objects().get(&key), key)).collect::<Vec<_>>();
    let before = objects();

    let ended = scheduled.run(&["doctor", "--json"]).expect(0);
    let found = Found::of(&ended);
    assert_eq!((ended.json()["role"].as_str(), ended.json()["version"].as_u64()), (Some("webserver"), Some(1)));
    for check in [
        "configuration",
        "credentials",
        "reachable",
        "clock",
        "writable",
        "exclusive-create",
        "least-privilege",
        "manifest",
        "identity",
        "bundles",
        "ssl_root",
        "files",
        "server-test",
        "served",
        "starter",
        "runtimedata",
        "spool",
    ] {
        found.expect(check, "ok", &[]);
    }
    let people = scheduled.run(&["doctor"]).expect(0);
    assert!(people.stdout.starts_with("configuration\n") && people.stdout.contains("\nnothing to do: 0 failed, 0 warnings"), "{people:?}");
    assert_eq!(scheduled.run(&["doctor", "--quiet"]).expect(0).stdout, "");

    assert_eq!(objects(), before, "what was written to try the store out is gone again");
    assert_eq!(node.traces(), traces);
    assert_eq!(node.nginx.as_ref().expect("nginx").reloads(), reloads);
}

#[test]
fn what_is_wrong_is_told_to_people_with_its_remedy_and_also_where_nothing_else_is() {
    let machine = Machine::new("[[site]]\nname = \"www.example.test\"\nissuers = [\"local-ca\"]\n");
    machine.run(&["ensure"]).expect(0);
    fs::set_permissions(machine.path("runtimedata/identity.age"), std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("a mode");
    let loud = machine.run(&["doctor"]).expect(3);
    let quiet = machine.run(&["doctor", "--quiet"]).expect(3);
    for ended in [&loud, &quiet] {
        assert!(ended.stdout.contains("  failed   identity: "), "{ended:?}");
        assert!(ended.stdout.contains("hint: chmod 600 "), "{ended:?}");
        assert!(
            ended.stdout.lines().last().is_some_and(|line| line.starts_with("to do: ") && line.contains("failed (identity)")),
            "{ended:?}"
        );
    }
    assert!(loud.stdout.contains("  ok ") && !quiet.stdout.contains("  ok "), "{quiet:?}");
}

#[test]
fn a_configuration_that_cannot_be_read_ends_it() {
    let machine = Machine::new("[[site]]\nname = \"www.example.test\"\nissuer = [\"local-ca\"]\n");
    let ended = machine.run(&["doctor", "--json"]).expect(2).says("issuers");
    assert_eq!(ended.stdout, "");
    Machine::new("contact = \"ops@example.test\"\n").run(&["doctor"]).expect(2);
}

#[test]
fn without_any_configuration_it_looks_and_makes_nothing() {
    let machine = Machine::new("");
    machine.run(&["doctor"]).expect(0);
    assert_eq!(fs::read_dir(machine.path("")).expect("a directory").count(), 0);
    machine.run(&["ensure", "www.example.test"]).expect(0);
    fs::remove_dir(machine.path("runtimedata/datastore/probes")).expect("what the first use leaves");
    let found = examine(&machine);
    found.expect("bundles", "ok", &["1 of 1 site"]).expect("root", "ok", &["local-ca"]).expect("writable", "ok", &[]);
    assert!(!machine.path("runtimedata/datastore/probes").exists(), "also the directory of what was tried is gone");
}
