//! `certfleet bootstrap`

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use chrono::Utc;

use super::args::{Arguments, Bootstrap};
use super::assemble;
use super::console::Console;
use super::delivery;
use super::exit::Exit;
use super::failure::Failure;
use super::node::{Access, Begun, NodeRun};
use super::node_rendering as rendering;
use super::session;
use crate::datastore::{Datastore, FailureKind};
use crate::domain::node_plan::Part;
use crate::domain::object_key::Generation;
use crate::domain::site::{Site, SiteName};
use crate::domain::time::in_words;
use crate::fleet::delivery::Delivered;
use crate::fleet::progress::Progress as _;
use crate::fleet::snapshot::Snapshot;

/// How long to wait between two looks into the datastore.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Installs every site from the datastore. The web server need not run yet.
pub(super) async fn run(arguments: &Arguments, options: &Bootstrap, console: &Arc<Console>) -> Result<Exit, Failure> {
    let configuration =
        options.delivery.as_deref().map(|source| delivery::take(source, arguments.config.as_deref(), console)).transpose()?;
    let settings = assemble::settings(configuration.as_deref().or(arguments.config.as_deref()))?;
    let interrupt = session::interrupt(console)?;
    let patience: Duration = options.wait.into();
    let delivered = Delivered::in_place(&assemble::place_directory(&settings));
    let listing = async |store: &dyn Datastore, sites: &[Site]| match wait_for_all(store, sites, &delivered, patience, console).await {
        Err(failure) if failure.exit == Exit::Temporary => at_hand(&delivered, sites, failure, console),
        listed => Ok(with_delivered(listed?, sites, &delivered, console)),
    };
    match NodeRun::look(&settings, Part::Bootstrap, Access::Work { patience }, console, &interrupt, listing).await? {
        Begun::Run(run) => rendering::tend(arguments, &settings, console, &interrupt, *run).await,
        Begun::Occupied(by) => Err(by.into()),
    }
}

/// What was pushed here, where the datastore cannot be reached; the failure, where that is not every site.
fn at_hand(delivered: &Delivered, sites: &[Site], failure: Failure, console: &Console) -> Result<Snapshot, Failure> {
    let bundle = |site: &Site| Some((site.name.clone(), generation(delivered, &site.name)?));
    let Some(bundles) = sites.iter().map(bundle).collect::<Option<Vec<_>>>() else { return Err(failure) };
    console.warning(&format!("{}: installing what was pushed here", failure.what));
    // There is no other clock here than this machine's own.
    Ok(Snapshot::without_store(Utc::now(), bundles))
}

/// The listing, with what was pushed here of sites that it lacks: a datastore that was emptied, or is another, keeps no machine from serving.
fn with_delivered(snapshot: Snapshot, sites: &[Site], delivered: &Delivered, console: &Console) -> Snapshot {
    let mut filled = snapshot;
    for site in sites.iter().map(|site| &site.name) {
        if let (true, Some(generation)) = (lacks(&filled, site), generation(delivered, site)) {
            console
                .warning(&format!("the datastore has no certificate of {site}: installing generation {generation}, which was pushed here"));
            filled = filled.with_bundle(site, generation);
        }
    }
    filled
}

fn lacks(snapshot: &Snapshot, site: &SiteName) -> bool {
    snapshot.highest(site) == Generation::default()
}

fn generation(delivered: &Delivered, site: &SiteName) -> Option<Generation> {
    Some(delivered.read(site).ok().flatten()?.0)
}

/// Lists until the datastore answers and has every site that was not pushed here, or until there is no time left.
async fn wait_for_all(
    store: &dyn Datastore,
    sites: &[Site],
    delivered: &Delivered,
    patience: Duration,
    console: &Console,
) -> Result<Snapshot, Failure> {
    let deadline = Instant::now() + patience;
    let mut told = false;
    loop {
        let next = (Instant::now() + LOOK_AGAIN_AFTER).min(deadline);
        let over = Instant::now() >= deadline;
        let why = match Snapshot::take(store).await {
            Err(error) if error.kind == FailureKind::Lasting || over => return Err(error.into()),
            Err(_) => "the datastore cannot be reached".to_owned(),
            Ok(snapshot) => {
                match sites.iter().map(|site| &site.name).find(|site| lacks(&snapshot, site) && generation(delivered, site).is_none()) {
                    Some(site) if !over => format!("there is no certificate of {site} yet"),
                    _ => return Ok(snapshot),
                }
            }
        };
        if !told {
            console.note(&format!("{why}: waiting for {}", in_words(patience)));
            told = true;
        }
        sleep_until(next).await;
    }
}
