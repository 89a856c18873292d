//! Whether challenges could be answered: ports, directories, programs, and where names lead.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use tokio::runtime::Handle;

use super::blocking;
use super::store::plural;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::identifier::Identifier;
use crate::solver::look::{self, LookError, Place, Sight};
use crate::solver::redirect::Redirect;
use crate::solver::standalone::Standalone;
use crate::solver::tls_alpn::TlsAlpn;
use crate::solver::webroot::Webroot;
use crate::solver::{Challenge, Presented, Solver, SolverError};
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

/// What to do where servers do not answer as their configuration should have them.
const PASTE: &str = "paste what `certfleet snippet` prints into the configuration of every server that the name leads to; for \
                     mode = \"redirect\", let everybody read challenges/ in the bucket";

/// What servers should answer with.
struct Wanted<'a> {
    token: &'a str,
    body: &'a str,
    remedy: &'static str,
}

/// How long all of it may take for so many names.
pub fn deadline(names: usize) -> Duration {
    let rounds = u32::try_from(names.div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
    super::DEADLINE + (LOOK + RESOLVE).saturating_mul(rounds)
}

/// Whether the solver's own server could listen for http-01.
pub async fn standalone(solver: &Standalone, name: &str) -> Finding {
    port(name, solver.port(), solver.try_listening().await).await
}

/// Whether the solver's own server could listen for tls-alpn-01.
pub async fn tls_alpn(solver: &TlsAlpn, name: &str) -> Finding {
    port(name, solver.port(), solver.try_listening().await).await
}

async fn port(name: &str, port: u16, tried: Result<(), SolverError>) -> Finding {
    let check = Check::of(Part::Solvers, "port", name);
    let Err(error) = tried else {
        return check.ok(format!("port {port} is free; that it can be reached from outside, only a CA can tell"));
    };
    match blocking(move || listener::of_port(port)).await {
        // Another run is answering a challenge at this moment.
        Some(holder) if holder.starts_with("certfleet ") => check.ok(format!("port {port} is held by {holder}")),
        _ => check.failed(in_full(&error), error.hint),
    }
}

/// An answer that is put where the solver puts its own, to see whether the servers of each name answer with it.
pub struct Trial<'a> {
    solver: Arc<dyn Solver>,
    what: &'static str,
    remedy: &'static str,
    name: &'a str,
    identifiers: &'a [Identifier],
    challenge: Challenge,
    /// What became of the writing; empty until it has come to its end.
    written: OnceLock<bool>,
}

impl<'a> Trial<'a> {
    /// A file in a document root. `None` where there is nothing to ask for.
    pub fn of_webroot(solver: Webroot, name: &'a str, identifiers: &'a [Identifier]) -> Option<Self> {
        let remedy = "set path to the directory that the server of this name serves as / on port 80, on every machine that the name leads to; \
                      or use mode = \"stateless\", or dns-01";
        Self::new(Arc::new(solver), "webroot", remedy, name, identifiers)
    }

    /// An object in the datastore. `None` where there is nothing to ask for.
    pub fn of_redirect(solver: Redirect, name: &'a str, identifiers: &'a [Identifier]) -> Option<Self> {
        Self::new(Arc::new(solver), "redirect", PASTE, name, identifiers)
    }

    fn new(
        solver: Arc<dyn Solver>,
        what: &'static str,
        remedy: &'static str,
        name: &'a str,
        identifiers: &'a [Identifier],
    ) -> Option<Self> {
        let token = format!("certfleet-doctor-{}", random::name());
        let key_authorization = format!("{token}.{}", random::name());
        let challenge = Challenge {
            identifier: identifiers.first()?.clone(),
            key_authorization,
            token,
            dns_value: String::new(),
            remaining: 0,
            all: identifiers.to_vec(),
        };
        Some(Self { solver, what, remedy, name, identifiers, challenge, written: OnceLock::new() })
    }

    /// Puts the answer there.
    pub async fn write(&self) -> Vec<Finding> {
        let (solver, challenge) = (Arc::clone(&self.solver), self.challenge.clone());
        let runtime = Handle::current();
        let presented = blocking(move || runtime.block_on(async { solver.present(&challenge).await })).await;
        let _ = self.written.set(presented.is_ok());
        let check = Check::of(Part::Solvers, self.what, self.name);
        vec![presented.map_or_else(|error| refused(check.clone(), &error), |_| check.clone().ok("an answer can be written"))]
    }

    /// Whether the answer is there.
    pub fn is_written(&self) -> bool {
        self.written.get() == Some(&true)
    }

    /// Whether the servers of the names answer with it.
    pub async fn served(&self, place: Place) -> Vec<Finding> {
        let (token, body) = (&*self.challenge.token, &*self.challenge.key_authorization);
        served(place, self.name, self.identifiers, &Wanted { token, body, remedy: self.remedy }).await
    }

    /// Removes it: to be called after the others, and outside of their deadlines.
    pub async fn clean_up(&self) -> Vec<Finding> {
        let (solver, challenge) = (Arc::clone(&self.solver), self.challenge.clone());
        let runtime = Handle::current();
        let removed = blocking(move || runtime.block_on(async { solver.clean_up(&challenge, &Presented::default()).await })).await;
        match removed {
            // Why nothing can be written there is a finding already.
            Err(error) if self.written.get() != Some(&false) => vec![refused(Check::of(Part::Solvers, "clean-up", self.name), &error)],
            _ => Vec::new(),
        }
    }
}

/// Whether every server of the names answers by itself, with the thumbprint of the fleet's account; `None` where it has none yet.
pub async fn stateless(place: Place, name: &str, identifiers: &[Identifier], thumbprint: Option<&str>) -> Vec<Finding> {
    let Some(thumbprint) = thumbprint else {
        let check = Check::of(Part::Solvers, "served", name);
        let remedy = "certfleet snippet SERVER SITE --open-account, and paste what it prints into the configuration of every server";
        return vec![check.failed("the fleet has no account yet, whose thumbprint the servers are to answer with", remedy)];
    };
    let token = format!("certfleet-doctor-{}", random::name());
    let body = format!("{token}.{thumbprint}");
    served(place, name, identifiers, &Wanted { token: &token, body: &body, remedy: PASTE }).await
}

/// Whether the names lead anywhere.
pub async fn names(name: &str, identifiers: &[Identifier]) -> Vec<Finding> {
    let looked = stream::iter(identifiers).map(|identifier| async move { (identifier, resolve(identifier).await) });
    let looked: Vec<_> = looked.buffered(AT_ONCE).collect().await;
    let lost = looked.iter().filter_map(|(identifier, found)| found.as_ref().err().map(|error| nowhere(name, identifier, error)));
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

/// The same, of a solver at a DNS provider.
pub fn complete_at(name: &str, provider: &str) -> Finding {
    let told = format!("complete for the DNS provider {provider}; whether it may change the zone, only an order shows");
    Check::of(Part::Solvers, "settings", name).ok(told)
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

async fn served(place: Place, name: &str, identifiers: &[Identifier], wanted: &Wanted<'_>) -> Vec<Finding> {
    let looked = stream::iter(identifiers).map(|identifier| served_for(place, name, identifier, wanted));
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
async fn served_for(place: Place, name: &str, identifier: &Identifier, wanted: &Wanted<'_>) -> (usize, Vec<Finding>) {
    // That a name does not resolve is a finding already.
    let Ok(sights) = look::http_01(place, identifier, wanted.token, LOOK).await else { return (0, Vec::new()) };
    let count = sights.len();
    let judged = sights.into_iter().filter_map(|sight| {
        let check = Check::of(Part::Solvers, "served", format!("{name}: {identifier}"));
        judge(check, sight, wanted)
    });
    let findings: Vec<_> = judged.collect();
    (count - findings.len(), findings)
}

/// `None` where the answer is the one that is wanted.
fn judge(check: Check, sight: Sight, wanted: &Wanted<'_>) -> Option<Finding> {
    Some(match sight.seen {
        Ok(seen) if seen.is(wanted.body) => return None,
        Ok(seen) => {
            let expected = format!("{} answers with {}, and not with {:?}", sight.address, seen.described(), wanted.body);
            check.failed(expected, wanted.remedy)
        }
        Err(LookError::Connect { source, .. }) if no_way(source.kind()) => {
            check.skipped(format!("there is no way from this machine to {}: {source}", sight.address))
        }
        Err(error @ LookError::Redirect { .. }) => check.failed(format!("{}: {}", sight.address, in_full(&error)), wanted.remedy),
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
async fn resolve(identifier: &Identifier) -> Result<Vec<SocketAddr>, LookError> {
    match identifier {
        Identifier::Ip(address) => Ok(vec![SocketAddr::new(*address, HTTP_PORT)]),
        Identifier::Dns(name) | Identifier::Wildcard(name) => look::resolve(name, HTTP_PORT, RESOLVE).await,
    }
}

fn nowhere(name: &str, identifier: &Identifier, error: &LookError) -> Finding {
    let remedy = format!("make an A or AAAA record for {identifier} that leads to the machine that answers, or use dns-01");
    Check::of(Part::Solvers, "names", format!("{name}: {identifier}")).failed(in_full(error), remedy)
}

fn refused(check: Check, error: &SolverError) -> Finding {
    check.failed(in_full(error), error.hint.clone())
}
