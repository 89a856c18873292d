//! The answer of a run: what became of each site.

use std::path::PathBuf;

use chrono::{DateTime, Utc};

use crate::domain::certificate::Certificate;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::{SitePlan, Source};
use crate::domain::policy::Due;
use crate::domain::record::{IssuerClass, PassedOver};
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

/// How a site stands after a run. Worst last.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Outcome {
    /// Everything asked for holds.
    Done,
    /// A renewal failed, but a certificate that is still valid is in place.
    Degraded,
    /// Try again: the datastore did not answer, or somebody else is at work for longer than we wait.
    Temporary,
    /// There is no valid certificate in place.
    Failed,
}

/// A bundle in its place: proven in the datastore, and in the files of runtimedata.
#[derive(Clone, Debug)]
pub struct InPlace {
    /// Where it was found, or that it was issued.
    pub source: Source,
    /// Its generation.
    pub generation: Generation,
    /// Its object.
    pub object: ObjectKey,
    /// Its leaf.
    pub leaf: Certificate,
    /// The name of its issuer.
    pub issuer: String,
    /// What kind of issuer that is.
    pub class: IssuerClass,
    /// Where its four files are.
    pub directory: PathBuf,
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
