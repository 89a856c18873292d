//! How the servers that Debian packages are tested and reloaded.

use std::ffi::OsString;
use std::path::Path;

use super::{Commands, DEFAULT_DEADLINE};

/// A server that certfleet knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Daemon {
    /// nginx.
    Nginx,
    /// The Apache HTTP server.
    Apache,
    /// lighttpd.
    Lighttpd,
    /// HAProxy.
    Haproxy,
    /// Caddy.
    Caddy,
    /// Postfix.
    Postfix,
    /// None: files alone.
    Files,
}

/// What starts and stops the services of a machine.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Manager {
    /// systemd.
    Systemd,
    /// Something else, or nothing, as in most containers.
    Other,
}

impl Manager {
    /// This machine's (sd_booted(3): systemd runs where this directory is).
    pub fn find() -> Self {
        if Path::new("/run/systemd/system").is_dir() { Self::Systemd } else { Self::Other }
    }
}

impl Daemon {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Apache => "Apache",
            Self::Lighttpd => "lighttpd",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
            Self::Postfix => "Postfix",
            Self::Files => "files",
        }
    }

    /// Its commands as Debian 12 and 13 package it. Under systemd the unit is reloaded, so that what its administrator has changed in it
    /// counts.
    pub fn commands(self, manager: Manager) -> Commands {
        let test = self.test().map(words);
        let reload = match manager {
            Manager::Systemd => self.reload_unit(),
            Manager::Other => self.reload_without_unit(),
        };
        Commands { test, reload: reload.map(words), deadline: DEFAULT_DEADLINE }
    }

    fn test(self) -> Option<&'static [&'static str]> {
        match self {
            // nginx(8): -t tests, -q keeps quiet about success. nginx.service does the same before it starts.
            Self::Nginx => Some(&["nginx", "-t", "-q"]),
            // apache2ctl(8), which reads /etc/apache2/envvars: apache2 itself would not find its directories.
            Self::Apache => Some(&["apache2ctl", "configtest"]),
            // lighttpd(8): -tt also loads the modules, and so the certificates. lighttpd.service does the same before it starts.
            Self::Lighttpd => Some(&["lighttpd", "-tt", "-f", "/etc/lighttpd/lighttpd.conf"]),
            // haproxy(1): -c checks and ends. It loads the certificates. With -q it would not say what is wrong, either.
            Self::Haproxy => Some(&["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]),
            // caddy-validate(8): loads the modules as well, and so the certificates.
            Self::Caddy => Some(&["caddy", "validate", "--config", "/etc/caddy/Caddyfile"]),
            // postfix(1): fails on settings and directories that it cannot work with. What is wrong, it tells its log, and terminals.
            Self::Postfix => Some(&["postfix", "check"]),
            Self::Files => None,
        }
    }

    fn reload_unit(self) -> Option<&'static [&'static str]> {
        match self {
            Self::Nginx => Some(&["systemctl", "reload", "nginx.service"]),
            Self::Apache => Some(&["systemctl", "reload", "apache2.service"]),
            // Not a reload: its unit sends SIGUSR1, which makes lighttpd read keys as the user it runs as. Where only root may read them,
            // and in a chroot, it ends instead (doc/initscripts.txt of lighttpd: "a graceful stop and then restart is still required").
            Self::Lighttpd => Some(&["systemctl", "restart", "lighttpd.service"]),
            // haproxy.service: a check, then SIGUSR2 to the master process.
            Self::Haproxy => Some(&["systemctl", "reload", "haproxy.service"]),
            // caddy.service: caddy reload --force.
            Self::Caddy => Some(&["systemctl", "reload", "caddy.service"]),
            // postfix.service does nothing itself but pass reloads on to the instances: this reaches them all the same.
            Self::Postfix => self.reload_without_unit(),
            Self::Files => None,
        }
    }

    fn reload_without_unit(self) -> Option<&'static [&'static str]> {
        match self {
            // nginx(8): -s sends a signal to the process that the configured pid file names.
            Self::Nginx => Some(&["nginx", "-s", "reload"]),
            // apache2ctl(8): tests once more, then lets workers finish what they serve. Starts Apache where it is not running.
            Self::Apache => Some(&["apache2ctl", "graceful"]),
            // As under systemd. The script tests the configuration first, and stops nothing if that fails.
            Self::Lighttpd => Some(&["/etc/init.d/lighttpd", "restart"]),
            // Debian's script knows how it has started haproxy: without a master process, which SIGUSR2 would be meant for.
            Self::Haproxy => Some(&["/etc/init.d/haproxy", "reload"]),
            // caddy-reload(8). Without --force a configuration that has not changed is not loaded, and neither are its certificates
            // (https://github.com/caddyserver/caddy/issues/4005).
            Self::Caddy => Some(&["caddy", "reload", "--config", "/etc/caddy/Caddyfile", "--force"]),
            // postfix(1): processes that serve read the files when they start; they end at their earliest convenience.
            Self::Postfix => Some(&["postfix", "reload"]),
            Self::Files => None,
        }
    }
}

fn words(command: &[&str]) -> Vec<OsString> {
    command.iter().map(OsString::from).collect()
}
