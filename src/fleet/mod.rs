//! The use cases: what the commands do, on whatever datastore, issuers and files they are given.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::issuers::Issuers;
use self::progress::Progress;
use self::runtimedata::Runtimedata;
use self::seal::Seal;
use self::spool::Spool;
use crate::datastore::Datastore;
use crate::domain::record::Holder;

pub mod accounts;
pub mod agent;
mod budget;
pub mod bundle_object;
pub mod challenges;
pub mod delivery;
pub mod doctor;
pub mod election;
pub mod ensure;
pub mod first_use;
pub mod gather;
pub mod identity;
mod install;
mod issue;
pub mod issuers;
pub mod lease;
pub mod look;
pub mod node;
pub mod node_state;
pub mod place;
pub mod progress;
pub mod prune;
pub mod publish;
pub mod push;
pub mod report;
pub mod reporting;
pub mod revoke;
pub mod rollback;
pub mod runtimedata;
pub mod schedule;
pub mod seal;
pub mod site_error;
pub mod snapshot;
pub mod spool;
mod stand;
pub mod status;
mod wait;
pub mod windows;

/// Everything a run works with. The store, the names and the patience are passed in: nothing here asks the machine for them.
pub struct Fleet {
    /// The datastore.
    pub store: Arc<dyn Datastore>,
    /// How its secrets are sealed.
    pub seal: Seal,
    /// Whether generations may be created there.
    pub creates: Creates,
    /// Who this run is.
    pub holder: Holder,
    /// The issuers of the configuration.
    pub issuers: Issuers,
    /// The build machine's copies; `None` on a webserver, which has its own way to install.
    pub runtimedata: Option<Runtimedata>,
    /// What was issued and is not yet proven to be uploaded.
    pub spool: Spool,
    /// Told of every step.
    pub progress: Arc<dyn Progress>,
    /// Cancelled when the program should end.
    pub interrupt: CancellationToken,
    /// How long to wait for another machine that is at work.
    pub patience: Duration,
}

/// Whether generations may be created in a datastore, and what then decides between two.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Creates {
    /// The store refuses second creates, or nobody else creates.
    Exclusive,
    /// The store accepts second creates, and the operator accepts that two machines may make the same generation: candidates write, wait
    /// and look, and so do those who publish.
    BestEffort,
    /// The store accepts second creates: nothing may rest on them.
    Refused,
}
