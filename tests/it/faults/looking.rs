//! Odd things to look at, to take in and to hand out: each is refused with what it is, and what was meant is guessed.

use std::process::Command;

use super::*;
use crate::support::process::{free_port, run};

/// A machine with one site, and with every kind of file that people name by mistake.
fn cluttered() -> Machine {
    let machine = Machine::new("");
    machine.run(&["ensure", SITE]).expect(0);
    let files = machine.files(SITE);
    for (name, from) in [("chain.pem", "fullchain.pem"), ("key.pem", "privkey.pem")] {
        std::fs::copy(files.join(from), machine.path(name)).expect("a copy");
    }
    // What a person has: the leaf with its key, and the root in a file of its own.
    let root = machine.read("runtimedata/local-ca/root.pem");
    machine.write("whole.pem", machine.read("chain.pem") + &root);
    machine.write("junk", "neither this nor that\n");
    machine.write("empty", "");
    machine.write("password", "secret\r\n");
    machine.write("wrong-password", "wrong\n");
    machine.create_dir("directory");
    openssl(&machine, &["pkcs12", "-export", "-in", "whole.pem", "-inkey", "key.pem", "-passout", "pass:secret", "-out", "site.pfx"]);
    openssl(&machine, &["pkey", "-in", "key.pem", "-aes256", "-passout", "pass:secret", "-out", "encrypted.pem"]);
    machine
}

fn openssl(machine: &Machine, arguments: &[&str]) {
    run(Command::new("openssl").args(arguments).current_dir(machine.path("")));
}

#[test]
fn what_cannot_be_shown_is_called_what_it_is() {
    let machine = cluttered();
    let closed = format!("127.0.0.1:{}", free_port());
    let refused = format!("{closed} refuses connections");
    let before = tree(&machine.path(""));
    for (subject, code, said, hint) in [
        ("junk", 1, "there is no certificate in junk", "-----BEGIN CERTIFICATE-----"),
        ("key.pem", 1, "there is no certificate in key.pem", "-----BEGIN CERTIFICATE-----"),
        ("empty", 2, "empty is empty", "check the file's name"),
        ("/dev/zero", 2, "/dev/zero is larger than any certificate or key", "check the file's name"),
        ("./directory", 2, "./directory is a directory", "name a file in it"),
        (
            "missing.pem",
            1,
            "the datastore has no bundle of missing.pem, and there is no file \"missing.pem\"",
            "`certfleet ensure missing.pem`",
        ),
        ("./missing.pem", 2, "there is no file \"./missing.pem\", and it is neither a site nor HOST:PORT", "check the file's name"),
        ("127.0.0.1:99999", 2, "there is no file \"127.0.0.1:99999\", and it is neither a site nor HOST:PORT", "www.example.com:443"),
        ("localhost:https", 2, "it is neither a site nor HOST:PORT", "www.example.com:443"),
        (":443", 2, "it is empty", "write HOST:PORT"),
        ("", 2, "there is no file \"\"", "check the file's name"),
        (&closed, 1, &refused, "is the web server running"),
        ("other.example.test", 1, "the datastore has no bundle of other.example.test", "`certfleet ensure other.example.test` makes one"),
    ] {
        let ended = machine.run(&["show", "--json", subject]).expect(code).says(&format!("error: {said}").replace("error: it ", "it "));
        let ended = ended.says("hint: ").says(hint);
        assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 2), "{subject}: {ended:?}");
    }
    assert_eq!(tree(&machine.path("")), before, "looking writes nothing");
    let shown = machine.run(&["show", "chain.pem", "--json"]);
    assert_eq!(shown.json()["identifiers"], serde_json::json!([SITE]), "{shown:?}");
}

#[test]
fn what_cannot_be_imported_is_refused_and_changes_nothing() {
    let machine = cluttered();
    let before = tree(&machine.path("runtimedata/datastore"));
    let no_certificate = "the certificate was refused: there is no certificate in ";
    let rows: &[(&[&str], i32, &str, &str)] = &[
        (&["--fullchain", "missing.pem"], 2, "cannot read missing.pem: No such file", "check the file's name"),
        (&["--fullchain", "directory"], 2, "cannot read directory: Is a directory", "check the file's name"),
        (&["--fullchain", "empty"], 2, "empty is empty", "check the file's name"),
        (&["--fullchain", "-"], 2, "standard input is empty", "whatever was to write it"),
        (&["--fullchain", "/dev/zero"], 2, "/dev/zero is larger than any certificate or key", "check the file's name"),
        (&["--fullchain", "junk", "--privkey", "key.pem"], 1, no_certificate, "-----BEGIN CERTIFICATE-----"),
        (&["--fullchain", "whole.pem"], 1, "there is no private key in whole.pem", "-----BEGIN PRIVATE KEY-----"),
        (&["--fullchain", "whole.pem", "--privkey", "whole.pem"], 1, "there is no private key in whole.pem", "-----BEGIN PRIVATE KEY-----"),
        (
            &["--fullchain", "chain.pem", "--privkey", "key.pem"],
            1,
            "the chain is not complete",
            "where a root signed directly, add the root",
        ),
        (&["--fullchain", "site.pfx"], 1, "no password was given (site.pfx)", "--password-file FILE"),
        (&["--fullchain", "site.pfx", "--password-file", "wrong-password"], 1, "the password does not open", "check the password"),
        (&["--fullchain", "site.pfx", "--password-file", "missing"], 2, "cannot read missing", "check the file's name"),
        (&["--fullchain", "whole.pem", "--privkey", "encrypted.pem"], 1, "no password was given (encrypted.pem", "--password-file FILE"),
    ];
    for (arguments, code, said, hint) in rows {
        let ended = machine.run(&[&["import", SITE, "--json"], *arguments].concat()).expect(*code);
        let ended = ended.says("error: ").says(said).says("hint: ").says(hint);
        assert_eq!((ended.stdout.as_str(), ended.stderr.lines().count()), ("", 2), "{arguments:?}: {ended:?}");
        assert_eq!(tree(&machine.path("runtimedata/datastore")), before, "{arguments:?}");
    }
    let other = ["import", "other.example.test", "--fullchain", "whole.pem", "--privkey", "key.pem"];
    machine
        .run(&other)
        .expect(1)
        .says("error: other.example.test: the certificate was refused: the certificate does not cover other.example.test");
    machine.run(&["import", SITE, "--privkey", "key.pem"]).expect(2).says("--fullchain <FILE>");
    machine.run(&["ensure", "--fullchain", "whole.pem"]).expect(2).says("no site is configured");
    machine.run(&["ensure", SITE, "a.test", "--fullchain", "whole.pem"]).expect(2).says("--fullchain is for one site, and 2 are meant");

    // With what was missing, it is taken; it is what is published already.
    let stranger = cluttered();
    for arguments in [
        &["--fullchain", "site.pfx", "--password-file", "password"][..],
        &["--fullchain", "whole.pem", "--privkey", "encrypted.pem", "--password-file", "password"],
    ] {
        let ended = stranger.run(&[&["import", SITE, "--json"], arguments].concat()).expect(0);
        assert_eq!(ended.site()["in_place"]["generation"], 1, "{ended:?}");
    }
}

#[test]
fn what_cannot_be_exported_leaves_nothing_behind() {
    let machine = cluttered();
    let before = tree(&machine.path(""));
    for (arguments, code, said) in [
        (&["other.example.test", "--format", "pem"][..], 1, "the datastore has no bundle of other.example.test"),
        (&[SITE, "--format", "pem", "--output", "missing/out.pem"], 1, "hint: make the directory missing first"),
        (&[SITE, "--format", "pem", "--output", "directory"], 1, "cannot replace directory: Is a directory"),
        (&[SITE, "--format", "xml"], 2, "invalid value 'xml'"),
    ] {
        let ended = machine.run(&[&["export"], arguments].concat()).expect(code).says("error: ").says(said);
        assert!(ended.stdout.is_empty() && !ended.stderr.contains(".certfleet-"), "{ended:?}");
    }
    assert_eq!(tree(&machine.path("")), before);
}
