//! The datastore, and what must be opened in it.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use certfleet::domain::checkup::Verdict;
use certfleet::fleet::doctor::identity;
use certfleet::fleet::identity::{IdentityPlace, SealWanted};
use http::Method;

use super::{Found, examine};
use crate::support::machine::{Machine, datastore, give_keys};
use crate::support::s3_in_process::{Fault, InProcessS3, Seen};

const SITE: &str = "[[site]]\nname = \"www.example.test\"\nissuers = [\"self-signed\"]\n";

/// A build machine whose fleet has a bundle, in a bucket.
struct Build {
    s3: InProcessS3,
    machine: Machine,
}

impl Build {
    fn new() -> Self {
        let s3 = InProcessS3::start();
        let machine = Machine::new(&format!("{SITE}{}", datastore(&s3.bucket(), "fleet-a")));
        give_keys(&machine, &s3.bucket());
        machine.run(&["ensure"]).expect(0);
        Self { s3, machine }
    }

    fn examine(&self) -> Found {
        examine(&self.machine)
    }

    /// Examines it while requests that `matcher` picks suffer a fault.
    fn while_faulty(&self, fault: Fault, matcher: impl Fn(&Seen) -> bool + Send + 'static) -> Found {
        self.s3.fault_always(fault, matcher);
        let found = self.examine();
        self.s3.clear_faults();
        found
    }
}

fn is_beside(seen: &Seen) -> bool {
    !seen.key.starts_with("fleet-a/") && !seen.query.contains("prefix=fleet-a%2F")
}

/// What a policy does that allows only what lies below `fleet-a/`.
pub fn limit_to_prefix(s3: &InProcessS3) {
    s3.fault_always(Fault::Refuse(403, "AccessDenied"), is_beside);
}

#[test]
fn a_store_that_cannot_be_used_is_explained_and_the_rest_is_looked_at_all_the_same() {
    let build = Build::new();
    let change = |from: &str, to: &str| build.machine.change("certfleet.toml", from, to);
    let rest = |found: &Found| {
        found.expect("writable", "skipped", &[]).expect("bundles", "skipped", &[]).expect("identity", "ok", &[]).expect(
            "issuer",
            "ok",
            &[],
        );
    };
    let endpoint = build.s3.endpoint();
    change(&endpoint, "http://127.0.0.1:1");
    rest(build.examine().expect("reachable", "failed", &["cannot be reached", "check the network"]));
    change("http://127.0.0.1:1", &endpoint);

    change("s3://fleet/", "s3://another/");
    rest(build.examine().expect("reachable", "failed", &["NoSuchBucket", "create the bucket another"]));
    change("s3://another/", "s3://fleet/");

    let secret = build.machine.read("s3-secret");
    build.machine.write("s3-secret", "wrong");
    rest(build.examine().expect("reachable", "failed", &["SignatureDoesNotMatch", "check secret_key"]));
    build.machine.write("s3-secret", secret);

    change("env = \"S3_SECRET\"", "env = \"NOT_SET\"");
    rest(build.examine().expect("settings", "failed", &["secret_key", "export NOT_SET="]));
}

#[test]
fn a_store_that_does_not_write_or_keep_is_found_out() {
    let build = Build::new();
    build.examine().expect("writable", "ok", &[]).expect("exclusive-create", "ok", &[]);
    let denied = Fault::Refuse(403, "AccessDenied");
    let found = build.while_faulty(denied.clone(), |seen| seen.method == Method::PUT);
    found.expect("writable", "failed", &["AccessDenied", "s3:PutObject"]).expect("exclusive-create", "skipped", &["cannot be written"]);
    let found = build.while_faulty(denied.clone(), |seen| seen.method == Method::DELETE && seen.key.ends_with("-99"));
    found.expect("writable", "failed", &["delete s3://", "s3:DeleteObject"]).expect(
        "clean-up",
        "warning",
        &["probes/", "-99", "remove what is left"],
    );
    let found = build.while_faulty(denied, |seen| seen.method == Method::GET && seen.key.ends_with("-99"));
    found.expect("writable", "failed", &["get s3://"]);
    let found = build.while_faulty(Fault::Pretend, |seen| seen.method == Method::PUT);
    found.expect("writable", "failed", &["does not come back"]);
    let found = build.while_faulty(Fault::Pretend, |seen| seen.method == Method::DELETE && seen.key.ends_with("-99"));
    found.expect("writable", "failed", &["is still there"]);
}

#[test]
fn a_store_that_lets_second_creates_through_is_found_out() {
    let build = Build::new();
    let broken = || build.while_faulty(Fault::IgnoreCondition, |seen| seen.create);
    broken().expect(
        "exclusive-create",
        "failed",
        &["more than one through", "though it did not", "election = ", "sole", "follower", "and remove the object certfleet.json"],
    );
    build.machine.change("certfleet.toml", "[datastore]\n", "[datastore]\nelection = \"sole\"\n");
    broken().expect("exclusive-create", "ok", &["sole"]);
    // A manifest that goes by an earlier race.
    build.machine.change("certfleet.toml", "election = \"sole\"\n", "");
    build.s3.objects().change("fleet-a/certfleet.json", |body| {
        *body = String::from_utf8_lossy(body).replace("\"honoured\"", "\"broken\"").into_bytes();
    });
    build.examine().expect("exclusive-create", "failed", &["remembers that it did not", "remove the object certfleet.json"]);
    let probes = build.s3.objects().keys().into_iter().filter(|key| key.contains("probes/")).count();
    assert_eq!(probes, 0, "what was written to try the store out is gone again");
}

#[test]
fn a_run_that_is_asked_to_end_cleans_up() {
    let build = Build::new();
    let keys = build.s3.objects().keys();
    let (sender, reading) = std::sync::mpsc::channel();
    // What was written is read back, and the store does not answer.
    build.s3.fault_always(Fault::Delay(Duration::from_secs(30)), move |seen| {
        let is_it = seen.method == Method::GET && seen.key.ends_with("-99");
        if is_it {
            let _ = sender.send(());
        }
        is_it
    });
    let running = build.machine.start(&["doctor", "--json"]);
    reading.recv_timeout(Duration::from_secs(60)).expect("the object is read back");
    assert!(build.s3.objects().keys().len() > keys.len());
    let pid = rustix::process::Pid::from_raw(running.pid()).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a living process");
    let ended = running.wait().expect(75).says("interrupted");
    assert_eq!(ended.stdout, "");
    assert_eq!(build.s3.objects().keys(), keys);
}

#[test]
fn a_clock_that_differs_from_the_stores_is_called_wrong() {
    let build = Build::new();
    build.examine().expect("clock", "ok", &[]);
    build.s3.advance(Duration::from_secs(300));
    build.examine().expect("clock", "warning", &["behind the store's", "timedatectl"]);
    build.s3.advance(Duration::from_secs(3_600));
    build.examine().expect("clock", "failed", &["minutes behind the store's", "15 minutes"]);
}

#[test]
fn credentials_that_can_do_more_than_they_need_are_found_out_without_touching_anything() {
    let build = Build::new();
    build.s3.objects().put("another/precious", "untouched");
    let keys = build.s3.objects().keys();
    let found = build.examine();
    found.expect("least-privilege", "warning", &["list, write, delete beside fleet-a/", "docs/configuration.md"]);
    assert_eq!(build.s3.objects().keys(), keys);
    limit_to_prefix(&build.s3);
    build.examine().expect("least-privilege", "ok", &["fleet-a/"]);
    build.s3.clear_faults();

    // What could not be removed again is not written.
    build.s3.forget_requests();
    let found = build.while_faulty(Fault::Refuse(403, "AccessDenied"), |seen| seen.method == Method::DELETE && is_beside(seen));
    found.expect("least-privilege", "ok", &["can be listed", "nothing there can be removed"]);
    assert!(!build.s3.requests().iter().any(|seen| seen.method == Method::PUT && is_beside(seen)));
    assert_eq!(build.s3.objects().keys(), keys);

    build.machine.change("certfleet.toml", "/fleet-a\"", "\"");
    build.examine().expect("least-privilege", "skipped", &["a bucket of its own"]);
}

#[test]
fn an_identity_that_is_missing_open_or_anothers_is_found_out() {
    let build = Build::new();
    let path = build.machine.path("runtimedata/identity.age");
    let own = fs::read_to_string(&path).expect("an identity");
    build.examine().expect("identity", "ok", &["whom the datastore is sealed to"]).expect("owner", "ok", &["mode 0600"]);

    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a mode");
    build.examine().expect("identity", "failed", &["0640", "chmod 600"]).expect("bundles", "skipped", &["no identity"]);
    fs::remove_file(&path).expect("no identity");
    build.examine().expect("identity", "failed", &["is missing", "copy the fleet's identity"]);
    assert!(!path.exists(), "none is made");
    let other = Machine::new(SITE);
    other.run(&["ensure"]).expect(0);
    fs::copy(other.path("runtimedata/identity.age"), &path).expect("an identity");
    build.examine().expect("identity", "failed", &["sealed to", "the fleet's own identity file"]);

    fs::write(&path, own).expect("an identity");
    let wanted = SealWanted::Age(IdentityPlace::File(path.clone()));
    let uid = fs::metadata(&path).expect("a file").uid();
    assert_eq!(identity::owner(&wanted, &[uid]).expect("a finding").verdict, Verdict::Ok);
    let stranger = identity::owner(&wanted, &[uid + 1]).expect("a finding");
    assert_eq!((stranger.verdict, stranger.remedy), (Verdict::Warning, Some(format!("chown {} {}", uid + 1, path.display()))));
}

#[test]
fn a_manifest_that_is_missing_or_damaged_is_found_out() {
    let build = Build::new();
    let manifest = build.s3.objects().get("fleet-a/certfleet.json").expect("a manifest");
    build.examine().expect("manifest", "ok", &["format 1"]);
    build.s3.objects().put("fleet-a/certfleet.json", "{");
    build.examine().expect("manifest", "failed", &["damaged", "restore that object"]);
    build
        .s3
        .objects()
        .put("fleet-a/certfleet.json", manifest.iter().map(|byte| if *byte == b'1' { b'9' } else { *byte }).collect::<Vec<_>>());
    build.examine().expect("manifest", "failed", &["update certfleet"]);
    build.s3.objects().delete("fleet-a/certfleet.json");
    build.examine().expect("manifest", "failed", &["no certfleet.json", "certfleet ensure"]);
}

#[test]
fn bundles_that_do_not_open_are_named() {
    let build = Build::new();
    let more = "[[site]]\nname = \"b.example.test\"\nissuers = [\"self-signed\"]\n";
    build.machine.write("certfleet.toml", build.machine.read("certfleet.toml") + more);
    build.examine().expect("bundles", "skipped", &["none yet of b.example.test", "certfleet ensure b.example.test"]);
    build.machine.run(&["ensure"]).expect(0);
    build.examine().expect("bundles", "ok", &["2 of 2"]);
    build.s3.objects().change("fleet-a/bundles/b.example.test/0000000001", |body| {
        *body = String::from_utf8_lossy(body).replace("\"proof\": \"", "\"proof\": \"00").into_bytes();
    });
    let found = build.examine();
    found.expect("bundles", "failed", &["b.example.test/0000000001 cannot be used", "certfleet ensure b.example.test"]);
    assert!(found.all("bundles")[1]["what"].as_str().expect("a text").contains("1 of 2"));
    build.s3.advance(Duration::from_secs(100 * 86_400));
    build.examine().expect("bundles", "failed", &["ended on"]);
}
