//! A bucket of some server, and what it takes to use it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use certfleet::datastore::Datastore as _;
use certfleet::datastore::s3::S3Datastore;
use certfleet::datastore::s3::connection::{Addressing, Credentials, Encryption, S3Options, Timeouts};
use zeroize::Zeroizing;

/// See the module.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The server's URL.
    pub endpoint: String,
    /// The bucket's name.
    pub name: String,
    /// Who may use it.
    pub access_key: String,
    /// Their secret.
    pub secret_key: String,
    /// The root that the server's certificate leads to.
    pub ca_file: Option<PathBuf>,
}

impl Bucket {
    /// Options for the part of the bucket below `prefix`, with time-outs that no loaded machine reaches.
    pub fn options(&self, prefix: &str) -> S3Options {
        S3Options {
            bucket: self.name.clone(),
            prefix: prefix.to_owned(),
            endpoint: Some(self.endpoint.clone()),
            region: None,
            addressing: Addressing::Path,
            server_side_encryption: Encryption::None,
            credentials: Credentials::Explicit { access_key: self.access_key.clone(), secret_key: Zeroizing::new(self.secret_key.clone()) },
            ca_file: self.ca_file.clone(),
            proxy: None,
            timeouts: Timeouts { connect: Duration::from_secs(20), attempt: Duration::from_secs(40), operation: Duration::from_secs(90) },
        }
    }

    /// A datastore in the part of the bucket below `prefix`.
    pub async fn datastore(&self, prefix: &str) -> S3Datastore {
        S3Datastore::connect(self.options(prefix)).await.expect("a datastore")
    }

    /// Every object of ours below `prefix`, by its key without that. May be called from anywhere: it works on a thread of its own.
    pub fn objects(&self, prefix: &str) -> BTreeMap<String, Vec<u8>> {
        let look = async {
            let store = self.datastore(prefix).await;
            let mut found = BTreeMap::new();
            for entry in store.list("", None).await.expect("a listing").entries {
                let bytes = store.get(&entry.key).await.expect("an answer").expect("an object");
                found.insert(entry.key.to_string(), bytes.to_vec());
            }
            found
        };
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        std::thread::scope(|scope| scope.spawn(|| runtime().block_on(look)).join().expect("objects"))
    }

    /// Makes the bucket.
    pub async fn create(&self) {
        use aws_sdk_s3::config::{BehaviorVersion, Builder, Credentials, Region};
        let keys = Credentials::new(&self.access_key, &self.secret_key, None, None, "test");
        let config = Builder::new().behavior_version(BehaviorVersion::latest()).region(Region::new("us-east-1"));
        let config = config.credentials_provider(keys).endpoint_url(&self.endpoint).force_path_style(true).build();
        aws_sdk_s3::Client::from_conf(config).create_bucket().bucket(&self.name).send().await.expect("a bucket");
    }
}
