//! What lies in the datastore or in runtimedata and cannot be used: refused by name, never removed, and the next source is used.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use super::*;
use crate::support::machine::{datastore, give_keys};
use crate::support::pebble::PebbleOptions;

type Change = fn(&mut Vec<u8>);

fn rewrite(object: &mut Vec<u8>, change: impl FnOnce(&mut Value)) {
    let mut record = serde_json::from_slice(object).expect("JSON");
    change(&mut record);
    *object = record.to_string().into_bytes();
}

/// How an object is spoiled, what is said about it, and the hint of those who only look at it.
const SPOILED: &[(&str, Change, &str)] = &[
    ("truncated", |object| object.truncate(object.len() / 2), "it is damaged: "),
    ("empty", Vec::clear, "it is damaged: "),
    ("something else", |object| *object = b"<html>".to_vec(), "it is damaged: "),
    (
        "newer",
        |object| rewrite(object, |record| record["version"] = json!(2)),
        "it has format 2, this release reads up to 1; update certfleet",
    ),
    ("moved", |object| rewrite(object, |record| record["site"] = json!("example.test")), "it says it is generation 1 of example.test"),
    (
        "relabelled",
        |object| rewrite(object, |record| record["issuer"] = json!("letsencrypt")),
        "its proof is missing or wrong: it was not written by this fleet",
    ),
    ("unproven", |object| rewrite(object, |record| record["key"]["proof"] = json!("")), "its proof is missing or wrong"),
    (
        "its ciphertext altered",
        |object| {
            rewrite(object, |record| {
                let text = record["key"]["ciphertext"].as_str().expect("a text").replacen("\n-----END", "A\n-----END", 1);
                record["key"]["ciphertext"] = json!(text);
            });
        },
        "its sealed part was altered or cut off",
    ),
    (
        "sealed to somebody else",
        |object| rewrite(object, |record| record["key"]["recipient"] = json!("age1stranger")),
        "it is sealed to age1stranger, and the identity in ",
    ),
    (
        "in the clear",
        |object| rewrite(object, |record| record["key"] = json!({ "seal": "none", "plaintext": "-----BEGIN PRIVATE KEY-----" })),
        "its proof is missing or wrong",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn spoiled_bundles_are_refused_by_name_and_the_next_source_is_used() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    scene.machine.run(&["ensure"]).expect(0);
    let (good, issued) = (scene.s3.objects().get(&bundle(1)).expect("a bundle"), pebble.issued());
    for (name, spoil, said) in SPOILED {
        let mut spoiled = good.to_vec();
        spoil(&mut spoiled);
        scene.s3.objects().put(&bundle(1), spoiled.clone());
        scene.s3.objects().delete(&bundle(2));
        let refused = format!("bundles/www.example.test/0000000001 cannot be used: {said}");
        for look in [&["show", SITE][..], &["export", SITE, "--format", "combined"]] {
            let ended = scene.machine.run(look).expect(1).says(&refused).says("hint: ");
            assert_eq!(ended.stdout, "", "{name}");
        }
        let reason = format!("bundles/www.example.test/0000000001: {said}");
        let planned = scene.machine.run(&["ensure", "--dry-run"]).expect(0);
        assert!(planned.stdout.contains(&format!("passing over the datastore: {reason}")), "{name}: {planned:?}");
        let ended = scene.machine.run(&["ensure", "--json"]).expect(0);
        let site = ended.site();
        assert_eq!((&site["in_place"]["source"], &site["in_place"]["generation"]), (&json!("runtimedata"), &json!(2)), "{name}: {ended:?}");
        assert_eq!(site["refused"][0]["source"], "datastore", "{name}");
        assert!(site["refused"][0]["reason"].as_str().expect("a reason").starts_with(&reason), "{name}: {site}");
        assert_eq!(scene.s3.objects().get(&bundle(1)).as_deref(), Some(&spoiled[..]), "{name}: the object was touched");
    }
    assert_eq!(pebble.issued(), issued, "what there was serves");

    // The same with nothing else that serves: said also where no certificate can be had.
    std::fs::remove_dir_all(scene.machine.files(SITE)).expect("removed");
    scene.s3.objects().corrupt(&bundle(2));
    scene.front.inject(crate::support::ca_front::Resource::NewOrder, 1000, crate::support::ca_front::Fault::Page(500, "out of order"));
    scene
        .machine
        .run(&["ensure", "--quiet"])
        .expect(1)
        .says("www.example.test: passed over the datastore: bundles/www.example.test/0000000002: ");
}

#[tokio::test(flavor = "multi_thread")]
async fn runtimedata_that_does_not_fit_is_refused_and_left_aside() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    scene.machine.run(&["ensure"]).expect(0);
    let stranger = Machine::new("");
    stranger.run(&["ensure", SITE]).expect(0);
    let files = scene.machine.files(SITE);
    std::fs::copy(stranger.files(SITE).join("privkey.pem"), files.join("privkey.pem")).expect("a copy");
    let wrong = tree(&files);

    // The datastore comes first: it does not matter.
    let copied = scene.machine.run(&["ensure", "--json"]).expect(0);
    assert_eq!(
        (&copied.site()["in_place"]["source"], &copied.site()["refused"][0]["source"]),
        (&json!("datastore"), &json!("runtimedata"))
    );

    // It is all there is: a new one is issued, and what was there is kept beside it.
    for (name, left_out, said) in [("another's key", "", "does not belong to the certificate"), ("no key", "privkey.pem", "privkey.pem")] {
        let fresh = Scene::new(&pebble);
        fresh.machine.create_dir("runtimedata/local/default/ssl/www.example.test");
        for (path, bytes) in wrong.iter().filter(|(path, _)| path.extension().is_some_and(|extension| extension == "pem")) {
            let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
            if name != left_out {
                std::fs::write(fresh.machine.files(SITE).join(name), bytes).expect("a file");
            }
        }
        let before: Vec<_> = tree(&fresh.machine.files(SITE)).into_values().collect();
        let ended = fresh.machine.run(&["ensure", "--json"]).expect(0);
        let site = ended.site();
        assert_eq!((&site["in_place"]["source"], &site["refused"][0]["source"]), (&json!("issued"), &json!("runtimedata")), "{name}");
        let reason = site["refused"][0]["reason"].as_str().expect("a reason");
        assert!(reason.contains(said) && reason.contains(&fresh.machine.files(SITE).display().to_string()), "{name}: {reason}");
        let previous: Vec<_> =
            tree(&fresh.machine.path("runtimedata/local/default/ssl/.previous/www.example.test")).into_values().collect();
        assert_eq!(previous, before, "{name}: what was there is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_or_missing_identity_is_named_with_the_recipient() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let scene = Scene::new(&pebble);
    scene.machine.run(&["ensure"]).expect(0);
    let manifest: Value = serde_json::from_slice(&scene.s3.objects().get("fleet/certfleet.json").expect("a manifest")).expect("JSON");
    let recipient = manifest["recipient"].as_str().expect("a recipient").to_owned();
    let (keys, issued) = (scene.s3.objects().keys(), pebble.issued());
    let other = crash::machine(&pebble, &scene.front, &scene.s3.bucket());
    let path = other.path("runtimedata/identity.age");
    let refuses = |said: &str, hint: &str| {
        for command in [&["ensure", "--json"][..], &["ensure", "--dry-run"], &["show", SITE]] {
            let ended = other.run(command).expect(2).says(said).says(hint);
            assert_eq!(ended.stdout, "");
        }
    };
    refuses(
        &format!("the identity file {} is missing, and the datastore is sealed to {recipient}", path.display()),
        "copy the fleet's identity file from a machine that has it",
    );
    assert!(!path.exists(), "none is made that could open nothing");
    other.run(&["init"]).expect(0);
    refuses(&format!("the identity in {} is that of age1", path.display()), "point [datastore] identity at the fleet's own identity file");
    refuses(&format!("and the datastore is sealed to {recipient}"), "hint: ");
    std::fs::write(&path, "no identity").expect("a file");
    refuses(&format!("{} holds no age identity", path.display()), "restore");
    scene.machine.share_identity(&other);
    std::fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("set");
    refuses("has mode 0640: others on this machine can read it", "chmod 600");
    other.change("certfleet.toml", "[datastore]\n", "[datastore]\nseal = \"none\"\n");
    refuses(
        &format!("the configuration says seal = \"none\", and the datastore is sealed to {recipient}"),
        "set [datastore] seal = \"age\"",
    );
    assert_eq!((scene.s3.objects().keys(), pebble.issued()), (keys, issued), "nothing was published");
}

#[test]
fn without_a_seal_it_works_and_is_said_and_sealed_fleets_do_not_mix() {
    let s3 = InProcessS3::start();
    let site = "[[site]]\nname = \"www.example.test\"\nissuers = [\"self-signed\"]\n";
    let machine = Machine::new(&(datastore(&s3.bucket(), "fleet") + "seal = \"none\"\n" + site));
    give_keys(&machine, &s3.bucket());
    machine.run(&["ensure"]).expect(0).says("private keys lie in the clear in the datastore");
    assert!(String::from_utf8_lossy(&s3.objects().get(&bundle(1)).expect("a bundle")).contains("PRIVATE KEY"));
    assert!(!machine.path("runtimedata/identity.age").exists());
    let exported = machine.run(&["export", SITE, "--format", "combined"]).expect(0);
    assert!(exported.stdout.contains("PRIVATE KEY"));
    machine.change("certfleet.toml", "seal = \"none\"\n", "");
    let said = "the configuration says seal = \"age\", and the datastore keeps private keys in the clear";
    machine.run(&["ensure"]).expect(2).says(said).says("hint: set [datastore] seal = \"none\"");
    assert!(!machine.path("runtimedata/identity.age").exists());
}
