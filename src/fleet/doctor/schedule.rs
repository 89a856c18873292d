//! Whether something starts certfleet on this machine, and often enough.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::store::plural;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::schedule::MachineRole;
use crate::domain::starter::{self, Every, Starter};
use crate::domain::time::in_words;

/// Where cron looks (cron(8)): one file, and directories of files.
const CRONTAB: &str = "/etc/crontab";
const CRONTABS: [&str; 3] = ["/etc/cron.d", "/var/spool/cron/crontabs", "/var/spool/cron"];

/// Scripts that are started together (run-parts(8)).
const CRON_SCRIPTS: [(&str, u64); 2] = [("/etc/cron.hourly", 3_600), ("/etc/cron.daily", 86_400)];

/// Where units are, the administrator's first (systemd.unit(5)).
const UNITS: [&str; 5] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Exists exactly where systemd was booted (sd_booted(3)).
const BOOTED: &str = "/run/systemd/system";

/// A renewal that fails must have a second chance before the certificate ends.
const TRIES: u32 = 2;

/// What was found on this machine.
#[derive(Debug, Default)]
pub struct Found {
    /// What starts the job.
    pub starters: Vec<Starter>,
    /// Timers that are there, and are not switched on.
    pub disabled: Vec<String>,
}

/// Whether anything else renews what this machine does not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Others {
    /// This many nodes have reported.
    Nodes(usize),
    /// Nobody knows of any.
    Nobody,
}

/// Looks for everything that starts the job of such a machine.
pub fn find(role: MachineRole) -> Found {
    let mut found = Found::default();
    if Path::new(BOOTED).is_dir() {
        units(role, &mut found);
    }
    let tables = CRONTABS.iter().flat_map(|directory| files(Path::new(directory)));
    for path in [PathBuf::from(CRONTAB)].into_iter().chain(tables) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let starters = starter::of_crontab(&text, role).into_iter();
        found.starters.extend(starters.map(|every| Starter { place: path.display().to_string(), every }));
    }
    for (directory, secs) in CRON_SCRIPTS {
        for path in files(Path::new(directory)) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
            if lines.into_iter().any(|line| starter::starts(line, role)) {
                let every = Every::Known(Duration::from_secs(secs));
                found.starters.push(Starter { place: path.display().to_string(), every });
            }
        }
    }
    found
}

/// What a person does about it. `window` is the shortest time that any site has for its renewal.
pub fn judge(found: &Found, role: MachineRole, window: Option<Duration>, others: Others) -> Vec<Finding> {
    let check = || Check::new(Part::Schedule, "starter");
    if found.starters.is_empty() {
        return vec![match (found.disabled.as_slice(), role, others) {
            ([timer, ..], ..) => {
                check().failed(format!("{timer} is there, and is not switched on"), format!("systemctl enable --now {timer}"))
            }
            ([], MachineRole::Webserver, _) => {
                check().failed("nothing starts `certfleet agent` on this machine", "certfleet schedule --install, as root")
            }
            ([], MachineRole::BuildMachine, Others::Nodes(count)) => check().skipped(format!(
                "nothing starts `certfleet ensure` on this machine; the fleet has {count} webserver{}, which may renew",
                plural(count)
            )),
            ([], MachineRole::BuildMachine, Others::Nobody) => check().warning(
                "nothing starts `certfleet ensure` on this machine, and no webserver has reported that could renew",
                "certfleet schedule --install, as root; where your pipeline runs `certfleet ensure` every day, nothing",
            ),
        }];
    }
    found.starters.iter().map(|starter| often_enough(starter, role, window)).collect()
}

fn often_enough(starter: &Starter, role: MachineRole, window: Option<Duration>) -> Finding {
    let check = Check::of(Part::Schedule, "starter", &starter.place);
    let command = role.command();
    match (starter.every, window) {
        (Every::Unknown, _) => check.ok(format!("starts `certfleet {command}`; how often, is not understood here")),
        (Every::Known(every), Some(window)) if every * TRIES > window => {
            let (every, window) = (in_words(every), in_words(window));
            let what = format!("starts `certfleet {command}` every {every}, and a site has only {window} for its renewal");
            check.warning(what, "start it at least twice in that time, or give the site a longer renew_before")
        }
        (Every::Known(every), _) => check.ok(format!("starts `certfleet {command}` every {}", in_words(every))),
    }
}

/// Timers whose service runs the job, and services that keep running it.
fn units(role: MachineRole, found: &mut Found) {
    let mut seen = Vec::new();
    for path in UNITS.iter().flat_map(|directory| files(Path::new(directory))) {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let Some(base) = name.strip_suffix(".service") else { continue };
        // One of the administrator's hides the one of that name that a package brought.
        if seen.contains(&name) || !starter::is_started_by(&fs::read_to_string(&path).unwrap_or_default(), role) {
            continue;
        }
        let timer = format!("{base}.timer");
        let file = UNITS.iter().map(|directory| Path::new(directory).join(&timer)).find(|path| path.is_file());
        if let Some(file) = file {
            let every = starter::of_timer(&fs::read_to_string(&file).unwrap_or_default());
            note(&timer, &file, every, found);
        } else if is_enabled(&name) {
            // It keeps running, with --interval.
            found.starters.push(Starter { place: path.display().to_string(), every: Every::Unknown });
        }
        seen.push(name);
    }
}

fn note(timer: &str, file: &Path, every: Every, found: &mut Found) {
    if is_enabled(timer) {
        found.starters.push(Starter { place: file.display().to_string(), every });
    } else {
        found.disabled.push(timer.to_owned());
    }
}

/// Whether some target wants the unit (systemd.unit(5), "WantedBy").
fn is_enabled(unit: &str) -> bool {
    let directories = UNITS.iter().flat_map(|directory| fs::read_dir(directory).into_iter().flatten().flatten());
    let wants =
        directories.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "wants" || end == "requires"));
    wants.into_iter().any(|directory| fs::symlink_metadata(directory.join(unit)).is_ok())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checkup::Verdict;

    #[test]
    fn what_is_missing_is_as_bad_as_what_depends_on_it() {
        let judged = |found: &Found, role, others| judge(found, role, None, others)[0].verdict;
        let (nothing, nobody) = (Found::default(), Others::Nobody);
        assert_eq!(judged(&nothing, MachineRole::Webserver, Others::Nodes(3)), Verdict::Failed);
        assert_eq!(judged(&nothing, MachineRole::BuildMachine, nobody), Verdict::Warning);
        assert_eq!(judged(&nothing, MachineRole::BuildMachine, Others::Nodes(1)), Verdict::Skipped);
        let disabled = Found { disabled: vec!["certfleet-agent.timer".to_owned()], ..Found::default() };
        let finding = &judge(&disabled, MachineRole::Webserver, None, nobody)[0];
        assert_eq!(finding.remedy.as_deref(), Some("systemctl enable --now certfleet-agent.timer"));
    }

    #[test]
    fn a_renewal_that_fails_has_a_second_chance() {
        let starter = |secs| Starter { place: "/etc/cron.d/certfleet".to_owned(), every: Every::Known(Duration::from_secs(secs)) };
        let judged =
            |secs, window: Option<u64>| often_enough(&starter(secs), MachineRole::Webserver, window.map(Duration::from_secs)).verdict;
        assert_eq!(judged(3_600, Some(7_200)), Verdict::Ok);
        assert_eq!(judged(3_600, Some(7_199)), Verdict::Warning);
        assert_eq!(judged(3_600, None), Verdict::Ok);
    }
}
