//! What can be wrong with a configuration, said so that it can be put right: where, what, and what would be valid.

use std::fmt;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::keys;

/// Where a setting was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Place {
    /// In a file; lines and columns are counted from 1, columns in characters.
    File {
        /// The file, as it was named or found.
        path: PathBuf,
        /// The line.
        line: usize,
        /// The column.
        column: usize,
    },
    /// In an environment variable of this name.
    Variable(String),
    /// On the command line.
    Arguments,
    /// Nowhere: it is the name that the machine gives itself.
    HostName,
}

/// A setting, and where it was written.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Setting {
    /// The place of its value; of its table where it is missing.
    pub place: Place,
    /// Its table and its key: `[datastore] region`.
    pub key: String,
}

/// Why there are no settings. Always a matter of usage: exit code 2, and nothing was touched.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file that was named, or found, but cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file that is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where it stops being TOML.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that this release does not have.
    #[error("{place}: unknown key {key:?} {}", table_words(table))]
    UnknownKey {
        /// The key's place.
        place: Place,
        /// The key.
        key: String,
        /// The table it stands in; empty for the top level.
        table: String,
        /// The keys that this table has.
        known: Vec<String>,
    },
    /// A key that must be there and is not.
    #[error("{at} is missing")]
    MissingKey {
        /// The setting.
        at: Box<Setting>,
        /// What to write.
        hint: String,
    },
    /// A value of another type than the key has.
    #[error("{at} must be {wanted}, not {found}")]
    WrongType {
        /// The setting.
        at: Box<Setting>,
        /// What is wanted, in words.
        wanted: &'static str,
        /// What is there, in words.
        found: String,
        /// How to write it.
        hint: String,
    },
    /// A word that is not one of those the key takes, or a name that nothing has.
    #[error("{at}: there is no {what} {value:?}")]
    Unknown {
        /// The setting.
        at: Box<Setting>,
        /// What it should be the name of: "solver", "key type".
        what: &'static str,
        /// What was written.
        value: String,
        /// What would have been valid.
        known: Vec<String>,
    },
    /// A valid value that this release cannot carry out yet.
    #[error("{at}: {value:?} is not supported by this release")]
    Unsupported {
        /// The setting.
        at: Box<Setting>,
        /// What was written.
        value: String,
        /// What is supported.
        supported: String,
    },
    /// A secret written in plain text.
    #[error("{at} is written in plain text; secrets are never kept in the configuration")]
    PlainSecret {
        /// The setting. The value itself is not repeated.
        at: Box<Setting>,
    },
    /// A value that breaks a rule.
    #[error("{at}: {why}")]
    Rejected {
        /// The setting.
        at: Box<Setting>,
        /// The rule it breaks.
        why: String,
        /// What to do about it.
        hint: String,
    },
    /// A secret that could not be read from where the configuration says it is.
    #[error("{at}: {why}")]
    Secret {
        /// The setting that says where the secret is.
        at: Box<Setting>,
        /// What happened; never the secret.
        why: String,
        /// What to do about it.
        hint: String,
        /// What the system said.
        #[source]
        source: Option<io::Error>,
    },
    /// Sites are asked for, but there are none.
    #[error("no site is configured")]
    NoSites {
        /// The configuration file, where there is one.
        path: Option<PathBuf>,
    },
    /// An issuer that has no staging counterpart.
    #[error("{site} cannot be staged: the issuer {issuer:?} has no staging counterpart")]
    NoStaging {
        /// The site.
        site: String,
        /// The issuer.
        issuer: String,
    },
}

impl Setting {
    pub(super) fn new(place: Place, key: &str) -> Self {
        Self { place, key: key.to_owned() }
    }

    pub(super) fn rejected(self, why: impl fmt::Display, hint: impl fmt::Display) -> ConfigError {
        ConfigError::Rejected { at: self.into(), why: why.to_string(), hint: hint.to_string() }
    }
}

impl ConfigError {
    /// What a person can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable { path, source } if source.kind() == io::ErrorKind::NotFound => {
                format!("`certfleet --config {} init` writes a commented one", path.display())
            }
            Self::Unreadable { .. } => "check that it is a text file that you may read".to_owned(),
            Self::Syntax { .. } => "the file is TOML (https://toml.io): strings stand in quotes, key = \"value\"".to_owned(),
            Self::UnknownKey { key, table, known, .. } => match keys().iter().find(|(name, names)| name != table && names.contains(&key.as_str())) {
                Some((elsewhere, _)) if nearest(key, known).is_none() => belongs_words(key, elsewhere),
                _ => suggestion(key, known),
            },
            Self::Unknown { value, known, .. } => suggestion(value, known),
            Self::Unsupported { supported, .. } => format!("supported: {supported}"),
            Self::PlainSecret { .. } => {
                r#"write { env = "NAME" }, { file = "PATH" } or { command = ["prog", "arg"] }, and change a secret that others may have read"#.to_owned()
            }
            Self::MissingKey { hint, .. } | Self::WrongType { hint, .. } | Self::Rejected { hint, .. } | Self::Secret { hint, .. } => hint.clone(),
            Self::NoSites { path: Some(path) } => format!("add [[site]] with name = \"www.example.com\" to {}", path.display()),
            Self::NoSites { path: None } => "name one (`certfleet ensure www.example.com`), or write a certfleet.toml (`certfleet init`)".to_owned(),
            Self::NoStaging { issuer, .. } => {
                format!("define [issuer.{issuer}-staging] with the CA's test directory and staging = true")
            }
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.key)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Arguments => f.write_str("command line"),
            Self::HostName => f.write_str("host name of this machine"),
        }
    }
}

/// How alike two words must be (Jaro-Winkler, 0 to 1) for one to be taken for a slip of the other.
const ALIKE: f64 = 0.8;

/// The known word that `word` was probably meant to be: one slip of the fingers away, or much alike.
fn nearest<'a>(word: &str, known: &'a [String]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |candidate: &str| {
        let candidate = candidate.to_lowercase();
        let one_slip = word.len() > 2 && strsim::osa_distance(&word, &candidate) == 1;
        if one_slip { 1.0 } else { strsim::jaro_winkler(&word, &candidate) }
    };
    let best = known.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) >= ALIKE).then_some(best)
}

fn suggestion(word: &str, known: &[String]) -> String {
    match nearest(word, known) {
        Some(best) => format!("did you mean {best:?}?"),
        None if known.is_empty() => "there is none to choose from".to_owned(),
        None => format!("valid here: {}", known.join(", ")),
    }
}

fn table_words(table: &str) -> String {
    if table.is_empty() { "at the top level".to_owned() } else { format!("in {table}") }
}

fn belongs_words(key: &str, table: &str) -> String {
    if table.is_empty() {
        format!("{key:?} belongs at the top of the file, before the first [table]")
    } else {
        format!("{key:?} belongs in {table}")
    }
}
