//! The reasons for which a bundle is due, and their words.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::domain::identifier::Identifier;
use crate::domain::key_type::KeyType;
use crate::domain::revocation::Reason;
use crate::domain::time::{in_words, rfc3339};

/// Why a bundle is due.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Due {
    /// Little of its life is left.
    Expiry {
        /// What is left; zero once it has expired.
        left: Duration,
        /// At this much, or less, it is due.
        threshold: Duration,
    },
    /// It vouches for other identifiers than the configuration lists.
    Identifiers {
        /// Listed, but not in the certificate.
        missing: Vec<Identifier>,
        /// In the certificate, but not listed.
        extra: Vec<Identifier>,
    },
    /// An issuer that is preferred to the one that made it may be tried again, or its issuer is no longer listed.
    Issuer {
        /// The issuer that made it.
        made_by: String,
    },
    /// The configuration wants another kind of key.
    KeyType {
        /// What it has, in words.
        has: String,
        /// What is wanted.
        wanted: KeyType,
    },
    /// The configuration wants another ACME profile.
    Profile {
        /// What it was made with.
        has: Option<String>,
        /// What is wanted.
        wanted: Option<String>,
    },
    /// The moment that the fleet chose within the window that the CA suggests has come.
    Window {
        /// The window's first moment.
        start: DateTime<Utc>,
        /// Its end.
        end: DateTime<Utc>,
    },
    /// It is revoked, or about to be.
    Revoked {
        /// Why.
        reason: Reason,
    },
    /// A person asked for a new one.
    Forced,
}

impl Due {
    /// The stable name of the rule, for machines.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::Expiry { .. } => "expiry",
            Self::Identifiers { .. } => "identifiers",
            Self::Issuer { .. } => "issuer",
            Self::KeyType { .. } => "key-type",
            Self::Profile { .. } => "profile",
            Self::Window { .. } => "window",
            Self::Revoked { .. } => "revoked",
            Self::Forced => "forced",
        }
    }
}

impl fmt::Display for Due {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expiry { left, threshold } => {
                write!(f, "{} left, due at {}", in_words(*left), in_words(*threshold))
            }
            Self::Identifiers { missing, extra } => {
                let names = |list: &[Identifier]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
                match (missing.is_empty(), extra.is_empty()) {
                    (false, true) => write!(f, "it does not cover {}", names(missing)),
                    (true, _) => write!(f, "it also covers {}", names(extra)),
                    (false, false) => write!(f, "it does not cover {}, and also covers {}", names(missing), names(extra)),
                }
            }
            Self::Issuer { made_by } => write!(f, "it was made by {made_by}, and a preferred issuer may be asked again"),
            Self::KeyType { has, wanted } => write!(f, "its key is {has}, {wanted} is wanted"),
            Self::Profile { has, wanted } => {
                let name = |profile: &Option<String>| profile.clone().unwrap_or_else(|| "the default".to_owned());
                write!(f, "its profile is {}, {} is wanted", name(has), name(wanted))
            }
            Self::Window { start, end } => write!(f, "its CA asks for a renewal between {} and {}", rfc3339(start), rfc3339(end)),
            Self::Revoked { reason } => write!(f, "a certificate of its key is revoked ({reason})"),
            Self::Forced => f.write_str("forced"),
        }
    }
}
