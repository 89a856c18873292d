//! What the issuers that sign by themselves have in common: keys, and what a server's certificate says.

use std::time::Duration;

use aws_lc_rs::rand;
use chrono::{DateTime, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SerialNumber};
use thiserror::Error;
use time::OffsetDateTime;

use super::{IssueError, Request, new_key};
use crate::domain::bundle::Bundle;
use crate::domain::identifier::Identifier;
use crate::domain::key_type::KeyType;
use crate::domain::private_key::PrivateKey;
use crate::system::error_chain::in_full;

/// Certificates begin to be valid this long before they are made: clocks of clients are not all right. It comes on top of the
/// lifetime, which is counted from now on.
pub(super) const BACKDATE: Duration = Duration::from_secs(3_600);

/// 128 bits: CAs must use 64 random ones at least (CA/Browser Forum Baseline Requirements, section 7.1), and RFC 5280 section 4.1.2.2
/// allows 160 in all.
const SERIAL_BYTES: usize = 16;

/// The longest common name (RFC 5280 appendix A.1, ub-common-name-length).
const LONGEST_COMMON_NAME_CHARS: usize = 64;

/// Why a certificate could not be made.
#[derive(Debug, Error)]
pub enum SigningError {
    /// The cryptographic library made no key.
    #[error("no {key_type} key could be made")]
    Key {
        /// The key that was asked for.
        key_type: KeyType,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// A date that no certificate can hold.
    #[error("a certificate cannot be valid to the date asked for")]
    Date,
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    Random,
    /// The certificate could not be built or signed.
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
}

/// A new key. RSA takes up to a second of computing.
pub fn generate_key(key_type: KeyType) -> Result<KeyPair, SigningError> {
    new_key::key_pair(key_type).map_err(|source| SigningError::Key { key_type, source })
}

/// What a certificate for `request` says: a TLS server, no CA, the identifiers and nothing else, valid to `not_after`.
pub(super) fn leaf_params(request: &Request, not_after: DateTime<Utc>) -> Result<CertificateParams, SigningError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&request.identifiers);
    params.subject_alt_names =
        request.identifiers.iter().map(new_key::alternative_name).collect::<Result<_, _>>().map_err(SigningError::Sign)?;
    params.serial_number = Some(random_serial()?);
    params.not_before = date(request.now - BACKDATE)?;
    params.not_after = date(not_after)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = key_usages(request.key_type);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

/// `lifetime` counted from `now`, its last second included.
pub(super) fn last_second(now: DateTime<Utc>, lifetime: Duration) -> Result<DateTime<Utc>, SigningError> {
    let lifetime = chrono::Duration::from_std(lifetime).map_err(|_| SigningError::Date)?;
    now.checked_add_signed(lifetime - chrono::Duration::seconds(1)).ok_or(SigningError::Date)
}

/// Random and positive.
pub(super) fn random_serial() -> Result<SerialNumber, SigningError> {
    let mut serial = [0; SERIAL_BYTES];
    rand::fill(&mut serial).map_err(|_| SigningError::Random)?;
    // The first bit is the sign; the second keeps every serial at the same length.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&serial))
}

/// Certificates hold seconds.
pub(super) fn date(date: DateTime<Utc>) -> Result<OffsetDateTime, SigningError> {
    OffsetDateTime::from_unix_timestamp(date.timestamp()).map_err(|_| SigningError::Date)
}

/// The first identifier as the common name, for people; no subject at all where it is too long (RFC 5280 section 4.1.2.6 then makes
/// the alternative names critical, which the builder does).
fn subject(identifiers: &[Identifier]) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    let name = identifiers.first().map(ToString::to_string).filter(|name| name.len() <= LONGEST_COMMON_NAME_CHARS);
    if let Some(name) = name {
        subject.push(DnType::CommonName, name);
    }
    subject
}

/// RFC 5280 section 4.2.1.3: RSA keys may also carry the key exchange of old TLS clients.
fn key_usages(key_type: KeyType) -> Vec<KeyUsagePurpose> {
    match key_type {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 => vec![KeyUsagePurpose::DigitalSignature],
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]
        }
    }
}

/// Proves what was signed, like everything that becomes a bundle.
pub(super) fn bundle(leaf: &[u8], key: &KeyPair) -> Result<Bundle, IssueError> {
    let proven = PrivateKey::from_pkcs8(key.serialized_der()).map_err(|error| error.to_string());
    proven.and_then(|key| Bundle::new(&[leaf], key).map_err(|error| error.to_string())).map_err(|why| IssueError::Refused {
        reason: format!("the new certificate does not pass its own checks: {why}"),
        hint: "this is a fault of certfleet: please report it".to_owned(),
        retry_after: None,
    })
}

/// RSA keys take up to a second of computing, which would hold up everything else on the thread.
pub(super) async fn in_background(work: impl FnOnce() -> Result<Bundle, IssueError> + Send + 'static) -> Result<Bundle, IssueError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(IssueError::Refused {
            reason: format!("signing broke off: {error}"),
            hint: "this is a fault of certfleet: please report it".to_owned(),
            retry_after: None,
        })
    })
}

/// Says why signing failed, with all its causes.
pub(super) fn refused(error: &SigningError) -> IssueError {
    let hint = match error {
        SigningError::Date => "choose a shorter lifetime, or check the clock".to_owned(),
        SigningError::Key { .. } | SigningError::Random => "check that the system has a source of random numbers: /dev/urandom".to_owned(),
        SigningError::Sign(_) => "check the site's identifiers".to_owned(),
    };
    IssueError::Refused { reason: in_full(error), hint, retry_after: None }
}
