//! Files and objects that were lost or altered are put right.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use certfleet::domain::bundle::Bundle;

use super::fleet::{DAY, Fleet, Node, SITE, fingerprint_of, until};

/// Whether key and chain in place belong together.
fn whole(node: &Node) -> bool {
    let read = |name: &str| fs::read_to_string(node.live().join(name)).unwrap_or_default();
    Bundle::from_pem(&read("fullchain.pem"), &read("privkey.pem")).is_ok()
}

#[test]
fn files_that_are_missing_mixed_altered_or_unreadable_are_put_right() {
    type Damage = fn(&Node);
    let damages: [(&str, Damage); 7] = [
        ("missing", |node| fs::remove_file(node.live().join("privkey.pem")).expect("removed")),
        ("mixed", |node| {
            let other = rcgen::KeyPair::generate().expect("a key").serialize_pem();
            fs::write(node.live().join("privkey.pem"), other).expect("written");
        }),
        ("altered", |node| fs::write(node.live().join("fullchain.pem"), "altered").expect("written")),
        ("cut off", |node| fs::write(node.live().join("chain.pem"), "").and(fs::write(node.live().join("cert.pem"), "")).expect("written")),
        ("readable for all", |node| {
            fs::set_permissions(node.live().join("privkey.pem"), fs::Permissions::from_mode(0o644)).expect("a mode");
        }),
        ("without their record", |node| fs::remove_file(node.live().join("bundle.json")).expect("removed")),
        ("gone", |node| fs::remove_dir_all(node.machine.path("ssl/archive")).expect("removed")),
    ];
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let leaf = node.installed();
    for (what, damage) in damages {
        damage(&node);
        let ended = node.agent().expect(0);
        assert!(whole(&node) && node.installed() == leaf, "{what}: {}", ended.stderr);
        assert_eq!(fs::metadata(node.live().join("privkey.pem")).expect("a key").permissions().mode() & 0o777, 0o600, "{what}");
        assert_eq!(node.served(), leaf, "{what}");
    }
    assert_eq!(fleet.generations(), 1);
    // And then there is nothing left to do.
    let before = node.traces();
    node.agent().expect(0);
    assert_eq!(node.traces(), before);
}

#[test]
fn a_node_that_was_off_for_a_month_catches_up_with_one_installation() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let [.., newest] = [fleet.renew(), fleet.renew(), fleet.renew()];
    fleet.s3.advance(30 * DAY);
    fleet.s3.forget_requests();
    node.agent().expect(0);
    assert_eq!((node.installed(), node.served()), (newest.clone(), newest));
    let fetched: Vec<_> = fleet.s3.requests().into_iter().filter(|seen| seen.key.contains("/bundles/")).collect();
    assert_eq!(fetched.len(), 1, "{fetched:?}");
    // The manifest is as it was: the listing says so.
    assert!(fleet.s3.requests().iter().all(|seen| !seen.key.ends_with("/certfleet.json")));
    // What was served before is kept for a person who wants it back; older ones go.
    assert_eq!(node.kept(), ["1", "4"]);
    fleet.renew();
    node.agent().expect(0);
    assert_eq!(node.kept(), ["4", "5"]);
}

#[test]
fn a_bucket_that_lost_its_objects_is_filled_again_with_the_same_bytes_under_the_same_number() {
    let fleet = Fleet::new();
    fleet.renew();
    let nodes = [fleet.serving("ws-1"), fleet.serving("ws-2")];
    let key = format!("fleet-a/bundles/{SITE}/0000000002");
    let object = fleet.s3.objects().get(&key).expect("an object");
    for key in fleet.s3.objects().keys() {
        fleet.s3.objects().delete(&key);
    }
    let running: Vec<_> = nodes.iter().map(|node| node.machine.start(&["agent"])).collect();
    for run in running {
        run.wait().expect(0);
    }
    assert_eq!(fleet.s3.objects().get(&key).expect("an object"), object);
    assert_eq!(fleet.generations(), 1);
    // The numbers go on from there.
    fleet.renew();
    assert!(fleet.s3.objects().get(&format!("fleet-a/bundles/{SITE}/0000000003")).is_some());
}

#[test]
fn who_was_killed_between_switch_and_reload_has_the_server_reload_the_next_time() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let verify = node.setting("verify");
    // Where nobody may look, too.
    for without in ["no such setting", verify.as_str()] {
        let text = node.machine.read("certfleet.toml").replace(without, "");
        node.machine.write("certfleet.toml", text);
        node.agent().expect(0);
        let old = node.served();
        let configuration = node.machine.read("certfleet.toml");
        let killer = node.machine.path("killer");
        fs::write(&killer, "#!/bin/sh\nkill -9 $PPID\n").expect("a script");
        fs::set_permissions(&killer, fs::Permissions::from_mode(0o755)).expect("a mode");
        node.machine.change("certfleet.toml", &node.setting("reload"), &format!("reload = [{:?}]", killer.display().to_string()));
        let new = fleet.renew();
        assert_eq!(node.agent().code, None);
        assert_eq!((node.installed(), node.served()), (new.clone(), old));
        node.machine.write("certfleet.toml", configuration);
        node.agent().expect(0);
        assert_eq!(node.installed(), new);
        until("the new certificate", || node.served() == new);
    }
}

#[test]
fn what_is_installed_in_one_directory_is_not_fetched_for_another() {
    let fleet = Fleet::new();
    for (name, role) in [("ws-1", "role = \"renewer\"\n"), ("ws-2", "role = \"follower\"\n")] {
        let node = fleet.node_with(name, "", role);
        node.agent().expect(0);
        node.add("[[target]]\nkind = \"files\"\nssl_root = \"other\"\n");
        fleet.s3.forget_requests();
        node.agent().expect(0);
        assert_eq!(fingerprint_of(&node.machine.path("other/live").join(SITE).join("fullchain.pem")), node.installed());
        assert!(fleet.s3.requests().iter().all(|seen| !seen.key.contains("/bundles/")), "{:?}", fleet.s3.requests());
    }
}

#[test]
fn what_decides_whether_a_site_is_due_counts_from_the_next_run_on() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    node.agent().expect(0);
    let wanted = format!("name = \"{SITE}\"\nidentifiers = [\"{SITE}\", \"more.example.test\"]\n");
    node.machine.change("certfleet.toml", &format!("name = \"{SITE}\"\n"), &wanted);
    node.agent().expect(0);
    assert_eq!((fleet.generations(), node.link()), (2, "../archive/www.example.test/2".into()));
}

#[test]
fn directories_of_other_tools_are_adopted_and_kept() {
    let fleet = Fleet::new();
    let node = fleet.node("ws-1");
    fs::create_dir_all(node.live()).expect("a directory");
    for name in ["fullchain.pem", "privkey.pem", "theirs.txt"] {
        fs::write(node.live().join(name), "of another tool").expect("a file");
    }
    node.agent().expect(0);
    assert!(whole(&node));
    assert_eq!(node.link(), std::path::Path::new("../archive/www.example.test/1"));
    let kept = node.machine.path("ssl/archive").join(format!("{SITE}+adopted")).join("theirs.txt");
    assert_eq!(fs::read_to_string(kept).expect("kept"), "of another tool");
}

#[test]
fn who_was_killed_after_switching_to_what_the_server_refuses_goes_back() {
    let fleet = Fleet::new();
    let node = fleet.serving("ws-1");
    let old = node.served();
    let configuration = node.machine.read("certfleet.toml");
    let test = configuration.lines().find(|line| line.starts_with("test = ")).expect("a test command").to_owned();
    let script = |name: &str, text: String| {
        let path = node.machine.path(name);
        fs::write(&path, text).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        configuration.replace(&test, &format!("test = [{:?}]", path.display().to_string()))
    };
    let is_old = format!("case $(readlink {}) in */1) exit 0 ;; esac", node.live().display());
    let killing = script("killer", format!("#!/bin/sh\n{is_old}\nkill -9 $PPID\n"));
    let refusing = script("refuser", format!("#!/bin/sh\n{is_old}\necho too new >&2\nexit 1\n"));
    fleet.renew();
    node.machine.write("certfleet.toml", killing);
    assert_eq!(node.agent().code, None);
    assert_ne!(node.installed(), old);
    node.machine.write("certfleet.toml", &refusing);
    let ended = node.agent().expect(4);
    assert!(ended.stderr.contains("too new") && ended.stderr.contains("generation 1 is back in place"), "{}", ended.stderr);
    assert_eq!((node.installed(), node.served()), (old.clone(), old));
    // What was broken is mended, and the newest is taken.
    node.machine.write("certfleet.toml", &configuration);
    node.agent().expect(0);
    assert_eq!(node.link(), std::path::Path::new("../archive/www.example.test/2"));
}
