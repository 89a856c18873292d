//! s3s-fs (crate), a server that refuses the second of two creates only when nobody is in a hurry.

use std::sync::Arc;

use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;

use super::bucket::Bucket;
use super::server::HttpServer;

/// A running s3s-fs with one empty bucket, in this process.
#[derive(Debug)]
pub struct S3sFs {
    /// Its bucket.
    pub bucket: Bucket,
    _server: HttpServer,
    _directory: tempfile::TempDir,
}

impl S3sFs {
    /// Starts it.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let files = s3s_fs::FileSystem::new(directory.path()).expect("a file system");
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single("any", "secret"));
        let server = HttpServer::start(service.build(), None::<Arc<_>>);
        let bucket = Bucket {
            endpoint: format!("http://{}", server.address),
            name: "fleet".to_owned(),
            access_key: "any".to_owned(),
            secret_key: "secret".to_owned(),
            ca_file: None,
        };
        bucket.create().await;
        Self { bucket, _server: server, _directory: directory }
    }
}
