//! Private keys, opened and converted.

use aws_lc_rs::digest;
use pkcs8::{EncryptedPrivateKeyInfo, pkcs5};
use rcgen::PublicKeyData as _;
use x509_parser::asn1_rs::{Any, FromDer as _};
use zeroize::Zeroizing;

use super::{FoundKey, Note, Place, SuppliedError};
use crate::domain::certificate::hex;
use crate::domain::private_key::PrivateKey;

/// A key that is not encrypted, told apart by the label of its block.
pub(super) fn plain(label: &str, der: &[u8], place: Place, notes: &mut Vec<Note>) -> Result<FoundKey, SuppliedError> {
    let key = PrivateKey::from_block(label, der).map_err(|source| SuppliedError::UnusableKey { place: place.clone(), source })?;
    let from = match label {
        "RSA PRIVATE KEY" => Some("PKCS#1"),
        "EC PRIVATE KEY" => Some("SEC 1"),
        _ => None,
    };
    notes.extend(from.map(|from| Note::KeyConverted { from, place: place.clone() }));
    Ok(FoundKey { key, place })
}

/// An encrypted PKCS#8 key (RFC 5958 section 3), opened with `password`.
pub(super) fn encrypted(der: &[u8], password: Option<&str>, place: Place, notes: &mut Vec<Note>) -> Result<FoundKey, SuppliedError> {
    let info = EncryptedPrivateKeyInfo::try_from(der).map_err(|error| match Any::from_der(der) {
        // Whole, but of an encryption that the crate has no words for.
        Ok(([], _)) => SuppliedError::UnsupportedEncryption(place.clone()),
        _ => {
            SuppliedError::Damaged { what: "the block \"ENCRYPTED PRIVATE KEY\"".to_owned(), place: place.clone(), why: error.to_string() }
        }
    })?;
    let password = password.ok_or_else(|| SuppliedError::PasswordMissing(place.clone()))?;
    let opened = info.decrypt(password).map_err(|error| match error {
        // The crate calls a failed decryption a failed encryption. One wrong password in 256 leaves a padding that looks right, and
        // nonsense inside.
        pkcs8::Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed | pkcs5::Error::EncryptFailed) | pkcs8::Error::Asn1(_) => {
            SuppliedError::WrongPassword(place.clone())
        }
        _ => SuppliedError::UnsupportedEncryption(place.clone()),
    })?;
    let opened = Zeroizing::new(opened.as_bytes().to_vec());
    let key = PrivateKey::from_pkcs8(&opened).map_err(|source| SuppliedError::UnusableKey { place: place.clone(), source })?;
    notes.push(Note::KeyDecrypted(place.clone()));
    Ok(FoundKey { key, place })
}

/// SHA-256 of the SubjectPublicKeyInfo that belongs to `key`, lower-case hexadecimal: what `openssl pkey -pubout -outform DER | sha256sum` prints.
pub(super) fn public_fingerprint(key: &PrivateKey) -> String {
    // The same library has accepted these bytes before; an empty text would only make a message poorer.
    let public = rcgen::KeyPair::try_from(key.pkcs8()).map(|pair| pair.subject_public_key_info()).unwrap_or_default();
    hex(digest::digest(&digest::SHA256, &public).as_ref())
}
