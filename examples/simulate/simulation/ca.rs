//! The CA: orders that a lost reply does not undo, and certificates that are real.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use certfleet::domain::bundle::Bundle;
use certfleet::domain::object_key::Generation;
use certfleet::domain::private_key::PrivateKey;
use certfleet::domain::site::SiteName;
use certfleet::domain::trust::Trust;
use certfleet::issuer::{IssueError, Issuer, Lease, Order, Request};
use chrono::{DateTime, Utc};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SerialNumber};
use time::OffsetDateTime;
use tokio::time::sleep;

use super::bug::Bug;
use super::fault::Fault;
use super::invariants;
use super::process::{Process, time_out};
use super::world::World;

/// Keys are made once for all histories, and each history takes them one after the other: no two of its certificates share one.
const KEYS: usize = 4096;

/// How long before it is signed a certificate begins, as CAs do.
const BACKDATED: Duration = Duration::from_secs(60);

struct Key {
    pair: KeyPair,
    key: PrivateKey,
}

struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
    trust: Trust,
}

fn root() -> &'static Root {
    static ROOT: OnceLock<Root> = OnceLock::new();
    ROOT.get_or_init(|| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Simulated CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) =
            (OffsetDateTime::UNIX_EPOCH, OffsetDateTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a root");
        let trust = Trust::from_pem(&issuer.pem()).expect("a root");
        Root { issuer, trust }
    })
}

/// The root that everything it issues leads to.
pub fn trust() -> Trust {
    root().trust.clone()
}

fn key(number: usize) -> &'static Key {
    static MADE: OnceLock<Vec<OnceLock<Key>>> = OnceLock::new();
    let keys = MADE.get_or_init(|| (0..KEYS).map(|_| OnceLock::new()).collect());
    keys[number % KEYS].get_or_init(|| {
        let pair = KeyPair::generate().expect("a key");
        let key = PrivateKey::from_pem(&pair.serialize_pem()).expect("a key");
        Key { pair, key }
    })
}

/// What the CA knows.
#[derive(Debug)]
pub struct Ca {
    lifetime: Duration,
    next_key: usize,
    orders: BTreeMap<String, CaOrder>,
    /// What it has issued, by the PEM of the chain.
    issued: BTreeMap<String, Issued>,
    /// Those of them that were never in the bucket, by their order.
    unpublished: BTreeMap<String, Issued>,
}

#[derive(Debug)]
struct CaOrder {
    key: usize,
    site: SiteName,
    generation: Generation,
    chain: Option<String>,
}

/// One certificate.
#[derive(Clone, Debug)]
pub struct Issued {
    pub site: SiteName,
    /// The generation it was made for.
    pub generation: Generation,
    pub order: String,
    pub fingerprint: String,
    pub not_after: DateTime<Utc>,
    /// The only key that fits.
    pub key_pem: String,
}

impl Ca {
    pub fn new(lifetime: Duration, first_key: usize) -> Self {
        Self { lifetime, next_key: first_key, orders: BTreeMap::new(), issued: BTreeMap::new(), unpublished: BTreeMap::new() }
    }

    /// The certificate with this chain.
    pub fn issued(&self, chain: &str) -> Option<&Issued> {
        self.issued.get(chain)
    }

    /// Those that were never in the bucket.
    pub fn unpublished(&self) -> Vec<Issued> {
        self.unpublished.values().cloned().collect()
    }

    /// The bucket has it.
    pub fn is_published(&mut self, chain: &str) {
        if let Some(issued) = self.issued.get(chain) {
            self.unpublished.remove(&issued.order);
        }
    }

    pub fn all_issued(&self) -> impl Iterator<Item = &Issued> {
        self.issued.values()
    }

    fn take_key(&mut self) -> usize {
        self.next_key += 1;
        self.next_key
    }

    /// Issues what was ordered; a second time it is the same certificate.
    fn finalize(&mut self, url: &str, request: &Request, now: DateTime<Utc>) -> Option<String> {
        let serial = self.issued.len() as u64 + 1;
        let order = self.orders.get_mut(url)?;
        if let Some(chain) = &order.chain {
            return Some(chain.clone());
        }
        let key = key(order.key);
        let bundle = sign(key, request, serial, now, self.lifetime);
        let chain = bundle.chain_pem();
        let issued = Issued {
            site: order.site.clone(),
            generation: order.generation,
            order: url.to_owned(),
            fingerprint: bundle.leaf().fingerprint.clone(),
            not_after: bundle.leaf().not_after,
            key_pem: key.key.to_pem().to_string(),
        };
        order.chain = Some(chain.clone());
        self.unpublished.insert(url.to_owned(), issued.clone());
        self.issued.insert(chain.clone(), issued);
        Some(chain)
    }
}

fn sign(key: &Key, request: &Request, serial: u64, now: DateTime<Utc>, lifetime: Duration) -> Bundle {
    let names: Vec<_> = request.identifiers.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).expect("names");
    let begin = OffsetDateTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(now.timestamp()).unwrap_or_default()) - BACKDATED;
    (params.not_before, params.not_after) = (begin, begin + lifetime);
    params.serial_number = Some(SerialNumber::from(serial));
    let leaf = params.signed_by(&key.pair, &root().issuer).expect("a certificate");
    Bundle::new(&[leaf.der()], key.key.clone()).expect("a pair")
}

/// One run's way to the CA.
#[derive(Debug)]
pub struct Desk {
    pub process: Arc<Process>,
    pub site: SiteName,
}

impl Desk {
    fn world(&self) -> &Arc<World> {
        &self.process.world
    }

    /// One call. An error where its reply is lost: whether it was carried out is then unknown.
    async fn call<T>(&self, what: &str, apply: impl FnOnce(&World) -> T) -> Result<T, IssueError> {
        self.process.boundary(what).await;
        self.process.travel(20, 300).await;
        if self.world().strikes_call(Fault::CaDown) {
            self.process.struck();
            sleep(time_out(self.world())).await;
            return Err(refused("the CA does not answer", None));
        }
        let answer = apply(self.world());
        self.process.tell(|| format!("CA: {what}"));
        let lost = self.world().strikes_call(Fault::CaReplyLost);
        self.process.travel(10, 100).await;
        self.process.boundary("the CA's reply").await;
        if lost {
            self.process.struck();
            self.process.tell(|| format!("CA: {what}: the reply is lost"));
            return Err(refused("no answer", None));
        }
        Ok(answer)
    }

    /// Refusals that come before anything is ordered.
    fn refusal(&self) -> Option<IssueError> {
        let world = self.world();
        if world.strikes_call(Fault::CaRefuses) {
            Some(refused("urn:ietf:params:acme:error:rejectedIdentifier", None))
        } else if world.strikes_call(Fault::CaAsksForPatience) {
            Some(refused("urn:ietf:params:acme:error:rateLimited", Some(world.pause(60_000, 6 * 3_600_000))))
        } else if world.strikes_call(Fault::CaAlreadyReplaced) {
            Some(refused("urn:ietf:params:acme:error:alreadyReplaced", None))
        } else {
            None
        }
    }

    /// The order of an earlier attempt, if it is still there.
    async fn resume(&self, order: Order) -> Result<Option<Order>, IssueError> {
        let url = order.url.clone();
        let known = self
            .call("the order of an earlier attempt", move |world| {
                let forgotten = world.strikes_call(Fault::CaForgetsOrder)
                    && world.state().ca.orders.get(&url).is_some_and(|order| order.chain.is_none());
                if forgotten {
                    world.state().ca.orders.remove(&url);
                }
                world.state().ca.orders.contains_key(&url)
            })
            .await?;
        Ok(known.then_some(order))
    }

    async fn place(&self, lease: &dyn Lease) -> Result<Order, IssueError> {
        if let Some(refusal) = self.refusal() {
            self.call("a new order, which is refused", |world| {
                invariants::asked_for_an_order(world, &self.process, &self.site);
                invariants::refused(world, &self.process, &self.site);
            })
            .await?;
            self.process.troubled();
            return Err(refusal);
        }
        let generation = self.process.works_on(&self.site).unwrap_or_default();
        let (number, site, process) = (self.process.next_order(), self.site.clone(), Arc::clone(&self.process));
        let name = format!("{}/{}/{number}", self.process.name(), self.world().since_begin().as_millis());
        let (url, key_number) = self
            .call("a new order", move |world| {
                invariants::asked_for_an_order(world, &process, &site);
                let mut state = world.state();
                let key = state.ca.take_key();
                state.ca.orders.insert(name.clone(), CaOrder { key, site, generation, chain: None });
                (name, key)
            })
            .await?;
        let order = Order { url, key: key(key_number).key.clone() };
        lease.record_order(&order).await?;
        if self.world().bug == Some(Bug::OrderNotRecorded) {
            let orders = self.world().disk(self.process.machine).join("place/spool/orders");
            let _ = std::fs::remove_file(orders.join(format!("{}.json", self.site.file_name())));
        }
        Ok(order)
    }

    /// The proof of control, which takes its time.
    async fn prove(&self, lease: &dyn Lease) -> Result<(), IssueError> {
        self.call("the answer is there", |_| ()).await?;
        let world = self.world();
        // Slow is not broken: it excuses nothing.
        let looks = if world.strikes(Fault::CaStalls, world.scenario.per_mille * 4) {
            world.pause(60_000, 600_000)
        } else {
            world.pause(1_000, 15_000)
        };
        tokio::select! {
            biased;
            ended = lease.ended() => return Err(ended.into()),
            () = sleep(looks) => {}
        }
        self.process.boundary("the CA has looked").await;
        if world.strikes_call(Fault::CaRefuses) {
            self.process.troubled();
            invariants::refused(world, &self.process, &self.site);
            return Err(refused("urn:ietf:params:acme:error:unauthorized", None));
        }
        Ok(())
    }
}

impl Desk {
    /// The state of an order: its chain, where it is valid.
    async fn chain_of(&self, order: &Order) -> Result<Option<String>, IssueError> {
        let chain = |world: &World| world.state().ca.orders.get(&order.url).and_then(|order| order.chain.clone());
        self.call("the state of the order", chain).await
    }

    async fn finalize(&self, request: &Request, lease: &dyn Lease, order: &Order) -> Result<String, IssueError> {
        self.prove(lease).await?;
        lease.confirm().await?;
        let finalized = self
            .call("finalize", |world| {
                let now = world.now();
                let chain = world.state().ca.finalize(&order.url, request, now);
                invariants::issued(world, &self.site);
                chain
            })
            .await;
        // Whether a finalization without a reply was heard, the order tells.
        let chain = match finalized {
            Ok(chain) => chain,
            Err(_) => self.chain_of(order).await?,
        };
        chain.ok_or_else(|| refused("the order is not finalized", None))
    }
}

#[async_trait]
impl Issuer for Desk {
    async fn issue(&self, request: &Request, lease: &dyn Lease) -> Result<Bundle, IssueError> {
        let mut resumed = None;
        for order in request.unfinished.iter().chain(&request.other_unfinished) {
            if resumed.is_none() {
                resumed = self.resume(order.clone()).await?;
            }
        }
        let order = match resumed {
            Some(order) => order,
            None => self.place(lease).await?,
        };
        let chain = match self.chain_of(&order).await? {
            Some(chain) => chain,
            None => self.finalize(request, lease, &order).await?,
        };
        self.call("the certificate", |_| ()).await?;
        Bundle::from_pem(&chain, &order.key.to_pem()).map_err(|error| refused(&error.to_string(), None))
    }
}

fn refused(reason: &str, retry_after: Option<Duration>) -> IssueError {
    IssueError::Refused { reason: reason.to_owned(), hint: String::new(), retry_after }
}
