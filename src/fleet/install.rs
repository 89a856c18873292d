//! Installing into one directory: stage → test → switch → test → reload once → see that it is served, and back again where that fails.

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::stream::{self, StreamExt as _};

use super::bundle_object::Opened;
use super::node::{NodeServer, Root};
use super::progress::Progress;
use crate::domain::node_report::Served;
use crate::system::error_chain::in_full;
use crate::target::handshake::HandshakeError;
use crate::target::served::{Seen, await_leaf};
use crate::target::server::ServerError;
use crate::target::ssl_root::Contents;

mod item;

pub(super) use self::item::{Change, PlaceOutcome, Servers};
use self::item::{Involved, Item};

/// Handshakes at the same time.
pub(super) const HANDSHAKES_AT_ONCE: usize = 32;

/// How long a server may take to show what it serves, before anything is changed.
pub(super) const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// The changes of one directory in one run.
pub(super) struct Transaction<'a> {
    pub(super) root: &'a Root,
    pub(super) servers: Servers,
    pub(super) now: DateTime<Utc>,
    pub(super) progress: &'a dyn Progress,
}

impl Transaction<'_> {
    /// Carries the changes out. The outcomes come in their order.
    pub(super) async fn run(&self, changes: Vec<Change<'_>>) -> Vec<PlaceOutcome> {
        let mut items: Vec<_> = changes
            .into_iter()
            .map(|change| Item { change, switched: None, exchanged: false, heals: false, outcome: PlaceOutcome::default() })
            .collect();
        self.stage(&mut items);
        let mut involved = self.involved(&items).await;
        if !self.are_served_already(&mut items, &involved).await {
            self.test_before(&mut items, &mut involved).await;
            self.switch(&mut items);
            self.test_after(&mut items, &involved).await;
            self.reload(&mut items, &involved).await;
            self.prove(&mut items, &involved).await;
        }
        items.into_iter().map(|item| item.outcome).collect()
    }

    fn stage(&self, items: &mut [Item<'_>]) {
        for item in items.iter_mut().filter(|item| !item.is_installed_already() && item.change.earlier.is_none()) {
            let opened = item.change.opened;
            if let Err(error) = self.root.ssl.stage(&item.change.site.name, opened.record.generation, &contents(opened)) {
                item.fail(in_full(&error), error.hint());
            }
        }
    }

    /// The servers that read what is to change.
    async fn involved(&self, items: &[Item<'_>]) -> Vec<Involved<'_>> {
        let mut involved = Vec::new();
        for server in &self.root.servers {
            let Some(item) = items.iter().find(|item| !item.is_settled() && server.sites.contains(&item.change.site.name)) else {
                continue;
            };
            let down = match &server.verify {
                None => false,
                Some(endpoint) => {
                    let seen = endpoint.presented(item.change.site.name.identifier(), LOOK_DEADLINE).await;
                    matches!(seen, Err(HandshakeError::Refused { .. }))
                }
            };
            involved.push(Involved { server, down, before: None });
        }
        involved
    }

    /// Whether nothing is to change, and every server is seen to serve what is there: nobody has to be reloaded.
    async fn are_served_already(&self, items: &mut [Item<'_>], involved: &[Involved<'_>]) -> bool {
        let open = || items.iter().filter(|item| !item.is_settled());
        // Of a server that nobody looks at it is known only that it once took the bundle without a complaint.
        let blind = involved.iter().any(|involved| involved.server.verify.is_none());
        if open().any(|item| !item.is_installed_already() || blind && !item.was_served()) {
            return false;
        }
        let looks = pairs(items, involved).into_iter().filter_map(|(at, server)| Some((at, server, server.verify.as_deref()?)));
        let looks = looks.map(|(at, server, endpoint)| {
            let (site, leaf) = (items[at].change.site, items[at].change.opened.bundle.leaf());
            async move {
                let seen = endpoint.presented(site.name.identifier(), LOOK_DEADLINE).await.ok();
                (at, server, seen.filter(|seen| *seen == leaf.fingerprint))
            }
        });
        let seen: Vec<_> = stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(HANDSHAKES_AT_ONCE).collect().await;
        if seen.iter().any(|(_, _, fingerprint)| fingerprint.is_none()) {
            return false;
        }
        for (at, server, fingerprint) in seen {
            items[at].outcome.served.push(self.served(server, fingerprint));
        }
        for item in items.iter_mut().filter(|item| !item.is_settled()) {
            (item.outcome.in_place, item.outcome.proven) = (true, true);
        }
        true
    }

    /// Tests the configurations as they are. One that is broken already keeps the files it reads, unless these may be the reason.
    async fn test_before(&self, items: &mut [Item<'_>], involved: &mut [Involved<'_>]) {
        for involved in involved.iter_mut() {
            let Err(error) = involved.server.server.test().await else { continue };
            involved.down |= error.is_missing_program();
            let tolerated = involved.down && self.servers == Servers::MayBeDown;
            let theirs = |item: &&mut Item<'_>| item.is_open_for(involved.server);
            let heals = items.iter_mut().filter(theirs).any(|item| item.may_heal());
            if !tolerated && !heals {
                let what = format!("the configuration of {} is broken already: {}", involved.server.server.name(), in_full(&error));
                for item in items.iter_mut().filter(theirs) {
                    item.outcome.in_place = item.is_installed_already();
                    item.fail(format!("{what}; nothing was switched, what was installed stays"), error.hint());
                }
            }
            involved.before = Some(error);
        }
    }

    fn switch(&self, items: &mut [Item<'_>]) {
        for item in items.iter_mut().filter(|item| !item.is_settled()) {
            item.outcome.changed = true;
            if item.is_installed_already() {
                item.outcome.in_place = true;
                continue;
            }
            if item.change.earlier.is_some() {
                self.exchange(item);
                continue;
            }
            let site = &item.change.site.name;
            self.progress.step(site, &format!("installing generation {}", item.change.opened.record.generation));
            match self.root.ssl.switch(site, item.change.opened.record.generation) {
                Ok(switched) => {
                    item.switched = Some(switched);
                    item.outcome.in_place = true;
                }
                Err(error) => item.fail(in_full(&error), error.hint()),
            }
        }
    }

    /// Puts another content of the same generation into its place, in one step.
    fn exchange(&self, item: &mut Item<'_>) {
        let (site, opened) = (&item.change.site.name, item.change.opened);
        self.progress.step(site, &format!("installing the other content of generation {}", opened.record.generation));
        match self.root.ssl.stage(site, opened.record.generation, &contents(opened)) {
            Ok(()) => (item.exchanged, item.outcome.in_place) = (true, true),
            Err(error) => item.fail(in_full(&error), error.hint()),
        }
    }

    /// Tests the configurations with the new files.
    async fn test_after(&self, items: &mut [Item<'_>], involved: &[Involved<'_>]) {
        for involved in involved {
            if !items.iter().any(|item| item.is_open_for(involved.server)) {
                continue;
            }
            let Err(error) = involved.server.server.test().await else {
                let open = items.iter_mut().filter(|item| item.is_open_for(involved.server));
                open.for_each(|item| item.heals |= involved.before.is_some() && item.may_heal());
                continue;
            };
            let name = involved.server.server.name();
            if involved.down && self.servers == Servers::MayBeDown {
                self.progress.note(&format!("{name} cannot start as it is set up now: {}", in_full(&error)));
                continue;
            }
            for item in items.iter_mut().filter(|item| item.is_open_for(involved.server) && item.is_installed_already()) {
                self.step_back(item, involved.server, &error).await;
            }
            let what = match &involved.before {
                Some(_) => format!("the configuration of {name} is broken already: {}", in_full(&error)),
                None => format!("the configuration test of {name} fails with the new certificate: {}", in_full(&error)),
            };
            self.go_back(items, involved.server, &what, &error.hint());
        }
    }

    /// A run that was killed after its switch left a generation that its server may refuse. The one before it is still in the archive: if
    /// the test passes with that one, it was the generation; if not, something else is broken, and the generation stays.
    async fn step_back(&self, item: &mut Item<'_>, server: &NodeServer, error: &ServerError) {
        let site = &item.change.site.name;
        let generation = item.change.opened.record.generation;
        let earlier = self.root.ssl.archived(site).into_iter().filter(|earlier| *earlier < generation).max();
        let Some(earlier) = earlier.filter(|_| !item.was_served()) else { return };
        let Ok(switched) = self.root.ssl.switch(site, earlier) else { return };
        if server.server.test().await.is_ok() {
            item.outcome.in_place = false;
            item.outcome.stepped_back = Some(earlier);
            let what = format!("the configuration test of {} fails with generation {generation}: {}", server.server.name(), in_full(error));
            item.fail(format!("{what}; generation {earlier} is back in place"), error.hint());
        } else if let Err(error) = self.root.ssl.switch_back(switched) {
            item.fail(in_full(&error), error.hint());
        }
    }

    /// Reloads each server once.
    async fn reload(&self, items: &mut [Item<'_>], involved: &[Involved<'_>]) {
        for server in involved_up(involved) {
            if !items.iter().any(|item| item.is_open_for(server)) {
                continue;
            }
            let Err(error) = self.reload_one(items, server).await else { continue };
            let name = server.server.name();
            if self.servers == Servers::MayBeDown {
                self.progress.note(&format!("{name} was not reloaded, and will read the new files when it starts: {}", in_full(&error)));
                continue;
            }
            self.go_back(items, server, &format!("{name} could not be reloaded: {}", in_full(&error)), &error.hint());
            // Those before it have read the new files already.
            for server in involved_up(involved) {
                self.reload_what_went_back(items, server).await;
            }
        }
    }

    async fn reload_one(&self, items: &[Item<'_>], server: &NodeServer) -> Result<(), ServerError> {
        let changed = items.iter().filter(|item| item.outcome.in_place && server.sites.contains(&item.change.site.name));
        let deployed: Vec<_> = changed.map(|item| item.deployed(self.root)).collect();
        server.server.reload(&deployed).await
    }

    /// Waits until every server presents the new leaf, for each site.
    async fn prove(&self, items: &mut [Item<'_>], involved: &[Involved<'_>]) {
        for item in items.iter_mut().filter(|item| !item.is_settled()) {
            item.outcome.proven = true;
        }
        self.tell_who_is_down(items, involved);
        let up: Vec<_> = involved_up(involved).collect();
        let waits = pairs_of(items, &up).into_iter().map(|(at, server)| {
            let (name, leaf) = (items[at].change.site.name.identifier(), items[at].change.opened.bundle.leaf());
            async move {
                match server.verify.as_deref() {
                    None => (at, server, Ok(None)),
                    Some(endpoint) => {
                        let seen = await_leaf(endpoint, name, &leaf.fingerprint, server.deadline).await;
                        (at, server, seen.map(|()| Some(leaf.fingerprint.clone())))
                    }
                }
            }
        });
        let seen: Vec<_> = stream::iter(waits.collect::<Vec<_>>()).buffer_unordered(HANDSHAKES_AT_ONCE).collect().await;
        let mut failed = Vec::new();
        for (at, server, seen) in seen {
            match seen {
                Ok(fingerprint) => items[at].outcome.served.push(self.served(server, fingerprint)),
                Err(not_served) => {
                    let other = match &not_served.seen {
                        Seen::Other(fingerprint) => Some(fingerprint.clone()),
                        Seen::Nothing(_) => None,
                    };
                    items[at].outcome.served.push(self.served(server, other));
                    failed.push((at, server, in_full(&not_served), not_served.hint()));
                }
            }
        }
        for (at, server, what, hint) in &failed {
            self.go_back(&mut items[*at..=*at], server, what, hint);
        }
        if !failed.is_empty() {
            // Those that served the new leaf as well: a site is served alike by all.
            for server in up {
                self.reload_what_went_back(items, server).await;
            }
        }
    }

    /// A server that is down serves nothing. It will read the new files when it starts.
    fn tell_who_is_down(&self, items: &mut [Item<'_>], involved: &[Involved<'_>]) {
        for involved in involved.iter().filter(|involved| involved.down) {
            let name = involved.server.server.name();
            let address = involved.server.address().map(|address| format!(" at {address}")).unwrap_or_default();
            let what = format!("{name} does not run, nothing answers{address}: the new files are in place for when it starts");
            if self.servers == Servers::MayBeDown {
                self.progress.note(&what);
            }
            for item in items.iter_mut().filter(|item| involved.server.sites.contains(&item.change.site.name) && !item.is_settled()) {
                item.outcome.proven = false;
                item.outcome.served.push(self.served(involved.server, None));
                if self.servers == Servers::Run {
                    item.fail(
                        what.clone(),
                        format!("start {name}, or correct verify of its [[target]] if it does run; then: certfleet agent"),
                    );
                }
            }
        }
    }

    /// Puts back what was there. Where there was nothing whole, the new files stay: there is nothing better.
    fn go_back(&self, items: &mut [Item<'_>], server: &NodeServer, what: &str, hint: &str) {
        for item in items.iter_mut().filter(|item| item.is_open_for(server)) {
            item.outcome.proven = false;
            let back = match (&item.change.earlier, item.switched.take()) {
                (Some(earlier), _) if item.exchanged && !item.heals => {
                    self.root.ssl.stage(&item.change.site.name, earlier.record.generation, &contents(earlier))
                }
                (_, Some(switched)) if item.can_go_back() => self.root.ssl.switch_back(switched),
                _ => {
                    item.fail(what.to_owned(), hint);
                    continue;
                }
            };
            match back {
                Ok(()) => {
                    item.outcome.in_place = false;
                    item.fail(format!("{what}; what was installed before is back in place"), hint);
                }
                Err(error) => item.fail(format!("{what}; moreover, it could not be switched back: {}", in_full(&error)), error.hint()),
            }
        }
    }

    /// After going back: the server reads the old files again, and is seen to serve them.
    async fn reload_what_went_back(&self, items: &mut [Item<'_>], server: &NodeServer) {
        let back =
            |item: &Item<'_>| item.outcome.problem.is_some() && !item.outcome.in_place && server.sites.contains(&item.change.site.name);
        let deployed: Vec<_> = items.iter().filter(|item| back(item)).map(|item| item.deployed(self.root)).collect();
        if deployed.is_empty() {
            return;
        }
        let reloaded = server.server.reload(&deployed).await.map_err(|error| in_full(&error));
        let looks = items.iter().enumerate().filter(|(_, item)| back(item)).map(|(at, item)| {
            let (site, known, reloaded) = (item.change.site, &item.change.before.known, &reloaded);
            async move {
                let confirmed = match (reloaded, server.verify.as_deref(), known) {
                    (Err(error), ..) => Err(error.clone()),
                    (Ok(()), Some(endpoint), Some(known)) => {
                        let seen = await_leaf(endpoint, site.name.identifier(), &known.fingerprint, server.deadline).await;
                        seen.map_err(|error| in_full(&error))
                    }
                    (Ok(()), ..) => Ok(()),
                };
                (at, confirmed)
            }
        });
        let looks: Vec<_> = looks.collect();
        let confirmed: Vec<_> = stream::iter(looks).buffer_unordered(HANDSHAKES_AT_ONCE).collect().await;
        for (at, confirmed) in confirmed {
            let item = &mut items[at];
            if let (Err(error), Some(problem)) = (confirmed, &mut item.outcome.problem) {
                problem.what = format!("{}; moreover, {} does not serve that either: {error}", problem.what, server.server.name());
            } else if let (Some(_), Some(known)) = (&server.verify, &item.change.before.known) {
                item.outcome.served.retain(|served| served.target != server.server.name() || served.address.as_deref() != server.address());
                item.outcome.served.push(self.served(server, Some(known.fingerprint.clone())));
            }
        }
    }

    fn served(&self, server: &NodeServer, fingerprint: Option<String>) -> Served {
        let address = server.address().map(str::to_owned);
        let checked_at = address.as_ref().map(|_| self.now);
        Served { target: server.server.name().to_owned(), address, fingerprint, checked_at }
    }
}

fn contents(opened: &Opened) -> Contents<'_> {
    Contents { bundle: &opened.bundle, object: &opened.object }
}

fn involved_up<'a>(involved: &[Involved<'a>]) -> impl Iterator<Item = &'a NodeServer> {
    involved.iter().filter(|involved| !involved.down).map(|involved| involved.server)
}

/// Every site that is still to be served, with every server that is to serve it.
fn pairs<'a>(items: &[Item<'_>], involved: &[Involved<'a>]) -> Vec<(usize, &'a NodeServer)> {
    pairs_of(items, &involved.iter().map(|involved| involved.server).collect::<Vec<_>>())
}

fn pairs_of<'a>(items: &[Item<'_>], servers: &[&'a NodeServer]) -> Vec<(usize, &'a NodeServer)> {
    let open = items.iter().enumerate().filter(|(_, item)| !item.is_settled());
    open.flat_map(|(at, item)| {
        let serving = servers.iter().filter(|server| server.sites.contains(&item.change.site.name));
        serving.map(move |server| (at, *server)).collect::<Vec<_>>()
    })
    .collect()
}
