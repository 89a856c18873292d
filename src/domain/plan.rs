//! What to do for one site on the build machine: a value, decided from what was found, before anything is done.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::object_key::Generation;
use super::policy::Due;
use super::site::Method;

/// The places a bundle is looked for, in the order in which they serve.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// The fleet's datastore.
    Datastore,
    /// A bundle that an earlier run was given by a CA and could not upload.
    Spool,
    /// The build machine's own files.
    Runtimedata,
    /// A person, in this run.
    Supplied,
    /// An issuer, in this run.
    Issued,
    /// An earlier generation, published again in this run.
    Earlier,
}

/// What was found in one place.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Found {
    /// Nothing.
    #[default]
    Absent,
    /// Something that cannot serve, and why.
    Refused(String),
    /// A bundle that can serve now.
    Usable(Usable),
}

/// A bundle that can serve now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Usable {
    /// SHA-256 of its leaf.
    pub fingerprint: String,
    /// Its last second.
    pub not_after: DateTime<Utc>,
    /// Why it should be replaced, if it should.
    pub due: Option<Due>,
}

/// Everything that the decision rests on.
#[derive(Clone, Debug)]
pub struct Evidence {
    /// How the site comes by its certificates.
    pub method: Method,
    /// The highest generation in the datastore, whatever its state; 0 where there is none.
    pub highest: Generation,
    /// The highest generation in the datastore.
    pub stored: Found,
    /// The spool.
    pub spooled: Found,
    /// The runtimedata.
    pub local: Found,
    /// What a person supplied in this run.
    pub supplied: Found,
    /// What was asked for.
    pub intent: Intent,
}

/// What was asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intent {
    /// A valid bundle: renew only what is due.
    IfDue,
    /// A new bundle, whatever there is.
    Force,
}

/// What to do for a site.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SitePlan {
    /// The step.
    pub action: Action,
    /// Where a bundle that still serves lies, should the step fail.
    pub standby: Option<Source>,
    /// What was found and cannot serve.
    pub refused: Vec<(Source, String)>,
}

/// The one step of a plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// The datastore's bundle serves: copy it to runtimedata where that differs.
    Keep(Generation),
    /// Publish what was found elsewhere.
    Publish {
        /// Where it was found.
        from: Source,
        /// What it becomes.
        generation: Generation,
    },
    /// Have a new one issued, under a lease.
    Issue {
        /// What it becomes.
        generation: Generation,
        /// Why the stored one must go; `None` where there is none that serves.
        why: Option<Due>,
    },
    /// Only a person can supply it.
    AskPerson {
        /// Why the stored one must go; `None` where there is none that serves.
        why: Option<Due>,
    },
}

impl Found {
    fn usable(&self) -> Option<&Usable> {
        match self {
            Self::Usable(usable) => Some(usable),
            Self::Absent | Self::Refused(_) => None,
        }
    }

    fn fresh(&self) -> Option<&Usable> {
        self.usable().filter(|usable| usable.due.is_none())
    }
}

/// Decides. The order is that of the sources: datastore, spool, runtimedata, a new one. What a person supplies comes before all.
pub fn plan(evidence: &Evidence) -> SitePlan {
    let places = [(Source::Datastore, &evidence.stored), (Source::Spool, &evidence.spooled), (Source::Runtimedata, &evidence.local)];
    let refused = places.iter().filter_map(|(source, found)| match found {
        Found::Refused(reason) => Some((*source, reason.clone())),
        Found::Absent | Found::Usable(_) => None,
    });
    let standby = places.iter().find(|(_, found)| found.usable().is_some()).map(|(source, _)| *source);
    SitePlan { action: action(evidence), standby, refused: refused.collect() }
}

fn action(evidence: &Evidence) -> Action {
    let generation = evidence.highest.next();
    let stored = evidence.stored.usable();
    if let Some(supplied) = evidence.supplied.usable() {
        return match stored {
            Some(stored) if stored.fingerprint == supplied.fingerprint => Action::Keep(evidence.highest),
            _ => Action::Publish { from: Source::Supplied, generation },
        };
    }
    let why = match evidence.intent {
        Intent::Force => Some(Due::Forced),
        Intent::IfDue => {
            if evidence.stored.fresh().is_some() {
                return Action::Keep(evidence.highest);
            }
            // The fleet never goes back to a bundle that ends sooner than the one it has, nor publishes the same one again. Another that
            // ends in the same second is welcome: leaves end with their root at the latest, and then all in the same second.
            let gains =
                |found: &Usable| stored.is_none_or(|stored| found.not_after >= stored.not_after && found.fingerprint != stored.fingerprint);
            for (from, found) in [(Source::Spool, &evidence.spooled), (Source::Runtimedata, &evidence.local)] {
                if found.fresh().is_some_and(gains) {
                    return Action::Publish { from, generation };
                }
            }
            stored.and_then(|stored| stored.due.clone())
        }
    };
    match evidence.method {
        Method::Automatic => Action::Issue { generation, why },
        Method::Manual => Action::AskPerson { why },
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Datastore => "datastore",
            Self::Spool => "spool",
            Self::Runtimedata => "runtimedata",
            Self::Supplied => "supplied",
            Self::Issued => "issued",
            Self::Earlier => "earlier",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DAY: i64 = 86_400;

    fn usable(days: i64, due: bool) -> Found {
        let left = Duration::from_secs(u64::try_from(days * DAY).expect("days ahead"));
        let due = due.then_some(Due::Expiry { left, threshold: Duration::from_secs(604_800) });
        let not_after = DateTime::from_timestamp(1_800_000_000 + days * DAY, 0).expect("a time");
        Found::Usable(Usable { fingerprint: format!("leaf of {days} days"), not_after, due })
    }

    fn fresh(days: i64) -> Found {
        usable(days, false)
    }

    fn old(days: i64) -> Found {
        usable(days, true)
    }

    fn broken() -> Found {
        Found::Refused("damaged".to_owned())
    }

    fn evidence(stored: Found, spooled: Found, local: Found) -> Evidence {
        let highest = if stored == Found::Absent { Generation(0) } else { Generation(4) };
        let (method, intent) = (Method::Automatic, Intent::IfDue);
        Evidence { method, highest, stored, spooled, local, supplied: Found::Absent, intent }
    }

    fn expiry(found: &Found) -> Option<Due> {
        found.usable().and_then(|usable| usable.due.clone())
    }

    #[test]
    fn the_first_source_that_serves_is_taken() {
        let publish = |from, generation| Action::Publish { from, generation: Generation(generation) };
        let issue = |generation, found: &Found| Action::Issue { generation: Generation(generation), why: expiry(found) };
        let rows = [
            (evidence(fresh(60), Found::Absent, Found::Absent), Action::Keep(Generation(4))),
            (evidence(fresh(60), fresh(89), fresh(80)), Action::Keep(Generation(4))),
            (evidence(Found::Absent, Found::Absent, fresh(60)), publish(Source::Runtimedata, 1)),
            (evidence(Found::Absent, fresh(89), fresh(60)), publish(Source::Spool, 1)),
            (evidence(broken(), Found::Absent, fresh(60)), publish(Source::Runtimedata, 5)),
            (evidence(old(6), Found::Absent, fresh(60)), publish(Source::Runtimedata, 5)),
            (evidence(old(6), fresh(89), Found::Absent), publish(Source::Spool, 5)),
            (evidence(Found::Absent, Found::Absent, Found::Absent), issue(1, &Found::Absent)),
            (evidence(broken(), broken(), broken()), issue(5, &Found::Absent)),
            (evidence(old(6), Found::Absent, old(3)), issue(5, &old(6))),
            (evidence(Found::Absent, Found::Absent, old(3)), issue(1, &Found::Absent)),
        ];
        for (evidence, action) in rows {
            assert_eq!(plan(&evidence).action, action, "{evidence:?}");
        }
    }

    #[test]
    fn the_fleet_never_goes_back_to_a_bundle_that_ends_sooner() {
        // Not due by its own rules (a longer renew_before would be needed), yet older than what is stored.
        let evidence = evidence(old(20), fresh(10), fresh(15));
        assert!(matches!(plan(&evidence).action, Action::Issue { .. }));
    }

    #[test]
    fn one_that_ends_in_the_same_second_is_published_unless_it_is_the_same() {
        let mut other = fresh(6);
        let Found::Usable(usable) = &mut other else { panic!("a usable bundle") };
        usable.fingerprint = "another leaf".to_owned();
        let spooled = Action::Publish { from: Source::Spool, generation: Generation(5) };
        assert_eq!(plan(&evidence(old(6), other, Found::Absent)).action, spooled);
        assert!(matches!(plan(&evidence(old(6), fresh(6), Found::Absent)).action, Action::Issue { .. }));
    }

    #[test]
    fn what_still_serves_is_remembered_for_the_case_of_failure() {
        assert_eq!(plan(&evidence(old(6), Found::Absent, old(3))).standby, Some(Source::Datastore));
        assert_eq!(plan(&evidence(broken(), Found::Absent, old(3))).standby, Some(Source::Runtimedata));
        assert_eq!(plan(&evidence(broken(), Found::Absent, Found::Absent)).standby, None);
    }

    #[test]
    fn what_was_refused_is_told() {
        let plan = plan(&evidence(broken(), Found::Absent, broken()));
        assert_eq!(plan.refused, [(Source::Datastore, "damaged".to_owned()), (Source::Runtimedata, "damaged".to_owned())]);
    }

    #[test]
    fn a_person_comes_first_but_never_publishes_the_same_twice() {
        let mut evidence = evidence(fresh(60), Found::Absent, Found::Absent);
        evidence.supplied = fresh(30);
        assert_eq!(plan(&evidence).action, Action::Publish { from: Source::Supplied, generation: Generation(5) });
        evidence.supplied = fresh(60);
        assert_eq!(plan(&evidence).action, Action::Keep(Generation(4)));
    }

    #[test]
    fn force_makes_a_new_one_and_manual_sites_ask() {
        let mut evidence = evidence(fresh(60), Found::Absent, Found::Absent);
        evidence.intent = Intent::Force;
        assert_eq!(plan(&evidence).action, Action::Issue { generation: Generation(5), why: Some(Due::Forced) });
        evidence.method = Method::Manual;
        assert_eq!(plan(&evidence).action, Action::AskPerson { why: Some(Due::Forced) });
    }
}
