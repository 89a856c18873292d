//! A node that waits while another machine renews: from the publication to the new certificate on the wire.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use certfleet::domain::identifier::Identifier;
use certfleet::target::served::{Endpoint as _, TlsEndpoint};

use super::measure::{Row, Table, Times};
use super::support::machine::{Machine, datastore, give_keys};
use super::support::process::{Subprocess, free_port, program};
use super::support::s3_in_process::{Fault, InProcessS3};

const ROUNDS: u32 = 24;

const SITE: &str = "www.example.test";

/// By then a step has come to its end on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often the bucket and the server are looked at.
const LOOK: Duration = Duration::from_millis(2);

/// The publication is held up for this long at least, and for a little longer in each round: the node's looks fall before it at every
/// distance.
const SHORTEST_WAIT: Duration = Duration::from_millis(1_500);
const LONGER_EACH_ROUND: Duration = Duration::from_millis(170);

/// Has a webserver with nginx follow a build machine, again and again.
pub fn measure(table: &mut Table) {
    let s3 = InProcessS3::start();
    let (builder, follower, port) = machines(&s3);
    let _nginx = start_nginx(&follower, port);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let name: Identifier = SITE.parse().expect("a name");
    let served = || runtime.block_on(TlsEndpoint(format!("127.0.0.1:{port}")).presented(&name, PATIENCE)).ok();
    let mut times = Vec::new();
    // All so far: right after a reload, workers that are about to end may still answer with the one before.
    let mut known = BTreeSet::from([until("a server", served)]);
    for round in 1..=ROUNDS {
        for machine in [&builder, &follower] {
            let configuration = machine.read("certfleet.toml");
            let names = configuration.lines().find(|line| line.starts_with("identifiers")).expect("names");
            machine.change("certfleet.toml", names, &format!("identifiers = [\"{SITE}\", \"round-{round}.example.test\"]"));
        }
        let (sender, leased) = mpsc::channel();
        s3.clear_faults();
        s3.fault_always(Fault::DropBefore, move |seen| {
            if seen.method == "PUT" && seen.key.contains("/leases/") {
                let _ = sender.send(());
            }
            false
        });
        let wait = SHORTEST_WAIT + LONGER_EACH_ROUND * round;
        s3.fault(Fault::Delay(wait), |seen| seen.method == "PUT" && seen.key.contains("/bundles/"));
        let renewing = builder.start(&["ensure", "--quiet"]);
        leased.recv_timeout(PATIENCE).expect("a lease");
        let following = follower.start(&["agent", "--splay", "0s", "--quiet"]);
        let object = format!("fleet/bundles/{SITE}/{:010}", round + 1);
        until("a publication", || s3.objects().get(&object));
        let published = Instant::now();
        let new = until("a new certificate", || served().filter(|leaf| !known.contains(leaf)));
        times.push(published.elapsed());
        known.insert(new);
        renewing.wait().expect(0);
        following.wait().expect(0);
    }
    table.add(Row::new("from publication to served, on a node with nginx that waits", Times::of(times)).target("5 s"));
}

/// A build machine that has made the first certificate, and a webserver that has installed it.
fn machines(s3: &InProcessS3) -> (Machine, Machine, u16) {
    let port = free_port();
    let common =
        format!("[[site]]\nname = \"{SITE}\"\nidentifiers = [\"{SITE}\"]\nissuers = [\"local-ca\"]\n") + &datastore(&s3.bucket(), "fleet");
    let (builder, follower) = (Machine::new(&common), Machine::new(""));
    let nginx = |arguments: &str| {
        format!("[\"nginx\", {arguments}, \"-c\", \"{0}/nginx.conf\", \"-e\", \"{0}/error.log\"]", follower.path("").display())
    };
    let target = format!(
        "[[target]]\nkind = \"nginx\"\nssl_root = \"ssl\"\nverify = \"127.0.0.1:{port}\"\ntest = {}\nreload = {}\n[agent]\nrole = \"follower\"\n",
        nginx("\"-t\", \"-q\""),
        nginx("\"-s\", \"reload\"")
    );
    follower.write("certfleet.toml", common + &target);
    for machine in [&builder, &follower] {
        give_keys(machine, &s3.bucket());
    }
    builder.run(&["ensure"]).expect(0);
    builder.share_identity(&follower);
    follower.create_dir("runtimedata/local-ca");
    std::fs::copy(builder.path("runtimedata/local-ca/root.pem"), follower.path("runtimedata/local-ca/root.pem")).expect("a copy");
    follower.write("nginx.conf", nginx_configuration(&follower.path(""), port));
    follower.run(&["bootstrap"]).expect(0);
    (builder, follower, port)
}

fn start_nginx(follower: &Machine, port: u16) -> Subprocess {
    let mut nginx = Command::new(program("nginx"));
    nginx.arg("-c").arg(follower.path("nginx.conf")).arg("-e").arg(follower.path("error.log"));
    let mut nginx = Subprocess::spawn(&nginx, follower.path("nginx.log"));
    nginx.wait_for_port(([127, 0, 0, 1], port).into(), PATIENCE);
    nginx
}

fn nginx_configuration(directory: &Path, port: u16) -> String {
    let directory = directory.display();
    format!(
        "daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {directory}/ssl/live/{SITE}/fullchain.pem;
        ssl_certificate_key {directory}/ssl/live/{SITE}/privkey.pem;
        return 200;
    }}
}}
"
    )
}

fn until<T>(what: &str, ready: impl Fn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(LOOK);
    }
}
