//! The environment of the Agile Deployment Toolkit, understood as it is, so that its pipelines need no configuration file.
//!
//! It is read where `WEBSITE_URL` is set and no configuration file has a `[[site]]`; the variables then win over the file.
//!
//! | variable | means |
//! | --- | --- |
//! | `WEBSITE_URL` | the one site, and its one name |
//! | `SSL_GENERATION_METHOD` | `AUTOMATIC` (default) or `MANUAL`: the site's method |
//! | `SSL_GENERATION_SERVICE` | `LETSENCRYPT` (default) or `ZEROSSL`: the site's issuer |
//! | `SSL_LIVE_CERT` | `1` (default) or `0`: Let's Encrypt's staging CA; ZeroSSL has none and ignores it, as the toolkit does |
//! | `SYSTEM_TOEMAIL_ADDRESS` | the contact |
//! | `CLOUDHOST`, `BUILD_IDENTIFIER` | the same |
//! | `BUILD_HOME` | runtimedata is `$BUILD_HOME/runtimedata` |
//! | `S3_HOST_BASE` | the store's host, without a scheme; without it the datastore is the file's, or the default directory |
//! | `S3_ACCESS_KEY`, `S3_SECRET_KEY`, `S3_LOCATION` | credentials and region; `US` is what S3 once called us-east-1 |
//! | `DNS_CHOICE` | part of the bucket's name; `CLOUDFLARE`, `DIGITALOCEAN`, `EXOSCALE`, `LINODE` or `VULTR` also answers challenges |
//! | `DNS_SECURITY_KEY` | its token; `ACCOUNT:::TOKEN` at Cloudflare, `KEY:SECRET` at Exoscale |
//! | `WEBSERVER_CHOICE` | `NGINX`, `APACHE` or `LIGHTTPD`: where the file has no target, it is this server with `~/ssl`, seen at 127.0.0.1:443 |
//!
//! Of the `S3_…` values that are chained by `|`, one per region, the first is used, as the toolkit does for certificates. The bucket is
//! the toolkit's own, `<WEBSITE_URL, dots as hyphens>-<DNS_CHOICE>-<lets|zero>-ssl`; our objects have other names than its
//! `fullchain.pem` and `privkey.pem`, and leave them alone.
//!
//! `DNS_CHOICE` with `DNS_SECURITY_KEY` has challenges answered at that DNS provider, unless the configuration file has its one solver.
//! `DNS_USERNAME` is not needed: all five take a token, or a key and its secret.

use std::collections::BTreeMap;
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::Environment;
use super::datastore::{S3Credentials, ToolkitBucket};
use super::error::{ConfigError, Place, Setting};
use super::issuers::{self, IssuerSettings};
use super::secret::Secret;
use super::sites::{Known, from_the_command_line, only_solver};
use super::solvers::DnsSettings;
use super::targets::TargetKind;
use crate::domain::identifier::Identifier;
use crate::domain::site::{Lineage, Method, Site, SiteName};

/// What the toolkit's environment says.
#[derive(Clone, Debug)]
pub(super) struct Toolkit {
    identifier: Identifier,
    method: Method,
    service: Service,
    lineage: Lineage,
    dns_choice: Option<String>,
    /// The solver at that provider.
    pub(super) dns: Option<DnsSettings>,
    pub(super) contact: Option<Said>,
    pub(super) cloudhost: Option<Said>,
    pub(super) build_identifier: Option<Said>,
    pub(super) runtimedata: Option<PathBuf>,
    pub(super) bucket: Option<ToolkitBucket>,
    pub(super) webserver: Option<TargetKind>,
}

/// A variable and its value.
pub(super) type Said = (&'static str, String);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Service {
    LetsEncrypt,
    ZeroSsl,
}

impl Service {
    /// How the toolkit's bucket names call it.
    fn short(self) -> &'static str {
        match self {
            Self::LetsEncrypt => "lets",
            Self::ZeroSsl => "zero",
        }
    }
}

/// How long Cloudflare's global keys are, which came before its tokens.
const CLOUDFLARE_GLOBAL_KEY_DIGITS: usize = 37;

/// What the solver at the toolkit's DNS provider is called.
pub(super) const SOLVER: &str = "dns";

const WEBSERVERS: &[(&str, TargetKind)] =
    &[("NGINX", TargetKind::Nginx), ("APACHE", TargetKind::Apache), ("LIGHTTPD", TargetKind::Lighttpd)];

/// The toolkit's variables; an empty one counts as not set, as in the toolkit's scripts.
struct Variables<'a>(Environment<'a>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn said(&self, name: &'static str) -> Option<Said> {
        self.get(name).map(|value| (name, value))
    }

    fn secret(&self, name: &str) -> Option<Zeroizing<String>> {
        let value = Zeroizing::new((self.0)(name)?);
        Some(Zeroizing::new(value.trim().to_owned())).filter(|value| !value.is_empty())
    }

    /// The first of the values that are chained by `|`.
    fn first(&self, name: &str) -> Option<Zeroizing<String>> {
        let value = Zeroizing::new((self.0)(name)?);
        let first = value.split('|').next().map(str::trim).filter(|first| !first.is_empty())?;
        Some(Zeroizing::new(first.to_owned()))
    }

    /// What a variable stands for; the first choice where it is not set.
    fn choose<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<T, ConfigError> {
        Ok(self.chosen(name, choices)?.unwrap_or(choices[0].1))
    }

    fn chosen<T: Copy>(&self, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, ConfigError> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let found = choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(&value));
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(|| ConfigError::Unknown {
            at: setting(name).into(),
            what: "choice",
            value,
            known: choices.iter().map(|(word, _)| (*word).to_owned()).collect(),
        })
    }
}

/// What the environment says, or `None` where it is not the toolkit's.
pub(super) fn read(environment: Environment<'_>) -> Result<Option<Toolkit>, ConfigError> {
    let variables = Variables(environment);
    let Some(website_url) = variables.get("WEBSITE_URL") else { return Ok(None) };
    let identifier: Identifier = website_url.parse().map_err(|error| {
        rejected("WEBSITE_URL", format!("{error}"), "the toolkit's WEBSITE_URL is a host name without a scheme: www.example.com")
    })?;
    if !matches!(identifier, Identifier::Dns(_)) {
        return Err(rejected(
            "WEBSITE_URL",
            format!("{identifier} is not a host name"),
            "for wildcards and addresses write a certfleet.toml with a [[site]]",
        ));
    }
    let service = variables.choose("SSL_GENERATION_SERVICE", &[("LETSENCRYPT", Service::LetsEncrypt), ("ZEROSSL", Service::ZeroSsl)])?;
    Ok(Some(Toolkit {
        method: variables.choose("SSL_GENERATION_METHOD", &[("AUTOMATIC", Method::Automatic), ("MANUAL", Method::Manual)])?,
        service,
        lineage: variables.choose("SSL_LIVE_CERT", &[("1", Lineage::Live), ("0", Lineage::Staging)])?,
        dns_choice: variables.get("DNS_CHOICE"),
        dns: dns(&variables)?,
        contact: variables.said("SYSTEM_TOEMAIL_ADDRESS"),
        cloudhost: variables.said("CLOUDHOST"),
        build_identifier: variables.said("BUILD_IDENTIFIER"),
        runtimedata: variables.get("BUILD_HOME").map(|home| PathBuf::from(home).join("runtimedata")),
        bucket: bucket(&variables, &identifier, service)?,
        webserver: variables.chosen("WEBSERVER_CHOICE", WEBSERVERS)?,
        identifier,
    }))
}

/// Where the toolkit's security key goes.
fn dns(variables: &Variables<'_>) -> Result<Option<DnsSettings>, ConfigError> {
    let (Some(choice), Some(key)) = (variables.get("DNS_CHOICE"), variables.secret("DNS_SECURITY_KEY")) else { return Ok(None) };
    let choice = choice.to_ascii_lowercase();
    let given: Vec<(&str, &str)> = match choice.as_str() {
        "cloudflare" => {
            let token = key.rsplit_once(":::").map_or(key.as_str(), |(_, token)| token);
            if token.len() == CLOUDFLARE_GLOBAL_KEY_DIGITS && token.chars().all(|digit| digit.is_ascii_hexdigit()) {
                let why = "it is Cloudflare's global key, which may change everything".to_owned();
                return Err(rejected("DNS_SECURITY_KEY", why, "make an API token that may edit the zone's DNS, and set that"));
            }
            vec![("CLOUDFLARE_DNS_API_TOKEN", token)]
        }
        "digitalocean" => vec![("DO_AUTH_TOKEN", &key)],
        "exoscale" => {
            let unsplit = || rejected("DNS_SECURITY_KEY", "Exoscale's has two parts".to_owned(), "set it as the toolkit does: KEY:SECRET");
            let (key, secret) = key.split_once(':').ok_or_else(unsplit)?;
            vec![("EXOSCALE_API_KEY", key), ("EXOSCALE_API_SECRET", secret)]
        }
        "linode" => vec![("LINODE_TOKEN", &key)],
        "vultr" => vec![("VULTR_API_KEY", &key)],
        _ => return Ok(None),
    };
    let held = |(name, value): (&str, &str)| (name.to_owned(), Secret::held("DNS_SECURITY_KEY", Zeroizing::new(value.to_owned())));
    let credentials: BTreeMap<_, _> = given.into_iter().map(held).collect();
    Ok(Some(DnsSettings::built_in(&choice, credentials)))
}

fn bucket(variables: &Variables<'_>, identifier: &Identifier, service: Service) -> Result<Option<ToolkitBucket>, ConfigError> {
    let Some(host) = variables.first("S3_HOST_BASE") else { return Ok(None) };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    if !host.chars().all(plain) {
        return Err(rejected("S3_HOST_BASE", "it is not a host name".to_owned(), "without a scheme: fra1.digitaloceanspaces.com"));
    }
    let Some(dns_choice) = variables.get("DNS_CHOICE") else {
        let why = "the bucket cannot be named without it".to_owned();
        return Err(rejected("DNS_CHOICE", why, "set it as the toolkit does: cloudflare, digitalocean, exoscale, linode or vultr"));
    };
    let credentials = match (variables.first("S3_ACCESS_KEY"), variables.first("S3_SECRET_KEY")) {
        (Some(access_key), Some(secret_key)) => Some(S3Credentials {
            access_key: Secret::held("S3_ACCESS_KEY", access_key),
            secret_key: Secret::held("S3_SECRET_KEY", secret_key),
        }),
        (None, None) => None,
        (Some(_), None) => return Err(rejected("S3_SECRET_KEY", "it is not set, but S3_ACCESS_KEY is".to_owned(), "set both, or neither")),
        (None, Some(_)) => return Err(rejected("S3_ACCESS_KEY", "it is not set, but S3_SECRET_KEY is".to_owned(), "set both, or neither")),
    };
    let region = variables
        .first("S3_LOCATION")
        .map(|region| if region.eq_ignore_ascii_case("US") { "us-east-1".to_owned() } else { region.to_string() });
    let site = identifier.to_string().replace('.', "-");
    let url = format!("s3://{site}-{}-{}-ssl", dns_choice.to_ascii_lowercase(), service.short());
    Ok(Some(ToolkitBucket { url, endpoint: format!("https://{}", *host), region, credentials }))
}

impl Toolkit {
    /// The one site, with the only solver, the file's or the toolkit's, where its issuer needs one.
    pub(super) fn site(&self, known: &Known<'_>) -> Result<Site, ConfigError> {
        let base = from_the_command_line(&self.identifier);
        if self.method == Method::Manual {
            return Ok(Site { method: Method::Manual, issuers: Vec::new(), ..base });
        }
        let (issuer, lineage) = match (self.service, self.lineage) {
            (Service::LetsEncrypt, Lineage::Live) => ("letsencrypt".to_owned(), Lineage::Live),
            (Service::LetsEncrypt, Lineage::Staging) => (issuers::staging_name("letsencrypt"), Lineage::Staging),
            (Service::ZeroSsl, _) => ("zerossl".to_owned(), Lineage::Live),
        };
        let wanted_from = match known.issuers.get(&issuer) {
            Some(IssuerSettings::Acme(acme)) => issuers::eab_wanted_from(&issuer, acme),
            _ => None,
        };
        if let Some(from) = wanted_from {
            let hint = format!(
                "add [issuer.{issuer}] with eab = {{ kid = \"…\", hmac_key = {{ env = \"NAME\" }} }} to certfleet.toml; you get both from {from}"
            );
            return Err(rejected("SSL_GENERATION_SERVICE", format!("the issuer {issuer:?} needs an external account binding"), &hint));
        }
        let solver = only_solver(known.solvers).ok_or_else(|| self.no_solver(&issuer))?;
        let name = SiteName::new(self.identifier.clone(), lineage);
        Ok(Site { name, issuers: vec![issuer], solver: Some(solver), ..base })
    }

    fn no_solver(&self, issuer: &str) -> ConfigError {
        let hint = "add one [solver.NAME] to certfleet.toml (kind = \"http-01\", or \"dns-01\" with present = [\"prog\"]), or set SSL_GENERATION_METHOD=MANUAL";
        match &self.dns_choice {
            Some(provider) => {
                let why = format!("the issuer {issuer:?} needs a solver, and DNS at {provider:?} is none without DNS_SECURITY_KEY");
                rejected("DNS_CHOICE", why, "set DNS_SECURITY_KEY; DNS_CHOICE is cloudflare, digitalocean, exoscale, linode or vultr")
            }
            None => rejected("WEBSITE_URL", format!("the issuer {issuer:?} needs a solver, and there is none"), hint),
        }
    }
}

fn rejected(variable: &str, why: String, hint: &str) -> ConfigError {
    setting(variable).rejected(why, hint)
}

fn setting(variable: &str) -> Setting {
    Setting::new(Place::Variable(variable.to_owned()), "site")
}
