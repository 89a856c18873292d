//! What can end the work on one site, what it means for the run, and what a person can do.

use thiserror::Error;

use super::election::ElectionError;
use super::publish::PublishError;
use super::report::Outcome;
use super::seal::SealError;
use crate::datastore::{DatastoreError, FailureKind};
use crate::domain::object_key::ObjectKey;
use crate::issuer::acme::AccountsError;
use crate::system::files::FileError;

/// Whoever has looked this often without an end sees a datastore that does not keep its word.
pub(super) const MOST_LOOKS: usize = 20;

/// Every way out, with what it costs.
const NOT_EXCLUSIVE: &str = "use a store that honours If-None-Match; or set [datastore] election = \"sole\", if only this one machine ever \
    renews and no other publishes; or, on every machine, election = \"best-effort\": machines elect who renews, a renewal takes ten seconds \
    longer, and now and then the CA may be asked for two certificates of which one is discarded";

/// The ways out where no election is possible.
const UNSEEN: &str = "use a store that lists what it was given at once; or set [datastore] election = \"sole\", if only this one machine ever \
    renews and no other publishes";

/// Why nothing could be settled for a site.
#[derive(Debug, Error)]
pub enum SiteError {
    /// The store did not answer, or refused the call.
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    /// No candidacy was possible.
    #[error(transparent)]
    Election(#[from] ElectionError),
    /// The fleet's account at an issuer could not be read or kept.
    #[error(transparent)]
    Account(#[from] AccountsError),
    /// A publication could not be proven.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// A key could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The store does not refuse second creates, so nothing may be created.
    #[error("the datastore accepts a second create of the same object: two machines could publish two certificates for one generation")]
    NotExclusive,
    /// A generation that is installed here was lost by the datastore, and lies there again with another content.
    #[error("{0} in the datastore is not what is installed here under that number")]
    OtherContent(ObjectKey),
    /// The person, or the system, asked the program to end.
    #[error("interrupted")]
    Interrupted,
    /// The datastore contradicts itself.
    #[error("the datastore showed something else at each of {MOST_LOOKS} looks")]
    Unsettled,
}

impl SiteError {
    /// The store's own error, where it is one.
    fn of_store(&self) -> Option<&DatastoreError> {
        match self {
            Self::Datastore(error) | Self::Election(ElectionError::Datastore(error)) | Self::Publish(PublishError::Datastore(error)) => {
                Some(error)
            }
            Self::Account(error) => error.source.as_deref().and_then(|source| source.downcast_ref()),
            _ => None,
        }
    }

    /// Whether the store has been reached, and will not have it: trying again changes nothing, and what is in place still serves.
    pub(super) fn is_refusal(&self) -> bool {
        let refused = |error: &DatastoreError| error.kind == FailureKind::Lasting;
        let unusable = matches!(self, Self::NotExclusive | Self::Account(_) | Self::Election(ElectionError::Unseen(_)));
        unusable && self.of_store().is_none() || self.of_store().is_some_and(refused)
    }

    pub(super) fn outcome(&self) -> Outcome {
        match (self, self.of_store().map(|error| error.kind)) {
            (_, Some(FailureKind::Passing)) | (Self::Interrupted | Self::Publish(PublishError::Interrupted(_)) | Self::Unsettled, _) => {
                Outcome::Temporary
            }
            _ => Outcome::Failed,
        }
    }

    pub(super) fn hint(&self) -> String {
        if let Some(error) = self.of_store() {
            return error.hint.clone();
        }
        match self {
            Self::Account(error) => error.hint.clone(),
            Self::Election(ElectionError::Unseen(_)) => UNSEEN.to_owned(),
            Self::Datastore(_) | Self::Election(_) => "update certfleet on this machine, or try again in two minutes".to_owned(),
            Self::Publish(PublishError::Interrupted(_)) => "the next run looks what lies there, and goes on from that".to_owned(),
            Self::Publish(_) => {
                "the store does not keep what it is given: check its replication and any program that changes objects".to_owned()
            }
            Self::File(error) => error.hint(),
            Self::Seal(_) => "check the identity file".to_owned(),
            Self::NotExclusive => NOT_EXCLUSIVE.to_owned(),
            Self::OtherContent(_) => {
                "is this the fleet's own datastore? If it is, the next run takes what lies there, unless that ends sooner".to_owned()
            }
            Self::Interrupted => "run the same command again: it goes on where this run stopped".to_owned(),
            Self::Unsettled => "see `aws s3 ls` for that prefix: some other program seems to change it".to_owned(),
        }
    }
}
