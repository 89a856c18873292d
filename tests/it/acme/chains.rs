//! Which of the chains that a CA offers is taken.

use certfleet::domain::certificate::Certificate;
use certfleet::domain::pem;
use certfleet::domain::trust::Trust;

use super::*;

const NAME: &str = "www.example.com";

/// A CA with three chains for every certificate, and a front before it.
async fn three() -> (Pebble, CaFront) {
    let pebble = Pebble::start(PebbleOptions { alternate_roots: 2, ..PebbleOptions::default() }).await;
    let front = CaFront::start(&pebble);
    (pebble, front)
}

fn root(text: &str) -> Certificate {
    Certificate::from_der(&pem::blocks(text).expect("PEM")[0].der).expect("a certificate")
}

/// What a root calls itself: it is its own issuer.
fn common_name(text: &str) -> String {
    root(text).issuer_common_name().expect("a common name")
}

fn issuer(pebble: &Pebble, front: &CaFront, preferred: Option<String>, trusted: Option<&str>) -> AcmeIssuer {
    let chain_trust = trusted.map(|root| Trust::from_pem(root).expect("a root"));
    let options =
        AcmeOptions { preferred_chain: preferred, chain_trust, ..options(front.directory_url(), front.root_pem(), standalone(pebble)) };
    AcmeIssuer::new(options).expect("good options")
}

/// The common name on top of what is issued, and what was said about it.
async fn top(issuer: &AcmeIssuer) -> (String, Vec<String>) {
    let lease = HeldLease::new();
    let bundle = issuer.issue(&request(&[NAME]), &lease).await.expect("a bundle");
    let said: Vec<_> = lease.said.borrow().iter().filter(|said| said.starts_with("makes do")).cloned().collect();
    (bundle.chain().last().expect("a chain").issuer_common_name().expect("a common name"), said)
}

#[tokio::test]
async fn the_preferred_chain_is_taken() {
    let (pebble, front) = three().await;
    for number in [2, 1] {
        let root = pebble.root(number).await;
        let preferred = issuer(&pebble, &front, Some(common_name(&root)), None);
        let bundle = issue(&preferred, &[NAME]).await.expect("a bundle");
        Trust::from_pem(&root).expect("a root").leads_to(bundle.chain(), Utc::now() + Duration::from_secs(60)).expect("trusted");
        assert_eq!(top(&preferred).await, (common_name(&root), Vec::new()));
    }
}

#[tokio::test]
async fn alternates_are_not_asked_for_where_the_default_chain_is_all_that_is_wanted() {
    let (pebble, front) = three().await;
    let default = pebble.issuance_root_pem();
    for issuer in [issuer(&pebble, &front, None, None), issuer(&pebble, &front, Some(common_name(default)), Some(default))] {
        let before = front.count(Resource::Certificate);
        assert_eq!(top(&issuer).await, (common_name(default), Vec::new()));
        assert_eq!(front.count(Resource::Certificate) - before, 1);
    }
}

#[tokio::test]
async fn a_chain_that_is_not_trusted_gives_way_to_one_that_is() {
    let (pebble, front) = three().await;
    let trusted = pebble.root(2).await;
    assert_eq!(top(&issuer(&pebble, &front, None, Some(&trusted))).await, (common_name(&trusted), Vec::new()));

    // Also to a preferred one: what no client trusts serves nobody.
    let preferred = common_name(&pebble.root(1).await);
    let (taken, said) = top(&issuer(&pebble, &front, Some(preferred.clone()), Some(&trusted))).await;
    assert_eq!(taken, common_name(&trusted));
    assert!(said[0].contains(&format!("preferred_chain = {preferred:?} is not trusted")), "{said:?}");
}

#[tokio::test]
async fn a_preference_that_no_chain_meets_is_said_and_does_no_harm() {
    let (pebble, front) = three().await;
    let (taken, said) = top(&issuer(&pebble, &front, Some("ISRG Root X1".to_owned()), None)).await;
    assert_eq!((taken, said.len()), (common_name(pebble.issuance_root_pem()), 1));
    for number in 0..3 {
        let offered = common_name(&pebble.root(number).await);
        assert!(said[0].contains("no chain leads to preferred_chain = \"ISRG Root X1\"") && said[0].contains(&offered), "{said:?}");
    }
}

#[tokio::test]
async fn alternates_that_are_not_there_or_elsewhere_do_no_harm_and_nobody_else_is_asked() {
    let (pebble, front) = three().await;
    let own = front.directory_url().replace("/dir", "");
    let elsewhere = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("a listener");
    let links = vec![
        format!("{own}/certZ/none/alternate/9"),
        format!("https://{}/chain", elsewhere.local_addr().expect("an address")),
        format!("{}/certZ/1", own.replace("https", "http")),
        "relative".to_owned(),
    ];
    front.inject(Resource::Certificate, 1, Fault::Linked(links));
    let (taken, said) = top(&issuer(&pebble, &front, Some("Somebody".to_owned()), None)).await;
    assert_eq!(taken, common_name(pebble.issuance_root_pem()));
    assert!(said[0].contains("404") && said[0].matches("it is not on the CA's own server").count() == 3, "{said:?}");
    assert!(elsewhere.accept().is_err(), "nobody was asked elsewhere");

    // However many there are, no more than eight are fetched.
    front.inject(Resource::Certificate, 1, Fault::Linked(vec![format!("{own}/certZ/none/alternate/9"); 50]));
    let before = front.count(Resource::Certificate);
    top(&issuer(&pebble, &front, Some("Somebody".to_owned()), None)).await;
    assert_eq!(front.count(Resource::Certificate) - before, 9);
}
