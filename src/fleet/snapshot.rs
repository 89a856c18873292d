//! One listing of the datastore, read as bundles and leases. It serves all sites: a run lists once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::datastore::{Datastore, DatastoreError, Listing};
use crate::domain::candidacy::Stood;
use crate::domain::lease::TIME_TO_LIVE;
use crate::domain::object_key::{Attempt, Generation, Listed, ObjectKey};
use crate::domain::site::SiteName;
use crate::system::clock::Instant;

/// What a listing showed. Copies are cheap: each of a thousand sites is worked on with one.
#[derive(Clone, Debug)]
pub struct Snapshot {
    clock: StoreClock,
    seen: Arc<Seen>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    manifest: Option<String>,
    highest: BTreeMap<SiteName, Highest>,
    leases: BTreeMap<(SiteName, Generation), (Attempt, DateTime<Utc>)>,
    candidacies: BTreeMap<(SiteName, Generation), Vec<Stood>>,
    nodes: BTreeMap<String, DateTime<Utc>>,
    revocations: BTreeMap<SiteName, Vec<(Generation, String)>>,
    windows: BTreeMap<SiteName, String>,
}

/// The highest generation of a site.
#[derive(Clone, Debug, Default)]
struct Highest {
    generation: Generation,
    published_at: DateTime<Utc>,
    /// Empty where it is not known.
    etag: String,
}

/// The store's time, carried on by this machine's monotonic clock from the moment at which the store was asked: it is never behind, also in
/// a process that was stopped before it had read the answer. What the CA has just issued would be not yet valid there. While a machine is
/// suspended that clock stands still.
/// Only the store says what time it is.
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
        let asked = Instant::now();
        Ok(Self::seen_since(asked, &store.list("", None).await?))
    }

    /// What is at hand where the datastore cannot be reached: bundles that were brought here, and the time of whoever brought them.
    pub fn without_store(now: DateTime<Utc>, bundles: impl IntoIterator<Item = (SiteName, Generation)>) -> Self {
        let highest =
            bundles.into_iter().map(|(site, generation)| (site, Highest { generation, published_at: now, etag: String::new() })).collect();
        Self { clock: StoreClock::showing(now), seen: Arc::new(Seen { highest, ..Seen::default() }) }
    }

    /// Lists what concerns the making of one generation: the bundle before it, itself and later ones, and its leases.
    pub async fn take_site(store: &dyn Datastore, site: &SiteName, next: Generation) -> Result<Self, DatastoreError> {
        let bundles = ObjectKey::bundles_prefix(site);
        let before = ObjectKey::bundle(site, Generation(next.0.saturating_sub(2)));
        let leases = ObjectKey::leases_prefix(site, next);
        let asked = Instant::now();
        let (mut bundles, leases) =
            futures_util::future::try_join(store.list(&bundles, Some(before.as_str())), store.list(&leases, None)).await?;
        bundles.entries.extend(leases.entries);
        // Ages are measured within the listing of the leases.
        bundles.now = leases.now;
        Ok(Self::seen_since(asked, &bundles))
    }

    /// What a listing shows.
    pub fn read(listing: &Listing) -> Self {
        Self::seen_since(Instant::now(), listing)
    }

    fn seen_since(asked: Instant, listing: &Listing) -> Self {
        let mut seen = Seen::default();
        for entry in &listing.entries {
            match entry.key.listed() {
                Listed::Bundle(site, generation) => {
                    let highest = seen.highest.entry(site).or_default();
                    if generation >= highest.generation {
                        *highest = Highest { generation, published_at: entry.last_modified, etag: entry.etag.clone() };
                    }
                }
                Listed::Lease(site, generation, attempt) => {
                    let latest = seen.leases.entry((site, generation)).or_insert((attempt, entry.last_modified));
                    if attempt > latest.0 {
                        *latest = (attempt, entry.last_modified);
                    }
                }
                Listed::Candidacy(site, generation, attempt, run) => {
                    let stood = Stood { at: entry.last_modified, run, attempt };
                    seen.candidacies.entry((site, generation)).or_default().push(stood);
                }
                Listed::Manifest => seen.manifest = Some(entry.etag.clone()),
                Listed::Node(node) => {
                    seen.nodes.insert(node, entry.last_modified);
                }
                Listed::Revocation(site, generation, key) => seen.revocations.entry(site).or_default().push((generation, key)),
                Listed::Window(site) => {
                    seen.windows.insert(site, entry.etag.clone());
                }
                Listed::Probe | Listed::Challenge(_) | Listed::Other => {}
            }
        }
        Self { clock: StoreClock { then: listing.now, taken: asked }, seen: Arc::new(seen) }
    }

    /// The same, with a bundle that has appeared since.
    pub fn with_bundle(&self, site: &SiteName, generation: Generation) -> Self {
        let mut later = self.clone();
        let highest = Arc::make_mut(&mut later.seen).highest.entry(site.clone()).or_default();
        if generation >= highest.generation {
            *highest = Highest { generation, published_at: self.clock.now(), etag: String::new() };
        }
        later
    }

    /// The same, with what an earlier listing showed that was for more than the making of one generation.
    pub fn after(mut self, earlier: &Self) -> Self {
        Arc::make_mut(&mut self.seen).revocations.clone_from(&earlier.seen.revocations);
        self
    }

    /// The revocations of a site's certificates: the generation, and the SHA-256 of the key. Nothing of it is proven.
    pub fn revocations(&self, site: &SiteName) -> &[(Generation, String)] {
        self.seen.revocations.get(site).map_or(&[], Vec::as_slice)
    }

    /// Whether it holds any bundle.
    pub fn has_bundles(&self) -> bool {
        !self.seen.highest.is_empty()
    }

    /// The sites that have a bundle, in the order of their names.
    pub fn sites(&self) -> impl Iterator<Item = &SiteName> {
        self.seen.highest.keys()
    }

    /// The store's clock.
    pub fn clock(&self) -> StoreClock {
        self.clock
    }

    /// The highest generation of a site; 0 where there is none.
    pub fn highest(&self, site: &SiteName) -> Generation {
        self.seen.highest.get(site).map(|highest| highest.generation).unwrap_or_default()
    }

    /// The ETag of the highest generation of a site: while it is the same, so is the object. `None` where the store does not tell.
    pub fn etag(&self, site: &SiteName) -> Option<&str> {
        self.seen.highest.get(site).map(|highest| highest.etag.as_str()).filter(|etag| !etag.is_empty())
    }

    /// When the highest generation of a site was published, by the store's clock.
    pub fn published_at(&self, site: &SiteName) -> Option<DateTime<Utc>> {
        self.seen.highest.get(site).map(|highest| highest.published_at)
    }

    /// The ETag of what is known of a site's renewal window, empty where the store does not tell; `None` where nothing is.
    pub fn window_etag(&self, site: &SiteName) -> Option<&str> {
        self.seen.windows.get(site).map(String::as_str)
    }

    /// The nodes that have reported, and when they last did, by the store's clock.
    pub fn nodes(&self) -> &BTreeMap<String, DateTime<Utc>> {
        &self.seen.nodes
    }

    /// The ETag of the manifest; `None` where there is no manifest.
    pub fn manifest_etag(&self) -> Option<&str> {
        self.seen.manifest.as_deref()
    }

    /// The latest attempt at a generation, and its age at the moment of the listing.
    pub fn latest_attempt(&self, site: &SiteName, generation: Generation) -> Option<(Attempt, Duration)> {
        let (attempt, last_modified) = self.seen.leases.get(&(site.clone(), generation))?;
        Some((*attempt, (self.clock.then - *last_modified).to_std().unwrap_or_default()))
    }

    /// The candidacies for a generation, in the order of their keys.
    pub fn candidacies(&self, site: &SiteName, generation: Generation) -> &[Stood] {
        self.seen.candidacies.get(&(site.clone(), generation)).map_or(&[], Vec::as_slice)
    }

    /// Whether somebody is about to take the lease on a generation: stands for an attempt that nobody has yet.
    pub fn is_contested(&self, site: &SiteName, generation: Generation) -> bool {
        let latest = self.latest_attempt(site, generation).map(|(attempt, _)| attempt);
        let young = |stood: &Stood| (self.clock.then - stood.at).to_std().unwrap_or_default() <= TIME_TO_LIVE;
        self.candidacies(site, generation).iter().any(|stood| Some(stood.attempt) > latest && young(stood))
    }
}
