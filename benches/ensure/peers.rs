//! The scene of an issuance: pebble, and each client with an account that it knows.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;

use super::support::ca_front::CaFront;
use super::support::machine::Machine;
use super::support::pebble::{Pebble, PebbleOptions};
use super::support::process::{program, run};
use super::support::server::{Dropped, HttpServer};

const SITE: &str = "www.example.test";

/// The ways to one certificate.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// certfleet with a listener of its own.
    Standalone,
    /// certfleet with the web server's directory.
    Webroot,
    /// uacme with the web server's directory, and a key that it has made before.
    Uacme,
    /// acme-tiny with the web server's directory, and a signing request that was made before.
    AcmeTiny,
}

/// Everything that is needed, ready.
pub struct Issuance {
    pebble: Pebble,
    front: CaFront,
    direct: Clients,
    counted: Clients,
    webroot: tempfile::TempDir,
    server: RefCell<Option<HttpServer>>,
}

/// The clients, each with an account at one URL of the CA.
struct Clients {
    url: String,
    webroot: Machine,
    standalone: Machine,
    files: tempfile::TempDir,
}

impl Issuance {
    pub async fn prepare() -> Self {
        let pebble = Pebble::start(PebbleOptions::default()).await;
        let front = CaFront::start(&pebble);
        let webroot = tempfile::tempdir().expect("a directory");
        trust_system_wide(&format!("{}{}", pebble.root_pem(), front.root_pem()));
        let clients = |url: String, root: &str| Clients::new(url, root, &pebble, webroot.path());
        let direct = clients(pebble.directory_url(), pebble.root_pem());
        let counted = clients(front.directory_url(), front.root_pem());
        let scene = Self { pebble, front, direct, counted, webroot, server: RefCell::default() };
        for clients in [&scene.direct, &scene.counted] {
            run(Command::new(program("uacme"))
                .args(["--yes", "--acme-url", &clients.url, "--confdir"])
                .arg(clients.path("uacme"))
                .arg("new"));
            for way in [Way::Standalone, Way::Webroot, Way::Uacme, Way::AcmeTiny] {
                run(&mut scene.command(clients, way));
            }
        }
        scene
    }

    /// What every client's webroot is served by, where pebble looks.
    fn web_server(&self) -> HttpServer {
        let root: Arc<Path> = self.webroot.path().into();
        let service = service_fn(move |request: Request<Incoming>| {
            let root = Arc::clone(&root);
            async move { Ok::<_, Dropped>(serve(&root, request.uri().path())) }
        });
        HttpServer::start_at(self.pebble.http_port, service, None)
    }

    /// How many requests that way makes to the CA: counted through a front, in a run that is not timed.
    pub fn requests(&self, way: Way) -> usize {
        let before = self.front.seen().len();
        run(&mut self.command(&self.counted, way));
        self.front.seen().len() - before
    }

    /// A command that gets a certificate that way, with the web server there if it is needed.
    pub fn anew(&self, way: Way) -> Command {
        self.command(&self.direct, way)
    }

    fn command(&self, clients: &Clients, way: Way) -> Command {
        // The port is asked for by both: given back by the one before it is taken by the other.
        let mut server = self.server.borrow_mut();
        match way {
            Way::Standalone => *server = None,
            Way::Webroot | Way::Uacme | Way::AcmeTiny if server.is_none() => *server = Some(self.web_server()),
            Way::Webroot | Way::Uacme | Way::AcmeTiny => {}
        }
        match way {
            Way::Standalone => clients.standalone.command(&["ensure", "--force"]),
            Way::Webroot => clients.webroot.command(&["ensure", "--force"]),
            Way::Uacme => clients.uacme_anew(),
            Way::AcmeTiny => clients.acme_tiny(self.webroot.path()),
        }
    }

    /// It ends with 1 where nothing is due.
    pub fn uacme_idle(&self) -> Command {
        let uacme = self.direct.uacme();
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\"; test $? = 1", "sh"]).arg(uacme.get_program()).args(uacme.get_args());
        command
    }
}

impl Clients {
    fn new(url: String, root_pem: &str, pebble: &Pebble, directory: &Path) -> Self {
        let solvers = [
            format!("mode = \"webroot\"\npath = \"{}\"\n", directory.display()),
            format!("mode = \"standalone\"\ncheck = \"off\"\nlisten = \"127.0.0.1:{}\"\n", pebble.http_port),
        ];
        let [webroot, standalone] = solvers.map(|solver| {
            let machine = Machine::new(&format!(
                "contact = \"ops@example.test\"\n[[site]]\nname = \"{SITE}\"\nissuers = [\"pebble\"]\nsolver = \"web\"\n\
                 [issuer.pebble]\nkind = \"acme\"\ndirectory = \"{url}\"\ntrust = \"tls.pem\"\nchain_trust = \"root.pem\"\n\
                 [solver.web]\nkind = \"http-01\"\n{solver}"
            ));
            machine.write("tls.pem", root_pem);
            machine.write("root.pem", pebble.issuance_root_pem());
            machine
        });
        let clients = Self { url, webroot, standalone, files: tempfile::tempdir().expect("a directory") };
        clients.prepare_peers(root_pem, directory);
        clients
    }

    /// uacme's hook, and what acme-tiny does not make itself: the keys and the signing request.
    fn prepare_peers(&self, root_pem: &str, webroot: &Path) {
        let hook = "#!/bin/sh\nplace=WEBROOT/.well-known/acme-challenge\n[ \"$2\" = http-01 ] || exit 1\n\
                    case $1 in\nbegin) mkdir -p \"$place\" && printf %s \"$5\" > \"$place/$4\" ;;\n*) rm -f \"$place/$4\" ;;\nesac\n";
        std::fs::write(self.path("hook"), hook.replace("WEBROOT", &webroot.display().to_string())).expect("a file");
        std::fs::set_permissions(self.path("hook"), PermissionsExt::from_mode(0o755)).expect("a mode");
        std::fs::write(self.path("tls.pem"), root_pem).expect("a file");
        let openssl = |arguments: &[&str]| run(Command::new("openssl").args(arguments).current_dir(self.files.path()));
        openssl(&["genrsa", "-out", "account.key", "2048"]);
        openssl(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "site.key"]);
        let subject = format!("/CN={SITE}");
        let names = format!("subjectAltName=DNS:{SITE}");
        openssl(&["req", "-new", "-key", "site.key", "-subj", &subject, "-addext", &names, "-out", "site.csr"]);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// A certificate that is there is taken away first: uacme keeps it under a name with the second in it, and fails twice in one.
    fn uacme_anew(&self) -> Command {
        let _ = std::fs::remove_file(self.path("uacme").join(SITE).join("cert.pem"));
        self.uacme()
    }

    fn uacme(&self) -> Command {
        let mut command = Command::new(program("uacme"));
        command.args(["--acme-url", &self.url, "--type", "EC", "--bits", "256", "--confdir"]).arg(self.path("uacme"));
        command.arg("--hook").arg(self.path("hook")).args(["issue", SITE]);
        command
    }

    fn acme_tiny(&self, webroot: &Path) -> Command {
        let place = webroot.join(".well-known/acme-challenge");
        std::fs::create_dir_all(&place).expect("a directory");
        let mut command = Command::new(program("acme-tiny"));
        command.args(["--quiet", "--disable-check", "--directory-url", &self.url, "--account-key"]).arg(self.path("account.key"));
        command.arg("--csr").arg(self.path("site.csr")).arg("--acme-dir").arg(place);
        command.env("SSL_CERT_FILE", self.path("tls.pem")).env("PATH", "/usr/bin:/bin");
        command
    }
}

fn serve(root: &Path, path: &str) -> Response<Full<Bytes>> {
    let found = std::fs::read(root.join(path.trim_start_matches('/')));
    let status = if found.is_ok() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(Full::new(found.unwrap_or_default().into()));
    *response.status_mut() = status;
    response
}

/// For this process and its children: the mount namespace is their own.
fn trust_system_wide(roots_pem: &str) {
    let (_, file) = tempfile::NamedTempFile::new().expect("a file").keep().expect("a file");
    std::fs::write(&file, roots_pem).expect("a file");
    run(Command::new("mount").arg("--bind").arg(&file).arg("/etc/ssl/certs/ca-certificates.crt"));
    std::fs::remove_file(file).expect("mounted, and needed no more");
}
