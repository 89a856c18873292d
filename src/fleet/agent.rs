//! `agent` and `bootstrap`: on a node, have every site installed and served as the fleet has it now.
//!
//! Observe (`node.rs`) → plan (`domain/node_plan.rs`) → obtain → install (`install.rs`) → report (`reporting.rs`).

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures_util::stream::{self, StreamExt as _};

use super::Fleet;
use super::bundle_object::{self, Opened};
use super::gather::{Held, SiteWanted};
use super::install::{Change, PlaceOutcome, Servers, Transaction};
use super::issue::problem;
use super::node::{Node, PlaceObserved, Refusal, SiteObserved, known_place, may_replace};
use super::node_state::KnownPlace;
use super::publish::Published;
use super::report::{Outcome, Problem};
use super::site_error::SiteError;
use super::snapshot::Snapshot;
use super::wait::{Waited, Waits};
use crate::domain::lease::TIME_TO_LIVE;
use crate::domain::node_plan::{Obtain, Part, PlaceStep, Presence, Serving};
use crate::domain::object_key::{Generation, Listed, ObjectKey};
use crate::domain::plan::{Intent, Source};
use crate::domain::record::{self, LeaseRecord, LeaseState};
use crate::domain::site::SiteName;
use crate::system::clock::Instant;
use crate::system::error_chain::in_full;

mod compare;
mod report;

use self::compare::{lies_there, note_compared, note_etag};
pub use self::report::{NodeSiteReport, PlaceReport};
use self::report::{begin_report, judge, note_interruption};

/// Sites that are worked on at the same time.
const SITES_AT_ONCE: usize = 16;

/// A bundle to install, or why there is none.
struct Obtained {
    opened: Option<Box<Opened>>,
    source: Option<Source>,
    refilled: Option<Generation>,
    /// Whether it was read from the datastore in this run.
    fetched: bool,
    /// The ETag under which the datastore lists the very bytes.
    etag: Option<String>,
    outcome: Outcome,
    problem: Option<Problem>,
}

impl Obtained {
    fn nothing() -> Self {
        Self { opened: None, source: None, refilled: None, fetched: false, etag: None, outcome: Outcome::Done, problem: None }
    }

    fn failed(error: &SiteError) -> Self {
        Self { outcome: error.outcome(), problem: Some(problem(error, error.hint())), ..Self::nothing() }
    }

    fn with(opened: Opened, source: Source) -> Self {
        Self { opened: Some(Box::new(opened)), source: Some(source), ..Self::nothing() }
    }
}

impl Fleet {
    /// Does what was planned, for every site. The reports come in the order of `observed`.
    pub async fn tend(&self, node: &Node, observed: &[SiteObserved], snapshot: &Snapshot) -> Vec<NodeSiteReport> {
        let deadline = Instant::now() + self.patience;
        let mut reports: Vec<_> = observed.iter().map(begin_report).collect();
        // What only has to be fetched does not wait for what has to be made.
        let slow = |site: &SiteObserved| matches!(site.plan.obtain, Obtain::Renew { .. } | Obtain::Await { .. });
        let (waiting, ready): (Vec<_>, Vec<_>) = (0..observed.len()).partition(|index| slow(&observed[*index]));
        for group in [ready, waiting] {
            let work = |index: usize| async move { (index, self.obtain(node, &observed[index], snapshot, deadline).await) };
            let obtained: BTreeMap<_, _> = stream::iter(group).map(work).buffer_unordered(SITES_AT_ONCE).collect().await;
            for (index, obtained) in &obtained {
                note_obtained(&mut reports[*index], obtained);
                note_compared(&mut reports[*index], obtained);
            }
            if self.interrupt.is_cancelled() {
                break;
            }
            for root in 0..node.roots.len() {
                self.install(node, root, observed, &obtained, snapshot, &mut reports).await;
            }
        }
        if self.interrupt.is_cancelled() {
            observed.iter().zip(&mut reports).filter(|(site, _)| !site.plan.is_quiet()).for_each(|(_, report)| note_interruption(report));
        }
        for (report, site) in reports.iter_mut().zip(observed) {
            judge(report, site, snapshot.clock().now());
        }
        reports
    }

    /// Gets the bundle that a site needs: from the datastore, from another directory, from an issuer.
    async fn obtain(&self, node: &Node, observed: &SiteObserved, snapshot: &Snapshot, deadline: Instant) -> Obtained {
        let site = &observed.site.name;
        let held = Self::held(node, observed);
        let mut snapshot = snapshot.clone();
        if let (Some(generation), Some(held)) = (observed.plan.refill, &held) {
            match self.refill(site, held).await {
                Ok(()) => snapshot = snapshot.with_bundle(site, generation),
                Err(error) => return Obtained::failed(&error),
            }
        }
        let got = match &observed.plan.obtain {
            Obtain::Nothing => Ok(self.again(observed, held.as_ref())),
            Obtain::Nowhere => Ok(nowhere(site)),
            Obtain::Take(_) | Obtain::Renew { .. } if observed.part == Part::Renew => {
                let held = held.filter(|held| is_listed(observed, held.generation, &snapshot));
                Ok(self.renew(observed, held, &snapshot, deadline).await)
            }
            Obtain::Take(generation) | Obtain::Renew { generation, .. } => {
                let held = held.filter(|held| held.generation == *generation).or_else(|| delivered(node, site, *generation));
                self.take_or_earlier(observed, *generation, held, snapshot.clock().now()).await
            }
            Obtain::Compare(generation) => self.compare(node, observed, *generation, held, &snapshot).await,
            Obtain::Await { generation, .. } => self.follow(observed, *generation, held, &snapshot, deadline).await,
        };
        let got = got.unwrap_or_else(|error| Obtained::failed(&error));
        let etag = got.etag.clone().or_else(|| self.etag_of(&got, site, &snapshot));
        Obtained { refilled: observed.plan.refill, etag, ..got }
    }

    /// The newest whole bundle that is installed, where it will be needed; of two with one number, the one that serves longer.
    fn held(node: &Node, observed: &SiteObserved) -> Option<Held> {
        if observed.plan.is_quiet() {
            return None;
        }
        let whole = observed.places.iter().filter_map(|place| Some((place.root, place.known.as_ref()?)));
        let (root, newest) = whole.max_by_key(|(_, known)| (known.generation, known.not_after))?;
        let generation = newest.generation;
        let object = node.roots[root].ssl.object(&observed.site.name, generation).ok().flatten()?;
        Some(Held { generation, object: object.into() })
    }

    /// Puts back what the datastore has lost: the very bytes, under the same number.
    async fn refill(&self, site: &SiteName, held: &Held) -> Result<(), SiteError> {
        self.may_create()?;
        self.progress.step(site, &format!("the datastore has lost generation {}: putting it back", held.generation));
        match self.publish(site, held.generation, held.object.clone()).await? {
            Published::Proven(_) => Ok(()),
            Published::Taken => Err(SiteError::OtherContent(ObjectKey::bundle(site, held.generation))),
        }
    }

    /// What is installed already, for directories where it is to be seen that it is served.
    fn again(&self, observed: &SiteObserved, held: Option<&Held>) -> Obtained {
        let opened = held.and_then(|held| bundle_object::open(&self.seal, &observed.site.name, held.generation, &held.object).ok());
        Obtained { opened: opened.map(Box::new), ..Obtained::nothing() }
    }

    /// The way of `ensure`: what there is, if it is not due, else a new one, by whoever is elected.
    async fn renew(&self, observed: &SiteObserved, held: Option<Held>, snapshot: &Snapshot, deadline: Instant) -> Obtained {
        let at_hand = held.as_ref().map(|held| held.generation);
        let wanted = SiteWanted { site: observed.site.clone(), intent: Intent::IfDue, supplied: None, held };
        let report = self.ensure_site(&wanted, snapshot, deadline).await;
        let (opened, source) = report.in_place.map(|in_place| (in_place.opened, in_place.source)).unzip();
        let fetched = source == Some(Source::Datastore) && opened.as_ref().map(|opened| opened.record.generation) != at_hand;
        Obtained { opened, source, fetched, outcome: report.outcome, problem: report.problem, ..Obtained::nothing() }
    }

    /// A generation that exists.
    async fn take(&self, site: &SiteName, generation: Generation, held: Option<Held>) -> Result<Obtained, SiteError> {
        let key = ObjectKey::bundle(site, generation);
        let held = held.filter(|held| held.generation == generation);
        let fetched = held.is_none();
        let object = if let Some(held) = held {
            Some(held.object)
        } else {
            self.progress.step(site, &format!("fetching generation {generation}"));
            self.store.get(&key).await?
        };
        let Some(object) = object else { return Ok(refused(format!("{key} is listed, but is not there when read"))) };
        Ok(match bundle_object::open(&self.seal, site, generation, &object) {
            Ok(opened) => Obtained { fetched, ..Obtained::with(opened, Source::Datastore) },
            Err(error) => refused(format!("{key} cannot be used: {}", in_full(&error))),
        })
    }

    /// A generation that exists; where it cannot be used and nothing is installed, the highest before it that can.
    async fn take_or_earlier(
        &self,
        observed: &SiteObserved,
        generation: Generation,
        held: Option<Held>,
        now: DateTime<Utc>,
    ) -> Result<Obtained, SiteError> {
        let site = &observed.site;
        let taken = self.take(&site.name, generation, held).await?;
        if taken.opened.is_some() || observed.places.iter().any(|place| place.known.is_some()) {
            return Ok(taken);
        }
        let listing = self.store.list(&ObjectKey::bundles_prefix(&site.name), None).await?;
        let there = listing.entries.iter().filter_map(|entry| match entry.key.listed() {
            Listed::Bundle(listed, earlier) if listed == site.name && earlier < generation => Some(earlier),
            _ => None,
        });
        for earlier in there.collect::<BTreeSet<_>>().into_iter().rev() {
            let other = self.take(&site.name, earlier, None).await?;
            if other.opened.as_ref().is_some_and(|opened| opened.bundle.check(&site.identifiers, now).is_ok()) {
                return Ok(Obtained { outcome: taken.outcome, problem: taken.problem, ..other });
            }
        }
        Ok(taken)
    }

    /// Waits for whoever is making a generation right now; where nobody is, what is installed serves until the next run.
    async fn follow(
        &self,
        observed: &SiteObserved,
        generation: Generation,
        held: Option<Held>,
        snapshot: &Snapshot,
        deadline: Instant,
    ) -> Result<Obtained, SiteError> {
        let site = &observed.site.name;
        let mut waits = Waits::until(deadline);
        let mut snapshot = snapshot.clone();
        while self.somebody_makes(site, generation, &snapshot).await? && !self.interrupt.is_cancelled() {
            self.progress.step(site, &format!("generation {generation} is being made: waiting"));
            match self.wait_for(site, generation, &mut waits).await? {
                Waited::Made(object) => {
                    let made = Held { generation, object };
                    return self.take(site, generation, Some(made)).await;
                }
                Waited::TooLong => break,
                Waited::LookAgain => snapshot = Snapshot::take_site(&*self.store, site, generation).await?,
            }
        }
        if snapshot.highest(site) >= generation {
            return self.take(site, snapshot.highest(site), None).await;
        }
        Ok(self.again(observed, held.as_ref()))
    }

    /// Whether somebody is at work on a generation: its lease is held, and young, or candidates are waiting for it.
    async fn somebody_makes(&self, site: &SiteName, generation: Generation, snapshot: &Snapshot) -> Result<bool, SiteError> {
        if snapshot.is_contested(site, generation) {
            return Ok(true);
        }
        let Some((attempt, age)) = snapshot.latest_attempt(site, generation) else { return Ok(false) };
        if age > TIME_TO_LIVE {
            return Ok(false);
        }
        let lease = self.store.get(&ObjectKey::lease(site, generation, attempt)).await?;
        let record = lease.and_then(|bytes| record::read::<LeaseRecord>(&bytes).ok());
        Ok(record.is_some_and(|record| record.state == LeaseState::Held))
    }

    /// One directory: whatever may be installed there is, in one go.
    async fn install(
        &self,
        node: &Node,
        root: usize,
        observed: &[SiteObserved],
        obtained: &BTreeMap<usize, Obtained>,
        snapshot: &Snapshot,
        reports: &mut [NodeSiteReport],
    ) {
        let now = snapshot.clock().now();
        let mut changes = Vec::new();
        let mut whose = Vec::new();
        for (&at, obtained) in obtained {
            let site = &observed[at];
            let Some(place) = site.places.iter().position(|place| place.root == root) else { continue };
            if let PlaceStep::Refuse(why) = &site.plan.places[place] {
                let path = node.roots[root].ssl.live_path(&site.site.name);
                let what = format!("{} cannot be taken over: {why}", path.display());
                let hint = "it was left as it is: move it away, or name another ssl_root";
                reports[at].places[place].problem = Some(Problem { what, hint: hint.to_owned(), retry_at: None });
                continue;
            }
            let Some(opened) = obtained.opened.as_deref() else { continue };
            let before = &site.places[place];
            let compared = matches!(site.plan.obtain, Obtain::Compare(_));
            let there = lies_there(&node.roots[root], site, before, opened);
            if site.plan.places[place] == PlaceStep::Nothing && !compared || there && is_proven(before) {
                continue;
            }
            match self.may_install(site, before, opened, now) {
                Ok(()) => {
                    let earlier = if there { None } else { self.same_number(&node.roots[root], site, before, opened) };
                    changes.push(Change { site: &site.site, before, opened, there, earlier });
                    whose.push((at, place));
                }
                Err(refusal) => reports[at].places[place].problem = Some(not_installed(&refusal, site, opened)),
            }
        }
        if changes.is_empty() {
            return;
        }
        let opened: Vec<_> = changes.iter().map(|change| change.opened).collect();
        let servers = if node.part == Part::Bootstrap { Servers::MayBeDown } else { Servers::Run };
        let transaction = Transaction { root: &node.roots[root], servers, now, progress: &*self.progress };
        let outcomes = transaction.run(changes).await;
        for (((at, place), outcome), opened) in whose.into_iter().zip(outcomes).zip(opened) {
            self.note_outcome(node, &observed[at], outcome, opened, now, &mut reports[at].places[place]);
            note_etag(&mut reports[at].places[place], opened, obtained[&at].etag.as_ref());
        }
    }

    /// Names, dates, trust, and that the fleet never goes back.
    fn may_install(&self, observed: &SiteObserved, before: &PlaceObserved, opened: &Opened, now: DateTime<Utc>) -> Result<(), Refusal> {
        opened.bundle.check(&observed.site.identifiers, now).map_err(|unfit| Refusal::Checks(unfit.to_string()))?;
        self.issuers.vouch_for(&observed.site, &opened.origin(), &opened.bundle, now).map_err(Refusal::Checks)?;
        may_replace(before, observed.mismatch, opened, now)
    }

    fn note_outcome(
        &self,
        node: &Node,
        observed: &SiteObserved,
        outcome: PlaceOutcome,
        opened: &Opened,
        now: DateTime<Utc>,
        report: &mut PlaceReport,
    ) {
        let ssl = &node.roots[report.root].ssl;
        let generation = opened.record.generation;
        report.changed = outcome.changed;
        report.served = outcome.served;
        report.problem = outcome.problem;
        if let Some(earlier) = outcome.stepped_back {
            let object = ssl.object(&observed.site.name, earlier).ok().flatten().unwrap_or_default();
            let opened = bundle_object::open(&self.seal, &observed.site.name, earlier, &object).ok();
            let stamp = ssl.stamp(&observed.site.name, earlier);
            report.known = opened.zip(stamp).map(|(opened, stamp)| known_place(ssl, &observed.site, &opened, stamp, now));
        }
        if !outcome.in_place {
            report.changed = false;
            return;
        }
        let before = report.known.take();
        let earlier = before.as_ref().map(|known| known.generation);
        let same = before.filter(|known| known.generation == generation && known.fingerprint == opened.bundle.leaf().fingerprint);
        let etag = same.and_then(|known| known.etag);
        let stamp = ssl.stamp(&observed.site.name, generation);
        let proven_by = outcome.proven.then(|| node.roots[report.root].servers_of(&observed.site.name));
        report.known = stamp.map(|stamp| KnownPlace { etag, proven_by, ..known_place(ssl, &observed.site, opened, stamp, now) });
        if outcome.proven {
            let keep: Vec<_> = earlier.into_iter().chain([generation]).collect();
            if let Err(error) = ssl.prune(&observed.site.name, &keep) {
                self.progress.warning(&format!("{}: an old generation was left behind: {}", observed.site.name, in_full(&error)));
            }
        }
    }
}

/// Whether what is installed is, by its ETag, what the datastore has under that number: then it need not be fetched to be judged.
fn is_listed(observed: &SiteObserved, generation: Generation, snapshot: &Snapshot) -> bool {
    let known = observed.places.iter().filter_map(|place| place.known.as_ref()).find(|known| known.generation == generation);
    known.is_some_and(|known| known.etag.as_deref() == snapshot.etag(&observed.site.name))
}

/// What was pushed to this node, if it is that generation: a generation has one content for ever.
fn delivered(node: &Node, site: &SiteName, generation: Generation) -> Option<Held> {
    let (delivered, object) = node.delivered.read(site).ok().flatten()?;
    (delivered == generation).then(|| Held { generation, object: object.into() })
}

fn note_obtained(report: &mut NodeSiteReport, obtained: &Obtained) {
    report.outcome = obtained.outcome;
    report.source = obtained.source;
    report.refilled = obtained.refilled.filter(|_| obtained.problem.is_none());
    report.problem.clone_from(&obtained.problem);
}

/// Whether what lies there was seen to be served.
fn is_proven(before: &PlaceObserved) -> bool {
    matches!(before.presence, Presence::Whole { serving: Serving::Proven, .. })
}

fn nowhere(site: &SiteName) -> Obtained {
    let what = "there is no certificate for it in the datastore, and this node makes none".to_owned();
    let hint = format!("`certfleet ensure {}` on the build machine makes one", site.in_shell());
    Obtained { outcome: Outcome::Failed, problem: Some(Problem { what, hint, retry_at: None }), ..Obtained::nothing() }
}

fn refused(what: String) -> Obtained {
    let hint = "`certfleet ensure` on the build machine passes it over, and publishes the next generation".to_owned();
    Obtained { outcome: Outcome::Degraded, problem: Some(Problem { what, hint, retry_at: None }), ..Obtained::nothing() }
}

fn not_installed(refusal: &Refusal, observed: &SiteObserved, opened: &Opened) -> Problem {
    let generation = opened.record.generation;
    let site = observed.site.name.in_shell();
    let (why, hint) = match refusal {
        Refusal::Checks(why) => (why, format!("`certfleet ensure {site}` on the build machine publishes one that serves, if it can")),
        Refusal::Sooner(why) => (why, format!("if it is meant, `certfleet rollback {site} --to {generation}` says so")),
    };
    Problem { what: format!("generation {generation} was not installed: {why}"), hint, retry_at: None }
}
