//! `rollback`: an earlier bundle becomes the next generation.
//!
//! Nothing is taken back: generations only go up, and the fleet follows the highest. What is published says which generation it
//! repeats, proven like all of it; without that no node accepts a bundle that expires sooner than the one it has.
//!
//! No lease is taken. Publication is fenced by the exclusive create: whoever holds a lease on the same generation finds it taken, and
//! follows.

use thiserror::Error;

use super::Fleet;
use super::bundle_object::{self, OpenError, Opened};
use super::publish::Published;
use super::report::{InPlace, Outcome, Problem, SiteReport};
use super::site_error::SiteError;
use super::snapshot::Snapshot;
use crate::datastore::{Datastore, DatastoreError};
use crate::domain::bundle::Unfit;
use crate::domain::object_key::{Generation, Listed, ObjectKey};
use crate::domain::plan::Source;
use crate::domain::policy;
use crate::domain::revocation::Reason;
use crate::domain::site::{Site, SiteName};
use crate::system::error_chain::in_full;

/// Which generation to go back to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target {
    /// The highest one that is usable, and not what is highest now.
    Previous,
    /// This one. The highest, too, has a use: nodes that refused it because it expires sooner are told that it is meant.
    Generation(Generation),
}

/// Why nothing was published, or why it could not be proven.
#[derive(Debug, Error)]
pub enum RollbackError {
    /// There is nothing to go back from.
    #[error("the datastore has no bundle of {0}")]
    Absent(SiteName),
    /// The generation was never published, or is gone.
    #[error("the datastore has no generation {generation} of {site}; it has {}", list(.there))]
    NoSuch {
        /// The site.
        site: SiteName,
        /// What was asked for.
        generation: Generation,
        /// What there is.
        there: Vec<Generation>,
    },
    /// It cannot be opened.
    #[error("{key} cannot be used")]
    Unusable {
        /// The object.
        key: ObjectKey,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// It opens, and cannot serve.
    #[error("generation {generation} cannot serve {site}")]
    Unfit {
        /// The site.
        site: SiteName,
        /// What was asked for.
        generation: Generation,
        /// Why.
        #[source]
        source: Unfit,
    },
    /// It can serve, and its chain leads nowhere that its issuer's should.
    #[error("the chain of generation {generation} of {site} is not trusted: {reason}")]
    Untrusted {
        /// The site.
        site: SiteName,
        /// What was asked for.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// Its certificate, or another of the same key, is revoked.
    #[error("generation {generation} of {site} has a key whose certificate is revoked ({reason})")]
    Revoked {
        /// The site.
        site: SiteName,
        /// What was asked for.
        generation: Generation,
        /// Why it is revoked.
        reason: Reason,
    },
    /// None of the earlier ones can serve.
    #[error("none of the earlier generations of {site} can serve: {}", reasons(.refused))]
    NoneUsable {
        /// The site.
        site: SiteName,
        /// What was looked at, and why it is no good.
        refused: Vec<String>,
    },
    /// Another machine published that generation a moment ago.
    #[error("another machine has published generation {generation} of {site} in the meantime")]
    Taken {
        /// The site.
        site: SiteName,
        /// What this run would have published.
        generation: Generation,
    },
    /// It may be published, or may not be: going back once more could go further back than was meant.
    #[error("it cannot be proven that generation {generation} of {site} was published")]
    Unproven {
        /// The site.
        site: SiteName,
        /// What this run was publishing.
        generation: Generation,
        /// What came in between.
        #[source]
        source: SiteError,
    },
    /// The store, the seal or a file, before anything was published.
    #[error(transparent)]
    Site(#[from] SiteError),
}

impl RollbackError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Absent(site) => format!("`certfleet ensure {}` makes one", site.in_shell()),
            Self::NoSuch { .. } => "name one of those with --to".to_owned(),
            Self::Unusable { .. } | Self::Unfit { .. } | Self::Untrusted { .. } | Self::Revoked { .. } => {
                "name another generation with --to".to_owned()
            }
            Self::NoneUsable { site, .. } => format!("`certfleet ensure {} --force` has a new one made", site.in_shell()),
            Self::Taken { .. } => "see `certfleet status`: if that one is no better, run the same command again".to_owned(),
            Self::Unproven { source, .. } => {
                format!("look at `certfleet status` before you run the same command again: it would go back from there; {}", source.hint())
            }
            Self::Site(error) => error.hint(),
        }
    }

    /// What it means for the run.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Taken { .. } => Outcome::Temporary,
            Self::Unproven { source: error, .. } | Self::Site(error) => error.outcome(),
            _ => Outcome::Failed,
        }
    }
}

impl From<DatastoreError> for RollbackError {
    fn from(error: DatastoreError) -> Self {
        Self::Site(error.into())
    }
}

impl Fleet {
    /// Publishes an earlier bundle as the next generation, and keeps it in runtimedata: what lay there would otherwise be published
    /// over it. The report says whether it is due already.
    pub async fn rollback(&self, site: &Site, target: Target, snapshot: &Snapshot) -> Result<SiteReport, RollbackError> {
        self.may_create()?;
        let name = &site.name;
        let there = generations(&*self.store, name).await?;
        let highest = *there.last().ok_or_else(|| RollbackError::Absent(name.clone()))?;
        let now = snapshot.clock().now();
        let earlier = match target {
            Target::Generation(generation) if there.contains(&generation) => self.usable(site, generation, snapshot).await?,
            Target::Generation(generation) => return Err(RollbackError::NoSuch { site: name.clone(), generation, there }),
            Target::Previous => self.previous(site, &there, snapshot).await?,
        };
        let generation = highest.next();
        self.progress.step(name, &format!("publishing generation {} again as generation {generation}", earlier.record.generation));
        let object = bundle_object::compose_again(&self.seal, name, generation, &earlier, &self.holder).map_err(SiteError::from)?;
        let opened = match self.publish(name, generation, object).await {
            Ok(Published::Proven(opened)) => opened,
            Ok(Published::Taken) => return Err(RollbackError::Taken { site: name.clone(), generation }),
            Err(error) => return Err(RollbackError::Unproven { site: name.clone(), generation, source: error.into() }),
        };
        let mut report = SiteReport::begin(name.clone());
        report.due = policy::due(opened.candidate(), site, now);
        if let Err(error) = self.place(site, Source::Earlier, &opened, &mut report) {
            published_only(&mut report, opened, &error);
        }
        Ok(report)
    }

    /// The highest usable one. What only bridged the time until a preferred issuer delivered is nothing to go back to from that issuer's.
    /// Where the highest of all is itself a step back, the next step starts from where that one led: a second
    /// `rollback` would otherwise return to what the first one left.
    async fn previous(&self, site: &Site, there: &[Generation], snapshot: &Snapshot) -> Result<Opened, RollbackError> {
        let highest = there.last().copied().unwrap_or_default();
        let current = self.opened(&site.name, highest).await;
        let (below, leaf, is_stopgap) = match &current {
            Ok(current) => {
                let record = &current.record;
                (record.rollback_to.unwrap_or(highest), Some(current.bundle.leaf()), record.issuer_class.is_stopgap())
            }
            Err(RollbackError::Unusable { .. } | RollbackError::NoSuch { .. }) => (highest, None, true),
            Err(_) => return current,
        };
        let mut refused = Vec::new();
        for generation in there.iter().rev().copied().filter(|generation| *generation < below) {
            match self.usable(site, generation, snapshot).await {
                Ok(earlier) if leaf.is_some_and(|leaf| leaf.fingerprint == earlier.bundle.leaf().fingerprint) => {}
                Ok(earlier) if earlier.record.issuer_class.is_stopgap() && !is_stopgap => {
                    refused.push(format!(
                        "generation {generation} is a stopgap of {}: if that is meant, name it with --to",
                        earlier.record.issuer
                    ));
                }
                Ok(earlier) => return Ok(earlier),
                Err(error @ RollbackError::Site(_)) => return Err(error),
                Err(error) => refused.push(in_full(&error)),
            }
        }
        Err(RollbackError::NoneUsable { site: site.name.clone(), refused })
    }

    /// A generation that opens, is valid now, covers the site, and leads where its issuer's chains must.
    async fn usable(&self, site: &Site, generation: Generation, snapshot: &Snapshot) -> Result<Opened, RollbackError> {
        let opened = self.opened(&site.name, generation).await?;
        let (name, now) = (&site.name, snapshot.clock().now());
        let check = opened.bundle.check(&site.identifiers, now);
        check.map_err(|source| RollbackError::Unfit { site: name.clone(), generation, source })?;
        let vouched = self.issuers.vouch_for(site, &opened.origin(), &opened.bundle, now);
        vouched.map_err(|reason| RollbackError::Untrusted { site: name.clone(), generation, reason })?;
        if let Some(revoked) = self.revocation(name, opened.bundle.leaf(), snapshot).await? {
            return Err(RollbackError::Revoked { site: name.clone(), generation, reason: revoked.reason });
        }
        Ok(opened)
    }

    async fn opened(&self, site: &SiteName, generation: Generation) -> Result<Opened, RollbackError> {
        let key = ObjectKey::bundle(site, generation);
        let Some(bytes) = self.store.get(&key).await? else {
            return Err(RollbackError::NoSuch { site: site.clone(), generation, there: Vec::new() });
        };
        bundle_object::open(&self.seal, site, generation, &bytes).map_err(|source| RollbackError::Unusable { key, source })
    }
}

/// Whether there is anything to go back from; told by one listing, without a lock, an identity or a write.
pub async fn must_have_bundles(store: &dyn Datastore, site: &SiteName) -> Result<(), RollbackError> {
    if generations(store, site).await?.is_empty() { Err(RollbackError::Absent(site.clone())) } else { Ok(()) }
}

/// Every generation that is there, in order.
pub(super) async fn generations(store: &dyn Datastore, site: &SiteName) -> Result<Vec<Generation>, DatastoreError> {
    let listing = store.list(&ObjectKey::bundles_prefix(site), None).await?;
    let listed = listing.entries.iter().filter_map(|entry| match entry.key.listed() {
        Listed::Bundle(listed, generation) if listed == *site => Some(generation),
        _ => None,
    });
    let mut there: Vec<_> = listed.collect();
    there.sort_unstable();
    Ok(there)
}

/// What was asked for is done: whoever is told that it failed repeats it, and goes back once more.
fn published_only(report: &mut SiteReport, opened: Box<Opened>, error: &SiteError) {
    let generation = opened.record.generation;
    report.outcome = Outcome::Degraded;
    report.problem = Some(Problem {
        what: format!("generation {generation} is published, but not kept in runtimedata: {}", in_full(error)),
        hint: format!("{}; then `certfleet ensure {}` keeps it, and no second rollback is needed", error.hint(), report.site.in_shell()),
        retry_at: None,
    });
    let object = ObjectKey::bundle(&report.site, generation);
    report.in_place = Some(InPlace { source: Source::Earlier, object, opened, directory: None });
}

fn list(generations: &[Generation]) -> String {
    let numbers: Vec<_> = generations.iter().map(ToString::to_string).collect();
    if numbers.is_empty() { "others".to_owned() } else { numbers.join(", ") }
}

fn reasons(refused: &[String]) -> String {
    if refused.is_empty() { "there are none with another certificate".to_owned() } else { refused.join("; ") }
}
