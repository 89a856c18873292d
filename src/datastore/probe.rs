//! placeholder
use super::{Datastore, DatastoreError};
use crate::domain::record::ExclusiveCreate;
/// x
pub async fn exclusive_create(_store: &dyn Datastore, _run: &str) -> Result<ExclusiveCreate, DatastoreError> {
    Ok(ExclusiveCreate::Honoured)
}
