//! What nobody needs any more, decided from one listing and the nodes' reports. Values in, values out.
//!
//! Whatever is not certain to be ours, and certain not to be needed, stays.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::fleet_status::ObservedNode;
use super::object_key::{Generation, Listed, ObjectKey};
use super::site::SiteName;

/// Nothing younger is deleted but leases: whoever published it, or looks at it, may not be done.
const YOUNG: TimeDelta = TimeDelta::days(1);

/// What is to stay.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retention {
    /// The number of generations of each site, whether they can serve or not; the highest stays even for 0.
    pub keep: usize,
    /// The report of a node that has been silent for longer goes.
    pub vanished_after: Duration,
}

/// What is there.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// The store's time.
    pub now: DateTime<Utc>,
    /// Every object, with the time it was last stored.
    pub objects: Vec<(ObjectKey, DateTime<Utc>)>,
    /// Every node that has a report.
    pub nodes: Vec<ObservedNode>,
}

/// What to delete.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PrunePlan {
    /// The objects, and why nobody needs them.
    pub delete: Vec<(ObjectKey, Needless)>,
    /// Nodes whose needs are unknown, and why. For their sake no bundle is deleted.
    pub unknown: Vec<(String, String)>,
}

/// Why nobody needs an object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Needless {
    /// There are enough later generations, and no node has this one.
    OldGeneration,
    /// The generation that it was for is published.
    OldLease,
    /// A race of creates that is long over.
    OldProbe,
    /// The report of a node that has vanished.
    VanishedNode,
    /// The answer to a challenge that no CA looks at any more.
    OldChallenge,
}

impl Needless {
    /// The stable name, for machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::OldGeneration => "old-generation",
            Self::OldLease => "old-lease",
            Self::OldProbe => "old-probe",
            Self::VanishedNode => "vanished-node",
            Self::OldChallenge => "old-challenge",
        }
    }
}

/// Decides.
pub fn prune(inventory: &Inventory, retention: Retention) -> PrunePlan {
    let vanished_after = TimeDelta::from_std(retention.vanished_after).unwrap_or(TimeDelta::MAX);
    let is_old = |at: &DateTime<Utc>| inventory.now - *at >= YOUNG;
    let mut generations: BTreeMap<SiteName, BTreeSet<Generation>> = BTreeMap::new();
    for (key, _) in &inventory.objects {
        if let Listed::Bundle(site, generation) = key.listed() {
            generations.entry(site).or_default().insert(generation);
        }
    }
    let needs = Needs::of(&inventory.nodes);
    let is_needless = |(key, at): &(ObjectKey, DateTime<Utc>)| match key.listed() {
        Listed::Bundle(site, generation) => {
            let later = generations.get(&site).map_or(0, |all| all.range(generation.next()..).count());
            let goes = later >= retention.keep.max(1) && is_old(at) && !needs.include(&site, generation);
            goes.then_some(Needless::OldGeneration)
        }
        Listed::Lease(site, generation, _) | Listed::Candidacy(site, generation, ..) => {
            let highest = generations.get(&site).and_then(BTreeSet::last);
            highest.is_some_and(|highest| generation <= *highest).then_some(Needless::OldLease)
        }
        Listed::Probe => is_old(at).then_some(Needless::OldProbe),
        Listed::Challenge(_) => is_old(at).then_some(Needless::OldChallenge),
        Listed::Node(name) => {
            let node = inventory.nodes.iter().find(|node| node.name == name)?;
            (inventory.now - node.last_run() > vanished_after).then_some(Needless::VanishedNode)
        }
        // A key that must not come back must not be forgotten.
        Listed::Manifest | Listed::Window(_) | Listed::Revocation(..) | Listed::Other => None,
    };
    let delete = inventory.objects.iter().filter_map(|object| Some((object.0.clone(), is_needless(object)?))).collect();
    PrunePlan { delete, unknown: needs.unknown }
}

/// What nodes have, whatever the age of their reports.
struct Needs {
    installed: BTreeSet<(String, Generation)>,
    /// Sites of which some server presents a certificate that is not the one installed: nobody knows which generation that is.
    uncertain: BTreeSet<String>,
    unknown: Vec<(String, String)>,
}

impl Needs {
    fn of(nodes: &[ObservedNode]) -> Self {
        let mut needs = Self { installed: BTreeSet::new(), uncertain: BTreeSet::new(), unknown: Vec::new() };
        for node in nodes {
            let report = match &node.report {
                Ok(report) => report,
                Err(reason) => {
                    needs.unknown.push((node.name.clone(), reason.clone()));
                    continue;
                }
            };
            for entry in &report.sites {
                let installed = entry.installed.as_ref();
                needs.installed.extend(installed.map(|installed| (entry.site.clone(), installed.generation)));
                let presented = entry.servers.iter().filter_map(|server| server.fingerprint.as_ref());
                if presented.into_iter().any(|presented| installed.is_none_or(|installed| installed.fingerprint != *presented)) {
                    needs.uncertain.insert(entry.site.clone());
                }
            }
        }
        needs
    }

    fn include(&self, site: &SiteName, generation: Generation) -> bool {
        let name = site.file_name();
        !self.unknown.is_empty() || self.uncertain.contains(&name) || self.installed.contains(&(name, generation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::node_report::{Installed, InstalledSite, NodeReport, Served};

    fn at(days: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time") + TimeDelta::days(days)
    }

    fn node(name: &str, last_run_days: i64, sites: Vec<InstalledSite>) -> ObservedNode {
        let report = NodeReport {
            version: 1,
            node: name.to_owned(),
            certfleet: String::new(),
            last_run: at(last_run_days),
            clock_offset_secs: 0,
            sites,
        };
        ObservedNode { name: name.to_owned(), reported_at: at(last_run_days), report: Ok(report) }
    }

    fn has(generation: u64, presents: &str) -> InstalledSite {
        let installed = Installed { generation: Generation(generation), fingerprint: "own".to_owned(), not_after: at(99) };
        let server = Served { target: "nginx".to_owned(), address: None, fingerprint: Some(presents.to_owned()), checked_at: Some(at(0)) };
        InstalledSite {
            site: "a.example".to_owned(),
            ssl_root: "/etc/ssl".to_owned(),
            installed: Some(installed),
            servers: vec![server],
            problem: None,
        }
    }

    /// Every object as old as said in days, `now` being day 0.
    fn plan(keep: usize, objects: &[(&str, i64)], nodes: Vec<ObservedNode>) -> Vec<String> {
        let objects = objects.iter().map(|(key, day)| (ObjectKey::from_listing(key).expect("a key"), at(*day))).collect();
        let retention = Retention { keep, vanished_after: Duration::from_secs(30 * 86_400) };
        let plan = prune(&Inventory { now: at(0), objects, nodes }, retention);
        plan.delete.iter().map(|(key, why)| format!("{key} {}", why.name())).collect()
    }

    const FIVE: [(&str, i64); 5] = [
        ("bundles/a.example/0000000001", -90),
        ("bundles/a.example/0000000002", -80),
        ("bundles/a.example/0000000003", -70),
        ("bundles/a.example/0000000007", -60),
        ("bundles/a.example/0000000009", -50),
    ];

    fn old(generations: &[u64]) -> Vec<String> {
        generations.iter().map(|generation| format!("bundles/a.example/{generation:010} old-generation")).collect()
    }

    #[test]
    fn the_highest_generations_of_each_site_stay() {
        assert_eq!(plan(3, &FIVE, vec![]), old(&[1, 2]));
        assert_eq!(plan(1, &FIVE, vec![]), old(&[1, 2, 3, 7]));
        assert_eq!(plan(0, &FIVE, vec![]), old(&[1, 2, 3, 7]), "the highest never goes");
        assert_eq!(plan(9, &FIVE, vec![]), old(&[]));
        let mut two = FIVE.to_vec();
        two.push(("bundles/b.example/0000000001", -90));
        assert_eq!(plan(1, &two, vec![]), old(&[1, 2, 3, 7]), "another site has a number of its own");
    }

    #[test]
    fn what_a_node_has_stays_whatever_the_age_of_its_report() {
        assert_eq!(plan(1, &FIVE, vec![node("ws-1", 0, vec![has(2, "own")])]), old(&[1, 3, 7]));
        assert_eq!(plan(1, &FIVE, vec![node("ws-1", -300, vec![has(2, "own")])]), old(&[1, 3, 7]));
        assert_eq!(plan(1, &FIVE, vec![node("ws-1", 0, vec![has(9, "another")])]), old(&[]), "which one it serves is not known");
    }

    #[test]
    fn what_is_young_stays() {
        let mut young = FIVE;
        young[0].1 = 0;
        assert_eq!(plan(3, &young, vec![]), old(&[2]));
    }

    #[test]
    fn an_unreadable_report_keeps_every_bundle() {
        let unreadable = ObservedNode { report: Err("it is damaged".to_owned()), ..node("ws-1", 0, vec![]) };
        assert_eq!(plan(1, &FIVE, vec![unreadable, node("ws-2", 0, vec![has(9, "own")])]), old(&[]));
    }

    #[test]
    fn leases_of_what_is_published_go_and_those_of_what_is_not_stay() {
        let objects = [
            ("bundles/a.example/0000000002", 0),
            ("leases/a.example/0000000001-0001", 0),
            ("leases/a.example/0000000002-0003", 0),
            ("leases/a.example/0000000002-0003-000102030405060708090a0b0c0d0e0f", 0),
            ("leases/a.example/0000000003-0001", -300),
            ("leases/a.example/0000000003-0001-000102030405060708090a0b0c0d0e0f", -300),
            ("leases/b.example/0000000001-0001", -300),
        ];
        let goes = [
            "leases/a.example/0000000001-0001 old-lease",
            "leases/a.example/0000000002-0003 old-lease",
            "leases/a.example/0000000002-0003-000102030405060708090a0b0c0d0e0f old-lease",
        ];
        assert_eq!(plan(3, &objects, vec![]), goes);
    }

    #[test]
    fn reports_of_vanished_nodes_and_old_probes_go() {
        let probe = format!("probes/{}-03", "0f".repeat(16));
        let objects = [("nodes/ws-1", -29), ("nodes/ws-2", -31), (probe.as_str(), -1)];
        let nodes = vec![node("ws-1", -29, vec![]), node("ws-2", -31, vec![])];
        assert_eq!(plan(3, &objects, nodes), ["nodes/ws-2 vanished-node".to_owned(), format!("{probe} old-probe")]);
        assert!(plan(3, &[(probe.as_str(), 0)], vec![]).is_empty());
    }

    #[test]
    fn answers_that_were_left_behind_go_after_a_day() {
        assert_eq!(plan(3, &[("challenges/token_-1", -1)], vec![]), ["challenges/token_-1 old-challenge"]);
        assert!(plan(3, &[("challenges/token_-1", 0), ("challenges/deep/1", -9)], vec![]).is_empty());
    }

    #[test]
    fn what_is_not_ours_stays() {
        let objects = [
            ("certfleet.json", -300),
            ("accounts/letsencrypt", -300),
            ("probes/notes", -300),
            ("probes/deep/0", -300),
            ("bundles/a.example/readme", -300),
            ("backup/bundles/a.example/0000000001", -300),
            ("nodes/ws-1/x", -300),
            ("bundles/a.example/0000000001", -300),
        ];
        assert!(plan(0, &objects, vec![]).is_empty());
    }
}
