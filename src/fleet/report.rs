//! The answer of a run: what became of each site.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use super::bundle_object::Opened;
use crate::domain::certificate::Certificate;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::{SitePlan, Source};
use crate::domain::policy::Due;
use crate::domain::record::PassedOver;
use crate::domain::site::SiteName;

/// What became of one site.
#[derive(Clone, Debug)]
pub struct SiteReport {
    /// The site.
    pub site: SiteName,
    /// How it stands now.
    pub outcome: Outcome,
    /// The bundle that is in place, here and in the datastore.
    pub in_place: Option<InPlace>,
    /// Why a new one was, or is, wanted.
    pub due: Option<Due>,
    /// What was found and could not serve.
    pub refused: Vec<(Source, String)>,
    /// Issuers that were asked and could not deliver.
    pub passed_over: Vec<PassedOver>,
    /// What went wrong; `None` exactly where the outcome is [`Outcome::Done`].
    pub problem: Option<Problem>,
}

impl SiteReport {
    /// What is known of a site before anything is: nothing went wrong, and nothing is in place.
    pub(super) fn begin(site: SiteName) -> Self {
        Self { site, outcome: Outcome::Done, in_place: None, due: None, refused: Vec::new(), passed_over: Vec::new(), problem: None }
    }
}

/// How a site stands after a run. Worst last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// Everything asked for holds.
    Done,
    /// A renewal failed, but a certificate that is still valid is in place.
    Degraded,
    /// Somebody else is at work for longer than we wait.
    Busy,
    /// Try again: the datastore did not answer.
    Temporary,
    /// There is no valid certificate in place.
    Failed,
}

/// A bundle in its place: proven in the datastore and, on a build machine, in the files of runtimedata.
#[derive(Clone, Debug)]
pub struct InPlace {
    /// Where it was found, or that it was issued.
    pub source: Source,
    /// Its object.
    pub object: ObjectKey,
    /// The bundle, with its record.
    pub opened: Box<Opened>,
    /// Where its four files are; `None` where there is no runtimedata, or where they could not be written.
    pub directory: Option<PathBuf>,
}

impl InPlace {
    /// Its generation.
    pub fn generation(&self) -> Generation {
        self.opened.record.generation
    }

    /// Its leaf.
    pub fn leaf(&self) -> &Certificate {
        self.opened.bundle.leaf()
    }
}

/// Something that went wrong, and what to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// What failed, and why.
    pub what: String,
    /// What a person can do.
    pub hint: String,
    /// When it will be tried again at the earliest.
    pub retry_at: Option<DateTime<Utc>>,
}

/// What would be done for one site.
#[derive(Clone, Debug)]
pub struct PlannedSite {
    /// The site.
    pub site: SiteName,
    /// The plan.
    pub plan: SitePlan,
}
