//! What needs a person, told by `status`: each reason with its object, and what to do next.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::object_key::Generation;
use super::policy::Due;
use super::site::SiteName;
use super::time::{in_words, rfc3339};

/// One thing that needs a person.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Attention {
    /// The site that it is about.
    pub site: Option<SiteName>,
    /// The node that it is about.
    pub node: Option<String>,
    /// What it is.
    pub concern: Concern,
}

/// Why something needs a person.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Concern {
    /// The site has no bundle.
    NoBundle,
    /// The highest bundle cannot serve, and why.
    Unusable(String),
    /// Half of the time that is meant for the renewal has passed without one.
    Expiring {
        /// What is left.
        left: Duration,
        /// With this much left it was due.
        threshold: Duration,
    },
    /// It is due, and only a person can supply the next one.
    AskPerson(Due),
    /// It has been due for longer than any node should take.
    Overdue {
        /// Since when.
        since: DateTime<Utc>,
    },
    /// The last try to renew it failed.
    RenewalFailed {
        /// The node that tried.
        by: String,
        /// What it was told.
        reason: String,
        /// When it is tried again.
        retry_at: DateTime<Utc>,
    },
    /// The lease on the next generation cannot be read, and why.
    LeaseUnreadable(String),
    /// Something went wrong on a node.
    NodeProblem {
        /// What.
        what: String,
        /// What the node says can be done about it.
        hint: Option<String>,
        /// Since when.
        since: DateTime<Utc>,
    },
    /// A server presents another certificate than the one that is installed beside it, or none.
    NotServed {
        /// The kind of server, and where it was asked: "nginx at 127.0.0.1:443".
        server: String,
        /// SHA-256 of what it presents; `None` where it presents nothing.
        presents: Option<String>,
    },
    /// A node has the right generation with another certificate in it than the datastore has.
    Differs(Generation),
    /// A node did not follow.
    Lagging {
        /// What it has.
        has: Option<Generation>,
        /// What it should have.
        wanted: Generation,
    },
    /// A node has a generation that the datastore has lost.
    Ahead(Generation),
    /// The site makes do with an issuer that others were preferred to.
    Stopgap {
        /// Who made it.
        issuer: String,
        /// Why the preferred ones did not deliver.
        reason: String,
    },
    /// Nodes have run since the site was published, and none of them installs it.
    Nowhere,
    /// A node has not reported for longer than it should.
    Silent {
        /// Its last word.
        since: DateTime<Utc>,
    },
    /// A node's clock is wrong.
    ClockWrong {
        /// Its clock minus the store's, in seconds.
        offset_secs: i64,
    },
    /// A node's report cannot be read, and why.
    ReportUnreadable(String),
}

impl Concern {
    /// How bad it is, 0 the worst; and its stable name, for machines.
    fn rank_and_name(&self) -> (u8, &'static str) {
        match self {
            Self::NoBundle => (0, "no-bundle"),
            Self::Unusable(_) => (1, "unusable"),
            Self::Expiring { .. } => (2, "expiring"),
            Self::AskPerson(_) => (3, "ask-person"),
            Self::Overdue { .. } => (4, "overdue"),
            Self::RenewalFailed { .. } => (5, "renewal-failed"),
            Self::LeaseUnreadable(_) => (6, "lease-unreadable"),
            Self::NodeProblem { .. } => (7, "node-problem"),
            Self::NotServed { .. } => (8, "not-served"),
            Self::Differs(_) => (9, "differs"),
            Self::Lagging { .. } => (10, "lagging"),
            Self::Ahead(_) => (11, "ahead"),
            Self::Stopgap { .. } => (12, "stopgap"),
            Self::Nowhere => (13, "nowhere"),
            Self::Silent { .. } => (14, "silent"),
            Self::ClockWrong { .. } => (15, "clock-wrong"),
            Self::ReportUnreadable(_) => (16, "report-unreadable"),
        }
    }

    /// How bad it is: the less, the worse.
    pub fn rank(&self) -> u8 {
        self.rank_and_name().0
    }

    /// Its stable name, for machines.
    pub fn name(&self) -> &'static str {
        self.rank_and_name().1
    }
}

impl Attention {
    /// The next command, or whatever else a person does next.
    pub fn hint(&self) -> String {
        let site = self.site.as_ref().map(SiteName::in_shell).unwrap_or_default();
        let node = self.node.as_deref().unwrap_or_default();
        match &self.concern {
            Concern::NoBundle | Concern::Unusable(_) => format!("certfleet ensure {site}"),
            Concern::Expiring { .. } | Concern::Overdue { .. } => {
                format!("see that an agent runs on a node that may renew; at once: certfleet ensure {site}")
            }
            Concern::AskPerson(_) => format!("certfleet import {site} --fullchain FILE --privkey FILE"),
            Concern::RenewalFailed { .. } => format!("once the cause is gone, without waiting: certfleet ensure {site} --force"),
            Concern::LeaseUnreadable(_) => "update certfleet on this machine, if it was written by a newer one".to_owned(),
            Concern::NodeProblem { hint: Some(hint), .. } => format!("on {node}: {hint}"),
            Concern::NodeProblem { .. } | Concern::NotServed { .. } | Concern::Differs(_) | Concern::Lagging { .. } => {
                format!("on {node}: certfleet agent")
            }
            Concern::Ahead(_) => format!("on {node}: certfleet agent, which gives the datastore back what it has lost"),
            Concern::Stopgap { .. } => format!("once the cause is gone: certfleet ensure {site}"),
            Concern::Nowhere => "name it in a [[target]] of the nodes that should serve it, or take it out of the configuration".to_owned(),
            Concern::Silent { .. } => {
                format!("see whether {node} is up and its timer runs; if it is gone for good, certfleet prune forgets it in time")
            }
            Concern::ReportUnreadable(_) => {
                format!("on {node}: certfleet agent, which writes it anew; update certfleet here if that one is newer")
            }
            Concern::ClockWrong { .. } => format!("on {node}: set the clock, and see that a time service runs"),
        }
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBundle => f.write_str("there is no certificate in the datastore"),
            Self::Unusable(reason) => write!(f, "its certificate cannot serve: {reason}"),
            Self::Expiring { left, threshold } => {
                write!(f, "{} left, and it should have been renewed with {} left", in_words(*left), in_words(*threshold))
            }
            Self::AskPerson(due) => write!(f, "a person must supply the next certificate: {due}"),
            Self::Overdue { since } => write!(f, "due since {}, and nobody has renewed it", rfc3339(since)),
            Self::RenewalFailed { by, reason, retry_at } => {
                write!(f, "{by} could not renew it: {reason}; tried again from {} on", rfc3339(retry_at))
            }
            Self::LeaseUnreadable(reason) => write!(f, "the lease on its next generation cannot be read: {reason}"),
            Self::NodeProblem { what, since, .. } => write!(f, "{what} (since {})", rfc3339(since)),
            Self::NotServed { server, presents: Some(fingerprint) } => {
                write!(f, "{server} presents another certificate than the one installed, SHA-256 {fingerprint}")
            }
            Self::NotServed { server, presents: None } => write!(f, "{server} presents no certificate"),
            Self::Differs(generation) => {
                write!(f, "its certificate of generation {generation} is not the one that the datastore has under that number")
            }
            Self::Lagging { has: Some(has), wanted } => write!(f, "it has generation {has}, and generation {wanted} is published"),
            Self::Lagging { has: None, wanted } => write!(f, "it has nothing installed, and generation {wanted} is published"),
            Self::Ahead(has) => write!(f, "it has generation {has}, which the datastore has lost"),
            Self::Stopgap { issuer, reason } => write!(f, "it makes do with a certificate of {issuer}: {reason}"),
            Self::Nowhere => f.write_str("no node installs it"),
            Self::Silent { since } => write!(f, "silent since {}", rfc3339(since)),
            Self::ReportUnreadable(reason) => write!(f, "its report cannot be used: {reason}"),
            Self::ClockWrong { offset_secs } => {
                let off = Duration::from_secs(offset_secs.unsigned_abs());
                write!(f, "its clock is {} {}", in_words(off), if *offset_secs < 0 { "behind" } else { "ahead" })
            }
        }
    }
}
