//! The look before the CA's: what is said of each wrong answer, and what is let pass.

use std::convert::Infallible;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use certfleet::solver::confirm::Confirmed;
use certfleet::solver::look::{self, Place};
use certfleet::solver::stateless::Stateless;
use certfleet::solver::{Challenge, Solver as _, SolverError};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;

use crate::support::process::free_port;
use crate::support::server::HttpServer;
use crate::support::tls;

const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA";

fn challenge() -> Challenge {
    let identifier: certfleet::domain::identifier::Identifier = "www.example.test".parse().expect("a name");
    Challenge {
        identifier: identifier.clone(),
        token: TOKEN.to_owned(),
        key_authorization: format!("{TOKEN}.ours"),
        dns_value: String::new(),
        remaining: 0,
        all: vec![identifier],
    }
}

/// A server that answers everything alike.
fn answering(status: u16, location: &str, body: &str, tls: Option<Arc<rustls::ServerConfig>>) -> HttpServer {
    let (location, body) = (location.to_owned(), body.to_owned());
    let service = service_fn(move |_: Request<Incoming>| {
        let mut response = Response::new(Full::new(Bytes::from(body.clone())));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        if !location.is_empty() {
            response.headers_mut().insert("location", location.parse().expect("a header"));
        }
        async move { Ok::<_, Infallible>(response) }
    });
    HttpServer::start(service, tls)
}

async fn confirm(address: SocketAddr) -> Result<(), SolverError> {
    Confirmed::new(Arc::new(Stateless), Place::At(address)).confirm(&challenge()).await
}

/// The error with its causes and its hint.
fn told(error: &SolverError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    format!("{text} ({})", error.hint)
}

#[tokio::test]
async fn what_a_ca_would_refuse_is_refused_with_what_came_back() {
    let good = format!("{TOKEN}.ours");
    for (status, location, body, said) in [
        (404, "", "no such page", &["status 404", "no such page", "every server that www.example.test leads to"] as &[_]),
        (200, "", "an older answer of a cache", &["an older answer of a cache", "no cache may keep it", "check = \"off\""]),
        (200, "", "", &["status 200 OK and nothing else"]),
        (200, "", "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA.theirs", &["theirs", "another account", "ours", "certfleet snippet"]),
        (200, "", "\u{1b}[2Jgone", &[" [2Jgone"]),
        (500, "", &good, &["status 500"]),
        (302, "ftp://127.0.0.1/x", "", &["ftp://127.0.0.1/x", "http and https only", "correct the redirect"]),
        (302, "/again", "", &["/again", "more than ten redirects", "correct the redirect"]),
        (301, "", "no location", &["status 301"]),
    ] {
        let server = answering(status, location, body, None);
        let error = confirm(server.address).await.expect_err(body);
        let text = told(&error);
        for piece in said {
            assert!(text.contains(piece), "no {piece:?} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

#[tokio::test]
async fn what_a_ca_would_take_is_taken() {
    let good = format!("{TOKEN}.ours");
    confirm(answering(200, "", &good, None).address).await.expect("the answer");
    confirm(answering(200, "", &format!("{good}\r\n"), None).address).await.expect("white space behind it does not count");
    // The name has no good certificate yet: CAs follow all the same.
    let (config, _) = tls::server_config(&["another.example.test".to_owned()]);
    let behind = answering(200, "", &good, Some(config));
    let redirect = |to: String| answering(302, &to, "", None);
    confirm(redirect(format!("https://127.0.0.1:{}/x", behind.address.port())).address).await.expect("followed");
    let elsewhere = answering(200, "", &good, None);
    confirm(redirect(format!("http://localhost:{}/x", elsewhere.address.port())).address).await.expect("followed");
    let wrong = answering(200, "", "wrong", None);
    let error = confirm(redirect(format!("http://{}/there", wrong.address)).address).await.expect_err("a wrong place");
    assert!(
        told(&error).contains(&format!("a redirect to http://{}/there, and there status 200 OK and \"wrong\"", wrong.address)),
        "{error}"
    );
}

#[tokio::test]
async fn who_does_not_answer_at_all_holds_nobody_up() {
    confirm(([127, 0, 0, 1], free_port()).into()).await.expect("nobody listens: that may be so only from here");
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    confirm(silent.local_addr().expect("an address")).await.expect("no answer in time");
    let name = "no-such-name.example.invalid".parse().expect("a name");
    let error = look::http_01(Place::Resolver, &name, TOKEN, Duration::from_secs(5)).await.expect_err("no address");
    assert!(error.is_silence(), "{error}");
    // But something else than a web server is an answer.
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = other.local_addr().expect("an address");
    std::thread::spawn(move || other.accept().expect("a visitor").0.write_all(b"220 mail.example.test ESMTP\r\n"));
    let error = confirm(address).await.expect_err("not HTTP");
    assert!(told(&error).contains("does not answer as a web server does"), "{}", told(&error));
}
