//! moto, a server that imitates AWS (PyPI), with its requests serialised.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::bucket::Bucket;
use super::process::{Subprocess, tool};

/// A running moto with one empty bucket. It accepts any credentials.
#[derive(Debug)]
pub struct Moto {
    /// Its bucket.
    pub bucket: Bucket,
    _process: Subprocess,
    _directory: tempfile::TempDir,
}

impl Moto {
    /// Starts it.
    pub async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(tool("moto/bin/python"));
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/serialised_moto.py"));
        let mut process = Subprocess::spawn(&command, directory.path().join("log"));
        let line = process.wait_for_line("listening on ", Duration::from_secs(60));
        let port = line.rsplit(' ').next().expect("a port");
        let bucket = Bucket {
            endpoint: format!("http://127.0.0.1:{port}"),
            name: "fleet".to_owned(),
            access_key: "any".to_owned(),
            secret_key: "any".to_owned(),
            ca_file: None,
        };
        bucket.create().await;
        Self { bucket, _process: process, _directory: directory }
    }
}
