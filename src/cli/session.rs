//! What every command that touches the datastore begins with: settings, parts, the lock, one listing, the manifest and the seal.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::assemble::{self, PATIENCE, Run};
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::Settings;
use crate::datastore::Datastore;
use crate::domain::record::Manifest;
use crate::domain::site::Site;
use crate::fleet::first_use;
use crate::fleet::identity::{self, SealWanted};
use crate::fleet::place::Place;
use crate::fleet::progress::Progress as _;
use crate::fleet::seal::Seal;
use crate::fleet::snapshot::Snapshot;
use crate::fleet::{Creates, Fleet};
use crate::system::random;

/// A run that is under way.
pub(super) struct Session {
    /// The fleet, ready to be worked on.
    pub(super) fleet: Fleet,
    /// The one listing.
    pub(super) snapshot: Snapshot,
    /// Held until the run ends; `None` for those who only look.
    _place: Option<Place>,
}

/// What a command is about to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Look: nothing is written, here or in the datastore.
    Look,
    /// Work: under the lock, and preparing a datastore that is new.
    Work,
}

impl Session {
    /// Begins. The configuration, its secrets and its files are complete before anything else is touched.
    pub(super) async fn begin(settings: &Settings, sites: &[Site], purpose: Purpose, console: &Arc<Console>) -> Result<Self, Failure> {
        let store = assemble::datastore(settings).await?;
        let seal_cell = Arc::new(OnceLock::new());
        let issuers = assemble::issuers(settings, sites, &store, &seal_cell)?;
        let wanted = assemble::seal_wanted(settings)?;
        let (interrupt, place) = match purpose {
            // Whoever only looks has nothing to clean up: Ctrl-C ends it as it ends any program.
            Purpose::Look => (CancellationToken::new(), None),
            Purpose::Work => {
                let interrupt = interrupt(console)?;
                let waiting = |holder: &str| console.note(&format!("process {holder} is at work here: waiting for it to end"));
                let place = tokio::select! {
                    place = Place::take(assemble::place_directory(settings), PATIENCE, waiting) => place?,
                    () = interrupt.cancelled() => return Err(interrupted()),
                };
                (interrupt, Some(place))
            }
        };
        let (snapshot, manifest, seal) = tokio::select! {
            looked = look(&*store, &wanted, purpose, console) => looked?,
            () = interrupt.cancelled() => return Err(interrupted()),
        };
        let _ = seal_cell.set(seal.clone());
        let run = Run { store, issuers, console: Arc::clone(console), interrupt };
        let fleet = run.fleet(settings, seal, manifest.as_ref(), place.as_ref());
        if fleet.creates == Creates::Refused {
            console
                .note("this datastore accepts a second create of the same object: bundles can be read from it, but not published safely");
        }
        if matches!((&fleet.seal, purpose), (Seal::None, Purpose::Work)) {
            console.note("seal = \"none\": private keys lie in the clear in the datastore");
        }
        Ok(Self { fleet, snapshot, _place: place })
    }
}

/// The listing, the manifest and the seal to it; at the first use of a datastore these are made.
async fn look(
    store: &dyn Datastore,
    wanted: &SealWanted,
    purpose: Purpose,
    console: &Console,
) -> Result<(Snapshot, Option<Manifest>, Seal), Failure> {
    let (snapshot, known) = tokio::join!(Snapshot::take(store), first_use::known(store, wanted));
    let (snapshot, known) = (snapshot?, known?);
    Ok(match (known, purpose) {
        (Some((manifest, seal)), _) => (snapshot, Some(manifest), seal),
        (None, Purpose::Look) => (snapshot, None, identity::seal_if_any(wanted)?),
        (None, Purpose::Work) => {
            let (manifest, seal) = first_use::prepare(store, wanted, &snapshot, &random::name(), console).await?;
            (snapshot, Some(manifest), seal)
        }
    })
}

fn interrupted() -> Failure {
    Failure { what: "interrupted".to_owned(), hint: "nothing was done: run the same command again".to_owned(), exit: Exit::Temporary }
}

/// A token that Ctrl-C and SIGTERM cancel. A second one ends the program at once.
fn interrupt(console: &Arc<Console>) -> Result<CancellationToken, Failure> {
    let token = CancellationToken::new();
    let failed = |error: std::io::Error| Failure::new(&error, "the system refuses signal handlers: check its limits", Exit::Failed);
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let (cancelled, console) = (token.clone(), Arc::clone(console));
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if cancelled.is_cancelled() {
                std::process::exit(130);
            }
            console.note("ending: cleaning up first; once more ends at once");
            cancelled.cancel();
        }
    });
    Ok(token)
}
