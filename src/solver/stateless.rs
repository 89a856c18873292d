//! http-01 answered by every server from its own configuration: `<token>.<thumbprint of the fleet's account>`.

use async_trait::async_trait;

use super::{Challenge, ChallengeKind, Presented, Solver, SolverError};

/// Puts nothing anywhere, so there is nothing to clean up, and nothing that machines would have to share.
#[derive(Debug)]
pub struct Stateless;

#[async_trait]
impl Solver for Stateless {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    async fn present(&self, _challenge: &Challenge) -> Result<Presented, SolverError> {
        Ok(Presented::default())
    }

    async fn clean_up(&self, _challenge: &Challenge, _presented: &Presented) -> Result<(), SolverError> {
        Ok(())
    }
}
