//! What one X.509 certificate says (RFC 5280), read once and kept as plain values.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{self, EcdsaVerificationAlgorithm, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use thiserror::Error;
use x509_parser::certificate::X509Certificate;
use x509_parser::error::X509Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521, OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS, OID_SIG_ECDSA_WITH_SHA256,
    OID_SIG_ECDSA_WITH_SHA384, OID_SIG_ECDSA_WITH_SHA512, Oid,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use super::identifier::Identifier;
use super::key_type::KeyType;

/// One certificate and the facts that certfleet acts on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Certificate {
    der: Vec<u8>,
    /// Names and addresses of its subject alternative names.
    pub identifiers: BTreeSet<Identifier>,
    /// The subject's distinguished name, for people.
    pub subject: String,
    /// The issuer's distinguished name, for people.
    pub issuer: String,
    /// Lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the DER form, lower-case hexadecimal.
    pub fingerprint: String,
    /// The first second of its life.
    pub not_before: DateTime<Utc>,
    /// The last second of its life (inclusive, RFC 5280 section 4.1.2.5).
    pub not_after: DateTime<Utc>,
    /// Its key in the spelling of the configuration, where the configuration has one for it.
    pub key_type: Option<KeyType>,
    /// Its key in words: "P-256", "RSA 2048".
    pub key_words: String,
    /// Whether it may sign certificates.
    pub is_ca: bool,
    public: Vec<u8>,
}

/// ECDSA beyond what the parser verifies by itself: the curve of the key, the algorithm of the signature, and how to verify it.
const ELLIPTIC: [(Oid<'_>, Oid<'_>, &EcdsaVerificationAlgorithm); 5] = [
    (OID_EC_P256, OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P256_SHA512_ASN1),
    (OID_NIST_EC_P384, OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P384_SHA512_ASN1),
    (OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA256, &signature::ECDSA_P521_SHA256_ASN1),
    (OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA384, &signature::ECDSA_P521_SHA384_ASN1),
    (OID_NIST_EC_P521, OID_SIG_ECDSA_WITH_SHA512, &signature::ECDSA_P521_SHA512_ASN1),
];

/// Signature algorithms by their object identifiers (RFC 4055, RFC 5758, RFC 8410).
const SIGNATURE_ALGORITHMS: [(&str, &str); 9] = [
    ("1.2.840.10045.4.3.2", "ECDSA with SHA-256"),
    ("1.2.840.10045.4.3.3", "ECDSA with SHA-384"),
    ("1.2.840.10045.4.3.4", "ECDSA with SHA-512"),
    ("1.2.840.113549.1.1.5", "RSA with SHA-1"),
    ("1.2.840.113549.1.1.10", "RSA-PSS"),
    ("1.2.840.113549.1.1.11", "RSA with SHA-256"),
    ("1.2.840.113549.1.1.12", "RSA with SHA-384"),
    ("1.2.840.113549.1.1.13", "RSA with SHA-512"),
    ("1.3.101.112", "Ed25519"),
];

/// Why bytes are not a certificate.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum CertificateError {
    /// Not DER, or not X.509.
    #[error("not an X.509 certificate")]
    Malformed,
    /// A date outside the years that can be told.
    #[error("its dates cannot be read")]
    Dates,
}

impl Certificate {
    /// Reads one DER certificate; bytes after it are refused.
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        let parsed = parse(der)?;
        let date = |seconds| DateTime::from_timestamp(seconds, 0).ok_or(CertificateError::Dates);
        let (key_type, key_words) = describe_key(&parsed);
        Ok(Self {
            identifiers: alternative_names(&parsed),
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: serial(parsed.raw_serial()),
            fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
            not_before: date(parsed.validity().not_before.timestamp())?,
            not_after: date(parsed.validity().not_after.timestamp())?,
            key_type,
            key_words,
            is_ca: parsed.is_ca(),
            public: parsed.public_key().subject_public_key.data.to_vec(),
            der: der.to_vec(),
        })
    }

    /// The certificate itself.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// The contents of its SubjectPublicKeyInfo bit string.
    pub fn public(&self) -> &[u8] {
        &self.public
    }

    /// SHA-256 of its SubjectPublicKeyInfo, lower-case hexadecimal: the same for every certificate of one key.
    pub fn public_fingerprint(&self) -> String {
        let digest = |parsed: &X509Certificate<'_>| hex(digest::digest(&digest::SHA256, parsed.public_key().raw).as_ref());
        parse(&self.der).map(|parsed| digest(&parsed)).unwrap_or_default()
    }

    /// Where its issuer's certificate can be had (authority information access, caIssuers; RFC 5280 section 4.2.2.1).
    pub fn ca_issuers(&self) -> Option<String> {
        let parsed = parse(&self.der).ok()?;
        let access = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityInfoAccess(access) => Some(access),
            _ => None,
        })?;
        let issuers = access.iter().filter(|description| description.access_method == OID_PKIX_ACCESS_DESCRIPTOR_CA_ISSUERS);
        let mut urls = issuers.filter_map(|description| match description.access_location {
            // It is shown to people: what is no URL stays out of their terminals.
            GeneralName::URI(url) if url.chars().all(|character| character.is_ascii_graphic()) => Some(url.to_owned()),
            _ => None,
        });
        urls.next()
    }

    /// The issuer's common name, if it has one.
    pub fn issuer_common_name(&self) -> Option<String> {
        let parsed = parse(&self.der).ok()?;
        let mut names = parsed.issuer().iter_common_name();
        names.next().and_then(|name| name.as_str().ok()).map(str::to_owned)
    }

    /// The name by which its CA is asked about it (RFC 9773 section 4.1); `None` where it does not name its issuer's key.
    pub fn renewal_id(&self) -> Option<String> {
        let parsed = parse(&self.der).ok()?;
        let key = parsed.iter_extensions().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::AuthorityKeyIdentifier(identifier) => identifier.key_identifier.as_ref(),
            _ => None,
        })?;
        Some(format!("{}.{}", BASE64_URL_SAFE_NO_PAD.encode(key.0), BASE64_URL_SAFE_NO_PAD.encode(parsed.raw_serial())))
    }

    /// The algorithm that it is signed with, in words: "ECDSA with SHA-256"; its number where it has no name here.
    pub fn signature_words(&self) -> String {
        let Ok(parsed) = parse(&self.der) else { return String::new() };
        let number = parsed.signature_algorithm.algorithm.to_id_string();
        let name = SIGNATURE_ALGORITHMS.iter().find(|(known, _)| *known == number).map(|(_, name)| (*name).to_owned());
        name.unwrap_or(number)
    }

    /// From the first to the last second.
    pub fn lifetime(&self) -> Duration {
        (self.not_after - self.not_before).to_std().unwrap_or_default()
    }

    /// Whether `now` lies within its life.
    pub fn is_current(&self, now: DateTime<Utc>) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// Those of `wanted` that it does not vouch for.
    pub fn missing(&self, wanted: &[Identifier]) -> Vec<Identifier> {
        let covered = |name: &Identifier| self.identifiers.iter().any(|own| own.covers(name));
        wanted.iter().filter(|name| !covered(name)).cloned().collect()
    }

    /// Whether `issuer` signed it: names chain and the signature verifies (RFC 5280 section 6.1.3).
    pub fn is_signed_by(&self, issuer: &Self) -> bool {
        let (Ok(own), Ok(other)) = (parse(&self.der), parse(&issuer.der)) else { return false };
        own.issuer() == other.subject() && verifies(&own, other.public_key())
    }

    /// Whether it signed itself: a root, or a self-signed leaf.
    pub fn is_self_signed(&self) -> bool {
        self.is_signed_by(self)
    }
}

/// Whether `key` made the signature of `certificate`.
fn verifies(certificate: &X509Certificate<'_>, key: &SubjectPublicKeyInfo<'_>) -> bool {
    match certificate.verify_signature(Some(key)) {
        Err(X509Error::SignatureUnsupportedAlgorithm) => verifies_with_other_curve_or_hash(certificate, key),
        result => result.is_ok(),
    }
}

/// The parser knows neither P-521 nor SHA-512 for ECDSA (RFC 5758 section 3.2), which private CAs do use.
fn verifies_with_other_curve_or_hash(certificate: &X509Certificate<'_>, key: &SubjectPublicKeyInfo<'_>) -> bool {
    let curve = key.algorithm.parameters.as_ref().and_then(|parameters| parameters.as_oid().ok());
    let hash = &certificate.signature_algorithm.algorithm;
    let known = ELLIPTIC.into_iter().find(|(known_curve, known_hash, _)| curve.as_ref() == Some(known_curve) && hash == known_hash);
    let verify = |algorithm| UnparsedPublicKey::new(algorithm, &key.subject_public_key.data);
    known.is_some_and(|(_, _, algorithm)| {
        verify(algorithm).verify(certificate.tbs_certificate.as_ref(), &certificate.signature_value.data).is_ok()
    })
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Malformed),
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> BTreeSet<Identifier> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return BTreeSet::new() };
    let identifier = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => dns_name(name),
        GeneralName::IPAddress(bytes) => address(bytes).map(Identifier::Ip),
        _ => None,
    };
    names.value.general_names.iter().filter_map(identifier).collect()
}

/// Clients compare names as they stand, and addresses with addresses only (RFC 9525 section 6): what has to be read with goodwill to be a
/// name vouches for nothing.
fn dns_name(text: &str) -> Option<Identifier> {
    let identifier: Identifier = text.parse().ok()?;
    let as_written = identifier.to_string() == text.to_ascii_lowercase();
    (as_written && !matches!(identifier, Identifier::Ip(_))).then_some(identifier)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|sixteen| Ipv6Addr::from(sixteen).into())
}

fn describe_key(certificate: &X509Certificate<'_>) -> (Option<KeyType>, String) {
    match certificate.public_key().parsed() {
        Ok(PublicKey::EC(point)) => match point.key_size() {
            256 => (Some(KeyType::EcdsaP256), "P-256".to_owned()),
            384 => (Some(KeyType::EcdsaP384), "P-384".to_owned()),
            bits => (None, format!("EC {bits}")),
        },
        Ok(PublicKey::RSA(key)) => {
            let bits = key.key_size();
            let key_type = match bits {
                2048 => Some(KeyType::Rsa2048),
                3072 => Some(KeyType::Rsa3072),
                4096 => Some(KeyType::Rsa4096),
                _ => None,
            };
            (key_type, format!("RSA {bits}"))
        }
        _ => (None, certificate.public_key().algorithm.algorithm.to_id_string()),
    }
}

/// The number without the byte that DER puts before a number whose first bit is set: as openssl and CAs' web pages write it.
fn serial(der: &[u8]) -> String {
    match der {
        [0, number @ ..] if !number.is_empty() => hex(number),
        number => hex(number),
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn only_what_clients_would_accept_counts_as_vouched_for() {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        let names = ["WWW.example.com", "*.example.com", "192.0.2.1", "2001:db8::1", " spaces.example.com ", "dot.example.com.", "a b", ""];
        params.subject_alt_names = names.map(|name| SanType::DnsName(name.try_into().expect("IA5"))).into();
        params.subject_alt_names.push(SanType::IpAddress(Ipv4Addr::new(192, 0, 2, 7).into()));
        let der = params.self_signed(&key).expect("a certificate").der().to_vec();
        let identifiers: Vec<_> = Certificate::from_der(&der).expect("a certificate").identifiers.iter().map(ToString::to_string).collect();
        assert_eq!(identifiers, ["*.example.com", "192.0.2.7", "www.example.com"]);
    }
}
