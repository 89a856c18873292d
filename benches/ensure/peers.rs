//! The scene of an issuance: pebble, and each client with an account that it knows.

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

/// How many requests each made to the CA for one certificate.
pub struct Requests {
    /// certfleet, uacme and acme-tiny, with a webroot.
    pub webroot: [usize; 3],
    /// certfleet, with a listener of its own.
    pub standalone: usize,
}

/// Everything that is needed, ready.
pub struct Issuance {
    pebble: Pebble,
    front: CaFront,
    direct: Clients,
    counted: Clients,
    webroot: tempfile::TempDir,
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
        let scene = Self { direct, counted, pebble, front, webroot };
        for clients in [&scene.direct, &scene.counted] {
            run(Command::new(program("uacme"))
                .args(["--yes", "--acme-url", &clients.url, "--confdir"])
                .arg(clients.path("uacme"))
                .arg("new"));
            run(&mut clients.certfleet(&clients.standalone));
            let _server = scene.web_server();
            run(&mut clients.certfleet(&clients.webroot));
            run(&mut clients.uacme_anew());
            run(&mut clients.acme_tiny(scene.webroot.path()));
        }
        scene
    }

    /// What every client's webroot is served by, where pebble looks.
    pub fn web_server(&self) -> HttpServer {
        let root: Arc<Path> = self.webroot.path().into();
        let service = service_fn(move |request: Request<Incoming>| {
            let root = Arc::clone(&root);
            async move { Ok::<_, Dropped>(serve(&root, request.uri().path())) }
        });
        HttpServer::start_at(self.pebble.http_port, service, None)
    }

    /// Counted through a front, in runs that are not timed.
    pub fn requests(&self) -> Requests {
        let count = |mut command: Command| {
            let before = self.front.seen().len();
            run(&mut command);
            self.front.seen().len() - before
        };
        let clients = &self.counted;
        let standalone = count(clients.certfleet(&clients.standalone));
        let _server = self.web_server();
        let commands = [clients.certfleet(&clients.webroot), clients.uacme_anew(), clients.acme_tiny(self.webroot.path())];
        Requests { webroot: commands.map(count), standalone }
    }

    pub fn certfleet_webroot(&self) -> Command {
        self.direct.certfleet(&self.direct.webroot)
    }

    pub fn certfleet_standalone(&self) -> Command {
        self.direct.certfleet(&self.direct.standalone)
    }

    pub fn uacme(&self) -> Command {
        self.direct.uacme_anew()
    }

    /// It ends with 1 where nothing is due.
    pub fn uacme_idle(&self) -> Command {
        let uacme = self.direct.uacme();
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\"; test $? = 1", "sh"]).arg(uacme.get_program()).args(uacme.get_args());
        command
    }

    pub fn acme_tiny(&self) -> Command {
        self.direct.acme_tiny(self.webroot.path())
    }
}

impl Clients {
    fn new(url: String, root_pem: &str, pebble: &Pebble, directory: &Path) -> Self {
        let solvers = [
            format!("mode = \"webroot\"\npath = \"{}\"\n", directory.display()),
            format!("mode = \"standalone\"\nlisten = \"127.0.0.1:{}\"\n", pebble.http_port),
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

    fn certfleet(&self, machine: &Machine) -> Command {
        machine.command(&["ensure", "--force"])
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
