//! Webservers with a real sshd, each with an `/etc/certfleet` of its own. They run as root, in mount namespaces.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use super::private_mounts::{PrivateMounts, directory};
use super::process::{Subprocess, free_port, program, run};

/// A machine that can be logged in to.
pub struct SshHost {
    place: TempDir,
    port: u16,
    _sshd: Subprocess,
}

/// What certfleet is on a host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Installed {
    /// The real one, behind a script that writes down its arguments.
    Certfleet,
    /// A program that takes for ever, and says in `started` that it has begun.
    Hanging,
    /// Nothing.
    Nothing,
}

impl SshHost {
    /// Starts a machine that whoever has `key` may log in to as root.
    pub fn start(key: &SshKey, installed: Installed) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let own = |name: &str| directory(place.path(), name);
        let path = |name: &str| place.path().join(name);
        let script = match installed {
            Installed::Certfleet => {
                format!("echo \"$*\" >> {}\nexec {} \"$@\"\n", path("argv").display(), env!("CARGO_BIN_EXE_certfleet"))
            }
            Installed::Hanging => format!("echo \"$*\" >> {}\nexec sleep 600\n", path("started").display()),
            Installed::Nothing => String::new(),
        };
        let bin = own("local/bin");
        if installed != Installed::Nothing {
            fs::write(bin.join("certfleet"), format!("#!/bin/sh\n{script}")).expect("a script");
            fs::set_permissions(bin.join("certfleet"), fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        own("run/sshd");
        own("etc-upper/upper");
        let port = free_port();
        let host_key = SshKey::new(&path("host"));
        fs::write(path("authorized_keys"), key.public()).expect("a file");
        let configuration = format!(
            "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n",
            host_key.0.display(),
            path("authorized_keys").display()
        );
        fs::write(path("sshd_config"), configuration).expect("a file");
        let mounts = PrivateMounts::new("web").overlay("/etc", own("etc-upper")).bind("/usr/local", own("local")).bind("/run", own("run"));
        let configuration = path("sshd_config").display().to_string();
        let sshd = program("sshd").display().to_string();
        let mut sshd = Subprocess::spawn(&mounts.command(&bin, &sshd, &["-D", "-e", "-f", &configuration]), path("sshd.log"));
        sshd.wait_for_port(([127, 0, 0, 1], port).into(), Duration::from_secs(30));
        Self { place, port, _sshd: sshd }
    }

    /// A file of the machine's `/etc/certfleet`, where the test has it.
    pub fn etc(&self, name: &str) -> PathBuf {
        self.path("etc-upper/upper/certfleet").join(name)
    }

    /// A file of the machine's own directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The lines of ssh's configuration that lead to it.
    pub fn entry(&self, name: &str, key: &SshKey, known_hosts: &Path) -> String {
        format!(
            "Host {name}\n HostName 127.0.0.1\n Port {}\n User root\n IdentityFile {}\n IdentitiesOnly yes\n IdentityAgent none\n UserKnownHostsFile {}\n",
            self.port,
            key.0.display(),
            known_hosts.display()
        )
    }

    /// Its line in `known_hosts`.
    pub fn known(&self) -> String {
        format!("[127.0.0.1]:{} {}", self.port, fs::read_to_string(self.path("host.pub")).expect("a key"))
    }
}

/// A key pair of ssh.
pub struct SshKey(PathBuf);

impl SshKey {
    /// Makes one at `path`.
    pub fn new(path: &Path) -> Self {
        run(Command::new(program("ssh-keygen")).args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path));
        Self(path.to_owned())
    }

    fn public(&self) -> String {
        fs::read_to_string(self.0.with_extension("pub")).expect("a key")
    }
}
