//! A delivery: what the build machine sends to a webserver so that it can serve. One JSON document, sent over an encrypted channel to
//! standard input, because it holds the fleet's identity.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use super::object_key::Generation;
use super::record::{self, BundleRecord, RecordError, VERSION};
use super::site::SiteName;

/// The whole delivery.
#[derive(Clone, Deserialize, Serialize)]
pub struct Delivery {
    /// See [`VERSION`].
    pub version: u32,
    /// The text of the configuration file.
    pub configuration: String,
    /// The text of the identity file; `None` where identities do not lie in files, or nothing is sealed.
    #[serde(with = "wiped")]
    pub identity: Option<Zeroizing<String>>,
    /// The root of the local CA as PEM; `None` where no site uses it. Its key is never delivered.
    pub local_ca_root: Option<String>,
    /// By the file names of the sites: the objects of their current bundles, as they lie in the datastore.
    pub bundles: BTreeMap<String, String>,
}

/// Why a document is no delivery.
#[derive(Debug, Error)]
pub enum DeliveryError {
    /// Cut off, of another shape, or of a later release.
    #[error("the delivery cannot be read")]
    Document(#[source] RecordError),
    /// A name that is no site's: it would become the name of a file.
    #[error("the delivery has a bundle for {0:?}, which is not a site")]
    Site(String),
    /// Something else than a bundle, or that of another site.
    #[error("what the delivery has for {site} is not a bundle of it")]
    Bundle {
        /// The site.
        site: SiteName,
        /// Why, unless it is only another site's.
        #[source]
        source: Option<RecordError>,
    },
}

/// A bundle of a delivery.
#[derive(Clone, Copy, Debug)]
pub struct DeliveredBundle<'a> {
    /// Its generation.
    pub generation: Generation,
    /// The object, byte for byte.
    pub object: &'a str,
}

impl Delivery {
    /// Reads a delivery. Nothing in it has been proven yet but its shape: the bundles are opened like any from the datastore.
    pub fn read(bytes: &[u8]) -> Result<Self, DeliveryError> {
        let delivery: Self = record::read(bytes).map_err(DeliveryError::Document)?;
        delivery.sites()?;
        Ok(delivery)
    }

    /// Writes it.
    pub fn write(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(record::write(self))
    }

    /// A delivery without bundles yet.
    pub fn new(configuration: String, identity: Option<Zeroizing<String>>, local_ca_root: Option<String>) -> Self {
        Self { version: VERSION, configuration, identity, local_ca_root, bundles: BTreeMap::new() }
    }

    /// The bundles by site.
    pub fn sites(&self) -> Result<BTreeMap<SiteName, DeliveredBundle<'_>>, DeliveryError> {
        let mut sites = BTreeMap::new();
        for (name, object) in &self.bundles {
            let site = SiteName::from_file_name(name).map_err(|_| DeliveryError::Site(name.clone()))?;
            let record = record::read::<BundleRecord>(object.as_bytes());
            let record = record.map_err(|source| DeliveryError::Bundle { site: site.clone(), source: Some(source) })?;
            if record.site != *name || site.file_name() != *name {
                return Err(DeliveryError::Bundle { site, source: None });
            }
            sites.insert(site, DeliveredBundle { generation: record.generation, object });
        }
        Ok(sites)
    }
}

/// A text that may be missing, and is wiped from memory where it is not.
mod wiped {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use zeroize::Zeroizing;

    #[expect(clippy::ref_option, reason = "serde hands the field over like this")]
    pub(super) fn serialize<S: Serializer>(text: &Option<Zeroizing<String>>, serializer: S) -> Result<S::Ok, S::Error> {
        text.as_ref().map(|text| text.as_str()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Zeroizing<String>>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Zeroizing::new))
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let identity = if self.identity.is_some() { "<hidden>" } else { "none" };
        f.debug_struct("Delivery").field("identity", &identity).field("sites", &self.bundles.keys()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"version": 1, "site": "SITE", "generation": 3, "issuer": "x", "issuer_class": "acme",
        "published_by": {"node": "n", "run": "r", "place": "p"}, "fullchain": "", "key": {"seal": "none", "plaintext": ""}}"#;

    fn with(name: &str, object: &str) -> Delivery {
        let mut delivery = Delivery::new("contact = \"a@b\"\n".to_owned(), Some(Zeroizing::new("hush".to_owned())), None);
        delivery.bundles.insert(name.to_owned(), object.to_owned());
        delivery
    }

    #[test]
    fn what_would_leave_its_directory_is_refused() {
        for name in ["../../etc/cron.d/x", "/etc/passwd", "", ".", "a/b", "*.example.com"] {
            let error = Delivery::read(&with(name, &RECORD.replace("SITE", name)).write()).expect_err("a refusal");
            assert!(matches!(error, DeliveryError::Site(_) | DeliveryError::Bundle { .. }), "{name}: {error:?}");
        }
        let moved = Delivery::read(&with("www.example.com", &RECORD.replace("SITE", "other.example.com")).write());
        assert!(matches!(moved, Err(DeliveryError::Bundle { .. })));
    }

    #[test]
    fn half_a_delivery_and_a_later_one_are_refused() {
        let bytes = Delivery::new(String::new(), None, None).write();
        assert!(matches!(Delivery::read(&bytes[..bytes.len() / 2]), Err(DeliveryError::Document(RecordError::Damaged(_)))));
        let later = Delivery { version: 9, ..Delivery::new(String::new(), None, None) };
        assert!(matches!(Delivery::read(&later.write()), Err(DeliveryError::Document(RecordError::Newer { found: 9 }))));
    }

    #[test]
    fn debug_shows_no_identity() {
        assert!(!format!("{:?}", with("www.example.com", "")).contains("hush"));
    }
}
