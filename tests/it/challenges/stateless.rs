//! `mode = "stateless"`: every server answers by itself, and nothing is shared.

use std::time::Duration;

use certfleet::target::handshake::presented_chain;

use super::servers::{Pasted, SERVERS, put_certificate, targets};
use super::{ODD, SITE, ask, machine, was_told};
use crate::doctor::examine;
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::process::free_port;

fn stateless(pebble: &Pebble) -> Machine {
    let solver = format!("kind = \"http-01\"\nmode = \"stateless\"\ncheck = \"127.0.0.1:{}\"\n", pebble.http_port);
    let machine = machine(pebble, &solver, &targets());
    put_certificate(&machine);
    machine
}

/// The thumbprint that a snippet holds.
fn thumbprint(machine: &Machine) -> String {
    let text = machine.run(&["snippet", "nginx", SITE]).expect(0).stdout;
    let (_, rest) = text.split_once("return 200 \"$1.").unwrap_or_else(|| panic!("no answer in:\n{text}"));
    rest.split('"').next().expect("a thumbprint").to_owned()
}

#[tokio::test]
async fn every_server_echoes_tokens_with_the_thumbprint_and_nothing_else() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = stateless(&pebble);
    machine.run(&["snippet", "nginx", SITE]).expect(1).says("has no account at pebble").says("--open-account");
    assert!(!machine.path("runtimedata").exists(), "a look writes nothing");
    machine.run(&["snippet", "nginx", SITE, "--open-account"]).expect(0).says("opening an account");
    let thumbprint = thumbprint(&machine);
    assert_eq!(thumbprint.len(), 43, "{thumbprint}");
    let token = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA";
    for server in SERVERS {
        let pasted = Pasted::start(server, &machine, free_port());
        for token in [token, "a", "_-9"] {
            let answer = ask(pasted.http, token).await;
            let body = String::from_utf8_lossy(answer.body()).trim_end().to_owned();
            assert_eq!((answer.status().as_u16(), body), (200, format!("{token}.{thumbprint}")), "{server}");
        }
        for token in ODD {
            let answer = ask(pasted.http, token).await;
            let body = String::from_utf8_lossy(answer.body());
            assert!(answer.status() != 200 && !body.contains(&thumbprint), "{server} {token:?}: {} {body}", answer.status());
            assert!(!body.contains("<script>") && !body.contains("root:"), "{server} {token:?}: {body}");
        }
        let (address, name) = (format!("127.0.0.1:{}", pasted.https), SITE.parse().expect("a name"));
        let presented = presented_chain(&address, &name, Duration::from_secs(20)).await;
        let presented = presented.unwrap_or_else(|error| panic!("{server}: {error}"));
        let pem = certfleet::domain::pem::encode("CERTIFICATE", &presented[0]).to_string();
        assert_eq!(pem.trim(), machine.read(&format!("ssl/live/{SITE}/server.pem")).replace("\r\n", "\n").trim(), "{server}");
    }
}

#[tokio::test]
async fn a_ca_validates_through_nginx_and_haproxy_and_nobody_presents_anything() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = stateless(&pebble);
    machine.run(&["snippet", "haproxy", SITE, "--open-account", "--quiet"]).expect(0);
    for (number, server) in ["nginx", "haproxy"].into_iter().enumerate() {
        let _server = Pasted::start(server, &machine, pebble.http_port);
        machine.run(&["ensure", "--force"]).expect(0);
        assert_eq!(pebble.issued(), number + 1, "{server}");
        examine(&machine).expect("served", "ok", &["2 addresses"]);
    }
    examine(&machine).expect("served", "failed", &["no connection to"]);
}

#[tokio::test]
async fn a_new_key_of_the_account_names_the_sites_whose_servers_have_the_old_thumbprint() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = stateless(&pebble);
    machine.run(&["snippet", "nginx", SITE, "--open-account"]).expect(0);
    let before = thumbprint(&machine);
    let told = machine.run(&["account", "rollover", "--json"]).expect(0).says(&format!("certfleet snippet SERVER {SITE}"));
    let after = thumbprint(&machine);
    assert_ne!(after, before);
    assert_eq!(told.json()["account"]["thumbprint"], after.as_str());
    assert!(!machine.run(&["account", "show"]).expect(0).stderr.contains("snippet"), "nothing has changed");
}

#[tokio::test]
async fn the_thumbprint_of_another_account_is_found_out_before_the_ca_is_told() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = stateless(&pebble);
    machine.run(&["snippet", "nginx", SITE, "--open-account"]).expect(0);
    let ours = thumbprint(&machine);
    let theirs = "x".repeat(43);
    let changed = |text: String| text.replace(&ours, &theirs);
    let server = Pasted::start_with("nginx", pebble.http_port, changed, &machine);
    let ended = machine.run(&["ensure"]).expect(1).says(&format!(".{theirs}\"")).says("the thumbprint of another account");
    assert!(ended.stderr.contains(&ours) && ended.stderr.contains("certfleet snippet"), "{}", ended.stderr);
    examine(&machine).expect("served", "failed", &[&theirs, &ours]);
    assert!(!was_told(&pebble), "the CA was told of an answer that is not there");
    drop(server);
    let _server = Pasted::start("nginx", &machine, pebble.http_port);
    machine.run(&["ensure", "--force"]).expect(0);
    assert!(was_told(&pebble));
}

#[tokio::test]
async fn snippets_need_a_target_and_say_what_they_leave_out() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let machine = machine(&pebble, "kind = \"dns-01\"\npresent = [\"true\"]\n", "[[target]]\nkind = \"nginx\"\nssl_root = \"ssl\"\n");
    machine.run(&["snippet", "caddy", SITE]).expect(2).says("no [[target]] says where caddy finds").says("kind = \"caddy\"");
    let plain = machine.run(&["snippet", "nginx", SITE]).expect(0).says("no answer to challenges");
    assert!(
        plain.stdout.contains(&format!("/ssl/live/{SITE}/fullchain.pem;")) && !plain.stdout.contains("acme-challenge"),
        "{}",
        plain.stdout
    );
    machine.change("certfleet.toml", "ssl_root = \"ssl\"", "ssl_root = \"s s;l\"");
    machine.run(&["snippet", "nginx", SITE]).expect(2).says("cannot be written into every server's configuration");
}
