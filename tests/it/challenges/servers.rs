//! The five servers, each with a snippet pasted into its configuration and nothing else but what every installation has.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::SITE;
use crate::support::machine::Machine;
use crate::support::pebble::certificates;
use crate::support::process::{Subprocess, free_port, program};
use crate::support::webserver::PATIENCE;

pub const SERVERS: [&str; 5] = ["nginx", "apache", "lighttpd", "haproxy", "caddy"];

/// A `[[target]]` for each of them.
pub fn targets() -> String {
    SERVERS.map(|kind| format!("[[target]]\nkind = \"{kind}\"\nssl_root = \"ssl\"\n")).concat()
}

/// Puts a certificate where the servers look for it, and yields it.
pub fn put_certificate(machine: &Machine) -> String {
    let live = format!("ssl/live/{SITE}");
    machine.create_dir(&live);
    certificates(&machine.path(&live), &[SITE]);
    let (chain, key) = (machine.read(&format!("{live}/server.pem")), machine.read(&format!("{live}/server.key")));
    machine.write(&format!("{live}/fullchain.pem"), &chain);
    machine.write(&format!("{live}/privkey.pem"), &key);
    machine.write(&format!("{live}/combined.pem"), format!("{chain}{key}"));
    chain
}

/// A running server.
pub struct Pasted {
    pub http: u16,
    pub https: u16,
    _process: Subprocess,
    _directory: TempDir,
}

impl Pasted {
    /// Starts it with what `certfleet snippet` printed, at other ports than 80 and 443.
    pub fn start(server: &str, machine: &Machine, http: u16) -> Self {
        Self::start_with(server, http, |text| text, machine)
    }

    /// The same with a text that was changed.
    pub fn start_with(server: &str, http: u16, change: impl Fn(String) -> String, machine: &Machine) -> Self {
        let directory = tempfile::Builder::new().prefix("certfleet-pasted-").tempdir().expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        let https = free_port();
        let answer = machine.run(&["snippet", server, SITE, "--json"]).expect(0).json();
        assert_eq!(answer["server"], server);
        let files = answer["files"].as_array().expect("files");
        let mut text = change(files[0]["text"].as_str().expect("a text").to_owned());
        for file in &files[1..] {
            let path = file["path"].as_str().expect("a path");
            let name = directory.path().join("script.lua");
            fs::write(&name, change(file["text"].as_str().expect("a text").to_owned())).expect("a file");
            assert!(text.contains(path), "{path} is not named in:\n{text}");
            text = text.replace(path, &name.to_string_lossy());
        }
        let configuration = directory.path().join(if server == "caddy" { "Caddyfile" } else { "configuration" });
        fs::write(&configuration, whole(server, &text, directory.path(), http, https)).expect("a configuration");
        let mut process = Subprocess::spawn(&command(server, &configuration, directory.path()), directory.path().join("output"));
        for port in [http, https] {
            process.wait_for_port(([127, 0, 0, 1], port).into(), PATIENCE);
        }
        Self { http, https, _process: process, _directory: directory }
    }
}

/// The whole configuration, at these ports of 127.0.0.1.
fn whole(server: &str, text: &str, directory: &Path, http: u16, https: u16) -> String {
    let directory = directory.display();
    match server {
        "nginx" => {
            let text = text.replace("listen [::]:80;", "").replace("listen [::]:443 ssl;", "");
            let text = text.replace("listen 80;", &format!("listen 127.0.0.1:{http};"));
            let text = text.replace("listen 443 ssl;", &format!("listen 127.0.0.1:{https} ssl;"));
            format!(
                "daemon off; worker_processes 1; pid {directory}/pid; error_log {directory}/log;\nevents {{}}\nhttp {{\naccess_log off;\n{text}}}\n"
            )
        }
        "apache" => {
            let modules = ["mpm_event", "alias", "authz_core", "ssl"];
            let modules = modules.map(|name| format!("LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so\n")).concat();
            let text = text.replace("*:80", &format!("127.0.0.1:{http}")).replace("*:443", &format!("127.0.0.1:{https}"));
            format!(
                "{modules}ServerName localhost\nDefaultRuntimeDir {directory}\nPidFile {directory}/pid\nErrorLog {directory}/log\nUser www-data\n\
                 Group www-data\nListen 127.0.0.1:{http}\nListen 127.0.0.1:{https}\nSSLSessionCache none\n{text}"
            )
        }
        "lighttpd" => {
            let text = text.replace("\":443\"", &format!("\"127.0.0.1:{https}\""));
            format!(
                "server.modules = (\"mod_indexfile\")\nserver.document-root = \"{directory}\"\nserver.bind = \"127.0.0.1\"\nserver.port = {http}\n\
                 server.username = \"www-data\"\nserver.groupname = \"www-data\"\n{text}"
            )
        }
        "haproxy" => {
            let text = text.replace(":::80 v4v6", &format!("127.0.0.1:{http}")).replace(":::443 v4v6", &format!("127.0.0.1:{https}"));
            format!(
                "global\n  maxconn 100\ndefaults\n  mode http\n  timeout client 10s\n  timeout server 10s\n  timeout connect 10s\n{text}"
            )
        }
        "caddy" => {
            let at_port = |line: &str| {
                if !line.starts_with("http") {
                    return format!("{line}\n");
                }
                let port = if line.starts_with("https") { https } else { http };
                let addresses = line.trim_end_matches(" {").split(", ").map(|address| format!("{address}:{port}"));
                format!("{} {{\n\tbind 127.0.0.1\n", addresses.collect::<Vec<_>>().join(", "))
            };
            let text: String = text.lines().map(at_port).collect();
            format!("{{\n\tadmin off\n\tauto_https off\n\tstorage file_system {directory}/storage\n}}\n{text}")
        }
        other => panic!("no such server: {other}"),
    }
}

fn command(server: &str, configuration: &Path, directory: &Path) -> Command {
    let with = |name: &str, arguments: &[&str]| {
        let mut command = Command::new(program(name));
        command.args(arguments).arg(configuration);
        command
    };
    match server {
        "nginx" => with("nginx", &["-c"]),
        "apache" => with("apache2", &["-D", "FOREGROUND", "-f"]),
        "lighttpd" => with("lighttpd", &["-D", "-f"]),
        "haproxy" => with("haproxy", &["-db", "-f"]),
        "caddy" => {
            let mut command = with("caddy", &["run", "--adapter", "caddyfile", "--config"]);
            command.env("HOME", directory);
            command
        }
        other => panic!("no such server: {other}"),
    }
}
