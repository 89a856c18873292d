//! What a node costs, beside its peers, measured in the same run: `cargo bench --bench agent`, after `tests/install`.
//!
//! `cargo bench --bench agent -- fleet` has a fleet work instead: two hundred nodes at once, and one that waits for a new certificate.
//!
//! Times are medians of wall time from start to exit of the real binary; runs of peers alternate, so that whatever else the machine does
//! hits all of them. Nothing is asserted about times: this program fails only where something does not work.

#![allow(unreachable_pub, dead_code, reason = "the tests' support code offers more than is used here")]

#[path = "agent/counting_front.rs"]
mod counting_front;
#[path = "agent/following.rs"]
mod following;
#[path = "agent/idle.rs"]
mod idle;
#[path = "measure.rs"]
mod measure;
#[path = "agent/night.rs"]
mod night;
#[path = "agent/peers.rs"]
mod peers;
#[path = "../tests/it/support/mod.rs"]
mod support;

use measure::Table;

fn main() {
    if let Some(store) = std::env::var_os(peers::LISTING) {
        peers::list(&store.to_string_lossy());
        return;
    }
    let mut table = Table::default();
    if std::env::args().any(|argument| argument == "fleet") {
        following::measure(&mut table);
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let night = runtime.block_on(night::measure());
        println!("\n{}\n\n{table}\n{night}", measure::machine());
    } else {
        idle::a_thousand_sites(&mut table);
        idle::one_site(&mut table);
        println!("\n{}\n\n{table}", measure::machine());
    }
}
