//! Whether the credentials can do more than they need: what leaks from one webserver should not open the rest of a bucket.

use bytes::Bytes;

use crate::datastore::{Datastore, DatastoreError, FailureKind, PutMode};
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::object_key::ObjectKey;

/// What was found out about one call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    Allowed,
    Refused,
    /// It did not get as far as an answer.
    Unknown,
}

/// A check of what the credentials are allowed to do.
pub fn check() -> Check {
    Check::new(Part::Datastore, "least-privilege")
}

/// Tries to list, write and remove beside the fleet's own `prefix`. `parent` is the store one level up: the whole bucket, or a longer
/// prefix. Only an object that nobody else can have is touched (`run`: 32 hexadecimal digits), and it is written only where it can be
/// removed again, which is left to the [`Tried`](super::remains::Tried) that `parent` is.
pub async fn look(parent: &dyn Datastore, prefix: &str, run: &str) -> Finding {
    let key = ObjectKey::beside(run);
    let listed = answer(&parent.list(key.as_str(), None).await);
    let removed = answer(&parent.delete(&key).await);
    let written = match removed {
        Answer::Allowed => answer(&parent.put(&key, Bytes::from(format!("{run}\n")), PutMode::Create).await),
        // It could not be taken away again.
        Answer::Refused | Answer::Unknown => Answer::Refused,
    };
    let calls = [("list", listed), ("write", written), ("delete", removed)];
    let allowed: Vec<_> = calls.iter().filter(|(_, answer)| *answer == Answer::Allowed).map(|(verb, _)| *verb).collect();
    if [written, removed].contains(&Answer::Allowed) {
        let what = format!("these credentials can also {} beside {prefix}/ in the bucket", allowed.join(", "));
        return check().warning(what, REMEDY);
    }
    if calls.iter().any(|(_, answer)| *answer == Answer::Unknown) {
        return check().skipped("the store did not answer when it was asked for objects beside the prefix");
    }
    check().ok(match listed {
        // Some stores answer 403 for objects that are not there, unless the whole bucket may be listed: that may well be needed.
        Answer::Allowed => format!("names beside {prefix}/ can be listed, which some stores need; nothing there can be removed"),
        Answer::Refused | Answer::Unknown => format!("nothing beside {prefix}/ can be listed or removed"),
    })
}

const REMEDY: &str = "limit them to the prefix: docs/configuration.md has a policy to start from";

fn answer<T>(result: &Result<T, DatastoreError>) -> Answer {
    match result {
        Ok(_) => Answer::Allowed,
        Err(error) if error.kind == FailureKind::Lasting => Answer::Refused,
        Err(_) => Answer::Unknown,
    }
}
