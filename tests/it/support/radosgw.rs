//! Ceph's radosgw, the S3 server that many providers run, with the smallest cluster that carries it: one monitor, one manager and
//! one object store daemon, which keeps everything in memory.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::bucket::Bucket;
use super::namespace::Namespace;
use super::process::{Subprocess, free_port, program, run};

const PATIENCE: Duration = Duration::from_secs(120);

/// The port of the gateway on a host of its own: the one that Ceph's documentation uses.
const GATEWAY: u16 = 7_480;

/// A running cluster with one bucket.
#[derive(Debug)]
pub struct Radosgw {
    /// Its bucket. Tests that share the server each take a prefix of their own.
    pub bucket: Bucket,
    processes: Vec<Subprocess>,
    _directory: tempfile::TempDir,
}

/// The one that the tests of this process share: started by the first that asks for it, stopped when nobody holds it any more.
pub fn shared() -> Arc<Radosgw> {
    static SHARED: Mutex<Weak<Radosgw>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    shared.upgrade().unwrap_or_else(|| {
        let started = Arc::new(Radosgw::start_on_loopback());
        *shared = Arc::downgrade(&started);
        started
    })
}

impl Radosgw {
    /// Starts it, which takes about two seconds.
    fn start_on_loopback() -> Self {
        let gateway = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut started = Self::start(gateway, &|name| Command::new(program(name)));
        started.processes.last_mut().expect("radosgw").wait_for_port(gateway, PATIENCE);
        let bucket = &started.bucket;
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        // On a thread of its own: the caller may be inside a runtime already.
        std::thread::scope(|scope| scope.spawn(|| runtime().block_on(bucket.create())).join().expect("a bucket"));
        started
    }

    /// Starts one for the hosts of a network, on port 7480 of `host`.
    pub fn start_on(host: &Namespace) -> Self {
        let started = Self::start((host.address, GATEWAY).into(), &|name| host.command(program(name)));
        let Bucket { endpoint, name, access_key, secret_key, .. } = &started.bucket;
        host.wait_for(endpoint);
        let mut create = host.command("curl");
        create.args(["--silent", "--show-error", "--fail-with-body", "--aws-sigv4", "aws:amz:us-east-1:s3"]);
        // What is signed; Ceph wants to be told.
        create.args(["--header", "x-amz-content-sha256: UNSIGNED-PAYLOAD"]);
        run(create.args(["--user", &format!("{access_key}:{secret_key}"), "--request", "PUT", &format!("{endpoint}/{name}")]));
        started
    }

    /// Starts it with its gateway at an address; everything else stays on the loopback interface of where `command` runs programs.
    fn start(gateway: SocketAddr, command: &dyn Fn(&str) -> Command) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        let monitor = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let fleet = uuid();
        fs::write(root.join("ceph.conf"), configuration(root, &fleet, monitor, gateway)).expect("a configuration");
        for name in ["mon", "mgr", "osd", "rgw"] {
            fs::create_dir(root.join(name)).expect("a directory");
        }
        make_keys(&root.join("keyring"));

        let map = root.join("monmap");
        let address = format!("[v2:{monitor}]");
        run(Command::new(program("monmaptool")).args(["--create", "--fsid", &fleet, "--addv", "a", &address]).arg(&map));
        let tool = |name: &str| {
            let mut command = command(name);
            command.arg("--conf").arg(root.join("ceph.conf"));
            command
        };
        run(tool("ceph-mon").args(["--mkfs", "-i", "a", "--monmap"]).arg(&map).arg("--keyring").arg(root.join("keyring")));
        let mut processes = Vec::new();
        let mut start = |name: &str, arguments: &[&str]| {
            let mut command = tool(name);
            command.arg("-f").args(arguments);
            processes.push(Subprocess::spawn(&command, root.join(format!("{name}.log"))));
        };
        start("ceph-mon", &["-i", "a"]);
        start("ceph-mgr", &["-i", "a"]);
        let store = uuid();
        run(tool("ceph").args(["osd", "new", &store]));
        run(tool("ceph-osd").args(["--mkfs", "-i", "0", "--osd-uuid", &store]));
        start("ceph-osd", &["-i", "0"]);
        start("radosgw", &["-n", "client.rgw.a"]);

        let bucket = Bucket {
            endpoint: format!("http://{gateway}"),
            name: "fleet".to_owned(),
            access_key: "RADOSGWACCESSKEY".to_owned(),
            secret_key: "radosgw-secret-key".to_owned(),
            ca_file: None,
        };
        let user = ["user", "create", "--uid=test", "--display-name=test", "--access-key", &bucket.access_key];
        run(tool("radosgw-admin").args(["-n", "client.rgw.a"]).args(user).args(["--secret", &bucket.secret_key]));
        Self { bucket, processes, _directory: directory }
    }
}

fn uuid() -> String {
    fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random number").trim().to_owned()
}

fn make_keys(keyring: &Path) {
    for (number, name) in ["mon.", "client.admin", "client.rgw.a", "mgr.a", "osd.0"].into_iter().enumerate() {
        let mut command = Command::new(program("ceph-authtool"));
        command.arg(keyring).args([
            "--gen-key",
            "-n",
            name,
            "--cap",
            "mon",
            "allow *",
            "--cap",
            "osd",
            "allow *",
            "--cap",
            "mgr",
            "allow *",
        ]);
        if number == 0 {
            command.arg("--create-keyring");
        }
        run(&mut command);
    }
}

fn configuration(root: &Path, fleet: &str, monitor: SocketAddr, gateway: SocketAddr) -> String {
    let root = root.display();
    format!(
        "[global]
fsid = {fleet}
mon_initial_members = a
mon_host = [v2:{monitor}]
ms_bind_msgr1 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
keyring = {root}/keyring
admin_socket =
pid_file =
log_file =
log_to_stderr = true
debug_rocksdb = 0
run_dir = {root}
crash_dir = {root}
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 1
osd_pool_default_pgp_num = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_data = {root}/mon
# Every pool waits for several decisions of the monitor, which by default takes a second for each.
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
[mgr]
mgr_data = {root}/mgr
[osd]
osd_data = {root}/osd
osd_objectstore = memstore
[client.rgw.a]
rgw_data = {root}/rgw
rgw_frontends = beast endpoint={gateway} tcp_nodelay=1
"
    )
}
