//! `revoke`: a certificate is taken back at its CA, once another is in its place.
//!
//! ```text
//! decided: written down ─ replaced: the next generation, with a new key ─ revoked at the CA ─ written down
//! ```
//!
//! The decision lies in the datastore before anything else happens, under the generation and the key that it is about. From then on that
//! key is not used any more: no certificate of it is published, and where one is the newest, it is due. So a repeated `revoke` goes on
//! where the first one was cut off, and never touches the certificate that was made in its place.

use std::sync::Arc;

use thiserror::Error;

use super::Fleet;
use super::bundle_object::{self, OpenError, Opened};
use super::gather::SiteWanted;
use super::report::SiteReport;
use super::rollback::generations;
use super::seal::SealError;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, DatastoreError, PutMode};
use crate::domain::certificate::Certificate;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::Intent;
use crate::domain::record::{self, IssuerClass, Sealed};
use crate::domain::revocation::{Reason, RevocationProgress, RevocationRecord};
use crate::domain::site::{Site, SiteName};
use crate::issuer::{IssueError, Revoked, Revoker};

/// Why nothing could be decided, or written down.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// There is nothing to revoke.
    #[error("the datastore has no bundle of {0}")]
    Absent(SiteName),
    /// The generation was never published, or is gone.
    #[error("the datastore has no generation {generation} of {site}")]
    NoSuch {
        /// The site.
        site: SiteName,
        /// What was asked for.
        generation: Generation,
    },
    /// What was to be revoked is, and which one is meant now only a person knows.
    #[error("generation {done} of {site} was revoked before, and generation {newest}, which came after it, is not revoked")]
    DoneBefore {
        /// The site.
        site: SiteName,
        /// The last one that was revoked.
        done: Generation,
        /// The newest there is.
        newest: Generation,
    },
    /// It cannot be opened.
    #[error("{key} cannot be used")]
    Unusable {
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The decision could not be written down.
    #[error("the revocation could not be sealed")]
    Seal(#[from] SealError),
    /// The store did not answer, or refused the call.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
}

impl RevokeError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Absent(site) => format!("see `certfleet status`; is {site} the right site, and this the right datastore?"),
            Self::NoSuch { .. } => "see which there are in the bucket, or in `certfleet status`, and name one with --generation".to_owned(),
            Self::DoneBefore { site, newest, .. } => {
                format!("if that one is meant as well: certfleet revoke {} --generation {newest}", site.in_shell())
            }
            Self::Unusable { .. } => "name another generation with --generation; a CA revokes also on its web pages, or by mail".to_owned(),
            Self::Seal(_) => "this is a fault of certfleet: please report it".to_owned(),
            Self::Datastore(error) => error.hint.clone(),
        }
    }
}

/// A certificate that is to be revoked.
#[derive(Clone, Debug)]
pub struct Case {
    site: Site,
    opened: Opened,
    key: ObjectKey,
    /// What was decided before.
    earlier: Option<RevocationRecord>,
}

/// What became of a case.
#[derive(Debug)]
pub struct Verdict {
    /// The record in the datastore.
    pub object: ObjectKey,
    /// Why, as it was decided; an earlier decision stands.
    pub reason: Reason,
    /// What the CA did.
    pub at_ca: AtCa,
    /// What became of the site; `None` where nothing was to be replaced.
    pub replacement: Option<SiteReport>,
}

/// What the CA did.
#[derive(Debug)]
pub enum AtCa {
    /// It has revoked the certificate, now or before.
    Revoked(Revoked),
    /// It was not asked: the site would have been left without a certificate.
    NotReplaced,
    /// There is nobody who could: only CAs that are spoken to can take back what they have signed.
    Nobody(IssuerClass),
    /// It refused, or could not be asked.
    Failed(IssueError),
    /// The program is to end.
    Interrupted,
}

/// Whether another certificate must be in place before the one is revoked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Replacing {
    /// Nothing is revoked before.
    First,
    /// It is tried first, and what is revoked is revoked in any case.
    IfPossible,
}

impl Case {
    /// The generation that it is about.
    pub fn generation(&self) -> Generation {
        self.opened.record.generation
    }

    /// The name of the issuer that made it.
    pub fn issuer(&self) -> &str {
        &self.opened.record.issuer
    }

    /// The certificate.
    pub fn leaf(&self) -> &Certificate {
        self.opened.bundle.leaf()
    }

    /// The reason that counts: the one that is given now, unless none is, or the CA was told another already.
    pub fn reason(&self, given: Reason) -> Reason {
        match &self.earlier {
            Some(earlier) if given == Reason::Unspecified || earlier.progress == RevocationProgress::Done => earlier.reason,
            _ => given,
        }
    }

    /// Whether its CA has revoked it already.
    pub fn is_closed(&self) -> bool {
        self.earlier.as_ref().is_some_and(|earlier| earlier.progress == RevocationProgress::Done)
    }
}

impl Fleet {
    /// Finds out which certificate is meant. Unless it is named, that is the one whose revocation was decided and is not done, so that a
    /// repeated `revoke` never reaches the one that took its place; and where nothing was ever revoked, the newest. Nothing is written.
    pub async fn revocation_case(&self, site: &Site, named: Option<Generation>, snapshot: &Snapshot) -> Result<Case, RevokeError> {
        let generation = match named {
            Some(generation) => generation,
            None => self.meant(&site.name, snapshot).await?,
        };
        let object = ObjectKey::bundle(&site.name, generation);
        let no_such = || RevokeError::NoSuch { site: site.name.clone(), generation };
        let bytes = self.store.get(&object).await?.ok_or_else(no_such)?;
        let opened = bundle_object::open(&self.seal, &site.name, generation, &bytes);
        let opened = opened.map_err(|source| RevokeError::Unusable { key: object, source })?;
        let key = ObjectKey::revocation(&site.name, generation, &opened.bundle.leaf().public_fingerprint());
        let earlier = self.read_revocation(&site.name, generation, &key).await?;
        Ok(Case { site: site.clone(), opened, key, earlier })
    }

    async fn meant(&self, site: &SiteName, snapshot: &Snapshot) -> Result<Generation, RevokeError> {
        let newest = *generations(&*self.store, site).await?.last().ok_or_else(|| RevokeError::Absent(site.clone()))?;
        let (mut open, mut done) = (None, None);
        for (generation, key) in snapshot.revocations(site) {
            // A stranger's note must not choose.
            let key = ObjectKey::revocation(site, *generation, key);
            let progress = self.read_revocation(site, *generation, &key).await?.map(|record| record.progress);
            match progress {
                Some(RevocationProgress::Decided) => open = open.max(Some(*generation)),
                Some(RevocationProgress::Done) => done = done.max(Some(*generation)),
                None => {}
            }
        }
        match (open, done) {
            (Some(open), _) => Ok(open),
            (None, Some(done)) if done < newest => Err(RevokeError::DoneBefore { site: site.clone(), done, newest }),
            (None, _) => Ok(newest),
        }
    }

    /// Decides, replaces, revokes. `authority` is `None` where the issuer cannot revoke.
    pub async fn revoke(
        &self,
        case: &Case,
        reason: Reason,
        replacing: Replacing,
        authority: Option<Arc<dyn Revoker>>,
    ) -> Result<Verdict, RevokeError> {
        let site = &case.site;
        let mut verdict = Verdict { object: case.key.clone(), reason, at_ca: AtCa::NotReplaced, replacement: None };
        verdict.reason = case.reason(reason);
        if case.earlier.as_ref().is_none_or(|earlier| earlier.reason != verdict.reason) {
            let now = Snapshot::take(&*self.store).await?.clock().now();
            self.write_revocation(case, verdict.reason, now, RevocationProgress::Decided).await?;
        }
        let snapshot = Snapshot::take(&*self.store).await?;
        if !self.is_replaced(case, &snapshot).await? {
            // Whoever revokes does not wait for a retry time.
            let wanted = SiteWanted { site: site.clone(), intent: Intent::Force, supplied: None, held: None };
            let report = self.ensure(&[wanted], &snapshot).await.pop();
            let replaced = report.as_ref().is_some_and(|report| is_another(report, case.leaf()));
            verdict.replacement = report;
            if self.interrupt.is_cancelled() {
                verdict.at_ca = AtCa::Interrupted;
                return Ok(verdict);
            }
            if !replaced && replacing == Replacing::First {
                return Ok(verdict);
            }
        }
        verdict.at_ca = self.take_back(case, verdict.reason, &snapshot, authority).await?;
        Ok(verdict)
    }

    /// Has the CA revoke it, and writes down that it has.
    async fn take_back(
        &self,
        case: &Case,
        reason: Reason,
        snapshot: &Snapshot,
        authority: Option<Arc<dyn Revoker>>,
    ) -> Result<AtCa, RevokeError> {
        if case.is_closed() {
            return Ok(AtCa::Revoked(Revoked::Before));
        }
        let Some(authority) = authority else { return Ok(AtCa::Nobody(case.opened.record.issuer_class)) };
        self.progress.step(&case.site.name, &format!("{}: revoking generation {}", case.issuer(), case.generation()));
        let answer = tokio::select! {
            biased;
            () = self.interrupt.cancelled() => return Ok(AtCa::Interrupted),
            answer = authority.revoke(&case.opened.bundle, reason) => answer,
        };
        match answer {
            Ok(revoked) => {
                self.write_revocation(case, reason, snapshot.clock().now(), RevocationProgress::Done).await?;
                Ok(AtCa::Revoked(revoked))
            }
            Err(error) => Ok(AtCa::Failed(error)),
        }
    }

    /// Whether a newer bundle is there that serves the site with another key.
    async fn is_replaced(&self, case: &Case, snapshot: &Snapshot) -> Result<bool, RevokeError> {
        let name = &case.site.name;
        let highest = snapshot.highest(name);
        if highest <= case.generation() {
            return Ok(false);
        }
        let Some(bytes) = self.store.get(&ObjectKey::bundle(name, highest)).await? else { return Ok(false) };
        let Ok(newest) = bundle_object::open(&self.seal, name, highest, &bytes) else { return Ok(false) };
        let serves = newest.bundle.check(&case.site.identifiers, snapshot.clock().now()).is_ok();
        Ok(serves && newest.bundle.leaf().public() != case.leaf().public())
    }

    async fn write_revocation(
        &self,
        case: &Case,
        reason: Reason,
        at: chrono::DateTime<chrono::Utc>,
        progress: RevocationProgress,
    ) -> Result<(), RevokeError> {
        let mut record = RevocationRecord {
            version: record::VERSION,
            site: case.site.name.file_name(),
            generation: case.generation(),
            reason,
            fingerprint: case.leaf().fingerprint.clone(),
            at,
            progress,
            proof: Sealed::None { plaintext: String::new() },
        };
        record.proof = self.seal.close("", &record.beside().each_ref().map(String::as_str))?;
        self.store.put(&case.key, record::write(&record).into(), PutMode::Overwrite).await?;
        Ok(())
    }

    /// What the fleet has decided about a certificate's key. What a stranger wrote is passed over.
    pub(super) async fn revocation(
        &self,
        site: &SiteName,
        leaf: &Certificate,
        snapshot: &Snapshot,
    ) -> Result<Option<RevocationRecord>, DatastoreError> {
        let listed = snapshot.revocations(site);
        if listed.is_empty() {
            return Ok(None);
        }
        let fingerprint = leaf.public_fingerprint();
        for (generation, _) in listed.iter().filter(|(_, key)| *key == fingerprint) {
            let key = ObjectKey::revocation(site, *generation, &fingerprint);
            if let Some(record) = self.read_revocation(site, *generation, &key).await? {
                return Ok(Some(record));
            }
        }
        Ok(None)
    }

    async fn read_revocation(
        &self,
        site: &SiteName,
        generation: Generation,
        key: &ObjectKey,
    ) -> Result<Option<RevocationRecord>, DatastoreError> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(None) };
        let record = record::read::<RevocationRecord>(&bytes).ok();
        let record = record.filter(|record| record.site == site.file_name() && record.generation == generation);
        let proven = record.filter(|record| self.seal.open(&record.proof, &record.beside().each_ref().map(String::as_str)).is_ok());
        if proven.is_none() {
            tracing::warn!(%key, "a revocation that this fleet has not written: passed over");
        }
        Ok(proven)
    }
}

/// Whether a certificate with another key is in place.
fn is_another(report: &SiteReport, leaf: &Certificate) -> bool {
    report.in_place.as_ref().is_some_and(|in_place| in_place.leaf().public() != leaf.public())
}

/// Whether there is anything to revoke; told by one listing, without a lock, an identity or a write.
pub async fn must_have_bundles(store: &dyn Datastore, site: &SiteName) -> Result<(), RevokeError> {
    if generations(store, site).await?.is_empty() { Err(RevokeError::Absent(site.clone())) } else { Ok(()) }
}
