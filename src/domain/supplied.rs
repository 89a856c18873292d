//! What a person hands over, turned into a proven bundle.
//!
//! People have certificates in every order and wrapping: chains upside down, the root included, Windows line ends, a mail's text
//! around the blocks, keys in three formats, PFX archives. What can be put right without guessing is put right, and every change is
//! told as a [`Note`]. What cannot is refused with one [`SuppliedError`] that says which thing is wrong and how to find the right one.

mod archive;
mod chain;
mod error;
mod key;
mod note;
mod scan;

use std::fmt;

use chrono::{DateTime, Utc};

use super::bundle::{Bundle, Unfit};
use super::certificate::Certificate;
use super::identifier::Identifier;
use super::private_key::PrivateKey;
use super::trust::Trust;

pub use self::error::SuppliedError;
pub use self::note::Note;

/// One file, or one paste, that a person handed over.
#[derive(Clone, Copy)]
pub struct Material<'a> {
    /// What messages call it: its path, or "standard input".
    pub name: &'a str,
    /// Its content, untouched.
    pub bytes: &'a [u8],
    /// What the person says it is. It is only used to tell that two files were swapped.
    pub given_as: GivenAs,
}

/// What a person says that a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum GivenAs {
    /// The certificates.
    Chain,
    /// The private key.
    Key,
    /// Both, or nobody knows.
    Either,
}

/// A bundle made of supplied material, and what was changed on the way.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Supplied {
    /// Proven: it holds together, covers the site and is valid now.
    pub bundle: Bundle,
    /// Everything that was put right, in the order it was found.
    pub notes: Vec<Note>,
}

/// Where something was found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The name of the file.
    pub file: String,
    /// Counted from 1; `None` in binary files.
    pub line: Option<usize>,
}

/// Makes a bundle for `identifiers` out of `materials`, one file twice counting once. `password` opens encrypted keys and archives.
///
/// The leaf is the certificate that one of the keys belongs to. Its chain is built by signatures, not by order or names; roots,
/// duplicates, unrelated certificates and other keys are left out. Whether the chain is trusted is for the caller to ask:
/// see [`Trust`].
pub fn supplied(
    materials: &[Material<'_>],
    password: Option<&str>,
    identifiers: &[Identifier],
    now: DateTime<Utc>,
) -> Result<Supplied, SuppliedError> {
    let mut notes = Vec::new();
    let found = read(materials, password, &mut notes)?;
    let certificates = chain::without_duplicates(found.certificates, &mut notes);
    if certificates.is_empty() {
        return Err(error::no_certificate(materials, &found.foreign));
    }
    let Some(first_key) = found.keys.first() else {
        return Err(found.locked.unwrap_or_else(|| error::no_key(materials, &found.foreign)));
    };
    let Some((leaf, key)) = chain::leaf(&certificates, &found.keys)? else {
        // The key that does fit may be the one that could not be opened.
        return Err(found.locked.unwrap_or_else(|| error::other_key(first_key, &certificates)));
    };
    notes.extend(found.keys.iter().filter(|other| other.key != key.key).map(|other| Note::OtherKeyIgnored(other.place.clone())));
    notes.extend(
        found.foreign.iter().map(|foreign| Note::BlockIgnored { label: foreign.kind.words().to_owned(), place: foreign.place.clone() }),
    );
    // The leaf alone first: that it is of last year, or of another site, matters more than what its chain lacks.
    let alone = Bundle::new(&[leaf.certificate.der()], key.key.clone())?;
    alone.check(identifiers, now).map_err(|unfit| refused(&alone, unfit))?;
    // What begins in a moment is judged as of then, with all its chain.
    let now = now.max(leaf.certificate.not_before);
    let chain = chain::build(leaf, &certificates, &Trust::web(), now, &mut notes)?;
    let bundle = Bundle::new(&chain.iter().map(|certificate| certificate.der()).collect::<Vec<_>>(), key.key.clone())?;
    Ok(Supplied { bundle, notes })
}

/// Every certificate of a file, in the file's order: for those who only want to look. Keys in it are no matter.
pub fn certificates_in(name: &str, bytes: &[u8]) -> Result<Vec<Certificate>, SuppliedError> {
    let material = Material { name, bytes, given_as: GivenAs::Either };
    let found = scan::scan(&material, None, &mut Vec::new())?;
    if found.certificates.is_empty() {
        return Err(found.locked.unwrap_or_else(|| error::no_certificate(&[material], &found.foreign)));
    }
    Ok(found.certificates.into_iter().map(|found| found.certificate).collect())
}

fn refused(bundle: &Bundle, unfit: Unfit) -> SuppliedError {
    let title = bundle.leaf().title();
    match unfit {
        Unfit::Expired { not_after, now } => SuppliedError::Expired { title, not_after, now },
        Unfit::NotYetValid { not_before, now } => SuppliedError::NotYetValid { title, not_before, now },
        Unfit::Names { missing } => SuppliedError::Names { missing, has: bundle.leaf().identifiers.iter().cloned().collect() },
    }
}

/// A certificate and where it was.
struct FoundCertificate {
    certificate: Certificate,
    place: Place,
}

/// A key and where it was.
struct FoundKey {
    key: PrivateKey,
    place: Place,
}

/// Something that people mistake for a certificate or a key.
struct Foreign {
    kind: ForeignKind,
    place: Place,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum ForeignKind {
    Request,
    PublicKey,
    OpenSshKey,
}

impl ForeignKind {
    fn words(self) -> &'static str {
        match self {
            Self::Request => "certificate request",
            Self::PublicKey => "public key",
            Self::OpenSshKey => "OpenSSH private key",
        }
    }
}

/// Everything that was in the materials.
#[derive(Default)]
struct Found {
    certificates: Vec<FoundCertificate>,
    keys: Vec<FoundKey>,
    foreign: Vec<Foreign>,
    /// Why the first key that could not be opened could not: it only matters where no other key will do.
    locked: Option<SuppliedError>,
}

impl Found {
    fn absorb(&mut self, more: Self) {
        self.certificates.extend(more.certificates);
        self.keys.extend(more.keys);
        self.foreign.extend(more.foreign);
        self.locked = self.locked.take().or(more.locked);
    }
}

fn read(materials: &[Material<'_>], password: Option<&str>, notes: &mut Vec<Note>) -> Result<Found, SuppliedError> {
    let mut all = Found::default();
    let mut keys_instead = None;
    let mut certificates_instead = None;
    for (index, material) in materials.iter().enumerate() {
        if materials[..index].iter().any(|earlier| earlier.bytes == material.bytes) {
            continue;
        }
        let found = scan::scan(material, password, notes)?;
        let holds_key = !found.keys.is_empty() || found.locked.is_some();
        match material.given_as {
            GivenAs::Chain if found.certificates.is_empty() && holds_key => keys_instead = Some(material.name),
            GivenAs::Key if !found.certificates.is_empty() && !holds_key => certificates_instead = Some(material.name),
            _ => {}
        }
        all.absorb(found);
    }
    if let (Some(key), Some(chain)) = (keys_instead, certificates_instead) {
        notes.push(Note::Swapped { key: key.to_owned(), chain: chain.to_owned() });
    }
    Ok(all)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.line.map_or(Ok(()), |line| write!(f, ", line {line}"))
    }
}

impl fmt::Debug for Material<'_> {
    /// Never the bytes: they may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("name", &self.name).field("given_as", &self.given_as).finish_non_exhaustive()
    }
}
