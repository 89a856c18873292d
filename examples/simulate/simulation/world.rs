//! What all machines of a history share: chance, time, the bucket, the CA, and what is written down of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use certfleet::domain::object_key::{Generation, ObjectKey};
use certfleet::domain::site::{Site, SiteName};
use chrono::{DateTime, Utc};
use tokio::time::Instant;

use super::bug::Bug;
use super::ca::Ca;
use super::fault::{Counts, Fault};
use super::process::Process;
use super::random::Random;
use super::scenario::Scenario;
use super::server::ServerState;
use super::store::Bucket;

/// When every history begins.
const EPOCH_SECONDS: i64 = 1_900_000_000;

/// The number of the build machine; nodes count from 1.
pub const BUILD: usize = 0;

/// One invariant that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// `I1` to `I8`, or what else was promised.
    pub invariant: &'static str,
    pub what: String,
}

/// A history under way.
#[derive(Debug)]
pub struct World {
    pub scenario: Scenario,
    pub bug: Option<Bug>,
    pub sites: Vec<Site>,
    /// Where the machines have their disks.
    pub disks: PathBuf,
    begun: Instant,
    state: Mutex<State>,
    /// The run that is at work on each machine.
    at_work: Mutex<BTreeMap<usize, Arc<Process>>>,
}

/// What changes in it.
#[derive(Debug)]
pub struct State {
    pub random: Random,
    /// Faults happen while this holds.
    pub faulty: bool,
    pub counts: Counts,
    pub bucket: Bucket,
    pub ca: Ca,
    /// The servers, by the number of their machine.
    pub servers: Vec<ServerState>,
    /// When a machine reaches the store again.
    pub cut_off_until: BTreeMap<usize, Instant>,
    /// When a machine's disk has room again.
    pub disk_full_until: BTreeMap<usize, Instant>,
    /// Fault events that struck whoever was at work on a generation: each may cost one more issuance.
    pub excuses: BTreeMap<(SiteName, Generation), u64>,
    pub violation: Option<Violation>,
    /// Steps, where somebody wants to read them.
    pub trace: Option<Vec<String>>,
    /// Generations that the bucket lost on purpose: they may come back, or be made anew.
    pub lost: BTreeSet<ObjectKey>,
    /// When the CA last refused an order for a generation, and how many excuses there were by then.
    pub refused: BTreeMap<(SiteName, Generation), (DateTime<Utc>, u64)>,
}

impl World {
    pub fn new(scenario: Scenario, random: Random, bug: Option<Bug>, sites: Vec<Site>, disks: PathBuf, traced: bool) -> Arc<Self> {
        let machines = scenario.nodes + 1;
        let ca = Ca::new(scenario.lifetime, usize::try_from(random.clone().next() % 4096).unwrap_or_default());
        let state = State {
            random,
            faulty: !scenario.is_calm(),
            counts: Counts::default(),
            bucket: Bucket::default(),
            ca,
            servers: (0..machines).map(|_| ServerState::default()).collect(),
            cut_off_until: BTreeMap::new(),
            disk_full_until: BTreeMap::new(),
            excuses: BTreeMap::new(),
            violation: None,
            trace: traced.then(Vec::new),
            lost: BTreeSet::new(),
            refused: BTreeMap::new(),
        };
        Arc::new(Self { scenario, bug, sites, disks, begun: Instant::now(), state: Mutex::new(state), at_work: Mutex::default() })
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The store's time.
    pub fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp(EPOCH_SECONDS, 0).unwrap_or_default() + self.begun.elapsed()
    }

    pub fn since_begin(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Where a machine has its files.
    pub fn disk(&self, machine: usize) -> PathBuf {
        self.disks.join(machine.to_string())
    }

    /// Whether this fault strikes now; if so it is counted. `per_mille` is how likely it is among the calls that it could strike.
    pub fn strikes(&self, fault: Fault, per_mille: u64) -> bool {
        let mut state = self.state();
        let strikes = state.faulty && self.scenario.faults.contains(&fault) && state.random.chance(per_mille);
        if strikes {
            state.counts.count(fault);
        }
        strikes
    }

    /// The same at the rate of the scenario.
    pub fn strikes_call(&self, fault: Fault) -> bool {
        self.strikes(fault, self.scenario.per_mille)
    }

    pub fn between(&self, least: u64, most: u64) -> u64 {
        self.state().random.between(least, most)
    }

    /// A number of milliseconds in between.
    pub fn pause(&self, least_ms: u64, most_ms: u64) -> Duration {
        Duration::from_millis(self.between(least_ms, most_ms))
    }

    /// Writes a step down for readers; `text` is only called where there are any.
    pub fn tell(&self, who: &str, text: impl FnOnce() -> String) {
        let since = self.begun.elapsed();
        if let Some(trace) = &mut self.state().trace {
            let (day, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
            let (hours, minutes, seconds) = (second / 3600, second / 60 % 60, second % 60);
            let text = steady(&text().replace(&*self.disks.to_string_lossy(), ""));
            trace.push(format!("day {day:>2} {hours:02}:{minutes:02}:{seconds:02}.{:03}  {who:<6} {text}", since.subsec_millis()));
        }
    }

    /// Writes down that an invariant does not hold. The first is kept: what follows from it says less.
    pub fn violate(&self, invariant: &'static str, what: impl FnOnce() -> String) {
        let what = what();
        self.tell("!", || format!("{invariant} VIOLATED: {what}"));
        self.state().violation.get_or_insert(Violation { invariant, what });
    }

    pub fn is_violated(&self) -> bool {
        self.state().violation.is_some()
    }

    /// The run at work on a machine, if there is one.
    pub fn at_work(&self, machine: usize) -> Option<Arc<Process>> {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).get(&machine).cloned()
    }

    pub fn set_at_work(&self, process: &Arc<Process>) {
        self.at_work.lock().unwrap_or_else(PoisonError::into_inner).insert(process.machine, Arc::clone(process));
    }

    /// Something struck whoever was at work on that generation.
    pub fn excuse(&self, site: &SiteName, generation: Generation) {
        *self.state().excuses.entry((site.clone(), generation)).or_default() += 1;
    }
}

/// The text without what is random outside the simulation, names of 128 bits and of keys: the same seed gives the same trace.
fn steady(text: &str) -> String {
    let mut steady = String::with_capacity(text.len());
    for word in text.split_inclusive(|character: char| !character.is_ascii_hexdigit()) {
        let digits = word.trim_end_matches(|character: char| !character.is_ascii_hexdigit());
        if digits.len() >= 32 {
            steady.push('*');
            steady.push_str(&word[digits.len()..]);
        } else {
            steady.push_str(word);
        }
    }
    steady
}

/// The machine of that name.
pub fn machine_number(name: &str) -> Option<usize> {
    if name == "build" { Some(BUILD) } else { name.strip_prefix("ws-")?.parse().ok() }
}

pub fn machine_name(machine: usize) -> String {
    if machine == BUILD { "build".to_owned() } else { format!("ws-{machine}") }
}
