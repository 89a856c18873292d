//! Times and durations as people and machines read them: UTC, RFC 3339, to the second; and "12 days" beside them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};

/// UTC, to the second: `2027-02-18T17:12:48Z`.
pub fn rfc3339(time: &DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Secs, true)
}

/// A duration as people say it, in its largest fitting unit: "6 days", "53 hours", "119 seconds".
pub fn in_words(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..259_200 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}
