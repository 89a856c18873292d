//! `certfleet ensure`

use std::fmt::Write as _;
use std::sync::Arc;

use super::args::{Arguments, Ensure};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::rendering;
use super::session::{self, Purpose, Session};
use super::supplied::{self, Materials};
use crate::config::Settings;
use crate::domain::bundle::Bundle;
use crate::domain::plan::Intent;
use crate::domain::site::{Method, Site};
use crate::domain::time::rfc3339;
use crate::fleet::gather::SiteWanted;
use crate::fleet::progress::Progress as _;
use crate::fleet::report::{Outcome, Problem, SiteReport};
use crate::fleet::snapshot::Snapshot;
use crate::issuer::local_ca;
use crate::system::text::printable;

/// Settles every site asked for.
pub(super) async fn run(arguments: &Arguments, options: &Ensure, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let sites = sites(&settings, options)?;
    let materials = supplied::read(&options.supplied)?;
    let single = match (&materials, sites.as_slice()) {
        (None, _) => None,
        (Some(_), [site]) => Some(site),
        (Some(_), sites) => {
            let what = format!("--fullchain is for one site, and {} are meant", sites.len());
            return Err(Failure::usage(what, "name the site: certfleet ensure SITE --fullchain FILE --privkey FILE"));
        }
    };
    if options.dry_run {
        return dry_run(arguments, options, &settings, sites, materials.as_ref(), console).await;
    }
    let session = Session::begin(&settings, &sites, Purpose::Work, console).await?;
    let mut wanted = wanted(options, sites.clone());
    if let (Some(materials), Some(site)) = (&materials, single) {
        let accepted = supplied::accept(materials, site, session.snapshot.clock().now(), &session.fleet.interrupt, console);
        wanted[0].supplied = Some(accepted.await.map_err(|failure| failure.about(&site.name))?);
    }
    let mut reports = session.fleet.ensure(&wanted, &session.snapshot).await;
    ask_for_what_is_missing(&session, &sites, &mut reports, console).await;
    answer(arguments, &settings, &session.snapshot, &reports, console)
}

/// Tells how it went, and the exit code.
pub(super) fn answer(
    arguments: &Arguments,
    settings: &Settings,
    snapshot: &Snapshot,
    reports: &[SiteReport],
    console: &Console,
) -> Result<Exit, Failure> {
    let news = reports.iter().any(rendering::is_news);
    if arguments.json {
        console.answer(&rendering::json(reports))?;
    } else if news || !arguments.quiet {
        let root = settings.local_ca_dir().join(local_ca::ROOT_FILE);
        console.answer(&rendering::people(reports, snapshot.clock().now(), &root))?;
    }
    for report in reports {
        let Some(problem) = &report.problem else { continue };
        if report.in_place.is_none() {
            // The answer for people lists what was passed over only beside what was taken instead.
            report
                .refused
                .iter()
                .for_each(|(source, reason)| console.warning(&format!("{}: passed over the {source}: {reason}", report.site)));
        }
        let mut what = format!("{}: {}", report.site, printable(&problem.what));
        if let Some(in_place) = &report.in_place {
            let until = rfc3339(&in_place.leaf().not_after);
            let _ = write!(what, "; generation {} is in place and valid until {until}", in_place.generation());
        }
        let again = problem.retry_at.map(|time| format!("; it is tried again by itself from {} on", rfc3339(&time)));
        console.error(&what, &format!("{}{}", problem.hint, again.unwrap_or_default()));
    }
    Ok(rendering::exit(reports))
}

fn sites(settings: &Settings, options: &Ensure) -> Result<Vec<Site>, Failure> {
    let sites = settings.select(&options.sites)?;
    if !options.staging {
        return Ok(sites);
    }
    Ok(sites.iter().map(|site| settings.staging(site)).collect::<Result<_, _>>()?)
}

fn wanted(options: &Ensure, sites: Vec<Site>) -> Vec<SiteWanted> {
    let intent = if options.force { Intent::Force } else { Intent::IfDue };
    sites.into_iter().map(|site| SiteWanted { site, intent, supplied: None, held: None }).collect()
}

async fn dry_run(
    arguments: &Arguments,
    options: &Ensure,
    settings: &Settings,
    sites: Vec<Site>,
    materials: Option<&Materials>,
    console: &Arc<Console>,
) -> Result<Exit, Failure> {
    // Where a password may have to be asked for, a signal must not end the program with the terminal left silent.
    let interrupt = materials.map(|_| session::interrupt(console)).transpose()?;
    let session = Session::begin_under(interrupt, settings, &sites, Purpose::Look, console).await?;
    let mut wanted = wanted(options, sites);
    if let (Some(materials), [only]) = (materials, wanted.as_mut_slice()) {
        let accepted = supplied::accept(materials, &only.site, session.snapshot.clock().now(), &session.fleet.interrupt, console);
        only.supplied = Some(accepted.await?);
    }
    let planned = tokio::select! {
        planned = session.fleet.plans(&wanted, &session.snapshot) => planned?,
        () = session.fleet.interrupt.cancelled() => return Err(session::interrupted()),
    };
    console.answer(&if arguments.json { rendering::plans_json(&planned) } else { rendering::plans(&planned) })?;
    Ok(Exit::Done)
}

async fn asked(session: &Session, site: &Site, console: &Console) -> Result<Bundle, Failure> {
    let interrupt = &session.fleet.interrupt;
    let materials = supplied::ask(site, interrupt, console).await?;
    supplied::accept(&materials, site, session.snapshot.clock().now(), interrupt, console).await
}

/// Manual sites without a certificate that serves: on a terminal, a person can paste it right here.
async fn ask_for_what_is_missing(session: &Session, sites: &[Site], reports: &mut [SiteReport], console: &Arc<Console>) {
    for (site, report) in sites.iter().zip(reports) {
        let missing = site.method == Method::Manual && report.problem.is_some();
        if !missing || session.fleet.interrupt.is_cancelled() || !supplied::can_ask() {
            continue;
        }
        let bundle = match asked(session, site, console).await {
            Ok(bundle) => bundle,
            // What became of the other sites is told all the same.
            Err(Failure { what, hint, exit }) => {
                report.problem = Some(Problem { what, hint, retry_at: None });
                if exit == Exit::Temporary {
                    report.outcome = report.outcome.min(Outcome::Temporary);
                    return;
                }
                continue;
            }
        };
        let wanted = SiteWanted { site: site.clone(), intent: Intent::IfDue, supplied: Some(bundle), held: None };
        if let Some(settled) = session.fleet.ensure(&[wanted], &session.snapshot).await.pop() {
            *report = settled;
        }
    }
}
