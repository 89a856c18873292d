//! What a node remembers between its runs. It only saves work: without it, everything is looked at anew.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::domain::node_report::NodeReport;
use crate::domain::object_key::Generation;
use crate::domain::policy::Due;
use crate::domain::record::{self, Manifest};
use crate::domain::renewal_window::WindowRecord;
use crate::domain::site::SiteName;
use crate::system::files::{self, FileError};

/// The file in the place of a machine.
const FILE: &str = "node.json";

/// The memory of a node.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct NodeState {
    version: u32,
    /// The datastore's manifest, as it was when it was last read.
    pub manifest: Option<KnownManifest>,
    /// The report that was last written to the datastore.
    pub report: Option<NodeReport>,
    /// What was installed, and seen to be whole; in the order of directory and site.
    pub places: Vec<KnownPlace>,
    /// What CAs suggest about renewals, as it was last read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<KnownWindow>,
}

/// What a CA suggests, at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KnownWindow {
    /// The ETag of its object: while the listing shows the same, it need not be read; empty where it is not known yet.
    pub etag: String,
    /// What it says.
    pub record: WindowRecord,
}

/// The manifest at one moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KnownManifest {
    /// Its ETag: while the listing shows the same, it need not be read.
    pub etag: String,
    /// What it says.
    pub manifest: Manifest,
}

/// A generation in one directory.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct KnownPlace {
    /// The directory with `live` and `archive`.
    pub ssl_root: PathBuf,
    /// The file name of the site.
    pub site: String,
    /// What lies there.
    pub generation: Generation,
    /// SHA-256 of its leaf.
    pub fingerprint: String,
    /// The last second of its leaf.
    pub not_after: DateTime<Utc>,
    /// When it will be due, by the configuration it was judged by.
    pub due_at: DateTime<Utc>,
    /// A digest of that configuration.
    pub judged_by: String,
    /// Changes when any of its files does.
    pub stamp: String,
    /// The ETag of the object in the datastore that it was compared with last; `None` where it was not, yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The servers that were seen to serve it; `None` where none was, yet.
    pub proven_by: Option<String>,
}

impl NodeState {
    /// Reads what was remembered; nothing where there is none, or where it cannot be read.
    pub fn read(place: &Path) -> Self {
        let bytes = std::fs::read(place.join(FILE)).unwrap_or_default();
        // Only a file of this very version is of use; it is long, and read once.
        serde_json::from_slice(&bytes).ok().filter(|state: &Self| state.version == record::VERSION).unwrap_or_default()
    }

    /// Keeps it.
    pub fn keep(&self, place: &Path) -> Result<(), FileError> {
        let state = Self { version: record::VERSION, ..self.clone() };
        files::replace(&place.join(FILE), &record::write(&state), files::SECRET_FILE)
    }

    /// Why a certificate is due by what its CA suggests, if it is.
    pub fn window_due(&self, site: &SiteName, fingerprint: &str, now: DateTime<Utc>) -> Option<Due> {
        let name = site.file_name();
        let known = self.windows.iter().find(|known| known.record.site == name && known.record.fingerprint == fingerprint);
        known?.record.window?.due(site, fingerprint, now)
    }

    /// What is remembered of a site in a directory.
    pub fn place(&self, ssl_root: &Path, site: &SiteName) -> Option<&KnownPlace> {
        let site = site.file_name();
        // They are kept in this order: with a thousand sites, looking through all of them for each would take as long as all else.
        let at = self.places.binary_search_by(|known| (known.ssl_root.as_path(), known.site.as_str()).cmp(&(ssl_root, site.as_str())));
        at.ok().and_then(|at| self.places.get(at))
    }
}
