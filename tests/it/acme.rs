//! The ACME issuer against pebble.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use certfleet::domain::bundle::{Bundle, certificates_pem};
use certfleet::domain::key_type::KeyType;
use certfleet::domain::site::{IfMissing, Profile};
use certfleet::issuer::acme::{Accounts, AccountsError, AcmeIssuer, AcmeOptions, AcmeOptionsError, ExternalAccount};
use certfleet::issuer::{IssueError, Issuer as _, Lease, LeaseEnded, Order, Request};
use certfleet::solver::script::Script;
use certfleet::solver::standalone::Standalone;
use certfleet::solver::webroot::Webroot;
use certfleet::solver::{ChallengeKind, Solver};
use chrono::Utc;
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::support::ca_front::{CaFront, Fault, Resource};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::process::{Subprocess, program, run};

mod account;
mod chains;
mod refusals;
mod resume;

/// A lease that is ours until the test ends it.
#[derive(Debug)]
struct HeldLease {
    orders: Mutex<Vec<Order>>,
    confirmed: Mutex<u32>,
    said: watch::Sender<Vec<String>>,
    ended: watch::Sender<Option<LeaseEnded>>,
}

impl HeldLease {
    fn new() -> Self {
        Self { orders: Mutex::default(), confirmed: Mutex::default(), said: watch::Sender::default(), ended: watch::Sender::new(None) }
    }

    fn last_order(&self) -> Option<Order> {
        lock(&self.orders).last().cloned()
    }
}

#[async_trait]
impl Lease for HeldLease {
    async fn record_order(&self, order: &Order) -> Result<(), LeaseEnded> {
        lock(&self.orders).push(order.clone());
        Ok(())
    }

    async fn confirm(&self) -> Result<(), LeaseEnded> {
        *lock(&self.confirmed) += 1;
        Ok(())
    }

    async fn ended(&self) -> LeaseEnded {
        let mut ended = self.ended.subscribe();
        let why = ended.wait_for(Option::is_some).await.expect("the sender lives as long as the lease").clone();
        why.expect("it was waited for")
    }

    fn progress(&self, step: &str) {
        self.said.send_modify(|said| said.push(step.to_owned()));
    }

    fn left_behind(&self, what: &str) {
        self.said.send_modify(|said| said.push(format!("left behind: {what}")));
    }

    fn makes_do(&self, what: &str) {
        self.said.send_modify(|said| said.push(format!("makes do: {what}")));
    }
}

/// The account that several issuers share, as the machines of a fleet do.
#[derive(Debug, Default)]
struct SharedAccount(Mutex<Option<Zeroizing<Vec<u8>>>>, Mutex<Vec<Zeroizing<Vec<u8>>>>);

#[async_trait]
impl Accounts for SharedAccount {
    async fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError> {
        Ok(lock(&self.0).clone())
    }

    async fn keep_first(&self, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
        Ok(lock(&self.0).get_or_insert(mine).clone())
    }

    async fn successors(&self, after: u32) -> Result<Vec<Zeroizing<Vec<u8>>>, AccountsError> {
        Ok(lock(&self.1).iter().skip(after as usize).cloned().collect())
    }

    async fn keep_successor(&self, number: u32, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
        let mut kept = lock(&self.1);
        if kept.len() < number as usize {
            kept.push(mine);
        }
        Ok(kept[number as usize - 1].clone())
    }

    async fn replace(&self, account: Zeroizing<Vec<u8>>) -> Result<(), AccountsError> {
        *lock(&self.0) = Some(account);
        Ok(())
    }

    async fn forget(&self) -> Result<(), AccountsError> {
        *lock(&self.0) = None;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn options(directory: String, trust: &str, solver: Arc<dyn Solver>) -> AcmeOptions {
    AcmeOptions {
        name: "pebble".to_owned(),
        directory,
        trust: Some(trust.to_owned()),
        contact: Some("ops@example.com".to_owned()),
        eab: None,
        preferred_chain: None,
        chain_trust: None,
        solver,
        accounts: Arc::new(SharedAccount::default()),
    }
}

fn issuer_at(pebble: &Pebble, solver: Arc<dyn Solver>) -> AcmeIssuer {
    AcmeIssuer::new(options(pebble.directory_url(), pebble.root_pem(), solver)).expect("good options")
}

fn issuer_behind(front: &CaFront, solver: Arc<dyn Solver>) -> AcmeIssuer {
    AcmeIssuer::new(options(front.directory_url(), front.root_pem(), solver)).expect("good options")
}

fn standalone(pebble: &Pebble) -> Arc<dyn Solver> {
    Arc::new(Standalone::new(([127, 0, 0, 1], pebble.http_port).into()))
}

fn request(names: &[&str]) -> Request {
    Request {
        identifiers: names.iter().map(|name| name.parse().expect("an identifier")).collect(),
        key_type: KeyType::EcdsaP256,
        profile: None,
        now: Utc::now(),
        unfinished: None,
        other_unfinished: None,
    }
}

async fn issue(issuer: &AcmeIssuer, names: &[&str]) -> Result<Bundle, IssueError> {
    issuer.issue(&request(names), &HeldLease::new()).await
}

/// Nobody listens where the CA looked: what was set up for challenges is gone.
fn assert_port_free(pebble: &Pebble) {
    std::net::TcpListener::bind(("127.0.0.1", pebble.http_port)).expect("the port is free again");
}

/// Openssl, not we ourselves, says that the chain leads to the CA's root and the leaf is for `name`.
fn assert_trusted(pebble: &Pebble, bundle: &Bundle, name: &str) {
    let place = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        std::fs::write(place.path().join(name), text).expect("a file");
        place.path().join(name)
    };
    let root = file("root.pem", pebble.issuance_root_pem());
    let intermediates = file("chain.pem", &certificates_pem(&bundle.chain()[1..]));
    let leaf = file("leaf.pem", &bundle.leaf_pem());
    let check = if name.parse::<std::net::IpAddr>().is_ok() { "-verify_ip" } else { "-verify_hostname" };
    let mut verify = Command::new("openssl");
    run(verify.args(["verify", check, name, "-CAfile"]).arg(root).arg("-untrusted").arg(intermediates).arg(leaf));
}

#[tokio::test]
async fn http_01_for_names_and_an_address() {
    let pebble = Pebble::start(PebbleOptions { intermediates: 2, ..PebbleOptions::default() }).await;
    let issuer = issuer_at(&pebble, standalone(&pebble));
    let names = ["www.example.com", "example.com", "xn--bcher-kva.example", "127.0.0.1"];
    for count in [1, 3, 4] {
        let bundle = issue(&issuer, &names[..count]).await.expect("a bundle");
        assert_eq!(bundle.leaf().identifiers, names[..count].iter().map(|name| name.parse().expect("an identifier")).collect());
        assert_eq!(bundle.chain().len(), 3);
        for name in &names[..count] {
            assert_trusted(&pebble, &bundle, name);
        }
        assert_port_free(&pebble);
    }
}

#[tokio::test]
async fn every_key_type_is_certified() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let issuer = issuer_at(&pebble, standalone(&pebble));
    for key_type in [KeyType::EcdsaP384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096] {
        let wanted = Request { key_type, ..request(&["keys.example.com"]) };
        let bundle = issuer.issue(&wanted, &HeldLease::new()).await.expect("a bundle");
        assert_eq!(bundle.leaf().key_type, Some(key_type));
    }
}

/// Directory, nonce, order, authorization, challenge, look, finalize, look, certificate. A busy machine may cost a look more now and
/// then, so the middle one of several runs counts.
#[tokio::test]
async fn a_certificate_costs_nine_requests() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let shared = options(pebble.directory_url(), pebble.root_pem(), standalone(&pebble));
    let mut runs = Vec::new();
    for number in 0..10 {
        let issuer = AcmeIssuer::new(shared.clone()).expect("good options");
        let start = Instant::now();
        issue(&issuer, &[&format!("www{number}.example.com")]).await.expect("a bundle");
        runs.push((issuer.requests(), start.elapsed()));
    }
    // The first one opened the account.
    let mut requests: Vec<_> = runs[1..].iter().map(|run| run.0).collect();
    let mut times: Vec<_> = runs[1..].iter().map(|run| run.1).collect();
    requests.sort_unstable();
    times.sort_unstable();
    println!("requests {requests:?}, median time {:?}", times[times.len() / 2]);
    assert!(requests[requests.len() / 2] <= 9, "{requests:?}");
}

#[tokio::test]
async fn a_wildcard_and_its_apex_are_proven_by_a_script() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let place = tempfile::tempdir().expect("a directory");
    let journal = place.path().join("journal");
    let credentials = BTreeMap::from([
        ("CHALLTESTSRV_API".to_owned(), Zeroizing::new(pebble.dns_api.clone())),
        ("JOURNAL".to_owned(), Zeroizing::new(journal.to_string_lossy().into_owned())),
    ]);
    let provider = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/providers/challtestsrv");
    let script = Script::load(&provider, ChallengeKind::Dns01, credentials).expect("a good provider");
    let names = ["example.com", "*.example.com", "www.example.org"];
    let bundle = issue(&issuer_at(&pebble, Arc::new(script)), &names).await.expect("a bundle");
    assert_trusted(&pebble, &bundle, "any.example.com");

    let journal = std::fs::read_to_string(journal).expect("a journal");
    let mut calls: Vec<_> = journal.lines().collect();
    assert!(calls[..3].iter().all(|call| call.starts_with("present ")), "all are present at once: {journal}");
    calls.sort_unstable();
    let outputs = calls[..3].iter().map(|call| call.split("output=").nth(1).expect("an output"));
    assert_eq!(outputs.collect::<Vec<_>>(), ["record for example.com", "record for example.com", "record for www.example.org"]);
    let all = "all=example.com,example.com,www.example.org";
    assert!(calls.iter().all(|call| call.contains(all)), "{journal}");
    let mut remaining: Vec<_> = calls[3..].iter().filter_map(|call| call.split("remaining=").nth(1)?.chars().next()).collect();
    remaining.sort_unstable();
    assert_eq!(remaining, ['0', '1', '2']);
}

#[tokio::test]
async fn a_web_server_that_runs_already_answers_from_its_root() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let root = tempfile::tempdir().expect("a directory");
    let mut server = Command::new(program("python3"));
    server.args(["-m", "http.server", &pebble.http_port.to_string(), "--bind", "127.0.0.1", "--directory"]).arg(root.path());
    let log = tempfile::tempdir().expect("a directory");
    let mut server = Subprocess::spawn(&server, log.path().join("log"));
    server.wait_for_port(([127, 0, 0, 1], pebble.http_port).into(), Duration::from_secs(30));

    let issuer = issuer_at(&pebble, Arc::new(Webroot::new(root.path().to_owned())));
    issue(&issuer, &["a.example.com", "b.example.com"]).await.expect("a bundle");
    assert_eq!(std::fs::read_dir(root.path()).expect("a directory").count(), 0, "nothing is left in the root");
}

#[tokio::test]
async fn refused_nonces_do_not_matter() {
    let pebble = Pebble::start(PebbleOptions { nonce_reject_percent: 20, ..PebbleOptions::default() }).await;
    let shared = options(pebble.directory_url(), pebble.root_pem(), standalone(&pebble));
    for number in 0..10 {
        let issuer = AcmeIssuer::new(shared.clone()).expect("good options");
        issue(&issuer, &[&format!("nonce{number}.example.com")]).await.expect("a bundle");
    }
    assert_eq!(pebble.issued(), 10);
}

#[tokio::test]
async fn a_ca_that_takes_its_time_is_waited_for() {
    let pebble = Pebble::start(PebbleOptions { validation_pause_seconds: Some(3), ..PebbleOptions::default() }).await;
    let issuer = issuer_at(&pebble, standalone(&pebble));
    issue(&issuer, &["slow.example.com", "slower.example.com"]).await.expect("a bundle");
    assert_port_free(&pebble);
}

#[tokio::test]
async fn names_that_are_proven_already_are_not_proven_again() {
    let pebble = Pebble::start(PebbleOptions { authz_reuse_percent: 100, ..PebbleOptions::default() }).await;
    let issuer = issuer_at(&pebble, standalone(&pebble));
    issue(&issuer, &["again.example.com"]).await.expect("a bundle");
    let taken = std::net::TcpListener::bind(("127.0.0.1", pebble.http_port)).expect("the port is free");
    issue(&issuer, &["again.example.com"]).await.expect("nothing needs to listen");
    drop(taken);
}

#[tokio::test]
async fn twenty_sites_at_once_share_account_and_listener() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = Arc::new(issuer_behind(&front, standalone(&pebble)));
    let sites = (0..20).map(|number| {
        let issuer = Arc::clone(&issuer);
        tokio::spawn(async move { issue(&issuer, &[&format!("site{number}.example.com")]).await.map(drop) })
    });
    for site in sites.collect::<Vec<_>>() {
        site.await.expect("no panic").expect("a bundle");
    }
    assert_eq!((front.count(Resource::NewAccount), pebble.issued()), (1, 20));
    assert_port_free(&pebble);
}

#[tokio::test]
async fn two_machines_end_up_with_one_account() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let accounts: Arc<dyn Accounts> = Arc::new(SharedAccount::default());
    let [one, other] = [0, 1].map(|_| {
        let solver: Arc<dyn Solver> =
            Arc::new(Script::from_hooks(ChallengeKind::Http01, vec!["/bin/false".to_owned()], None).expect("a hook"));
        let shared = AcmeOptions { accounts: Arc::clone(&accounts), ..options(front.directory_url(), front.root_pem(), solver) };
        AcmeIssuer::new(shared).expect("good options")
    });
    // Only the accounts matter here: neither can answer a challenge.
    let (one, other) = tokio::join!(issue(&one, &["one.example.com"]), issue(&other, &["other.example.com"]));
    assert!(one.is_err() && other.is_err());
    assert_eq!(front.count(Resource::NewAccount), 2, "both found none");
    assert_eq!(front.count(Resource::Account), 1, "the surplus one was deactivated");
    assert_eq!(front.count(Resource::NewOrder), 2, "both could place an order with the one that was kept");
}

/// An account's binding is good for one use only at many CAs: the machine that comes second is refused, and has an account all the same.
#[tokio::test]
async fn an_account_that_another_machine_opened_meanwhile_is_used() {
    /// Finds nothing when it looks for the first time.
    #[derive(Debug)]
    struct Late(Arc<SharedAccount>, AtomicBool);
    #[async_trait]
    impl Accounts for Late {
        async fn load(&self) -> Result<Option<Zeroizing<Vec<u8>>>, AccountsError> {
            if self.1.swap(true, Ordering::Relaxed) { self.0.load().await } else { Ok(None) }
        }
        async fn keep_first(&self, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
            self.0.keep_first(mine).await
        }
        async fn successors(&self, after: u32) -> Result<Vec<Zeroizing<Vec<u8>>>, AccountsError> {
            self.0.successors(after).await
        }
        async fn keep_successor(&self, number: u32, mine: Zeroizing<Vec<u8>>) -> Result<Zeroizing<Vec<u8>>, AccountsError> {
            self.0.keep_successor(number, mine).await
        }
        async fn replace(&self, account: Zeroizing<Vec<u8>>) -> Result<(), AccountsError> {
            self.0.replace(account).await
        }
        async fn forget(&self) -> Result<(), AccountsError> {
            self.0.forget().await
        }
    }
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let shared = Arc::new(SharedAccount::default());
    let with = |accounts: Arc<dyn Accounts>| {
        let options = AcmeOptions { accounts, ..options(front.directory_url(), front.root_pem(), standalone(&pebble)) };
        AcmeIssuer::new(options).expect("good options")
    };
    let used = Fault::Problem { status: 403, kind: "unauthorized", detail: "the binding was used", retry_after: None };
    front.inject(Resource::NewAccount, 1, used.clone());
    let Err(IssueError::Refused { reason, .. }) =
        issue(&with(Arc::new(Late(Arc::clone(&shared), false.into()))), &["one.example.com"]).await
    else {
        panic!("there is no account")
    };
    assert!(reason.contains("the binding was used"), "{reason}");

    issue(&with(Arc::<SharedAccount>::clone(&shared)), &["one.example.com"]).await.expect("a bundle");
    front.inject(Resource::NewAccount, 1, used);
    issue(&with(Arc::new(Late(shared, false.into()))), &["two.example.com"]).await.expect("a bundle");
    assert_eq!(front.count(Resource::NewAccount), 3);
}

#[tokio::test]
async fn accounts_bound_to_a_customer() {
    let key = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
    let eab = Some(("kid-1".to_owned(), key.to_owned()));
    let pebble = Pebble::start(PebbleOptions { eab, ..PebbleOptions::default() }).await;
    let with = |kid: &str, key: &str| {
        let eab = ExternalAccount { kid: kid.to_owned(), hmac_key: Zeroizing::new(key.to_owned()) };
        AcmeOptions { eab: Some(eab), ..options(pebble.directory_url(), pebble.root_pem(), standalone(&pebble)) }
    };
    let right = AcmeIssuer::new(with("kid-1", key)).expect("good options");
    issue(&right, &["bound.example.com"]).await.expect("a bundle");

    let other_key = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH";
    for (options, in_reason, in_hint) in [
        (options(pebble.directory_url(), pebble.root_pem(), standalone(&pebble)), "externalAccountRequired", "set eab"),
        (with("kid-1", other_key), "could not open the account", "hmac_key"),
        (with("kid-9", key), "could not open the account", "kid"),
    ] {
        let issuer = AcmeIssuer::new(options).expect("good options");
        let Err(IssueError::Refused { reason, hint, .. }) = issue(&issuer, &["bound.example.com"]).await else { panic!("it was issued") };
        assert!(reason.contains(in_reason) && hint.contains(in_hint), "{reason}\n{hint}");
        assert!(!reason.contains(&other_key[..10]) && !format!("{issuer:?}").contains(&other_key[..10]));
    }
    let refused = AcmeIssuer::new(with("kid-1", "no base64url!")).expect_err("bad options");
    assert!(matches!(refused, AcmeOptionsError::MacKey { .. }));
}

#[test]
fn options_that_cannot_work_are_refused_before_anything_is_done() {
    let solver = || -> Arc<dyn Solver> { Arc::new(Standalone::everywhere()) };
    for directory in ["http://ca.example/dir", "ca.example", "", "https:///dir"] {
        let refused = AcmeIssuer::new(AcmeOptions { trust: None, ..options(directory.to_owned(), "", solver()) });
        assert!(matches!(refused, Err(AcmeOptionsError::Directory { .. })), "{directory}");
    }
    for trust in ["", "hello", "-----BEGIN CERTIFICATE-----\n####\n-----END CERTIFICATE-----\n"] {
        let refused = AcmeIssuer::new(options("https://ca.example/dir".to_owned(), trust, solver()));
        assert!(matches!(refused, Err(AcmeOptionsError::Trust { .. })), "{trust:?}");
    }
}
