//! TXT records at a provider that is built in.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use dns_update::providers::route53::Route53Config;
use dns_update::{DnsRecord, DnsRecordType, DnsUpdater, Error};
use zeroize::Zeroizing;

use aws_sdk_s3::config::ProvideCredentials as _;

use super::Records;
use super::providers::Provider;
use super::redaction::without;
use super::zone::{Place, shown};
use crate::solver::SolverError;
use crate::system::error_chain::in_full;

/// How long one change may take: a few requests, each with its own deadline, and pauses that the provider asks for.
const CHANGE: Duration = Duration::from_secs(3 * 60);

/// How long others may remember our values, in seconds: as short as most providers allow.
const TTL: u32 = 60;

/// A provider, and how it is asked.
pub struct Updater {
    name: &'static str,
    documentation: &'static str,
    way: Way,
    secrets: Vec<Zeroizing<String>>,
}

enum Way {
    Built(Box<DnsUpdater>),
    /// Route 53 with the credentials that AWS's own tools would find, which may change from hour to hour.
    AwsChain {
        hosted_zone_id: Option<String>,
    },
}

#[derive(Clone, Copy)]
enum Change {
    Add,
    Remove,
}

impl Updater {
    pub(super) fn new(provider: &Provider, updater: DnsUpdater, secrets: Vec<Zeroizing<String>>) -> Self {
        Self { name: provider.name, documentation: provider.documentation, way: Way::Built(Box::new(updater)), secrets }
    }

    pub(super) fn with_the_aws_chain(hosted_zone_id: Option<String>) -> Self {
        let documentation = "https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html";
        Self { name: "route53", documentation, way: Way::AwsChain { hosted_zone_id }, secrets: Vec::new() }
    }

    async fn change(&self, change: Change, place: &Place, value: &str) -> Result<(), SolverError> {
        let (updater, secrets) = match &self.way {
            Way::Built(updater) => (DnsUpdater::clone(updater), self.secrets.clone()),
            Way::AwsChain { hosted_zone_id } => from_the_chain(hosted_zone_id.clone()).await?,
        };
        let (record, zone) = (shown(&place.record), shown(&place.zone));
        let records = vec![DnsRecord::TXT(value.to_owned())];
        let changing = async {
            match change {
                Change::Add => updater.add_to_rrset(&record, DnsRecordType::TXT, TTL, records, &zone).await,
                Change::Remove => match updater.remove_from_rrset(&record, DnsRecordType::TXT, records, &zone).await {
                    Err(Error::NotFound) => Ok(()),
                    removed => removed,
                },
            }
        };
        let done = tokio::time::timeout(CHANGE, changing).await;
        let why = match done {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => without(&error.to_string(), secrets.iter().map(|secret| secret.as_str())),
            Err(_) => format!("no end within {}", humantime::format_duration(CHANGE)),
        };
        let doing = match change {
            Change::Add => "add a value to",
            Change::Remove => "remove our value from",
        };
        let hint = format!(
            "check that the zone {zone} is in this account at {} and that the credentials may change it; see {}",
            self.name, self.documentation
        );
        Err(SolverError {
            what: format!("DNS provider {}: cannot {doing} {record} in the zone {zone}: {why}", self.name),
            hint,
            source: None,
        })
    }
}

async fn from_the_chain(hosted_zone_id: Option<String>) -> Result<(DnsUpdater, Vec<Zeroizing<String>>), SolverError> {
    let refused = |why: String| SolverError {
        what: format!("DNS provider route53: no credentials of AWS: {why}"),
        hint: "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY as credentials, or the machine a role".to_owned(),
        source: None,
    };
    let config = aws_config::load_defaults(BehaviorVersion::latest()).await;
    let provider = config.credentials_provider().ok_or_else(|| refused("none is configured".to_owned()))?;
    let found = provider.provide_credentials().await.map_err(|error| refused(in_full(&error)))?;
    let updater = DnsUpdater::new_route53(Route53Config {
        access_key_id: found.access_key_id().to_owned(),
        secret_access_key: found.secret_access_key().to_owned(),
        session_token: found.session_token().map(str::to_owned),
        region: None,
        hosted_zone_id,
        private_zone_only: None,
        endpoint: None,
    });
    let updater = updater.map_err(|error| refused(error.to_string()))?;
    let secrets = [Some(found.secret_access_key()), found.session_token()];
    Ok((updater, secrets.into_iter().flatten().map(|secret| Zeroizing::new(secret.to_owned())).collect()))
}

#[async_trait]
impl Records for Updater {
    async fn add(&self, place: &Place, value: &str) -> Result<(), SolverError> {
        self.change(Change::Add, place, value).await
    }

    async fn remove(&self, place: &Place, value: &str) -> Result<(), SolverError> {
        self.change(Change::Remove, place, value).await
    }
}

impl fmt::Debug for Updater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Updater").field("name", &self.name).finish_non_exhaustive()
    }
}
