//! What a server really presents: a TLS handshake that looks at the certificates instead of trusting them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::Error as TlsError;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::domain::identifier::Identifier;
use crate::system::witness::AcceptAnythingToLook;

/// The label put in place of a star: any name below the wildcard's base is answered with the same certificate.
const BELOW_THE_STAR: &str = "certfleet";

/// Why it is not known what a server presents.
#[derive(Debug, Error)]
pub enum HandshakeError {
    /// The address is not `host:port`.
    #[error("{0:?} is not an address: host:port is wanted")]
    Address(String),
    /// The identifier cannot be asked for in a handshake.
    #[error("{0} cannot be asked for in a TLS handshake")]
    Name(Identifier),
    /// The TLS library refuses its own settings.
    #[error("no TLS handshake can be made")]
    Settings(#[source] TlsError),
    /// No address belongs to the host name.
    #[error("{host:?} cannot be resolved")]
    Resolve {
        /// The host name.
        host: String,
        /// What the resolver said.
        #[source]
        source: io::Error,
    },
    /// Nothing listens there.
    #[error("{address} refuses connections")]
    Refused {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No connection, for another reason.
    #[error("{address} cannot be reached")]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No answer in time.
    #[error("{address} did not complete a TLS handshake within {} s", deadline.as_secs_f32())]
    Timeout {
        /// The address.
        address: String,
        /// How long it was given.
        deadline: Duration,
    },
    /// Something listens, and does not speak TLS.
    #[error("{address} does not speak TLS")]
    NotTls {
        /// The address.
        address: String,
        /// What the TLS library made of the answer.
        #[source]
        source: TlsError,
    },
    /// The connection ended before the server had presented anything.
    #[error("{address} closed the connection during the handshake")]
    Closed {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The server refused the handshake with a TLS alert (RFC 8446 section 6).
    #[error("{address} refused the handshake for {name}")]
    Alert {
        /// The address.
        address: String,
        /// The name that was asked for.
        name: Identifier,
        /// The alert.
        #[source]
        source: TlsError,
    },
    /// The server speaks TLS, but what it presents cannot be worked with.
    #[error("the handshake with {address} failed")]
    Tls {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: TlsError,
    },
}

/// The chain, DER, leaf first, that the server at `address` (`host:port`, `[2001:db8::1]:443`) presents for `name`, by TLS 1.2 or 1.3.
///
/// Nothing about the certificates is checked but that the server holds the leaf's key: they may be expired, or anybody's. `deadline`
/// is for all of it: resolving, connecting, shaking hands. A wildcard is asked for by a name below it, an IP address without a name.
pub async fn presented_chain(address: &str, name: &Identifier, deadline: Duration) -> Result<Vec<Vec<u8>>, HandshakeError> {
    let timeout = HandshakeError::Timeout { address: address.to_owned(), deadline };
    tokio::time::timeout(deadline, look(address, name)).await.unwrap_or(Err(timeout))
}

async fn look(address: &str, name: &Identifier) -> Result<Vec<Vec<u8>>, HandshakeError> {
    let (host, port) = split(address).ok_or_else(|| HandshakeError::Address(address.to_owned()))?;
    let server_name = server_name(name).ok_or_else(|| HandshakeError::Name(name.clone()))?;
    let stream = connect(address, host, port).await?;
    let witness = Arc::new(AcceptAnythingToLook::default());
    let config = witness.client_config().map_err(HandshakeError::Settings)?;
    let shaken = TlsConnector::from(Arc::new(config)).connect(server_name, stream).await;
    // A server that goes on to ask for a client's certificate ends the handshake, but has shown its own by then.
    match (witness.proven_chain(), shaken) {
        (Some(chain), _) => Ok(chain),
        (None, Err(error)) => Err(explain(error, address, name)),
        (None, Ok(_)) => Err(HandshakeError::Tls { address: address.to_owned(), source: TlsError::NoCertificatesPresented }),
    }
}

/// `host:port`, where an IPv6 address stands in brackets.
fn split(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None if host.contains(':') => return None,
        None => host,
    };
    (!host.is_empty()).then_some((host, port.parse().ok()?))
}

fn server_name(name: &Identifier) -> Option<ServerName<'static>> {
    match name {
        Identifier::Dns(name) => ServerName::try_from(name.clone()).ok(),
        Identifier::Wildcard(base) => ServerName::try_from(format!("{BELOW_THE_STAR}.{base}")).ok(),
        Identifier::Ip(address) => Some(ServerName::from(*address)),
    }
}

async fn connect(address: &str, host: &str, port: u16) -> Result<TcpStream, HandshakeError> {
    let found = tokio::net::lookup_host((host, port)).await;
    let candidates: Vec<_> = found.map_err(|source| HandshakeError::Resolve { host: host.to_owned(), source })?.collect();
    let address = address.to_owned();
    match TcpStream::connect(candidates.as_slice()).await {
        Ok(stream) => Ok(stream),
        Err(source) if source.kind() == io::ErrorKind::ConnectionRefused => Err(HandshakeError::Refused { address, source }),
        Err(source) => Err(HandshakeError::Connect { address, source }),
    }
}

fn explain(error: io::Error, address: &str, name: &Identifier) -> HandshakeError {
    let address = address.to_owned();
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()).cloned();
    match tls {
        Some(source @ TlsError::InvalidMessage(_)) => HandshakeError::NotTls { address, source },
        Some(source @ TlsError::AlertReceived(_)) => HandshakeError::Alert { address, name: name.clone(), source },
        Some(source) => HandshakeError::Tls { address, source },
        None => HandshakeError::Closed { address, source: error },
    }
}

impl HandshakeError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Address(_) => "write it as www.example.com:443, or [2001:db8::1]:443 for an IPv6 address".to_owned(),
            Self::Name(_) => "ask for a DNS name or an IP address".to_owned(),
            Self::Settings(_) => "this is a fault of certfleet: please report it".to_owned(),
            Self::Resolve { .. } => "check the spelling, and this machine's name servers".to_owned(),
            Self::Refused { .. } => "is the web server running, and listening on this port?".to_owned(),
            Self::Connect { .. } => "check the address, the route to it, and firewalls".to_owned(),
            Self::Timeout { .. } => "is this the TLS port, and does a firewall drop the packets?".to_owned(),
            Self::NotTls { .. } => "is this the TLS port (443 rather than 80), and is TLS switched on for it?".to_owned(),
            Self::Closed { .. } => {
                "look into the server's log: it may have no certificate, or it closes at once what it does not expect".to_owned()
            }
            Self::Alert { .. } => "does the server have a site of this name, and a certificate for it?".to_owned(),
            Self::Tls { address, .. } => format!("look at it with: openssl s_client -connect {address}"),
        }
    }
}
