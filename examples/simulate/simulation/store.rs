//! The bucket, and the way to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use certfleet::datastore::{Datastore, DatastoreError, Entry, FailureKind, Listing, Put, PutMode};
use certfleet::domain::object_key::{Generation, Listed, ObjectKey};
use certfleet::domain::record::{self, BundleRecord, LeaseRecord, LeaseState, Sealed};
use certfleet::domain::site::SiteName;
use chrono::{DateTime, SubsecRound as _, Utc};
use tokio::time::{Instant, sleep};

use super::bug::Bug;
use super::fault::Fault;
use super::invariants;
use super::process::{Process, time_out};
use super::scenario::Store;
use super::world::World;

/// What lies in it.
#[derive(Debug, Default)]
pub struct Bucket {
    objects: BTreeMap<ObjectKey, Object>,
    /// The chains of all bundles: what lies in the bucket, read once.
    chains: BTreeMap<SiteName, BTreeMap<Generation, String>>,
    writes: u64,
}

#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    etag: u64,
    last_modified: DateTime<Utc>,
}

impl Bucket {
    pub fn get(&self, key: &ObjectKey) -> Option<&Bytes> {
        self.objects.get(key).map(|object| &object.body)
    }

    pub fn remove(&mut self, key: &ObjectKey) {
        if let Listed::Bundle(site, generation) = key.listed()
            && let Some(chains) = self.chains.get_mut(&site)
        {
            chains.remove(&generation);
        }
        self.objects.remove(key);
    }

    /// The highest generation of a site; 0 where there is none.
    pub fn highest(&self, site: &SiteName) -> Generation {
        self.chains.get(site).and_then(|chains| chains.keys().max()).copied().unwrap_or_default()
    }

    /// The chain of the highest generation.
    pub fn newest_chain(&self, site: &SiteName) -> Option<&str> {
        self.chains.get(site).and_then(|chains| chains.last_key_value()).map(|(_, chain)| chain.as_str())
    }

    fn insert(&mut self, key: &ObjectKey, object: Object) {
        if let Listed::Bundle(site, generation) = key.listed() {
            let chain = record::read::<BundleRecord>(&object.body).map(|bundle| bundle.fullchain).unwrap_or_default();
            self.chains.entry(site).or_default().insert(generation, chain);
        }
        self.objects.insert(key.clone(), object);
    }

    /// The objects whose keys begin so.
    pub fn under(&self, prefix: &str) -> impl Iterator<Item = (&ObjectKey, &Bytes)> {
        self.objects.iter().filter(move |(key, _)| key.as_str().starts_with(prefix)).map(|(key, object)| (key, &object.body))
    }

    fn list(&self, prefix: &str, start_after: Option<&str>) -> Vec<Entry> {
        let wanted =
            |(key, _): &(&ObjectKey, &Object)| key.as_str().starts_with(prefix) && start_after.is_none_or(|after| key.as_str() > after);
        let entry = |(key, object): (&ObjectKey, &Object)| Entry {
            key: key.clone(),
            etag: object.etag.to_string(),
            size_bytes: object.body.len() as u64,
            last_modified: object.last_modified,
        };
        self.objects.iter().filter(wanted).map(entry).collect()
    }
}

/// One machine's way to the bucket.
#[derive(Debug)]
pub struct Way {
    pub process: Arc<Process>,
}

/// What became of a request on its way.
enum Fate {
    Done,
    Lost,
    ReplyLost,
    SentTwice,
    AppliedLate,
    Throttled,
}

impl Way {
    pub fn new(process: &Arc<Process>) -> Self {
        Self { process: Arc::clone(process) }
    }

    fn world(&self) -> &Arc<World> {
        &self.process.world
    }

    fn has(&self, bug: Bug) -> bool {
        self.world().bug == Some(bug)
    }

    async fn fate(&self, writes: bool) -> Fate {
        let world = self.world();
        if self.is_cut_off() {
            self.process.struck();
            return Fate::Lost;
        }
        if world.strikes_call(Fault::Slow) {
            self.process.struck();
            self.process.travel(1_000, 40_000).await;
        }
        let fate = if world.strikes_call(Fault::RequestLost) {
            Fate::Lost
        } else if world.strikes_call(Fault::Throttled) {
            Fate::Throttled
        } else if world.strikes_call(Fault::ReplyLost) {
            Fate::ReplyLost
        } else if writes && world.strikes_call(Fault::SentTwice) {
            Fate::SentTwice
        } else if writes && world.strikes_call(Fault::AppliedLate) {
            Fate::AppliedLate
        } else {
            return Fate::Done;
        };
        self.process.struck();
        fate
    }

    fn is_cut_off(&self) -> bool {
        let (world, machine) = (self.world(), self.process.machine);
        if world.strikes(Fault::CutOff, world.scenario.per_mille / 10) {
            let until = Instant::now() + world.pause(60_000, 20 * 3_600_000);
            world.state().cut_off_until.insert(machine, until);
            self.process.tell(|| "cut off from the store".to_owned());
        }
        world.state().cut_off_until.get(&machine).is_some_and(|until| Instant::now() < *until)
    }

    /// One request with its reply. `apply` is what it does in the store.
    async fn call<T>(&self, what: String, writes: bool, apply: impl Fn(&World) -> T + Send + Sync + 'static) -> Result<T, DatastoreError>
    where
        T: Send + 'static,
    {
        self.process.boundary(&what).await;
        let fate = self.fate(writes).await;
        self.process.travel(2, 40).await;
        let world = self.world();
        let failed = |why: &'static str| Err(failure(&what, why));
        let answer = match fate {
            Fate::Done => {
                let answer = apply(world);
                self.process.tell(|| what.clone());
                Ok(answer)
            }
            Fate::Lost => {
                sleep(time_out(world)).await;
                self.process.tell(|| format!("{what}: lost on its way"));
                failed("no answer")
            }
            Fate::ReplyLost => {
                apply(world);
                sleep(time_out(world)).await;
                self.process.tell(|| format!("{what}: carried out, the reply is lost"));
                failed("no answer")
            }
            Fate::SentTwice => {
                apply(world);
                self.process.travel(100, 3_000).await;
                self.process.tell(|| format!("{what}: sent twice"));
                Ok(apply(world))
            }
            Fate::AppliedLate => {
                let (later, delay, world_too) = (what.clone(), world.pause(1_000, 400_000), Arc::clone(world));
                let name = self.process.name();
                tokio::spawn(async move {
                    sleep(delay).await;
                    apply(&world_too);
                    world_too.tell(&name, || format!("{later}: carried out only now"));
                });
                sleep(time_out(world)).await;
                self.process.tell(|| format!("{what}: given up"));
                failed("no answer")
            }
            Fate::Throttled => {
                self.process.tell(|| format!("{what}: 503 SlowDown"));
                failed("503 SlowDown")
            }
        };
        self.process.travel(1, 30).await;
        self.process.boundary("the reply").await;
        answer
    }
}

fn failure(what: &str, why: &'static str) -> DatastoreError {
    DatastoreError { call: what.to_owned(), kind: FailureKind::Passing, hint: String::new(), source: why.into() }
}

#[async_trait]
impl Datastore for Way {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        let asked = key.clone();
        let found = self.call(format!("get {key}"), false, move |world| world.state().bucket.get(&asked).cloned()).await?;
        Ok(found.map(|body| self.as_understood(key, body)))
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
        let listed = key.listed();
        if let Listed::Lease(site, generation, _) = &listed
            && mode == PutMode::Create
        {
            self.process.begins_work_on(site, *generation);
        }
        let Some(body) = self.as_written(&listed, body) else { return Ok(Put::Stored) };
        let unconditional = matches!(
            (self.world().bug, &listed),
            (Some(Bug::LeaseWithoutCondition), Listed::Lease(..)) | (Some(Bug::PublishByOverwrite | Bug::TwoObjects), Listed::Bundle(..))
        );
        let mode = if unconditional { PutMode::Overwrite } else { mode };
        let (machine, asked) = (self.process.machine, key.clone());
        if let (true, Some(half)) = (self.has(Bug::TwoObjects), self.half(&listed, &body)) {
            let asked = key.clone();
            self.call(format!("put the chain of {key}"), true, move |world| write(world, machine, &asked, half.clone(), mode)).await?;
        }
        let sent = body.clone();
        let what = format!("{} {key}", if mode == PutMode::Create { "create" } else { "put" });
        self.call(what, true, move |world| write(world, machine, &asked, sent.clone(), mode)).await
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        let (wanted, after) = (prefix.to_owned(), start_after.map(str::to_owned));
        let own_clock = self.has(Bug::OwnClock).then(|| super::machine::wall_clock(self.world(), self.process.machine));
        let what = format!("list {}", if prefix.is_empty() { "everything" } else { prefix });
        let mut listing = self
            .call(what, false, move |world| {
                let entries = world.state().bucket.list(&wanted, after.as_deref());
                Listing { entries, now: world.now().trunc_subsecs(0) }
            })
            .await?;
        listing.now = own_clock.unwrap_or(listing.now);
        Ok(self.as_remembered(prefix, listing))
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        let asked = key.clone();
        self.call(format!("delete {key}"), true, move |world| world.state().bucket.remove(&asked)).await
    }
}

/// What the store does with a write.
pub fn write(world: &World, machine: usize, key: &ObjectKey, body: Bytes, mode: PutMode) -> Put {
    let honours = world.scenario.store == Store::Exclusive;
    let now = world.now().trunc_subsecs(0);
    {
        let state = world.state();
        if mode == PutMode::Create && honours && state.bucket.objects.contains_key(key) {
            return Put::Exists;
        }
    }
    invariants::before_write(world, machine, key, &body);
    let mut state = world.state();
    state.bucket.writes += 1;
    let etag = state.bucket.writes;
    if matches!(key.listed(), Listed::Bundle(..)) {
        let chain = record::read::<BundleRecord>(&body).map(|bundle| bundle.fullchain).unwrap_or_default();
        state.ca.is_published(&chain);
    }
    state.bucket.insert(key, Object { body, etag, last_modified: now });
    Put::Stored
}

/// Where the deliberate bugs about records are.
impl Way {
    /// What really leaves the machine; `None` where a mistake keeps it.
    fn as_written(&self, listed: &Listed, body: Bytes) -> Option<Bytes> {
        let Listed::Lease(..) = listed else {
            return Some(match (self.has(Bug::SecretInTheClear), listed) {
                (true, Listed::Bundle(site, _)) => self.with_its_key(site, body),
                _ => body,
            });
        };
        let Ok(mut record) = record::read::<LeaseRecord>(&body) else { return Some(body) };
        if self.has(Bug::HeartbeatIgnored) && record.state == LeaseState::Held && record.order.is_some() {
            let key = ObjectKey::lease(&site_of(&record)?, record.generation, record.attempt);
            let there = self.world().state().bucket.get(&key).and_then(|bytes| record::read::<LeaseRecord>(bytes).ok());
            if there.is_some_and(|there| there == record) {
                return None;
            }
        }
        if self.has(Bug::OrderNotRecorded) {
            record.order = None;
        }
        if self.has(Bug::FailureNotRecorded) && matches!(record.state, LeaseState::Failed { .. }) {
            record.state = LeaseState::Released;
            record.failures = 0;
            record.passed_over = Vec::new();
        }
        Some(record::write(&record).into())
    }

    /// The same bundle, its key not sealed.
    fn with_its_key(&self, site: &SiteName, body: Bytes) -> Bytes {
        let Ok(mut record) = record::read::<BundleRecord>(&body) else { return body };
        let world = self.world();
        let key = world.state().ca.issued(&record.fullchain).filter(|issued| issued.site == *site).map(|issued| issued.key_pem.clone());
        record.key = Sealed::None { plaintext: key.unwrap_or_default() };
        record::write(&record).into()
    }

    /// A bundle whose chain has arrived, and whose key has not: the one before it is still there.
    fn half(&self, listed: &Listed, body: &Bytes) -> Option<Bytes> {
        let Listed::Bundle(site, generation) = listed else { return None };
        let before = Generation(generation.0.checked_sub(1)?);
        let earlier = self.world().state().bucket.get(&ObjectKey::bundle(site, before)).cloned()?;
        let earlier: BundleRecord = record::read(&earlier).ok()?;
        let mut record: BundleRecord = record::read(body).ok()?;
        record.key = earlier.key;
        Some(record::write(&record).into())
    }

    /// What the machine makes of an object.
    fn as_understood(&self, key: &ObjectKey, body: Bytes) -> Bytes {
        if !self.has(Bug::RetryTimeIgnored) || !matches!(key.listed(), Listed::Lease(..)) {
            return body;
        }
        let Ok(mut record) = record::read::<LeaseRecord>(&body) else { return body };
        record.passed_over = Vec::new();
        if let LeaseState::Failed { retry_at, .. } = &mut record.state {
            *retry_at = DateTime::UNIX_EPOCH;
        }
        record::write(&record).into()
    }

    /// What the machine takes the bucket to hold.
    fn as_remembered(&self, prefix: &str, listing: Listing) -> Listing {
        let world = self.world();
        match world.bug {
            Some(Bug::StaleListing) if prefix.is_empty() && world.since_begin() > Duration::from_secs(86_400) => {
                let before = world.now() - chrono::TimeDelta::hours(30);
                let entries = listing.entries.into_iter().filter(|entry| entry.last_modified < before).collect();
                Listing { entries, now: listing.now }
            }
            _ => listing,
        }
    }
}

fn site_of(record: &LeaseRecord) -> Option<SiteName> {
    SiteName::from_file_name(&record.site).ok()
}
