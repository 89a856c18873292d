//! Every record of the datastore but bundles, and deliveries.

use certfleet::domain::delivery::Delivery;
use certfleet::domain::node_report::NodeReport;
use certfleet::domain::record::{self, AccountRecord, BundleRecord, LeaseRecord, Manifest};
use certfleet::fleet::seal::Seal;
use certfleet::system::error_chain::in_full;
use serde_json::Value;

use super::{Verdict, assert_printable, assert_segment};

pub fn check(data: &[u8]) -> Verdict {
    let read = [
        same::<Manifest>(data),
        same::<LeaseRecord>(data),
        same::<AccountRecord>(data),
        same::<NodeReport>(data),
        same::<BundleRecord>(data),
        delivery(data),
    ];
    if let Ok(account) = record::read::<AccountRecord>(data) {
        // Whatever it is that lies in the clear: a sealed fleet takes no account that it did not seal.
        let seal = super::bundle_object::sealed();
        assert!(seal.open(&account.account, &["account", "accounts/letsencrypt"]).is_err());
        let _ = Seal::None.open(&account.account, &["account", "accounts/letsencrypt"]);
    }
    if read.contains(&Verdict::Accepted) { Verdict::Accepted } else { Verdict::Refused }
}

/// What is read is written as the same again, and only ever of a version that this release knows.
fn same<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(data: &[u8]) -> Verdict {
    match record::read::<T>(data) {
        Ok(read) => {
            // A field that is ignored may hold what the more general reader refuses, such as bytes that are no text.
            let version = serde_json::from_slice::<Value>(data).ok().map(|value| value["version"].as_u64());
            assert!(
                version.is_none_or(|version| version.is_some_and(|version| version <= u64::from(record::VERSION))),
                "version {version:?}"
            );
            assert_eq!(record::read::<T>(&record::write(&read)).ok(), Some(read));
            Verdict::Accepted
        }
        Err(error) => {
            assert_printable(&in_full(&error));
            Verdict::Refused
        }
    }
}

fn delivery(data: &[u8]) -> Verdict {
    let delivery = match Delivery::read(data) {
        Ok(delivery) => delivery,
        Err(error) => {
            assert_printable(&in_full(&error));
            return Verdict::Refused;
        }
    };
    delivery.bundles.keys().for_each(|name| assert_segment(name));
    let sites = delivery.sites().expect("it was read");
    assert_eq!(sites.len(), delivery.bundles.len(), "two bundles for one site");
    assert!(sites.keys().all(|site| delivery.bundles.contains_key(&site.file_name())));
    assert!(delivery.identity.as_ref().is_none_or(|identity| identity.len() < 8 || !format!("{delivery:?}").contains(identity.as_str())));
    let again = Delivery::read(&delivery.write()).expect("what we write");
    assert_eq!((again.configuration, again.identity, again.bundles), (delivery.configuration, delivery.identity, delivery.bundles));
    Verdict::Accepted
}
