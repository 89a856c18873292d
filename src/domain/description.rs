//! A certificate described for people and for programs: the answer of `show`.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Serialize, Serializer};

use super::certificate::Certificate;
use super::identifier::Identifier;
use super::policy;
use super::time::{in_words, rfc3339};
use super::trust::Trust;

/// Everything about a chain that people ask for. As JSON, fields are only ever added.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Description {
    /// What it all comes to.
    pub verdict: Verdict,
    /// The identifiers that the leaf vouches for, sorted.
    pub identifiers: Vec<String>,
    /// Those that were wanted, and that the leaf does not vouch for. Empty where nothing was wanted.
    pub missing: Vec<String>,
    /// The leaf's subject, as a distinguished name.
    pub subject: String,
    /// The leaf's issuer, as a distinguished name.
    pub issuer: String,
    /// The leaf's first second, RFC 3339 in UTC.
    #[serde(serialize_with = "seconds")]
    pub not_before: DateTime<Utc>,
    /// The leaf's last second, RFC 3339 in UTC.
    #[serde(serialize_with = "seconds")]
    pub not_after: DateTime<Utc>,
    /// Seconds from the moment of the description to the leaf's last second; negative once it has expired.
    pub left_seconds: i64,
    /// The leaf's key, in words: "P-256", "RSA 2048".
    pub key: String,
    /// The algorithm that the leaf is signed with, in words: "ECDSA with SHA-256".
    pub signature: String,
    /// The leaf's serial number, lower-case hexadecimal.
    pub serial: String,
    /// SHA-256 of the leaf, lower-case hexadecimal.
    pub fingerprint_sha256: String,
    /// SHA-256 of the leaf's public key (SubjectPublicKeyInfo), lower-case hexadecimal: the same for every certificate of one key.
    pub public_key_sha256: String,
    /// Whether the chain leads to a root that browsers trust.
    pub publicly_trusted: bool,
    /// Why it does not; absent where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_trusted_because: Option<String>,
    /// The chain as it was presented, leaf first.
    pub chain: Vec<Link>,
}

/// One certificate of the chain.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Link {
    /// Its subject, as a distinguished name.
    pub subject: String,
    /// Its issuer, as a distinguished name.
    pub issuer: String,
    /// Its first second, RFC 3339 in UTC.
    #[serde(serialize_with = "seconds")]
    pub not_before: DateTime<Utc>,
    /// Its last second, RFC 3339 in UTC.
    #[serde(serialize_with = "seconds")]
    pub not_after: DateTime<Utc>,
    /// SHA-256 of it, lower-case hexadecimal.
    pub fingerprint_sha256: String,
    /// How it is joined to the next.
    pub signed_by: SignedBy,
    /// Whether it is valid at the moment of the description.
    pub current: bool,
}

/// Who signed a certificate of a chain.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SignedBy {
    /// The certificate that follows it, as it should be.
    Next,
    /// Another than the one that follows it: the chain is broken here.
    NotNext,
    /// Itself: a root, or a self-signed leaf.
    Itself,
    /// It is the last, and its issuer is not in the chain, as it should be.
    NotPresent,
}

/// What a description comes to: the worst of what was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The leaf's last second is over.
    Expired,
    /// The leaf's first second has not come.
    NotYetValid,
    /// The leaf does not vouch for everything that was wanted.
    Mismatch,
    /// A certificate of the chain did not sign the one before it, or is not valid now.
    BrokenChain,
    /// Nothing is wrong yet, but it is due for renewal.
    ExpiresSoon,
    /// Nothing is wrong. Whether the public trusts it is told apart: private CAs are in order, too.
    Ok,
}

impl Description {
    /// Describes `chain` (leaf first) at `now`; `None` where it is empty. `wanted` is what the leaf should vouch for: a site's
    /// identifiers, the host that was asked, or nothing.
    pub fn new(chain: &[Certificate], wanted: &[Identifier], now: DateTime<Utc>) -> Option<Self> {
        let leaf = chain.first()?;
        let trust = Trust::web().leads_to(chain, now);
        let missing = leaf.missing(wanted);
        let links: Vec<_> = chain.iter().enumerate().map(|(index, one)| Link::new(one, chain.get(index + 1), now)).collect();
        Some(Self {
            verdict: verdict(leaf, &links, &missing, now),
            identifiers: leaf.identifiers.iter().map(ToString::to_string).collect(),
            missing: missing.iter().map(ToString::to_string).collect(),
            subject: leaf.subject.clone(),
            issuer: leaf.issuer.clone(),
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            left_seconds: (leaf.not_after - now).num_seconds(),
            key: leaf.key_words.clone(),
            signature: leaf.signature_words(),
            serial: leaf.serial.clone(),
            fingerprint_sha256: leaf.fingerprint.clone(),
            public_key_sha256: leaf.public_fingerprint(),
            publicly_trusted: trust.is_ok(),
            not_trusted_because: trust.err().map(|error| error.to_string()),
            chain: links,
        })
    }

    /// The same for people: label and value of each line. Whoever made the certificate has no say in what a terminal does: control
    /// characters are escaped.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![("verdict", self.verdict.to_string()), ("names", or_none(&self.identifiers))];
        if !self.missing.is_empty() {
            lines.push(("missing", self.missing.join(", ")));
        }
        lines.extend([
            ("subject", or_none(std::slice::from_ref(&self.subject))),
            ("issuer", self.issuer.clone()),
            ("valid from", rfc3339(&self.not_before)),
            ("valid to", format!("{} ({})", rfc3339(&self.not_after), self.left())),
            ("key", self.key.clone()),
            ("signature", self.signature.clone()),
            ("serial", self.serial.clone()),
            ("SHA-256", self.fingerprint_sha256.clone()),
            ("key SHA-256", self.public_key_sha256.clone()),
            ("public trust", self.not_trusted_because.clone().map_or_else(|| "yes".to_owned(), |why| format!("no: {why}"))),
        ]);
        lines.extend(self.chain.iter().enumerate().map(|(index, link)| ("chain", format!("{}. {}", index + 1, link.words()))));
        lines.into_iter().map(|(label, value)| (label, harmless(&value))).collect()
    }

    fn left(&self) -> String {
        let words = in_words(std::time::Duration::from_secs(self.left_seconds.unsigned_abs()));
        if self.left_seconds < 0 { format!("{words} ago") } else { format!("in {words}") }
    }
}

impl Link {
    fn new(certificate: &Certificate, next: Option<&Certificate>, now: DateTime<Utc>) -> Self {
        let signed_by = match next {
            Some(next) if certificate.is_signed_by(next) => SignedBy::Next,
            Some(_) => SignedBy::NotNext,
            None if certificate.is_self_signed() => SignedBy::Itself,
            None => SignedBy::NotPresent,
        };
        Self {
            subject: certificate.subject.clone(),
            issuer: certificate.issuer.clone(),
            not_before: certificate.not_before,
            not_after: certificate.not_after,
            fingerprint_sha256: certificate.fingerprint.clone(),
            signed_by,
            current: certificate.is_current(now),
        }
    }

    fn words(&self) -> String {
        let joined = match self.signed_by {
            SignedBy::Next => "signed by the next".to_owned(),
            SignedBy::NotNext => format!("NOT signed by the next, but by {}", self.issuer),
            SignedBy::Itself => "signed by itself".to_owned(),
            SignedBy::NotPresent => format!("signed by {}", self.issuer),
        };
        let dates = if self.current {
            String::new()
        } else {
            format!(", NOT valid now: {} to {}", rfc3339(&self.not_before), rfc3339(&self.not_after))
        };
        format!("{}: {joined}{dates}", or_none(std::slice::from_ref(&self.subject)))
    }
}

fn verdict(leaf: &Certificate, links: &[Link], missing: &[Identifier], now: DateTime<Utc>) -> Verdict {
    let threshold = policy::threshold(leaf.lifetime(), policy::DEFAULT_RENEW_BEFORE);
    if now > leaf.not_after {
        Verdict::Expired
    } else if now < leaf.not_before {
        Verdict::NotYetValid
    } else if !missing.is_empty() {
        Verdict::Mismatch
    } else if links.iter().any(|link| link.signed_by == SignedBy::NotNext || !link.current) {
        Verdict::BrokenChain
    } else if policy::left(leaf, now) <= threshold {
        Verdict::ExpiresSoon
    } else {
        Verdict::Ok
    }
}

impl Verdict {
    /// Whether nothing is wrong with it now.
    pub fn is_good(self) -> bool {
        matches!(self, Self::Ok | Self::ExpiresSoon)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::NotYetValid => "not yet valid",
            Self::Mismatch => "does not cover all names",
            Self::BrokenChain => "the chain is broken",
            Self::ExpiresSoon => "ok, expires soon",
            Self::Ok => "ok",
        })
    }
}

fn harmless(value: &str) -> String {
    let escaped = |character: char| if character.is_control() { character.escape_default().to_string() } else { character.to_string() };
    value.chars().map(escaped).collect()
}

fn or_none(words: &[String]) -> String {
    let words = words.join(", ");
    if words.is_empty() { "(none)".to_owned() } else { words }
}

fn seconds<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(time))
}
