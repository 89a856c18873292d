//! tls-alpn-01 answered by a listener of our own, which is there only while there is something to answer (RFC 8737; addresses: RFC 8738).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, SanType};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use super::listening::{Answers, Listening};
use super::{Challenge, ChallengeKind, Presented, Solver, SolverError};
use crate::domain::identifier::Identifier;

/// What CAs ask for, and nobody else does (RFC 8737 section 6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";

/// A visitor that has not shaken hands by then is cut off.
const SLOWEST_HANDSHAKE: Duration = Duration::from_secs(10);

/// Listens while challenges are presented, and shows those who speak `acme-tls/1`, and nobody else, the certificates that answer them.
#[derive(Debug)]
pub struct TlsAlpn(Listening<Shown>);

/// What is shown to those who ask for a name.
#[derive(Clone, Debug)]
struct Shown {
    server_name: String,
    certificate: Arc<CertifiedKey>,
}

impl TlsAlpn {
    /// Will listen on `listen`. The unspecified IPv6 address serves IPv4 too, and becomes the IPv4 one on a machine without IPv6.
    pub fn new(listen: SocketAddr) -> Self {
        Self(Listening::new(listen, ChallengeKind::TlsAlpn01))
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
impl Solver for TlsAlpn {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::TlsAlpn01
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        let certificate = certificate(challenge).map_err(|source| SolverError {
            what: format!("no certificate could be made that answers the challenge for {}", challenge.identifier),
            hint: "use another kind of solver for it".to_owned(),
            source: Some(source),
        })?;
        let shown = Shown { server_name: server_name(&challenge.identifier), certificate: Arc::new(certificate) };
        self.0.begin(&challenge.token, shown, serve).await?;
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

/// The name that a CA asks for in its handshake: an address by its name in the reverse tree (RFC 8738 section 6).
fn server_name(identifier: &Identifier) -> String {
    match identifier {
        Identifier::Dns(name) | Identifier::Wildcard(name) => name.clone(),
        Identifier::Ip(IpAddr::V4(address)) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        Identifier::Ip(IpAddr::V6(address)) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 0xf, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}")).chain(["ip6.arpa".to_owned()]).collect::<Vec<_>>().join(".")
        }
    }
}

/// A certificate with the identifier alone and, critical, the digest of the key authorization (RFC 8737 section 3).
fn certificate(challenge: &Challenge) -> Result<CertifiedKey, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![match &challenge.identifier {
        Identifier::Dns(name) | Identifier::Wildcard(name) => SanType::DnsName(name.as_str().try_into()?),
        Identifier::Ip(address) => SanType::IpAddress(*address),
    }];
    let digest = digest::digest(&digest::SHA256, challenge.key_authorization.as_bytes());
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate()?;
    let leaf = params.self_signed(&key)?;
    // rustls checks what it is given to serve, and refuses this critical extension; a key that a resolver hands out it takes as it is.
    let key = any_supported_type(&PrivateKeyDer::try_from(key.serialize_der())?)?;
    Ok(CertifiedKey::new(vec![leaf.der().clone()], key))
}

/// Whoever resolves a handshake knows which answer was seen.
#[derive(Debug)]
struct Resolver(Arc<Answers<Shown>>);

impl Resolver {
    fn shown_to(&self, server_name: Option<&str>) -> Option<(String, Shown)> {
        let asked = server_name?;
        self.0.find(|shown| shown.server_name.eq_ignore_ascii_case(asked))
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let speaks = hello.alpn().is_some_and(|mut offered| offered.any(|protocol| protocol == PROTOCOL));
        let (_, shown) = self.shown_to(hello.server_name()).filter(|_| speaks)?;
        Some(shown.certificate)
    }
}

async fn serve(stream: TcpStream, answers: Arc<Answers<Shown>>) {
    let resolver = Arc::new(Resolver(answers));
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions();
    let Ok(builder) = builder else { return };
    let mut config = builder.with_no_client_auth().with_cert_resolver(Arc::clone(&resolver) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    let shaken = tokio::time::timeout(SLOWEST_HANDSHAKE, TlsAcceptor::from(Arc::new(config)).accept(stream)).await;
    // A visitor that goes away is the visitor's business. Nothing follows the handshake.
    if let Ok(Ok(stream)) = shaken
        && let Some((token, _)) = resolver.shown_to(stream.get_ref().1.server_name())
    {
        resolver.0.looked_at(&token);
    }
}
