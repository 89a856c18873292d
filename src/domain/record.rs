//! The records of the datastore, format 1: JSON with a `version`. Readers ignore unknown fields and refuse a newer version.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::key_type::KeyType;
use super::object_key::{Attempt, Generation};

/// The version that this release writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Why an object is not a record that we can use.
#[derive(Debug, Error)]
pub enum RecordError {
    /// Cut off, or not JSON of the expected shape.
    #[error("it is damaged")]
    Damaged(#[source] serde_json::Error),
    /// Written by a later release.
    #[error("it has format {found}, this release reads up to {VERSION}; update certfleet")]
    Newer {
        /// The version found.
        found: u32,
    },
}

/// Reads a record, its version first: a newer one is called newer even where its shape has changed.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes).map_err(RecordError::Damaged)?;
    if version > VERSION {
        return Err(RecordError::Newer { found: version });
    }
    serde_json::from_slice(bytes).map_err(RecordError::Damaged)
}

/// Writes a record: one line per field, for people who look into the bucket.
pub fn write<T: Serialize>(record: &T) -> Vec<u8> {
    // A struct of strings and numbers always serializes; only maps with other keys or failing writers would not.
    let mut bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

/// `certfleet.json`: what holds for the whole datastore.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Manifest {
    /// See [`VERSION`].
    pub version: u32,
    /// The fleet that owns the datastore: 32 hexadecimal digits, chosen at first use.
    pub fleet: String,
    /// The age recipient that keys are sealed to, or `None` where they are kept in the clear.
    pub recipient: Option<String>,
    /// What racing creates showed.
    pub exclusive_create: ExclusiveCreate,
    /// When the race was run, by the store's clock.
    pub probed_at: DateTime<Utc>,
}

/// Whether a store refuses the second of two creates of one key.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExclusiveCreate {
    /// Every race had exactly one winner.
    Honoured,
    /// Some race had several winners.
    Broken,
}

/// `bundles/<site>/<generation>`: certificate and key together, created once, never changed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct BundleRecord {
    /// See [`VERSION`].
    pub version: u32,
    /// The file name of the site: an object copied to another site is found out.
    pub site: String,
    /// The generation: an object copied to another number is found out.
    pub generation: Generation,
    /// The name of the issuer that made it; `manual` where a person did.
    pub issuer: String,
    /// What kind of issuer that is.
    pub issuer_class: IssuerClass,
    /// The ACME profile that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
    /// The node that published it, and the run: makes every writer's bytes its own.
    pub published_by: Holder,
    /// Issuers that were preferred but could not make it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
    /// The earlier generation that this one repeats: only with it do nodes accept a bundle that expires sooner than what they have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback_to: Option<Generation>,
    /// The chain as PEM, leaf first.
    pub fullchain: String,
    /// The key as PEM, sealed together with everything above but who published it.
    pub key: Sealed,
}

/// The kinds of issuers, as far as the trust in their bundles goes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IssuerClass {
    /// A CA that speaks ACME.
    Acme,
    /// The fleet's own CA: trusted where its root was installed.
    LocalCa,
    /// A person.
    Manual,
    /// Nobody but the certificate itself.
    SelfSigned,
}

impl IssuerClass {
    /// The spelling in records and answers.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acme => "acme",
            Self::LocalCa => "local-ca",
            Self::Manual => "manual",
            Self::SelfSigned => "self-signed",
        }
    }

    /// Whether its bundles only bridge the time until a preferred issuer delivers.
    pub fn is_stopgap(self) -> bool {
        matches!(self, Self::LocalCa | Self::SelfSigned)
    }
}

/// A secret as it is stored.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "seal")]
pub enum Sealed {
    /// Encrypted with age (<https://age-encryption.org/v1>), armored.
    Age {
        /// Whom it is sealed to.
        recipient: String,
        /// The armored file.
        ciphertext: String,
        /// Proof that a holder of the fleet's identity wrote the secret and all that stands beside it.
        proof: String,
    },
    /// In the clear, because the configuration says `seal = "none"`.
    None {
        /// The secret itself.
        plaintext: String,
    },
}

impl fmt::Debug for Sealed {
    /// What lies in the clear is still a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Age { recipient, .. } => write!(f, "Sealed({recipient})"),
            Self::None { .. } => f.write_str("Sealed(…)"),
        }
    }
}

/// An issuer that was asked and could not deliver.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct PassedOver {
    /// Its name in the configuration.
    pub issuer: String,
    /// What it answered.
    pub reason: String,
    /// Not to be asked again before.
    pub retry_at: DateTime<Utc>,
}

/// Who writes a record.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Holder {
    /// The node's name.
    pub node: String,
    /// One run of the program: 32 hexadecimal digits.
    pub run: String,
    /// The working directory whose lock the run holds: who can take that lock knows that the run is over.
    pub place: String,
}

/// `leases/<site>/<generation>-<attempt>`: who is making that generation.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct LeaseRecord {
    /// See [`VERSION`].
    pub version: u32,
    /// The file name of the site.
    pub site: String,
    /// The generation being made.
    pub generation: Generation,
    /// Which try.
    pub attempt: Attempt,
    /// Who holds it.
    pub holder: Holder,
    /// How it stands.
    pub state: LeaseState,
    /// An order that was placed and not yet finished: a successor resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<OrderRecord>,
    /// How often making this generation has failed, this attempt included.
    #[serde(default)]
    pub failures: u32,
    /// What the failing issuers answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
}

/// How a lease stands.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "is")]
pub enum LeaseState {
    /// Somebody is at work.
    Held,
    /// The generation was published, or was found to exist.
    Done,
    /// Given back without a result: anybody may try.
    Released,
    /// No issuer could deliver.
    Failed {
        /// Why, in words.
        reason: String,
        /// Not to be tried again before.
        retry_at: DateTime<Utc>,
    },
}

impl OrderRecord {
    /// What an order's key is sealed together with: nobody can have the fleet finish an order with a key of theirs.
    pub fn beside(&self, site: &str, generation: Generation) -> [String; 6] {
        let wanted = format!("{} {} {:?}", self.wanted.identifiers.join(" "), self.wanted.key_type, self.wanted.profile);
        ["order".to_owned(), site.to_owned(), generation.to_string(), self.issuer.clone(), self.url.clone(), wanted]
    }
}

/// What an order is for.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Wanted {
    /// The identifiers, sorted.
    pub identifiers: Vec<String>,
    /// The key.
    pub key_type: KeyType,
    /// The ACME profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// An ACME order under way (RFC 8555 section 7.1.3).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct OrderRecord {
    /// The issuer it was placed with.
    pub issuer: String,
    /// Its URL.
    pub url: String,
    /// What was ordered: a successor that wants something else places an order of its own.
    pub wanted: Wanted,
    /// The key the certificate will be for.
    pub key: Sealed,
}

/// An order as its holder keeps it on its own disk, beside the lease: what a late or a careless write does to that one, leaves this one be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct KeptOrder {
    /// See [`VERSION`].
    pub version: u32,
    /// The generation it was placed for.
    pub generation: Generation,
    /// The order, its key sealed.
    pub order: OrderRecord,
}

/// `accounts/<issuer>`: the fleet's account at an ACME CA.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct AccountRecord {
    /// See [`VERSION`].
    pub version: u32,
    /// The account with its key, sealed.
    pub account: Sealed,
}
