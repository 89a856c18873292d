//! New private keys, and the requests to have them certified (RFC 2986).

use rcgen::{
    CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256, RsaKeySize, SanType,
};
use thiserror::Error;

use crate::domain::identifier::Identifier;
use crate::domain::key_type::KeyType;
use crate::domain::private_key::{PrivateKey, PrivateKeyError};

/// Why there is no new key, or no request for it.
#[derive(Debug, Error)]
pub enum NewKeyError {
    /// The cryptographic library failed.
    #[error("a new {0} key could not be made")]
    Generate(KeyType, #[source] rcgen::Error),
    /// The task that made it was lost.
    #[error("a new {0} key could not be made in the background")]
    Task(KeyType, #[source] tokio::task::JoinError),
    /// What was made was not accepted.
    #[error("the new key is unusable")]
    Unusable(#[source] PrivateKeyError),
    /// No request could be made from the key and the names.
    #[error("a certificate signing request could not be made")]
    Request(#[source] rcgen::Error),
}

/// Makes a private key. An RSA key takes up to seconds of computing, which happens beside the other tasks.
pub async fn generate(key_type: KeyType) -> Result<PrivateKey, NewKeyError> {
    let making = move || key_pair(key_type);
    let made = match key_type {
        KeyType::EcdsaP256 | KeyType::EcdsaP384 => making(),
        KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => {
            tokio::task::spawn_blocking(making).await.map_err(|error| NewKeyError::Task(key_type, error))?
        }
    };
    let pair = made.map_err(|error| NewKeyError::Generate(key_type, error))?;
    PrivateKey::from_pkcs8(pair.serialized_der()).map_err(NewKeyError::Unusable)
}

/// A new pair of keys, right here. RSA takes up to seconds of computing.
pub(super) fn key_pair(key_type: KeyType) -> Result<KeyPair, rcgen::Error> {
    match key_type {
        KeyType::EcdsaP256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256),
        KeyType::EcdsaP384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384),
        KeyType::Rsa2048 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
        KeyType::Rsa3072 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_3072),
        KeyType::Rsa4096 => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096),
    }
}

/// A certificate signing request, DER, for all of `identifiers` as subject alternative names. Its subject is empty: CAs ignore it at best,
/// and names of more than 64 characters do not fit into it.
pub fn signing_request(key: &PrivateKey, identifiers: &[Identifier]) -> Result<Vec<u8>, NewKeyError> {
    let names = identifiers.iter().map(alternative_name).collect::<Result<Vec<_>, _>>().map_err(NewKeyError::Request)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = names;
    let pair = KeyPair::try_from(key.pkcs8()).map_err(NewKeyError::Request)?;
    let request = params.serialize_request(&pair).map_err(NewKeyError::Request)?;
    Ok(request.der().to_vec())
}

/// Which kind of key it is, where the configuration has a word for it: told by the length of the public part, which is an uncompressed
/// point (RFC 5480 section 2.2) or an RSA modulus and exponent in DER (RFC 8017 appendix A.1.1).
pub fn key_type(key: &PrivateKey) -> Option<KeyType> {
    match key.public().len() {
        65 => Some(KeyType::EcdsaP256),
        97 => Some(KeyType::EcdsaP384),
        270 => Some(KeyType::Rsa2048),
        398 => Some(KeyType::Rsa3072),
        526 => Some(KeyType::Rsa4096),
        _ => None,
    }
}

/// An identifier as a subject alternative name (RFC 5280 section 4.2.1.6).
pub fn alternative_name(identifier: &Identifier) -> Result<SanType, rcgen::Error> {
    match identifier {
        Identifier::Ip(address) => Ok(SanType::IpAddress(*address)),
        Identifier::Dns(_) | Identifier::Wildcard(_) => Ok(SanType::DnsName(identifier.to_string().try_into()?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_type_of_key_makes_a_request_that_openssl_accepts() {
        let identifiers: Vec<Identifier> =
            ["www.example.com", "*.example.com", "192.0.2.7", "2001:db8::1"].map(|name| name.parse().expect("an identifier")).into();
        for wanted in [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096] {
            let key = generate(wanted).await.expect("a key");
            assert_eq!(key_type(&key), Some(wanted));
            let request = signing_request(&key, &identifiers).expect("a request");
            let place = tempfile::tempdir().expect("a directory");
            let file = place.path().join("request.der");
            std::fs::write(&file, request).expect("a file");
            let shown = std::process::Command::new("openssl")
                .args(["req", "-inform", "DER", "-noout", "-verify", "-text", "-in"])
                .arg(&file)
                .output()
                .expect("openssl");
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            assert!(shown.status.success(), "{wanted}: {}", String::from_utf8_lossy(&shown.stderr));
            let names = "DNS:www.example.com, DNS:*.example.com, IP Address:192.0.2.7, IP Address:2001:DB8:0:0:0:0:0:1";
            assert!(text.contains(names), "{wanted}: {text}");
        }
    }
}
