//! A front before an S3 server: counts what each node asks for, and can have all nodes begin in the same moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::sync::Barrier;

use super::support::http::HttpClient;
use super::support::server::{Dropped, HttpServer};

/// How long a node waits for the others: less than it waits for an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// A running front. Nodes are told apart by their region: it is part of what every signature names, and the server takes any.
pub struct CountingFront {
    server: HttpServer,
    state: Arc<State>,
}

struct State {
    upstream: String,
    client: HttpClient,
    seen: Mutex<BTreeMap<String, Vec<String>>>,
    start: Mutex<Option<Arc<Barrier>>>,
    started: Mutex<Option<Instant>>,
}

impl CountingFront {
    /// A front before the server at `upstream` (`http://host:port`).
    pub fn start(upstream: &str, client: HttpClient) -> Self {
        let upstream = upstream.to_owned();
        let state = Arc::new(State { upstream, client, seen: Mutex::default(), start: Mutex::default(), started: Mutex::default() });
        let service = service_fn({
            let state = Arc::clone(&state);
            move |request| {
                let state = Arc::clone(&state);
                async move { state.answer(request).await }
            }
        });
        Self { server: HttpServer::start(service, None), state }
    }

    /// Its URL.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server.address)
    }

    /// Forgets what it has seen. From now on the first request of each of so many nodes is held until all of them have sent theirs.
    pub fn line_up(&self, nodes: usize) {
        lock(&self.state.seen).clear();
        *lock(&self.state.start) = Some(Arc::new(Barrier::new(nodes)));
    }

    /// What each node has asked for: `METHOD key`.
    pub fn seen(&self) -> BTreeMap<String, Vec<String>> {
        lock(&self.state.seen).clone()
    }

    /// When the nodes were let go.
    pub fn started(&self) -> Option<Instant> {
        *lock(&self.state.started)
    }
}

impl State {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Dropped> {
        let is_first = self.note(&request);
        let start = lock(&self.start).clone();
        if let Some(start) = start.filter(|_| is_first) {
            let _ = tokio::time::timeout(LONGEST_WAIT, start.wait()).await;
            lock(&self.started).get_or_insert_with(Instant::now);
        }
        let (mut parts, body) = request.into_parts();
        // The Host header stays: it is signed.
        let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        parts.uri = format!("{}{path}", self.upstream).parse::<Uri>().map_err(|_| Dropped)?;
        let body = body.collect().await.map_err(|_| Dropped)?.to_bytes();
        Ok(self.client.send(Request::from_parts(parts, body)).await.map(Full::new))
    }

    /// Whether it is the node's first request.
    fn note(&self, request: &Request<Incoming>) -> bool {
        let authorization = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        // Credential=KEY/DATE/REGION/s3/aws4_request
        let node = authorization.split('/').nth(2).unwrap_or("nobody").to_owned();
        let mut seen = lock(&self.seen);
        let requests = seen.entry(node).or_default();
        requests.push(format!("{} {}", request.method(), request.uri()));
        requests.len() == 1
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
