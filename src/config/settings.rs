//! The settings as the rest of the program sees them: complete, checked, every path whole.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use super::datastore::DatastoreSettings;
use super::error::{ConfigError, Place, Setting};
use super::issuers::{self, IssuerSettings};
use super::sites;
use super::solvers::SolverSettings;
use super::targets::TargetSettings;
use crate::domain::identifier::Identifier;
use crate::domain::site::{Lineage, Site, SiteName};

/// Everything that is configured.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Where it comes from.
    pub origin: Origin,
    /// The mail address that CAs are told.
    pub contact: Option<String>,
    /// The cloud that the servers run at: a path segment of runtimedata.
    pub cloudhost: String,
    /// The name of this build: a path segment of runtimedata.
    pub build_identifier: String,
    /// Where scripts are looked for, beside the configuration file: `dns/<provider>`, `http/<provider>`.
    pub providerscripts: PathBuf,
    /// The build machine's own directory.
    pub runtimedata: PathBuf,
    /// The datastore.
    pub datastore: DatastoreSettings,
    /// The configured sites, in the file's order; none where there is no file. Commands ask [`Settings::select`].
    pub sites: Vec<Site>,
    /// The issuers by name, the built-in ones included.
    pub issuers: BTreeMap<String, IssuerSettings>,
    /// The solvers by name.
    pub solvers: BTreeMap<String, SolverSettings>,
    /// What bundles are installed into on a node.
    pub targets: Vec<TargetSettings>,
    /// The agent of this machine.
    pub agent: AgentSettings,
}

/// Where the sites come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Origin {
    /// This file.
    File(PathBuf),
    /// The environment of the Agile Deployment Toolkit, and this file for what the environment does not say.
    Toolkit(Option<PathBuf>),
    /// There is neither: any site may be named on the command line, and gets its certificates from the local CA.
    Defaults,
}

/// `[agent]`: this machine among the nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentSettings {
    /// The name of this node.
    pub node: String,
    /// Whether it may renew.
    pub role: Role,
    /// The most that a start is put off by.
    pub splay: Duration,
    /// A node that is silent for longer is reported.
    pub stale_after: Duration,
}

/// Whether a node may renew.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// It takes part in elections.
    Renewer,
    /// It only installs what others renewed.
    Follower,
}

impl Settings {
    /// `<runtimedata>/<cloudhost>/<build_identifier>/ssl`: a directory per site, with its PEM files.
    pub fn ssl_dir(&self) -> PathBuf {
        self.runtimedata.join(&self.cloudhost).join(&self.build_identifier).join("ssl")
    }

    /// `<runtimedata>/local-ca`: the local CA's root and its key.
    pub fn local_ca_dir(&self) -> PathBuf {
        self.runtimedata.join("local-ca")
    }

    /// The sites that a command is about: those named, in the order named and each once, or all configured ones where none is named.
    ///
    /// A name with `+staging` stands for the site's staging lineage. Without a file any name is a site.
    pub fn select(&self, names: &[String]) -> Result<Vec<Site>, ConfigError> {
        if self.sites.is_empty() && (names.is_empty() || self.origin != Origin::Defaults) {
            let path = match &self.origin {
                Origin::File(path) => Some(path.clone()),
                Origin::Toolkit(_) | Origin::Defaults => None,
            };
            return Err(ConfigError::NoSites { path });
        }
        if names.is_empty() {
            return Ok(self.sites.clone());
        }
        let mut seen = BTreeSet::new();
        let mut selected = Vec::new();
        for name in names {
            let site = self.find(name)?;
            if seen.insert(site.name.clone()) {
                selected.push(site);
            }
        }
        Ok(selected)
    }

    fn find(&self, text: &str) -> Result<Site, ConfigError> {
        let name: SiteName = text.parse().map_err(|error| {
            Setting::new(Place::Arguments, "SITE").rejected(error, "a site is called by its host name: www.example.com")
        })?;
        let base = match self.origin {
            Origin::Defaults => sites::from_the_command_line(name.identifier()),
            _ => self.configured(name.identifier(), text)?,
        };
        match name.lineage() {
            Lineage::Live => Ok(base),
            Lineage::Staging => self.staging(&base),
        }
    }

    fn configured(&self, identifier: &Identifier, text: &str) -> Result<Site, ConfigError> {
        let site = self.sites.iter().find(|site| site.name.identifier() == identifier);
        site.cloned().ok_or_else(|| ConfigError::Unknown {
            at: Setting::new(Place::Arguments, "SITE").into(),
            what: "site",
            value: text.to_owned(),
            known: self.sites.iter().map(|site| site.name.identifier().to_string()).collect(),
        })
    }

    /// The staging lineage of a site. Each live ACME issuer is replaced by its staging counterpart: the issuer that is called the
    /// same with `-staging` at the end, as `letsencrypt-staging` is for `letsencrypt`. Local CA and self-signed stay.
    pub fn staging(&self, site: &Site) -> Result<Site, ConfigError> {
        let issuers = site.issuers.iter().map(|name| self.staged_issuer(name, site)).collect::<Result<_, _>>()?;
        let name = SiteName::new(site.name.identifier().clone(), Lineage::Staging);
        Ok(Site { name, issuers, ..site.clone() })
    }

    fn staged_issuer(&self, name: &str, site: &Site) -> Result<String, ConfigError> {
        let lineage = |name: &str| self.issuers.get(name).and_then(IssuerSettings::lineage);
        if lineage(name) != Some(Lineage::Live) {
            return Ok(name.to_owned());
        }
        let counterpart = issuers::staging_name(name);
        match lineage(&counterpart) {
            Some(Lineage::Staging) => Ok(counterpart),
            _ => Err(ConfigError::NoStaging { site: site.name.identifier().to_string(), issuer: name.to_owned() }),
        }
    }
}
