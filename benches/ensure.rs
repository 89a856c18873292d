//! What certfleet costs, beside its peers, measured in the same run: `cargo bench`, after `tests/install`.
//!
//! Times are medians of wall time from start to exit of the real binary; runs of peers alternate, so that whatever else the machine does
//! hits all of them. Nothing is asserted about times: this program fails only where something does not work.
//!
//! It runs in a mount namespace of its own, because uacme trusts the system's roots and no others: those of the test CA are mounted over
//! them, where nobody else sees it.

#![allow(unreachable_pub, dead_code, reason = "the tests' support code offers more than is used here")]

#[path = "measure.rs"]
mod measure;
#[path = "ensure/peers.rs"]
mod peers;
#[path = "../tests/it/support/mod.rs"]
mod support;

use std::process::Command;

use measure::{Row, Table, alternate, peak_memory};
use peers::{Issuance, Way};
use support::machine::{Machine, datastore, give_keys};
use support::process::run;
use support::s3_in_process::InProcessS3;

/// Runs of what takes milliseconds, and of what takes longer.
const MANY: usize = 100;
const SOME: usize = 30;

/// Set in the process that runs inside the namespace.
const INSIDE: &str = "CERTFLEET_BENCH_INSIDE";

fn main() {
    if std::env::var_os(INSIDE).is_none() {
        let itself = std::env::current_exe().expect("a path");
        let mut unshare = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        let status = unshare.args(["--mount", "--"]).arg(itself).env(INSIDE, "1").status().expect("unshare (util-linux)");
        assert!(status.success(), "the benchmark ended with {status}");
        return;
    }
    let mut table = Table::default();
    start(&mut table);
    valid_on_a_directory(&mut table);
    valid_on_s3(&mut table);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(issuance(&mut table));
    println!("\n{}\n\n{table}", measure::machine());
}

fn start(table: &mut Table) {
    let machine = Machine::new("");
    let [ours, floor] = alternate(MANY, [&mut || machine.command(&["--version"]), &mut || Command::new("/bin/true")]);
    table.add(Row::new("`certfleet --version`", ours).memory(peak_memory(&machine.command(&["--version"]))).target("5 ms"));
    table.add(Row::new("`/bin/true`", floor).memory(peak_memory(&Command::new("/bin/true"))));
}

fn valid_on_a_directory(table: &mut Table) {
    for (sites, target) in [(1, "15 ms, 30 MB"), (100, "30 MB")] {
        let names: Vec<_> = (1..=sites).map(|number| format!("site-{number}.example.test")).collect();
        let machine = Machine::new(&names.iter().map(|name| site(name)).collect::<String>());
        machine.run(&["ensure"]).expect(0);
        let [times] = alternate(SOME, [&mut || machine.command(&["ensure"])]);
        let what = format!("`ensure`, all valid, directory, {sites} site{}", if sites == 1 { "" } else { "s" });
        table.add(Row::new(&what, times).memory(peak_memory(&machine.command(&["ensure"]))).target(target));
    }
}

fn site(name: &str) -> String {
    format!("[[site]]\nname = \"{name}\"\nissuers = [\"local-ca\"]\n")
}

fn valid_on_s3(table: &mut Table) {
    let s3 = InProcessS3::start();
    let machine = Machine::new(&(site("www.example.test") + &datastore(&s3.bucket(), "fleet")));
    give_keys(&machine, &s3.bucket());
    machine.run(&["ensure"]).expect(0);
    s3.forget_requests();
    machine.run(&["ensure"]).expect(0);
    let requests = s3.requests().len();
    let [times] = alternate(SOME, [&mut || machine.command(&["ensure"])]);
    let row = Row::new("`ensure`, all valid, S3, 1 site", times).memory(peak_memory(&machine.command(&["ensure"])));
    table.add(row.requests(requests).target("3 requests, 30 MB"));
}

/// One P-256 certificate by http-01, with an account that the CA knows.
async fn issuance(table: &mut Table) {
    let scene = Issuance::prepare().await;
    let ways = [Way::Standalone, Way::Webroot, Way::Uacme, Way::AcmeTiny];
    let requests = ways.map(|way| scene.requests(way));
    let mut commands = ways.map(|way| {
        let scene = &scene;
        move || scene.anew(way)
    });
    let times = alternate(SOME, commands.each_mut().map(|command| -> &mut dyn FnMut() -> Command { command }));
    for ((way, times), requests) in ways.into_iter().zip(times).zip(requests) {
        let (what, target) = match way {
            Way::Standalone => ("`ensure --force`, standalone", "0.12 s, 9 requests"),
            Way::Webroot => ("`ensure --force`, webroot", ""),
            Way::Uacme => ("`uacme issue`, webroot, key made before", ""),
            Way::AcmeTiny => ("`acme-tiny`, webroot, key and request made before", ""),
        };
        let row = Row::new(&format!("new certificate: {what}"), times).memory(peak_memory(&scene.anew(way)));
        table.add(row.requests(requests).target(target));
    }
    run(&mut scene.anew(Way::Uacme));
    let [idle] = alternate(SOME, [&mut || scene.uacme_idle()]);
    table.add(Row::new("`uacme issue`, nothing due", idle).memory(peak_memory(&scene.uacme_idle())));
}
