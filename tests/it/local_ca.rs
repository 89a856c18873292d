//! Certificates that certfleet signs by itself, judged by `openssl` and `curl`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use certfleet::domain::bundle::Bundle;
use certfleet::domain::certificate::Certificate;
use certfleet::domain::description::{Description, SignedBy, Verdict};
use certfleet::domain::identifier::Identifier;
use certfleet::domain::key_type::KeyType;
use certfleet::domain::pem;
use certfleet::domain::trust::{Trust, TrustError};
use certfleet::issuer::local_ca::{LocalCa, LocalCaError, LocalCaOptions};
use certfleet::issuer::self_signed::SelfSigned;
use certfleet::issuer::{IssueError, Issuer, Lease, LeaseEnded, Request};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};

use crate::support::openssl::{LEAF, Order, P256, Workshop};

const DAY: Duration = Duration::from_secs(86_400);
const KEY_TYPES: [KeyType; 5] = [KeyType::EcdsaP256, KeyType::EcdsaP384, KeyType::Rsa2048, KeyType::Rsa3072, KeyType::Rsa4096];

/// A lease that nobody contests.
struct Uncontested;

#[async_trait]
impl Lease for Uncontested {
    async fn record_order(&self, _: &certfleet::issuer::Order) -> Result<(), LeaseEnded> {
        Ok(())
    }

    async fn confirm(&self) -> Result<(), LeaseEnded> {
        Ok(())
    }

    async fn ended(&self) -> LeaseEnded {
        std::future::pending().await
    }

    fn progress(&self, _: &str) {}

    fn left_behind(&self, _: &str) {}

    fn makes_do(&self, _: &str) {}
}

fn request(names: &[&str], key_type: KeyType, now: DateTime<Utc>) -> Request {
    let identifiers: Vec<Identifier> = names.iter().map(|name| name.parse().expect("an identifier")).collect();
    Request { identifiers, key_type, profile: None, now, unfinished: None, other_unfinished: None }
}

/// Whole seconds, as certificates hold them.
fn now() -> DateTime<Utc> {
    Utc::now().duration_trunc(TimeDelta::seconds(1)).expect("a second")
}

fn open(shop: &Workshop) -> LocalCa {
    LocalCa::open_or_create(&shop.path("ca"), &LocalCaOptions::default(), now()).expect("a CA")
}

async fn issue(issuer: &dyn Issuer, request: &Request) -> Bundle {
    issuer.issue(request, &Uncontested).await.expect("a bundle")
}

#[tokio::test]
async fn openssl_accepts_every_leaf() {
    let shop = Workshop::new();
    let ca = open(&shop);
    let names = ["www.example.test", "*.example.test", "192.0.2.7", "2001:db8::7"];
    for key_type in KEY_TYPES {
        let bundle = issue(&ca, &request(&names, key_type, now())).await;
        shop.write("leaf.pem", bundle.chain_pem());
        let leaf = bundle.leaf();
        assert_eq!(leaf.key_type, Some(key_type));
        assert_eq!(leaf.identifiers, names.iter().map(|name| name.parse().expect("an identifier")).collect());
        assert_eq!(bundle.chain().len(), 1, "whoever trusts the root has the root");
        for (name, option) in [("www.example.test", "hostname"), ("deep.example.test", "hostname"), ("2001:db8::7", "ip")] {
            shop.openssl(&format!("verify -x509_strict -purpose sslserver -verify_{option} {name} -CAfile ca/root.pem leaf.pem"));
        }
        let text = shop.openssl("x509 -in leaf.pem -noout -text");
        let rsa = matches!(key_type, KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096);
        let usage = if rsa { "Digital Signature, Key Encipherment\n" } else { "Digital Signature\n" };
        for words in ["CA:FALSE", "TLS Web Server Authentication\n", "Authority Key Identifier", "Subject Key Identifier", usage] {
            assert!(text.contains(words), "{words:?} is not in {text}");
        }
        Trust::from_pem(&fs::read_to_string(ca.root_path()).expect("the root"))
            .expect("trust")
            .leads_to(bundle.chain(), now())
            .expect("trusted");
    }
    let text = shop.openssl("x509 -in ca/root.pem -noout -text");
    for words in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign", "certfleet local CA "] {
        assert!(text.contains(words), "{words:?} is not in {text}");
    }
}

#[tokio::test]
async fn curl_trusts_a_server_by_the_root() {
    let shop = Workshop::new();
    let ca = open(&shop);
    let bundle = issue(&ca, &request(&["www.example.test"], KeyType::EcdsaP256, now())).await;
    shop.write("leaf.pem", bundle.chain_pem());
    shop.write("leaf.key", bundle.key().to_pem().as_bytes());
    let server = shop.serve("127.0.0.1", "-cert leaf.pem -key leaf.key -www");
    let (_, port) = server.address.rsplit_once(':').expect("host and port");
    let curl = |arguments: &[&str], host: &str| {
        let resolve = format!("{host}:{port}:127.0.0.1");
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--resolve", &resolve]).args(arguments);
        command.arg(format!("https://{host}:{port}/")).output().expect("curl runs")
    };
    let root = ca.root_path().to_str().expect("a path");
    let trusted = curl(&["--cacert", root], "www.example.test");
    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    // Neither without the root, nor for another name.
    assert_eq!(curl(&[], "www.example.test").status.code(), Some(60));
    assert_eq!(curl(&["--cacert", root], "other.example.test").status.code(), Some(60));
}

#[tokio::test]
async fn dates_come_from_the_request() {
    let shop = Workshop::new();
    let made = now();
    let options = LocalCaOptions { leaf_lifetime: 30 * DAY, owner: Some("build-1".to_owned()) };
    let ca = LocalCa::open_or_create(&shop.path("ca"), &options, made).expect("a CA");
    assert!(ca.root().subject.contains("of build-1"), "{}", ca.root().subject);
    let later = made + TimeDelta::days(3);
    let leaf = issue(&ca, &request(&["www.example.test"], KeyType::EcdsaP256, later)).await.leaf().clone();
    assert_eq!(leaf.not_before, later - TimeDelta::hours(1));
    assert_eq!(leaf.not_after, later + TimeDelta::days(30) - TimeDelta::seconds(1));
    assert_eq!(ca.root().not_after, made + TimeDelta::days(3650) - TimeDelta::seconds(1));

    let near_the_end = ca.root().not_after - TimeDelta::days(20);
    let leaf = issue(&ca, &request(&["www.example.test"], KeyType::EcdsaP256, near_the_end)).await.leaf().clone();
    assert_eq!(leaf.not_after, ca.root().not_after, "no leaf outlives its root");

    for (wrong, words) in [(ca.root().not_after - TimeDelta::hours(23), "only until"), (made - TimeDelta::hours(2), "only from")] {
        let refused = ca.issue(&request(&["www.example.test"], KeyType::EcdsaP256, wrong), &Uncontested).await;
        let Err(IssueError::Refused { reason, hint, .. }) = refused else { panic!("{refused:?}") };
        assert!(reason.contains(words) && !hint.is_empty(), "{reason}");
    }
}

#[tokio::test]
async fn long_names_and_serials() {
    let shop = Workshop::new();
    let ca = open(&shop);
    let long = format!("{}.{}.example.test", "a".repeat(60), "b".repeat(60));
    let first = issue(&ca, &request(&[&long], KeyType::EcdsaP256, now())).await;
    assert_eq!(first.leaf().subject, "", "a name of more than 64 characters is no common name");
    shop.write("leaf.pem", first.chain_pem());
    shop.openssl(&format!("verify -x509_strict -purpose sslserver -verify_hostname {long} -CAfile ca/root.pem leaf.pem"));
    let second = issue(&ca, &request(&[&long], KeyType::EcdsaP256, now())).await;
    assert_ne!(first.leaf().serial, second.leaf().serial);
    assert_eq!(first.leaf().serial.len(), 32, "128 bits: {}", first.leaf().serial);
}

#[test]
fn the_key_is_private() {
    let shop = Workshop::new();
    let ca = open(&shop);
    for (file, mode) in [("ca", 0o700), ("ca/root.key", 0o600), ("ca/root.pem", 0o644)] {
        let found = fs::metadata(shop.path(file)).expect("metadata").permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{file} has mode {found:o}");
    }
    let key = String::from_utf8(shop.read("ca/root.key")).expect("text");
    let shown = format!("{ca:?}");
    assert!(key.lines().all(|line| !shown.contains(line)), "{shown}");
    assert_eq!(fs::read_dir(shop.path("ca")).expect("a directory").count(), 2, "nothing is left beside the two files");
}

#[test]
fn opening_at_once_makes_one_root() {
    const OPENERS: usize = 16;
    for _ in 0..10 {
        let shop = Workshop::new();
        let start = Barrier::new(OPENERS);
        let roots: Vec<_> = thread::scope(|scope| {
            let open_with_others = || {
                start.wait();
                open(&shop).root().clone()
            };
            let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(open_with_others)).collect();
            openers.into_iter().map(|opener| opener.join().expect("opened")).collect()
        });
        assert!(roots.iter().all(|root| root == &roots[0]), "several roots");
        assert_eq!(open(&shop).root(), &roots[0]);
    }
}

/// What is found in the directory, and what comes of it.
#[test]
fn half_a_ca_is_healed_or_named() {
    let shop = Workshop::new();
    let first = open(&shop).root().clone();
    // Killed between the two files: nothing was ever signed, so a new certificate for the key is as good.
    fs::remove_file(shop.path("ca/root.pem")).expect("removed");
    let healed = open(&shop).root().clone();
    assert_eq!(healed.public(), first.public());
    assert_eq!(open(&shop).root(), &healed);

    let opened = |shop: &Workshop| LocalCa::open_or_create(&shop.path("ca"), &LocalCaOptions::default(), now()).expect_err("damaged");
    let key = shop.read("ca/root.key");
    fs::remove_file(shop.path("ca/root.key")).expect("removed");
    let error = opened(&shop);
    assert!(matches!(error, LocalCaError::KeyMissing { .. }) && error.hint().contains("root.key"), "{error:?}");
    assert!(!shop.path("ca/root.key").exists(), "a lost key is not replaced: clients trust the old one");

    shop.openssl("ecparam -name prime256v1 -genkey -noout -out ca/root.key");
    let error = opened(&shop);
    assert!(matches!(error, LocalCaError::OtherKey { .. }) && error.to_string().contains("root.pem"), "{error:?}");
    shop.write("ca/root.key", "nonsense");
    assert!(matches!(opened(&shop), LocalCaError::Key { .. }));
    shop.write("ca/root.key", key);
    shop.write("ca/root.pem", "nonsense");
    assert!(matches!(opened(&shop), LocalCaError::Root { .. }));
    shop.write("file", "");
    let error = LocalCa::open_or_create(&shop.path("file/ca"), &LocalCaOptions::default(), now()).expect_err("no directory");
    assert!(matches!(&error, LocalCaError::File(error) if error.path.ends_with("file/ca")), "{error:?}");
}

#[tokio::test]
async fn a_self_signed_leaf_vouches_for_itself_alone() {
    let shop = Workshop::new();
    let made = now();
    let issuer = SelfSigned::new(10 * DAY);
    for key_type in KEY_TYPES {
        let bundle = issue(&issuer, &request(&["www.example.test", "192.0.2.7"], key_type, made)).await;
        let leaf = bundle.leaf();
        assert!(leaf.is_self_signed() && !leaf.is_ca);
        assert_eq!((leaf.not_before, leaf.not_after), (made - TimeDelta::hours(1), made + TimeDelta::days(10) - TimeDelta::seconds(1)));
        Trust::pin(leaf.clone()).leads_to(bundle.chain(), made).expect("pinned");
        let other = issue(&issuer, &request(&["www.example.test"], KeyType::EcdsaP256, made)).await;
        let error = Trust::pin(leaf.clone()).leads_to(other.chain(), made).expect_err("another");
        assert!(matches!(&error, TrustError::OtherCertificate { pinned, .. } if *pinned == leaf.fingerprint), "{error:?}");
        let error = Trust::web().leads_to(bundle.chain(), made).expect_err("self-signed");
        assert!(matches!(&error, TrustError::UnknownIssuer { issuer, .. } if *issuer == leaf.issuer), "{error:?}");
        shop.write("leaf.pem", bundle.chain_pem());
        shop.openssl("verify -purpose sslserver -verify_hostname www.example.test -CAfile leaf.pem leaf.pem");
    }
    let long = format!("{}.{}.example.test", "a".repeat(60), "b".repeat(60));
    let bundle = issue(&issuer, &request(&[&long], KeyType::EcdsaP256, made)).await;
    assert!(bundle.leaf().subject.contains("certfleet self-signed "), "{}", bundle.leaf().subject);
}

#[tokio::test]
async fn trust_says_what_is_wrong() {
    let (shop, other) = (Workshop::new(), Workshop::new());
    let (ca, stranger) = (open(&shop), open(&other));
    let bundle = issue(&ca, &request(&["www.example.test"], KeyType::EcdsaP256, now())).await;
    let trust = |ca: &LocalCa| Trust::from_pem(&fs::read_to_string(ca.root_path()).expect("the root")).expect("trust");
    let leaf = bundle.leaf();
    let error = trust(&stranger).leads_to(bundle.chain(), now()).expect_err("a stranger");
    let message = error.to_string();
    assert!(message.contains(&ca.root().subject) && message.contains(&stranger.root().subject), "{message}");
    for wrong in [leaf.not_after + TimeDelta::seconds(1), leaf.not_before - TimeDelta::seconds(1)] {
        let error = trust(&ca).leads_to(bundle.chain(), wrong).expect_err("not current");
        assert!(matches!(&error, TrustError::NotCurrent { subject, now, .. } if *subject == leaf.subject && *now == wrong), "{error:?}");
    }
    for edge in [leaf.not_after, leaf.not_before] {
        trust(&ca).leads_to(bundle.chain(), edge).expect("the edges belong to it");
    }
    let error = trust(&ca).leads_to(std::slice::from_ref(ca.root()), now()).expect_err("a CA");
    assert!(matches!(error, TrustError::CaAsLeaf(_)), "{error:?}");
    let shop = Workshop::with_chain();
    let client = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=clientAuth\nsubjectAltName=DNS:www.example.test";
    shop.certify(&Order { name: "client", common_name: "client", issuer: "root", key: P256, days: 9, extensions: client });
    let root = Trust::from_pem(&String::from_utf8(shop.read("root.pem")).expect("text")).expect("trust");
    let error = root.leads_to(&[shop.certificate("client")], Utc::now()).expect_err("a client's");
    assert!(matches!(error, TrustError::NotForServers(_)), "{error:?}");
    root.leads_to(&[shop.certificate("leaf"), shop.certificate("inter")], Utc::now()).expect("trusted");
    let error = root.leads_to(&[shop.certificate("leaf")], Utc::now()).expect_err("no intermediate");
    assert!(error.to_string().contains("CN=Inter-One"), "{error}");
    assert_eq!(Trust::from_pem("nothing"), Err(TrustError::NoRoots));
}

#[test]
fn a_public_chain_leads_to_the_roots_of_the_web() {
    let blocks = pem::blocks(include_str!("data/crates.io.pem")).expect("blocks");
    let chain: Vec<_> = blocks.iter().map(|block| Certificate::from_der(&block.der).expect("a certificate")).collect();
    let then = DateTime::from_timestamp(1_685_577_600, 0).expect("June 2023");
    Trust::web().leads_to(&chain, then).expect("the whole chain");
    Trust::web().leads_to(&chain[..2], then).expect("leaf and intermediate");
    let error = Trust::web().leads_to(&chain[..1], then).expect_err("the leaf alone");
    assert!(matches!(&error, TrustError::UnknownIssuer { issuer, .. } if issuer.contains("Amazon RSA 2048 M02")), "{error:?}");
    let error = Trust::web().leads_to(&chain, Utc::now()).expect_err("long over");
    assert!(matches!(&error, TrustError::NotCurrent { subject, .. } if subject == "CN=crates.io"), "{error:?}");
    let description = Description::new(&chain, &["crates.io".parse().expect("a name")], then).expect("a description");
    assert!(description.publicly_trusted && description.not_trusted_because.is_none(), "{description:?}");
    assert_eq!(description.verdict, Verdict::Ok);
    assert!(description.lines().contains(&("public trust", "yes".to_owned())));
    assert_eq!(chain[0].ca_issuers().as_deref(), Some("http://crt.r2m02.amazontrust.com/r2m02.cer"));
}

#[test]
fn descriptions_come_to_a_verdict() {
    let shop = Workshop::with_chain();
    // The next serial's first bit is set: DER puts a zero before it, and openssl does not show that.
    shop.write("inter.srl", "F00DFACE00112233\n");
    shop.certify(&Order { name: "leaf", common_name: "www.example.test", issuer: "inter", key: P256, days: 90, extensions: LEAF });
    let (leaf, inter, root) = (shop.certificate("leaf"), shop.certificate("inter"), shop.certificate("root"));
    let names = |names: &[&str]| names.iter().map(|name| name.parse().expect("an identifier")).collect::<Vec<Identifier>>();
    let now = Utc::now();
    let good = [leaf.clone(), inter.clone()];
    let wanted = names(&["www.example.test"]);
    let week = TimeDelta::days(7);
    for (row, chain, wanted, at, verdict) in [
        ("good", &good[..], &wanted, now, Verdict::Ok),
        ("soon", &good, &wanted, leaf.not_after - week, Verdict::ExpiresSoon),
        ("not so soon", &good, &wanted, leaf.not_after - week - TimeDelta::seconds(1), Verdict::Ok),
        ("last second", &good, &wanted, leaf.not_after, Verdict::ExpiresSoon),
        ("over", &good, &wanted, leaf.not_after + TimeDelta::seconds(1), Verdict::Expired),
        ("not begun", &good, &wanted, leaf.not_before - TimeDelta::seconds(1), Verdict::NotYetValid),
        ("another name", &good, &names(&["example.test"]), now, Verdict::Mismatch),
        ("broken", &[leaf.clone(), root.clone()], &wanted, now, Verdict::BrokenChain),
        ("nothing wanted", &good, &vec![], now, Verdict::Ok),
    ] {
        let description = Description::new(chain, wanted, at).expect("a description");
        assert_eq!(description.verdict, verdict, "{row}");
    }
    assert_eq!(Description::new(&[], &wanted, now), None);

    let painter = "red\u{1b}[31m";
    shop.certify(&Order { name: "painter", common_name: painter, issuer: "painter", key: P256, days: 9, extensions: LEAF });
    let description = Description::new(&[shop.certificate("painter")], &[], now).expect("a description");
    assert!(description.subject.contains(painter), "{}", description.subject);
    let shown: String = description.lines().into_iter().map(|(_, value)| value).collect();
    assert!(shown.contains("red\\u{1b}[31m") && !shown.contains('\u{1b}'), "{shown}");

    let description = Description::new(&[leaf.clone(), inter, root], &wanted, now).expect("a description");
    let joints: Vec<_> = description.chain.iter().map(|link| link.signed_by).collect();
    assert_eq!(joints, [SignedBy::Next, SignedBy::Next, SignedBy::Itself]);
    let json = serde_json::to_value(&description).expect("JSON");
    assert_eq!(json["verdict"], "ok");
    assert_eq!(json["not_after"], leaf.not_after.format("%FT%TZ").to_string());
    assert_eq!(json["signature"], "ECDSA with SHA-256");
    assert_eq!(json["publicly_trusted"], false);
    assert_eq!(json["chain"][2]["signed_by"], "itself");
    let fingerprint = shop.openssl("x509 -in leaf.pem -noout -fingerprint -sha256").replace(':', "").to_lowercase();
    assert!(fingerprint.trim().ends_with(json["fingerprint_sha256"].as_str().expect("text")), "{fingerprint}");
    let serial = shop.openssl("x509 -in leaf.pem -noout -serial").to_lowercase();
    assert_eq!(serial.trim(), format!("serial={}", json["serial"].as_str().expect("text")));
    let lines = description.lines();
    let value = |label| lines.iter().find(|(own, _)| *own == label).map(|(_, value)| value.clone()).unwrap_or_default();
    assert_eq!(value("verdict"), "ok");
    assert!(value("valid to").contains("(in 89 days)") || value("valid to").contains("(in 90 days)"), "{}", value("valid to"));
    assert!(value("public trust").contains("CN=Root-One"), "{}", value("public trust"));
}
