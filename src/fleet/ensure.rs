//! `ensure`: for each site a valid bundle, proven in the datastore and kept in runtimedata.

use futures_util::stream::{self, StreamExt as _};

use super::Fleet;
use super::bundle_object::{self, Opened, Origin};
use super::gather::{Gathered, Held, SiteWanted, supplied_origin};
use super::issue::{Commission, Issuance, problem};
use super::publish::Published;
use super::report::{InPlace, Outcome, PlannedSite, Problem, SiteReport};
use super::site_error::{MOST_LOOKS, SiteError};
use super::snapshot::Snapshot;
use super::wait::{Waited, Waits};
use super::windows::{Asking, Windows};
use crate::datastore::DatastoreError;
use crate::domain::bundle::Bundle;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::{Action, Found, Intent, SitePlan, Source, plan};
use crate::domain::policy::{self, Due};
use crate::domain::record::{Holder, IssuerClass, PassedOver};
use crate::domain::site::{Method, Site};
use crate::system::clock::Instant;

/// Sites that are worked on at the same time: most of the time goes into waiting for the store and the CA.
const SITES_AT_ONCE: usize = 16;

impl Fleet {
    /// Settles every site, several at a time. The reports come in the order of `wanted`.
    pub async fn ensure(&self, wanted: &[SiteWanted], snapshot: &Snapshot) -> Vec<SiteReport> {
        let deadline = Instant::now() + self.patience;
        let settle = |(index, wanted)| async move { (index, self.ensure_site(wanted, snapshot, deadline).await) };
        let mut reports: Vec<_> = stream::iter(wanted.iter().enumerate()).map(settle).buffer_unordered(SITES_AT_ONCE).collect().await;
        reports.sort_by_key(|(index, _)| *index);
        reports.into_iter().map(|(_, report)| report).collect()
    }

    /// What `ensure` would do, without doing any of it.
    pub async fn plans(&self, wanted: &[SiteWanted], snapshot: &Snapshot) -> Result<Vec<PlannedSite>, DatastoreError> {
        let mut plans = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let mut gathered = self.gather(wanted, snapshot, wanted.intent).await?;
            self.consider(&wanted.site, &mut gathered, snapshot, Asking::Never).await;
            plans.push(PlannedSite { site: wanted.site.name.clone(), plan: plan(&gathered.evidence) });
        }
        Ok(plans)
    }

    pub(super) async fn ensure_site(&self, wanted: &SiteWanted, snapshot: &Snapshot, deadline: Instant) -> SiteReport {
        let mut report = SiteReport::begin(wanted.site.name.clone());
        if let Err(error) = self.settle(wanted, snapshot, deadline, &mut report).await {
            report.outcome = error.outcome();
            report.problem = Some(problem(&error, error.hint()));
        }
        report
    }

    async fn settle(&self, wanted: &SiteWanted, first: &Snapshot, deadline: Instant, report: &mut SiteReport) -> Result<(), SiteError> {
        let site = &wanted.site;
        let mut snapshot = first.clone();
        let mut wanted = wanted.clone();
        let mut waits = Waits::until(deadline);
        let mut looks = 0;
        while looks < MOST_LOOKS {
            looks += 1;
            if self.interrupt.is_cancelled() {
                return Err(SiteError::Interrupted);
            }
            let mut gathered = self.gather(&wanted, &snapshot, wanted.intent).await?;
            // What is suggested was seen in the first listing: later ones show one generation alone.
            self.consider(site, &mut gathered, first, if looks == 1 { Asking::InTurn } else { Asking::Never }).await;
            let plan = plan(&gathered.evidence);
            report.refused.clone_from(&plan.refused);
            let next = gathered.evidence.highest.next();
            wanted.held = None;
            match &plan.action {
                Action::Keep(_) => {
                    let stored = gathered.stored.as_ref().ok_or(SiteError::Unsettled)?;
                    return self.settled(site, Source::Datastore, stored, report);
                }
                Action::Publish { from, generation } => match self.publish_found(&wanted, &gathered, *from, *generation).await {
                    Ok(Some(opened)) => return self.settled(site, *from, &opened, report),
                    Ok(None) => {}
                    Err(error) if error.is_refusal() => {
                        if self.stand_by(&wanted, &mut gathered, &plan, Failure::of(&error), report).await? {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error),
                },
                Action::AskPerson { why } => {
                    report.due.clone_from(why);
                    let failure = Failure::from(ask_person(site, why.as_ref()));
                    if self.stand_by(&wanted, &mut gathered, &plan, failure, report).await? {
                        return Ok(());
                    }
                }
                Action::Issue { generation, why } => {
                    report.due.clone_from(why);
                    let (generation, why) = (*generation, why.as_ref());
                    let commission = Commission { wanted: &wanted, generation, why, gathered: &gathered, snapshot: &snapshot };
                    match self.issue_if_allowed(&commission).await? {
                        Issuance::Proven(opened) => return self.settled(site, Source::Issued, &opened, report),
                        Issuance::LookAgain => {}
                        Issuance::Failed(problem, passed_over) => {
                            let failure = Failure { problem, passed_over };
                            if self.stand_by(&wanted, &mut gathered, &plan, failure, report).await? {
                                return Ok(());
                            }
                        }
                        Issuance::Busy(holder) => {
                            self.progress.step(&site.name, &format!("{} is making generation {generation}: waiting", holder.node));
                            looks = 0;
                            match self.wait_for(&site.name, generation, &mut waits).await? {
                                Waited::TooLong => return self.give_up_waiting(site, &gathered, &holder, generation, report),
                                Waited::LookAgain => {}
                                Waited::Made(object) => wanted.held = Some(Held { generation, object }),
                            }
                        }
                    }
                }
            }
            snapshot = match &wanted.held {
                Some(held) => snapshot.with_bundle(&site.name, held.generation),
                None => Snapshot::take_site(&*self.store, &site.name, next).await?.after(first),
            };
            if snapshot.highest(&site.name) >= next {
                // Somebody has made a new one in the meantime: that is what --force asked for.
                wanted.intent = Intent::IfDue;
            }
        }
        Err(SiteError::Unsettled)
    }

    /// Has a bundle that is not due yet be due where its CA suggests so.
    async fn consider(&self, site: &Site, gathered: &mut Gathered, snapshot: &Snapshot, asking: Asking) {
        let (Found::Usable(usable), Some(stored)) = (&mut gathered.evidence.stored, &gathered.stored) else { return };
        if usable.due.is_some() || site.method != Method::Automatic || stored.record.issuer_class != IssuerClass::Acme {
            return;
        }
        let windows =
            Windows { store: &*self.store, seal: &self.seal, issuers: &self.issuers, node: &self.holder.node, progress: &*self.progress };
        let known = windows.of(site, stored, snapshot, asking).await;
        usable.due = known.and_then(|known| known.window?.due(&site.name, &known.fingerprint, snapshot.clock().now()));
    }

    /// Has it issued. What the store refuses for good is a failure like an issuer's.
    async fn issue_if_allowed(&self, commission: &Commission<'_>) -> Result<Issuance, SiteError> {
        let issued = match self.may_create() {
            Ok(()) => self.issue(commission).await,
            Err(error) => Err(error),
        };
        match issued {
            Err(error) if error.is_refusal() => Ok(Issuance::Failed(problem(&error, error.hint()), Vec::new())),
            issued => issued,
        }
    }

    /// Publishes what was found here; `None` where the generation turned out to be taken.
    async fn publish_found(
        &self,
        wanted: &SiteWanted,
        gathered: &Gathered,
        from: Source,
        generation: Generation,
    ) -> Result<Option<Box<Opened>>, SiteError> {
        self.may_create()?;
        let name = &wanted.site.name;
        self.progress.step(name, &format!("publishing the bundle of {from} as generation {generation}"));
        let compose = |bundle: &Bundle, origin: &Origin| bundle_object::compose(&self.seal, name, generation, bundle, origin, &self.holder);
        let object = match (from, &gathered.spooled, &gathered.local, &wanted.supplied) {
            // The very bytes of the earlier try: if that had arrived after all, it is recognised.
            (Source::Spool, Some(spooled), ..) if spooled.opened.record.generation == generation => spooled.object.clone(),
            (Source::Spool, Some(spooled), ..) => compose(&spooled.opened.bundle, &spooled.opened.origin())?,
            (Source::Runtimedata, _, Some((bundle, origin)), _) => compose(bundle, origin)?,
            (Source::Supplied, _, _, Some(bundle)) => compose(bundle, &supplied_origin())?,
            _ => return Err(SiteError::Unsettled),
        };
        match self.publish(name, generation, object).await? {
            Published::Proven(opened) => Ok(Some(opened)),
            Published::Taken => Ok(None),
        }
    }

    /// Nothing new could be had: what still serves stays in place, and is proven in the datastore too. `false` where somebody else
    /// published meanwhile: then there is something new after all.
    async fn stand_by(
        &self,
        wanted: &SiteWanted,
        gathered: &mut Gathered,
        plan: &SitePlan,
        mut failure: Failure,
        report: &mut SiteReport,
    ) -> Result<bool, SiteError> {
        let site = &wanted.site;
        let next = gathered.evidence.highest.next();
        if let Some((_, origin)) = &mut gathered.local {
            // The bundle becomes the next generation, and the failure was recorded for that one: the retry times go along.
            origin.passed_over.extend(failure.passed_over.iter().cloned());
        }
        let in_place = match (plan.standby, &gathered.stored) {
            (Some(Source::Datastore), Some(stored)) => Some((Source::Datastore, Box::new(stored.clone()))),
            (None, _) => None,
            (Some(from), _) => match self.publish_found(wanted, gathered, from, next).await {
                Ok(None) => return Ok(false),
                Ok(Some(opened)) => Some((from, opened)),
                Err(error) => {
                    failure.also(&error);
                    None
                }
            },
        };
        report.outcome = Outcome::Failed;
        if let Some((source, opened)) = in_place {
            self.place(site, source, &opened, report)?;
            if source == Source::Spool {
                self.spool.clear(&site.name)?;
            }
            report.outcome = Outcome::Degraded;
        }
        report.passed_over = failure.passed_over;
        report.problem = Some(failure.problem);
        Ok(true)
    }

    /// Somebody else takes longer than we wait. What still serves stays in place; the next run finds the new one.
    fn give_up_waiting(
        &self,
        site: &Site,
        gathered: &Gathered,
        holder: &Holder,
        generation: Generation,
        report: &mut SiteReport,
    ) -> Result<(), SiteError> {
        if let Some(stored) = &gathered.stored {
            self.place(site, Source::Datastore, stored, report)?;
        }
        report.outcome = Outcome::Busy;
        let what = format!("{} has been making generation {generation} for longer than this run waits", holder.node);
        let hint = "run the same command again in a few minutes".to_owned();
        report.problem = Some(Problem { what, hint, retry_at: None });
        Ok(())
    }

    /// The end of a run that has what it wanted: the spool has done its duty.
    fn settled(&self, site: &Site, source: Source, opened: &Opened, report: &mut SiteReport) -> Result<(), SiteError> {
        self.place(site, source, opened, report)?;
        Ok(self.spool.clear(&site.name)?)
    }

    /// Copies a proven bundle to runtimedata and writes it into the report. What is in the spool stays there: it may be a newer one,
    /// which could not be published.
    pub(super) fn place(&self, site: &Site, source: Source, opened: &Opened, report: &mut SiteReport) -> Result<(), SiteError> {
        if let Some(runtimedata) = &self.runtimedata {
            runtimedata.keep(&site.name, &opened.bundle)?;
        }
        report.in_place = Some(InPlace {
            source,
            object: ObjectKey::bundle(&site.name, opened.record.generation),
            opened: Box::new(opened.clone()),
            directory: self.runtimedata.as_ref().map(|runtimedata| runtimedata.directory(&site.name)),
        });
        report.passed_over.clone_from(&opened.record.passed_over);
        if policy::makes_do(opened.candidate(), site) {
            report.outcome = Outcome::Degraded;
            report.problem = Some(makes_do(opened));
        }
        Ok(())
    }

    pub(super) fn may_create(&self) -> Result<(), SiteError> {
        match self.creates {
            super::Creates::Exclusive | super::Creates::BestEffort => Ok(()),
            super::Creates::Refused => Err(SiteError::NotExclusive),
        }
    }
}

struct Failure {
    problem: Problem,
    passed_over: Vec<PassedOver>,
}

impl Failure {
    fn of(error: &SiteError) -> Self {
        problem(error, error.hint()).into()
    }

    /// A second thing that went wrong.
    fn also(&mut self, error: &SiteError) {
        let also = problem(error, error.hint());
        self.problem.what = format!("{}; moreover, what still serves could not be published: {}", self.problem.what, also.what);
        self.problem.hint = format!("{}; {}", self.problem.hint, also.hint);
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, passed_over: Vec::new() }
    }
}

fn ask_person(site: &Site, why: Option<&Due>) -> Problem {
    let why = why.map_or_else(|| "there is no valid certificate for it".to_owned(), ToString::to_string);
    let what = format!("its method is manual, and {why}");
    let hint = format!("certfleet import {} --fullchain FILE --privkey FILE", site.name.in_shell());
    Problem { what, hint, retry_at: None }
}

fn makes_do(opened: &Opened) -> Problem {
    let passed = &opened.record.passed_over;
    let reasons = passed.iter().map(|passed| format!("{}: {}", passed.issuer, passed.reason)).collect::<Vec<_>>().join("; ");
    Problem {
        what: format!("it makes do with a certificate of {}, because a preferred issuer did not deliver: {reasons}", opened.record.issuer),
        hint: "clients that do not know this issuer will refuse it: see why the preferred one did not deliver".to_owned(),
        retry_at: passed.iter().map(|passed| passed.retry_at).min(),
    }
}
