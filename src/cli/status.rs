//! `certfleet status`

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::args::Arguments;
use super::assemble;
use super::console::{Console, Tone};
use super::exit::Exit;
use super::failure::Failure;
use super::session::seal_to_look;
use super::table::{Cell, Table};
use crate::config::{Origin, Settings};
use crate::domain::attention::{Attention, Concern};
use crate::domain::fleet_status::{FleetStatus, NodeStatus, Observed, Proof, SiteStatus, assess};
use crate::domain::site::Site;
use crate::domain::time::in_words;
use crate::fleet::progress::Progress as _;
use crate::fleet::snapshot::Snapshot;
use crate::fleet::status::Observer;
use crate::system::text::printable;

mod json;

/// Shows how the fleet stands. It works without an identity, without the secrets of issuers and solvers, and writes nothing.
pub(super) async fn run(arguments: &Arguments, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let store = assemble::datastore(&settings).await?;
    let wanted = assemble::seal_wanted(&settings)?;
    let (snapshot, seal) = tokio::join!(Snapshot::take(&*store), seal_to_look(&*store, &wanted));
    let (snapshot, seal) = (snapshot?, seal?);
    let sites = sites(&settings, &snapshot)?;
    let mut anchors = BTreeMap::new();
    for name in sites.iter().flat_map(|site| &site.issuers) {
        if let Some(found) = assemble::anchors(&settings, name)? {
            anchors.insert(name.clone(), found);
        }
    }
    let observer = Observer::new(&*store, seal.as_ref(), &anchors);
    let (sites, nodes) = observer.observe(sites, &snapshot).await?;
    let status = assess(Observed { now: snapshot.clock().now(), stale_after: settings.agent.stale_after, sites, nodes });
    if status.sites.iter().filter_map(|site| site.bundle.as_ref()).any(|bundle| bundle.proof == Proof::NoIdentity) {
        console.note("not proven: there is no identity here to open the bundles with, so only their public parts were read");
    }
    if arguments.json {
        console.answer(&json::document(&status))?;
    } else if !arguments.quiet || !status.attention.is_empty() {
        console.answer(&people(&status, console))?;
    }
    Ok(if status.attention.is_empty() { Exit::Done } else { Exit::Attention })
}

/// The configured sites; without any configuration, those that the datastore has.
fn sites(settings: &Settings, snapshot: &Snapshot) -> Result<Vec<Site>, Failure> {
    let stored: Vec<_> = match settings.origin {
        Origin::Defaults => snapshot.sites().map(ToString::to_string).collect(),
        Origin::File(_) | Origin::Toolkit(_) => Vec::new(),
    };
    Ok(settings.select(&stored)?)
}

/// The answer for people: sites, nodes, and what needs a person.
fn people(status: &FleetStatus, console: &Console) -> String {
    let columns = Console::answer_columns();
    let paint = |text: &str, tone| console.paint_answer(text, tone);
    let mut table = Table::new(&["SITE", "GEN", "EXPIRES", "NEXT DUE", "SERVED", "STATE"]);
    status.sites.iter().for_each(|site| table.push(site_row(site, status.now)));
    let mut text = table.text(columns, paint);
    if status.nodes.is_empty() {
        text += "\nno node has reported yet\n";
    } else {
        let mut table = Table::new(&["NODE", "LAST REPORT", "CLOCK", "VERSION", "STATE"]);
        status.nodes.iter().for_each(|node| table.push(node_row(node, status.now)));
        text.push('\n');
        text += &table.text(columns, paint);
    }
    if !status.attention.is_empty() {
        let _ = writeln!(text, "\n{}", console.paint_answer("needs attention:", Tone::Bad));
        for one in &status.attention {
            let _ = writeln!(text, "  {}: {}", about(one), printable(&one.concern.to_string()));
            let _ = writeln!(text, "    hint: {}", printable(&one.hint()));
        }
    }
    text
}

fn site_row(site: &SiteStatus, now: DateTime<Utc>) -> Vec<Cell> {
    let nothing = || "-".to_owned();
    let generation = if site.generation.0 == 0 { nothing() } else { site.generation.to_string() };
    let expires = site.bundle.as_ref().map_or_else(nothing, |bundle| from(bundle.leaf.not_after, now));
    let is_due = site.due.as_ref().is_some_and(|(at, _)| *at <= now);
    let due = site.due.as_ref().map_or_else(nothing, |(at, due)| {
        let when = if is_due { "now".to_owned() } else { from(*at, now) };
        format!("{when}: {}", due.rule())
    });
    let served = if site.nodes.is_empty() { nothing() } else { format!("{}/{}", site.serving(), site.nodes.len()) };
    let (mut state, tone) = match (&site.worst, site.renewed_by()) {
        (Some(worst), _) => (name(worst), Tone::Bad),
        (None, Some(node)) => (format!("{} renews it", printable(node)), Tone::Odd),
        (None, None) if is_due => ("due".to_owned(), Tone::Odd),
        (None, None) => ("ok".to_owned(), Tone::Good),
    };
    if site.not_probed() > 0 {
        let _ = write!(state, ", {} not probed", site.not_probed());
    }
    let plain = [site.site.to_string(), generation, expires, due, served].map(Cell::plain);
    plain.into_iter().chain([Cell::new(state, tone)]).collect()
}

fn node_row(node: &NodeStatus, now: DateTime<Utc>) -> Vec<Cell> {
    let report = node.report.as_ref();
    let clock = report.map_or_else(|| "-".to_owned(), |report| format!("{:+} s", report.clock_offset_secs));
    let version = report.map_or_else(|| "-".to_owned(), |report| printable(&report.certfleet));
    let (state, tone) = node.worst.as_ref().map_or_else(|| ("ok".to_owned(), Tone::Good), |worst| (name(worst), Tone::Bad));
    let plain = [printable(&node.node), from(node.last_run, now), clock, version].map(Cell::plain);
    plain.into_iter().chain([Cell::new(state, tone)]).collect()
}

/// What an attention is about: its site, its node, or both.
fn about(one: &Attention) -> String {
    match (&one.site, &one.node) {
        (Some(site), Some(node)) => format!("{site} on {}", printable(node)),
        (Some(site), None) => site.to_string(),
        (None, node) => printable(node.as_deref().unwrap_or_default()),
    }
}

fn name(concern: &Concern) -> String {
    concern.name().replace('-', " ")
}

/// "in 89 days", "3 hours ago".
fn from(at: DateTime<Utc>, now: DateTime<Utc>) -> String {
    match (at - now).to_std() {
        Ok(ahead) => format!("in {}", in_words(ahead)),
        Err(_) => format!("{} ago", in_words((now - at).to_std().unwrap_or_default())),
    }
}
