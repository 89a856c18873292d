//! What other machines of a fleet would have written: bundles, leases and node reports, put into the datastore of a test's machine.

use std::path::PathBuf;
use std::time::Duration;

use age::x25519;
use certfleet::domain::bundle::Bundle;
use certfleet::domain::object_key::{Attempt, Generation, ObjectKey};
use certfleet::domain::private_key::PrivateKey;
use certfleet::domain::record::{self, Holder, IssuerClass, PassedOver};
use certfleet::domain::site::SiteName;
use certfleet::fleet::bundle_object::{self, Origin};
use certfleet::fleet::seal::Seal;
use serde_json::Value;

use super::machine::Machine;

pub const SITE: &str = "www.example.test";

const DAY: Duration = Duration::from_secs(86_400);

/// What a bundle is to be like.
pub struct Made {
    /// What it vouches for.
    pub names: &'static [&'static str],
    /// How long ago its life began.
    pub days_old: i64,
    /// When its life ends; before now where it is negative.
    pub days_left: i64,
    /// Who made it.
    pub issuer: &'static str,
    pub class: IssuerClass,
    /// Who was preferred, and could not.
    pub passed_over: Vec<PassedOver>,
}

impl Default for Made {
    fn default() -> Self {
        Self { names: &[SITE], days_old: 1, days_left: 89, issuer: "self-signed", class: IssuerClass::SelfSigned, passed_over: Vec::new() }
    }
}

pub fn site() -> SiteName {
    SITE.parse().expect("a name")
}

pub fn seal_of(identity: &str) -> Seal {
    let line = identity.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).expect("an identity");
    Seal::Age { identity: line.parse::<x25519::Identity>().expect("an identity"), origin: "identity.age".to_owned() }
}

/// A bundle's object, and the fingerprint of its leaf.
pub fn compose(seal: &Seal, site: &SiteName, generation: u64, made: &Made) -> (bytes::Bytes, String) {
    let mut params = rcgen::CertificateParams::new(made.names.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("names");
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - DAY * u32::try_from(made.days_old).expect("days");
    params.not_after = now + time::Duration::days(made.days_left);
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = params.self_signed(&key).expect("a certificate");
    let bundle = Bundle::new(&[leaf.der()], PrivateKey::from_pem(&key.serialize_pem()).expect("a key")).expect("a bundle");
    let origin = Origin { issuer: made.issuer.to_owned(), class: made.class, profile: None, passed_over: made.passed_over.clone() };
    let object = bundle_object::compose(seal, site, Generation(generation), &bundle, &origin, &holder("ws-1")).expect("an object");
    (object, bundle.leaf().fingerprint.clone())
}

pub fn holder(node: &str) -> Holder {
    Holder { node: node.to_owned(), run: "0".repeat(32), place: format!("place of {node}") }
}

/// Puts a bundle into the datastore of a machine, and yields the fingerprint of its leaf.
pub fn put_bundle(machine: &Machine, generation: u64, made: &Made) -> String {
    let seal = seal_of(&machine.read("runtimedata/identity.age"));
    let (object, fingerprint) = compose(&seal, &site(), generation, made);
    put(machine, &ObjectKey::bundle(&site(), Generation(generation)), object);
    fingerprint
}

/// Puts any object there.
pub fn put(machine: &Machine, key: &ObjectKey, body: impl AsRef<[u8]>) {
    let name = format!("runtimedata/datastore/{key}");
    let path = machine.path(&name);
    std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
    machine.write(&name, body);
}

/// A lease of [`SITE`].
pub fn put_lease(machine: &Machine, generation: u64, attempt: u32, state: record::LeaseState) {
    let (generation, attempt) = (Generation(generation), Attempt(attempt));
    let record = record::LeaseRecord {
        version: 1,
        site: site().file_name(),
        generation,
        attempt,
        holder: holder("ws-1"),
        state,
        order: None,
        failures: 1,
        passed_over: Vec::new(),
    };
    put(machine, &ObjectKey::lease(&site(), generation, attempt), record::write(&record));
}

pub fn object_path(machine: &Machine, generation: u64) -> PathBuf {
    machine.path(&format!("runtimedata/datastore/{}", ObjectKey::bundle(&site(), Generation(generation))))
}

/// The object of a generation of [`SITE`].
pub fn object(machine: &Machine, generation: u64) -> Vec<u8> {
    std::fs::read(object_path(machine, generation)).expect("an object")
}

/// Changes an object behind everybody's back.
pub fn change_object(machine: &Machine, generation: u64, change: impl FnOnce(&mut Value)) {
    let mut record: Value = serde_json::from_slice(&object(machine, generation)).expect("JSON");
    change(&mut record);
    std::fs::write(object_path(machine, generation), record.to_string()).expect("a file");
}

/// Every object in the datastore of a machine.
pub fn keys(machine: &Machine) -> Vec<String> {
    let root = machine.path("runtimedata/datastore");
    let (mut found, mut waiting) = (Vec::new(), vec![root.clone()]);
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(path.strip_prefix(&root).expect("below").to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}
