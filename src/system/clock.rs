//! The monotonic clock of this machine: what is measured by it, and waited for.
//!
//! A simulation gives each of its machines a clock that runs a little faster or slower than the others', see [`running_at`]. Everywhere
//! else it is tokio's, untouched.

use std::future::Future;
use std::ops::Add;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant as Untouched;

tokio::task_local! {
    static RATE: Rate;
}

/// How fast a machine's clock runs.
#[derive(Clone, Copy, Debug)]
struct Rate {
    since: Untouched,
    /// Its seconds in a second.
    factor: f64,
}

/// A moment by this machine's clock.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Instant(Untouched);

impl Instant {
    /// This moment.
    pub fn now() -> Self {
        let now = Untouched::now();
        Self(RATE.try_with(|rate| rate.since + (now - rate.since).mul_f64(rate.factor)).unwrap_or(now))
    }

    /// What has passed since.
    pub fn elapsed(self) -> Duration {
        Self::now().saturating_duration_since(self)
    }

    /// What has passed between the two; nothing where `earlier` is the later one.
    pub fn saturating_duration_since(self, earlier: Self) -> Duration {
        self.0.saturating_duration_since(earlier.0)
    }

    fn untouched(self) -> Untouched {
        RATE.try_with(|rate| rate.since + (self.0 - rate.since).div_f64(rate.factor)).unwrap_or(self.0)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

/// Waits until that moment.
pub async fn sleep_until(moment: Instant) {
    tokio::time::sleep_until(moment.untouched()).await;
}

/// Waits for as long.
pub async fn sleep(duration: Duration) {
    sleep_until(Instant::now() + duration).await;
}

/// Starts a task that has the same clock.
pub fn spawn<F>(task: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    match RATE.try_with(|rate| *rate) {
        Ok(rate) => tokio::spawn(RATE.scope(rate, task)),
        Err(_) => tokio::spawn(task),
    }
}

/// Runs `work` on a machine whose clock shows `factor` seconds for each second.
pub async fn running_at<F: Future>(factor: f64, work: F) -> F::Output {
    RATE.scope(Rate { since: Untouched::now(), factor }, work).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_runs_fast_measures_more_and_waits_less() {
        let begun = Untouched::now();
        let (asleep, measured) = running_at(1.25, async {
            let begun = Instant::now();
            sleep(Duration::from_secs(10)).await;
            let asleep = begun.elapsed();
            let spawned = spawn(async { Instant::now() });
            tokio::time::sleep(Duration::from_secs(8)).await;
            (asleep, spawned.await.expect("a task").saturating_duration_since(begun).max(begun.elapsed()))
        })
        .await;
        assert_eq!((asleep.as_secs(), measured.as_secs()), (10, 20));
        assert_eq!(begun.elapsed().as_secs(), 16);
    }
}
