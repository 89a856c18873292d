use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

use super::*;
use crate::domain::key_type::KeyType;
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
