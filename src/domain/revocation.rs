//! Why a certificate is revoked, and what the fleet writes down about it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::object_key::Generation;
use super::record::Sealed;

/// Why a certificate is revoked: those reasons of RFC 5280 section 5.3.1 that CAs take from subscribers, by their names there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// None is given.
    #[default]
    Unspecified,
    /// Somebody else may have the private key.
    KeyCompromise,
    /// The names, or who holds them, have changed.
    AffiliationChanged,
    /// Another certificate takes its place.
    Superseded,
    /// The site is given up.
    CessationOfOperation,
}

/// A word that is no reason.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{0:?} is no reason; reasons are: unspecified, keyCompromise, affiliationChanged, superseded, cessationOfOperation")]
pub struct UnknownReason(String);

impl Reason {
    const ALL: [Self; 5] = [Self::Unspecified, Self::KeyCompromise, Self::AffiliationChanged, Self::Superseded, Self::CessationOfOperation];

    /// Its number.
    pub fn code(self) -> u8 {
        match self {
            Self::Unspecified => 0,
            Self::KeyCompromise => 1,
            Self::AffiliationChanged => 3,
            Self::Superseded => 4,
            Self::CessationOfOperation => 5,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::KeyCompromise => "keyCompromise",
            Self::AffiliationChanged => "affiliationChanged",
            Self::Superseded => "superseded",
            Self::CessationOfOperation => "cessationOfOperation",
        }
    }
}

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|reason| reason.name() == text).ok_or_else(|| UnknownReason(text.to_owned()))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// `revoked/<site>/<generation>-<key>`: a certificate that is to be revoked, or was. No certificate of that key is used any more.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct RevocationRecord {
    /// See [`super::record::VERSION`].
    pub version: u32,
    /// The file name of the site.
    pub site: String,
    /// The generation that was named.
    pub generation: Generation,
    /// Why.
    pub reason: Reason,
    /// SHA-256 of its leaf.
    pub fingerprint: String,
    /// When it was decided, by the store's clock.
    pub at: DateTime<Utc>,
    /// How far it has got.
    pub progress: RevocationProgress,
    /// Nothing, sealed together with everything above: proof that the fleet wrote it.
    pub proof: Sealed,
}

/// How far a revocation has got.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RevocationProgress {
    /// It is decided; the CA may not know yet.
    Decided,
    /// The CA has revoked it.
    Done,
}

impl RevocationRecord {
    /// What its proof stands for.
    pub fn beside(&self) -> [String; 7] {
        let progress = match self.progress {
            RevocationProgress::Decided => "decided",
            RevocationProgress::Done => "done",
        };
        [
            "revocation".to_owned(),
            self.site.clone(),
            self.generation.to_string(),
            self.reason.name().to_owned(),
            self.fingerprint.clone(),
            self.at.to_rfc3339(),
            progress.to_owned(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_go_by_the_names_and_numbers_of_rfc_5280() {
        for (name, code) in
            [("unspecified", 0), ("keyCompromise", 1), ("affiliationChanged", 3), ("superseded", 4), ("cessationOfOperation", 5)]
        {
            let reason: Reason = name.parse().expect("a reason");
            assert_eq!(
                (reason.code(), reason.to_string(), serde_json::to_value(reason).expect("JSON")),
                (code, name.to_owned(), name.into())
            );
        }
        assert!("cACompromise".parse::<Reason>().is_err(), "only a CA says so");
    }
}
