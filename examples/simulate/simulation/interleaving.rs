//! Small cases, all of them: one node has another run wholly inside each of its calls, once, or twice, or is killed at one.

use std::sync::Arc;
use std::time::Duration;

use certfleet::domain::node_plan::Part;
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

/// What happens in the middle of one node's run. Boundaries are those of [`Process::boundary`]: before each call, and before its reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Case {
    /// The other node runs here,
    pub first: usize,
    /// and here again,
    pub second: Option<usize>,
    /// and here the node is killed.
    pub killed_at: Option<usize>,
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
        cases.push(Case { first, second: None, killed_at: None });
        for later in first..boundaries {
            cases.push(Case { first, second: Some(later), killed_at: None });
            cases.push(Case { first, second: None, killed_at: Some(later) });
        }
    }
    cases
}

/// Lives one case through.
pub fn run(case: Case, options: &Options) -> History {
    let name = format!("{}-{:?}-{:?}", case.first, case.second, case.killed_at);
    in_a_world(&name, Random::new(0), scenario(options.store), options, async |world| {
        prepare(world).await;
        let process = Process::new(world, ONE);
        if let Some(boundary) = case.killed_at {
            process.kill_at(boundary);
        }
        let turns: Vec<_> = [Some(case.first), case.second].into_iter().flatten().map(|boundary| process.give_turn_at(boundary)).collect();
        let others = async {
            for (has_come, done) in turns {
                if has_come.await.is_ok() {
                    run_once(world, OTHER).await;
                    let _ = done.send(());
                }
            }
        };
        let own = async {
            let ended = supervise(&process, machine::agent(Arc::clone(&process), Part::Renew)).await;
            // A turn that never comes because the run took another way is nobody's any more.
            process.drop_turns();
            ended
        };
        tokio::join!(own, others);
        settle(world).await
    })
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
        stale_after: Duration::from_secs(36 * 3600),
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
