//! Secrets are in files of mode 0600 and in memory, and nowhere else, whatever happens.

mod hunt;

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use certfleet::domain::record::{self, AccountRecord};
use certfleet::target::server::Daemon;
use rustix::process::{Pid, Signal, kill_process};

use self::hunt::Secrets;
use crate::support::fleet_files::seal_of;
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::process::program;
use crate::support::s3_in_process::InProcessS3;
use crate::support::sshd::{Installed, SshHost, SshKey};
use crate::support::webserver::Webserver;

const SITE: &str = "www.example.test";
const EAB_KEY: &str = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";
const OTHER_EAB_KEY: &str = "b10lLJs8l1GPIzsLP0s6pMt8O0XVGnfTaCeROxQM0BIt2XrJMDHJZBM5NuQmQJQH";
const TOKEN: &str = "dns-token-0123456789";
const OTHER_S3_KEY: &str = "another-secret-of-the-bucket";

/// What may hold secrets, and then only with a mode that keeps others out.
const HOLDERS: &[&str] =
    &["identity.age", "privkey.pem", "combined.pem", "root.key", "s3-secret-key", "eab", "token", "hook-environment", "key", "damaged.pem"];

/// A fleet of a build machine, a webserver that runs the agent, and one that is pushed to, with everything that it has said.
struct Story {
    s3: InProcessS3,
    build: Machine,
    node: Machine,
    secrets: Secrets,
    said: Vec<(String, String)>,
}

impl Story {
    fn new(pebble: &Pebble) -> Self {
        let s3 = InProcessS3::start();
        let sites = format!(
            "contact = \"ops@example.test\"\n[[site]]\nname = \"{SITE}\"\nissuers = [\"pebble\"]\nsolver = \"dns\"\n\
             [[site]]\nname = \"inside.example.test\"\nissuers = [\"local-ca\"]\n\
             [datastore]\nurl = \"s3://{}/fleet\"\nendpoint = \"{}\"\nregion = \"us-east-1\"\npath_style = true\n\
             access_key = {{ file = \"s3-access-key\" }}\nsecret_key = {{ file = \"s3-secret-key\" }}\n\
             [issuer.pebble]\nkind = \"acme\"\ndirectory = \"{}\"\ntrust = \"pebble-tls.pem\"\nchain_trust = \"pebble-root.pem\"\n\
             eab = {{ kid = \"kid-1\", hmac_key = {{ file = \"eab\" }} }}\n",
            s3.bucket().name,
            s3.endpoint(),
            pebble.directory_url()
        );
        let (build, node) = (Machine::new("# nothing yet\n"), Machine::new("# nothing yet\n"));
        for machine in [&build, &node] {
            let hook = machine.path("hook").display().to_string();
            let solver = format!(
                "[solver.dns]\nkind = \"dns-01\"\npresent = [{hook:?}, \"set-txt\"]\ncleanup = [{hook:?}, \"clear-txt\"]\n\
                 credentials = {{ TOKEN = {{ file = \"token\" }} }}\n"
            );
            machine.write("certfleet.toml", format!("{sites}{solver}"));
            machine.write("pebble-tls.pem", pebble.root_pem());
            machine.write("pebble-root.pem", pebble.issuance_root_pem());
            machine.create_dir("tmp");
            write_script(&machine.path("hook"), &hook_script(machine, &pebble.dns_api));
            write_script(&machine.path("watched"), &watched_script(machine));
            machine.write("s3-access-key", s3.bucket().access_key);
            for (name, secret) in [("s3-secret-key", s3.bucket().secret_key.as_str()), ("eab", EAB_KEY), ("token", TOKEN)] {
                write_secret(machine, name, secret);
            }
        }
        let mut secrets = Secrets::default();
        for (name, secret) in [
            ("the bucket's secret", s3.bucket().secret_key.as_str()),
            ("a wrong secret of the bucket", OTHER_S3_KEY),
            ("the binding", EAB_KEY),
            ("a wrong binding", OTHER_EAB_KEY),
            ("the token", TOKEN),
        ] {
            secrets.add_text(name, secret);
        }
        Self { s3, build, node, secrets, said: Vec::new() }
    }

    /// Runs the binary with everything told that can be told, and keeps what it says.
    fn run(&mut self, machine: fn(&Self) -> &Machine, arguments: &[&str], code: i32) {
        let mut command = machine(self).command(&[&["-vvv"], arguments].concat());
        command.env("TMPDIR", machine(self).path("tmp")).env("PATH", format!("{}:/usr/sbin:/usr/bin", machine(self).path("bin").display()));
        let output = command.output().expect("the binary");
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}\nstdout:\n{stdout}\nstderr:\n{stderr}");
        self.said.push((format!("what {arguments:?} prints"), format!("{stdout}{stderr}")));
    }

    fn on_build(&mut self, arguments: &[&str], code: i32) {
        self.run(|story| &story.build, arguments, code);
    }

    fn on_node(&mut self, arguments: &[&str], code: i32) {
        self.run(|story| &story.node, arguments, code);
    }

    /// From nothing to a certificate, by way of everything that can be refused on the way.
    fn first_certificate(&mut self) {
        self.on_build(&["init"], 0);
        let identity = self.build.read("runtimedata/identity.age");
        self.secrets.add_text("the identity", identity.lines().last().expect("an identity"));
        let secret_key = self.s3.bucket().secret_key;
        for (file, wrong, right, code) in [("s3-secret-key", OTHER_S3_KEY, secret_key.as_str(), 1), ("eab", OTHER_EAB_KEY, EAB_KEY, 1)] {
            write_secret(&self.build, file, wrong);
            self.on_build(&["ensure", "--force", "--json"], code);
            write_secret(&self.build, file, right);
        }
        self.build.write("fail", "");
        self.on_build(&["ensure", SITE, "--force"], 1);
        let quoted = &self.said.last().expect("a run").1;
        assert!(quoted.contains("no such zone"), "what the hook says is told: {quoted}");
        fs::remove_file(self.build.path("fail")).expect("a file");
        self.on_build(&["ensure", "--force", "--json"], 0);
        self.learn_keys();
    }

    /// Remembers the keys that the build machine has now, and that of the account.
    fn learn_keys(&mut self) {
        for site in [SITE, "inside.example.test"] {
            self.secrets.add_keys_of(&self.build.files(site).join("privkey.pem"));
        }
        self.secrets.add_keys_of(&self.build.path("runtimedata/local-ca/root.key"));
    }

    fn learn_account(&mut self) {
        let object = self.s3.objects().get("fleet/accounts/pebble").expect("an account");
        let account: AccountRecord = record::read(&object).expect("an account");
        let seal = seal_of(&self.build.read("runtimedata/identity.age"));
        let text = seal.open(&account.account, &["account", "accounts/pebble"]).expect("an account of this fleet");
        let account: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let key = account["key_pkcs8"].as_str().expect("a key");
        self.secrets.add_key("the account", &BASE64_URL_SAFE_NO_PAD.decode(key).expect("base64url"));
    }

    /// Everything that people ask a build machine for, and what is refused there.
    fn questions(&mut self) {
        for arguments in
            [&["status"][..], &["status", "--json"], &["prune", "--dry-run"], &["schedule", "--cron"], &["schedule", "--systemd"]]
        {
            self.on_build(arguments, 0);
        }
        for arguments in [&["show", SITE][..], &["export", SITE, "--format", "pem"], &["ensure", "--dry-run"]] {
            self.on_build(arguments, 0);
        }
        let key = fs::read_to_string(self.build.files(SITE).join("privkey.pem")).expect("a key");
        let chain = self.build.files(SITE).join("fullchain.pem").display().to_string();
        let other = self.build.files("inside.example.test").join("privkey.pem").display().to_string();
        self.on_build(&["import", SITE, "--fullchain", &chain, "--privkey", &other], 1);
        let end = key.find("-----END").expect("an end");
        for damaged in [&key[..end], &key.replacen('M', "#", 1), &format!("{} {}", &key[..end - 8], &key[end..])] {
            write_secret(&self.build, "damaged.pem", damaged);
            self.on_build(&["import", SITE, "--fullchain", &chain, "--privkey", "damaged.pem"], 1);
        }
        // The identity of somebody else, and none.
        let identity = self.build.read("runtimedata/identity.age");
        let other = Machine::new("");
        other.run(&["init"]).expect(0);
        other.share_identity(&self.build);
        self.secrets.add_text("another identity", other.read("runtimedata/identity.age").lines().last().expect("an identity"));
        self.on_build(&["ensure"], 2);
        self.build.write("runtimedata/identity.age", &identity[..identity.len() - 5]);
        self.on_build(&["ensure"], 2);
        self.build.write("runtimedata/identity.age", identity);
    }

    /// A webserver that follows two renewals and a rollback, and cannot install another one.
    fn webserver(&mut self) -> Webserver {
        self.build.share_identity(&self.node);
        self.node.create_dir("runtimedata/local-ca");
        fs::copy(self.build.path("runtimedata/local-ca/root.pem"), self.node.path("runtimedata/local-ca/root.pem")).expect("a copy");
        let agent = "[agent]\nnode = \"ws-1\"\nsplay = \"0s\"\n";
        let own = self.node.read("certfleet.toml");
        self.node.write("certfleet.toml", format!("{own}[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n{agent}"));
        self.on_node(&["bootstrap"], 0);
        let nginx = Webserver::start(Daemon::Nginx, &self.node.path("ssl/live").join(SITE));
        let commands = nginx.commands(Duration::from_secs(30));
        let watched = |words: Option<Vec<std::ffi::OsString>>| {
            let mut all = vec![self.node.path("watched").into_os_string()];
            all.extend(words.expect("a command"));
            format!("{all:?}")
        };
        let target = format!(
            "kind = \"nginx\"\nsites = [\"{SITE}\"]\nverify = \"{}\"\ntest = {}\nreload = {}\n",
            nginx.address,
            watched(commands.test),
            watched(commands.reload)
        );
        self.node.change("certfleet.toml", "kind = \"files\"\n", &target);
        self.on_node(&["agent"], 0);
        // The node renews by itself: its hook is watched, too.
        self.s3.advance(Duration::from_secs(1));
        self.on_build(&["ensure", SITE, "--force"], 0);
        self.learn_keys();
        self.on_node(&["agent", "--json"], 0);
        self.on_build(&["rollback", SITE], 0);
        self.on_node(&["agent"], 0);
        self.on_build(&["ensure", SITE, "--force"], 0);
        self.learn_keys();
        nginx.break_configuration();
        self.on_node(&["agent"], 4);
        self.s3.objects().corrupt(&format!("fleet/bundles/{SITE}/0000000004"));
        self.on_node(&["agent"], 4);
        nginx
    }

    /// A webserver that is pushed to.
    fn pushed(&mut self) -> SshHost {
        let key = SshKey::new(&self.build.path("key"));
        let host = SshHost::start(&key, Installed::Certfleet);
        self.build.create_dir("bin");
        let ssh = format!(
            "#!/bin/sh\necho \"$*\" >>{}\nexec {} -F {} \"$@\"\n",
            self.build.path("ssh-arguments").display(),
            program("ssh").display(),
            self.build.path("ssh_config").display()
        );
        write_script(&self.build.path("bin/ssh"), &ssh);
        self.build.write("known_hosts", host.known());
        self.build.write("ssh_config", host.entry("web", &key, &self.build.path("known_hosts")));
        fs::create_dir_all(host.etc("")).expect("a directory");
        for name in ["s3-access-key", "s3-secret-key", "pebble-tls.pem", "pebble-root.pem"] {
            fs::copy(self.build.path(name), host.etc(name)).expect("a copy");
        }
        let target =
            "[[target]]\nkind = \"haproxy\"\nssl_root = \"ssl\"\ntest = [\"true\"]\nreload = [\"true\"]\n[agent]\nrole = \"follower\"\n";
        self.build.write("for-hosts.toml", format!("{}{target}", self.build.read("certfleet.toml")));
        self.on_build(&["push", "web", "--host-config", "for-hosts.toml"], 0);
        host
    }
}

/// A dns-01 hook that writes down its command line and that of who runs it, and both their environments; it fails where a file says so,
/// and tells what it should not.
fn hook_script(machine: &Machine, dns_api: &str) -> String {
    let path = |name: &str| machine.path(name).display().to_string();
    format!(
        "#!/bin/sh\nset -eu\ncat /proc/$$/cmdline /proc/$PPID/cmdline /proc/$PPID/environ >>{seen}\numask 077\n\
         cat /proc/$$/environ >>{own}\n[ ! -e {fail} ] || {{ echo \"no such zone, and the token is $TOKEN\" >&2; exit 3; }}\n\
         name=_acme-challenge.$CERTBOT_DOMAIN.\n\
         exec curl -sS --fail -d \"{{\\\"host\\\": \\\"$name\\\", \\\"value\\\": \\\"$CERTBOT_VALIDATION\\\"}}\" \"{dns_api}/$1\"\n",
        seen = path("seen"),
        own = path("hook-environment"),
        fail = path("fail")
    )
}

/// Runs a command of a webserver, after writing down its command line and that of who runs it, and both their environments.
fn watched_script(machine: &Machine) -> String {
    let seen = machine.path("seen").display().to_string();
    format!("#!/bin/sh\ncat /proc/$$/cmdline /proc/$PPID/cmdline /proc/$PPID/environ /proc/$$/environ >>{seen}\nexec \"$@\"\n")
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn write_secret(machine: &Machine, name: &str, text: &str) {
    machine.write(name, text);
    fs::set_permissions(machine.path(name), fs::Permissions::from_mode(0o600)).expect("a mode");
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_nowhere_but_in_files_that_others_cannot_read() {
    let eab = Some(("kid-1".to_owned(), EAB_KEY.to_owned()));
    let pebble = Pebble::start(PebbleOptions { eab, ..PebbleOptions::default() }).await;
    let mut story = Story::new(&pebble);
    story.first_certificate();
    story.learn_account();
    story.questions();
    let nginx = story.webserver();
    let host = story.pushed();

    let Story { s3, build, node, secrets, said } = &story;
    for (place, text) in said {
        secrets.expect_absent(place, text.as_bytes());
    }
    let keys = s3.objects().keys();
    for kind in ["accounts/", "bundles/", "leases/", "nodes/", "certfleet.json"] {
        assert!(keys.iter().any(|key| key.starts_with(&format!("fleet/{kind}"))), "no {kind} in {keys:?}");
    }
    for key in &keys {
        secrets.expect_absent(&format!("the object {key}"), &s3.objects().get(key).expect("an object"));
    }
    secrets.expect_absent("the requests to the bucket", format!("{:?}", s3.requests()).as_bytes());
    secrets.expect_absent("the CA's log", pebble.log().as_bytes());
    secrets.expect_absent("what nginx says", nginx.log().as_bytes());
    for machine in [build, node] {
        assert!(machine.read("seen").contains("-vvv"), "command lines were seen");
    }
    let roots = [build.path(""), node.path(""), host.path("")];
    // In no file at all: the account's key, which only the bucket has, sealed, and what was put right again.
    let expected = ["a wrong secret of the bucket", "a wrong binding", "the account", "another identity"];
    assert_eq!(secrets.expect_only_in(&roots, HOLDERS), expected);
    let environment = build.read("hook-environment");
    assert!(environment.contains(TOKEN));
    secrets.expect_absent("what a hook is given", environment.replace(TOKEN, "").as_bytes());
}

/// A user that has nothing on this machine.
const NOBODY: &str = "65534";

/// A command as nobody, who may write core files.
fn as_nobody(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--", "prlimit", "--core=unlimited", "--"]).arg(program);
    command
}

#[test]
fn what_a_run_has_in_memory_is_kept_from_others_and_out_of_core_files() {
    let machine = Machine::new("[[site]]\nname = \"www.example.test\"\nmethod = \"manual\"\n");
    // Where the binary lies others may not come.
    fs::copy(env!("CARGO_BIN_EXE_certfleet"), machine.path("certfleet")).expect("a copy");
    for name in ["", "certfleet", "certfleet.toml"] {
        std::os::unix::fs::chown(machine.path(name), Some(65_534), Some(65_534)).expect("an owner");
    }
    for signal in [Signal::ABORT, Signal::QUIT] {
        let mut command = as_nobody(&machine.path("certfleet"));
        let own = machine.command(&[]);
        command.envs(own.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(machine.path(""));
        command.args(["import", SITE, "--fullchain", "-"]).stdin(std::process::Stdio::piped());
        let mut running = command.spawn().expect("the binary");
        // More than a pipe holds: once it is written, the other side has begun to read, as the last thing before it waits for the rest.
        running.stdin.as_mut().expect("a pipe").write_all(&vec![b'\n'; 256 * 1024]).expect("a reader");
        let process = format!("/proc/{}", running.id());
        assert_eq!(fs::read_link(format!("{process}/exe")).expect("a program"), machine.path("certfleet"));
        let owner = fs::metadata(format!("{process}/environ")).expect("an environment").uid();
        let readable = |what: &str| as_nobody(Path::new("head")).args(["-c", "1", what]).output().expect("head").status.success();
        assert!(readable("/proc/self/environ"), "nobody can read their own");
        let read = ["environ", "maps", "auxv"].map(|name| readable(&format!("{process}/{name}")));
        let id = i32::try_from(running.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(id, signal).expect("a living process");
        let ended = running.wait().expect("an end");
        assert_eq!((owner, read), (0, [false; 3]), "the same user can look into it");
        assert_eq!((ended.signal(), ended.core_dumped()), (Some(signal.as_raw()), false));
    }
    let left: Vec<_> = fs::read_dir(machine.path("")).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with("core")), "{left:?}");
}
