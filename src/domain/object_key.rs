//! Every key of the datastore is built, and read back, here (the layout called format 1).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::site::SiteName;

/// The number of a bundle within its site: 1, 2, 3 …; it only ever goes up and is never used twice.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl Generation {
    /// The one after this. Saturates: ten digits hold three centuries of one a second.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which try at making a generation a lease stands for: 1, 2, 3 ….
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The one after this.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The key of one object, relative to the datastore's prefix.
///
/// Its segments come only from [`SiteName::file_name`], numbers and checked names: it never holds an empty segment, `.` or `..`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ObjectKey(String);

/// What a listed key stands for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listed {
    /// A bundle.
    Bundle(SiteName, Generation),
    /// A lease.
    Lease(SiteName, Generation, Attempt),
    /// A candidacy for an attempt, by the run of that name.
    Candidacy(SiteName, Generation, Attempt, String),
    /// The revocation of a certificate, by its generation and the SHA-256 of its key.
    Revocation(SiteName, Generation, String),
    /// The manifest.
    Manifest,
    /// The report of the node of that name.
    Node(String),
    /// The answer to the http-01 challenge of that token.
    Challenge(String),
    /// What a CA suggests for a site.
    Window(SiteName),
    /// A race of creates.
    Probe,
    /// Anything else, ours or not: left alone.
    Other,
}

impl ObjectKey {
    /// The record about the datastore itself.
    pub fn manifest() -> Self {
        Self("certfleet.json".to_owned())
    }

    /// Certificate and sealed key of one generation: created once, never changed.
    pub fn bundle(site: &SiteName, generation: Generation) -> Self {
        Self(format!("bundles/{}/{:010}", site.file_name(), generation.0))
    }

    /// The record of who is making a generation.
    pub fn lease(site: &SiteName, generation: Generation, attempt: Attempt) -> Self {
        Self(format!("leases/{}/{:010}-{:04}", site.file_name(), generation.0, attempt.0))
    }

    /// A run's own candidacy for an attempt, where the store cannot decide between two; `run` is hexadecimal. Releases that do not know
    /// it take it for a stranger's object; but a holder among them takes any key after its own for a later lease, and gives up.
    pub fn candidacy(site: &SiteName, generation: Generation, attempt: Attempt, run: &str) -> Self {
        Self(format!("{}-{run}", Self::lease(site, generation, attempt).0))
    }

    /// The sealed account at an issuer, or `None` where the issuer's name could leave the prefix.
    pub fn account(issuer: &str) -> Option<Self> {
        is_plain_segment(issuer).then(|| Self(format!("accounts/{issuer}")))
    }

    /// The account of key `account` as it is to be after that many changes of its key: created once, never changed.
    pub fn rollover(account: &Self, number: u32) -> Self {
        let issuer = account.0.strip_prefix("accounts/").unwrap_or(&account.0);
        Self(format!("rollovers/{issuer}/{number:04}"))
    }

    /// What is known of a certificate's revocation; `key` is the SHA-256 of its public key, hexadecimal.
    pub fn revocation(site: &SiteName, generation: Generation, key: &str) -> Self {
        Self(format!("revoked/{}/{:010}-{key}", site.file_name(), generation.0))
    }

    /// The report of a node, or `None` where the node's name could leave the prefix.
    pub fn node(name: &str) -> Option<Self> {
        is_plain_segment(name).then(|| Self(format!("nodes/{name}")))
    }

    /// The answer to the http-01 challenge of a token, or `None` where it is none.
    pub fn challenge(token: &str) -> Option<Self> {
        is_token(token).then(|| Self(format!("challenges/{token}")))
    }

    /// When the CA of a site would like it to be renewed.
    pub fn window(site: &SiteName) -> Self {
        Self(format!("windows/{}", site.file_name()))
    }

    /// A key for the racing creates by which a datastore is tried; `run` is hexadecimal.
    pub fn probe(run: &str, round: usize) -> Self {
        Self(format!("probes/{run}-{round:02}"))
    }

    /// A key for trying out what credentials can do beside the fleet's own prefix; `run` is hexadecimal.
    pub fn beside(run: &str) -> Self {
        Self(format!("{run}.certfleet-doctor"))
    }

    /// The prefix of every bundle of a site.
    pub fn bundles_prefix(site: &SiteName) -> String {
        format!("bundles/{}/", site.file_name())
    }

    /// The prefix of every lease on a generation, and of every candidacy for one.
    pub fn leases_prefix(site: &SiteName, generation: Generation) -> String {
        format!("leases/{}/{:010}-", site.file_name(), generation.0)
    }

    /// The key as text, without the datastore's own prefix.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a key that a listing yielded; `None` when it could not have come from here (a stranger's object).
    pub fn from_listing(text: &str) -> Option<Self> {
        let safe = text.split('/').all(is_plain_segment);
        safe.then(|| Self(text.to_owned()))
    }

    /// What this key stands for.
    pub fn listed(&self) -> Listed {
        let mut segments = self.0.split('/');
        match (segments.next(), segments.next(), segments.next(), segments.next()) {
            (Some("certfleet.json"), None, None, None) => Listed::Manifest,
            (Some("probes"), Some(name), None, None) if is_probe(name) => Listed::Probe,
            (Some("challenges"), Some(token), None, None) if is_token(token) => Listed::Challenge(token.to_owned()),
            (Some("nodes"), Some(node), None, None) => Listed::Node(node.to_owned()),
            (Some("windows"), Some(site), None, None) => SiteName::from_file_name(site).map_or(Listed::Other, Listed::Window),
            (Some("bundles"), Some(site), Some(number), None) => match (SiteName::from_file_name(site), digits(number, 10)) {
                (Ok(site), Some(generation)) => Listed::Bundle(site, Generation(generation)),
                _ => Listed::Other,
            },
            (Some("revoked"), Some(site), Some(name), None) => revocation(site, name).unwrap_or(Listed::Other),
            (Some("leases"), Some(site), Some(name), None) => lease(site, name).unwrap_or(Listed::Other),
            _ => Listed::Other,
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain_segment(segment: &str) -> bool {
    let dots = segment == "." || segment == "..";
    !segment.is_empty() && !dots && segment.len() <= 255 && segment.chars().all(|c| !c.is_control() && c != '/' && c != '\\')
}

/// Whether it is base64url and nothing else (RFC 8555 section 8.3).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
}

/// A lease, or a candidacy for one.
fn lease(site: &str, name: &str) -> Option<Listed> {
    let mut parts = name.splitn(3, '-');
    let site = SiteName::from_file_name(site).ok()?;
    let generation = Generation(digits(parts.next()?, 10)?);
    let attempt = Attempt(u32::try_from(digits(parts.next()?, 4)?).ok()?);
    match parts.next() {
        None => Some(Listed::Lease(site, generation, attempt)),
        Some(run) if is_run(run) => Some(Listed::Candidacy(site, generation, attempt, run.to_owned())),
        Some(_) => None,
    }
}

fn revocation(site: &str, name: &str) -> Option<Listed> {
    let (number, key) = name.split_once('-')?;
    let is_digest = key.len() == 64 && is_hexadecimal(key);
    let (site, generation) = (SiteName::from_file_name(site).ok()?, Generation(digits(number, 10)?));
    is_digest.then(|| Listed::Revocation(site, generation, key.to_owned()))
}

/// Whether it is the name of a run: 32 hexadecimal digits.
fn is_run(name: &str) -> bool {
    name.len() == 32 && is_hexadecimal(name)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// Whether [`ObjectKey::probe`] could have made it: a run and a number.
fn is_probe(name: &str) -> bool {
    name.split_once('-').is_some_and(|(run, round)| is_run(run) && digits(round, 2).is_some())
}

fn digits(text: &str, width: usize) -> Option<u64> {
    let plain = text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(name: &str) -> SiteName {
        name.parse().expect("a site name")
    }

    #[test]
    fn keys_are_those_of_format_1() {
        let wildcard = site("*.example.com");
        assert_eq!(ObjectKey::bundle(&wildcard, Generation(7)).as_str(), "bundles/_wildcard.example.com/0000000007");
        let staging = site("www.example.com+staging");
        assert_eq!(ObjectKey::lease(&staging, Generation(12), Attempt(3)).as_str(), "leases/www.example.com+staging/0000000012-0003");
        assert_eq!(ObjectKey::manifest().as_str(), "certfleet.json");
        let account = ObjectKey::account("letsencrypt").expect("a key");
        assert_eq!((account.as_str(), ObjectKey::rollover(&account, 3).as_str()), ("accounts/letsencrypt", "rollovers/letsencrypt/0003"));
        let node = ObjectKey::node("ws-1").expect("a key");
        assert_eq!(ObjectKey::probe(&"0f".repeat(16), 3).listed(), Listed::Probe);
        assert_eq!((node.as_str(), node.listed()), ("nodes/ws-1", Listed::Node("ws-1".to_owned())));
    }

    #[test]
    fn keys_are_read_back() {
        for name in ["www.example.com", "*.example.com", "192.0.2.1", "2001:db8::1", "a.example+staging"] {
            let bundle = ObjectKey::bundle(&site(name), Generation(42));
            assert_eq!(bundle.listed(), Listed::Bundle(site(name), Generation(42)));
            assert_eq!(ObjectKey::window(&site(name)).listed(), Listed::Window(site(name)));
            let lease = ObjectKey::lease(&site(name), Generation(42), Attempt(2));
            assert_eq!(lease.listed(), Listed::Lease(site(name), Generation(42), Attempt(2)));
            let run = "0a".repeat(16);
            let candidacy = ObjectKey::candidacy(&site(name), Generation(42), Attempt(2), &run);
            assert_eq!(candidacy.listed(), Listed::Candidacy(site(name), Generation(42), Attempt(2), run));
            let key = "0b".repeat(32);
            let revocation = ObjectKey::revocation(&site(name), Generation(42), &key);
            assert_eq!(revocation.listed(), Listed::Revocation(site(name), Generation(42), key));
            assert!(candidacy > lease && candidacy.as_str().starts_with(&ObjectKey::leases_prefix(&site(name), Generation(42))));
        }
    }

    #[test]
    fn strangers_are_left_alone() {
        for text in [
            "bundles/www.example.com/7",
            "bundles/WWW.example.com/0000000007",
            "bundles/www.example.com/00000000x7",
            "bundles//0000000007",
            "leases/a.example/1",
            "leases/a.example/0000000001-0001-backup",
            "leases/a.example/0000000001-0001-",
            "leases/a.example/0000000001-",
            "revoked/a.example/0000000001-0b",
            "x",
        ] {
            if let Some(key) = ObjectKey::from_listing(text) {
                assert_eq!(key.listed(), Listed::Other, "{text}");
            }
        }
        for text in ["bundles/../0000000007", "a//b", "/a", "a/", "", "a\nb"] {
            assert_eq!(ObjectKey::from_listing(text), None, "{text:?}");
        }
        assert_eq!(ObjectKey::account("../x"), None);
        assert_eq!(ObjectKey::node("../x"), None);
    }
}
