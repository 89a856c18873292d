//! The build machine's own copies: `ssl/<site>/{fullchain,cert,chain,privkey}.pem`, always all of one bundle.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::domain::bundle::{Bundle, BundleError};
use crate::domain::site::SiteName;
use crate::system::directories;
use crate::system::files::{self, FileError};

/// The four files, in the order in which they are written.
const FILES: [&str; 4] = ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem"];

/// The `ssl` directory of a build.
#[derive(Clone, Debug)]
pub struct Runtimedata {
    ssl: PathBuf,
}

/// What lies in runtimedata cannot be used.
#[derive(Debug, Error)]
pub enum RuntimedataError {
    /// A file that is there cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One of the pair is there, the other is not.
    #[error("{} is missing", path.display())]
    Incomplete {
        /// The missing file.
        path: PathBuf,
    },
    /// The files do not make a bundle.
    #[error("the files in {}", directory.display())]
    Bundle {
        /// Where they are.
        directory: PathBuf,
        /// What is wrong with them.
        #[source]
        source: BundleError,
    },
}

/// Whether a bundle had to be written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kept {
    /// The files held it already.
    Unchanged,
    /// The files were switched.
    Written,
}

impl Runtimedata {
    /// The copies below `ssl`.
    pub fn new(ssl: PathBuf) -> Self {
        Self { ssl }
    }

    /// Where a site's files are.
    pub fn directory(&self, site: &SiteName) -> PathBuf {
        self.ssl.join(site.file_name())
    }

    /// Reads a site's bundle from `fullchain.pem` and `privkey.pem`; `None` where neither is there.
    pub fn read(&self, site: &SiteName) -> Result<Option<Bundle>, RuntimedataError> {
        let directory = self.directory(site);
        let (chain_path, key_path) = (directory.join("fullchain.pem"), directory.join("privkey.pem"));
        let (chain, key) = match (read_text(&chain_path)?, read_text(&key_path)?) {
            (None, None) => return Ok(None),
            (None, Some(_)) => return Err(RuntimedataError::Incomplete { path: chain_path }),
            (Some(_), None) => return Err(RuntimedataError::Incomplete { path: key_path }),
            (Some(chain), Some(key)) => (chain, key),
        };
        Bundle::from_pem(&chain, &key).map(Some).map_err(|source| RuntimedataError::Bundle { directory, source })
    }

    /// Puts a bundle there. The directory is switched as a whole: a reader finds the old four files or the new four. The directory
    /// before it is kept as `.previous/<site>`; files in it that are not ours move along.
    pub fn keep(&self, site: &SiteName, bundle: &Bundle) -> Result<Kept, FileError> {
        let directory = self.directory(site);
        let contents = contents(bundle);
        if is_kept(&directory, &contents) {
            return Ok(Kept::Unchanged);
        }
        files::create_dir_all(&self.ssl, files::SECRET_DIRECTORY)?;
        let staged = self.ssl.join(format!(".staged-{}", site.file_name()));
        directories::remove(&staged)?;
        files::create_dir_all(&staged, files::SECRET_DIRECTORY)?;
        for (name, bytes) in FILES.iter().zip(contents) {
            files::write_new(&staged.join(name), &bytes, files::SECRET_FILE)?;
        }
        let previous = self.ssl.join(".previous");
        files::create_dir_all(&previous, files::SECRET_DIRECTORY)?;
        directories::switch(&staged, &directory, &previous.join(site.file_name()), &FILES)?;
        Ok(Kept::Written)
    }
}

/// What the four files hold, in the order of [`FILES`].
fn contents(bundle: &Bundle) -> [zeroize::Zeroizing<Vec<u8>>; 4] {
    let public = |text: String| zeroize::Zeroizing::new(text.into_bytes());
    let key = zeroize::Zeroizing::new(bundle.key().to_pem().as_bytes().to_vec());
    [public(bundle.leaf_pem()), public(bundle.intermediates_pem()), public(bundle.chain_pem()), key]
}

fn is_kept(directory: &Path, contents: &[zeroize::Zeroizing<Vec<u8>>; 4]) -> bool {
    let same = |(name, bytes): (&&str, &zeroize::Zeroizing<Vec<u8>>)| directories::holds(&directory.join(name), bytes, 0o600);
    FILES.iter().zip(contents).all(same)
}

fn read_text(path: &Path) -> Result<Option<zeroize::Zeroizing<String>>, RuntimedataError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(zeroize::Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(RuntimedataError::Read { path: path.to_owned(), source }),
    }
}
