//! What `doctor` finds: one finding for each thing that it looked at, and whether anything is left to do.

use std::cmp::Reverse;
use std::fmt;

/// What a finding is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Part {
    /// The configuration file.
    Configuration,
    /// The datastore.
    Datastore,
    /// The fleet's identity, and what it must open.
    Identity,
    /// Where certificates come from.
    Issuers,
    /// Who answers challenges.
    Solvers,
    /// What certificates are installed into on this machine.
    Targets,
    /// What starts certfleet.
    Schedule,
    /// The files that certfleet keeps on this machine.
    Files,
}

/// How a check ended; the later, the worse.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Verdict {
    /// It is as it should be.
    Ok,
    /// It was not looked at, and the finding says why. By itself it leaves nothing to do.
    Skipped,
    /// It works, and should be changed all the same.
    Warning,
    /// It does not work.
    Failed,
}

/// One thing that is looked at. Its methods make the finding: what is wrong always comes with a remedy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Check {
    part: Part,
    name: &'static str,
    subject: String,
}

/// What a check has found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// What it is about.
    pub part: Part,
    /// The check's stable name, for machines: `exclusive-create`.
    pub check: &'static str,
    /// What was looked at: an issuer, a site, a file; empty where there is only one.
    pub subject: String,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found, or why nothing was looked at.
    pub what: String,
    /// What to do next; there is one exactly where something is wrong.
    pub remedy: Option<String>,
}

/// Everything that was found, by part, the worst of each part first.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Checkup {
    findings: Vec<Finding>,
}

impl Part {
    /// The name, for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Datastore => "datastore",
            Self::Identity => "identity",
            Self::Issuers => "issuers",
            Self::Solvers => "solvers",
            Self::Targets => "targets",
            Self::Schedule => "schedule",
            Self::Files => "files",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Verdict {
    /// The name, for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
            Self::Failed => "failed",
        }
    }

    /// Whether something is left to do.
    pub fn needs_attention(self) -> bool {
        self >= Self::Warning
    }
}

impl Check {
    /// A check of a part that has only one such thing.
    pub fn new(part: Part, name: &'static str) -> Self {
        Self { part, name, subject: String::new() }
    }

    /// The same check, of one of several things.
    pub fn of(part: Part, name: &'static str, subject: impl fmt::Display) -> Self {
        Self { part, name, subject: subject.to_string() }
    }

    /// It is as it should be.
    pub fn ok(self, what: impl Into<String>) -> Finding {
        self.finding(Verdict::Ok, what.into(), None)
    }

    /// It was not looked at, and why.
    pub fn skipped(self, why: impl Into<String>) -> Finding {
        self.finding(Verdict::Skipped, why.into(), None)
    }

    /// It works, and should be changed all the same.
    pub fn warning(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Verdict::Warning, what.into(), Some(remedy.into()))
    }

    /// It does not work.
    pub fn failed(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        self.finding(Verdict::Failed, what.into(), Some(remedy.into()))
    }

    fn finding(self, verdict: Verdict, what: String, remedy: Option<String>) -> Finding {
        Finding { part: self.part, check: self.name, subject: self.subject, verdict, what, remedy }
    }
}

impl Checkup {
    /// Puts findings in order. Those of one part that are equally bad keep the order they were found in.
    pub fn new(mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| (finding.part, Reverse(finding.verdict)));
        Self { findings }
    }

    /// All findings.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// Those that leave something to do.
    pub fn open(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.verdict.needs_attention())
    }

    /// How many ended so.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.verdict == verdict).count()
    }

    /// Whether something is left to do.
    pub fn needs_attention(&self) -> bool {
        self.open().next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_stay_together_and_the_worst_of_each_comes_first() {
        let checkup = Checkup::new(vec![
            Check::new(Part::Files, "modes").warning("open", "chmod 600 key"),
            Check::new(Part::Datastore, "reachable").ok("listed"),
            Check::of(Part::Datastore, "writable", "a").failed("denied", "allow it"),
            Check::of(Part::Datastore, "writable", "b").failed("denied", "allow it"),
            Check::new(Part::Datastore, "clock").skipped("unreachable"),
        ]);
        let order: Vec<_> =
            checkup.findings().iter().map(|finding| (finding.part.name(), finding.check, finding.subject.as_str())).collect();
        assert_eq!(
            order,
            [
                ("datastore", "writable", "a"),
                ("datastore", "writable", "b"),
                ("datastore", "clock", ""),
                ("datastore", "reachable", ""),
                ("files", "modes", "")
            ]
        );
        assert_eq!((checkup.open().count(), checkup.count(Verdict::Failed), checkup.needs_attention()), (3, 2, true));
        assert!(checkup.open().all(|finding| finding.remedy.is_some()));
    }

    #[test]
    fn what_was_skipped_leaves_nothing_to_do() {
        let checkup = Checkup::new(vec![Check::new(Part::Targets, "served").skipped("no verify"), Check::new(Part::Files, "modes").ok("")]);
        assert!(!checkup.needs_attention() && !Checkup::default().needs_attention());
    }
}
