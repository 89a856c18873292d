//! The fleet's identity: the one secret that opens what lies in the datastore.

use std::path::{Path, PathBuf};

use age::secrecy::ExposeSecret as _;
use age::x25519;
use thiserror::Error;
use zeroize::Zeroizing;

use super::seal::Seal;
use crate::domain::record::Manifest;
use crate::system::files::{self, Creation, FileError};

/// Where the configuration says that the identity is.
#[derive(Clone)]
pub enum IdentityPlace {
    /// In a file, which is made where it is missing.
    File(PathBuf),
    /// In a secret of another kind, already fetched.
    Given {
        /// The contents of an age identity file.
        text: Zeroizing<String>,
        /// What the configuration calls it, for messages.
        origin: String,
    },
}

/// How the configuration wants secrets to be kept.
#[derive(Clone)]
pub enum SealWanted {
    /// Sealed to the identity found there.
    Age(IdentityPlace),
    /// In the clear.
    None,
}

/// Why there is no identity to work with.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The fleet has one, this machine does not.
    #[error("the identity file {} is missing, and the datastore is sealed to {recipient}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
        /// Whom the datastore is sealed to.
        recipient: String,
    },
    /// A node without one can open nothing.
    #[error("the identity file {} is missing: without it no private key can be opened", path.display())]
    NotHere {
        /// Where it should be.
        path: PathBuf,
    },
    /// This machine has another fleet's.
    #[error("the identity in {origin} is that of {own}, and the datastore is sealed to {recipient}")]
    Other {
        /// Where it came from.
        origin: String,
        /// Whom it belongs to.
        own: String,
        /// Whom the datastore is sealed to.
        recipient: String,
    },
    /// Not an age identity.
    #[error("{origin} holds no age identity (a line that begins with AGE-SECRET-KEY-1)")]
    Unreadable {
        /// Where it came from.
        origin: String,
    },
    /// The file cannot be read.
    #[error("cannot read the identity file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Others on this machine can read it.
    #[error("the identity file {} has mode {mode:04o}: others on this machine can read it", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] FileError),
    /// The configuration and the datastore disagree.
    #[error("the configuration says seal = \"none\", and the datastore is sealed to {recipient}")]
    SealedStore {
        /// Whom the datastore is sealed to.
        recipient: String,
    },
    /// The configuration and the datastore disagree.
    #[error("the configuration says seal = \"age\", and the datastore keeps private keys in the clear")]
    ClearStore,
}

impl IdentityError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Missing { path, .. } | Self::NotHere { path } => {
                format!("copy the fleet's identity file from a machine that has it to {} (mode 0600)", path.display())
            }
            Self::Other { .. } => {
                "point [datastore] identity at the fleet's own identity file, or url at this fleet's datastore".to_owned()
            }
            Self::Unreadable { origin } => {
                format!("restore {origin} from a machine of the fleet; `certfleet init` writes one for a new fleet")
            }
            Self::Read { .. } => "check the owner and the mode of the file and of its directory".to_owned(),
            Self::Write(error) => error.hint(),
            Self::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            Self::SealedStore { .. } => "set [datastore] seal = \"age\", or use another prefix in url".to_owned(),
            Self::ClearStore => "set [datastore] seal = \"none\", or use another prefix in url".to_owned(),
        }
    }
}

/// The seal for a datastore that has been used before: its recipient must be ours.
pub fn seal_of_known(wanted: &SealWanted, manifest: &Manifest) -> Result<Seal, IdentityError> {
    match (wanted, &manifest.recipient) {
        (SealWanted::None, None) => Ok(Seal::None),
        (SealWanted::None, Some(recipient)) => Err(IdentityError::SealedStore { recipient: recipient.clone() }),
        (SealWanted::Age(_), None) => Err(IdentityError::ClearStore),
        (SealWanted::Age(place), Some(recipient)) => {
            let Some((identity, origin)) = load(place)? else {
                let IdentityPlace::File(path) = place else { return Err(IdentityError::Unreadable { origin: String::new() }) };
                return Err(IdentityError::Missing { path: path.clone(), recipient: recipient.clone() });
            };
            let own = identity.to_public().to_string();
            if own == *recipient {
                Ok(Seal::Age { identity, origin })
            } else {
                Err(IdentityError::Other { origin, own, recipient: recipient.clone() })
            }
        }
    }
}

/// The seal for a datastore at its first use, and the path of the identity file if it had to be made.
pub fn seal_at_first_use(wanted: &SealWanted) -> Result<(Seal, Option<PathBuf>), IdentityError> {
    let SealWanted::Age(place) = wanted else { return Ok((Seal::None, None)) };
    if let Some((identity, origin)) = load(place)? {
        return Ok((Seal::Age { identity, origin }, None));
    }
    let IdentityPlace::File(path) = place else { return Err(IdentityError::Unreadable { origin: String::new() }) };
    let made = create(path)?;
    let (identity, origin) = load(place)?.ok_or_else(|| IdentityError::Unreadable { origin: path.display().to_string() })?;
    Ok((Seal::Age { identity, origin }, (made == Creation::Created).then(|| path.clone())))
}

/// The seal for those who only look at a datastore that has not been used: nothing is made.
pub fn seal_if_any(wanted: &SealWanted) -> Result<Seal, IdentityError> {
    let SealWanted::Age(place) = wanted else { return Ok(Seal::None) };
    Ok(load(place)?.map_or(Seal::None, |(identity, origin)| Seal::Age { identity, origin }))
}

/// The seal on a node, which never makes an identity: it is given the fleet's.
pub fn seal_on_node(wanted: &SealWanted) -> Result<Seal, IdentityError> {
    match (seal_if_any(wanted)?, wanted) {
        (Seal::None, SealWanted::Age(IdentityPlace::File(path))) => Err(IdentityError::NotHere { path: path.clone() }),
        (seal, _) => Ok(seal),
    }
}

/// Makes a new identity file, mode 0600, in the format of age's own tools. One that is there is left alone.
pub fn create(path: &Path) -> Result<Creation, IdentityError> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        files::create_dir_all(directory, 0o700)?;
    }
    let identity = x25519::Identity::generate();
    let secret = identity.to_string();
    let text = Zeroizing::new(format!(
        "# certfleet: this fleet's identity. Whoever has it can read every private key in the datastore: keep a copy somewhere safe.\n\
         # public key: {}\n{}\n",
        identity.to_public(),
        secret.expose_secret()
    ));
    Ok(files::create(path, text.as_bytes(), 0o600)?)
}

/// The identity, where there is one.
fn load(place: &IdentityPlace) -> Result<Option<(x25519::Identity, String)>, IdentityError> {
    let (text, origin) = match place {
        IdentityPlace::Given { text, origin } => (text.clone(), origin.clone()),
        IdentityPlace::File(path) => match read(path)? {
            Some(text) => (text, path.display().to_string()),
            None => return Ok(None),
        },
    };
    let line = text.lines().map(str::trim).find(|line| line.starts_with("AGE-SECRET-KEY-1"));
    let identity = line.and_then(|line| line.parse::<x25519::Identity>().ok());
    identity.map(|identity| Some((identity, origin.clone()))).ok_or(IdentityError::Unreadable { origin })
}

/// Whom a text with an identity belongs to: its public half.
pub fn recipient(text: &Zeroizing<String>, origin: &str) -> Result<String, IdentityError> {
    let place = IdentityPlace::Given { text: text.clone(), origin: origin.to_owned() };
    let loaded = load(&place)?.ok_or_else(|| IdentityError::Unreadable { origin: origin.to_owned() })?;
    Ok(loaded.0.to_public().to_string())
}

/// The text of an identity file, where there is one; a file that others can read is refused.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>, IdentityError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| IdentityError::Read { path: path.to_owned(), source };
    let mode = match std::fs::metadata(path) {
        Ok(found) => found.permissions().mode() & 0o777,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    if mode & 0o077 != 0 {
        return Err(IdentityError::Exposed { path: path.to_owned(), mode });
    }
    std::fs::read_to_string(path).map(|text| Some(Zeroizing::new(text))).map_err(failed)
}
