//! What starts certfleet regularly, read from crontabs and units: its own, and those that people wrote.

use std::time::Duration;

use super::schedule::MachineRole;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How often a job is started: the longest time between two starts, where it can be told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Every {
    /// This long at most.
    Known(Duration),
    /// As somebody has written it down in a way that is not understood here.
    Unknown,
}

/// What starts the job of a machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Starter {
    /// The file that says so.
    pub place: String,
    /// How often.
    pub every: Every,
}

/// How often each line of a crontab (crontab(5)) starts that job, be it with the user's name in the sixth place or not.
pub fn of_crontab(text: &str, role: MachineRole) -> Vec<Every> {
    let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    lines.filter(|line| starts(line, role)).map(cron_interval).collect()
}

/// Whether a line of commands has that of the machine's job: certfleet, by whatever path, and its command after it, for more than a look.
pub fn starts(line: &str, role: MachineRole) -> bool {
    line.split([';', '&', '|']).any(|command| {
        let mut words = command.split(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '='));
        let named = |word: &str| word.rsplit('/').next() == Some("certfleet");
        let arguments: Vec<_> = words.by_ref().skip_while(|word| !named(word)).skip(1).collect();
        arguments.contains(&role.command()) && !arguments.contains(&"--dry-run")
    })
}

/// Whether cron, and what starts the scripts of a directory, take a file of this name (cron(8), run-parts(8)).
pub fn is_taken_by_cron(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Whether a service (systemd.service(5)) starts that job.
pub fn is_started_by(service: &str, role: MachineRole) -> bool {
    let commands = assignments(service).filter(|(key, _)| *key == "ExecStart");
    // An empty one takes back what was said before it.
    commands.fold(false, |found, (_, line)| !line.is_empty() && (found || starts(line, role)))
}

/// How often a timer (systemd.timer(5)) starts its service.
pub fn of_timer(timer: &str) -> Every {
    let mut every = Vec::new();
    for (key, value) in assignments(timer) {
        match key {
            // An empty one takes back what was said before it, of either kind.
            "OnCalendar" | "OnUnitActiveSec" | "OnUnitInactiveSec" | "OnBootSec" | "OnStartupSec" | "OnActiveSec" if value.is_empty() => {
                every.clear();
            }
            "OnCalendar" => every.push(calendar_interval(value)),
            "OnUnitActiveSec" | "OnUnitInactiveSec" => every.push(span(value)),
            _ => {}
        }
    }
    // Each of them starts it: the shortest counts.
    let shortest = every.iter().filter_map(|every| match every {
        Every::Known(interval) => Some(*interval),
        Every::Unknown => None,
    });
    shortest.min().map_or(Every::Unknown, Every::Known)
}

fn known(secs: u64) -> Every {
    Every::Known(Duration::from_secs(secs))
}

fn assignments(unit: &str) -> impl Iterator<Item = (&str, &str)> {
    let lines = unit.lines().map(str::trim).filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.trim(), value.trim()))
}

/// The first five words of a line, or the one that stands for them.
fn cron_interval(line: &str) -> Every {
    let fields: Vec<_> = line.split_whitespace().collect();
    match fields.as_slice() {
        ["@hourly", ..] => known(HOUR),
        ["@daily" | "@midnight", ..] => known(DAY),
        ["@weekly", ..] => known(7 * DAY),
        ["@monthly", ..] => known(31 * DAY),
        [minute, hour, "*", "*", "*", ..] => by_time(&step(minute), &step(hour)),
        [_, _, "*", "*", weekday, ..] if number(weekday).is_some() => known(7 * DAY),
        [_, _, day, "*", "*", ..] if number(day).is_some() => known(31 * DAY),
        _ => Every::Unknown,
    }
}

/// A part of a time of day.
enum Part {
    /// Every one.
    All,
    /// Every so many.
    Step(u64),
    /// One.
    One,
    /// These, in order.
    Several(Vec<u64>),
    /// What is not understood.
    Other,
}

fn by_time(minute: &Part, hour: &Part) -> Every {
    match (minute, hour) {
        (Part::All, Part::All) => known(MINUTE),
        (Part::Step(minutes), Part::All) => known(minutes * MINUTE),
        // Several minutes of an hour are an hour apart at most.
        (Part::One | Part::Several(_) | Part::Other, Part::All) => known(HOUR),
        (_, Part::Step(hours)) => known(hours * HOUR),
        (_, Part::One) => known(DAY),
        (_, Part::Several(hours)) => known(longest_gap(hours) * HOUR),
        (_, Part::Other) => Every::Unknown,
    }
}

fn step(field: &str) -> Part {
    match (field, field.split_once('/')) {
        ("*", _) => Part::All,
        (_, Some(("*" | "0" | "00", every))) => number(every).filter(|every| (1..=60).contains(every)).map_or(Part::Other, Part::Step),
        _ if number(field).is_some() => Part::One,
        _ => several(field).map_or(Part::Other, Part::Several),
    }
}

fn several(field: &str) -> Option<Vec<u64>> {
    let mut numbers = field.split(',').map(number).collect::<Option<Vec<_>>>()?;
    numbers.sort_unstable();
    Some(numbers)
}

/// Between two of these hours of the day, over midnight too.
fn longest_gap(hours: &[u64]) -> u64 {
    let over_midnight = hours.first().zip(hours.last()).map(|(first, last)| (24 + first).saturating_sub(*last));
    hours.windows(2).map(|two| two[1] - two[0]).chain(over_midnight).max().unwrap_or(24)
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The usual forms of systemd.time(7).
fn calendar_interval(value: &str) -> Every {
    match value {
        "minutely" => known(MINUTE),
        "hourly" => known(HOUR),
        "daily" => known(DAY),
        "weekly" => known(7 * DAY),
        "monthly" => known(31 * DAY),
        _ => {
            let time = value.strip_prefix("*-*-* ").unwrap_or(value);
            let mut parts = time.split(':');
            match (parts.next(), parts.next()) {
                (Some(hour), Some(minute)) if !time.contains(' ') => by_time(&step(minute), &step(hour)),
                _ => Every::Unknown,
            }
        }
    }
}

/// A time span with one unit.
fn span(value: &str) -> Every {
    let (digits, unit) = value.split_at(value.bytes().take_while(u8::is_ascii_digit).count());
    let factor = match unit.trim() {
        "" | "s" | "sec" | "second" | "seconds" => 1,
        "m" | "min" | "minute" | "minutes" => MINUTE,
        "h" | "hr" | "hour" | "hours" => HOUR,
        "d" | "day" | "days" => DAY,
        _ => return Every::Unknown,
    };
    number(digits).and_then(|count| count.checked_mul(factor)).map_or(Every::Unknown, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crontabs_are_read_as_people_write_them() {
        for (line, expected) in [
            ("17 * * * *  root  /usr/local/bin/certfleet --config /etc/certfleet/certfleet.toml agent --quiet", vec![known(HOUR)]),
            ("17 3 * * * certfleet agent", vec![known(DAY)]),
            ("*/15 * * * * certfleet agent", vec![known(15 * MINUTE)]),
            ("5,35 * * * * certfleet agent", vec![known(HOUR)]),
            ("0 */6 * * * cd /srv && ./certfleet agent", vec![known(6 * HOUR)]),
            ("0 3 * * 0 certfleet agent", vec![known(7 * DAY)]),
            ("0 3 1 * * certfleet agent", vec![known(31 * DAY)]),
            ("0 3,15 * * * certfleet agent", vec![known(12 * HOUR)]),
            ("@daily certfleet agent", vec![known(DAY)]),
            ("@reboot certfleet agent", vec![Every::Unknown]),
            ("# 17 * * * * certfleet agent", vec![]),
            ("17 * * * * certfleet ensure", vec![]),
            ("17 * * * * /usr/bin/agent --for certfleet", vec![]),
            ("17 * * * * certfleet-agent", vec![]),
            ("17 * * * * certfleet agent --dry-run", vec![]),
            ("17 * * * * certfleet agent --dry-run; certfleet agent >/var/log/c 2>&1", vec![known(HOUR)]),
            ("17 * * * * echo certfleet; agent", vec![]),
            ("MAILTO=certfleet agent@example.com", vec![]),
        ] {
            assert_eq!(of_crontab(line, MachineRole::Webserver), expected, "{line}");
        }
        assert_eq!(of_crontab("3 4 * * * u '/opt/my certfleet/certfleet' ensure", MachineRole::BuildMachine), [known(DAY)]);
    }

    #[test]
    fn timers_are_read_in_their_usual_forms() {
        for (text, expected) in [
            ("[Timer]\nOnCalendar=*:17\nPersistent=true\n", known(HOUR)),
            ("OnCalendar=03:17\n", known(DAY)),
            ("OnCalendar=03,15:17\n", known(12 * HOUR)),
            ("OnCalendar=*-*-* 22,4,8:00:00\n", known(14 * HOUR)),
            ("OnCalendar=03,x:17\n", Every::Unknown),
            ("OnCalendar = *-*-* 00/6:00:00\n", known(6 * HOUR)),
            ("OnCalendar=*:0/10\n", known(10 * MINUTE)),
            ("OnCalendar=hourly\nOnCalendar=daily\n", known(HOUR)),
            ("OnBootSec=5min\nOnUnitActiveSec=30min\n", known(30 * MINUTE)),
            ("OnCalendar=Mon *-*-* 03:00\n", Every::Unknown),
            ("OnBootSec=5min\n", Every::Unknown),
            ("OnUnitActiveSec=99999999999999999999\n", Every::Unknown),
            // As a drop-in has it.
            ("OnCalendar=*:17\n\n[Timer]\nOnCalendar=\nOnCalendar=weekly\n", known(7 * DAY)),
        ] {
            assert_eq!(of_timer(text), expected, "{text}");
        }
        let service = "[Service]\nExecStart=/usr/local/bin/certfleet --config /etc/c.toml agent --quiet\n";
        assert!(is_started_by(service, MachineRole::Webserver) && !is_started_by(service, MachineRole::BuildMachine));
        assert!(!is_started_by(&format!("{service}[Service]\nExecStart=\nExecStart=/bin/true\n"), MachineRole::Webserver));
    }

    #[test]
    fn what_certfleet_installs_is_understood() {
        use crate::domain::schedule::Schedule;
        for (role, every) in [(MachineRole::Webserver, known(HOUR)), (MachineRole::BuildMachine, known(12 * HOUR))] {
            let schedule = Schedule {
                role,
                program: "/usr/local/bin/certfleet".into(),
                configuration: "/etc/certfleet/certfleet.toml".into(),
                user: "root".to_owned(),
                machine: "ws-1".to_owned(),
                splay: Duration::ZERO,
                written: Vec::new(),
                seen: Vec::new(),
            };
            assert_eq!(of_crontab(&schedule.cron().expect("a crontab")[0].text, role), [every]);
            let units = schedule.systemd().expect("units");
            assert!(is_started_by(&units[0].text, role), "{}", units[0].text);
            assert_eq!(of_timer(&units[1].text), every);
        }
    }
}
