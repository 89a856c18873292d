//! A client for the servers that tests start.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

/// No local server takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Sends requests over plain HTTP, and over TLS to servers whose certificate leads to one root.
#[derive(Clone, Debug)]
pub struct HttpClient(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl HttpClient {
    /// Trusts the root in `root_pem` and no other.
    pub fn trusting(root_pem: &str) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(root_pem.as_bytes()).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let tls = tls.with_root_certificates(roots).with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().wrap_connector(tcp);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Sends one request and reads the whole answer; panics where there is none.
    pub async fn send(&self, request: Request<Bytes>) -> Response<Bytes> {
        let shown = format!("{} {}", request.method(), request.uri());
        let exchange = async {
            let response = self.0.request(request.map(Full::new)).await.unwrap_or_else(|error| panic!("{shown}: {error:?}"));
            let (parts, body) = response.into_parts();
            Response::from_parts(parts, body.collect().await.unwrap_or_else(|error| panic!("{shown}: {error}")).to_bytes())
        };
        tokio::time::timeout(PATIENCE, exchange).await.unwrap_or_else(|_| panic!("{shown}: no answer"))
    }

    /// The body of the answer to a GET; panics where its status is not 200.
    pub async fn get(&self, url: &str) -> Bytes {
        let response = self.send(Request::get(url).body(Bytes::new()).expect("a request")).await;
        assert_eq!(response.status(), 200, "GET {url}");
        response.into_body()
    }

    /// Posts JSON; panics where the answer's status is not 200.
    pub async fn post(&self, url: &str, body: &serde_json::Value) {
        let response = self.send(Request::post(url).body(body.to_string().into()).expect("a request")).await;
        assert_eq!(response.status(), 200, "POST {url}: {body}");
    }
}
