//! The texts that make a machine run certfleet regularly: a file for cron, or a service and a timer for systemd.
//!
//! Each text ends in a checksum of its own, so that a later certfleet can tell a file that it wrote from one that a person changed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest;
use thiserror::Error;

use super::certificate::hex;

/// What begins the last line of every text.
const CHECKSUM: &str = "# checksum: ";

/// Longer than any run that gets on: every step has a deadline of its own. Whatever hangs must not hold up the runs after it.
const LONGEST_RUN: Duration = Duration::from_secs(3 * 3600);

/// The PATH of a job of cron, which gives its jobs only `/usr/bin:/bin`: the servers to be reloaded lie in `/usr/sbin`.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What of its own a service may use, as far as it is not left away; see systemd.exec(5).
///
/// Not there, on purpose: `MemoryDenyWriteExecute` (servers compile regular expressions when they test their configuration) and
/// `CapabilityBoundingSet` beyond this list (files get owners, and port 80 is listened at to answer challenges).
const HARDENING: &str = "\
ProtectSystem=strict
PrivateDevices=yes
NoNewPrivileges=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_NET_BIND_SERVICE CAP_SETGID CAP_SETUID
UMask=0077
";

/// What a machine is to the fleet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MachineRole {
    /// It serves sites: it runs the agent.
    Webserver,
    /// It makes sure that certificates exist before anything is deployed.
    BuildMachine,
}

/// A directory or file that the job writes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// What is written there: a word or two for whoever reads the unit.
    pub what: &'static str,
    /// Whether it must be there.
    pub presence: Presence,
}

/// Whether a path must be there for the job to start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Presence {
    /// Without it the job does not start.
    Needed,
    /// It may be missing.
    Optional,
}

/// Everything that differs from machine to machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Schedule {
    /// What the machine is to the fleet.
    pub role: MachineRole,
    /// The whole path of certfleet.
    pub program: PathBuf,
    /// The whole path of its configuration.
    pub configuration: PathBuf,
    /// Who runs it.
    pub user: String,
    /// The machine's name, from which the minute is derived.
    pub machine: String,
    /// The most that the agent puts its start off by.
    pub splay: Duration,
    /// What the job writes.
    pub written: Vec<Written>,
    /// Directories that the job must see although services usually do not: below `/home`, `/root`, `/tmp`.
    pub seen: Vec<PathBuf>,
}

/// A file to be installed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ScheduleFile {
    /// Its name.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A path that cannot stand in these files.
#[derive(Debug, Error, Eq, PartialEq)]
#[error("{0:?} cannot be written into a timer: it is not UTF-8, or holds control characters")]
pub struct Unwritable(pub PathBuf);

impl MachineRole {
    /// The command that runs there.
    pub fn command(self) -> &'static str {
        match self {
            Self::Webserver => "agent",
            Self::BuildMachine => "ensure",
        }
    }

    /// What its units are called, without `.service` and `.timer`.
    pub fn unit(self) -> String {
        format!("certfleet-{}", self.command())
    }

    /// The name, as the command line spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Webserver => "webserver",
            Self::BuildMachine => "build-machine",
        }
    }
}

impl Schedule {
    /// The file for `/etc/cron.d` (crontab(5) with a user in the sixth place).
    pub fn cron(&self) -> Result<Vec<ScheduleFile>, Unwritable> {
        let when = match self.role {
            MachineRole::Webserver => format!("{} * * * *", self.minute()),
            MachineRole::BuildMachine => format!("{} 3,15 * * *", self.minute()),
        };
        let text = format!(
            "# {about}\n\
             # Written by `certfleet schedule`. In a crontab of your own (crontab -e) leave out the word {user}.\n\
             # Output means that something happened or failed; cron mails it. MAILTO=ops@example.com says to whom.\n\
             # cron knows nothing of your environment: use {{ file = \"PATH\" }} where the configuration says {{ env = \"NAME\" }}.\n\
             PATH={PATH}\n\
             {when}  {user}  {program} --config {configuration} {command} --quiet\n",
            about = self.about(),
            user = self.user,
            program = in_cron(&self.program)?,
            configuration = in_cron(&self.configuration)?,
            command = self.role.command(),
        );
        Ok(vec![ScheduleFile { name: "certfleet".to_owned(), text: with_checksum(text) }])
    }

    /// The service and the timer for `/etc/systemd/system`.
    pub fn systemd(&self) -> Result<Vec<ScheduleFile>, Unwritable> {
        let named = |kind: &str, text| ScheduleFile { name: format!("{}.{kind}", self.unit()), text: with_checksum(text) };
        Ok(vec![named("service", self.service()?), named("timer", self.timer())])
    }

    /// What the units are called, without `.service` and `.timer`.
    pub fn unit(&self) -> String {
        self.role.unit()
    }

    fn about(&self) -> &'static str {
        match self.role {
            // Short-lived certificates (six days) and failed renewals cannot wait for a night.
            MachineRole::Webserver => {
                "The agent of a webserver, every hour: a run that finds nothing to do is one request to the datastore, and short-lived \
                 certificates need it."
            }
            // CAs move the times at which they want certificates renewed, and ask to be asked twice a day
            // (<https://letsencrypt.org/docs/integration-guide/>).
            MachineRole::BuildMachine => "The run of the build machine, twice a day: it renews what is due.",
        }
    }

    /// Derived from the machine's name, so that the machines of a fleet do not all start at once, and each always at its own time.
    fn minute(&self) -> u8 {
        digest::digest(&digest::SHA256, self.machine.as_bytes()).as_ref()[0] % 60
    }

    fn timer(&self) -> String {
        let when = match self.role {
            MachineRole::Webserver => format!("*:{:02}", self.minute()),
            MachineRole::BuildMachine => format!("03,15:{:02}", self.minute()),
        };
        // No RandomizedDelaySec: the agent puts its start off by itself.
        format!(
            "# {about}\n\
             # Written by `certfleet schedule`. Change it with: systemctl edit {unit}.timer\n\
             [Unit]\n\
             Description=Run certfleet {command} regularly\n\
             \n\
             [Timer]\n\
             OnCalendar={when}\n\
             Persistent=true\n\
             \n\
             [Install]\n\
             WantedBy=timers.target\n",
            about = self.about(),
            unit = self.unit(),
            command = self.role.command(),
        )
    }

    fn service(&self) -> Result<String, Unwritable> {
        let unit = self.unit();
        let splay = if self.role == MachineRole::Webserver { self.splay } else { Duration::ZERO };
        let mut text = format!(
            "# Written by `certfleet schedule`. Change it with: systemctl edit {unit}.service\n\
             [Unit]\n\
             Description=certfleet {command}: TLS certificates of the fleet\n\
             Wants=network-online.target\n\
             After=network-online.target\n\
             \n\
             [Service]\n\
             Type=oneshot\n\
             User={user}\n\
             ExecStart={program} --config {configuration} {command} --quiet\n\
             # Where the configuration says {{ env = \"NAME\" }}: lines of NAME=VALUE, mode 0600.\n\
             EnvironmentFile=-/etc/certfleet/environment\n\
             TimeoutStartSec={timeout}\n\
             Nice=10\n\
             \n\
             # The system is read-only but for these. Whatever scripts of your own write, add: ReadWritePaths=/some/where\n",
            command = self.role.command(),
            user = self.user,
            program = in_unit(&self.program)?,
            configuration = in_unit(&self.configuration)?,
            timeout = (LONGEST_RUN + splay).as_secs(),
        );
        for written in &self.written {
            let minus = if written.presence == Presence::Optional { "-" } else { "" };
            let _ = writeln!(text, "# {}\nReadWritePaths={}", written.what, quoted(&written.path, minus)?);
        }
        text.push('\n');
        text.push_str(HARDENING);
        // What would be hidden must not be what the job is about.
        if !self.sees(&["/tmp", "/var/tmp"]) {
            text.push_str("PrivateTmp=yes\n");
        }
        let homes = if self.sees(&["/home", "/root", "/run/user"]) { "read-only" } else { "yes" };
        let _ = writeln!(text, "ProtectHome={homes}");
        Ok(text)
    }

    fn sees(&self, roots: &[&str]) -> bool {
        let written = self.written.iter().map(|written| &written.path);
        let mut paths = written.chain(&self.seen).chain([&self.program, &self.configuration]);
        paths.any(|path| roots.iter().any(|root| path.starts_with(root)))
    }
}

/// Whether a text ends in the checksum of what is above it: nobody changed it since it was written.
pub fn is_unchanged(text: &str) -> bool {
    let above = text.trim_end_matches('\n').rsplit_once('\n').map(|(above, _)| format!("{above}\n"));
    above.is_some_and(|above| with_checksum(above) == text)
}

fn with_checksum(mut text: String) -> String {
    let sum = hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..8]);
    let _ = writeln!(text, "{CHECKSUM}{sum}");
    text
}

fn plain(path: &Path) -> Result<&str, Unwritable> {
    path.to_str().filter(|text| !text.contains(char::is_control)).ok_or_else(|| Unwritable(path.to_owned()))
}

/// A word of a command that cron hands to a shell: quoted where it must be. cron itself reads `%` as the end of a line (crontab(5)).
fn in_cron(path: &Path) -> Result<String, Unwritable> {
    let text = plain(path)?;
    let harmless = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | '@' | ':');
    if text.chars().all(harmless) {
        return Ok(text.to_owned());
    }
    // A backslash before `%` is taken away by cron before the shell sees it, also between quotes.
    Ok(format!("'{}'", text.replace('\'', r"'\''").replace('%', r"\%")))
}

/// A word of ExecStart (systemd.service(5), "Command lines").
fn in_unit(path: &Path) -> Result<String, Unwritable> {
    Ok(quoted(path, "")?.replace('$', "$$"))
}

/// A word of a list (systemd.syntax(7), "Quoting"; systemd.unit(5), "Specifiers").
fn quoted(path: &Path, prefix: &str) -> Result<String, Unwritable> {
    let text = plain(path)?.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%");
    let word = format!("{prefix}{text}");
    Ok(if text.contains([' ', '\'', '"', '\\', ';']) { format!("\"{word}\"") } else { word })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(role: MachineRole) -> Schedule {
        Schedule {
            role,
            program: "/usr/local/bin/certfleet".into(),
            configuration: "/etc/certfleet/certfleet.toml".into(),
            user: "root".to_owned(),
            machine: "ws-1".to_owned(),
            splay: Duration::from_secs(300),
            written: vec![Written { path: "/srv/ssl".into(), what: "certificates", presence: Presence::Needed }],
            seen: Vec::new(),
        }
    }

    #[test]
    fn a_changed_file_is_told_from_an_old_one() {
        let text = schedule(MachineRole::Webserver).cron().expect("a file").remove(0).text;
        assert!(is_unchanged(&text));
        for changed in
            [text.replace("root", "www-data"), format!("{text}# mine\n"), format!("# mine\n{text}"), String::new(), "x".to_owned()]
        {
            assert!(!is_unchanged(&changed), "{changed}");
        }
    }

    #[test]
    fn machines_start_at_different_minutes_and_each_at_its_own() {
        let minute = |machine: &str| Schedule { machine: machine.to_owned(), ..schedule(MachineRole::Webserver) }.minute();
        let minutes: std::collections::BTreeSet<_> = (1..=60).map(|number| minute(&format!("ws-{number}"))).collect();
        assert!(minutes.len() > 25 && minutes.iter().all(|minute| *minute < 60), "{minutes:?}");
        assert_eq!(minute("ws-1"), minute("ws-1"));
    }

    #[test]
    fn nothing_that_the_job_works_with_is_hidden_from_it() {
        let service = |path: &str| {
            let seen = vec![PathBuf::from(path)];
            Schedule { seen, ..schedule(MachineRole::Webserver) }.service().expect("a unit")
        };
        for (path, homes, tmp) in [
            ("/srv/x", "ProtectHome=yes\n", true),
            ("/home/alice/ssl", "ProtectHome=read-only\n", true),
            ("/root/.aws", "ProtectHome=read-only\n", true),
            ("/rooted", "ProtectHome=yes\n", true),
            ("/var/tmp/x", "ProtectHome=yes\n", false),
        ] {
            let text = service(path);
            assert!(text.contains(homes) && text.contains("PrivateTmp=yes\n") == tmp, "{path}:\n{text}");
        }
    }

    #[test]
    fn odd_paths_are_quoted_and_impossible_ones_refused() {
        let odd = Path::new("/srv/50% of \"it\"/$HOME's\\x");
        assert_eq!(in_cron(odd).expect("a word"), r#"'/srv/50\% of "it"/$HOME'\''s\x'"#);
        assert_eq!(in_unit(odd).expect("a word"), r#""/srv/50%% of \"it\"/$$HOME's\\x""#);
        for path in ["/srv/a\nb", "/srv/\u{1b}[2J"] {
            assert_eq!(in_unit(Path::new(path)), Err(Unwritable(path.into())));
            assert_eq!(in_cron(Path::new(path)), Err(Unwritable(path.into())));
        }
    }
}
