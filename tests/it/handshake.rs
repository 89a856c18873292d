//! What servers present, looked at on real `openssl s_server`s.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use certfleet::domain::identifier::Identifier;
use certfleet::domain::private_key::PrivateKey;
use certfleet::target::handshake::{HandshakeError, presented_chain};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

use crate::support::openssl::{CA, LEAF, Order, P256, Workshop};

/// Far more than a handshake on loopback takes.
const DEADLINE: Duration = Duration::from_secs(20);

fn name(text: &str) -> Identifier {
    text.parse().expect("an identifier")
}

fn chain(shop: &Workshop, names: &[&str]) -> Vec<Vec<u8>> {
    names.iter().map(|name| shop.certificate(name).der().to_vec()).collect()
}

/// Every shape of server that presents something: options of `s_server`, what is asked for, what is seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_presented_is_seen() {
    let shop = Workshop::with_chain();
    let order = |name, extensions| shop.certify(&Order { name, common_name: name, issuer: "inter", key: P256, days: 30, extensions });
    order("second", LEAF);
    shop.certify(&Order {
        name: "rsa",
        common_name: "rsa",
        issuer: "rsa",
        key: "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
        days: 1,
        extensions: CA,
    });
    let plain = "-cert leaf.pem -key leaf.key -cert_chain inter.pem";
    let sni = format!("{plain} -servername second.example.test -cert2 second.pem -key2 second.key");
    let both = &["leaf", "inter"][..];
    for (host, options, asked, seen) in [
        ("127.0.0.1", format!("{plain} -tls1_3"), "www.example.test", both),
        ("127.0.0.1", format!("{plain} -tls1_2"), "www.example.test", both),
        ("[::1]", plain.to_owned(), "www.example.test", both),
        ("127.0.0.1", plain.to_owned(), "192.0.2.7", both),
        ("127.0.0.1", plain.to_owned(), "*.example.test", both),
        ("127.0.0.1", plain.to_owned(), "nobody.example.org", both),
        // Self-signed, and a CA: nothing that a client would accept, but it is what is presented.
        ("127.0.0.1", "-cert rsa.pem -key rsa.key".to_owned(), "www.example.test", &["rsa"]),
        ("127.0.0.1", sni.clone(), "www.example.test", &["leaf", "inter"]),
        ("127.0.0.1", sni, "second.example.test", &["second"]),
        // A server that insists on a client's certificate shows its own first.
        ("127.0.0.1", format!("{plain} -tls1_2 -Verify 1"), "www.example.test", both),
        ("127.0.0.1", format!("{plain} -tls1_3 -Verify 1"), "www.example.test", both),
    ] {
        let server = shop.serve(host, &options);
        let presented = presented_chain(&server.address, &name(asked), DEADLINE).await;
        let presented = presented.unwrap_or_else(|error| panic!("{options}, asked for {asked}: {error:?}"));
        assert_eq!(presented, chain(&shop, seen), "{options}, asked for {asked}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_name_is_resolved() {
    let shop = Workshop::with_chain();
    let server = shop.serve("127.0.0.1", "-cert leaf.pem -key leaf.key");
    let (_, port) = server.address.rsplit_once(':').expect("host and port");
    let presented = presented_chain(&format!("localhost:{port}"), &name("www.example.test"), DEADLINE).await.expect("presented");
    assert_eq!(presented, chain(&shop, &["leaf"]));
}

/// A server that answers every connection with `answer` once it has read something, for one connection.
fn answering(answer: &'static [u8]) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    let handle = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut hello = [0; 4096];
        let _ = stream.read(&mut hello);
        let _ = stream.write_all(answer);
    });
    (address, handle)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_has_its_name() {
    let www = name("www.example.test");
    for address in ["www.example.test", "www.example.test:https", "2001:db8::1:443", ":443", "[2001:db8::1:443", "www.example.test:70000"] {
        let error = presented_chain(address, &www, DEADLINE).await.expect_err(address);
        assert!(matches!(&error, HandshakeError::Address(shown) if shown == address), "{error:?}");
    }
    // No label is this long: the resolver refuses it without asking anybody.
    let nobody = format!("{}.invalid", "a".repeat(64));
    let error = presented_chain(&format!("{nobody}:443"), &www, DEADLINE).await.expect_err("unresolvable");
    assert!(matches!(&error, HandshakeError::Resolve { host, .. } if *host == nobody), "{error:?}");

    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address").to_string();
    // Bound and listening, but nobody ever answers.
    let error = presented_chain(&address, &www, Duration::from_millis(300)).await.expect_err("silent");
    assert!(matches!(error, HandshakeError::Timeout { .. }) && error.to_string().contains("0.3 s"), "{error:?}");
    drop(listener);
    let error = presented_chain(&address, &www, DEADLINE).await.expect_err("nobody listens");
    assert!(matches!(&error, HandshakeError::Refused { address: named, .. } if *named == address), "{error:?}");

    let (address, handle) = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let error = presented_chain(&address, &www, DEADLINE).await.expect_err("plain HTTP");
    assert!(matches!(error, HandshakeError::NotTls { .. }) && error.hint().contains("443"), "{error:?}");
    handle.join().expect("answered");

    let (address, handle) = answering(b"");
    let error = presented_chain(&address, &www, DEADLINE).await.expect_err("closed");
    assert!(matches!(error, HandshakeError::Closed { .. }), "{error:?}");
    handle.join().expect("answered");

    let shop = Workshop::with_chain();
    let strict = "-cert leaf.pem -key leaf.key -cert2 leaf.pem -key2 leaf.key -servername other.example.test -servername_fatal";
    let server = shop.serve("127.0.0.1", strict);
    let error = presented_chain(&server.address, &www, DEADLINE).await.expect_err("unknown name");
    assert!(matches!(&error, HandshakeError::Alert { name, .. } if *name == www), "{error:?}");
    let old = shop.serve("127.0.0.1", "-cert leaf.pem -key leaf.key -tls1_1 -cipher DEFAULT@SECLEVEL=0");
    let error = presented_chain(&old.address, &www, DEADLINE).await.expect_err("TLS 1.1");
    assert!(matches!(error, HandshakeError::Alert { .. } | HandshakeError::Tls { .. }), "{error:?}");
}

/// Presents a certificate whose key it does not have.
#[derive(Debug)]
struct Impostor(Arc<CertifiedKey>);

impl ResolvesServerCert for Impostor {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_without_its_key_is_not_believed() {
    let shop = Workshop::with_chain();
    let key = PrivateKey::from_pem(&String::from_utf8(shop.read("inter.key")).expect("text")).expect("a key");
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let signer = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(key.pkcs8().to_vec()).into()).expect("a key");
    let stolen = CertifiedKey::new(vec![shop.certificate("leaf").der().to_vec().into()], signer);
    let www = name("www.example.test");
    let resolver = Arc::new(Impostor(Arc::new(stolen)));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let builder =
            ServerConfig::builder_with_provider(Arc::new(provider.clone())).with_protocol_versions(&[version]).expect("a version");
        let acceptor = TlsAcceptor::from(Arc::new(builder.with_no_client_auth().with_cert_resolver(resolver.clone())));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let accepting = async {
            let (stream, _) = listener.accept().await.expect("a connection");
            acceptor.accept(stream).await.is_ok()
        };
        let (presented, accepted) = tokio::join!(presented_chain(&address, &www, DEADLINE), accepting);
        assert!(matches!(presented, Err(HandshakeError::Tls { .. })), "{presented:?}");
        assert!(!accepted, "the handshake was completed");
    }
}
