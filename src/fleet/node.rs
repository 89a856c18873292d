//! A node: what it serves, what is installed there, and what is to be done about it.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::bundle_object::{self, Opened};
use super::delivery::Delivered;
use super::node_state::{KnownPlace, NodeState};
use super::seal::Seal;
use super::snapshot::Snapshot;
use crate::domain::certificate::Certificate;
use crate::domain::node_plan::{self, NodeEvidence, NodeSitePlan, Part, Presence, Serving};
use crate::domain::object_key::Generation;
use crate::domain::pem;
use crate::domain::policy::{self, Due};
use crate::domain::site::{Method, Site, SiteName};
use crate::system::error_chain::in_full;
use crate::target::served::Endpoint;
use crate::target::server::Server;
use crate::target::ssl_root::{Contents, Live, SslRoot};

/// A node tells three times in the time after which it is taken for silent: two nights may fail.
const REPORTS_UNTIL_STALE: u32 = 3;

/// This machine among the nodes.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it may do about sites that are due.
    pub part: Part,
    /// Sites that no issuer on this machine can renew: for these it follows.
    pub followed: BTreeSet<SiteName>,
    /// Where bundles are installed: directories, each with the servers that read from it.
    pub roots: Vec<Root>,
    /// The sites, in the order of the configuration.
    pub sites: Vec<Site>,
    /// Bundles that were pushed here: they need not be fetched, and are there when the datastore is not.
    pub delivered: Delivered,
    /// The directory with the node's own memory.
    pub place: PathBuf,
    /// A node that is silent for longer is reported: what is served is checked, and told, three times in that time.
    pub stale_after: Duration,
    /// The node's clock minus the store's, in seconds, at the moment of the listing.
    pub clock_offset_secs: i64,
}

/// A directory that bundles are installed into, and the servers that read from it.
#[derive(Debug)]
pub struct Root {
    /// The directory.
    pub ssl: SslRoot,
    /// The servers.
    pub servers: Vec<NodeServer>,
}

/// A server on this node.
#[derive(Debug)]
pub struct NodeServer {
    /// The server.
    pub server: Arc<dyn Server>,
    /// Where it serves; `None` where nobody is to look.
    pub verify: Option<Arc<dyn Endpoint>>,
    /// How long it may take until it serves a new certificate.
    pub deadline: Duration,
    /// The sites it serves.
    pub sites: BTreeSet<SiteName>,
}

/// One site as it was found, and what is to be done.
#[derive(Clone, Debug)]
pub struct SiteObserved {
    /// The site.
    pub site: Site,
    /// What this node may do about it.
    pub part: Part,
    /// Whether the configuration wants another bundle than what is installed, however long that still lives.
    pub mismatch: bool,
    /// Where it is installed, or is to be.
    pub places: Vec<PlaceObserved>,
    /// What is to be done.
    pub plan: NodeSitePlan,
}

/// One site in one directory.
#[derive(Clone, Debug)]
pub struct PlaceObserved {
    /// The directory, as an index into [`Node::roots`].
    pub root: usize,
    /// What was found.
    pub presence: Presence,
    /// What there is to know of what was found whole.
    pub known: Option<KnownPlace>,
}

/// Whoever looks at the files of a node.
pub(super) struct Observer<'a> {
    pub(super) node: &'a Node,
    pub(super) seal: &'a Seal,
    pub(super) state: &'a NodeState,
    pub(super) snapshot: &'a Snapshot,
    pub(super) now: DateTime<Utc>,
    /// Whether what is served is to be looked at although nothing has changed.
    pub(super) look_again: bool,
}

impl NodeServer {
    /// Where it is looked at.
    pub fn address(&self) -> Option<&str> {
        self.verify.as_deref().map(Endpoint::address)
    }
}

impl Root {
    /// The servers of a site, and where they are looked at: what one of them was seen to do says nothing about another.
    pub fn servers_of(&self, site: &SiteName) -> String {
        let servers = self.servers.iter().filter(|server| server.sites.contains(site));
        let named = servers.map(|server| format!("{} at {}", server.server.name(), server.address().unwrap_or("no address")));
        named.collect::<Vec<_>>().join(", ")
    }

    /// Whether the site is installed there.
    pub fn wants(&self, site: &SiteName) -> bool {
        self.servers.iter().any(|server| server.sites.contains(site))
    }
}

impl Node {
    /// Whether the node's report is missing, or so old that the node could soon be taken for silent.
    pub fn must_report(&self, snapshot: &Snapshot) -> bool {
        let told = snapshot.nodes().get(&self.name);
        told.is_none_or(|told| (snapshot.clock().now() - *told).to_std().unwrap_or_default() >= self.stale_after / REPORTS_UNTIL_STALE)
    }

    /// What is installed in a place that the node remembers.
    pub(super) fn installed(&self, seal: &Seal, site: &Site, place: &KnownPlace) -> Option<Opened> {
        let root = self.roots.iter().find(|root| root.ssl.directory() == place.ssl_root)?;
        let object = root.ssl.object(&site.name, place.generation).ok().flatten()?;
        bundle_object::open(seal, &site.name, place.generation, &object).ok()
    }

    /// Looks at every site, and plans. Nothing is read that is known to be as it was.
    pub fn observe(&self, seal: &Seal, state: &NodeState, snapshot: &Snapshot) -> Vec<SiteObserved> {
        let observer = Observer { node: self, seal, state, snapshot, now: snapshot.clock().now(), look_again: self.must_report(snapshot) };
        self.sites.iter().map(|site| observer.site(site)).collect()
    }
}

impl Observer<'_> {
    fn site(&self, site: &Site) -> SiteObserved {
        let highest = self.snapshot.highest(&site.name);
        let roots = self.node.roots.iter().enumerate().filter(|(_, root)| root.wants(&site.name));
        let places: Vec<_> = roots.map(|(index, root)| self.place(index, root, site)).collect();
        let part = match self.node.part {
            Part::Renew if site.method == Method::Automatic && self.node.followed.contains(&site.name) => Part::Follow,
            part => part,
        };
        let presences = places.iter().map(|place| place.presence.clone()).collect();
        let (due, mismatch) = self.due(site, &places);
        let listed = self.snapshot.etag(&site.name);
        let is_like = |known: &KnownPlace| known.generation != highest || known.etag.as_deref() == listed;
        let compare = listed.is_some() && !places.iter().filter_map(|place| place.known.as_ref()).all(is_like);
        let evidence = NodeEvidence { highest, places: presences, due, part, compare };
        SiteObserved { site: site.clone(), part, mismatch, places, plan: node_plan::plan(&evidence) }
    }

    /// Why the newest installed bundle should be replaced, and whether the configuration wants another one. It is only opened once its time
    /// has come.
    fn due(&self, site: &Site, places: &[PlaceObserved]) -> (Option<Due>, bool) {
        let newest = places.iter().filter_map(|place| Some((place.known.as_ref()?, place.root))).max_by_key(|(known, _)| known.generation);
        let Some((known, root)) = newest else { return (None, false) };
        let window = self.state.window_due(&site.name, &known.fingerprint, self.now).filter(|_| site.method == Method::Automatic);
        if known.due_at > self.now {
            return (window, false);
        }
        let Ok(opened) = self.open(&self.node.roots[root].ssl, site, known.generation) else { return (None, false) };
        let candidate = opened.candidate();
        (policy::due(candidate, site, self.now).or(window), policy::mismatch(candidate, site, self.now).is_some())
    }

    fn place(&self, index: usize, root: &Root, site: &Site) -> PlaceObserved {
        let found = |presence, known| PlaceObserved { root: index, presence, known };
        let generation = match root.ssl.live(&site.name) {
            Err(error) => return found(Presence::Refused(in_full(&error)), None),
            Ok(Live::Refused(why)) => return found(Presence::Refused(why), None),
            Ok(Live::Absent) => return found(Presence::Absent, None),
            Ok(Live::Directory) => return found(Presence::Adoptable { not_after: adoptable(&root.ssl, site) }, None),
            Ok(Live::Ours(generation)) => generation,
        };
        let known = match self.known(root, site, generation) {
            Ok(known) => known,
            Err(why) => return found(Presence::Broken(why), None),
        };
        let looked_at = root.servers.iter().any(|server| server.verify.is_some() && server.sites.contains(&site.name));
        let serving = match &known.proven_by {
            Some(servers) if *servers != root.servers_of(&site.name) => Serving::Unknown,
            Some(_) if self.look_again && looked_at => Serving::Stale,
            Some(_) => Serving::Proven,
            None => Serving::Unknown,
        };
        found(Presence::Whole { generation, not_after: known.not_after, serving }, Some(known))
    }

    /// What there is to know of an installed generation: remembered, where no file has changed since, else read and proven.
    fn known(&self, root: &Root, site: &Site, generation: Generation) -> Result<KnownPlace, String> {
        let ssl = &root.ssl;
        // Taken first: what changes while it is read is read again next time.
        let stamp = ssl.stamp(&site.name, generation).ok_or("a file is missing")?;
        let judged_by = judged_by(site, ssl);
        let remembered = self.state.place(ssl.directory(), &site.name).filter(|known| known.generation == generation);
        if let Some(known) = remembered.filter(|known| known.stamp == stamp && known.judged_by == judged_by) {
            return Ok(known.clone());
        }
        let opened = self.open(ssl, site, generation)?;
        if !ssl.holds(&site.name, generation, &Contents { bundle: &opened.bundle, object: &opened.object }) {
            return Err("its files are not as they were installed".to_owned());
        }
        let same = remembered.filter(|known| known.fingerprint == opened.bundle.leaf().fingerprint);
        let (proven_by, etag) = same.map(|known| (known.proven_by.clone(), known.etag.clone())).unwrap_or_default();
        Ok(KnownPlace { etag, proven_by, ..known_place(ssl, site, &opened, stamp, self.now) })
    }

    /// The installed bundle with its record.
    pub(super) fn open(&self, ssl: &SslRoot, site: &Site, generation: Generation) -> Result<Opened, String> {
        let object = ssl.object(&site.name, generation).map_err(|error| in_full(&error))?.ok_or("its record is missing")?;
        bundle_object::open(self.seal, &site.name, generation, &object).map_err(|error| in_full(&error))
    }
}

/// What to remember of a bundle that lies in a directory, and that no server was seen to serve.
pub(super) fn known_place(ssl: &SslRoot, site: &Site, opened: &Opened, stamp: String, now: DateTime<Utc>) -> KnownPlace {
    let leaf = opened.bundle.leaf();
    KnownPlace {
        ssl_root: ssl.directory().to_owned(),
        site: site.name.file_name(),
        generation: opened.record.generation,
        fingerprint: leaf.fingerprint.clone(),
        not_after: leaf.not_after,
        due_at: policy::due_at(opened.candidate(), site, now).0,
        judged_by: judged_by(site, ssl),
        stamp,
        etag: None,
        proven_by: None,
    }
}

/// Changes with every setting that the judgement of an installed bundle rests on. A release that hashes in another way judges anew.
fn judged_by(site: &Site, ssl: &SslRoot) -> String {
    let mut settings = DefaultHasher::new();
    (site, ssl).hash(&mut settings);
    format!("{:016x}", settings.finish())
}

/// The end of the certificate in a directory that is not ours, where it serves the site.
fn adoptable(ssl: &SslRoot, site: &Site) -> Option<DateTime<Utc>> {
    let text = std::fs::read_to_string(ssl.live_path(&site.name).join("fullchain.pem")).ok()?;
    let leaf = Certificate::from_der(&pem::blocks(&text).ok()?.first()?.der).ok()?;
    leaf.missing(&site.identifiers).is_empty().then_some(leaf.not_after)
}

/// Why a bundle is not installed.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It cannot serve the site here.
    Checks(String),
    /// It could, but for a shorter time than what is installed.
    Sooner(String),
}

/// Whether a bundle may take the place of what is installed; why not, if not.
pub(super) fn may_replace(before: &PlaceObserved, mismatch: bool, opened: &Opened, now: DateTime<Utc>) -> Result<(), Refusal> {
    let generation = opened.record.generation;
    let leaf = opened.bundle.leaf();
    let (not_after, what) = match &before.presence {
        Presence::Whole { generation: installed, .. } if *installed > generation => {
            return Err(Refusal::Checks(format!("generation {installed} is installed, and the fleet never goes back")));
        }
        Presence::Whole { generation: installed, not_after, .. } if *installed < generation => {
            (Some(*not_after), format!("generation {installed}"))
        }
        // Another content under the same number, which another directory may have had before this one.
        Presence::Whole { not_after, .. } if before.known.as_ref().is_some_and(|known| known.fingerprint != leaf.fingerprint) => {
            (Some(*not_after), format!("what is installed as generation {generation}"))
        }
        Presence::Adoptable { not_after } => (*not_after, "the certificate that lies there".to_owned()),
        Presence::Whole { .. } | Presence::Absent | Presence::Broken(_) | Presence::Refused(_) => (None, String::new()),
    };
    let sooner = not_after.filter(|not_after| *not_after > leaf.not_after && *not_after > now);
    // Who wants another key, profile, issuer or other names gets them, also for a shorter time; and `rollback` means what it does.
    let wanted = mismatch || opened.record.rollback_to.is_some();
    match sooner {
        Some(not_after) if !wanted => {
            let (ours, theirs) = (crate::domain::time::rfc3339(&leaf.not_after), crate::domain::time::rfc3339(&not_after));
            Err(Refusal::Sooner(format!("generation {generation} expires at {ours}, sooner than {what}, which serves until {theirs}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rcgen::{CertificateParams, KeyPair};

    use super::*;
    use crate::domain::bundle::Bundle;
    use crate::domain::private_key::PrivateKey;
    use crate::domain::record::{Holder, IssuerClass};
    use crate::fleet::bundle_object::Origin;

    fn opened(generation: u64) -> Opened {
        let site: SiteName = "www.example.test".parse().expect("a name");
        let key = KeyPair::generate().expect("a key");
        let leaf = CertificateParams::new(vec![site.identifier().to_string()]).expect("names").self_signed(&key).expect("a certificate");
        let bundle = Bundle::new(&[leaf.der()], PrivateKey::from_pem(&key.serialize_pem()).expect("a key")).expect("a bundle");
        let origin = Origin { issuer: "ca".to_owned(), class: IssuerClass::Acme, profile: None, passed_over: Vec::new() };
        let holder = Holder { node: "ws-1".to_owned(), run: String::new(), place: String::new() };
        let (seal, generation) = (Seal::None, Generation(generation));
        let object = bundle_object::compose(&seal, &site, generation, &bundle, &origin, &holder).expect("an object");
        bundle_object::open(&seal, &site, generation, &object).expect("a bundle")
    }

    #[test]
    fn the_fleet_never_goes_back() {
        let new = opened(4);
        let end = new.bundle.leaf().not_after;
        let (sooner, later) = (end - TimeDelta::days(1), end + TimeDelta::days(1));
        for (installed, not_after, mismatch, may) in [
            (3, sooner, false, true),
            (3, later, false, false),
            (3, later, true, true),
            (4, later, false, true),
            (5, sooner, false, false),
            (5, sooner, true, false),
        ] {
            let presence = Presence::Whole { generation: Generation(installed), not_after, serving: Serving::Proven };
            let before = PlaceObserved { root: 0, presence, known: None };
            let answer = may_replace(&before, mismatch, &new, end - TimeDelta::days(30));
            assert_eq!(answer.is_ok(), may, "{installed} until {not_after}, {mismatch}: {answer:?}");
        }
    }

    #[test]
    fn another_content_of_the_same_number_replaces_none_that_serves_longer() {
        let new = opened(4);
        let leaf = new.bundle.leaf();
        let (sooner, later) = (leaf.not_after - TimeDelta::days(1), leaf.not_after + TimeDelta::days(1));
        for (fingerprint, not_after, mismatch, may) in [
            ("other", sooner, false, true),
            ("other", later, false, false),
            ("other", later, true, true),
            (leaf.fingerprint.as_str(), later, false, true),
        ] {
            let known = KnownPlace {
                ssl_root: PathBuf::new(),
                site: String::new(),
                generation: Generation(4),
                fingerprint: fingerprint.to_owned(),
                not_after,
                due_at: not_after,
                judged_by: String::new(),
                stamp: String::new(),
                etag: None,
                proven_by: None,
            };
            let presence = Presence::Whole { generation: Generation(4), not_after, serving: Serving::Proven };
            let before = PlaceObserved { root: 0, presence, known: Some(known) };
            let answer = may_replace(&before, mismatch, &new, leaf.not_after - TimeDelta::days(30));
            assert_eq!(answer.is_ok(), may, "{fingerprint} until {not_after}, {mismatch}: {answer:?}");
        }
    }
}
