//! The files of one generation: what is in them, whose they are, and whether they are still so.

use std::fs::{self, Metadata, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use aws_lc_rs::digest;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, openat, renameat_with, statat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{Contents, Files, SslRootError, failed};
use crate::domain::certificate::hex;
use crate::system::files::{self, FileError};
use crate::system::owner::Owner;
use crate::system::steps;

/// The object of the datastore, sealed as it lies there. It lets a node refill an emptied datastore with the same bytes.
pub(super) const OBJECT: &str = "bundle.json";

const COMBINED: &str = "combined.pem";

/// Every file that can be ours.
pub(super) const NAMES: [&str; 6] = ["cert.pem", "chain.pem", "fullchain.pem", "privkey.pem", OBJECT, COMBINED];

/// Certificates are for everybody.
const PUBLIC_MODE: u32 = 0o644;

/// The permission bit that lets a file's group read it (chmod(2), S_IRGRP).
const GROUP_READS: u32 = 0o040;

/// Whose files are, and who else may read keys.
#[derive(Clone, Copy, Debug, Hash)]
pub(super) struct Access {
    /// `None` for whoever runs this.
    pub(super) owner: Option<Owner>,
    /// The permission bits of files with a key.
    pub(super) key_mode: u32,
}

/// A file as it should be.
struct Wanted {
    name: &'static str,
    bytes: Zeroizing<Vec<u8>>,
    mode: u32,
    /// `None` for whoever runs this.
    owner: Option<Owner>,
}

impl Files {
    /// The names of the files that must be there.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Separate => &NAMES[..NAMES.len() - 1],
            Self::WithCombined => &NAMES,
        }
    }
}

impl Access {
    /// Keys are behind directories that only their readers can enter.
    fn directory_mode(self) -> u32 {
        if self.key_mode & GROUP_READS != 0 { 0o750 } else { 0o700 }
    }

    fn wanted(self, contents: &Contents<'_>, files: Files) -> Vec<Wanted> {
        let Contents { bundle, object } = contents;
        let file = |name| {
            let (bytes, mode, owner) = match name {
                "cert.pem" => (bundle.leaf_pem().into_bytes(), PUBLIC_MODE, self.owner),
                "chain.pem" => (bundle.intermediates_pem().into_bytes(), PUBLIC_MODE, self.owner),
                "fullchain.pem" => (bundle.chain_pem().into_bytes(), PUBLIC_MODE, self.owner),
                "privkey.pem" => (bundle.key().to_pem().as_bytes().to_vec(), self.key_mode, self.owner),
                COMBINED => (bundle.combined_pem().as_bytes().to_vec(), self.key_mode, self.owner),
                // Sealed, and still nobody's business but the agent's.
                _ => (object.to_vec(), files::SECRET_FILE, None),
            };
            Wanted { name, bytes: Zeroizing::new(bytes), mode, owner }
        };
        files.names().iter().copied().map(file).collect()
    }

    /// Makes the directory `staged` with all files in it, synced. Its last step lets others in.
    pub(super) fn write(self, staged: &Path, contents: &Contents<'_>, files: Files) -> Result<(), FileError> {
        let made = steps::before("stage", staged).and_then(|()| fs::DirBuilder::new().mode(files::SECRET_DIRECTORY).create(staged));
        made.map_err(failed("make the directory", staged))?;
        for Wanted { name, bytes, mode, owner } in self.wanted(contents, files) {
            let path = staged.join(name);
            match owner {
                Some(owner) => files::write_new_owned(&path, &bytes, mode, owner)?,
                None => files::write_new(&path, &bytes, mode)?,
            }
        }
        self.open_up(staged)
    }

    pub(super) fn holds(self, directory: &Path, contents: &Contents<'_>, files: Files) -> bool {
        let found = |path: &Path| fs::symlink_metadata(path).ok();
        let same = |file: &Wanted| {
            let path = directory.join(file.name);
            let fits = found(&path).is_some_and(|metadata| metadata.is_file() && has(&metadata, file.mode, file.owner));
            // Wiped, like what it is compared with: it may be a key.
            fits && fs::read(&path).map(Zeroizing::new).is_ok_and(|bytes| bytes == file.bytes)
        };
        let entered = found(directory).is_some_and(|metadata| metadata.is_dir() && has(&metadata, self.directory_mode(), self.owner));
        entered && self.wanted(contents, files).iter().all(same)
    }

    /// Makes a directory, and those above it that are missing. Each has its owner and its mode before it has its name. One that is there
    /// is left as it is, but must be a directory.
    pub(super) fn make_directory(self, path: &Path) -> Result<(), SslRootError> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => return Err(SslRootError::Refused { path: path.to_owned(), what: "not a directory".to_owned() }),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(source) => return Err(failed("look at", path)(source).into()),
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        self.make_directory(parent)?;
        let new = parent.join(files::temporary_name());
        let done = self.make_directory_at(&new, path);
        if done.is_err() {
            let _ = fs::remove_dir(&new);
        }
        done
    }

    fn make_directory_at(self, new: &Path, path: &Path) -> Result<(), SslRootError> {
        let refused = failed("make the directory", path);
        let made = steps::before("make the directory", path).and_then(|()| fs::DirBuilder::new().mode(files::SECRET_DIRECTORY).create(new));
        made.map_err(&refused)?;
        self.open_up(new)?;
        match renameat_with(CWD, new, CWD, path, RenameFlags::NOREPLACE) {
            // Some network file systems do not know that flag (rename(2)). Nothing but an empty directory can be replaced.
            Err(Errno::INVAL) => fs::rename(new, path).map_err(refused)?,
            renamed => renamed.map_err(|error| refused(error.into()))?,
        }
        super::sync(path)
    }

    /// Gives a directory its owner and its mode.
    fn open_up(self, path: &Path) -> Result<(), FileError> {
        // Not through a link: where the owner is not root, they could have put one there meanwhile.
        let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::DIRECTORY).bits()).unwrap_or_default();
        let directory = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(failed("open", path))?;
        if let Some(owner) = self.owner {
            owner.take(&directory).map_err(failed("give away", path))?;
        }
        let opened = directory.set_permissions(Permissions::from_mode(self.directory_mode()));
        opened.and_then(|()| directory.sync_all()).map_err(failed("open up", path))
    }
}

/// Whether something has that mode and belongs to that owner, or to whoever runs this.
fn has(metadata: &Metadata, mode: u32, owner: Option<Owner>) -> bool {
    let belongs = match owner {
        Some(Owner { uid, gid }) => metadata.uid() == uid && metadata.gid() == gid,
        None => metadata.uid() == rustix::process::geteuid().as_raw(),
    };
    belongs && metadata.mode() & 0o7777 == mode
}

/// See [`super::SslRoot::stamp`]. The directory is opened once, so that its files are found without its whole path.
pub(super) fn stamp(directory: &Path, files: Files) -> Option<String> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = openat(CWD, directory, flags, Mode::empty()).ok()?;
    let mut seen = Vec::with_capacity(1024);
    add(&mut seen, &rustix::fs::fstat(&directory).ok()?);
    for name in files.names() {
        let found = statat(&directory, *name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return None;
        }
        add(&mut seen, &found);
    }
    Some(hex(digest::digest(&digest::SHA256, &seen).as_ref()))
}

/// The fields have fixed lengths and the files a fixed order: different states make different bytes.
fn add(seen: &mut Vec<u8>, found: &Stat) {
    let Stat { st_ino, st_size, st_mtime, st_mtime_nsec, st_ctime, st_ctime_nsec, st_mode, st_uid, st_gid, .. } = *found;
    seen.extend(st_ino.to_le_bytes());
    seen.extend(st_size.to_le_bytes());
    seen.extend(st_mtime.to_le_bytes());
    seen.extend(st_mtime_nsec.to_le_bytes());
    seen.extend(st_ctime.to_le_bytes());
    seen.extend(st_ctime_nsec.to_le_bytes());
    seen.extend([st_mode, st_uid, st_gid].iter().flat_map(|value| value.to_le_bytes()));
}
