//! Nodes with nothing to do: what most runs are.

use std::path::Path;
use std::process::Command;

use super::measure::{Row, Table, alternate, peak_memory};
use super::peers::{Certbot, PREFIX, bare_listing, curl_listing, shell_loop};
use super::support::machine::{Machine, datastore, give_keys};
use super::support::process::run;
use super::support::s3_in_process::InProcessS3;

const SITES: usize = 1_000;

/// Runs of what takes seconds, and of what takes milliseconds.
const FEW: usize = 5;
const MANY: usize = 100;

const AGENT: [&str; 4] = ["agent", "--splay", "0s", "--quiet"];

const NODE: &str = "[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n";

fn sites(count: usize) -> String {
    let site = |number| format!("[[site]]\nname = \"site-{number}.example.test\"\nissuers = [\"local-ca\"]\n");
    (1..=count).map(site).collect::<Vec<_>>().concat()
}

/// A directory datastore with certificates of so many sites, on a machine that has installed them.
fn on_a_directory(count: usize) -> Machine {
    let machine = Machine::new(&(sites(count) + NODE));
    machine.run(&["ensure", "--quiet"]).expect(0);
    machine.run(&AGENT).expect(0);
    machine
}

/// The same objects in a bucket, and another machine that has installed them from there.
fn in_a_bucket(other: &Machine, count: usize, s3: &InProcessS3) -> Machine {
    let store = other.path("runtimedata/datastore");
    copy_objects(&store, &store, s3);
    let machine = Machine::new(&(sites(count) + NODE + &datastore(&s3.bucket(), PREFIX)));
    give_keys(&machine, &s3.bucket());
    other.share_identity(&machine);
    machine.create_dir("runtimedata/local-ca");
    std::fs::copy(other.path("runtimedata/local-ca/root.pem"), machine.path("runtimedata/local-ca/root.pem")).expect("a copy");
    machine.run(&AGENT).expect(0);
    machine
}

/// All but what nodes have told: the other machine is not of this fleet.
fn copy_objects(root: &Path, directory: &Path, s3: &InProcessS3) {
    for entry in std::fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        let key = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8").to_owned();
        if path.is_dir() && key != "nodes" {
            copy_objects(root, &path, s3);
        } else if path.is_file() {
            s3.objects().put(&format!("{PREFIX}/{key}"), std::fs::read(&path).expect("an object"));
        }
    }
}

/// How many requests a run makes.
fn requests(mut command: Command, s3: &InProcessS3) -> usize {
    s3.forget_requests();
    run(&mut command);
    s3.requests().len()
}

/// The agent on both kinds of store, beside what the listing alone costs, and what others do instead.
pub fn a_thousand_sites(table: &mut Table) {
    let s3 = InProcessS3::start();
    eprintln!("issuing and installing {SITES} certificates, twice: some minutes");
    let local = on_a_directory(SITES);
    let remote = in_a_bucket(&local, SITES, &s3);
    let store = local.path("runtimedata/datastore").display().to_string();
    let live = local.path("ssl/live");
    let certbot = Certbot::with(&live);
    let counted = [requests(remote.command(&AGENT), &s3), requests(bare_listing(&s3.endpoint()), &s3)];
    let mut agent = || local.command(&AGENT);
    let mut listing = || bare_listing(&store);
    let mut agent_s3 = || remote.command(&AGENT);
    let mut listing_s3 = || bare_listing(&s3.endpoint());
    let mut certbot = || certbot.renew();
    let mut shell = || shell_loop(&live);
    let commands: [&mut dyn FnMut() -> Command; 6] = [&mut agent, &mut listing, &mut agent_s3, &mut listing_s3, &mut certbot, &mut shell];
    let memory = commands.map(|command| peak_memory(&command()));
    let commands: [&mut dyn FnMut() -> Command; 6] = [&mut agent, &mut listing, &mut agent_s3, &mut listing_s3, &mut certbot, &mut shell];
    let times = alternate(FEW, commands);
    let alone = "the same listing alone, by the same library";
    let whats = [
        ("`agent`, nothing due, directory, 1,000 sites", "listing + 30 ms, 25 MB"),
        (alone, ""),
        ("`agent`, nothing due, S3, 1,000 sites", "listing + 30 ms, 25 MB"),
        (alone, ""),
        ("`certbot renew`, nothing due, 1,000 lineages", ""),
        ("shell loop over `openssl x509 -checkend`, 1,000 files", ""),
    ];
    for (at, (((what, target), times), memory)) in whats.into_iter().zip(times).zip(memory).enumerate() {
        let row = Row::new(what, times).memory(memory).target(target);
        table.add(match at {
            2 | 3 => row.requests(counted[at - 2]),
            _ => row,
        });
    }
}

/// The smallest node there is.
pub fn one_site(table: &mut Table) {
    let s3 = InProcessS3::start();
    let local = on_a_directory(1);
    let remote = in_a_bucket(&local, 1, &s3);
    let counted = requests(remote.command(&AGENT), &s3);
    let endpoint = s3.endpoint();
    let [agent, curl] = alternate(MANY, [&mut || remote.command(&AGENT), &mut || curl_listing(&endpoint)]);
    let row = Row::new("`agent`, nothing changed, S3, 1 site", agent).memory(peak_memory(&remote.command(&AGENT)));
    table.add(row.requests(counted).target("12 ms, 1 request"));
    table.add(Row::new("one listing by curl", curl).memory(peak_memory(&curl_listing(&endpoint))).requests(1));
}
