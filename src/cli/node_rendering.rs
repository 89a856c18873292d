//! The answer of `agent` and `bootstrap`, for people and for machines.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::args::Arguments;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::node::{NodeRun, Tended};
use super::rendering::{ProblemAnswer, document, outcome, problem_answer};
use crate::config::{Settings, TargetKind};
use crate::domain::node_plan::{NodeSitePlan, Obtain, Part, PlaceStep};
use crate::domain::node_report::Served;
use crate::domain::object_key::Generation;
use crate::domain::plan::Source;
use crate::domain::policy::Due;
use crate::domain::time::{in_words, rfc3339};
use crate::fleet::agent::{NodeSiteReport, PlaceReport};
use crate::fleet::node::{Node, SiteObserved};
use crate::fleet::progress::Progress as _;
use crate::fleet::report::{Outcome, Problem};
use crate::fleet::snapshot::Snapshot;
use crate::system::error_chain::in_full;
use crate::system::text::printable;

/// The answer of `agent --json`. Fields are only ever added; readers ignore those they do not know.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    version: u32,
    node: &'a str,
    outcome: &'static str,
    sites: Vec<SiteAnswer<'a>>,
}

#[derive(Debug, Serialize)]
struct SiteAnswer<'a> {
    site: String,
    outcome: &'static str,
    source: Option<Source>,
    refilled: Option<Generation>,
    places: Vec<PlaceAnswer<'a>>,
    problem: Option<ProblemAnswer<'a>>,
}

#[derive(Debug, Serialize)]
struct PlaceAnswer<'a> {
    ssl_root: String,
    generation: Option<Generation>,
    fingerprint_sha256: Option<&'a str>,
    not_after: Option<String>,
    changed: bool,
    served: &'a [Served],
    problem: Option<ProblemAnswer<'a>>,
}

/// Has a run do its work, and tells how it went.
pub(super) async fn tend(
    arguments: &Arguments,
    settings: &Settings,
    console: &Arc<Console>,
    interrupt: &CancellationToken,
    run: NodeRun,
) -> Result<Exit, Failure> {
    let (node, snapshot) = (Arc::clone(&run.node), run.snapshot.clone());
    let tended = run.tend(settings, console, interrupt.clone()).await?;
    answer(arguments, &node, &snapshot, &tended, console)
}

fn answer(arguments: &Arguments, node: &Node, snapshot: &Snapshot, tended: &Tended, console: &Console) -> Result<Exit, Failure> {
    let reports = &tended.reports;
    let news = reports.iter().any(|report| report.outcome != Outcome::Done || changed(report));
    if arguments.json {
        console.answer(&json(node, reports))?;
    } else if news || !arguments.quiet {
        console.answer(&people(node, reports, snapshot))?;
    }
    for report in reports {
        let own = report.problem.iter().map(|problem| (None, problem));
        let places = report.places.iter().filter_map(|place| Some((Some(place), place.problem.as_ref()?)));
        for (place, problem) in own.chain(places) {
            tell(node, report, place, problem, console);
        }
    }
    let worst = reports.iter().map(|report| report.outcome).max().unwrap_or(Outcome::Done);
    let exit = Exit::from(worst);
    match &tended.untold {
        None => Ok(exit),
        // A first boot is there to have what is needed in place, and may have to do without the datastore.
        Some(error) if node.part == Part::Bootstrap && exit == Exit::Done && error_exit(error) == Exit::Temporary => {
            console.note(&format!("{}; the next run tells the fleet", printable(&in_full(error))));
            Ok(exit)
        }
        Some(error) => {
            let hint = "what is served is not touched by that; the next run tries again";
            console.error(&printable(&in_full(error)), hint);
            Ok(if exit == Exit::Done { error_exit(error) } else { exit })
        }
    }
}

fn error_exit(error: &crate::fleet::reporting::ReportingError) -> Exit {
    use crate::datastore::FailureKind;
    use crate::fleet::reporting::ReportingError;
    match error {
        ReportingError::Datastore(error) if error.kind == FailureKind::Passing => Exit::Temporary,
        ReportingError::Datastore(_) | ReportingError::File(_) => Exit::Degraded,
    }
}

fn tell(node: &Node, report: &NodeSiteReport, place: Option<&PlaceReport>, problem: &Problem, console: &Console) {
    let mut what = format!("{}: ", report.site);
    if let Some(place) = place.filter(|_| report.places.len() > 1) {
        let _ = write!(what, "{}: ", node.roots[place.root].ssl.directory().display());
    }
    what.push_str(&printable(&problem.what));
    let standing = place.map_or_else(|| report.places.iter().find_map(|place| place.known.as_ref()), |place| place.known.as_ref());
    if let Some(known) = standing {
        let _ = write!(what, "; generation {} is installed and valid until {}", known.generation, rfc3339(&known.not_after));
    }
    let again = problem.retry_at.map(|time| format!("; it is tried again by itself from {} on", rfc3339(&time)));
    console.error(&what, &format!("{}{}", problem.hint, again.unwrap_or_default()));
}

fn changed(report: &NodeSiteReport) -> bool {
    report.refilled.is_some() || report.places.iter().any(|place| place.changed) || report.source == Some(Source::Issued)
}

fn json(node: &Node, reports: &[NodeSiteReport]) -> String {
    let worst = reports.iter().map(|report| report.outcome).max().unwrap_or(Outcome::Done);
    let site = |report| site_answer(node, report);
    document(&Answer { version: 1, node: &node.name, outcome: outcome(worst), sites: reports.iter().map(site).collect() })
}

fn site_answer<'a>(node: &Node, report: &'a NodeSiteReport) -> SiteAnswer<'a> {
    let place = |place: &'a PlaceReport| PlaceAnswer {
        ssl_root: node.roots[place.root].ssl.directory().display().to_string(),
        generation: place.known.as_ref().map(|known| known.generation),
        fingerprint_sha256: place.known.as_ref().map(|known| known.fingerprint.as_str()),
        not_after: place.known.as_ref().map(|known| rfc3339(&known.not_after)),
        changed: place.changed,
        served: &place.served,
        problem: place.problem.as_ref().map(problem_answer),
    };
    SiteAnswer {
        site: report.site.to_string(),
        outcome: outcome(report.outcome),
        source: report.source,
        refilled: report.refilled,
        places: report.places.iter().map(place).collect(),
        problem: report.problem.as_ref().map(problem_answer),
    }
}

/// What has changed, site by site; or one line, where nothing has.
fn people(node: &Node, reports: &[NodeSiteReport], snapshot: &Snapshot) -> String {
    let now = snapshot.clock().now();
    let mut text = String::new();
    for report in reports {
        if let Some(generation) = report.refilled {
            let _ = writeln!(text, "{}  generation {generation} was missing in the datastore, and is there again", report.site);
        }
        for place in report.places.iter().filter(|place| place.changed) {
            let Some(known) = &place.known else { continue };
            let left = in_words((known.not_after - now).to_std().unwrap_or_default());
            let (site, generation, until) = (&report.site, known.generation, rfc3339(&known.not_after));
            let _ = writeln!(text, "{site}  generation {generation}, {}, valid until {until} (in {left})", came(report.source));
            let _ = writeln!(text, "  files   {}", node.roots[place.root].ssl.directory().join("live").join(site.file_name()).display());
            // Files alone are read by whom nobody knows.
            for served in place.served.iter().filter(|served| served.address.is_some() || served.target != TargetKind::Files.name()) {
                let _ = writeln!(text, "  {}", serves(served, &known.fingerprint));
            }
        }
    }
    if text.is_empty() && reports.iter().all(|report| report.outcome == Outcome::Done) {
        let next = reports
            .iter()
            .flat_map(|report| report.places.iter().filter_map(move |place| Some((place.known.as_ref()?.due_at, &report.site))));
        let _ = write!(text, "everything is in place on {}: {} sites", node.name, reports.len());
        if let Some((at, site)) = next.min() {
            let left = in_words((at - now).to_std().unwrap_or_default());
            let _ = write!(text, "; the next to be due is {site}, at {} (in {left})", rfc3339(&at));
        }
        text.push('\n');
    }
    text
}

fn came(source: Option<Source>) -> &'static str {
    match source {
        Some(Source::Issued) => "issued now",
        Some(Source::Spool) => "issued by an earlier run, published now",
        Some(_) => "from the datastore",
        None => "as before",
    }
}

fn serves(served: &Served, fingerprint: &str) -> String {
    match (&served.address, &served.fingerprint) {
        (None, _) => format!("served  {}: reloaded; nobody looked, because no verify is configured", served.target),
        (Some(address), Some(seen)) if seen == fingerprint => format!("served  {} at {address}: seen", served.target),
        (Some(address), _) => format!("served  {} at {address}: not yet", served.target),
    }
}

/// What `agent --dry-run` prints for people.
pub(super) fn plans(run: &NodeRun) -> String {
    let mut text = String::new();
    for SiteObserved { site, plan, places, .. } in &run.observed {
        let _ = writeln!(text, "{}  {}", site.name, step(plan));
        for (place, planned) in places.iter().zip(&plan.places) {
            let directory = run.node.roots[place.root].ssl.directory().display();
            match planned {
                PlaceStep::Nothing => {}
                PlaceStep::Install => drop(writeln!(text, "  install into {directory}")),
                PlaceStep::Prove => drop(writeln!(text, "  see that what is in {directory} is served")),
                PlaceStep::Refuse(why) => drop(writeln!(text, "  leave {directory} alone: {}", printable(why))),
            }
        }
    }
    text
}

fn step(plan: &NodeSitePlan) -> String {
    let because = |why: &Option<Due>| why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default();
    let refill = plan.refill.map(|generation| format!("put generation {generation} back into the datastore; ")).unwrap_or_default();
    let obtain = match &plan.obtain {
        Obtain::Nothing if plan.is_quiet() => "nothing to do".to_owned(),
        Obtain::Nothing => "nothing to fetch".to_owned(),
        Obtain::Nowhere => "there is no certificate for it, and this node makes none".to_owned(),
        Obtain::Take(generation) => format!("take generation {generation}"),
        Obtain::Compare(generation) => format!("see that generation {generation} is what the datastore has"),
        Obtain::Renew { generation, why } => format!("renew as generation {generation}{}", because(why)),
        Obtain::Await { generation, why } => format!("wait for generation {generation} if somebody is making it ({why})"),
    };
    format!("{refill}{obtain}")
}

#[derive(Serialize)]
struct PlansAnswer<'a> {
    version: u32,
    node: &'a str,
    sites: Vec<PlanAnswer<'a>>,
}

#[derive(Serialize)]
struct PlanAnswer<'a> {
    site: String,
    /// `nothing`, `nowhere`, `take`, `renew` or `await`.
    obtain: &'static str,
    generation: Option<Generation>,
    /// The rule by which it is due.
    due: Option<&'static str>,
    refill: Option<Generation>,
    places: Vec<PlannedPlace<'a>>,
}

#[derive(Serialize)]
struct PlannedPlace<'a> {
    ssl_root: String,
    /// `nothing`, `install`, `prove` or `refuse`.
    step: &'static str,
    why: Option<&'a str>,
}

/// What `agent --dry-run --json` prints.
pub(super) fn plans_json(run: &NodeRun) -> String {
    let sites = run.observed.iter().map(|observed| {
        let (obtain, generation, due) = match &observed.plan.obtain {
            Obtain::Nothing => ("nothing", None, None),
            Obtain::Nowhere => ("nowhere", None, None),
            Obtain::Take(generation) => ("take", Some(*generation), None),
            Obtain::Compare(generation) => ("compare", Some(*generation), None),
            Obtain::Renew { generation, why } => ("renew", Some(*generation), why.as_ref().map(Due::rule)),
            Obtain::Await { generation, why } => ("await", Some(*generation), Some(why.rule())),
        };
        let places = observed.places.iter().zip(&observed.plan.places).map(|(place, planned)| {
            let (step, why) = match planned {
                PlaceStep::Nothing => ("nothing", None),
                PlaceStep::Install => ("install", None),
                PlaceStep::Prove => ("prove", None),
                PlaceStep::Refuse(why) => ("refuse", Some(why.as_str())),
            };
            PlannedPlace { ssl_root: run.node.roots[place.root].ssl.directory().display().to_string(), step, why }
        });
        PlanAnswer { site: observed.site.name.to_string(), obtain, generation, due, refill: observed.plan.refill, places: places.collect() }
    });
    document(&PlansAnswer { version: 1, node: &run.node.name, sites: sites.collect() })
}
