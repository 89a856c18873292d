//! One contract for every datastore, and what each is found out to be.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use certfleet::datastore::directory::DirectoryDatastore;
use certfleet::datastore::memory::MemoryDatastore;
use certfleet::datastore::probe::exclusive_create;
use certfleet::datastore::{Datastore, FailureKind, Put, PutMode};
use certfleet::domain::object_key::{Attempt, Generation, ObjectKey};
use certfleet::domain::record::ExclusiveCreate;
use certfleet::domain::site::SiteName;
use chrono::{TimeDelta, Utc};
use futures_util::future::join_all;

use crate::support::moto::Moto;
use crate::support::radosgw;
use crate::support::s3_in_process::{Fault, InProcessS3};
use crate::support::s3rver::S3rver;
use crate::support::s3s_fs::S3sFs;

/// How far the times of a store may be apart: one second is what they are told in.
const RESOLUTION: TimeDelta = TimeDelta::seconds(2);

#[tokio::test]
async fn memory_keeps_the_contract() {
    contract(&MemoryDatastore::new(Utc::now()), 1200).await;
}

#[tokio::test]
async fn a_directory_keeps_the_contract() {
    let root = tempfile::tempdir().expect("a directory");
    contract(&DirectoryDatastore::new(root.path().join("not/there/yet")), 40).await;
}

#[tokio::test]
async fn the_in_process_server_keeps_the_contract() {
    let server = InProcessS3::start();
    // Several pages, without the thousands of objects.
    server.set_page_size(7);
    contract(&server.bucket().datastore("some/prefix/").await, 40).await;
}

#[tokio::test]
async fn a_bucket_without_prefix_keeps_the_contract() {
    let server = InProcessS3::start();
    contract(&server.bucket().datastore("").await, 3).await;
}

#[tokio::test]
async fn moto_keeps_the_contract() {
    let moto = Moto::start().await;
    contract(&moto.bucket.datastore("fleet-a").await, 40).await;
}

#[tokio::test]
async fn radosgw_keeps_the_contract() {
    let radosgw = radosgw::shared();
    contract(&radosgw.bucket.datastore("fleet-a").await, 1100).await;
}

#[tokio::test]
async fn stores_that_refuse_the_second_create_are_found_good() {
    let root = tempfile::tempdir().expect("a directory");
    let in_process = InProcessS3::start();
    let moto = Moto::start().await;
    let radosgw = radosgw::shared();
    let stores: [(&str, Box<dyn Datastore>); 5] = [
        ("memory", Box::new(MemoryDatastore::new(Utc::now()))),
        ("directory", Box::new(DirectoryDatastore::new(root.path().to_owned()))),
        ("in process", Box::new(in_process.bucket().datastore("fleet-b").await)),
        ("moto", Box::new(moto.bucket.datastore("fleet-b").await)),
        ("radosgw", Box::new(radosgw.bucket.datastore("fleet-b").await)),
    ];
    for (name, store) in stores {
        assert_eq!(exclusive_create(&*store, "00ff").await.expect(name), ExclusiveCreate::Honoured, "{name}");
        assert_eq!(keys(&*store, "probes/").await, Vec::<String>::new(), "{name}: probes are left");
    }
}

#[tokio::test]
async fn stores_that_let_a_second_create_through_are_found_out() {
    let s3rver = S3rver::start();
    let s3s_fs = S3sFs::start().await;
    let broken = InProcessS3::start();
    broken.fault_always(Fault::IgnoreCondition, |seen| seen.create);
    let forgetful = InProcessS3::start();
    forgetful.fault(Fault::Pretend, |seen| seen.create);
    forgetful.fault_always(Fault::Refuse(412, "PreconditionFailed"), |seen| seen.create);
    for (name, bucket) in [
        ("s3rver", &s3rver.bucket),
        ("s3s-fs", &s3s_fs.bucket),
        ("ignores conditions", &broken.bucket()),
        ("says it stored what it did not", &forgetful.bucket()),
    ] {
        let store = bucket.datastore("fleet-b").await;
        assert_eq!(exclusive_create(&store, "00ff").await.expect(name), ExclusiveCreate::Broken, "{name}");
        assert_eq!(keys(&store, "probes/").await, Vec::<String>::new(), "{name}: probes are left");
    }
}

/// What every datastore does. `many` objects are listed at once.
async fn contract(store: &dyn Datastore, many: u64) {
    an_empty_store_is_empty(store).await;
    objects_are_kept_replaced_and_removed(store).await;
    creates_are_exclusive(store).await;
    of_racing_creates_one_wins(store).await;
    names_of_all_kinds_of_sites_are_kept(store).await;
    listings_are_complete_and_in_order(store, many).await;
    times_are_the_stores(store).await;
}

async fn an_empty_store_is_empty(store: &dyn Datastore) {
    assert_eq!(store.get(&ObjectKey::manifest()).await.expect("an answer"), None);
    assert_eq!(keys(store, "").await, Vec::<String>::new());
    assert_eq!(keys(store, "bundles/www.example.com/").await, Vec::<String>::new());
    store.delete(&ObjectKey::manifest()).await.expect("removing what is not there");
    let now = store.list("", None).await.expect("a listing").now;
    assert!((now - Utc::now()).abs() < TimeDelta::minutes(1), "{now}");
}

async fn objects_are_kept_replaced_and_removed(store: &dyn Datastore) {
    let key = bundle("www.example.com", 1);
    let binary: Vec<u8> = (0..70_000_u32).map(|number| (number % 251) as u8).collect();
    let mut etags = BTreeSet::new();
    for body in [Bytes::from(binary), Bytes::from_static(b"\r\n\0 text \xff"), Bytes::new()] {
        assert_eq!(store.put(&key, body.clone(), PutMode::Overwrite).await.expect("put"), Put::Stored);
        assert_eq!(store.get(&key).await.expect("got"), Some(body.clone()));
        let listing = store.list("bundles/", None).await.expect("a listing");
        let [entry] = &listing.entries[..] else { panic!("{listing:?}") };
        assert_eq!((&entry.key, entry.size_bytes), (&key, body.len() as u64));
        assert!(!entry.etag.contains('"'), "{entry:?}");
        etags.insert(entry.etag.clone());
    }
    assert_eq!(etags.len(), 3, "{etags:?}");
    assert_eq!(store.get(&bundle("www.example.com", 2)).await.expect("got"), None);
    for _ in 0..2 {
        store.delete(&key).await.expect("removed");
        assert_eq!(store.get(&key).await.expect("got"), None);
        assert_eq!(keys(store, "").await, Vec::<String>::new());
    }
}

async fn creates_are_exclusive(store: &dyn Datastore) {
    let key = ObjectKey::manifest();
    assert_eq!(create(store, &key, "first").await, Put::Stored);
    assert_eq!(create(store, &key, "second").await, Put::Exists);
    assert_eq!(create(store, &key, "first").await, Put::Exists);
    assert_eq!(store.get(&key).await.expect("got"), Some(Bytes::from("first")));
    store.put(&key, Bytes::from("third"), PutMode::Overwrite).await.expect("put");
    assert_eq!(create(store, &key, "fourth").await, Put::Exists);
    assert_eq!(store.get(&key).await.expect("got"), Some(Bytes::from("third")));
    store.delete(&key).await.expect("removed");
    assert_eq!(create(store, &key, "fifth").await, Put::Stored);
    store.delete(&key).await.expect("removed");
}

async fn of_racing_creates_one_wins(store: &dyn Datastore) {
    for generation in 1..=3 {
        let key = lease("www.example.com", generation, 1);
        let bodies: Vec<String> = (0..32).map(|racer| format!("racer {racer} ").repeat(100)).collect();
        let answers = join_all(bodies.iter().map(|body| create(store, &key, body))).await;
        let winners: Vec<_> = bodies.iter().zip(answers).filter(|(_, answer)| *answer == Put::Stored).collect();
        let [(body, _)] = winners[..] else { panic!("{} winners", winners.len()) };
        assert_eq!(store.get(&key).await.expect("got"), Some(Bytes::from(body.clone())));
        store.delete(&key).await.expect("removed");
    }
}

async fn names_of_all_kinds_of_sites_are_kept(store: &dyn Datastore) {
    let mut wanted = BTreeSet::new();
    for name in ["*.example.com", "2001:db8::1", "192.0.2.1", "www.example.com+staging", "www.example.com", "bücher.example"] {
        let key = bundle(name, 1);
        assert_eq!(create(store, &key, name).await, Put::Stored);
        assert_eq!(store.get(&key).await.expect("got"), Some(Bytes::from(name)));
        assert_eq!(keys(store, &ObjectKey::bundles_prefix(&site(name))).await, [key.as_str()], "{name}");
        wanted.insert(key);
    }
    let account = ObjectKey::account("Let's Encrypt & co. (50 %) é?#").expect("a key");
    assert_eq!(create(store, &account, "spaces").await, Put::Stored);
    wanted.insert(account);
    let listed = store.list("", None).await.expect("a listing").entries;
    assert_eq!(listed.into_iter().map(|entry| entry.key).collect::<BTreeSet<_>>(), wanted);
    for key in wanted {
        store.delete(&key).await.expect("removed");
    }
}

async fn listings_are_complete_and_in_order(store: &dyn Datastore, many: u64) {
    // The order of the keys' bytes differs from that of a walk through directories: '+' and '-' come before '/'.
    let sites = ["www.example.com", "www.example.com+staging", "www.example.co"];
    let mut wanted: Vec<ObjectKey> =
        sites.iter().flat_map(|site| (1..=many.div_ceil(3)).map(|generation| bundle(site, generation))).collect();
    wanted.extend([
        lease("www.example.com", 12, 1),
        lease("www.example.com", 12, 2),
        lease("www.example.com", 2, 1),
        ObjectKey::manifest(),
    ]);
    for chunk in wanted.chunks(16) {
        join_all(chunk.iter().map(|key| create(store, key, key.as_str()))).await;
    }
    wanted.sort();
    let text: Vec<&str> = wanted.iter().map(ObjectKey::as_str).collect();
    assert_eq!(keys(store, "").await, text);

    let below = |prefix: &str| text.iter().copied().filter(|key| key.starts_with(prefix)).collect::<Vec<_>>();
    let prefixes =
        ["bundles/", "bundles/www.example.com/", "bundles/www.example.co", "leases/www.example.com/0000000012-", "certfleet", "none/"];
    for prefix in prefixes {
        assert_eq!(keys(store, prefix).await, below(prefix), "{prefix}");
    }
    for prefix in ["../", "/", "bundles//", "bundles/../", "bundles/www.example.com/../"] {
        assert_eq!(keys(store, prefix).await, Vec::<String>::new(), "{prefix}");
    }
    let (prefix, second) = ("bundles/www.example.com/", bundle("www.example.com", 2));
    let after_second = below(prefix).into_iter().filter(|key| *key > second.as_str()).collect::<Vec<_>>();
    for (after, expected) in [
        (second.as_str(), after_second),
        (
            "bundles/www.example.com/00000000015",
            below(prefix).into_iter().filter(|key| *key > "bundles/www.example.com/00000000015").collect(),
        ),
        ("a", below(prefix)),
        ("z", Vec::new()),
    ] {
        let listing = store.list(prefix, Some(after)).await.expect("a listing");
        assert_eq!(listing.entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), expected, "after {after}");
    }
    for chunk in wanted.chunks(16) {
        join_all(chunk.iter().map(|key| store.delete(key))).await.into_iter().for_each(|result| result.expect("removed"));
    }
}

async fn times_are_the_stores(store: &dyn Datastore) {
    let key = lease("www.example.com", 1, 1);
    let before = store.list("", None).await.expect("a listing").now;
    create(store, &key, "held").await;
    let stored = store.list("leases/", None).await.expect("a listing");
    let first = stored.entries[0].last_modified;
    assert!(before - RESOLUTION <= first && first <= stored.now + RESOLUTION, "{before} {first} {}", stored.now);

    // Until the store's clock tells the two puts apart.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        store.put(&key, Bytes::from("refreshed"), PutMode::Overwrite).await.expect("put");
        let refreshed = store.list("leases/", None).await.expect("a listing");
        assert!(refreshed.now >= stored.now);
        if refreshed.entries[0].last_modified > first {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "a put does not move the time: {refreshed:?}");
    }
    store.delete(&key).await.expect("removed");
}

pub async fn create(store: &dyn Datastore, key: &ObjectKey, body: &str) -> Put {
    store.put(key, Bytes::from(body.to_owned()), PutMode::Create).await.expect("an answer")
}

async fn keys(store: &dyn Datastore, prefix: &str) -> Vec<String> {
    let listing = store.list(prefix, None).await.expect("a listing");
    listing.entries.iter().map(|entry| entry.key.as_str().to_owned()).collect()
}

fn site(name: &str) -> SiteName {
    name.parse().expect("a site")
}

pub fn bundle(name: &str, generation: u64) -> ObjectKey {
    ObjectKey::bundle(&site(name), Generation(generation))
}

fn lease(name: &str, generation: u64, attempt: u32) -> ObjectKey {
    ObjectKey::lease(&site(name), Generation(generation), Attempt(attempt))
}

#[tokio::test]
async fn lost_answers_are_no_verdict() {
    let server = InProcessS3::start();
    let store = server.bucket().datastore("").await;
    // Every ninth create arrives, but its answer does not: somebody wins without hearing of it, and is refused when it asks again.
    let unlucky = AtomicUsize::new(0);
    server.fault_always(Fault::DropAfter, move |seen| seen.create && unlucky.fetch_add(1, Ordering::Relaxed).is_multiple_of(9));
    assert_eq!(exclusive_create(&store, "00ff").await.expect("a verdict"), ExclusiveCreate::Honoured);

    server.clear_faults();
    server.fault_always(Fault::DropAfter, |seen| seen.create);
    let error = exclusive_create(&store, "00ff").await.expect_err("nothing was found out");
    assert_eq!(error.kind, FailureKind::Passing, "{error:?}");

    server.clear_faults();
    server.fault_always(Fault::Refuse(501, "NotImplemented"), |seen| seen.create);
    let error = exclusive_create(&store, "00ff").await.expect_err("a store that cannot create");
    assert_eq!(error.kind, FailureKind::Lasting, "{error:?}");
    assert_eq!(server.objects().keys(), Vec::<String>::new());
}
