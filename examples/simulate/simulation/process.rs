//! One run of the program on one machine: it can be killed, frozen and told to end, between any two of its calls.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use certfleet::domain::object_key::Generation;
use certfleet::domain::site::SiteName;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::world::{World, machine_name};

/// Somebody else's turn at a boundary: told when it has come, and awaited.
pub type Turn = (oneshot::Sender<()>, oneshot::Receiver<()>);

/// A run.
pub struct Process {
    pub world: Arc<World>,
    pub machine: usize,
    /// Cancelled when it is dead; whoever runs it drops it then.
    pub killed: CancellationToken,
    /// The program's own: SIGTERM.
    pub interrupt: CancellationToken,
    /// Set where anything went wrong that the run can feel.
    pub troubled: AtomicBool,
    /// What it calls itself in its leases.
    pub run: String,
    /// Set when it has come to an end, whichever.
    pub ended: AtomicBool,
    /// Set where the server's test refused the new certificate.
    refused: AtomicBool,
    /// Set where anything else struck the run itself.
    hit: AtomicBool,
    /// Calls so far: each has two boundaries.
    boundaries: AtomicUsize,
    orders: AtomicU64,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    frozen_until: Option<Instant>,
    /// What it has a lease for, or has tried to.
    works_on: Vec<(SiteName, Generation)>,
    /// That of it which something has happened to.
    excused: Vec<(SiteName, Generation)>,
    turns: Vec<(usize, Turn)>,
    /// The boundary at which it is killed.
    killed_at: Option<usize>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name())
    }
}

impl Process {
    pub fn new(world: &Arc<World>, machine: usize) -> Arc<Self> {
        // Drawn from the seed: between two candidates of one second their names decide.
        let run = format!("{:032x}", world.state().random.next());
        Arc::new(Self {
            world: Arc::clone(world),
            machine,
            killed: CancellationToken::new(),
            interrupt: CancellationToken::new(),
            troubled: AtomicBool::new(false),
            run,
            ended: AtomicBool::new(false),
            refused: AtomicBool::new(false),
            hit: AtomicBool::new(false),
            boundaries: AtomicUsize::new(0),
            orders: AtomicU64::new(0),
            inner: Mutex::default(),
        })
    }

    pub fn name(&self) -> String {
        machine_name(self.machine)
    }

    pub fn tell(&self, text: impl FnOnce() -> String) {
        self.world.tell(&machine_name(self.machine), text);
    }

    /// Has somebody else take a turn at the boundary of that number. The first is resolved when the turn has come; the run goes on when
    /// the second is used.
    pub fn give_turn_at(&self, boundary: usize) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let ((come, has_come), (done, is_done)) = (oneshot::channel(), oneshot::channel());
        self.inner().turns.push((boundary, (come, is_done)));
        (has_come, done)
    }

    /// The run is over: the turns that have not come never will.
    pub fn drop_turns(&self) {
        self.inner().turns.clear();
    }

    /// Kills it at the boundary of that number, after whatever else happens there.
    pub fn kill_at(&self, boundary: usize) {
        self.inner().killed_at = Some(boundary);
    }

    /// How many boundaries it has passed.
    pub fn boundaries(&self) -> usize {
        self.boundaries.load(Ordering::Relaxed)
    }

    fn inner(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, what strikes this run may cost that generation another issuance.
    pub fn begins_work_on(&self, site: &SiteName, generation: Generation) {
        self.inner().works_on.push((site.clone(), generation));
    }

    pub fn works_on(&self, site: &SiteName) -> Option<Generation> {
        self.inner().works_on.iter().rev().find(|(of, _)| of == site).map(|(_, generation)| *generation)
    }

    /// The server has refused something: what was there before must be there again, and be served.
    pub fn refused_by_server(&self) {
        self.refused.store(true, Ordering::Relaxed);
        self.troubled.store(true, Ordering::Relaxed);
    }

    /// Whether the server has refused something.
    pub fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }

    /// Whether all that went wrong is that the server refused.
    pub fn is_only_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed) && !self.hit.load(Ordering::Relaxed)
    }

    /// Notes that something went wrong that this run can feel.
    pub fn troubled(&self) {
        self.hit.store(true, Ordering::Relaxed);
        self.troubled.store(true, Ordering::Relaxed);
    }

    /// The same, and that it may cost what the run works on another issuance.
    pub fn struck(&self) {
        self.troubled();
        // A run that something has happened to costs at most one more issuance, however much happens to it.
        let works_on: Vec<_> = {
            let mut inner = self.inner();
            let fresh: Vec<_> = inner.works_on.iter().filter(|work| !inner.excused.contains(work)).cloned().collect();
            inner.excused.extend(fresh.iter().cloned());
            fresh
        };
        for (site, generation) in works_on {
            self.world.excuse(&site, generation);
        }
    }

    /// Whether it runs, and nothing has happened to it.
    pub fn is_well(&self) -> bool {
        !self.is_troubled() && !self.killed.is_cancelled() && !self.ended.load(Ordering::Relaxed)
    }

    pub fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    /// The place between two steps of the run. `what` is the step that comes next.
    pub async fn boundary(&self, what: &str) {
        let boundary = self.boundaries.fetch_add(1, Ordering::Relaxed);
        let (turns, killed) = {
            let mut inner = self.inner();
            let (now, later): (Vec<_>, Vec<_>) = inner.turns.drain(..).partition(|(at, _)| *at == boundary);
            inner.turns = later;
            (now, inner.killed_at == Some(boundary))
        };
        for (_, (come, is_done)) in turns {
            if come.send(()).is_ok() {
                let _ = is_done.await;
            }
        }
        if killed {
            self.die(|| format!("killed before: {what}"));
        }
        // Less often than calls: a killed process asks nothing any more.
        let rate = self.world.scenario.per_mille / 4;
        if self.world.strikes(Fault::Killed, rate) {
            self.die(|| format!("killed before: {what}"));
        }
        if self.world.strikes(Fault::Frozen, rate) {
            self.struck();
            let pause = self.world.pause(1_000, 900_000);
            self.tell(|| format!("frozen for {} s before: {what}", pause.as_secs()));
            self.inner().frozen_until = Some(Instant::now() + pause);
        }
        if self.world.strikes(Fault::Interrupted, rate / 2) {
            self.struck();
            self.tell(|| format!("SIGTERM before: {what}"));
            self.interrupt.cancel();
        }
        self.thawed().await;
        if self.killed.is_cancelled() {
            pending::<()>().await;
        }
    }

    /// Everything of a frozen process waits, what it does in the background as well.
    async fn thawed(&self) {
        loop {
            let until = self.inner().frozen_until;
            match until {
                Some(until) if Instant::now() < until => sleep_until(until).await,
                _ => return,
            }
        }
    }

    pub fn die(&self, why: impl FnOnce() -> String) {
        self.struck();
        self.tell(why);
        self.killed.cancel();
    }

    /// Something on the way takes its time.
    pub async fn travel(&self, least_ms: u64, most_ms: u64) {
        let pause = self.world.pause(least_ms, most_ms * self.world.scenario.slowness);
        sleep(pause).await;
    }

    /// A number that no other order of this run has.
    pub fn next_order(&self) -> u64 {
        self.orders.fetch_add(1, Ordering::Relaxed)
    }
}

/// How long a call waits before it is given up.
pub fn time_out(world: &World) -> Duration {
    world.pause(2_000, 30_000)
}
