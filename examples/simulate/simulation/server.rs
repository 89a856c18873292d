//! Web servers: each reads its files when it is told to, and serves what it has read.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use certfleet::domain::identifier::Identifier;
use certfleet::domain::site::SiteName;
use certfleet::system::command::CommandError;
use certfleet::target::handshake::HandshakeError;
use certfleet::target::served::Endpoint;
use certfleet::target::server::{Deployed, Server, ServerError};
use tokio::time::Instant;

use super::bug::Bug;
use super::fault::Fault;
use super::invariants;
use super::process::Process;
use super::world::{BUILD, World};

/// Where every server is looked at.
pub const ADDRESS: &str = "127.0.0.1:443";

/// What its test says of a leaf that it refuses.
const DISLIKED: &str = "it does not like the new certificate";

/// How a server stands.
#[derive(Debug, Default)]
pub struct ServerState {
    pub running: bool,
    /// The leaf that it serves, by site.
    pub serves: std::collections::BTreeMap<SiteName, String>,
    /// Until when its configuration is broken.
    pub broken_until: Option<Instant>,
    /// A leaf that its test refuses.
    pub refuses: Option<String>,
    /// Until when it reloads without effect.
    pub stuck_until: Option<Instant>,
    /// Until when it does not run.
    pub down_until: Option<Instant>,
    /// When it serves what it has read last.
    pub settles_at: Option<(Instant, std::collections::BTreeMap<SiteName, String>)>,
}

/// What lies in `live/<site>`.
pub enum Files {
    Nothing,
    /// The fingerprint of a whole pair.
    Pair(String),
    /// What is wrong with them.
    Broken(String),
}

/// Reads a site's files as a server does that opens the directory once.
pub fn read_files(world: &World, machine: usize, site: &SiteName) -> Files {
    let root = world.disk(machine).join("ssl");
    if machine == BUILD {
        let directory = root.join(site.file_name());
        return if directory.exists() { read_pair(world, &directory) } else { Files::Nothing };
    }
    let live = root.join("live").join(site.file_name());
    let Ok(target) = fs::read_link(&live) else { return if live.exists() { read_pair(world, &live) } else { Files::Nothing } };
    read_pair(world, &root.join("live").join(target))
}

fn read_pair(world: &World, directory: &Path) -> Files {
    let read = |name: &str| fs::read_to_string(directory.join(name));
    let (chain, key) = match (read("fullchain.pem"), read("privkey.pem")) {
        (Ok(chain), Ok(key)) => (chain, key),
        (Err(error), _) | (_, Err(error)) => return Files::Broken(format!("{}: {error}", directory.display())),
    };
    match world.state().ca.issued(&chain) {
        None => Files::Broken("a chain that the CA did not issue".to_owned()),
        Some(issued) if issued.key_pem != key => {
            Files::Broken(format!("the key of another certificate beside that of generation {}", issued.generation))
        }
        Some(issued) => Files::Pair(issued.fingerprint.clone()),
    }
}

/// The server starts, or reads its files again: a pair that is not whole is what must never happen.
pub fn load(world: &World, machine: usize) {
    for site in &world.sites {
        match read_files(world, machine, &site.name) {
            Files::Nothing => {}
            Files::Pair(fingerprint) => {
                world.state().servers[machine].serves.insert(site.name.clone(), fingerprint);
            }
            Files::Broken(what) => world.violate("I1", || format!("the server of machine {machine} reads: {what}")),
        }
    }
}

/// Whether the configuration would be accepted with the files as they are.
pub fn accepts(world: &World, machine: usize) -> Result<(), &'static str> {
    let now = Instant::now();
    if world.state().servers[machine].broken_until.is_some_and(|until| now < until) {
        return Err("its configuration is broken");
    }
    for site in &world.sites {
        match read_files(world, machine, &site.name) {
            Files::Nothing => {}
            Files::Broken(_) => return Err("key and chain do not fit"),
            Files::Pair(fingerprint) => {
                let mut state = world.state();
                let server = &mut state.servers[machine];
                if server.serves.get(&site.name) != Some(&fingerprint) && server.refuses.as_ref() == Some(&fingerprint) {
                    return Err(DISLIKED);
                }
            }
        }
    }
    Ok(())
}

/// The server of a node, as a run of the agent sees it.
#[derive(Debug)]
pub struct NodeServer {
    pub process: Arc<Process>,
}

impl NodeServer {
    fn world(&self) -> &Arc<World> {
        &self.process.world
    }

    /// Whether the server is there at all.
    fn runs(&self) -> bool {
        let (world, machine) = (self.world(), self.process.machine);
        let was_down = {
            let mut state = world.state();
            let server = &mut state.servers[machine];
            match server.down_until {
                Some(until) if Instant::now() < until => {
                    drop(state);
                    self.process.troubled();
                    return false;
                }
                Some(_) => {
                    server.down_until = None;
                    true
                }
                None => false,
            }
        };
        invariants::is_whole(world, machine);
        if was_down && accepts(self.world(), self.process.machine).is_ok() {
            load(world, machine);
        }
        world.state().servers[machine].running
    }

    /// A new leaf that this server will not have, now and for the rest of the history with faults.
    fn perhaps_refuse(&self) {
        let (world, machine) = (self.world(), self.process.machine);
        for site in &world.sites {
            let Files::Pair(fingerprint) = read_files(world, machine, &site.name) else { continue };
            let known = world.state().servers[machine].serves.get(&site.name) == Some(&fingerprint);
            let first = !world.state().servers[machine].serves.contains_key(&site.name);
            if !known && !first && world.strikes_call(Fault::ServerRefuses) {
                world.state().servers[machine].refuses = Some(fingerprint);
            }
        }
    }

    fn refusal(reload: bool, why: &'static str) -> ServerError {
        let source = CommandError::System { program: "nginx".into(), source: io::Error::other(why) };
        let (server, command) = ("nginx".to_owned(), "nginx -t".to_owned());
        if reload { ServerError::Reload { server, command, source } } else { ServerError::Test { server, command, source } }
    }

    #[allow(clippy::result_large_err, reason = "the trait's own")]
    fn reload_now(&self) -> Result<(), ServerError> {
        let (world, machine) = (self.world(), self.process.machine);
        if !self.runs() {
            return Err(Self::refusal(true, "it does not run"));
        }
        if let Err(why) = accepts(self.world(), self.process.machine) {
            // What a server does with a configuration that it does not accept depends on the server: some are gone.
            world.violate("I6", || format!("{} reloads its server although {why}", self.process.name()));
            return Err(Self::refusal(true, why));
        }
        let stuck = world.state().servers[machine].stuck_until.is_some_and(|until| Instant::now() < until);
        if stuck {
            self.process.troubled();
            return Ok(());
        }
        let before = world.state().servers[machine].serves.clone();
        load(world, machine);
        let after = world.state().servers[machine].serves.clone();
        if before != after && world.strikes_call(Fault::ServerSlow) {
            let at = Instant::now() + world.pause(500, 20_000);
            let mut state = world.state();
            state.servers[machine].serves = before;
            state.servers[machine].settles_at = Some((at, after));
        }
        Ok(())
    }

    fn settle(&self) {
        let mut state = self.world().state();
        let server = &mut state.servers[self.process.machine];
        if let Some((at, after)) = server.settles_at.take() {
            if Instant::now() < at {
                server.settles_at = Some((at, after));
            } else {
                server.serves = after;
            }
        }
    }
}

#[async_trait]
impl Server for NodeServer {
    fn name(&self) -> &'static str {
        "nginx"
    }

    async fn test(&self) -> Result<(), ServerError> {
        self.process.boundary("the test of the server's configuration").await;
        self.process.travel(10, 200).await;
        match self.world().bug {
            Some(Bug::NotTested) => return Ok(()),
            Some(Bug::ReloadedBeforeTest) => self.reload_now()?,
            _ => {}
        }
        self.perhaps_refuse();
        let answer = accepts(self.world(), self.process.machine);
        self.process.tell(|| format!("the server's configuration: {}", answer.err().unwrap_or("fine")));
        self.process.boundary("what the test says").await;
        answer.map_err(|why| {
            if why == DISLIKED {
                self.process.refused_by_server();
            } else {
                self.process.troubled();
            }
            Self::refusal(false, why)
        })
    }

    async fn reload(&self, _: &[Deployed]) -> Result<(), ServerError> {
        self.process.boundary("the reload of the server").await;
        self.process.travel(10, 200).await;
        let answer = self.reload_now();
        self.process.tell(|| format!("the server is reloaded: {}", if answer.is_ok() { "done" } else { "failed" }));
        self.process.boundary("what the reload says").await;
        answer
    }
}

#[async_trait]
impl Endpoint for NodeServer {
    fn address(&self) -> &'static str {
        ADDRESS
    }

    async fn presented(&self, name: &Identifier, _: Duration) -> Result<String, HandshakeError> {
        self.process.boundary("a handshake").await;
        self.process.travel(1, 10).await;
        let world = self.world();
        let refused = || HandshakeError::Refused { address: ADDRESS.to_owned(), source: io::Error::from(io::ErrorKind::ConnectionRefused) };
        if !self.runs() {
            return Err(refused());
        }
        self.settle();
        let site = world.sites.iter().find(|site| site.name.identifier() == name).map(|site| site.name.clone());
        if world.bug == Some(Bug::ServedUnseen)
            && let Some(site) = &site
            && let Files::Pair(installed) = read_files(world, self.process.machine, site)
        {
            return Ok(installed);
        }
        let serves = site.and_then(|site| world.state().servers[self.process.machine].serves.get(&site).cloned());
        serves.ok_or_else(refused)
    }
}
