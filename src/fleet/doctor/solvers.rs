//! Whether challenges could be answered: ports, directories, programs, and where names lead.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::runtime::Handle;

use super::blocking;
use super::store::plural;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::identifier::Identifier;
use crate::solver::look::{self, LookError, Seen};
use crate::solver::standalone::Standalone;
use crate::solver::webroot::Webroot;
use crate::solver::{Challenge, Presented, Solver as _, SolverError};
use crate::system::error_chain::in_full;
use crate::system::{listener, program, random};

/// The port that CAs ask for http-01 answers at (RFC 8555 section 8.3).
const HTTP_PORT: u16 = 80;

/// A server nearby answers in milliseconds.
const LOOK: Duration = Duration::from_secs(10);

/// A resolver that has not answered by then will not.
const RESOLVE: Duration = Duration::from_secs(15);

/// Names looked at at the same time.
const AT_ONCE: usize = 16;

/// How long all of it may take for so many names.
pub fn deadline(names: usize) -> Duration {
    let rounds = u32::try_from(names.div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    super::DEADLINE + (LOOK + RESOLVE).saturating_mul(rounds)
}

/// Whether the solver's own server could listen.
pub async fn standalone(solver: &Standalone, name: &str) -> Finding {
    let check = Check::of(Part::Solvers, "port", name);
    let port = solver.port();
    let Err(error) = solver.try_listening().await else {
        return check.ok(format!("port {port} is free; that it can be reached from outside, only a CA can tell"));
    };
    let what = in_full(&error);
    match blocking(move || listener::of_port(port)).await {
        // Another run is answering a challenge at this moment.
        Some(holder) if holder.starts_with("certfleet ") => check.ok(format!("port {port} is held by {holder}")),
        Some(holder) => check.failed(format!("{what}: {holder} listens there"), error.hint),
        None => check.failed(what, error.hint),
    }
}

/// A file that is written into a document root to see whether the server of each name answers with it. Where it is asked, only the
/// system's resolver says.
pub struct Trial<'a> {
    solver: Arc<Webroot>,
    name: &'a str,
    identifiers: &'a [Identifier],
    challenge: Challenge,
    /// What became of the writing; empty until it has come to its end.
    written: OnceLock<bool>,
}

impl<'a> Trial<'a> {
    /// `None` where there is nothing to ask for.
    pub fn new(solver: Webroot, name: &'a str, identifiers: &'a [Identifier]) -> Option<Self> {
        let token = format!("certfleet-doctor-{}", random::name());
        let challenge = Challenge {
            identifier: identifiers.first()?.clone(),
            key_authorization: format!("{token}.{}", random::name()),
            token,
            dns_value: String::new(),
            remaining: 0,
            all: identifiers.to_vec(),
        };
        Some(Self { solver: Arc::new(solver), name, identifiers, challenge, written: OnceLock::new() })
    }

    /// Writes the file.
    pub async fn write(&self) -> Vec<Finding> {
        let (solver, challenge) = (Arc::clone(&self.solver), self.challenge.clone());
        let runtime = Handle::current();
        let presented = blocking(move || runtime.block_on(solver.present(&challenge))).await;
        let _ = self.written.set(presented.is_ok());
        let check = Check::of(Part::Solvers, "webroot", self.name);
        vec![presented.map_or_else(|error| refused(check.clone(), &error), |_| check.clone().ok("an answer can be written"))]
    }

    /// Whether the file is there.
    pub fn is_written(&self) -> bool {
        self.written.get() == Some(&true)
    }

    /// Whether the servers of the names answer with it.
    pub async fn served(&self) -> Vec<Finding> {
        served(self.name, self.identifiers, &self.challenge.token, &self.challenge.key_authorization).await
    }

    /// Removes the file: to be called after the others, and outside of their deadlines.
    pub async fn clean_up(&self) -> Vec<Finding> {
        let (solver, challenge) = (Arc::clone(&self.solver), self.challenge.clone());
        let runtime = Handle::current();
        let removed = blocking(move || runtime.block_on(solver.clean_up(&challenge, &Presented::default()))).await;
        match removed {
            // Why nothing can be written there is a finding already.
            Err(error) if self.written.get() != Some(&false) => vec![refused(Check::of(Part::Solvers, "clean-up", self.name), &error)],
            _ => Vec::new(),
        }
    }
}

/// Whether the names lead anywhere.
pub async fn names(name: &str, identifiers: &[Identifier]) -> Vec<Finding> {
    let looked = stream::iter(identifiers).map(|identifier| async move { (identifier, resolve(identifier).await) });
    let looked: Vec<_> = looked.buffered(AT_ONCE).collect().await;
    let lost = looked.iter().filter_map(|(identifier, found)| found.as_ref().err().map(|why| nowhere(name, identifier, why)));
    let mut findings: Vec<_> = lost.collect();
    let good = looked.len() - findings.len();
    if good > 0 {
        findings.push(Check::of(Part::Solvers, "names", name).ok(format!("{good} name{} resolve here", plural(good))));
    }
    findings
}

/// A solver whose settings are complete, and of which nothing more can be tried without an order.
pub fn complete(name: &str) -> Finding {
    Check::of(Part::Solvers, "settings", name).ok("complete; whether it may change what it must, only an order shows")
}

/// A solver that the configuration describes wrongly, or of which a secret is missing.
pub fn unusable(name: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Check::of(Part::Solvers, "settings", name).failed(what, remedy)
}

/// Whether a program of the user's own is there.
pub fn hook(name: &str, key: &str, argv: &[String]) -> Finding {
    let check = Check::of(Part::Solvers, "program", name);
    let wanted = argv.first().map_or("", String::as_str);
    match program::find(wanted) {
        Some(path) => check.ok(format!("{} can be run", path.display())),
        None => check.failed(
            format!("{key}: there is no program {wanted} that can be run"),
            format!("install it, make it executable (chmod +x), or name its whole path in {key}"),
        ),
    }
}

async fn served(name: &str, identifiers: &[Identifier], token: &str, body: &str) -> Vec<Finding> {
    let looked = stream::iter(identifiers).map(|identifier| served_for(name, identifier, token, body));
    let looked: Vec<_> = looked.buffered(AT_ONCE).collect().await;
    let (good, mut findings) = looked.into_iter().fold((0, Vec::new()), |(good, mut findings), (seen, found)| {
        findings.extend(found);
        (good + seen, findings)
    });
    if good > 0 {
        let check = Check::of(Part::Solvers, "served", name);
        findings.push(check.ok(format!("the answer came back from {good} address{}", if good == 1 { "" } else { "es" })));
    }
    findings
}

/// At how many of its addresses the answer was seen, and what was found at the others.
async fn served_for(name: &str, identifier: &Identifier, token: &str, body: &str) -> (usize, Vec<Finding>) {
    // That a name does not resolve is a finding already.
    let Ok(addresses) = resolve(identifier).await else { return (0, Vec::new()) };
    let host = match identifier {
        Identifier::Ip(IpAddr::V6(address)) => format!("[{address}]"),
        _ => identifier.to_string(),
    };
    let looks = addresses.iter().map(|address| look::http_01(SocketAddr::new(*address, HTTP_PORT), &host, token, LOOK));
    let mut good = 0;
    let mut findings = Vec::new();
    for (address, seen) in addresses.iter().zip(futures_util::future::join_all(looks).await) {
        let check = Check::of(Part::Solvers, "served", format!("{name}: {identifier}"));
        match judge(check, *address, seen, body) {
            None => good += 1,
            Some(finding) => findings.push(finding),
        }
    }
    (good, findings)
}

/// `None` where the answer is the one that was written.
fn judge(check: Check, address: IpAddr, seen: Result<Seen, LookError>, body: &str) -> Option<Finding> {
    let elsewhere = "set path to the directory that the server of this name serves as / on port 80, on every machine that the name leads to; \
                     or use dns-01";
    Some(match seen {
        Ok(Seen::Answer(found)) if found == body => return None,
        Ok(Seen::Answer(_)) => check.failed(format!("{address} answers with something else than the file that was written"), elsewhere),
        Ok(Seen::Status(status)) => check.failed(format!("{address} answers with status {status} in place of the file"), elsewhere),
        Ok(Seen::Redirect(to)) => check.skipped(format!("{address} redirects to {to}; a CA follows there, this check does not")),
        Err(LookError::Connect { source, .. }) if no_way(source.kind()) => {
            check.skipped(format!("there is no way from this machine to {address}: {source}"))
        }
        Err(error) => {
            let remedy = "let the web server listen on port 80 of every address of the name, or take that address out of the DNS; behind a \
                          firewall use dns-01";
            check.failed(in_full(&error), remedy)
        }
    })
}

/// A machine without IPv6 cannot look at an AAAA record.
fn no_way(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NetworkUnreachable | ErrorKind::AddrNotAvailable)
}

/// The addresses of a name, as the system's resolver has them.
async fn resolve(identifier: &Identifier) -> Result<Vec<IpAddr>, String> {
    let name = match identifier {
        Identifier::Ip(address) => return Ok(vec![*address]),
        Identifier::Dns(name) | Identifier::Wildcard(name) => name.clone(),
    };
    let lookup = tokio::time::timeout(RESOLVE, tokio::net::lookup_host((name, HTTP_PORT))).await;
    let found = lookup.map_err(|_| "the resolver does not answer".to_owned())?.map_err(|error| error.to_string())?;
    let mut addresses: Vec<_> = found.map(|address| address.ip()).collect();
    addresses.sort();
    addresses.dedup();
    if addresses.is_empty() { Err("it has no address".to_owned()) } else { Ok(addresses) }
}

fn nowhere(name: &str, identifier: &Identifier, why: &str) -> Finding {
    let remedy = format!("make an A or AAAA record for {identifier} that leads to the machine that answers, or use dns-01");
    Check::of(Part::Solvers, "names", format!("{name}: {identifier}")).failed(format!("it cannot be resolved here: {why}"), remedy)
}

fn refused(check: Check, error: &SolverError) -> Finding {
    check.failed(in_full(error), error.hint.clone())
}
