//! The DNS providers that are built in, and what each wants to be told.
//!
//! Not in the table, though the library speaks to them: those that know no single value of a record, and so cannot add one beside others or
//! remove one's own alone (namecheap, joker and autodns write whole zones; duckdns, freemyip, ddnss and hurricane know one value per name).

use std::collections::BTreeMap;
use std::time::Duration;

use dns_update::DnsUpdater;
use strsim::jaro_winkler;
use zeroize::Zeroizing;

use super::updater::Updater;
use crate::solver::SolverError;

mod table;

pub use table::PROVIDERS;

/// How long one request to a provider may take.
const REQUEST: Option<Duration> = Some(Duration::from_secs(30));

/// How alike a misspelt name must be to be suggested.
const ALIKE: f64 = 0.8;

/// One provider.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the configuration.
    pub name: &'static str,
    /// The page that says where its users get what is wanted.
    pub documentation: &'static str,
    /// What it wants to be told.
    pub variables: &'static [Variable],
    build: fn(&Given) -> dns_update::Result<DnsUpdater>,
}

/// A thing that a provider wants to be told, under the names that its users know from other clients.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// lego's name first; any of them will do.
    pub names: &'static [&'static str],
    /// Whether it may be read by others.
    pub kind: Kind,
    /// Whether it may be left out.
    pub need: Need,
}

/// Which of the two tables a variable belongs in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// `credentials`.
    Secret,
    /// `settings`, or `credentials`.
    Open,
}

/// Whether a variable may be left out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Need {
    /// It may not.
    Wanted,
    /// It may.
    Optional,
}

/// What was configured, under the first name of each variable.
#[derive(Default)]
pub(super) struct Given(BTreeMap<&'static str, Zeroizing<String>>);

impl Given {
    /// What is wanted was found to be there.
    fn of(&self, name: &str) -> &str {
        self.maybe(name).unwrap_or_default()
    }

    pub(super) fn maybe(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(|value| value.as_str())
    }

    fn text(&self, name: &str) -> String {
        self.of(name).to_owned()
    }

    fn maybe_text(&self, name: &str) -> Option<String> {
        self.maybe(name).map(str::to_owned)
    }
}

/// The provider of this name, told `credentials` and `settings`. Whatever is missing, unknown or unusable is found here, before any order
/// is placed.
pub fn updater(
    name: &str,
    credentials: BTreeMap<String, Zeroizing<String>>,
    settings: BTreeMap<String, String>,
) -> Result<Updater, SolverError> {
    let provider = find(name)?;
    let given = provider.take(credentials, settings)?;
    let secrets = provider.variables.iter().filter(|variable| variable.kind == Kind::Secret);
    let secrets = secrets.filter_map(|variable| given.0.get(variable.names[0]).cloned()).collect();
    if provider.name == table::ROUTE53 && given.maybe("AWS_ACCESS_KEY_ID").is_none() {
        return Ok(Updater::with_the_aws_chain(given.maybe_text("AWS_HOSTED_ZONE_ID")));
    }
    let built = (provider.build)(&given).map_err(|error| SolverError {
        what: format!(
            "DNS provider {}: {}",
            provider.name,
            super::redaction::without(&error.to_string(), given.0.values().map(|value| value.as_str()))
        ),
        hint: format!("correct its credentials and settings: {}; see {}", provider.wanted(), provider.documentation),
        source: None,
    })?;
    Ok(Updater::new(provider, built, secrets))
}

fn find(name: &str) -> Result<&'static Provider, SolverError> {
    if let Some(provider) = PROVIDERS.iter().find(|provider| provider.name == name) {
        return Ok(provider);
    }
    let hint = match nearest(name, PROVIDERS.iter().map(|provider| provider.name)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "docs/configuration.md lists them; script:NAME and acme.sh:dns_NAME bring others".to_owned(),
    };
    Err(SolverError { what: format!("there is no DNS provider {name:?}"), hint, source: None })
}

fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let likeness = |known: &str| jaro_winkler(&name.to_lowercase(), &known.to_lowercase());
    let best = known.map(|known| (likeness(known), known)).max_by(|one, other| one.0.total_cmp(&other.0));
    best.filter(|(likeness, _)| *likeness >= ALIKE).map(|(_, known)| known)
}

impl Provider {
    fn take(&self, credentials: BTreeMap<String, Zeroizing<String>>, settings: BTreeMap<String, String>) -> Result<Given, SolverError> {
        let mut given = Given::default();
        let open: Vec<_> = settings.keys().cloned().collect();
        let settings = settings.into_iter().map(|(name, value)| (name, Zeroizing::new(value)));
        for (name, value) in credentials.into_iter().chain(settings) {
            let variable =
                self.variables.iter().find(|variable| variable.names.contains(&name.as_str())).ok_or_else(|| self.unknown(&name))?;
            if variable.kind == Kind::Secret && open.contains(&name) {
                let what = format!("{name} of the DNS provider {} is a secret", self.name);
                return Err(SolverError { what, hint: "put it into credentials, and say where it is".to_owned(), source: None });
            }
            if value.contains('\0') || given.0.insert(variable.names[0], value).is_some() {
                let what = format!("{name} of the DNS provider {} is given twice, or holds a NUL character", self.name);
                return Err(SolverError { what, hint: format!("write one of {} once", variable.names.join(", ")), source: None });
            }
        }
        let missing = |variable: &&Variable| variable.need == Need::Wanted && !given.0.contains_key(variable.names[0]);
        let missing: Vec<_> = self.variables.iter().filter(missing).map(|variable| variable.names[0]).collect();
        let halves =
            self.name == table::ROUTE53 && given.maybe("AWS_ACCESS_KEY_ID").is_some() != given.maybe("AWS_SECRET_ACCESS_KEY").is_some();
        if missing.is_empty() && !halves {
            return Ok(given);
        }
        let missing = if halves { "one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned() } else { missing.join(", ") };
        let what = format!("the DNS provider {} is not told {missing}", self.name);
        Err(SolverError { what, hint: format!("it wants {}; see {}", self.wanted(), self.documentation), source: None })
    }

    fn unknown(&self, name: &str) -> SolverError {
        let near = nearest(name, self.variables.iter().flat_map(|variable| variable.names.iter().copied()));
        let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
        let what = format!("the DNS provider {} has no credential or setting {name}", self.name);
        SolverError { what, hint: format!("{near}it wants {}; see {}", self.wanted(), self.documentation), source: None }
    }

    /// Its variables in words.
    fn wanted(&self) -> String {
        let word = |variable: &Variable| match variable.need {
            Need::Wanted => variable.names[0].to_owned(),
            Need::Optional => format!("{} (optional)", variable.names[0]),
        };
        self.variables.iter().map(word).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_provider_wants_what_it_wants() {
        for provider in PROVIDERS {
            let wanted: Vec<_> = provider.variables.iter().filter(|variable| variable.need == Need::Wanted).collect();
            if wanted.is_empty() {
                assert_eq!(provider.name, table::ROUTE53);
                updater(provider.name, BTreeMap::new(), BTreeMap::new()).expect("the chain of AWS");
                continue;
            }
            let error = updater(provider.name, BTreeMap::new(), BTreeMap::new()).expect_err("nothing given");
            for variable in &wanted {
                assert!(error.what.contains(variable.names[0]), "{error}");
            }
            for left_out in &wanted {
                let given = wanted.iter().filter(|variable| variable.names[0] != left_out.names[0]);
                let given = given.map(|variable| (variable.names[0].to_owned(), Zeroizing::new("value".to_owned()))).collect();
                let error = updater(provider.name, given, BTreeMap::new()).expect_err("one is missing");
                assert_eq!(error.what, format!("the DNS provider {} is not told {}", provider.name, left_out.names[0]));
            }
        }
    }

    /// Each constructor reads exactly the variables of its row: whatever is wrong with these values is said by the library, which got them.
    #[test]
    fn every_row_builds() {
        for provider in PROVIDERS {
            let value = |name: &str| match name {
                "RFC2136_NAMESERVER" => "127.0.0.1:53",
                "RFC2136_TSIG_SECRET" => "c2VjcmV0",
                "OVH_ENDPOINT" => "ovh-eu",
                name if name.ends_with("REGION") => "eu-1",
                name if name.ends_with("URL") || name.ends_with("HOST") => "https://dns.example",
                _ => "value",
            };
            let given = provider
                .variables
                .iter()
                .map(|variable| (variable.names[0].to_owned(), Zeroizing::new(value(variable.names[0]).to_owned())));
            if let Err(error) = updater(provider.name, given.collect(), BTreeMap::new()) {
                let keys = ["gcloud", "oraclecloud", "transip", "ibmcloud", "rfc2136"];
                assert!(keys.contains(&provider.name), "{}: {error}", provider.name);
            }
        }
    }

    #[test]
    fn names_are_unique_and_mistakes_lead_to_the_nearest() {
        for (at, provider) in PROVIDERS.iter().enumerate() {
            assert!(PROVIDERS[..at].iter().all(|other| other.name < provider.name), "{} is out of order", provider.name);
            assert!(provider.documentation.starts_with("https://"), "{}", provider.name);
        }
        let hint = |name: &str, variable: &str| {
            let given = BTreeMap::from([(variable.to_owned(), Zeroizing::new("x".to_owned()))]);
            updater(name, given, BTreeMap::new()).expect_err("a mistake").hint
        };
        assert_eq!(hint("digitalozean", "x"), "did you mean \"digitalocean\"?");
        assert!(hint("digitalocean", "DO_AUTH_TOKN").starts_with("did you mean DO_AUTH_TOKEN? it wants DO_AUTH_TOKEN; see https://"));
    }

    #[test]
    fn a_secret_in_plain_text_is_refused() {
        let settings = BTreeMap::from([("DO_AUTH_TOKEN".to_owned(), "hush".to_owned())]);
        let error = updater("digitalocean", BTreeMap::new(), settings).expect_err("plain text");
        assert_eq!(error.what, "DO_AUTH_TOKEN of the DNS provider digitalocean is a secret");
    }
}
