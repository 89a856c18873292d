//! dns-01: a TXT record at the zone's provider, and the certainty that every server of the zone shows it before the CA looks.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::rr::Name;

use super::{Challenge, ChallengeKind, DNS_01_LABEL, Presented, Solver, SolverError};
use zone::{Place, Resolver};

pub mod acme_sh;
mod propagation;
pub mod providers;
mod question;
mod redaction;
mod updater;
pub mod zone;

/// Changes TXT records.
#[async_trait]
pub trait Records: fmt::Debug + Send + Sync {
    /// Adds a value to those at the place. One that is there already is no failure.
    async fn add(&self, place: &Place, value: &str) -> Result<(), SolverError>;

    /// Removes this value and leaves others alone. One that is gone already is no failure.
    async fn remove(&self, place: &Place, value: &str) -> Result<(), SolverError>;
}

/// Answers with TXT records.
#[derive(Debug)]
pub struct Dns01 {
    records: Box<dyn Records>,
    resolver: Resolver,
    alias: Option<Name>,
    patience: Duration,
    /// Where the value of each challenge was put, or may have been.
    places: Mutex<HashMap<String, Place>>,
}

/// Changes of one zone wait for each other, whichever solver makes them: many providers know records by lists that are read and written
/// whole.
static TURNS: LazyLock<Mutex<HashMap<Name, Arc<tokio::sync::Mutex<()>>>>> = LazyLock::new(Mutex::default);

impl Dns01 {
    /// Will change `records`, and then wait for `patience` at most until all servers show it.
    pub fn new(records: Box<dyn Records>, resolver: Resolver, patience: Duration) -> Self {
        Self { records, resolver, alias: None, patience, places: Mutex::default() }
    }

    /// Puts every value at `alias`, a name that the CNAME records of all challenges lead to.
    pub fn with_alias(mut self, alias: &str) -> Result<Self, SolverError> {
        self.alias = Some(name(alias)?);
        Ok(self)
    }

    async fn place(&self, challenge: &Challenge) -> Result<Place, SolverError> {
        let record = match (&self.alias, challenge.identifier.base_name()) {
            (Some(alias), _) => alias.clone(),
            (None, Some(base)) => name(&format!("{DNS_01_LABEL}.{base}"))?,
            (None, None) => {
                let what = format!("{} has no name in the DNS", challenge.identifier);
                return Err(SolverError { what, hint: "use a solver of kind http-01 for it".to_owned(), source: None });
            }
        };
        self.resolver.place(&record).await
    }

    fn known_place(&self, challenge: &Challenge) -> Option<Place> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner).get(&challenge.dns_value).cloned()
    }
}

fn turn(zone: &Name) -> Arc<tokio::sync::Mutex<()>> {
    Arc::clone(TURNS.lock().unwrap_or_else(PoisonError::into_inner).entry(zone.to_lowercase()).or_default())
}

fn name(text: &str) -> Result<Name, SolverError> {
    let name = Name::from_ascii(text).map(|mut name| {
        name.set_fqdn(true);
        name
    });
    name.map_err(|error| SolverError {
        what: format!("{text:?} is not a name in the DNS"),
        hint: "names are made of letters, digits, hyphens and dots".to_owned(),
        source: Some(Box::new(error)),
    })
}

#[async_trait]
impl Solver for Dns01 {
    fn kind(&self) -> ChallengeKind {
        ChallengeKind::Dns01
    }

    async fn present(&self, challenge: &Challenge) -> Result<Presented, SolverError> {
        let place = self.place(challenge).await?;
        // Before the change: one that is broken off may have been made.
        self.places.lock().unwrap_or_else(PoisonError::into_inner).insert(challenge.dns_value.clone(), place.clone());
        let turn = turn(&place.zone);
        let _turn = turn.lock().await;
        self.records.add(&place, &challenge.dns_value).await?;
        Ok(Presented::default())
    }

    async fn confirm(&self, challenge: &Challenge) -> Result<(), SolverError> {
        match self.known_place(challenge) {
            Some(place) => propagation::wait(&self.resolver, &place, &challenge.dns_value, self.patience).await,
            None => Ok(()),
        }
    }

    async fn clean_up(&self, challenge: &Challenge, _presented: &Presented) -> Result<(), SolverError> {
        // Nothing was put anywhere.
        let Some(place) = self.known_place(challenge) else { return Ok(()) };
        let turn = turn(&place.zone);
        let _turn = turn.lock().await;
        self.records.remove(&place, &challenge.dns_value).await?;
        self.places.lock().unwrap_or_else(PoisonError::into_inner).remove(&challenge.dns_value);
        Ok(())
    }
}
