//! Answers to http-01 challenges where everybody may read them: `challenges/<token>` in the datastore.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::datastore::{Datastore, DatastoreError, PutMode};
use crate::domain::object_key::ObjectKey;
use crate::solver::SolverError;
use crate::solver::redirect::Shelf;

/// The part of the datastore that servers redirect to. An answer is no secret: the CA asks for it without any credentials.
#[derive(Debug)]
pub struct PublicAnswers(Arc<dyn Datastore>);

impl PublicAnswers {
    /// Those of this datastore.
    pub fn new(store: Arc<dyn Datastore>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl Shelf for PublicAnswers {
    async fn put(&self, token: &str, answer: &str) -> Result<(), SolverError> {
        let put = self.0.put(&key(token)?, Bytes::from(answer.to_owned()), PutMode::Overwrite).await;
        put.map(drop).map_err(|error| failed("put the answer into", error))
    }

    async fn remove(&self, token: &str) -> Result<(), SolverError> {
        self.0.delete(&key(token)?).await.map_err(|error| failed("delete the answer from", error))
    }
}

fn key(token: &str) -> Result<ObjectKey, SolverError> {
    ObjectKey::challenge(token).ok_or_else(|| SolverError {
        what: "the token of the challenge cannot be the name of an object".to_owned(),
        hint: "report it to the CA".to_owned(),
        source: None,
    })
}

fn failed(doing: &str, error: DatastoreError) -> SolverError {
    SolverError { what: format!("cannot {doing} the datastore"), hint: error.hint.clone(), source: Some(Box::new(error)) }
}
