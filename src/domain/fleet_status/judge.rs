//! The rules by which something needs a person.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};

use super::{BundleFacts, NodeState, NodeStatus, ObservedBundle, ObservedLease, ObservedNode, ObservedSite, SiteStatus};
use crate::domain::attention::{Attention, Concern};
use crate::domain::node_report::{InstalledSite, NodeProblem, Served};
use crate::domain::object_key::Generation;
use crate::domain::policy::{self, Due};
use crate::domain::record::LeaseState;
use crate::domain::site::{Method, Site, SiteName};

/// A clock that differs by more than this from the store's is named: it is what a CA's and a store's may differ by, too.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// Whoever judges: what it has found so far that needs a person.
pub(super) struct Judge {
    now: DateTime<Utc>,
    stale: TimeDelta,
    attention: Vec<Attention>,
}

impl Judge {
    pub(super) fn new(now: DateTime<Utc>, stale: TimeDelta) -> Self {
        Self { now, stale, attention: Vec::new() }
    }

    pub(super) fn into_attention(self) -> Vec<Attention> {
        self.attention
    }

    fn say(&mut self, site: Option<&SiteName>, node: Option<&str>, concern: Concern) {
        self.attention.push(Attention { site: site.cloned(), node: node.map(str::to_owned), concern });
    }

    pub(super) fn node(&mut self, observed: ObservedNode) -> NodeStatus {
        let last_run = observed.last_run();
        let name = observed.name;
        let silent = self.now - last_run > self.stale;
        if silent {
            self.say(None, Some(&name), Concern::Silent { since: last_run });
        }
        let report = match observed.report {
            Ok(report) => Some(report),
            Err(reason) => {
                self.say(None, Some(&name), Concern::ReportUnreadable(reason));
                None
            }
        };
        let offset_secs = report.as_ref().map_or(0, |report| report.clock_offset_secs);
        if !silent && offset_secs.unsigned_abs() > CLOCK_TOLERANCE.num_seconds().unsigned_abs() {
            self.say(None, Some(&name), Concern::ClockWrong { offset_secs });
        }
        NodeStatus { node: name, last_run, silent, report, worst: None }
    }

    pub(super) fn site(&mut self, observed: ObservedSite, entries: &[(&NodeStatus, &InstalledSite)], nodes: &[NodeStatus]) -> SiteStatus {
        let ObservedSite { site, generation, published_at, bundle, lease } = observed;
        let name = &site.name;
        let bundle = match bundle {
            ObservedBundle::Read(facts) => Some(facts),
            ObservedBundle::Absent => {
                self.say(Some(name), None, Concern::NoBundle);
                None
            }
            ObservedBundle::Unreadable(reason) => {
                self.say(Some(name), None, Concern::Unusable(reason));
                None
            }
        };
        let due = bundle.as_ref().map(|facts| policy::due_at(facts.candidate(), &site, self.now));
        let is_due = due.as_ref().is_some_and(|(at, _)| *at <= self.now);
        let is_usable = bundle.as_ref().is_some_and(|facts| self.why_unusable(&site, facts).is_none());
        if let (Some(facts), Some((_, due))) = (&bundle, &due) {
            self.bundle(&site, facts, (is_due && !lease.is_alive()).then_some(due));
        }
        let lease = match lease {
            ObservedLease::Absent => None,
            ObservedLease::Unreadable(reason) => {
                self.say(Some(name), None, Concern::LeaseUnreadable(reason));
                None
            }
            ObservedLease::Read(lease) => {
                // Where nothing is due, a person's `--force` failed: that person was told, and nobody tries again before it is due.
                if let LeaseState::Failed { reason, retry_at } = &lease.record.state
                    && (is_due || !is_usable)
                {
                    let (by, reason) = (lease.record.holder.node.clone(), reason.clone());
                    self.say(Some(name), None, Concern::RenewalFailed { by, reason, retry_at: *retry_at });
                }
                Some(*lease)
            }
        };
        let mut states: BTreeMap<String, NodeState> = BTreeMap::new();
        let leaf = bundle.as_ref().map(|facts| facts.leaf.fingerprint.as_str());
        for (node, entry) in entries {
            let highest = Highest { generation, leaf, published_at };
            let state = self.installed(name, node, entry, highest);
            let worst = states.entry(node.node.clone()).or_insert(NodeState::Serving);
            if state > *worst {
                *worst = state;
            }
        }
        let seen_by = |node: &NodeStatus| !node.silent && node.report.is_some() && published_at.is_some_and(|at| node.last_run > at);
        if entries.is_empty() && nodes.iter().any(seen_by) {
            self.say(Some(name), None, Concern::Nowhere);
        }
        SiteStatus { site: site.name, generation, published_at, bundle, due, lease, nodes: states, worst: None }
    }

    /// Why the highest bundle cannot serve; `None` where it can.
    fn why_unusable(&self, site: &Site, facts: &BundleFacts) -> Option<String> {
        let unfit = facts.leaf.check(&site.identifiers, self.now).err();
        unfit.map(|unfit| unfit.to_string()).or_else(|| facts.untrusted.clone())
    }

    /// What is to be said about the highest bundle. `due` is the rule by which it should have been renewed, and nobody is at it.
    fn bundle(&mut self, site: &Site, facts: &BundleFacts, due: Option<&Due>) {
        let name = Some(&site.name);
        if let Some(reason) = self.why_unusable(site, facts) {
            return self.say(name, None, Concern::Unusable(reason));
        }
        match due {
            Some(due) if site.method == Method::Manual => self.say(name, None, Concern::AskPerson(due.clone())),
            Some(&Due::Expiry { left, threshold }) if left <= threshold / 2 => {
                self.say(name, None, Concern::Expiring { left, threshold });
            }
            Some(Due::Expiry { threshold, .. }) if self.now - (facts.leaf.not_after - *threshold) > self.stale => {
                self.say(name, None, Concern::Overdue { since: facts.leaf.not_after - *threshold });
            }
            _ => {}
        }
        if policy::makes_do(facts.candidate(), site) {
            let passed = facts.record.passed_over.iter().map(|passed| format!("{}: {}", passed.issuer, passed.reason));
            let reason = passed.collect::<Vec<_>>().join("; ");
            self.say(name, None, Concern::Stopgap { issuer: facts.record.issuer.clone(), reason });
        }
    }

    /// How a site stands in one directory of a node.
    fn installed(&mut self, site: &SiteName, node: &NodeStatus, entry: &InstalledSite, highest: Highest<'_>) -> NodeState {
        if node.silent {
            return NodeState::Silent;
        }
        let at = (Some(site), Some(node.node.as_str()));
        if let Some(problem) = &entry.problem {
            self.say(at.0, at.1, node_problem(problem));
        }
        let wrong = entry.installed.as_ref().and_then(|installed| not_served(&entry.servers, &installed.fingerprint));
        let not_served = wrong.is_some();
        if let Some(concern) = wrong {
            self.say(at.0, at.1, concern);
        }
        if let Some(problem) = &entry.problem {
            return NodeState::Failing(problem.what.clone());
        }
        let has = entry.installed.as_ref().map(|installed| installed.generation);
        if has.is_none_or(|has| has < highest.generation) {
            let has_run_since = highest.published_at.is_some_and(|at| node.last_run > at || self.now - at > self.stale);
            if highest.generation > Generation(0) && has_run_since {
                self.say(at.0, at.1, Concern::Lagging { has, wanted: highest.generation });
            }
            return NodeState::Lagging(has);
        }
        let Some(installed) = &entry.installed else { return NodeState::Lagging(None) };
        if installed.generation > highest.generation {
            self.say(at.0, at.1, Concern::Ahead(installed.generation));
            return NodeState::Ahead(installed.generation);
        }
        if highest.leaf.is_some_and(|leaf| leaf != installed.fingerprint) {
            self.say(at.0, at.1, Concern::Differs(installed.generation));
            return NodeState::Differs;
        }
        let probed = entry.servers.iter().all(|server| server.fingerprint.is_some());
        match entry.servers.is_empty() {
            _ if not_served => NodeState::NotServed,
            false if probed => NodeState::Serving,
            _ => NodeState::NotProbed,
        }
    }

    /// A site that nodes have, and this configuration does not.
    pub(super) fn forgotten(&mut self, site: &str, entries: &[(&NodeStatus, &InstalledSite)]) {
        let site = SiteName::from_file_name(site).ok();
        for (node, entry) in entries.iter().filter(|(node, _)| !node.silent) {
            if let Some(problem) = &entry.problem {
                self.say(site.as_ref(), Some(&node.node), node_problem(problem));
            }
        }
    }
}

fn node_problem(problem: &NodeProblem) -> Concern {
    Concern::NodeProblem { what: problem.what.clone(), hint: problem.hint.clone(), since: problem.since }
}

/// What the nodes should have.
#[derive(Clone, Copy)]
struct Highest<'a> {
    generation: Generation,
    leaf: Option<&'a str>,
    published_at: Option<DateTime<Utc>>,
}

/// The first server that presents something else than what is installed. One that was never asked says nothing.
fn not_served(servers: &[Served], installed: &str) -> Option<Concern> {
    let wrong = servers.iter().find(|server| server.checked_at.is_some() && server.fingerprint.as_deref() != Some(installed))?;
    let address = wrong.address.as_deref()?;
    Some(Concern::NotServed { server: format!("{} at {address}", wrong.target), presents: wrong.fingerprint.clone() })
}
