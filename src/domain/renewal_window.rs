//! When a CA would like a certificate to be renewed (ARI, RFC 9773), and what the fleet makes of it.

use std::time::Duration;

use aws_lc_rs::digest;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::policy::Due;
use super::site::SiteName;

/// A CA that does not say when to ask again is asked this much later, as Let's Encrypt itself would say.
pub const ASK_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// No CA is asked again sooner than this, nor trusted to have no news for longer than the other (RFC 9773 section 4.3.2).
const ASK_SOONEST: Duration = Duration::from_secs(60);
const ASK_LATEST: Duration = Duration::from_secs(86_400);

/// Machines that find that it is time to ask do so spread over this time: the first one asks for all.
const SPREAD: Duration = Duration::from_secs(6 * 3_600);

/// Kept free at the end of a window, where it is long enough: a machine that runs once a night still comes within it.
const LAST_RUN: Duration = Duration::from_secs(86_400);

/// A window: from its start to its end, which comes later.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RenewalWindow {
    /// Its first moment.
    pub start: DateTime<Utc>,
    /// Its end.
    pub end: DateTime<Utc>,
}

/// What a CA answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Suggestion {
    /// Its window; `None` where it suggests none.
    pub window: Option<RenewalWindow>,
    /// Where people can read why.
    pub explanation: Option<String>,
    /// How long the CA wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// `windows/<site>`: what the CA answered about the certificate in place.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct WindowRecord {
    /// See [`super::record::VERSION`].
    pub version: u32,
    /// The file name of the site.
    pub site: String,
    /// SHA-256 of the leaf that it is about.
    pub fingerprint: String,
    /// The window; `None` where the CA suggests none, or could not be asked yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<RenewalWindow>,
    /// Where people can read why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
    /// When the CA was asked, by the store's clock.
    pub asked_at: DateTime<Utc>,
    /// Not to be asked again before.
    pub ask_at: DateTime<Utc>,
    /// Proof that this fleet wrote it; `None` where nothing is sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

impl RenewalWindow {
    /// The moment within the window at which a certificate is renewed: the same on every machine, and another for each certificate.
    pub fn moment(&self, site: &SiteName, fingerprint: &str) -> DateTime<Utc> {
        let width = (self.end - self.start).to_std().unwrap_or_default();
        let usable = if width > LAST_RUN * 2 { width.saturating_sub(LAST_RUN) } else { width };
        self.start + share(usable, &[&site.file_name(), fingerprint])
    }

    /// Why a certificate is due, if its moment has come.
    pub fn due(&self, site: &SiteName, fingerprint: &str, now: DateTime<Utc>) -> Option<Due> {
        (self.moment(site, fingerprint) <= now).then_some(Due::Window { start: self.start, end: self.end })
    }
}

impl WindowRecord {
    /// What the proof covers.
    pub fn fields(&self) -> [String; 5] {
        let window = self.window.map(|window| format!("{} {}", window.start, window.end)).unwrap_or_default();
        ["window".to_owned(), self.site.clone(), self.fingerprint.clone(), window, format!("{} {}", self.asked_at, self.ask_at)]
    }
}

/// When to ask a CA again that was asked at `now`.
pub fn ask_at(now: DateTime<Utc>, retry_after: Option<Duration>) -> DateTime<Utc> {
    now + retry_after.unwrap_or(ASK_EVERY).clamp(ASK_SOONEST, ASK_LATEST)
}

/// When the machine `node` asks about a site, where nobody else has until then, and anybody may from `since` on.
pub fn turn(since: DateTime<Utc>, node: &str, site: &SiteName) -> DateTime<Utc> {
    since + share(SPREAD, &[node, &site.file_name(), &since.timestamp().to_string()])
}

/// A part of `whole` that the words alone decide.
fn share(whole: Duration, words: &[&str]) -> Duration {
    let digest = digest::digest(&digest::SHA256, words.join("\n").as_bytes());
    let number = digest.as_ref().iter().take(4).fold(0_u32, |number, byte| (number << 8) | u32::from(*byte));
    whole.mul_f64(f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn site() -> SiteName {
        "www.example.test".parse().expect("a name")
    }

    #[test]
    fn a_retry_after_of_a_week_blinds_nobody() {
        for (retry_after, seconds) in [(Some(0), 60), (Some(3_600), 3_600), (Some(604_800), 86_400), (None, 21_600)] {
            assert_eq!(ask_at(at(0), retry_after.map(Duration::from_secs)), at(seconds), "{retry_after:?}");
        }
    }

    #[test]
    fn of_twenty_machines_that_run_at_the_same_minute_few_ask_first() {
        let turns: Vec<_> = (1..=20).map(|number| turn(at(0), &format!("ws-{number}"), &site())).collect();
        assert!(turns.iter().all(|turn| (at(0)..=at(6 * 3_600)).contains(turn)));
        let in_hour = |hour: i64| turns.iter().filter(|turn| ((hour - 1) * 3_600..hour * 3_600).contains(&turn.timestamp())).count();
        let first = (1..=6).map(in_hour).find(|count| *count > 0);
        assert!(first.is_some_and(|count| count <= 6), "{turns:?}");
    }

    #[test]
    fn a_window_in_the_past_is_due_at_once() {
        let window = RenewalWindow { start: at(100), end: at(200) };
        assert_eq!(window.due(&site(), "aa", at(200)), Some(Due::Window { start: at(100), end: at(200) }));
        assert_eq!(window.due(&site(), "aa", at(99)), None);
    }

    proptest! {
        #[test]
        fn the_moment_lies_within_the_window_and_leaves_a_night(start in 0_i64..4_000_000_000, width in 1_i64..40_000_000, leaf in "[0-9a-f]{8}") {
            let window = RenewalWindow { start: at(start), end: at(start + width) };
            let moment = window.moment(&site(), &leaf);
            prop_assert!(window.start <= moment && moment <= window.end);
            prop_assert!(width <= 2 * 86_400 || moment <= window.end - LAST_RUN);
        }
    }
}
