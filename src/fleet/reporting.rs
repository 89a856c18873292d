//! What a node tells the fleet, and remembers for its next run.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::Fleet;
use super::agent::{NodeSiteReport, PlaceReport};
use super::node::{Node, NodeServer};
use super::node_state::NodeState;
use super::report::Problem;
use super::snapshot::Snapshot;
use crate::datastore::{DatastoreError, PutMode};
use crate::domain::node_report::{Installed, InstalledSite, NodeProblem, NodeReport, Served};
use crate::domain::object_key::ObjectKey;
use crate::domain::record;
use crate::system::files::FileError;

/// A clock that is wrong by this much more, or less, than was last told is news, in seconds.
const CLOCK_NEWS_SECS: i64 = 60;

/// Why a node could not tell, or remember.
#[derive(Debug, Error)]
pub enum ReportingError {
    /// The store did not take the report.
    #[error("the node's report could not be written")]
    Datastore(#[from] DatastoreError),
    /// The memory could not be written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Fleet {
    /// Writes the node's report, where it has changed or is growing old, and the memory, where that has changed.
    pub async fn report(
        &self,
        node: &Node,
        state: &NodeState,
        reports: &[NodeSiteReport],
        snapshot: &Snapshot,
    ) -> Result<(), ReportingError> {
        let report = compose(node, state.report.as_ref(), reports, snapshot);
        let tell = node.must_report(snapshot) || state.report.as_ref().is_none_or(|told| is_news(told, &report));
        let mut places: Vec<_> = reports.iter().flat_map(|report| &report.places).filter_map(|place| place.known.clone()).collect();
        places.sort_by(|one, other| (&one.ssl_root, &one.site).cmp(&(&other.ssl_root, &other.site)));
        let mut remembered = state.clone();
        remembered.places = places;
        let told = match ObjectKey::node(&node.name) {
            Some(key) if tell => self.store.put(&key, record::write(&report).into(), PutMode::Overwrite).await.map(|_| ()),
            _ => Ok(()),
        };
        if tell && told.is_ok() {
            remembered.report = Some(report);
        }
        if remembered != *state {
            remembered.keep(&node.place)?;
        }
        Ok(told?)
    }
}

fn compose(node: &Node, earlier: Option<&NodeReport>, reports: &[NodeSiteReport], snapshot: &Snapshot) -> NodeReport {
    let now = snapshot.clock().now();
    let sites = reports.iter().flat_map(|report| report.places.iter().map(move |place| (report, place)));
    let earlier: BTreeMap<_, _> =
        earlier.iter().flat_map(|earlier| &earlier.sites).map(|entry| ((entry.site.as_str(), entry.ssl_root.as_str()), entry)).collect();
    let site = |(report, place): (&NodeSiteReport, &PlaceReport)| {
        let root = &node.roots[place.root];
        let (site, ssl_root) = (report.site.file_name(), root.ssl.directory().display().to_string());
        let earlier = earlier.get(&(site.as_str(), ssl_root.as_str())).copied();
        let servers = root.servers.iter().filter(|server| server.sites.contains(&report.site));
        let problem = place.problem.as_ref().or(report.problem.as_ref());
        InstalledSite {
            installed: place.known.as_ref().map(|known| Installed {
                generation: known.generation,
                fingerprint: known.fingerprint.clone(),
                not_after: known.not_after,
            }),
            servers: servers.map(|server| served(server, place, earlier)).collect(),
            problem: problem.map(|problem| since(problem, earlier, now)),
            site,
            ssl_root,
        }
    };
    NodeReport {
        version: record::VERSION,
        node: node.name.clone(),
        certfleet: env!("CARGO_PKG_VERSION").to_owned(),
        last_run: now,
        clock_offset_secs: node.clock_offset_secs,
        sites: sites.map(site).collect(),
    }
}

/// What a server was seen to serve in this run, else what it was seen to serve before.
fn served(server: &NodeServer, place: &PlaceReport, earlier: Option<&InstalledSite>) -> Served {
    let name = server.server.name();
    let of = |list: &[Served]| list.iter().find(|served| served.target == name && served.address.as_deref() == server.address()).cloned();
    let seen = of(&place.served).or_else(|| earlier.and_then(|earlier| of(&earlier.servers)));
    seen.unwrap_or_else(|| Served {
        target: name.to_owned(),
        address: server.address().map(str::to_owned),
        fingerprint: None,
        checked_at: None,
    })
}

fn since(problem: &Problem, earlier: Option<&InstalledSite>, now: DateTime<Utc>) -> NodeProblem {
    let same = earlier.and_then(|earlier| earlier.problem.as_ref()).filter(|earlier| alike(&earlier.what, &problem.what));
    let hint = Some(problem.hint.clone()).filter(|hint| !hint.is_empty());
    NodeProblem { what: problem.what.clone(), hint, since: same.map_or(now, |same| same.since) }
}

/// Whether two texts tell of the same problem: programs put the time and their process number into what they say.
fn alike(one: &str, other: &str) -> bool {
    let words = |text: &str| text.chars().filter(|character| !character.is_ascii_digit()).collect::<String>();
    words(one) == words(other)
}

/// Whether a report says more than the one before it, beside the time.
fn is_news(told: &NodeReport, report: &NodeReport) -> bool {
    let clock = (told.clock_offset_secs - report.clock_offset_secs).abs() >= CLOCK_NEWS_SECS;
    let reporter = (told.version, &told.node, &told.certfleet) != (report.version, &report.node, &report.certfleet);
    let sites =
        told.sites.len() != report.sites.len() || told.sites.iter().zip(&report.sites).any(|(told, site)| is_news_of_site(told, site));
    clock || reporter || sites
}

fn is_news_of_site(told: &InstalledSite, site: &InstalledSite) -> bool {
    let InstalledSite { site: name, ssl_root, installed, servers, problem } = site;
    let same_server = |(told, served): (&Served, &Served)| {
        let Served { target, address, fingerprint, checked_at: _ } = served;
        (&told.target, &told.address, &told.fingerprint) == (target, address, fingerprint)
    };
    let same_servers = told.servers.len() == servers.len() && told.servers.iter().zip(servers).all(same_server);
    !same_servers || (&told.site, &told.ssl_root, &told.installed, &told.problem) != (name, ssl_root, installed, problem)
}
