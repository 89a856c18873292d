//! TLS with servers that are only looked at: nothing is trusted, and nothing secret is said.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error as TlsError, SignatureScheme};

/// Accepts any certificate, only to look at it. It is never to be used for a connection that carries anything.
///
/// The signature over the handshake is verified all the same: a server that shows a certificate must hold its key.
#[derive(Debug)]
pub struct AcceptAnythingToLook {
    provider: Arc<CryptoProvider>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    chain: Vec<Vec<u8>>,
    holds_key: bool,
}

impl Default for AcceptAnythingToLook {
    fn default() -> Self {
        Self { provider: Arc::new(aws_lc_rs::default_provider()), seen: Mutex::default() }
    }
}

impl AcceptAnythingToLook {
    /// A client that takes whatever it is shown.
    pub fn client_config(self: &Arc<Self>) -> Result<ClientConfig, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::clone(&self.provider)).with_safe_default_protocol_versions()?;
        let verifier = Arc::clone(self) as Arc<dyn ServerCertVerifier>;
        Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
    }

    /// The chain that was presented, DER, leaf first, by whoever has shown to hold the leaf's key.
    pub fn proven_chain(&self) -> Option<Vec<Vec<u8>>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.holds_key.then(|| std::mem::take(&mut seen.chain))
    }

    fn remember(&self, proof: Result<HandshakeSignatureValid, TlsError>) -> Result<HandshakeSignatureValid, TlsError> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).holds_key = proof.is_ok();
        proof
    }
}

impl ServerCertVerifier for AcceptAnythingToLook {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|certificate| certificate.to_vec()).collect();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).chain = chain;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.remember(verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.remember(verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
