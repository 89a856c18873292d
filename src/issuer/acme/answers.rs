//! The answers of one order that are in place, and that must all be gone again in the end.

use std::sync::Arc;

use futures_util::future::join_all;

use super::refusal::chain;
use crate::issuer::Lease;
use crate::solver::{Challenge, Presented, Solver, SolverError};

/// Challenges whose `present` was called, whatever became of the call: what is in here has to be taken away.
#[derive(Debug)]
pub(super) struct Answers {
    solver: Arc<dyn Solver>,
    called: Vec<(Challenge, Presented)>,
}

impl Answers {
    pub(super) fn new(solver: Arc<dyn Solver>) -> Self {
        Self { solver, called: Vec::new() }
    }

    /// Presents all challenges at once, and then sees to it that all can be seen. Each call runs to its end even when another fails: a script that is broken off may leave
    /// half a record behind.
    pub(super) async fn present(&mut self, challenges: Vec<Challenge>) -> Result<(), SolverError> {
        // They count as called before the first call, since this future may be dropped at any moment from there on.
        self.called.extend(challenges.into_iter().map(|challenge| (challenge, Presented::default())));
        let solver = &self.solver;
        let calls = self.called.iter_mut().map(async |(challenge, presented)| {
            *presented = solver.present(challenge).await?;
            Ok::<(), SolverError>(())
        });
        join_all(calls).await.into_iter().collect::<Result<(), _>>()?;
        join_all(self.called.iter().map(|(challenge, _)| solver.confirm(challenge))).await.into_iter().collect()
    }

    /// Resolves when the CA has looked at every answer.
    pub(super) async fn looked_at(&self) {
        join_all(self.called.iter().map(|(challenge, _)| self.solver.looked_at(challenge))).await;
    }

    /// Takes all answers away. What cannot be taken away is said aloud: it is no reason to lose a certificate that is proven already.
    pub(super) async fn take_away(&mut self, lease: &dyn Lease) {
        let solver = &self.solver;
        let results = join_all(self.called.iter().map(|(challenge, presented)| solver.clean_up(challenge, presented))).await;
        for error in results.into_iter().filter_map(Result::err) {
            let text = chain(&error);
            lease.left_behind(&format!("{text} ({})", error.hint));
        }
        self.called.clear();
    }
}
