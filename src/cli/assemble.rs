//! From settings to the working parts: the datastore, the issuers with their solvers, and the fleet around them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::{
    self, AcmeSettings, ConfigError, DnsProvider, DnsSettings, Election, Http01Settings, HttpAnswer, HttpCheck, IdentitySource,
    IssuerSettings, Location, Program, S3Settings, Seal as SealSetting, Secret, Settings, SolverSettings, Sources,
};
use crate::datastore::Datastore;
use crate::datastore::directory::DirectoryDatastore;
use crate::datastore::s3::{Addressing, Credentials, Encryption, S3Datastore, S3Options, Timeouts};
use crate::domain::object_key::ObjectKey;
use crate::domain::record::{ExclusiveCreate, Holder, IssuerClass, Manifest};
use crate::domain::site::{Lineage, Site};
use crate::domain::trust::Trust;
use crate::fleet::accounts::StoredAccount;
use crate::fleet::challenges::PublicAnswers;
use crate::fleet::identity::{IdentityPlace, SealWanted};
use crate::fleet::issuers::{Anchors, Issuers, NamedIssuer};
use crate::fleet::place::{Place, spool_in};
use crate::fleet::runtimedata::Runtimedata;
use crate::fleet::seal::Seal;
use crate::fleet::{Creates, Fleet};
use crate::issuer::Issuer;
use crate::issuer::acme::{AcmeIssuer, AcmeOptions, ExternalAccount};
use crate::issuer::local_ca::{self, LocalCaIssuer, LocalCaOptions};
use crate::issuer::self_signed::SelfSigned;
use crate::solver::confirm::Confirmed;
use crate::solver::dns::acme_sh::AcmeSh;
use crate::solver::dns::zone::Resolver;
use crate::solver::dns::{Dns01, Records, providers};
use crate::solver::look::Place as Sighted;
use crate::solver::redirect::Redirect;
use crate::solver::script::Script;
use crate::solver::standalone::Standalone;
use crate::solver::stateless::Stateless;
use crate::solver::tls_alpn::TlsAlpn;
use crate::solver::webroot::Webroot;
use crate::solver::{ChallengeKind, Solver, SolverError};
use crate::system::error_chain::in_full;
use crate::system::random;

/// How long to wait for another run on this machine, or for another machine that is making a generation.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// Where a build keeps what is its own: lock, name and spool.
const PLACE: &str = ".certfleet";

/// The settings for this process.
pub(super) fn settings(config: Option<&Path>) -> Result<Settings, Failure> {
    let current_dir = std::env::current_dir().map_err(|error| Failure::new(&error, "change to a directory that exists", Exit::Failed))?;
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let sources = Sources { config, environment: &variable, current_dir: &current_dir, host_name: &host_name };
    Ok(config::load(sources)?)
}

/// The settings that a text would give at `path` on this machine.
pub(super) fn settings_of(path: &Path, text: &str) -> Result<Settings, Failure> {
    let host_name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let sources = Sources { config: None, environment: &variable, current_dir: Path::new("/"), host_name: &host_name };
    Ok(config::load_text(path, text, sources)?)
}

/// What another machine, whose name is not known, is called in its settings. Nobody calls a node so.
pub(super) const ELSEWHERE: &str = "machine whose name is not known here";

/// The settings that a text would give at `path` on another machine, of which nothing is known but that root runs it.
pub(super) fn settings_elsewhere(path: &Path, text: &str) -> Result<Settings, Failure> {
    let environment = |name: &str| (name == "HOME").then(|| "/root".to_owned());
    let sources = Sources { config: None, environment: &environment, current_dir: Path::new("/"), host_name: ELSEWHERE };
    Ok(config::load_text(path, text, sources)?)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Where this build keeps its lock, its name and its spool.
pub(super) fn place_directory(settings: &Settings) -> PathBuf {
    settings.runtimedata.join(&settings.cloudhost).join(&settings.build_identifier).join(PLACE)
}

/// The datastore. Nothing is asked of it yet.
pub(super) async fn datastore(settings: &Settings) -> Result<Arc<dyn Datastore>, Failure> {
    match &settings.datastore.location {
        Location::Directory(path) => Ok(Arc::new(DirectoryDatastore::new(path.clone()))),
        Location::S3(s3) => Ok(Arc::new(S3Datastore::connect(s3_options(s3)?).await?)),
    }
}

/// How a bucket is reached. Its secrets are fetched.
pub(super) fn s3_options(s3: &S3Settings) -> Result<S3Options, Failure> {
    let credentials = match &s3.credentials {
        None => Credentials::Chain,
        Some(pair) => {
            let access_key = resolve(&pair.access_key)?.trim().to_owned();
            Credentials::Explicit { access_key, secret_key: Zeroizing::new(resolve(&pair.secret_key)?.trim().to_owned()) }
        }
    };
    Ok(S3Options {
        bucket: s3.bucket.clone(),
        prefix: s3.prefix.clone(),
        endpoint: s3.endpoint.clone(),
        region: s3.region.clone(),
        addressing: match s3.addressing {
            config::Addressing::Path => Addressing::Path,
            config::Addressing::VirtualHost => Addressing::VirtualHost,
        },
        server_side_encryption: match &s3.encryption {
            config::ServerSideEncryption::None => Encryption::None,
            config::ServerSideEncryption::Aes256 => Encryption::Aes256,
            config::ServerSideEncryption::Kms { key_id } => Encryption::Kms { key_id: key_id.clone() },
        },
        credentials,
        ca_file: s3.ca_file.clone(),
        proxy: s3.proxy.clone(),
        timeouts: Timeouts::default(),
    })
}

/// How secrets are to be kept.
pub(super) fn seal_wanted(settings: &Settings) -> Result<SealWanted, Failure> {
    Ok(match (&settings.datastore.seal, &settings.datastore.identity) {
        (SealSetting::None, _) => SealWanted::None,
        (SealSetting::Age, IdentitySource::File(path)) => SealWanted::Age(IdentityPlace::File(path.clone())),
        (SealSetting::Age, IdentitySource::Secret(secret)) => {
            SealWanted::Age(IdentityPlace::Given { text: resolve(secret)?, origin: "the secret of [datastore] identity".to_owned() })
        }
    })
}

/// Which issuers a machine may ask.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Issuing {
    /// All of them.
    Anywhere,
    /// All but a local CA whose key is elsewhere.
    OnNode,
    /// None: their secrets are not even looked for.
    Never,
}

/// Builds the issuers of `sites` with their solvers, before anything is touched: a missing secret is found on the day it goes missing,
/// not on the day of the renewal. The seal of the accounts is put into `seal` once it is known.
pub(super) fn issuers(
    settings: &Settings,
    sites: &[Site],
    store: &Arc<dyn Datastore>,
    seal: &Arc<OnceLock<Seal>>,
    issuing: Issuing,
) -> Result<Issuers, Failure> {
    let mut solvers: BTreeMap<&str, Arc<dyn Solver>> = BTreeMap::new();
    let mut issuers = Issuers::default();
    for site in sites {
        for name in &site.issuers {
            if issuers.get(site, name).is_some() {
                continue;
            }
            let named = match settings.issuers.get(name) {
                None => return Err(Failure::usage(format!("there is no issuer {name:?}"), "add an [issuer] table for it")),
                Some(IssuerSettings::Acme(acme)) if issuing == Issuing::Never => {
                    NamedIssuer { class: IssuerClass::Acme, anchors: acme_anchors(name, acme)?, issuer: None }
                }
                Some(IssuerSettings::Acme(acme)) => {
                    let solver_name = site.solver.as_deref().unwrap_or_default();
                    let solver = match solvers.get(solver_name) {
                        Some(solver) => Arc::clone(solver),
                        None => Arc::clone(solvers.entry(solver_name).or_insert(solver(settings, solver_name, store)?)),
                    };
                    if let Some(limit) = acme.weekly_limit {
                        issuers.limit_weekly(name, limit);
                    }
                    acme_issuer(name, acme, solver, store, seal)?
                }
                Some(IssuerSettings::LocalCa { lifetime }) => {
                    let directory = settings.local_ca_dir();
                    let anchors = local_ca_anchors(settings);
                    let options = LocalCaOptions { leaf_lifetime: *lifetime, owner: None };
                    // A second local CA, made on a webserver, would be one that no client knows.
                    let here = issuing == Issuing::Anywhere || issuing == Issuing::OnNode && directory.join(local_ca::KEY_FILE).exists();
                    let issuer = here.then(|| Arc::new(LocalCaIssuer::new(directory, options)) as Arc<dyn Issuer>);
                    NamedIssuer { class: IssuerClass::LocalCa, anchors, issuer }
                }
                Some(IssuerSettings::SelfSigned { lifetime }) => {
                    let issuer = (issuing != Issuing::Never).then(|| Arc::new(SelfSigned::new(*lifetime)) as Arc<dyn Issuer>);
                    NamedIssuer { class: IssuerClass::SelfSigned, anchors: Anchors::OwnLeaf, issuer }
                }
            };
            issuers.add(site, name, named);
        }
    }
    Ok(issuers)
}

/// Whom the chains of an issuer must lead to. Those who only look need no more of it: no solver, no secret.
pub(super) fn anchors(settings: &Settings, name: &str) -> Result<Option<Anchors>, Failure> {
    Ok(match settings.issuers.get(name) {
        None => None,
        Some(IssuerSettings::Acme(acme)) => Some(acme_anchors(name, acme)?),
        Some(IssuerSettings::LocalCa { .. }) => Some(local_ca_anchors(settings)),
        Some(IssuerSettings::SelfSigned { .. }) => Some(Anchors::OwnLeaf),
    })
}

fn local_ca_anchors(settings: &Settings) -> Anchors {
    Anchors::RootFile(settings.local_ca_dir().join(local_ca::ROOT_FILE))
}

fn acme_issuer(
    name: &str,
    acme: &AcmeSettings,
    solver: Arc<dyn Solver>,
    store: &Arc<dyn Datastore>,
    seal: &Arc<OnceLock<Seal>>,
) -> Result<NamedIssuer, Failure> {
    let anchors = acme_anchors(name, acme)?;
    let chain_trust = match &anchors {
        Anchors::Given(trust) => Some(trust.clone()),
        Anchors::RootFile(_) | Anchors::OwnLeaf | Anchors::Anyone => None,
    };
    let issuer = acme_ca(name, acme, chain_trust, solver, store, seal)?;
    Ok(NamedIssuer { class: IssuerClass::Acme, anchors, issuer: Some(Arc::new(issuer)) })
}

/// An ACME CA. Its secrets and files are read; nothing is asked of it yet. Whom its chains must lead to matters only to those who order.
pub(super) fn acme_ca(
    name: &str,
    acme: &AcmeSettings,
    chain_trust: Option<Trust>,
    solver: Arc<dyn Solver>,
    store: &Arc<dyn Datastore>,
    seal: &Arc<OnceLock<Seal>>,
) -> Result<AcmeIssuer, Failure> {
    let eab = match &acme.eab {
        None => None,
        Some(eab) => Some(ExternalAccount { kid: eab.kid.clone(), hmac_key: Zeroizing::new(resolve(&eab.hmac_key)?.trim().to_owned()) }),
    };
    let trust = acme.trust.as_deref().map(|path| pem_file(name, "trust", path)).transpose()?;
    let Some(key) = ObjectKey::account(name) else {
        return Err(Failure::usage(format!("an issuer cannot be called {name:?}"), "use letters, digits and hyphens"));
    };
    let accounts = Arc::new(StoredAccount::new(Arc::clone(store), Arc::clone(seal), key));
    let (directory, contact) = (acme.directory.clone(), acme.contact.clone());
    let (name, preferred_chain) = (name.to_owned(), acme.preferred_chain.clone());
    let options = AcmeOptions { name: name.clone(), directory, trust, contact, eab, preferred_chain, chain_trust, solver, accounts };
    AcmeIssuer::new(options).map_err(|error| Failure::new(&error, format!("correct the table [issuer.{name}]"), Exit::Usage))
}

fn acme_anchors(name: &str, acme: &AcmeSettings) -> Result<Anchors, Failure> {
    Ok(match (&acme.chain_trust, acme.lineage) {
        (Some(path), _) => Anchors::Given(roots(name, "chain_trust", path)?),
        (None, Lineage::Live) => Anchors::Given(Trust::web()),
        (None, Lineage::Staging) => Anchors::Anyone,
    })
}

/// A solver. Its secrets and files are read; `store` is for those whose answers lie there.
pub(super) fn solver(settings: &Settings, name: &str, store: &Arc<dyn Datastore>) -> Result<Arc<dyn Solver>, Failure> {
    match settings.solvers.get(name) {
        None => Err(Failure::usage(format!("there is no solver {name:?}"), "add a [solver] table for it")),
        Some(SolverSettings::Http01(http)) => http_01(settings, http, store),
        Some(SolverSettings::TlsAlpn01 { listen }) => Ok(Arc::new(TlsAlpn::new(*listen))),
        Some(SolverSettings::Dns01Program(named)) => program(settings, named, ChallengeKind::Dns01),
        Some(SolverSettings::Dns01(dns)) => dns_01(dns),
    }
}

fn http_01(settings: &Settings, http: &Http01Settings, store: &Arc<dyn Datastore>) -> Result<Arc<dyn Solver>, Failure> {
    let solver: Arc<dyn Solver> = match &http.answer {
        HttpAnswer::Standalone { listen } => Arc::new(Standalone::new(*listen)),
        HttpAnswer::Webroot { path } => Arc::new(Webroot::new(path.clone())),
        HttpAnswer::Stateless => Arc::new(Stateless),
        HttpAnswer::Redirect { .. } => Arc::new(Redirect::new(Arc::new(PublicAnswers::new(Arc::clone(store))))),
        HttpAnswer::Program(named) => program(settings, named, ChallengeKind::Http01)?,
    };
    Ok(match sighted(http.check) {
        Some(place) => Arc::new(Confirmed::new(solver, place)),
        None => solver,
    })
}

/// Where an http-01 answer is looked for.
pub(super) fn sighted(check: HttpCheck) -> Option<Sighted> {
    match check {
        HttpCheck::System => Some(Sighted::Resolver),
        HttpCheck::At(address) => Some(Sighted::At(address)),
        HttpCheck::Off => None,
    }
}

fn program(settings: &Settings, program: &Program, kind: ChallengeKind) -> Result<Arc<dyn Solver>, Failure> {
    let script = match program {
        Program::Script { name, credentials } => {
            let folder = if kind == ChallengeKind::Dns01 { "dns" } else { "http" };
            Script::load(&settings.providerscripts.join(folder).join(name), kind, secrets(credentials)?)
        }
        Program::Hooks { present, cleanup, credentials } => {
            let credentials = secrets(credentials)?;
            Script::from_hooks(kind, present.clone(), cleanup.clone()).and_then(|script| script.with_credentials(credentials))
        }
    };
    let script = script.map_err(|error: SolverError| Failure::new(&error, error.hint.clone(), Exit::Usage))?;
    Ok(Arc::new(script))
}

fn dns_01(dns: &DnsSettings) -> Result<Arc<dyn Solver>, Failure> {
    let credentials = secrets(&dns.credentials)?;
    let assemble = move || -> Result<Dns01, SolverError> {
        let records: Box<dyn Records> = match &dns.provider {
            DnsProvider::BuiltIn(name) => Box::new(providers::updater(name, credentials, dns.settings.clone())?),
            DnsProvider::AcmeSh { script, acme_sh } => Box::new(AcmeSh::new(acme_sh, script, credentials, dns.settings.clone())?),
        };
        let resolver = dns.resolver.map_or_else(Resolver::of_the_system, |server| Ok(Resolver::at(server)))?;
        let solver = Dns01::new(records, resolver, dns.propagation_timeout);
        match &dns.alias {
            Some(alias) => solver.with_alias(alias),
            None => Ok(solver),
        }
    };
    let solver = assemble().map_err(|error| Failure::new(&error, error.hint.clone(), Exit::Usage))?;
    Ok(Arc::new(solver))
}

/// Credentials, each resolved.
pub(super) fn secrets(credentials: &BTreeMap<String, Secret>) -> Result<BTreeMap<String, Zeroizing<String>>, Failure> {
    credentials.iter().map(|(name, secret)| Ok((name.clone(), resolve(secret)?))).collect()
}

fn resolve(secret: &Secret) -> Result<Zeroizing<String>, ConfigError> {
    secret.resolve(&variable)
}

fn pem_file(issuer: &str, key: &str, path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("cannot read {} ({key} of the issuer {issuer}): {error}", path.display()), "check the path and its mode")
    })
}

fn roots(issuer: &str, key: &str, path: &Path) -> Result<Trust, Failure> {
    Trust::from_pem(&pem_file(issuer, key, path)?).map_err(|error| {
        let what = format!("{} ({key} of the issuer {issuer}): {}", path.display(), in_full(&error));
        Failure::usage(what, "it must hold root certificates as PEM")
    })
}

/// What a run brings to the fleet beside its settings.
pub(super) struct Run {
    /// The datastore.
    pub(super) store: Arc<dyn Datastore>,
    /// The issuers.
    pub(super) issuers: Issuers,
    /// What people see.
    pub(super) console: Arc<Console>,
    /// Cancelled when the program should end.
    pub(super) interrupt: CancellationToken,
}

impl Run {
    /// The fleet as this run works on it. `place` is `None` for those who only look.
    pub(super) fn fleet(self, settings: &Settings, seal: Seal, manifest: Option<&Manifest>, place: Option<&Place>) -> Fleet {
        let honoured = manifest.is_none_or(|manifest| manifest.exclusive_create == ExclusiveCreate::Honoured);
        let creates = match settings.datastore.election {
            Election::Exclusive if !honoured => Creates::Refused,
            Election::BestEffort if !honoured => Creates::BestEffort,
            Election::Exclusive | Election::BestEffort | Election::Sole => Creates::Exclusive,
        };
        let id = place.map(|place| place.id().to_owned()).unwrap_or_default();
        Fleet {
            store: self.store,
            seal,
            creates,
            holder: Holder { node: settings.agent.node.clone(), run: random::name(), place: id },
            issuers: self.issuers,
            runtimedata: Some(Runtimedata::new(settings.ssl_dir())),
            spool: place.map_or_else(|| spool_in(&place_directory(settings)), Place::spool),
            progress: self.console,
            interrupt: self.interrupt,
            patience: PATIENCE,
        }
    }
}
