//! What `status --json` prints: see docs/json.md.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::cli::rendering;
use crate::domain::attention::{Attention, Concern};
use crate::domain::fleet_status::{BundleFacts, FleetStatus, NodeState, NodeStatus, Proof, SiteStatus};
use crate::domain::lease::{Latest, TIME_TO_LIVE};
use crate::domain::node_report::InstalledSite;
use crate::domain::object_key::{Attempt, Generation, ObjectKey};
use crate::domain::policy::Due;
use crate::domain::record::{IssuerClass, LeaseState};
use crate::domain::time::rfc3339;

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    now: String,
    attention: Vec<AttentionAnswer>,
    sites: Vec<SiteAnswer<'a>>,
    nodes: Vec<NodeAnswer<'a>>,
}

#[derive(Serialize)]
struct AttentionAnswer {
    reason: &'static str,
    site: Option<String>,
    node: Option<String>,
    what: String,
    hint: String,
}

#[derive(Serialize)]
struct SiteAnswer<'a> {
    site: String,
    attention: Option<&'static str>,
    generation: Generation,
    published_at: Option<String>,
    object: Option<String>,
    bundle: Option<BundleAnswer<'a>>,
    due: Option<DueAnswer>,
    lease: Option<LeaseAnswer<'a>>,
    serving: usize,
    nodes: Vec<StateAnswer<'a>>,
}

#[derive(Serialize)]
struct BundleAnswer<'a> {
    issuer: &'a str,
    issuer_class: IssuerClass,
    identifiers: Vec<String>,
    not_before: String,
    not_after: String,
    serial: &'a str,
    fingerprint_sha256: &'a str,
    proven: bool,
    rollback_to: Option<Generation>,
}

#[derive(Serialize)]
struct DueAnswer {
    at: String,
    rule: &'static str,
    why: String,
}

#[derive(Serialize)]
struct LeaseAnswer<'a> {
    generation: Generation,
    attempt: Attempt,
    node: &'a str,
    state: &'static str,
    age_secs: u64,
    failures: u32,
    reason: Option<&'a str>,
    retry_at: Option<String>,
}

#[derive(Serialize)]
struct StateAnswer<'a> {
    node: &'a str,
    state: &'static str,
    generation: Option<Generation>,
    problem: Option<&'a str>,
}

#[derive(Serialize)]
struct NodeAnswer<'a> {
    node: &'a str,
    attention: Option<&'static str>,
    last_run: String,
    silent: bool,
    clock_offset_secs: Option<i64>,
    certfleet: Option<&'a str>,
    sites: &'a [InstalledSite],
}

/// The answer as one JSON document.
pub(super) fn document(status: &FleetStatus) -> String {
    rendering::document(&Answer {
        version: 1,
        now: rfc3339(&status.now),
        attention: status.attention.iter().map(attention).collect(),
        sites: status.sites.iter().map(site).collect(),
        nodes: status.nodes.iter().map(node).collect(),
    })
}

fn attention(one: &Attention) -> AttentionAnswer {
    AttentionAnswer {
        reason: one.concern.name(),
        site: one.site.as_ref().map(ToString::to_string),
        node: one.node.clone(),
        what: one.concern.to_string(),
        hint: one.hint(),
    }
}

fn site(status: &SiteStatus) -> SiteAnswer<'_> {
    let generation = status.generation;
    SiteAnswer {
        site: status.site.to_string(),
        attention: status.worst.as_ref().map(Concern::name),
        generation,
        published_at: status.published_at.as_ref().map(rfc3339),
        object: (generation > Generation(0)).then(|| ObjectKey::bundle(&status.site, generation).to_string()),
        bundle: status.bundle.as_deref().map(bundle),
        due: status.due.as_ref().map(due),
        lease: status.lease.as_ref().map(lease),
        serving: status.serving(),
        nodes: status.nodes.iter().map(|(name, state)| state_answer(name, state, generation)).collect(),
    }
}

fn bundle(facts: &BundleFacts) -> BundleAnswer<'_> {
    let (leaf, record) = (&facts.leaf, &facts.record);
    BundleAnswer {
        issuer: &record.issuer,
        issuer_class: record.issuer_class,
        identifiers: leaf.identifiers.iter().map(ToString::to_string).collect(),
        not_before: rfc3339(&leaf.not_before),
        not_after: rfc3339(&leaf.not_after),
        serial: &leaf.serial,
        fingerprint_sha256: &leaf.fingerprint,
        proven: facts.proof == Proof::Proven,
        rollback_to: record.rollback_to,
    }
}

fn due((at, why): &(DateTime<Utc>, Due)) -> DueAnswer {
    DueAnswer { at: rfc3339(at), rule: why.rule(), why: why.to_string() }
}

fn lease(latest: &Latest) -> LeaseAnswer<'_> {
    let record = &latest.record;
    let (state, reason, retry_at) = match &record.state {
        LeaseState::Held if latest.age <= TIME_TO_LIVE => ("held", None, None),
        LeaseState::Held => ("abandoned", None, None),
        LeaseState::Done => ("done", None, None),
        LeaseState::Released => ("released", None, None),
        LeaseState::Failed { reason, retry_at } => ("failed", Some(reason.as_str()), Some(rfc3339(retry_at))),
    };
    LeaseAnswer {
        generation: record.generation,
        attempt: latest.attempt,
        node: &record.holder.node,
        state,
        age_secs: latest.age.as_secs(),
        failures: record.failures,
        reason,
        retry_at,
    }
}

fn state_answer<'a>(node: &'a str, state: &'a NodeState, highest: Generation) -> StateAnswer<'a> {
    let (state, generation, problem) = match state {
        NodeState::Serving => ("serving", Some(highest), None),
        NodeState::NotProbed => ("not-probed", Some(highest), None),
        NodeState::Silent => ("silent", None, None),
        NodeState::Ahead(generation) => ("ahead", Some(*generation), None),
        NodeState::Lagging(generation) => ("lagging", *generation, None),
        NodeState::Differs => ("differs", Some(highest), None),
        NodeState::NotServed => ("not-served", Some(highest), None),
        NodeState::Failing(what) => ("failing", None, Some(what.as_str())),
    };
    StateAnswer { node, state, generation, problem }
}

fn node(status: &NodeStatus) -> NodeAnswer<'_> {
    let report = status.report.as_ref();
    NodeAnswer {
        node: &status.node,
        attention: status.worst.as_ref().map(Concern::name),
        last_run: rfc3339(&status.last_run),
        silent: status.silent,
        clock_offset_secs: report.map(|report| report.clock_offset_secs),
        certfleet: report.map(|report| report.certfleet.as_str()),
        sites: report.map_or(&[], |report| report.sites.as_slice()),
    }
}
