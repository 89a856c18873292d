//! What goes wrong on the way to a bucket, and what is said about it.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use certfleet::datastore::s3::S3Datastore;
use certfleet::datastore::s3::connection::{Addressing, Credentials, Encryption, S3Options, Timeouts};
use certfleet::datastore::{Datastore, DatastoreError, FailureKind, Put, PutMode};
use certfleet::domain::object_key::ObjectKey;
use chrono::{TimeDelta, Utc};
use http::Method;
use zeroize::Zeroizing;

use crate::support::moto::Moto;
use crate::support::process::{free_port, run};
use crate::support::radosgw;
use crate::support::s3_in_process::{DOMAIN, Fault, InProcessS3, Seen};

/// Everything a person is told about a failed call.
fn told(error: &DatastoreError) -> String {
    format!("{error}: {}\nhint: {}", error.source, error.hint)
}

#[track_caller]
fn check_told(error: &DatastoreError, kind: FailureKind, pieces: &[&str]) {
    let told = told(error);
    assert_eq!(error.kind, kind, "{told}");
    for piece in pieces {
        assert!(told.contains(piece), "{piece:?} is not in: {told}");
    }
}

async fn failing_list(options: S3Options) -> DatastoreError {
    S3Datastore::connect(options).await.expect("a datastore").list("bundles/", None).await.expect_err("a refusal")
}

fn with_keys(mut options: S3Options, access_key: &str, secret_key: &str) -> S3Options {
    options.credentials = Credentials::Explicit { access_key: access_key.to_owned(), secret_key: Zeroizing::new(secret_key.to_owned()) };
    options
}

fn impatient(mut options: S3Options) -> S3Options {
    options.timeouts =
        Timeouts { connect: Duration::from_millis(200), attempt: Duration::from_millis(300), operation: Duration::from_secs(3) };
    options
}

#[tokio::test]
async fn refusals_name_the_call_and_what_to_check() {
    use FailureKind::Lasting;
    let (in_process, moto, radosgw) = (InProcessS3::start(), Moto::start().await, radosgw::shared());
    let buckets = [("in process", in_process.bucket()), ("moto", moto.bucket.clone()), ("radosgw", radosgw.bucket.clone())];
    for (name, bucket) in &buckets {
        let options = S3Options { bucket: "no-such-bucket".to_owned(), ..bucket.options("fleet-a") };
        let error = failing_list(options.clone()).await;
        check_told(
            &error,
            Lasting,
            &["list s3://no-such-bucket/fleet-a/bundles/ failed", "404 NoSuchBucket", "create the bucket no-such-bucket"],
        );
        let store = S3Datastore::connect(options).await.expect(name);
        let error = store.get(&ObjectKey::manifest()).await.expect_err("a refusal");
        check_told(&error, Lasting, &["get s3://no-such-bucket/fleet-a/certfleet.json failed", "NoSuchBucket"]);
        let error = store.put(&ObjectKey::manifest(), Bytes::new(), PutMode::Create).await.expect_err("a refusal");
        check_told(&error, Lasting, &["create s3://no-such-bucket/fleet-a/certfleet.json failed", "NoSuchBucket"]);
        let error = store.delete(&ObjectKey::manifest()).await.expect_err("a refusal");
        check_told(&error, Lasting, &["delete s3://no-such-bucket/fleet-a/certfleet.json failed", "NoSuchBucket"]);
    }
    // moto takes any key.
    for (bucket, code) in [(&buckets[0].1, "NotSignedUp"), (&buckets[2].1, "InvalidAccessKeyId")] {
        let error = failing_list(with_keys(bucket.options(""), "UNKNOWNKEY", "s3cr3t-never-shown")).await;
        check_told(&error, Lasting, &["list s3://fleet/bundles/ failed", "answered 403", code, "does not know the access key"]);
        assert!(!format!("{error:?}").contains("s3cr3t-never-shown"));
        let error = failing_list(with_keys(bucket.options(""), &bucket.access_key, "s3cr3t-never-shown")).await;
        check_told(&error, Lasting, &["403 SignatureDoesNotMatch", "secret_key"]);
        assert!(!format!("{error:?}").contains("s3cr3t-never-shown"));
    }
}

#[tokio::test]
async fn every_answer_has_its_meaning_and_its_hint() {
    use FailureKind::{Lasting, Passing};
    let server = InProcessS3::start();
    let store = server.bucket().datastore("").await;
    let cases = [
        (403, "AccessDenied", Lasting, "s3:ListBucket"),
        (403, "RequestTimeTooSkewed", Lasting, "clock"),
        (400, "ExpiredToken", Lasting, "expired"),
        (400, "RequestTimeout", Passing, "try again later"),
        (301, "PermanentRedirect", Lasting, "another region"),
        (400, "AuthorizationHeaderMalformed", Lasting, "another region"),
        (501, "NotImplemented", Lasting, "another store"),
        (503, "SlowDown", Passing, "try again later"),
        (500, "InternalError", Passing, "try again later"),
        (429, "TooManyRequests", Passing, "try again later"),
        (409, "OperationAborted", Passing, "try again"),
        (418, "Teapot", Lasting, "check the bucket"),
    ];
    for (status, code, kind, hint) in cases {
        server.clear_faults();
        server.forget_requests();
        server.fault_always(Fault::Refuse(status, code), |_| true);
        let error = store.list("", None).await.expect_err("a refusal");
        check_told(&error, kind, &["list s3://fleet/ failed", &format!("{status} {code}"), hint]);
        let attempts = server.requests().len();
        // What cannot succeed is not tried again; everything else is, and not for ever.
        let expected = if kind == Passing { 3 } else { 1 };
        assert_eq!(attempts, expected, "{code}");
    }
}

#[tokio::test]
async fn what_cannot_be_reached_is_told_apart() {
    use FailureKind::{Lasting, Passing};
    let server = InProcessS3::start();
    let endpoint = |url: String| S3Options { endpoint: Some(url), ..server.bucket().options("") };

    let refused = format!("http://127.0.0.1:{}", free_port());
    check_told(&failing_list(endpoint(refused.clone())).await, Passing, &["cannot be reached", "Connection refused", &refused]);

    let unknown = failing_list(endpoint("http://s3.does-not-exist.invalid".to_owned())).await;
    check_told(&unknown, Passing, &["host name", "s3.does-not-exist.invalid", "path_style"]);

    // Accepts connections, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let silent = format!("http://{}", silent.local_addr().expect("an address"));
    let started = Instant::now();
    let error = failing_list(impatient(endpoint(silent))).await;
    check_told(&error, Passing, &["no answer in time"]);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());

    let tls = InProcessS3::start_tls();
    let no_tls = tls.endpoint().replace("https://", "http://");
    check_told(&failing_list(endpoint(no_tls)).await, Passing, &["list s3://fleet/bundles/ failed"]);
    let tls_expected = server.endpoint().replace("http://", "https://");
    check_told(&failing_list(endpoint(tls_expected)).await, Lasting, &["TLS"]);
}

#[tokio::test]
async fn an_own_ca_is_refused_until_it_is_named() {
    let server = InProcessS3::start_tls();
    let error = failing_list(S3Options { ca_file: None, ..server.bucket().options("") }).await;
    check_told(&error, FailureKind::Lasting, &["certificate was refused", "UnknownIssuer", "ca_file"]);
    let other = InProcessS3::start_tls();
    let error = failing_list(S3Options { ca_file: other.bucket().ca_file, ..server.bucket().options("") }).await;
    check_told(&error, FailureKind::Lasting, &["certificate was refused"]);
    server.bucket().datastore("").await.list("", None).await.expect("a listing");
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_refused_by_name() {
    let server = InProcessS3::start();
    let directory = tempfile::tempdir().expect("a directory");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let unreadable = "-----BEGIN CERTIFICATE-----\n%\n-----END CERTIFICATE-----\n";
    for (name, content) in
        [("empty.pem", Some("")), ("broken.pem", Some(broken)), ("unreadable.pem", Some(unreadable)), ("missing.pem", None)]
    {
        let file = directory.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).expect("a file");
        }
        let error = S3Datastore::connect(S3Options { ca_file: Some(file), ..server.bucket().options("") }).await.expect_err("a refusal");
        check_told(&error, FailureKind::Lasting, &["use s3://fleet/ failed", name, "PEM file"]);
    }
}

#[tokio::test]
async fn a_proxy_and_virtual_hosts_are_used_where_configured() {
    let server = InProcessS3::start();
    // The server takes what is sent to a proxy: the name of the endpoint exists nowhere.
    let options = S3Options {
        endpoint: Some(format!("http://{DOMAIN}")),
        proxy: Some(server.endpoint()),
        addressing: Addressing::VirtualHost,
        ..server.bucket().options("fleet-a")
    };
    let store = S3Datastore::connect(options.clone()).await.expect("a datastore");
    store.put(&ObjectKey::manifest(), Bytes::from("x"), PutMode::Create).await.expect("put");
    assert_eq!(store.get(&ObjectKey::manifest()).await.expect("got"), Some(Bytes::from("x")));
    assert_eq!(server.objects().keys(), ["fleet-a/certfleet.json"]);
    assert!(server.requests().iter().all(|seen| seen.host == format!("fleet.{DOMAIN}")), "{:?}", server.requests());

    let path_style = S3Datastore::connect(S3Options { addressing: Addressing::Path, ..options.clone() }).await.expect("a datastore");
    assert_eq!(path_style.get(&ObjectKey::manifest()).await.expect("got"), Some(Bytes::from("x")));
    assert_eq!(server.requests().last().expect("a request").host, DOMAIN);

    let bad = S3Options { proxy: Some("http://user:passw0rd@ bad".to_owned()), ..options };
    let error = S3Datastore::connect(bad.clone()).await.expect_err("a refusal");
    check_told(&error, FailureKind::Lasting, &["proxy"]);
    assert!(!format!("{error:?} {bad:?}").contains("passw0rd"));
}

#[tokio::test]
async fn encryption_is_asked_for_where_configured() {
    let server = InProcessS3::start();
    for (encryption, header) in [
        (Encryption::None, None),
        (Encryption::Aes256, Some("AES256")),
        (Encryption::Kms { key_id: None }, Some("aws:kms")),
        (Encryption::Kms { key_id: Some("alias/x".to_owned()) }, Some("aws:kms")),
    ] {
        let options = S3Options { server_side_encryption: encryption, ..server.bucket().options("") };
        let store = S3Datastore::connect(options).await.expect("a datastore");
        store.put(&ObjectKey::manifest(), Bytes::new(), PutMode::Overwrite).await.expect("put");
        assert_eq!(server.requests().last().expect("a request").server_side_encryption.as_deref(), header);
    }
}

fn is_create(seen: &Seen) -> bool {
    seen.create
}

#[tokio::test]
async fn a_create_is_never_taken_for_more_than_it_is() {
    let server = InProcessS3::start();
    let store = server.bucket().datastore("").await;
    let key = ObjectKey::manifest();
    let create = || store.put(&key, Bytes::from("ours"), PutMode::Create);
    // What happens to each attempt in turn, and what the caller is told in the end.
    let cases: [(&[Fault], Put, bool); 6] = [
        (&[Fault::Refuse(503, "SlowDown")], Put::Stored, true),
        (&[Fault::DropBefore], Put::Stored, true),
        (&[Fault::Refuse(409, "ConditionalRequestConflict")], Put::Stored, true),
        // These arrived, and were sent again because nobody said so: the caller finds its own bytes.
        (&[Fault::DropAfter], Put::Exists, true),
        (&[Fault::DoThenRefuse(500, "InternalError")], Put::Exists, true),
        (&[Fault::Refuse(412, "PreconditionFailed")], Put::Exists, false),
    ];
    for (faults, expected, there) in cases {
        faults.iter().cloned().for_each(|fault| server.fault(fault, is_create));
        assert_eq!(create().await.expect("an answer"), expected, "{faults:?}");
        assert_eq!(server.objects().get("certfleet.json").is_some(), there, "{faults:?}");
        server.objects().delete("certfleet.json");
    }
    for fault in [Fault::DropAfter, Fault::DoThenRefuse(500, "InternalError"), Fault::Refuse(409, "ConditionalRequestConflict")] {
        server.forget_requests();
        server.fault_always(fault, is_create);
        let error = create().await.expect_err("no answer");
        assert_eq!(error.kind, FailureKind::Passing, "{}", told(&error));
        assert_eq!(server.requests().len(), 3, "bounded");
        server.clear_faults();
        server.objects().delete("certfleet.json");
    }
}

#[tokio::test]
async fn broken_answers_are_asked_for_again() {
    let server = InProcessS3::start();
    let store = server.bucket().datastore("").await;
    let body = Bytes::from("x".repeat(100_000));
    server.objects().put("certfleet.json", body.clone());
    let get = |seen: &Seen| seen.method == Method::GET && !seen.key.is_empty();
    for fault in [Fault::Truncate, Fault::DropBefore, Fault::Refuse(500, "InternalError")] {
        server.fault(fault.clone(), get);
        assert_eq!(store.get(&ObjectKey::manifest()).await.expect("got"), Some(body.clone()), "{fault:?}");
    }
    server.fault_always(Fault::Truncate, get);
    let error = store.get(&ObjectKey::manifest()).await.expect_err("half an object is none");
    check_told(&error, FailureKind::Passing, &["get s3://fleet/certfleet.json failed", "broke off"]);
    server.clear_faults();

    let list = |seen: &Seen| seen.method == Method::GET && seen.key.is_empty();
    server.fault_always(Fault::Truncate, list);
    let error = store.list("", None).await.expect_err("half a listing is none");
    assert_eq!(error.kind, FailureKind::Passing, "{}", told(&error));
}

#[tokio::test]
async fn time_is_told_by_the_store_and_by_the_first_page() {
    let server = InProcessS3::start();
    let store = server.bucket().datastore("").await;
    server.objects().put("certfleet.json", "x");
    server.advance(Duration::from_secs(40 * 86400));
    let listing = store.list("", None).await.expect("a listing");
    let ahead = listing.now - Utc::now();
    assert!((ahead - TimeDelta::days(40)).abs() < TimeDelta::minutes(5), "{ahead}");
    let age = listing.now - listing.entries[0].last_modified;
    assert!((age - TimeDelta::days(40)).abs() < TimeDelta::minutes(5), "{age}");

    // A lease of the first page must not look older because the second page took its time.
    server.set_page_size(1);
    server.objects().put("leases/a", "x");
    server.fault(Fault::Advance(Duration::from_secs(3600)), |_| true);
    let listing = store.list("", None).await.expect("a listing");
    assert_eq!(listing.entries.len(), 2);
    let age = listing.now - listing.entries[1].last_modified;
    assert!(age < TimeDelta::minutes(5), "{age}");
}

#[tokio::test]
async fn slow_answers_are_asked_for_again() {
    let server = InProcessS3::start();
    let store = S3Datastore::connect(impatient(server.bucket().options(""))).await.expect("a datastore");
    server.fault(Fault::Delay(Duration::from_secs(60)), |_| true);
    store.list("", None).await.expect("a listing");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn objects_changed_behind_our_back_are_seen_changed() {
    let server = InProcessS3::start();
    let store = server.bucket().datastore("").await;
    server.objects().put("certfleet.json", "same length");
    let before = store.list("", None).await.expect("a listing").entries;
    server.objects().corrupt("certfleet.json");
    let after = store.list("", None).await.expect("a listing").entries;
    assert_ne!(before[0].etag, after[0].etag);
    assert_ne!(store.get(&ObjectKey::manifest()).await.expect("got"), Some(Bytes::from("same length")));
}

#[tokio::test]
async fn nothing_is_sent_that_was_not_asked_for() {
    let server = InProcessS3::start();
    let store = server.bucket().datastore("fleet-a").await;
    assert_eq!(server.requests(), []);
    store.list("bundles/", None).await.expect("a listing");
    store.get(&ObjectKey::manifest()).await.expect("got");
    store.put(&ObjectKey::manifest(), Bytes::new(), PutMode::Create).await.expect("put");
    store.delete(&ObjectKey::manifest()).await.expect("deleted");
    let seen: Vec<(Method, String)> = server.requests().into_iter().map(|seen| (seen.method, seen.key)).collect();
    let object = "fleet-a/certfleet.json".to_owned();
    let expected = [(Method::GET, String::new()), (Method::GET, object.clone()), (Method::PUT, object.clone()), (Method::DELETE, object)];
    assert_eq!(seen, expected);
}

/// Set for a process that uses the AWS credential chain: the endpoint.
const CHAIN_ENDPOINT: &str = "CERTFLEET_TEST_CHAIN_ENDPOINT";

/// The chain reads the environment, and that cannot be changed safely while other tests run: a child does it.
#[test]
fn credentials_come_from_the_aws_chain() {
    if let Ok(endpoint) = std::env::var(CHAIN_ENDPOINT) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(list_with_the_chain(endpoint));
        return;
    }
    let server = InProcessS3::start();
    let bucket = server.bucket();
    let home = tempfile::tempdir().expect("a directory");
    let profile = format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n", bucket.access_key, bucket.secret_key);
    let profile_file = home.path().join("credentials");
    std::fs::write(&profile_file, profile).expect("a profile");

    let keys = [("AWS_ACCESS_KEY_ID", bucket.access_key.as_str()), ("AWS_SECRET_ACCESS_KEY", &bucket.secret_key)];
    assert!(chain_child(&server, home.path(), &keys).contains("listed 0"));
    let file = [("AWS_SHARED_CREDENTIALS_FILE", profile_file.to_str().expect("a path"))];
    assert!(chain_child(&server, home.path(), &file).contains("listed 0"));
    let told = chain_child(&server, home.path(), &[]);
    assert!(told.contains("list s3://fleet/ failed: there are no credentials") && told.contains("AWS_ACCESS_KEY_ID"), "{told}");
}

fn chain_child(server: &InProcessS3, home: &Path, variables: &[(&str, &str)]) -> String {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "s3::credentials_come_from_the_aws_chain", "--nocapture"]);
    command.env_clear().env("HOME", home).env(CHAIN_ENDPOINT, server.endpoint());
    command.env("AWS_EC2_METADATA_DISABLED", "true").envs(variables.iter().copied());
    run(&mut command)
}

async fn list_with_the_chain(endpoint: String) {
    let options = S3Options {
        bucket: "fleet".to_owned(),
        prefix: String::new(),
        endpoint: Some(endpoint),
        region: None,
        addressing: Addressing::Path,
        server_side_encryption: Encryption::None,
        credentials: Credentials::Chain,
        ca_file: None,
        proxy: None,
        timeouts: Timeouts::default(),
    };
    match S3Datastore::connect(options).await.expect("a datastore").list("", None).await {
        Ok(listing) => println!("listed {}", listing.entries.len()),
        Err(error) => println!("{:?} {}", error.kind, told(&error)),
    }
}
