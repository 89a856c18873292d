//! Whether the issuers of the configuration can be asked, found out without asking them for anything.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::timeout;

use super::endless;
use super::identity::named;
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::site::{IfMissing, SiteName};
use crate::domain::time::rfc3339;
use crate::issuer::IssueError;
use crate::issuer::acme::{AcmeIssuer, Offer, Standing};
use crate::issuer::local_ca::{KEY_FILE, LocalCa, LocalCaOptions, ROOT_FILE};
use crate::system::error_chain::in_full;

/// Roots are given to clients by hand, which takes people a while.
const ROOT_ENDS_SOON: TimeDelta = TimeDelta::days(180);

/// How long a CA may take to tell its standing: a directory, a nonce and an account, of a minute at most each, and what keeps the account.
pub const ASKING: Duration = Duration::from_secs(220);

/// How long its directory alone may take: one request, and the way there.
const OFFERING: Duration = Duration::from_secs(75);

/// Whether the account that the fleet keeps can be looked at.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AccountKept {
    /// The datastore can be read, and its secrets opened.
    Reachable,
    /// It cannot: that is a finding of its own.
    OutOfReach,
}

/// Who wants a profile.
#[derive(Clone, Debug)]
pub struct WantedBy {
    /// A site.
    pub site: SiteName,
    /// What it does without.
    pub if_missing: IfMissing,
}

/// Looks at an ACME CA: its directory, what it offers of what the sites want (`profiles`, each with a site that wants it), and the
/// fleet's account there. Nothing is ordered, and no account opened.
pub async fn acme(issuer: &AcmeIssuer, name: &str, profiles: &BTreeMap<String, WantedBy>, kept: AccountKept) -> Vec<Finding> {
    let check = |what| Check::of(Part::Issuers, what, name);
    // The account's deadline is its own: what the directory says is told all the same.
    let (offer, standing) = tokio::join!(timeout(OFFERING, issuer.offer()), async {
        match kept {
            AccountKept::Reachable => Some(timeout(ASKING, issuer.standing()).await),
            AccountKept::OutOfReach => None,
        }
    });
    let without = |finding| vec![finding, check("account").skipped("the CA's directory could not be fetched")];
    let offer = match offer {
        Ok(Ok(offer)) => offer,
        Ok(Err(error)) => return without(refused(check("directory"), &error)),
        Err(_) => return without(endless(check("directory"), OFFERING)),
    };
    let terms = offer.terms.as_deref().map(|terms| format!("; its terms: {terms}")).unwrap_or_default();
    let mut findings = vec![check("directory").ok(format!("{} answers{terms}", issuer.directory()))];
    findings.extend(profile_findings(&offer, name, profiles));
    let none_yet = matches!(standing, Some(Ok(Ok(Standing::NoneYet))));
    findings.push(match standing {
        None => check("account").skipped("whether there is one lies in the datastore, sealed, which could not be opened"),
        Some(Ok(Ok(Standing::Known(url)))) => check("account").ok(format!("the CA knows the fleet's account {url}")),
        Some(Ok(Ok(Standing::NoneYet))) => check("account").ok("there is none yet: the first order opens it"),
        Some(Ok(Err(error))) => refused(check("account"), &error),
        Some(Err(_)) => endless(check("account"), ASKING),
    });
    if offer.binding_required && !issuer.is_bound() && (none_yet || kept == AccountKept::OutOfReach) {
        let remedy = format!("set eab = {{ kid = \"…\", hmac_key = {{ env = \"…\" }} }} in [issuer.{name}], from the CA's web pages");
        findings.push(check("binding").failed("this CA opens accounts only for its customers, and no eab is configured", remedy));
    }
    findings
}

fn profile_findings(offer: &Offer, name: &str, profiles: &BTreeMap<String, WantedBy>) -> Vec<Finding> {
    let found = profiles.iter().map(|(profile, WantedBy { site, if_missing })| {
        let check = Check::of(Part::Issuers, "profile", name);
        if offer.profiles.contains(profile) {
            return check.ok(format!("it offers the profile {profile}"));
        }
        if *if_missing == IfMissing::TakeDefault {
            return check.ok(format!("it has no profile {profile:?}; {site} falls back to the CA's own choice"));
        }
        let remedy = if offer.profiles.is_empty() {
            "this CA offers no profiles: remove profile from the site".to_owned()
        } else {
            format!("set profile to one of: {}", offer.profiles.join(", "))
        };
        check.failed(format!("it has no profile {profile:?}, which {site} wants"), remedy)
    });
    found.collect()
}

/// Looks at the files of the local CA in `directory`. On a machine that has no key it is another machine that signs.
pub fn local_ca(directory: &Path, name: &str, now: DateTime<Utc>) -> Vec<Finding> {
    let check = |what| Check::of(Part::Issuers, what, name);
    let ca = match LocalCa::open(directory, &LocalCaOptions::default()) {
        Ok(Some(ca)) => ca,
        Ok(None) => return vec![check("root").ok(format!("there is none in {} yet: the first certificate makes it", directory.display()))],
        Err(error) => return vec![check("root").failed(in_full(&error), error.hint())],
    };
    let until = rfc3339(&ca.root().not_after);
    let path = ca.root_path().display();
    let root = match ca.check_root(now) {
        Err(error) => refused(check("root"), &error),
        Ok(()) if ca.root().not_after - now < ROOT_ENDS_SOON => {
            let remedy = format!(
                "plan for a new root: once {} is moved away, the next run makes one, which clients must be given",
                directory.display()
            );
            check("root").warning(format!("{path} is valid only until {until}"), remedy)
        }
        Ok(()) => check("root").ok(format!("{path} belongs to its key, and is valid until {until}")),
    };
    vec![root, key_mode(check("key"), &directory.join(KEY_FILE))]
}

/// Whether a machine that does not sign has the local CA's root, to hold chains against.
pub fn local_ca_elsewhere(directory: &Path, name: &str) -> Finding {
    let check = Check::of(Part::Issuers, "root", name);
    let root = directory.join(ROOT_FILE);
    let here = if root.exists() { "its root is here" } else { "its root is not here either, so chains are not held against it" };
    check.skipped(format!("its key is on another machine, which signs; {here}"))
}

/// Nothing is needed to sign a certificate with its own key.
pub fn self_signed(name: &str) -> Finding {
    Check::of(Part::Issuers, "issuer", name).ok("needs nothing")
}

/// An issuer that the configuration describes wrongly, or of which a secret or a file is missing.
pub fn unusable(name: &str, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Check::of(Part::Issuers, "settings", name).failed(what, remedy)
}

/// A machine that asks no issuer.
pub fn none_asked(sites: &[SiteName], why: &str) -> Finding {
    let check = Check::new(Part::Issuers, "issuers");
    check.skipped(format!("{why}: {}", named(sites.iter().map(ToString::to_string))))
}

fn key_mode(check: Check, key: &Path) -> Finding {
    match std::fs::metadata(key) {
        Ok(metadata) if metadata.permissions().mode() & 0o077 != 0 => {
            let mode = metadata.permissions().mode() & 0o7777;
            let what = format!("{} has mode {mode:04o}: others on this machine can read it, and vouch for any site with it", key.display());
            check.failed(what, format!("chmod 600 {}", key.display()))
        }
        Ok(_) => check.ok(format!("{} is readable by its owner only", key.display())),
        Err(error) => check.failed(format!("cannot look at {}: {error}", key.display()), "check who may enter its directory"),
    }
}

fn refused(check: Check, error: &IssueError) -> Finding {
    let remedy = match error {
        IssueError::Refused { hint, .. } => hint.clone(),
        IssueError::Account(error) => error.hint.clone(),
        IssueError::Ended(_) => "try again".to_owned(),
    };
    check.failed(in_full(error), remedy)
}
