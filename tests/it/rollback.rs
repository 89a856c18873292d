//! `certfleet rollback`: an earlier bundle becomes the next generation, and says so under proof.

use certfleet::domain::object_key::Generation;
use certfleet::domain::policy::MANUAL;
use certfleet::domain::record::{self, BundleRecord, IssuerClass};
use certfleet::fleet::bundle_object;
use http::Method;

use crate::support::fleet_files::{self as files, Made, SITE};
use crate::support::machine::{Machine, datastore, give_keys};
use crate::support::s3_in_process::{Fault, InProcessS3};

/// Where a build keeps its own copies.
const SSL: &str = "runtimedata/local/default/ssl";

/// A machine whose site has three generations with a certificate each.
fn three() -> Machine {
    let machine = Machine::new("");
    for generation in 1..=3 {
        let arguments: &[&str] = if generation == 1 { &["ensure", SITE] } else { &["ensure", SITE, "--force"] };
        machine.run(arguments).expect(0);
    }
    machine
}

fn record(machine: &Machine, generation: u64) -> BundleRecord {
    record::read(&files::object(machine, generation)).expect("a record")
}

#[test]
fn an_earlier_bundle_becomes_the_next_generation_and_says_so() {
    let machine = three();
    let ended = machine.run(&["rollback", SITE, "--json"]).expect(0);
    let in_place = &ended.site()["in_place"];
    assert_eq!((&in_place["source"], &in_place["generation"]), (&"earlier".into(), &4.into()), "{ended:?}");
    assert_eq!((record(&machine, 4).rollback_to, record(&machine, 4).fullchain), (Some(Generation(2)), record(&machine, 2).fullchain));
    assert_eq!(machine.read("runtimedata/local/default/ssl/www.example.test/fullchain.pem"), record(&machine, 2).fullchain);

    // It stays: the next run finds it valid, also where what came before it is younger.
    let kept = machine.run(&["ensure", SITE, "--json"]).expect(0);
    assert_eq!((&kept.site()["in_place"]["source"], &kept.site()["in_place"]["generation"]), (&"datastore".into(), &4.into()));

    // The next step goes further back, not to where the first one came from.
    machine.run(&["rollback", SITE]).expect(0);
    assert_eq!((record(&machine, 5).rollback_to, record(&machine, 5).fullchain), (Some(Generation(1)), record(&machine, 1).fullchain));
    machine
        .run(&["rollback", SITE])
        .expect(1)
        .says("none of the earlier generations")
        .says("hint: `certfleet ensure www.example.test --force`");
    machine.run(&["rollback", SITE, "--to", "3"]).expect(0);
    assert_eq!(record(&machine, 6).rollback_to, Some(Generation(3)));
}

#[test]
fn what_cannot_serve_is_refused_and_nothing_is_published() {
    let machine = three();
    let composed =
        [(4, Made { days_old: 100, days_left: -1, ..Made::default() }), (5, Made { names: &["other.example.test"], ..Made::default() })];
    for (generation, made) in composed {
        files::put_bundle(&machine, generation, &made);
    }
    files::change_object(&machine, 2, |record| record["issuer"] = "another".into());
    files::put_bundle(&machine, 6, &Made::default());
    let before = files::keys(&machine);
    for (arguments, said) in [
        (&["rollback", SITE, "--to", "7"][..], "has no generation 7 of www.example.test; it has 1, 2, 3, 4, 5, 6"),
        (&["rollback", SITE, "--to", "2"], "its proof is missing or wrong"),
        (&["rollback", SITE, "--to", "4"], "generation 4 cannot serve www.example.test: it expired at "),
        (&["rollback", SITE, "--to", "5"], "it does not cover www.example.test"),
        (&["rollback", "other.example.test"], "the datastore has no bundle of other.example.test"),
    ] {
        machine.run(arguments).expect(1).says(said).says("hint: ");
        assert_eq!(files::keys(&machine), before, "{arguments:?}");
    }
    machine.run(&["rollback", SITE, "--to", "0"]).expect(2);
    // Without a number, the highest that can serve is found.
    machine.run(&["rollback", SITE]).expect(0);
    assert_eq!(record(&machine, 7).rollback_to, Some(Generation(3)));
}

#[test]
fn what_is_due_already_is_published_with_a_warning() {
    let machine = three();
    files::put_bundle(&machine, 4, &Made { days_old: 85, days_left: 5, issuer: MANUAL, class: IssuerClass::Manual, ..Made::default() });
    files::put_bundle(&machine, 5, &Made::default());
    let ended = machine.run(&["rollback", SITE, "--quiet"]).expect(0);
    let ended = ended.says("warning: www.example.test: the next run of ensure or agent renews it again: 4 days left, due at 7 days");
    assert!(ended.stdout.contains("it repeats generation 4"), "{ended:?}");
}

#[test]
fn that_it_repeats_a_generation_is_proven_and_older_proofs_stay_valid() {
    let machine = three();
    machine.run(&["rollback", SITE]).expect(0);
    files::change_object(&machine, 4, |record| record["rollback_to"] = 1.into());
    machine.run(&["show", SITE]).expect(1).says("its proof is missing or wrong");
    files::change_object(&machine, 4, |record| drop(record.as_object_mut().expect("an object").remove("rollback_to")));
    machine.run(&["show", SITE]).expect(1).says("its proof is missing or wrong");
    files::change_object(&machine, 3, |record| record["rollback_to"] = 1.into());
    std::fs::remove_file(files::object_path(&machine, 4)).expect("a file");
    machine.run(&["show", SITE]).expect(1).says("its proof is missing or wrong");

    // Written by the first release of format 1, which did not know of going back.
    let seal = files::seal_of(include_str!("data/identity-format-1.age"));
    let opened = bundle_object::open(&seal, &files::site(), Generation(1), include_bytes!("data/bundle-format-1.json"));
    assert_eq!(opened.expect("a bundle").record.rollback_to, None);
}

#[test]
fn what_is_published_is_not_called_failed_because_a_file_cannot_be_written() {
    let machine = three();
    // A file in the place of the directory: nothing can be put there, not even by root.
    std::fs::remove_dir_all(machine.path(SSL)).expect("a directory");
    machine.write(SSL, "in the way");
    let ended = machine.run(&["rollback", SITE, "--json"]).expect(4);
    let in_place = ended.site()["in_place"].clone();
    assert_eq!((&in_place["generation"], &in_place["directory"]), (&4.into(), &serde_json::Value::Null), "{ended:?}");
    ended.says("generation 4 is published, but not kept in runtimedata: ").says("then `certfleet ensure www.example.test` keeps it");
    assert_eq!(record(&machine, 4).rollback_to, Some(Generation(2)));

    std::fs::remove_file(machine.path(SSL)).expect("a file");
    machine.run(&["ensure", SITE]).expect(0);
    assert_eq!(machine.read(&format!("{SSL}/{SITE}/fullchain.pem")), record(&machine, 2).fullchain);
}

#[test]
fn a_publication_that_cannot_be_proven_names_its_generation() {
    let s3 = InProcessS3::start();
    let site = format!("[[site]]\nname = \"{SITE}\"\nissuers = [\"self-signed\"]\n");
    let machine = Machine::new(&format!("{}{site}", datastore(&s3.bucket(), "fleet")));
    give_keys(&machine, &s3.bucket());
    machine.run(&["ensure"]).expect(0);
    machine.run(&["ensure", "--force"]).expect(0);
    s3.fault_always(Fault::Refuse(403, "AccessDenied"), |seen| seen.method == Method::GET && seen.key.ends_with("/0000000003"));
    machine
        .run(&["rollback", SITE])
        .expect(1)
        .says("error: it cannot be proven that generation 3 of www.example.test was published: ")
        .says("hint: look at `certfleet status` before you run the same command again");
    assert!(s3.objects().keys().iter().any(|key| key.ends_with("/0000000003")), "it was published");
}

#[test]
fn stopgaps_are_passed_over_unless_they_are_meant() {
    let machine = three();
    let supplied = || Made { issuer: MANUAL, class: IssuerClass::Manual, ..Made::default() };
    files::put_bundle(&machine, 4, &supplied());
    machine.run(&["rollback", SITE]).expect(1).says("generation 3 is a stopgap of local-ca: if that is meant, name it with --to");
    files::put_bundle(&machine, 5, &Made::default());
    files::put_bundle(&machine, 6, &supplied());
    machine.run(&["rollback", SITE]).expect(0);
    assert_eq!(record(&machine, 7).rollback_to, Some(Generation(4)), "over the one in between");
    machine.run(&["rollback", SITE, "--to", "3"]).expect(0);
    assert_eq!(record(&machine, 8).rollback_to, Some(Generation(3)));
}

#[test]
fn a_chain_that_leads_nowhere_is_refused() {
    let machine = three();
    let forged = Made { issuer: "local-ca", class: IssuerClass::LocalCa, ..Made::default() };
    files::put_bundle(&machine, 4, &forged);
    files::put_bundle(&machine, 5, &Made::default());
    let before = files::keys(&machine);
    machine.run(&["rollback", SITE, "--to", "4"]).expect(1).says("the chain of generation 4 of www.example.test is not trusted: ");
    assert_eq!(files::keys(&machine), before);
    machine.run(&["rollback", SITE]).expect(0);
    assert_eq!(record(&machine, 6).rollback_to, Some(Generation(3)), "over the untrusted one");
}

#[test]
fn nothing_is_made_where_there_is_nothing_to_go_back_to() {
    let machine = Machine::new("");
    machine
        .run(&["rollback", SITE])
        .expect(1)
        .says("the datastore has no bundle of www.example.test")
        .says("`certfleet ensure www.example.test`");
    let made: Vec<_> = std::fs::read_dir(machine.path("")).expect("a directory").map(|entry| entry.expect("an entry").path()).collect();
    assert!(made.is_empty(), "{made:?}");
}
