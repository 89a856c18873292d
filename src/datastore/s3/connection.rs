//! How a bucket is reached.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::interceptors::InterceptorContext;
use aws_sdk_s3::config::retry::{ClassifyRetry, RetryAction, RetryConfig};
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::config::{
    Builder, Credentials as Keys, RequestChecksumCalculation, ResponseChecksumValidation, SharedHttpClient, StalledStreamProtectionConfig,
};
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder as HttpBuilder, Connector};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use zeroize::Zeroizing;

use super::failure::Cause;

/// How often a call is tried in all.
pub(super) const ATTEMPTS: u32 = 3;

/// The region that requests are signed for where none is configured: what servers that have no regions expect, and what leads to
/// an answer that names the right one on AWS.
const DEFAULT_REGION: &str = "us-east-1";

/// Everything that is needed to reach a bucket. Its `Debug` shows neither keys nor a proxy's password.
#[derive(Clone)]
pub struct S3Options {
    /// The bucket's name.
    pub bucket: String,
    /// What every key of ours begins with, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The server's URL; `None` for AWS.
    pub endpoint: Option<String>,
    /// The region that requests are signed for; `None` for that of the AWS environment and profile (only with
    /// [`Credentials::Chain`]), else `us-east-1`.
    pub region: Option<String>,
    /// Where the bucket's name goes.
    pub addressing: Addressing,
    /// What the store is asked to encrypt objects with.
    pub server_side_encryption: Encryption,
    /// Who is asking.
    pub credentials: Credentials,
    /// PEM file of the roots that the endpoint's certificate must lead to, in the place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The URL of the proxy to use; `None` for what `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` say.
    pub proxy: Option<String>,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// Where the bucket's name goes in a URL.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Addressing {
    /// Before the host: `https://bucket.host/key`. Endpoints that are IP addresses are addressed by path all the same.
    #[default]
    VirtualHost,
    /// Into the path: `https://host/bucket/key`.
    Path,
}

/// Encryption on the store's side
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/serv-side-encryption.html>).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Encryption {
    /// Whatever the bucket's default is.
    #[default]
    None,
    /// With the store's own keys.
    Aes256,
    /// With a key of the key management service.
    Kms {
        /// The key; `None` for the account's default one.
        key_id: Option<String>,
    },
}

/// Who is asking.
#[derive(Clone, Default)]
pub enum Credentials {
    /// Whoever the AWS chain says: environment, profile (with SSO and processes), web identity, container, instance.
    #[default]
    Chain,
    /// This key pair; nothing of the AWS environment is read.
    Explicit {
        /// The public half.
        access_key: String,
        /// The secret half.
        secret_key: Zeroizing<String>,
    },
}

/// How long to wait, before an attempt counts as failed, and before a call does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeouts {
    /// For a connection, its TLS handshake included.
    pub connect: Duration,
    /// For one attempt at a call.
    pub attempt: Duration,
    /// For the whole call, with all its attempts and the pauses between them.
    pub operation: Duration,
}

impl Default for Timeouts {
    /// A lease is given up when it could not be refreshed for 60 s: a call must have failed well before.
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), attempt: Duration::from_secs(10), operation: Duration::from_secs(25) }
    }
}

impl fmt::Debug for S3Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, endpoint, region, addressing, server_side_encryption, credentials: _, ca_file, proxy: _, timeouts } =
            self;
        f.debug_struct("S3Options")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("endpoint", endpoint)
            .field("region", region)
            .field("addressing", addressing)
            .field("server_side_encryption", server_side_encryption)
            .field("ca_file", ca_file)
            .field("timeouts", timeouts)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chain => "Chain",
            Self::Explicit { .. } => "Explicit(…)",
        })
    }
}

/// A client that sends nothing yet.
pub(super) async fn client(options: &S3Options) -> Result<Client, Cause> {
    let http = http_client(options)?;
    let mut builder = match &options.credentials {
        Credentials::Explicit { access_key, secret_key } => {
            let region = options.region.clone().unwrap_or_else(|| DEFAULT_REGION.to_owned());
            let keys = Keys::new(access_key.clone(), secret_key.to_string(), None, None, "certfleet");
            Builder::new().behavior_version(BehaviorVersion::latest()).region(Region::new(region)).credentials_provider(keys)
        }
        Credentials::Chain => Builder::from(&aws_config::defaults(BehaviorVersion::latest()).region(region(options)).load().await),
    };
    if let Some(endpoint) = &options.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(options.timeouts.connect)
        .read_timeout(options.timeouts.attempt)
        .operation_attempt_timeout(options.timeouts.attempt)
        .operation_timeout(options.timeouts.operation);
    let config = builder
        .http_client(http)
        .force_path_style(options.addressing == Addressing::Path)
        .timeout_config(timeouts.build())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS).with_initial_backoff(Duration::from_millis(200)))
        .retry_classifier(TryAgain)
        // Bodies are small and in memory, and have deadlines of their own.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The SDK's default is to add checksums that many servers do not understand.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    Ok(Client::from_conf(config.build()))
}

/// Unlike the chain's own, this never asks the instance metadata service: off EC2 that takes seconds to fail.
fn region(options: &S3Options) -> RegionProviderChain {
    RegionProviderChain::first_try(options.region.clone().map(Region::new))
        .or_else(EnvironmentVariableRegionProvider::new())
        .or_else(ProfileFileRegionProvider::new())
        .or_else(Region::from_static(DEFAULT_REGION))
}

fn http_client(options: &S3Options) -> Result<SharedHttpClient, Cause> {
    let trust = match &options.ca_file {
        Some(file) => TrustStore::empty().with_pem_certificate(roots(file)?),
        None => TrustStore::default(),
    };
    let tls = TlsContext::builder().with_trust_store(trust).build().map_err(|error| Cause::Options(error.to_string()))?;
    let proxy = match &options.proxy {
        // The URL stays out of the error: it may hold a password.
        Some(url) => ProxyConfig::all(url.as_str()).map_err(|_| Cause::Options("the proxy's URL is not one".to_owned()))?,
        None => ProxyConfig::from_env(),
    };
    Ok(HttpBuilder::new().build_with_connector_fn(move |settings, components| {
        // Asked for once without settings, only to see that it can be made; the answer is thrown away.
        let (Some(settings), Some(components)) = (settings, components) else { return Connector::builder().build_http() };
        let mut connector = Connector::builder().connector_settings(settings.clone()).proxy_config(proxy.clone());
        connector.set_sleep_impl(components.sleep_impl());
        connector.tls_provider(Provider::rustls(CryptoMode::AwsLc)).tls_context(tls.clone()).build()
    }))
}

/// The PEM file's content, checked first: the HTTP client would panic on a bad one.
fn roots(file: &Path) -> Result<Vec<u8>, Cause> {
    let bad = |why: String| Cause::CaFile { path: file.to_owned(), why };
    let pem = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let certificates = CertificateDer::pem_slice_iter(&pem).collect::<Result<Vec<_>, _>>().map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("there is no certificate in it".to_owned()));
    }
    for certificate in certificates {
        RootCertStore::empty().add(certificate).map_err(|error| bad(error.to_string()))?;
    }
    Ok(pem)
}

/// Answers that ask for another try, which the SDK does not give them by itself: 409 where two writes of one object meet
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>), and 429 (RFC 6585 section 4).
#[derive(Debug)]
struct TryAgain;

impl ClassifyRetry for TryAgain {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        match context.response().map(|response| response.status().as_u16()) {
            Some(409) => RetryAction::transient_error(),
            Some(429) => RetryAction::throttling_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "TryAgain"
    }
}
