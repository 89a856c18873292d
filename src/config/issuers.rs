//! `[issuer.NAME]`: where bundles come from. Some are built in, and can be extended by a table of the same name.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::DAY;
use super::error::ConfigError;
use super::paths::{Base, is_name};
use super::read::{Choice, Field, Table};
use super::secret::Secret;
use crate::domain::policy::MANUAL;
use crate::domain::site::Lineage;

/// The keys of `[issuer.NAME]`.
pub(super) const KEYS: &[&str] =
    &["kind", "directory", "trust", "chain_trust", "preferred_chain", "eab", "contact", "staging", "weekly_limit", "lifetime"];

/// The keys of `eab`.
pub(super) const EAB_KEYS: &[&str] = &["kid", "hmac_key"];

/// The issuer of sites that are only named on the command line.
pub(super) const LOCAL_CA: &str = "local-ca";

/// The issuers of a site that lists none.
pub(super) const DEFAULT: &str = "letsencrypt";

/// How long leaves of the local CA and self-signed certificates live unless told otherwise: as long as those of public CAs do.
pub const DEFAULT_LIFETIME: Duration = Duration::from_secs(90 * DAY);

/// A limit beyond this is none.
const MOST_WEEKLY: u32 = 10_000;

/// No leaf outlives the ten years of the local CA's root.
const LONGEST_LIFETIME: Duration = Duration::from_secs(3_650 * DAY);

/// Where bundles come from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum IssuerSettings {
    /// A CA that speaks ACME (RFC 8555).
    Acme(Box<AcmeSettings>),
    /// Our own CA, whose root lies beside runtimedata.
    LocalCa {
        /// How long its leaves live.
        lifetime: Duration,
    },
    /// Certificates that sign themselves.
    SelfSigned {
        /// How long they live.
        lifetime: Duration,
    },
}

/// A CA that speaks ACME.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcmeSettings {
    /// The URL of its directory.
    pub directory: String,
    /// PEM roots that the directory's own TLS certificate leads to; `None` for the public ones.
    pub trust: Option<PathBuf>,
    /// PEM roots that issued chains must lead to; `None` for the web's roots, or anything in a staging lineage.
    pub chain_trust: Option<PathBuf>,
    /// Of several chains that the CA offers, the one whose last certificate was issued by somebody of this common name.
    pub preferred_chain: Option<String>,
    /// The account at the CA that ours is bound to (RFC 8555 section 7.3.4).
    pub eab: Option<EabSettings>,
    /// Whether its certificates are only for tests.
    pub lineage: Lineage,
    /// The mail address that the CA is told.
    pub contact: Option<String>,
    /// How many certificates for exactly the same identifiers it gives in seven days, one at a time again; `None`: nobody counts here.
    pub weekly_limit: Option<u32>,
}

/// What a CA hands out to bind ACME accounts to (RFC 8555 section 7.3.4).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EabSettings {
    /// The key's id.
    pub kid: String,
    /// The key, base64url without padding.
    pub hmac_key: Secret,
}

impl IssuerSettings {
    /// The lineage that its certificates force upon a site; `None` where they fit either.
    pub fn lineage(&self) -> Option<Lineage> {
        match self {
            Self::Acme(acme) => Some(acme.lineage),
            Self::LocalCa { .. } | Self::SelfSigned { .. } => None,
        }
    }
}

/// An ACME CA that needs no table to be used.
struct Known {
    name: &'static str,
    directory: &'static str,
    lineage: Lineage,
    /// Where to get the external account binding that the CA insists on.
    eab_from: Option<&'static str>,
    /// How many certificates for exactly the same identifiers it gives in seven days.
    weekly_limit: Option<u32>,
}

/// The directories of public CAs, as the CAs give them:
/// - Let's Encrypt: <https://letsencrypt.org/docs/acme-protocol-updates/> and <https://letsencrypt.org/docs/staging-environment/>
/// - ZeroSSL: <https://zerossl.com/documentation/acme/>
/// - Google Trust Services: <https://cloud.google.com/certificate-manager/docs/public-ca-tutorial>
/// - SSL.com: <https://www.ssl.com/guide/ssl-tls-certificate-issuance-and-revocation-with-acme/>; the directory for ECDSA keys. For RSA
///   keys it has <https://acme.ssl.com/sslcom-dv-rsa>.
///
/// How many certificates Let's Encrypt gives for the same identifiers: <https://letsencrypt.org/docs/rate-limits/>. Of the others no such
/// number was found.
///
/// All of them stand side by side at <https://go-acme.github.io/lego/advanced/caservers/>.
const KNOWN: &[Known] = &[
    Known {
        name: "letsencrypt",
        directory: "https://acme-v02.api.letsencrypt.org/directory",
        lineage: Lineage::Live,
        eab_from: None,
        weekly_limit: Some(5),
    },
    Known {
        name: "letsencrypt-staging",
        directory: "https://acme-staging-v02.api.letsencrypt.org/directory",
        lineage: Lineage::Staging,
        eab_from: None,
        weekly_limit: None,
    },
    Known {
        name: "zerossl",
        directory: "https://acme.zerossl.com/v2/DV90",
        lineage: Lineage::Live,
        eab_from: Some("https://app.zerossl.com/developer"),
        weekly_limit: None,
    },
    Known {
        name: "google",
        directory: "https://dv.acme-v02.api.pki.goog/directory",
        lineage: Lineage::Live,
        eab_from: Some("`gcloud publicca external-account-keys create`"),
        weekly_limit: None,
    },
    Known {
        name: "sslcom",
        directory: "https://acme.ssl.com/sslcom-dv-ecc",
        lineage: Lineage::Live,
        eab_from: Some("the API credentials page of your SSL.com account"),
        weekly_limit: None,
    },
];

/// Where to get the external account binding that a public CA insists on, if `settings` ask that CA and have none.
pub(super) fn eab_wanted_from(name: &str, settings: &AcmeSettings) -> Option<&'static str> {
    let known = KNOWN.iter().find(|known| known.name == name && known.directory == settings.directory)?;
    known.eab_from.filter(|_| settings.eab.is_none())
}

/// The name of the issuer that stands in for `name` under `--staging`.
pub(super) fn staging_name(name: &str) -> String {
    format!("{name}-staging")
}

/// Every issuer: the built-in ones, and those of the tables.
pub(super) fn read(field: Option<&Field<'_>>, contact: Option<&str>, base: &Base) -> Result<BTreeMap<String, IssuerSettings>, ConfigError> {
    let mut issuers = built_in(contact);
    for (name, field) in field.map_or_else(|| Ok(Vec::new()), Field::named)? {
        if !is_name(name) {
            return Err(field.rejected(format!("{name:?} cannot be a name"), "names are made of letters, digits, - and _"));
        }
        if name == MANUAL {
            return Err(field.rejected("this name means certificates that people supply", r#"write method = "manual" in the [[site]]"#));
        }
        let table = field.table(&format!("[issuer.{name}]"), KEYS)?;
        let settings = read_one(&table, issuers.remove(name), contact, base)?;
        issuers.insert(name.to_owned(), settings);
    }
    Ok(issuers)
}

fn built_in(contact: Option<&str>) -> BTreeMap<String, IssuerSettings> {
    let mut issuers = BTreeMap::from([
        (LOCAL_CA.to_owned(), IssuerSettings::LocalCa { lifetime: DEFAULT_LIFETIME }),
        ("self-signed".to_owned(), IssuerSettings::SelfSigned { lifetime: DEFAULT_LIFETIME }),
    ]);
    for known in KNOWN {
        let settings = AcmeSettings {
            directory: known.directory.to_owned(),
            trust: None,
            chain_trust: None,
            preferred_chain: None,
            eab: None,
            lineage: known.lineage,
            contact: contact.map(str::to_owned),
            weekly_limit: known.weekly_limit,
        };
        issuers.insert(known.name.to_owned(), IssuerSettings::Acme(Box::new(settings)));
    }
    issuers
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Kind {
    Acme,
    LocalCa,
    SelfSigned,
}

impl Kind {
    const WORDS: &[(&str, Self)] = &[("acme", Self::Acme), ("local-ca", Self::LocalCa), ("self-signed", Self::SelfSigned)];

    fn of(settings: &IssuerSettings) -> Self {
        match settings {
            IssuerSettings::Acme(_) => Self::Acme,
            IssuerSettings::LocalCa { .. } => Self::LocalCa,
            IssuerSettings::SelfSigned { .. } => Self::SelfSigned,
        }
    }
}

fn read_one(
    table: &Table<'_>,
    built_in: Option<IssuerSettings>,
    contact: Option<&str>,
    base: &Base,
) -> Result<IssuerSettings, ConfigError> {
    let choice = Choice { what: "kind of issuer", words: Kind::WORDS, later: &["script"] };
    let written = table.get("kind").map(|field| field.choose(&choice)).transpose()?;
    let kind = match (written, built_in.as_ref().map(Kind::of)) {
        (Some(kind), None) | (None, Some(kind)) => kind,
        (Some(written), Some(kind)) if written == kind => kind,
        (Some(_), Some(_)) => {
            let field = table.require("kind", "kind")?;
            return Err(field.rejected("a built-in issuer keeps its kind", "choose another name for your own"));
        }
        (None, None) => return Err(table.missing("kind", r#"kind = "acme""#)),
    };
    let lifetime = || table.duration("lifetime", Duration::from_secs(1)..=LONGEST_LIFETIME, DEFAULT_LIFETIME);
    match kind {
        Kind::Acme => acme(table, built_in, contact, base).map(Box::new).map(IssuerSettings::Acme),
        Kind::LocalCa => {
            table.only(&["kind", "lifetime"], "a local CA").and_then(|()| Ok(IssuerSettings::LocalCa { lifetime: lifetime()? }))
        }
        Kind::SelfSigned => table
            .only(&["kind", "lifetime"], "self-signed certificates")
            .and_then(|()| Ok(IssuerSettings::SelfSigned { lifetime: lifetime()? })),
    }
}

fn acme(table: &Table<'_>, built_in: Option<IssuerSettings>, contact: Option<&str>, base: &Base) -> Result<AcmeSettings, ConfigError> {
    table.only(
        &["kind", "directory", "trust", "chain_trust", "preferred_chain", "eab", "contact", "staging", "weekly_limit"],
        "an ACME issuer; its CA decides",
    )?;
    let inherited = match built_in {
        Some(IssuerSettings::Acme(inherited)) => Some(*inherited),
        _ => None,
    };
    let directory = match (table.get("directory"), &inherited) {
        (Some(field), _) => directory_url(&field)?,
        (None, Some(inherited)) => inherited.directory.clone(),
        (None, None) => directory_url(&table.require("directory", "directory = \"https://…\", the URL of the CA's ACME directory")?)?,
    };
    let own_limit = table.get("weekly_limit").map(|field| field.count(1..=MOST_WEEKLY)).transpose()?;
    // A number that a public CA publishes says nothing about what answers at another URL.
    let same = inherited.as_ref().filter(|inherited| inherited.directory == directory);
    let weekly_limit = own_limit.or_else(|| same.and_then(|inherited| inherited.weekly_limit));
    let lineage = match table.get("staging").map(|field| field.boolean()).transpose()? {
        Some(true) => Lineage::Staging,
        Some(false) => Lineage::Live,
        None => inherited.map_or(Lineage::Live, |inherited| inherited.lineage),
    };
    let own_contact = table.get("contact").map(|field| super::mail_address(&field)).transpose()?;
    Ok(AcmeSettings {
        directory,
        trust: table.path("trust", base)?,
        chain_trust: table.path("chain_trust", base)?,
        preferred_chain: table.text("preferred_chain")?,
        eab: table.get("eab").map(|field| eab(&field, base)).transpose()?,
        lineage,
        contact: own_contact.or_else(|| contact.map(str::to_owned)),
        weekly_limit,
    })
}

fn eab(field: &Field<'_>, base: &Base) -> Result<EabSettings, ConfigError> {
    const EXAMPLE: &str = r#"eab = { kid = "…", hmac_key = { env = "NAME" } }"#;
    let table = field.inner(EXAMPLE, EAB_KEYS)?;
    let kid = table.require("kid", EXAMPLE)?.text()?.to_owned();
    Ok(EabSettings { kid, hmac_key: Secret::read(&table.require("hmac_key", EXAMPLE)?, base)? })
}

/// ACME is spoken over HTTPS only (RFC 8555 section 6.1).
fn directory_url(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    let uri: Option<Uri> = text.parse().ok();
    let secure = uri.is_some_and(|uri| uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()));
    if secure && !text.contains('@') {
        return Ok(text.to_owned());
    }
    Err(field.rejected("it is not an https:// URL", "write the URL of the CA's ACME directory: \"https://ca.example/directory\""))
}
