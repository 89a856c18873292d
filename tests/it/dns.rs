//! dns-01 against bind9: what is put where, who has to show it, and what is said when that goes wrong.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use certfleet::solver::dns::zone::Resolver;
use certfleet::solver::dns::{Dns01, providers};
use certfleet::solver::{Challenge, Presented, Solver as _, SolverError};
use zeroize::Zeroizing;

use crate::support::bind9::{Bind9, KEY, KEY_NAME, Zone};
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};

mod acme_sh;
mod cloud;

/// What an order may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two servers that a zone names.
const TWO: &[(&str, IpAddr)] = &[("ns1", IpAddr::V4(Ipv4Addr::LOCALHOST)), ("ns2", SECOND)];

/// Where the second of them is: bind9 listens at addresses that an interface has, and 127.0.0.2 is none.
const SECOND: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

fn challenge(identifier: &str, value: &str) -> Challenge {
    Challenge {
        identifier: identifier.parse().expect("an identifier"),
        token: "token".to_owned(),
        key_authorization: "token.thumbprint".to_owned(),
        dns_value: value.to_owned(),
        remaining: 0,
        all: Vec::new(),
    }
}

fn solver_with(server: &Bind9, key: &str, patience: Duration) -> Dns01 {
    let credentials = BTreeMap::from([("RFC2136_TSIG_SECRET".to_owned(), Zeroizing::new(key.to_owned()))]);
    let settings = [("RFC2136_NAMESERVER", server.address.to_string()), ("RFC2136_TSIG_KEY", KEY_NAME.to_owned())];
    let settings = settings.map(|(name, value)| (name.to_owned(), value)).into();
    let updater = providers::updater("rfc2136", credentials, settings).expect("a provider");
    Dns01::new(Box::new(updater), Resolver::at(server.address), patience)
}

fn solver(server: &Bind9) -> Dns01 {
    solver_with(server, KEY, PATIENCE)
}

async fn refused(solver: &Dns01, challenge: &Challenge) -> SolverError {
    let error = solver.present(challenge).await.expect_err("a refusal");
    solver.clean_up(challenge, &Presented::default()).await.ok();
    error
}

#[tokio::test]
async fn a_run_proves_names_and_wildcards_and_leaves_only_what_was_there() {
    let left_over = r#"_acme-challenge TXT "of-a-run-that-was-killed""#;
    let server = Bind9::primary(&[Zone::new("example.test", left_over), Zone::new("deep.example.test", "")]);
    let pebble = Pebble::start(PebbleOptions { dns_server: Some(server.address), ..PebbleOptions::default() }).await;
    let machine = Machine::new(&format!(
        r#"
        [[site]]
        name = "example.test"
        identifiers = ["example.test", "*.example.test", "a.example.test", "*.b.example.test", "www.deep.example.test"]
        issuers = ["pebble"]
        [issuer.pebble]
        kind = "acme"
        directory = "{}"
        trust = "pebble.pem"
        chain_trust = "issued.pem"
        [solver.dns]
        kind = "dns-01"
        provider = "rfc2136"
        resolver = "{address}"
        settings = {{ RFC2136_NAMESERVER = "{address}", RFC2136_TSIG_KEY = "{KEY_NAME}" }}
        credentials = {{ RFC2136_TSIG_SECRET = {{ file = "key" }} }}
        "#,
        pebble.directory_url(),
        address = server.address,
    ));
    machine.write("pebble.pem", pebble.root_pem());
    machine.write("issued.pem", pebble.issuance_root_pem());
    machine.write("key", KEY);
    let ended = machine.run(&["ensure"]);
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.stderr, server.log());
    assert_eq!(pebble.issued(), 1);
    assert_eq!(server.texts("_acme-challenge.example.test"), ["of-a-run-that-was-killed"]);
    for name in ["a.example.test", "b.example.test", "www.deep.example.test"] {
        assert!(server.texts(&format!("_acme-challenge.{name}")).is_empty(), "{name}");
    }
}

#[test]
fn what_a_provider_is_not_told_ends_the_run_before_any_order() {
    let machine = |provider: &str, credentials: &str| {
        let nobody = "https://127.0.0.1:9/dir";
        let issuer = format!("[issuer.ca]\nkind = \"acme\"\ndirectory = \"{nobody}\"");
        let solver = format!("[solver.dns]\nkind = \"dns-01\"\nprovider = \"{provider}\"\nresolver = \"127.0.0.1\"\n{credentials}");
        Machine::new(&format!("[[site]]\nname = \"www.example.test\"\nissuers = [\"ca\"]\n{issuer}\n{solver}\n"))
    };
    let told = r#"credentials = { DO_AUTH_TOKEN = { env = "S3_SECRET" } }"#;
    let (nothing, misspelt, complete) = (machine("digitalocean", ""), machine("digitalozean", ""), machine("digitalocean", told));
    let missing = "the DNS provider digitalocean is not told DO_AUTH_TOKEN";
    nothing.run(&["ensure"]).expect(2).says(missing).says("it wants DO_AUTH_TOKEN; see https://docs.digitalocean.com/");
    misspelt.run(&["ensure"]).expect(2).says("there is no DNS provider \"digitalozean\"").says("did you mean \"digitalocean\"?");
    let doctor = nothing.run(&["doctor"]);
    assert!(doctor.stdout.contains(missing), "{}{}", doctor.stdout, doctor.stderr);
    let doctor = complete.run(&["doctor"]);
    assert!(doctor.stdout.contains("complete for the DNS provider digitalocean"), "{}{}", doctor.stdout, doctor.stderr);
}

#[tokio::test]
async fn values_of_one_record_are_added_beside_each_other_and_removed_alone() {
    let server = Bind9::primary(&[Zone::new("example.test", r#"_acme-challenge TXT "somebody-elses""#)]);
    let solver = solver(&server);
    let (name, wildcard) = (challenge("example.test", "of-the-name"), challenge("*.example.test", "of-the-wildcard"));
    let (one, other) = tokio::join!(solver.present(&name), solver.present(&wildcard));
    one.and(other).expect("both");
    assert_eq!(server.texts("_acme-challenge.example.test"), ["of-the-name", "of-the-wildcard", "somebody-elses"]);
    solver.confirm(&wildcard).await.expect("it is there");
    solver.clean_up(&name, &Presented::default()).await.expect("clean");
    assert_eq!(server.texts("_acme-challenge.example.test"), ["of-the-wildcard", "somebody-elses"]);
    solver.clean_up(&wildcard, &Presented::default()).await.expect("clean");
    assert_eq!(server.texts("_acme-challenge.example.test"), ["somebody-elses"]);
}

#[tokio::test]
async fn a_server_that_lags_is_named_and_the_value_is_taken_away() {
    let zone = Zone { servers: TWO, ..Zone::new("example.test", r#"_acme-challenge TXT "an-older-one""#) };
    let primary = Bind9::primary(&[zone]);
    let secondary = primary.secondary("example.test", SECOND);
    let solver = solver_with(&primary, KEY, Duration::from_secs(1));
    let challenge = challenge("example.test", "the-value");
    solver.present(&challenge).await.expect("added");
    let error = solver.confirm(&challenge).await.expect_err("the secondary lags");
    assert_eq!(
        error.what,
        "the value at _acme-challenge.example.test has not reached every server of the zone example.test within 1s: \
         ns2.example.test (::1) shows \"an-older-one\" instead"
    );
    assert!(error.hint.contains("propagation_timeout"), "{}", error.hint);
    solver.clean_up(&challenge, &Presented::default()).await.expect("clean");
    assert_eq!(primary.texts("_acme-challenge.example.test"), ["an-older-one"]);
    drop(secondary);
}

#[tokio::test]
async fn the_ca_is_asked_once_the_last_server_has_caught_up() {
    let primary = Bind9::primary(&[Zone { servers: TWO, ..Zone::new("example.test", "") }]);
    let secondary = primary.secondary("example.test", SECOND);
    let solver = Arc::new(solver(&primary));
    let challenge = challenge("example.test", "the-value");
    solver.present(&challenge).await.expect("added");
    assert!(secondary.texts("_acme-challenge.example.test").is_empty(), "the secondary should not know yet");
    let waiting = tokio::spawn({
        let (solver, challenge) = (Arc::clone(&solver), challenge.clone());
        async move { solver.confirm(&challenge).await }
    });
    secondary.fetch("example.test");
    waiting.await.expect("no panic").expect("both servers show it");
    assert_eq!(secondary.texts("_acme-challenge.example.test"), ["the-value"]);
}

#[tokio::test]
async fn a_silent_server_is_named() {
    let zone = Zone { servers: &[TWO[0], ("dead", IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)))], ..Zone::new("example.test", "") };
    let server = Bind9::primary(&[zone]);
    let solver = solver_with(&server, KEY, Duration::from_secs(1));
    let challenge = challenge("example.test", "the-value");
    solver.present(&challenge).await.expect("added");
    let error = solver.confirm(&challenge).await.expect_err("one is silent");
    assert!(error.what.ends_with(&format!("dead.example.test: 127.0.0.9:{} does not answer", server.address.port())), "{error}");
}

#[tokio::test]
async fn aliases_are_followed_into_the_zone_where_they_end() {
    let records = "_acme-challenge CNAME one\none CNAME two.answers.test.";
    let server = Bind9::primary(&[Zone { ours: false, ..Zone::new("example.test", records) }, Zone::new("answers.test", "")]);
    let solver = solver(&server);
    let challenge = challenge("example.test", "the-value");
    solver.present(&challenge).await.expect("added");
    solver.confirm(&challenge).await.expect("there");
    assert_eq!(server.texts("two.answers.test"), ["the-value"]);
    solver.clean_up(&challenge, &Presented::default()).await.expect("clean");
    assert!(server.texts("two.answers.test").is_empty());
}

#[tokio::test]
async fn an_alias_that_was_named_needs_no_lookup() {
    let server = Bind9::primary(&[Zone::new("answers.test", "")]);
    let solver = solver(&server).with_alias("fleet.answers.test").expect("a name");
    solver.present(&challenge("www.nowhere.example", "the-value")).await.expect("added");
    assert_eq!(server.texts("fleet.answers.test"), ["the-value"]);
}

#[tokio::test]
async fn aliases_that_never_end_are_refused_with_their_names() {
    let on_and_on = (0..12).map(|at| format!("n{at} CNAME n{}\n", at + 1)).collect::<Vec<_>>().concat();
    let records = format!("_acme-challenge.loop CNAME one\none CNAME _acme-challenge.loop\n_acme-challenge.long CNAME n0\n{on_and_on}");
    let odd = "_acme-challenge.odd CNAME a$\\(touch\\032x\\).example.test.";
    let server = Bind9::primary(&[Zone::new("example.test", &format!("{records}{odd}"))]);
    let solver = solver(&server);
    let error = refused(&solver, &challenge("loop.example.test", "x")).await;
    let circle = "_acme-challenge.loop.example.test → one.example.test → _acme-challenge.loop.example.test";
    assert_eq!(error.what, format!("the aliases lead in a circle: {circle}"));
    assert!(error.hint.contains("CNAME"), "{}", error.hint);
    let error = refused(&solver, &challenge("long.example.test", "x")).await;
    assert!(error.what.starts_with("the aliases lead on and on: _acme-challenge.long.example.test → n0.example.test"), "{error}");
    let error = refused(&solver, &challenge("odd.example.test", "x")).await;
    assert!(error.what.contains("which is no name for a TXT record"), "{error}");
}

#[tokio::test]
async fn a_wrong_key_and_a_zone_of_others_are_told_without_the_key() {
    let server = Bind9::primary(&[Zone::new("example.test", ""), Zone { ours: false, ..Zone::new("foreign.test", "") }]);
    let wrong = "d3Jvbmcta2V5LXdyb25nLWtleS13cm9uZy1rZXk=";
    let error = refused(&solver_with(&server, wrong, PATIENCE), &challenge("example.test", "x")).await;
    let what = "DNS provider rfc2136: cannot add a value to _acme-challenge.example.test in the zone example.test: ";
    assert!(error.what.starts_with(what), "{error}");
    assert!(!error.what.contains(wrong), "{error}");
    assert!(
        error.hint.starts_with("check that the zone example.test is in this account at rfc2136 and that the credentials may change it")
    );
    let error = refused(&solver(&server), &challenge("foreign.test", "x")).await;
    assert!(error.what.ends_with("in the zone foreign.test: Response error: Query Refused"), "{error}");
    let error = refused(&solver(&server), &challenge("www.nowhere.example", "x")).await;
    assert!(error.what.starts_with("no resolver tells the CNAME records of _acme-challenge.www.nowhere.example: "), "{error}");
}

#[test]
fn the_manual_lists_every_provider_with_what_it_is_told() {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).expect("the manual");
    let (_, section) = manual.split_once("### DNS providers").expect("a section");
    let section = section.split("\n## ").next().expect("a section");
    for provider in providers::PROVIDERS {
        let told = |kind| {
            let variables = provider.variables.iter().filter(|variable| variable.kind == kind);
            let words = variables.map(|variable| {
                let names = variable.names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" or ");
                if variable.need == providers::Need::Optional { format!("{names} (optional)") } else { names }
            });
            words.collect::<Vec<_>>().join(", ")
        };
        let (secret, open) = (told(providers::Kind::Secret), told(providers::Kind::Open));
        let row = format!("| [`{}`]({}) | {secret} | {open} |", provider.name, provider.documentation);
        assert!(section.lines().any(|line| line == row), "not in the manual: {row}");
    }
    let rows = section.lines().filter(|line| line.starts_with("| [")).count();
    assert_eq!(rows, providers::PROVIDERS.len(), "the manual lists more");
}
