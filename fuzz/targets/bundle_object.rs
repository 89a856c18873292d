//! Bundles as they lie in the bucket, opened by a sealed fleet and by one that keeps its keys in the clear.

use std::sync::LazyLock;

use certfleet::domain::object_key::Generation;
use certfleet::domain::record::{BundleRecord, Holder, Sealed};
use certfleet::domain::site::SiteName;
use certfleet::fleet::bundle_object::{compose, open, public_part};
use certfleet::fleet::seal::Seal;
use certfleet::system::error_chain::in_full;

use super::{Verdict, assert_printable};

/// A fleet that exists nowhere else.
const IDENTITY: &str = include_str!("../test-identity.age");

/// What that fleet has sealed: anything else that opens is a forgery.
const SEALED: [&[u8]; 2] = [include_bytes!("../corpus/bundle_object/sealed"), include_bytes!("../corpus/bundle_object/sealed-rollback")];

/// The generation of all seeds.
const GENERATION: Generation = Generation(3);

/// The seal of that fleet.
pub fn sealed() -> &'static Seal {
    static SEAL: LazyLock<Seal> = LazyLock::new(|| {
        let line = IDENTITY.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).expect("an identity");
        Seal::Age { identity: line.parse::<age::x25519::Identity>().expect("an identity"), origin: "test-identity.age".to_owned() }
    });
    &SEAL
}

fn site() -> SiteName {
    "www.example.test".parse().expect("a name")
}

/// A record without what is not acted on: who wrote it, and how often age was asked to encrypt the same key.
fn acted_on(mut record: BundleRecord) -> BundleRecord {
    record.version = 1;
    record.published_by = Holder { node: String::new(), run: String::new(), place: String::new() };
    record.key = Sealed::None { plaintext: String::new() };
    record
}

pub fn check(data: &[u8]) -> Verdict {
    static GENUINE: LazyLock<Vec<BundleRecord>> = LazyLock::new(|| {
        let opened = SEALED.iter().map(|object| open(sealed(), &site(), GENERATION, object).expect("what the fleet has sealed"));
        opened.map(|opened| acted_on(opened.record)).collect()
    });
    let mut verdict = Verdict::Refused;
    match open(sealed(), &site(), GENERATION, data) {
        Ok(opened) => {
            assert!(GENUINE.contains(&acted_on(opened.record)), "a forged bundle was opened");
            verdict = Verdict::Accepted;
        }
        Err(error) => assert_printable(&in_full(&error)),
    }
    if let Ok((record, chain)) = public_part(&site(), GENERATION, data) {
        assert_eq!((record.site.as_str(), record.generation, chain.is_empty()), ("www.example.test", GENERATION, false));
    }
    match open(&Seal::None, &site(), GENERATION, data) {
        Ok(opened) => {
            assert_eq!(opened.bundle.leaf().public(), opened.bundle.key().public(), "a key of another certificate");
            let holder = opened.record.published_by.clone();
            let again = compose(&Seal::None, &site(), GENERATION, &opened.bundle, &opened.origin(), &holder).expect("an object");
            let again = open(&Seal::None, &site(), GENERATION, &again).expect("what we write");
            assert_eq!((&again.bundle, again.origin()), (&opened.bundle, opened.origin()));
            // The same, beside another fleet's: it lies in the clear.
            assert!(open(sealed(), &site(), GENERATION, data).is_err());
            verdict = Verdict::Accepted;
        }
        Err(error) => assert_printable(&in_full(&error)),
    }
    verdict
}
