//! PKCS#12 archives (RFC 7292): .pfx and .p12, in today's encryption and in that of Windows XP.

use p12_keystore::{Pkcs12Archive, error::Error};

use super::{Found, FoundCertificate, FoundKey, Note, Place, SuppliedError};
use crate::domain::certificate::Certificate;
use crate::domain::private_key::PrivateKey;

/// Takes every certificate and key out of an archive. Without a password, the empty one is tried.
pub(super) fn open(der: &[u8], password: Option<&str>, place: &Place, notes: &mut Vec<Note>) -> Result<Found, SuppliedError> {
    let archive = Pkcs12Archive::from_pkcs12(der, password.unwrap_or_default()).map_err(|error| match (error, password) {
        (Error::MacError(_) | Error::Pkcs5Error(_) | Error::UnpadError, None) => SuppliedError::PasswordMissing(place.clone()),
        (Error::MacError(_) | Error::Pkcs5Error(_) | Error::UnpadError, Some(_)) => SuppliedError::WrongPassword(place.clone()),
        (other, _) => SuppliedError::UnreadableArchive { place: place.clone(), why: other.to_string() },
    })?;
    let mut found = Found::default();
    for bag in &archive.certs {
        let certificate = Certificate::from_der(bag.cert.as_der())
            .map_err(|source| SuppliedError::UnreadableArchive { place: place.clone(), why: source.to_string() })?;
        found.certificates.push(FoundCertificate { certificate, place: place.clone() });
    }
    for bag in &archive.keys {
        let key = PrivateKey::from_pkcs8(bag.key.as_der()).map_err(|source| SuppliedError::UnusableKey { place: place.clone(), source })?;
        found.keys.push(FoundKey { key, place: place.clone() });
    }
    notes.push(Note::FromArchive(place.file.clone()));
    Ok(found)
}
