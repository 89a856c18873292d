//! Disks that are full or cannot be written: exit 1, with what was there as it was, and nothing ordered.

use std::process::Command;

use super::*;
use crate::support::machine::Ended;
use crate::support::pebble::PebbleOptions;

/// Puts a small file system in the place of the directory `$1`, with what was in it, and spoils it by `$2`. Runs the rest of the
/// arguments there, then says whether anything is different from before. What happens there is gone with the mount namespace.
const SCRIPT: &str = r#"
cp -a "$1" "$1.before" && mount -t tmpfs -o size=256k,mode=0700 tmpfs "$1" && cp -a "$1.before/." "$1" || exit 99
place=$1; spoil=$2; shift 2
case $spoil in
full) cat /dev/zero >"$place/filler" 2>/dev/null ;;
read-only) mount -o remount,ro "$place" ;;
forbidden) find "$place" -type d -exec chmod 0500 {} + ;;
esac
if [ $spoil = forbidden ]; then set -- unshare --user "$@"; fi
"$@"
code=$?
diff -r -x filler -x .certfleet "$place.before" "$place" >&2 && echo 'as it was' >&2
exit $code
"#;

/// Runs `ensure` with such a file system in the place of runtimedata.
fn run_on(scene: &Scene, spoil: &str) -> Ended {
    scene.machine.create_dir("runtimedata");
    let ensure = scene.machine.command(&["ensure", "--json"]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh"]).arg(scene.machine.path("runtimedata")).arg(spoil);
    command.arg(ensure.get_program()).args(ensure.get_args()).current_dir(ensure.get_current_dir().expect("a directory")).env_clear();
    command.envs(ensure.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.output().expect("unshare").into()
}

const SPOILED: [(&str, &str, &str); 3] = [
    ("full", "No space left on device", "hint: free some space on the file system of "),
    ("read-only", "Read-only file system", " is read-only: mount it for writing"),
    ("forbidden", "ermission denied", "hint: check the owner and the mode of "),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_stops_the_first_run_before_anything_is_ordered() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    for (spoil, said, hint) in SPOILED {
        let scene = Scene::new(&pebble);
        let ended = run_on(&scene, spoil).expect(1).says(said).says(hint);
        assert!(ended.stderr.contains("/runtimedata") && !ended.stderr.contains(".certfleet-"), "{spoil}: {ended:?}");
        assert_eq!(scene.front.seen(), [], "{spoil}: the CA was asked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_refuses_a_renewal_keeps_the_old_files() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    for (spoil, said, hint) in SPOILED {
        let scene = Scene::new(&pebble);
        scene.machine.run(&["ensure"]).expect(0);
        scene.want_another_name();
        let asked = scene.front.seen().len();
        run_on(&scene, spoil).expect(1).says(said).says(hint).says("as it was");
        assert_eq!((scene.front.seen().len(), scene.s3.objects().get(&bundle(2))), (asked, None), "{spoil}: something was ordered");
    }
}
