//! What of an issuer's limits a site has used up: told by the generations that the datastore has of it.

use std::collections::BTreeSet;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

use super::Fleet;
use super::bundle_object;
use super::issue::Commission;
use crate::datastore::DatastoreError;
use crate::domain::budget::{self, WEEK};
use crate::domain::identifier::Identifier;
use crate::domain::object_key::{Generation, Listed, ObjectKey};
use crate::domain::record::IssuerClass;
use crate::domain::site::Site;

/// A certificate that was ordered lately.
pub(super) struct Ordered {
    issuer: String,
    identifiers: BTreeSet<Identifier>,
    at: DateTime<Utc>,
}

impl Fleet {
    /// The certificates that were ordered for the site within a week. Where the newest is older, or there are too few generations to use
    /// up any limit, nothing is asked of the store.
    pub(super) async fn ordered_lately(&self, commission: &Commission<'_>) -> Result<Vec<Ordered>, DatastoreError> {
        let site = &commission.wanted.site;
        let now = commission.snapshot.clock().now();
        let Some(since) = TimeDelta::from_std(WEEK).ok().and_then(|week| now.checked_sub_signed(week)) else { return Ok(Vec::new()) };
        let least = site.issuers.iter().filter_map(|name| self.issuers.weekly_limit(name)).min();
        let newest = commission.snapshot.published_at(&site.name);
        let enough = least.is_some_and(|least| commission.generation > Generation(u64::from(least)));
        if !enough || newest.is_none_or(|newest| newest <= since) {
            return Ok(Vec::new());
        }
        let listing = self.store.list(&ObjectKey::bundles_prefix(&site.name), None).await?;
        let lately = listing.entries.iter().filter(|entry| entry.last_modified > since);
        let mut ordered = Vec::new();
        for entry in lately {
            let Listed::Bundle(_, generation) = entry.key.listed() else { continue };
            let Some(object) = self.store.get(&entry.key).await? else { continue };
            // What cannot be read was hardly ordered by us; and it is the CA who counts in the end.
            let Ok((record, chain)) = bundle_object::public_part(&site.name, generation, &object) else { continue };
            if record.issuer_class == IssuerClass::Acme && record.rollback_to.is_none() {
                let identifiers = chain.into_iter().next().map(|leaf| leaf.identifiers).unwrap_or_default();
                ordered.push(Ordered { issuer: record.issuer, identifiers, at: entry.last_modified });
            }
        }
        Ok(ordered)
    }

    /// When `issuer` may be asked again for exactly the site's identifiers; `None`: now, as far as we can tell.
    pub(super) fn over_budget(&self, site: &Site, issuer: &str, ordered: &[Ordered], now: DateTime<Utc>) -> Option<OverBudget> {
        let limit = self.issuers.weekly_limit(issuer)?;
        let wanted: BTreeSet<_> = site.identifiers.iter().cloned().collect();
        let same = |ordered: &&Ordered| ordered.issuer == issuer && ordered.identifiers == wanted;
        let times: Vec<_> = ordered.iter().filter(same).map(|ordered| ordered.at).collect();
        let until = budget::wait(limit, &times, now)?;
        Some(OverBudget { count: times.len(), limit, until })
    }
}

/// More was ordered than the issuer gives.
pub(super) struct OverBudget {
    count: usize,
    limit: u32,
    /// When the next may be ordered.
    pub(super) until: DateTime<Utc>,
}

impl fmt::Display for OverBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, limit, .. } = self;
        let plural = if *count == 1 { "" } else { "s" };
        write!(f, "the fleet has had {count} certificate{plural} for exactly these names from it within a week, and it gives {limit}")
    }
}
