//! `[datastore]`: where the fleet keeps what it shares.

use std::path::{Path, PathBuf};

use http::Uri;

use super::Environment;
use super::error::{ConfigError, Place, Setting};
use super::paths::{Base, is_segment};
use super::read::{Choice, Field, Table};
use super::secret::{IdentitySource, Secret};

/// The keys of `[datastore]`.
pub(super) const KEYS: &[&str] = &[
    "url",
    "endpoint",
    "region",
    "path_style",
    "server_side_encryption",
    "kms_key_id",
    "access_key",
    "secret_key",
    "ca_file",
    "proxy",
    "seal",
    "identity",
    "election",
];

/// Keys that a datastore has wherever it is.
const KEYS_OF_ANY: &[&str] = &["url", "seal", "identity", "election"];

/// Overrides `[datastore] url`.
pub(super) const VARIABLE: &str = "CERTFLEET_DATASTORE";

/// The datastore.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DatastoreSettings {
    /// Where it is.
    pub location: Location,
    /// Whether private keys are sealed before they are stored.
    pub seal: Seal,
    /// What opens the seals. Of no meaning with [`Seal::None`].
    pub identity: IdentitySource,
    /// How it is decided who renews.
    pub election: Election,
}

/// Where a datastore is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Location {
    /// A directory of this machine, or one that is mounted.
    Directory(PathBuf),
    /// A bucket.
    S3(Box<S3Settings>),
}

/// A bucket and the way to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct S3Settings {
    /// The bucket's name.
    pub bucket: String,
    /// What the keys of all objects begin with, without slashes at its ends; empty for the whole bucket.
    pub prefix: String,
    /// The store's URL, `https://fra1.digitaloceanspaces.com`; `None` for AWS.
    pub endpoint: Option<String>,
    /// The region; `None` for what the AWS chain says.
    pub region: Option<String>,
    /// Where the bucket's name stands in URLs.
    pub addressing: Addressing,
    /// What the store is asked to encrypt with.
    pub encryption: ServerSideEncryption,
    /// `None` for the AWS credential chain.
    pub credentials: Option<S3Credentials>,
    /// PEM roots that the store's certificate leads to; `None` for the system's.
    pub ca_file: Option<PathBuf>,
    /// An HTTP proxy's URL, without credentials; `None` for what HTTPS_PROXY, HTTP_PROXY and NO_PROXY say.
    pub proxy: Option<String>,
}

/// An access key and its secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct S3Credentials {
    /// The access key's id.
    pub access_key: Secret,
    /// The secret that belongs to it.
    pub secret_key: Secret,
}

/// Where the bucket's name stands in URLs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Addressing {
    /// In the host name: `https://bucket.endpoint/key`.
    VirtualHost,
    /// In the path: `https://endpoint/bucket/key`.
    Path,
}

/// What the store is asked to encrypt objects with, beside our own seal
/// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/serv-side-encryption.html>).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServerSideEncryption {
    /// Whatever the bucket does by itself.
    None,
    /// Keys of the store (SSE-S3).
    Aes256,
    /// Keys of AWS KMS (SSE-KMS).
    Kms {
        /// The key's id or ARN; `None` for the account's own S3 key.
        key_id: Option<String>,
    },
}

/// Whether private keys are sealed before they are stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Seal {
    /// With age, to the fleet's identity.
    Age,
    /// Not: whoever may read the bucket may read the keys.
    None,
}

/// How it is decided who renews.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Election {
    /// By leases, on a store that is proven to refuse the second of two creates.
    Exclusive,
    /// By candidacies, on a store that fails that proof: two machines may make the same generation, and the operator accepts that.
    BestEffort,
    /// The operator vouches that only one machine ever renews, as on a store that fails that proof.
    Sole,
}

/// A datastore's URL, with the setting it comes from.
struct Url {
    text: String,
    at: Setting,
}

/// What the environment of the Agile Deployment Toolkit says about the bucket.
#[derive(Clone, Debug)]
pub(super) struct ToolkitBucket {
    pub(super) url: String,
    pub(super) endpoint: String,
    pub(super) region: Option<String>,
    pub(super) credentials: Option<S3Credentials>,
}

/// Everything but the table itself that a datastore's settings come from.
pub(super) struct Surroundings<'a> {
    pub(super) environment: Environment<'a>,
    pub(super) base: &'a Base,
    /// What paths in environment variables start from.
    pub(super) current: &'a Base,
    pub(super) runtimedata: &'a Path,
    pub(super) toolkit: Option<ToolkitBucket>,
}

pub(super) fn read(table: &Table<'_>, around: &Surroundings<'_>) -> Result<DatastoreSettings, ConfigError> {
    let identity = match table.get("identity") {
        Some(field) => read_identity(&field, around.base)?,
        None => IdentitySource::File(around.runtimedata.join("identity.age")),
    };
    let seal = Choice { what: "seal", words: &[("age", Seal::Age), ("none", Seal::None)], later: &[] };
    let words = &[("exclusive", Election::Exclusive), ("best-effort", Election::BestEffort), ("sole", Election::Sole)];
    let election = Choice { what: "election", words, later: &[] };
    Ok(DatastoreSettings {
        location: location(table, around)?,
        seal: table.choose("seal", &seal, Seal::Age)?,
        identity,
        election: table.choose("election", &election, Election::Exclusive)?,
    })
}

/// A file is kept as a path, because it is made where there is none.
fn read_identity(field: &Field<'_>, base: &Base) -> Result<IdentitySource, ConfigError> {
    let secret = Secret::read(field, base)?;
    let file = field.inner("", super::secret::KEYS)?.path("file", base)?;
    Ok(file.map_or(IdentitySource::Secret(secret), IdentitySource::File))
}

fn location(table: &Table<'_>, around: &Surroundings<'_>) -> Result<Location, ConfigError> {
    let override_url = (around.environment)(VARIABLE).filter(|text| !text.is_empty());
    if let (None, Some(bucket)) = (&override_url, &around.toolkit) {
        return toolkit_bucket(table, around, bucket);
    }
    let field = table.get("url");
    let (url, base) = match (override_url, field) {
        (Some(text), _) => (Url { text, at: Setting::new(Place::Variable(VARIABLE.to_owned()), "datastore") }, around.current),
        (None, Some(field)) => (Url { text: field.text()?.to_owned(), at: field.setting() }, around.base),
        (None, None) => {
            let directory = Location::Directory(around.runtimedata.join("datastore"));
            return table.only(KEYS_OF_ANY, "a directory (there is no url)").map(|()| directory);
        }
    };
    match url.text.split_once(':') {
        Some(("file", path)) => {
            let directory = Location::Directory(url.directory(path, base)?);
            table.only(KEYS_OF_ANY, "a directory").map(|()| directory)
        }
        Some(("s3", rest)) => {
            let (bucket, prefix) = url.bucket(rest)?;
            s3(table, bucket, prefix, around).map(Box::new).map(Location::S3)
        }
        _ => Err(url.rejected("is neither s3://BUCKET/PREFIX nor file:DIRECTORY")),
    }
}

fn toolkit_bucket(table: &Table<'_>, around: &Surroundings<'_>, bucket: &ToolkitBucket) -> Result<Location, ConfigError> {
    let url = Url { text: bucket.url.clone(), at: Setting::new(Place::Variable("WEBSITE_URL".to_owned()), "bucket") };
    let (name, prefix) = url.bucket(bucket.url.trim_start_matches("s3:"))?;
    let settings = s3(table, name, prefix, around)?;
    let settings = S3Settings {
        endpoint: Some(bucket.endpoint.clone()),
        region: bucket.region.clone().or(settings.region),
        credentials: bucket.credentials.clone().or(settings.credentials),
        ..settings
    };
    Ok(Location::S3(Box::new(settings)))
}

impl Url {
    fn rejected(&self, why: &str) -> ConfigError {
        let hint = r#"write "s3://bucket/prefix", "file:some/directory" or "file:///some/directory""#;
        self.at.clone().rejected(format!("{:?} {why}", self.text), hint)
    }

    /// `file:relative`, `file:/whole`, `file:///whole` (RFC 8089).
    fn directory(&self, path: &str, base: &Base) -> Result<PathBuf, ConfigError> {
        let path = match path.strip_prefix("//") {
            None => path,
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) => return Err(self.rejected("names a host; a directory has three slashes or none")),
        };
        if path.is_empty() {
            return Err(self.rejected("names no directory"));
        }
        base.resolve(path).map_err(|why| self.rejected(&format!("cannot be used: {why}")))
    }

    /// Bucket names have 3 to 63 characters; some stores allow capitals and `_` beside what AWS allows
    /// (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html>).
    fn bucket(&self, rest: &str) -> Result<(String, String), ConfigError> {
        let rest = rest.strip_prefix("//").ok_or_else(|| self.rejected("needs two slashes after s3:"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
            return Err(self.rejected("names no bucket: 3 to 63 letters, digits, hyphens or dots"));
        }
        let prefix = prefix.trim_end_matches('/');
        if !prefix.is_empty() && !prefix.split('/').all(is_segment) {
            return Err(self.rejected("has an empty or special segment in its prefix"));
        }
        Ok((bucket.to_owned(), prefix.to_owned()))
    }
}

fn s3(table: &Table<'_>, bucket: String, prefix: String, around: &Surroundings<'_>) -> Result<S3Settings, ConfigError> {
    let plain = S3Settings {
        bucket,
        prefix,
        endpoint: None,
        region: None,
        addressing: Addressing::VirtualHost,
        encryption: ServerSideEncryption::None,
        credentials: None,
        ca_file: None,
        proxy: None,
    };
    let path_style = table.get("path_style").map(|field| field.boolean()).transpose()?;
    Ok(S3Settings {
        endpoint: table.get("endpoint").map(|field| server_url(&field)).transpose()?,
        region: table.text("region")?,
        addressing: if path_style == Some(true) { Addressing::Path } else { Addressing::VirtualHost },
        encryption: encryption(table)?,
        credentials: credentials(table, around.base)?,
        ca_file: table.path("ca_file", around.base)?,
        proxy: table.get("proxy").map(|field| server_url(&field)).transpose()?,
        ..plain
    })
}

fn encryption(table: &Table<'_>) -> Result<ServerSideEncryption, ConfigError> {
    let words = &[("none", None), ("AES256", Some("AES256")), ("aws:kms", Some("aws:kms"))];
    let choice = Choice { what: "server side encryption", words, later: &[] };
    let key_id = table.text("kms_key_id")?;
    match (table.choose("server_side_encryption", &choice, None)?, table.get("kms_key_id")) {
        (Some("aws:kms"), _) => Ok(ServerSideEncryption::Kms { key_id }),
        (_, Some(field)) => Err(field.rejected("does not apply without KMS", r#"write server_side_encryption = "aws:kms" as well"#)),
        (Some(_), None) => Ok(ServerSideEncryption::Aes256),
        (None, None) => Ok(ServerSideEncryption::None),
    }
}

fn credentials(table: &Table<'_>, base: &Base) -> Result<Option<S3Credentials>, ConfigError> {
    let secret = |key| table.get(key).map(|field| Secret::read(&field, base)).transpose();
    match (secret("access_key")?, secret("secret_key")?) {
        (Some(access_key), Some(secret_key)) => Ok(Some(S3Credentials { access_key, secret_key })),
        (None, None) => Ok(None),
        (Some(_), None) => Err(table.missing("secret_key", r#"secret_key = { env = "NAME" } beside access_key"#)),
        (None, Some(_)) => Err(table.missing("access_key", r#"access_key = { env = "NAME" } beside secret_key"#)),
    }
}

/// `http://` or `https://`, a host, perhaps a port, and nothing after it.
fn server_url(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    if text.contains('@') {
        // The text is not repeated: it may hold a password.
        return Err(field.rejected("it holds a user name or password", "only scheme, host and port: \"https://host:port\""));
    }
    let uri: Option<Uri> = text.parse().ok();
    let plain = uri.is_some_and(|uri| {
        let scheme = matches!(uri.scheme_str(), Some("http" | "https"));
        scheme && uri.host().is_some_and(|host| !host.is_empty()) && matches!(uri.path(), "" | "/") && uri.query().is_none()
    });
    if plain {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err(field.rejected(
        format!("{text:?} is not the URL of a server"),
        "write scheme and host, and nothing after them: \"https://s3.example.com\"",
    ))
}
