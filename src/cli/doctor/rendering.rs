//! The answer of `doctor`, for people and for machines (docs/json.md).

use std::fmt::Write as _;

use serde::Serialize;

use crate::cli::console::{Console, Tone};
use crate::cli::rendering;
use crate::domain::checkup::{Checkup, Finding, Verdict};
use crate::domain::schedule::MachineRole;
use crate::system::text::printable;

/// The longest name of a verdict.
const VERDICT_CHARS: usize = 7;

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    role: &'static str,
    verdict: &'static str,
    findings: Vec<FindingAnswer<'a>>,
}

#[derive(Serialize)]
struct FindingAnswer<'a> {
    part: &'static str,
    check: &'static str,
    subject: Option<&'a str>,
    verdict: &'static str,
    what: &'a str,
    remedy: Option<&'a str>,
}

/// The answer as one JSON document.
pub(super) fn document(checkup: &Checkup, role: MachineRole) -> String {
    let worst = checkup.findings().iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Ok);
    let findings = checkup.findings().iter().map(|finding| FindingAnswer {
        part: finding.part.name(),
        check: finding.check,
        subject: Some(finding.subject.as_str()).filter(|subject| !subject.is_empty()),
        verdict: finding.verdict.name(),
        what: &finding.what,
        remedy: finding.remedy.as_deref(),
    });
    rendering::document(&Answer { version: 1, role: role.name(), verdict: worst.name(), findings: findings.collect() })
}

/// Everything that was found.
pub(super) fn people(checkup: &Checkup, console: &Console) -> String {
    told(checkup.findings().iter(), checkup, console)
}

/// What leaves something to do.
pub(super) fn open(checkup: &Checkup, console: &Console) -> String {
    told(checkup.open(), checkup, console)
}

fn told<'a>(findings: impl Iterator<Item = &'a Finding>, checkup: &Checkup, console: &Console) -> String {
    let mut text = String::new();
    let mut part = None;
    for finding in findings {
        if part.replace(finding.part) != Some(finding.part) {
            let _ = writeln!(text, "{}", console.paint_answer(finding.part.name(), Tone::Heading));
        }
        let verdict = console.paint_answer(&format!("{:<VERDICT_CHARS$}", finding.verdict.name()), tone(finding.verdict));
        let subject = if finding.subject.is_empty() { String::new() } else { format!(" {}", printable(&finding.subject)) };
        let _ = writeln!(text, "  {verdict}  {}{subject}: {}", finding.check, printable(&finding.what));
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "  {:VERDICT_CHARS$}  hint: {}", "", printable(remedy));
        }
    }
    let _ = writeln!(text, "{}", summary(checkup, console));
    text
}

fn tone(verdict: Verdict) -> Tone {
    match verdict {
        Verdict::Ok => Tone::Good,
        Verdict::Skipped => Tone::Plain,
        Verdict::Warning => Tone::Odd,
        Verdict::Failed => Tone::Bad,
    }
}

/// The last line: what scrolled away is not overlooked.
fn summary(checkup: &Checkup, console: &Console) -> String {
    let [ok, skipped, warnings, failed] =
        [Verdict::Ok, Verdict::Skipped, Verdict::Warning, Verdict::Failed].map(|verdict| checkup.count(verdict));
    let parts = |verdict| {
        let mut parts: Vec<_> = checkup.findings().iter().filter(|found| found.verdict == verdict).map(|found| found.part.name()).collect();
        parts.dedup();
        if parts.is_empty() { String::new() } else { format!(" ({})", parts.join(", ")) }
    };
    let counts = format!(
        "{failed} failed{}, {warnings} warning{}{}, {ok} ok, {skipped} skipped",
        parts(Verdict::Failed),
        if warnings == 1 { "" } else { "s" },
        parts(Verdict::Warning)
    );
    let (word, tone) = match (failed, warnings) {
        (0, 0) => ("nothing to do", Tone::Good),
        (0, _) => ("to do", Tone::Odd),
        _ => ("to do", Tone::Bad),
    };
    format!("{}: {counts}", console.paint_answer(word, tone))
}
