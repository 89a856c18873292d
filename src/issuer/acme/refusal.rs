//! What a CA answers when it does not do what it was asked, in words that help.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::time::Duration;

use http::StatusCode;
use instant_acme::{Error, Problem};
use serde::Deserialize;
use thiserror::Error;

use crate::issuer::IssueError;
use crate::system::error_chain::in_full;
use crate::system::text::printable;

/// What every ACME error type begins with (RFC 8555 section 6.7).
const TYPE_PREFIX: &str = "urn:ietf:params:acme:error:";

/// How much of a CA's text is passed on, in characters.
const LONGEST_TEXT_CHARS: usize = 1000;

/// How many problems of single identifiers are told: whoever reads them starts with the first.
const MOST_SUBPROBLEMS: usize = 10;

/// What was being done when the CA refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    Account,
    Order,
    Authorization,
    Validation,
    Finalize,
    Download,
    Directory,
    /// Asking when a certificate should be renewed.
    RenewalInfo,
    Lookup,
    Update,
    Rollover,
    Deactivate,
    Revoke,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "open the account",
            Self::Order => "place the order",
            Self::Authorization => "learn what is to be proven",
            Self::Validation => "have the identifiers validated",
            Self::Finalize => "finalize the order",
            Self::Download => "fetch the certificate",
            Self::Directory => "fetch the directory",
            Self::RenewalInfo => "ask when to renew",
            Self::Lookup => "look the account up",
            Self::Update => "change the account",
            Self::Rollover => "change the account's key",
            Self::Deactivate => "deactivate the account",
            Self::Revoke => "revoke the certificate",
        })
    }
}

/// A request that brought no answer, or an answer that is an error.
#[derive(Debug, Error)]
pub(super) enum HttpFailure {
    /// An error document, or an error without one.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// No connection, or one that broke.
    #[error("{host} did not answer")]
    Unreachable {
        host: String,
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
    /// No answer in time.
    #[error("{host} did not answer within {}", humantime::format_duration(*.after))]
    TooSlow { host: String, after: Duration },
}

/// An answer with an error status. What it shows is bounded, and fit for terminals and logs, whatever the CA has sent.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    document: Document,
    pub(super) retry_after: Option<Duration>,
}

/// A problem document (RFC 9457), with the members that ACME uses.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default, rename = "type")]
    kind: String,
    #[serde(default)]
    detail: String,
    /// Where a person has to go for `userActionRequired` (RFC 8555 section 7.3.3).
    instance: Option<String>,
    #[serde(default)]
    subproblems: Vec<instant_acme::Subproblem>,
}

impl Refusal {
    /// Reads an error answer. What is not a problem document, such as a proxy's page, is kept as text.
    pub fn read(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> Self {
        let document = serde_json::from_slice(body).unwrap_or_else(|_| Document { detail: clip(body), ..Document::default() });
        Self { status, document, retry_after }
    }

    /// Whether it is of this ACME error type.
    pub(super) fn is(&self, kind: &str) -> bool {
        self.kind() == kind
    }

    /// Whether it is the CA that speaks, in the words of RFC 8555.
    fn is_acme(&self) -> bool {
        self.document.kind.starts_with(TYPE_PREFIX)
    }

    fn kind(&self) -> &str {
        short(&self.document.kind)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status)?;
        write_problem(f, &self.document.kind, &self.document.detail)?;
        for subproblem in self.document.subproblems.iter().take(MOST_SUBPROBLEMS) {
            f.write_str("; ")?;
            if let Some(identifier) = &subproblem.identifier {
                write!(f, "{}", clip(identifier.authorized(false).to_string().as_bytes()))?;
            }
            write_problem(f, subproblem.r#type.as_deref().unwrap_or_default(), subproblem.detail.as_deref().unwrap_or_default())?;
        }
        let more = self.document.subproblems.len().saturating_sub(MOST_SUBPROBLEMS);
        if more > 0 { write!(f, "; and {more} more") } else { Ok(()) }
    }
}

impl StdError for Refusal {}

/// Writes `: detail (type)`, without what could disturb a terminal.
fn write_problem(f: &mut impl fmt::Write, kind: &str, detail: &str) -> fmt::Result {
    let detail = clip(detail.as_bytes());
    if !detail.is_empty() {
        write!(f, ": {detail}")?;
    }
    if !kind.is_empty() {
        write!(f, " ({})", clip(kind.as_bytes()))?;
    }
    Ok(())
}

/// One identifier's problem, as `www.example.com: detail (type)`.
pub(super) fn problem_text(subject: &str, problem: &Problem) -> String {
    let mut text = printable(subject);
    let _ = write_problem(&mut text, problem.r#type.as_deref().unwrap_or_default(), problem.detail.as_deref().unwrap_or_default());
    text
}

/// A CA's text as it may be shown: printable and not too long.
pub(super) fn clip(text: &[u8]) -> String {
    printable(&String::from_utf8_lossy(text)).chars().take(LONGEST_TEXT_CHARS).collect()
}

/// A problem's ACME error type, without what all of them begin with.
pub(super) fn kind_of(problem: &Problem) -> &str {
    short(problem.r#type.as_deref().unwrap_or_default())
}

fn short(kind: &str) -> &str {
    kind.strip_prefix(TYPE_PREFIX).unwrap_or(kind)
}

/// The failure that our own HTTP client put into the library's error.
pub(super) fn http_failure(error: &Error) -> Option<&HttpFailure> {
    match error {
        Error::Other(other) => other.downcast_ref(),
        _ => None,
    }
}

/// Whether the library gave up on nonces (RFC 8555 section 6.5): nothing was done, and the same call can be made again.
pub(super) fn is_bad_nonce(error: &Error) -> bool {
    matches!(error, Error::Api(problem) if kind_of(problem) == "badNonce")
}

/// Whether the same call may well succeed in a moment: no answer, or an error on the CA's side.
pub(super) fn is_passing(error: &Error) -> bool {
    match http_failure(error) {
        Some(HttpFailure::Refused(refusal)) => refusal.status.is_server_error(),
        Some(HttpFailure::Unreachable { source, .. }) => certificate_problem(source.as_ref()).is_none(),
        Some(HttpFailure::TooSlow { .. }) => true,
        None => false,
    }
}

/// Whether the CA no longer knows what was asked about, or does not let us have it. A proxy's page does not say so, unless it is a plain
/// "not found": an order that was given up for less would be placed, and issued, a second time.
pub(super) fn is_gone(error: &Error) -> bool {
    let Some(HttpFailure::Refused(refusal)) = http_failure(error) else { return false };
    match refusal.status {
        StatusCode::NOT_FOUND | StatusCode::GONE => !refusal.is("rateLimited") && !refusal.is("accountDoesNotExist"),
        StatusCode::BAD_REQUEST | StatusCode::FORBIDDEN | StatusCode::METHOD_NOT_ALLOWED => {
            refusal.is_acme() && (refusal.is("malformed") || refusal.is("unauthorized"))
        }
        _ => false,
    }
}

/// Whether it is of this ACME error type.
pub(super) fn is_of_kind(error: &Error, kind: &str) -> bool {
    matches!(http_failure(error), Some(HttpFailure::Refused(refusal)) if refusal.is(kind))
}

/// Says for people what went wrong with `issuer` at `step`, and what to do.
pub(super) fn explain(issuer: &str, step: Step, error: &Error) -> IssueError {
    let reason = format!("could not {step}: {}", chain(error));
    let (hint, retry_after) = match (http_failure(error), error) {
        (Some(HttpFailure::Refused(refusal)), _) => {
            let mut hint = hint(step, refusal.kind(), refusal.status).replace("<issuer>", issuer);
            if let Some(instance) = &refusal.document.instance {
                hint = format!("{hint}: {}", clip(instance.as_bytes()));
            }
            (hint, refusal.retry_after)
        }
        (Some(HttpFailure::Unreachable { source, .. }), _) => (unreachable_hint(source.as_ref()), None),
        (Some(HttpFailure::TooSlow { .. }), _) => ("check the network, and the CA's status page".to_owned(), None),
        (None, Error::Api(problem)) => (hint(step, kind_of(problem), StatusCode::BAD_REQUEST).replace("<issuer>", issuer), None),
        (None, Error::Json(_)) => ("is that URL the directory of an ACME CA? Open it in a browser: it must answer JSON".to_owned(), None),
        (None, _) => ("the CA does not answer as RFC 8555 says; try another issuer".to_owned(), None),
    };
    IssueError::Refused { reason, hint, retry_after }
}

/// What a person can do about an ACME error type (RFC 8555 section 6.7); `<issuer>` stands for the issuer's name.
pub(super) fn hint(step: Step, kind: &str, status: StatusCode) -> String {
    let text = match kind {
        "accountDoesNotExist" => {
            "the CA does not know the account that the fleet keeps in its datastore. If the CA was set up anew, delete the object accounts/<issuer>, and the next run opens another"
        }
        "externalAccountRequired" => {
            "this CA wants accounts bound to one of its customers: set eab = { kid, hmac_key } of the issuer, from the CA's web pages"
        }
        "rateLimited" => "the CA counts orders: wait as long as it says; use --staging for experiments",
        "caa" => "a CAA record of the domain does not allow this CA: add one with the CA's name, or remove it (check with: dig CAA)",
        "dns" => {
            "the CA's resolver could not look the name up: check the zone, its name servers and DNSSEC (dig +trace), and that A and AAAA records point here"
        }
        "connection" => {
            "the CA could not connect: port 80 of every A and AAAA address of the name must be reachable from the internet, and lead to the machine that answers; behind a firewall use dns-01"
        }
        "tls" => "the CA's look was redirected to an HTTPS server that it cannot talk to: answer the challenge path without a redirect",
        "incorrectResponse" | "unauthorized" if step == Step::Validation => {
            "the CA looked and found another answer: another server, a cache, or an old record answers for the name; check where A, AAAA and TXT records lead"
        }
        "unauthorized" if step == Step::Account => {
            "the CA does not accept the account: check eab kid and hmac_key, which are often good for one use only"
        }
        "unauthorized" => {
            "the CA does not let this account do it: it may have been deactivated; delete the object accounts/<issuer> to open another"
        }
        "malformed" if step == Step::Account => "the CA does not accept the account's data: check contact, and eab kid and hmac_key",
        "invalidContact" | "unsupportedContact" => "set contact to an e-mail address that exists",
        "malformed" => {
            "the CA could not read the request: check the identifiers; if they are right, this is a fault of certfleet or of the CA"
        }
        "rejectedIdentifier" => {
            "this CA does not issue for that identifier (a blocked, reserved or internal name): use another issuer, such as local-ca"
        }
        "unsupportedIdentifier" => {
            "this CA does not issue for that kind of identifier, or not with that profile: Let's Encrypt wants profile = \"shortlived\" for IP addresses; else use another issuer"
        }
        "userActionRequired" => "a person must act on a page of the CA, such as agreeing to new terms",
        "badCSR" => "the CA does not accept the request: try another key_type",
        "badPublicKey" | "badSignatureAlgorithm" => "the CA does not accept the key: try another key_type",
        "badNonce" => "the CA's servers disagree about its nonces: try again later",
        "orderNotReady" => "the CA has changed its mind about the order; try again",
        "serverInternal" => "the CA has a fault of its own: try again later, see its status page, or add another issuer to the site's list",
        _ if status == StatusCode::TOO_MANY_REQUESTS => "the CA wants to be asked less often: wait as long as it says",
        _ if status.is_server_error() => {
            "the CA has a fault of its own: try again later, see its status page, or add another issuer to the site's list"
        }
        _ if status == StatusCode::NOT_FOUND => "check the directory URL of the issuer",
        _ => "see what the CA says above",
    };
    text.to_owned()
}

fn unreachable_hint(source: &(dyn StdError + 'static)) -> String {
    match certificate_problem(source) {
        Some(_) => "the CA's own TLS certificate is not trusted: for a private CA set trust = \"root.pem\" of the issuer to the root that signed it; for a public one, install ca-certificates".to_owned(),
        None => "check the directory URL, name resolution, firewall and proxy (HTTPS_PROXY) of this machine, and the CA's status page".to_owned(),
    }
}

/// Finds out whether it was the server's certificate that ended the connection.
fn certificate_problem<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
            return Some(tls);
        }
        // An io::Error does not name what it wraps as its source, but that one's source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    None
}

/// An error with its causes, on one line: strangers' text is in it.
pub(super) fn chain(error: &(dyn StdError + 'static)) -> String {
    printable(&in_full(error))
}
