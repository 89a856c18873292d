//! A night: two hundred agents at once, and one site that is due.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::counting_front::CountingFront;
use super::support::bucket::Bucket;
use super::support::machine::{Machine, Running, datastore, give_keys};
use super::support::pebble::{Pebble, PebbleOptions};
use super::support::radosgw;

const NODES: usize = 200;

/// Nodes that are set up at the same time.
const AT_ONCE: usize = 8;

const SITE: &str = "www.example.test";

/// Has it happen on radosgw with pebble, and tells what was counted.
pub async fn measure() -> String {
    let (pebble, radosgw) = (Pebble::start(PebbleOptions::default()).await, radosgw::shared());
    let front = CountingFront::start(&radosgw.bucket.endpoint, pebble.client().clone());
    let bucket = Bucket { endpoint: front.endpoint(), ..radosgw.bucket.clone() };
    let nodes: Vec<_> = (1..=NODES).map(|number| node(&format!("ws-{number}"), &bucket, &pebble)).collect();
    nodes[0].run(&["ensure"]).expect(0);
    nodes[1..].iter().for_each(|other| nodes[0].share_identity(other));
    for some in nodes.chunks(AT_ONCE) {
        let running: Vec<_> = some.iter().map(|node| node.start(&["bootstrap"])).collect();
        running.into_iter().map(Running::wait).for_each(|ended| drop(ended.expect(0)));
    }
    let before = installed(&nodes);
    // One name more: the certificate that everybody has is due.
    let names = format!("identifiers = [\"{SITE}\"");
    for node in &nodes {
        node.change("certfleet.toml", &names, &format!("{names}, \"shop.example.test\""));
    }

    let issued = pebble.issued();
    front.line_up(NODES);
    let running: Vec<_> = nodes.iter().map(|node| node.start(&["agent", "--splay", "0s"])).collect();
    let ended: Vec<_> = running.into_iter().map(Running::wait).collect();
    let took = front.started().map(|started| started.elapsed()).unwrap_or_default();
    let failed = ended.iter().find(|ended| ended.code != Some(0));
    assert!(failed.is_none(), "{failed:?}");
    let after = installed(&nodes);
    assert!(after.len() == 1 && before.len() == 1 && after != before, "every node has the same new certificate");

    let seen = front.seen();
    let (winners, losers): (Vec<_>, Vec<_>) =
        seen.values().partition(|requests| requests.iter().any(|request| request.starts_with("PUT ") && request.contains("/bundles/")));
    let mut counts: Vec<_> = losers.iter().map(|requests| requests.len()).collect();
    counts.sort_unstable();
    let most = losers.iter().max_by_key(|requests| requests.len());
    eprintln!("the most requests of a node that lost: {most:#?}");
    let mut text = "| 200 agents at once, one due site, radosgw, pebble | counted | target |\n| --- | --- | --- |\n".to_owned();
    let mut row = |what: &str, counted: String, target: &str| {
        let _ = writeln!(text, "| {what} | {counted} | {target} |");
    };
    row("certificates issued", (pebble.issued() - issued).to_string(), "1");
    row("requests of the node that won", winners.iter().map(|requests| requests.len().to_string()).collect::<Vec<_>>().join(", "), "");
    let (least, median, most) = (counts[0], counts[counts.len() / 2], counts[counts.len() - 1]);
    row("requests of a node that lost: least, median, most", format!("{least}, {median}, {most}"), "8 at most");
    row("requests of all nodes", seen.values().map(Vec::len).sum::<usize>().to_string(), "");
    row("from the first request to the end of the last node", format!("{:.1} s", took.as_secs_f64()), "");
    text
}

fn node(name: &str, bucket: &Bucket, pebble: &Pebble) -> Machine {
    let store = datastore(bucket, "night").replace("us-east-1", name);
    let machine = Machine::new(&format!(
        "contact = \"ops@example.test\"\n[[site]]\nname = \"{SITE}\"\nidentifiers = [\"{SITE}\"]\nissuers = [\"pebble\"]\nsolver = \"web\"\n\
         [[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n[agent]\nnode = \"{name}\"\n\
         [issuer.pebble]\nkind = \"acme\"\ndirectory = \"{}\"\ntrust = \"tls.pem\"\nchain_trust = \"root.pem\"\n\
         [solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\ncheck = \"off\"\nlisten = \"127.0.0.1:{}\"\n{store}",
        pebble.directory_url(),
        pebble.http_port
    ));
    machine.write("tls.pem", pebble.root_pem());
    machine.write("root.pem", pebble.issuance_root_pem());
    give_keys(&machine, bucket);
    machine
}

/// The certificates that the nodes have, each once.
fn installed(nodes: &[Machine]) -> BTreeSet<String> {
    nodes.iter().map(|node| node.read(&format!("ssl/live/{SITE}/cert.pem"))).collect()
}
