//! When a bundle is due: pure rules over what a certificate says, what the configuration wants, and the datastore's time.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::certificate::Certificate;
use super::identifier::Identifier;
use super::key_type::KeyType;
use super::record::{IssuerClass, PassedOver};
use super::site::{Method, Site};
use super::time::in_words;

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

/// Why a bundle is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Due {
    /// Little of its life is left.
    Expiry {
        /// What is left; zero once it has expired.
        left: Duration,
        /// At this much, or less, it is due.
        threshold: Duration,
    },
    /// It vouches for other identifiers than the configuration lists.
    Identifiers {
        /// Listed, but not in the certificate.
        missing: Vec<Identifier>,
        /// In the certificate, but not listed.
        extra: Vec<Identifier>,
    },
    /// An issuer that is preferred to the one that made it may be tried again, or its issuer is no longer listed.
    Issuer {
        /// The issuer that made it.
        made_by: String,
    },
    /// The configuration wants another kind of key.
    KeyType {
        /// What it has, in words.
        has: String,
        /// What is wanted.
        wanted: KeyType,
    },
    /// The configuration wants another ACME profile.
    Profile {
        /// What it was made with.
        has: Option<String>,
        /// What is wanted.
        wanted: Option<String>,
    },
    /// A person asked for a new one.
    Forced,
}

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

/// The first moment, `now` or later, at which [`due`] will say so, and by which rule. What a person changes in the configuration, or
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

impl Due {
    /// The stable name of the rule, for machines.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Expiry { .. } => "expiry",
            Self::Identifiers { .. } => "identifiers",
            Self::Issuer { .. } => "issuer",
            Self::KeyType { .. } => "key-type",
            Self::Profile { .. } => "profile",
            Self::Forced => "forced",
        }
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expiry { left, threshold } => {
                write!(f, "{} left, due at {}", in_words(*left), in_words(*threshold))
            }
            Self::Identifiers { missing, extra } => {
                let names = |list: &[Identifier]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                match (missing.is_empty(), extra.is_empty()) {
                    (false, true) => write!(f, "it does not cover {}", names(missing)),
                    (true, _) => write!(f, "it also covers {}", names(extra)),
                    (false, false) => write!(f, "it does not cover {}, and also covers {}", names(missing), names(extra)),
                }
            }
            Self::Issuer { made_by } => write!(f, "it was made by {made_by}, and a preferred issuer may be asked again"),
            Self::KeyType { has, wanted } => write!(f, "its key is {has}, {wanted} is wanted"),
            Self::Profile { has, wanted } => {
                let name = |profile: &Option<String>| profile.clone().unwrap_or_else(|| "the default".to_owned());
                write!(f, "its profile is {}, {} is wanted", name(has), name(wanted))
            }
            Self::Forced => f.write_str("forced"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::domain::site::{IfMissing, Profile, SiteName};

    const DAY: Duration = Duration::from_secs(86_400);

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    fn leaf(names: &[&str], days: u32) -> Certificate {
        let mut params = rcgen::CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
        params.not_before = time::OffsetDateTime::from_unix_timestamp(0).expect("a time");
        params.not_after = params.not_before + DAY * days;
        let key = rcgen::KeyPair::generate().expect("a key");
        Certificate::from_der(params.self_signed(&key).expect("a certificate").der()).expect("a certificate")
    }

    fn site(names: &[&str], issuers: &[&str]) -> Site {
        let name: SiteName = names[0].parse().expect("a name");
        Site {
            name,
            identifiers: names.iter().map(|name| name.parse().expect("a name")).collect(),
            method: Method::Automatic,
            issuers: issuers.iter().map(ToString::to_string).collect(),
            solver: None,
            key_type: KeyType::EcdsaP256,
            profile: None,
            renew_before: DEFAULT_RENEW_BEFORE,
        }
    }

    fn made_by<'a>(leaf: &'a Certificate, issuer: &'a str, class: IssuerClass) -> Candidate<'a> {
        Candidate { leaf, issuer, class, profile: None, passed_over: &[] }
    }

    fn rule(candidate: Candidate<'_>, site: &Site, now: i64) -> Option<&'static str> {
        due(candidate, site, at(now)).map(|due| due.rule())
    }

    #[test]
    fn the_threshold_is_seven_days_but_never_much_of_a_short_life() {
        for (lifetime_hours, threshold_hours) in [
            (90 * 24, 7 * 24),  // Let's Encrypt's classic profile
            (45 * 24, 7 * 24),  // its tlsserver profile: a third would be 15 days
            (21 * 24, 7 * 24),  // exactly a third
            (20 * 24, 160),     // a third
            (10 * 24, 80),      // a third: ten days are not under ten days
            (10 * 24 - 1, 119), // half, rounded down to hours
            (160, 80),          // Let's Encrypt's shortlived profile: due every 80 hours, not every night
            (1, 0),
        ] {
            let threshold = threshold(Duration::from_secs(lifetime_hours * 3_600), DEFAULT_RENEW_BEFORE);
            assert_eq!(threshold.as_secs() / 3_600, threshold_hours, "{lifetime_hours} h");
        }
        assert_eq!(threshold(90 * DAY, DAY), DAY);
    }

    #[test]
    fn due_at_exactly_604800_seconds_and_not_one_earlier() {
        let (leaf, site) = (leaf(&["a.example"], 90), site(&["a.example"], &["ca"]));
        let candidate = made_by(&leaf, "ca", IssuerClass::Acme);
        let end = 90 * 86_400;
        for (left, expected) in
            [(604_801, None), (604_800, Some("expiry")), (604_799, Some("expiry")), (0, Some("expiry")), (-1, Some("expiry"))]
        {
            assert_eq!(rule(candidate, &site, end - left), expected, "{left} s left");
        }
    }

    #[test]
    fn identifiers_must_be_those_configured_but_a_person_may_supply_more() {
        let leaf = leaf(&["a.example", "b.example"], 90);
        let both = made_by(&leaf, "ca", IssuerClass::Acme);
        let supplied = made_by(&leaf, MANUAL, IssuerClass::Manual);
        for (names, by_ca, by_person) in [
            (&["a.example", "b.example"][..], None, None),
            (&["a.example"], Some("identifiers"), None),
            (&["a.example", "b.example", "c.example"], Some("identifiers"), Some("identifiers")),
        ] {
            assert_eq!(rule(both, &site(names, &["ca"]), 1), by_ca, "{names:?}");
            assert_eq!(rule(supplied, &site(names, &["ca"]), 1), by_person, "{names:?}");
        }
    }

    #[test]
    fn key_type_issuer_and_profile_must_be_those_configured() {
        let leaf = leaf(&["a.example"], 90);
        let mut wanted = site(&["a.example"], &["ca", "second", "local-ca"]);
        assert_eq!(rule(made_by(&leaf, "second", IssuerClass::Acme), &wanted, 1), None, "a second CA is as good, until it is due");
        assert_eq!(rule(made_by(&leaf, "local-ca", IssuerClass::LocalCa), &wanted, 1), Some("issuer"), "a stopgap is not");
        assert_eq!(rule(made_by(&leaf, "gone", IssuerClass::Acme), &wanted, 1), Some("issuer"));
        wanted.profile = Some(Profile { name: "shortlived".to_owned(), if_missing: IfMissing::Refuse });
        assert_eq!(rule(made_by(&leaf, "ca", IssuerClass::Acme), &wanted, 1), Some("profile"));
        wanted.key_type = KeyType::Rsa2048;
        assert_eq!(rule(made_by(&leaf, "ca", IssuerClass::Acme), &wanted, 1), Some("key-type"));
        assert_eq!(rule(made_by(&leaf, MANUAL, IssuerClass::Manual), &wanted, 1), None, "a person's certificate is what it is");
    }

    #[test]
    fn only_preferred_issuers_whose_time_has_come_are_asked_to_replace_a_stopgap() {
        let leaf = leaf(&["a.example"], 90);
        let wanted = site(&["a.example"], &["ca", "second", "self-signed"]);
        let passed = |issuer: &str, retry_at| PassedOver { issuer: issuer.to_owned(), reason: String::new(), retry_at: at(retry_at) };
        let passed_over = [passed("ca", 100), passed("second", 200)];
        let stopgap = Candidate { passed_over: &passed_over, ..made_by(&leaf, "self-signed", IssuerClass::SelfSigned) };
        for (now, expected) in [(99, &[][..]), (100, &["ca"]), (200, &["ca", "second"])] {
            let why = due(stopgap, &wanted, at(now));
            assert_eq!(why.is_some(), !expected.is_empty(), "at {now}");
            if let Some(why) = why {
                assert_eq!(issuers_to_ask(Some(stopgap), Some(&why), &wanted, at(now)), expected, "at {now}");
            }
        }
        assert!(makes_do(stopgap, &wanted));
        assert_eq!(issuers_to_ask(None, None, &wanted, at(0)), ["ca", "second", "self-signed"]);
    }
    #[test]
    fn the_next_due_moment_is_the_first_of_expiry_and_retry() {
        let leaf = leaf(&["a.example"], 90);
        let wanted = site(&["a.example"], &["ca", "second", "self-signed"]);
        let passed = |issuer: &str, retry_at| PassedOver { issuer: issuer.to_owned(), reason: String::new(), retry_at: at(retry_at) };
        let next = |candidate, now| {
            let (moment, why) = due_at(candidate, &wanted, at(now));
            (moment.timestamp(), why.rule())
        };
        let expiry = 83 * 86_400;
        assert_eq!(next(made_by(&leaf, "ca", IssuerClass::Acme), 1), (expiry, "expiry"));
        assert_eq!(next(made_by(&leaf, "ca", IssuerClass::Acme), expiry + 5), (expiry + 5, "expiry"), "due already");
        assert_eq!(next(made_by(&leaf, "gone", IssuerClass::Acme), 1), (1, "issuer"), "due already");
        let both = [passed("ca", 200), passed("second", 100), passed("second", 150)];
        let stopgap = Candidate { passed_over: &both, ..made_by(&leaf, "self-signed", IssuerClass::SelfSigned) };
        assert_eq!(next(stopgap, 1), (150, "issuer"), "the second one waits until 150");
        let late = [passed("ca", expiry + 9), passed("second", expiry + 9)];
        let stopgap = Candidate { passed_over: &late, ..made_by(&leaf, "self-signed", IssuerClass::SelfSigned) };
        assert_eq!(next(stopgap, 1), (expiry, "expiry"));
        let second = Candidate { passed_over: &both, ..made_by(&leaf, "second", IssuerClass::Acme) };
        assert_eq!(next(second, 1), (expiry, "expiry"), "no stopgap: nothing is replaced before its time");
    }

    proptest! {
        #[test]
        fn nothing_is_due_before_the_next_due_moment(
            days in 1_u32..100,
            now in -10_000_i64..9_000_000,
            renew_before in 0_u64..9_000_000,
            made_by_number in 0_usize..5,
            retries in proptest::collection::vec((0_usize..2, 0_i64..3_000_000), 0..6),
            names in 1_usize..3,
        ) {
            const ISSUERS: [(&str, IssuerClass); 5] = [
                ("ca", IssuerClass::Acme),
                ("local-ca", IssuerClass::LocalCa),
                ("self-signed", IssuerClass::SelfSigned),
                (MANUAL, IssuerClass::Manual),
                ("gone", IssuerClass::Acme),
            ];
            let leaf = leaf(&["a.example"], days);
            let mut wanted = site(&["a.example", "b.example"][..names], &["ca", "local-ca", "self-signed"]);
            wanted.renew_before = Duration::from_secs(renew_before);
            let passed = |(issuer, retry_at): &(usize, i64)| PassedOver {
                issuer: ISSUERS[*issuer].0.to_owned(),
                reason: String::new(),
                retry_at: at(*retry_at),
            };
            let passed_over: Vec<_> = retries.iter().map(passed).collect();
            let (issuer, class) = ISSUERS[made_by_number];
            let candidate = Candidate { passed_over: &passed_over, ..made_by(&leaf, issuer, class) };
            let (moment, why) = due_at(candidate, &wanted, at(now));
            prop_assert!(moment >= at(now));
            prop_assert_eq!(due(candidate, &wanted, moment), Some(why));
            if moment > at(now) {
                let before = at(now).max(moment - Duration::from_secs(1));
                prop_assert_eq!(due(candidate, &wanted, before), None);
            }
        }
    }
}
