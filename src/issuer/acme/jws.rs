//! Signed messages (JWS, RFC 7515, as RFC 8555 section 6.2 wants them) with the key of an account or of a certificate.

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use x509_parser::prelude::FromDer as _;
use x509_parser::public_key::RSAPublicKey;

/// The curves with their names in signatures and keys (RFC 7518 sections 3.4 and 6.2.1.1).
const CURVES: [(&EcdsaSigningAlgorithm, &str, &str); 2] =
    [(&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256", "P-256"), (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384", "P-384")];

/// A private key that can sign messages.
pub(super) struct SigningKey(Pair);

enum Pair {
    Elliptic { pair: EcdsaKeyPair, algorithm: &'static str, curve: &'static str },
    Rsa(Box<RsaKeyPair>),
}

impl SigningKey {
    /// Takes a PKCS#8 key; `None` where it is damaged, or of a kind that messages are not signed with here.
    pub(super) fn from_pkcs8(pkcs8: &[u8]) -> Option<Self> {
        for (signing, algorithm, curve) in CURVES {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(signing, pkcs8) {
                return Some(Self(Pair::Elliptic { pair, algorithm, curve }));
            }
        }
        RsaKeyPair::from_pkcs8(pkcs8).ok().map(|pair| Self(Pair::Rsa(Box::new(pair))))
    }

    /// The public half (RFC 7517). Its members are the required ones, in the order that a thumbprint wants.
    pub(super) fn public(&self) -> Value {
        match &self.0 {
            Pair::Elliptic { pair, curve, .. } => {
                // An uncompressed point (SEC 1 section 2.3.3): 4, and two coordinates of one length.
                let point = pair.public_key().as_ref().get(1..).unwrap_or_default();
                let (x, y) = point.split_at(point.len() / 2);
                json!({ "crv": curve, "kty": "EC", "x": base64url(x), "y": base64url(y) })
            }
            Pair::Rsa(pair) => {
                let public = RSAPublicKey::from_der(pair.public_key().as_ref());
                let (modulus, exponent) = public.map_or((&[][..], &[][..]), |(_, public)| (public.modulus, public.exponent));
                json!({ "e": base64url(unsigned(exponent)), "kty": "RSA", "n": base64url(unsigned(modulus)) })
            }
        }
    }

    /// What CAs call the key by (RFC 7638).
    pub(super) fn thumbprint(&self) -> String {
        base64url(digest::digest(&digest::SHA256, self.public().to_string().as_bytes()).as_ref())
    }

    /// Signs a payload, or the empty one of a POST-as-GET, beside a protected header; `None` where the cryptographic library fails.
    pub(super) fn sign(&self, mut header: Value, payload: Option<&Value>) -> Option<Value> {
        header["alg"] = match &self.0 {
            Pair::Elliptic { algorithm, .. } => (*algorithm).into(),
            Pair::Rsa(_) => "RS256".into(),
        };
        let protected = base64url(header.to_string().as_bytes());
        let payload = payload.map(|payload| base64url(payload.to_string().as_bytes())).unwrap_or_default();
        let text = format!("{protected}.{payload}");
        let random = SystemRandom::new();
        let signature = match &self.0 {
            Pair::Elliptic { pair, .. } => pair.sign(&random, text.as_bytes()).ok()?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, text.as_bytes(), &mut signature).ok()?;
                signature
            }
        };
        Some(json!({ "protected": protected, "payload": payload, "signature": base64url(&signature) }))
    }
}

/// Base64url without padding, as everything in such a message is (RFC 7515 section 2).
pub(super) fn base64url(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// A positive DER integer without the zero that keeps it positive.
fn unsigned(integer: &[u8]) -> &[u8] {
    integer.strip_prefix(&[0]).unwrap_or(integer)
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
    };

    use super::*;
    use crate::domain::key_type::KeyType;
    use crate::issuer::new_key;

    #[tokio::test]
    async fn every_kind_of_key_signs_what_its_public_half_verifies() {
        let kinds: [(KeyType, &dyn VerificationAlgorithm, &str); 3] = [
            (KeyType::EcdsaP256, &ECDSA_P256_SHA256_FIXED, "ES256"),
            (KeyType::EcdsaP384, &ECDSA_P384_SHA384_FIXED, "ES384"),
            (KeyType::Rsa2048, &RSA_PKCS1_2048_8192_SHA256, "RS256"),
        ];
        for (kind, verification, algorithm) in kinds {
            let key = new_key::generate(kind).await.expect("a key");
            let message = SigningKey::from_pkcs8(key.pkcs8()).expect("a key").sign(json!({ "url": "u" }), None).expect("a message");
            let part = |name: &str| message[name].as_str().expect("a text").to_owned();
            let decoded = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(part(name)).expect("base64url");
            let header: Value = serde_json::from_slice(&decoded("protected")).expect("JSON");
            assert_eq!((header, part("payload")), (json!({ "alg": algorithm, "url": "u" }), String::new()));
            let text = format!("{}.", part("protected"));
            UnparsedPublicKey::new(verification, key.public()).verify(text.as_bytes(), &decoded("signature")).expect("a signature");
        }
    }
}
