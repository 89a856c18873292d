//! Bad input and faults, by the real binary: what is wrong is named, with what to do; nothing is lost, and nobody is bothered in vain.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::crash;
use crate::support::ca_front::CaFront;
use crate::support::machine::Machine;
use crate::support::pebble::Pebble;
use crate::support::s3_in_process::InProcessS3;

mod budget;
mod ca;
mod configuration;
mod disk;
mod looking;
mod objects;
mod sites;
mod store;
mod terminal;

const SITE: &str = "www.example.test";

/// The object of a generation of [`SITE`].
fn bundle(generation: u64) -> String {
    format!("fleet/bundles/{SITE}/{generation:010}")
}

/// The first lease of a generation of [`SITE`].
fn lease(generation: u64) -> String {
    format!("fleet/leases/{SITE}/{generation:010}-0001")
}

/// A machine with a bucket and a CA that misbehave when told.
struct Scene {
    s3: InProcessS3,
    front: CaFront,
    machine: Machine,
}

impl Scene {
    fn new(pebble: &Pebble) -> Self {
        let (s3, front) = (InProcessS3::start(), CaFront::start(pebble));
        let machine = crash::machine(pebble, &front, &s3.bucket());
        Self { s3, front, machine }
    }

    /// Makes what there is due: the configuration wants a name more.
    fn want_another_name(&self) {
        self.machine.change("certfleet.toml", &format!("[\"{SITE}\"]"), &format!("[\"{SITE}\", \"shop.example.test\"]"));
    }

    /// Another machine of the fleet, with the same configuration.
    fn another_machine(&self, pebble: &Pebble) -> Machine {
        let other = crash::machine(pebble, &self.front, &self.s3.bucket());
        other.write("certfleet.toml", self.machine.read("certfleet.toml"));
        self.machine.share_identity(&other);
        other
    }
}

/// Every file below a directory, with its content; symbolic links and directories by their names.
fn tree(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() && !path.is_symlink() {
            let entries = std::fs::read_dir(&path).expect("a directory");
            waiting.extend(entries.map(|entry| entry.expect("an entry").path()));
        }
        let content = if path.is_file() { std::fs::read(&path).expect("a file") } else { Vec::new() };
        found.insert(path, content);
    }
    found
}
