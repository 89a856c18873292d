//! From the `[[target]]` tables to directories with the servers that read from them.

use std::ffi::OsString;
use std::sync::Arc;

use super::assemble;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::{CommandSetting, Settings, TargetKind, TargetSettings, Wanted};
use crate::domain::site::Site;
use crate::fleet::node::{NodeServer, Root};
use crate::target::served::{Endpoint, TlsEndpoint};
use crate::target::server::{Commands, Daemon, DeployScript, Manager, Programs, Server};
use crate::target::ssl_root::{Files, Owner, SslRoot};

/// Whether a target serves a site.
pub(super) fn wants(target: &TargetSettings, site: &Site) -> bool {
    match &target.sites {
        Wanted::All => true,
        Wanted::These(names) => names.contains(site.name.identifier()),
    }
}

/// The directories, each once, in the order of the tables. Tables with the same directory agree on its owner and mode.
pub(super) fn roots(settings: &Settings, sites: &[Site]) -> Result<Vec<Root>, Failure> {
    let mut grouped: Vec<Vec<&TargetSettings>> = Vec::new();
    for target in &settings.targets {
        match grouped.iter_mut().find(|group| group[0].ssl_root == target.ssl_root) {
            Some(group) => group.push(target),
            None => grouped.push(vec![target]),
        }
    }
    grouped.into_iter().map(|group| root(settings, &group, sites)).collect()
}

fn root(settings: &Settings, targets: &[&TargetSettings], sites: &[Site]) -> Result<Root, Failure> {
    let first = targets[0];
    let combined = targets.iter().any(|target| matches!(target.kind, TargetKind::Haproxy | TargetKind::Lighttpd));
    let files = if combined { Files::WithCombined } else { Files::Separate };
    let owner = first.owner.as_deref().map(Owner::find).transpose();
    let owner = owner.map_err(|error| Failure::new(&error, error.hint(), Exit::Usage))?;
    let servers = targets.iter().map(|target| server(settings, target, sites)).collect::<Result<_, _>>()?;
    Ok(Root { ssl: SslRoot::new(first.ssl_root.clone(), owner, first.key_mode, files), servers })
}

fn server(settings: &Settings, target: &TargetSettings, sites: &[Site]) -> Result<NodeServer, Failure> {
    let server: Arc<dyn Server> = match (&target.script, daemon(target.kind)) {
        (Some(script), _) => {
            let directory = settings.providerscripts.join("deploy").join(&script.name);
            let loaded = DeployScript::load(&directory, assemble::secrets(&script.credentials)?, target.deadline);
            Arc::new(loaded.map_err(|error| Failure::new(&error, error.hint.clone(), Exit::Usage))?)
        }
        (None, daemon) => {
            let packaged = daemon.commands(Manager::find());
            let (test, reload) = (chosen(&target.test, packaged.test), chosen(&target.reload, packaged.reload));
            Arc::new(Programs::new(target.kind.name(), Commands { test, reload, deadline: target.deadline }))
        }
    };
    let theirs = sites.iter().filter(|site| wants(target, site)).map(|site| site.name.clone());
    let verify = target.verify.clone().map(|address| Arc::new(TlsEndpoint(address)) as Arc<dyn Endpoint>);
    Ok(NodeServer { server, verify, deadline: target.deadline, sites: theirs.collect() })
}

fn chosen(setting: &CommandSetting, packaged: Option<Vec<OsString>>) -> Option<Vec<OsString>> {
    match setting {
        CommandSetting::Packaged => packaged,
        CommandSetting::Nothing => None,
        CommandSetting::Program(words) => Some(words.iter().map(OsString::from).collect()),
    }
}

fn daemon(kind: TargetKind) -> Daemon {
    match kind {
        TargetKind::Nginx => Daemon::Nginx,
        TargetKind::Apache => Daemon::Apache,
        TargetKind::Lighttpd => Daemon::Lighttpd,
        TargetKind::Haproxy => Daemon::Haproxy,
        TargetKind::Caddy => Daemon::Caddy,
        TargetKind::Postfix => Daemon::Postfix,
        TargetKind::Files | TargetKind::Script => Daemon::Files,
    }
}
