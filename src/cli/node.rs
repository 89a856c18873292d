//! One run on a node: settings → parts → lock → one listing → plan → work → report. `agent` and `bootstrap` are such runs.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use tokio_util::sync::CancellationToken;

use super::assemble::{self, Issuing, Run};
use super::console::Console;
use super::failure::Failure;
use super::session::interrupted;
use super::targets;
use crate::config::Settings;
use crate::datastore::Datastore;
use crate::domain::node_plan::Part;
use crate::domain::record::Manifest;
use crate::domain::site::Site;
use crate::fleet::Fleet;
use crate::fleet::agent::NodeSiteReport;
use crate::fleet::delivery::Delivered;
use crate::fleet::first_use;
use crate::fleet::identity::{self, SealWanted};
use crate::fleet::issuers::Issuers;
use crate::fleet::node::{Node, SiteObserved};
use crate::fleet::node_state::{KnownManifest, NodeState};
use crate::fleet::place::{Place, PlaceError};
use crate::fleet::progress::Progress as _;
use crate::fleet::reporting::ReportingError;
use crate::fleet::seal::Seal;
use crate::fleet::snapshot::Snapshot;
use crate::fleet::windows::{Asking, Windows};
use crate::system::lock::LockError;
use crate::system::random;

/// A node that has looked, and knows what to do.
pub(super) struct NodeRun {
    /// The node.
    pub(super) node: Arc<Node>,
    /// What was found, and what is to be done.
    pub(super) observed: Vec<SiteObserved>,
    /// The one listing.
    pub(super) snapshot: Snapshot,
    parts: Parts,
    state: NodeState,
    place: Option<Place>,
}

/// What is needed beyond looking.
struct Parts {
    store: Arc<dyn Datastore>,
    seal_cell: Arc<OnceLock<Seal>>,
    seal_wanted: SealWanted,
    seal: Seal,
    issuers: Issuers,
}

/// Whether a run could begin.
pub(super) enum Begun {
    /// It could.
    Run(Box<NodeRun>),
    /// Another run is at work on this machine.
    Occupied(PlaceError),
}

/// What a run has done.
pub(super) struct Tended {
    /// Each site.
    pub(super) reports: Vec<NodeSiteReport>,
    /// Why the node could not tell the fleet, or remember.
    pub(super) untold: Option<ReportingError>,
}

/// Who looks at a node, and how long it waits for another run there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Looks only.
    Look,
    /// Works, under the lock of the machine.
    Work {
        /// How long to wait for the lock.
        patience: Duration,
    },
}

/// The sites of a node: those that a target serves.
pub(super) fn sites(settings: &Settings) -> Result<Vec<Site>, Failure> {
    if settings.targets.is_empty() {
        let hint = "add to the configuration, for example:  [[target]]  kind = \"nginx\"  ssl_root = \"/etc/ssl/fleet\"  verify = \"127.0.0.1:443\"";
        return Err(Failure::usage("there is no [[target]]: nothing says what certificates are installed into on this machine", hint));
    }
    let sites = settings.select(&[])?;
    Ok(sites.into_iter().filter(|site| settings.targets.iter().any(|target| targets::wants(target, site))).collect())
}

impl NodeRun {
    /// Looks. The configuration, its secrets and its files are complete before anything else is touched. `listing` is how the
    /// datastore is listed: `bootstrap` waits for it.
    pub(super) async fn look(
        settings: &Settings,
        part: Part,
        access: Access,
        console: &Arc<Console>,
        interrupt: &CancellationToken,
        listing: impl AsyncFnOnce(&dyn Datastore, &[Site]) -> Result<Snapshot, Failure>,
    ) -> Result<Begun, Failure> {
        let sites = sites(settings)?;
        let roots = targets::roots(settings, &sites)?;
        let store = assemble::datastore(settings).await?;
        let seal_cell = Arc::new(OnceLock::new());
        let issuing = if part == Part::Renew { Issuing::OnNode } else { Issuing::Never };
        let issuers = assemble::issuers(settings, &sites, &store, &seal_cell, issuing)?;
        let seal_wanted = assemble::seal_wanted(settings)?;
        let seal = identity::seal_on_node(&seal_wanted)?;
        let directory = assemble::place_directory(settings);
        let place = match access {
            Access::Look => None,
            Access::Work { patience } => {
                let waiting = |holder: &str| {
                    if !patience.is_zero() {
                        console.note(&format!("process {holder} is at work here: waiting for it to end"));
                    }
                };
                let place = tokio::select! {
                    place = Place::take(directory.clone(), patience, waiting) => place,
                    () = interrupt.cancelled() => return Err(interrupted()),
                };
                match place {
                    Err(error @ PlaceError::Lock(LockError::Held { .. })) => return Ok(Begun::Occupied(error)),
                    place => Some(place?),
                }
            }
        };
        let mut state = NodeState::read(&directory);
        let snapshot = tokio::select! {
            snapshot = listing(&*store, &sites) => snapshot?,
            () = interrupt.cancelled() => return Err(interrupted()),
        };
        let followed: BTreeSet<_> = sites.iter().filter(|site| !issuers.can_issue(site)).map(|site| site.name.clone()).collect();
        let node = Node {
            name: settings.agent.node.clone(),
            part,
            followed,
            roots,
            sites,
            delivered: Delivered::in_place(&directory),
            place: directory,
            stale_after: settings.agent.stale_after,
            clock_offset_secs: offset_secs(Utc::now() - snapshot.clock().now()),
        };
        let asking = if place.is_some() && part == Part::Renew { Asking::InTurn } else { Asking::Never };
        let windows = Windows { store: &*store, seal: &seal, issuers: &issuers, node: &node.name, progress: &**console };
        // A first boot installs what there is, whatever is suggested.
        let changed = part != Part::Bootstrap
            && tokio::select! {
                changed = windows.refresh(&node, &mut state, &snapshot, asking) => changed,
                () = interrupt.cancelled() => return Err(interrupted()),
            };
        if changed && place.is_some() {
            state.keep(&node.place)?;
        }
        let observed = node.observe(&seal, &state, &snapshot);
        let parts = Parts { store, seal_cell, seal_wanted, seal, issuers };
        Ok(Begun::Run(Box::new(Self { node: Arc::new(node), observed, snapshot, parts, state, place })))
    }

    /// Does what is to be done, and tells.
    pub(super) async fn tend(
        mut self,
        settings: &Settings,
        console: &Arc<Console>,
        interrupt: CancellationToken,
    ) -> Result<Tended, Failure> {
        // A first boot may have to do without the datastore, and prepares none.
        let there = self.node.part != Part::Bootstrap || self.snapshot.manifest_etag().is_some();
        let manifest = if there && self.observed.iter().any(|site| site.plan.needs_the_store()) {
            tokio::select! {
                known = self.manifest(console) => known?,
                () = interrupt.cancelled() => return Err(interrupted()),
            }
        } else {
            None
        };
        let Parts { store, seal_cell, seal, issuers, .. } = self.parts;
        let _ = seal_cell.set(seal.clone());
        let run = Run { store, issuers, console: Arc::clone(console), interrupt };
        let fleet = Fleet { runtimedata: None, ..run.fleet(settings, seal, manifest.as_ref(), self.place.as_ref()) };
        let reports = fleet.tend(&self.node, &self.observed, &self.snapshot).await;
        // A run that was broken off has nothing to tell: the next one looks again.
        let untold =
            if fleet.interrupt.is_cancelled() { None } else { fleet.report(&self.node, &self.state, &reports, &self.snapshot).await.err() };
        Ok(Tended { reports, untold })
    }

    /// The manifest, as it is remembered, where the listing shows it unchanged. A node makes one for a datastore that has lost its own,
    /// or is new, only with an identity that it was given.
    async fn manifest(&mut self, console: &Arc<Console>) -> Result<Option<Manifest>, Failure> {
        let store = Arc::clone(&self.parts.store);
        let etag = self.snapshot.manifest_etag().filter(|etag| !etag.is_empty());
        if let Some(known) = self.state.manifest.as_ref().filter(|known| Some(known.etag.as_str()) == etag) {
            identity::seal_of_known(&self.parts.seal_wanted, &known.manifest)?;
            return Ok(Some(known.manifest.clone()));
        }
        let known = first_use::known(&*store, &self.parts.seal_wanted).await?;
        let manifest = if let Some((manifest, _)) = known {
            manifest
        } else {
            let run = random::name();
            first_use::prepare(&*store, &self.parts.seal_wanted, &self.snapshot, &run, &**console).await?.0
        };
        self.state.manifest = etag.map(|etag| KnownManifest { etag: etag.to_owned(), manifest: manifest.clone() });
        Ok(Some(manifest))
    }
}

/// Rounded to the nearest second: stores tell their time in whole seconds.
pub(super) fn offset_secs(offset: TimeDelta) -> i64 {
    (offset.num_milliseconds() + 500).div_euclid(1_000)
}

/// The one listing of a run that does not wait.
pub(super) async fn list(store: &dyn Datastore, _: &[Site]) -> Result<Snapshot, Failure> {
    Ok(Snapshot::take(store).await?)
}
