//! The issuers that this machine may ask.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::future::{FutureExt as _, LocalBoxFuture};

use super::Patient;
use crate::cli::assemble;
use crate::config::{AcmeSettings, IssuerSettings};
use crate::datastore::Datastore;
use crate::datastore::memory::MemoryDatastore;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::schedule::MachineRole;
use crate::domain::site::IfMissing;
use crate::fleet::doctor::identity::Found;
use crate::fleet::doctor::issuers::{self, AccountKept, WantedBy};
use crate::fleet::doctor::{DEADLINE, blocking};
use crate::issuer::local_ca::KEY_FILE;
use crate::solver::standalone::Standalone;

/// One look at each issuer that some site lists.
pub(super) fn looks(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let names: BTreeSet<_> = patient.issued().flat_map(|site| &site.issuers).collect();
    let each = names.into_iter().filter_map(|name| Some((name, patient.settings.issuers.get(name)?)));
    each.map(|(name, settings)| one(patient, name, settings).boxed_local()).collect()
}

async fn one(patient: &Patient, name: &str, settings: &IssuerSettings) -> Vec<Finding> {
    match settings {
        IssuerSettings::Acme(acme) => Box::pin(ca(patient, name, acme)).await,
        IssuerSettings::LocalCa { .. } => patient.look(Check::of(Part::Issuers, "root", name), local_ca(patient, name)).await,
        IssuerSettings::SelfSigned { .. } => vec![issuers::self_signed(name)],
    }
}

async fn ca(patient: &Patient, name: &str, acme: &AcmeSettings) -> Vec<Finding> {
    let kept = match (patient.datastore(), &patient.seal, &patient.manifest) {
        // One that has not been used has no account either, and no identity is needed to see that.
        (Some(_), Some(_), _) | (Some(_), None, Some(Found::Unused)) => AccountKept::Reachable,
        _ => AccountKept::OutOfReach,
    };
    // Where the datastore is out of reach, nothing is asked of this one.
    let nowhere = || Arc::new(MemoryDatastore::new(chrono::DateTime::UNIX_EPOCH)) as Arc<dyn Datastore>;
    let store = patient.datastore().map_or_else(nowhere, |opened| Arc::clone(&opened.store));
    let (seal, owned, called) = (Arc::clone(&patient.seal_cell), acme.clone(), name.to_owned());
    // No challenge is answered: any solver will do.
    let asking = async {
        match blocking(move || assemble::acme_ca(&called, &owned, None, Arc::new(Standalone::everywhere()), &store, &seal)).await {
            Ok(issuer) => issuers::acme(&issuer, name, &profiles(patient, name), kept).await,
            Err(failure) => vec![issuers::unusable(name, failure.what, failure.hint)],
        }
    };
    let (mut findings, asked) = tokio::join!(
        patient.look(Check::of(Part::Issuers, "chain-trust", name), chain_trust(patient, name, acme)),
        patient.within(DEADLINE + issuers::ASKING, Check::of(Part::Issuers, "issuer", name), asking),
    );
    findings.extend(asked);
    findings
}

/// The profiles that sites want of an issuer, each with the first site that does.
fn profiles(patient: &Patient, issuer: &str) -> BTreeMap<String, WantedBy> {
    let mut profiles = BTreeMap::new();
    for site in patient.issued().filter(|site| site.issuers.iter().any(|name| name == issuer)) {
        if let Some(profile) = &site.profile {
            let wanted = WantedBy { site: site.name.clone(), if_missing: profile.if_missing };
            let kept: &mut WantedBy = profiles.entry(profile.name.clone()).or_insert_with(|| wanted.clone());
            // Who cannot do without it matters more.
            if wanted.if_missing == IfMissing::Refuse && kept.if_missing == IfMissing::TakeDefault {
                *kept = wanted;
            }
        }
    }
    profiles
}

async fn chain_trust(patient: &Patient, name: &str, acme: &AcmeSettings) -> Vec<Finding> {
    let Some(path) = acme.chain_trust.clone() else { return Vec::new() };
    let check = Check::of(Part::Issuers, "chain-trust", name);
    let called = name.to_owned();
    vec![match patient.with_settings(move |settings| assemble::anchors(settings, &called)).await {
        Ok(_) => check.ok(format!("{} holds roots", path.display())),
        Err(failure) => check.failed(failure.what, failure.hint),
    }]
}

async fn local_ca(patient: &Patient, name: &str) -> Vec<Finding> {
    let directory = patient.settings.local_ca_dir();
    let role = patient.role;
    // By the store's clock, like every issuance.
    let now = patient.snapshot.as_ref().map(|snapshot| snapshot.clock().now());
    let name = name.to_owned();
    blocking(move || {
        let here = role == MachineRole::BuildMachine || directory.join(KEY_FILE).exists();
        match (here, now) {
            (false, _) => vec![issuers::local_ca_elsewhere(&directory, &name)],
            (true, Some(now)) => issuers::local_ca(&directory, &name, now),
            (true, None) => vec![Check::of(Part::Issuers, "root", &name).skipped("only the datastore says what time it is")],
        }
    })
    .await
}
