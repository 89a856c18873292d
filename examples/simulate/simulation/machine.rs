//! The machines: what cron starts on each, on the code under test.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use certfleet::datastore::{Datastore, PutMode};
use certfleet::domain::node_plan::Part;
use certfleet::domain::object_key::ObjectKey;
use certfleet::domain::plan::Intent;
use certfleet::domain::record::{self, ExclusiveCreate, Holder, IssuerClass, Manifest};
use certfleet::fleet::delivery::Delivered;
use certfleet::fleet::first_use;
use certfleet::fleet::gather::SiteWanted;
use certfleet::fleet::identity::{self, IdentityPlace, SealWanted, seal_on_node};
use certfleet::fleet::issuers::{Anchors, Issuers, NamedIssuer};
use certfleet::fleet::node::{Node, NodeServer as ServerOnNode, Root};
use certfleet::fleet::node_state::NodeState;
use certfleet::fleet::place::Place;
use certfleet::fleet::progress::Progress;
use certfleet::fleet::report::Outcome;
use certfleet::fleet::runtimedata::Runtimedata;
use certfleet::fleet::seal::Seal;
use certfleet::fleet::snapshot::Snapshot;
use certfleet::fleet::{Creates, Fleet};
use certfleet::issuer::Issuer;
use certfleet::system::{clock, random};
use certfleet::target::ssl_root::{Files, SslRoot};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;

use super::bug::Bug;
use super::ca::{self, Desk};
use super::fault::Fault;
use super::invariants::{self, Standing};
use super::process::Process;
use super::scenario::Store;
use super::server::{self, NodeServer};
use super::store::{self, Way};
use super::world::{BUILD, World};

/// How long a run waits for another machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// How long a server is given to serve a new leaf.
const SERVER_DEADLINE: Duration = Duration::from_secs(30);

/// How a run ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// By itself, with all as it was asked for.
    Well,
    /// By itself, with something to tell.
    Badly,
    /// Another run was at work on that machine.
    Occupied,
    /// It was killed.
    Killed,
}

/// What unwinds a run that is killed between two changes of its disk.
struct KilledOnDisk;

/// What a run tells, as part of the trace.
struct Tell(Arc<Process>);

impl Progress for Tell {
    fn step(&self, subject: &dyn Display, what: &str) {
        self.0.tell(|| format!("{subject}: {what}"));
    }

    fn note(&self, what: &str) {
        self.0.tell(|| what.to_owned());
    }

    fn warning(&self, what: &str) {
        self.0.tell(|| format!("warning: {what}"));
    }
}

/// What a machine believes to be the time.
pub fn wall_clock(world: &World, machine: usize) -> DateTime<Utc> {
    let off = machine_clock(world, machine).0;
    world.now() + off
}

/// By how much a machine's clock is off, and how fast it runs. Drawn from the seed and the machine: the same in all its runs.
fn machine_clock(world: &World, machine: usize) -> (TimeDelta, f64) {
    let faults = &world.scenario.faults;
    let mut drawn = super::random::Random::new(world.scenario.clocks.wrapping_add(machine as u64));
    let off = i64::try_from(drawn.below(60 * 86_400)).unwrap_or_default() - 30 * 86_400;
    let hundredths = i32::try_from(drawn.below(21)).unwrap_or_default() - 10;
    let off = if faults.contains(&Fault::ClockOff) { TimeDelta::seconds(off) } else { TimeDelta::zero() };
    let rate = if faults.contains(&Fault::ClockRate) { 1.0 + f64::from(hundredths) / 100.0 } else { 1.0 };
    (off, rate)
}

/// Runs the program on a machine until it ends or is killed.
pub async fn supervise(process: &Arc<Process>, run: impl Future<Output = Ended>) -> Ended {
    let rate = machine_clock(&process.world, process.machine).1;
    let run = AssertUnwindSafe(clock::running_at(rate, run)).catch_unwind();
    let ended = tokio::select! {
        biased;
        () = process.killed.cancelled() => Ended::Killed,
        ended = run => match ended {
            Ok(ended) => ended,
            Err(payload) if payload.is::<KilledOnDisk>() => Ended::Killed,
            Err(payload) => resume_unwind(payload),
        },
    };
    process.ended.store(true, Ordering::Relaxed);
    process.tell(|| format!("the run has ended: {ended:?}"));
    ended
}

/// Called before every change of a disk on this thread.
pub fn disk_changes(world: &Arc<World>, step: &'static str, path: &Path) -> io::Result<()> {
    let machine = path.strip_prefix(&world.disks).ok().and_then(|path| path.components().next());
    let machine = machine.and_then(|machine| machine.as_os_str().to_str()).and_then(|machine| machine.parse::<usize>().ok());
    let Some(process) = machine.and_then(|machine| world.at_work(machine)) else { return Ok(()) };
    let machine = process.machine;
    let serving = path.starts_with(world.disk(machine).join("ssl"));
    if serving {
        invariants::is_whole(world, machine);
    }
    // The mixture lies there until the link is switched: for a moment, or until the next run where this one ends here.
    if world.bug == Some(Bug::FilesOneByOne) && step == "switch" {
        replace_the_key_first(world, machine, path);
    }
    if world.bug == Some(Bug::NotSwitchedBack) && step == "switch" && process.is_refused() {
        return Err(io::Error::other("the way back is missing"));
    }
    let restarts = serving && world.state().servers[machine].running && world.strikes_call(Fault::ServerRestarts);
    // With what its test refuses it would not start.
    if restarts && server::accepts(world, machine).is_ok() {
        process.tell(|| format!("the server restarts before: {step} {}", path.display()));
        server::load(world, machine);
    }
    let rate = world.scenario.per_mille / 4;
    if world.strikes(Fault::DiskFull, rate) {
        let until = tokio::time::Instant::now() + world.pause(1_000, 10 * 3_600_000);
        world.state().disk_full_until.insert(machine, until);
    }
    let grows = !matches!(step, "remove" | "switch" | "exchange" | "replace" | "put in place" | "keep" | "prune");
    let full = world.state().disk_full_until.get(&machine).is_some_and(|until| tokio::time::Instant::now() < *until);
    if full && grows {
        process.struck();
        process.tell(|| format!("the disk is full: {step} {}", path.display()));
        return Err(io::ErrorKind::StorageFull.into());
    }
    if world.strikes(Fault::KilledOnDisk, rate) {
        process.die(|| format!("killed before: {step} {}", path.display()));
        resume_unwind(Box::new(KilledOnDisk));
    }
    Ok(())
}

/// The mistake of a program that copies its files over those that a server reads.
fn replace_the_key_first(world: &World, machine: usize, live: &Path) {
    let archive = world.disk(machine).join("ssl/archive").join(live.file_name().unwrap_or_default());
    let newest = std::fs::read_dir(archive)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u64>().ok().zip(Some(entry.path())))
        .max();
    if let Some((_, newest)) = newest
        && live.join("privkey.pem").exists()
    {
        let _ = std::fs::copy(newest.join("privkey.pem"), live.join("privkey.pem"));
    }
}

/// What an earlier run has left, where this is not the first.
pub fn prepare(world: &World) {
    if world.scenario.first_use {
        return;
    }
    let recipient = world.scenario.sealed.then(|| {
        let path = identity_path(world);
        identity::create(&path).expect("an identity");
        identity::recipient(&identity::read(&path).expect("an identity").expect("it was made"), "").expect("an identity")
    });
    let (version, fleet) = (record::VERSION, random::name());
    let exclusive_create = match world.scenario.store {
        Store::Exclusive => ExclusiveCreate::Honoured,
        Store::BestEffort => ExclusiveCreate::Broken,
    };
    let manifest = Manifest { version, fleet, recipient, exclusive_create, probed_at: world.now() };
    store::write(world, BUILD, &ObjectKey::manifest(), record::write(&manifest).into(), PutMode::Create);
}

fn identity_path(world: &World) -> PathBuf {
    world.disks.join("identity.age")
}

fn seal_wanted(world: &World) -> SealWanted {
    if world.scenario.sealed { SealWanted::Age(IdentityPlace::File(identity_path(world))) } else { SealWanted::None }
}

fn fleet(process: &Arc<Process>, store: Arc<dyn Datastore>, seal: Seal, place: &Place) -> Fleet {
    let world = &process.world;
    let mut issuers = Issuers::default();
    let anchors = if world.scenario.proves_chains { Anchors::Given(ca::trust()) } else { Anchors::Anyone };
    for site in &world.sites {
        // One solver for each site keeps their desks apart.
        let desk: Arc<dyn Issuer> = Arc::new(Desk { process: Arc::clone(process), site: site.name.clone() });
        issuers.add(site, "ca", NamedIssuer { class: IssuerClass::Acme, anchors: anchors.clone(), issuer: Some(desk) });
    }
    Fleet {
        store,
        seal,
        creates: match world.scenario.store {
            Store::Exclusive => Creates::Exclusive,
            Store::BestEffort => Creates::BestEffort,
        },
        holder: Holder { node: process.name(), run: process.run.clone(), place: place.id().to_owned() },
        issuers,
        runtimedata: (process.machine == BUILD).then(|| Runtimedata::new(world.disk(BUILD).join("ssl"))),
        spool: place.spool(),
        progress: Arc::new(Tell(Arc::clone(process))),
        interrupt: process.interrupt.clone(),
        patience: PATIENCE,
    }
}

async fn take_place(process: &Arc<Process>) -> Option<Place> {
    Place::take(process.world.disk(process.machine).join("place"), Duration::ZERO, |_| {}).await.ok()
}

/// `certfleet ensure` on the build machine.
pub async fn ensure(process: Arc<Process>) -> Ended {
    let world = Arc::clone(&process.world);
    let Some(place) = take_place(&process).await else { return Ended::Occupied };
    world.set_at_work(&process);
    let store: Arc<dyn Datastore> = Arc::new(Way::new(&process));
    let wanted = seal_wanted(&world);
    let progress = Tell(Arc::clone(&process));
    let looked = async {
        let snapshot = Snapshot::take(&*store).await.ok()?;
        let seal = match first_use::known(&*store, &wanted).await.ok()? {
            Some((_, seal)) => seal,
            None => first_use::prepare(&*store, &wanted, &snapshot, &random::name(), &progress).await.ok()?.1,
        };
        Some((snapshot, seal))
    };
    let Some((snapshot, seal)) = looked.await else { return Ended::Badly };
    let fleet = fleet(&process, store, seal, &place);
    let sites: Vec<_> =
        world.sites.iter().map(|site| SiteWanted { site: site.clone(), intent: Intent::IfDue, supplied: None, held: None }).collect();
    let reports = fleet.ensure(&sites, &snapshot).await;
    for report in &reports {
        process.tell(|| format!("{}: {:?} {:?}", report.site, report.outcome, report.problem.as_ref().map(|problem| &problem.what)));
        if report.outcome == Outcome::Done && report.in_place.is_none() {
            world.violate("exit code", || format!("ensure says that {} is done, and there is nothing", report.site));
        }
    }
    if reports.iter().all(|report| report.outcome == Outcome::Done) { Ended::Well } else { Ended::Badly }
}

fn node(process: &Arc<Process>, part: Part, snapshot: &Snapshot) -> Node {
    let world = &process.world;
    let server = Arc::new(NodeServer { process: Arc::clone(process) });
    let sites = world.sites.iter().map(|site| site.name.clone()).collect();
    let servers = vec![ServerOnNode { server: server.clone(), verify: Some(server), deadline: SERVER_DEADLINE, sites }];
    let place = world.disk(process.machine).join("place");
    Node {
        name: process.name(),
        part,
        followed: BTreeSet::new(),
        roots: vec![Root { ssl: SslRoot::new(world.disk(process.machine).join("ssl"), None, 0o600, Files::Separate), servers }],
        sites: world.sites.clone(),
        delivered: Delivered::in_place(&place),
        place,
        stale_after: world.scenario.stale_after,
        clock_offset_secs: (wall_clock(world, process.machine) - snapshot.clock().now()).num_seconds(),
    }
}

/// `certfleet agent`, or `bootstrap`, on a node.
pub async fn agent(process: Arc<Process>, part: Part) -> Ended {
    let world = Arc::clone(&process.world);
    let Some(place) = take_place(&process).await else { return Ended::Occupied };
    world.set_at_work(&process);
    let before: Vec<_> = world.sites.iter().map(|site| Standing::of(&world, process.machine, &site.name)).collect();
    let store: Arc<dyn Datastore> = Arc::new(Way::new(&process));
    let wanted = seal_wanted(&world);
    let Ok(seal) = seal_on_node(&wanted) else { return Ended::Badly };
    let directory = world.disk(process.machine).join("place");
    let state = NodeState::read(&directory);
    let Ok(snapshot) = Snapshot::take(&*store).await else { return Ended::Badly };
    let node = node(&process, part, &snapshot);
    let observed = node.observe(&seal, &state, &snapshot);
    if observed.iter().any(|site| site.plan.needs_the_store()) && first_use::known(&*store, &wanted).await.is_err() {
        return Ended::Badly;
    }
    let fleet = fleet(&process, store, seal, &place);
    let reports = fleet.tend(&node, &observed, &snapshot).await;
    for report in &reports {
        let problems = report.problem.iter().chain(report.places.iter().filter_map(|place| place.problem.as_ref()));
        process.tell(|| format!("{}: {:?} {:?}", report.site, report.outcome, problems.map(|problem| &problem.what).collect::<Vec<_>>()));
    }
    let told = if process.interrupt.is_cancelled() { Ok(()) } else { fleet.report(&node, &state, &reports, &snapshot).await };
    for (site, before) in world.sites.iter().zip(&before) {
        invariants::node_has_run(&world, &process, &site.name, before);
    }
    if told.is_ok() && reports.iter().all(|report| report.outcome == Outcome::Done) { Ended::Well } else { Ended::Badly }
}
