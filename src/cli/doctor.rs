//! `certfleet doctor`

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::Utc;
use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};

use self::store::{Opened, Reached};
use super::args::Arguments;
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::{node, session};
use crate::config::{Origin, Role, Settings};
use crate::domain::checkup::{Check, Checkup, Finding, Part};
use crate::domain::schedule::MachineRole;
use crate::domain::site::{Method, Site};
use crate::fleet::doctor::identity::Found;
use crate::fleet::doctor::{self, DEADLINE, Patience, blocking};
use crate::fleet::progress::Progress as _;
use crate::fleet::seal::Seal;
use crate::fleet::snapshot::Snapshot;

mod issuers;
mod local;
mod rendering;
mod solvers;
mod store;
mod targets;

/// Everything that is looked at, and what is known about it by the time that the looks at the parts begin.
struct Patient {
    settings: Arc<Settings>,
    role: MachineRole,
    sites: Vec<Site>,
    /// `None` where it cannot be reached, or used.
    store: Option<Opened>,
    snapshot: Option<Snapshot>,
    /// `None` where it could not be asked for.
    manifest: Option<Found>,
    /// `None` where there is no identity, or another fleet's.
    seal: Option<Seal>,
    /// The same for those parts that hold on to it.
    seal_cell: Arc<OnceLock<Seal>>,
    patience: Patience,
}

/// Tries everything. Only a configuration that cannot be read ends it early.
pub(super) async fn run(arguments: &Arguments, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = Arc::new(assemble::settings(arguments.config.as_deref())?);
    let role = if settings.targets.is_empty() { MachineRole::BuildMachine } else { MachineRole::Webserver };
    if settings.origin != Origin::Defaults {
        sites(&settings, role, None)?;
    }
    let interrupt = session::interrupt(console)?;
    console.step(&"doctor", "trying everything that the configuration relies on");
    let mut findings = Vec::new();
    let patient = tokio::select! {
        patient = examine(settings, role, Patience::until(interrupt.clone()), &mut findings) => patient?,
        () = interrupt.cancelled() => return Err(session::interrupted()),
    };
    findings.push(configuration(&patient));
    let (rest, bundles) = tokio::join!(join_all(parts(&patient)), store::bundles(&patient));
    findings.extend(rest.into_iter().flatten());
    findings.extend(bundles.findings);
    findings.extend(local::schedule(&patient, bundles.shortest_window).await);
    if interrupt.is_cancelled() {
        return Err(interrupted(&findings));
    }
    let checkup = Checkup::new(findings);
    if arguments.json {
        console.answer(&rendering::document(&checkup, role))?;
    } else if !arguments.quiet {
        console.answer(&rendering::people(&checkup, console))?;
    } else if checkup.needs_attention() {
        console.answer(&rendering::open(&checkup, console))?;
    }
    Ok(if checkup.needs_attention() { Exit::Attention } else { Exit::Done })
}

/// The end of a run that was asked to end: what could not be removed is still named.
fn interrupted(findings: &[Finding]) -> Failure {
    let left: Vec<_> = findings.iter().filter(|finding| finding.check == "clean-up").collect();
    let Some(first) = left.first() else { return session::interrupted() };
    let what = left.iter().map(|finding| finding.what.as_str()).collect::<Vec<_>>().join("; ");
    let hint = first.remedy.clone().unwrap_or_default();
    Failure { what: format!("interrupted; {what}"), hint, exit: Exit::Temporary }
}

/// Looks at what all other looks depend on: the datastore, its manifest, and the identity.
async fn examine(settings: Arc<Settings>, role: MachineRole, patience: Patience, findings: &mut Vec<Finding>) -> Result<Patient, Failure> {
    let (reached, found) = store::open(&settings, role, &patience).await;
    findings.extend(found);
    if let Some(Reached { snapshot, .. }) = &reached {
        let offset = node::offset_secs(Utc::now() - snapshot.clock().now());
        findings.push(doctor::store::clock(offset));
    }
    let (found, manifest, seal) = store::identity(&settings, role, reached.as_ref(), &patience).await;
    findings.extend(found);
    let (store, snapshot) = reached.map(|Reached { opened, snapshot }| (opened, snapshot)).unzip();
    let seal_cell = Arc::new(OnceLock::new());
    if let Some(seal) = &seal {
        let _ = seal_cell.set(seal.clone());
    }
    let sites = sites(&settings, role, snapshot.as_ref())?;
    Ok(Patient { settings, role, sites, store, snapshot, manifest, seal, seal_cell, patience })
}

/// The sites of this machine; without any configuration, those that the datastore has.
fn sites(settings: &Settings, role: MachineRole, snapshot: Option<&Snapshot>) -> Result<Vec<Site>, Failure> {
    match (&settings.origin, role) {
        (Origin::Defaults, _) => {
            let stored: Vec<_> = snapshot.into_iter().flat_map(Snapshot::sites).map(ToString::to_string).collect();
            if stored.is_empty() { Ok(Vec::new()) } else { Ok(settings.select(&stored)?) }
        }
        (_, MachineRole::Webserver) => node::sites(settings),
        (_, MachineRole::BuildMachine) => Ok(settings.select(&[])?),
    }
}

/// The looks that do not depend on each other.
fn parts(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let mut looks = store::probes(patient);
    if patient.follows() {
        let why = "a follower asks no issuer, and needs no secret of one";
        let sites: Vec<_> = patient.sites.iter().map(|site| site.name.clone()).collect();
        let finding = doctor::issuers::none_asked(&sites, why);
        looks.push(std::future::ready(vec![finding]).boxed_local());
    } else {
        looks.extend(issuers::looks(patient));
        looks.extend(solvers::looks(patient));
    }
    looks.extend(targets::looks(patient));
    looks.push(local::files(patient).boxed_local());
    looks
}

fn configuration(patient: &Patient) -> Finding {
    let check = Check::new(Part::Configuration, "configuration");
    let count = patient.sites.len();
    let sites = format!("{count} site{}", if count == 1 { "" } else { "s" });
    let machine = match patient.role {
        MachineRole::Webserver => "a webserver",
        MachineRole::BuildMachine => "a build machine: there is no [[target]]",
    };
    check.ok(match &patient.settings.origin {
        Origin::File(path) => format!("{}: {sites}; {machine}", path.display()),
        Origin::Toolkit(_) => format!("the environment of the Agile Deployment Toolkit: {sites}; {machine}"),
        Origin::Defaults => {
            "there is none, so the built-in datastore and CA are used: `certfleet init` writes one to start from".to_owned()
        }
    })
}

impl Patient {
    fn datastore(&self) -> Option<&Opened> {
        self.store.as_ref()
    }

    /// Whether this machine never renews.
    fn follows(&self) -> bool {
        self.role == MachineRole::Webserver && self.settings.agent.role == Role::Follower
    }

    /// The sites for which an issuer may be asked.
    fn issued(&self) -> impl Iterator<Item = &Site> {
        self.sites.iter().filter(|site| site.method == Method::Automatic)
    }

    /// Runs a check that ends at its deadline, and with the run.
    async fn within(&self, deadline: Duration, check: Check, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
        self.patience.within(deadline, check, work).await
    }

    /// The same with the usual deadline.
    async fn look(&self, check: Check, work: impl Future<Output = Vec<Finding>>) -> Vec<Finding> {
        self.within(DEADLINE, check, work).await
    }

    /// Does what may block with the settings.
    async fn with_settings<T: Send + 'static>(&self, work: impl FnOnce(&Settings) -> T + Send + 'static) -> T {
        let settings = Arc::clone(&self.settings);
        blocking(move || work(&settings)).await
    }
}
