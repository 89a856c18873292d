//! Kill it anywhere: the next run ends well, and the CA has issued once.

mod disk;
mod node;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::time::Duration;

use certfleet::domain::bundle::Bundle;

use crate::main_job::{acme, site};
use crate::support::bucket::Bucket;
use crate::support::ca_front::{self, CaFront, Resource};
use crate::support::machine::{Ended, Machine, datastore, give_keys, strike};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::s3_in_process::{Fault, InProcessS3};

const SITE: &str = "www.example.test";

/// More requests than one run makes to either side.
const MOST_STEPS: usize = 60;

/// Kills at the first step, at the second, and so on: `at` says whether its step was reached. Each scene has a thread, and takes the next
/// step that none has taken. Returns how many steps there are.
fn walk<S: Send>(scenes: &mut [S], at: impl Fn(&mut S, usize) -> bool + Sync) -> usize {
    let (next, reached) = (AtomicUsize::new(1), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for scene in scenes {
            scope.spawn(|| {
                loop {
                    let step = next.fetch_add(1, Ordering::SeqCst);
                    assert!(step < MOST_STEPS, "it never ends");
                    if !at(scene, step) {
                        break;
                    }
                    reached.fetch_max(step, Ordering::SeqCst);
                }
            });
        }
    });
    println!("killed at {} steps", reached.load(Ordering::SeqCst));
    reached.into_inner()
}

/// Runs it and kills it at its `step`th request to the store; `false` where it has made fewer.
fn killed_at_request(s3: &InProcessS3, machine: &Machine, arguments: &[&str], fault: &Fault, step: usize) -> bool {
    let (pid, count) = (Arc::default(), AtomicUsize::new(0));
    let kill = killer(&pid);
    s3.fault(fault.clone(), move |_| {
        let hit = count.fetch_add(1, Ordering::SeqCst) + 1 == step;
        if hit {
            kill();
        }
        hit
    });
    let running = machine.start(arguments);
    pid.store(running.pid(), Ordering::SeqCst);
    let ended = running.wait();
    s3.clear_faults();
    assert!(ended.code.is_none_or(|code| code == 0), "{ended:?}");
    ended.code.is_none()
}

/// A machine behind fronts that can kill it.
struct Scene {
    s3: InProcessS3,
    front: CaFront,
    machine: Machine,
    pid: Arc<AtomicI32>,
}

impl Scene {
    fn new(pebble: &Pebble) -> Self {
        let (s3, front) = (InProcessS3::start(), CaFront::start(pebble));
        let machine = machine(pebble, &front, &s3.bucket());
        Self { s3, front, machine, pid: Arc::default() }
    }

    /// Runs it; whoever strikes is told its process id. `true` where it was struck.
    fn run_and_strike(&self) -> bool {
        let running = self.machine.start(&["ensure", "--json"]);
        self.pid.store(running.pid(), Ordering::SeqCst);
        let ended = running.wait();
        assert!(ended.code.is_none_or(|code| code == 0), "{ended:?}");
        ended.code.is_none()
    }

    /// What must hold after a kill: one more run ends well, everything fits, and the CA has issued no more than `issued`.
    fn assert_recovers(&self, pebble: &Pebble, issued_before: usize, step: &str) {
        self.s3.clear_faults();
        self.front.clear_faults();
        // Whatever lies on the disk before the next run is whole, or not there.
        let files = self.machine.files(SITE);
        if files.exists() {
            let read = |name: &str| std::fs::read_to_string(files.join(name)).unwrap_or_else(|error| panic!("{step}: {name}: {error}"));
            Bundle::from_pem(&read("fullchain.pem"), &read("privkey.pem")).unwrap_or_else(|error| panic!("{step}: {error}"));
        }
        let ended = self.machine.run(&["ensure", "--json"]);
        assert_eq!(ended.code, Some(0), "{step}: {ended:?}");
        assert_eq!(ended.site()["in_place"]["generation"], 1, "{step}: {ended:?}");
        assert_eq!(pebble.issued() - issued_before, 1, "{step}: issued twice");
        let again = self.machine.run(&["ensure", "--json"]).expect(0);
        assert_eq!(again.site()["in_place"]["source"], "datastore", "{step}");
    }
}

pub fn machine(pebble: &Pebble, front: &CaFront, bucket: &Bucket) -> Machine {
    let configuration = site(&format!("\"{SITE}\"")) + &datastore(bucket, "fleet") + &acme(&front.directory_url(), pebble.http_port);
    let machine = Machine::new(&configuration);
    give_keys(&machine, bucket);
    machine.write("pebble-tls.pem", front.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    machine
}

fn killer(pid: &Arc<AtomicI32>) -> impl Fn() + Send + Sync + 'static {
    let pid = Arc::clone(pid);
    move || {
        // The child runs before its parent has noted its number.
        while pid.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        strike(pid.load(Ordering::SeqCst));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_request_to_the_store() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    for fault in [Fault::DropBefore, Fault::DropAfter] {
        for step in 0..MOST_STEPS {
            let scene = Scene::new(&pebble);
            let (count, kill) = (AtomicUsize::new(0), killer(&scene.pid));
            scene.s3.fault(fault.clone(), move |_| {
                let hit = count.fetch_add(1, Ordering::SeqCst) == step;
                if hit {
                    kill();
                }
                hit
            });
            let issued = pebble.issued();
            if !scene.run_and_strike() {
                assert!(step > 10, "a run makes more requests than {step}");
                break;
            }
            scene.assert_recovers(&pebble, issued, &format!("{fault:?} at store request {step}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_every_request_to_the_ca() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let mut struck = BTreeSet::new();
    for resource in [
        Resource::Directory,
        Resource::NewNonce,
        Resource::NewAccount,
        Resource::NewOrder,
        Resource::Authorization,
        Resource::Challenge,
        Resource::Order,
        Resource::Finalize,
        Resource::Certificate,
    ] {
        let scene = Scene::new(&pebble);
        scene.front.inject(resource, 1, ca_front::Fault::Struck(Arc::new(killer(&scene.pid))));
        let issued = pebble.issued();
        if scene.run_and_strike() {
            struck.insert(format!("{resource:?}"));
        }
        scene.assert_recovers(&pebble, issued, &format!("after {resource:?}"));
    }
    assert!(struck.len() >= 8, "only {struck:?}");
}

/// A directory datastore and the local CA make no requests: here the moment of the kill walks through the whole run.
#[test]
fn killed_at_any_moment_on_a_directory() {
    let measured = || {
        let machine = Machine::new("");
        let started = std::time::Instant::now();
        machine.run(&["ensure", SITE]).expect(0);
        started.elapsed()
    };
    // The fastest of several: on a busy machine the others may last much longer, and a kill after the end proves nothing.
    let whole = (0..5).map(|_| measured()).min().expect("five runs");
    let mut killed = 0;
    for step in 0..40 {
        let machine = Machine::new("");
        let running = machine.start(&["ensure", SITE]);
        let moment = std::time::Instant::now() + whole * step / 40;
        while std::time::Instant::now() < moment {
            std::thread::yield_now();
        }
        strike(running.pid());
        killed += usize::from(running.wait().code.is_none());
        let ended = machine.run(&["ensure", SITE, "--json"]);
        assert_eq!(ended.code, Some(0), "step {step}: {ended:?}");
        assert_eq!(ended.site()["in_place"]["generation"], 1, "step {step}: {ended:?}");
    }
    assert!(killed > 5, "only {killed} were killed in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_machines_at_once_issue_once() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let s3 = InProcessS3::start();
    let front = CaFront::start(&pebble);
    let machines: Vec<_> = (0..20).map(|_| machine(&pebble, &front, &s3.bucket())).collect();
    machines[0].run(&["init"]).expect(0);
    machines[1..].iter().for_each(|other| machines[0].share_identity(other));
    all_at_once_issue_once(&machines.iter().collect::<Vec<_>>(), &pebble);
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_runs_on_one_machine_at_once_issue_once() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let (s3, front) = (InProcessS3::start(), CaFront::start(&pebble));
    let machine = machine(&pebble, &front, &s3.bucket());
    all_at_once_issue_once(&[&machine; 20], &pebble);
}

#[track_caller]
fn all_at_once_issue_once(machines: &[&Machine], pebble: &Pebble) {
    let runs: Vec<_> = machines.iter().map(|machine| machine.start(&["ensure", "--json"])).collect();
    let ended: Vec<Ended> = runs.into_iter().map(|run| run.wait().expect(0)).collect();
    let fingerprints: BTreeSet<_> = ended.iter().map(|ended| ended.site()["in_place"]["fingerprint_sha256"].to_string()).collect();
    assert_eq!((fingerprints.len(), pebble.issued()), (1, 1));
    assert!(ended.iter().all(|ended| ended.site()["in_place"]["generation"] == 1));
}

/// SIGTERM is what a pipeline that runs out of time sends: the answer to the challenge is taken away, the lease given back.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_asked_to_end_cleans_up() {
    let pebble = Pebble::start(PebbleOptions { validation_pause_seconds: Some(15), ..PebbleOptions::default() }).await;
    let scene = Scene::new(&pebble);
    let webroot = "[solver.web]\nkind = \"http-01\"\nmode = \"webroot\"\npath = \"webroot\"\ncheck = \"off\"\n";
    let configuration = scene.machine.read("certfleet.toml");
    let head = &configuration[..configuration.find("[solver.web]").expect("a solver")];
    scene.machine.write("certfleet.toml", head.to_owned() + webroot);
    scene.machine.create_dir("webroot");
    let (sender, mut asked) = tokio::sync::mpsc::unbounded_channel();
    let told = move |_: &mut serde_json::Value| {
        let _ = sender.send(());
    };
    scene.front.inject(Resource::Challenge, 1, ca_front::Fault::rewritten(told));
    let running = scene.machine.start(&["ensure", "--json"]);
    tokio::time::timeout(Duration::from_secs(60), asked.recv()).await.expect("in time").expect("the CA is asked to look");
    let pid = rustix::process::Pid::from_raw(running.pid()).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a living process");
    let ended = running.wait();
    assert_eq!(ended.code, Some(75), "{ended:?}");
    assert!(ended.stderr.contains("interrupted"), "{ended:?}");
    assert!(!scene.machine.path("webroot/.well-known").exists(), "the answer is gone");
    let lease = scene.s3.objects().get("fleet/leases/www.example.test/0000000001-0001").expect("a lease");
    assert!(String::from_utf8_lossy(&lease).contains("released"));
}
