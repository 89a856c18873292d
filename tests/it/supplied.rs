//! Certificates as people have them, made by the real `openssl`.

use certfleet::domain::identifier::Identifier;
use certfleet::domain::supplied::{GivenAs, Material, Supplied, SuppliedError, supplied};
use chrono::{DateTime, Utc};

mod accepted;
mod refused;

const SITE: [&str; 2] = ["www.example.test", "a.w.example.test"];

fn identifiers(names: &[&str]) -> Vec<Identifier> {
    names.iter().map(|name| name.parse().expect("an identifier")).collect()
}

/// What is handed over: name, content, what the person says it is.
type Given<'a> = (&'a str, Vec<u8>, GivenAs);

fn hand_over(given: &[Given<'_>], password: Option<&str>, names: &[&str], now: DateTime<Utc>) -> Result<Supplied, SuppliedError> {
    let materials: Vec<_> = given.iter().map(|(name, bytes, given_as)| Material { name, bytes, given_as: *given_as }).collect();
    supplied(&materials, password, &identifiers(names), now)
}

fn pair(chain: Vec<u8>, key: Vec<u8>) -> Vec<Given<'static>> {
    vec![("chain.pem", chain, GivenAs::Chain), ("site.key", key, GivenAs::Key)]
}

fn edited(bytes: &[u8], edit: impl Fn(&str) -> String) -> Vec<u8> {
    edit(std::str::from_utf8(bytes).expect("text")).into_bytes()
}
