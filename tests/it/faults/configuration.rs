//! Mistakes in the configuration: named with file, line, key and what would be right, before anything is touched.

use super::*;
use crate::support::pebble::PebbleOptions;

/// What is changed in a good configuration, what is said about it, and the hint.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    ("contact =", "contcat =", "certfleet.toml:1:1: unknown key \"contcat\" at the top level", "did you mean \"contact\"?"),
    (
        "solver = \"web\"",
        "renew_before = \"a week\"\nsolver = \"web\"",
        "certfleet.toml:6:16: [[site]] renew_before: \"a week\" is not a duration",
        "\"7d\"",
    ),
    ("solver = \"web\"", "solver = \"wbe\"", "certfleet.toml:6:10: [[site]] solver: there is no solver \"wbe\"", "did you mean \"web\"?"),
    ("[\"pebble\"]", "[\"pebbel\"]", "certfleet.toml:5:12: [[site]] issuers: there is no issuer \"pebbel\"", "did you mean \"pebble\"?"),
    (
        "{ env = \"S3_SECRET\" }",
        "{ env = \"S3_SECRT\" }",
        "certfleet.toml:13:14: [datastore] secret_key: the environment variable S3_SECRT is not set",
        "S3_SECRT",
    ),
    ("{ file = \"s3-access\" }", "{ file = \"nowhere\" }", "certfleet.toml:12:14: [datastore] access_key: ", "nowhere"),
    ("trust = \"pebble-tls.pem\"", "trust = \"nowhere.pem\"", "nowhere.pem", "trust"),
    (
        "name = \"www.example.test\"",
        "name = \"../../../etc\"",
        "certfleet.toml:3:8: [[site]] name: \"../../../etc\" is not a DNS name",
        "host name",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_are_named_and_nothing_is_touched() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    let good = scene.machine.read("certfleet.toml");
    for (piece, by, said, hint) in MISTAKES {
        scene.machine.write("certfleet.toml", &good);
        scene.machine.change("certfleet.toml", piece, by);
        let before = tree(&scene.machine.path(""));
        let commands = [&["ensure", "--json"][..], &["ensure", "--dry-run"], &["show", SITE], &["export", SITE, "--format", "pem"]];
        // Whoever only looks needs no issuer.
        let commands = if *hint == "trust" { &commands[..2] } else { &commands };
        for command in commands {
            let ended = scene.machine.run(command).expect(2).says("error: ").says(said).says("hint: ").says(hint);
            assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 2), "{command:?}: {ended:?}");
        }
        assert_eq!(tree(&scene.machine.path("")), before, "{by}");
    }
    assert!(scene.s3.requests().is_empty() && scene.front.seen().is_empty(), "nobody was asked");
}

#[test]
fn names_from_the_command_line_never_leave_their_directory() {
    let machine = Machine::new("");
    for name in ["../../etc", "/etc/passwd", "a/b", "..", ".", "www..test", "a b", "-", "\u{1b}[31m", "", "www.test+staging+staging"] {
        let before = tree(&machine.path(""));
        for command in [&["ensure", "--", name][..], &["import", "--", name], &["export", "--format", "pem", "--", name]] {
            let ended =
                machine.run(command).expect(2).says("is not a DNS name or an IP address").says("hint: a site is called by its host name");
            assert!(!ended.stderr.contains('\u{1b}'), "{ended:?}");
        }
        assert_eq!(tree(&machine.path("")), before, "{name:?}");
    }
}
