//! Receiving a delivery: the configuration, the identity and the bundles come to lie where the machine's own runs look for them.
//!
//! Everything is looked at before anything is written. The identity is written first and the configuration last, because it is the
//! configuration that makes everything else count.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::identity::{self, IdentityError};
use crate::domain::delivery::{self, Delivery};
use crate::domain::object_key::Generation;
use crate::domain::record::{self, BundleRecord};
use crate::domain::site::SiteName;
use crate::system::files::{self, Creation, FileError};

/// Everybody may read the configuration: by design no secret is written into it.
const CONFIGURATION_MODE: u32 = 0o644;

/// For the directory of the configuration.
const CONFIGURATION_DIRECTORY_MODE: u32 = 0o755;

/// The root of a CA is public.
const ROOT_MODE: u32 = 0o644;

/// What is put behind the name of a configuration that was replaced.
const PREVIOUS: &str = "previous";

/// Where the parts of a delivery belong on this machine.
#[derive(Clone, Debug)]
pub struct Destination {
    /// The configuration file.
    pub configuration: PathBuf,
    /// The identity file; `None` where the configuration has it come from elsewhere.
    pub identity: Option<PathBuf>,
    /// The root of the local CA.
    pub local_ca_root: PathBuf,
    /// The key beside it, if this machine is the local CA itself.
    pub local_ca_key: PathBuf,
    /// The bundles.
    pub delivered: Delivered,
}

/// Why a delivery was not accepted. Unless it is a file that could not be written, nothing was touched.
#[derive(Debug, Error)]
pub enum ReceiveError {
    /// Not a delivery.
    #[error(transparent)]
    Delivery(#[from] delivery::DeliveryError),
    /// The identity, here or in the delivery, is none.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// This machine belongs to another fleet.
    #[error("this machine has the identity of {own} in {}, and the delivery is from the fleet of {delivered}", path.display())]
    OtherFleet {
        /// The identity file.
        path: PathBuf,
        /// Whose it is.
        own: String,
        /// The sender's.
        delivered: String,
    },
    /// This machine is a local CA, and not the sender's.
    #[error("this machine has a local CA of its own in {}, and the delivery has the root of another", .0.display())]
    OtherCa(PathBuf),
    /// A file that is there cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
}

impl ReceiveError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Delivery(_) => "let both machines have the same certfleet, and push again".to_owned(),
            Self::Identity(error) => error.hint(),
            Self::OtherFleet { path, .. } => {
                format!("if the machine is to change fleets, move {} away there and push again", path.display())
            }
            Self::OtherCa(path) => format!("move {} away there, with the root beside it, and push again", path.display()),
            Self::Read { path, source } => files::hint(path, source.kind()),
            Self::Write(error) => error.hint(),
        }
    }
}

/// The bundles that were delivered: what a machine installs while the datastore cannot be reached.
#[derive(Clone, Debug)]
pub struct Delivered {
    directory: PathBuf,
}

impl Delivered {
    /// Those in the place that a build keeps in `place`.
    pub fn in_place(place: &Path) -> Self {
        Self { directory: place.join("delivered") }
    }

    /// Where a site's bundle is.
    pub fn path(&self, site: &SiteName) -> PathBuf {
        self.directory.join(format!("{}.json", site.file_name()))
    }

    /// The object of a site's bundle with its generation, as it was delivered. It is proven like any other: by opening it.
    pub fn read(&self, site: &SiteName) -> Result<Option<(Generation, Vec<u8>)>, ReceiveError> {
        let Some(bytes) = read(&self.path(site))? else { return Ok(None) };
        // What is no bundle any more is as good as absent: the next delivery replaces it.
        Ok(record::read::<BundleRecord>(&bytes).ok().map(|record| (record.generation, bytes)))
    }

    /// Keeps the object unless a later one is there.
    fn keep(&self, site: &SiteName, bundle: delivery::DeliveredBundle<'_>) -> Result<bool, ReceiveError> {
        if let Some((generation, there)) = self.read(site)?
            && (generation > bundle.generation || there == bundle.object.as_bytes())
        {
            return Ok(false);
        }
        files::create_dir_all(&self.directory, files::SECRET_DIRECTORY)?;
        files::replace(&self.path(site), bundle.object.as_bytes(), files::SECRET_FILE)?;
        Ok(true)
    }
}

/// Puts a delivery in place, and returns the files that were written: none, where everything was there already.
pub fn receive(delivery: &Delivery, to: &Destination) -> Result<Vec<PathBuf>, ReceiveError> {
    let bundles = delivery.sites()?;
    let identity = new_identity(delivery, to)?;
    let root = new_root(delivery, to)?;
    let before = read(&to.configuration)?;

    // First, because directories with secrets, which get a narrower mode, lie in it.
    make_directory_of(&to.configuration, CONFIGURATION_DIRECTORY_MODE)?;
    let mut written = Vec::new();
    if let Some((path, text)) = identity {
        make_directory_of(path, files::SECRET_DIRECTORY)?;
        match files::create(path, text.as_bytes(), files::SECRET_FILE)? {
            Creation::Created => written.push(path.clone()),
            // Somebody else was faster.
            Creation::Exists => drop(new_identity(delivery, to)?),
        }
    }
    if let Some(text) = root {
        make_directory_of(&to.local_ca_root, files::SECRET_DIRECTORY)?;
        files::replace(&to.local_ca_root, text.as_bytes(), ROOT_MODE)?;
        written.push(to.local_ca_root.clone());
    }
    for (site, bundle) in bundles {
        if to.delivered.keep(&site, bundle)? {
            written.push(to.delivered.path(&site));
        }
    }
    if before.as_deref() != Some(delivery.configuration.as_bytes()) {
        let mode = match &before {
            Some(text) => {
                let mode = mode_of(&to.configuration)?;
                files::replace(&previous(&to.configuration), text, mode)?;
                mode
            }
            None => CONFIGURATION_MODE,
        };
        files::replace(&to.configuration, delivery.configuration.as_bytes(), mode)?;
        written.push(to.configuration.clone());
    }
    Ok(written)
}

/// The identity, if it is to be written: another one that is there is never replaced.
fn new_identity<'a>(delivery: &'a Delivery, to: &'a Destination) -> Result<Option<(&'a PathBuf, &'a str)>, ReceiveError> {
    let (Some(text), Some(path)) = (&delivery.identity, &to.identity) else { return Ok(None) };
    let delivered = identity::recipient(text, "the delivery")?;
    let Some(there) = identity::read(path)? else { return Ok(Some((path, text))) };
    let own = identity::recipient(&there, &path.display().to_string())?;
    if own == delivered { Ok(None) } else { Err(ReceiveError::OtherFleet { path: path.clone(), own, delivered }) }
}

fn new_root<'a>(delivery: &'a Delivery, to: &Destination) -> Result<Option<&'a str>, ReceiveError> {
    let Some(root) = &delivery.local_ca_root else { return Ok(None) };
    match read(&to.local_ca_root)? {
        Some(there) if there == root.as_bytes() => Ok(None),
        _ if to.local_ca_key.exists() => Err(ReceiveError::OtherCa(to.local_ca_key.clone())),
        _ => Ok(Some(root)),
    }
}

fn previous(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(PREVIOUS);
    name.into()
}

fn mode_of(path: &Path) -> Result<u32, ReceiveError> {
    let failed = |source| ReceiveError::Read { path: path.to_owned(), source };
    Ok(fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777)
}

fn make_directory_of(path: &Path, mode: u32) -> Result<(), FileError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    directory.map_or(Ok(()), |directory| files::create_dir_all(directory, mode))
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, ReceiveError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReceiveError::Read { path: path.to_owned(), source }),
    }
}
