//! What nodes say, judged by `status`.

use std::time::Duration;

use certfleet::domain::certificate::Certificate;
use certfleet::domain::fleet_status::{BundleFacts, Observed, ObservedBundle, ObservedLease, ObservedNode, ObservedSite, Proof, assess};
use certfleet::domain::key_type::KeyType;
use certfleet::domain::lease::Latest;
use certfleet::domain::node_report::NodeReport;
use certfleet::domain::object_key::{Attempt, Generation};
use certfleet::domain::record::{self, BundleRecord, LeaseRecord};
use certfleet::domain::site::{Method, Site};
use certfleet::fleet::bundle_object::public_part;
use certfleet::system::error_chain::in_full;
use chrono::DateTime;
use serde_json::Value;

use super::{Verdict, assert_printable};

/// 2027-01-15.
const NOW: i64 = 1_800_000_000;

/// A list: the first entry a lease or null, the others reports.
pub fn check(data: &[u8]) -> Verdict {
    let Ok(Value::Array(said)) = serde_json::from_slice(data) else { return Verdict::Refused };
    let now = DateTime::from_timestamp(NOW, 0).expect("a time");
    let reported =
        |value: &Value| -> Result<NodeReport, String> { record::read(value.to_string().as_bytes()).map_err(|error| in_full(&error)) };
    let node = |(index, value): (usize, &Value)| {
        let report = reported(value);
        let name = report.as_ref().map_or_else(|_| format!("node-{index}"), |report| report.node.clone());
        ObservedNode { name, reported_at: now, report }
    };
    let nodes: Vec<_> = said.iter().skip(1).enumerate().map(node).collect();
    let all_read = nodes.iter().all(|node| node.report.is_ok());
    let lease = match said.first() {
        None | Some(Value::Null) => ObservedLease::Absent,
        Some(value) => match record::read::<LeaseRecord>(value.to_string().as_bytes()) {
            Ok(record) => ObservedLease::Read(Box::new(Latest { attempt: Attempt(1), age: Duration::from_secs(5), record })),
            Err(error) => ObservedLease::Unreadable(in_full(&error)),
        },
    };
    let (sites, count) = (vec![site(lease)], nodes.len());
    let status = assess(Observed { now, stale_after: Duration::from_secs(36 * 3600), sites, nodes });
    assert_eq!((status.sites.len(), status.nodes.len()), (1, count), "nobody is lost, nobody is made up");
    for one in &status.attention {
        assert_printable(&one.concern.to_string());
        assert_printable(&one.hint());
    }
    assert!(status.attention.is_sorted_by_key(|one| one.concern.rank()), "the worst comes first");
    let site = &status.sites[0];
    assert!(site.serving() + site.not_probed() <= site.nodes.len());
    for node in &status.nodes {
        assert!(node.last_run <= now, "a forged report makes no node look alive");
        assert!(node.report.is_some() || node.worst.is_some(), "what cannot be read is told");
    }
    if all_read && count > 0 { Verdict::Accepted } else { Verdict::Refused }
}

fn site(lease: ObservedLease) -> ObservedSite {
    let name: certfleet::domain::site::SiteName = "www.example.test".parse().expect("a name");
    let object = include_bytes!("../corpus/bundle_object/sealed");
    let (record, chain): (BundleRecord, Vec<Certificate>) = public_part(&name, Generation(3), object).expect("a bundle");
    let leaf = chain.into_iter().next().expect("a leaf");
    let facts = BundleFacts { record, leaf, proof: Proof::NoIdentity, untrusted: None };
    let site = Site {
        identifiers: vec![name.identifier().clone()],
        name,
        method: Method::Automatic,
        issuers: vec!["letsencrypt".to_owned()],
        solver: None,
        key_type: KeyType::EcdsaP256,
        profile: None,
        renew_before: Duration::from_secs(7 * 86_400),
    };
    let published_at = DateTime::from_timestamp(NOW - 86_400, 0);
    ObservedSite { site, generation: Generation(3), published_at, bundle: ObservedBundle::Read(Box::new(facts)), lease }
}
