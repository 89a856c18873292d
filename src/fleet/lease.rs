//! A lease while it is held: refreshed, written to, confirmed, and given back.

use std::sync::{Arc, OnceLock, PoisonError};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Fleet;
use super::site_error::SiteError;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, DatastoreError, Put, PutMode};
use crate::domain::candidacy;
use crate::domain::lease::{REFRESH_EVERY, TRUSTED_FOR};
use crate::domain::object_key::{Listed, ObjectKey};
use crate::domain::record::{self, KeptOrder, LeaseRecord, LeaseState, OrderRecord, Sealed, Wanted};
use crate::domain::site::SiteName;
use crate::issuer::{LeaseEnded, Order};
use crate::system::clock::{self, Instant};
use crate::system::error_chain::in_full;

/// Why a lease is lost that the store did not show to be refreshed in time.
const UNREFRESHED: &str = "it could not be refreshed for a minute";

/// Why a lease is lost that another machine has, or a later one.
const TAKEN_OVER: &str = "another machine has taken over";

/// A lease that this run created. Dropping it stops the refreshing; the record stays and grows old.
pub struct HeldLease {
    inner: Arc<Inner>,
    refreshing: JoinHandle<()>,
}

struct Inner {
    store: Arc<dyn Datastore>,
    site: SiteName,
    key: ObjectKey,
    written: Mutex<Written>,
    /// What the store, or the disk, answered when it was needed.
    failure: std::sync::Mutex<Option<SiteError>>,
    /// Where the store accepts second creates: the candidacy that won the lease. It stays, and is looked at again.
    candidacy: Option<ObjectKey>,
    /// Cancelled when the lease is known to be lost.
    lost: CancellationToken,
    /// Why it is lost: the first reason counts.
    why_lost: OnceLock<&'static str>,
    /// Cancelled when the person wants the program to end.
    interrupt: CancellationToken,
}

struct Written {
    record: LeaseRecord,
    /// When the last write that succeeded was *sent*: the store's age of the record cannot be greater than what has passed since.
    at: Instant,
}

impl HeldLease {
    /// Starts to hold `record`, which the store has just accepted; the create was sent at `sent`. With a `candidacy` the store may have
    /// accepted another one, too: then the lease is looked at before each write, and the candidacy before each irreversible step.
    pub fn hold(
        store: Arc<dyn Datastore>,
        site: SiteName,
        record: LeaseRecord,
        sent: Instant,
        candidacy: Option<ObjectKey>,
        interrupt: CancellationToken,
    ) -> Self {
        let key = ObjectKey::lease(&site, record.generation, record.attempt);
        let written = Mutex::new(Written { record, at: sent });
        let (failure, lost, why_lost) = (std::sync::Mutex::default(), CancellationToken::new(), OnceLock::new());
        let inner = Arc::new(Inner { store, site, key, written, failure, candidacy, lost, why_lost, interrupt });
        let refreshing = clock::spawn(refresh(Arc::clone(&inner)));
        Self { inner, refreshing }
    }

    /// The record as it was last written.
    pub async fn record(&self) -> LeaseRecord {
        self.inner.written.lock().await.record.clone()
    }

    /// Ends the lease with its outcome. The record stays: it tells the fleet what happened.
    pub async fn end(self, change: impl FnOnce(&mut LeaseRecord)) -> Result<(), DatastoreError> {
        // A refresh that is under way ends first: called off in the middle, it could still arrive after the outcome.
        let mut written = self.inner.written.lock().await;
        self.refreshing.abort();
        self.inner.write_over(&mut written, change).await
    }

    /// Why the store, or the disk, did not let an issuer go on, where that is why the work stopped.
    pub fn take_failure(&self) -> Option<SiteError> {
        self.inner.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether another machine has created a later attempt, or stood for this one before us.
    pub async fn is_superseded(&self) -> Result<bool, DatastoreError> {
        let inner = &self.inner;
        if inner.lost.is_cancelled() {
            return Ok(true);
        }
        let (generation, attempt) = {
            let written = inner.written.lock().await;
            (written.record.generation, written.record.attempt)
        };
        let prefix = ObjectKey::leases_prefix(&inner.site, generation);
        let Some(candidacy) = &inner.candidacy else {
            let later = inner.store.list(&prefix, Some(inner.key.as_str())).await?.entries;
            return Ok(later.iter().any(|entry| matches!(entry.key.listed(), Listed::Lease(..))));
        };
        let look = Snapshot::read(&inner.store.list(&prefix, None).await?);
        let later = look.latest_attempt(&inner.site, generation).is_some_and(|(latest, _)| latest > attempt);
        let all = look.candidacies(&inner.site, generation);
        let own = all.iter().find(|stood| ObjectKey::candidacy(&inner.site, generation, stood.attempt, &stood.run) == *candidacy);
        Ok(later || own.is_none_or(|own| !candidacy::before(own, all).is_empty()) || inner.is_overwritten().await?)
    }

    /// Whether the lease is still ours: refreshed lately, and nobody has created a later attempt.
    pub async fn confirm(&self) -> Result<(), LeaseEnded> {
        if self.inner.interrupt.is_cancelled() {
            return Err(LeaseEnded::Interrupted);
        }
        let superseded = self.is_superseded().await.map_err(|error| self.inner.fail(error))?;
        let unrefreshed = self.inner.written.lock().await.at.elapsed();
        if superseded {
            return Err(self.taken_over());
        }
        if unrefreshed > TRUSTED_FOR {
            return Err(self.inner.lose(UNREFRESHED));
        }
        Ok(())
    }

    /// What the work ends with where the lease [is superseded](Self::is_superseded).
    pub fn taken_over(&self) -> LeaseEnded {
        self.inner.lose(TAKEN_OVER)
    }

    /// The view of it that issuers get: an order is sealed before it is written down, and steps are told to the person.
    pub fn for_issuer<'a>(&'a self, issuer: &'a str, wanted: Wanted, fleet: &'a Fleet) -> IssuerLease<'a> {
        IssuerLease { lease: self, issuer, wanted, fleet }
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        self.refreshing.abort();
    }
}

impl Inner {
    async fn write(&self, change: impl FnOnce(&mut LeaseRecord)) -> Result<(), DatastoreError> {
        let mut written = self.written.lock().await;
        self.write_over(&mut written, change).await
    }

    async fn write_over(&self, written: &mut Written, change: impl FnOnce(&mut LeaseRecord)) -> Result<(), DatastoreError> {
        if self.candidacy.is_some() && self.is_overwritten_by_another_than(&written.record).await? {
            // It is theirs: nothing of ours has a place in it any more. Whoever asks next is told that it was lost.
            self.lose("another machine's was written over it");
            return Ok(());
        }
        let mut record = written.record.clone();
        change(&mut record);
        let sent = Instant::now();
        let put: Put = self.store.put(&self.key, record::write(&record).into(), PutMode::Overwrite).await?;
        debug_assert_eq!(put, Put::Stored, "an overwrite is never refused");
        *written = Written { record, at: sent };
        Ok(())
    }

    async fn is_overwritten(&self) -> Result<bool, DatastoreError> {
        let written = self.written.lock().await;
        self.is_overwritten_by_another_than(&written.record).await
    }

    /// Whether another run's record lies where ours was written.
    async fn is_overwritten_by_another_than(&self, own: &LeaseRecord) -> Result<bool, DatastoreError> {
        let found = self.store.get(&self.key).await?.and_then(|bytes| record::read::<LeaseRecord>(&bytes).ok());
        Ok(found.is_some_and(|found| found.holder.run != own.holder.run))
    }

    /// Keeps an error of the store for whoever ends the run: it says more than that the lease was lost.
    fn fail(&self, error: impl Into<SiteError>) -> LeaseEnded {
        let error = error.into();
        let ended = LeaseEnded::Lost(in_full(&error));
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        ended
    }

    fn lose(&self, why: &'static str) -> LeaseEnded {
        let why = *self.why_lost.get_or_init(|| why);
        self.lost.cancel();
        LeaseEnded::Lost(why.to_owned())
    }
}

/// Rewrites the record every [`REFRESH_EVERY`], so that the store shows it young, until the lease can no longer be trusted.
async fn refresh(inner: Arc<Inner>) {
    loop {
        clock::sleep(REFRESH_EVERY).await;
        let unrefreshed = inner.written.lock().await.at.elapsed();
        if unrefreshed > TRUSTED_FOR {
            inner.lose(UNREFRESHED);
            return;
        }
        // A refresh that fails is made good by the next one; a minute of failures ends the lease, above.
        if let Err(error) = inner.write(|_| {}).await {
            tracing::debug!(lease = %inner.key, error = in_full(&error), "a lease could not be refreshed");
        }
    }
}

/// See [`HeldLease::for_issuer`].
pub struct IssuerLease<'a> {
    lease: &'a HeldLease,
    issuer: &'a str,
    wanted: Wanted,
    fleet: &'a Fleet,
}

#[async_trait]
impl crate::issuer::Lease for IssuerLease<'_> {
    async fn record_order(&self, order: &Order) -> Result<(), LeaseEnded> {
        let inner = &self.lease.inner;
        let generation = self.lease.record().await.generation;
        let unsealed = Sealed::None { plaintext: String::new() };
        let mut record = OrderRecord { issuer: self.issuer.to_owned(), url: order.url.clone(), wanted: self.wanted.clone(), key: unsealed };
        let beside = record.beside(&inner.site.file_name(), generation);
        let key = self.fleet.seal.close(&order.key.to_pem(), &beside.each_ref().map(String::as_str));
        record.key = key.map_err(|error| LeaseEnded::Lost(in_full(&error)))?;
        let kept = KeptOrder { version: record::VERSION, generation, order: record.clone() };
        self.fleet.spool.keep_order(&inner.site, &kept).map_err(|error| inner.fail(error))?;
        inner.write(|lease| lease.order = Some(record)).await.map_err(|error| inner.fail(error))
    }

    async fn confirm(&self) -> Result<(), LeaseEnded> {
        self.lease.confirm().await
    }

    async fn ended(&self) -> LeaseEnded {
        tokio::select! {
            biased;
            () = self.lease.inner.interrupt.cancelled() => LeaseEnded::Interrupted,
            () = self.lease.inner.lost.cancelled() => self.lease.inner.lose(UNREFRESHED),
        }
    }

    fn progress(&self, step: &str) {
        self.fleet.progress.step(&self.lease.inner.site, &format!("{}: {step}", self.issuer));
    }

    fn left_behind(&self, what: &str) {
        self.fleet.progress.warning(&format!("{}: {}: left behind: {what}", self.lease.inner.site, self.issuer));
    }

    fn makes_do(&self, what: &str) {
        self.fleet.progress.warning(&format!("{}: {}: {what}", self.lease.inner.site, self.issuer));
    }
}

impl HeldLease {
    /// Gives the lease back without a result: anybody may try at once. What was recorded of an order stays for the successor.
    pub async fn release(self) -> Result<(), DatastoreError> {
        self.end(|record| record.state = LeaseState::Released).await
    }
}
