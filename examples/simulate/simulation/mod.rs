//! A whole fleet in one thread: the code under test, on a bucket, a CA, servers, disks and clocks that do what one seed has drawn.
//!
//! Real are the use cases of `src/fleet`, the rules of `src/domain`, the files (below `/dev/shm`, where there is one), the certificates and
//! keys. Simulated are the store, the CA, the web servers, and time, which passes only when everybody waits.

pub mod bug;
mod ca;
pub mod fault;
pub mod interleaving;
mod invariants;
mod machine;
mod process;
mod random;
pub mod scenario;
mod server;
mod store;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use certfleet::domain::key_type::KeyType;
use certfleet::domain::node_plan::Part;
use certfleet::domain::object_key::ObjectKey;
use certfleet::domain::site::{Method, Site};
use certfleet::system::steps;
use tokio::time::{Instant, sleep, sleep_until};

use self::bug::Bug;
use self::fault::{Counts, Fault};
use self::machine::{Ended, supervise};
use self::process::Process;
use self::random::Random;
use self::scenario::{Scenario, Store};
pub use self::world::Violation;
use self::world::{BUILD, World};

const NIGHT: Duration = Duration::from_secs(86_400);

/// Nights without faults, in the end: whoever was told to wait a day has waited then, and renewed, and the others have followed.
const CLEAN_NIGHTS: u64 = 4;

/// How a history is to be run.
#[derive(Clone, Debug)]
pub struct Options {
    pub store: Store,
    pub nodes: Option<usize>,
    pub bug: Option<Bug>,
    pub traced: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { store: Store::Exclusive, nodes: None, bug: None, traced: false }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct History {
    /// Nights of a whole fleet.
    pub nights: u64,
    /// Runs of the program.
    pub runs: u64,
    /// Certificates that the CA has issued.
    pub issued: u64,
    pub counts: Counts,
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
    pub scenario: Scenario,
}

/// Where machines have their disks: in memory, where the system offers that.
pub fn disks() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    base.join(format!("certfleet-simulation-{}", std::process::id()))
}

/// Lives one history through, from its seed.
pub fn run(seed: u64, options: &Options) -> History {
    let mut random = Random::new(seed);
    let scenario = Scenario::draw(&mut random, options.store, options.nodes);
    in_a_world(&seed.to_string(), random, scenario, options, live)
}

fn in_a_world(name: &str, random: Random, scenario: Scenario, options: &Options, live: impl AsyncFnOnce(&Arc<World>) -> u64) -> History {
    let sites: Vec<_> = (0..scenario.sites).map(site).collect();
    let disks = disks().join(format!("{name}-{:?}", std::thread::current().id()));
    std::fs::create_dir_all(&disks).expect("a directory for disks");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let (world, lived, nights) = {
        let _entered = runtime.enter();
        let world = World::new(scenario, random, options.bug, sites, disks.clone(), options.traced);
        let watched = Arc::clone(&world);
        steps::watch(move |step, path| machine::disk_changes(&watched, step, path));
        machine::prepare(&world);
        let lived = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(&world))));
        let nights = world.since_begin().as_secs() / NIGHT.as_secs();
        (world, lived, nights)
    };
    drop(runtime);
    steps::watch(|_, _| Ok(()));
    let _ = std::fs::remove_dir_all(&disks);
    let runs = lived.unwrap_or_else(|payload| {
        let what = payload.downcast_ref::<String>().cloned().or_else(|| payload.downcast_ref::<&str>().map(ToString::to_string));
        world.violate("panic", || what.unwrap_or_default());
        0
    });
    let mut state = world.state();
    History {
        nights,
        runs,
        issued: state.ca.all_issued().count() as u64,
        counts: state.counts.clone(),
        violation: state.violation.clone(),
        trace: state.trace.take().unwrap_or_default(),
        scenario: world.scenario.clone(),
    }
}

fn site(number: usize) -> Site {
    let name = format!("www-{number}.example.test");
    Site {
        name: name.parse().expect("a name"),
        identifiers: vec![name.parse().expect("a name")],
        method: Method::Automatic,
        issuers: vec!["ca".to_owned()],
        solver: Some(name),
        key_type: KeyType::EcdsaP256,
        profile: None,
        renew_before: Duration::from_secs(604_800),
    }
}

/// Nights with faults, then nights without.
async fn live(world: &Arc<World>) -> u64 {
    let begun = Instant::now();
    let mut runs = 0;
    let nights = world.scenario.nights;
    for night in 0..nights + CLEAN_NIGHTS {
        if night == nights {
            heal(world);
        }
        let start = begun + NIGHT * u32::try_from(night).unwrap_or_default();
        sleep_until(start).await;
        if night > 0 && night < nights {
            misfortune(world);
        }
        let before: Vec<_> = world.sites.iter().map(|site| world.state().bucket.highest(&site.name)).collect();
        let evening = world.now();
        runs += one_night(world, night).await;
        invariants::nothing_is_lost(world);
        if night + 1 == nights + CLEAN_NIGHTS {
            invariants::all_is_well(world, evening, &before);
        }
        if world.is_violated() {
            return runs;
        }
    }
    if invariants::holds_one_at_a_time(world) && world.scenario.is_calm() {
        invariants::nothing_was_wasted(world);
    }
    runs
}

/// All faults end.
fn heal(world: &Arc<World>) {
    world.tell("", || "from here on nothing goes wrong".to_owned());
    let mut state = world.state();
    state.faulty = false;
    state.cut_off_until.clear();
    state.disk_full_until.clear();
    for server in &mut state.servers {
        (server.broken_until, server.refuses, server.stuck_until, server.down_until) = (None, None, None, None);
    }
}

/// What happens to machines between their runs.
fn misfortune(world: &Arc<World>) {
    let rate = world.scenario.per_mille;
    for machine in 1..=world.scenario.nodes {
        let until = Instant::now() + NIGHT;
        if world.strikes(Fault::ServerBroken, rate) {
            world.state().servers[machine].broken_until = Some(until);
        }
        if world.strikes(Fault::ServerStuck, rate) {
            world.state().servers[machine].stuck_until = Some(until);
        }
        if world.state().servers[machine].running && world.strikes(Fault::ServerDown, rate) {
            let until = Instant::now() + world.pause(1_000, 90_000_000);
            world.state().servers[machine].down_until = Some(until);
        }
        if world.strikes(Fault::DiskLost, rate) {
            let _ = std::fs::remove_dir_all(world.disk(machine).join("ssl"));
        }
    }
    for site in &world.sites {
        let highest = world.state().bucket.highest(&site.name);
        if highest.0 > 0 && world.strikes(Fault::BucketLoses, rate / 4) {
            let key = ObjectKey::bundle(&site.name, highest);
            world.tell("", || format!("the bucket loses {key}"));
            let mut state = world.state();
            state.bucket.remove(&key);
            state.lost.insert(key);
        }
    }
}

/// Every machine runs, as often as its cron says, and again after it was killed.
async fn one_night(world: &Arc<World>, night: u64) -> u64 {
    // The first deployment: the build machine before all others, the nodes after it.
    let machines: Vec<_> = if night == 0 { vec![BUILD] } else { (0..=world.scenario.nodes).collect() };
    let last = night + 1 == world.scenario.nights + CLEAN_NIGHTS;
    let work = machines.into_iter().map(|machine| nightly(Arc::clone(world), machine, last));
    futures_util::future::join_all(work).await.into_iter().sum()
}

async fn nightly(world: Arc<World>, machine: usize, last: bool) -> u64 {
    let mut runs = 0;
    let begun = Instant::now();
    for start in world.scenario.starts() {
        let splay = if world.scenario.at_once { Duration::ZERO } else { world.pause(0, 300_000) };
        sleep_until(begun + start + splay).await;
        runs += 1;
        let ended = if world.strikes_call(Fault::StartedTwice) {
            runs += 1;
            let (one, other) = tokio::join!(run_once(&world, machine), run_once(&world, machine));
            if one == Ended::Occupied { other } else { one }
        } else {
            run_once(&world, machine).await
        };
        let calm = world.scenario.is_calm() || last;
        if calm && ended != Ended::Well {
            world.violate("liveness", || format!("a run of machine {machine} ended {ended:?}, and nothing went wrong"));
        }
        if ended == Ended::Killed && world.state().random.chance(500) {
            sleep(world.pause(1_000, 600_000)).await;
            runs += 1;
            run_once(&world, machine).await;
        }
    }
    runs
}

async fn run_once(world: &Arc<World>, machine: usize) -> Ended {
    let process = Process::new(world, machine);
    if machine == BUILD {
        return supervise(&process, machine::ensure(Arc::clone(&process))).await;
    }
    // A machine whose server has not been started yet is a new one.
    let new = !world.state().servers[machine].running;
    let part = if new { Part::Bootstrap } else { Part::Renew };
    let ended = supervise(&process, machine::agent(Arc::clone(&process), part)).await;
    if new && ended == Ended::Well {
        world.state().servers[machine].running = true;
        server::load(world, machine);
    }
    ended
}
