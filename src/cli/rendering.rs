//! The answer of `ensure` and `import`, for people and for machines.

use std::fmt::Write as _;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::exit::Exit;
use crate::domain::object_key::Generation;
use crate::domain::plan::{Action, Source};
use crate::domain::policy::{self, Due};
use crate::domain::record::{IssuerClass, PassedOver};
use crate::domain::time::{in_words, rfc3339};
use crate::fleet::report::{InPlace, Outcome, PlannedSite, Problem, SiteReport};
use crate::system::text::printable;

/// The answer of `ensure --json`. Fields are only ever added; readers ignore those they do not know.
#[derive(Debug, Serialize)]
pub(super) struct Answer<'a> {
    /// The version of this document.
    version: u32,
    /// The worst outcome of all sites: `done`, `degraded`, `temporary`, `failed`.
    outcome: &'static str,
    /// One entry per site, in the order asked for.
    sites: Vec<SiteAnswer<'a>>,
}

/// One site of an [`Answer`].
#[derive(Debug, Serialize)]
pub(super) struct SiteAnswer<'a> {
    /// The site's name; staging lineages end in `+staging`.
    site: String,
    /// `done`, `degraded`, `temporary` or `failed`.
    outcome: &'static str,
    /// The bundle in place, proven in the datastore and kept in runtimedata.
    in_place: Option<BundleAnswer<'a>>,
    /// The rule by which a new one was wanted: `expiry`, `identifiers`, `issuer`, `key-type`, `profile`, `forced`.
    due: Option<DueAnswer>,
    /// What was found and could not serve.
    refused: Vec<RefusedAnswer<'a>>,
    /// The issuers that were asked and could not deliver.
    passed_over: &'a [PassedOver],
    /// What went wrong.
    problem: Option<ProblemAnswer<'a>>,
}

#[derive(Debug, Serialize)]
struct BundleAnswer<'a> {
    source: Source,
    generation: Generation,
    object: &'a str,
    issuer: &'a str,
    issuer_class: IssuerClass,
    identifiers: Vec<String>,
    not_before: String,
    not_after: String,
    serial: &'a str,
    fingerprint_sha256: &'a str,
    directory: Option<&'a Path>,
    fullchain: Option<std::path::PathBuf>,
    privkey: Option<std::path::PathBuf>,
}

#[derive(Debug, Serialize)]
struct DueAnswer {
    rule: &'static str,
    why: String,
}

#[derive(Debug, Serialize)]
struct RefusedAnswer<'a> {
    source: Source,
    reason: &'a str,
}

/// What went wrong, for machines.
#[derive(Debug, Serialize)]
pub(super) struct ProblemAnswer<'a> {
    what: &'a str,
    hint: &'a str,
    retry_at: Option<String>,
}

/// The worst outcome as an exit code.
pub(super) fn exit(reports: &[SiteReport]) -> Exit {
    reports.iter().map(|report| report.outcome).max().unwrap_or(Outcome::Done).into()
}

impl From<Outcome> for Exit {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Done => Self::Done,
            Outcome::Degraded => Self::Degraded,
            Outcome::Busy | Outcome::Temporary => Self::Temporary,
            Outcome::Failed => Self::Failed,
        }
    }
}

/// The answer as one JSON document.
pub(super) fn json(reports: &[SiteReport]) -> String {
    let worst = reports.iter().map(|report| report.outcome).max().unwrap_or(Outcome::Done);
    document(&Answer { version: 1, outcome: outcome(worst), sites: reports.iter().map(site_answer).collect() })
}

pub(super) fn site_answer(report: &SiteReport) -> SiteAnswer<'_> {
    SiteAnswer {
        site: report.site.to_string(),
        outcome: outcome(report.outcome),
        in_place: report.in_place.as_ref().map(bundle_answer),
        due: report.due.as_ref().map(due_answer),
        refused: report.refused.iter().map(|(source, reason)| RefusedAnswer { source: *source, reason }).collect(),
        passed_over: &report.passed_over,
        problem: report.problem.as_ref().map(problem_answer),
    }
}

fn bundle_answer(in_place: &InPlace) -> BundleAnswer<'_> {
    let (leaf, record) = (in_place.leaf(), &in_place.opened.record);
    let file = |name: &str| in_place.directory.as_ref().map(|directory| directory.join(name));
    BundleAnswer {
        source: in_place.source,
        generation: in_place.generation(),
        object: in_place.object.as_str(),
        issuer: &record.issuer,
        issuer_class: record.issuer_class,
        identifiers: leaf.identifiers.iter().map(ToString::to_string).collect(),
        not_before: rfc3339(&leaf.not_before),
        not_after: rfc3339(&leaf.not_after),
        serial: &leaf.serial,
        fingerprint_sha256: &leaf.fingerprint,
        directory: in_place.directory.as_deref(),
        fullchain: file("fullchain.pem"),
        privkey: file("privkey.pem"),
    }
}

fn due_answer(due: &Due) -> DueAnswer {
    DueAnswer { rule: due.rule(), why: due.to_string() }
}

pub(super) fn problem_answer(problem: &Problem) -> ProblemAnswer<'_> {
    ProblemAnswer { what: &problem.what, hint: &problem.hint, retry_at: problem.retry_at.as_ref().map(rfc3339) }
}

/// The answer for people: what is in place, where it is, and how to look at it.
pub(super) fn people(reports: &[SiteReport], now: DateTime<Utc>, local_ca_root: &Path) -> String {
    let mut text = String::new();
    for report in reports {
        let Some(in_place) = &report.in_place else { continue };
        let leaf = in_place.leaf();
        let left = in_words(policy::left(leaf, now));
        let _ = writeln!(
            text,
            "{}  valid until {} (in {left}), generation {} {}",
            report.site,
            rfc3339(&leaf.not_after),
            in_place.generation(),
            came(in_place)
        );
        if let Some(directory) = &in_place.directory {
            let _ = writeln!(text, "  files   {}/{{fullchain,cert,chain,privkey}}.pem", directory.display());
        }
        let _ = writeln!(text, "  object  {}", in_place.object);
        let _ = writeln!(text, "  look    certfleet show {}", report.site.in_shell());
        if in_place.opened.record.issuer_class == IssuerClass::LocalCa {
            let _ = writeln!(text, "  trust   {} is the root to install in clients", local_ca_root.display());
        }
        for (source, reason) in &report.refused {
            let _ = writeln!(text, "  passed over the {source}: {}", printable(reason));
        }
        if report.problem.is_none() {
            for passed in &report.passed_over {
                let _ = writeln!(text, "  {} could not deliver: {}", printable(&passed.issuer), printable(&passed.reason));
            }
        }
    }
    text
}

fn came(in_place: &InPlace) -> String {
    let issuer = printable(&in_place.opened.record.issuer);
    match in_place.source {
        Source::Datastore => format!("by {issuer}, as before"),
        Source::Issued => format!("by {issuer}, issued now"),
        Source::Runtimedata => format!("by {issuer}, published now from runtimedata"),
        Source::Spool => format!("by {issuer}, published now: an earlier run could not"),
        Source::Earlier => {
            let earlier = in_place.opened.record.rollback_to.map(|generation| format!(" {generation}")).unwrap_or_default();
            format!("by {issuer}, published now: it repeats generation{earlier}")
        }
        Source::Supplied => "supplied and published now".to_owned(),
    }
}

/// Whether a report tells of anything but a quiet night.
pub(super) fn is_news(report: &SiteReport) -> bool {
    let as_before = report.in_place.as_ref().is_some_and(|in_place| in_place.source == Source::Datastore);
    report.outcome != Outcome::Done || !as_before
}

/// What `--dry-run` prints for people.
pub(super) fn plans(planned: &[PlannedSite]) -> String {
    let mut text = String::new();
    for PlannedSite { site, plan } in planned {
        let _ = writeln!(text, "{site}  {}", step(&plan.action));
        for (source, reason) in &plan.refused {
            let _ = writeln!(text, "  passing over the {source}: {}", printable(reason));
        }
        if let (Some(standby), Action::Issue { .. } | Action::AskPerson { .. }) = (plan.standby, &plan.action) {
            let _ = writeln!(text, "  should that fail, the bundle of the {standby} still serves");
        }
    }
    text
}

/// What `--dry-run --json` prints.
pub(super) fn plans_json(planned: &[PlannedSite]) -> String {
    let site = |PlannedSite { site, plan }: &PlannedSite| {
        let (action, generation, from, why) = match &plan.action {
            Action::Keep(generation) => ("keep", Some(*generation), Some(Source::Datastore), None),
            Action::Publish { from, generation } => ("publish", Some(*generation), Some(*from), None),
            Action::Issue { generation, why } => ("issue", Some(*generation), None, why.as_ref()),
            Action::AskPerson { why } => ("ask-person", None, None, why.as_ref()),
        };
        let refused: Vec<_> = plan.refused.iter().map(|(source, reason)| RefusedAnswer { source: *source, reason }).collect();
        serde_json::json!({
            "site": site.to_string(), "action": action, "generation": generation, "from": from,
            "due": why.map(due_answer), "standby": plan.standby, "refused": refused,
        })
    };
    document(&serde_json::json!({ "version": 1, "plan": planned.iter().map(site).collect::<Vec<_>>() }))
}

fn step(action: &Action) -> String {
    let why = |why: &Option<Due>| why.as_ref().map_or_else(|| "there is none that serves".to_owned(), ToString::to_string);
    match action {
        Action::Keep(generation) => format!("keep generation {generation} of the datastore"),
        Action::Publish { from, generation } => format!("publish the bundle of the {from} as generation {generation}"),
        Action::Issue { generation, why: due } => format!("have generation {generation} issued: {}", why(due)),
        Action::AskPerson { why: due } => format!("a person must supply a certificate: {}", why(due)),
    }
}

pub(super) fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Degraded => "degraded",
        Outcome::Busy | Outcome::Temporary => "temporary",
        Outcome::Failed => "failed",
    }
}

/// One JSON document, for machines and for people who look at it.
pub(super) fn document(value: &impl Serialize) -> String {
    // Structs of strings and numbers always serialize.
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}
