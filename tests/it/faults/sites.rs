//! Sites of every kind, several at a time, with solvers that are scripts and hooks.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::*;
use crate::support::machine::openssl_verify;
use crate::support::pebble::PebbleOptions;

/// Replaces the sites and the solver of a scene's configuration.
fn configure(scene: &Scene, sites: &[String], solver: &str) {
    let text = scene.machine.read("certfleet.toml");
    let (from, to) = (text.find("[datastore]").expect("a datastore"), text.find("[solver.").expect("a solver"));
    scene.machine.write("certfleet.toml", format!("{}{solver}{}", &text[from..to], sites.concat()));
}

fn site(name: &str, identifiers: &str) -> String {
    format!("[[site]]\nname = \"{name}\"\nidentifiers = [{identifiers}]\nissuers = [\"pebble\"]\n")
}

fn outcomes(answer: &Value) -> Vec<(&str, &str)> {
    let sites = answer["sites"].as_array().expect("sites");
    sites.iter().map(|site| (site["site"].as_str().expect("a name"), site["outcome"].as_str().expect("an outcome"))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn wildcards_are_proven_by_scripts_and_by_hooks() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let hook = format!(
        "#!/bin/sh\nset -eu\nprintf '%s %s %s\\n' \"$1\" \"$CERTBOT_DOMAIN\" \"$TOKEN\" >>hooks.log\nname=_acme-challenge.$CERTBOT_DOMAIN.\n\
         case $1 in\npresent) curl -sS --fail -d \"{{\\\"host\\\": \\\"$name\\\", \\\"value\\\": \\\"$CERTBOT_VALIDATION\\\"}}\" {api}/set-txt ;;\n\
         cleanup) curl -sS --fail -d \"{{\\\"host\\\": \\\"$name\\\"}}\" {api}/clear-txt ;;\nesac\n",
        api = pebble.dns_api
    );
    let script = "[solver.dns]\nkind = \"dns-01\"\nprovider = \"script:challtestsrv\"\n\
                  credentials = { CHALLTESTSRV_API = { file = \"api\" }, JOURNAL = { file = \"journal-name\" } }\n";
    let hooks = "[solver.dns]\nkind = \"dns-01\"\npresent = [\"./hook\", \"present\"]\ncleanup = [\"./hook\", \"cleanup\"]\n\
                 credentials = { TOKEN = { file = \"api\" } }\n";
    for (solver, log) in [(script, "journal"), (hooks, "hooks.log")] {
        let scene = Scene::new(&pebble);
        let machine = &scene.machine;
        machine.write("api", &pebble.dns_api);
        machine.write("journal-name", machine.path("journal").display().to_string());
        machine.write("hook", hook.replace(">>hooks.log", &format!(">>{}", machine.path("hooks.log").display())));
        std::fs::set_permissions(machine.path("hook"), std::fs::Permissions::from_mode(0o700)).expect("executable");
        machine.create_dir("providerscripts/dns");
        let provider = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/providers/challtestsrv");
        std::os::unix::fs::symlink(provider, machine.path("providerscripts/dns/challtestsrv")).expect("a link");
        configure(&scene, &[site("*.example.test", "\"*.example.test\", \"example.test\""), site(SITE, "\"www.example.test\"")], solver);
        let ended = machine.run(&["ensure", "--json"]).expect(0);
        assert_eq!(outcomes(&ended.json()), [("*.example.test", "done"), (SITE, "done")], "{ended:?}");
        openssl_verify(
            &machine.path("pebble-root.pem"),
            &machine.files("_wildcard.example.test").join("fullchain.pem"),
            "any.example.test",
        );
        let journal = machine.read(log);
        let count = |call: &str| journal.lines().filter(|line| line.starts_with(call)).count();
        assert_eq!((count("present "), count("cleanup ")), (3, 3), "{journal}");
        // What people copy from the answer is not a pattern for their shell.
        let people = machine.run(&["ensure", "*.example.test"]).expect(0);
        assert!(people.stdout.contains("certfleet show '*.example.test'\n"), "{people:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_is_quoted_and_its_secret_is_not() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    scene.machine.write("token", "a-secret-token");
    let solver = "[solver.dns]\nkind = \"dns-01\"\npresent = [\"sh\", \"-c\", \"echo no such zone >&2; exit 3\"]\n\
                  credentials = { TOKEN = { file = \"token\" } }\n";
    configure(&scene, &[site(SITE, "\"www.example.test\"")], solver);
    let ended = scene.machine.run(&["-vv", "ensure", "--json"]).expect(1).says("no such zone").says("exit status 3").says("hint: ");
    assert!(!ended.stderr.contains("a-secret-token") && !ended.stdout.contains("a-secret-token"), "{ended:?}");
    assert_eq!(pebble.issued(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn twelve_sites_are_settled_in_one_run_and_one_that_fails_stops_no_other() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    let solver = format!(
        "[solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\nlisten = \"127.0.0.1:{0}\"\ncheck = \"127.0.0.1:{0}\"\n",
        pebble.http_port
    );
    let names: Vec<_> = (0..12).map(|number| format!("site-{number:02}.example.test")).collect();
    let mut sites: Vec<_> = names.iter().map(|name| site(name, &format!("\"{name}\""))).collect();
    configure(&scene, &sites[..2], &solver);
    let ended = scene.machine.run(&["ensure", "--json"]).expect(0);
    assert_eq!(outcomes(&ended.json()).len(), 2);
    configure(&scene, &sites, &solver);
    let ended = scene.machine.run(&["ensure", "--json"]).expect(0);
    let answer = ended.json();
    assert_eq!(outcomes(&answer), names.iter().map(|name| (name.as_str(), "done")).collect::<Vec<_>>());
    assert_eq!(pebble.issued(), 12);

    // One manual site with nothing, and one that the CA's resolver leads astray: the others are not touched, and the answer is whole.
    sites.truncate(2);
    sites.push("[[site]]\nname = \"manual.example.test\"\nmethod = \"manual\"\n".to_owned());
    sites.push(site("astray.example.test", "\"astray.example.test\""));
    pebble.set_address("astray.example.test", "127.0.0.2").await;
    configure(&scene, &sites, &solver);
    let ended = scene.machine.run(&["ensure", "--json"]).expect(1);
    let expected = [(names[0].as_str(), "done"), (&names[1], "done"), ("manual.example.test", "failed"), ("astray.example.test", "failed")];
    assert_eq!(outcomes(&ended.json()), expected);
    let ended =
        ended.says("error: manual.example.test: its method is manual").says("hint: certfleet import manual.example.test --fullchain");
    ended
        .says("error: astray.example.test: pebble: could not have the identifiers validated: ")
        .says("port 80 of every A and AAAA address");
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_internationalised_names_are_sites_too() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    let solver = format!(
        "[solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\nlisten = \"127.0.0.1:{0}\"\ncheck = \"127.0.0.1:{0}\"\n",
        pebble.http_port
    );
    configure(&scene, &[site("127.0.0.1", "\"127.0.0.1\""), site("BÜCHER.example.test", "\"bücher.example.test\"")], &solver);
    let ended = scene.machine.run(&["ensure", "--json"]).expect(0);
    assert_eq!(outcomes(&ended.json()), [("127.0.0.1", "done"), ("xn--bcher-kva.example.test", "done")]);
    let root = scene.machine.path("pebble-root.pem");
    openssl_verify(&root, &scene.machine.files("xn--bcher-kva.example.test").join("fullchain.pem"), "xn--bcher-kva.example.test");
    // As it is written by people, and as it is stored.
    for name in ["bücher.example.test", "xn--bcher-kva.example.test", "127.0.0.1"] {
        scene.machine.run(&["show", name]).expect(0);
        assert_eq!(scene.machine.run(&["ensure", name, "--json"]).expect(0).site()["in_place"]["source"], "datastore");
    }
}
