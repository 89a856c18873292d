//! The rules of the election: who may make the next generation of a site.
//!
//! Safety never rests on these rules, nor on time: the exclusive create of the bundle does that. They only keep the number of issuances
//! at one. See the section on the election in ARCHITECTURE.md.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::object_key::Attempt;
use super::record::{Holder, LeaseRecord, LeaseState};

/// A held lease that was not refreshed for longer than this is abandoned.
pub const TIME_TO_LIVE: Duration = Duration::from_secs(120);

/// How often the holder refreshes its lease: six times in its time to live.
pub const REFRESH_EVERY: Duration = Duration::from_secs(20);

/// A holder that could not refresh for this long takes no further irreversible step.
pub const TRUSTED_FOR: Duration = Duration::from_secs(60);

/// How long to wait after the first, second, third failure (<https://letsencrypt.org/docs/integration-guide/>); daily after that.
const RETRY_AFTER: [Duration; 3] = [Duration::from_secs(60), Duration::from_secs(600), Duration::from_secs(6_000)];

/// See [`RETRY_AFTER`].
const RETRY_DAILY: Duration = Duration::from_secs(86_400);

/// The latest lease on a generation, as one listing and one read show it.
#[derive(Clone, Debug)]
pub struct Latest {
    /// Its attempt.
    pub attempt: Attempt,
    /// The store's time minus the object's last-modified, both from one listing. No two clocks are compared.
    pub age: Duration,
    /// What it says.
    pub record: LeaseRecord,
}

/// Whether the next attempt may be created now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Standing {
    /// Yes, as this attempt.
    Open(Attempt),
    /// No: somebody is at work.
    Busy {
        /// Who.
        holder: Holder,
    },
    /// No: it failed, and the time to try again has not come.
    Waiting {
        /// Why it failed.
        reason: String,
        /// When it may be tried again.
        retry_at: DateTime<Utc>,
    },
}

/// Whether a recorded retry time binds the caller.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Patience {
    /// As every unattended run does.
    Obeyed,
    /// A person insists (`--force`).
    Overruled,
}

/// Judges the latest lease on a generation. `place` is the caller's own: it holds that place's lock, so an earlier run there is over.
pub fn standing(latest: Option<&Latest>, place: &str, now: DateTime<Utc>, patience: Patience) -> Standing {
    let Some(latest) = latest else { return Standing::Open(Attempt::FIRST) };
    let next = Standing::Open(latest.attempt.next());
    match &latest.record.state {
        LeaseState::Failed { reason, retry_at } if patience == Patience::Obeyed && now < *retry_at => {
            Standing::Waiting { reason: reason.clone(), retry_at: *retry_at }
        }
        LeaseState::Held if latest.age <= TIME_TO_LIVE && latest.record.holder.place != place => {
            Standing::Busy { holder: latest.record.holder.clone() }
        }
        LeaseState::Done | LeaseState::Failed { .. } | LeaseState::Held | LeaseState::Released => next,
    }
}

/// How long to wait after failure number `failures` (counted from 1), never less than the issuer asked for.
pub fn retry_delay(failures: u32, asked: Option<Duration>) -> Duration {
    let step = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
    let own = RETRY_AFTER.get(step).copied().unwrap_or(RETRY_DAILY);
    asked.map_or(own, |asked| own.max(asked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::object_key::Generation;

    const NOW: i64 = 1_800_000_000;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn latest(age_secs: u64, state: LeaseState) -> Latest {
        let holder = Holder { node: "ws-1".to_owned(), run: "r".to_owned(), place: "there".to_owned() };
        let record = LeaseRecord {
            version: 1,
            site: "a.example".to_owned(),
            generation: Generation(4),
            attempt: Attempt(2),
            holder,
            state,
            order: None,
            failures: 0,
            passed_over: Vec::new(),
        };
        Latest { attempt: Attempt(2), age: Duration::from_secs(age_secs), record }
    }

    #[test]
    fn a_lease_is_taken_over_only_when_it_is_older_than_its_time_to_live() {
        for (age, open) in [(0, false), (119, false), (120, false), (121, true)] {
            let standing = standing(Some(&latest(age, LeaseState::Held)), "here", at(NOW), Patience::Obeyed);
            assert_eq!(standing == Standing::Open(Attempt(3)), open, "{age} s");
        }
    }

    #[test]
    fn force_does_not_break_into_a_held_lease() {
        let standing = standing(Some(&latest(5, LeaseState::Held)), "here", at(NOW), Patience::Overruled);
        assert!(matches!(standing, Standing::Busy { .. }));
    }

    #[test]
    fn an_earlier_run_of_the_same_place_is_over() {
        let standing = standing(Some(&latest(1, LeaseState::Held)), "there", at(NOW), Patience::Obeyed);
        assert_eq!(standing, Standing::Open(Attempt(3)));
    }

    #[test]
    fn a_failure_binds_everybody_until_its_retry_time() {
        let failed = LeaseState::Failed { reason: "CAA".to_owned(), retry_at: at(NOW + 1) };
        let failed = latest(3_000, failed);
        let waiting = standing(Some(&failed), "there", at(NOW), Patience::Obeyed);
        assert_eq!(waiting, Standing::Waiting { reason: "CAA".to_owned(), retry_at: at(NOW + 1) });
        assert_eq!(standing(Some(&failed), "here", at(NOW + 1), Patience::Obeyed), Standing::Open(Attempt(3)));
        assert_eq!(standing(Some(&failed), "here", at(NOW), Patience::Overruled), Standing::Open(Attempt(3)));
    }

    #[test]
    fn nothing_done_yet_or_given_back_is_open() {
        assert_eq!(standing(None, "here", at(NOW), Patience::Obeyed), Standing::Open(Attempt(1)));
        for state in [LeaseState::Done, LeaseState::Released] {
            assert_eq!(standing(Some(&latest(1, state)), "here", at(NOW), Patience::Obeyed), Standing::Open(Attempt(3)));
        }
    }

    #[test]
    fn failures_are_spaced_out_and_the_issuer_may_ask_for_more() {
        let minutes: Vec<u64> = (1..=5).map(|count| retry_delay(count, None).as_secs() / 60).collect();
        assert_eq!(minutes, [1, 10, 100, 1_440, 1_440]);
        assert_eq!(retry_delay(1, Some(Duration::from_secs(7_200))), Duration::from_secs(7_200));
        assert_eq!(retry_delay(2, Some(Duration::from_secs(5))), Duration::from_secs(600));
    }
}
