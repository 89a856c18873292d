//! A server that is told by a script: `providerscripts/deploy/<name>/{provider.toml, run}`.
//!
//! `run deploy` is called once for each site whose files have changed, after the switch; and once more after a switch back. Exit
//! status 0 is success; anything else fails the step. The environment is cleared but for
//!
//! | variable | is |
//! | --- | --- |
//! | `PATH`, `HOME` | as certfleet has them; the directories of system programs are added to `PATH` |
//! | the declared credentials and defaults | as configured |
//! | `CERTFLEET_SITE` | the site's name: `www.example.com` |
//! | `CERTFLEET_DIRECTORY` | where its files are: `…/live/www.example.com` |
//! | `CERTFLEET_IDENTIFIERS` | what its certificate vouches for, joined by commas |
//! | `RENEWED_LINEAGE` | the same as `CERTFLEET_DIRECTORY` |
//! | `RENEWED_DOMAINS` | the same as `CERTFLEET_IDENTIFIERS`, joined by spaces |
//!
//! The last two are what certbot gives its deploy hooks: <https://eff-certbot.readthedocs.io/en/stable/using.html#renewing-certificates>.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use zeroize::Zeroizing;

use super::{Deployed, Server, ServerError};
use crate::system::command::Command;
use crate::system::provider::{Provider, ProviderError};

/// A script that deploys.
pub struct DeployScript {
    name: String,
    run: String,
    settings: BTreeMap<String, Zeroizing<String>>,
    deadline: Duration,
}

impl DeployScript {
    /// Takes `dir/run` and `dir/provider.toml`, and checks both and the credentials. `deadline` is for one call, where the provider does not
    /// declare its own.
    pub fn load(dir: &Path, credentials: BTreeMap<String, Zeroizing<String>>, deadline: Duration) -> Result<Self, ProviderError> {
        let provider = Provider::read(dir)?;
        let settings = provider.settings(credentials)?;
        Ok(Self { run: Provider::run_path(dir)?, settings, deadline: provider.deadline.unwrap_or(deadline), name: provider.name })
    }

    async fn deploy(&self, deployed: &Deployed) -> Result<(), ServerError> {
        let identifiers: Vec<_> = deployed.identifiers.iter().map(ToString::to_string).collect();
        let directory = deployed.directory.to_string_lossy();
        let mut command = Command::new(&self.run, self.deadline).arg("deploy").inherit_path_with_system_programs();
        for (name, value) in &self.settings {
            command = command.env(name, value.as_str());
        }
        let command = command
            .env("CERTFLEET_SITE", deployed.site.to_string())
            .env("CERTFLEET_DIRECTORY", directory.clone())
            .env("CERTFLEET_IDENTIFIERS", identifiers.join(","))
            .env("RENEWED_LINEAGE", directory)
            .env("RENEWED_DOMAINS", identifiers.join(" "));
        // One with `set -x` in it writes its credentials.
        let ended = command.run().await.map_err(|error| error.without(self.settings.values().map(|value| value.as_str())));
        ended.map(drop).map_err(|source| ServerError::Deploy { script: self.name.clone(), site: deployed.site.clone(), source })
    }
}

#[async_trait]
impl Server for DeployScript {
    fn name(&self) -> &str {
        &self.name
    }

    async fn test(&self) -> Result<(), ServerError> {
        Ok(())
    }

    /// One after the other: scripts restart things. The first that fails ends it.
    async fn reload(&self, deployed: &[Deployed]) -> Result<(), ServerError> {
        for deployed in deployed {
            self.deploy(deployed).await?;
        }
        Ok(())
    }
}

impl fmt::Debug for DeployScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings: Vec<_> = self.settings.keys().collect();
        f.debug_struct("DeployScript")
            .field("name", &self.name)
            .field("run", &self.run)
            .field("settings", &settings)
            .finish_non_exhaustive()
    }
}
