//! Whether a chain leads to somebody who is trusted, as TLS clients judge it (RFC 5280 section 6).

use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use thiserror::Error;
use webpki::{EndEntityCert, KeyUsage};

use super::certificate::{Certificate, CertificateError};
use super::pem;
use super::time::rfc3339;

/// Whom a chain must lead to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Trust(Anchors);

#[derive(Clone, Debug, Eq, PartialEq)]
enum Anchors {
    Web,
    Roots(Vec<Certificate>),
    Pin(Box<Certificate>),
}

/// Why a chain is not trusted, or why roots cannot be read.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum TrustError {
    /// There is no leaf.
    #[error("there is no certificate to judge")]
    Empty,
    /// The roots are damaged text.
    #[error("the roots cannot be read")]
    Pem(#[source] pem::PemError),
    /// One of the roots is no certificate.
    #[error("root {position} cannot be read")]
    Root {
        /// Counted from 1.
        position: usize,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// There are no roots in the text.
    #[error("there is no root certificate in it")]
    NoRoots,
    /// The chain ends at somebody unknown.
    #[error("the chain does not lead to {trusted}: it ends at the issuer {issuer:?}")]
    UnknownIssuer {
        /// The issuer of the chain's last certificate.
        issuer: String,
        /// Who would have been trusted, in words.
        trusted: String,
    },
    /// Another certificate than the one that is pinned.
    #[error("it is not the pinned certificate: it has SHA-256 {found}, pinned is {pinned}")]
    OtherCertificate {
        /// SHA-256 of the leaf, lower-case hexadecimal.
        found: String,
        /// SHA-256 of the pinned certificate.
        pinned: String,
    },
    /// A certificate of the chain is past or before its time.
    #[error("{subject:?} is valid from {} to {} (now: {})", rfc3339(.not_before), rfc3339(.not_after), rfc3339(.now))]
    NotCurrent {
        /// The subject of that certificate.
        subject: String,
        /// Its first second.
        not_before: DateTime<Utc>,
        /// Its last second.
        not_after: DateTime<Utc>,
        /// The moment it was judged.
        now: DateTime<Utc>,
    },
    /// The leaf is a CA's own certificate.
    #[error("{0:?} is a CA certificate: clients refuse it as a server's")]
    CaAsLeaf(String),
    /// The extended key usage leaves servers out (RFC 5280 section 4.2.1.12).
    #[error("{0:?} is not meant for TLS servers")]
    NotForServers(String),
    /// Anything else that clients refuse.
    #[error("clients refuse the chain of {subject:?}: {why}")]
    Refused {
        /// The leaf's subject.
        subject: String,
        /// The verifier's word for it.
        why: String,
    },
}

impl Trust {
    /// The roots that browsers trust (Mozilla's list, in the crate webpki-roots).
    pub fn web() -> Self {
        Self(Anchors::Web)
    }

    /// The roots in a PEM text, one at least; blocks that are no certificates are passed over.
    pub fn from_pem(text: &str) -> Result<Self, TrustError> {
        let blocks = pem::blocks(text).map_err(TrustError::Pem)?;
        let certificates = blocks.iter().filter(|block| block.label == "CERTIFICATE").enumerate();
        let read = |(index, block): (usize, &pem::Block)| {
            Certificate::from_der(&block.der).map_err(|source| TrustError::Root { position: index + 1, source })
        };
        Self::roots(certificates.map(read).collect::<Result<Vec<_>, _>>()?)
    }

    /// These roots, one at least.
    pub fn roots(roots: Vec<Certificate>) -> Result<Self, TrustError> {
        if roots.is_empty() { Err(TrustError::NoRoots) } else { Ok(Self(Anchors::Roots(roots))) }
    }

    /// Exactly this leaf: the only trust that a self-signed certificate can have.
    pub fn pin(certificate: Certificate) -> Self {
        Self(Anchors::Pin(Box::new(certificate)))
    }

    /// Whether `chain`, leaf first, leads to somebody trusted and is good for TLS servers at `now`. Names are not looked at.
    pub fn leads_to(&self, chain: &[Certificate], now: DateTime<Utc>) -> Result<(), TrustError> {
        let leaf = chain.first().ok_or(TrustError::Empty)?;
        match &self.0 {
            Anchors::Web => {
                verify(chain, webpki_roots::TLS_SERVER_ROOTS, now).map_err(|error| explain(&error, chain, "a public root", now))
            }
            Anchors::Roots(roots) => {
                let ders: Vec<_> = roots.iter().map(|root| CertificateDer::from(root.der())).collect();
                let anchors: Vec<_> = ders.iter().filter_map(|der| webpki::anchor_from_trusted_cert(der).ok()).collect();
                let trusted = roots.iter().map(|root| format!("{:?}", root.subject)).collect::<Vec<_>>().join(" or ");
                verify(chain, &anchors, now).map_err(|error| explain(&error, chain, &trusted, now))
            }
            Anchors::Pin(pinned) if leaf != &**pinned => {
                Err(TrustError::OtherCertificate { found: leaf.fingerprint.clone(), pinned: pinned.fingerprint.clone() })
            }
            Anchors::Pin(_) if leaf.is_current(now) => Ok(()),
            Anchors::Pin(_) => Err(not_current(leaf, now)),
        }
    }
}

fn verify(chain: &[Certificate], anchors: &[TrustAnchor<'_>], now: DateTime<Utc>) -> Result<(), webpki::Error> {
    let ders: Vec<_> = chain.iter().map(|certificate| CertificateDer::from(certificate.der())).collect();
    let (leaf, intermediates) = ders.split_first().ok_or(webpki::Error::BadDer)?;
    let since_epoch = Duration::from_secs(now.timestamp().try_into().unwrap_or_default());
    let time = UnixTime::since_unix_epoch(since_epoch);
    let algorithms = webpki::ALL_VERIFICATION_ALGS;
    EndEntityCert::try_from(leaf)?
        .verify_for_usage(algorithms, anchors, intermediates, time, KeyUsage::server_auth(), None, None)
        .map(|_| ())
}

/// The verifier's errors name no certificates: this finds the one meant.
fn explain(error: &webpki::Error, chain: &[Certificate], trusted: &str, now: DateTime<Utc>) -> TrustError {
    let (Some(leaf), Some(last)) = (chain.first(), chain.last()) else { return TrustError::Empty };
    match error {
        webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => {
            let bad = chain.iter().find(|certificate| !certificate.is_current(now)).unwrap_or(last);
            not_current(bad, now)
        }
        webpki::Error::UnknownIssuer => TrustError::UnknownIssuer { issuer: last.issuer.clone(), trusted: trusted.to_owned() },
        webpki::Error::CaUsedAsEndEntity => TrustError::CaAsLeaf(leaf.subject.clone()),
        webpki::Error::RequiredEkuNotFoundContext(_) | webpki::Error::EmptyEkuExtension => TrustError::NotForServers(leaf.subject.clone()),
        other => TrustError::Refused { subject: leaf.subject.clone(), why: other.to_string() },
    }
}

fn not_current(certificate: &Certificate, now: DateTime<Utc>) -> TrustError {
    let (subject, not_before, not_after) = (certificate.subject.clone(), certificate.not_before, certificate.not_after);
    TrustError::NotCurrent { subject, not_before, not_after, now }
}
