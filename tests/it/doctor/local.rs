//! Files of the machine, and what starts certfleet there.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::{HOURLY, Scheduled, examine};
use crate::agent::fleet::Fleet;
use crate::support::machine::Machine;

const BUILD: &str = "[[site]]\nname = \"www.example.test\"\nissuers = [\"local-ca\"]\n";
const AGENT: &str = "[Service]\nExecStart=/usr/local/bin/certfleet agent --quiet\n";
const TIMER: &str = "[Timer]\nOnCalendar=*:17\n[Install]\nWantedBy=timers.target\n";

#[test]
fn a_machine_that_nothing_starts_certfleet_on_is_found_out() {
    let machine = Machine::new(BUILD);
    let commented = "# nothing here: 17 3 * * * root certfleet ensure\n";
    let with = |crontab: &str| Scheduled::new(&machine, crontab).examine();
    with(commented).expect("starter", "warning", &["nothing starts `certfleet ensure`", "certfleet schedule --install"]);
    with(HOURLY).expect("starter", "warning", &["nothing starts `certfleet ensure`"]);
    with("17 3 * * * root certfleet ensure\n").expect("starter", "ok", &["/etc/cron.d/certfleet", "every 24 hours"]);

    let node = Machine::new(&format!("{BUILD}[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n"));
    Scheduled::new(&node, commented).examine().expect("starter", "failed", &["nothing starts `certfleet agent`", "schedule --install"]);
    Scheduled::new(&node, HOURLY).examine().expect("starter", "ok", &["every 60 minutes"]);
}

#[test]
fn timers_count_once_they_are_switched_on() {
    let node = Machine::new(&format!("{BUILD}[[target]]\nkind = \"files\"\nssl_root = \"ssl\"\n"));
    let units = [("certfleet-agent.service", AGENT), ("certfleet-agent.timer", TIMER)];
    let found = Scheduled::with_units(&node, &units).examine();
    found.expect("starter", "failed", &["not switched on", "systemctl enable --now certfleet-agent.timer"]);
    let enabled = [units[0], units[1], ("timers.target.wants/certfleet-agent.timer", TIMER)];
    Scheduled::with_units(&node, &enabled).examine().expect("starter", "ok", &["certfleet-agent.timer", "every 60 minutes"]);
    let slower = [enabled[0], enabled[1], enabled[2], ("certfleet-agent.timer.d/slower.conf", "[Timer]\nOnCalendar=\nOnCalendar=daily\n")];
    Scheduled::with_units(&node, &slower).examine().expect("starter", "ok", &["certfleet-agent.timer", "every 24 hours"]);
}

#[test]
fn a_night_is_too_long_for_certificates_of_two_days() {
    let machine = Machine::new(&format!("{BUILD}[issuer.local-ca]\nlifetime = \"2d\"\n"));
    machine.run(&["ensure"]).expect(0);
    let nightly = "17 3 * * * root certfleet ensure\n";
    let found = Scheduled::new(&machine, nightly).examine();
    found.expect("starter", "warning", &["every 24 hours", "only 24 hours for its renewal", "at least twice"]);
    Scheduled::new(&machine, "17 */6 * * * root certfleet ensure\n").examine().expect("starter", "ok", &["every 6 hours"]);
}

#[test]
fn a_build_machine_needs_no_timer_where_webservers_renew() {
    let fleet = Fleet::new();
    let examined = || Scheduled::new(&fleet.build, "").examine();
    examined().expect("starter", "warning", &["no webserver has reported"]);
    fleet.node("ws-1").agent().expect(0);
    examined().expect("starter", "skipped", &["1 webserver"]);
    // One that is silent renews nothing.
    fleet.s3.advance(std::time::Duration::from_secs(48 * 3_600));
    examined().expect("starter", "warning", &[]);
}

#[test]
fn files_that_others_could_read_or_change_are_found_out() {
    let machine = Machine::new(BUILD);
    machine.run(&["ensure"]).expect(0);
    let found = examine(&machine);
    for check in ["runtimedata", "keys", "spool"] {
        found.expect(check, "ok", &[]);
    }
    let mode = |name: &str, mode: u32| fs::set_permissions(machine.path(name), fs::Permissions::from_mode(mode)).expect("a mode");
    mode("certfleet.toml", 0o664);
    mode("runtimedata", 0o777);
    mode("runtimedata/local/default/ssl/www.example.test/privkey.pem", 0o640);
    let found = examine(&machine);
    let configuration = found.all("configuration").into_iter().find(|finding| finding["part"] == "files").expect("a finding");
    assert!(configuration["verdict"] == "failed" && configuration["remedy"] == "chmod go-w certfleet.toml", "{configuration}");
    found.expect("runtimedata", "failed", &["0777", "chmod go-w"]).expect("keys", "failed", &["0640", "chmod 600"]);
}

#[test]
fn a_certificate_that_waits_for_its_upload_is_news() {
    let machine = Machine::new(BUILD);
    machine.create_dir("runtimedata/local/default/.certfleet/spool");
    machine.write("runtimedata/local/default/.certfleet/spool/www.example.test.json", "{}");
    examine(&machine).expect("spool", "warning", &["www.example.test", "certfleet ensure, which uploads it"]);
}
