//! The configuration file.

use std::path::Path;

use certfleet::config::{Sources, load_text};
use certfleet::domain::object_key::ObjectKey;
use certfleet::domain::site::Method;
use certfleet::system::error_chain::in_full;

use super::{Verdict, assert_printable, assert_segment};

pub fn check(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    let nothing = |_: &str| None;
    let sources = Sources { config: None, environment: &nothing, current_dir: Path::new("/nowhere"), host_name: "ws-1" };
    let settings = match load_text(Path::new("/nowhere/certfleet.toml"), text, sources) {
        Ok(settings) => settings,
        Err(error) => {
            assert_printable(&in_full(&error));
            assert_printable(&error.hint());
            return Verdict::Refused;
        }
    };
    assert_eq!(load_text(Path::new("/nowhere/certfleet.toml"), text, sources).ok().as_ref(), Some(&settings), "read twice");
    assert_segment(&settings.cloudhost);
    assert_segment(&settings.build_identifier);
    assert!(ObjectKey::node(&settings.agent.node).is_some(), "{:?} has no place in the bucket", settings.agent.node);
    assert!(settings.issuers.keys().all(|name| ObjectKey::account(name).is_some()), "{:?}", settings.issuers.keys());
    for site in &settings.sites {
        assert_segment(&site.name.file_name());
        assert!(!site.identifiers.is_empty() && (site.method == Method::Manual || !site.issuers.is_empty()), "{site:?}");
        assert!(site.issuers.iter().all(|name| settings.issuers.contains_key(name)), "{site:?}");
        assert!(site.solver.as_ref().is_none_or(|name| settings.solvers.contains_key(name)), "{site:?}");
    }
    let mut names: Vec<_> = settings.sites.iter().map(|site| site.name.file_name()).collect();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), settings.sites.len(), "two sites of one name");
    Verdict::Accepted
}
