//! Certificates of a CA that nobody trusts, for servers inside the test process.

use std::sync::Arc;

use certfleet::domain::bundle::Bundle;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// A server's configuration with a certificate for `names`, and the PEM of the root it leads to.
pub fn server_config(names: &[String]) -> (Arc<ServerConfig>, String) {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "a root that only this test knows");
    let certificate = root.self_signed(&root_key).expect("a root");
    let issuer = Issuer::new(root, root_key);

    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a leaf");
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
    let config = config.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).expect("a configuration");
    (Arc::new(config), certificate.pem())
}

/// A bundle for `names` that a root of its own has signed.
pub fn bundle(names: &[&str]) -> Bundle {
    let root_key = KeyPair::generate().expect("a key");
    let mut root = CertificateParams::default();
    root.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    root.distinguished_name.push(DnType::CommonName, "a root that only this test knows");
    let certificate = root.self_signed(&root_key).expect("a root");
    let issuer = Issuer::new(root, root_key);

    let key = KeyPair::generate().expect("a key");
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut leaf = CertificateParams::new(names).expect("names");
    // OpenSSL tells certificates of one issuer apart by it.
    leaf.serial_number = Some(rcgen::SerialNumber::from_slice(&key.public_key_raw()[1..17]));
    let leaf = leaf.signed_by(&key, &issuer).expect("a leaf");
    Bundle::from_pem(&format!("{}{}", leaf.pem(), certificate.pem()), &key.serialize_pem()).expect("a bundle")
}
