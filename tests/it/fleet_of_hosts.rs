//! The whole story, on a network of its own: a store, a CA, a build machine and webservers, each a host with its own address.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::machine::Running;
use crate::support::namespace::{Namespace, Network, PATIENCE, program_of};
use crate::support::process::until;
use crate::support::radosgw::Radosgw;

mod authority;
mod host;

use authority::{Authorities, SHORT_LIFE};
use host::{Host, Shared};

/// A lease lives for two minutes after its last refresh.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(300);

/// A fleet. Its fields are dropped in this order: servers before the hosts that they run on.
struct Fleet {
    build: Host,
    webservers: Vec<Host>,
    authorities: Authorities,
    _store: Radosgw,
    store_host: Namespace,
    _network: Network,
}

impl Fleet {
    /// Starts the store and the CA; webservers know the fleet's identity, and have nothing else.
    fn start(webservers: usize) -> Self {
        let network = Network::start();
        let store_host = network.host("store");
        let (store, authorities) = std::thread::scope(|scope| {
            let store = scope.spawn(|| Radosgw::start_on(&store_host));
            let authorities = Authorities::start_on(network.host("ca"));
            (store.join().expect("a store"), authorities)
        });
        let (authorities, tls_root_pem) = authorities;
        let shared = Shared { bucket: &store.bucket, authorities: &authorities, tls_root_pem: &tls_root_pem };
        let build = Host::build_machine(network.host("build"), &shared);
        let webserver = |number| Host::webserver(network.host(&format!("ws{number}")), &shared);
        let webservers = (1..=webservers).map(webserver).collect();
        Self { build, webservers, authorities, _store: store, store_host, _network: network }
    }

    /// First deployment: a certificate on the build machine, every webserver brought up with it, and then its nginx. Returns the
    /// fingerprint of the leaf.
    fn deploy(&mut self) -> String {
        let first = fingerprint(&self.newest());
        for webserver in &mut self.webservers {
            self.build.machine.share_identity(&webserver.machine);
            webserver.run(&["bootstrap"]).expect(0);
            webserver.start_nginx();
        }
        self.assert_all_serve(&first);
        first
    }

    /// All agents at once; panics unless every one ends well.
    fn night(&self) {
        let runs: Vec<_> = self.webservers.iter().map(|webserver| webserver.start(&["agent"])).collect();
        for run in runs {
            run.wait().expect(0);
        }
    }

    /// Panics unless every webserver presents that leaf.
    #[track_caller]
    fn assert_all_serve(&self, fingerprint: &str) {
        self.assert_serve(&self.webservers, fingerprint);
    }

    /// While nginx takes up its configuration, old workers and new ones are both there for a moment, and so are both leaves.
    #[track_caller]
    fn assert_serve(&self, webservers: &[Host], fingerprint: &str) {
        let presents = |webserver| self.build.leaf_of(webserver).as_deref() == Some(fingerprint);
        until("common leaf", PATIENCE, || webservers.iter().all(presents).then_some(()));
    }

    /// What the datastore holds, as the build machine says.
    fn newest(&self) -> Value {
        self.build.run(&["ensure", "--json"]).expect(0).site()
    }

    /// The build machine makes a new generation before its time. Returns the fingerprint of its leaf.
    fn renew(&self) -> String {
        fingerprint(&self.build.run(&["ensure", "--force", "--json"]).expect(0).site())
    }

    /// What the operator is told about the site, with whatever exit code.
    fn status(&self) -> Value {
        self.build.run(&["status", "--json"]).site()
    }
}

impl Fleet {
    /// From now on the site has two names, so that every machine finds it due.
    fn wants_another_name(&self) {
        for host in self.webservers.iter().chain([&self.build]) {
            host.machine.change("certfleet.toml", "identifiers = [", "identifiers = [\"example.test\", ");
        }
    }

    /// After one more run of everybody all serve one leaf of generation 2, and the CA has issued `at_most` certificates.
    #[track_caller]
    fn assert_settled(&self, at_most: usize) {
        self.night();
        let site = self.newest();
        assert_eq!(site["in_place"]["generation"], 2);
        self.assert_all_serve(&fingerprint(&site));
        assert!(self.authorities.issued() <= at_most, "{} certificates", self.authorities.issued());
        self.build.run(&["status"]).expect(0);
    }
}

fn fingerprint(site: &Value) -> String {
    site["in_place"]["fingerprint_sha256"].as_str().expect("a fingerprint").to_owned()
}

fn send(to: &Running, signal: Signal) {
    kill_process(program_of(to.pid()), signal).expect("a living process");
}

/// Stops a program. Returns once `nsenter`, by which it entered its host, has stopped too, as it does when its child does.
fn freeze(running: &Running) {
    send(running, Signal::STOP);
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", running.pid())).ok();
    until("stopped program", PATIENCE, || state()?.contains(") T ").then_some(()));
}

/// Lets a stopped program go on: `nsenter` wakes its child when it wakes itself.
fn wake(stopped: &Running) {
    let entered = Pid::from_raw(stopped.pid()).expect("a process id");
    kill_process(entered, Signal::CONT).expect("a living process");
}

#[test]
fn a_night_of_all_agents_at_once_costs_one_issuance() {
    let mut fleet = Fleet::start(4);
    fleet.deploy();
    assert_eq!(fleet.authorities.issued(), 1);

    let due = fleet.status()["due"].clone();
    assert_eq!(due["rule"], "expiry");
    let at: DateTime<Utc> = due["at"].as_str().and_then(|at| at.parse().ok()).expect("a time");
    // The clock of the store is the one of this machine, but tells whole seconds.
    until("window", PATIENCE + SHORT_LIFE, || (Utc::now() > at + TimeDelta::seconds(1)).then_some(()));
    fleet.night();
    assert_eq!(fleet.authorities.issued(), 2);
    let second = fleet.newest();
    assert_eq!((&second["in_place"]["source"], &second["in_place"]["generation"]), (&"datastore".into(), &2.into()));
    fleet.assert_all_serve(&fingerprint(&second));
    assert!(fleet.webservers.iter().all(|webserver| webserver.reloads() == 1));

    // And now nothing is due, and nothing has changed.
    for webserver in &fleet.webservers {
        let quiet = webserver.run(&["agent", "--quiet"]).expect(0);
        assert_eq!((quiet.stdout, quiet.stderr), (String::new(), String::new()));
        assert_eq!(webserver.reloads(), 1);
    }
    fleet.assert_all_serve(&fingerprint(&second));
    assert_eq!(fleet.authorities.issued(), 2);
    fleet.build.run(&["status"]).expect(0);
}

#[test]
fn what_goes_wrong_on_one_node_stays_there_and_heals() {
    let mut fleet = Fleet::start(3);
    fleet.build.prefer_long_lives();
    let first = fleet.deploy();

    // Cut off from the store: it goes on with what it has.
    fleet.webservers[0].cut_off(&fleet.store_host);
    let second = fleet.renew();
    fleet.webservers[0].run(&["agent"]).expect(75);
    for webserver in &fleet.webservers[1..] {
        webserver.run(&["agent"]).expect(0);
    }
    fleet.assert_serve(&fleet.webservers[1..], &second);
    assert_eq!((fleet.build.leaf_of(&fleet.webservers[0]), fleet.webservers[0].reloads()), (Some(first), 0));
    fleet.webservers[0].reconnect(&fleet.store_host);
    fleet.webservers[0].run(&["agent"]).expect(0);
    fleet.assert_all_serve(&second);

    // Its server's configuration is broken: nothing is switched, and the fleet hears of it.
    let broken = &fleet.webservers[1];
    broken.machine.change("nginx.conf", "listen 443 ssl;", "listen 443 ssl; nonsense;");
    let (reloads, live) = (broken.reloads(), broken.live());
    let third = fleet.renew();
    broken.run(&["agent"]).expect(4).says("already").says("nonsense");
    assert_eq!((fleet.build.leaf_of(broken), broken.reloads(), broken.live()), (Some(second), reloads, live));
    let status = fleet.build.run(&["status"]).expect(3);
    assert!(status.stdout.contains("ws2") && status.stdout.contains("nonsense"), "{status:?}");
    broken.machine.change("nginx.conf", "nonsense;", "");
    fleet.night();
    fleet.assert_all_serve(&third);
    fleet.build.run(&["status"]).expect(0);
    assert_eq!(fleet.authorities.issued(), 3, "one for each time that the build machine asked");
}

#[test]
fn a_node_that_is_killed_while_it_holds_the_lease_goes_on_with_its_order() {
    let mut fleet = Fleet::start(3);
    fleet.build.prefer_long_lives();
    fleet.deploy();
    fleet.wants_another_name();
    let [holder, others @ ..] = &fleet.webservers[..] else { panic!("webservers") };

    let gate = holder.close_gate();
    let doomed = holder.start(&["agent"]);
    let hook = gate.visitor();
    let lease = fleet.status()["lease"].clone();
    assert_eq!((&lease["node"], &lease["state"]), (&"ws1".into(), &"held".into()), "{lease}");
    let waiting: Vec<_> = others.iter().map(|other| other.start(&["agent"])).collect();
    send(&doomed, Signal::KILL);
    assert_eq!(doomed.wait().code, None);
    drop((hook, gate));
    holder.run(&["agent"]).expect(0);
    for run in waiting {
        run.wait().expect(0);
    }
    fleet.assert_settled(2);
}

#[test]
fn a_node_that_slept_through_its_lease_follows_the_one_that_took_it_over() {
    let mut fleet = Fleet::start(2);
    fleet.build.prefer_long_lives();
    fleet.deploy();
    fleet.wants_another_name();
    let [sleeper, other] = &fleet.webservers[..] else { panic!("two webservers") };
    let first = fleet.build.leaf_of(other);

    let gate = sleeper.close_gate();
    let asleep = sleeper.start(&["agent"]);
    let hook = gate.visitor();
    freeze(&asleep);
    until("a new certificate on the other node", TAKEN_OVER_WITHIN, || {
        other.run(&["agent"]).expect(0);
        (fleet.build.leaf_of(other) != first).then_some(())
    });
    wake(&asleep);
    hook.pass();
    asleep.wait().expect(0);
    fleet.assert_settled(3);
}
