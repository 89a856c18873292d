//! Whether this machine has the fleet's identity, and can open with it what lies in the datastore.

use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};

use super::endless;
use super::store::{plural, refused};
use crate::datastore::Datastore;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::policy;
use crate::domain::record::{self, Manifest};
use crate::domain::schedule::MachineRole;
use crate::domain::site::{Site, SiteName};
use crate::domain::time::rfc3339;
use crate::fleet::bundle_object;
use crate::fleet::identity::{self, IdentityPlace, SealWanted};
use crate::fleet::seal::Seal;
use crate::fleet::snapshot::Snapshot;
use crate::fleet::status::REQUESTS_AT_ONCE;
use crate::system::error_chain::in_full;

/// What a datastore's manifest is like.
#[derive(Clone, Debug)]
pub enum Found {
    /// It is there, and can be read.
    Read(Manifest),
    /// There is none, as before the first use.
    Unused,
    /// It is missing from a datastore in use, or cannot be read: nothing can be held against it.
    Unusable,
}

/// What opening the highest bundle of each site has shown.
pub struct Bundles {
    /// What was found.
    pub findings: Vec<Finding>,
    /// The shortest time that any site has for its renewal.
    pub shortest_window: Option<Duration>,
}

/// Reads the manifest.
pub async fn manifest(store: &dyn Datastore, snapshot: &Snapshot) -> (Finding, Found) {
    let check = Check::new(Part::Identity, "manifest");
    let key = ObjectKey::manifest();
    let bytes = match store.get(&key).await {
        Err(error) => return (refused(check, &error), Found::Unusable),
        Ok(None) if snapshot.has_bundles() => {
            let remedy = format!(
                "restore {key} from the bucket's versions; if the bundles are this fleet's, `certfleet ensure` on a machine with its identity \
                 writes it anew"
            );
            return (check.failed(format!("the datastore has bundles, and no {key} that says whose they are"), remedy), Found::Unusable);
        }
        Ok(None) => return (check.skipped("the datastore has not been used yet: the first `certfleet ensure` prepares it"), Found::Unused),
        Ok(Some(bytes)) => bytes,
    };
    match record::read::<Manifest>(&bytes) {
        Ok(manifest) => {
            let version = manifest.version;
            let fleet: String = manifest.fleet.chars().filter(char::is_ascii_hexdigit).take(8).collect();
            (check.ok(format!("format {version}, of the fleet {fleet}…")), Found::Read(manifest))
        }
        Err(error) => {
            let remedy = "update certfleet, or restore that object from the bucket's versions; the bundles are untouched";
            (check.failed(format!("{key} cannot be used: {}", in_full(&error)), remedy), Found::Unusable)
        }
    }
}

/// Whether the identity is here and is the fleet's. `found` is `None` where the datastore could not be asked.
pub fn identity(wanted: &SealWanted, found: Option<&Found>, role: MachineRole) -> (Finding, Option<Seal>) {
    let check = Check::new(Part::Identity, "identity");
    let seal = match (found, role) {
        (Some(Found::Read(manifest)), _) => identity::seal_of_known(wanted, manifest),
        (_, MachineRole::Webserver) => identity::seal_on_node(wanted),
        (_, MachineRole::BuildMachine) => identity::seal_if_any(wanted),
    };
    match (seal, wanted) {
        (Err(error), _) => (check.failed(in_full(&error), error.hint()), None),
        (Ok(Seal::None), SealWanted::Age(IdentityPlace::File(path))) => {
            (check.skipped(format!("{} is not there yet: the first `certfleet ensure` makes it", path.display())), None)
        }
        (Ok(Seal::None), _) => {
            (check.ok("none is needed: private keys lie in the clear in the datastore (seal = \"none\")"), Some(Seal::None))
        }
        (Ok(Seal::Age { identity, origin }), _) => {
            let recipient = identity.to_public().to_string();
            let fits = if matches!(found, Some(Found::Read(_))) { ", whom the datastore is sealed to" } else { "" };
            (check.ok(format!("{origin} is that of {recipient}{fits}")), Some(Seal::Age { identity, origin }))
        }
    }
}

/// Whether an identity file belongs to somebody who should have it: `owners`, by number.
pub fn owner(wanted: &SealWanted, owners: &[u32]) -> Option<Finding> {
    use std::os::unix::fs::MetadataExt as _;
    let SealWanted::Age(IdentityPlace::File(path)) = wanted else { return None };
    let metadata = std::fs::metadata(path).ok()?;
    let check = Check::of(Part::Identity, "owner", path.display());
    if owners.contains(&metadata.uid()) {
        return Some(check.ok(format!("mode {:04o}, of user {}", metadata.mode() & 0o7777, metadata.uid())));
    }
    let what = format!("it belongs to user {}, who can read every private key of the fleet with it", metadata.uid());
    Some(check.warning(what, format!("chown {} {}", owners.first().copied().unwrap_or_default(), path.display())))
}

/// Opens the highest bundle of each site, as a run that needs it does. What has not been opened by the `deadline` is counted, and takes
/// nothing away from the rest.
pub async fn bundles(
    store: &dyn Datastore,
    seal: &Seal,
    sites: &[Site],
    snapshot: &Snapshot,
    role: MachineRole,
    deadline: Duration,
) -> Bundles {
    let mut bundles = Bundles { findings: Vec::new(), shortest_window: None };
    let opened = stream::iter(sites).enumerate().map(|(at, site)| async move { (at, open(store, seal, site, snapshot).await) });
    let opened = opened.buffer_unordered(REQUESTS_AT_ONCE).take_until(tokio::time::sleep(deadline));
    let mut opened: Vec<_> = opened.collect().await;
    opened.sort_by_key(|(at, _)| *at);
    let late = sites.len() - opened.len();
    if late > 0 {
        let mut finding = endless(Check::new(Part::Identity, "bundles"), deadline);
        finding.what = format!("{}: {late} of {} site{} not opened", finding.what, sites.len(), plural(sites.len()));
        bundles.findings.push(finding);
    }
    let opened = opened.into_iter().map(|(at, opened)| (&sites[at], opened));
    let (mut good, mut absent) = (0, Vec::new());
    for (site, opened) in opened {
        match opened {
            Ok(Some(window)) => {
                good += 1;
                bundles.shortest_window = Some(bundles.shortest_window.map_or(window, |shortest: Duration| shortest.min(window)));
            }
            Ok(None) => absent.push(&site.name),
            Err(finding) => bundles.findings.push(*finding),
        }
    }
    if good > 0 {
        let check = Check::new(Part::Identity, "bundles");
        bundles.findings.push(check.ok(format!("{good} of {} site{} opened and proven", sites.len(), plural(sites.len()))));
    }
    if !absent.is_empty() {
        bundles.findings.push(nothing_yet(&absent, role));
    }
    bundles
}

fn nothing_yet(sites: &[&SiteName], role: MachineRole) -> Finding {
    let check = Check::new(Part::Identity, "bundles");
    let names = named(sites.iter().map(ToString::to_string));
    let shell: Vec<_> = sites.iter().map(|site| site.in_shell()).take(3).collect();
    let command = if sites.len() > 3 { "certfleet ensure".to_owned() } else { format!("certfleet ensure {}", shell.join(" ")) };
    match role {
        MachineRole::BuildMachine => check.skipped(format!("there is none yet of {names}: `{command}` makes the first")),
        MachineRole::Webserver => check.warning(format!("the datastore has none of {names}"), format!("on the build machine: {command}")),
    }
}

/// The first few of many names.
pub(super) fn named(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    let shown = names.take(3).collect::<Vec<_>>().join(", ");
    if count > 3 { format!("{shown} and {} more", count - 3) } else { shown }
}

/// The time that the site has for its renewal; `None` where it has no bundle.
async fn open(store: &dyn Datastore, seal: &Seal, site: &Site, snapshot: &Snapshot) -> Result<Option<Duration>, Box<Finding>> {
    let check = || Check::of(Part::Identity, "bundles", &site.name);
    let highest = snapshot.highest(&site.name);
    if highest == Generation(0) {
        return Ok(None);
    }
    let key = ObjectKey::bundle(&site.name, highest);
    let passed_over = format!("certfleet ensure {}", site.name.in_shell());
    let bytes = match store.get(&key).await {
        Err(error) => return Err(Box::new(refused(check(), &error))),
        Ok(None) => return Err(Box::new(check().failed(format!("{key} is listed, and is not there when read"), passed_over))),
        Ok(Some(bytes)) => bytes,
    };
    let opened = bundle_object::open(seal, &site.name, highest, &bytes);
    let opened =
        opened.map_err(|error| Box::new(check().failed(format!("{key} cannot be used: {}", in_full(&error)), passed_over.clone())))?;
    let (leaf, now) = (opened.bundle.leaf(), snapshot.clock().now());
    if leaf.not_after < now {
        let what = format!("{key} opens, but ended on {}", rfc3339(&leaf.not_after));
        return Err(Box::new(check().failed(what, passed_over)));
    }
    Ok(Some(policy::threshold(leaf.lifetime(), site.renew_before)))
}

/// An identity that is wanted from a secret which cannot be fetched.
pub fn unresolved(what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Check::new(Part::Identity, "identity").failed(what, remedy)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use bytes::Bytes;

    use super::*;
    use crate::datastore::memory::MemoryDatastore;
    use crate::datastore::{DatastoreError, Listing, Put, PutMode};
    use crate::domain::key_type::KeyType;
    use crate::domain::policy::DEFAULT_RENEW_BEFORE;
    use crate::domain::site::Method;

    /// Never answers when asked for this object.
    #[derive(Debug)]
    struct Slow(MemoryDatastore, ObjectKey);

    #[async_trait]
    impl Datastore for Slow {
        async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
            if *key == self.1 { std::future::pending().await } else { self.0.get(key).await }
        }

        async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
            self.0.put(key, body, mode).await
        }

        async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
            self.0.list(prefix, start_after).await
        }

        async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
            self.0.delete(key).await
        }
    }

    fn site(name: &str) -> Site {
        Site {
            name: name.parse().expect("a name"),
            identifiers: vec![name.parse().expect("a name")],
            method: Method::Automatic,
            issuers: Vec::new(),
            solver: None,
            key_type: KeyType::EcdsaP256,
            profile: None,
            renew_before: DEFAULT_RENEW_BEFORE,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_bundle_that_does_not_come_takes_nothing_away_from_the_others() {
        let sites = [site("a.example.test"), site("b.example.test")];
        let [slow, damaged] = [0, 1].map(|at: usize| ObjectKey::bundle(&sites[at].name, Generation(1)));
        let store = Slow(MemoryDatastore::new(chrono::DateTime::UNIX_EPOCH), slow.clone());
        for key in [&slow, &damaged] {
            store.put(key, Bytes::from_static(b"{"), PutMode::Create).await.expect("stored");
        }
        let snapshot = Snapshot::read(&store.list("", None).await.expect("a listing"));
        let deadline = Duration::from_secs(120);
        let found = bundles(&store, &Seal::None, &sites, &snapshot, MachineRole::BuildMachine, deadline).await.findings;
        assert_eq!(found[0].what, "no end after 2m: 1 of 2 sites not opened");
        assert!(found.len() == 2 && found[1].what.contains("b.example.test/0000000001 cannot be used"), "{found:?}");
    }
}
