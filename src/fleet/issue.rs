//! Having a new bundle made, under a lease: elected, ordered, spooled, published, proven.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Fleet;
use super::budget::Ordered;
use super::bundle_object::{self, Opened, Origin};
use super::election::{Candidacy, Candidate};
use super::gather::{Gathered, SiteWanted};
use super::lease::HeldLease;
use super::publish::Published;
use super::report::Problem;
use super::site_error::SiteError;
use super::snapshot::{Snapshot, StoreClock};
use crate::domain::bundle::{Bundle, Unfit};
use crate::domain::lease::{Patience, retry_delay};
use crate::domain::object_key::Generation;
use crate::domain::plan::Intent;
use crate::domain::policy::{self, Due};
use crate::domain::private_key::PrivateKey;
use crate::domain::record::{Holder, LeaseRecord, LeaseState, PassedOver, Wanted};
use crate::domain::site::Site;
use crate::issuer::acme::AccountsError;
use crate::issuer::{IssueError, LeaseEnded, Order, Request};
use crate::system::error_chain::in_full;

/// A stopgap is made when what is in place serves no longer than this: a build machine that runs every night runs once more by then.
const STOPGAP_BEFORE: Duration = Duration::from_secs(36 * 3_600);

/// How an issuance went.
pub(super) enum Issuance {
    /// The new bundle is in the datastore, and passed over are those issuers that were asked first.
    Proven(Box<Opened>),
    /// Something has changed in the datastore: look again.
    LookAgain,
    /// Somebody else is at work.
    Busy(Holder),
    /// No issuer delivered, now or at an earlier try that is too recent to be repeated.
    Failed(Problem, Vec<PassedOver>),
}

/// What is to be made, and why.
pub(super) struct Commission<'a> {
    pub(super) wanted: &'a SiteWanted,
    pub(super) generation: Generation,
    pub(super) why: Option<&'a Due>,
    pub(super) gathered: &'a Gathered,
    pub(super) snapshot: &'a Snapshot,
}

/// Why asking had to stop, for reasons that say nothing about the issuers.
enum Stopped {
    Lease(LeaseEnded),
    Account(AccountsError),
}

/// An issuer's answer, in the order in which they were asked.
struct Asked {
    made: Option<(Bundle, Origin)>,
    passed_over: Vec<PassedOver>,
    hint: String,
}

impl Fleet {
    /// Stands for election, and has the bundle made if it is won.
    pub(super) async fn issue(&self, commission: &Commission<'_>) -> Result<Issuance, SiteError> {
        let site = &commission.wanted.site;
        let patience = if commission.wanted.intent == Intent::Force { Patience::Overruled } else { Patience::Obeyed };
        let generation = commission.generation;
        let (store, creates) = (&self.store, self.creates);
        let candidate = Candidate { store, site: &site.name, generation, holder: &self.holder, patience, creates };
        match candidate.run(commission.snapshot, &self.interrupt).await? {
            Candidacy::Made => Ok(Issuance::LookAgain),
            Candidacy::Busy(holder) => Ok(Issuance::Busy(holder)),
            Candidacy::Interrupted => Err(SiteError::Interrupted),
            Candidacy::Waiting { reason, retry_at, passed_over } => {
                let hint = format!("`certfleet ensure --force {}` tries now", site.name.in_shell());
                let what = format!("making generation {generation} failed lately: {reason}");
                Ok(Issuance::Failed(Problem { what, hint, retry_at: Some(retry_at) }, passed_over))
            }
            Candidacy::Won(lease) => self.make(commission, lease, patience).await,
        }
    }

    async fn make(&self, commission: &Commission<'_>, lease: HeldLease, patience: Patience) -> Result<Issuance, SiteError> {
        let site = &commission.wanted.site;
        if let Err(error) = self.spool.make_room() {
            self.give_back(site, lease).await;
            return Err(error.into());
        }
        let ordered = match self.ordered_lately(commission).await {
            Ok(ordered) => ordered,
            Err(error) => {
                self.give_back(site, lease).await;
                return Err(error.into());
            }
        };
        let asked = match self.ask(commission, &lease, patience, &ordered).await {
            // An issuer that refuses may refuse what a successor has finished by now, and that is no failure of the fleet's.
            Ok(asked) if asked.made.is_none() && lease.is_superseded().await? => Err(Stopped::Lease(lease.taken_over())),
            asked => asked,
        };
        let asked = match asked {
            Ok(asked) => asked,
            Err(Stopped::Lease(LeaseEnded::Interrupted)) => {
                self.give_back(site, lease).await;
                return Err(SiteError::Interrupted);
            }
            Err(Stopped::Account(error)) => {
                self.give_back(site, lease).await;
                return Err(SiteError::Account(error));
            }
            Err(Stopped::Lease(LeaseEnded::Lost(why))) => {
                if let Some(error) = lease.take_failure() {
                    if matches!(error, SiteError::File(_)) {
                        self.give_back(site, lease).await;
                    }
                    return Err(error);
                }
                self.progress.step(&site.name, &format!("the lease was lost ({why}): looking again"));
                return Ok(Issuance::LookAgain);
            }
        };
        let Some((bundle, origin)) = asked.made else {
            return self.fail(commission, lease, asked.passed_over, asked.hint).await;
        };
        let object = bundle_object::compose(&self.seal, &site.name, commission.generation, &bundle, &origin, &self.holder)?;
        self.spool.keep(&site.name, &object)?;
        self.progress.step(&site.name, "publishing");
        let published = self.publish(&site.name, commission.generation, object).await?;
        // Whether that can be written down changes nothing: the generation is there, and whoever looks finds it.
        drop(lease.end(|record| record.state = LeaseState::Done).await);
        match published {
            Published::Proven(opened) => Ok(Issuance::Proven(opened)),
            // Ours stays in the spool until what was published instead is proven.
            Published::Taken => Ok(Issuance::LookAgain),
        }
    }

    /// Gives the lease back after something else has failed. That is what the run ends with; a lease that stays only grows old.
    async fn give_back(&self, site: &Site, lease: HeldLease) {
        if let Err(error) = lease.release().await {
            let why = in_full(&error);
            self.progress
                .warning(&format!("{}: moreover, the lease could not be given back (others wait two minutes for it): {why}", site.name));
        }
    }

    /// Asks the issuers in order until one delivers.
    async fn ask(&self, commission: &Commission<'_>, lease: &HeldLease, patience: Patience, ordered: &[Ordered]) -> Result<Asked, Stopped> {
        let site = &commission.wanted.site;
        let clock = commission.snapshot.clock();
        let now = clock.now();
        let candidate = commission.gathered.stored.as_ref().map(Opened::candidate);
        let earlier = lease.record().await;
        // What the bundle in place was passed over with binds as well: it may have been published after the failure that says so.
        let bound: Vec<_> =
            earlier.passed_over.iter().chain(candidate.iter().flat_map(|candidate| candidate.passed_over)).cloned().collect();
        let mut asked = Asked { made: None, passed_over: Vec::new(), hint: String::new() };
        // Who cannot be asked here says nothing about whether another machine can.
        let here = |name: &&str| self.issuers.get(site, name).is_none_or(|named| named.issuer.is_some());
        let worth = |name: &&str| !self.is_needless_stopgap(site, name, candidate, now);
        let names = policy::issuers_to_ask(candidate, commission.why, site, now);
        for name in names.into_iter().filter(here).filter(worth) {
            let early = bound.iter().find(|passed| passed.issuer == name && now < passed.retry_at);
            if let Some(early) = early.filter(|_| patience == Patience::Obeyed) {
                asked.passed_over.push(early.clone());
                continue;
            }
            // What was ordered already is only fetched.
            let resumes = !self.unfinished(site, name, &wanted(site), &earlier).is_empty();
            if let Some(over) = self.over_budget(site, name, ordered, now).filter(|_| !resumes) {
                if patience == Patience::Obeyed {
                    let (reason, retry_at) = (format!("it was not asked: {over}"), whole_seconds(over.until));
                    asked.hint =
                        format!("`certfleet ensure --force {}` asks all the same, and may use up what is left", site.name.in_shell());
                    asked.passed_over.push(PassedOver { issuer: name.to_owned(), reason, retry_at });
                    continue;
                }
                self.progress.warning(&format!("{}: {name} may refuse: {over}", site.name));
            }
            match self.ask_one(site, name, clock, &earlier, lease).await {
                Ok((bundle, class)) => {
                    let passed_over = asked.passed_over.clone();
                    let profile = site.profile_name().map(str::to_owned);
                    asked.made = Some((bundle, Origin { issuer: name.to_owned(), class, profile, passed_over }));
                    return Ok(asked);
                }
                Err(IssueError::Ended(ended)) => return Err(Stopped::Lease(ended)),
                Err(IssueError::Account(error)) => return Err(Stopped::Account(error)),
                Err(IssueError::Refused { reason, hint, retry_after }) => {
                    self.progress.step(&site.name, &format!("{name} could not deliver: {reason}"));
                    // Counted from the answer: the issuer may have taken minutes for it.
                    let retry_at = whole_seconds(clock.now() + retry_delay(earlier.failures.saturating_add(1), retry_after));
                    asked.passed_over.push(PassedOver { issuer: name.to_owned(), reason, retry_at });
                    asked.hint = hint;
                }
            }
        }
        Ok(asked)
    }

    /// A stopgap bridges the time until a preferred issuer delivers: where what is in place still serves for a while, none is needed.
    fn is_needless_stopgap(&self, site: &Site, name: &str, candidate: Option<policy::Candidate<'_>>, now: DateTime<Utc>) -> bool {
        let lesser = site.issuers.first().is_some_and(|first| first != name);
        let stopgap = self.issuers.get(site, name).is_some_and(|named| named.class.is_stopgap());
        let serves = candidate.is_some_and(|candidate| !candidate.class.is_stopgap() && policy::left(candidate.leaf, now) > STOPGAP_BEFORE);
        lesser && stopgap && serves
    }

    async fn ask_one(
        &self,
        site: &Site,
        name: &str,
        clock: StoreClock,
        earlier: &LeaseRecord,
        lease: &HeldLease,
    ) -> Result<(Bundle, crate::domain::record::IssuerClass), IssueError> {
        let refused = |reason: String, hint: &str| IssueError::Refused { reason, hint: hint.to_owned(), retry_after: None };
        let Some(named) = self.issuers.get(site, name) else {
            return Err(refused(format!("there is no issuer {name}"), "add an [issuer] table for it"));
        };
        let Some(issuer) = &named.issuer else {
            return Err(refused(format!("{name} cannot be asked on this machine"), "renew on a machine that has what it needs"));
        };
        self.progress.step(&site.name, &format!("{name}: asking for {}", names(site)));
        let wanted = wanted(site);
        let mut unfinished = self.unfinished(site, name, &wanted, earlier).into_iter();
        let mut request = Request {
            identifiers: site.identifiers.clone(),
            key_type: site.key_type,
            profile: site.profile.clone(),
            now: clock.now(),
            unfinished: unfinished.next(),
            other_unfinished: unfinished.next(),
        };
        let lease = lease.for_issuer(name, wanted, self);
        let mut bundle = issuer.issue(&request, &lease).await?;
        while request.unfinished.is_some() && matches!(bundle.check(&site.identifiers, clock.now()), Err(Unfit::Expired { .. })) {
            // The order was finished long ago, and what came of it has run out since.
            request.unfinished = request.other_unfinished.take();
            bundle = issuer.issue(&request, &lease).await?;
        }
        if let Err(unfit) = bundle.check(&site.identifiers, clock.now()) {
            return Err(refused(format!("what it issued cannot serve: {unfit}"), "check this issuer with its operator"));
        }
        if let Err(reason) = named.anchors.vouch_for(&bundle, clock.now()) {
            let hint = "set chain_trust of this issuer to the root that its chains lead to; what it issued is fetched again then";
            return Err(refused(format!("what it issued is not trusted: {reason}"), hint));
        }
        Ok((bundle, named.class))
    }

    /// The orders of earlier attempts with the same issuer for the same thing, if the fleet itself wrote them down: first the one on this
    /// disk, then the lease's. A lease that was written over by another machine has lost the order that was in it.
    fn unfinished(&self, site: &Site, issuer: &str, wanted: &Wanted, earlier: &LeaseRecord) -> Vec<Order> {
        let kept = self.spool.order(&site.name).filter(|kept| kept.generation == earlier.generation);
        let orders = kept.map(|kept| kept.order).into_iter().chain(earlier.order.clone());
        let alike = orders.filter(|order| order.issuer == issuer && order.wanted == *wanted);
        let opened = alike.filter_map(|order| {
            // An order whose key does not open can only be placed anew; the old one runs out by itself.
            let beside = order.beside(&earlier.site, earlier.generation);
            let key = PrivateKey::from_pem(&self.seal.open(&order.key, &beside.each_ref().map(String::as_str)).ok()?).ok()?;
            Some(Order { url: order.url, key })
        });
        let mut opened: Vec<_> = opened.collect();
        opened.dedup_by(|lease, disk| lease.url == disk.url);
        opened
    }

    async fn fail(
        &self,
        commission: &Commission<'_>,
        lease: HeldLease,
        passed_over: Vec<PassedOver>,
        hint: String,
    ) -> Result<Issuance, SiteError> {
        let now = commission.snapshot.clock().now();
        let failures = lease.record().await.failures.saturating_add(1);
        let soonest = passed_over.iter().map(|passed| passed.retry_at).min();
        let retry_at = soonest.unwrap_or_else(|| whole_seconds(now + retry_delay(failures, None::<Duration>)));
        let reason = passed_over.iter().map(|passed| format!("{}: {}", passed.issuer, passed.reason)).collect::<Vec<_>>().join("; ");
        let reason = if reason.is_empty() { "no issuer may be asked now".to_owned() } else { reason };
        let (recorded, tried) = (reason.clone(), passed_over.clone());
        lease
            .end(move |record| {
                record.state = LeaseState::Failed { reason: recorded, retry_at };
                record.failures = failures;
                record.passed_over = tried;
            })
            .await?;
        Ok(Issuance::Failed(Problem { what: reason, hint, retry_at: Some(retry_at) }, passed_over))
    }
}

fn wanted(site: &Site) -> Wanted {
    let mut identifiers: Vec<_> = site.identifiers.iter().map(ToString::to_string).collect();
    identifiers.sort();
    Wanted { identifiers, key_type: site.key_type, profile: site.profile_name().map(str::to_owned) }
}

/// The next whole second: a time that people are told is the time that is kept.
fn whole_seconds(time: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp(time.timestamp() + i64::from(time.timestamp_subsec_nanos() > 0), 0).unwrap_or(time)
}

fn names(site: &Site) -> String {
    site.identifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The text of a failure that only one error describes.
pub(super) fn problem(error: &dyn std::error::Error, hint: String) -> Problem {
    Problem { what: in_full(error), hint, retry_at: None }
}
