//! What changes in a transaction, and how far it has come.

use crate::domain::node_plan::{Presence, Serving};
use crate::domain::node_report::Served;
use crate::domain::object_key::Generation;
use crate::domain::site::Site;
use crate::fleet::bundle_object::Opened;
use crate::fleet::node::{NodeServer, PlaceObserved, Root};
use crate::fleet::report::Problem;
use crate::target::server::{Deployed, ServerError};
use crate::target::ssl_root::Switched;

/// One site that is to change.
pub(in crate::fleet) struct Change<'a> {
    /// The site.
    pub(in crate::fleet) site: &'a Site,
    /// What is there.
    pub(in crate::fleet) before: &'a PlaceObserved,
    /// What is to be there. Where that generation is there already, it is only to be served.
    pub(in crate::fleet) opened: &'a Opened,
    /// Whether these very bytes lie there.
    pub(in crate::fleet) there: bool,
    /// What lies there under the same number with another content: to be put back where the servers refuse the new one.
    pub(in crate::fleet) earlier: Option<Opened>,
}

/// What servers are expected to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::fleet) enum Servers {
    /// They run.
    Run,
    /// They may not have been started, or set up, yet.
    MayBeDown,
}

/// How it went for one site.
#[derive(Debug, Default)]
pub(in crate::fleet) struct PlaceOutcome {
    /// Whether the new bundle is in place.
    pub(in crate::fleet) in_place: bool,
    /// Whether that took more than a look.
    pub(in crate::fleet) changed: bool,
    /// Whether every server was seen to serve it, or at least took it without a complaint where nobody is to look.
    pub(in crate::fleet) proven: bool,
    /// The earlier generation that was put in the place of one that its server refuses.
    pub(in crate::fleet) stepped_back: Option<Generation>,
    /// What the servers were seen to serve.
    pub(in crate::fleet) served: Vec<Served>,
    /// What went wrong.
    pub(in crate::fleet) problem: Option<Problem>,
}

/// One change under way.
pub(super) struct Item<'a> {
    pub(super) change: Change<'a>,
    pub(super) switched: Option<Switched>,
    /// Whether the content of a generation was exchanged, which is done at once for the files and for what is live.
    pub(super) exchanged: bool,
    /// Whether a server's configuration failed its test with what was there before, passes with what is there now, and that may be why.
    pub(super) heals: bool,
    pub(super) outcome: PlaceOutcome,
}

/// A server in the course of a transaction.
pub(super) struct Involved<'a> {
    pub(super) server: &'a NodeServer,
    /// Nothing answers at its address, or its program is not there.
    pub(super) down: bool,
    /// What its configuration test said before anything was changed.
    pub(super) before: Option<ServerError>,
}

impl Item<'_> {
    pub(super) fn is_settled(&self) -> bool {
        self.outcome.problem.is_some()
    }

    /// Whether it is still to be brought to its end, and this server reads it.
    pub(super) fn is_open_for(&self, server: &NodeServer) -> bool {
        !self.is_settled() && server.sites.contains(&self.change.site.name)
    }

    /// Whether what is there now may be why a configuration is broken: it is missing or damaged, or was never seen to be served.
    pub(super) fn may_heal(&self) -> bool {
        !self.can_go_back() || matches!(self.change.before.presence, Presence::Whole { serving: Serving::Unknown, .. })
    }

    /// Whether there is something whole to go back to, that its servers would start with.
    pub(super) fn can_go_back(&self) -> bool {
        !self.heals && matches!(self.change.before.presence, Presence::Whole { .. } | Presence::Adoptable { .. })
    }

    pub(super) fn is_installed_already(&self) -> bool {
        self.change.there
    }

    pub(super) fn was_served(&self) -> bool {
        matches!(self.change.before.presence, Presence::Whole { serving: Serving::Stale, .. })
    }

    pub(super) fn fail(&mut self, what: String, hint: impl Into<String>) {
        self.outcome.problem.get_or_insert(Problem { what, hint: hint.into(), retry_at: None });
    }

    pub(super) fn deployed(&self, root: &Root) -> Deployed {
        let site = self.change.site;
        Deployed { site: site.name.clone(), directory: root.ssl.live_path(&site.name), identifiers: site.identifiers.clone() }
    }
}
