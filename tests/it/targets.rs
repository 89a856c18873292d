//! Certificates on real servers: installed, reloaded, seen on the wire; and put back.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use certfleet::domain::bundle::Bundle;
use certfleet::domain::certificate::Certificate;
use certfleet::domain::identifier::Identifier;
use certfleet::domain::object_key::Generation;
use certfleet::domain::pem;
use certfleet::domain::site::SiteName;
use certfleet::system::error_chain::in_full;
use certfleet::target::handshake::HandshakeError;
use certfleet::target::served::{Endpoint as _, Seen, TlsEndpoint, await_leaf};
use certfleet::target::server::{Commands, Daemon, DeployScript, Deployed, Manager, Programs, Server, ServerError};
use certfleet::target::ssl_root::{Contents, Files, Owner, SslRoot};

use crate::support::process::program;
use crate::support::tls::bundle;
use crate::support::webserver::{PATIENCE, Webserver};

const SITE: &str = "www.example.test";
const ONE: Generation = Generation(1);
const TWO: Generation = Generation(2);

fn site() -> SiteName {
    SITE.parse().expect("a site")
}

fn name() -> Identifier {
    SITE.parse().expect("an identifier")
}

/// A node with two generations, of which the first is live.
struct Node {
    _directory: tempfile::TempDir,
    root: SslRoot,
    bundles: [Bundle; 2],
}

impl Node {
    /// Only root may read keys.
    fn new() -> Self {
        Self::with(None, 0o600)
    }

    fn with(owner: Option<Owner>, key_mode: u32) -> Self {
        let directory = tempfile::Builder::new().prefix("certfleet-node-").tempdir().expect("a directory");
        // As a home directory, or /etc/ssl: what is private is private further down.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        let root = SslRoot::new(directory.path().join("ssl"), owner, key_mode, Files::WithCombined);
        let bundles = [bundle(&[SITE]), bundle(&[SITE])];
        for (generation, bundle) in [ONE, TWO].into_iter().zip(&bundles) {
            root.stage(&site(), generation, &Contents { bundle, object: b"{}" }).expect("staged");
        }
        let _ = root.switch(&site(), ONE).expect("switched");
        Self { _directory: directory, root, bundles }
    }

    fn live(&self) -> PathBuf {
        self.root.live_path(&site())
    }

    fn leaf(&self, generation: Generation) -> &str {
        &self.bundles[usize::from(generation == TWO)].leaf().fingerprint
    }

    fn deployed(&self) -> Vec<Deployed> {
        vec![Deployed { site: site(), directory: self.live(), identifiers: vec![name(), "*.example.test".parse().expect("a name")] }]
    }
}

async fn expect_leaf(server: &Webserver, fingerprint: &str) {
    let seen = await_leaf(&TlsEndpoint(server.address.to_string()), &name(), fingerprint, PATIENCE).await;
    seen.unwrap_or_else(|error| panic!("{}\n{}", in_full(&error), server.log()));
}

/// The same, seen by somebody else. For a moment servers may answer one with the new leaf and the next with the old one: nginx has both
/// generations of workers accept for 100 ms.
fn expect_leaf_by_openssl(server: &Webserver, fingerprint: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let seen = leaf_by_openssl(&server.address.to_string());
        if seen == fingerprint {
            return;
        }
        assert!(Instant::now() < deadline, "openssl sees {seen} and not {fingerprint}\n{}", server.log());
    }
}

fn leaf_by_openssl(address: &str) -> String {
    let mut command = std::process::Command::new("openssl");
    command.args(["s_client", "-connect", address, "-servername", SITE]).stdin(Stdio::null());
    let output = command.output().expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let blocks = pem::blocks(&text).expect("blocks");
    Certificate::from_der(&blocks.first().unwrap_or_else(|| panic!("no certificate in {text}")).der).expect("a certificate").fingerprint
}

fn told(result: Result<(), ServerError>, server: &Webserver) {
    result.unwrap_or_else(|error| panic!("{}\n{}", in_full(&error), server.log()));
}

/// What every server must do; `words` are its own about a configuration that it cannot load.
async fn serves_what_is_installed(daemon: Daemon, words: &str) {
    let node = Node::new();
    let server = Webserver::start(daemon, &node.live());
    let programs = server.server(PATIENCE);
    expect_leaf(&server, node.leaf(ONE)).await;

    let switched = node.root.switch(&site(), TWO).expect("switched");
    told(programs.test().await, &server);
    told(programs.reload(&node.deployed()).await, &server);
    expect_leaf(&server, node.leaf(TWO)).await;
    expect_leaf_by_openssl(&server, node.leaf(TWO));

    node.root.switch_back(switched).expect("back");
    told(programs.reload(&node.deployed()).await, &server);
    expect_leaf(&server, node.leaf(ONE)).await;

    server.break_configuration();
    let error = programs.test().await.expect_err("a broken configuration");
    assert!(matches!(error, ServerError::Test { .. }) && !error.is_missing_program(), "{error:?}");
    assert!(in_full(&error).contains(words), "{}", in_full(&error));
    assert!(error.hint().starts_with("correct it until this succeeds: "), "{}", error.hint());
    expect_leaf(&server, node.leaf(ONE)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_serves_what_is_installed() {
    serves_what_is_installed(Daemon::Nginx, "unknown directive \"no_such_setting\"").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn apache_serves_what_is_installed() {
    serves_what_is_installed(Daemon::Apache, "Invalid command 'no_such_setting'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lighttpd_serves_what_is_installed() {
    serves_what_is_installed(Daemon::Lighttpd, "parser failed").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_serves_what_is_installed() {
    serves_what_is_installed(Daemon::Haproxy, "unknown keyword 'no_such_setting'").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn caddy_serves_what_is_installed() {
    serves_what_is_installed(Daemon::Caddy, "Syntax error").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postfix_serves_what_is_installed() {
    // Its own words go to its log and to terminals only.
    serves_what_is_installed(Daemon::Postfix, "check): postfix ended with exit status 1").await;
}

/// Why lighttpd is restarted unless it is configured otherwise: whatever its own reload cannot read, ends it.
#[tokio::test(flavor = "multi_thread")]
async fn lighttpds_own_reload_needs_keys_that_its_user_can_read() {
    let group = Owner::find("root:www-data").expect("Debian's users");
    for (node, readable) in [(Node::with(Some(group), 0o640), true), (Node::new(), false)] {
        let mut server = Webserver::start(Daemon::Lighttpd, &node.live());
        expect_leaf(&server, node.leaf(ONE)).await;
        let commands = Commands { test: None, reload: Some(server.signal("USR1", &[])), deadline: PATIENCE };
        let _ = node.root.switch(&site(), TWO).expect("switched");
        told(Programs::new("lighttpd", commands).reload(&[]).await, &server);
        if !readable {
            server.wait_for_line("live/www.example.test/fullchain.pem");
            server.wait_for_line("Initialization of plugins failed. Going down.");
        }
        // In the second case because it is started anew.
        expect_leaf(&server, node.leaf(TWO)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_on_with_the_old_leaf_is_found_out() {
    let node = Node::new();
    let server = Webserver::start(Daemon::Nginx, &node.live());
    let _ = node.root.switch(&site(), TWO).expect("switched");
    let programs = Programs::new("nginx", Commands { reload: None, ..server.commands(PATIENCE) });
    told(programs.reload(&node.deployed()).await, &server);
    let endpoint = TlsEndpoint(server.address.to_string());
    let deadline = Duration::from_secs(1);
    let error = await_leaf(&endpoint, &name(), node.leaf(TWO), deadline).await.expect_err("the old leaf");
    assert!(matches!(&error.seen, Seen::Other(leaf) if leaf == node.leaf(ONE)), "{error:?}");
    let said = format!(
        "{} does not serve the certificate {} of {SITE} within 1s: it serves another one, {}",
        endpoint.address(),
        node.leaf(TWO),
        node.leaf(ONE)
    );
    assert_eq!(in_full(&error), said);
    assert_eq!(endpoint.presented(&name(), PATIENCE).await.expect("a leaf"), node.leaf(ONE));

    drop(server);
    let error = await_leaf(&endpoint, &name(), node.leaf(TWO), deadline).await.expect_err("nobody there");
    assert!(matches!(&error.seen, Seen::Nothing(HandshakeError::Refused { .. })), "{error:?}");
    assert_eq!(error.hint(), "is the web server running, and listening on this port?");
}

fn programs(test: &[&str], reload: &[&str], deadline: Duration) -> Programs {
    let words = |words: &[&str]| Some(words.iter().map(OsString::from).collect());
    Programs::new("thing", Commands { test: words(test), reload: words(reload), deadline })
}

#[tokio::test]
async fn every_failure_of_a_program_has_its_name() {
    let hanging = programs(&[], &["sh", "-c", "echo waiting >&2; sleep 600"], Duration::from_secs(1));
    hanging.test().await.expect("an empty list is no program");
    let error = hanging.reload(&[]).await.expect_err("it hangs");
    assert_eq!(in_full(&error), "thing did not reload (sh -c echo waiting >&2; sleep 600): sh did not end within 1s: waiting");
    assert_eq!((error.is_missing_program(), error.hint().as_str()), (false, "find out what it waits for, or give it more time"));

    let missing = programs(&["no-such-server", "-t"], &["/no/such/server"], PATIENCE);
    for error in [missing.test().await.expect_err("missing"), missing.reload(&[]).await.expect_err("missing")] {
        assert!(error.is_missing_program() && error.hint().starts_with("install the server"), "{error:?}");
    }

    let failing = programs(&["sh", "-c", "printf 'line 3\\nis wrong\\033[2J\\n' >&2; exit 1"], &["false"], PATIENCE);
    let error = failing.test().await.expect_err("it fails");
    assert!(in_full(&error).ends_with(": sh ended with exit status 1: line 3 | is wrong [2J"), "{}", in_full(&error));
    let error = failing.reload(&[]).await.expect_err("it fails");
    assert_eq!(error.hint(), "is the server running? Try it: false");
}

/// What is packaged, is what Debian's units and manual pages say.
#[test]
fn packaged_programs_exist() {
    for daemon in [Daemon::Nginx, Daemon::Apache, Daemon::Lighttpd, Daemon::Haproxy, Daemon::Caddy, Daemon::Postfix] {
        let commands = daemon.commands(Manager::Other);
        for command in [commands.test, commands.reload] {
            let first = command.expect("a command").swap_remove(0);
            let found = if Path::new(&first).is_absolute() { PathBuf::from(first) } else { program(&first.to_string_lossy()) };
            assert!(found.is_file(), "{}", found.display());
        }
        let unit = daemon.commands(Manager::Systemd).reload.expect("a command");
        let unit = unit.last().expect("a word").to_string_lossy().into_owned();
        assert!(daemon == Daemon::Postfix || Path::new("/lib/systemd/system").join(&unit).is_file(), "{unit}");
    }
    let files = Daemon::Files.commands(Manager::Systemd);
    assert_eq!((files.test, files.reload), (None, None));
}

/// A script that tells what it was given, and fails for a site that is called so.
const SCRIPT: &str = "#!/bin/sh\n\
    echo \"$1|$CERTFLEET_SITE|$CERTFLEET_DIRECTORY|$CERTFLEET_IDENTIFIERS|$RENEWED_LINEAGE|$RENEWED_DOMAINS|$BOX_TOKEN|$BOX_PORT\" >> \"$(dirname \"$0\")/told\"\n\
    case $CERTFLEET_SITE in bad*) echo \"no box for $BOX_TOKEN\" >&2; exit 3 ;; esac\n";

fn script(directory: &Path) -> Result<DeployScript, String> {
    let token = [("BOX_TOKEN".to_owned(), zeroize::Zeroizing::new("hunter2".to_owned()))].into();
    DeployScript::load(directory, token, PATIENCE).map_err(|error| in_full(&error))
}

#[tokio::test]
async fn a_script_is_told_of_each_site() {
    let place = tempfile::tempdir().expect("a directory");
    let declared = "name = \"Box\"\ndocumentation = \"https://box.example\"\n[credentials]\nBOX_TOKEN = \"a token\"\n[defaults]\nBOX_PORT = \"8443\"\n";
    fs::write(place.path().join("provider.toml"), declared).expect("a file");
    fs::write(place.path().join("run"), SCRIPT).expect("a file");
    let error = script(place.path()).expect_err("not executable");
    assert!(error.ends_with("run is not executable"), "{error}");
    fs::set_permissions(place.path().join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");

    let script = script(place.path()).expect("a script");
    assert!(script.name() == "Box" && !format!("{script:?}").contains("hunter"), "{script:?}");
    script.test().await.expect("nothing to test");
    let deployed = |name: &str| Deployed {
        site: name.parse().expect("a site"),
        directory: PathBuf::from("/ssl/live").join(name),
        identifiers: vec![name.trim_end_matches("+staging").parse().expect("a name"), "*.example.test".parse().expect("a name")],
    };
    script.reload(&[deployed("a.example.test"), deployed("b.example.test+staging")]).await.expect("deployed");
    let error = script.reload(&[deployed("bad.example.test"), deployed("c.example.test")]).await.expect_err("it fails");
    let said = "the script Box did not deploy bad.example.test: ";
    assert!(in_full(&error).starts_with(said) && in_full(&error).ends_with("run ended with exit status 3: no box for ***"), "{error:?}");
    let told = fs::read_to_string(place.path().join("told")).expect("a file");
    let expected = |site: &str| {
        let name = site.trim_end_matches("+staging");
        format!("deploy|{site}|/ssl/live/{site}|{name},*.example.test|/ssl/live/{site}|{name} *.example.test|hunter2|8443\n")
    };
    assert_eq!(told, ["a.example.test", "b.example.test+staging", "bad.example.test"].map(expected).concat());

    fs::remove_file(place.path().join("provider.toml")).expect("removed");
    assert!(self::script(place.path()).is_err());
}
