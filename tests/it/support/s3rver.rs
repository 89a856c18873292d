//! s3rver (npm), a server that ignores conditions.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::bucket::Bucket;
use super::process::{Subprocess, free_port, program, tool};

/// A running s3rver with one empty bucket.
#[derive(Debug)]
pub struct S3rver {
    /// Its bucket.
    pub bucket: Bucket,
    _process: Subprocess,
    _directory: tempfile::TempDir,
}

impl S3rver {
    /// Starts it.
    pub fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new(program("node"));
        command.arg("--require").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/s3rver.js"));
        command.arg(tool("s3rver/node_modules/s3rver/bin/s3rver.js"));
        command.args(["--address", "127.0.0.1", "--port", &address.port().to_string(), "--configure-bucket", "fleet", "--directory"]);
        command.arg(directory.path().join("data"));
        let mut process = Subprocess::spawn(&command, directory.path().join("log"));
        process.wait_for_port(address, Duration::from_secs(60));
        // The credentials are built into it.
        let bucket = Bucket {
            endpoint: format!("http://{address}"),
            name: "fleet".to_owned(),
            access_key: "S3RVER".to_owned(),
            secret_key: "S3RVER".to_owned(),
            ca_file: None,
        };
        Self { bucket, _process: process, _directory: directory }
    }
}
