//! Whether what is installed is what the datastore has under that number.
//!
//! A generation has one content for ever where creates decide. Where they do not, or where a bucket lost a generation that another machine
//! made anew, nodes that took the first content notice by the ETag in the listing that there is another one, and take that.

use super::{Obtained, PlaceReport, refused};
use crate::domain::node_plan::Presence;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::plan::Source;
use crate::domain::site::SiteName;
use crate::fleet::agent::NodeSiteReport;
use crate::fleet::bundle_object::{self, Opened};
use crate::fleet::gather::Held;
use crate::fleet::node::{Node, PlaceObserved, Root, SiteObserved};
use crate::fleet::node_state::KnownPlace;
use crate::fleet::site_error::SiteError;
use crate::fleet::snapshot::Snapshot;
use crate::fleet::{Creates, Fleet};
use crate::system::error_chain::in_full;

impl Fleet {
    /// The content that the datastore has, if it is another one than what is installed, and does not end sooner: the fleet never goes back
    /// (I2), and what is installed serves until the next generation.
    pub(super) async fn compare(
        &self,
        node: &Node,
        observed: &SiteObserved,
        generation: Generation,
        held: Option<Held>,
        snapshot: &Snapshot,
    ) -> Result<Obtained, SiteError> {
        let site = &observed.site.name;
        let key = ObjectKey::bundle(site, generation);
        let again = self.again(observed, held.as_ref());
        // What vanished after it was listed, the next run puts back.
        let Some(object) = self.store.get(&key).await? else { return Ok(again) };
        let etag = snapshot.etag(site).map(str::to_owned);
        let installed = || observed.places.iter().filter(|place| is_at(place, generation));
        let same = |place: &PlaceObserved| {
            node.roots[place.root].ssl.object(site, generation).is_ok_and(|there| there.as_deref() == Some(&object[..]))
        };
        if installed().all(same) {
            return Ok(Obtained { etag, ..again });
        }
        let opened = match bundle_object::open(&self.seal, site, generation, &object) {
            Ok(opened) => opened,
            Err(error) => {
                let what = format!("{key} is not what is installed under that number, and cannot be used: {}", in_full(&error));
                return Ok(Obtained { opened: again.opened, ..refused(what) });
            }
        };
        let is_meant = observed.mismatch || opened.record.rollback_to.is_some();
        let not_after = opened.bundle.leaf().not_after;
        if !is_meant && installed().filter_map(|place| place.known.as_ref()).any(|known| known.not_after > not_after) {
            return Ok(Obtained { etag, ..again });
        }
        Ok(Obtained::with(opened, Source::Datastore))
    }

    /// The ETag of what was fetched, where the listing is known to speak of the same bytes: an object that can be overwritten may have been
    /// between the two, and is compared by the next run.
    pub(super) fn etag_of(&self, obtained: &Obtained, site: &SiteName, snapshot: &Snapshot) -> Option<String> {
        let generation = obtained.opened.as_ref()?.record.generation;
        let certain = obtained.fetched && self.creates == Creates::Exclusive && snapshot.highest(site) == generation;
        snapshot.etag(site).filter(|_| certain).map(str::to_owned)
    }

    /// What lies in a directory under the number of `opened`, which is another content.
    pub(super) fn same_number(&self, root: &Root, observed: &SiteObserved, before: &PlaceObserved, opened: &Opened) -> Option<Opened> {
        let generation = opened.record.generation;
        if !is_at(before, generation) {
            return None;
        }
        let object = root.ssl.object(&observed.site.name, generation).ok().flatten()?;
        bundle_object::open(&self.seal, &observed.site.name, generation, &object).ok()
    }
}

fn is_at(place: &PlaceObserved, wanted: Generation) -> bool {
    matches!(place.presence, Presence::Whole { generation, .. } if generation == wanted)
}

/// Whether a bundle lies in a directory, byte for byte.
pub(super) fn lies_there(root: &Root, observed: &SiteObserved, before: &PlaceObserved, opened: &Opened) -> bool {
    let there = || root.ssl.object(&observed.site.name, opened.record.generation).ok().flatten();
    is_at(before, opened.record.generation) && there().is_some_and(|there| there == opened.object)
}

/// What was compared, and stays, need not be compared again.
pub(super) fn note_compared(report: &mut NodeSiteReport, obtained: &Obtained) {
    let Some(opened) = &obtained.opened else { return };
    for place in &mut report.places {
        note_etag(place, opened, obtained.etag.as_ref());
    }
}

/// Remembers under which ETag the datastore lists what lies there.
pub(super) fn note_etag(place: &mut PlaceReport, opened: &Opened, etag: Option<&String>) {
    if let (Some(known), Some(etag)) = (place.known.as_mut().filter(|known| is_same(known, opened)), etag) {
        known.etag = Some(etag.clone());
    }
}

fn is_same(known: &KnownPlace, opened: &Opened) -> bool {
    known.generation == opened.record.generation && known.fingerprint == opened.bundle.leaf().fingerprint
}
