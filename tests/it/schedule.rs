//! `certfleet schedule`, on a machine whose `/etc/cron.d`, `/etc/systemd/system` and `/run` are the test's own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::machine::Ended;
use crate::support::private_mounts::{PrivateMounts, directory};

const SITE: &str = "[[site]]\nname = \"www.example.com\"\nissuers = [\"local-ca\"]\n";
const BUCKET: &str = "[datastore]\nurl = \"s3://example-certs/fleet-a\"\nregion = \"fra1\"\n\
                      access_key = { file = \"s3-access\" }\nsecret_key = { file = \"s3-secret\" }\n";
const NGINX: &str = "[[target]]\nkind = \"nginx\"\nssl_root = \"/etc/certfleet/ssl\"\n";

/// A machine with the binary and the configuration where they usually are.
struct Scheduled {
    place: TempDir,
    mounts: PrivateMounts,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Boots {
    Systemd,
    Otherwise,
}

impl Scheduled {
    fn new(configuration: &str, boots: Boots) -> Self {
        let place = tempfile::tempdir().expect("a directory");
        let own = |name: &str| directory(place.path(), name);
        if boots == Boots::Systemd {
            own("run/systemd/system");
        }
        fs::write(own("local/bin").join("certfleet"), "").expect("a file");
        fs::write(own("etc-certfleet").join("certfleet.toml"), configuration).expect("a file");
        fs::write(own("bin").join("systemctl"), format!("#!/bin/sh\necho \"$*\" >> {}/systemctl\n", place.path().display()))
            .expect("a file");
        fs::set_permissions(own("bin").join("systemctl"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("a mode");
        // /etc/certfleet need not exist on the machine that runs the tests: its parent is written to a directory of its own.
        own("etc-upper/upper/certfleet");
        let mounts = PrivateMounts::new("ws-1")
            .overlay("/etc", own("etc-upper"))
            .bind("/etc/certfleet", own("etc-certfleet"))
            .bind("/usr/local", own("local"))
            .bind("/usr/local/bin/certfleet", env!("CARGO_BIN_EXE_certfleet"))
            .bind("/run", own("run"));
        own("etc-upper/upper/cron.d");
        Self { place, mounts }
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        self.mounts.run(&self.path("bin"), "/usr/local/bin/certfleet", &[&["schedule"], arguments].concat())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// A file of the machine's `/etc`, where the test has it.
    fn etc(&self, name: &str) -> PathBuf {
        self.path("etc-upper/upper").join(name)
    }

    fn systemctl(&self) -> String {
        fs::read_to_string(self.path("systemctl")).unwrap_or_default()
    }
}

/// What is printed for systemd, taken apart into files.
fn units(printed: &str) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = Vec::new();
    for line in printed.lines() {
        match (line.strip_prefix("# ---- /etc/systemd/system/"), files.last_mut()) {
            (Some(name), _) => files.push((name.to_owned(), String::new())),
            (None, Some((_, text))) => text.extend([line, "\n"]),
            (None, None) => panic!("{line:?} belongs to no file"),
        }
    }
    for (_, text) in &mut files {
        let length = text.trim_end().len() + 1;
        text.truncate(length);
    }
    files
}

#[test]
fn the_files_in_cron_are_what_is_printed() {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("cron");
    let same = |name: &str, text: &str| {
        let there = fs::read_to_string(shipped.join(name)).unwrap_or_default();
        assert_eq!(there, text, "cron/{name}");
    };
    for (configuration, crontab) in
        [(format!("{BUCKET}{SITE}{NGINX}"), "webserver.crontab"), (format!("{BUCKET}{SITE}"), "build-machine.crontab")]
    {
        let machine = Scheduled::new(&configuration, Boots::Otherwise);
        same(crontab, &machine.run(&[]).expect(0).stdout);
        for (name, text) in units(&machine.run(&["--systemd"]).expect(0).stdout) {
            same(&name, &text);
        }
    }
}

#[test]
fn the_role_and_the_starter_are_those_of_the_machine_unless_told() {
    let webserver = Scheduled::new(&format!("{BUCKET}{SITE}{NGINX}"), Boots::Systemd);
    let told = |arguments: &[&str]| {
        let answer = webserver.run(&[arguments, &["--json"]].concat()).expect(0).json();
        (answer["role"].as_str().map(str::to_owned), answer["starter"].as_str().map(str::to_owned))
    };
    let said = |role: &str, starter: &str| (Some(role.to_owned()), Some(starter.to_owned()));
    assert_eq!(told(&[]), said("webserver", "systemd"));
    assert_eq!(told(&["--cron"]), said("webserver", "cron"));
    assert_eq!(told(&["--for", "build-machine"]), said("build-machine", "systemd"));
    webserver.run(&["--cron", "--systemd"]).expect(2);
    assert_eq!(webserver.systemctl(), "", "nothing is switched on by printing");
}

#[test]
fn cron_is_installed_once_and_never_over_what_a_person_wrote() {
    let machine = Scheduled::new(&format!("{BUCKET}{SITE}{NGINX}"), Boots::Otherwise);
    let file = machine.etc("cron.d/certfleet");
    assert_eq!(machine.run(&["--install"]).expect(0).stdout, "wrote /etc/cron.d/certfleet\n");
    let first = fs::read_to_string(&file).expect("a file");
    assert_eq!(first, machine.run(&["--cron"]).expect(0).stdout);
    assert_eq!(machine.run(&["--install"]).expect(0).stdout, "kept  /etc/cron.d/certfleet\n");
    assert_eq!(machine.run(&["--install", "--quiet"]).expect(0).stdout, "");

    // One of ours, for another role: nobody's work is lost.
    assert_eq!(machine.run(&["--install", "--for", "build-machine"]).expect(0).stdout, "wrote /etc/cron.d/certfleet\n");

    let mine = format!("{first}# and a line of mine\n");
    fs::write(&file, &mine).expect("a file");
    machine.run(&["--install"]).expect(1).says("was changed since").says("hint: compare: certfleet schedule --cron | diff");
    assert_eq!(fs::read_to_string(&file).expect("a file"), mine);
}

#[test]
fn a_timer_is_installed_and_switched_on() {
    let machine = Scheduled::new(&format!("{BUCKET}{SITE}{NGINX}"), Boots::Systemd);
    let wrote = "wrote /etc/systemd/system/certfleet-agent.service\nwrote /etc/systemd/system/certfleet-agent.timer\n";
    assert_eq!(machine.run(&["--install"]).expect(0).stdout, wrote);
    assert_eq!(machine.systemctl(), "daemon-reload\nenable --now certfleet-agent.timer\n");
    for (name, text) in units(&machine.run(&[]).expect(0).stdout) {
        assert_eq!(fs::read_to_string(machine.etc(&format!("systemd/system/{name}"))).expect("a unit"), text);
    }
    assert!(machine.path("etc-certfleet/ssl").is_dir(), "systemd does not start a service whose directories are missing");
    machine.run(&["--install", "--cron"]).expect(0).says("warning: /etc/systemd/system/certfleet-agent.timer is there too");
    machine.run(&["--install"]).expect(0).says("warning: /etc/cron.d/certfleet is there too");

    // The service is somebody's own: neither of the two files is touched.
    let service = machine.etc("systemd/system/certfleet-agent.service");
    fs::write(&service, "[Service]\nExecStart=/bin/true\n").expect("a file");
    fs::remove_file(machine.etc("systemd/system/certfleet-agent.timer")).expect("a file");
    machine.run(&["--install"]).expect(1).says("certfleet-agent.service was not written by");
    assert!(!machine.run(&["--install", "--systemd"]).expect(1).stderr.contains("panicked"));
    assert_eq!(fs::read_to_string(&service).expect("a file"), "[Service]\nExecStart=/bin/true\n");
}

#[test]
fn whoever_changes_the_role_of_a_machine_is_told_of_the_timer_before_it() {
    let machine = Scheduled::new(&format!("{BUCKET}{SITE}{NGINX}"), Boots::Systemd);
    assert!(!machine.run(&["--install"]).expect(0).stderr.contains("warning"));
    let before = "warning: /etc/systemd/system/certfleet-agent.timer is there too, and starts the job of a webserver";
    for arguments in [&["--install", "--for", "build-machine"][..], &["--install", "--cron", "--for", "build-machine"]] {
        machine.run(arguments).expect(0).says(before).says("systemctl disable --now certfleet-agent.timer");
    }
}

#[test]
fn what_is_made_for_the_job_belongs_to_whom_it_runs_as() {
    let url = "[datastore]\nurl = \"file:/etc/certfleet/shared/store\"\n";
    let machine = Scheduled::new(&format!("{url}{SITE}"), Boots::Systemd);
    // The same number on every Debian (base-passwd).
    let www_data = 33;
    std::os::unix::fs::chown(machine.path("etc-certfleet/certfleet.toml"), Some(www_data), Some(www_data)).expect("an owner");
    machine.run(&["--install"]).expect(0);
    let service = fs::read_to_string(machine.etc("systemd/system/certfleet-ensure.service")).expect("a unit");
    assert!(service.contains("User=www-data\n"), "{service}");
    let owner = |name: &str| {
        let metadata = fs::metadata(machine.path("etc-certfleet").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    for made in ["runtimedata", "shared", "shared/store"] {
        assert_eq!(owner(made), (www_data, www_data, 0o700), "{made}");
    }
    assert_eq!(owner("").0, 0, "what was there stays whose it was");
}

#[test]
fn programs_of_others_can_read_their_home() {
    let command = BUCKET.replace("{ file = \"s3-access\" }", "{ command = [\"/usr/bin/pass\", \"show\", \"s3\"] }");
    let hooks = format!("{BUCKET}[solver.dns]\nkind = \"dns-01\"\npresent = [\"/usr/local/bin/present\"]\n");
    let script = format!("{BUCKET}[[target]]\nkind = \"script\"\nprovider = \"mine\"\nssl_root = \"/etc/certfleet/ssl\"\n");
    for (configuration, homes) in [(BUCKET, "yes"), (&command, "read-only"), (&hooks, "read-only"), (&script, "read-only")] {
        let machine = Scheduled::new(&format!("{configuration}{SITE}"), Boots::Systemd);
        let service = machine.run(&["--systemd"]).expect(0).stdout;
        assert!(service.contains(&format!("ProtectHome={homes}\n")), "{configuration}\n{service}");
    }
}

#[test]
fn what_cannot_be_installed_is_said_and_nothing_is_written() {
    let machine = Scheduled::new(&format!("{BUCKET}{SITE}"), Boots::Otherwise);
    machine.run(&["--install", "--systemd"]).expect(2).says("systemd does not run here").says("hint: use --cron");
    assert!(!machine.etc("systemd").exists(), "nothing is written");

    let refusing = Scheduled::new(&format!("{BUCKET}{SITE}"), Boots::Systemd);
    fs::write(refusing.path("bin/systemctl"), "#!/bin/sh\necho 'Unit is masked.' >&2\nexit 1\n").expect("a file");
    refusing.run(&["--install"]).expect(1).says("systemd does not take the timer").says("Unit is masked.");

    let nobody = Scheduled::new("", Boots::Otherwise);
    nobody.run(&["--config", "/nowhere.toml"]).expect(2);
    let mut command = Command::new(env!("CARGO_BIN_EXE_certfleet"));
    let place = tempfile::tempdir().expect("a directory");
    let ended: Ended = command.arg("schedule").current_dir(place.path()).env_clear().output().expect("the binary").into();
    ended.expect(2).says("there is no configuration file").says("hint: ");
}

#[test]
fn systemd_understands_the_units() {
    for (configuration, unit) in [(format!("{BUCKET}{SITE}{NGINX}"), "certfleet-agent"), (format!("{BUCKET}{SITE}"), "certfleet-ensure")] {
        let machine = Scheduled::new(&configuration, Boots::Systemd);
        machine.run(&["--install"]).expect(0);
        let unit = format!("/etc/systemd/system/{unit}.timer");
        let ended = machine.mounts.run(&machine.path("bin"), "systemd-analyze", &["verify", "--man=no", &unit]).expect(0);
        let about_us: Vec<_> = ended.stderr.lines().filter(|line| line.contains("certfleet")).collect();
        assert!(about_us.is_empty(), "{about_us:#?}");
    }
}

/// The servers' own tests of their configuration, as the agent runs them, where only what the unit names can be written.
#[test]
fn servers_can_test_their_configuration_within_the_service() {
    for (kind, test) in [
        ("nginx", &["nginx", "-t"][..]),
        ("apache", &["apache2ctl", "configtest"]),
        ("lighttpd", &["lighttpd", "-tt", "-f", "/etc/lighttpd/lighttpd.conf"]),
        ("haproxy", &["haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"]),
        ("caddy", &["caddy", "validate", "--config", "/etc/caddy/Caddyfile"]),
        ("postfix", &["postfix", "check"]),
    ] {
        let machine = Scheduled::new(&format!("{BUCKET}{SITE}{}", NGINX.replace("nginx", kind)), Boots::Otherwise);
        let (_, service) = units(&machine.run(&["--systemd"]).expect(0).stdout).remove(0);
        let place = tempfile::tempdir().expect("a directory");
        let within = |writable: &[&str]| {
            // As right after their installation, and after a boot: no server has run yet.
            directory(place.path(), "run/lock");
            let mounts = PrivateMounts::new("ws-1").frozen("/run", place.path().join("run"));
            let mounts = mounts.frozen("/var/lib/nginx", directory(place.path(), "empty"));
            let mounts = writable
                .iter()
                .enumerate()
                .fold(mounts, |mounts, (number, path)| mounts.overlay(path, directory(place.path(), &number.to_string())));
            let mounts = mounts.overlay("/tmp", directory(place.path(), "tmp")).freeze();
            mounts.run(place.path(), test[0], &test[1..])
        };
        let writable: Vec<_> = service.lines().filter_map(|line| line.strip_prefix("ReadWritePaths=-")).collect();
        within(&writable).expect(0);
        // Each is there for a reason.
        for needed in writable.iter().filter(|path| ["/run", "/var/lib/nginx"].contains(path)) {
            let others: Vec<_> = writable.iter().copied().filter(|path| path != needed).collect();
            assert_ne!(within(&others).code, Some(0), "{kind} does not need {needed}");
        }
    }
}
