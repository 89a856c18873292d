//! What one seed draws before anything happens: the fleet, its certificates, and which faults there are.

use std::collections::BTreeSet;
use std::time::Duration;

use super::fault::Fault;
use super::random::Random;

const HOUR: Duration = Duration::from_secs(3600);

/// Lifetimes of certificates, in hours: two days, Let's Encrypt's `shortlived` profile, ten days, and the 45 days to come.
const LIFETIMES: [u32; 4] = [48, 160, 240, 1080];

/// Nodes of a fleet where nothing else is asked for.
const USUAL_NODES: usize = 5;

/// How the store answers a second create, and what the fleet makes of that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Store {
    /// It refuses, as S3 does.
    Exclusive,
    /// It lets it through; `election = "best-effort"`.
    BestEffort,
}

/// One fleet, and what it will live through.
#[derive(Clone, Debug)]
#[allow(clippy::struct_excessive_bools, reason = "each is drawn by itself")]
pub struct Scenario {
    pub store: Store,
    pub nodes: usize,
    pub sites: usize,
    /// Nights with faults.
    pub nights: u64,
    pub lifetime: Duration,
    /// Whether keys are sealed: most histories go without, because real encryption takes most of the time.
    pub sealed: bool,
    /// Whether chains must lead to the CA's root: that is a tenth of a millisecond each time.
    pub proves_chains: bool,
    /// Whether the datastore is used for the first time: that takes some two hundred requests.
    pub first_use: bool,
    /// Whether all nodes start in the same second.
    pub at_once: bool,
    /// How often an agent runs in a night.
    pub runs_per_night: u64,
    /// How much longer than usual everything takes on its way: the longer, the more falls between two calls.
    pub slowness: u64,
    /// How long a node may be silent: three times as often it looks at what is served, and tells.
    pub stale_after: Duration,
    /// What the machines' clocks are drawn from.
    pub clocks: u64,
    pub faults: BTreeSet<Fault>,
    /// How often a call goes wrong, in a thousand.
    pub per_mille: u64,
}

impl Scenario {
    pub fn draw(random: &mut Random, store: Store, nodes: Option<usize>) -> Self {
        let drawn = if random.chance(700) { USUAL_NODES } else { usize::try_from(random.between(1, 8)).unwrap_or(USUAL_NODES) };
        let lifetime = HOUR * random.one_of(&LIFETIMES);
        let per_mille = random.one_of(&[0, 2, 10, 10, 40, 120]);
        // Half of the kinds at a time: where everything fails at once, little of it is ever reached.
        let faults = Fault::ALL.iter().copied().filter(|_| random.chance(500)).collect();
        Self {
            store,
            nodes: nodes.unwrap_or(drawn),
            sites: if random.chance(150) { 2 } else { 1 },
            // As many as two or three renewals take.
            nights: if lifetime > HOUR * 300 { random.between(40, 80) } else { random.between(6, 14) },
            lifetime,
            sealed: random.chance(30),
            proves_chains: random.chance(50),
            first_use: random.chance(50),
            at_once: random.chance(500),
            runs_per_night: if random.chance(80) { 3 } else { 1 },
            slowness: random.one_of(&[1, 1, 1, 40]),
            stale_after: HOUR * random.one_of(&[36, 240]),
            clocks: random.next(),
            faults: if per_mille == 0 { BTreeSet::new() } else { faults },
            per_mille,
        }
    }

    /// Without a fault of any kind: what a good day costs is counted exactly.
    pub fn is_calm(&self) -> bool {
        self.faults.is_empty()
    }

    /// When the runs of a night begin, after its start.
    pub fn starts(&self) -> Vec<Duration> {
        (0..self.runs_per_night).map(|run| HOUR * u32::try_from(run * 24 / self.runs_per_night).unwrap_or_default()).collect()
    }
}
