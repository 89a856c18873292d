//! The look before the CA's: what it would refuse, and count against its limits, is refused here for nothing.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::look::{self, LookError, Place, Seen};
use super::{Challenge, ChallengeKind, Presented, Solver, SolverError};
use crate::system::error_chain::in_full;

/// A server that has not answered by then is one that nobody waits for: it may be out of reach only from here.
const DEADLINE: Duration = Duration::from_secs(3);

/// Has a solver for http-01 looked after.
///
/// A wrong answer from any address refuses, because a CA may ask just that one. No answer refuses nothing: a machine often cannot reach its
/// own public address, nor that of its neighbours, and a machine that is down would hold up those beside it.
#[derive(Debug)]
pub struct Confirmed {
    solver: Arc<dyn Solver>,
    place: Place,
}

impl Confirmed {
    /// Looks for what `solver` presented at `place`.
    pub fn new(solver: Arc<dyn Solver>, place: Place) -> Self {
        Self { solver, place }
    }
}

#[async_trait]
impl Solver for Confirmed {
    fn kind(&self) -> ChallengeKind {
        self.solver.kind()
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        self.solver.present(challenge).await
    }

    async fn confirm(&self, challenge: &Challenge) -> Result<(), SolverError> {
        self.solver.confirm(challenge).await?;
        let name = &challenge.identifier;
        let sights = match look::http_01(self.place, name, &challenge.token, DEADLINE).await {
            Ok(sights) => sights,
            Err(error) => return judge_error(challenge, error),
        };
        for sight in sights {
            match sight.seen {
                Ok(seen) if seen.is(&challenge.key_authorization) => {}
                Ok(seen) => {
                    let what =
                        format!("the answer for {name} is not where the CA will look: {} answers with {}", sight.address, seen.described());
                    return Err(SolverError { what, hint: hint(challenge, &seen), source: None });
                }
                Err(error) => judge_error(challenge, error)?,
            }
        }
        Ok(())
    }

    async fn clean_up(&self, challenge: &Challenge, presented: &Presented) -> Result<(), SolverError> {
        self.solver.clean_up(challenge, presented).await
    }

    async fn looked_at(&self, challenge: &Challenge) {
        self.solver.looked_at(challenge).await;
    }
}

fn judge_error(challenge: &Challenge, error: LookError) -> Result<(), SolverError> {
    let name = &challenge.identifier;
    if error.is_silence() {
        tracing::info!("the answer for {name} could not be looked at from here: {}", in_full(&error));
        return Ok(());
    }
    let hint = match &error {
        LookError::Redirect { .. } => format!("correct the redirect in the configuration of the servers of {name}"),
        _ => format!("have a web server listen there, or take that address out of the DNS; {OTHER_EYES}"),
    };
    Err(SolverError { what: format!("the answer for {name} is not where the CA will look"), hint, source: Some(Box::new(error)) })
}

/// What to do where this machine sees another server than the CA does.
const OTHER_EYES: &str =
    "if the CA sees another server there than this machine does, say where to look with check = \"ADDRESS:80\", or check = \"off\"";

fn hint(challenge: &Challenge, seen: &Seen) -> String {
    let name = &challenge.identifier;
    let thumbprint = |text: &str| text.trim_end().rsplit_once('.').map(|(_, thumbprint)| thumbprint.to_owned());
    let ours = thumbprint(&challenge.key_authorization).unwrap_or_default();
    match thumbprint(&seen.body) {
        Some(theirs) if seen.body.trim_end() == format!("{}.{theirs}", challenge.token) => format!(
            "that server has the thumbprint of another account, and this one's is {ours}: put what `certfleet snippet` prints now into its configuration"
        ),
        _ => format!(
            "every server that {name} leads to must have the answer, also one behind a cache or a load balancer, and no cache may keep it; {OTHER_EYES}"
        ),
    }
}
