//! Whether something starts certfleet on this machine, and often enough.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::identity::named;
use super::store::plural;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::schedule::MachineRole;
use crate::domain::starter::{self, Every, Starter};
use crate::domain::time::in_words;

/// Where cron looks (cron(8)): one file, and directories of files.
const CRONTAB: &str = "/etc/crontab";
const CRON_D: &str = "/etc/cron.d";
const CRONTABS: [&str; 3] = [CRON_D, "/var/spool/cron/crontabs", "/var/spool/cron"];

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
    /// Files with the job that cron passes over.
    pub passed_over: Vec<Finding>,
    /// What cannot be looked at.
    pub unreadable: Vec<PathBuf>,
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
    for directory in CRONTABS {
        for path in files(Path::new(directory), &mut found) {
            crontab(&path, directory == CRON_D, role, &mut found);
        }
    }
    crontab(Path::new(CRONTAB), false, role, &mut found);
    for (directory, secs) in CRON_SCRIPTS {
        for path in files(Path::new(directory), &mut found) {
            script(&path, Duration::from_secs(secs), role, &mut found);
        }
    }
    found
}

fn crontab(path: &Path, by_name: bool, role: MachineRole, found: &mut Found) {
    let starters = starter::of_crontab(&text(path, found), role);
    if starters.is_empty() {
        return;
    }
    if by_name && !is_taken(path) {
        found.passed_over.push(misnamed(path));
        return;
    }
    found.starters.extend(starters.into_iter().map(|every| Starter { place: path.display().to_string(), every }));
}

fn script(path: &Path, every: Duration, role: MachineRole, found: &mut Found) {
    let text = text(path, found);
    if !text.lines().any(|line| !line.trim_start().starts_with('#') && starter::starts(line, role)) {
        return;
    }
    if !is_taken(path) {
        found.passed_over.push(misnamed(path));
    } else if fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 == 0) {
        let check = Check::of(Part::Schedule, "starter", path.display());
        let what = "it starts certfleet, and is not executable, so that cron passes it over";
        found.passed_over.push(check.failed(what, format!("chmod +x {}", path.display())));
    } else {
        found.starters.push(Starter { place: path.display().to_string(), every: Every::Known(every) });
    }
}

fn is_taken(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(starter::is_taken_by_cron)
}

/// Some crons are less strict.
fn misnamed(path: &Path) -> Finding {
    let check = Check::of(Part::Schedule, "starter", path.display());
    check.warning("it starts certfleet, and has a name that cron may pass over", "rename it: letters, digits, _ and - alone")
}

/// What a person does about it. `window` is the shortest time that any site has for its renewal.
pub fn judge(found: &Found, role: MachineRole, window: Option<Duration>, others: Others) -> Vec<Finding> {
    let check = || Check::new(Part::Schedule, "starter");
    if found.starters.is_empty() {
        if !found.passed_over.is_empty() {
            return found.passed_over.clone();
        }
        if let ([], [_, ..]) = (found.disabled.as_slice(), found.unreadable.as_slice()) {
            let paths = named(found.unreadable.iter().map(|path| path.display().to_string()));
            let why = format!("nothing was found that starts `certfleet {}`; root could also look into {paths}", role.command());
            return vec![check().skipped(why)];
        }
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
    for path in UNITS.iter().flat_map(|directory| files(Path::new(directory), found)).collect::<Vec<_>>() {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        let Some(base) = name.strip_suffix(".service") else { continue };
        // One of the administrator's hides the one of that name that a package brought.
        if seen.contains(&name) || !starter::is_started_by(&unit(&name, &path, found), role) {
            continue;
        }
        let timer = format!("{base}.timer");
        let file = UNITS.iter().map(|directory| Path::new(directory).join(&timer)).find(|path| path.is_file());
        if let Some(file) = file {
            let every = starter::of_timer(&unit(&timer, &file, found));
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

/// A unit with its drop-ins (systemd.unit(5)), whose settings come after its own.
fn unit(name: &str, path: &Path, found: &mut Found) -> String {
    let drop_ins = UNITS.iter().flat_map(|directory| files(&Path::new(directory).join(format!("{name}.d")), found));
    let mut drop_ins: Vec<_> = drop_ins.filter(|path| path.extension().is_some_and(|end| end == "conf")).collect();
    // By their names, wherever they are.
    drop_ins.sort_by_key(|path| path.file_name().map(ToOwned::to_owned));
    let texts: Vec<_> = std::iter::once(path).chain(drop_ins.iter().map(PathBuf::as_path)).map(|path| text(path, found)).collect();
    texts.join("\n")
}

/// Empty where there is nothing to read; what may not be read is remembered.
fn text(path: &Path, found: &mut Found) -> String {
    fs::read(path).map_or_else(
        |error| {
            note_unreadable(path, &error, found);
            String::new()
        },
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    )
}

fn files(directory: &Path, found: &mut Found) -> Vec<PathBuf> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries.flatten(),
        Err(error) => {
            note_unreadable(directory, &error, found);
            return Vec::new();
        }
    };
    let mut files: Vec<_> = entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn note_unreadable(path: &Path, error: &io::Error, found: &mut Found) {
    if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) && !found.unreadable.iter().any(|known| known == path) {
        found.unreadable.push(path.to_owned());
    }
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
    fn what_cannot_be_looked_at_is_not_called_missing_and_what_cron_passes_over_is_no_starter() {
        let judged = |found: &Found| judge(found, MachineRole::Webserver, None, Others::Nobody)[0].clone();
        let closed = Found { unreadable: vec!["/var/spool/cron/crontabs".into()], ..Found::default() };
        let finding = judged(&closed);
        assert_eq!(finding.verdict, Verdict::Skipped);
        assert!(finding.what.contains("/var/spool/cron/crontabs"), "{}", finding.what);

        let place = tempfile::tempdir().expect("a directory");
        let write = |name: &str, mode| {
            let path = place.path().join(name);
            fs::write(&path, "#!/bin/sh\n17 * * * * certfleet agent\n").expect("a file");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
            path
        };
        let mut found = Found::default();
        script(&write("executable", 0o755), Duration::from_secs(3_600), MachineRole::Webserver, &mut found);
        assert_eq!((found.starters.len(), found.passed_over.len()), (1, 0));
        for (path, verdict, remedy) in
            [(write("plain", 0o644), Verdict::Failed, "chmod +x"), (write("script.sh", 0o755), Verdict::Warning, "rename it")]
        {
            let mut found = Found::default();
            script(&path, Duration::from_secs(3_600), MachineRole::Webserver, &mut found);
            assert!(found.starters.is_empty());
            let finding = judged(&found);
            assert_eq!(finding.verdict, verdict);
            assert!(finding.remedy.as_deref().is_some_and(|found| found.starts_with(remedy)), "{finding:?}");
        }
        // Names count in /etc/cron.d, not among the tables of users.
        let table = write("certfleet.cron", 0o644);
        let mut found = Found::default();
        crontab(&table, true, MachineRole::Webserver, &mut found);
        assert_eq!((found.starters.len(), found.passed_over.len()), (0, 1));
        crontab(&table, false, MachineRole::Webserver, &mut found);
        assert_eq!(found.starters.len(), 1);
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
