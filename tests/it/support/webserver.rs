//! The servers that Debian packages, each with a configuration of its own in a directory of its own, on a free port of 127.0.0.1.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use certfleet::target::server::{Commands, Daemon, Manager, Programs};
use tempfile::TempDir;

use super::process::{Subprocess, free_port, program};

/// Far more than any of them needs to start, or to reload, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct Webserver {
    daemon: Daemon,
    /// Where it serves TLS.
    pub address: SocketAddr,
    /// Its configuration file.
    pub configuration: PathBuf,
    process: Subprocess,
    directory: TempDir,
}

impl Webserver {
    /// Starts it with the certificate in `live`, a directory as servers find it.
    pub fn start(daemon: Daemon, live: &Path) -> Self {
        let directory = tempfile::Builder::new().prefix("certfleet-server-").tempdir().expect("a directory");
        // Those that do not stay root read it as well.
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let place = Place { directory: directory.path(), live, address };
        let (name, text) = place.configuration(daemon);
        let configuration = directory.path().join(name);
        fs::write(&configuration, text).expect("a configuration");
        let mut process = Subprocess::spawn(&place.command(daemon, &configuration), directory.path().join("output"));
        process.wait_for_port(address, PATIENCE);
        Self { daemon, address, configuration, process, directory }
    }

    /// It, as an agent tells it: with the programs of its package, pointed at the configuration of the test.
    pub fn server(&self, deadline: Duration) -> Programs {
        Programs::new(self.daemon.name(), self.commands(deadline))
    }

    /// The same programs, to be changed.
    pub fn commands(&self, deadline: Duration) -> Commands {
        let packaged = self.daemon.commands(Manager::Other);
        let mine = |words: Vec<OsString>, more: &[&str]| -> Vec<OsString> {
            let more = more.iter().map(|word| word.replace("CONFIGURATION", &self.configuration.to_string_lossy()).into());
            let own = |word: OsString| if word.to_string_lossy().starts_with("/etc/") { self.configuration.clone().into() } else { word };
            words.into_iter().map(own).chain(more).collect()
        };
        let program = |words: &[&str]| Some(mine(words.iter().map(OsString::from).collect(), &[]));
        let (test, reload) = match self.daemon {
            Daemon::Nginx => (
                packaged.test.map(|words| mine(words, &["-c", "CONFIGURATION"])),
                packaged.reload.map(|words| mine(words, &["-c", "CONFIGURATION"])),
            ),
            // What apache2ctl runs, which only knows the machine's own configuration.
            Daemon::Apache => {
                let configuration = self.configuration.to_string_lossy();
                (program(&["apache2", "-f", &configuration, "-t"]), program(&["apache2", "-f", &configuration, "-k", "graceful"]))
            }
            // What systemd does with the packages' units: it ends the one, and starts it again; the other it sends a signal.
            Daemon::Lighttpd => (packaged.test.map(|words| mine(words, &[])), Some(self.signal("TERM", &["--retry", "30"]))),
            Daemon::Haproxy => (packaged.test.map(|words| mine(words, &[])), Some(self.signal("USR2", &[]))),
            Daemon::Postfix => {
                let directory = self.directory.path().to_string_lossy().into_owned();
                let here = |words: Vec<OsString>| -> Vec<OsString> {
                    let (program, action) = words.split_first().expect("a program");
                    [program.clone(), "-c".into(), directory.clone().into()].into_iter().chain(action.iter().cloned()).collect()
                };
                (packaged.test.map(here), packaged.reload.map(here))
            }
            Daemon::Caddy | Daemon::Files => (packaged.test.map(|words| mine(words, &[])), packaged.reload.map(|words| mine(words, &[]))),
        };
        Commands { test, reload, deadline }
    }

    /// A program that sends the server a signal.
    pub fn signal(&self, signal: &str, more: &[&str]) -> Vec<OsString> {
        let pid_file = self.directory.path().join("pid");
        let words = ["start-stop-daemon", "--stop", "--quiet", "--signal", signal, "--pidfile"].map(OsString::from);
        words.into_iter().chain([pid_file.into()]).chain(more.iter().map(OsString::from)).collect()
    }

    /// Makes its configuration one that it cannot load.
    pub fn break_configuration(&self) {
        let text = fs::read_to_string(&self.configuration).expect("a configuration");
        let broken = match self.daemon {
            // It only warns about settings that it does not know.
            Daemon::Postfix => text.replace("queue_directory = ", "queue_directory = /no/such/directory"),
            _ => format!("{text}\nno_such_setting {{\n"),
        };
        fs::write(&self.configuration, broken).expect("a configuration");
    }

    /// Ends it, workers and all; its configuration stays. For nginx, whose programs know how.
    pub fn stop(&mut self) {
        let stop = Command::new(program("nginx")).args(["-q", "-s", "quit", "-c"]).arg(&self.configuration).status().expect("nginx");
        assert!(stop.success(), "nginx cannot be ended");
        self.process.wait(PATIENCE);
    }

    /// Returns once it has printed a line with that text.
    pub fn wait_for_line(&mut self, text: &str) {
        self.process.wait_for_line(text, PATIENCE);
    }

    /// How often it has been reloaded. For nginx, which notes that.
    pub fn reloads(&self) -> usize {
        let log = fs::read_to_string(self.directory.path().join("log")).expect("a log");
        log.lines().filter(|line| line.ends_with(": reconfiguring")).count()
    }

    /// What it has printed so far.
    pub fn log(&self) -> String {
        self.process.log()
    }
}

/// Where a server runs.
struct Place<'a> {
    directory: &'a Path,
    live: &'a Path,
    address: SocketAddr,
}

impl Place<'_> {
    fn command(&self, daemon: Daemon, configuration: &Path) -> Command {
        let with = |name: &str, arguments: &[&str]| {
            let mut command = Command::new(program(name));
            command.args(arguments);
            command
        };
        let configuration = configuration.to_string_lossy();
        match daemon {
            Daemon::Nginx => with("nginx", &["-c", &configuration]),
            Daemon::Apache => with("apache2", &["-f", &configuration, "-D", "FOREGROUND"]),
            // A manager that starts it again.
            Daemon::Lighttpd => with("sh", &["-c", "while sleep 0.05; do lighttpd -D -f \"$0\"; done", &configuration]),
            Daemon::Haproxy => with("haproxy", &["-W", "-db", "-f", &configuration, "-p", &self.directory.join("pid").to_string_lossy()]),
            Daemon::Caddy => {
                let mut command = with("caddy", &["run", "--config", &configuration, "--adapter", "caddyfile"]);
                command.env("HOME", self.directory);
                command
            }
            Daemon::Postfix => {
                self.prepare_postfix();
                with("postfix", &["-c", &self.directory.to_string_lossy(), "start-fg"])
            }
            Daemon::Files => panic!("files are no server"),
        }
    }

    /// The name of the configuration file, and what is in it.
    fn configuration(&self, daemon: Daemon) -> (&'static str, String) {
        let (directory, live, address, port) = (self.directory.display(), self.live.display(), self.address, self.address.port());
        match daemon {
            Daemon::Nginx => (
                "nginx.conf",
                format!(
                    "daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/log notice;\nevents {{}}\nhttp {{ access_log off;\n\
                     server {{ listen {address} ssl; server_name www.example.test;\n\
                     ssl_certificate {live}/fullchain.pem; ssl_certificate_key {live}/privkey.pem; return 204; }} }}\n"
                ),
            ),
            Daemon::Apache => (
                "apache2.conf",
                format!(
                    "LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n\
                     LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n\
                     ServerName www.example.test\nDefaultRuntimeDir {directory}\nPidFile {directory}/pid\nErrorLog {directory}/log\n\
                     User www-data\nGroup www-data\nListen {address}\nSSLSessionCache none\nSSLEngine on\n\
                     SSLCertificateFile {live}/fullchain.pem\nSSLCertificateKeyFile {live}/privkey.pem\n"
                ),
            ),
            Daemon::Lighttpd => (
                "lighttpd.conf",
                format!(
                    "server.modules = (\"mod_openssl\")\nserver.document-root = \"{directory}\"\n\
                     server.pid-file = \"{directory}/pid\"\nserver.bind = \"127.0.0.1\"\nserver.port = {port}\n\
                     server.username = \"www-data\"\nserver.groupname = \"www-data\"\nssl.engine = \"enable\"\n\
                     ssl.pemfile = \"{live}/fullchain.pem\"\nssl.privkey = \"{live}/privkey.pem\"\n"
                ),
            ),
            Daemon::Haproxy => (
                "haproxy.cfg",
                format!(
                    "global\n  maxconn 100\ndefaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 10s\n\
                     frontend tls\n  bind {address} ssl crt {live}/combined.pem\n  http-request return status 204\n"
                ),
            ),
            Daemon::Caddy => (
                "Caddyfile",
                format!(
                    "{{\n  admin 127.0.0.1:{}\n  auto_https off\n  storage file_system {directory}/storage\n}}\n\
                     https://www.example.test:{port} {{\n  bind 127.0.0.1\n  tls {live}/fullchain.pem {live}/privkey.pem\n  respond 204\n}}\n",
                    free_port()
                ),
            ),
            Daemon::Postfix => (
                "main.cf",
                format!(
                    "compatibility_level = 3.6\nqueue_directory = {directory}/queue\ndata_directory = {directory}/data\n\
                     mail_owner = postfix\nsetgid_group = postdrop\nmyhostname = www.example.test\nmydestination =\n\
                     inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nmaillog_file_prefixes = {directory}\n\
                     maillog_file = {directory}/log\nsmtpd_tls_chain_files = {live}/privkey.pem, {live}/fullchain.pem\n"
                ),
            ),
            Daemon::Files => panic!("files are no server"),
        }
    }

    /// Services, and the directories that a package would have made.
    fn prepare_postfix(&self) {
        let services = format!(
            "{} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes -o smtpd_tls_security_level=encrypt\n\
             cleanup unix n - n - 0 cleanup\nrewrite unix - - n - - trivial-rewrite\ntlsmgr unix - - n 1000? 1 tlsmgr\n\
             anvil unix - - n - 1 anvil\nproxymap unix - - n - - proxymap\npostlog unix-dgram n - n - 1 postlogd\n",
            self.address
        );
        fs::write(self.directory.join("master.cf"), services).expect("services");
        fs::create_dir(self.directory.join("queue")).expect("a directory");
        fs::create_dir(self.directory.join("data")).expect("a directory");
        let owner = certfleet::target::ssl_root::Owner::find("postfix").expect("a user that the package makes");
        std::os::unix::fs::chown(self.directory.join("data"), Some(owner.uid), Some(owner.gid)).expect("an owner");
    }
}
