//! What certificates are installed into on this machine.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};

use super::Patient;
use crate::cli::targets::roots;
use crate::config::Settings;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::site::Site;
use crate::fleet::doctor::targets::{self, Leaves};
use crate::fleet::doctor::{DEADLINE, blocking, within};
use crate::fleet::node::Root;

/// One look at each directory, with the servers that read from it.
pub(super) fn looks(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let directories: BTreeSet<_> = patient.settings.targets.iter().map(|target| target.ssl_root.clone()).collect();
    let looks = directories.into_iter().map(|directory| {
        let of_it = patient.settings.targets.iter().filter(|target| target.ssl_root == directory);
        let longest = of_it.map(|target| target.deadline).max().unwrap_or_default();
        let check = Check::of(Part::Targets, "target", directory.display());
        within(DEADLINE + longest + shaking_hands(patient.sites.len()), check, one(patient, directory)).boxed_local()
    });
    looks.collect()
}

/// For so many sites.
fn shaking_hands(sites: usize) -> Duration {
    Duration::from_secs(1).saturating_mul(u32::try_from(sites).unwrap_or(u32::MAX))
}

async fn one(patient: &Patient, directory: PathBuf) -> Vec<Finding> {
    // What is wrong with one directory says nothing about the others.
    let mut alone = Settings::clone(&patient.settings);
    alone.targets.retain(|target| target.ssl_root == directory);
    let sites = patient.sites.clone();
    let writable = blocking(move || targets::writable(&directory)).await;
    let root = match blocking(move || roots(&alone, &sites)).await {
        Ok(mut roots) => roots.pop().map(Arc::new),
        Err(failure) => return vec![writable, targets::unusable(failure.what, failure.hint)],
    };
    let Some(root) = root else { return vec![writable] };
    let (found, leaves) = installed(patient, &root).await;
    let servers = root.servers.iter().map(|server| async {
        let (tested, mut served) = tokio::join!(targets::test(server), targets::served(server, &leaves));
        served.push(tested);
        served
    });
    let servers = join_all(servers).await.into_iter().flatten();
    std::iter::once(writable).chain(found).chain(servers).collect()
}

async fn installed(patient: &Patient, root: &Arc<Root>) -> (Vec<Finding>, Leaves) {
    let Some(seal) = patient.seal.clone() else { return (vec![targets::not_proven(&root.ssl)], Leaves::new()) };
    let sites: Vec<Site> = patient.sites.iter().filter(|site| root.wants(&site.name)).cloned().collect();
    let root = Arc::clone(root);
    blocking(move || targets::installed(&root.ssl, &sites, &seal)).await
}
