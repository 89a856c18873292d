//! Private keys in one form, PKCS#8, whatever form they arrived in.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::pem;

/// A private key that the cryptographic library has accepted. Its bytes are wiped when it is dropped and never shown.
#[derive(Clone, Eq, PartialEq)]
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    /// The contents of the SubjectPublicKeyInfo bit string (RFC 5280 section 4.1.2.7).
    public: Vec<u8>,
}

/// Why bytes are not a usable private key. The bytes themselves are never part of it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum PrivateKeyError {
    /// Needs a password first.
    #[error("the private key is encrypted")]
    Encrypted,
    /// Damaged, or of a kind that certificates here cannot use.
    #[error("the private key is damaged, or of an unsupported kind (supported: RSA of 2048 bits and more, P-256, P-384, P-521, Ed25519)")]
    Unusable,
    /// No private key in the text.
    #[error("there is no private key in it")]
    Absent,
}

const CURVES: [&EcdsaSigningAlgorithm; 3] =
    [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P521_SHA512_ASN1_SIGNING];

impl PrivateKey {
    /// Takes a PKCS#8 key (RFC 5958).
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, PrivateKeyError> {
        let public = public_part(der).ok_or(PrivateKeyError::Unusable)?;
        Ok(Self { pkcs8: Zeroizing::new(der.to_vec()), public })
    }

    /// Takes the body of one PEM block: PKCS#8, PKCS#1 (RFC 8017) or SEC 1 (RFC 5915), told apart by the block's label (RFC 7468).
    pub fn from_block(label: &str, der: &[u8]) -> Result<Self, PrivateKeyError> {
        match label {
            "PRIVATE KEY" => Self::from_pkcs8(der),
            "RSA PRIVATE KEY" => {
                let key = RsaKeyPair::from_der(der).map_err(|_| PrivateKeyError::Unusable)?;
                let pkcs8: Pkcs8V1Der<'_> = key.as_der().map_err(|_| PrivateKeyError::Unusable)?;
                Self::from_pkcs8(pkcs8.as_ref())
            }
            "EC PRIVATE KEY" => {
                let key = CURVES.iter().find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, der).ok());
                let pkcs8 = key.and_then(|key| key.to_pkcs8v1().ok()).ok_or(PrivateKeyError::Unusable)?;
                Self::from_pkcs8(pkcs8.as_ref())
            }
            "ENCRYPTED PRIVATE KEY" => Err(PrivateKeyError::Encrypted),
            _ => Err(PrivateKeyError::Absent),
        }
    }

    /// Takes the first private key of a PEM text.
    pub fn from_pem(text: &str) -> Result<Self, PrivateKeyError> {
        let blocks = pem::blocks(text).map_err(|_| PrivateKeyError::Unusable)?;
        let block = blocks.iter().find(|block| block.label.ends_with("PRIVATE KEY")).ok_or(PrivateKeyError::Absent)?;
        if block.encrypted {
            return Err(PrivateKeyError::Encrypted);
        }
        Self::from_block(&block.label, &block.der)
    }

    /// The key as PKCS#8 DER.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The key as PKCS#8 PEM.
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.pkcs8)
    }

    /// The contents of the SubjectPublicKeyInfo bit string that a certificate for this key has.
    pub fn public(&self) -> &[u8] {
        &self.public
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(…)")
    }
}

fn public_part(pkcs8: &[u8]) -> Option<Vec<u8>> {
    if let Some(key) = CURVES.iter().find_map(|curve| EcdsaKeyPair::from_pkcs8(curve, pkcs8).ok()) {
        return Some(key.public_key().as_ref().to_vec());
    }
    if let Ok(key) = RsaKeyPair::from_pkcs8(pkcs8) {
        return Some(key.public_key().as_ref().to_vec());
    }
    let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).ok()?;
    Some(key.public_key().as_ref().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_never_show_themselves() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let key = PrivateKey::from_pkcs8(&key.serialize_der()).expect("a key");
        assert_eq!(format!("{key:?}"), "PrivateKey(…)");
        assert_eq!(PrivateKey::from_pem(&key.to_pem()), Ok(key));
    }

    #[test]
    fn what_is_not_a_key_is_named() {
        assert_eq!(PrivateKey::from_pem("hello"), Err(PrivateKeyError::Absent));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(encrypted), Err(PrivateKeyError::Encrypted));
        let traditional =
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(traditional), Err(PrivateKeyError::Encrypted));
        let broken = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        assert_eq!(PrivateKey::from_pem(broken), Err(PrivateKeyError::Unusable));
    }
}
