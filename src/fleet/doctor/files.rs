//! Whether the files that certfleet keeps on this machine are for those alone who should have them.

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

use super::identity::named;
use super::store::plural;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::schedule::MachineRole;
use crate::domain::site::{Site, SiteName};
use crate::fleet::spool::Spool;

/// Permission bits of everybody but the owner, to write and at all (chmod(2)).
const OTHERS_WRITE: u32 = 0o022;
const OTHERS: u32 = 0o077;

/// Whether somebody else than `owners` (user numbers) decides what certfleet does.
pub fn configuration(path: &Path, owners: &[u32]) -> Finding {
    let check = Check::of(Part::Files, "configuration", path.display());
    match fs::metadata(path) {
        Err(error) => unknown(check, path, &error),
        Ok(found) if mode(&found) & OTHERS_WRITE != 0 => check.failed(
            format!("mode {:04o}: others on this machine can change it, and have certfleet run what they like", mode(&found)),
            format!("chmod go-w {}", path.display()),
        ),
        Ok(found) if !owners.contains(&found.uid()) => check.warning(
            format!("it belongs to user {}, who can have certfleet run what they like", found.uid()),
            format!("chown {} {}", owners.first().copied().unwrap_or_default(), path.display()),
        ),
        Ok(found) => check.ok(format!("mode {:04o}", mode(&found))),
    }
}

/// Whether the machine's own directory can be written by those who run certfleet, and by nobody else.
pub fn runtimedata(directory: &Path) -> Finding {
    let check = Check::of(Part::Files, "runtimedata", directory.display());
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if let Err(errno) = access(there, Access::WRITE_OK | Access::EXEC_OK) {
        let what = format!("{} cannot be written: {}", there.display(), std::io::Error::from(errno));
        return check.failed(what, "run certfleet as its owner, or correct its owner and mode");
    }
    if there != directory {
        return check.ok("is not there yet: the first run makes it");
    }
    match fs::metadata(directory) {
        Err(error) => unknown(check, directory, &error),
        Ok(found) if mode(&found) & OTHERS_WRITE != 0 => {
            let what = format!("mode {:04o}: others on this machine can put their own files in the place of these", mode(&found));
            check.failed(what, format!("chmod go-w {}", directory.display()))
        }
        Ok(found) => check.ok(format!("mode {:04o}, can be written", mode(&found))),
    }
}

/// Whether private keys that a build machine keeps are readable by their owner only. `directory` has a directory for each site.
pub fn keys(directory: &Path, sites: &[Site]) -> Vec<Finding> {
    let paths = sites.iter().map(|site| directory.join(site.name.file_name()).join("privkey.pem"));
    let found: Vec<_> = paths.filter_map(|path| fs::metadata(&path).ok().map(|metadata| (path, mode(&metadata)))).collect();
    let open = found.iter().filter(|(_, mode)| mode & OTHERS != 0).map(|(path, mode)| {
        let check = Check::of(Part::Files, "keys", path.display());
        check.failed(format!("mode {mode:04o}: others on this machine can read this private key"), format!("chmod 600 {}", path.display()))
    });
    let mut findings: Vec<_> = open.collect();
    let good = found.len() - findings.len();
    if good > 0 {
        let check = Check::of(Part::Files, "keys", directory.display());
        findings.push(check.ok(format!("{good} private key{} readable by the owner only", plural(good))));
    }
    findings
}

/// Whether certificates wait here for their upload.
pub fn spool(spool: &Spool, sites: &[Site], role: MachineRole) -> Finding {
    let check = Check::new(Part::Files, "spool");
    let waiting: Vec<&SiteName> = sites.iter().map(|site| &site.name).filter(|site| spool.path(site).exists()).collect();
    if waiting.is_empty() {
        return check.ok("nothing waits for its upload");
    }
    let what = format!("issued, and not yet uploaded: {}", named(waiting.iter().map(ToString::to_string)));
    check.warning(what, format!("certfleet {}, which uploads it", role.command()))
}

/// Who may own the files that certfleet is steered by: root, whoever runs this, and whoever owns the machine's own directory.
pub fn owners(runtimedata: &Path) -> Vec<u32> {
    let own = rustix::process::geteuid().as_raw();
    let mut owners = vec![own, 0];
    owners.extend(fs::metadata(runtimedata).ok().map(|metadata| metadata.uid()));
    owners
}

/// A directory that a probe would leave behind, if it was not there before.
pub fn probes_of(datastore: &Path) -> Option<PathBuf> {
    let probes = datastore.join("probes");
    (!probes.exists()).then_some(probes)
}

fn mode(metadata: &Metadata) -> u32 {
    metadata.mode() & 0o7777
}

fn unknown(check: Check, path: &Path, error: &std::io::Error) -> Finding {
    check.skipped(format!("cannot look at {}: {error}", path.display()))
}
