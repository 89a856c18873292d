//! Orders that an earlier run began, and work that has to stop.

use certfleet::solver::{Challenge, Presented, SolverError};

use super::Resource::{Authorization, Certificate, Finalize, NewOrder};
use super::*;

/// Places an order that ends in failure by `fault`, and returns what the lease knows about it.
async fn leave_behind(front: &CaFront, issuer: &AcmeIssuer, faults: &[(Resource, Fault)], names: &[&str]) -> Order {
    for (resource, fault) in faults {
        front.inject(*resource, 99, fault.clone());
    }
    let lease = HeldLease::new();
    issuer.issue(&request(names), &lease).await.expect_err("the faults are in the way");
    front.clear_faults();
    lease.last_order().expect("the order was recorded")
}

fn down() -> Fault {
    Fault::Problem { status: 500, kind: "serverInternal", detail: "down", retry_after: None }
}

async fn resume(issuer: &AcmeIssuer, names: &[&str], order: Order) -> (Bundle, HeldLease) {
    let lease = HeldLease::new();
    let wanted = Request { unfinished: Some(order), ..request(names) };
    let bundle = issuer.issue(&wanted, &lease).await.expect("a bundle");
    (bundle, lease)
}

#[tokio::test]
async fn an_order_is_taken_up_wherever_it_was_left() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let shared = options(front.directory_url(), front.root_pem(), standalone(&pebble));
    let names = ["www.example.com", "example.com"];
    for (left, faults) in [
        ("pending, nothing fetched", vec![(Authorization, down())]),
        ("pending, the CA not told", vec![(Resource::Challenge, down())]),
        ("pending or ready, the CA told but not heard", vec![(Resource::Challenge, Fault::Swallowed)]),
        ("pending or ready, not looked at", vec![(Resource::Order, down())]),
        ("ready", vec![(Finalize, Fault::Problem { status: 403, kind: "rateLimited", detail: "later", retry_after: None })]),
        (
            "processing or valid, the answer lost",
            vec![(Finalize, Fault::Swallowed), (Resource::Order, Fault::rewritten(|order| order["status"] = "ready".into()))],
        ),
        ("valid, not fetched", vec![(Certificate, down())]),
    ] {
        let (issued, placed) = (pebble.issued(), front.count(NewOrder));
        let order = leave_behind(&front, &AcmeIssuer::new(shared.clone()).expect("good options"), &faults, &names).await;
        let (bundle, lease) = resume(&AcmeIssuer::new(shared.clone()).expect("good options"), &names, order.clone()).await;
        assert_eq!(front.count(NewOrder), placed + 1, "{left}: one order");
        assert_eq!(pebble.issued(), issued + 1, "{left}: one certificate");
        assert_eq!(bundle.key(), &order.key, "{left}: the key that was recorded");
        assert!(lease.last_order().is_none(), "{left}: it is recorded already");
        assert_port_free(&pebble);
    }
}

/// A proxy's page says nothing about the order: whoever placed another for it would have two certificates issued.
#[tokio::test]
async fn an_order_is_kept_when_something_before_the_ca_refuses() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let names = ["www.example.com"];
    let order = leave_behind(&front, &issuer, &[(Certificate, down())], &names).await;
    for resource in [Resource::Order, Certificate] {
        for status in [400, 401, 403, 407, 408, 425, 429] {
            front.inject(resource, 1, Fault::Page(status, "<html>not now</html>"));
            let wanted = Request { unfinished: Some(order.clone()), ..request(&names) };
            let Err(IssueError::Refused { reason, .. }) = issuer.issue(&wanted, &HeldLease::new()).await else {
                panic!("{resource:?} {status}: not refused")
            };
            assert!(reason.contains("not now"), "{resource:?} {status}: {reason}");
        }
    }
    resume(&issuer, &names, order).await;
    assert_eq!((front.count(NewOrder), pebble.issued()), (1, 1));
}

/// Writes down whose answers are put in place and taken away.
#[derive(Debug)]
struct Journal(Arc<dyn Solver>, Mutex<Vec<(&'static str, String)>>);

#[async_trait]
impl Solver for Journal {
    fn kind(&self) -> ChallengeKind {
        self.0.kind()
    }
    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        lock(&self.1).push(("present", challenge.token.clone()));
        self.0.present(challenge).await
    }
    async fn clean_up(&self, challenge: &Challenge, presented: &Presented) -> Result<(), SolverError> {
        lock(&self.1).push(("clean up", challenge.token.clone()));
        self.0.clean_up(challenge, presented).await
    }
    async fn looked_at(&self, challenge: &Challenge) {
        self.0.looked_at(challenge).await;
    }
}

#[tokio::test]
async fn an_order_that_fails_only_now_is_replaced_once() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let journal = Arc::new(Journal(standalone(&pebble), Mutex::default()));
    let issuer = issuer_behind(&front, Arc::<Journal>::clone(&journal));
    let names = ["www.example.com"];
    let order = leave_behind(&front, &issuer, &[(Authorization, down())], &names).await;
    let first = Mutex::new(None);
    let answered = Arc::clone(&journal);
    front.inject(
        Resource::Order,
        99,
        Fault::rewritten(move |order| {
            let of_first = *lock(&first).get_or_insert_with(|| order["finalize"].clone()) == order["finalize"];
            if of_first && !lock(&answered.1).is_empty() {
                order["status"] = "invalid".into();
            }
        }),
    );
    let (bundle, lease) = resume(&issuer, &names, order.clone()).await;
    front.clear_faults();
    assert_eq!(bundle.key(), &lease.last_order().expect("the new order was recorded").key);
    assert_eq!(front.count(NewOrder), 2);
    let calls = lock(&journal.1).clone();
    let [("present", old), ("clean up", old_too), ("present", new), ("clean up", new_too)] = calls.as_slice() else {
        panic!("the answers of one order are still there for the other: {calls:?}")
    };
    assert!(old == old_too && new == new_too && old != new, "{calls:?}");

    // A fresh one that fails as well is the end of it.
    let order = leave_behind(&front, &issuer, &[(Authorization, down())], &names).await;
    let (answered, before) = (Arc::clone(&journal), calls.len());
    front.inject(
        Resource::Order,
        99,
        Fault::rewritten(move |order| {
            if lock(&answered.1).len() > before {
                order["status"] = "invalid".into();
            }
        }),
    );
    let wanted = Request { unfinished: Some(order), ..request(&names) };
    let failed = issuer.issue(&wanted, &HeldLease::new()).await;
    assert!(matches!(failed, Err(IssueError::Refused { .. })), "{failed:?}");
    assert_eq!(front.count(NewOrder), 4);
    assert_port_free(&pebble);
}

#[tokio::test]
async fn where_nothing_comes_of_one_order_the_other_is_taken_up() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let names = ["www.example.com"];
    let order = leave_behind(&front, &issuer, &[(Certificate, down())], &names).await;
    let gone = Order { url: format!("{}-gone", order.url), key: order.key.clone() };
    let wanted = Request { unfinished: Some(gone), other_unfinished: Some(order), ..request(&names) };
    issuer.issue(&wanted, &HeldLease::new()).await.expect("a bundle");
    assert_eq!((front.count(NewOrder), pebble.issued()), (1, 1));
}

#[tokio::test]
async fn a_profile_that_the_ca_chose_by_itself_is_no_obstacle() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let names = ["www.example.com"];
    let order = leave_behind(&front, &issuer, &[(Authorization, down())], &names).await;
    front.inject(Resource::Order, 99, Fault::rewritten(|order| order["profile"] = "classic".into()));
    resume(&issuer, &names, order).await;
    assert_eq!(front.count(NewOrder), 1);
}

#[tokio::test]
async fn an_order_that_the_ca_works_on_is_waited_for() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let order = leave_behind(&front, &issuer, &[(Certificate, down())], &["www.example.com"]).await;
    let processing = Fault::rewritten(|order| {
        order["status"] = "processing".into();
        order.as_object_mut().expect("an order").remove("certificate");
    });
    front.inject(Resource::Order, 3, processing);
    let finalized = front.count(Finalize);
    resume(&issuer, &["www.example.com"], order).await;
    assert_eq!((front.count(Finalize), pebble.issued()), (finalized, 1));
}

#[tokio::test]
async fn an_order_that_is_of_no_use_is_replaced() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let names = ["www.example.com"];

    pebble.set_address("away.example.com", "127.0.0.77").await;
    let invalid = leave_behind(&front, &issuer, &[], &["away.example.com"]).await;
    pebble.client().post(&format!("{}/clear-a", pebble.dns_api), &serde_json::json!({ "host": "away.example.com." })).await;
    let ready = [(Finalize, Fault::Problem { status: 403, kind: "rateLimited", detail: "later", retry_after: None })];
    let other_names = leave_behind(&front, &issuer, &ready, &["other.example.com"]).await;
    let other_key_type = {
        let order = leave_behind(&front, &issuer, &ready, &names).await;
        let key = certfleet::issuer::new_key::generate(KeyType::EcdsaP384).await.expect("a key");
        Order { key, ..order }
    };
    let valid_other_names = leave_behind(&front, &issuer, &[(Certificate, down())], &["other.example.com"]).await;
    let valid_other_key = {
        let order = leave_behind(&front, &issuer, &[(Certificate, down())], &names).await;
        let key = certfleet::issuer::new_key::generate(KeyType::EcdsaP256).await.expect("a key");
        Order { key, ..order }
    };
    let unknown = Order { url: front.directory_url().replace("/dir", "/my-order/gone"), ..other_names.clone() };
    for (case, order, names) in [
        ("invalid", invalid, ["away.example.com"]),
        ("for other names", other_names, names),
        ("for another type of key", other_key_type, names),
        ("valid, for other names", valid_other_names, names),
        ("valid, for another key", valid_other_key, names),
        ("unknown", unknown, names),
    ] {
        let placed = front.count(NewOrder);
        let (bundle, lease) = resume(&issuer, &names, order.clone()).await;
        assert_eq!(front.count(NewOrder), placed + 1, "{case}");
        let recorded = lease.last_order().expect("the new order was recorded");
        assert_ne!(recorded.url, order.url, "{case}");
        assert_eq!(bundle.key(), &recorded.key, "{case}");
        assert!(bundle.leaf().missing(&request(&names).identifiers).is_empty(), "{case}");
    }
}

#[tokio::test]
async fn nothing_is_finalized_without_the_lease() {
    /// A lease that was lost by the time it matters; and by then the answers are gone.
    struct Lost(HeldLease, Pebble);
    #[async_trait]
    impl Lease for Lost {
        async fn record_order(&self, order: &Order) -> Result<(), LeaseEnded> {
            self.0.record_order(order).await
        }
        async fn confirm(&self) -> Result<(), LeaseEnded> {
            assert_port_free(&self.1);
            Err(LeaseEnded::Lost("somebody took over".to_owned()))
        }
        async fn ended(&self) -> LeaseEnded {
            self.0.ended().await
        }
        fn progress(&self, step: &str) {
            self.0.progress(step);
        }
        fn left_behind(&self, what: &str) {
            self.0.left_behind(what);
        }
        fn makes_do(&self, what: &str) {
            self.0.makes_do(what);
        }
    }
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let lost = issuer.issue(&request(&["www.example.com"]), &Lost(HeldLease::new(), pebble)).await;
    assert!(matches!(lost, Err(IssueError::Ended(LeaseEnded::Lost(_)))), "{lost:?}");
    assert_eq!(front.count(Finalize), 0);
}

/// Whatever is being waited for when the lease ends: the work stops at once, and what was set up is gone.
#[tokio::test]
async fn the_end_of_the_lease_stops_every_wait() {
    let pebble = Pebble::start(PebbleOptions { validation_pause_seconds: Some(60), ..PebbleOptions::default() }).await;
    let place = tempfile::tempdir().expect("a directory");
    let cleaned = place.path().join("cleaned");
    let shell = |script: &str| vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()];
    let hooks = Script::from_hooks(
        ChallengeKind::Dns01,
        shell("echo presenting; exec sleep 600"),
        Some(shell(&format!("echo $CERTBOT_DOMAIN >> {}", cleaned.display()))),
    );
    for (case, solver, said) in [
        ("while the CA validates", standalone(&pebble), "answering the http-01"),
        ("while a script runs", Arc::new(hooks.expect("hooks")), "answering the dns-01"),
    ] {
        let issuer = Arc::new(issuer_at(&pebble, solver));
        let lease = Arc::new(HeldLease::new());
        let working = tokio::spawn({
            let (issuer, lease) = (Arc::clone(&issuer), Arc::clone(&lease));
            async move { issuer.issue(&request(&["www.example.com"]), &*lease).await }
        });
        let mut heard = lease.said.subscribe();
        let begun = async { heard.wait_for(|steps| steps.iter().any(|step| step.starts_with(said))).await.is_ok() };
        assert_eq!(tokio::time::timeout(Duration::from_secs(60), begun).await, Ok(true), "{case}: it never began");
        lease.ended.send_replace(Some(LeaseEnded::Interrupted));
        let ended = tokio::time::timeout(Duration::from_secs(30), working).await.unwrap_or_else(|_| panic!("{case}: it goes on"));
        assert!(matches!(ended.expect("no panic"), Err(IssueError::Ended(LeaseEnded::Interrupted))), "{case}");
        assert_port_free(&pebble);
    }
    assert_eq!(std::fs::read_to_string(cleaned).expect("the cleanup hook ran"), "www.example.com\n");
}
