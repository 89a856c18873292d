//! A CA that misbehaves on demand: a TLS server before pebble that counts requests by what they are for, and answers wrongly when told.
//!
//! pebble builds its URLs from the Host header, so everything a client does goes through the front. Answers are not signed, so they can
//! be replaced.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, LINK, RETRY_AFTER};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};

use super::http::HttpClient;
use super::pebble::Pebble;
use super::server::{Dropped, HttpServer};
use super::tls;

/// What a request is for, told by pebble's paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Resource {
    Directory,
    NewNonce,
    NewAccount,
    Account,
    NewOrder,
    Order,
    Authorization,
    Challenge,
    Finalize,
    Certificate,
    KeyChange,
    Revocation,
}

impl Resource {
    fn of(path: &str) -> Option<Self> {
        Some(match path.split('/').nth(1)? {
            "dir" => Self::Directory,
            "nonce-plz" => Self::NewNonce,
            "sign-me-up" => Self::NewAccount,
            "my-account" => Self::Account,
            "order-plz" => Self::NewOrder,
            "my-order" => Self::Order,
            "authZ" => Self::Authorization,
            "chalZ" => Self::Challenge,
            "finalize-order" => Self::Finalize,
            "certZ" => Self::Certificate,
            "rollover-account-key" => Self::KeyChange,
            "revoke-cert" => Self::Revocation,
            _ => return None,
        })
    }
}

/// What happens instead of the right answer.
#[derive(Clone)]
pub enum Fault {
    /// The request never reaches pebble; an ACME problem is answered.
    Problem {
        status: u16,
        /// Without the `urn:ietf:params:acme:error:` before it.
        kind: &'static str,
        detail: &'static str,
        retry_after: Option<&'static str>,
    },
    /// The request never reaches pebble; a page is answered that is no problem document.
    Page(u16, &'static str),
    /// The request never reaches pebble; the connection is closed.
    Unheard,
    /// pebble does what it was asked, but its answer is lost: the connection is closed.
    Swallowed,
    /// The same, after this was called.
    Struck(Arc<dyn Fn() + Send + Sync>),
    /// The JSON of pebble's answer is changed.
    Rewritten(Arc<dyn Fn(&mut Value) + Send + Sync>),
    /// pebble's answer gets a `Retry-After`.
    Delayed(&'static str),
    /// pebble's answer gets these links in the place of its own.
    Linked(Vec<String>),
}

impl Fault {
    /// See [`Fault::Rewritten`].
    pub fn rewritten(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Self {
        Self::Rewritten(Arc::new(change))
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Problem { status, kind, .. } => write!(f, "{status} {kind}"),
            Self::Page(status, _) => write!(f, "a page of status {status}"),
            Self::Unheard => f.write_str("unheard"),
            Self::Swallowed => f.write_str("swallowed"),
            Self::Struck(_) => f.write_str("struck"),
            Self::Rewritten(_) => f.write_str("rewritten"),
            Self::Delayed(_) => f.write_str("delayed"),
            Self::Linked(links) => write!(f, "linked to {links:?}"),
        }
    }
}

/// A running front. Dropping it ends it; pebble goes on.
#[derive(Debug)]
pub struct CaFront {
    server: HttpServer,
    root_pem: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    authority: String,
    client: HttpClient,
    seen: Mutex<Vec<Resource>>,
    faults: Mutex<Vec<(Resource, usize, Fault)>>,
}

impl CaFront {
    /// Starts a front for `pebble`, without faults.
    pub fn start(pebble: &Pebble) -> Self {
        let state = Arc::new(State {
            authority: pebble.authority(),
            client: pebble.client().clone(),
            seen: Mutex::default(),
            faults: Mutex::default(),
        });
        let (tls, root_pem) = tls::server_config(&["127.0.0.1".to_owned()]);
        let service = service_fn({
            let state = Arc::clone(&state);
            move |request| {
                let state = Arc::clone(&state);
                async move { state.answer(request).await }
            }
        });
        Self { server: HttpServer::start(service, Some(tls)), root_pem, state }
    }

    /// The URL of the directory.
    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.server.address)
    }

    /// The root of its TLS certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The next `times` requests for `resource` get `fault`; a later call for the same resource comes after an earlier one.
    pub fn inject(&self, resource: Resource, times: usize, fault: Fault) {
        lock(&self.state.faults).push((resource, times, fault));
    }

    /// Behaves from now on.
    pub fn clear_faults(&self) {
        lock(&self.state.faults).clear();
    }

    /// Every request so far, in order.
    pub fn seen(&self) -> Vec<Resource> {
        lock(&self.state.seen).clone()
    }

    /// How many requests there were for `resource`.
    pub fn count(&self, resource: Resource) -> usize {
        self.seen().iter().filter(|seen| **seen == resource).count()
    }
}

impl State {
    fn next_fault(&self, resource: Resource) -> Option<Fault> {
        let mut faults = lock(&self.faults);
        let (_, times, fault) = faults.iter_mut().find(|(of, times, _)| *of == resource && *times > 0)?;
        *times -= 1;
        Some(fault.clone())
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
        let resource = Resource::of(request.uri().path());
        lock(&self.seen).extend(resource);
        match resource.and_then(|resource| self.next_fault(resource)) {
            None => Ok(self.forward(request).await.map(Full::new)),
            Some(Fault::Problem { status, kind, detail, retry_after }) => Ok(problem(status, kind, detail, retry_after)),
            Some(Fault::Page(status, text)) => Ok(page(status, text)),
            Some(Fault::Unheard) => Err(Dropped),
            Some(Fault::Swallowed) => {
                self.forward(request).await;
                Err(Dropped)
            }
            Some(Fault::Struck(strike)) => {
                self.forward(request).await;
                strike();
                Err(Dropped)
            }
            Some(Fault::Rewritten(change)) => Ok(self.forward(request).await.map(|body| {
                let mut value = serde_json::from_slice(&body).expect("JSON from pebble");
                change(&mut value);
                Full::new(value.to_string().into())
            })),
            Some(Fault::Delayed(pause)) => {
                let mut response = self.forward(request).await.map(Full::new);
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(pause));
                Ok(response)
            }
            Some(Fault::Linked(links)) => {
                let mut response = self.forward(request).await.map(Full::new);
                response.headers_mut().remove(LINK);
                for link in links {
                    let link = format!("<{link}>;rel=\"alternate\"");
                    response.headers_mut().append(LINK, HeaderValue::from_str(&link).expect("a header"));
                }
                Ok(response)
            }
        }
    }

    async fn forward(&self, request: Request<Incoming>) -> Response<Bytes> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        parts.uri = format!("https://{}{path}", self.authority).parse::<Uri>().expect("a URL");
        let body = body.collect().await.expect("a request body").to_bytes();
        let mut response = self.client.send(Request::from_parts(parts, body)).await;
        response.headers_mut().remove(http::header::CONTENT_LENGTH);
        response
    }
}

fn problem(status: u16, kind: &str, detail: &str, retry_after: Option<&'static str>) -> Response<Full<Bytes>> {
    let body = json!({ "type": format!("urn:ietf:params:acme:error:{kind}"), "detail": detail, "status": status });
    let mut response = page(status, &body.to_string());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(retry_after) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(retry_after));
    }
    response
}

fn page(status: u16, text: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
