//! Putting a schedule in place: looked at first, written then, switched on last.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::domain::schedule::{ScheduleFile, is_unchanged};
use crate::system::command::{Command, CommandError};
use crate::system::files::{self, FileError};

/// systemctl waits for systemd, which may be busy at boot.
const SYSTEMCTL_DEADLINE: Duration = Duration::from_secs(60);

/// Everybody may see when certfleet runs.
const MODE: u32 = 0o644;

/// Why a schedule is not in place.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// The directory for such files is missing: what would read them is not installed.
    #[error("there is no directory {}", .0.display())]
    NoDirectory(PathBuf),
    /// A person changed the file, or wrote it.
    #[error("{} was not written by `certfleet schedule`, or was changed since", .0.display())]
    Changed(PathBuf),
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
    /// systemd refuses.
    #[error("systemd does not take the timer")]
    Systemctl(#[from] CommandError),
}

/// What became of a file.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Change {
    /// It is as it was.
    Kept,
    /// It was not there, or an older one of ours was.
    Written,
}

/// A file in its place.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placed {
    /// Where it is.
    pub path: PathBuf,
    /// What became of it.
    pub change: Change,
}

/// Puts the files into `directory`. Nothing is written where one of them belongs to somebody else.
pub fn place(schedule: &[ScheduleFile], directory: &Path) -> Result<Vec<Placed>, ScheduleError> {
    if !directory.is_dir() {
        return Err(ScheduleError::NoDirectory(directory.to_owned()));
    }
    let looked = schedule.iter().map(|file| look(file, directory.join(&file.name)));
    let plan = looked.collect::<Result<Vec<_>, _>>()?;
    for (file, placed) in schedule.iter().zip(&plan) {
        if placed.change == Change::Written {
            files::replace(&placed.path, file.text.as_bytes(), MODE)?;
        }
    }
    Ok(plan)
}

/// Has systemd read the units, and starts the timer, now and at every boot.
pub async fn enable(timer: &str) -> Result<(), ScheduleError> {
    let systemctl = |arguments: &[&str]| {
        let command = Command::new("systemctl", SYSTEMCTL_DEADLINE).inherit_path_and_home();
        arguments.iter().fold(command, Command::arg).run()
    };
    systemctl(&["daemon-reload"]).await?;
    systemctl(&["enable", "--now", timer]).await?;
    Ok(())
}

fn look(file: &ScheduleFile, path: PathBuf) -> Result<Placed, ScheduleError> {
    let change = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && fs::symlink_metadata(&path).is_err() => Change::Written,
        Err(source) => return Err(ScheduleError::Read { path, source }),
        Ok(there) if there == file.text.as_bytes() => Change::Kept,
        Ok(there) if str::from_utf8(&there).is_ok_and(is_unchanged) => Change::Written,
        Ok(_) => return Err(ScheduleError::Changed(path)),
    };
    Ok(Placed { path, change })
}
