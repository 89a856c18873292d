//! Small cases, all of them: one node has another run wholly inside each of its calls, once, or twice, or is killed at one; or the other
//! stands still in the middle of its own run, and comes to its end inside each call of this one.

use std::sync::Arc;
use std::time::Duration;

use certfleet::domain::node_plan::Part;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::machine::{self, Ended, supervise};
use super::process::Process;
use super::random::Random;
use super::scenario::{Scenario, Store};
use super::world::World;
use super::{History, Options, in_a_world, invariants, run_once};

const ONE: usize = 1;
const OTHER: usize = 2;

/// A certificate that is due.
const LIFETIME: Duration = Duration::from_secs(48 * 3600);
const UNTIL_DUE: Duration = Duration::from_secs(30 * 3600);

/// A call that takes longer is one of a machine that stands still.
const LONG: Duration = Duration::from_secs(30);

/// What happens in the middle of one node's run. Boundaries are those of [`Process::boundary`]: before each call, and before its reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Case {
    /// The other node runs wholly at `first`, and perhaps again at `second`; at `killed_at` the node is killed.
    Within { first: usize, second: Option<usize>, killed_at: Option<usize> },
    /// The other node began before, and stands still at its own boundary `other`; it goes on, to its end, when this one is at `own`.
    Across { own: usize, other: usize },
}

/// How many boundaries a renewal has where nobody disturbs it.
pub fn boundaries(options: &Options) -> usize {
    let mut count = 0;
    let counted = in_a_world("boundaries", Random::new(0), scenario(options.store), options, async |world| {
        prepare(world).await;
        let process = Process::new(world, ONE);
        supervise(&process, machine::agent(Arc::clone(&process), Part::Renew)).await;
        count = process.boundaries();
        1
    });
    assert!(counted.violation.is_none(), "{:?}", counted.violation);
    count
}

/// Every case there is, for a run with so many boundaries.
pub fn cases(boundaries: usize) -> Vec<Case> {
    let mut cases = Vec::new();
    for first in 0..boundaries {
        cases.push(Case::Within { first, second: None, killed_at: None });
        for later in first..boundaries {
            cases.push(Case::Within { first, second: Some(later), killed_at: None });
            cases.push(Case::Within { first, second: None, killed_at: Some(later) });
        }
        cases.extend((0..boundaries).map(|other| Case::Across { own: first, other }));
    }
    cases
}

/// Lives one case through.
pub fn run(case: Case, options: &Options) -> History {
    let name = format!("{case:?}").replace(|character: char| !character.is_ascii_alphanumeric(), "-");
    in_a_world(&name, Random::new(0), scenario(options.store), options, async |world| {
        prepare(world).await;
        match case {
            Case::Within { first, second, killed_at } => within(world, first, second, killed_at).await,
            Case::Across { own, other } => across(world, own, other).await,
        }
        settle(world).await
    })
}

async fn within(world: &Arc<World>, first: usize, second: Option<usize>, killed_at: Option<usize>) {
    let process = Process::new(world, ONE);
    if let Some(boundary) = killed_at {
        process.kill_at(boundary);
    }
    let turns: Vec<_> = [Some(first), second].into_iter().flatten().map(|boundary| process.give_turn_at(boundary)).collect();
    let others = async {
        for (has_come, done) in turns {
            if has_come.await.is_ok() {
                process.struck();
                run_once(world, OTHER).await;
                let _ = done.send(());
            }
        }
    };
    tokio::join!(agent(&process), others);
}

async fn across(world: &Arc<World>, own: usize, other: usize) {
    let (process, stopped) = (Process::new(world, ONE), Process::new(world, OTHER));
    let (stands_still, go_on) = stopped.give_turn_at(other);
    let (is_there, done) = process.give_turn_at(own);
    let (over, mut is_over) = oneshot::channel();
    let first = async {
        agent(&stopped).await;
        let _ = over.send(());
    };
    let second = async {
        let _ = stands_still.await;
        stopped.struck();
        agent(&process).await;
    };
    let director = async {
        let _ = is_there.await;
        let _ = go_on.send(());
        // Who is kept waiting for long stands still; a call that takes a while does not.
        if tokio::time::timeout(LONG, &mut is_over).await.is_err() {
            process.struck();
            let _ = is_over.await;
        }
        let _ = done.send(());
    };
    tokio::join!(first, second, director);
}

async fn agent(process: &Arc<Process>) {
    supervise(process, machine::agent(Arc::clone(process), Part::Renew)).await;
    // A turn that never comes because the run took another way is nobody's any more.
    process.drop_turns();
}

fn scenario(store: Store) -> Scenario {
    Scenario {
        store,
        nodes: 2,
        sites: 1,
        nights: 1,
        lifetime: LIFETIME,
        sealed: false,
        proves_chains: false,
        first_use: false,
        at_once: true,
        runs_per_night: 1,
        slowness: 1,
        stale_after: Duration::from_secs(36 * 3600),
        clocks: 0,
        faults: std::collections::BTreeSet::new(),
        per_mille: 0,
    }
}

/// The build machine has made a certificate, both nodes serve it, and it has become due.
async fn prepare(world: &Arc<World>) {
    for machine in 0..=OTHER {
        let ended = run_once(world, machine).await;
        assert_eq!(ended, Ended::Well, "machine {machine}");
    }
    sleep(UNTIL_DUE).await;
}

/// Everybody runs once more, undisturbed: then all serve what is in the bucket.
async fn settle(world: &Arc<World>) -> u64 {
    // Longer than a lease lives, and shorter than a new certificate is good for.
    sleep(Duration::from_secs(3600)).await;
    let least = vec![world.state().bucket.highest(&world.sites[0].name)];
    let began = world.now();
    for machine in [ONE, OTHER, 0] {
        let ended = run_once(world, machine).await;
        if ended != Ended::Well {
            world.violate("liveness", || format!("the last run of machine {machine} ended {ended:?}"));
        }
    }
    invariants::nothing_is_lost(world);
    // Whoever ran first may have ended before the renewal of one that was killed.
    for machine in [ONE, OTHER] {
        run_once(world, machine).await;
    }
    invariants::all_is_well(world, began, &least);
    1
}
