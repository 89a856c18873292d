//! Finds out whether a store refuses the second of two creates: by racing them, because some stores refuse it only when nobody
//! is in a hurry.

use bytes::Bytes;
use futures_util::future::join_all;
use thiserror::Error;

use super::{Datastore, DatastoreError, FailureKind, Put, PutMode};
use crate::domain::object_key::ObjectKey;
use crate::domain::record::ExclusiveCreate;

/// How many races are run at the same time. A store that is busy with several is taken by surprise more easily: one race after
/// the other, of 16 creates each, missed s3s-fs 0.14 in 1 of 100 probes with 6 races, though 7 of 10 races show it; four at a time
/// found it in 200 of 200 probes, always among the first four.
const RACES_AT_ONCE: usize = 4;

/// How many creates each race has.
const WIDTH: usize = 8;

/// How many races must have had one winner.
const RACES: usize = 16;

/// How many races are started at most, those counted that showed nothing.
const MOST_RACES: usize = 2 * RACES;

/// Why a store could not be judged though it answered.
#[derive(Debug, Error)]
#[error("in {MOST_RACES} races of {WIDTH} creates, too few had a winner that was told so")]
struct Undecided;

/// What one race showed.
enum Race {
    /// One create was let through, and its object is there.
    OneWinner,
    /// Too many answers were lost.
    Nothing,
    /// Several creates were let through, or the object is not the winner's.
    Broken,
}

/// Races creates on keys that are only for this `run` (hexadecimal digits), and removes what they left, whatever the outcome.
/// What cannot be removed stays below `probes/`, which changes nothing about the verdict.
///
/// Broken is what lets a second create through, or whose object is not the winner's. An answer that was lost proves nothing
/// either way: the race is run again on another key. An error means that nothing was found out.
pub async fn exclusive_create(store: &dyn Datastore, run: &str) -> Result<ExclusiveCreate, DatastoreError> {
    let mut used = Vec::new();
    let verdict = judge(store, run, &mut used).await;
    for result in join_all(used.iter().map(|key| store.delete(key))).await {
        if let Err(error) = result {
            tracing::warn!(%error, "an object of the probe stays");
        }
    }
    verdict
}

async fn judge(store: &dyn Datastore, run: &str, used: &mut Vec<ObjectKey>) -> Result<ExclusiveCreate, DatastoreError> {
    let mut decided = 0;
    for first in (0..MOST_RACES).step_by(RACES_AT_ONCE) {
        let keys: Vec<ObjectKey> = (first..first + RACES_AT_ONCE).map(|round| ObjectKey::probe(run, round)).collect();
        used.extend_from_slice(&keys);
        let outcomes = join_all(keys.iter().map(|key| race(store, key, run))).await;
        // What was seen is seen, whatever failed beside it.
        if outcomes.iter().any(|outcome| matches!(outcome, Ok(Race::Broken))) {
            return Ok(ExclusiveCreate::Broken);
        }
        for outcome in outcomes {
            decided += usize::from(matches!(outcome?, Race::OneWinner));
        }
        if decided >= RACES {
            return Ok(ExclusiveCreate::Honoured);
        }
    }
    Err(DatastoreError {
        call: format!("race creates of {}", ObjectKey::probe(run, 0)),
        kind: FailureKind::Passing,
        hint: "the store, or the way to it, loses answers: try again later".to_owned(),
        source: Box::new(Undecided),
    })
}

async fn race(store: &dyn Datastore, key: &ObjectKey, run: &str) -> Result<Race, DatastoreError> {
    let body = |racer: usize| Bytes::from(format!("{run} {racer}\n"));
    let answers = join_all((0..WIDTH).map(|racer| store.put(key, body(racer), PutMode::Create))).await;
    // One more that nobody can be in a hurry with.
    let late = store.put(key, body(WIDTH), PutMode::Create).await;

    let answers = answers.into_iter().chain([late]).enumerate();
    let mut winners = Vec::new();
    let mut lost = 0;
    for (racer, answer) in answers {
        match answer {
            Ok(Put::Stored) => winners.push(racer),
            Ok(Put::Exists) => {}
            Err(error) if error.kind == FailureKind::Lasting => return Err(error),
            Err(_) => lost += 1,
        }
    }
    let [winner] = winners[..] else {
        // No winner: it was told nothing, or told that its key is taken when it asked again after a lost answer.
        return Ok(if winners.is_empty() { Race::Nothing } else { Race::Broken });
    };
    // Whoever won without hearing of it would have been overwritten by a winner that did, or have overwritten it.
    if store.get(key).await? != Some(body(winner)) {
        return Ok(Race::Broken);
    }
    // With most answers lost there was hardly a race.
    Ok(if lost <= WIDTH / 2 { Race::OneWinner } else { Race::Nothing })
}
