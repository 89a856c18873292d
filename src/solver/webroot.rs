//! http-01 answered by a file in the document root of a web server that runs already.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, fchmod, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use super::{Challenge, ChallengeKind, Presented, Solver, SolverError};

/// The directories below the root in which http-01 answers are looked for (RFC 8555 section 8.3).
const DIRECTORIES: [&str; 2] = [".well-known", "acme-challenge"];

/// Puts answers into files. The document root may be writable for the web server's user while certfleet is root, so no symbolic link
/// below it is ever followed: each directory is opened from the one above it.
#[derive(Debug)]
pub struct Webroot {
    root: PathBuf,
    /// Which of [`DIRECTORIES`] did not exist before, and go away again with the last answer.
    made: Mutex<[bool; 2]>,
}

impl Webroot {
    /// Will write below `root`, the directory that the web server serves as `/`.
    pub fn new(root: PathBuf) -> Self {
        Self { root, made: Mutex::default() }
    }

    fn write(&self, challenge: &Challenge) -> Result<(), SolverError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let mut path = self.root.clone();
        let mut directory = open_root(&path).map_err(|errno| failed("open the document root", &path, errno))?;
        for (name, made) in DIRECTORIES.into_iter().zip(made.iter_mut()) {
            path.push(name);
            directory = enter(&directory, name, made).map_err(|errno| failed("open the directory", &path, errno))?;
        }
        path.push(&challenge.token);
        write_new(&directory, challenge).map_err(|errno| failed("write", &path, errno))
    }

    fn remove(&self, challenge: &Challenge) -> Result<(), SolverError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let path = DIRECTORIES.iter().fold(self.root.clone(), |path, name| path.join(name));
        let failed = |errno| failed("remove", &path.join(&challenge.token), errno);
        let opened = open_root(&self.root).and_then(|root| {
            let well_known = open_directory(&root, DIRECTORIES[0])?;
            let answers = open_directory(&well_known, DIRECTORIES[1])?;
            Ok([root, well_known, answers])
        });
        let [root, well_known, answers] = match opened {
            Err(Errno::NOENT) => return Ok(()),
            opened => opened.map_err(failed)?,
        };
        match unlinkat(&answers, &*challenge.token, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
        // One that is not empty stays, and is tried again after the next answer.
        if made[1] && unlinkat(&well_known, DIRECTORIES[1], AtFlags::REMOVEDIR).is_ok() {
            made[1] = false;
        }
        if made[0] && unlinkat(&root, DIRECTORIES[0], AtFlags::REMOVEDIR).is_ok() {
            made[0] = false;
        }
        Ok(())
    }
}

#[async_trait]
impl Solver for Webroot {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        self.write(challenge)?;
        Ok(Presented::default())
    }

    async fn clean_up(&self, challenge: &Challenge, _presented: &Presented) -> Result<(), SolverError> {
        self.remove(challenge)
    }
}

/// The root itself is the administrator's word: it may well be a symbolic link.
fn open_root(root: &Path) -> Result<OwnedFd, Errno> {
    openat(CWD, root, OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
}

fn open_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    openat(parent, name, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY, Mode::empty())
}

/// Opens a directory, which is made if it is missing; the web server must be able to enter it whatever our umask is.
fn enter(parent: &OwnedFd, name: &str, made: &mut bool) -> Result<OwnedFd, Errno> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            *made = true;
            let directory = open_directory(parent, name)?;
            fchmod(&directory, Mode::from_raw_mode(0o755))?;
            Ok(directory)
        }
        Err(Errno::EXIST) => open_directory(parent, name),
        Err(errno) => Err(errno),
    }
}

/// An earlier run that was killed may have left the answer to the same challenge: it is replaced.
fn write_new(directory: &OwnedFd, challenge: &Challenge) -> Result<(), Errno> {
    match unlinkat(directory, &*challenge.token, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
    let file = openat(directory, &*challenge.token, flags, Mode::from_raw_mode(0o644))?;
    fchmod(&file, Mode::from_raw_mode(0o644))?;
    let written = File::from(file).write_all(challenge.key_authorization.as_bytes());
    written.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

fn failed(doing: &str, path: &Path, errno: Errno) -> SolverError {
    let hint = match errno {
        Errno::NOENT => "set path to the directory that the web server serves as /; it must exist".to_owned(),
        Errno::LOOP | Errno::NOTDIR => {
            format!("{} must be a real directory: symbolic links below the document root are not followed", path.display())
        }
        Errno::ACCESS | Errno::PERM | Errno::ROFS => "run certfleet as a user who may write there".to_owned(),
        _ => "see the cause".to_owned(),
    };
    let what = format!("cannot {doing} {} for http-01", path.display());
    SolverError { what, hint, source: Some(Box::new(std::io::Error::from(errno))) }
}
