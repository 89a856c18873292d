//! What was put right.

use std::fmt;

use super::Place;

/// One thing that was changed between the files and the bundle.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// The certificates were in another order than servers need.
    Reordered,
    /// A self-signed root: clients have their own, so it is not sent.
    RootRemoved(String),
    /// The same certificate again.
    DuplicateRemoved {
        /// Its subject.
        subject: String,
        /// Where it was.
        place: Place,
    },
    /// A certificate that is not part of the leaf's chain.
    UnrelatedRemoved {
        /// Its subject.
        subject: String,
        /// Where it was.
        place: Place,
    },
    /// An expired certificate at the end of a chain that leads to a public root without it.
    ExpiredRemoved(String),
    /// A private key of some other certificate.
    OtherKeyIgnored(Place),
    /// The key was not in PKCS#8.
    KeyConverted {
        /// What it was: "PKCS#1", "SEC 1".
        from: &'static str,
        /// Where it was.
        place: Place,
    },
    /// The key was encrypted; the bundle's is not, until it is sealed.
    KeyDecrypted(Place),
    /// Certificate and key were taken out of a PKCS#12 archive.
    FromArchive(String),
    /// The file was binary (DER), not PEM.
    FromDer(String),
    /// Text that belongs to no block.
    TextIgnored(String),
    /// A block that is neither certificate nor private key.
    BlockIgnored {
        /// What it is.
        label: String,
        /// Where it was.
        place: Place,
    },
    /// A certificate under an old label.
    Relabelled {
        /// The label it had.
        label: String,
        /// Where it was.
        place: Place,
    },
    /// Windows or old Macintosh line ends.
    LineEnds(String),
    /// Blank lines, indentation, or lines of another length than 64.
    Spacing(String),
    /// A byte order mark, or UTF-16, as Windows editors write.
    Encoding(String),
    /// The two files were given the wrong way round.
    Swapped {
        /// The file that holds the key.
        key: String,
        /// The file that holds the chain.
        chain: String,
    },
    /// The chain ends at an issuer that is no public root: only clients that trust that issuer will accept it.
    NotPublic(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reordered => f.write_str("the certificates were reordered, leaf first"),
            Self::RootRemoved(subject) => write!(f, "the root {subject:?} was left out: clients have their own copy"),
            Self::DuplicateRemoved { subject, place } => write!(f, "a second copy of {subject:?} was left out ({place})"),
            Self::UnrelatedRemoved { subject, place } => write!(f, "{subject:?} was left out: it is not part of the chain ({place})"),
            Self::ExpiredRemoved(subject) => write!(f, "{subject:?} was left out: it has expired, and the chain is complete without it"),
            Self::OtherKeyIgnored(place) => write!(f, "a private key of another certificate was left out ({place})"),
            Self::KeyConverted { from, place } => write!(f, "the private key was converted from {from} to PKCS#8 ({place})"),
            Self::KeyDecrypted(place) => write!(f, "the private key was decrypted with the password ({place})"),
            Self::FromArchive(file) => write!(f, "certificates and key were taken out of the PKCS#12 archive {file}"),
            Self::FromDer(file) => write!(f, "{file} was converted from DER to PEM"),
            Self::TextIgnored(file) => write!(f, "text around the PEM blocks of {file} was ignored"),
            Self::BlockIgnored { label, place } => write!(f, "a block that is not needed was ignored: {label} ({place})"),
            Self::Relabelled { label, place } => write!(f, "the label {label:?} was changed to \"CERTIFICATE\" ({place})"),
            Self::LineEnds(file) => write!(f, "the line ends of {file} were changed to line feeds"),
            Self::Spacing(file) => write!(f, "blank lines, indentation or line lengths of {file} were made regular"),
            Self::Encoding(file) => write!(f, "the byte order mark of {file} was removed, or its UTF-16 converted"),
            Self::Swapped { key, chain } => write!(f, "the files were swapped: {key} is the private key, {chain} the chain"),
            Self::NotPublic(issuer) => {
                write!(f, "the chain ends at {issuer:?}, which is no public root: only clients that trust it will accept it")
            }
        }
    }
}
