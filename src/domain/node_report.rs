//! What a node tells the fleet about itself: `nodes/<node>`. Only the node writes it; nothing in it is secret.
//!
//! Reports are counted as a set by node, never as a number: a node that comes back under its name is the same node.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::object_key::Generation;

/// One node's report.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeReport {
    /// See [`super::record::VERSION`].
    pub version: u32,
    /// The node's name: an object copied to another name is found out.
    pub node: String,
    /// The release that runs there.
    pub certfleet: String,
    /// When the run that wrote this looked into the store, by the store's clock.
    pub last_run: DateTime<Utc>,
    /// The node's clock minus the store's, in seconds.
    pub clock_offset_secs: i64,
    /// One entry for each site and each directory that it is installed into.
    pub sites: Vec<InstalledSite>,
}

/// One site in one `ssl_root` of a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct InstalledSite {
    /// The file name of the site.
    pub site: String,
    /// The directory with `live` and `archive`.
    pub ssl_root: String,
    /// What is installed; `None` where nothing whole is.
    pub installed: Option<Installed>,
    /// What the servers present, one entry for each server.
    pub servers: Vec<Served>,
    /// What went wrong last, until it goes well again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<NodeProblem>,
}

/// A generation in its place.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Installed {
    /// Its number.
    pub generation: Generation,
    /// SHA-256 of its leaf, lower-case hexadecimal.
    pub fingerprint: String,
    /// The last second of its leaf.
    pub not_after: DateTime<Utc>,
}

/// What one server presents for a site.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Served {
    /// The kind of target, as the configuration spells it: `nginx`.
    pub target: String,
    /// Where it was asked; `None` where no `verify` is configured, and so nobody knows.
    pub address: Option<String>,
    /// SHA-256 of the leaf that it presented; `None` where it presented none, or was not asked.
    pub fingerprint: Option<String>,
    /// When it was last asked, by the store's clock.
    pub checked_at: Option<DateTime<Utc>>,
}

/// Something that went wrong on a node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct NodeProblem {
    /// What failed, and why.
    pub what: String,
    /// What a person can do about it; `None` in reports of releases that did not tell it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When it was first seen, by the store's clock.
    pub since: DateTime<Utc>,
}
