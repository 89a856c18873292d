//! pebble, Let's Encrypt's test CA, with its DNS server `pebble-challtestsrv`. All on 127.0.0.1, on free ports.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use super::http::HttpClient;
use super::process::{Subprocess, free_port, tool};

/// How long a server may take to start on a busy machine: pebble makes several RSA keys first.
const START: Duration = Duration::from_secs(60);

/// How pebble behaves. The default is prompt and without surprises.
#[derive(Clone, Debug)]
pub struct PebbleOptions {
    /// How many of a hundred good nonces are refused.
    pub nonce_reject_percent: u8,
    /// How many of a hundred authorizations that are valid already are used again.
    pub authz_reuse_percent: u8,
    /// The longest pause before a validation, in seconds: a random one up to it is made. `None`: no pause.
    pub validation_pause_seconds: Option<u8>,
    /// Key identifier and base64url key of the one customer: accounts must be bound to it.
    pub eab: Option<(String, String)>,
    /// How many intermediates lie between leaf and root.
    pub intermediates: u8,
    /// How many more roots it offers chains to.
    pub alternate_roots: u8,
    /// Its profiles and how long their certificates live, in seconds. None: its own, `default` and `shortlived`.
    pub profiles: Vec<(String, u64)>,
    /// The DNS server that it asks; `None`: its own, where everything is at 127.0.0.1.
    pub dns_server: Option<SocketAddr>,
}

impl Default for PebbleOptions {
    fn default() -> Self {
        Self {
            nonce_reject_percent: 0,
            authz_reuse_percent: 0,
            validation_pause_seconds: None,
            eab: None,
            intermediates: 1,
            alternate_roots: 0,
            profiles: Vec::new(),
            dns_server: None,
        }
    }
}

/// A running CA. Dropping it ends it and its DNS server.
#[derive(Debug)]
pub struct Pebble {
    /// Where it looks for http-01 answers, on 127.0.0.1 whatever the name.
    pub http_port: u16,
    /// The management API of its DNS server: `POST {dns_api}/set-txt`.
    pub dns_api: String,
    /// Where it looks for tls-alpn-01 answers, on 127.0.0.1 whatever the name.
    pub tls_port: u16,
    /// Its own management API: `POST {management}/set-renewal-info/`.
    pub management: String,
    port: u16,
    root_pem: String,
    issuance_root_pem: String,
    client: HttpClient,
    server: Subprocess,
    _dns: Subprocess,
    _directory: TempDir,
}

impl Pebble {
    /// Starts it, and returns once it answers.
    pub async fn start(options: PebbleOptions) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root_pem = certificates(directory.path(), &["localhost", "127.0.0.1"]);
        let client = HttpClient::trusting(&root_pem);
        let [port, management, http_port, tls_port, dns_port, dns_management] = std::array::from_fn(|_| free_port());
        let local = |port: u16| format!("127.0.0.1:{port}");

        let mut dns = Command::new(tool("pebble/usr/bin/pebble-challtestsrv"));
        dns.args(["-http01", "", "-https01", "", "-tlsalpn01", "", "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""]);
        dns.args(["-dnsserver", &local(dns_port), "-doh", "", "-management", &local(dns_management)]);
        let mut dns = Subprocess::spawn(&dns, directory.path().join("dns.log"));

        let (required, keys) = match &options.eab {
            Some((kid, key)) => (true, json!({ kid: key })),
            None => (false, json!({})),
        };
        let mut config = json!({ "pebble": {
            "listenAddress": local(port),
            "managementListenAddress": local(management),
            "certificate": directory.path().join("server.pem"),
            "privateKey": directory.path().join("server.key"),
            "httpPort": http_port,
            "tlsPort": tls_port,
            "externalAccountBindingRequired": required,
            "externalAccountMACKeys": keys,
        }});
        if !options.profiles.is_empty() {
            let profiles = options
                .profiles
                .iter()
                .map(|(name, seconds)| (name.clone(), json!({ "description": "a profile of the test", "validityPeriod": seconds })));
            config["pebble"]["profiles"] = profiles.collect::<serde_json::Map<_, _>>().into();
        }
        let file = directory.path().join("config.json");
        std::fs::write(&file, config.to_string()).expect("a file");
        let mut pebble = Command::new(tool("pebble/usr/bin/pebble"));
        let dns_server = options.dns_server.map_or_else(|| local(dns_port), |address| address.to_string());
        pebble.arg("-config").arg(&file).args(["-dnsserver", &dns_server]);
        pebble.env("PEBBLE_WFE_NONCEREJECT", options.nonce_reject_percent.to_string());
        pebble.env("PEBBLE_AUTHZREUSE", options.authz_reuse_percent.to_string());
        pebble.env("PEBBLE_CHAIN_LENGTH", options.intermediates.to_string());
        pebble.env("PEBBLE_ALTERNATE_ROOTS", options.alternate_roots.to_string());
        match options.validation_pause_seconds {
            None => pebble.env("PEBBLE_VA_NOSLEEP", "1"),
            Some(seconds) => pebble.env("PEBBLE_VA_SLEEPTIME", seconds.to_string()),
        };
        let mut server = Subprocess::spawn(&pebble, directory.path().join("pebble.log"));
        for port in [port, management] {
            server.wait_for_port(([127, 0, 0, 1], port).into(), START);
        }
        dns.wait_for_port(([127, 0, 0, 1], dns_management).into(), START);

        let issuance_root = client.get(&format!("https://{}/roots/0", local(management))).await;
        Self {
            http_port,
            dns_api: format!("http://{}", local(dns_management)),
            tls_port,
            management: format!("https://{}", local(management)),
            port,
            root_pem,
            issuance_root_pem: String::from_utf8(issuance_root.into()).expect("PEM"),
            client,
            server,
            _dns: dns,
            _directory: directory,
        }
    }

    /// Where it listens: `127.0.0.1:14000`.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL of its directory.
    pub fn directory_url(&self) -> String {
        format!("https://{}/dir", self.authority())
    }

    /// The root of its own TLS certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// The root of the chains it issues.
    pub fn issuance_root_pem(&self) -> &str {
        &self.issuance_root_pem
    }

    /// The root that one of its chains leads to: 0 is that of the default one.
    pub async fn root(&self, number: u8) -> String {
        let root = self.client.get(&format!("{}/roots/{number}", self.management)).await;
        String::from_utf8(root.into()).expect("PEM")
    }

    /// A client that trusts its TLS certificate.
    pub fn client(&self) -> &HttpClient {
        &self.client
    }

    /// What it has printed.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// How many certificates it has issued.
    pub fn issued(&self) -> usize {
        self.log().matches("Issued certificate serial").count()
    }

    /// Makes `name` lead to `address` instead of 127.0.0.1.
    pub async fn set_address(&self, name: &str, address: &str) {
        self.client.post(&format!("{}/add-a", self.dns_api), &json!({ "host": format!("{name}."), "addresses": [address] })).await;
    }
}

/// Makes a small CA and a certificate for a server called `names` in `directory`: `server.pem`, `server.key`. Returns the root.
pub fn certificates(directory: &Path, names: &[&str]) -> String {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "root of a test directory");
    let root_pem = root.self_signed(&root_key).expect("a root").pem();
    let issuer = Issuer::new(root, root_key);
    let key = KeyPair::generate().expect("a key");
    let names: Vec<_> = names.iter().map(ToString::to_string).collect();
    let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a certificate");
    std::fs::write(directory.join("server.pem"), leaf.pem()).expect("a file");
    std::fs::write(directory.join("server.key"), key.serialize_pem()).expect("a file");
    root_pem
}
