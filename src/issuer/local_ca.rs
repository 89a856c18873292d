//! A CA of one's own: for trying certfleet out, and for networks whose clients can be given a root.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;
use thiserror::Error;
use zeroize::Zeroizing;

use super::leaf::{self, SigningError};
use super::{IssueError, Issuer, Lease, Request};
use crate::domain::bundle::Bundle;
use crate::domain::certificate::{Certificate, hex};
use crate::domain::key_type::KeyType;
use crate::domain::pem;
use crate::domain::private_key::{PrivateKey, PrivateKeyError};
use crate::domain::time::rfc3339;
use crate::system::error_chain::in_full;
use crate::system::files::{self, FileError};

/// The root's certificate: what browsers and `curl --cacert` are given.
pub const ROOT_FILE: &str = "root.pem";
/// The root's key. Whoever has it can impersonate every site to those who trust the root.
pub const KEY_FILE: &str = "root.key";

/// Leaves live as long as those of public CAs do today (<https://letsencrypt.org/docs/faq/>).
const DEFAULT_LEAF_LIFETIME: Duration = Duration::from_secs(90 * 86_400);

/// Ten years: roots are distributed by hand.
const ROOT_LIFETIME: Duration = Duration::from_secs(3_650 * 86_400);

/// With this little left of the root, leaves would hardly live: it is time for people to act, not for ever shorter leaves.
const LEAST_LEFT: TimeDelta = TimeDelta::days(1);

/// How a local CA signs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LocalCaOptions {
    /// Of each leaf, counted from the moment of issuance. Apple's systems refuse more than 825 days also from CAs of one's own
    /// (<https://support.apple.com/en-us/103769>).
    pub leaf_lifetime: Duration,
    /// Who runs the CA: put into the root's name, so that people recognise it among others. Used only when the root is made.
    pub owner: Option<String>,
}

/// A root kept in a directory, and the certificates it signs.
///
/// The chains it makes are the leaf alone: whoever trusts the root has the root.
#[derive(Clone)]
pub struct LocalCa {
    signer: Arc<Signer>,
    root_path: PathBuf,
    leaf_lifetime: Duration,
}

struct Signer {
    root: Certificate,
    key: PrivateKey,
}

/// Why there is no local CA.
#[derive(Debug, Error)]
pub enum LocalCaError {
    /// A file or directory could not be made, read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The certificate is there, its key is not.
    #[error("{} is there, but its key {} is missing", root.display(), key.display())]
    KeyMissing {
        /// The certificate.
        root: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// The key cannot be used.
    #[error("the key {} cannot be used", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: PrivateKeyError,
    },
    /// The certificate cannot be used.
    #[error("{} is not one root certificate", path.display())]
    Root {
        /// The file.
        path: PathBuf,
    },
    /// Certificate and key are not of each other.
    #[error("{} does not belong to the key {}", root.display(), key.display())]
    OtherKey {
        /// The certificate.
        root: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// A new root could not be signed.
    #[error("no root could be made")]
    Sign(#[from] SigningError),
}

impl LocalCa {
    /// Opens the CA in `dir`, or makes one there: `root.key` first, then `root.pem` signed with it.
    ///
    /// Both files appear complete or not at all, and only once: of any number of processes doing this at the same time all end up
    /// with the same two files, and one that was killed in between is finished by the next.
    pub fn open_or_create(dir: &Path, options: &LocalCaOptions, now: DateTime<Utc>) -> Result<Self, LocalCaError> {
        let (root_path, key_path) = (dir.join(ROOT_FILE), dir.join(KEY_FILE));
        files::create_dir_all(dir, files::SECRET_DIRECTORY)?;
        // Looked for before the key: another process makes the key first, so this order never takes its work for a loss.
        let had_root = root_path.exists();
        let key_pem = match read(&key_path)? {
            Some(text) => text,
            None if had_root => return Err(LocalCaError::KeyMissing { root: root_path, key: key_path }),
            None => {
                let key = leaf::generate_key(KeyType::EcdsaP256)?;
                let text = pem::encode("PRIVATE KEY", key.serialized_der());
                create_once(&key_path, text.as_bytes(), files::SECRET_FILE)?
            }
        };
        let root_pem = if let Some(text) = read(&root_path)? {
            text
        } else {
            let key = PrivateKey::from_pem(&key_pem).map_err(|source| LocalCaError::Key { path: key_path.clone(), source })?;
            let text = new_root(&key, options, now)?;
            create_once(&root_path, text.as_bytes(), 0o644)?
        };
        Self::of_files(&root_pem, &key_pem, [root_path, key_path], options)
    }

    /// Opens the CA in `dir`, where there is one. Nothing is made.
    pub fn open(dir: &Path, options: &LocalCaOptions) -> Result<Option<Self>, LocalCaError> {
        let (root_path, key_path) = (dir.join(ROOT_FILE), dir.join(KEY_FILE));
        let Some(root_pem) = read(&root_path)? else { return Ok(None) };
        let Some(key_pem) = read(&key_path)? else { return Err(LocalCaError::KeyMissing { root: root_path, key: key_path }) };
        Self::of_files(&root_pem, &key_pem, [root_path, key_path], options).map(Some)
    }

    fn of_files(
        root_pem: &str,
        key_pem: &str,
        [root_path, key_path]: [PathBuf; 2],
        options: &LocalCaOptions,
    ) -> Result<Self, LocalCaError> {
        let key = PrivateKey::from_pem(key_pem).map_err(|source| LocalCaError::Key { path: key_path.clone(), source })?;
        let root = root_certificate(root_pem).ok_or_else(|| LocalCaError::Root { path: root_path.clone() })?;
        if root.public() != key.public() {
            return Err(LocalCaError::OtherKey { root: root_path, key: key_path });
        }
        Ok(Self { signer: Arc::new(Signer { root, key }), root_path, leaf_lifetime: options.leaf_lifetime })
    }

    /// The root's certificate.
    pub fn root(&self) -> &Certificate {
        &self.signer.root
    }

    /// Where the root's certificate is kept: what people give to `curl --cacert` or import into a browser.
    pub fn root_path(&self) -> &Path {
        &self.root_path
    }

    /// Whether the root can still sign what lives.
    pub fn check_root(&self, now: DateTime<Utc>) -> Result<(), IssueError> {
        let root = self.root();
        let until = rfc3339(&root.not_after);
        let from = rfc3339(&root.not_before);
        let (reason, hint) = if now < root.not_before {
            (format!("the root of the local CA is valid only from {from} on"), "check the datastore's clock and this machine's".to_owned())
        } else if root.not_after - now < LEAST_LEFT {
            let dir = self.root_path.parent().unwrap_or(&self.root_path).display();
            (
                format!("the root of the local CA is valid only until {until}"),
                format!("move {dir} away: the next run makes a new root, which clients must be given"),
            )
        } else {
            return Ok(());
        };
        Err(IssueError::Refused { reason, hint, retry_after: None })
    }
}

#[async_trait]
impl Issuer for LocalCa {
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError> {
        lease.progress("signing with the local CA");
        self.check_root(request.now)?;
        let (signer, lifetime, request) = (Arc::clone(&self.signer), self.leaf_lifetime, request.clone());
        leaf::in_background(move || signer.sign(lifetime, &request)).await
    }
}

impl Signer {
    fn sign(&self, lifetime: Duration, request: &Request) -> Result<Bundle, IssueError> {
        let make = || {
            let key = leaf::generate_key(request.key_type)?;
            // What outlives its root is refused by every client from the root's end on.
            let not_after = leaf::last_second(request.now, lifetime)?.min(self.root.not_after);
            let params = leaf::leaf_params(request, not_after)?;
            let signing_key = KeyPair::try_from(self.key.pkcs8()).map_err(SigningError::Sign)?;
            let issuer =
                rcgen::Issuer::from_ca_cert_der(&CertificateDer::from(self.root.der()), signing_key).map_err(SigningError::Sign)?;
            let certificate = params.signed_by(&key, &issuer).map_err(SigningError::Sign)?;
            Ok((certificate, key))
        };
        let (certificate, key) = make().map_err(|error| leaf::refused(&error))?;
        leaf::bundle(certificate.der(), &key)
    }
}

/// A root that may sign leaves and nothing that signs (RFC 5280 section 4.2.1.9: path length 0).
fn new_root(key: &PrivateKey, options: &LocalCaOptions, now: DateTime<Utc>) -> Result<String, SigningError> {
    let key = KeyPair::try_from(key.pkcs8()).map_err(SigningError::Sign)?;
    let mut params = CertificateParams::default();
    let id = hex(&params.key_identifier(&key)[..4]);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "certfleet");
    let owner = options.owner.as_deref().map(|owner| format!(" of {}", owner.chars().take(32).collect::<String>())).unwrap_or_default();
    params.distinguished_name.push(DnType::CommonName, format!("certfleet local CA {id}{owner}"));
    params.serial_number = Some(leaf::random_serial()?);
    params.not_before = leaf::date(now - leaf::BACKDATE)?;
    params.not_after = leaf::date(leaf::last_second(now, ROOT_LIFETIME)?)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(pem::encode("CERTIFICATE", params.self_signed(&key).map_err(SigningError::Sign)?.der()).to_string())
}

fn root_certificate(text: &str) -> Option<Certificate> {
    let blocks = pem::blocks(text).ok()?;
    let [block] = blocks.as_slice() else { return None };
    Certificate::from_der(&block.der).ok().filter(|root| root.is_ca && root.is_self_signed())
}

fn read(path: &Path) -> Result<Option<Zeroizing<String>>, LocalCaError> {
    match files::read_text(path) {
        Err(error) if error.source.kind() == ErrorKind::NotFound => Ok(None),
        read => Ok(Some(read?)),
    }
}

/// Puts a complete file at `path` where there is none, durably, and returns what is there then: `content`, or what another process put
/// there first.
fn create_once(path: &Path, content: &[u8], mode: u32) -> Result<Zeroizing<String>, LocalCaError> {
    files::create(path, content, mode)?;
    Ok(files::read_text(path)?)
}

impl Default for LocalCaOptions {
    fn default() -> Self {
        Self { leaf_lifetime: DEFAULT_LEAF_LIFETIME, owner: None }
    }
}

impl std::fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCa").field("root", &self.root_path).field("leaf_lifetime", &self.leaf_lifetime).finish_non_exhaustive()
    }
}

impl LocalCaError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::File(FileError { path, .. }) => {
                format!("check that {} can be read and written by this user, and that the disk is not full", path.display())
            }
            Self::KeyMissing { key, root } => {
                format!(
                    "put {} back, or move {} away: the next run makes a new root, which clients must be given",
                    key.display(),
                    root.display()
                )
            }
            Self::Key { path, .. } | Self::Root { path } => {
                let dir = path.parent().unwrap_or(path).display();
                format!("restore it from a backup, or move {dir} away: the next run makes a new root, which clients must be given")
            }
            Self::OtherKey { root, .. } => {
                format!(
                    "restore both from one backup, or move {} away: the next run makes a certificate for the key that is there",
                    root.display()
                )
            }
            Self::Sign(_) => "check this machine's clock and its source of random numbers".to_owned(),
        }
    }
}

/// The local CA as an issuer that is made only when something is asked of it: looking must write nothing.
#[derive(Clone, Debug)]
pub struct LocalCaIssuer {
    dir: PathBuf,
    options: LocalCaOptions,
}

impl LocalCaIssuer {
    /// The CA in `dir`, whether it is there yet or not.
    pub fn new(dir: PathBuf, options: LocalCaOptions) -> Self {
        Self { dir, options }
    }
}

#[async_trait]
impl Issuer for LocalCaIssuer {
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError> {
        let ca = LocalCa::open_or_create(&self.dir, &self.options, request.now).map_err(|error| IssueError::Refused {
            reason: in_full(&error),
            hint: error.hint(),
            retry_after: None,
        })?;
        ca.issue(request, lease).await
    }
}
