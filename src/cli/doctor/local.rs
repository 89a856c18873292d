//! Files of this machine, and what starts certfleet there.

use std::time::Duration;

use super::Patient;
use crate::cli::assemble;
use crate::config::Origin;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::schedule::MachineRole;
use crate::fleet::doctor::schedule::{self, Others};
use crate::fleet::doctor::{blocking, files};
use crate::fleet::place::spool_in;
use crate::fleet::snapshot::Snapshot;

/// Owners, modes, and what waits for its upload.
pub(super) async fn files(patient: &Patient) -> Vec<Finding> {
    let check = |name| Check::new(Part::Files, name);
    let configuration = patient.with_settings(|settings| match &settings.origin {
        Origin::File(path) | Origin::Toolkit(Some(path)) => vec![files::configuration(path, &files::owners(&settings.runtimedata))],
        Origin::Toolkit(None) | Origin::Defaults => Vec::new(),
    });
    let runtimedata = patient.with_settings(|settings| vec![files::runtimedata(&settings.runtimedata)]);
    let (sites, role) = (patient.sites.clone(), patient.role);
    let keys = patient.with_settings(move |settings| match role {
        MachineRole::BuildMachine => files::keys(&settings.ssl_dir(), &sites),
        MachineRole::Webserver => Vec::new(),
    });
    let sites = patient.sites.clone();
    let spool = patient.with_settings(move |settings| vec![files::spool(&spool_in(&assemble::place_directory(settings)), &sites, role)]);
    let (configuration, runtimedata, keys, spool) = tokio::join!(
        patient.look(check("configuration"), configuration),
        patient.look(check("runtimedata"), runtimedata),
        patient.look(check("keys"), keys),
        patient.look(check("spool"), spool),
    );
    [configuration, runtimedata, keys, spool].concat()
}

/// What starts the machine's job. `window` is the shortest time that any site has for its renewal.
pub(super) async fn schedule(patient: &Patient, window: Option<Duration>) -> Vec<Finding> {
    let check = Check::new(Part::Schedule, "starter");
    if patient.settings.origin == Origin::Defaults {
        return vec![check.skipped("there is no configuration that a timer could go by")];
    }
    let nodes = patient.snapshot.as_ref().map_or(0, |snapshot| alive(patient, snapshot));
    let others = if nodes == 0 { Others::Nobody } else { Others::Nodes(nodes) };
    let role = patient.role;
    let looking = async move {
        let found = blocking(move || schedule::find(role)).await;
        schedule::judge(&found, role, window, others)
    };
    patient.look(check, looking).await
}

/// The nodes that are not silent.
fn alive(patient: &Patient, snapshot: &Snapshot) -> usize {
    let now = snapshot.clock().now();
    let recent = |at: &&chrono::DateTime<chrono::Utc>| (now - **at).to_std().unwrap_or_default() <= patient.settings.agent.stale_after;
    snapshot.nodes().values().filter(recent).count()
}
