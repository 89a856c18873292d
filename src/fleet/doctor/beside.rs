//! Whether the credentials can do more than they need: what leaks from one webserver should not open the rest of a bucket.

use bytes::Bytes;

use super::store::is_stored;
use crate::datastore::{Datastore, DatastoreError, FailureKind, PutMode};
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::object_key::ObjectKey;

/// What was found out about one call.
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
/// removed again.
pub async fn look(parent: &dyn Datastore, prefix: &str, run: &str) -> Finding {
    let key = ObjectKey::beside(run);
    let listed = answer(&parent.list(key.as_str(), None).await);
    let removed = answer(&parent.delete(&key).await);
    let written = match removed {
        Answer::Allowed => write(parent, &key, run).await,
        // It could not be taken away again.
        Answer::Refused | Answer::Unknown => Ok(Answer::Refused),
    };
    let written = match written {
        Ok(written) => written,
        Err(finding) => return *finding,
    };
    let calls = [("list", listed), ("write", written), ("delete", removed)];
    let allowed: Vec<_> = calls.iter().filter(|(_, answer)| matches!(answer, Answer::Allowed)).map(|(verb, _)| *verb).collect();
    if !allowed.is_empty() {
        let what = format!("these credentials can also {} beside {prefix}/ in the bucket", allowed.join(", "));
        return check().warning(what, REMEDY);
    }
    if calls.iter().any(|(_, answer)| matches!(answer, Answer::Unknown)) {
        return check().skipped("the store did not answer when it was asked for objects beside the prefix");
    }
    check().ok(format!("nothing beside {prefix}/ can be listed or removed"))
}

const REMEDY: &str = "limit them to the prefix: docs/configuration.md has a policy to start from";

async fn write(parent: &dyn Datastore, key: &ObjectKey, run: &str) -> Result<Answer, Box<Finding>> {
    let stored = parent.put(key, Bytes::from(format!("{run}\n")), PutMode::Create).await;
    // One that brought no answer may have been carried out.
    if is_stored(&stored) || matches!(&stored, Err(error) if error.kind == FailureKind::Passing) {
        let removed = parent.delete(key).await;
        if let Err(error) = removed {
            let what = format!("an object was written beside the prefix to try it out, and could not be removed: {key}");
            return Err(Box::new(check().warning(what, format!("remove it; {}", error.hint))));
        }
    }
    Ok(answer(&stored))
}

fn answer<T>(result: &Result<T, DatastoreError>) -> Answer {
    match result {
        Ok(_) => Answer::Allowed,
        Err(error) if error.kind == FailureKind::Lasting => Answer::Refused,
        Err(_) => Answer::Unknown,
    }
}
