//! A private key and its full chain, proven to belong together.

use chrono::{DateTime, TimeDelta, Utc};
use thiserror::Error;
use zeroize::Zeroizing;

use super::certificate::{Certificate, CertificateError};
use super::identifier::Identifier;
use super::pem;
use super::private_key::{PrivateKey, PrivateKeyError};
use super::time::rfc3339;

/// More certificates than any real chain has: a bound on what a stranger can make us verify.
const LONGEST_CHAIN: usize = 10;

/// How far the clocks of a CA and a datastore may differ: what a CA has just issued may seem to begin in the future. Most CAs date
/// their certificates an hour back for that reason (<https://letsencrypt.org/docs/faq/>), but not all.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// A key and its chain. There is one way to make one, [`Bundle::new`], and it proves that they belong together.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Bundle {
    chain: Vec<Certificate>,
    key: PrivateKey,
}

/// Why a key and certificates are not a bundle.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum BundleError {
    /// Not one certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// More certificates than any chain has.
    #[error("it holds {0} certificates; a chain has {LONGEST_CHAIN} at most")]
    TooLong(usize),
    /// A PEM block that does not decode.
    #[error("its certificates cannot be read")]
    Pem(#[source] pem::PemError),
    /// Something that is not a certificate.
    #[error("certificate {position} cannot be read")]
    Certificate {
        /// Counted from 1, the leaf.
        position: usize,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// A key that is not usable.
    #[error("its private key cannot be used")]
    Key(#[source] PrivateKeyError),
    /// A certificate that the one after it did not sign.
    #[error("the chain breaks: {subject:?} is not signed by the certificate that follows it, {next:?}")]
    BrokenLink {
        /// The subject of the certificate without its signer.
        subject: String,
        /// The subject of the certificate after it.
        next: String,
    },
    /// The key of another certificate.
    #[error("the private key does not belong to the certificate of {0}")]
    OtherKey(String),
}

/// Why a bundle is no good for a site at a moment.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Unfit {
    /// Past its last second.
    #[error("it expired at {} (now: {})", rfc3339(.not_after), rfc3339(.now))]
    Expired {
        /// Its last second.
        not_after: DateTime<Utc>,
        /// The moment it was judged.
        now: DateTime<Utc>,
    },
    /// Before its first second.
    #[error("it is valid only from {} on (now: {})", rfc3339(.not_before), rfc3339(.now))]
    NotYetValid {
        /// Its first second.
        not_before: DateTime<Utc>,
        /// The moment it was judged.
        now: DateTime<Utc>,
    },
    /// Identifiers of the site that its leaf does not vouch for.
    #[error("it does not cover {}", list(.missing))]
    Names {
        /// What is missing, in the configuration's order.
        missing: Vec<Identifier>,
    },
}

impl Bundle {
    /// Proves that `chain` (DER, leaf first) holds together, each certificate signed by the next, and that `key` is the leaf's.
    pub fn new<D: AsRef<[u8]>>(chain: &[D], key: PrivateKey) -> Result<Self, BundleError> {
        let chain = read_chain(chain)?;
        if chain[0].public() != key.public() {
            return Err(BundleError::OtherKey(chain[0].title()));
        }
        prove_links(&chain)?;
        Ok(Self { chain, key })
    }

    /// Reads a chain and a key from PEM, the chain's leaf first. Blocks that are not certificates are passed over.
    pub fn from_pem(chain: &str, key: &str) -> Result<Self, BundleError> {
        let key = PrivateKey::from_pem(key).map_err(BundleError::Key)?;
        let blocks = pem::blocks(chain).map_err(BundleError::Pem)?;
        Self::new(&certificates_of(&blocks), key)
    }

    /// The certificate that servers present as their own.
    pub fn leaf(&self) -> &Certificate {
        &self.chain[0]
    }

    /// Leaf and intermediates.
    pub fn chain(&self) -> &[Certificate] {
        &self.chain
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKey {
        &self.key
    }

    /// The leaf alone as PEM: `cert.pem`.
    pub fn leaf_pem(&self) -> String {
        certificates_pem(&self.chain[..1])
    }

    /// Everything but the leaf as PEM: `chain.pem`.
    pub fn intermediates_pem(&self) -> String {
        certificates_pem(&self.chain[1..])
    }

    /// The chain as PEM, leaf first: `fullchain.pem`.
    pub fn chain_pem(&self) -> String {
        certificates_pem(&self.chain)
    }

    /// Key and chain in one PEM text, as haproxy and lighttpd read them.
    pub fn combined_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("{}{}", self.chain_pem(), self.key.to_pem().as_str()))
    }

    /// Whether it can serve `identifiers` at `now`, and if not, why.
    pub fn check(&self, identifiers: &[Identifier], now: DateTime<Utc>) -> Result<(), Unfit> {
        self.leaf().check(identifiers, now)
    }
}

/// Reads a chain without its key from PEM, leaf first and never empty, and proves that each certificate is signed by the next.
pub fn chain_from_pem(text: &str) -> Result<Vec<Certificate>, BundleError> {
    let blocks = pem::blocks(text).map_err(BundleError::Pem)?;
    let chain = read_chain(&certificates_of(&blocks))?;
    prove_links(&chain)?;
    Ok(chain)
}

fn certificates_of(blocks: &[pem::Block]) -> Vec<&[u8]> {
    blocks.iter().filter(|block| block.label == "CERTIFICATE").map(|block| block.der.as_slice()).collect()
}

fn read_chain<D: AsRef<[u8]>>(chain: &[D]) -> Result<Vec<Certificate>, BundleError> {
    if chain.is_empty() {
        return Err(BundleError::Empty);
    }
    if chain.len() > LONGEST_CHAIN {
        return Err(BundleError::TooLong(chain.len()));
    }
    let read = |(index, der): (usize, &D)| {
        Certificate::from_der(der.as_ref()).map_err(|source| BundleError::Certificate { position: index + 1, source })
    };
    chain.iter().enumerate().map(read).collect()
}

fn prove_links(chain: &[Certificate]) -> Result<(), BundleError> {
    let broken = chain.windows(2).find(|pair| !pair[0].is_signed_by(&pair[1]));
    broken.map_or(Ok(()), |pair| Err(BundleError::BrokenLink { subject: pair[0].subject.clone(), next: pair[1].subject.clone() }))
}

impl Certificate {
    /// Whether, as a leaf, it can serve `identifiers` at `now`, and if not, why.
    pub fn check(&self, identifiers: &[Identifier], now: DateTime<Utc>) -> Result<(), Unfit> {
        if now > self.not_after {
            return Err(Unfit::Expired { not_after: self.not_after, now });
        }
        if now + CLOCK_TOLERANCE < self.not_before {
            return Err(Unfit::NotYetValid { not_before: self.not_before, now });
        }
        let missing = self.missing(identifiers);
        if missing.is_empty() { Ok(()) } else { Err(Unfit::Names { missing }) }
    }

    /// A short name for messages: its first identifier, else its subject.
    pub fn title(&self) -> String {
        self.identifiers.first().map_or_else(|| self.subject.clone(), ToString::to_string)
    }
}

/// Certificates as PEM, one block after the other.
pub fn certificates_pem(certificates: &[Certificate]) -> String {
    certificates.iter().map(|certificate| pem::encode("CERTIFICATE", certificate.der()).to_string()).collect()
}

fn list(identifiers: &[Identifier]) -> String {
    identifiers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
