//! ACME CAs and the local CA, looked at without asking them for anything.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use instant_acme::{Account, AccountCredentials};
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use serde_json::Value;
use time::OffsetDateTime;

use super::examine;
use crate::main_job;
use crate::support::fleet_files::seal_of;
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::s3_in_process::InProcessS3;

const ACCOUNT: &str = "fleet/accounts/pebble";

/// How often the CA was asked for an account, or to look one up.
fn asked_for_accounts(pebble: &Pebble) -> usize {
    pebble.log().matches("POST /sign-me-up").count()
}

/// The kept account, as it lies sealed in the bucket.
fn kept(s3: &InProcessS3, machine: &Machine) -> String {
    let record: Value = serde_json::from_slice(&s3.objects().get(ACCOUNT).expect("an account")).expect("JSON");
    let sealed = serde_json::from_value(record["account"].clone()).expect("a sealed account");
    let seal = seal_of(&machine.read("runtimedata/identity.age"));
    seal.open(&sealed, &["account", "accounts/pebble"]).expect("it opens").to_string()
}

#[tokio::test]
async fn a_ca_is_looked_at_and_its_account_looked_up_and_none_is_opened() {
    let (pebble, s3) = (Pebble::start(PebbleOptions::default()).await, InProcessS3::start());
    let machine = main_job::machine(&pebble, &s3.bucket(), "fleet");
    let found = examine(&machine);
    found.expect("directory", "ok", &[&pebble.directory_url(), "its terms: "]).expect("chain-trust", "ok", &["pebble-root.pem"]);
    found.expect("account", "ok", &["none yet"]);
    assert_eq!(asked_for_accounts(&pebble), 0);
    assert!(s3.objects().keys().is_empty() && !machine.path("runtimedata").exists(), "nothing is made: {:?}", s3.objects().keys());

    machine.run(&["ensure"]).expect(0);
    let issued = pebble.issued();
    let before = s3.objects().get(ACCOUNT);
    examine(&machine).expect("account", "ok", &["the CA knows the fleet's account", "/my-account/"]);
    assert_eq!((pebble.issued(), s3.objects().get(ACCOUNT)), (issued, before));

    // One that was deactivated since.
    let credentials: AccountCredentials = serde_json::from_str(&kept(&s3, &machine)).expect("credentials");
    let builder = Account::builder_with_root(machine.path("pebble-tls.pem")).expect("a client");
    builder.from_credentials(credentials).await.expect("an account").deactivate().await.expect("deactivated");
    examine(&machine).expect("account", "failed", &["deactivated", "delete the object accounts/pebble"]);

    // One that was put there by somebody else.
    s3.objects().change(ACCOUNT, |body| *body = String::from_utf8_lossy(body).replace("\"proof\": \"", "\"proof\": \"00").into_bytes());
    examine(&machine).expect("account", "failed", &["not written by this fleet", "delete that object"]);
}

#[tokio::test]
async fn an_account_that_the_ca_does_not_know_is_found_out() {
    let (pebble, other, s3) =
        (Pebble::start(PebbleOptions::default()).await, Pebble::start(PebbleOptions::default()).await, InProcessS3::start());
    let machine = main_job::machine(&pebble, &s3.bucket(), "fleet");
    machine.run(&["ensure"]).expect(0);
    // The CA was set up anew, under the same URL.
    let credentials = kept(&s3, &machine).replace(&pebble.directory_url(), &other.directory_url());
    let seal = seal_of(&machine.read("runtimedata/identity.age"));
    let account = seal.close(&credentials, &["account", "accounts/pebble"]).expect("sealed");
    s3.objects().put(ACCOUNT, serde_json::json!({ "version": 1, "account": account }).to_string());
    machine.change("certfleet.toml", &pebble.directory_url(), &other.directory_url());
    machine.write("pebble-tls.pem", other.root_pem());
    examine(&machine).expect("account", "failed", &["accountDoesNotExist", "delete the object accounts/pebble"]);
}

#[tokio::test]
async fn what_a_ca_does_not_offer_is_found_out() {
    let eab = Some(("kid-1".to_owned(), "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W".to_owned()));
    let (pebble, s3) = (Pebble::start(PebbleOptions { eab, ..PebbleOptions::default() }).await, InProcessS3::start());
    let machine = main_job::machine(&pebble, &s3.bucket(), "fleet");
    examine(&machine).expect("binding", "failed", &["no eab is configured", "[issuer.pebble]"]);
    machine.change("certfleet.toml", "kind = \"acme\"\n", "kind = \"acme\"\neab = { kid = \"kid-1\", hmac_key = { env = \"NOT_SET\" } }\n");
    examine(&machine).expect("settings", "failed", &["hmac_key", "export NOT_SET="]);
    machine.write("eab", "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W");
    machine.change("certfleet.toml", "{ env = \"NOT_SET\" }", "{ file = \"eab\" }");
    let found = examine(&machine);
    assert!(found.all("binding").is_empty());
    found.expect("directory", "ok", &[]);
    // The lookup of an account that is bound is not one that binds.
    machine.run(&["ensure"]).expect(0);
    examine(&machine).expect("account", "ok", &["the CA knows"]);

    machine.change("certfleet.toml", "solver = \"web\"\n", "solver = \"web\"\nprofile = \"no-such-profile\"\n");
    examine(&machine).expect("profile", "failed", &["no-such-profile", "www.example.test", "profile"]);
    let offered = examine(&machine).verdict("profile").1;
    if let Some((_, names)) = offered.split_once("one of: ") {
        let name = names.split([',', '"']).next().expect("a name").to_owned();
        machine.change("certfleet.toml", "no-such-profile", &name);
        examine(&machine).expect("profile", "ok", &[&name]);
    } else {
        assert!(offered.contains("offers no profiles"), "{offered}");
    }
}

#[tokio::test]
async fn a_ca_that_cannot_be_reached_or_trusted_is_found_out() {
    let (pebble, s3) = (Pebble::start(PebbleOptions::default()).await, InProcessS3::start());
    let machine = main_job::machine(&pebble, &s3.bucket(), "fleet");
    machine.change("certfleet.toml", "trust = \"pebble-tls.pem\"\n", "");
    machine.change("certfleet.toml", "chain_trust", "trust = \"pebble-root.pem\"\nchain_trust");
    let found = examine(&machine);
    found.expect("directory", "failed", &["set trust = "]).expect("account", "skipped", &[]);
    machine.change("certfleet.toml", "trust = \"pebble-root.pem\"\n", "trust = \"pebble-tls.pem\"\n");
    machine.change("certfleet.toml", "chain_trust = \"pebble-tls.pem\"", "chain_trust = \"missing.pem\"");
    examine(&machine).expect("chain-trust", "failed", &["missing.pem", "check the path"]).expect("directory", "ok", &[]);
    machine.change("certfleet.toml", "/dir\"", "/no-such-page\"");
    examine(&machine).expect("directory", "failed", &["404", "check the directory URL"]);
}

#[test]
fn the_files_of_the_local_ca_are_looked_at() {
    let machine = Machine::new("[[site]]\nname = \"www.example.test\"\nissuers = [\"local-ca\"]\n");
    examine(&machine).expect("root", "ok", &["none", "yet"]);
    assert!(!machine.path("runtimedata/local-ca").exists());
    machine.run(&["ensure"]).expect(0);
    examine(&machine).expect("root", "ok", &["valid until"]).expect("key", "ok", &[]);
    let key = machine.path("runtimedata/local-ca/root.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    examine(&machine).expect("key", "failed", &["0644", "chmod 600"]);
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("a mode");

    let pair = KeyPair::from_pem(&machine.read("runtimedata/local-ca/root.key")).expect("a key");
    let root = |days: i64, pair: &KeyPair| {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.not_before = OffsetDateTime::now_utc() - time::Duration::days(1);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::days(days);
        machine.write("runtimedata/local-ca/root.pem", params.self_signed(pair).expect("a root").pem());
    };
    root(170, &pair);
    examine(&machine).expect("root", "warning", &["valid only until", "plan for a new root"]);
    root(0, &pair);
    examine(&machine).expect("root", "failed", &["valid only until", "move "]);
    root(1_000, &KeyPair::generate().expect("a key"));
    examine(&machine).expect("root", "failed", &["does not belong to the key", "restore both"]);
    fs::remove_file(&key).expect("no key");
    examine(&machine).expect("root", "failed", &["is missing", "put "]);
}
