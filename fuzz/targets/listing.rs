//! Keys that a listing of the bucket yields.

use certfleet::domain::object_key::{Listed, ObjectKey};

use super::{Verdict, assert_segment};

pub fn check(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    if let Some(account) = ObjectKey::account(text) {
        assert_segment(text);
        assert_eq!(ObjectKey::from_listing(account.as_str()), Some(account));
    }
    let Some(key) = ObjectKey::from_listing(text) else { return Verdict::Refused };
    assert_eq!(key.as_str(), text);
    text.split('/').for_each(assert_segment);
    // What counts as an object of ours is the one that we would write: no stranger's object stands in for it.
    let ours = match key.listed() {
        Listed::Bundle(site, generation) => Some(ObjectKey::bundle(&site, generation)),
        Listed::Lease(site, generation, attempt) => Some(ObjectKey::lease(&site, generation, attempt)),
        Listed::Candidacy(site, generation, attempt, run) => Some(ObjectKey::candidacy(&site, generation, attempt, &run)),
        Listed::Revocation(site, generation, key) => Some(ObjectKey::revocation(&site, generation, &key)),
        Listed::Manifest => Some(ObjectKey::manifest()),
        Listed::Node(node) => ObjectKey::node(&node),
        Listed::Challenge(token) => ObjectKey::challenge(&token),
        Listed::Window(site) => Some(ObjectKey::window(&site)),
        Listed::Probe => Some(key.clone()),
        Listed::Other => return Verdict::Refused,
    };
    assert_eq!(ours, Some(key));
    Verdict::Accepted
}
