//! `certfleet push`, to webservers with a real sshd.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::machine::{Ended, Machine};
use crate::support::process::{program, until};
use crate::support::sshd::{Installed, SshHost, SshKey};

const SITE: &str = "www.example.test";

/// A build machine with a certificate in a directory that the webservers can reach, and a way to log in to them.
struct Build {
    machine: Machine,
    key: SshKey,
}

impl Build {
    fn new() -> Self {
        let machine = Machine::new("");
        let store = machine.path("store");
        machine.write(
            "certfleet.toml",
            format!(
                "[datastore]\nurl = \"file:{}\"\n[[site]]\nname = \"{SITE}\"\nissuers = [\"local-ca\"]\n[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n",
                store.display()
            ),
        );
        machine.run(&["ensure"]).expect(0);
        machine.create_dir("bin");
        // ssh reads the configuration of the user from the user database, whatever HOME says.
        let wrapper = format!(
            "#!/bin/sh\necho \"$*\" >> {}\nexec {} -F {} \"$@\"\n",
            machine.path("ssh-argv").display(),
            program("ssh").display(),
            machine.path("ssh_config").display()
        );
        machine.write("bin/ssh", wrapper);
        fs::set_permissions(machine.path("bin/ssh"), fs::Permissions::from_mode(0o755)).expect("a mode");
        machine.write("known_hosts", "");
        machine.write("ssh_config", "");
        let key = SshKey::new(&machine.path("key"));
        Self { machine, key }
    }

    /// Makes a host known to ssh, under a name.
    fn knows(&self, name: &str, host: &SshHost) {
        let machine = &self.machine;
        machine.write("known_hosts", machine.read("known_hosts") + &host.known());
        self.names(name, host, &self.key);
    }

    fn names(&self, name: &str, host: &SshHost, key: &SshKey) {
        let entry = host.entry(name, key, &self.machine.path("known_hosts"));
        self.machine.write("ssh_config", self.machine.read("ssh_config") + &entry);
    }

    fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.machine.command(&[&["push"], arguments].concat());
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.machine.path("bin").display()));
        command
    }

    fn push(&self, arguments: &[&str]) -> Ended {
        self.command(arguments).output().expect("the binary").into()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o777
}

/// Names, contents and inodes below a directory: what was replaced by the same is seen too.
fn state(directory: &Path) -> Vec<(String, u64, Vec<u8>)> {
    let mut found = Vec::new();
    let mut left = vec![directory.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let metadata = entry.metadata().expect("metadata");
            // Locks and names of places come and go with the runs.
            if metadata.is_dir() {
                left.push(entry.path());
            } else {
                found.push((entry.path().display().to_string(), metadata.ino(), fs::read(entry.path()).unwrap_or_default()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn what_is_pushed_lies_where_it_belongs_and_the_rest_go_on() {
    let build = Build::new();
    let (web1, web2) = (SshHost::start(&build.key, Installed::Certfleet), SshHost::start(&build.key, Installed::Certfleet));
    let (bare, stranger) = (SshHost::start(&build.key, Installed::Nothing), SshHost::start(&build.key, Installed::Certfleet));
    build.knows("web1", &web1);
    build.knows("web2", &web2);
    build.knows("bare", &bare);
    build.names("stranger", &stranger, &build.key);
    build.names("locked", &web1, &SshKey::new(&build.machine.path("other-key")));

    let ended = build.push(&["locked", "bare", "stranger", "--jobs", "3", "web1", "web2", "web1", "--json"]).expect(1);
    let answer = ended.json();
    let outcomes: Vec<_> =
        answer["hosts"].as_array().expect("hosts").iter().map(|host| (host["host"].as_str(), host["outcome"].as_str())).collect();
    let expected = [("locked", "failed"), ("bare", "failed"), ("stranger", "failed"), ("web1", "done"), ("web2", "done")];
    assert_eq!(outcomes, expected.map(|(host, outcome)| (Some(host), Some(outcome))), "{ended:?}");
    let ended = ended.says("error: locked: ").says("Permission denied").says("error: bare: there is no program certfleet");
    ended.says("error: stranger: ").says("key is known").says("hint: compare its key");

    for host in [&web1, &web2] {
        assert_eq!(fs::read_to_string(host.etc("certfleet.toml")).expect("a file"), build.machine.read("certfleet.toml"));
        let same = |here: &str, there: &str| {
            assert_eq!(fs::read(build.machine.path(here)).expect("a file"), fs::read(host.etc(there)).expect("a file"), "{there}");
        };
        same("runtimedata/identity.age", "runtimedata/identity.age");
        same("runtimedata/local-ca/root.pem", "runtimedata/local-ca/root.pem");
        let delivered = format!("runtimedata/local/default/.certfleet/delivered/{SITE}.json");
        same(&format!("store/bundles/{SITE}/0000000001"), &delivered);
        assert_eq!((mode(&host.etc("")), mode(&host.etc("certfleet.toml"))), (0o755, 0o644));
        assert_eq!((mode(&host.etc("runtimedata")), mode(&host.etc("runtimedata/identity.age"))), (0o700, 0o600));
        assert_eq!(mode(&host.etc(&delivered)), 0o600);
        assert!(!host.etc("runtimedata/local-ca/root.key").exists(), "the key of the CA stays where it is");
    }
    assert!(!stranger.etc("certfleet.toml").exists(), "nothing is sent to a host that is not known");

    // What every user of both machines can see.
    let secret = build.machine.read("runtimedata/identity.age").lines().last().expect("an identity").to_owned();
    let seen = build.machine.read("ssh-argv") + &fs::read_to_string(web1.path("argv")).expect("arguments");
    assert!(seen.contains("--delivery -") && !seen.contains(&secret) && !seen.contains("AGE-SECRET-KEY"), "{seen}");
}

#[test]
fn a_second_push_changes_nothing_and_another_configuration_keeps_the_one_before() {
    let build = Build::new();
    let web = SshHost::start(&build.key, Installed::Certfleet);
    build.knows("web", &web);
    assert_eq!(build.push(&["web"]).expect(0).stdout, "web  done\n");
    let all_but_its_memory = || state(&web.etc("")).into_iter().filter(|(path, ..)| !path.ends_with("node.json")).collect::<Vec<_>>();
    let first = all_but_its_memory();
    // What was brought is compared once with what the datastore lists, and that is remembered.
    build.push(&["web"]).expect(0);
    assert!(all_but_its_memory() == first, "only the memory of the node may change");
    let second = state(&web.etc(""));
    build.push(&["web"]).expect(0);
    assert!(state(&web.etc("")) == second, "nothing changes any more");

    let before = build.machine.read("certfleet.toml");
    build.machine.write("for-hosts.toml", format!("contact = \"ops@example.test\"\n{before}"));
    build.push(&["web", "--host-config", "for-hosts.toml"]).expect(0);
    assert_eq!(fs::read_to_string(web.etc("certfleet.toml")).expect("a file"), build.machine.read("for-hosts.toml"));
    assert_eq!(fs::read_to_string(web.etc("certfleet.toml.previous")).expect("a file"), before);

    // Mistakes are found here, and no host is asked.
    let asked = build.machine.read("ssh-argv");
    build.machine.write("for-hosts.toml", format!("contcat = \"x\"\n{before}"));
    build.push(&["web", "--host-config", "for-hosts.toml"]).expect(2).says("contcat");
    assert_eq!(build.machine.read("ssh-argv"), asked);
}

#[test]
fn no_host_is_taken_for_an_option_of_ssh() {
    let build = Build::new();
    let canary = build.machine.path("canary");
    let option = format!("-oProxyCommand=touch${{IFS}}{}", canary.display());
    let user = format!("ssh://root@{option}");
    for host in [option.clone(), format!("ssh://{option}"), user, format!("root@{option}")] {
        build.push(&["--", &host]).expect(1).says("is not a host").says("hint: name it as ssh does");
    }
    // clap takes what begins with a hyphen for an option of its own.
    build.push(&[&option]).expect(2);
    assert!(!canary.exists() && !build.machine.path("ssh-argv").exists(), "ssh was started");
}

#[test]
fn what_no_host_could_go_by_is_refused_before_any_is_asked() {
    let build = Build::new();
    let machine = &build.machine;
    let before = machine.read("certfleet.toml");
    let (without_target, _) = before.split_once("[[target]]").expect("a target");
    let store = format!("file:{}", machine.path("store").display());
    let refused = |text: &str, said: &str, hint: &str| {
        machine.write("for-hosts.toml", text);
        build.push(&["web1", "web2", "--host-config", "for-hosts.toml"]).expect(2).says(said).says(hint);
    };
    refused(without_target, "the configuration for the hosts has no [[target]]", "--host-config");
    let private = "would be a directory of each host's own, /etc/certfleet/runtimedata/";
    refused(&before.replace(&store, "file:runtimedata/store"), private, "s3://");
    refused(&before.replace("[datastore]\nurl", "[datastore]\n# url"), private, "s3://");
    refused(&format!("{before}[agent]\nnode = \"ws-1\"\n"), "would give 2 hosts one name", "leave it out");
    assert!(!machine.path("ssh-argv").exists(), "a host was asked");
}

#[test]
fn a_delivery_without_targets_leaves_the_configuration_that_is_there() {
    let build = Build::new();
    let (machine, own) = (&build.machine, build.machine.read("certfleet.toml"));
    let (without_target, _) = own.split_once("[[target]]").expect("a target");
    let delivery =
        serde_json::json!({ "version": 1, "configuration": without_target, "identity": null, "local_ca_root": null, "bundles": {} });
    machine.write("delivery.json", delivery.to_string());
    machine.run(&["--config", "certfleet.toml", "bootstrap", "--delivery", "delivery.json"]).expect(2).says("there is no [[target]]");
    assert_eq!(machine.read("certfleet.toml"), own);
    assert!(!machine.path("certfleet.toml.previous").exists());
}

#[test]
fn a_machine_of_another_fleet_is_left_alone() {
    let (build, other) = (Build::new(), Build::new());
    let web = SshHost::start(&build.key, Installed::Certfleet);
    build.knows("web", &web);
    build.push(&["web"]).expect(0);
    let before = state(&web.etc(""));
    other.machine.write("known_hosts", web.known());
    other.names("web", &web, &build.key);
    let ended = other.push(&["web"]).expect(1).says("error: web: this machine has the identity of age1");
    ended.says("hint: if the machine is to change fleets, move /etc/certfleet/runtimedata/identity.age away");
    assert_eq!(state(&web.etc("")), before);
}

#[test]
fn whoever_is_interrupted_leaves_no_connection_behind() {
    let build = Build::new();
    let web = SshHost::start(&build.key, Installed::Hanging);
    build.knows("web", &web);
    let configuration = build.machine.path("ssh_config").display().to_string();
    let connections = || {
        let processes = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path().join("cmdline"));
        processes.filter(|path| fs::read(path).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&configuration))).count()
    };
    let child = build.command(&["web"]).spawn().expect("the binary");
    until("the program there", Duration::from_secs(60), || web.path("started").exists().then_some(()));
    assert!(connections() > 0);
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::TERM).expect("a living process");
    let ended: Ended = child.wait_with_output().expect("an end").into();
    ended.expect(75).says("error: interrupted");
    until("the end of every ssh", Duration::from_secs(30), || (connections() == 0).then_some(()));
}
