//! The solvers that this machine's issuers need.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::future::{FutureExt as _, LocalBoxFuture};

use super::Patient;
use crate::cli::assemble;
use crate::config::{IssuerSettings, Program, SolverSettings};
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::identifier::Identifier;
use crate::fleet::doctor::{DEADLINE, blocking, solvers, within};
use crate::solver::standalone::Standalone;
use crate::solver::webroot::Webroot;

/// One look at each solver that an ACME issuer of some site has answer its challenges.
pub(super) fn looks(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let mut used: BTreeMap<&str, Vec<Identifier>> = BTreeMap::new();
    let is_acme = |name: &String| matches!(patient.settings.issuers.get(name), Some(IssuerSettings::Acme(_)));
    for site in patient.issued().filter(|site| site.issuers.iter().any(is_acme)) {
        let Some(solver) = &site.solver else { continue };
        let identifiers = used.entry(solver).or_default();
        for identifier in &site.identifiers {
            if !identifiers.contains(identifier) {
                identifiers.push(identifier.clone());
            }
        }
    }
    let each = used.into_iter().filter_map(|(name, identifiers)| Some((name, patient.settings.solvers.get(name)?, identifiers)));
    each.map(|(name, settings, identifiers)| one(patient, name, settings, identifiers).boxed_local()).collect()
}

async fn one(patient: &Patient, name: &str, settings: &SolverSettings, identifiers: Vec<Identifier>) -> Vec<Finding> {
    let deadline = solvers::deadline(identifiers.len());
    let answering = async {
        match settings {
            SolverSettings::Standalone { listen } => {
                let listening = async { vec![solvers::standalone(&Standalone::new(*listen), name).await] };
                patient.look(Check::of(Part::Solvers, "port", name), listening).await
            }
            SolverSettings::Webroot { path } => webroot(patient, path, name, &identifiers).await,
            SolverSettings::Http01Program(program) | SolverSettings::Dns01Program(program) => {
                let looking = program_findings(patient, name, program);
                patient.look(Check::of(Part::Solvers, "program", name), looking).await
            }
        }
    };
    let resolving = async {
        if settings.is_dns() {
            return Vec::new();
        }
        patient.within(deadline, Check::of(Part::Solvers, "names", name), solvers::names(name, &identifiers)).await
    };
    let (mut findings, names) = tokio::join!(answering, resolving);
    findings.extend(names);
    findings
}

async fn webroot(patient: &Patient, path: &Path, name: &str, identifiers: &[Identifier]) -> Vec<Finding> {
    let Some(trial) = solvers::Trial::new(Webroot::new(path.to_owned()), name, identifiers) else { return Vec::new() };
    let check = |what| Check::of(Part::Solvers, what, name);
    let mut findings = patient.look(check("webroot"), trial.write()).await;
    if trial.is_written() {
        findings.extend(patient.within(solvers::deadline(identifiers.len()), check("served"), trial.served()).await);
    }
    // Also what was cut short may have written its file.
    findings.extend(within(DEADLINE, check("clean-up"), trial.clean_up()).await);
    findings
}

async fn program_findings(patient: &Patient, name: &str, program: &Program) -> Vec<Finding> {
    let called = name.to_owned();
    let mut findings = vec![match patient.with_settings(move |settings| assemble::solver(settings, &called).map(drop)).await {
        Ok(()) => solvers::complete(name),
        Err(failure) => solvers::unusable(name, failure.what, failure.hint),
    }];
    if let Program::Hooks { present, cleanup, .. } = program {
        let programs = [Some(("present", present.clone())), cleanup.clone().map(|cleanup| ("cleanup", cleanup))];
        let name = name.to_owned();
        let looked =
            blocking(move || programs.into_iter().flatten().map(|(key, argv)| solvers::hook(&name, key, &argv)).collect::<Vec<_>>());
        findings.extend(looked.await);
    }
    findings
}
