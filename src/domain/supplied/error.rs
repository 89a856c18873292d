//! Why supplied material is refused.

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::{Foreign, ForeignKind, FoundCertificate, FoundKey, Material, Place, key};
use crate::domain::bundle::BundleError;
use crate::domain::identifier::Identifier;
use crate::domain::private_key::PrivateKeyError;
use crate::domain::time::rfc3339;
use crate::domain::trust::TrustError;

/// Why supplied material makes no bundle. Key bytes are never part of it.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SuppliedError {
    /// A block or file that cannot be decoded.
    #[error("{what} is damaged ({place}): {why}")]
    Damaged {
        /// What it claims to be: the label of a PEM block.
        what: String,
        /// Where it begins, or where the first wrong line is.
        place: Place,
        /// What is wrong.
        why: String,
    },
    /// No certificate anywhere.
    #[error("there is no certificate in {0}")]
    NoCertificate(String),
    /// No private key anywhere.
    #[error("there is no private key in {0}")]
    NoKey(String),
    /// A certificate request (CSR) and no certificate.
    #[error("{0} is a certificate request (CSR), not a certificate")]
    RequestGiven(Place),
    /// A public key and no private one.
    #[error("{0} is a public key, not a private key")]
    PublicKeyGiven(Place),
    /// A key in OpenSSH's own format.
    #[error("{0} is a private key in OpenSSH's own format, which no certificate is made with")]
    OpenSshKeyGiven(Place),
    /// A PKCS#7 file: certificates in a wrapping of their own.
    #[error("{0} is a PKCS#7 file (.p7b)")]
    Pkcs7(Place),
    /// A Java keystore in Java's own format.
    #[error("{0} is a Java keystore")]
    JavaKeystore(Place),
    /// A password is needed.
    #[error("the private key is encrypted, and no password was given ({0})")]
    PasswordMissing(Place),
    /// The password does not open it.
    #[error("the password does not open the private key ({0})")]
    WrongPassword(Place),
    /// OpenSSL's traditional encryption (RFC 1421 headers).
    #[error("the private key is encrypted in OpenSSL's traditional format, which is not read ({0})")]
    TraditionalEncryption(Place),
    /// An encryption that is not read.
    #[error("the private key is encrypted in a way that is not read ({0})")]
    UnsupportedEncryption(Place),
    /// A PKCS#12 archive that cannot be read, for another reason than its password.
    #[error("the PKCS#12 archive {place} cannot be read: {why}")]
    UnreadableArchive {
        /// The archive.
        place: Place,
        /// What the reader said.
        why: String,
    },
    /// A private key that cannot be used.
    #[error("the private key in {place} cannot be used")]
    UnusableKey {
        /// Where it is.
        place: Place,
        /// Why not.
        #[source]
        source: PrivateKeyError,
    },
    /// The key is that of another certificate.
    #[error("the private key ({key_place}) belongs to another certificate: its public key has SHA-256 {key}; {certificates}")]
    OtherKey {
        /// SHA-256 of the key's SubjectPublicKeyInfo, lower-case hexadecimal.
        key: String,
        /// Where the key is.
        key_place: Place,
        /// The certificates, each with where it is and the SHA-256 of its SubjectPublicKeyInfo.
        certificates: String,
    },
    /// The key's certificate may sign others: it is no server certificate.
    #[error("the certificate of the key, {subject:?}, is a CA certificate: servers cannot present it as their own ({place})")]
    LeafIsCa {
        /// Its subject.
        subject: String,
        /// Where it is.
        place: Place,
    },
    /// Only certificates of CAs: the leaf is not among them.
    #[error("there are only CA certificates ({0}); the certificate of the site itself is missing")]
    LeafMissing(String),
    /// Several certificates for the one key.
    #[error("the key has several certificates, and only one can be served: {0}")]
    SeveralLeaves(String),
    /// The issuer of the leaf is not there.
    #[error("the chain is not complete: the certificate of {issuer:?}, which signed {certificate}, is missing")]
    IssuerMissing {
        /// The leaf's name.
        certificate: String,
        /// The subject of the certificate that is missing.
        issuer: String,
        /// Where the CA offers it (authority information access, RFC 5280 section 4.2.2.1).
        ca_issuers: Option<String>,
    },
    /// The chain stops before the CA certificates that were given with it.
    #[error("the chain has a gap: the certificate of {issuer:?}, which signed {certificate:?}, is missing between it and {beyond:?}")]
    Gap {
        /// The last certificate that is connected.
        certificate: String,
        /// The subject of the certificate that is missing.
        issuer: String,
        /// A CA certificate that is not connected.
        beyond: String,
        /// Where the CA offers the missing one.
        ca_issuers: Option<String>,
    },
    /// An intermediate certificate that is not valid now.
    #[error("the intermediate certificate {subject:?} is valid from {} to {} (now: {})", rfc3339(.not_before), rfc3339(.not_after), rfc3339(.now))]
    IntermediateNotCurrent {
        /// Its subject.
        subject: String,
        /// Its first second.
        not_before: DateTime<Utc>,
        /// Its last second.
        not_after: DateTime<Utc>,
        /// The moment it was judged.
        now: DateTime<Utc>,
    },
    /// The leaf is past its last second.
    #[error("the certificate of {title} expired at {} (now: {})", rfc3339(.not_after), rfc3339(.now))]
    Expired {
        /// Its name.
        title: String,
        /// Its last second.
        not_after: DateTime<Utc>,
        /// The moment it was judged.
        now: DateTime<Utc>,
    },
    /// The leaf is before its first second.
    #[error("the certificate of {title} is valid only from {} on (now: {})", rfc3339(.not_before), rfc3339(.now))]
    NotYetValid {
        /// Its name.
        title: String,
        /// Its first second.
        not_before: DateTime<Utc>,
        /// The moment it was judged.
        now: DateTime<Utc>,
    },
    /// The leaf does not vouch for all of the site.
    #[error("the certificate does not cover {}; it covers {}", list(.missing), list(.has))]
    Names {
        /// What the site needs and the leaf lacks.
        missing: Vec<Identifier>,
        /// What the leaf vouches for.
        has: Vec<Identifier>,
    },
    /// The chain holds together, but clients would not have it.
    #[error("clients would refuse this chain, even if they trusted its root")]
    Unacceptable(#[source] TrustError),
    /// More certificates than anybody needs.
    #[error("there are {0} certificates; {most} at most are looked at", most = super::chain::MOST_CERTIFICATES)]
    TooMany(usize),
    /// The last proof failed, which every step before should have made impossible.
    #[error("key and chain make no bundle")]
    Bundle(#[from] BundleError),
}

impl SuppliedError {
    /// Whether a password, or another one, may be all that is missing.
    pub fn wants_password(&self) -> bool {
        matches!(self, Self::PasswordMissing(_) | Self::WrongPassword(_))
    }

    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Damaged { .. } => "copy the whole block again, from its BEGIN line to its END line, both included".to_owned(),
            Self::NoCertificate(_) | Self::RequestGiven(_) => {
                "give the file that the CA sent: it holds blocks that begin with -----BEGIN CERTIFICATE-----".to_owned()
            }
            Self::NoKey(_) | Self::PublicKeyGiven(_) => {
                "give the private key that the certificate request was made with: -----BEGIN PRIVATE KEY-----, or RSA or EC PRIVATE KEY"
                    .to_owned()
            }
            Self::OpenSshKeyGiven(_) => {
                "give the private key that the certificate request was made with, not the one for logging in".to_owned()
            }
            Self::Pkcs7(Place { file, line }) => {
                let form = if line.is_some() { "" } else { " -inform DER" };
                format!("convert it: openssl pkcs7{form} -in {file} -print_certs -out fullchain.pem")
            }
            Self::JavaKeystore(place) => {
                format!("convert it: keytool -importkeystore -srckeystore {} -destkeystore site.pfx -deststoretype PKCS12", place.file)
            }
            Self::PasswordMissing(_) => "give the password that it was encrypted with".to_owned(),
            Self::WrongPassword(_) => "check the password: case, spaces at its end, keyboard layout".to_owned(),
            Self::TraditionalEncryption(place) | Self::UnsupportedEncryption(place) => {
                format!("decrypt it: openssl pkey -in {} -out privkey.pem", place.file)
            }
            Self::UnreadableArchive { place, .. } => {
                format!("convert it: openssl pkcs12 -in {} -nodes -out site.pem (older archives: add -legacy)", place.file)
            }
            Self::UnusableKey { .. } => "look at it with: openssl pkey -in FILE -noout -text_pub".to_owned(),
            Self::OtherKey { .. } => {
                "find the file that prints the certificate's SHA-256: openssl pkey -in KEY -pubout -outform DER | sha256sum; \
                 for certificates: openssl x509 -in CERT -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum"
                    .to_owned()
            }
            Self::LeafIsCa { .. } => {
                "have it issued as a server certificate; one of your own: openssl req -x509 -addext basicConstraints=critical,CA:FALSE …"
                    .to_owned()
            }
            Self::LeafMissing(_) => "add the certificate that the CA issued for the site's own name".to_owned(),
            Self::SeveralLeaves(_) => {
                "leave in only the certificate to be served: openssl x509 -in FILE -noout -subject -serial -dates".to_owned()
            }
            Self::IssuerMissing { ca_issuers, .. } | Self::Gap { ca_issuers, .. } => match ca_issuers {
                Some(url) => format!("add it to the chain; the CA offers it at {url}"),
                None => "add it to the chain: the CA calls it intermediate, chain or CA bundle; where a root signed directly, add the root"
                    .to_owned(),
            },
            Self::IntermediateNotCurrent { .. } => "get the CA's current intermediate certificate, of the same subject".to_owned(),
            Self::Expired { .. } => "supply the renewed certificate, and check this machine's clock".to_owned(),
            Self::NotYetValid { .. } => "wait until then, or check this machine's clock".to_owned(),
            Self::Names { .. } => "order a certificate for all of the site's identifiers, or change the identifiers of the site".to_owned(),
            Self::Unacceptable(_) => "have it issued again, as a TLS server certificate for the site's names".to_owned(),
            Self::TooMany(_) => "give the site's own chain, not a store of all roots".to_owned(),
            Self::Bundle(_) => "look at the files with: openssl x509 -in FILE -noout -text".to_owned(),
        }
    }
}

/// There are no certificates; what there is instead makes the better message.
pub(super) fn no_certificate(materials: &[Material<'_>], foreign: &[Foreign]) -> SuppliedError {
    match foreign.iter().find(|other| other.kind == ForeignKind::Request) {
        Some(request) => SuppliedError::RequestGiven(request.place.clone()),
        None => SuppliedError::NoCertificate(names(materials)),
    }
}

/// There are no keys; what there is instead makes the better message.
pub(super) fn no_key(materials: &[Material<'_>], foreign: &[Foreign]) -> SuppliedError {
    let of = |kind| foreign.iter().find(|other| other.kind == kind).map(|other| other.place.clone());
    of(ForeignKind::OpenSshKey)
        .map(SuppliedError::OpenSshKeyGiven)
        .or_else(|| of(ForeignKind::PublicKey).map(SuppliedError::PublicKeyGiven))
        .unwrap_or_else(|| SuppliedError::NoKey(names(materials)))
}

/// No certificate fits the key: either the leaf is missing, or the key is another's.
pub(super) fn other_key(found: &FoundKey, certificates: &[FoundCertificate]) -> SuppliedError {
    let leaves: Vec<_> = certificates.iter().filter(|other| !other.certificate.is_ca).collect();
    if leaves.is_empty() {
        let subjects: Vec<_> = certificates.iter().map(|other| format!("{:?}", other.certificate.subject)).collect();
        return SuppliedError::LeafMissing(subjects.join(", "));
    }
    let describe = |other: &&FoundCertificate| {
        format!("that of the certificate of {} ({}) has {}", other.certificate.title(), other.place, other.certificate.public_fingerprint())
    };
    SuppliedError::OtherKey {
        key: key::public_fingerprint(&found.key),
        key_place: found.place.clone(),
        certificates: leaves.iter().map(describe).collect::<Vec<_>>().join(", "),
    }
}

fn names(materials: &[Material<'_>]) -> String {
    let mut names: Vec<_> = materials.iter().map(|material| material.name).collect();
    names.dedup();
    if names.is_empty() { "what was given".to_owned() } else { names.join(" and ") }
}

fn list(identifiers: &[Identifier]) -> String {
    if identifiers.is_empty() {
        return "no name at all".to_owned();
    }
    identifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
