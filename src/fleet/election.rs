//! The election: of all that find a site due, one may make its next generation.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use super::Creates;
use super::lease::HeldLease;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, DatastoreError, Put, PutMode};
use crate::domain::candidacy::SETTLING;
use crate::domain::lease::{Latest, Patience, Standing, TIME_TO_LIVE, standing};
use crate::domain::object_key::{Attempt, Generation, ObjectKey};
use crate::domain::record::{self, Holder, LeaseRecord, LeaseState, PassedOver, RecordError};
use crate::domain::site::SiteName;
use crate::system::clock::Instant;

/// How a candidacy went.
pub enum Candidacy {
    /// The lease is ours, and the generation is still to be made. The earlier attempt's order and failures are in its record.
    Won(HeldLease),
    /// The generation has been made by somebody else.
    Made,
    /// Somebody else is at work, or was quicker.
    Busy(Holder),
    /// The run is to end.
    Interrupted,
    /// It failed lately, and the time to try again has not come.
    Waiting {
        /// Why it failed.
        reason: String,
        /// When it may be tried again.
        retry_at: DateTime<Utc>,
        /// Who was asked then, and why they did not deliver.
        passed_over: Vec<PassedOver>,
    },
}

/// Why no candidacy was possible.
#[derive(Debug, Error)]
pub enum ElectionError {
    /// The store did not answer, or not as a store does.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// A lease that this release cannot read: of a newer format, or damaged and younger than its time to live.
    #[error("the lease {key} cannot be read")]
    Lease {
        /// The lease.
        key: ObjectKey,
        /// What is wrong with it.
        #[source]
        source: RecordError,
    },
    /// The store's listing lags behind what it is given by more than candidates wait for each other.
    #[error("the datastore does not list {0}, which was written {wait} s ago: no election can rest on that", wait = SETTLING.as_secs())]
    Unseen(ObjectKey),
}

/// A candidate for the making of one generation.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// The datastore.
    pub store: &'a Arc<dyn Datastore>,
    /// The site.
    pub site: &'a SiteName,
    /// The generation to be made.
    pub generation: Generation,
    /// This run.
    pub holder: &'a Holder,
    /// Whether recorded retry times bind it.
    pub patience: Patience,
    /// Whether a create decides between two.
    pub creates: Creates,
}

impl Candidate<'_> {
    /// Runs once, on what `snapshot` showed.
    pub async fn run(&self, snapshot: &Snapshot, interrupt: &CancellationToken) -> Result<Candidacy, ElectionError> {
        if snapshot.highest(self.site) >= self.generation {
            return Ok(Candidacy::Made);
        }
        let latest = self.latest(snapshot).await?;
        let attempt = match standing(latest.as_ref(), &self.holder.place, snapshot.clock().now(), self.patience) {
            Standing::Open(attempt) => attempt,
            Standing::Busy { holder } => return Ok(Candidacy::Busy(holder)),
            Standing::Waiting { reason, retry_at } => {
                let passed_over = latest.map(|latest| latest.record.passed_over).unwrap_or_default();
                return Ok(Candidacy::Waiting { reason, retry_at, passed_over });
            }
        };
        let record = self.record(attempt, latest.map(|latest| latest.record));
        if self.creates == Creates::BestEffort {
            return self.stand(record, snapshot, interrupt).await;
        }
        let sent = Instant::now();
        if let Some(winner) = self.create(&record).await? {
            return Ok(Candidacy::Busy(winner));
        }
        let lease = HeldLease::hold(Arc::clone(self.store), self.site.clone(), record, sent, None, interrupt.clone());
        // The listing is older than the lease: whoever held it before may have published in between.
        if Snapshot::take_site(&**self.store, self.site, self.generation).await?.highest(self.site) >= self.generation {
            // Whether that can be written down changes nothing: the generation is there.
            drop(lease.end(|record| record.state = LeaseState::Done).await);
            return Ok(Candidacy::Made);
        }
        Ok(Candidacy::Won(lease))
    }

    async fn latest(&self, snapshot: &Snapshot) -> Result<Option<Latest>, ElectionError> {
        let Some((attempt, age)) = snapshot.latest_attempt(self.site, self.generation) else { return Ok(None) };
        let key = ObjectKey::lease(self.site, self.generation, attempt);
        let Some(bytes) = self.store.get(&key).await? else { return Ok(None) };
        let record = match record::read(&bytes) {
            Ok(record) => record,
            // Whoever wrote it is not refreshing it any more. An unreadable lease must not stop a site's renewals for ever.
            Err(RecordError::Damaged(_)) if age > TIME_TO_LIVE => LeaseRecord { state: LeaseState::Released, ..self.record(attempt, None) },
            Err(source) => return Err(ElectionError::Lease { key, source }),
        };
        Ok(Some(Latest { attempt, age, record }))
    }

    fn record(&self, attempt: Attempt, earlier: Option<LeaseRecord>) -> LeaseRecord {
        let (order, failures, passed_over) =
            earlier.map_or((None, 0, Vec::new()), |record| (record.order, record.failures, record.passed_over));
        LeaseRecord {
            version: record::VERSION,
            site: self.site.file_name(),
            generation: self.generation,
            attempt,
            holder: self.holder.clone(),
            state: LeaseState::Held,
            order,
            failures,
            passed_over,
        }
    }

    /// Creates the lease; the winner where that was somebody else. A refusal is not taken at its word: the create that was refused
    /// may be the second sending of one of ours that had arrived. Nor is a missing answer.
    pub(super) async fn create(&self, record: &LeaseRecord) -> Result<Option<Holder>, ElectionError> {
        let key = ObjectKey::lease(self.site, self.generation, record.attempt);
        let answer = self.store.put(&key, record::write(record).into(), PutMode::Create).await;
        if matches!(answer, Ok(Put::Stored)) {
            return Ok(None);
        }
        let Some(bytes) = self.store.get(&key).await? else {
            // Not there: the create never arrived, and says so itself.
            answer?;
            return Ok(Some(record.holder.clone()));
        };
        let found: LeaseRecord = record::read(&bytes).map_err(|source| ElectionError::Lease { key, source })?;
        Ok((found.holder.run != self.holder.run).then_some(found.holder))
    }
}
