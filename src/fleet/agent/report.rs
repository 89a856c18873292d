//! What became of each site of a node.

use chrono::{DateTime, Utc};

use crate::domain::node_report::Served;
use crate::domain::object_key::Generation;
use crate::domain::plan::Source;
use crate::domain::site::SiteName;
use crate::domain::time::rfc3339;
use crate::fleet::issue::problem;
use crate::fleet::node::{PlaceObserved, SiteObserved};
use crate::fleet::node_state::KnownPlace;
use crate::fleet::report::{Outcome, Problem};
use crate::fleet::site_error::SiteError;

/// What became of one site on a node.
#[derive(Debug)]
pub struct NodeSiteReport {
    /// The site.
    pub site: SiteName,
    /// How it stands now.
    pub outcome: Outcome,
    /// Where the bundle came from, where one had to be got.
    pub source: Option<Source>,
    /// What the datastore had lost, and has again.
    pub refilled: Option<Generation>,
    /// Each directory it is installed into.
    pub places: Vec<PlaceReport>,
    /// What went wrong with the site as a whole.
    pub problem: Option<Problem>,
}

/// What became of one site in one directory.
#[derive(Debug)]
pub struct PlaceReport {
    /// The directory, as an index into the node's `roots`.
    pub root: usize,
    /// What is there now; `None` where nothing whole is.
    pub known: Option<KnownPlace>,
    /// Whether anything was changed there.
    pub changed: bool,
    /// What the servers were seen to serve in this run; empty where nobody looked.
    pub served: Vec<Served>,
    /// What went wrong.
    pub problem: Option<Problem>,
}

pub(super) fn begin_report(observed: &SiteObserved) -> NodeSiteReport {
    let place = |place: &PlaceObserved| PlaceReport {
        root: place.root,
        known: place.known.clone(),
        changed: false,
        served: Vec::new(),
        problem: None,
    };
    NodeSiteReport {
        site: observed.site.name.clone(),
        outcome: Outcome::Done,
        source: None,
        refilled: None,
        places: observed.places.iter().map(place).collect(),
        problem: None,
    }
}

/// A run that was broken off says so of every site that it had something to do for and did not.
pub(super) fn note_interruption(report: &mut NodeSiteReport) {
    if report.problem.is_none() && report.places.iter().all(|place| !place.changed) {
        report.outcome = SiteError::Interrupted.outcome();
        report.problem = Some(problem(&SiteError::Interrupted, SiteError::Interrupted.hint()));
    }
}

/// How the site stands in the end: what matters to visitors is whether a valid bundle is in every place.
pub(super) fn judge(report: &mut NodeSiteReport, observed: &SiteObserved, now: DateTime<Utc>) {
    let troubled = report.problem.is_some() || report.places.iter().any(|place| place.problem.is_some());
    let serves = |place: &PlaceReport| place.known.as_ref().is_some_and(|known| known.not_after > now);
    let in_place = !report.places.is_empty() && report.places.iter().all(serves);
    let expired = report.places.iter().filter_map(|place| place.known.as_ref()).find(|known| known.not_after <= now);
    if let Some(known) = expired.filter(|_| !troubled) {
        report.problem = Some(expired_in_place(known));
    }
    report.outcome = match report.outcome {
        Outcome::Temporary => Outcome::Temporary,
        // The next run finds what the other has made by then.
        Outcome::Busy if in_place && report.places.iter().all(|place| place.problem.is_none()) => {
            report.problem = None;
            Outcome::Done
        }
        _ if !troubled && (in_place || observed.places.is_empty()) => Outcome::Done,
        _ if in_place => Outcome::Degraded,
        _ => Outcome::Failed,
    };
}

fn expired_in_place(known: &KnownPlace) -> Problem {
    let what = format!("generation {} expired at {}, and there is no newer one", known.generation, rfc3339(&known.not_after));
    Problem { what, hint: "`certfleet status` shows who should have renewed it, and why that failed".to_owned(), retry_at: None }
}
