//! Waiting for another machine that is making a generation: one small request at a time.

use std::time::Duration;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::Fleet;
use super::bundle_object;
use crate::datastore::DatastoreError;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::site::SiteName;
use crate::system::clock::{self, Instant};

/// How long to wait before asking whether the other is done: soon at first, then less often. A waiting machine costs a request each
/// time, and serves the new certificate two seconds after its publication on average.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// See [`FIRST_WAIT`].
const LONGEST_WAIT: Duration = Duration::from_secs(4);

/// Asking for the generation costs one request, looking after its lease three: whether the other has given up is asked less often.
const ASKS_BETWEEN_LOOKS: u32 = 5;

/// How a wait ended.
pub(super) enum Waited {
    /// The generation is there: its object.
    Made(Bytes),
    /// The other may have failed or died, or this run is to end: look at the whole again.
    LookAgain,
    /// There is no time left.
    TooLong,
}

impl Fleet {
    /// Waits until the generation is there, by asking for the very object.
    pub(super) async fn wait_for(&self, site: &SiteName, generation: Generation, waits: &mut Waits) -> Result<Waited, DatastoreError> {
        let key = ObjectKey::bundle(site, generation);
        for _ in 0..ASKS_BETWEEN_LOOKS {
            if !waits.wait(&self.interrupt).await {
                return Ok(Waited::TooLong);
            }
            if self.interrupt.is_cancelled() {
                break;
            }
            if let Some(object) = self.store.get(&key).await? {
                // What does not open may be a proxy's page, and stand for a generation that nobody has made: a listing tells.
                let opens = bundle_object::open(&self.seal, site, generation, &object).is_ok();
                return Ok(if opens { Waited::Made(object) } else { Waited::LookAgain });
            }
        }
        Ok(Waited::LookAgain)
    }
}

/// The pauses of somebody who waits.
pub(super) struct Waits {
    deadline: Instant,
    next: Duration,
}

impl Waits {
    pub(super) fn until(deadline: Instant) -> Self {
        Self { deadline, next: FIRST_WAIT }
    }

    /// Waits a little; `false` when there is no time left.
    async fn wait(&mut self, interrupt: &CancellationToken) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return false;
        }
        let until = (now + self.next).min(self.deadline);
        self.next = (self.next * 2).min(LONGEST_WAIT);
        tokio::select! {
            biased;
            () = interrupt.cancelled() => {}
            () = clock::sleep_until(until) => {}
        }
        true
    }
}
