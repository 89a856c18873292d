//! The solvers that this machine's issuers need.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::{FutureExt as _, LocalBoxFuture};

use super::Patient;
use crate::cli::assemble;
use crate::config::{DnsProvider, Http01Settings, HttpAnswer, IssuerSettings, Program, SolverSettings};
use crate::datastore::Datastore;
use crate::datastore::memory::MemoryDatastore;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::identifier::Identifier;
use crate::domain::object_key::ObjectKey;
use crate::fleet::accounts::StoredAccount;
use crate::fleet::challenges::PublicAnswers;
use crate::fleet::doctor::{DEADLINE, blocking, solvers, within};
use crate::solver::redirect::Redirect;
use crate::solver::standalone::Standalone;
use crate::solver::tls_alpn::TlsAlpn;
use crate::solver::webroot::Webroot;

/// What a solver is needed for.
struct Need<'a> {
    solver: &'a str,
    /// The first ACME issuer that it answers.
    issuer: &'a str,
    identifiers: Vec<Identifier>,
}

/// One look at each solver that an ACME issuer of some site has answer its challenges.
pub(super) fn looks(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let mut used: BTreeMap<(&str, &str), Need<'_>> = BTreeMap::new();
    let is_acme = |name: &&String| matches!(patient.settings.issuers.get(*name), Some(IssuerSettings::Acme(_)));
    for site in patient.issued() {
        let (Some(issuer), Some(solver)) = (site.issuers.iter().find(is_acme), &site.solver) else { continue };
        // A stateless answer is another for each issuer.
        let by_issuer = patient.settings.solvers.get(solver).is_some_and(is_stateless);
        let key = (solver.as_str(), if by_issuer { issuer.as_str() } else { "" });
        let need = used.entry(key).or_insert(Need { solver, issuer, identifiers: Vec::new() });
        for identifier in &site.identifiers {
            if !need.identifiers.contains(identifier) {
                need.identifiers.push(identifier.clone());
            }
        }
    }
    let each = used.into_values().filter_map(|need| Some((patient.settings.solvers.get(need.solver)?, need)));
    each.map(|(settings, need)| async move { one(patient, settings, &need).await }.boxed_local()).collect()
}

fn is_stateless(settings: &SolverSettings) -> bool {
    matches!(settings, SolverSettings::Http01(Http01Settings { answer: HttpAnswer::Stateless, .. }))
}

async fn one(patient: &Patient, settings: &SolverSettings, need: &Need<'_>) -> Vec<Finding> {
    let name = need.solver;
    match settings {
        SolverSettings::Http01(http) => http_01(patient, http, need).await,
        SolverSettings::TlsAlpn01 { listen } => {
            let listening = async { vec![solvers::tls_alpn(&TlsAlpn::new(*listen), name).await] };
            let (mut findings, resolved) =
                tokio::join!(patient.look(Check::of(Part::Solvers, "port", name), listening), names(patient, need));
            findings.extend(resolved);
            findings
        }
        SolverSettings::Dns01Program(named) => program(patient, name, named).await,
        SolverSettings::Dns01(dns) => {
            let provider = match &dns.provider {
                DnsProvider::BuiltIn(provider) => provider.clone(),
                DnsProvider::AcmeSh { script, .. } => format!("acme.sh:{script}"),
            };
            let looking = async { vec![settings_finding(patient, name, solvers::complete_at(name, &provider)).await] };
            patient.look(Check::of(Part::Solvers, "settings", name), looking).await
        }
    }
}

async fn http_01(patient: &Patient, http: &Http01Settings, need: &Need<'_>) -> Vec<Finding> {
    let name = need.solver;
    let answering = async {
        match &http.answer {
            HttpAnswer::Standalone { listen } => {
                let listening = async { vec![solvers::standalone(&Standalone::new(*listen), name).await] };
                patient.look(Check::of(Part::Solvers, "port", name), listening).await
            }
            HttpAnswer::Webroot { path } => webroot(patient, path, http, need).await,
            HttpAnswer::Stateless => stateless(patient, http, need).await,
            HttpAnswer::Redirect { .. } => redirect(patient, http, need).await,
            HttpAnswer::Program(named) => program(patient, name, named).await,
        }
    };
    let (mut findings, resolved) = tokio::join!(answering, names(patient, need));
    findings.extend(resolved);
    findings
}

async fn names(patient: &Patient, need: &Need<'_>) -> Vec<Finding> {
    let check = Check::of(Part::Solvers, "names", need.solver);
    patient.within(solvers::deadline(need.identifiers.len()), check, solvers::names(need.solver, &need.identifiers)).await
}

async fn webroot(patient: &Patient, path: &Path, http: &Http01Settings, need: &Need<'_>) -> Vec<Finding> {
    match solvers::Trial::of_webroot(Webroot::new(path.to_owned()), need.solver, &need.identifiers) {
        Some(trial) => tried(patient, http, need, "webroot", &trial).await,
        None => Vec::new(),
    }
}

async fn redirect(patient: &Patient, http: &Http01Settings, need: &Need<'_>) -> Vec<Finding> {
    let Some(opened) = patient.datastore() else { return Vec::new() };
    let solver = Redirect::new(Arc::new(PublicAnswers::new(Arc::clone(&opened.store))));
    match solvers::Trial::of_redirect(solver, need.solver, &need.identifiers) {
        Some(trial) => tried(patient, http, need, "redirect", &trial).await,
        None => Vec::new(),
    }
}

/// An answer is written, looked for, and removed again.
async fn tried(patient: &Patient, http: &Http01Settings, need: &Need<'_>, what: &'static str, trial: &solvers::Trial<'_>) -> Vec<Finding> {
    let check = |what| Check::of(Part::Solvers, what, need.solver);
    let mut findings = patient.look(check(what), trial.write()).await;
    if trial.is_written()
        && let Some(place) = assemble::sighted(http.check)
    {
        findings.extend(patient.within(solvers::deadline(need.identifiers.len()), check("served"), trial.served(place)).await);
    }
    // Also what was cut short may have written its answer.
    findings.extend(within(DEADLINE, check("clean-up"), trial.clean_up()).await);
    findings
}

async fn stateless(patient: &Patient, http: &Http01Settings, need: &Need<'_>) -> Vec<Finding> {
    let check = Check::of(Part::Solvers, "served", need.solver);
    let Some(place) = assemble::sighted(http.check) else {
        return vec![check.skipped("check = \"off\": what the servers answer is not looked at")];
    };
    let (Some(opened), Some(_), Some(IssuerSettings::Acme(acme)), Some(key)) =
        (patient.datastore(), &patient.seal, patient.settings.issuers.get(need.issuer), ObjectKey::account(need.issuer))
    else {
        return vec![
            check.skipped("the account whose thumbprint the servers answer with lies in the datastore, sealed, which could not be opened"),
        ];
    };
    let account = StoredAccount::new(Arc::clone(&opened.store), Arc::clone(&patient.seal_cell), key);
    let looking = async {
        match account.thumbprint(&acme.directory).await {
            Ok(thumbprint) => solvers::stateless(place, need.solver, &need.identifiers, thumbprint.as_deref()).await,
            Err(error) => vec![solvers::unusable(need.solver, error.what, error.hint)],
        }
    };
    patient.within(solvers::deadline(need.identifiers.len()), check.clone(), looking).await
}

async fn program(patient: &Patient, name: &str, program: &Program) -> Vec<Finding> {
    patient.look(Check::of(Part::Solvers, "program", name), program_findings(patient, name, program)).await
}

async fn settings_finding(patient: &Patient, name: &str, complete: Finding) -> Finding {
    let called = name.to_owned();
    // Nothing is asked of a datastore.
    let nowhere = Arc::new(MemoryDatastore::new(chrono::DateTime::UNIX_EPOCH)) as Arc<dyn Datastore>;
    let made = patient.with_settings(move |settings| assemble::solver(settings, &called, &nowhere).map(drop)).await;
    match made {
        Ok(()) => complete,
        Err(failure) => solvers::unusable(name, failure.what, failure.hint),
    }
}

async fn program_findings(patient: &Patient, name: &str, program: &Program) -> Vec<Finding> {
    let mut findings = vec![settings_finding(patient, name, solvers::complete(name)).await];
    if let Program::Hooks { present, cleanup, .. } = program {
        let programs = [Some(("present", present.clone())), cleanup.clone().map(|cleanup| ("cleanup", cleanup))];
        let name = name.to_owned();
        let looked =
            blocking(move || programs.into_iter().flatten().map(|(key, argv)| solvers::hook(&name, key, &argv)).collect::<Vec<_>>());
        findings.extend(looked.await);
    }
    findings
}
