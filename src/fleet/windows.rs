//! What CAs suggest about renewals (ARI): one machine asks, `windows/<site>` tells all. Nothing here ever fails a run: without a suggestion a
//! certificate is renewed when little of its life is left.

use chrono::{DateTime, Utc};

use super::bundle_object::Opened;
use super::issuers::Issuers;
use super::node::Node;
use super::node_state::{KnownWindow, NodeState};
use super::progress::Progress;
use super::seal::Seal;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, PutMode};
use crate::domain::object_key::ObjectKey;
use crate::domain::record::{self, IssuerClass};
use crate::domain::renewal_window::{Suggestion, WindowRecord, ask_at, turn};
use crate::domain::site::Site;
use crate::issuer::IssueError;
use crate::system::error_chain::in_full;

/// How many certificates a node asks about in one run: the others' turn comes in the next.
const MOST_ASKED: usize = 50;

/// Whether a run may ask a CA, or goes by what others asked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Asking {
    /// Where it is its turn.
    InTurn,
    /// Never: it only looks.
    Never,
}

/// Whoever looks up what CAs suggest.
pub struct Windows<'a> {
    /// Where the answers are kept.
    pub store: &'a dyn Datastore,
    /// By which they are proven.
    pub seal: &'a Seal,
    /// Who can be asked.
    pub issuers: &'a Issuers,
    /// This machine.
    pub node: &'a str,
    /// Told what could not be read, asked or kept.
    pub progress: &'a dyn Progress,
}

impl Windows<'_> {
    /// What is suggested for a bundle of the datastore.
    pub(super) async fn of(&self, site: &Site, opened: &Opened, snapshot: &Snapshot, asking: Asking) -> Option<WindowRecord> {
        let known = match snapshot.window_etag(&site.name) {
            Some(_) => self.read(site).await,
            None => None,
        };
        let known = known.filter(|known| known.fingerprint == opened.bundle.leaf().fingerprint);
        let since = known.as_ref().map_or_else(|| first_asked(site, snapshot), |known| Some(known.ask_at));
        match since.filter(|since| asking == Asking::InTurn && self.is_turn(site, *since, snapshot)) {
            Some(_) => self.ask(site, opened, known.as_ref(), snapshot).await.or(known),
            None => known,
        }
    }

    /// Brings a node's memory up to date: only what has changed in the datastore is read. `true` where anything has.
    pub async fn refresh(&self, node: &Node, state: &mut NodeState, snapshot: &Snapshot, asking: Asking) -> bool {
        let mut windows = Vec::new();
        let mut asked = 0;
        for site in &node.sites {
            let name = site.name.file_name();
            let remembered = state.windows.iter().find(|known| known.record.site == name);
            let known = match snapshot.window_etag(&site.name) {
                Some(etag) => match remembered.filter(|known| !etag.is_empty() && known.etag == etag) {
                    Some(known) => Some(known.clone()),
                    None => self.read(site).await.map(|record| KnownWindow { etag: etag.to_owned(), record }),
                },
                None => None,
            };
            let installed = state.places.iter().filter(|place| place.site == name).max_by_key(|place| place.generation);
            let current = known.as_ref().filter(|known| installed.is_some_and(|place| place.fingerprint == known.record.fingerprint));
            let since = current.map_or_else(|| first_asked(site, snapshot), |known| Some(known.record.ask_at));
            let turn = since.is_some_and(|since| self.is_turn(site, since, snapshot));
            let opened = (turn && asking == Asking::InTurn && asked < MOST_ASKED).then(|| {
                let place = installed.filter(|place| place.generation == snapshot.highest(&site.name))?;
                node.installed(self.seal, site, place)
            });
            let answer = match opened.flatten() {
                Some(opened) => {
                    asked += 1;
                    self.ask(site, &opened, current.map(|known| &known.record), snapshot).await
                }
                None => None,
            };
            // Under which ETag the store lists it is seen in the next run.
            windows.extend(answer.map(|record| KnownWindow { etag: String::new(), record }).or(known));
        }
        let changed = windows != state.windows;
        state.windows = windows;
        changed
    }

    /// What the datastore has, if this fleet wrote it.
    async fn read(&self, site: &Site) -> Option<WindowRecord> {
        let key = ObjectKey::window(&site.name);
        let why = match self.store.get(&key).await {
            Ok(None) => return None,
            Ok(Some(bytes)) => match record::read::<WindowRecord>(&bytes) {
                Ok(record) if record.site == site.name.file_name() && self.is_ours(&record) => return Some(record),
                Ok(_) => "it was not written by this fleet".to_owned(),
                Err(error) => in_full(&error),
            },
            Err(error) => in_full(&error),
        };
        self.progress.step(&site.name, &format!("{key} is passed over: {why}"));
        None
    }

    fn is_ours(&self, record: &WindowRecord) -> bool {
        self.seal.is_proven(record.proof.as_deref(), &record.fields().each_ref().map(String::as_str))
    }

    fn is_turn(&self, site: &Site, since: DateTime<Utc>, snapshot: &Snapshot) -> bool {
        turn(since, self.node, &site.name) <= snapshot.clock().now()
    }

    /// Asks the issuer of a bundle, and keeps its answer for all. That it could not be asked is kept, too: nobody else needs to try.
    async fn ask(&self, site: &Site, opened: &Opened, known: Option<&WindowRecord>, snapshot: &Snapshot) -> Option<WindowRecord> {
        let origin = opened.origin();
        let issuer = self.issuers.get(site, &origin.issuer).filter(|_| origin.class == IssuerClass::Acme)?.issuer.as_ref()?;
        let leaf = opened.bundle.leaf();
        let suggestion = match issuer.adviser()?.suggestion(leaf).await {
            Ok(suggestion) => suggestion,
            Err(error) => {
                self.progress.step(&site.name, &format!("{} does not say when it would like to renew: {}", origin.issuer, in_full(&error)));
                let retry_after = if let IssueError::Refused { retry_after, .. } = error { retry_after } else { None };
                let (window, explanation) = known.map(|known| (known.window, known.explanation.clone())).unwrap_or_default();
                Suggestion { window, explanation, retry_after }
            }
        };
        let now = snapshot.clock().now();
        let mut record = WindowRecord {
            version: record::VERSION,
            site: site.name.file_name(),
            fingerprint: leaf.fingerprint.clone(),
            window: suggestion.window,
            explanation: suggestion.explanation,
            asked_at: now,
            ask_at: ask_at(now, suggestion.retry_after),
            proof: None,
        };
        record.proof = self.seal.prove(&record.fields().each_ref().map(String::as_str));
        let key = ObjectKey::window(&site.name);
        if let Err(error) = self.store.put(&key, record::write(&record).into(), PutMode::Overwrite).await {
            self.progress.step(&site.name, &format!("{key} could not be written: {}", in_full(&error)));
        }
        Some(record)
    }
}

/// From when on anybody may ask about a certificate that nobody has asked about: there is no news of one that was just made.
fn first_asked(site: &Site, snapshot: &Snapshot) -> Option<DateTime<Utc>> {
    snapshot.published_at(&site.name).map(|published| ask_at(published, None))
}
