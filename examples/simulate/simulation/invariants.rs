//! What must hold, looked at where it could break. The numbers are those of ARCHITECTURE.md.

use std::sync::Arc;

use certfleet::domain::node_report::NodeReport;
use certfleet::domain::object_key::{Attempt, Generation, Listed, ObjectKey};
use certfleet::domain::policy;
use certfleet::domain::record::{self, BundleRecord, LeaseRecord, LeaseState};
use certfleet::domain::site::{Site, SiteName};
use chrono::{DateTime, TimeDelta, Utc};

use super::ca::Issued;
use super::process::Process;
use super::scenario::Store;
use super::server::{Files, read_files};
use super::world::{BUILD, World, machine_name, machine_number};

/// Times are compared between a listing that was taken a moment ago and now.
const MOMENT: TimeDelta = TimeDelta::seconds(90);

/// Looked at before every write that the store carries out.
pub fn before_write(world: &World, machine: usize, key: &ObjectKey, body: &[u8]) {
    match key.listed() {
        Listed::Bundle(..) if world.scenario.store == Store::Exclusive => {
            let changed = world.state().bucket.get(key).is_some_and(|there| there[..] != *body);
            if changed {
                world.violate("I3", || format!("{key} gets other bytes, from {}", machine_name(machine)));
            }
        }
        Listed::Lease(site, generation, attempt) if holds_one_at_a_time(world) && world.state().bucket.get(key).is_none() => {
            nobody_is_pushed_aside(world, machine, &site, generation, attempt);
        }
        Listed::Node(_) => report_tells_the_truth(world, machine, body),
        _ => {}
    }
    let may_hold_keys = !world.scenario.sealed && ["bundles/", "leases/"].iter().any(|prefix| key.as_str().starts_with(prefix));
    if !may_hold_keys && contains(body, b"PRIVATE KEY") {
        world.violate("I7", || format!("{key} has a private key in the clear"));
    }
}

/// A lease passes to another only when its holder has come to its end, or something has happened to it.
fn nobody_is_pushed_aside(world: &World, machine: usize, site: &SiteName, generation: Generation, attempt: Attempt) {
    let before = Attempt(attempt.0.saturating_sub(1));
    let earlier = world.state().bucket.get(&ObjectKey::lease(site, generation, before)).cloned();
    let earlier = earlier.and_then(|body| record::read::<LeaseRecord>(&body).ok()).filter(|lease| lease.state == LeaseState::Held);
    let Some(earlier) = earlier.map(|lease| lease.holder) else { return };
    let holder = machine_number(&earlier.node).and_then(|holder| world.at_work(holder)).filter(|holder| holder.run == earlier.run);
    if let Some(holder) = holder.filter(|holder| holder.is_well() && holder.machine != machine) {
        world.violate("I4", || format!("{} takes the lease of {}, which is at work", machine_name(machine), holder.name()));
    }
}

/// Where nothing decides between two creates, two may be at work when something is slow or stands still; when nothing is, not.
pub fn holds_one_at_a_time(world: &World) -> bool {
    world.scenario.store == Store::Exclusive || world.scenario.is_calm() && world.scenario.slowness == 1
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// What a report says was seen to be served in its run, is served.
fn report_tells_the_truth(world: &World, machine: usize, body: &[u8]) {
    let Ok(report) = record::read::<NodeReport>(body) else { return };
    let run_began = report.last_run - TimeDelta::seconds(1);
    for site in &report.sites {
        let Ok(name) = SiteName::from_file_name(&site.site) else { continue };
        let seen = site.servers.iter().filter(|served| served.checked_at.is_some_and(|at| at >= run_began));
        for fingerprint in seen.filter_map(|served| served.fingerprint.as_ref()) {
            let serves = world.state().servers[machine].serves.get(&name).cloned();
            if serves.as_ref() != Some(fingerprint) {
                world.violate("report", || {
                    format!("{} reports that {name} is served as {fingerprint}, and it serves {serves:?}", machine_name(machine))
                });
            }
        }
    }
}

/// Looked at when the CA is asked for an order. Who was frozen may ask for one that somebody else has finished meanwhile: an order costs
/// nothing, and the lease is looked at again before it is finalized.
pub fn asked_for_an_order(world: &World, process: &Process, site: &SiteName) {
    if process.is_troubled() || !holds_one_at_a_time(world) {
        return;
    }
    let now = world.now();
    let generation = process.works_on(site).unwrap_or_default();
    let prefix = ObjectKey::leases_prefix(site, generation);
    let too_early = {
        let state = world.state();
        let recorded = state.bucket.under(&prefix).filter_map(|(_, body)| record::read::<LeaseRecord>(body).ok());
        // What the latest attempt before the own one says is binding; the own one is held.
        let before_own = recorded.filter(|lease| lease.state != LeaseState::Held);
        before_own.last().and_then(|lease| match lease.state {
            LeaseState::Failed { retry_at, .. } if now + MOMENT < retry_at => Some(retry_at),
            _ => None,
        })
    };
    if let Some(retry_at) = too_early {
        world.violate("I4", || {
            format!("{} asks the CA for {site} at {now}, although the fleet is to wait until {retry_at}", process.name())
        });
    }
    let refused = world.state().refused.get(&(site.clone(), generation)).copied();
    if let Some((at, excuses)) = refused
        && now < at + TimeDelta::seconds(55)
        && excuses == excuses_of(world, site, generation)
    {
        world.violate("I4", || format!("{} asks the CA for {site} {} s after it refused", process.name(), (now - at).num_seconds()));
    }
    let wanted = world.sites.iter().find(|wanted| wanted.name == *site);
    if let (Some(newest), Some(wanted)) = (newest(world, site), wanted)
        && newest.not_after - now > threshold(world, wanted) + MOMENT
        // What a killed run had spooled is published without a lease: whoever has won it meanwhile may have asked already.
        && excuses_of(world, site, newest.generation) == 0
    {
        world.violate("I4", || format!("{} renews {site}, which is not due: it lasts until {}", process.name(), newest.not_after));
    }
}

fn threshold(world: &World, site: &Site) -> TimeDelta {
    TimeDelta::from_std(policy::threshold(world.scenario.lifetime, site.renew_before)).unwrap_or_default()
}

fn excuses_of(world: &World, site: &SiteName, generation: Generation) -> u64 {
    world.state().excuses.get(&(site.clone(), generation)).copied().unwrap_or_default()
}

/// The CA refuses an order: until the recorded time nobody is to ask again.
pub fn refused(world: &World, process: &Process, site: &SiteName) {
    let generation = process.works_on(site).unwrap_or_default();
    let excuses = excuses_of(world, site, generation);
    world.state().refused.insert((site.clone(), generation), (world.now(), excuses));
}

/// Looked at when the CA has issued.
pub fn issued(world: &World, site: &SiteName) {
    if !holds_one_at_a_time(world) {
        return;
    }
    let (newest, count) = {
        let state = world.state();
        let newest = state.ca.all_issued().filter(|issued| issued.site == *site).map(|issued| issued.generation).max().unwrap_or_default();
        let count = state.ca.all_issued().filter(|issued| issued.site == *site && issued.generation == newest).count() as u64;
        (newest, count)
    };
    let excuses = excuses_of(world, site, newest);
    let lost = world.state().lost.contains(&ObjectKey::bundle(site, newest));
    if count > 1 + excuses && !lost {
        world.violate("I4", || {
            format!("{count} certificates are issued for generation {newest} of {site}, and only {excuses} things went wrong")
        });
    }
}

/// The certificate of the highest generation in the bucket.
pub fn newest(world: &World, site: &SiteName) -> Option<Issued> {
    let state = world.state();
    let chain = state.bucket.newest_chain(site)?;
    state.ca.issued(chain).cloned()
}

/// Looked at before every change of the files that a server reads, and before it starts: at any moment it could.
pub fn is_whole(world: &World, machine: usize) {
    for site in &world.sites {
        if let Files::Broken(what) = read_files(world, machine, &site.name) {
            world.violate("I1", || format!("on {}: {what}", machine_name(machine)));
        }
    }
}

/// How a machine stands before and after a run.
#[derive(Clone, Debug)]
pub struct Standing {
    pub installed: Option<Issued>,
    pub served: Option<String>,
    /// What the bucket holds.
    pub stored: Option<Issued>,
    pub at: DateTime<Utc>,
}

impl Standing {
    pub fn of(world: &World, machine: usize, site: &SiteName) -> Self {
        let installed = match read_files(world, machine, site) {
            Files::Pair(fingerprint) => world.state().ca.all_issued().find(|issued| issued.fingerprint == fingerprint).cloned(),
            Files::Nothing => None,
            Files::Broken(what) => {
                world.violate("I1", || format!("on {}: {what}", machine_name(machine)));
                None
            }
        };
        let served = world.state().servers[machine].serves.get(site).cloned();
        Self { installed, served, stored: newest(world, site), at: world.now() }
    }
}

/// Looked at when a run of the agent has come to its own end.
pub fn node_has_run(world: &World, process: &Arc<Process>, site: &SiteName, before: &Standing) {
    let machine = process.machine;
    let after = Standing::of(world, machine, site);
    let name = process.name();
    let refuses = world.state().servers[machine].refuses.is_some();
    let generation = |issued: &Option<Issued>| issued.as_ref().map(|issued| issued.generation).unwrap_or_default();
    if generation(&after.installed) < generation(&before.installed) && !refuses {
        world.violate("I2", || {
            format!("{name} goes back from {:?} to {:?} of {site}", generation(&before.installed), generation(&after.installed))
        });
    }
    // Where it was served before, and nothing went wrong but that the server refused the new one, all is as it was. (With two sites it is
    // not known which of them the server refused.)
    let fingerprint = |issued: &Option<Issued>| issued.as_ref().map(|issued| issued.fingerprint.clone());
    let stood = before.installed.is_some() && before.served == fingerprint(&before.installed);
    let stands = after.served == before.served && fingerprint(&after.installed) == fingerprint(&before.installed);
    if world.sites.len() == 1 && process.is_only_refused() && stood && !stands {
        world.violate("I6", || {
            format!("the server of {name} refused a certificate of {site}, and what was there before is not there again")
        });
    }
    let serves_a_whole_one =
        after.served == before.served || after.served == after.installed.as_ref().map(|issued| issued.fingerprint.clone());
    if !serves_a_whole_one && !process.is_troubled() {
        world.violate("I6", || format!("{name} serves {:?} of {site}: neither what it served nor what is installed", after.served));
    }
    let Some(stored) = before.stored.as_ref().filter(|stored| stored.not_after > after.at && !process.is_troubled()) else { return };
    if generation(&after.installed) < stored.generation {
        world.violate("I5", || {
            format!("{name} has run, and has generation {} of {site}; the bucket has {}", generation(&after.installed), stored.generation)
        });
    }
    let running = world.state().servers[machine].running;
    if running && after.served != after.installed.as_ref().map(|issued| issued.fingerprint.clone()) {
        world.violate("I5", || format!("{name} has run, and does not serve generation {} of {site}", generation(&after.installed)));
    }
}

/// Looked at when nobody is at work: what the CA has issued is in the bucket, or can be had again. What has run out before anybody came
/// to fetch it is no loss, and its order is given up for a fresh one.
pub fn nothing_is_lost(world: &World) {
    let (unpublished, now) = (world.state().ca.unpublished(), world.now());
    for issued in unpublished.into_iter().filter(|issued| issued.not_after > now) {
        let recoverable = {
            let state = world.state();
            let passed = state.bucket.highest(&issued.site) >= issued.generation
                || state.lost.contains(&ObjectKey::bundle(&issued.site, issued.generation));
            let prefix = ObjectKey::leases_prefix(&issued.site, issued.generation);
            let mut leases = state.bucket.under(&prefix);
            passed || leases.any(|(_, body)| contains(body, issued.order.as_bytes()))
        };
        if !recoverable && !is_spooled(world, &issued) {
            world.violate("I8", || {
                format!("the certificate for generation {} of {} (order {}) is lost", issued.generation, issued.site, issued.order)
            });
        }
    }
}

/// Whether a machine has the certificate on its disk, or the order that yields it.
fn is_spooled(world: &World, issued: &Issued) -> bool {
    (0..=world.scenario.nodes).any(|machine| {
        let (spool, name) = (world.disk(machine).join("place/spool"), format!("{}.json", issued.site.file_name()));
        let ordered = std::fs::read(spool.join("orders").join(&name)).is_ok_and(|order| contains(&order, issued.order.as_bytes()));
        let path = spool.join(name);
        let spooled = std::fs::read(path).ok().and_then(|bytes| record::read::<BundleRecord>(&bytes).ok());
        spooled.and_then(|bundle| world.state().ca.issued(&bundle.fullchain).cloned()).is_some_and(|found| found.order == issued.order)
            || ordered
    })
}

/// Looked at after nights in which nothing went wrong: everyone serves what the last one began with, or a newer one, and nothing is due.
pub fn all_is_well(world: &World, last_night: DateTime<Utc>, at_its_beginning: &[Generation]) {
    for (site, least) in world.sites.iter().zip(at_its_beginning) {
        let Some(newest) = newest(world, &site.name) else {
            world.violate("liveness", || format!("there is no certificate of {}", site.name));
            continue;
        };
        if newest.not_after - threshold(world, site) < last_night {
            world.violate("liveness", || format!("generation {} of {} was due, and nobody has renewed it", newest.generation, site.name));
        }
        for machine in 0..=world.scenario.nodes {
            let standing = Standing::of(world, machine, &site.name);
            let installed = standing.installed.as_ref();
            let current = installed.is_some_and(|issued| issued.generation >= *least);
            let serves = machine == BUILD || standing.served.as_ref() == installed.map(|issued| &issued.fingerprint);
            if !current || !serves {
                world.violate("liveness", || {
                    format!("{} does not serve generation {least} of {} or a later one", machine_name(machine), site.name)
                });
            }
        }
    }
}

/// Looked at in the end of a history without faults: every generation has cost one certificate.
pub fn nothing_was_wasted(world: &World) {
    for site in &world.sites {
        let state = world.state();
        let (generations, issued) =
            (state.bucket.highest(&site.name).0, state.ca.all_issued().filter(|issued| issued.site == site.name).count() as u64);
        drop(state);
        if generations != issued {
            world.violate("I4", || {
                format!("{issued} certificates were issued for {generations} generations of {}, and nothing went wrong", site.name)
            });
        }
    }
}
