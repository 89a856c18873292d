//! The election on a store that accepts second creates: who of several candidates may take the lease.
//!
//! Each writes an object of its own, waits until all that were written before can be seen by everybody, and looks. The earliest wins, by
//! the time that the store gave it: whoever comes late comes after those who were there, however long these wait, and whatever the names
//! are. Two can win only where a listing shows less than was stored [`SETTLING`] before. See the section on the election in ARCHITECTURE.md.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::lease::TIME_TO_LIVE;
use super::object_key::Attempt;

/// How long whoever has written waits before it looks whether others have, too. It must be longer than a request takes to be carried out
/// together with the next one of the same machine, and than a listing, or a read, may lag behind what was stored. Both take well
/// under a second on a store that is well; the rest is for one that is not, and costs a renewal little.
pub const SETTLING: Duration = Duration::from_secs(5);

/// A candidacy, as a listing shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stood {
    /// When it was written, by the store's clock.
    pub at: DateTime<Utc>,
    /// The run that stands: decides between two of the same second.
    pub run: String,
    /// What it stands for.
    pub attempt: Attempt,
}

/// Those that stand before `own`, the earliest first.
///
/// Whoever stood more than a lease's time to live before is not among them: it has long won, and so written a lease, or given up. Both
/// times are the store's: a look an hour later comes to the same. Only a sending that was repeated, and arrives late, changes one; it
/// then stands after those that came in between.
pub fn before<'a>(own: &Stood, all: &'a [Stood]) -> Vec<&'a Stood> {
    let since = own.at - time_to_live();
    let rank = |stood: &Stood| (stood.at, stood.run.clone());
    let earlier = |stood: &&Stood| stood.attempt == own.attempt && stood.at >= since && rank(stood) < rank(own);
    sorted(all.iter().filter(earlier).collect())
}

/// Those that stand for an attempt at this moment, the earliest first.
pub fn standing(all: &[Stood], attempt: Attempt, now: DateTime<Utc>) -> Vec<&Stood> {
    let since = now - time_to_live();
    sorted(all.iter().filter(|stood| stood.attempt == attempt && stood.at >= since).collect())
}

fn sorted(mut stood: Vec<&Stood>) -> Vec<&Stood> {
    stood.sort_by(|a, b| (a.at, &a.run).cmp(&(b.at, &b.run)));
    stood
}

fn time_to_live() -> TimeDelta {
    TimeDelta::from_std(TIME_TO_LIVE).unwrap_or(TimeDelta::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stood(second: i64, run: &str, attempt: u32) -> Stood {
        Stood { at: DateTime::from_timestamp(1_800_000_000 + second, 0).expect("a time"), run: run.to_owned(), attempt: Attempt(attempt) }
    }

    fn runs<'a>(stood: &[&'a Stood]) -> Vec<&'a str> {
        stood.iter().map(|stood| stood.run.as_str()).collect()
    }

    #[test]
    fn the_earliest_wins_and_in_the_same_second_the_lowest_name() {
        let all = [stood(3, "a", 1), stood(2, "c", 1), stood(2, "b", 1), stood(1, "z", 2)];
        assert_eq!(runs(&before(&all[0], &all)), ["b", "c"], "whoever comes late is not helped by its name");
        assert_eq!(runs(&before(&all[1], &all)), ["b"]);
        assert!(before(&all[2], &all).is_empty() && before(&all[3], &all).is_empty());
    }

    #[test]
    fn whoever_stood_long_before_is_in_nobodys_way() {
        for (before_secs, in_the_way) in [(1, true), (120, true), (121, false)] {
            let all = [stood(0, "dead", 1), stood(before_secs, "own", 1)];
            assert_eq!(!before(&all[1], &all).is_empty(), in_the_way, "{before_secs} s");
            assert_eq!(runs(&standing(&all, Attempt(1), all[1].at)).contains(&"dead"), in_the_way, "{before_secs} s");
        }
    }
}
