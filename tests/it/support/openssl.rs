//! Certificates and TLS servers made by the `openssl` command.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};

use certfleet::domain::certificate::Certificate;
use certfleet::domain::pem;
use tempfile::TempDir;

/// A directory in which `openssl` works.
pub(crate) struct Workshop {
    dir: TempDir,
}

/// What a certificate is made of.
pub(crate) struct Order<'a> {
    /// Its file names: `<name>.pem` and `<name>.key`. An existing key is used again.
    pub(crate) name: &'a str,
    /// Its common name.
    pub(crate) common_name: &'a str,
    /// The name of its issuer's files; its own for a self-signed one.
    pub(crate) issuer: &'a str,
    /// `-newkey` and the like, for `openssl genpkey`.
    pub(crate) key: &'a str,
    /// How long it lives.
    pub(crate) days: u32,
    /// Lines of an extension section.
    pub(crate) extensions: &'a str,
}

/// `openssl genpkey` options.
pub(crate) const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";
/// Extensions of a CA.
pub(crate) const CA: &str = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign";
/// Extensions of the leaf of the usual chain.
pub(crate) const LEAF: &str = "basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth\n\
    subjectAltName=DNS:www.example.test,DNS:*.w.example.test,IP:192.0.2.7\n\
    authorityInfoAccess=caIssuers;URI:http://ca.example.test/inter.der";

impl Workshop {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    /// With `root`, `inter` signed by it, and `leaf` signed by that.
    pub(crate) fn with_chain() -> Self {
        let shop = Self::new();
        shop.certify(&Order { name: "root", common_name: "Root-One", issuer: "root", key: P256, days: 3650, extensions: CA });
        shop.certify(&Order { name: "inter", common_name: "Inter-One", issuer: "root", key: P256, days: 1000, extensions: CA });
        shop.certify(&Order { name: "leaf", common_name: "www.example.test", issuer: "inter", key: P256, days: 90, extensions: LEAF });
        shop
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.path(file)).expect("a file")
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(file), content).expect("written");
    }

    /// Several files, one after the other.
    pub(crate) fn joined(&self, files: &[&str]) -> Vec<u8> {
        files.iter().flat_map(|file| self.read(file)).collect()
    }

    pub(crate) fn certificate(&self, name: &str) -> Certificate {
        let text = String::from_utf8(self.read(&format!("{name}.pem"))).expect("text");
        let blocks = pem::blocks(&text).expect("blocks");
        Certificate::from_der(&blocks[0].der).expect("a certificate")
    }

    /// Runs `openssl` with arguments that contain no spaces.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let done = Command::new("openssl").args(arguments.split_whitespace()).current_dir(self.dir.path()).output().expect("openssl runs");
        assert!(done.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    pub(crate) fn certify(&self, order: &Order<'_>) {
        let Order { name, common_name, issuer, key, days, extensions } = order;
        if !self.path(&format!("{name}.key")).exists() {
            self.openssl(&format!("genpkey {key} -out {name}.key"));
        }
        self.write("extensions", extensions);
        self.openssl(&format!("req -new -key {name}.key -subj /CN={common_name} -out {name}.csr"));
        let signer =
            if name == issuer { format!("-signkey {name}.key") } else { format!("-CA {issuer}.pem -CAkey {issuer}.key -CAcreateserial") };
        self.openssl(&format!("x509 -req -in {name}.csr {signer} -days {days} -extfile extensions -out {name}.pem"));
    }

    /// `openssl s_server` with these options on a free port of the loopback interface `host`.
    pub(crate) fn serve(&self, host: &str, options: &str) -> Server {
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", &format!("{host}:0")])
            .args(options.split_whitespace())
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("openssl starts");
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut server = Server { child, address: String::new(), output: None };
        let mut line = String::new();
        while output.read_line(&mut line).expect("its output") > 0 {
            if let Some(address) = line.trim().strip_prefix("ACCEPT ") {
                address.clone_into(&mut server.address);
                break;
            }
            line.clear();
        }
        assert!(!server.address.is_empty(), "openssl s_server {options} did not start");
        // Kept open: a server that cannot print ends.
        server.output = Some(output);
        server
    }
}

/// A running `openssl s_server`: ended, and waited for, when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// `host:port`.
    pub(crate) address: String,
    output: Option<BufReader<ChildStdout>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.output = None;
    }
}
