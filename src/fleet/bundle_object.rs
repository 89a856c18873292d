//! Bundles as they lie in the datastore and in the spool: one object, certificate and sealed key together.

use bytes::Bytes;
use thiserror::Error;

use super::seal::{Seal, SealError};
use crate::domain::bundle::{self, Bundle, BundleError};
use crate::domain::certificate::Certificate;
use crate::domain::object_key::Generation;
use crate::domain::policy::Candidate;
use crate::domain::record::{self, BundleRecord, Holder, IssuerClass, PassedOver, RecordError, Sealed};
use crate::domain::site::SiteName;

/// A bundle read back from an object: everything it claims has been proven.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The record as it was stored.
    pub record: BundleRecord,
    /// The bundle in it.
    pub bundle: Bundle,
    /// The object itself, byte for byte.
    pub object: Bytes,
}

/// Where a bundle came from, for its record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Origin {
    /// The name of its issuer.
    pub issuer: String,
    /// What kind of issuer that is.
    pub class: IssuerClass,
    /// The ACME profile that was asked for.
    pub profile: Option<String>,
    /// Issuers that were preferred but could not make it.
    pub passed_over: Vec<PassedOver>,
}

/// Why an object is not a bundle that can be used.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Not a record of ours.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// An object that was moved from where it was created.
    #[error("it says it is generation {generation} of {site}: it was copied from there")]
    Moved {
        /// The site it was made for.
        site: String,
        /// The generation it was made as.
        generation: Generation,
    },
    /// A key that does not open.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Parts that do not belong together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl Opened {
    /// The bundle as the rules see it.
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            leaf: self.bundle.leaf(),
            issuer: &self.record.issuer,
            class: self.record.issuer_class,
            profile: self.record.profile.as_deref(),
            passed_over: &self.record.passed_over,
        }
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        let record = &self.record;
        Origin {
            issuer: record.issuer.clone(),
            class: record.issuer_class,
            profile: record.profile.clone(),
            passed_over: record.passed_over.clone(),
        }
    }
}

/// Makes the object of a bundle. The writer's run in it makes its bytes unlike any other writer's.
pub fn compose(
    seal: &Seal,
    site: &SiteName,
    generation: Generation,
    bundle: &Bundle,
    origin: &Origin,
    holder: &Holder,
) -> Result<Bytes, SealError> {
    let record = record_of(site, generation, bundle, origin, holder);
    seal_and_write(seal, record, bundle)
}

/// Makes the object that repeats an earlier generation as a later one, and says so.
pub fn compose_again(seal: &Seal, site: &SiteName, generation: Generation, earlier: &Opened, holder: &Holder) -> Result<Bytes, SealError> {
    let mut record = record_of(site, generation, &earlier.bundle, &earlier.origin(), holder);
    record.rollback_to = Some(earlier.record.generation);
    seal_and_write(seal, record, &earlier.bundle)
}

fn record_of(site: &SiteName, generation: Generation, bundle: &Bundle, origin: &Origin, holder: &Holder) -> BundleRecord {
    BundleRecord {
        version: record::VERSION,
        site: site.file_name(),
        generation,
        issuer: origin.issuer.clone(),
        issuer_class: origin.class,
        profile: origin.profile.clone(),
        published_by: holder.clone(),
        passed_over: origin.passed_over.clone(),
        rollback_to: None,
        fullchain: bundle.chain_pem(),
        key: Sealed::None { plaintext: String::new() },
    }
}

fn seal_and_write(seal: &Seal, mut record: BundleRecord, bundle: &Bundle) -> Result<Bytes, SealError> {
    record.key = seal.close(&bundle.key().to_pem(), &texts(&beside(&record)))?;
    Ok(record::write(&record).into())
}

/// What a bundle's key is sealed together with: every field that is acted on. A field that came later joins only where it is there:
/// the proofs made before it stay valid.
fn beside(record: &BundleRecord) -> Vec<String> {
    let until = |passed: &PassedOver| format!("{} until {}: {}", passed.issuer, passed.retry_at, passed.reason);
    let passed_over: Vec<_> = record.passed_over.iter().map(until).collect();
    let mut fields = vec![
        "bundle".to_owned(),
        record.site.clone(),
        record.generation.to_string(),
        record.issuer.clone(),
        record.issuer_class.name().to_owned(),
        record.profile.clone().unwrap_or_default(),
        passed_over.join("\n"),
        record.fullchain.clone(),
    ];
    fields.extend(record.rollback_to.map(|generation| format!("rollback to {generation}")));
    fields
}

fn texts(fields: &[String]) -> Vec<&str> {
    fields.iter().map(String::as_str).collect()
}

/// Reads an object back, and proves it: format, place, seal, author, chain, key.
pub fn open(seal: &Seal, site: &SiteName, generation: Generation, bytes: &[u8]) -> Result<Opened, OpenError> {
    let record = read_in_place(site, generation, bytes)?;
    let key = seal.open(&record.key, &texts(&beside(&record)))?;
    let bundle = Bundle::from_pem(&record.fullchain, &key)?;
    Ok(Opened { record, bundle, object: Bytes::copy_from_slice(bytes) })
}

/// The public part of an object, for those who have no identity: nothing of it is proven but that it lies in its place, and that the
/// chain holds together.
pub fn public_part(site: &SiteName, generation: Generation, bytes: &[u8]) -> Result<(BundleRecord, Vec<Certificate>), OpenError> {
    let record = read_in_place(site, generation, bytes)?;
    let chain = bundle::chain_from_pem(&record.fullchain)?;
    Ok((record, chain))
}

fn read_in_place(site: &SiteName, generation: Generation, bytes: &[u8]) -> Result<BundleRecord, OpenError> {
    let record: BundleRecord = record::read(bytes)?;
    if record.site != site.file_name() || record.generation != generation {
        return Err(OpenError::Moved { site: record.site, generation: record.generation });
    }
    Ok(record)
}
