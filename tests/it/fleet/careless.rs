//! A store that accepts second creates, and can be slow with what it is given.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use certfleet::datastore::{Datastore, DatastoreError, Listing, Put, PutMode};
use certfleet::domain::object_key::ObjectKey;
use certfleet::fleet::Creates;
use chrono::TimeDelta;

use super::machine::{Lossy, Machine, World};

/// One machine's way to the store.
#[derive(Debug)]
pub struct Careless {
    inner: Arc<Lossy>,
    /// How long puts of keys that begin so are on their way.
    slow: Mutex<Vec<(&'static str, Duration)>>,
    /// What this machine has written.
    own: Mutex<BTreeSet<ObjectKey>>,
    lag: Lag,
}

/// What was stored within this time is not listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    pub own: TimeDelta,
    pub of_others: TimeDelta,
}

impl Careless {
    /// Puts to keys that begin with `prefix` take this long from now on.
    pub fn slow_down(&self, prefix: &'static str, duration: Duration) {
        self.slow.lock().expect("no panic").push((prefix, duration));
    }

    /// Those from now on take no time.
    pub fn speed_up(&self) {
        self.slow.lock().expect("no panic").clear();
    }
}

#[async_trait]
impl Datastore for Careless {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        self.inner.get(key).await
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, _: PutMode) -> Result<Put, DatastoreError> {
        let slow = self.slow.lock().expect("no panic").iter().find(|(prefix, _)| key.as_str().starts_with(prefix)).map(|(_, slow)| *slow);
        if let Some(slow) = slow {
            tokio::time::sleep(slow).await;
        }
        self.own.lock().expect("no panic").insert(key.clone());
        self.inner.put(key, body, PutMode::Overwrite).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        let mut listing = self.inner.list(prefix, start_after).await?;
        let own = self.own.lock().expect("no panic");
        let lag = |key: &ObjectKey| if own.contains(key) { self.lag.own } else { self.lag.of_others };
        listing.entries.retain(|entry| entry.last_modified <= listing.now - lag(&entry.key));
        Ok(listing)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        self.inner.delete(key).await
    }
}

/// A machine whose store accepts second creates, with the way it has there.
pub fn careless(world: &World, node: &str, lag: Lag) -> (Machine, Arc<Careless>) {
    let store = Arc::new(Careless { inner: Arc::clone(&world.store), slow: Mutex::default(), own: Mutex::default(), lag });
    let mut machine = world.machine(node);
    machine.fleet.creates = Creates::BestEffort;
    machine.fleet.store = Arc::clone(&store) as Arc<dyn Datastore>;
    (machine, store)
}
