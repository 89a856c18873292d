//! The way to the CA: HTTP/1.1 over TLS with deadlines, bounded answers, and nothing lost of what a refusal says.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue, LINK, RETRY_AFTER, USER_AGENT};
use http::uri::Scheme;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::Matcher;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use instant_acme::{BodyWrapper, BytesResponse, HttpClient};
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use thiserror::Error;
use tokio::time::timeout;

use super::refusal::{HttpFailure, Refusal};

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// How long one request may take, connection and answer included. CAs that sign while the finalizing request waits take tens of seconds.
const REQUEST_PATIENCE: Duration = Duration::from_secs(60);

/// An idle connection is kept for the next request of the same run, not for longer than servers do.
const IDLE: Duration = Duration::from_secs(50);

/// More than any honest answer: a chain is a few kilobytes, a directory or an order of a hundred names some tens.
const LARGEST_ANSWER_BYTES: usize = 1024 * 1024;

/// No more than this is made of a `Retry-After`: it is added to clocks, which have an end, and no CA means longer.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// By whom the TLS certificate of the directory must be signed.
#[derive(Clone, Debug, Default)]
pub(super) enum TlsTrust {
    /// By a root that the system trusts.
    #[default]
    System,
    /// By one of these roots (DER), and no other.
    Roots(Vec<CertificateDer<'static>>),
}

/// Clones share connections and counters.
#[derive(Clone)]
pub(super) struct CaClient(Arc<Inner>);

struct Inner {
    transport: Transport,
    requests: AtomicU64,
    /// What successful answers asked for, by URL, until the one who polls that URL takes it.
    retry_after: Mutex<HashMap<String, Duration>>,
    /// Where a good answer said that other forms of it are, by its URL.
    alternates: Mutex<HashMap<String, Vec<String>>>,
}

enum Transport {
    Direct(Client<HttpsConnector<HttpConnector>, Full<Bytes>>),
    Proxied(Client<HttpsConnector<Tunnel<HttpConnector>>, Full<Bytes>>),
}

/// Why there can be no client.
#[derive(Debug, Error)]
pub(super) enum ClientError {
    /// The roots cannot be used.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// A proxy that does not speak plain HTTP.
    #[error("the proxy {0} cannot be used")]
    Proxy(String),
}

impl CaClient {
    /// A client for the CA at `directory`, through the proxy that `proxies` names for it, if any.
    pub(super) fn new(directory: &Uri, trust: TlsTrust, proxies: &Matcher) -> Result<Self, ClientError> {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_PATIENCE));
        let tls = tls_config(trust)?;
        let transport = match proxies.intercept(directory) {
            None => Transport::Direct(client(https(tls, tcp))),
            Some(proxy) => {
                // A tunnel is asked for in plain HTTP; others would be spoken to in a language that they do not know.
                if proxy.uri().scheme() != Some(&Scheme::HTTP) {
                    let scheme = proxy.uri().scheme_str().unwrap_or_default();
                    return Err(ClientError::Proxy(format!("{scheme}://{}", host(proxy.uri()))));
                }
                let mut tunnel = Tunnel::new(proxy.uri().clone(), tcp);
                if let Some(auth) = proxy.basic_auth() {
                    tunnel = tunnel.with_auth(auth.clone());
                }
                Transport::Proxied(client(https(tls, tunnel)))
            }
        };
        Ok(Self(Arc::new(Inner { transport, requests: AtomicU64::new(0), retry_after: Mutex::default(), alternates: Mutex::default() })))
    }

    /// How many requests were sent so far.
    pub(super) fn requests(&self) -> u64 {
        self.0.requests.load(Ordering::Relaxed)
    }

    /// The pause that the last good answer from `url` asked for. Asking forgets it.
    pub(super) fn take_retry_after(&self, url: &str) -> Option<Duration> {
        self.pauses().remove(url)
    }

    /// Where the last good answer from `url` said that other forms of it are (RFC 8555 section 7.4.2). Asking forgets it.
    pub(super) fn take_alternates(&self, url: &str) -> Vec<String> {
        self.others().remove(url).unwrap_or_default()
    }

    fn others(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.0.alternates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pauses(&self) -> MutexGuard<'_, HashMap<String, Duration>> {
        self.0.retry_after.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, HttpFailure> {
        let uri = request.uri().clone();
        let failed = |source: Box<dyn std::error::Error + Send + Sync>| HttpFailure::Unreachable { host: host(&uri), source };
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let (mut parts, body) = request.into_parts();
        parts.headers.insert(USER_AGENT, HeaderValue::from_static(concat!("certfleet/", env!("CARGO_PKG_VERSION"))));
        let body = body.collect().await.map_or_else(|never| match never {}, http_body_util::Collected::to_bytes);
        let request = Request::from_parts(parts, Full::new(body));
        let exchange = async {
            let response = match &self.0.transport {
                Transport::Direct(client) => client.request(request).await,
                Transport::Proxied(client) => client.request(request).await,
            };
            read(response.map_err(|error| failed(error.into()))?).await.map_err(failed)
        };
        let response =
            timeout(REQUEST_PATIENCE, exchange).await.map_err(|_| HttpFailure::TooSlow { host: host(&uri), after: REQUEST_PATIENCE })??;
        let pause = retry_after(response.headers(), SystemTime::now());
        let (parts, body) = response.into_parts();
        if parts.status.is_client_error() || parts.status.is_server_error() {
            let refusal = Refusal::read(parts.status, &body, pause);
            // The ACME library signs again with the fresh nonce of such an answer: it has to see it.
            if !refusal.is("badNonce") {
                return Err(HttpFailure::Refused(Box::new(refusal)));
            }
        } else {
            if let Some(pause) = pause {
                self.pauses().insert(uri.to_string(), pause);
            }
            let alternates = alternates(&parts.headers);
            if !alternates.is_empty() {
                self.others().insert(uri.to_string(), alternates);
            }
        }
        Ok(Response::from_parts(parts, Full::new(body)))
    }
}

impl HttpClient for CaClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, instant_acme::Error>> + Send>> {
        let client = self.clone();
        Box::pin(async move {
            client.send(request).await.map(BytesResponse::from).map_err(|failure| instant_acme::Error::Other(Box::new(failure)))
        })
    }
}

impl fmt::Debug for CaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaClient").field("requests", &self.requests()).finish_non_exhaustive()
    }
}

async fn read(response: Response<Incoming>) -> Result<Response<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LARGEST_ANSWER_BYTES).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, body))
}

fn tls_config(trust: TlsTrust) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    Ok(match trust {
        TlsTrust::System => builder.dangerous().with_custom_certificate_verifier(system_verifier(provider)?).with_no_client_auth(),
        TlsTrust::Roots(roots) => {
            let mut store = RootCertStore::empty();
            for root in roots {
                store.add(root)?;
            }
            builder.with_root_certificates(store).with_no_client_auth()
        }
    })
}

/// Only called dangerous because it could be any verifier: this one is the system's.
fn system_verifier(provider: Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, rustls::Error> {
    Ok(Arc::new(Verifier::new(provider)?))
}

fn https<T>(tls: ClientConfig, tcp: T) -> HttpsConnector<T> {
    // One connection carries one request at a time: HTTP/2 would only add a round trip here.
    HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().wrap_connector(tcp)
}

fn client<C>(connector: C) -> Client<C, Full<Bytes>>
where
    C: hyper_util::client::legacy::connect::Connect + Clone,
{
    Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE).build(connector)
}

fn host(uri: &Uri) -> String {
    uri.authority().map_or_else(|| uri.to_string(), ToString::to_string)
}

/// `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), as the time from `now` on, [`LONGEST_RETRY_AFTER`] at most.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // What does not fit is too long in any case.
        text.parse().map_or(LONGEST_RETRY_AFTER, Duration::from_secs)
    } else {
        let date = chrono::DateTime::parse_from_rfc2822(text).ok()?;
        SystemTime::from(date).duration_since(now).unwrap_or_default()
    };
    Some(pause.min(LONGEST_RETRY_AFTER))
}

/// The targets of links whose relation is `alternate` (RFC 8288), in order.
fn alternates(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    // Neither URLs of CAs nor relations hold a comma before a `<`: that is where one link ends and the next begins.
    let links = values.flat_map(|value| value.split('<').skip(1)).filter_map(|link| link.split_once('>'));
    let is_alternate = |parameters: &str| {
        let relations = parameters.split([';', ',']).filter_map(|parameter| parameter.trim().strip_prefix("rel="));
        relations.map(|relation| relation.trim_matches('"')).any(|relation| relation.split(' ').any(|name| name == "alternate"))
    };
    links.filter(|(_, parameters)| is_alternate(parameters)).map(|(target, _)| target.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_proxy_is_asked_for_a_tunnel() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy = format!("http://{}", listener.local_addr().expect("an address"));
        let proxies = Matcher::builder().https(proxy).no("inside.example").build();
        let send = |url: &'static str| {
            let client = CaClient::new(&Uri::from_static(url), TlsTrust::Roots(Vec::new()), &proxies).expect("a client");
            client.request(Request::get(url).body(BodyWrapper::default()).expect("a request"))
        };
        let asked = async {
            let (socket, _) = listener.accept().await.expect("a connection");
            let mut line = String::new();
            BufReader::new(socket).read_line(&mut line).await.expect("a line");
            line
        };
        let (result, line) = tokio::join!(send("https://ca.example/dir"), asked);
        assert!(result.is_err(), "the proxy has hung up");
        assert_eq!(line, "CONNECT ca.example:443 HTTP/1.1\r\n");
        let inside =
            CaClient::new(&Uri::from_static("https://inside.example/dir"), TlsTrust::Roots(Vec::new()), &proxies).expect("a client");
        assert!(matches!(inside.0.transport, Transport::Direct(_)));
    }

    #[test]
    fn a_proxy_that_cannot_be_spoken_to_is_named_without_its_password() {
        for (proxy, named) in [
            ("https://user:hush@proxy.example:3129", "https://proxy.example:3129"),
            ("socks5://user:hush@proxy.example:1080", "socks5://proxy.example:1080"),
        ] {
            let proxies = Matcher::builder().https(proxy).build();
            let error = CaClient::new(&Uri::from_static("https://ca.example/dir"), TlsTrust::Roots(Vec::new()), &proxies).err();
            assert_eq!(error.expect("an error").to_string(), format!("the proxy {named} cannot be used"));
        }
    }

    #[test]
    fn links_to_alternates_are_told_from_others() {
        for (values, expected) in [
            (vec!["<https://ca.example/1>;rel=\"alternate\""], vec!["https://ca.example/1"]),
            (
                vec![
                    "<https://ca.example/dir>; rel=\"index\", <https://ca.example/1>; rel=alternate",
                    "<https://ca.example/2>;rel=\"alternate\"",
                ],
                vec!["https://ca.example/1", "https://ca.example/2"],
            ),
            (vec!["<https://ca.example/up>; title=\"an alternate\"; rel=\"up\"", "no link", "<", ""], vec![]),
            (vec!["<https://ca.example/1>; rel=\"prev alternate\""], vec!["https://ca.example/1"]),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(LINK, HeaderValue::from_str(value).expect("a header"));
            }
            assert_eq!(alternates(&headers), expected, "{values:?}");
        }
    }

    #[test]
    fn retry_after_is_understood_in_both_forms() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (text, expected) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(7)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("soon", None),
            ("-5", None),
            ("2592000", Some(2_592_000)),
            ("2592001", Some(2_592_000)),
            ("18446744073709551615", Some(2_592_000)),
            ("99999999999999999999999", Some(2_592_000)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(2_592_000)),
            ("", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).expect("a header"))]);
            assert_eq!(retry_after(&headers, now), expected.map(Duration::from_secs), "{text:?}");
        }
    }
}
