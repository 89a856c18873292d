//! One listing of the datastore, read as bundles and leases. It serves all sites: a run lists once.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::datastore::{Datastore, DatastoreError, Listing};
use crate::domain::object_key::{Attempt, Generation, Listed, ObjectKey};
use crate::domain::site::SiteName;

/// What a listing showed.
#[derive(Clone, Debug)]
pub struct Snapshot {
    clock: StoreClock,
    highest: BTreeMap<SiteName, Generation>,
    leases: BTreeMap<(SiteName, Generation), (Attempt, DateTime<Utc>)>,
}

/// The store's time, carried on by this machine's monotonic clock. Only the store says what time it is.
#[derive(Clone, Copy, Debug)]
pub struct StoreClock {
    then: DateTime<Utc>,
    taken: Instant,
}

impl StoreClock {
    /// A clock that shows `then` at this moment.
    pub fn showing(then: DateTime<Utc>) -> Self {
        Self { then, taken: Instant::now() }
    }

    /// The store's time now.
    pub fn now(&self) -> DateTime<Utc> {
        self.then + self.taken.elapsed()
    }
}

impl Snapshot {
    /// Lists everything.
    pub async fn take(store: &dyn Datastore) -> Result<Self, DatastoreError> {
        Ok(Self::read(&store.list("", None).await?))
    }

    /// Lists what concerns the making of one generation: the bundle before it, itself and later ones, and its leases.
    pub async fn take_site(store: &dyn Datastore, site: &SiteName, next: Generation) -> Result<Self, DatastoreError> {
        let bundles = ObjectKey::bundles_prefix(site);
        let before = ObjectKey::bundle(site, Generation(next.0.saturating_sub(2)));
        let leases = ObjectKey::leases_prefix(site, next);
        let (mut bundles, leases) =
            futures_util::future::try_join(store.list(&bundles, Some(before.as_str())), store.list(&leases, None)).await?;
        bundles.entries.extend(leases.entries);
        // Ages are measured within the listing of the leases.
        bundles.now = leases.now;
        Ok(Self::read(&bundles))
    }

    fn read(listing: &Listing) -> Self {
        let mut snapshot = Self { clock: StoreClock::showing(listing.now), highest: BTreeMap::new(), leases: BTreeMap::new() };
        for entry in &listing.entries {
            match entry.key.listed() {
                Listed::Bundle(site, generation) => {
                    let highest = snapshot.highest.entry(site).or_default();
                    *highest = generation.max(*highest);
                }
                Listed::Lease(site, generation, attempt) => {
                    let latest = snapshot.leases.entry((site, generation)).or_insert((attempt, entry.last_modified));
                    if attempt > latest.0 {
                        *latest = (attempt, entry.last_modified);
                    }
                }
                Listed::Manifest | Listed::Other => {}
            }
        }
        snapshot
    }

    /// Whether it holds any bundle.
    pub fn has_bundles(&self) -> bool {
        !self.highest.is_empty()
    }

    /// The store's clock.
    pub fn clock(&self) -> StoreClock {
        self.clock
    }

    /// The highest generation of a site; 0 where there is none.
    pub fn highest(&self, site: &SiteName) -> Generation {
        self.highest.get(site).copied().unwrap_or_default()
    }

    /// The latest attempt at a generation, and its age at the moment of the listing.
    pub fn latest_attempt(&self, site: &SiteName, generation: Generation) -> Option<(Attempt, Duration)> {
        let (attempt, last_modified) = self.leases.get(&(site.clone(), generation))?;
        Some((*attempt, (self.clock.then - *last_modified).to_std().unwrap_or_default()))
    }
}
