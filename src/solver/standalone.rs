//! http-01 answered by a listener of our own, which is there only while there is something to answer.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use super::{Challenge, ChallengeKind, HTTP_01_PATH, Presented, Solver, SolverError};

/// The port that http-01 is asked on (RFC 8555 section 8.3).
const HTTP_PORT: u16 = 80;

/// A client that has not sent its request by then is cut off.
const SLOWEST_REQUEST: Duration = Duration::from_secs(10);

/// CAs look from several places at once: when no further look follows the last for this long, they have probably all been.
const QUIET: Duration = Duration::from_millis(15);

/// Listens while challenges are presented. One listener serves all challenges of the process; it is closed after the last clean-up, and
/// also when this is dropped.
#[derive(Debug)]
pub struct Standalone {
    listen: SocketAddr,
    answers: Arc<Answers>,
    listener: tokio::sync::Mutex<Option<Listener>>,
}

/// What is being answered, by token.
#[derive(Debug, Default)]
struct Answers(Mutex<HashMap<String, Answer>>);

#[derive(Debug)]
struct Answer {
    body: Bytes,
    looks: watch::Sender<u64>,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The accepting task; its connections end with it.
#[derive(Debug)]
struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Standalone {
    /// Will listen on `listen`. The unspecified IPv6 address serves IPv4 too, and becomes the IPv4 one on a machine without IPv6.
    pub fn new(listen: SocketAddr) -> Self {
        Self { listen, answers: Arc::default(), listener: tokio::sync::Mutex::default() }
    }

    /// Will listen on port 80 of every address.
    pub fn everywhere() -> Self {
        Self::new((Ipv6Addr::UNSPECIFIED, HTTP_PORT).into())
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.listen.port()
    }

    /// Whether it could listen right now. It does not any more when this returns.
    pub async fn try_listening(&self) -> Result<(), SolverError> {
        self.bind().await.map(drop)
    }

    async fn bind(&self) -> Result<TcpListener, SolverError> {
        let bound = match TcpListener::bind(self.listen).await {
            Err(error) if self.listen.ip() == Ipv6Addr::UNSPECIFIED && no_ipv6(&error) => {
                TcpListener::bind((Ipv4Addr::UNSPECIFIED, self.listen.port())).await
            }
            bound => bound,
        };
        bound.map_err(|error| self.not_bound(error))
    }

    fn not_bound(&self, error: io::Error) -> SolverError {
        let port = self.listen.port();
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => format!(
                "find out which program listens there with: ss -ltnp 'sport = :{port}'; while it is the web server, use a solver with mode = \"webroot\""
            ),
            io::ErrorKind::PermissionDenied => {
                format!("port {port} needs root, or: setcap cap_net_bind_service=+ep on the certfleet binary")
            }
            io::ErrorKind::AddrNotAvailable => format!("{} is not an address of this machine", self.listen.ip()),
            _ => "see the cause".to_owned(),
        };
        SolverError { what: format!("cannot listen on port {port} ({}) for http-01", self.listen), hint, source: Some(Box::new(error)) }
    }
}

/// Whether the machine has no IPv6: the protocol is switched off, or there is no address of it.
fn no_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error()) || error.kind() == io::ErrorKind::AddrNotAvailable
}

#[async_trait]
impl Solver for Standalone {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        let mut listener = self.listener.lock().await;
        if listener.is_none() {
            let bound = self.bind().await?;
            *listener = Some(Listener(tokio::spawn(accept(bound, Arc::clone(&self.answers)))));
        }
        let answer = Answer { body: challenge.key_authorization.clone().into(), looks: watch::Sender::new(0) };
        self.answers.lock().insert(challenge.token.clone(), answer);
        Ok(Presented::default())
    }

    async fn clean_up(&self, challenge: &Challenge, _presented: &Presented) -> Result<(), SolverError> {
        let mut listener = self.listener.lock().await;
        let none_left = {
            let mut answers = self.answers.lock();
            answers.remove(&challenge.token);
            answers.is_empty()
        };
        if none_left && let Some(mut last) = listener.take() {
            last.0.abort();
            // Only then is the port free again.
            let _ = (&mut last.0).await;
        }
        Ok(())
    }

    async fn looked_at(&self, challenge: &Challenge) {
        let looks = self.answers.lock().get(&challenge.token).map(|answer| answer.looks.subscribe());
        let Some(mut looks) = looks else { return std::future::pending().await };
        if looks.wait_for(|count| *count > 0).await.is_ok() {
            while let Ok(Ok(())) = timeout(QUIET, looks.changed()).await {}
        }
    }
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(connections.spawn(serve(stream, Arc::clone(&answers)))),
                // Out of descriptors, most likely: some are given back as connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers>) {
    let service = service_fn(|request| {
        let response = respond(&request, &answers);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOWEST_REQUEST).keep_alive(false);
    // A visitor that goes away is the visitor's business.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn respond<B>(request: &Request<B>, answers: &Answers) -> Response<Full<Bytes>> {
    let asked = matches!(*request.method(), Method::GET | Method::HEAD);
    let token = request.uri().path().strip_prefix(HTTP_01_PATH).filter(|_| asked);
    let body = token.and_then(|token| {
        let answers = answers.lock();
        let answer = answers.get(token)?;
        answer.looks.send_modify(|count| *count += 1);
        Some(answer.body.clone())
    });
    let mut response = Response::new(Full::new(Bytes::new()));
    match body {
        Some(body) => {
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            *response.body_mut() = Full::new(body);
        }
        None => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}
