//! Machines of a fleet in one process: each with its own runtimedata, all on one datastore whose clock the test moves.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use certfleet::datastore::memory::MemoryDatastore;
use certfleet::datastore::{Datastore, DatastoreError, FailureKind, Listing, Put, PutMode};
use certfleet::domain::bundle::Bundle;
use certfleet::domain::object_key::ObjectKey;
use certfleet::domain::plan::Intent;
use certfleet::domain::record::{Holder, IssuerClass};
use certfleet::domain::site::{Method, Site};
use certfleet::fleet::gather::SiteWanted;
use certfleet::fleet::issuers::{Anchors, Issuers, NamedIssuer};
use certfleet::fleet::place::spool_in;
use certfleet::fleet::progress::Progress;
use certfleet::fleet::report::SiteReport;
use certfleet::fleet::runtimedata::Runtimedata;
use certfleet::fleet::seal::Seal;
use certfleet::fleet::snapshot::Snapshot;
use certfleet::fleet::{Creates, Fleet};
use certfleet::issuer::self_signed::SelfSigned;
use certfleet::issuer::{IssueError, Issuer, Lease, Order, Request};
use certfleet::system::random;
use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub const DAY: Duration = Duration::from_secs(86_400);

pub fn start_time() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
}

/// A CA that counts, can refuse, and can be held in the middle of an issuance. What it issues is real.
#[derive(Debug)]
pub struct TestCa {
    own: SelfSigned,
    issued: AtomicUsize,
    asked: AtomicUsize,
    refusals: Mutex<Vec<(String, Option<Duration>)>>,
    /// How long it takes to refuse.
    thinks: Mutex<Duration>,
    /// How many orders of earlier attempts it was given to finish.
    resumed: AtomicUsize,
    /// Orders that were finalized, by URL: a resumed one yields the same certificate.
    orders: Mutex<BTreeMap<String, Bundle>>,
    /// Holds every issuance before its finalization until a permit is added.
    pub gate: Semaphore,
    /// Told when an issuance has come to the gate.
    pub arrived: Semaphore,
    /// Holds every issuance after its finalization.
    pub exit: Semaphore,
}

impl TestCa {
    pub fn new(lifetime: Duration) -> Arc<Self> {
        Arc::new(Self {
            own: SelfSigned::new(lifetime),
            issued: AtomicUsize::new(0),
            asked: AtomicUsize::new(0),
            refusals: Mutex::default(),
            thinks: Mutex::default(),
            resumed: AtomicUsize::new(0),
            orders: Mutex::default(),
            gate: Semaphore::new(1_000),
            arrived: Semaphore::new(0),
            exit: Semaphore::new(1_000),
        })
    }

    pub fn issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    pub fn resumed(&self) -> usize {
        self.resumed.load(Ordering::SeqCst)
    }

    /// Takes this long for every refusal.
    pub fn think(&self, how_long: Duration) {
        *self.thinks.lock().expect("no panic") = how_long;
    }

    /// Refuses the next issuance.
    pub fn refuse(&self, reason: &str, retry_after: Option<Duration>) {
        self.refusals.lock().expect("no panic").push((reason.to_owned(), retry_after));
    }
}

#[async_trait]
impl Issuer for TestCa {
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.resumed.fetch_add(usize::from(request.unfinished.is_some()), Ordering::SeqCst);
        let refusal = self.refusals.lock().expect("no panic").pop();
        if let Some((reason, retry_after)) = refusal {
            let thinks = *self.thinks.lock().expect("no panic");
            tokio::time::advance(thinks).await;
            return Err(IssueError::Refused { reason, hint: "none".to_owned(), retry_after });
        }
        let known = |order: &Order| self.orders.lock().expect("no panic").get(&order.url).cloned();
        if let Some(finished) = request.unfinished.iter().chain(&request.other_unfinished).find_map(known) {
            return Ok(finished);
        }
        let bundle = self.own.issue(request, lease).await?;
        let order = Order { url: format!("https://ca.test/order/{}", random::name()), key: bundle.key().clone() };
        lease.record_order(&order).await?;
        self.arrived.add_permits(1);
        tokio::select! {
            permit = self.gate.acquire() => permit.expect("never closed").forget(),
            ended = lease.ended() => return Err(ended.into()),
        }
        lease.confirm().await?;
        self.issued.fetch_add(1, Ordering::SeqCst);
        self.orders.lock().expect("no panic").insert(order.url, bundle.clone());
        self.exit.acquire().await.expect("never closed").forget();
        Ok(bundle)
    }
}

/// A store that loses answers, on the way there or back.
#[derive(Debug)]
pub struct Lossy {
    pub inner: Arc<MemoryDatastore>,
    faults: Mutex<Vec<(&'static str, usize, Loss)>>,
    intruders: Mutex<Vec<(&'static str, ObjectKey, Vec<u8>)>>,
    pub calls: Mutex<Vec<String>>,
}

/// Which way a message is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    Request,
    Reply,
    /// Not lost at all: the store will not have it, now or later.
    Refused,
}

impl Lossy {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::new(MemoryDatastore::new(start_time())),
            faults: Mutex::default(),
            intruders: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    /// Loses the next put to a key that begins with `prefix`.
    pub fn lose(&self, prefix: &'static str, loss: Loss) {
        self.lose_after(0, prefix, loss);
    }

    /// The same, after so many that arrive.
    pub fn lose_after(&self, good: usize, prefix: &'static str, loss: Loss) {
        self.faults.lock().expect("no panic").push((prefix, good, loss));
    }

    /// Right before the next put to a key that begins with `prefix`, somebody else stores an object.
    pub fn precede(&self, prefix: &'static str, key: ObjectKey, body: Vec<u8>) {
        self.intruders.lock().expect("no panic").push((prefix, key, body));
    }

    fn called(&self, what: &str, key: &str) {
        self.calls.lock().expect("no panic").push(format!("{what} {key}"));
    }

    fn lost() -> DatastoreError {
        DatastoreError {
            call: "put".to_owned(),
            kind: FailureKind::Passing,
            hint: "try again".to_owned(),
            source: "the connection was closed".into(),
        }
    }
}

#[async_trait]
impl Datastore for Lossy {
    async fn get(&self, key: &ObjectKey) -> Result<Option<bytes::Bytes>, DatastoreError> {
        self.called("get", key.as_str());
        self.inner.get(key).await
    }

    async fn put(&self, key: &ObjectKey, body: bytes::Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
        self.called("put", key.as_str());
        let intruder = {
            let mut intruders = self.intruders.lock().expect("no panic");
            let at = intruders.iter().position(|(prefix, ..)| key.as_str().starts_with(prefix));
            at.map(|at| intruders.remove(at))
        };
        if let Some((_, key, body)) = intruder {
            self.inner.put(&key, body.into(), PutMode::Create).await?;
        }
        let fault = {
            let mut faults = self.faults.lock().expect("no panic");
            let at = faults.iter().position(|(prefix, ..)| key.as_str().starts_with(prefix));
            match at {
                Some(at) if faults[at].1 == 0 => Some(faults.remove(at).2),
                Some(at) => {
                    faults[at].1 -= 1;
                    None
                }
                None => None,
            }
        };
        match fault {
            Some(Loss::Request) => Err(Self::lost()),
            Some(Loss::Refused) => Err(DatastoreError { kind: FailureKind::Lasting, hint: "allow overwrites".to_owned(), ..Self::lost() }),
            Some(Loss::Reply) => self.inner.put(key, body, mode).await.and(Err(Self::lost())),
            None => self.inner.put(key, body, mode).await,
        }
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        self.called("list", prefix);
        self.inner.list(prefix, start_after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        self.called("delete", key.as_str());
        self.inner.delete(key).await
    }
}

/// What a machine would have said.
#[derive(Debug, Default)]
struct Said {
    steps: Mutex<Vec<String>>,
    warnings: Mutex<Vec<String>>,
}

impl Progress for Said {
    fn step(&self, _: &dyn std::fmt::Display, what: &str) {
        self.steps.lock().expect("no panic").push(what.to_owned());
    }
    fn note(&self, _: &str) {}
    fn warning(&self, what: &str) {
        self.warnings.lock().expect("no panic").push(what.to_owned());
    }
}

/// One machine.
pub struct Machine {
    pub fleet: Fleet,
    pub directory: tempfile::TempDir,
    said: Arc<Said>,
}

/// What a test's fleet has in common.
pub struct World {
    pub store: Arc<Lossy>,
    pub ca: Arc<TestCa>,
    pub spare: Arc<TestCa>,
    pub identity: age::x25519::Identity,
}

impl World {
    pub fn new() -> Self {
        let (ca, spare) = (TestCa::new(90 * DAY), TestCa::new(90 * DAY));
        Self { store: Lossy::new(), ca, spare, identity: age::x25519::Identity::generate() }
    }

    pub fn seal(&self) -> Seal {
        Seal::Age { identity: self.identity.clone(), origin: "identity.age".to_owned() }
    }

    /// A machine that nobody has used yet.
    pub fn machine(&self, node: &str) -> Machine {
        self.machine_trusting(node, &Anchors::OwnLeaf)
    }

    /// The same, with other roots that the CA's chains must lead to.
    pub fn machine_trusting(&self, node: &str, anchors: &Anchors) -> Machine {
        let directory = tempfile::tempdir().expect("a directory");
        let named =
            |class, ca: &Arc<TestCa>| NamedIssuer { class, anchors: anchors.clone(), issuer: Some(Arc::clone(ca) as Arc<dyn Issuer>) };
        let mut issuers = Issuers::default();
        issuers.add(&site(&[]).site, "ca", named(IssuerClass::Acme, &self.ca));
        issuers.add(&site(&[]).site, "spare", named(IssuerClass::SelfSigned, &self.spare));
        let said = Arc::new(Said::default());
        let fleet = Fleet {
            store: Arc::clone(&self.store) as Arc<dyn Datastore>,
            seal: self.seal(),
            creates: Creates::Exclusive,
            holder: Holder { node: node.to_owned(), run: random::name(), place: format!("place of {node}") },
            issuers,
            runtimedata: Some(Runtimedata::new(directory.path().join("ssl"))),
            spool: spool_in(directory.path()),
            progress: Arc::clone(&said) as Arc<dyn Progress>,
            interrupt: CancellationToken::new(),
            patience: Duration::from_secs(600),
        };
        Machine { fleet, directory, said }
    }

    /// Puts bytes at a key behind everybody's back.
    pub async fn overwrite(&self, key: &ObjectKey, bytes: Vec<u8>) {
        self.store.inner.put(key, bytes.into(), PutMode::Overwrite).await.expect("stored");
    }

    pub async fn object(&self, key: &ObjectKey) -> Vec<u8> {
        self.store.inner.get(key).await.expect("an answer").expect("an object").to_vec()
    }
}

impl Machine {
    /// Its own copies.
    pub fn runtimedata(&self) -> &Runtimedata {
        self.fleet.runtimedata.as_ref().expect("a build machine")
    }

    /// The same machine's next run.
    pub fn restarted(mut self) -> Self {
        self.fleet.holder.run = random::name();
        self.fleet.interrupt = CancellationToken::new();
        self
    }

    pub fn warnings(&self) -> Vec<String> {
        self.said.warnings.lock().expect("no panic").clone()
    }

    pub fn steps(&self) -> Vec<String> {
        self.said.steps.lock().expect("no panic").clone()
    }

    pub async fn ensure(&self, wanted: SiteWanted) -> SiteReport {
        let snapshot = Snapshot::take(&*self.fleet.store).await.expect("a listing");
        self.fleet.ensure(&[wanted], &snapshot).await.remove(0)
    }
}

pub fn site(issuers: &[&str]) -> SiteWanted {
    let name: certfleet::domain::site::SiteName = "www.example.test".parse().expect("a name");
    let site = Site {
        identifiers: vec![name.identifier().clone()],
        name,
        method: Method::Automatic,
        issuers: issuers.iter().map(ToString::to_string).collect(),
        solver: None,
        key_type: certfleet::domain::key_type::KeyType::EcdsaP256,
        profile: None,
        renew_before: 7 * DAY,
    };
    SiteWanted { site, intent: Intent::IfDue, supplied: None, held: None }
}

pub fn forced(mut wanted: SiteWanted) -> SiteWanted {
    wanted.intent = Intent::Force;
    wanted
}
