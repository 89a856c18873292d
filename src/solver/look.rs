//! Looking for an http-01 answer where a CA would.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, LOCATION, USER_AGENT};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;

use super::HTTP_01_PATH;
use crate::system::text::printable;

/// More than any answer to a challenge has.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// How much of a stranger's text is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// What was there.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Seen {
    /// An answer of status 200 with this body.
    Answer(String),
    /// A redirect. CAs follow them, to ports 80 and 443 (<https://letsencrypt.org/docs/challenge-types/>).
    Redirect(String),
    /// Another status.
    Status(StatusCode),
}

/// Why nothing was seen.
#[derive(Debug, Error)]
pub enum LookError {
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whatever listens does not speak HTTP.
    #[error("{address} does not answer as a web server does")]
    Http {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} s", deadline.as_secs())]
    TooSlow {
        /// The address.
        address: SocketAddr,
        /// How long it was given.
        deadline: Duration,
    },
}

/// Asks the server at `address` for the answer to `token`, as that of `host`: a name, or an address in brackets where it is an IPv6 one.
pub async fn http_01(address: SocketAddr, host: &str, token: &str, deadline: Duration) -> Result<Seen, LookError> {
    let asked = tokio::time::timeout(deadline, ask(address, host, token)).await;
    asked.unwrap_or(Err(LookError::TooSlow { address, deadline }))
}

async fn ask(address: SocketAddr, host: &str, token: &str) -> Result<Seen, LookError> {
    let http = |source: Box<dyn std::error::Error + Send + Sync>| LookError::Http { address, source };
    let stream = TcpStream::connect(address).await.map_err(|source| LookError::Connect { address, source })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| http(error.into()))?;
    let request = Request::get(format!("{HTTP_01_PATH}{token}"))
        .header(HOST, host)
        .header(USER_AGENT, concat!("certfleet/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| http(error.into()))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(|error| http(error.into()))?;
        let (parts, body) = response.into_parts();
        if parts.status.is_redirection() {
            let to = parts.headers.get(LOCATION).map(|to| String::from_utf8_lossy(to.as_bytes()).into_owned()).unwrap_or_default();
            return Ok(Seen::Redirect(shown(&to)));
        }
        if parts.status != StatusCode::OK {
            return Ok(Seen::Status(parts.status));
        }
        let body = Limited::new(body, LONGEST_ANSWER_BYTES).collect().await.map_err(http)?.to_bytes();
        Ok(Seen::Answer(shown(&String::from_utf8_lossy(&body))))
    };
    // The connection is driven for as long as the exchange lasts, and ends with it: that drops the sender. What ends it sooner, the
    // exchange is told.
    let (seen, _) = tokio::join!(exchange, connection);
    seen
}

fn shown(text: &str) -> String {
    printable(text).chars().take(SHOWN_CHARS).collect()
}
