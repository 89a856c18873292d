//! Whether the datastore can be reached, written and relied on, and whose clock differs from its own.

use bytes::Bytes;

use crate::datastore::{Datastore, DatastoreError, PutMode, probe};
use crate::domain::checkup::{Check, Finding, Part};
use crate::domain::object_key::ObjectKey;
use crate::domain::record::ExclusiveCreate;
use crate::domain::time::in_words;
use crate::fleet::snapshot::Snapshot;
use crate::system::clock::Instant;
use crate::system::error_chain::in_full;

/// From here on a clock is called wrong.
const WRONG_FROM_SECS: u64 = 60;

/// S3 refuses requests that are signed with a time this far from its own.
const REFUSED_FROM_SECS: u64 = 15 * 60;

/// A round that no race of creates has: those begin at 0.
const OWN_ROUND: usize = 99;

/// Who renews, as the configuration has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewers {
    /// Whoever is elected.
    Elected,
    /// One machine alone: the operator vouches for it.
    Sole,
    /// Whoever is elected, also where the store lets a second create through.
    BestEffort,
}

/// Lists everything. An error is the finding.
pub async fn reachable(store: &dyn Datastore) -> Result<(Finding, Snapshot), Finding> {
    let check = Check::new(Part::Datastore, "reachable");
    let begun = Instant::now();
    match store.list("", None).await {
        Ok(listing) => {
            let objects = listing.entries.len();
            let found = format!("listed in {} ms; it holds {objects} object{}", begun.elapsed().as_millis(), plural(objects));
            Ok((check.ok(found), Snapshot::read(&listing)))
        }
        Err(error) => Err(refused(check, &error)),
    }
}

/// What a person does about this machine's clock, `offset_secs` ahead of the store's.
pub fn clock(offset_secs: i64) -> Finding {
    let check = Check::new(Part::Datastore, "clock");
    let off = offset_secs.unsigned_abs();
    let seconds = format!("{offset_secs:+} s against the store's");
    if off < WRONG_FROM_SECS {
        return check.ok(seconds);
    }
    let way = if offset_secs < 0 { "behind" } else { "ahead of" };
    let what = format!("this machine's clock is {} {way} the store's", in_words(std::time::Duration::from_secs(off)));
    let remedy = "set the clock, and have a time service keep it: timedatectl set-ntp true";
    if off >= REFUSED_FROM_SECS {
        check.failed(format!("{what}: S3 stores refuse requests that are signed 15 minutes or more beside their own time"), remedy)
    } else {
        check.warning(format!("{what}: certfleet goes by the store's, but TLS, signatures and people go by this one"), remedy)
    }
}

/// Stores an object that is only for this, reads it back and removes it. `run` is 32 hexadecimal digits that nobody else has.
pub async fn writable(store: &dyn Datastore, run: &str) -> Finding {
    let check = Check::new(Part::Datastore, "writable");
    let key = ObjectKey::probe(run, OWN_ROUND);
    let body = Bytes::from(format!("{run}\n"));
    let stored = store.put(&key, body.clone(), PutMode::Overwrite).await;
    let read = store.get(&key).await;
    // Whatever became of the put: one that was answered by an error may have been carried out.
    let deleted = store.delete(&key).await;
    match (stored, read, deleted) {
        (Err(error), ..) | (_, Err(error), _) | (_, _, Err(error)) => refused(check, &error),
        (Ok(_), Ok(Some(found)), Ok(())) if found == body => match store.get(&key).await {
            Ok(None) => check.ok("an object was stored, read back and removed"),
            Ok(Some(_)) => check.failed(format!("{key} is still there after it was removed"), CONTRADICTS),
            Err(error) => refused(check, &error),
        },
        (Ok(_), Ok(_), Ok(())) => check.failed(format!("{key} does not come back as it was stored"), CONTRADICTS),
    }
}

/// Races creates against each other. `remembered` is what the fleet's manifest says of an earlier race, and goes by.
pub async fn exclusive_create(store: &dyn Datastore, run: &str, remembered: Option<ExclusiveCreate>, renewers: Renewers) -> Finding {
    let check = Check::new(Part::Datastore, "exclusive-create");
    let shown = match probe::exclusive_create(store, run).await {
        Ok(shown) => shown,
        Err(error) => return refused(check, &error),
    };
    match (shown, remembered, renewers) {
        (ExclusiveCreate::Broken, _, Renewers::Sole) => {
            check.ok("the store lets a second create through, which election = \"sole\" can do without, while one machine alone renews")
        }
        (ExclusiveCreate::Broken, Some(ExclusiveCreate::Honoured), Renewers::BestEffort) => {
            let manifest = ObjectKey::manifest();
            let what = format!("the store lets a second create through, and {manifest} remembers that it did not: the fleet goes by that");
            let remedy = format!("remove the object {manifest}; `certfleet ensure` on a machine with the fleet's identity writes it anew");
            check.failed(what, remedy)
        }
        (ExclusiveCreate::Broken, _, Renewers::BestEffort) => check
            .ok("the store lets a second create through: by election = \"best-effort\", now and then two certificates may be made for one"),
        (ExclusiveCreate::Broken, remembered, Renewers::Elected) => {
            // The fleet goes by the manifest: with the word of an earlier race in it, best effort would change nothing.
            let (before, also) = match remembered {
                Some(ExclusiveCreate::Honoured) => {
                    let manifest = ObjectKey::manifest();
                    let also = format!(
                        ", and remove the object {manifest}, which remembers otherwise: the next `certfleet ensure` writes it anew"
                    );
                    (", though it did not when the fleet began to use it", also)
                }
                _ => ("", String::new()),
            };
            let remedy = format!(
                "use a store that refuses the second of two creates (If-None-Match: *); or have one machine alone renew: election = \
                 \"sole\" in [datastore], and [agent] role = \"follower\" on every other; or set election = \"best-effort\" on all{also}"
            );
            check.failed(format!("in a race of creates the store lets more than one through{before}: no election can rest on it"), remedy)
        }
        (ExclusiveCreate::Honoured, Some(ExclusiveCreate::Broken), Renewers::Elected) => {
            let manifest = ObjectKey::manifest();
            let what = format!("the store refuses second creates, but {manifest} remembers that it did not: nothing is published");
            let remedy = format!("remove the object {manifest}; `certfleet ensure` on a machine with the fleet's identity writes it anew");
            check.failed(what, remedy)
        }
        (ExclusiveCreate::Honoured, ..) => check.ok("of creates that race, one wins"),
    }
}

/// A call that the store did not carry out.
pub(super) fn refused(check: Check, error: &DatastoreError) -> Finding {
    check.failed(in_full(error), error.hint.clone())
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

const CONTRADICTS: &str = "the store contradicts itself: see whether a cache or a replica answers in its place, or use another one";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::checkup::Verdict;

    #[test]
    fn clocks_are_called_wrong_from_a_minute_on() {
        for (offset, verdict) in [
            (0, Verdict::Ok),
            (59, Verdict::Ok),
            (-59, Verdict::Ok),
            (60, Verdict::Warning),
            (-60, Verdict::Warning),
            (899, Verdict::Warning),
            (900, Verdict::Failed),
            (i64::MIN, Verdict::Failed),
        ] {
            assert_eq!(clock(offset).verdict, verdict, "{offset}");
        }
        assert!(clock(-7_200).what.starts_with("this machine's clock is 2 hours behind the store's"), "{}", clock(-7_200).what);
    }
}
