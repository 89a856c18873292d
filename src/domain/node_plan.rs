//! What to do for one site on a node: a value, decided from what lies there and in the datastore, before anything is done.

use chrono::{DateTime, Utc};

use super::object_key::Generation;
use super::policy::Due;

/// What lies at `live/<site>` of one directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Presence {
    /// Nothing.
    Absent,
    /// A directory that others made (ADT, certbot): it is adopted.
    Adoptable {
        /// The last second of the certificate in it, where it serves the site.
        not_after: Option<DateTime<Utc>>,
    },
    /// A generation of ours with files that are missing, mixed, altered or unreadable, and which.
    Broken(String),
    /// Something that certfleet neither made nor adopts, and what.
    Refused(String),
    /// A generation of ours, every file as it was installed.
    Whole {
        /// Which.
        generation: Generation,
        /// The last second of its leaf.
        not_after: DateTime<Utc>,
        /// Whether the servers were seen to serve it.
        serving: Serving,
    },
}

/// What is known of the servers that should serve a generation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serving {
    /// They were seen to, after it was installed.
    Proven,
    /// They were seen to, and it is time to look again.
    Stale,
    /// Nobody has looked since it was installed: the run that installed it may have been killed before the reload.
    Unknown,
}

/// What this node may do about a site that is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// Stand for election, and renew.
    Renew,
    /// Wait for whoever renews.
    Follow,
    /// Install what there is, whether it is due or not.
    Bootstrap,
}

/// Everything that the decision rests on.
#[derive(Clone, Debug)]
pub struct NodeEvidence {
    /// The highest generation in the datastore; 0 where there is none.
    pub highest: Generation,
    /// What lies in each directory that the site is installed into.
    pub places: Vec<Presence>,
    /// Why the newest installed bundle should be replaced, if it should.
    pub due: Option<Due>,
    /// What this node may do.
    pub part: Part,
    /// Whether the highest generation is installed, and may lie in the datastore with another content by now.
    pub compare: bool,
}

/// What to do for a site on this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeSitePlan {
    /// The datastore has lost a generation that is installed here: put it back, under its number.
    pub refill: Option<Generation>,
    /// Where the bundle comes from.
    pub obtain: Obtain,
    /// What to do in each directory, in the order of [`NodeEvidence::places`].
    pub places: Vec<PlaceStep>,
}

/// Where the bundle to install comes from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Obtain {
    /// Nothing is to be installed.
    Nothing,
    /// There is none anywhere, and this node does not renew.
    Nowhere,
    /// This generation, from the datastore, or from another directory of this node. A node that renews does so if it proves to be due.
    Take(Generation),
    /// Nothing, unless this generation, which is installed, has another content in the datastore: then that.
    Compare(Generation),
    /// A new one: by this node, if it is elected.
    Renew {
        /// What it becomes.
        generation: Generation,
        /// Why; `None` where there is none at all.
        why: Option<Due>,
    },
    /// A new one, if somebody is making it right now.
    Await {
        /// What it becomes.
        generation: Generation,
        /// Why.
        why: Due,
    },
}

/// What to do in one directory.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PlaceStep {
    /// All is as it should be.
    Nothing,
    /// Install the bundle.
    Install,
    /// The bundle is there: see that it is served.
    Prove,
    /// A person has to look: what is there is not touched.
    Refuse(String),
}

impl Presence {
    fn whole(&self) -> Option<Generation> {
        match self {
            Self::Whole { generation, .. } => Some(*generation),
            _ => None,
        }
    }
}

impl NodeSitePlan {
    /// Whether the datastore is needed beyond its listing.
    pub fn needs_the_store(&self) -> bool {
        self.refill.is_some() || !matches!(self.obtain, Obtain::Nothing | Obtain::Nowhere)
    }

    /// Whether there is nothing to do.
    pub fn is_quiet(&self) -> bool {
        self.refill.is_none() && self.obtain == Obtain::Nothing && self.places.iter().all(|step| *step == PlaceStep::Nothing)
    }
}

/// Decides.
pub fn plan(evidence: &NodeEvidence) -> NodeSitePlan {
    let newest = evidence.places.iter().filter_map(Presence::whole).max().unwrap_or_default();
    let current = newest.max(evidence.highest);
    let obtain = obtain(evidence, newest, current);
    let replaced = matches!(obtain, Obtain::Renew { .. } | Obtain::Await { .. });
    let step = |presence: &Presence| match presence {
        Presence::Refused(why) => PlaceStep::Refuse(why.clone()),
        Presence::Whole { generation, serving, .. } if *generation == current => match serving {
            _ if replaced => PlaceStep::Install,
            Serving::Proven => PlaceStep::Nothing,
            Serving::Stale | Serving::Unknown => PlaceStep::Prove,
        },
        _ if obtain == Obtain::Nowhere => PlaceStep::Nothing,
        _ => PlaceStep::Install,
    };
    let places = evidence.places.iter().map(step).collect();
    let lost = newest > evidence.highest && evidence.part != Part::Bootstrap;
    NodeSitePlan { refill: lost.then_some(newest), obtain, places }
}

fn obtain(evidence: &NodeEvidence, newest: Generation, current: Generation) -> Obtain {
    let installable = |presence: &&Presence| !matches!(presence, Presence::Refused(_));
    match (&evidence.due, evidence.part) {
        _ if evidence.places.iter().filter(installable).count() == 0 => Obtain::Nothing,
        (_, Part::Renew) if current == Generation::default() => Obtain::Renew { generation: current.next(), why: None },
        _ if current == Generation::default() => Obtain::Nowhere,
        // Whether a newer one is due is seen once it is here.
        _ if evidence.highest > newest => Obtain::Take(current),
        (Some(why), Part::Renew) => Obtain::Renew { generation: current.next(), why: Some(why.clone()) },
        // Compared first, once: the next run knows what lies there, and waits.
        (Some(_), Part::Follow) if evidence.compare => Obtain::Compare(current),
        (Some(why), Part::Follow) => Obtain::Await { generation: current.next(), why: why.clone() },
        _ if evidence.places.iter().filter(installable).any(|presence| presence.whole() != Some(current)) => Obtain::Take(current),
        _ if evidence.compare => Obtain::Compare(current),
        _ => Obtain::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(generation: u64, serving: Serving) -> Presence {
        Presence::Whole { generation: Generation(generation), not_after: DateTime::UNIX_EPOCH, serving }
    }

    fn planned(highest: u64, places: &[Presence], due: Option<Due>, part: Part) -> NodeSitePlan {
        plan(&NodeEvidence { highest: Generation(highest), places: places.to_vec(), due, part, compare: false })
    }

    #[test]
    fn what_may_have_another_content_is_compared_unless_more_is_to_be_done() {
        let compared = |highest, due, part| {
            let places = vec![whole(4, Serving::Proven)];
            plan(&NodeEvidence { highest: Generation(highest), places, due, part, compare: true })
        };
        let plan = compared(4, None, Part::Follow);
        assert_eq!((plan.obtain, plan.places), (Obtain::Compare(Generation(4)), vec![PlaceStep::Nothing]));
        assert_eq!(compared(5, None, Part::Follow).obtain, Obtain::Take(Generation(5)));
        let due = Some(Due::Forced);
        assert_eq!(compared(4, due.clone(), Part::Follow).obtain, Obtain::Compare(Generation(4)), "before it is waited for");
        let renewed = Obtain::Renew { generation: Generation(5), why: due.clone() };
        assert_eq!(compared(4, due, Part::Renew).obtain, renewed, "whoever renews reads it in any case");
    }

    #[test]
    fn nothing_is_done_where_everything_is_in_place() {
        for part in [Part::Renew, Part::Follow, Part::Bootstrap] {
            let plan = planned(4, &[whole(4, Serving::Proven), whole(4, Serving::Proven)], None, part);
            assert!(plan.is_quiet(), "{plan:?}");
        }
    }

    #[test]
    fn the_newest_is_taken_and_an_older_one_never() {
        let (install, nothing) = (PlaceStep::Install, PlaceStep::Nothing);
        for (highest, place, obtain, step, refill) in [
            (4, Presence::Absent, Obtain::Take(Generation(4)), install.clone(), None),
            (4, Presence::Adoptable { not_after: None }, Obtain::Take(Generation(4)), install.clone(), None),
            (4, Presence::Broken("altered".to_owned()), Obtain::Take(Generation(4)), install.clone(), None),
            (4, whole(3, Serving::Proven), Obtain::Take(Generation(4)), install.clone(), None),
            (3, whole(4, Serving::Proven), Obtain::Nothing, nothing.clone(), Some(Generation(4))),
            (0, whole(4, Serving::Proven), Obtain::Nothing, nothing.clone(), Some(Generation(4))),
            (4, whole(4, Serving::Unknown), Obtain::Nothing, PlaceStep::Prove, None),
            (4, whole(4, Serving::Stale), Obtain::Nothing, PlaceStep::Prove, None),
        ] {
            let plan = planned(highest, std::slice::from_ref(&place), None, Part::Follow);
            assert_eq!((plan.obtain, plan.places, plan.refill), (obtain, vec![step], refill), "{place:?}");
        }
    }

    #[test]
    fn only_renewers_renew() {
        let here = [whole(4, Serving::Proven)];
        let due = Some(Due::Forced);
        let next = Generation(5);
        assert_eq!(planned(4, &here, due.clone(), Part::Renew).obtain, Obtain::Renew { generation: next, why: due.clone() });
        assert_eq!(planned(4, &here, due.clone(), Part::Follow).obtain, Obtain::Await { generation: next, why: Due::Forced });
        assert!(planned(4, &here, due.clone(), Part::Bootstrap).is_quiet());
        assert!(planned(3, &here, None, Part::Bootstrap).is_quiet(), "a first boot only reads");
        // Whoever is behind catches up first.
        assert_eq!(planned(5, &here, due, Part::Renew).obtain, Obtain::Take(next));
    }

    #[test]
    fn where_there_is_none_at_all_it_is_made_or_missed() {
        let first = Obtain::Renew { generation: Generation(1), why: None };
        assert_eq!(planned(0, &[Presence::Absent], None, Part::Renew).obtain, first);
        for part in [Part::Follow, Part::Bootstrap] {
            let plan = planned(0, &[Presence::Absent], None, part);
            assert_eq!((plan.obtain, plan.places), (Obtain::Nowhere, vec![PlaceStep::Nothing]));
        }
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        let refused = Presence::Refused("a file".to_owned());
        let plan = planned(4, &[refused.clone(), whole(3, Serving::Proven)], None, Part::Renew);
        assert_eq!(plan.places, [PlaceStep::Refuse("a file".to_owned()), PlaceStep::Install]);
        assert_eq!(planned(0, &[refused], None, Part::Renew).obtain, Obtain::Nothing);
    }
}
