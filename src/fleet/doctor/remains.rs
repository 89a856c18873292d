//! What a look writes into the datastore to try it out is remembered until it is removed again, so that it is also removed where the look
//! was cut short.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use super::{DEADLINE, within};
use crate::datastore::{Datastore, DatastoreError, FailureKind, Listing, Put, PutMode};
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::object_key::ObjectKey;
use crate::system::error_chain::in_full;

/// Objects removed at the same time.
const AT_ONCE: usize = 8;

/// A datastore that remembers what was put into it and may still be there.
#[derive(Debug)]
pub struct Tried {
    store: Arc<dyn Datastore>,
    /// By how many puts that were not refused.
    written: Mutex<BTreeMap<ObjectKey, usize>>,
}

impl Tried {
    /// Passes every call on to `store`.
    pub fn new(store: Arc<dyn Datastore>) -> Self {
        Self { store, written: Mutex::default() }
    }

    /// Removes what is still there: to be called after the looks, and outside of their deadlines. What stays is the finding.
    pub async fn clean_up(&self) -> Option<Finding> {
        let keys: Vec<_> = self.written().keys().cloned().collect();
        if keys.is_empty() {
            return None;
        }
        let failures = Mutex::new(Vec::new());
        let check = Check::new(Part::Datastore, "clean-up");
        // Whether it came to an end shows in what is still remembered.
        let removing = async {
            let failed: Vec<_> = stream::iter(&keys).map(|key| self.delete(key)).buffer_unordered(AT_ONCE).collect().await;
            *failures.lock().unwrap_or_else(PoisonError::into_inner) = failed.into_iter().filter_map(Result::err).collect();
            Vec::new()
        };
        let slow = within(DEADLINE, check.clone(), removing).await.into_iter().next().map(|finding| finding.what);
        let remaining: Vec<_> = self.written().keys().map(ToString::to_string).collect();
        if remaining.is_empty() {
            return None;
        }
        let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
        let first: Option<DatastoreError> = failures.into_iter().next();
        let why = slow.or_else(|| first.as_ref().map(|error| in_full(error))).unwrap_or_default();
        let hint = first.map(|error| format!("; {}", error.hint)).unwrap_or_default();
        let what = format!("may be left of what was written to try the store out: {}: {why}", remaining.join(", "));
        Some(check.warning(what, format!("remove what is left{hint}")))
    }

    fn written(&self) -> MutexGuard<'_, BTreeMap<ObjectKey, usize>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Datastore for Tried {
    async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
        self.store.get(key).await
    }

    async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
        // Before it is sent: one that is cut short may have been carried out.
        *self.written().entry(key.clone()).or_default() += 1;
        let answer = self.store.put(key, body, mode).await;
        if matches!(&answer, Err(error) if error.kind == FailureKind::Lasting) {
            let mut written = self.written();
            let left = written.get(key).map_or(0, |count| count.saturating_sub(1));
            if left == 0 {
                written.remove(key)
            } else {
                written.insert(key.clone(), left)
            };
        }
        answer
    }

    async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
        self.store.list(prefix, start_after).await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
        let answer = self.store.delete(key).await;
        if answer.is_ok() {
            self.written().remove(key);
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datastore::memory::MemoryDatastore;
    use crate::fleet::doctor::{Patience, beside};
    use tokio_util::sync::CancellationToken;

    /// Carries out what it is asked for; where it is told to, it never answers a put, or refuses to delete what is there.
    #[derive(Debug)]
    struct Faulty {
        inner: MemoryDatastore,
        keeps: bool,
    }

    #[async_trait]
    impl Datastore for Faulty {
        async fn get(&self, key: &ObjectKey) -> Result<Option<Bytes>, DatastoreError> {
            self.inner.get(key).await
        }

        async fn put(&self, key: &ObjectKey, body: Bytes, mode: PutMode) -> Result<Put, DatastoreError> {
            self.inner.put(key, body, mode).await?;
            std::future::pending().await
        }

        async fn list(&self, prefix: &str, start_after: Option<&str>) -> Result<Listing, DatastoreError> {
            self.inner.list(prefix, start_after).await
        }

        async fn delete(&self, key: &ObjectKey) -> Result<(), DatastoreError> {
            if self.keeps && self.inner.get(key).await?.is_some() {
                return Err(DatastoreError {
                    call: format!("delete {key}"),
                    kind: FailureKind::Lasting,
                    hint: "allow it".to_owned(),
                    source: "refused on purpose".into(),
                });
            }
            self.inner.delete(key).await
        }
    }

    fn faulty(keeps: bool) -> Arc<Faulty> {
        Arc::new(Faulty { inner: MemoryDatastore::new(chrono::DateTime::UNIX_EPOCH), keeps })
    }

    /// The first finding, after a look beside the prefix that was cut short, and how many objects it has left.
    async fn cut_short(store: &Arc<Faulty>, tried: &Tried, patience: &Patience) -> (String, usize) {
        let look = async { vec![beside::look(tried, "fleet", "00ff").await] };
        let findings = patience.within(DEADLINE, beside::check(), look).await;
        (findings[0].what.clone(), store.list("", None).await.expect("a listing").entries.len())
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_look_that_was_cut_short_has_written_is_removed() {
        let store = faulty(false);
        let tried = Tried::new(Arc::clone(&store) as Arc<dyn Datastore>);
        let (what, objects) = cut_short(&store, &tried, &Patience::default()).await;
        assert_eq!((what.as_str(), objects), ("no end after 40s", 1));
        assert_eq!(tried.clean_up().await, None);
        assert_eq!(store.list("", None).await.expect("a listing").entries, []);
    }

    #[tokio::test]
    async fn it_is_removed_too_where_the_run_was_asked_to_end() {
        let store = faulty(false);
        let tried = Tried::new(Arc::clone(&store) as Arc<dyn Datastore>);
        let interrupt = CancellationToken::new();
        let patience = Patience::until(interrupt.clone());
        let asked = async {
            tokio::task::yield_now().await;
            interrupt.cancel();
        };
        let ((what, objects), ()) = tokio::join!(cut_short(&store, &tried, &patience), asked);
        assert_eq!((what.as_str(), objects), ("interrupted", 1));
        assert_eq!(tried.clean_up().await, None);
        assert_eq!(store.list("", None).await.expect("a listing").entries, []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_removed_is_named() {
        let store = faulty(true);
        let tried = Tried::new(Arc::clone(&store) as Arc<dyn Datastore>);
        assert_eq!(cut_short(&store, &tried, &Patience::default()).await.1, 1);
        let finding = tried.clean_up().await.expect("a finding");
        assert!(finding.what.contains(ObjectKey::beside("00ff").as_str()) && finding.what.contains("refused on purpose"), "{finding:?}");
        assert!(finding.remedy.is_some_and(|remedy| remedy.contains("allow it")));
    }
}
