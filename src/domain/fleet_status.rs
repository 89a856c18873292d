//! The state of a fleet: what was observed in the datastore, judged. Values in, values out.
//!
//! Nodes are counted as a set by name. "Now" is the store's time, and so is every time that a node reports.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use self::judge::Judge;
use super::attention::{Attention, Concern};
use super::certificate::Certificate;
use super::lease::{Latest, TIME_TO_LIVE};
use super::node_report::{InstalledSite, NodeReport};
use super::object_key::Generation;
use super::policy::{Candidate, Due};
use super::record::{BundleRecord, LeaseState};
use super::site::{Site, SiteName};

mod judge;

/// What was observed.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The store's time.
    pub now: DateTime<Utc>,
    /// A node that is silent for longer needs a person.
    pub stale_after: Duration,
    /// The configured sites.
    pub sites: Vec<ObservedSite>,
    /// The nodes that have ever reported and were not pruned.
    pub nodes: Vec<ObservedNode>,
}

/// What was observed of one site.
#[derive(Clone, Debug)]
pub struct ObservedSite {
    /// The site as it is configured.
    pub site: Site,
    /// Its highest generation; 0 where there is none.
    pub generation: Generation,
    /// When that was published.
    pub published_at: Option<DateTime<Utc>>,
    /// What lies there.
    pub bundle: ObservedBundle,
    /// The latest lease on the generation after it.
    pub lease: ObservedLease,
}

/// A bundle as far as whoever looks can tell.
#[derive(Clone, Debug)]
pub enum ObservedBundle {
    /// There is none.
    Absent,
    /// It cannot be read or opened, and why.
    Unreadable(String),
    /// It was read.
    Read(Box<BundleFacts>),
}

/// What is known of a bundle.
#[derive(Clone, Debug)]
pub struct BundleFacts {
    /// Its record.
    pub record: BundleRecord,
    /// Its leaf.
    pub leaf: Certificate,
    /// Whether it was opened and proven, or only its public part read.
    pub proof: Proof,
    /// Why its chain is not trusted, where it is not.
    pub untrusted: Option<String>,
}

/// How far a bundle was looked into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Proof {
    /// Opened: the fleet wrote it, and its key fits.
    Proven,
    /// There is no identity here: its public part was read.
    NoIdentity,
}

/// A lease as far as it can be read.
#[derive(Clone, Debug)]
pub enum ObservedLease {
    /// There is none.
    Absent,
    /// It cannot be read, and why.
    Unreadable(String),
    /// It was read.
    Read(Box<Latest>),
}

/// What was observed of one node.
#[derive(Clone, Debug)]
pub struct ObservedNode {
    /// Its name.
    pub name: String,
    /// When its report was stored.
    pub reported_at: DateTime<Utc>,
    /// Its report; why it cannot be used, where it cannot.
    pub report: Result<NodeReport, String>,
}

/// The state of a fleet, worst first.
#[derive(Clone, Debug)]
pub struct FleetStatus {
    /// The store's time.
    pub now: DateTime<Utc>,
    /// Its sites.
    pub sites: Vec<SiteStatus>,
    /// Its nodes.
    pub nodes: Vec<NodeStatus>,
    /// What needs a person.
    pub attention: Vec<Attention>,
}

/// The state of one site.
#[derive(Clone, Debug)]
pub struct SiteStatus {
    /// Its name.
    pub site: SiteName,
    /// Its highest generation; 0 where there is none.
    pub generation: Generation,
    /// When that was published.
    pub published_at: Option<DateTime<Utc>>,
    /// The bundle, where it could be read.
    pub bundle: Option<Box<BundleFacts>>,
    /// When it is due and by which rule; now, where it is due already.
    pub due: Option<(DateTime<Utc>, Due)>,
    /// Who is making, or failed to make, the next generation.
    pub lease: Option<Latest>,
    /// Every node that has the site, once.
    pub nodes: BTreeMap<String, NodeState>,
    /// The worst that is to be said about it, its nodes included.
    pub worst: Option<Concern>,
}

/// How a site stands on a node. Worst last.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum NodeState {
    /// Every server presents the highest generation.
    Serving,
    /// The highest generation is installed; some server is not probed.
    NotProbed,
    /// Nothing has been heard of the node for too long.
    Silent,
    /// A generation that the datastore has lost is installed.
    Ahead(Generation),
    /// An earlier generation is installed, or none.
    Lagging(Option<Generation>),
    /// What is installed is not what the datastore has under its number.
    Differs,
    /// What is installed is not what a server presents.
    NotServed,
    /// Something went wrong there.
    Failing(String),
}

/// The state of one node.
#[derive(Clone, Debug)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// Its last word.
    pub last_run: DateTime<Utc>,
    /// Whether it has been silent for too long.
    pub silent: bool,
    /// Its report, where it can be used.
    pub report: Option<NodeReport>,
    /// The worst that is to be said about it.
    pub worst: Option<Concern>,
}

impl ObservedNode {
    /// Its last word, by the store's clock: the report's own time, but never later than the object's. A bucket that was copied makes
    /// no node look alive.
    pub fn last_run(&self) -> DateTime<Utc> {
        self.report.as_ref().map_or(self.reported_at, |report| report.last_run.min(self.reported_at))
    }
}

impl ObservedLease {
    /// Whether somebody is at work under it.
    fn is_alive(&self) -> bool {
        matches!(self, Self::Read(lease) if is_alive(lease))
    }
}

fn is_alive(lease: &Latest) -> bool {
    lease.record.state == LeaseState::Held && lease.age <= TIME_TO_LIVE
}

impl SiteStatus {
    /// The nodes whose servers all present the highest generation.
    pub fn serving(&self) -> usize {
        self.nodes.values().filter(|state| **state == NodeState::Serving).count()
    }

    /// Nodes that have the highest generation, and of which nobody knows what they present.
    pub fn not_probed(&self) -> usize {
        self.nodes.values().filter(|state| **state == NodeState::NotProbed).count()
    }

    /// Who is at work on the next generation, if anybody is.
    pub fn renewed_by(&self) -> Option<&str> {
        self.lease.as_ref().filter(|lease| is_alive(lease)).map(|lease| lease.record.holder.node.as_str())
    }
}

/// Judges what was observed.
pub fn assess(observed: Observed) -> FleetStatus {
    let Observed { now, stale_after, sites, nodes } = observed;
    let mut judge = Judge::new(now, TimeDelta::from_std(stale_after).unwrap_or(TimeDelta::MAX));
    let mut nodes: Vec<_> = nodes.into_iter().map(|node| judge.node(node)).collect();
    let mut installed: BTreeMap<&str, Vec<(&NodeStatus, &InstalledSite)>> = BTreeMap::new();
    for node in &nodes {
        for entry in node.report.iter().flat_map(|report| &report.sites) {
            installed.entry(&entry.site).or_default().push((node, entry));
        }
    }
    let mut sites: Vec<_> = sites
        .into_iter()
        .map(|site| {
            let entries = installed.remove(site.site.name.file_name().as_str()).unwrap_or_default();
            judge.site(site, &entries, &nodes)
        })
        .collect();
    // What is installed and no longer configured can still go wrong.
    for (name, entries) in installed {
        judge.forgotten(name, &entries);
    }
    let mut attention = judge.into_attention();
    attention.sort_by_cached_key(|one| (one.concern.rank(), one.site.as_ref().map(ToString::to_string), one.node.clone()));
    let mut worst_of_site: BTreeMap<&SiteName, &Concern> = BTreeMap::new();
    let mut worst_of_node: BTreeMap<&str, &Concern> = BTreeMap::new();
    for one in attention.iter().rev() {
        one.site.as_ref().map(|site| worst_of_site.insert(site, &one.concern));
        one.node.as_deref().map(|node| worst_of_node.insert(node, &one.concern));
    }
    for site in &mut sites {
        site.worst = worst_of_site.get(&site.site).map(|concern| (*concern).clone());
    }
    for node in &mut nodes {
        node.worst = worst_of_node.get(node.node.as_str()).map(|concern| (*concern).clone());
    }
    let rank = |worst: &Option<Concern>| worst.as_ref().map_or(u8::MAX, Concern::rank);
    sites.sort_by_cached_key(|site| (rank(&site.worst), site.site.to_string()));
    nodes.sort_by_cached_key(|node| (rank(&node.worst), node.node.clone()));
    FleetStatus { now, sites, nodes, attention }
}

impl BundleFacts {
    /// The bundle as the rules see it.
    pub fn candidate(&self) -> Candidate<'_> {
        let record = &self.record;
        let (issuer, class, profile) = (record.issuer.as_str(), record.issuer_class, record.profile.as_deref());
        Candidate { leaf: &self.leaf, issuer, class, profile, passed_over: &record.passed_over }
    }
}
