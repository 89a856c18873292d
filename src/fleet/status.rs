//! `status`: everything in the datastore that tells how the fleet stands. It only looks: no lock, no write, no issuer.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::sync::Semaphore;

use super::bundle_object::{self, OpenError};
use super::issuers::Anchors;
use super::seal::Seal;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, DatastoreError};
use crate::domain::certificate::Certificate;
use crate::domain::fleet_status::{BundleFacts, ObservedBundle, ObservedLease, ObservedNode, ObservedSite, Proof};
use crate::domain::lease::Latest;
use crate::domain::node_report::NodeReport;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::record::{self, BundleRecord, IssuerClass, LeaseRecord};
use crate::domain::site::Site;
use crate::system::error_chain::in_full;

/// Requests under way at the same time: most of the time goes into waiting for the store.
pub(super) const REQUESTS_AT_ONCE: usize = 32;

/// Whoever looks at a fleet.
pub struct Observer<'a> {
    store: &'a dyn Datastore,
    seal: Option<&'a Seal>,
    anchors: &'a BTreeMap<String, Anchors>,
    requests: Semaphore,
}

impl<'a> Observer<'a> {
    /// Looks into `store`. Without a seal only the public parts are read. `anchors`, by the names of the issuers, are whom chains must
    /// lead to.
    pub fn new(store: &'a dyn Datastore, seal: Option<&'a Seal>, anchors: &'a BTreeMap<String, Anchors>) -> Self {
        Self { store, seal, anchors, requests: Semaphore::new(REQUESTS_AT_ONCE) }
    }

    /// The sites and the nodes, as `snapshot` lists them: one request for each node, and for each site that has a bundle, and one more
    /// where somebody is, or was, at work on the next.
    pub async fn observe(&self, sites: Vec<Site>, snapshot: &Snapshot) -> Result<(Vec<ObservedSite>, Vec<ObservedNode>), DatastoreError> {
        let sites = stream::iter(sites).map(|site| self.site(site, snapshot)).buffered(REQUESTS_AT_ONCE).try_collect();
        futures_util::future::try_join(sites, self.nodes(snapshot)).await
    }

    /// The nodes' reports. One that is gone when it is read was pruned in between.
    pub async fn nodes(&self, snapshot: &Snapshot) -> Result<Vec<ObservedNode>, DatastoreError> {
        let nodes = stream::iter(snapshot.nodes()).map(|(name, reported_at)| self.node(name, *reported_at));
        nodes.buffered(REQUESTS_AT_ONCE).try_filter_map(|node| async { Ok(node) }).try_collect().await
    }

    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        // The semaphore is never closed.
        let _permit = self.requests.acquire().await;
        self.store.get(key).await
    }

    async fn node(&self, name: &str, reported_at: DateTime<Utc>) -> Result<Option<ObservedNode>, DatastoreError> {
        let Some(key) = ObjectKey::node(name) else { return Ok(None) };
        let Some(bytes) = self.get(&key).await? else { return Ok(None) };
        let report = match record::read::<NodeReport>(&bytes) {
            Ok(report) if report.node == name => Ok(report),
            Ok(report) => Err(format!("it says it is the report of {:?}: it was copied from there", report.node)),
            Err(error) => Err(in_full(&error)),
        };
        Ok(Some(ObservedNode { name: name.to_owned(), reported_at, report }))
    }

    async fn site(&self, site: Site, snapshot: &Snapshot) -> Result<ObservedSite, DatastoreError> {
        let generation = snapshot.highest(&site.name);
        let published_at = snapshot.published_at(&site.name);
        let bundle = self.bundle(&site, generation, snapshot);
        let lease = self.lease(&site, generation.next(), snapshot);
        let (bundle, lease) = futures_util::future::try_join(bundle, lease).await?;
        Ok(ObservedSite { site, generation, published_at, bundle, lease })
    }

    async fn bundle(&self, site: &Site, generation: Generation, snapshot: &Snapshot) -> Result<ObservedBundle, DatastoreError> {
        if generation == Generation(0) {
            return Ok(ObservedBundle::Absent);
        }
        let key = ObjectKey::bundle(&site.name, generation);
        let Some(bytes) = self.get(&key).await? else {
            return Ok(ObservedBundle::Unreadable(format!("{key} is listed, but is not there when read")));
        };
        Ok(match self.read(site, generation, &bytes) {
            Ok((record, chain, proof)) => {
                let untrusted = self.distrust(&record, &chain, snapshot.clock().now());
                match chain.into_iter().next() {
                    Some(leaf) => ObservedBundle::Read(Box::new(BundleFacts { record, leaf, proof, untrusted })),
                    None => ObservedBundle::Unreadable(format!("{key}: it holds no certificate")),
                }
            }
            Err(error) => ObservedBundle::Unreadable(format!("{key}: {}", in_full(&error))),
        })
    }

    fn read(&self, site: &Site, generation: Generation, bytes: &[u8]) -> Result<(BundleRecord, Vec<Certificate>, Proof), OpenError> {
        let Some(seal) = self.seal else {
            let (record, chain) = bundle_object::public_part(&site.name, generation, bytes)?;
            return Ok((record, chain, Proof::NoIdentity));
        };
        let opened = bundle_object::open(seal, &site.name, generation, bytes)?;
        Ok((opened.record, opened.bundle.chain().to_vec(), Proof::Proven))
    }

    /// Why a chain does not lead where it must. What a person supplied has no roots to be held to; nor has a local CA whose root is
    /// not on this machine.
    fn distrust(&self, record: &BundleRecord, chain: &[Certificate], now: DateTime<Utc>) -> Option<String> {
        let anchors = self.anchors.get(&record.issuer).filter(|_| record.issuer_class != IssuerClass::Manual)?;
        match anchors {
            Anchors::RootFile(path) if !path.exists() => None,
            _ => anchors.vouch_for_chain(chain, now).err(),
        }
    }

    async fn lease(&self, site: &Site, generation: Generation, snapshot: &Snapshot) -> Result<ObservedLease, DatastoreError> {
        let Some((attempt, age)) = snapshot.latest_attempt(&site.name, generation) else { return Ok(ObservedLease::Absent) };
        let key = ObjectKey::lease(&site.name, generation, attempt);
        let Some(bytes) = self.get(&key).await? else { return Ok(ObservedLease::Absent) };
        Ok(match record::read::<LeaseRecord>(&bytes) {
            Ok(record) => ObservedLease::Read(Box::new(Latest { attempt, age, record })),
            Err(error) => ObservedLease::Unreadable(format!("{key}: {}", in_full(&error))),
        })
    }
}
