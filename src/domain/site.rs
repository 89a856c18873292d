//! Sites: the certificate lineages of a fleet, and the names they are kept under.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::identifier::{Identifier, IdentifierError};
use super::key_type::KeyType;

/// Marks a lineage of test certificates, in files and objects alike. `+` cannot occur in an identifier.
const STAGING_SUFFIX: &str = "+staging";

/// The name of a lineage: an identifier, and whether its certificates are only for tests.
///
/// Staging and live lineages never meet: they differ in every file and object name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SiteName {
    identifier: Identifier,
    lineage: Lineage,
}

/// Whether a lineage is trusted by the public or only for tests.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Lineage {
    /// Certificates that visitors are meant to see.
    Live,
    /// Certificates of a test CA.
    Staging,
}

impl SiteName {
    /// Names the lineage of `identifier`.
    pub fn new(identifier: Identifier, lineage: Lineage) -> Self {
        Self { identifier, lineage }
    }

    /// The identifier the site is called after.
    pub fn identifier(&self) -> &Identifier {
        &self.identifier
    }

    /// Live, or staging.
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The single path segment that files and objects of this lineage are kept under.
    pub fn file_name(&self) -> String {
        let base = self.identifier.file_name();
        match self.lineage {
            Lineage::Live => base,
            Lineage::Staging => base + STAGING_SUFFIX,
        }
    }

    /// The name as it is typed in a shell, which must not read a star as a pattern.
    pub fn in_shell(&self) -> String {
        match self.identifier {
            Identifier::Wildcard(_) => format!("'{self}'"),
            Identifier::Dns(_) | Identifier::Ip(_) => self.to_string(),
        }
    }

    /// Reads [`SiteName::file_name`] back.
    pub fn from_file_name(file_name: &str) -> Result<Self, IdentifierError> {
        let (base, lineage) = split_lineage(file_name);
        Ok(Self { identifier: Identifier::from_file_name(base)?, lineage })
    }
}

impl fmt::Display for SiteName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.identifier)?;
        match self.lineage {
            Lineage::Live => Ok(()),
            Lineage::Staging => f.write_str(STAGING_SUFFIX),
        }
    }
}

impl FromStr for SiteName {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (base, lineage) = split_lineage(text);
        Ok(Self { identifier: base.parse()?, lineage })
    }
}

fn split_lineage(text: &str) -> (&str, Lineage) {
    match text.strip_suffix(STAGING_SUFFIX) {
        Some(base) => (base, Lineage::Staging),
        None => (text, Lineage::Live),
    }
}

/// How a site comes by its certificates.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Method {
    /// certfleet asks the site's issuers.
    Automatic,
    /// A person supplies them.
    Manual,
}

/// A kind of certificate that an ACME CA makes, by the name in its directory (draft-ietf-acme-profiles section 3).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What to order of a CA that does not offer it.
    pub if_missing: IfMissing,
}

/// What to do where a CA does not offer the profile that is wanted.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum IfMissing {
    /// Order nothing of that CA.
    Refuse,
    /// Order what it makes where no profile is named.
    TakeDefault,
}

impl Site {
    /// The name of the profile to ask for.
    pub fn profile_name(&self) -> Option<&str> {
        self.profile.as_ref().map(|profile| profile.name.as_str())
    }
}

/// One site as the configuration wants it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Site {
    /// The lineage.
    pub name: SiteName,
    /// Everything its certificate must vouch for; never empty.
    pub identifiers: Vec<Identifier>,
    /// Automatic or manual.
    pub method: Method,
    /// Names of issuers, the preferred one first; never empty where the method is automatic.
    pub issuers: Vec<String>,
    /// The name of the solver that ACME issuers use.
    pub solver: Option<String>,
    /// The key to ask for.
    pub key_type: KeyType,
    /// The ACME certificate profile to ask for.
    pub profile: Option<Profile>,
    /// A bundle with this much time left, or less, is due.
    pub renew_before: Duration,
}
