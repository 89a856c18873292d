//! When a bundle is due: pure rules over what a certificate says, what the configuration wants, and the datastore's time.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::certificate::Certificate;
use super::identifier::Identifier;
use super::record::{IssuerClass, PassedOver};
use super::site::{Method, Site};

mod due;

pub use due::Due;

/// A bundle with seven days left, or less, is due unless the configuration says otherwise.
pub const DEFAULT_RENEW_BEFORE: Duration = Duration::from_secs(604_800);

/// Certificates that live less than this are renewed at half their life, as Let's Encrypt advises for its short-lived ones
/// (<https://letsencrypt.org/docs/integration-guide/>).
const SHORT_LIFETIME: Duration = Duration::from_secs(10 * 86_400);

/// A bundle as the rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its leaf.
    pub leaf: &'a Certificate,
    /// The name of the issuer that made it.
    pub issuer: &'a str,
    /// What kind of issuer that is.
    pub class: IssuerClass,
    /// The ACME profile it was asked for with.
    pub profile: Option<&'a str>,
    /// Issuers that were preferred but could not make it.
    pub passed_over: &'a [PassedOver],
}

/// The issuer's name in the records of bundles that a person supplied.
pub const MANUAL: &str = "manual";

/// The time left at which a certificate of `lifetime` is due: `renew_before`, but never more than a third of the lifetime, or half of
/// a lifetime under ten days. Otherwise a 160-hour certificate would be renewed every night.
pub fn threshold(lifetime: Duration, renew_before: Duration) -> Duration {
    let share = if lifetime < SHORT_LIFETIME { lifetime / 2 } else { lifetime / 3 };
    renew_before.min(share)
}

/// What is left of a certificate's life; zero once it is over.
pub fn left(leaf: &Certificate, now: DateTime<Utc>) -> Duration {
    (leaf.not_after - now).to_std().unwrap_or_default()
}

/// Whether a bundle that can still serve `site` should be replaced, and by which rule.
pub fn due(candidate: Candidate<'_>, site: &Site, now: DateTime<Utc>) -> Option<Due> {
    let (leaf, left) = (candidate.leaf, left(candidate.leaf, now));
    let threshold = threshold(leaf.lifetime(), site.renew_before);
    if left <= threshold {
        return Some(Due::Expiry { left, threshold });
    }
    mismatch(candidate, site, now)
}

/// Whether the configuration wants another bundle than this one, however long it still lives.
pub fn mismatch(candidate: Candidate<'_>, site: &Site, now: DateTime<Utc>) -> Option<Due> {
    identifiers_differ(candidate, site).or_else(|| made_otherwise(candidate, site, now))
}

/// The first moment, `now` or later, at which [`due()`] will say so, and by which rule. What a person changes in the configuration, or
/// forces, until then is not foreseen.
pub fn due_at(candidate: Candidate<'_>, site: &Site, now: DateTime<Utc>) -> (DateTime<Utc>, Due) {
    if let Some(why) = due(candidate, site, now) {
        return (now, why);
    }
    let threshold = threshold(candidate.leaf.lifetime(), site.renew_before);
    let expiry = candidate.leaf.not_after - threshold;
    // An issuer waits for the latest of its retry times; the first that no longer waits is asked.
    let until = |name: &String| candidate.passed_over.iter().filter(|passed| passed.issuer == *name).map(|passed| passed.retry_at).max();
    let before = &site.issuers[..rank(candidate, site).unwrap_or_default()];
    let retry = before.iter().filter_map(until).min().filter(|_| is_replaceable(candidate, site));
    let at = retry.map_or(expiry, |retry| retry.min(expiry));
    (at, due(candidate, site, at).unwrap_or(Due::Expiry { left: threshold, threshold }))
}

/// Supplied certificates may vouch for more than the site needs; those we order vouch for exactly what is configured.
fn identifiers_differ(candidate: Candidate<'_>, site: &Site) -> Option<Due> {
    let missing = candidate.leaf.missing(&site.identifiers);
    let listed: BTreeSet<&Identifier> = site.identifiers.iter().collect();
    let supplied = candidate.class == IssuerClass::Manual;
    let extra: Vec<_> = candidate.leaf.identifiers.iter().filter(|name| !supplied && !listed.contains(name)).cloned().collect();
    (!missing.is_empty() || !extra.is_empty()).then_some(Due::Identifiers { missing, extra })
}

/// A person's certificate is what it is: nothing we order replaces it before it is due. Nor is anything ordered for a manual site.
fn made_otherwise(candidate: Candidate<'_>, site: &Site, now: DateTime<Utc>) -> Option<Due> {
    if !is_ordered(candidate, site) {
        return None;
    }
    if candidate.leaf.key_type != Some(site.key_type) {
        return Some(Due::KeyType { has: candidate.leaf.key_words.clone(), wanted: site.key_type });
    }
    let unlisted = rank(candidate, site).is_none();
    if unlisted || is_replaceable(candidate, site) && !preferred(candidate, site, now).is_empty() {
        return Some(Due::Issuer { made_by: candidate.issuer.to_owned() });
    }
    let profile_differs = candidate.class == IssuerClass::Acme && candidate.profile != site.profile_name();
    profile_differs.then(|| Due::Profile { has: candidate.profile.map(str::to_owned), wanted: site.profile_name().map(str::to_owned) })
}

fn is_ordered(candidate: Candidate<'_>, site: &Site) -> bool {
    site.method == Method::Automatic && candidate.class != IssuerClass::Manual
}

/// Whether a preferred issuer's bundle would replace it before its time.
fn is_replaceable(candidate: Candidate<'_>, site: &Site) -> bool {
    is_ordered(candidate, site) && candidate.class.is_stopgap()
}

/// Whether the site makes do with a stopgap although its configuration prefers another issuer.
pub fn makes_do(candidate: Candidate<'_>, site: &Site) -> bool {
    candidate.class.is_stopgap() && site.method == Method::Automatic && rank(candidate, site) != Some(0)
}

/// The issuers to ask, in order. To replace a stopgap only those preferred to it are asked: another of its kind would gain nothing.
pub fn issuers_to_ask<'a>(candidate: Option<Candidate<'_>>, why: Option<&Due>, site: &'a Site, now: DateTime<Utc>) -> Vec<&'a str> {
    match (candidate, why) {
        (Some(candidate), Some(Due::Issuer { .. })) => preferred(candidate, site, now),
        _ => site.issuers.iter().map(String::as_str).collect(),
    }
}

/// The issuers that are preferred to the one that made the candidate, and whose retry time has come.
fn preferred<'a>(candidate: Candidate<'_>, site: &'a Site, now: DateTime<Utc>) -> Vec<&'a str> {
    let waits = |name: &str| candidate.passed_over.iter().any(|passed| passed.issuer == name && now < passed.retry_at);
    let before = &site.issuers[..rank(candidate, site).unwrap_or(site.issuers.len())];
    before.iter().map(String::as_str).filter(|name| !waits(name)).collect()
}

fn rank(candidate: Candidate<'_>, site: &Site) -> Option<usize> {
    site.issuers.iter().position(|name| name == candidate.issuer)
}

#[cfg(test)]
mod tests;
