//! The election on a store that accepts second creates: write, wait, look. The rules are in `domain/candidacy.rs`.
//!
//! A candidacy is an object of its own beside the lease, so nobody can overwrite it. Only who wins with it writes the lease, which then
//! serves as everywhere else: refreshed, read by those who wait, taken over when it grows old.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::election::{Candidacy, Candidate, ElectionError};
use super::lease::HeldLease;
use super::snapshot::Snapshot;
use crate::datastore::PutMode;
use crate::domain::candidacy::{self, SETTLING, Stood};
use crate::domain::lease::TRUSTED_FOR;
use crate::domain::object_key::{Attempt, ObjectKey};
use crate::domain::record::{self, Holder, LeaseRecord, LeaseState};
use crate::system::clock::{self, Instant};
use crate::system::error_chain::in_full;

impl Candidate<'_> {
    /// Stands for the attempt of `record`.
    pub(super) async fn stand(
        &self,
        record: LeaseRecord,
        snapshot: &Snapshot,
        interrupt: &CancellationToken,
    ) -> Result<Candidacy, ElectionError> {
        let all = snapshot.candidacies(self.site, self.generation);
        let there = candidacy::standing(all, record.attempt, snapshot.clock().now());
        if let Some(holder) = self.first_of(&there).await? {
            return Ok(Candidacy::Busy(holder));
        }
        let own = ObjectKey::candidacy(self.site, self.generation, record.attempt, &self.holder.run);
        let outcome = self.stand_as(&own, record, interrupt).await;
        if !matches!(outcome, Ok(Candidacy::Won(_))) {
            // What cannot be withdrawn is in nobody's way for longer than a lease that is not refreshed.
            if let Err(error) = self.store.delete(&own).await {
                tracing::debug!(candidacy = %own, error = in_full(&error), "a candidacy could not be withdrawn");
            }
        }
        outcome
    }

    async fn stand_as(&self, own: &ObjectKey, record: LeaseRecord, interrupt: &CancellationToken) -> Result<Candidacy, ElectionError> {
        let attempt = record.attempt;
        let stood = Instant::now();
        self.store.put(own, record::write(&record).into(), PutMode::Overwrite).await?;
        tokio::select! {
            biased;
            () = interrupt.cancelled() => return Ok(Candidacy::Interrupted),
            () = clock::sleep(SETTLING) => {}
        }
        if let Some(outcome) = self.look(attempt).await? {
            return Ok(outcome);
        }
        // Others count on a candidate that is slower than this having given up.
        let is_late = || stood.elapsed() > TRUSTED_FOR;
        if is_late() {
            return Ok(Candidacy::Busy(self.holder.clone()));
        }
        let sent = Instant::now();
        if let Some(winner) = self.create(&record).await? {
            return Ok(Candidacy::Busy(winner));
        }
        let lease = HeldLease::hold(Arc::clone(self.store), self.site.clone(), record, sent, Some(own.clone()), interrupt.clone());
        // The look is older than the lease: whoever held an earlier one may have published in between, or taken a later one.
        if Snapshot::take_site(&**self.store, self.site, self.generation).await?.highest(self.site) >= self.generation {
            drop(lease.end(|record| record.state = LeaseState::Done).await);
            return Ok(Candidacy::Made);
        }
        if is_late() || lease.is_superseded().await? {
            return Ok(Candidacy::Busy(self.holder.clone()));
        }
        Ok(Candidacy::Won(lease))
    }

    /// What stands against taking the lease, once everybody's candidacy can be seen.
    async fn look(&self, attempt: Attempt) -> Result<Option<Candidacy>, ElectionError> {
        let look = Snapshot::take_site(&**self.store, self.site, self.generation).await?;
        if look.highest(self.site) >= self.generation {
            return Ok(Some(Candidacy::Made));
        }
        if let Some((latest, _)) = look.latest_attempt(self.site, self.generation).filter(|(latest, _)| *latest >= attempt) {
            let holder = self.holder_of(&ObjectKey::lease(self.site, self.generation, latest)).await?;
            return Ok(Some(Candidacy::Busy(holder.unwrap_or_else(|| self.holder.clone()))));
        }
        let all = look.candidacies(self.site, self.generation);
        let Some(own) = all.iter().find(|stood| stood.attempt == attempt && stood.run == self.holder.run) else {
            // A store that does not show what was written that long ago does not show the others' either.
            return Err(ElectionError::Unseen(ObjectKey::candidacy(self.site, self.generation, attempt, &self.holder.run)));
        };
        Ok(self.first_of(&candidacy::before(own, all)).await?.map(Candidacy::Busy))
    }

    /// Who stands first. An earlier run of this place is over, as with leases: what it left is withdrawn in its name.
    async fn first_of(&self, stood: &[&Stood]) -> Result<Option<Holder>, ElectionError> {
        for stood in stood.iter().filter(|stood| stood.run != self.holder.run) {
            let key = ObjectKey::candidacy(self.site, self.generation, stood.attempt, &stood.run);
            match self.holder_of(&key).await? {
                Some(holder) if holder.place == self.holder.place => self.store.delete(&key).await?,
                Some(holder) => return Ok(Some(holder)),
                None => {}
            }
        }
        Ok(None)
    }

    /// Whom a lease or a candidacy names; `None` where it has been withdrawn.
    async fn holder_of(&self, key: &ObjectKey) -> Result<Option<Holder>, ElectionError> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(None) };
        let found: LeaseRecord = record::read(&bytes).map_err(|source| ElectionError::Lease { key: key.clone(), source })?;
        Ok(Some(found.holder))
    }
}
