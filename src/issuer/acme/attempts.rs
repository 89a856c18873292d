//! How often a call to the CA is made again, and how long is waited between two looks at an order.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;
use instant_acme::Error;
use tokio::time::{Instant, sleep};

use super::refusal::{HttpFailure, http_failure, is_bad_nonce, is_passing};

/// After these pauses a call that brought no answer, or an answer of status 5xx, is made again.
const PAUSES: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(1)];

/// A `Retry-After` up to this is waited for on the spot; a longer one is left to the lease, so that the whole fleet obeys it.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// How often a call is made again that failed for its nonces, beyond the two times that the library does by itself.
const NONCE_TRIES: u32 = 8;

/// The longest pause between two looks at an order.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long a CA may take to validate, and again to sign. An order outlives it: the next run takes it up again.
const PATIENCE: Duration = Duration::from_secs(300);

/// Counts the tries of one call.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    nonces: u32,
    pauses: usize,
}

impl Attempts {
    /// Returns after a fitting pause if the call is worth making again, and otherwise gives the error back.
    pub(super) async fn again(&mut self, error: Error) -> Result<(), Error> {
        if is_bad_nonce(&error) && self.nonces < NONCE_TRIES {
            self.nonces += 1;
            return Ok(());
        }
        let Some(pause) = PAUSES.get(self.pauses).filter(|_| is_passing(&error)) else { return Err(error) };
        let asked = match http_failure(&error) {
            Some(HttpFailure::Refused(refusal)) => refusal.retry_after.unwrap_or_default(),
            _ => Duration::ZERO,
        };
        if asked > SHORT_WAIT {
            return Err(error);
        }
        self.pauses += 1;
        sleep(asked.max(*pause)).await;
        Ok(())
    }
}

/// Spaces the looks at one order: soon at first, then ever more rarely.
#[derive(Debug)]
pub(super) struct Pace {
    next: Duration,
    deadline: Instant,
}

/// The CA wants more time than there is.
#[derive(Debug)]
pub(super) struct OutOfPatience {
    /// How long it has asked to be left alone.
    pub(super) retry_after: Option<Duration>,
}

impl fmt::Display for OutOfPatience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.retry_after {
            Some(asked) => write!(f, "the CA is not done, and asks to be left alone for {}", format_duration(asked)),
            None => write!(f, "the CA has not come to an end within {}", format_duration(PATIENCE)),
        }
    }
}

impl Pace {
    /// Begins with a pause of `first`.
    pub(super) fn new(first: Duration) -> Self {
        Self { next: first, deadline: Instant::now() + PATIENCE }
    }

    /// Waits for the time of the next look; for as long as the CA `asked`, if it did.
    pub(super) async fn wait(&mut self, asked: Option<Duration>) -> Result<(), OutOfPatience> {
        let pause = asked.unwrap_or_default().max(self.next);
        if Instant::now() + pause > self.deadline {
            return Err(OutOfPatience { retry_after: asked });
        }
        sleep(pause).await;
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn looks_come_soon_at_first_then_rarely_and_not_for_ever() {
        let mut pace = Pace::new(Duration::from_millis(10));
        let start = Instant::now();
        let mut looks = Vec::new();
        let ended = loop {
            match pace.wait(None).await {
                Ok(()) => looks.push(start.elapsed()),
                Err(ended) => break ended,
            }
        };
        assert_eq!(ended.to_string(), "the CA has not come to an end within 5m");
        assert_eq!(&looks[..4], &[10, 30, 70, 150].map(Duration::from_millis));
        assert!(looks.len() < 80, "{} looks", looks.len());
        assert!(looks.windows(2).all(|pair| pair[1] <= pair[0] + LONGEST_PAUSE));
        assert!(start.elapsed() <= PATIENCE && start.elapsed() + LONGEST_PAUSE > PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn the_ca_is_obeyed_when_it_asks_for_time() {
        let mut pace = Pace::new(Duration::from_millis(10));
        let start = Instant::now();
        pace.wait(Some(Duration::from_secs(7))).await.expect("there is time");
        assert_eq!(start.elapsed(), Duration::from_secs(7));
        let asked = Some(Duration::from_secs(3600));
        let ended = pace.wait(asked).await.expect_err("too long");
        assert_eq!((ended.retry_after, start.elapsed()), (asked, Duration::from_secs(7)));
        assert_eq!(ended.to_string(), "the CA is not done, and asks to be left alone for 1h");
    }
}
