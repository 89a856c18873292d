//! Secrets: from where they are fetched, and what is said when they cannot be.

use super::*;

#[test]
fn secrets_that_cannot_be_had_are_named_by_key_and_source() {
    let place = Place::empty();
    place.write("empty", "\n");
    let missing = place.path("missing");
    let directory = place.dir.path();
    for (source, said, hint) in [
        (
            r#"{ env = "NOT_SET" }"#.to_owned(),
            "the environment variable NOT_SET is not set".to_owned(),
            "set it: export NOT_SET=…".to_owned(),
        ),
        (r#"{ env = "BLANK" }"#.to_owned(), "the environment variable BLANK is empty".to_owned(), "put the secret there".to_owned()),
        (
            r#"{ file = "missing" }"#.to_owned(),
            format!("cannot read {}", missing.display()),
            "check the path and who may read it".to_owned(),
        ),
        (r#"{ file = "empty" }"#.to_owned(), format!("{} is empty", directory.join("empty").display()), "put the secret there".to_owned()),
        (r#"{ file = "/dev/zero" }"#.to_owned(), "cannot read /dev/zero".to_owned(), "check the path and who may read it".to_owned()),
        (r#"{ command = ["false"] }"#.to_owned(), "false failed (exit status: 1)".to_owned(), "try it: false".to_owned()),
        (r#"{ command = ["true"] }"#.to_owned(), "what true prints is empty".to_owned(), "put the secret there".to_owned()),
        (
            r#"{ command = ["certfleet-no-such-program", "x"] }"#.to_owned(),
            "cannot get it from certfleet-no-such-program".to_owned(),
            "try it: certfleet-no-such-program x".to_owned(),
        ),
    ] {
        place.write(
            "certfleet.toml",
            &format!("[solver.dns]\nkind = \"dns-01\"\nprovider = \"script:x\"\ncredentials = {{ TOKEN = {source} }}"),
        );
        let settings = place.settings();
        let SolverSettings::Dns01Program(Program::Script { credentials, .. }) = &settings.solvers["dns"] else { panic!("no script") };
        let error = credentials["TOKEN"].resolve(&|name| (name == "BLANK").then(|| " ".to_owned())).expect_err("refused");
        assert_eq!(error.to_string(), format!("certfleet.toml:4:25: [solver.dns] credentials.TOKEN: {said}"));
        assert_eq!(error.hint(), hint);
    }
}

#[test]
fn secrets_come_from_commands_without_a_shell() {
    let toml = r#"
        [solver.dns]
        kind = "dns-01"
        present = ["./hooks/add", "--now", ""]
        credentials = { A = { command = ["printf", "%s\n\n", "$HOME; b"] }, B = { command = ["./tools/token"] } }
    "#;
    let place = Place::with(toml);
    let script = place.write("tools/token", "#!/bin/sh\necho from-the-tool\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o700)).expect("executable");
    let settings = place.settings();
    let SolverSettings::Dns01Program(Program::Hooks { present, cleanup, credentials }) = &settings.solvers["dns"] else {
        panic!("no hooks")
    };
    assert_eq!(present, &[place.path("hooks/add").to_string_lossy().into_owned(), "--now".to_owned(), String::new()]);
    assert_eq!(cleanup, &None);
    assert_eq!(credentials["A"].resolve(&|_| None).expect("a secret").as_str(), "$HOME; b");
    assert_eq!(credentials["B"].resolve(&|_| None).expect("a secret").as_str(), "from-the-tool");
}
