//! Looking: what each source has for a site, opened and judged, before anything is decided.

use bytes::Bytes;

use super::Fleet;
use super::bundle_object::{self, Opened, Origin};
use super::snapshot::Snapshot;
use crate::datastore::DatastoreError;
use crate::domain::bundle::Bundle;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::{Evidence, Found, Intent, Usable};
use crate::domain::policy::{self, Candidate, Due, MANUAL};
use crate::domain::record::IssuerClass;
use crate::domain::revocation::Reason;
use crate::domain::site::Site;
use crate::system::error_chain::in_full;

/// One site, and what this run wants for it.
#[derive(Clone, Debug)]
pub struct SiteWanted {
    /// The site.
    pub site: Site,
    /// What was asked for.
    pub intent: Intent,
    /// A bundle that a person supplied in this run.
    pub supplied: Option<Bundle>,
    /// An object of the datastore that is at hand, and need not be fetched again.
    pub held: Option<Held>,
}

/// A generation's object, as it lies in the datastore: created once, never changed.
#[derive(Clone, Debug)]
pub struct Held {
    /// Which generation.
    pub generation: Generation,
    /// Its bytes.
    pub object: Bytes,
}

/// What was found, and the bundles themselves.
pub(super) struct Gathered {
    pub(super) evidence: Evidence,
    pub(super) stored: Option<Opened>,
    pub(super) spooled: Option<Spooled>,
    pub(super) local: Option<(Bundle, Origin)>,
}

/// A spool entry: the object as it was, or was to be, uploaded.
pub(super) struct Spooled {
    pub(super) opened: Opened,
    pub(super) object: Bytes,
}

impl Fleet {
    /// Looks everywhere. Nothing is fetched but the one object of the highest generation.
    pub(super) async fn gather(&self, wanted: &SiteWanted, snapshot: &Snapshot, intent: Intent) -> Result<Gathered, DatastoreError> {
        let site = &wanted.site;
        let highest = snapshot.highest(&site.name);
        let (stored_found, stored) = self.stored(wanted, highest, snapshot).await?;
        let (spooled_found, spooled) = self.not_revoked(site, self.spooled(site, snapshot), |it| &it.opened.bundle, snapshot).await?;
        let (local_found, local) = self.not_revoked(site, self.local(site, snapshot), |it| &it.0, snapshot).await?;
        let evidence = Evidence {
            method: site.method,
            highest,
            stored: stored_found,
            spooled: spooled_found,
            local: local_found,
            supplied: wanted.supplied.as_ref().map_or(Found::Absent, supplied),
            intent,
        };
        Ok(Gathered { evidence, stored, spooled, local })
    }

    async fn stored(
        &self,
        wanted: &SiteWanted,
        highest: Generation,
        snapshot: &Snapshot,
    ) -> Result<(Found, Option<Opened>), DatastoreError> {
        if highest == Generation(0) {
            return Ok((Found::Absent, None));
        }
        let site = &wanted.site;
        let key = ObjectKey::bundle(&site.name, highest);
        let at_hand = wanted.held.as_ref().filter(|held| held.generation == highest).map(|held| held.object.clone());
        let bytes = match at_hand {
            Some(bytes) => Some(bytes),
            None => self.store.get(&key).await?,
        };
        let Some(bytes) = bytes else {
            return Ok((Found::Refused(format!("{key} is listed, but is not there when read")), None));
        };
        Ok(match bundle_object::open(&self.seal, &site.name, highest, &bytes) {
            Ok(opened) => match self.vet_opened(site, opened, snapshot) {
                Ok((found, opened)) => {
                    let revoked = self.revocation(&site.name, opened.bundle.leaf(), snapshot).await?;
                    (revoked.map_or(found.clone(), |revoked| due_for(found, revoked.reason)), Some(opened))
                }
                Err(reason) => (Found::Refused(format!("{key}: {reason}")), None),
            },
            Err(error) => (Found::Refused(format!("{key}: {}", in_full(&error))), None),
        })
    }

    /// What was found outside the datastore, unless its key must not come back.
    async fn not_revoked<T>(
        &self,
        site: &Site,
        (found, it): (Found, Option<T>),
        bundle: impl Fn(&T) -> &Bundle,
        snapshot: &Snapshot,
    ) -> Result<(Found, Option<T>), DatastoreError> {
        let Some(it) = it else { return Ok((found, None)) };
        Ok(match self.revocation(&site.name, bundle(&it).leaf(), snapshot).await? {
            None => (found, Some(it)),
            Some(revoked) => (Found::Refused(format!("a certificate of its key is revoked ({})", revoked.reason)), None),
        })
    }

    fn spooled(&self, site: &Site, snapshot: &Snapshot) -> (Found, Option<Spooled>) {
        let path = self.spool.path(&site.name);
        let refused = |reason: String| (Found::Refused(format!("{}: {reason}", path.display())), None);
        let bytes = match self.spool.read(&site.name) {
            Ok(None) => return (Found::Absent, None),
            Ok(Some(bytes)) => Bytes::from(bytes),
            Err(error) => return refused(error.to_string()),
        };
        // Which generation it was made for stands in it: the entry itself is trusted no further than an object of the datastore.
        let generation = match crate::domain::record::read::<crate::domain::record::BundleRecord>(&bytes) {
            Ok(record) => record.generation,
            Err(error) => return refused(in_full(&error)),
        };
        match bundle_object::open(&self.seal, &site.name, generation, &bytes) {
            Err(error) => refused(in_full(&error)),
            Ok(opened) => match self.vet_opened(site, opened, snapshot) {
                Ok((found, opened)) => (found, Some(Spooled { opened, object: bytes })),
                Err(reason) => refused(reason),
            },
        }
    }

    fn local(&self, site: &Site, snapshot: &Snapshot) -> (Found, Option<(Bundle, Origin)>) {
        let Some(runtimedata) = &self.runtimedata else { return (Found::Absent, None) };
        let bundle = match runtimedata.read(&site.name) {
            Ok(None) => return (Found::Absent, None),
            Ok(Some(bundle)) => bundle,
            Err(error) => return (Found::Refused(in_full(&error)), None),
        };
        let now = snapshot.clock().now();
        let directory = runtimedata.directory(&site.name);
        let refused = |reason: String| (Found::Refused(format!("{}: {reason}", directory.display())), None);
        if let Err(unfit) = bundle.check(&[], now) {
            return refused(unfit.to_string());
        }
        match self.issuers.recognise(site, &bundle, now) {
            Err(reason) => refused(reason),
            Ok(origin) => {
                let found = judge(site, &bundle, &origin, snapshot);
                (found, Some((bundle, origin)))
            }
        }
    }

    /// Dates and trust of a bundle that was opened; the reason where it cannot serve.
    fn vet_opened(&self, site: &Site, opened: Opened, snapshot: &Snapshot) -> Result<(Found, Opened), String> {
        let now = snapshot.clock().now();
        let origin = opened.origin();
        opened.bundle.check(&[], now).map_err(|unfit| unfit.to_string())?;
        self.issuers.vouch_for(site, &origin, &opened.bundle, now)?;
        Ok((judge(site, &opened.bundle, &origin, snapshot), opened))
    }
}

/// What is revoked still serves, better than nothing, until another is there.
fn due_for(found: Found, reason: Reason) -> Found {
    match found {
        Found::Usable(usable) => Found::Usable(Usable { due: Some(Due::Revoked { reason }), ..usable }),
        other => other,
    }
}

/// A usable bundle, and whether it is due.
fn judge(site: &Site, bundle: &Bundle, origin: &Origin, snapshot: &Snapshot) -> Found {
    let candidate = Candidate {
        leaf: bundle.leaf(),
        issuer: &origin.issuer,
        class: origin.class,
        profile: origin.profile.as_deref(),
        passed_over: &origin.passed_over,
    };
    let due = policy::due(candidate, site, snapshot.clock().now());
    Found::Usable(Usable { fingerprint: bundle.leaf().fingerprint.clone(), not_after: bundle.leaf().not_after, due })
}

/// What a person supplies was judged when it was accepted.
fn supplied(bundle: &Bundle) -> Found {
    Found::Usable(Usable { fingerprint: bundle.leaf().fingerprint.clone(), not_after: bundle.leaf().not_after, due: None })
}

/// Where a supplied bundle comes from.
pub(super) fn supplied_origin() -> Origin {
    Origin { issuer: MANUAL.to_owned(), class: IssuerClass::Manual, profile: None, passed_over: Vec::new() }
}
