//! Whether certificates can be installed on this machine, are installed as they should be, and are served.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use rustix::fs::{Access, access};

use super::store::plural;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::site::{Site, SiteName};
use crate::fleet::bundle_object;
use crate::fleet::node::NodeServer;
use crate::fleet::seal::Seal;
use crate::system::error_chain::in_full;
use crate::target::ssl_root::{Contents, Live, SslRoot};

/// How long a server may take to shake hands.
const LOOK: Duration = Duration::from_secs(5);

/// Handshakes under way at the same time.
const AT_ONCE: usize = 16;

/// What puts right whatever is wrong about installed files.
const PUT_RIGHT: &str = "certfleet agent";

/// The leaf of each site that is whole in its place: its SHA-256 fingerprint.
pub type Leaves = BTreeMap<SiteName, String>;

/// Whether a directory is there and can be written, or made.
pub fn writable(directory: &Path) -> Finding {
    let check = Check::of(Part::Targets, "ssl_root", directory.display());
    let there = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    if !there.is_dir() {
        return check.failed(format!("{} is not a directory", there.display()), "move it away, or set ssl_root to another directory");
    }
    match access(there, Access::WRITE_OK | Access::EXEC_OK) {
        Ok(()) if there == directory => check.ok("can be written"),
        Ok(()) => check.ok("is not there yet: the first installation makes it"),
        Err(errno) => {
            let what = format!("{} cannot be written: {}", there.display(), std::io::Error::from(errno));
            check.failed(what, "run certfleet as a user who may write there, usually root, on a file system that is mounted for writing")
        }
    }
}

/// Whether the files of each site are those that its record in the archive says, byte for byte, with owners and modes as configured.
pub fn installed(root: &SslRoot, sites: &[Site], seal: &Seal) -> (Vec<Finding>, Leaves) {
    let (mut findings, mut leaves) = (Vec::new(), Leaves::new());
    for site in sites {
        match look(root, &site.name, seal) {
            Ok(fingerprint) => drop(leaves.insert(site.name.clone(), fingerprint)),
            Err(finding) => findings.push(*finding),
        }
    }
    if !leaves.is_empty() {
        let check = Check::of(Part::Targets, "files", root.directory().display());
        let whole = leaves.len();
        findings.push(check.ok(format!("whole, with owner and modes as configured: {whole} site{}", plural(whole))));
    }
    (findings, leaves)
}

fn look(root: &SslRoot, site: &SiteName, seal: &Seal) -> Result<String, Box<Finding>> {
    let path = root.live_path(site);
    let check = || Check::of(Part::Targets, "files", path.display());
    let failed = |what: String| Box::new(check().failed(what, PUT_RIGHT));
    let generation = match root.live(site) {
        Ok(Live::Ours(generation)) => generation,
        Ok(Live::Absent) => return Err(Box::new(check().warning("nothing is installed there yet", "certfleet bootstrap"))),
        Ok(Live::Directory) => return Err(Box::new(check().skipped("a directory of another tool: the next run adopts it"))),
        Ok(Live::Refused(what)) => {
            let remedy = format!("move {} away, then: {PUT_RIGHT}", path.display());
            return Err(Box::new(check().failed(format!("it is {what}, which certfleet leaves alone"), remedy)));
        }
        Err(error) => return Err(failed(in_full(&error))),
    };
    let object = root.object(site, generation).map_err(|error| failed(in_full(&error)))?;
    let object = object.ok_or_else(|| failed(format!("the record of generation {generation} is missing in the archive")))?;
    let opened = bundle_object::open(seal, site, generation, &object);
    let opened = opened.map_err(|error| failed(format!("the record of generation {generation} cannot be used: {}", in_full(&error))))?;
    if root.holds(site, generation, &Contents { bundle: &opened.bundle, object: &object }) {
        return Ok(opened.bundle.leaf().fingerprint.clone());
    }
    Err(failed(format!("a file of generation {generation} is missing, altered, or has another owner or mode than is configured")))
}

/// A check of a server, by this name.
pub fn check(what: &'static str, server: &NodeServer) -> Check {
    Check::of(Part::Targets, what, name(server))
}

/// Whether the server would accept its configuration as it is.
pub async fn test(server: &NodeServer) -> Finding {
    let check = check("server-test", server);
    match server.server.test().await {
        Ok(()) => check.ok("its configuration passes the test, if it has one"),
        Err(error) => check.failed(in_full(&error), error.hint()),
    }
}

/// Whether the server presents what is installed.
pub async fn served(server: &NodeServer, leaves: &Leaves) -> Vec<Finding> {
    let check = |subject: String| Check::of(Part::Targets, "served", subject);
    let Some(endpoint) = server.verify.as_deref() else {
        return vec![check(name(server)).skipped("it has no verify, so nobody looks at what it serves: verify = \"127.0.0.1:443\"")];
    };
    let installed = leaves.iter().filter(|(site, _)| server.sites.contains(site));
    let looks = stream::iter(installed).map(|(site, leaf)| async move { (site, leaf, endpoint.presented(site.identifier(), LOOK).await) });
    let looked: Vec<_> = looks.buffered(AT_ONCE).collect().await;
    let mut findings = Vec::new();
    let mut good = 0;
    for (site, leaf, presented) in looked {
        let check = check(format!("{}: {site}", name(server)));
        findings.push(match presented {
            Ok(found) if found == *leaf => {
                good += 1;
                continue;
            }
            Ok(found) => check.failed(
                format!("it presents another certificate than the one that is installed, SHA-256 {found}"),
                format!("{PUT_RIGHT}; if that changes nothing, have the server read live/{site}/ of this target's ssl_root"),
            ),
            Err(error) => check.failed(in_full(&error), error.hint()),
        });
    }
    if good > 0 {
        findings.push(check(name(server)).ok(format!("it presents what is installed: {good} site{}", plural(good))));
    }
    findings
}

/// A `[[target]]` that the configuration describes wrongly, or of which a script or a secret is missing.
pub fn unusable(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Check::new(Part::Targets, "settings").failed(what, remedy)
}

/// Files that cannot be proven without the identity.
pub fn not_proven(root: &SslRoot) -> Finding {
    let check = Check::of(Part::Targets, "files", root.directory().display());
    check.skipped("what is installed is proven with the fleet's identity, which cannot be used")
}

fn name(server: &NodeServer) -> String {
    let at = server.address().map(|address| format!(" at {address}")).unwrap_or_default();
    format!("{}{at}", server.server.name())
}
