//! A node's certificates on disk: one directory with `live` and `archive`, laid out as certbot does it.
//!
//! ```text
//! <ssl_root>/archive/<site>/<generation>/{fullchain,cert,chain,privkey}.pem [+ combined.pem] + bundle.json
//! <ssl_root>/live/<site>  ->  ../archive/<site>/<generation>
//! ```
//!
//! A generation's directory is complete, with its owners and modes, before its name exists, and is never written into afterwards; one
//! rename(2) of the link, or one exchange of directories, takes a site from one to the other. Killed at any point, the old one or the
//! new one is there.
//!
//! What is promised is promised of a directory: whoever opens `live/<site>` once and reads through it finds files of one generation. A
//! server that looks `live/<site>/fullchain.pem` and `live/<site>/privkey.pem` up one after the other can do so on both sides of a switch;
//! it refuses such a pair itself, and it is tested, reloaded and looked at after the switch.
//!
//! Only one run at a time may work on a root: callers hold the machine's lock.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::domain::bundle::Bundle;
use crate::domain::object_key::Generation;
use crate::domain::site::SiteName;
use crate::system::directories;
use crate::system::files::{self, FileError};
use crate::system::steps;
use crate::system::text::printable;

mod error;
mod generation;

pub use crate::system::owner::{Owner, OwnerError};
pub use error::SslRootError;
use generation::{Access, NAMES, OBJECT};

/// What an adopted directory is called after its site: `+` cannot occur in the name of one, but for `+staging`.
const ADOPTED_SUFFIX: &str = "+adopted";

/// More directories than anybody has adopted of one site.
const MOST_ADOPTED: u32 = 1000;

/// One `ssl_root`, and how its files are to be.
#[derive(Clone, Debug, Hash)]
pub struct SslRoot {
    directory: PathBuf,
    files: Files,
    access: Access,
}

/// Which files a generation has.
///
/// Where several targets share a root, it has [`Files::WithCombined`] if one of them wants it: what is not asked for is no matter.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Files {
    /// Key and chain in files of their own.
    Separate,
    /// `combined.pem` as well: chain and key in one file, as haproxy wants it, and lighttpd can have it.
    WithCombined,
}

/// What `live/<site>` is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Live {
    /// Nothing.
    Absent,
    /// Our link to this generation, whether its directory is there or not.
    Ours(Generation),
    /// A directory of somebody else's, the toolkit's or certbot's: it can be adopted.
    Directory,
    /// Something that is left alone: a file, somebody else's link. In words.
    Refused(String),
}

/// What a generation's files are made of.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// Key and chain.
    pub bundle: &'a Bundle,
    /// The very bytes of the datastore's object.
    pub object: &'a [u8],
}

/// What [`SslRoot::switch`] has done, for [`SslRoot::switch_back`].
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use = "without it there is no way back"]
pub struct Switched {
    site: SiteName,
    to: Generation,
    before: Before,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Before {
    Absent,
    Generation(Generation),
    /// A directory, which is kept there since.
    Adopted(PathBuf),
}

impl Switched {
    /// The generation that was served before, where the site had one of ours.
    pub fn from_generation(&self) -> Option<Generation> {
        match self.before {
            Before::Generation(generation) => Some(generation),
            Before::Absent | Before::Adopted(_) => None,
        }
    }

    /// Where the directory is kept that `live/<site>` was before.
    pub fn adopted(&self) -> Option<&Path> {
        match &self.before {
            Before::Adopted(path) => Some(path),
            Before::Absent | Before::Generation(_) => None,
        }
    }
}

impl SslRoot {
    /// The root at `directory`. Its files belong to `owner`, or to whoever runs this; those with the key have `key_mode` (permission bits).
    ///
    /// Directories made here can be entered by the owner, and by the group where it may read keys. Those that are there keep their mode.
    pub fn new(directory: PathBuf, owner: Option<Owner>, key_mode: u32, files: Files) -> Self {
        Self { directory, files, access: Access { owner, key_mode } }
    }

    /// The directory of `live` and `archive`.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where servers find a site's files.
    pub fn live_path(&self, site: &SiteName) -> PathBuf {
        self.directory.join("live").join(site.file_name())
    }

    fn archive(&self, site: &SiteName) -> PathBuf {
        self.directory.join("archive").join(site.file_name())
    }

    /// Where a generation's files are kept.
    pub fn archive_path(&self, site: &SiteName, generation: Generation) -> PathBuf {
        self.archive(site).join(generation.to_string())
    }

    /// What `live/<site>` is at present.
    pub fn live(&self, site: &SiteName) -> Result<Live, SslRootError> {
        let live = self.directory.join("live");
        if live.is_symlink() {
            return Ok(Live::Refused(format!("below {}, a link itself: links in it would lead elsewhere", live.display())));
        }
        let path = self.live_path(site);
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Live::Absent),
            Err(source) => return Err(failed("look at", &path)(source).into()),
        };
        if metadata.is_dir() {
            return Ok(Live::Directory);
        }
        if !metadata.is_symlink() {
            return Ok(Live::Refused("a file".to_owned()));
        }
        let target = fs::read_link(&path).map_err(failed("look at", &path))?;
        Ok(linked_generation(site, &target)
            .map_or_else(|| Live::Refused(format!("a link of somebody else's, to {}", printable(&target.to_string_lossy()))), Live::Ours))
    }

    /// A digest over the inode, size, times, mode and owners of every file that a generation must have, and of its directory. `None` where
    /// one is missing. No program can set the time of the last change: while the stamp is the same, so are the files.
    pub fn stamp(&self, site: &SiteName, generation: Generation) -> Option<String> {
        generation::stamp(&self.archive_path(site, generation), self.files)
    }

    /// The datastore's object that a generation was installed from; `None` where it is missing.
    pub fn object(&self, site: &SiteName, generation: Generation) -> Result<Option<Vec<u8>>, SslRootError> {
        let path = self.archive_path(site, generation).join(OBJECT);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(source) => Err(failed("read", &path)(source).into()),
        }
    }

    /// Whether a generation has every file, byte for byte, with its owner and its mode.
    pub fn holds(&self, site: &SiteName, generation: Generation, contents: &Contents<'_>) -> bool {
        self.access.holds(&self.archive_path(site, generation), contents, self.files)
    }

    /// Makes `archive/<site>/<generation>`, durably. One that [holds](Self::holds) its files already is left alone; one that differs is
    /// replaced in one step, so that a link to it never leads to a mixture. Where the file system cannot exchange two directories it is
    /// absent for a moment.
    pub fn stage(&self, site: &SiteName, generation: Generation, contents: &Contents<'_>) -> Result<(), SslRootError> {
        if self.holds(site, generation, contents) {
            return Ok(());
        }
        let target = self.archive_path(site, generation);
        refuse_all_but_directories(&target)?;
        let archive = self.archive(site);
        self.access.make_directory(&archive)?;
        let staged = archive.join(files::temporary_name());
        let replaced = archive.join(files::temporary_name());
        let done = self.access.write(&staged, contents, self.files).and_then(|()| directories::switch(&staged, &target, &replaced, &NAMES));
        if done.is_err() {
            // Whatever is left of it, the next pruning takes away.
            let _ = directories::remove(&staged);
        }
        done?;
        Ok(directories::remove(&replaced)?)
    }

    /// Has `live/<site>` lead to a generation that is staged, durably and in one step. A directory that is there is kept as
    /// `archive/<site>+adopted` (`+adopted-2`, …), at the same depth, so that relative links in it go on to work.
    pub fn switch(&self, site: &SiteName, generation: Generation) -> Result<Switched, SslRootError> {
        let staged = self.archive_path(site, generation);
        if !staged.is_dir() {
            return Err(SslRootError::NotStaged(staged));
        }
        let live = self.live_path(site);
        let before = match self.live(site)? {
            Live::Refused(what) => return Err(SslRootError::Refused { path: live, what }),
            Live::Ours(before) => {
                if before != generation {
                    self.link(site, generation)?;
                }
                Before::Generation(before)
            }
            Live::Absent => {
                self.access.make_directory(&self.directory.join("live"))?;
                self.link(site, generation)?;
                Before::Absent
            }
            Live::Directory => Before::Adopted(self.adopt(site, generation)?),
        };
        Ok(Switched { site: site.clone(), to: generation, before })
    }

    /// Puts back what was at `live/<site>` before a switch: the link to the earlier generation, the adopted directory itself, or nothing.
    pub fn switch_back(&self, switched: Switched) -> Result<(), SslRootError> {
        let Switched { site, to, before } = switched;
        let live = self.live_path(&site);
        match self.live(&site)? {
            Live::Ours(found) if found == to => {}
            Live::Refused(what) => return Err(SslRootError::Refused { path: live, what }),
            _ => return Err(SslRootError::Refused { path: live, what: "not what it was switched to any more".to_owned() }),
        }
        match before {
            Before::Generation(generation) if generation == to => Ok(()),
            Before::Generation(generation) => self.link(&site, generation),
            Before::Absent => {
                directories::remove_file(&live)?;
                sync(&live)
            }
            Before::Adopted(kept) => {
                directories::exchange(&kept, &live)?;
                directories::remove_file(&kept)?; // By now it is our link.
                sync(&kept)?;
                sync(&live)
            }
        }
    }

    /// Removes the generations that are not in `keep`, as far as they are ours: directories named by a number with an object in them. What
    /// `live/<site>` leads to stays. What killed runs have left behind goes as well.
    pub fn prune(&self, site: &SiteName, keep: &[Generation]) -> Result<(), SslRootError> {
        let archive = self.archive(site);
        let live = self.live(site)?;
        let entries = match fs::read_dir(&archive) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
            entries => entries.map_err(failed("list", &archive))?,
        };
        for entry in entries {
            let entry = entry.map_err(failed("list", &archive))?;
            let kind = entry.file_type().map_err(failed("look at", &entry.path()))?;
            let generation = entry.file_name().to_str().and_then(plain_number).filter(|_| kind.is_dir());
            let outdated = generation.is_some_and(|number| !keep.contains(&number) && live != Live::Ours(number));
            if files::is_temporary(&entry.file_name()) {
                if kind.is_dir() { directories::remove(&entry.path())? } else { directories::remove_file(&entry.path())? }
            } else if outdated && entry.path().join(OBJECT).is_file() {
                // Under its own name it is there as a whole, or not at all.
                let going = archive.join(files::temporary_name());
                let gone = steps::before("prune", &entry.path()).and_then(|()| fs::rename(entry.path(), &going));
                gone.map_err(failed("remove", &entry.path()))?;
                directories::remove(&going)?;
            }
        }
        for directory in [self.directory.clone(), self.directory.join("archive")] {
            files::remove_leftovers(&directory, SystemTime::now());
        }
        Ok(())
    }

    /// The generations of a site that are in the archive with their record.
    pub fn archived(&self, site: &SiteName) -> Vec<Generation> {
        let entries = fs::read_dir(self.archive(site)).into_iter().flatten().flatten();
        let number = |entry: fs::DirEntry| entry.file_name().to_str().and_then(plain_number);
        entries.filter_map(number).filter(|number| self.archive_path(site, *number).join(OBJECT).is_file()).collect()
    }

    /// Puts our link at `live/<site>`, in the place of nothing or of another link of ours.
    fn link(&self, site: &SiteName, generation: Generation) -> Result<(), SslRootError> {
        let live = self.live_path(site);
        let archive = self.archive(site);
        self.access.make_directory(&archive)?;
        let new = archive.join(files::temporary_name());
        let made = steps::before("link", &new).and_then(|()| symlink(link_text(site, generation), &new));
        made.map_err(failed("make the link", &new))?;
        if let Err(source) = steps::before("switch", &live).and_then(|()| fs::rename(&new, &live)) {
            let _ = fs::remove_file(&new);
            return Err(failed("replace", &live)(source).into());
        }
        sync(&live)
    }

    /// Exchanges the directory at `live/<site>` with our link, which until then lies where the directory will.
    fn adopt(&self, site: &SiteName, generation: Generation) -> Result<PathBuf, SslRootError> {
        let live = self.live_path(site);
        let kept = self.place_to_keep(site)?;
        let made = steps::before("link", &kept).and_then(|()| symlink(link_text(site, generation), &kept));
        made.map_err(failed("make the link", &kept))?;
        if let Err(error) = directories::exchange(&kept, &live) {
            let _ = fs::remove_file(&kept);
            return Err(error.into());
        }
        sync(&kept)?;
        sync(&live)?;
        Ok(kept)
    }

    /// The first free name for an adopted directory. A link of ours there is what a killed run has left: it is taken away.
    fn place_to_keep(&self, site: &SiteName) -> Result<PathBuf, SslRootError> {
        let archive = self.directory.join("archive");
        let first = format!("{}{ADOPTED_SUFFIX}", site.file_name());
        for number in 1..=MOST_ADOPTED {
            let path = archive.join(if number == 1 { first.clone() } else { format!("{first}-{number}") });
            match fs::read_link(&path) {
                Ok(target) if linked_generation(site, &target).is_some() => directories::remove_file(&path)?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                _ => continue,
            }
            return Ok(path);
        }
        Err(SslRootError::Refused { path: archive.join(first), what: format!("one of {MOST_ADOPTED} directories that were adopted") })
    }
}

/// Where our link leads, from `live` and from anywhere else at that depth.
fn link_text(site: &SiteName, generation: Generation) -> PathBuf {
    Path::new("../archive").join(site.file_name()).join(generation.to_string())
}

/// The generation of a link that is, letter for letter, one of ours for that site.
fn linked_generation(site: &SiteName, target: &Path) -> Option<Generation> {
    let generation = target.file_name().and_then(|name| name.to_str()).and_then(plain_number)?;
    (link_text(site, generation).as_os_str() == target.as_os_str()).then_some(generation)
}

/// A number as we write it: digits only, without zeros in front.
fn plain_number(text: &str) -> Option<Generation> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(Generation(number))
}

/// A file or a link in the place of a directory of ours is somebody's.
fn refuse_all_but_directories(path: &Path) -> Result<(), SslRootError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(SslRootError::Refused { path: path.to_owned(), what: "not a directory".to_owned() }),
        _ => Ok(()),
    }
}

/// Makes what happened to the name `path` survive a power cut.
fn sync(path: &Path) -> Result<(), SslRootError> {
    let directory = path.parent().unwrap_or(path);
    Ok(files::sync(directory).map_err(failed("sync", directory))?)
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> FileError + use<> {
    let path = path.to_owned();
    move |source| FileError { operation, path: path.clone(), source }
}
