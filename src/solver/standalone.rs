//! http-01 answered by a listener of our own, which is there only while there is something to answer.

use std::convert::Infallible;
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::listening::{Answers, Listening};
use super::look::OUR_NAME;
use super::{Challenge, ChallengeKind, HTTP_01_PATH, Presented, Solver, SolverError};

/// The port that http-01 is asked on (RFC 8555 section 8.3).
const HTTP_PORT: u16 = 80;

/// A client that has not sent its request by then is cut off.
const SLOWEST_REQUEST: Duration = Duration::from_secs(10);

/// Listens while challenges are presented.
#[derive(Debug)]
pub struct Standalone(Listening<Bytes>);

impl Standalone {
    /// Will listen on `listen`. The unspecified IPv6 address serves IPv4 too, and becomes the IPv4 one on a machine without IPv6.
    pub fn new(listen: SocketAddr) -> Self {
        Self(Listening::new(listen, ChallengeKind::Http01))
    }

    /// Will listen on port 80 of every address.
    pub fn everywhere() -> Self {
        Self::new((Ipv6Addr::UNSPECIFIED, HTTP_PORT).into())
    }

    /// The port it listens at.
    pub fn port(&self) -> u16 {
        self.0.port()
    }

    /// Whether it could listen right now. It does not any more when this returns.
    pub async fn try_listening(&self) -> Result<(), SolverError> {
        self.0.bind().await.map(drop)
    }
}

#[async_trait]
impl Solver for Standalone {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Http01
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        self.0.begin(&challenge.token, challenge.key_authorization.clone().into(), serve).await?;
        Ok(Presented::default())
    }

    async fn clean_up(&self, challenge: &Challenge, _presented: &Presented) -> Result<(), SolverError> {
        self.0.end(&challenge.token).await;
        Ok(())
    }

    async fn looked_at(&self, challenge: &Challenge) {
        self.0.looked_at(&challenge.token).await;
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers<Bytes>>) {
    let service = service_fn(|request| {
        let response = respond(&request, &answers);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(SLOWEST_REQUEST).keep_alive(false);
    // A visitor that goes away is the visitor's business.
    let _ = server.serve_connection(TokioIo::new(stream), service).await;
}

fn respond<B>(request: &Request<B>, answers: &Answers<Bytes>) -> Response<Full<Bytes>> {
    let asked = matches!(*request.method(), Method::GET | Method::HEAD);
    let token = request.uri().path().strip_prefix(HTTP_01_PATH).filter(|_| asked);
    let body = token.and_then(|token| {
        let body = answers.get(token)?;
        // Our own look is not the one that is waited for.
        if request.headers().get(USER_AGENT).is_none_or(|name| name != OUR_NAME) {
            answers.looked_at(token);
        }
        Some(body)
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
