//! Looking for an http-01 answer where a CA would: at every address of a name, and wherever redirects lead from there.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::header::{HOST, LOCATION, USER_AGENT};
use http::uri::Scheme;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::HTTP_01_PATH;
use crate::domain::identifier::Identifier;
use crate::system::text::printable;
use crate::system::witness::AcceptAnythingToLook;

/// What we call ourselves: listeners of our own do not take our look for the CA's.
pub const OUR_NAME: &str = concat!("certfleet/", env!("CARGO_PKG_VERSION"));

/// More than any answer to a challenge has.
const LONGEST_ANSWER_BYTES: usize = 64 * 1024;

/// How much of a stranger's text is shown, in characters.
const SHOWN_CHARS: usize = 200;

/// How many redirects are followed: as many as Let's Encrypt does (<https://letsencrypt.org/docs/challenge-types/>).
const MOST_REDIRECTS: usize = 10;

/// Where a CA asks, and follows redirects to (the same page).
const PORTS: [u16; 2] = [80, 443];

/// Where the servers of a name are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// At every address that the system's resolver knows for it, on port 80.
    Resolver,
    /// Here, whatever the name.
    At(SocketAddr),
}

/// One address, and what a CA that asks there would see.
#[derive(Debug)]
pub struct Sight {
    /// The address.
    pub address: SocketAddr,
    /// What is there.
    pub seen: Result<Seen, LookError>,
}

/// An answer that is no redirect.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Seen {
    /// The URL that redirects have led to; `None` where there was none.
    pub redirected_to: Option<String>,
    /// Its status.
    pub status: StatusCode,
    /// Its body. Trailing white space does not count (RFC 8555 section 8.3).
    pub body: String,
}

impl Seen {
    /// Whether a CA would take it for `answer`.
    pub fn is(&self, answer: &str) -> bool {
        self.status == StatusCode::OK && self.body.trim_end() == answer
    }

    /// The answer in words.
    pub fn described(&self) -> String {
        let from = self.redirected_to.as_ref().map(|url| format!("a redirect to {}, and there ", shown(url))).unwrap_or_default();
        match shown(&self.body).as_str() {
            "" => format!("{from}status {} and nothing else", self.status),
            body => format!("{from}status {} and {body:?}", self.status),
        }
    }
}

/// Why nothing was seen.
#[derive(Debug, Error)]
pub enum LookError {
    /// A name without an address.
    #[error("{host} cannot be resolved here")]
    Resolve {
        /// The name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// No connection.
    #[error("no connection to {address}")]
    Connect {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Whatever listens does not speak HTTP, or no TLS where it should.
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
    /// A redirect that no CA follows.
    #[error("a redirect to {to:?} leads nowhere: {why}")]
    Redirect {
        /// Where it leads.
        to: String,
        /// Why a CA does not follow.
        why: &'static str,
    },
}

impl LookError {
    /// Whether nobody answered at all. From inside a network the servers' public addresses are often out of reach: that says nothing about
    /// what a CA sees.
    pub fn is_silence(&self) -> bool {
        matches!(self, Self::Resolve { .. } | Self::Connect { .. } | Self::TooSlow { .. })
    }
}

/// Looks for the answer to `token` at every address of `identifier` at the same time, for `deadline` at most.
pub async fn http_01(place: Place, identifier: &Identifier, token: &str, deadline: Duration) -> Result<Vec<Sight>, LookError> {
    let host = match identifier {
        Identifier::Ip(IpAddr::V6(address)) => format!("[{address}]"),
        _ => identifier.to_string(),
    };
    let addresses = match (place, identifier) {
        (Place::At(address), _) => vec![address],
        (Place::Resolver, Identifier::Ip(address)) => vec![SocketAddr::new(*address, PORTS[0])],
        (Place::Resolver, _) => resolve(&host, PORTS[0], deadline).await?,
    };
    let looks = addresses.into_iter().map(async |address| {
        let look = Look { place, first: address, host: &host };
        let seen = tokio::time::timeout(deadline, look.follow(token)).await;
        Sight { address, seen: seen.unwrap_or(Err(LookError::TooSlow { address, deadline })) }
    });
    Ok(join_all(looks).await)
}

/// The addresses of a name, as the system's resolver has them.
pub async fn resolve(host: &str, port: u16, deadline: Duration) -> Result<Vec<SocketAddr>, LookError> {
    let failed = |source| LookError::Resolve { host: host.to_owned(), source };
    let lookup = tokio::time::timeout(deadline, tokio::net::lookup_host((host.trim_matches(['[', ']']), port))).await;
    let found = lookup.map_err(|_| failed(io::Error::new(io::ErrorKind::TimedOut, "the resolver does not answer")))?;
    let mut addresses: Vec<_> = found.map_err(failed)?.collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() { Err(failed(io::Error::new(io::ErrorKind::NotFound, "it has no address"))) } else { Ok(addresses) }
}

/// One way through redirects, begun at one address.
struct Look<'a> {
    place: Place,
    first: SocketAddr,
    host: &'a str,
}

/// What one request was answered with.
enum Hop {
    There(StatusCode, Bytes),
    Elsewhere(String),
}

impl Look<'_> {
    async fn follow(&self, token: &str) -> Result<Seen, LookError> {
        let mut url = format!("http://{}{HTTP_01_PATH}{token}", self.host);
        let mut redirected_to = None;
        for _ in 0..=MOST_REDIRECTS {
            let uri = self.followed(&url)?;
            let address = if redirected_to.is_none() { self.first } else { self.address(&uri).await? };
            match ask(address, &uri).await? {
                Hop::There(status, body) => {
                    return Ok(Seen { redirected_to, status, body: String::from_utf8_lossy(&body).into_owned() });
                }
                Hop::Elsewhere(to) => {
                    url = absolute(&uri, &to);
                    redirected_to = Some(url.clone());
                }
            }
        }
        Err(LookError::Redirect { to: shown(&url), why: "there are more than ten redirects, perhaps in a circle" })
    }

    /// A URL, if a CA would follow a redirect to it.
    fn followed(&self, url: &str) -> Result<Uri, LookError> {
        let refused = |why| LookError::Redirect { to: shown(url), why };
        let uri: Uri = url.parse().map_err(|_| refused("it is not a URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(refused("CAs follow http and https only"));
        }
        if self.place == Place::Resolver && !PORTS.contains(&port(&uri)) {
            return Err(refused("CAs follow to ports 80 and 443 only"));
        }
        Ok(uri)
    }

    fn may_lead_to(&self, address: IpAddr) -> bool {
        is_inner(self.first.ip()) || !is_inner(address)
    }

    async fn address(&self, uri: &Uri) -> Result<SocketAddr, LookError> {
        let host = uri.host().unwrap_or_default();
        match self.place {
            Place::At(address) if host == self.host && uri.port().is_none() && !is_https(uri) => Ok(address),
            Place::At(address) if host == self.host => Ok(SocketAddr::new(address.ip(), port(uri))),
            Place::At(_) | Place::Resolver if host == self.host => Ok(SocketAddr::new(self.first.ip(), port(uri))),
            // Whoever looks has less time than this.
            Place::At(_) | Place::Resolver => {
                let address = resolve(host, port(uri), Duration::MAX).await?[0];
                self.may_lead_to(address.ip()).then_some(address).ok_or_else(|| LookError::Redirect {
                    to: shown(&uri.to_string()),
                    why: "it leads from a public address into this network, where no CA can follow",
                })
            }
        }
    }
}

/// Whether an address is one of this machine's or its network's (RFC 6890). What answers there, a cloud's metadata service for example, is
/// nothing that a stranger's redirect may have us show.
fn is_inner(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => {
            address.is_unique_local() || address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified()
        }
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&Scheme::HTTPS)
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_https(uri) { PORTS[1] } else { PORTS[0] })
}

/// Where a `Location` leads from a page (RFC 3986 section 5.2, as far as servers make use of it).
fn absolute(from: &Uri, to: &str) -> String {
    let (scheme, authority) = (from.scheme_str().unwrap_or("http"), from.authority().map_or("", |authority| authority.as_str()));
    match to {
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        to if to.contains("://") => to.to_owned(),
        to => format!("{scheme}://{authority}{}/{to}", from.path().rsplit_once('/').map_or("", |(above, _)| above)),
    }
}

async fn ask(address: SocketAddr, uri: &Uri) -> Result<Hop, LookError> {
    let failed = |source: Box<dyn std::error::Error + Send + Sync>| LookError::Http { address, source };
    let stream = TcpStream::connect(address).await.map_err(|source| LookError::Connect { address, source })?;
    if !is_https(uri) {
        return exchange(stream, uri).await.map_err(failed);
    }
    // As CAs do: the name has no certificate yet, or not a good one any more.
    let config = Arc::new(AcceptAnythingToLook::default()).client_config().map_err(|error| failed(error.into()))?;
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.into()))?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| failed(error.into()))?;
    exchange(stream, uri).await.map_err(failed)
}

async fn exchange<S>(stream: S, uri: &Uri) -> Result<Hop, Box<dyn std::error::Error + Send + Sync>>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path).header(HOST, host).header(USER_AGENT, OUR_NAME).body(Empty::<Bytes>::new())?;
    let exchange = async move {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        if let (true, Some(to)) = (parts.status.is_redirection(), parts.headers.get(LOCATION)) {
            return Ok(Hop::Elsewhere(String::from_utf8_lossy(to.as_bytes()).into_owned()));
        }
        Ok(Hop::There(parts.status, Limited::new(body, LONGEST_ANSWER_BYTES).collect().await?.to_bytes()))
    };
    // The connection is driven for as long as the exchange lasts, and ends with it: that drops the sender. What ends it sooner, the
    // exchange is told.
    let (hop, _) = tokio::join!(exchange, connection);
    hop
}

fn shown(text: &str) -> String {
    printable(text).chars().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_redirect_leads_from_a_public_address_into_the_network() {
        let to = |url: &'static str| Uri::from_static(url);
        let from = |first: &str| Look { place: Place::Resolver, first: first.parse().expect("an address"), host: "a.example" };
        for url in [
            "http://169.254.169.254/latest/",
            "http://127.0.0.1/",
            "http://10.0.0.1/",
            "http://[fd00:ec2::254]/",
            "http://[::ffff:127.0.0.1]/",
        ] {
            let refused = from("192.0.2.1:80").address(&to(url)).await.expect_err(url);
            assert!(refused.to_string().contains("into this network"), "{url}: {refused}");
            from("10.0.0.9:80").address(&to(url)).await.expect("the fleet is in that network itself");
        }
        from("192.0.2.1:80").address(&to("http://198.51.100.7/")).await.expect("another public address");
    }

    #[test]
    fn only_the_ports_of_the_web_are_followed_to() {
        let look = |place| Look { place, first: SocketAddr::from(([192, 0, 2, 7], 80)), host: "a.example" };
        for (url, followed) in [
            ("http://a.example/x", true),
            ("https://b.example/x", true),
            ("https://b.example:80/x", true),
            ("http://b.example:8080/x", false),
            ("ftp://b.example/x", false),
            ("http:///x", false),
            ("http://b.example/ x", false),
        ] {
            assert_eq!(look(Place::Resolver).followed(url).is_ok(), followed, "{url}");
        }
        let here = Place::At(SocketAddr::from(([127, 0, 0, 1], 5002)));
        assert!(look(here).followed("http://b.example:8080/x").is_ok(), "a CA of one's own has ports of its own");
    }

    #[test]
    fn locations_lead_on_from_where_they_were_found() {
        let from: Uri = "http://a.example:81/x/y?z".parse().expect("a URL");
        for (location, leads_to) in [
            ("https://b.example/", "https://b.example/"),
            ("//b.example/q", "http://b.example/q"),
            ("/q", "http://a.example:81/q"),
            ("q", "http://a.example:81/x/q"),
        ] {
            assert_eq!(absolute(&from, location), leads_to);
        }
    }
}
