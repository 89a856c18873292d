//! Users and groups of the machine, by name or number.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, fchown};
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{Group, User};
use rustix::fs::{Mode, OFlags, mkdirat, openat};
use thiserror::Error;

use super::files::{self, FileError};

/// Whom a file belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// A name that stands for nobody.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum OwnerError {
    /// No such user.
    #[error("there is no user {0:?} on this machine")]
    User(String),
    /// No such group.
    #[error("there is no group {0:?} on this machine")]
    Group(String),
    /// A user's number alone says nothing about a group.
    #[error("the user {0} has no name, and so no group of its own")]
    NoGroup(u32),
    /// The user database does not answer.
    #[error("{name:?} cannot be looked up")]
    Lookup {
        /// The name.
        name: String,
        /// What the system said.
        #[source]
        source: Errno,
    },
}

impl Owner {
    /// Finds `user`, with its primary group, or `user:group`. Either can be a number.
    ///
    /// Names are looked up as every other program of the machine does it (getpwnam_r(3), getgrnam_r(3)): what a directory service or
    /// systemd adds to `/etc/passwd` counts, where the machine is set up so (nsswitch.conf(5)).
    pub fn find(text: &str) -> Result<Self, OwnerError> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        let (uid, primary) = find_user(user)?;
        let gid = match group {
            Some(group) => find_group(group)?,
            None => primary.ok_or(OwnerError::NoGroup(uid))?,
        };
        Ok(Self { uid, gid })
    }

    /// What the user with this number is called; `None` where nobody has it.
    pub fn name_of(uid: u32) -> Result<Option<String>, OwnerError> {
        let failed = |source| OwnerError::Lookup { name: uid.to_string(), source };
        Ok(User::from_uid(nix::unistd::Uid::from_raw(uid)).map_err(failed)?.map(|user| user.name))
    }

    /// Makes a directory, and those above it that are missing, all with `mode` and this owner. Directories that are there stay as they are.
    ///
    /// Whoever owns the directory above can put others in the place of what is made: no name is looked up twice, and no link followed.
    pub fn create_dir_all(self, path: &Path, mode: u32) -> Result<(), FileError> {
        let missing: Vec<_> = path.ancestors().take_while(|directory| fs::symlink_metadata(directory).is_err()).collect();
        let Some(there) = missing.last().and_then(|directory| directory.parent()) else { return files::create_dir_all(path, mode) };
        let failed = |source| FileError { operation: "make the directory", path: path.to_owned(), source };
        let mut above = File::open(there).map_err(failed)?;
        for directory in missing.iter().rev() {
            let name = directory.file_name().ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
            above = self.create_dir(&above, name, mode).map_err(failed)?;
        }
        Ok(())
    }

    fn create_dir(self, above: &File, name: &OsStr, mode: u32) -> io::Result<File> {
        mkdirat(above, name, Mode::RWXU)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let created = File::from(openat(above, name, flags, Mode::empty())?);
        created.set_permissions(Permissions::from_mode(mode))?;
        self.take(&created)?;
        above.sync_all()?;
        Ok(created)
    }

    /// Gives it the open file, or directory.
    pub fn take(self, file: &File) -> io::Result<()> {
        fchown(file, Some(self.uid), Some(self.gid))
    }
}

impl OwnerError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::User(name) => format!("see whether it exists: getent passwd {name}"),
            Self::Group(name) => format!("see whether it exists: getent group {name}"),
            Self::NoGroup(uid) => format!("name a group as well: {uid}:www-data"),
            Self::Lookup { .. } => "see the cause; the machine's user database may be out of reach".to_owned(),
        }
    }
}

/// The user's number and its primary group. A name of digits only is a number, unless a user is called so, as with chown(1).
fn find_user(name: &str) -> Result<(u32, Option<u32>), OwnerError> {
    let failed = |source| OwnerError::Lookup { name: name.to_owned(), source };
    if let Some(user) = User::from_name(name).map_err(failed)? {
        return Ok((user.uid.as_raw(), Some(user.gid.as_raw())));
    }
    let uid = name.parse().map_err(|_| OwnerError::User(name.to_owned()))?;
    let user = User::from_uid(nix::unistd::Uid::from_raw(uid)).map_err(failed)?;
    Ok((uid, user.map(|user| user.gid.as_raw())))
}

fn find_group(name: &str) -> Result<u32, OwnerError> {
    let found = Group::from_name(name).map_err(|source| OwnerError::Lookup { name: name.to_owned(), source })?;
    found.map_or_else(|| name.parse().map_err(|_| OwnerError::Group(name.to_owned())), |group| Ok(group.gid.as_raw()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_found() {
        // These have the same numbers on every Debian (base-passwd).
        for (text, expected) in [
            ("root", Ok(Owner { uid: 0, gid: 0 })),
            ("www-data", Ok(Owner { uid: 33, gid: 33 })),
            ("root:www-data", Ok(Owner { uid: 0, gid: 33 })),
            ("33", Ok(Owner { uid: 33, gid: 33 })),
            ("4242:4343", Ok(Owner { uid: 4242, gid: 4343 })),
            ("4000000000", Err(OwnerError::NoGroup(4_000_000_000))),
            ("no-such-user", Err(OwnerError::User("no-such-user".to_owned()))),
            ("root:no-such-group", Err(OwnerError::Group("no-such-group".to_owned()))),
            ("-1", Err(OwnerError::User("-1".to_owned()))),
        ] {
            assert_eq!(Owner::find(text), expected, "{text}");
        }
    }
}
