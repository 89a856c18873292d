//! The datastore in a directory: between processes, and on file systems that refuse.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use certfleet::datastore::directory::DirectoryDatastore;
use certfleet::datastore::{Datastore, Put, PutMode};
use certfleet::domain::object_key::ObjectKey;

use crate::datastore::{bundle, create};
use crate::support::process::{Subprocess, run};

/// Set for a process that takes part in a race: the directory to create an object in.
const RACE_ROOT: &str = "CERTFLEET_TEST_RACE_ROOT";

#[test]
fn of_processes_that_race_in_a_directory_one_wins() {
    if let Some(root) = std::env::var_os(RACE_ROOT) {
        race_as_child(Path::new(&root));
        return;
    }
    let root = tempfile::tempdir().expect("a directory");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "directory::of_processes_that_race_in_a_directory_one_wins", "--nocapture"]).env(RACE_ROOT, root.path());
    let log = |number: usize| root.path().join(format!("{number}.log"));
    let mut children: Vec<_> = (0..8).map(|number| Subprocess::spawn(&command, log(number))).collect();
    for child in &mut children {
        child.wait_for_line("ready", Duration::from_secs(60));
    }
    std::fs::write(root.path().join("go"), "").expect("a signal");
    for child in &mut children {
        let status = child.wait(Duration::from_secs(60));
        assert!(status.success(), "{}", child.log());
    }
    for generation in 1..=RACES {
        let winners: Vec<_> = children.iter().filter(|child| child.log().contains(&format!("won {generation}\n"))).collect();
        assert_eq!(winners.len(), 1, "generation {generation}");
        let body =
            std::fs::read_to_string(root.path().join(format!("store/{}", bundle("www.example.com", generation)))).expect("an object");
        assert_eq!(body, winners[0].id().to_string().repeat(1000));
    }
}

const RACES: u64 = 20;

fn race_as_child(root: &Path) {
    let store = DirectoryDatastore::new(root.join("store"));
    let body = std::process::id().to_string().repeat(1000);
    println!("ready");
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while !root.join("go").exists() {
        assert!(std::time::Instant::now() < deadline, "never told to go");
        std::thread::yield_now();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for generation in 1..=RACES {
        if runtime.block_on(create(&store, &bundle("www.example.com", generation), &body)) == Put::Stored {
            println!("won {generation}");
        }
    }
}

/// Set for a process that writes where it cannot: the root of the datastore.
const REFUSED_ROOT: &str = "CERTFLEET_TEST_REFUSED_ROOT";

/// Makes a file system with too little room, holding one object, and runs the rest of the arguments on it.
const FULL: &str = "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$1\" && printf kept > \"$1/certfleet.json\" && shift && exec \"$@\"";

/// Makes one that holds an object and cannot be written.
const READ_ONLY: &str = "mount -t tmpfs -o size=16k,mode=0700 tmpfs \"$1\" && printf kept > \"$1/certfleet.json\" \
                         && mount -o remount,ro \"$1\" && shift && exec \"$@\"";

/// Takes the right to write away. The process is in a user namespace of its own, where not even root may pass over that.
const FORBIDDEN: &str = "chmod 0500 \"$1\" && shift && exec unshare --user \"$@\"";

#[test]
fn file_systems_that_refuse_are_named_and_lose_nothing() {
    if let Some(root) = std::env::var_os(REFUSED_ROOT) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(write_in_vain(Path::new(&root)));
        return;
    }
    let cases =
        [("full", FULL, "the disk is full"), ("read-only", READ_ONLY, "read-only: mount it"), ("forbidden", FORBIDDEN, "owner and mode")];
    for (name, script, hint) in cases {
        let root = tempfile::tempdir().expect("a directory");
        std::fs::write(root.path().join("certfleet.json"), "kept").expect("an object");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(root.path());
        command.arg(std::env::current_exe().expect("this program")).env(REFUSED_ROOT, root.path());
        let told = run(command.args(["--exact", "directory::file_systems_that_refuse_are_named_and_lose_nothing", "--nocapture"]));
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o700)).expect("a directory that can be removed");
        let file = root.path().join("certfleet.json");
        assert!(told.contains(&format!("put {} failed", file.display())), "{name}: {told}");
        assert!(told.contains(hint) && told.contains("Lasting"), "{name}: {told}");
        assert!(told.contains("left: certfleet.json kept"), "{name}: {told}");
    }
}

async fn write_in_vain(root: &Path) {
    let store = DirectoryDatastore::new(root.to_owned());
    let key = ObjectKey::manifest();
    let error = store.put(&key, Bytes::from(vec![0; 100_000]), PutMode::Overwrite).await.expect_err("a refusal");
    println!("{error} {:?} {}", error.kind, error.hint);
    let listing = store.list("", None).await.expect("a listing");
    let kept = store.get(&key).await.expect("got").expect("an object");
    let names: Vec<_> = std::fs::read_dir(root).expect("a directory").map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!((names.len(), listing.entries.len()), (1, 1), "{names:?}");
    println!("left: {} {}", listing.entries[0].key, String::from_utf8_lossy(&kept));
}

#[tokio::test]
async fn what_killed_runs_left_is_not_listed_and_goes_away() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirectoryDatastore::new(root.path().to_owned());
    create(&store, &bundle("www.example.com", 1), "x").await;
    let directory = root.path().join("bundles/www.example.com");
    let (old, young, hidden) = (directory.join(".certfleet-old"), directory.join(".certfleet-young"), directory.join(".hidden"));
    for path in [&old, &young, &hidden] {
        std::fs::write(path, "half").expect("a file");
    }
    let times = std::fs::FileTimes::new().set_modified(std::time::SystemTime::now() - Duration::from_secs(7200));
    std::fs::File::options().write(true).open(&old).and_then(|file| file.set_times(times)).expect("an old file");
    let listing = store.list("", None).await.expect("a listing");
    assert_eq!(listing.entries.len(), 1, "{listing:?}");
    assert_eq!([&old, &young, &hidden].map(|path| path.exists()), [false, true, true]);
}

#[tokio::test]
async fn only_the_owner_may_read() {
    let root = tempfile::tempdir().expect("a directory");
    let store = DirectoryDatastore::new(root.path().join("datastore"));
    create(&store, &bundle("www.example.com", 1), "x").await;
    let modes = ["datastore", "datastore/bundles", "datastore/bundles/www.example.com", "datastore/bundles/www.example.com/0000000001"]
        .map(|path| std::fs::metadata(root.path().join(path)).expect("metadata").permissions().mode() & 0o7777);
    assert_eq!(modes, [0o700, 0o700, 0o700, 0o600]);
}
