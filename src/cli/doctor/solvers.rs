//! The solvers that this machine's issuers need.

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::future::{FutureExt as _, LocalBoxFuture};

use super::Patient;
use crate::cli::assemble;
use crate::config::{IssuerSettings, Program, SolverSettings};
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::identifier::Identifier;
use crate::fleet::doctor::solvers;
use crate::fleet::doctor::within;
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
    let looks = each.map(|(name, settings, identifiers)| {
        let deadline = solvers::deadline(identifiers.len());
        within(deadline, Check::of(Part::Solvers, "solver", name), one(patient, name, settings, identifiers)).boxed_local()
    });
    looks.collect()
}

async fn one(patient: &Patient, name: &str, settings: &SolverSettings, identifiers: Vec<Identifier>) -> Vec<Finding> {
    let mut findings = match settings {
        SolverSettings::Standalone { listen } => vec![solvers::standalone(&Standalone::new(*listen), name).await],
        SolverSettings::Webroot { path } => webroot(path, name, &identifiers).await,
        SolverSettings::Http01Program(program) | SolverSettings::Dns01Program(program) => program_findings(patient, name, program).await,
    };
    if !settings.is_dns() {
        findings.extend(solvers::names(name, &identifiers).await);
    }
    findings
}

async fn webroot(path: &Path, name: &str, identifiers: &[Identifier]) -> Vec<Finding> {
    solvers::webroot(&Webroot::new(path.to_owned()), name, identifiers).await
}

async fn program_findings(patient: &Patient, name: &str, program: &Program) -> Vec<Finding> {
    let called = name.to_owned();
    let mut findings = vec![match patient.with_settings(move |settings| assemble::solver(settings, &called).map(drop)).await {
        Ok(()) => solvers::complete(name),
        Err(failure) => solvers::unusable(name, failure.what, failure.hint),
    }];
    if let Program::Hooks { present, cleanup, .. } = program {
        findings.push(solvers::hook(name, "present", present));
        findings.extend(cleanup.as_deref().map(|cleanup| solvers::hook(name, "cleanup", cleanup)));
    }
    findings
}
