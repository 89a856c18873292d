//! What every command that touches the datastore begins with: settings, parts, the lock, one listing, the manifest and the seal.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::assemble::{self, Issuing, PATIENCE, Run};
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::Settings;
use crate::datastore::Datastore;
use crate::domain::record::Manifest;
use crate::domain::site::Site;
use crate::fleet::first_use::{self, FirstUseError};
use crate::fleet::identity::{self, IdentityError, SealWanted};
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
    /// The same without asking any issuer: whom their chains must lead to is known, and none of their secrets is looked for.
    WorkWithoutIssuers,
}

impl Session {
    /// Begins. The configuration, its secrets and its files are complete before anything else is touched.
    pub(super) async fn begin(settings: &Settings, sites: &[Site], purpose: Purpose, console: &Arc<Console>) -> Result<Self, Failure> {
        Self::begin_under(None, settings, sites, purpose, console).await
    }

    /// The same, where the command has had to tie a token to the signals already.
    pub(super) async fn begin_under(
        installed: Option<CancellationToken>,
        settings: &Settings,
        sites: &[Site],
        purpose: Purpose,
        console: &Arc<Console>,
    ) -> Result<Self, Failure> {
        let store = assemble::datastore(settings).await?;
        let seal_cell = Arc::new(OnceLock::new());
        let issuing = match purpose {
            Purpose::Look | Purpose::Work => Issuing::Anywhere,
            Purpose::WorkWithoutIssuers => Issuing::Never,
        };
        let issuers = assemble::issuers(settings, sites, &store, &seal_cell, issuing)?;
        let wanted = assemble::seal_wanted(settings)?;
        let (interrupt, place) = match purpose {
            // Whoever only looks has nothing to clean up: Ctrl-C ends it as it ends any program.
            Purpose::Look => (installed.unwrap_or_default(), None),
            Purpose::Work | Purpose::WorkWithoutIssuers => {
                let interrupt = installed.map_or_else(|| interrupt(console), Ok)?;
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
                .note("this datastore accepts a second create of the same object: bundles can be read from it, but not published safely; `certfleet doctor` says what to do");
        }
        if matches!(fleet.seal, Seal::None) && purpose != Purpose::Look {
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
        (None, Purpose::Work | Purpose::WorkWithoutIssuers) => {
            let (manifest, seal) = first_use::prepare(store, wanted, &snapshot, &random::name(), console).await?;
            (snapshot, Some(manifest), seal)
        }
    })
}

/// The seal for those who can do without: `None` where the fleet's identity is not on this machine. Another fleet's is refused.
pub(super) async fn seal_to_look(store: &dyn Datastore, wanted: &SealWanted) -> Result<Option<Seal>, Failure> {
    match first_use::known(store, wanted).await {
        Ok(Some((_, seal))) => Ok(Some(seal)),
        Ok(None) => Ok(Some(identity::seal_if_any(wanted)?)),
        Err(FirstUseError::Identity(IdentityError::Missing { .. })) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The end of a run that was asked to end before it had done anything.
pub(super) fn interrupted() -> Failure {
    Failure { what: "interrupted".to_owned(), hint: "nothing was done: run the same command again".to_owned(), exit: Exit::Temporary }
}

/// A token that Ctrl-C and SIGTERM cancel. A second one ends the program at once.
pub(super) fn interrupt(console: &Arc<Console>) -> Result<CancellationToken, Failure> {
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
