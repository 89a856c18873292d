//! A fleet of nodes: a build machine, and webservers, each in a directory of its own, on one S3 server whose clock the test moves.

use std::path::{Path, PathBuf};
use std::time::Duration;

use certfleet::domain::certificate::Certificate;
use certfleet::domain::node_report::NodeReport;
use certfleet::domain::pem;
use certfleet::target::handshake::presented_chain;
use certfleet::target::server::Daemon;

use crate::support::machine::{Ended, Machine, datastore, give_keys};
use crate::support::process;
use crate::support::s3_in_process::InProcessS3;
use crate::support::webserver::Webserver;

pub const SITE: &str = "www.example.test";
pub const DAY: Duration = Duration::from_secs(86_400);

/// See the module.
pub struct Fleet {
    pub s3: InProcessS3,
    pub build: Machine,
}

/// A webserver of a fleet.
pub struct Node {
    pub machine: Machine,
    pub nginx: Option<Webserver>,
}

impl Fleet {
    /// With generation 1 in its datastore.
    pub fn new() -> Self {
        let s3 = InProcessS3::start();
        let build = Machine::new(&format!("{}{}", site_table(""), datastore(&s3.bucket(), "fleet-a")));
        give_keys(&build, &s3.bucket());
        let fleet = Self { s3, build };
        fleet.build.run(&["ensure"]).expect(0);
        fleet
    }

    /// A webserver with files alone, and nothing installed yet.
    pub fn node(&self, name: &str) -> Node {
        self.node_with(name, "", "")
    }

    /// The same, with more in its `[[site]]` and `[agent]` tables.
    pub fn node_with(&self, name: &str, site: &str, agent: &str) -> Node {
        let target = "[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n";
        let agent = format!("[agent]\nnode = \"{name}\"\nsplay = \"0s\"\n{agent}");
        let text = format!("{}{target}{agent}{}", site_table(site), datastore(&self.s3.bucket(), "fleet-a"));
        let machine = Machine::new(&text);
        give_keys(&machine, &self.s3.bucket());
        self.build.share_identity(&machine);
        Node { machine, nginx: None }
    }

    /// A webserver that serves generation 1 with nginx.
    pub fn serving(&self, name: &str) -> Node {
        self.serving_with(name, "", "")
    }

    /// The same, with more in its `[[site]]` and `[agent]` tables.
    pub fn serving_with(&self, name: &str, site: &str, agent: &str) -> Node {
        let mut node = self.node_with(name, site, agent);
        node.machine.run(&["bootstrap"]).expect(0);
        let nginx = Webserver::start(Daemon::Nginx, &node.live());
        let words = |words: Option<Vec<std::ffi::OsString>>| format!("{:?}", words.expect("a command"));
        let commands = nginx.commands(Duration::from_secs(10));
        let target = format!(
            "kind = \"nginx\"\nverify = \"{}\"\ntest = {}\nreload = {}\ndeadline = \"5s\"\n",
            nginx.address,
            words(commands.test),
            words(commands.reload)
        );
        node.machine.change("certfleet.toml", "kind = \"files\"\n", &target);
        node.nginx = Some(nginx);
        // Files that are seen to be served for the first time.
        node.agent().expect(0);
        node
    }

    /// Makes the next generation, and yields the fingerprint of its leaf.
    pub fn renew(&self) -> String {
        let ended = self.build.run(&["ensure", "--force", "--json"]).expect(0);
        ended.site()["in_place"]["fingerprint_sha256"].as_str().expect("a fingerprint").to_owned()
    }

    pub fn report(&self, node: &str) -> NodeReport {
        let object = self.s3.objects().get(&format!("fleet-a/nodes/{node}")).expect("a report");
        serde_json::from_slice(&object).expect("a report")
    }

    /// The generations of [`SITE`] in the datastore.
    pub fn generations(&self) -> usize {
        self.s3.objects().keys().iter().filter(|key| key.starts_with("fleet-a/bundles/")).count()
    }
}

impl Node {
    pub fn agent(&self) -> Ended {
        self.machine.run(&["agent"])
    }

    pub fn live(&self) -> PathBuf {
        self.machine.path("ssl/live").join(SITE)
    }

    pub fn link(&self) -> PathBuf {
        std::fs::read_link(self.live()).expect("a link")
    }

    /// The generations that are kept.
    pub fn kept(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.machine.path("ssl/archive").join(SITE)).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// The line of its configuration that sets `key`.
    pub fn setting(&self, key: &str) -> String {
        let text = self.machine.read("certfleet.toml");
        text.lines().find(|line| line.starts_with(&format!("{key} = "))).expect("a setting").to_owned()
    }

    /// More tables for its configuration.
    pub fn add(&self, tables: &str) {
        let text = self.machine.read("certfleet.toml");
        self.machine.write("certfleet.toml", text + tables);
    }

    /// The fingerprint of the leaf that is installed.
    pub fn installed(&self) -> String {
        fingerprint_of(&self.live().join("fullchain.pem"))
    }

    /// The fingerprint of the leaf that nginx presents.
    pub fn served(&self) -> String {
        let address = self.nginx.as_ref().expect("a server").address.to_string();
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let name = SITE.parse().expect("a name");
        let chain = runtime.block_on(presented_chain(&address, &name, Duration::from_secs(10))).expect("a handshake");
        Certificate::from_der(&chain[0]).expect("a certificate").fingerprint
    }

    /// Everything below its directory but what it serves: names, times and sizes.
    pub fn traces(&self) -> Vec<String> {
        let mut traces = Vec::new();
        walk(&self.machine.path(""), &mut traces);
        traces.sort();
        traces
    }
}

pub fn fingerprint_of(fullchain: &Path) -> String {
    let text = std::fs::read_to_string(fullchain).unwrap_or_else(|error| panic!("{}: {error}", fullchain.display()));
    Certificate::from_der(&pem::blocks(&text).expect("PEM")[0].der).expect("a certificate").fingerprint
}

fn site_table(more: &str) -> String {
    format!("[[site]]\nname = \"{SITE}\"\nissuers = [\"self-signed\"]\n{more}")
}

fn walk(directory: &Path, traces: &mut Vec<String>) {
    use std::os::unix::fs::MetadataExt as _;
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let found = std::fs::symlink_metadata(&path).expect("metadata");
        traces.push(format!("{} {} {} {}.{}", path.display(), found.ino(), found.size(), found.ctime(), found.ctime_nsec()));
        if found.is_dir() {
            walk(&path, traces);
        }
    }
}

/// Waits for what tells nobody that it has happened.
pub fn until(what: &str, mut happened: impl FnMut() -> bool) {
    process::until(what, Duration::from_secs(60), || happened().then_some(()));
}
