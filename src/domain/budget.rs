//! How often a CA may be asked for the same certificate: the fleet refuses itself before the CA would.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

/// What limits are counted over.
pub const WEEK: Duration = Duration::from_secs(7 * 86_400);

/// When the next certificate for the same identifiers may be ordered of a CA that gives `per_week` of them in seven days, one at a time
/// again (<https://letsencrypt.org/docs/rate-limits/>: five, one every 34 hours), after those that were ordered at `times`. `None`: now.
pub fn wait(per_week: u32, times: &[DateTime<Utc>], now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let each = TimeDelta::from_std(WEEK / per_week.max(1)).ok()?;
    let mut times = times.to_vec();
    times.sort();
    // What is spent comes back evenly: all that is owed is paid back at `free`.
    let free = times.into_iter().fold(DateTime::<Utc>::MIN_UTC, |free, time| free.max(time) + each);
    let at = free.checked_sub_signed(each * i32::try_from(per_week.max(1) - 1).ok()?)?;
    (at > now).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600;

    fn at(hours: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + hours * HOUR, 0).expect("a time")
    }

    /// In hours from `at(0)`; five a week are one in 33.6 hours.
    fn waits(times: &[i64], now: i64) -> Option<i64> {
        let times: Vec<_> = times.iter().copied().map(at).collect();
        wait(5, &times, at(now)).map(|until| (until - at(0)).num_hours())
    }

    #[test]
    fn five_at_once_and_then_one_every_34_hours() {
        assert_eq!(waits(&[], 0), None);
        assert_eq!(waits(&[0, 0, 0, 0], 0), None);
        assert_eq!(waits(&[0, 0, 0, 0, 0], 0), Some(33), "and 36 minutes");
        assert_eq!(waits(&[0, 0, 0, 0, 0], 33), Some(33));
        assert_eq!(waits(&[0, 0, 0, 0, 0], 34), None);
        assert_eq!(waits(&[0, 0, 0, 0, 0, 34], 34), Some(67));
    }

    #[test]
    fn what_was_ordered_long_ago_is_forgotten() {
        assert_eq!(waits(&[-999, -400, -300, -168, -168], 0), None);
        assert_eq!(waits(&[0, 24, 48, 72, 96], 120), None, "nightly orders of four days leave some for the fifth");
        let nightly: Vec<_> = (0..30).map(|night| night * 24).collect();
        assert!(waits(&nightly, 720).is_some());
    }

    #[test]
    fn a_renewal_of_a_short_life_never_waits() {
        let every_80_hours: Vec<_> = (0..40).map(|renewal| renewal * 80).collect();
        assert_eq!(waits(&every_80_hours, 40 * 80), None);
    }
}
