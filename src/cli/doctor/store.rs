//! The datastore, and what must be opened in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt as _, LocalBoxFuture};

use super::Patient;
use crate::cli::assemble;
use crate::cli::failure::Failure;
use crate::config::{Election, Location, S3Settings, Settings};
use crate::datastore::Datastore;
use crate::datastore::directory::DirectoryDatastore;
use crate::datastore::s3::{S3Datastore, S3Options};
use crate::domain::checkup::{Check, Finding, Part, Verdict};
use crate::domain::schedule::MachineRole;
use crate::fleet::doctor::identity::{self, Bundles, Found};
use crate::fleet::doctor::remains::Tried;
use crate::fleet::doctor::store::{self, Renewers};
use crate::fleet::doctor::{DEADLINE, Patience, beside, blocking, files, within};
use crate::fleet::seal::Seal;
use crate::fleet::snapshot::Snapshot;
use crate::system::random;

/// 160 requests and more, to a store that may be slow.
const RACES: Duration = Duration::from_secs(180);

/// A listing of everything may have many pages.
const LISTING: Duration = Duration::from_secs(90);

/// A fleet may have a thousand sites.
const OPENING: Duration = Duration::from_secs(120);

/// A datastore, and what there is around the fleet's own objects.
pub(super) struct Opened {
    pub(super) store: Arc<dyn Datastore>,
    around: Around,
}

enum Around {
    /// The rest of a bucket, from one level above this prefix on.
    Bucket(Arc<dyn Datastore>, String),
    /// Nothing: the fleet has a bucket of its own.
    Nothing,
    /// Other files of the machine.
    Files(PathBuf),
    /// The directory is not there yet.
    NotYet,
}

/// What is known of a datastore that answers.
pub(super) struct Reached {
    pub(super) opened: Opened,
    pub(super) snapshot: Snapshot,
}

/// Builds the datastore and lists it. `None` where that fails.
pub(super) async fn open(settings: &Settings, role: MachineRole, patience: &Patience) -> (Option<Reached>, Vec<Finding>) {
    let (opened, mut findings) = match &settings.datastore.location {
        Location::Directory(path) => match directory(path, role, patience).await {
            Ok(opened) => opened,
            Err(findings) => return (None, findings),
        },
        Location::S3(s3) => match bucket(s3).await {
            Ok(opened) => (opened, vec![credentials(s3)]),
            Err(failure) => {
                let finding = Check::new(Part::Datastore, "settings").failed(failure.what, failure.hint);
                return (None, vec![finding]);
            }
        },
    };
    if findings.iter().any(|finding| finding.verdict == Verdict::Failed) {
        return (None, findings);
    }
    let mut snapshot = None;
    let listing = async {
        let listed = store::reachable(&*opened.store).await;
        vec![listed.map_or_else(
            |finding| finding,
            |(finding, listed)| {
                snapshot = Some(listed);
                finding
            },
        )]
    };
    findings.extend(patience.within(LISTING, Check::new(Part::Datastore, "reachable"), listing).await);
    (snapshot.map(|snapshot| Reached { opened, snapshot }), findings)
}

async fn directory(path: &Path, role: MachineRole, patience: &Patience) -> Result<(Opened, Vec<Finding>), Vec<Finding>> {
    let store: Arc<dyn Datastore> = Arc::new(DirectoryDatastore::new(path.to_owned()));
    let check = Check::new(Part::Datastore, "directory");
    let mut there = None;
    // A file system on the network may be dead.
    let looking = async {
        let owned = path.to_owned();
        there = Some(blocking(move || owned.is_dir()).await);
        Vec::new()
    };
    let findings = patience.within(DEADLINE, check.clone(), looking).await;
    let Some(there) = there else { return Err(findings) };
    if there {
        return Ok((Opened { store, around: Around::Files(path.to_owned()) }, Vec::new()));
    }
    let finding = match role {
        MachineRole::BuildMachine => check.skipped(format!("{} is not there yet: the first `certfleet ensure` makes it", path.display())),
        MachineRole::Webserver => {
            check.failed(format!("there is no directory {}", path.display()), "mount what the machines share there, or correct url")
        }
    };
    Ok((Opened { store, around: Around::NotYet }, vec![finding]))
}

async fn bucket(s3: &S3Settings) -> Result<Opened, Failure> {
    let owned = s3.clone();
    let options = blocking(move || assemble::s3_options(&owned)).await?;
    let prefix = options.prefix.clone();
    let around = if prefix.is_empty() {
        Around::Nothing
    } else {
        let parent = prefix.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
        Around::Bucket(Arc::new(S3Datastore::connect(S3Options { prefix: parent, ..options.clone() }).await?), prefix)
    };
    Ok(Opened { store: Arc::new(S3Datastore::connect(options).await?), around })
}

fn credentials(s3: &S3Settings) -> Finding {
    let check = Check::new(Part::Datastore, "credentials");
    check.ok(match s3.credentials {
        Some(_) => "access_key and secret_key were fetched",
        None => "none are configured: the AWS chain (environment, profile, role of this machine) is asked",
    })
}

/// The manifest, and the identity that must fit it.
pub(super) async fn identity(
    settings: &Arc<Settings>,
    role: MachineRole,
    reached: Option<&Reached>,
    patience: &Patience,
) -> (Vec<Finding>, Option<Found>, Option<Seal>) {
    let mut findings = Vec::new();
    let mut found = None;
    if let Some(Reached { opened, snapshot }) = reached {
        let reading = async {
            let (finding, read) = identity::manifest(&*opened.store, snapshot).await;
            found = Some(read);
            vec![finding]
        };
        findings.extend(patience.within(DEADLINE, Check::new(Part::Identity, "manifest"), reading).await);
    }
    let mut seal = None;
    let (settings, known) = (Arc::clone(settings), found.clone());
    let fetching = async {
        let (found, fetched) = blocking(move || {
            let wanted = match assemble::seal_wanted(&settings) {
                Ok(wanted) => wanted,
                Err(failure) => return (vec![identity::unresolved(failure.what, failure.hint)], None),
            };
            let (finding, seal) = identity::identity(&wanted, known.as_ref(), role);
            let owner = identity::owner(&wanted, &files::owners(&settings.runtimedata)).filter(|_| seal.is_some());
            (std::iter::once(finding).chain(owner).collect(), seal)
        })
        .await;
        seal = fetched;
        found
    };
    findings.extend(patience.within(DEADLINE, Check::new(Part::Identity, "identity"), fetching).await);
    (findings, found, seal)
}

/// Writing, racing, and what the credentials can do elsewhere.
pub(super) fn probes(patient: &Patient) -> Vec<LocalBoxFuture<'_, Vec<Finding>>> {
    let Some(opened) = patient.datastore() else {
        let why = "the datastore cannot be used as it is";
        let skipped = ["writable", "exclusive-create"].map(|name| Check::new(Part::Datastore, name).skipped(why));
        return vec![std::future::ready(skipped.to_vec()).boxed_local()];
    };
    vec![write(patient, opened).boxed_local(), beyond(patient, opened).boxed_local()]
}

async fn beyond(patient: &Patient, opened: &Opened) -> Vec<Finding> {
    let (parent, prefix) = match &opened.around {
        Around::Bucket(parent, prefix) => (Tried::new(Arc::clone(parent)), prefix),
        Around::Nothing => {
            return vec![beside::check().skipped("the fleet has a bucket of its own: there is nothing beside a prefix to protect")];
        }
        Around::Files(_) | Around::NotYet => return vec![beside::check().skipped("the datastore is a directory")],
    };
    let looking = async { vec![beside::look(&parent, prefix, &random::name()).await] };
    let mut findings = patient.within(DEADLINE, beside::check(), looking).await;
    findings.extend(parent.clean_up().await);
    findings
}

async fn write(patient: &Patient, opened: &Opened) -> Vec<Finding> {
    let (writable, races) = (Check::new(Part::Datastore, "writable"), Check::new(Part::Datastore, "exclusive-create"));
    let remains = match &opened.around {
        Around::NotYet => return vec![writable.skipped("the directory is not there yet")],
        Around::Files(directory) => Some(directory.clone()),
        Around::Bucket(..) | Around::Nothing => None,
    };
    let mut probes = None;
    let tried = Tried::new(Arc::clone(&opened.store));
    let trying = async {
        if let Some(directory) = remains {
            probes = blocking(move || files::probes_of(&directory)).await;
        }
        vec![store::writable(&tried, &random::name()).await]
    };
    let mut findings = patient.within(DEADLINE, writable, trying).await;
    if findings.iter().any(|finding| finding.verdict == Verdict::Failed) {
        findings.push(races.skipped("the datastore cannot be written"));
    } else {
        let racing = async { vec![race(patient, &tried).await] };
        findings.extend(patient.within(RACES, races, racing).await);
    }
    findings.extend(tried.clean_up().await);
    if let Some(probes) = probes {
        // Only an empty one goes.
        let removing = async {
            let _ = blocking(move || std::fs::remove_dir(probes)).await;
            Vec::new()
        };
        findings.extend(within(DEADLINE, Check::new(Part::Datastore, "clean-up"), removing).await);
    }
    findings
}

async fn race(patient: &Patient, store: &dyn Datastore) -> Finding {
    let remembered = match &patient.manifest {
        Some(Found::Read(manifest)) => Some(manifest.exclusive_create),
        _ => None,
    };
    let renewers = match patient.settings.datastore.election {
        Election::Exclusive => Renewers::Elected,
        Election::Sole => Renewers::Sole,
        Election::BestEffort => Renewers::BestEffort,
    };
    store::exclusive_create(store, &random::name(), remembered, renewers).await
}

/// The highest bundle of each site.
pub(super) async fn bundles(patient: &Patient) -> Bundles {
    let mut bundles = Bundles { findings: Vec::new(), shortest_window: None };
    let check = Check::new(Part::Identity, "bundles");
    let (Some(opened), Some(snapshot), Some(seal)) = (patient.datastore(), &patient.snapshot, &patient.seal) else {
        let why = if patient.seal.is_some() { "the datastore cannot be used as it is" } else { "there is no identity to open them with" };
        bundles.findings.push(check.skipped(why));
        return bundles;
    };
    let mut window = None;
    let opening = async {
        let found = identity::bundles(&*opened.store, seal, &patient.sites, snapshot, patient.role, OPENING).await;
        window = found.shortest_window;
        found.findings
    };
    bundles.findings = patient.within(OPENING + DEADLINE, check, opening).await;
    bundles.shortest_window = window;
    bundles
}
