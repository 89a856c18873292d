//! What else answers the question whether anything is to be done.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use certfleet::datastore::Datastore;
use certfleet::datastore::directory::DirectoryDatastore;

use super::support::bucket::Bucket;
use super::support::process::program;
use super::support::s3_in_process::{ACCESS_KEY, BUCKET, SECRET_KEY};

/// Set in a process that lists a datastore and does nothing else: a directory, or the endpoint of an S3 server inside the benchmark.
pub const LISTING: &str = "CERTFLEET_BENCH_LISTING";

/// The prefix of the fleet in the bucket.
pub const PREFIX: &str = "fleet";

/// What a process with [`LISTING`] does: what the agent's one listing costs, by the same library.
pub fn list(store: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let listing = runtime.block_on(async {
        let store: Box<dyn Datastore> = if store.starts_with("http://") {
            let (name, access_key, secret_key) = (BUCKET.to_owned(), ACCESS_KEY.to_owned(), SECRET_KEY.to_owned());
            let bucket = Bucket { endpoint: store.to_owned(), name, access_key, secret_key, ca_file: None };
            Box::new(bucket.datastore(PREFIX).await)
        } else {
            Box::new(DirectoryDatastore::new(store.into()))
        };
        store.list("", None).await.expect("a listing")
    });
    println!("{}", listing.entries.len());
}

/// A process that lists and does nothing else.
pub fn bare_listing(store: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a path"));
    command.env_clear().env(LISTING, store);
    command
}

/// One page of a listing by curl.
pub fn curl_listing(endpoint: &str) -> Command {
    let mut command = Command::new(program("curl"));
    command.args(["--silent", "--show-error", "--fail", "--aws-sigv4", "aws:amz:us-east-1:s3", "--user"]);
    command.arg(format!("{ACCESS_KEY}:{SECRET_KEY}")).args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
    command.arg(format!("{endpoint}/{BUCKET}?list-type=2&prefix={PREFIX}%2F"));
    command
}

/// The loop that people put into cron.
pub fn shell_loop(live: &Path) -> Command {
    let mut command = Command::new("sh");
    let script = "for file in \"$1\"/*/fullchain.pem; do openssl x509 -noout -checkend 604800 -in \"$file\" >/dev/null || exit 1; done";
    command.args(["-c", script, "sh"]).arg(live);
    command
}

/// certbot with lineages of its own kind: `archive`, `live`, and a file each in `renewal`.
pub struct Certbot(tempfile::TempDir);

impl Certbot {
    /// Gives it the certificates that lie in `live`.
    pub fn with(live: &Path) -> Self {
        let certbot = Self(tempfile::tempdir().expect("a directory"));
        let directory = |name: &str| {
            let path = certbot.0.path().join(name);
            std::fs::create_dir_all(&path).expect("a directory");
            path
        };
        for name in ["work", "logs", "renewal"] {
            directory(name);
        }
        for entry in std::fs::read_dir(live).expect("a directory") {
            let entry = entry.expect("an entry");
            let site = entry.file_name().into_string().expect("a name");
            let (archive, links) = (directory(&format!("archive/{site}")), directory(&format!("live/{site}")));
            for kind in ["cert", "chain", "fullchain", "privkey"] {
                // A chain of the local CA is the leaf alone; certbot wants to read something.
                let from = if kind == "chain" { "cert" } else { kind };
                std::fs::copy(entry.path().join(format!("{from}.pem")), archive.join(format!("{kind}1.pem"))).expect("a copy");
                symlink(format!("../../archive/{site}/{kind}1.pem"), links.join(format!("{kind}.pem"))).expect("a link");
            }
            std::fs::write(certbot.path("renewal").join(format!("{site}.conf")), renewal(&archive, &links)).expect("a file");
        }
        certbot
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `certbot renew`, as cron calls it, but for the random sleep.
    pub fn renew(&self) -> Command {
        let mut command = Command::new(program("certbot"));
        command.args(["renew", "--quiet", "--no-random-sleep-on-renew", "--config-dir"]).arg(self.0.path());
        command.arg("--work-dir").arg(self.path("work")).arg("--logs-dir").arg(self.path("logs"));
        command
    }
}

/// What certbot 2.1 writes for a lineage.
fn renewal(archive: &Path, links: &Path) -> String {
    let (archive, links) = (archive.display(), links.display());
    format!(
        "version = 2.1.0\narchive_dir = {archive}\ncert = {links}/cert.pem\nprivkey = {links}/privkey.pem\nchain = {links}/chain.pem\n\
         fullchain = {links}/fullchain.pem\n\n[renewalparams]\naccount = 00000000000000000000000000000000\n\
         authenticator = standalone\nserver = https://127.0.0.1:14000/dir\nkey_type = ecdsa\n"
    )
}
