//! `ensure`: for each site a valid bundle, proven in the datastore and kept in runtimedata.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::time::Instant;

use super::Fleet;
use super::bundle_object::{self, Opened, Origin};
use super::gather::{Gathered, SiteWanted, supplied_origin};
use super::issue::{Commission, Issuance, problem};
use super::publish::{Published, publish};
use super::report::{InPlace, Outcome, PlannedSite, Problem, SiteReport};
use super::site_error::{MOST_LOOKS, SiteError};
use super::snapshot::Snapshot;
use crate::datastore::DatastoreError;
use crate::domain::bundle::Bundle;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::{Action, Intent, SitePlan, Source, plan};
use crate::domain::policy::{self, Due};
use crate::domain::record::{Holder, PassedOver};
use crate::domain::site::Site;

/// Sites that are worked on at the same time: most of the time goes into waiting for the store and the CA.
const SITES_AT_ONCE: usize = 16;

/// How long to wait before looking whether somebody else is done: soon at first, then less and less often.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

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
            let gathered = self.gather(wanted, snapshot, wanted.intent).await?;
            plans.push(PlannedSite { site: wanted.site.name.clone(), plan: plan(&gathered.evidence) });
        }
        Ok(plans)
    }

    async fn ensure_site(&self, wanted: &SiteWanted, snapshot: &Snapshot, deadline: Instant) -> SiteReport {
        let mut report = SiteReport {
            site: wanted.site.name.clone(),
            outcome: Outcome::Done,
            in_place: None,
            due: None,
            refused: Vec::new(),
            passed_over: Vec::new(),
            problem: None,
        };
        if let Err(error) = self.settle(wanted, snapshot, deadline, &mut report).await {
            report.outcome = error.outcome();
            report.problem = Some(problem(&error, error.hint()));
        }
        report
    }

    async fn settle(&self, wanted: &SiteWanted, first: &Snapshot, deadline: Instant, report: &mut SiteReport) -> Result<(), SiteError> {
        let site = &wanted.site;
        let mut snapshot = first.clone();
        let mut intent = wanted.intent;
        let mut waits = Waits::until(deadline);
        let mut looks = 0;
        while looks < MOST_LOOKS {
            looks += 1;
            if self.interrupt.is_cancelled() {
                return Err(SiteError::Interrupted);
            }
            let mut gathered = self.gather(wanted, &snapshot, intent).await?;
            let plan = plan(&gathered.evidence);
            report.refused.clone_from(&plan.refused);
            match &plan.action {
                Action::Keep(_) => {
                    let stored = gathered.stored.as_ref().ok_or(SiteError::Unsettled)?;
                    return self.settled(site, Source::Datastore, stored, report);
                }
                Action::Publish { from, generation } => match self.publish_found(wanted, &gathered, *from, *generation).await {
                    Ok(Some(opened)) => return self.settled(site, *from, &opened, report),
                    Ok(None) => {}
                    Err(error) if error.is_refusal() => {
                        if self.stand_by(wanted, &mut gathered, &plan, Failure::of(&error), report).await? {
                            return Ok(());
                        }
                    }
                    Err(error) => return Err(error),
                },
                Action::AskPerson { why } => {
                    report.due.clone_from(why);
                    let failure = Failure::from(ask_person(site, why.as_ref()));
                    if self.stand_by(wanted, &mut gathered, &plan, failure, report).await? {
                        return Ok(());
                    }
                }
                Action::Issue { generation, why } => {
                    report.due.clone_from(why);
                    let (generation, why) = (*generation, why.as_ref());
                    let commission = Commission { wanted, intent, generation, why, gathered: &gathered, snapshot: &snapshot };
                    match self.issue_if_allowed(&commission).await? {
                        Issuance::Proven(opened) => return self.settled(site, Source::Issued, &opened, report),
                        Issuance::LookAgain => {}
                        Issuance::Failed(problem, passed_over) => {
                            let failure = Failure { problem, passed_over };
                            if self.stand_by(wanted, &mut gathered, &plan, failure, report).await? {
                                return Ok(());
                            }
                        }
                        Issuance::Busy(holder) => {
                            self.progress.step(&site.name, &format!("{} is making generation {generation}: waiting", holder.node));
                            if !waits.wait(&self.interrupt).await {
                                return self.give_up_waiting(site, &gathered, &holder, generation, report);
                            }
                            looks = 0;
                        }
                    }
                }
            }
            let next = gathered.evidence.highest.next();
            snapshot = Snapshot::take_site(&*self.store, &site.name, next).await?;
            if snapshot.highest(&site.name) >= next {
                // Somebody has made a new one in the meantime: that is what --force asked for.
                intent = Intent::IfDue;
            }
        }
        Err(SiteError::Unsettled)
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
        match publish(&*self.store, &self.seal, name, generation, object).await? {
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
        report.outcome = Outcome::Temporary;
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
    fn place(&self, site: &Site, source: Source, opened: &Opened, report: &mut SiteReport) -> Result<(), SiteError> {
        self.runtimedata.keep(&site.name, &opened.bundle)?;
        let generation = opened.record.generation;
        report.in_place = Some(InPlace {
            source,
            generation,
            object: ObjectKey::bundle(&site.name, generation),
            leaf: opened.bundle.leaf().clone(),
            issuer: opened.record.issuer.clone(),
            class: opened.record.issuer_class,
            directory: self.runtimedata.directory(&site.name),
        });
        report.passed_over.clone_from(&opened.record.passed_over);
        if policy::makes_do(opened.candidate(), site) {
            report.outcome = Outcome::Degraded;
            report.problem = Some(makes_do(opened));
        }
        Ok(())
    }

    fn may_create(&self) -> Result<(), SiteError> {
        match self.creates {
            super::Creates::Exclusive => Ok(()),
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

/// The pauses of somebody who waits for another machine.
struct Waits {
    deadline: Instant,
    next: Duration,
}

impl Waits {
    fn until(deadline: Instant) -> Self {
        Self { deadline, next: FIRST_WAIT }
    }

    /// Waits a little; `false` when there is no time left.
    async fn wait(&mut self, interrupt: &tokio_util::sync::CancellationToken) -> bool {
        let now = Instant::now();
        if now >= self.deadline {
            return false;
        }
        let until = (now + self.next).min(self.deadline);
        self.next = (self.next * 3 / 2).min(LONGEST_WAIT);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = interrupt.cancelled() => {}
        }
        true
    }
}
