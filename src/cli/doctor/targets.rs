//! What certificates are installed into on this machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture, join_all};

use super::Patient;
use crate::cli::targets::roots;
use crate::config::Settings;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::site::Site;
use crate::fleet::doctor::targets::{self, Leaves};
use crate::fleet::doctor::{DEADLINE, blocking};
use crate::fleet::node::Root;

/// One look at each directory, with the servers that read from it.
pub(super) fn looks(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let directories: BTreeSet<_> = patient.settings.targets.iter().map(|target| target.ssl_root.clone()).collect();
    directories.into_iter().map(|directory| one(patient, directory).boxed_local()).collect()
}

/// For so many sites.
fn shaking_hands(sites: usize) -> Duration {
    Duration::from_secs(1).saturating_mul(u32::try_from(sites).unwrap_or(u32::MAX))
}

async fn one(patient: &Patient, directory: PathBuf) -> Vec<Finding> {
    let check = |name| Check::of(Part::Targets, name, directory.display());
    let owned = directory.clone();
    let writable = async { vec![blocking(move || targets::writable(&owned)).await] };
    // A program that is run, or a file system, may be slow; what is found out before is told all the same.
    let (mut findings, used) = tokio::join!(patient.look(check("ssl_root"), writable), used(patient, &directory));
    findings.extend(used);
    findings
}

async fn used(patient: &Patient, directory: &Path) -> Vec<Finding> {
    // What is wrong with one directory says nothing about the others.
    let mut alone = Settings::clone(&patient.settings);
    alone.targets.retain(|target| target.ssl_root == directory);
    let longest = alone.targets.iter().map(|target| target.deadline).max().unwrap_or_default();
    let sites = patient.sites.clone();
    let check = |name| Check::of(Part::Targets, name, directory.display());
    let mut root = None;
    let finding = async {
        match blocking(move || roots(&alone, &sites)).await {
            Ok(mut roots) => root = roots.pop().map(Arc::new),
            Err(failure) => return vec![targets::unusable(failure.what, failure.hint)],
        }
        Vec::new()
    };
    let mut findings = patient.look(check("settings"), finding).await;
    let Some(root) = root else { return findings };
    let mut leaves = Leaves::new();
    let reading = async {
        let (found, whole) = installed(patient, &root).await;
        leaves = whole;
        found
    };
    findings.extend(patient.within(DEADLINE + shaking_hands(patient.sites.len()), check("files"), reading).await);
    let servers = root.servers.iter().map(|server| async {
        let testing = async { vec![targets::test(server).await] };
        let (mut tested, served) = tokio::join!(
            patient.within(DEADLINE + longest, targets::check("server-test", server), testing),
            patient.within(
                DEADLINE + shaking_hands(patient.sites.len()),
                targets::check("served", server),
                targets::served(server, &leaves)
            ),
        );
        tested.extend(served);
        tested
    });
    findings.extend(join_all(servers).await.into_iter().flatten());
    findings
}

async fn installed(patient: &Patient, root: &Arc<Root>) -> (Vec<Finding>, Leaves) {
    let Some(seal) = patient.seal.clone() else { return (vec![targets::not_proven(&root.ssl)], Leaves::new()) };
    let sites: Vec<Site> = patient.sites.iter().filter(|site| root.wants(&site.name)).cloned().collect();
    let root = Arc::clone(root);
    blocking(move || targets::installed(&root.ssl, &sites, &seal)).await
}
