//! `mode = "redirect"`: answers lie in the bucket, where everybody may read them, and every server redirects there.

use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};

use super::servers::{Pasted, SERVERS, put_certificate, targets};
use super::{ODD, SITE, ask, machine};
use crate::doctor::examine;
use crate::support::bucket::Bucket;
use crate::support::machine::{Machine, datastore, give_keys};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::process::free_port;
use crate::support::radosgw;

const PREFIX: &str = "redirecting";

/// Lets everybody read the answers, and nothing else, as the manual says.
async fn publish_answers(bucket: &Bucket) {
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md")).expect("the manual");
    let (_, rest) = manual.split_once("everybody may read the answers").expect("the policy");
    let (_, rest) = rest.split_once("```json\n").expect("the policy");
    let policy = rest.split("```").next().expect("the policy").replace("example-certs/fleet-a", &format!("{}/{PREFIX}", bucket.name));
    let keys = Credentials::new(&bucket.access_key, &bucket.secret_key, None, None, "test");
    let config = Builder::new().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1"));
    let config = config.credentials_provider(keys).endpoint_url(&bucket.endpoint).force_path_style(true).build();
    aws_sdk_s3::Client::from_conf(config).put_bucket_policy().bucket(&bucket.name).policy(policy).send().await.expect("a policy");
}

fn redirecting(pebble: &Pebble, bucket: &Bucket) -> Machine {
    let url = format!("{}/{}/{PREFIX}/challenges/", bucket.endpoint, bucket.name);
    let solver = format!("kind = \"http-01\"\nmode = \"redirect\"\nurl = \"{url}\"\ncheck = \"127.0.0.1:{}\"\n", pebble.http_port);
    let machine = machine(pebble, &solver, &(targets() + &datastore(bucket, PREFIX)));
    give_keys(&machine, bucket);
    put_certificate(&machine);
    machine
}

#[tokio::test]
async fn a_ca_follows_to_the_bucket_and_nothing_is_left_there() {
    let (pebble, radosgw) = (Pebble::start(PebbleOptions::default()).await, radosgw::shared());
    let bucket = &radosgw.bucket;
    let machine = redirecting(&pebble, bucket);
    let _server = Pasted::start("nginx", &machine, pebble.http_port);
    let answers = || bucket.objects(PREFIX).into_keys().filter(|key| key.starts_with("challenges/")).collect::<Vec<_>>();

    machine.run(&["ensure"]).expect(1).says("a redirect to ").says("403");
    examine(&machine).expect("served", "failed", &["403", "a redirect to"]);
    assert!(answers().is_empty(), "{:?}", answers());
    publish_answers(bucket).await;
    machine.run(&["ensure", "--force"]).expect(0);
    assert_eq!(pebble.issued(), 1);
    examine(&machine).expect("redirect", "ok", &[]).expect("served", "ok", &["2 addresses"]);
    assert!(answers().is_empty(), "{:?}", answers());
}

#[tokio::test]
async fn every_server_redirects_tokens_and_nothing_else() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let url = "https://bucket.example/fleet/challenges/";
    let machine = machine(&pebble, &format!("kind = \"http-01\"\nmode = \"redirect\"\nurl = \"{url}\"\n"), &targets());
    put_certificate(&machine);
    for server in SERVERS {
        let pasted = Pasted::start(server, &machine, free_port());
        let location = |answer: &http::Response<bytes::Bytes>| {
            answer.headers().get("location").map(|to| to.to_str().expect("text").to_owned()).unwrap_or_default()
        };
        for token in ["evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA", "_-9"] {
            let answer = ask(pasted.http, token).await;
            assert_eq!((answer.status().as_u16(), location(&answer)), (302, format!("{url}{token}")), "{server}");
        }
        for token in ODD {
            let to = location(&ask(pasted.http, token).await);
            assert!(!to.contains("bucket.example"), "{server} {token:?}: {to}");
        }
        assert!(machine.run(&["snippet", server, SITE]).expect(0).stdout.contains(url));
    }
}
