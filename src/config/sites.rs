//! `[[site]]`: the certificates that are wanted, checked against the issuers and solvers there are.

use std::collections::BTreeMap;
use std::time::Duration;

use super::DAY;
use super::error::{ConfigError, Setting};
use super::issuers::{self, IssuerSettings};
use super::read::{Choice, Field, Table};
use super::solvers::SolverSettings;
use crate::domain::identifier::Identifier;
use crate::domain::key_type::KeyType;
use crate::domain::policy::DEFAULT_RENEW_BEFORE;
use crate::domain::site::{IfMissing, Lineage, Method, Profile, Site, SiteName};

/// The keys of `[[site]]`.
pub(super) const KEYS: &[&str] = READ.split_at(READ.len() - 1).0;

/// The same, and one that is read only to say why it is refused.
const READ: &[&str] =
    &["name", "identifiers", "method", "issuers", "solver", "key_type", "profile", "profile_fallback", "renew_before", "must_staple"];

/// No public certificate lives longer than 398 days (CA/Browser Forum Baseline Requirements section 6.3.2), so more is a slip.
const LONGEST_RENEW_BEFORE: Duration = Duration::from_secs(398 * DAY);

/// What sites refer to.
pub(super) struct Known<'a> {
    pub(super) issuers: &'a BTreeMap<String, IssuerSettings>,
    pub(super) solvers: &'a BTreeMap<String, SolverSettings>,
}

pub(super) fn read(field: Option<&Field<'_>>, known: &Known<'_>) -> Result<Vec<Site>, ConfigError> {
    let mut sites: Vec<Site> = Vec::new();
    for table in field.map_or_else(|| Ok(Vec::new()), |field| field.tables("[[site]]", READ))? {
        let site = read_one(&table, known)?;
        if sites.iter().any(|other| other.name.identifier() == site.name.identifier()) {
            let name = table.require("name", "name")?;
            return Err(name.rejected(
                format!("there are two sites {:?}", site.name.identifier().to_string()),
                "list all names of a site under its identifiers",
            ));
        }
        sites.push(site);
    }
    Ok(sites)
}

/// The site that a name on the command line stands for where there is no configuration: it needs no account anywhere.
pub(super) fn from_the_command_line(identifier: &Identifier) -> Site {
    Site {
        name: SiteName::new(identifier.clone(), Lineage::Live),
        identifiers: vec![identifier.clone()],
        method: Method::Automatic,
        issuers: vec![issuers::LOCAL_CA.to_owned()],
        solver: None,
        key_type: KeyType::default(),
        profile: None,
        renew_before: DEFAULT_RENEW_BEFORE,
    }
}

fn read_one(table: &Table<'_>, known: &Known<'_>) -> Result<Site, ConfigError> {
    let name = table.require("name", r#"name = "www.example.com""#)?;
    let identifier = identifier(&name)?;
    let methods = Choice { what: "method", words: &[("automatic", Method::Automatic), ("manual", Method::Manual)], later: &[] };
    let method = table.choose("method", &methods, Method::Automatic)?;
    refuse_must_staple(table)?;
    let issuers = read_issuers(table, known)?;
    let solver = read_solver(table, known)?;
    let identifiers = match table.get("identifiers") {
        Some(field) => identifiers(&field)?,
        None => vec![identifier.clone()],
    };
    let mut site = Site {
        identifiers,
        method,
        key_type: table.choose("key_type", &KEY_TYPES, KeyType::default())?,
        profile: read_profile(table)?,
        renew_before: table.duration("renew_before", Duration::from_secs(1)..=LONGEST_RENEW_BEFORE, DEFAULT_RENEW_BEFORE)?,
        ..from_the_command_line(&identifier)
    };
    match method {
        Method::Manual => site.issuers.clear(),
        Method::Automatic => {
            site.name = SiteName::new(identifier, lineage(&name, &issuers, known)?);
            site.issuers = issuers;
            site.solver = solver;
            check_challenges(table, &site, known)?;
        }
    }
    Ok(site)
}

fn read_profile(table: &Table<'_>) -> Result<Option<Profile>, ConfigError> {
    let fallback = table.get("profile_fallback");
    let if_missing = match fallback.as_ref().map(Field::boolean).transpose()? {
        Some(true) => IfMissing::TakeDefault,
        Some(false) | None => IfMissing::Refuse,
    };
    match (table.text("profile")?, fallback) {
        (Some(name), _) => Ok(Some(Profile { name, if_missing })),
        (None, None) => Ok(None),
        (None, Some(field)) => Err(field.rejected("there is no profile to fall back from", r#"add profile = "tlsserver", or remove it"#)),
    }
}

const KEY_TYPES: Choice<'_, KeyType> = Choice {
    what: "key type",
    words: &[
        ("ecdsa-p256", KeyType::EcdsaP256),
        ("ecdsa-p384", KeyType::EcdsaP384),
        ("rsa-2048", KeyType::Rsa2048),
        ("rsa-3072", KeyType::Rsa3072),
        ("rsa-4096", KeyType::Rsa4096),
    ],
    later: &[],
};

/// Asked for again and again, and of no use any more: Let's Encrypt has refused such orders since 2025-05-07
/// (<https://letsencrypt.org/2024/12/05/ending-ocsp/>), and a server without a staple would lock its visitors out.
fn refuse_must_staple(table: &Table<'_>) -> Result<(), ConfigError> {
    let Some(field) = table.get("must_staple") else { return Ok(()) };
    if !field.boolean()? {
        return Ok(());
    }
    let why = "certificates that must be served with an OCSP answer are not ordered: CAs have given up OCSP, and refuse them";
    Err(field.rejected(why, "remove must_staple; short-lived certificates (profile = \"shortlived\") serve the same purpose"))
}

fn identifier(field: &Field<'_>) -> Result<Identifier, ConfigError> {
    let hint = "a host name (www.example.com), a wildcard (*.example.com) or an IP address; no scheme, port or path";
    field.text()?.parse().map_err(|error| field.rejected(error, hint))
}

/// In the order written, each once.
fn identifiers(field: &Field<'_>) -> Result<Vec<Identifier>, ConfigError> {
    let mut unique = Vec::new();
    for item in field.list()? {
        let identifier = identifier(&item)?;
        if !unique.contains(&identifier) {
            unique.push(identifier);
        }
    }
    Ok(unique)
}

fn read_issuers(table: &Table<'_>, known: &Known<'_>) -> Result<Vec<String>, ConfigError> {
    let Some(field) = table.get("issuers") else { return Ok(vec![issuers::DEFAULT.to_owned()]) };
    let mut names: Vec<String> = Vec::new();
    for item in field.list()? {
        let name = item.text()?;
        if !known.issuers.contains_key(name) {
            return Err(item.unknown("issuer", name, known.issuers.keys().cloned().collect()));
        }
        if names.iter().any(|other| other == name) {
            return Err(item.rejected(format!("{name:?} is listed twice"), "issuers are tried in order, each once"));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// The solver named, else the only one there is.
fn read_solver(table: &Table<'_>, known: &Known<'_>) -> Result<Option<String>, ConfigError> {
    let Some(field) = table.get("solver") else { return Ok(only_solver(known.solvers)) };
    let name = field.text()?;
    if known.solvers.contains_key(name) {
        return Ok(Some(name.to_owned()));
    }
    Err(field.unknown("solver", name, known.solvers.keys().cloned().collect()))
}

/// The solver that nobody needs to name, because there is no other.
pub(super) fn only_solver(solvers: &BTreeMap<String, SolverSettings>) -> Option<String> {
    let mut names = solvers.keys();
    names.next().filter(|_| names.next().is_none()).cloned()
}

/// Staging and live never share a lineage, so neither may a site's issuers.
fn lineage(name: &Field<'_>, issuers: &[String], known: &Known<'_>) -> Result<Lineage, ConfigError> {
    let of = |lineage| issuers.iter().find(|issuer| known.issuers.get(*issuer).and_then(IssuerSettings::lineage) == Some(lineage));
    match (of(Lineage::Staging), of(Lineage::Live)) {
        (Some(staging), Some(live)) => {
            let why = format!("its issuers mix test certificates ({staging:?}) and live ones ({live:?})");
            Err(name.rejected(why, "keep one sort; `certfleet ensure --staging` tries a live site with test certificates"))
        }
        (Some(_), None) => Ok(Lineage::Staging),
        (None, _) => Ok(Lineage::Live),
    }
}

/// What ACME issuers need before they can be asked.
fn check_challenges(table: &Table<'_>, site: &Site, known: &Known<'_>) -> Result<(), ConfigError> {
    for name in &site.issuers {
        let Some(IssuerSettings::Acme(acme)) = known.issuers.get(name) else { continue };
        if let Some(from) = issuers::eab_wanted_from(name, acme) {
            let hint =
                format!("add [issuer.{name}] with eab = {{ kid = \"…\", hmac_key = {{ env = \"NAME\" }} }}; you get both from {from}");
            return Err(site_problem(table, site, &format!("the issuer {name:?} needs an external account binding"), &hint));
        }
        let Some(solver) = site.solver.as_ref().and_then(|solver| known.solvers.get(solver)) else {
            let hint =
                "add [solver.web] with kind = \"http-01\", and solver = \"web\" here; or issuers = [\"local-ca\"] to begin without a CA";
            return Err(site_problem(table, site, &format!("the issuer {name:?} needs a solver, and none is named"), hint));
        };
        check_reach(table, site, solver)?;
        check_thumbprints(table, site, solver, known)?;
    }
    Ok(())
}

/// A server that answers by itself does not learn which CA asks, and the accounts at two CAs have a key each.
fn check_thumbprints(table: &Table<'_>, site: &Site, solver: &SolverSettings, known: &Known<'_>) -> Result<(), ConfigError> {
    let is_acme = |name: &&String| matches!(known.issuers.get(*name), Some(IssuerSettings::Acme(_)));
    let names: Vec<_> = site.issuers.iter().filter(is_acme).map(String::as_str).collect();
    if !solver.is_stateless() || names.len() < 2 {
        return Ok(());
    }
    let why = format!("a stateless answer holds the thumbprint of one account, and the fleet has one at each of {}", names.join(", "));
    let hint = "keep one ACME issuer, or answer in another way: mode = \"redirect\" serves any number";
    Err(site_problem(table, site, &why, hint))
}

/// Which challenges can prove which identifiers: none of the DNS an address (RFC 8738 section 7), none of ports 80 and 443 a wildcard
/// (CA/Browser Forum Baseline Requirements sections 3.2.2.4.19 and 3.2.2.4.20).
fn check_reach(table: &Table<'_>, site: &Site, solver: &SolverSettings) -> Result<(), ConfigError> {
    for identifier in &site.identifiers {
        let (challenge, other) = match identifier {
            Identifier::Wildcard(_) if !solver.is_dns() => (solver.kind(), "dns-01"),
            Identifier::Ip(_) if solver.is_dns() => (solver.kind(), "http-01 or tls-alpn-01"),
            _ => continue,
        };
        let why = format!("{identifier} cannot be proven by a solver of kind {challenge}");
        return Err(site_problem(table, site, &why, &format!("name a solver of kind {other}, or take it out of the identifiers")));
    }
    Ok(())
}

fn site_problem(table: &Table<'_>, site: &Site, why: &str, hint: &str) -> ConfigError {
    Setting::new(table.place(), &format!("{} {}", table.name(), site.name.identifier())).rejected(why, hint)
}
