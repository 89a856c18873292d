//! http-01 answered by something that all servers redirect to: the public part of the fleet's datastore.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Challenge, ChallengeKind, Presented, Solver, SolverError};

/// Where answers lie for everybody to read.
#[async_trait]
pub trait Shelf: std::fmt::Debug + Send + Sync {
    /// Puts an answer there.
    async fn put(&self, token: &str, answer: &str) -> Result<(), SolverError>;

    /// Takes it away again; no failure where there is none.
    async fn remove(&self, token: &str) -> Result<(), SolverError>;
}

/// Puts each answer on the shelf, by its token.
#[derive(Debug)]
pub struct Redirect(Arc<dyn Shelf>);

impl Redirect {
    /// Will use this shelf.
    pub fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self(shelf)
    }
}

#[async_trait]
impl Solver for Redirect {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        self.0.put(&challenge.token, &challenge.key_authorization).await?;
        Ok(Presented::default())
    }

    async fn clean_up(&self, challenge: &Challenge, _presented: &Presented) -> Result<(), SolverError> {
        self.0.remove(&challenge.token).await
    }
}
