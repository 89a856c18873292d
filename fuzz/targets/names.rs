//! Names of sites and identifiers, as people, configurations and records have them.

use certfleet::domain::identifier::Identifier;
use certfleet::domain::object_key::{Attempt, Generation, Listed, ObjectKey};
use certfleet::domain::site::SiteName;

use super::{Verdict, assert_printable, assert_segment};

pub fn check(data: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(data) else { return Verdict::Refused };
    if let Ok(site) = SiteName::from_file_name(text) {
        assert_eq!(site.file_name(), text, "two files for one site");
    }
    match text.parse::<Identifier>() {
        Ok(identifier) => identifier_holds(&identifier),
        Err(error) => assert_printable(&error.to_string()),
    }
    let Ok(site) = text.parse::<SiteName>() else { return Verdict::Refused };
    let shown = site.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(&site), "what is shown can be typed");
    assert!(shown.is_ascii() && !shown.contains(char::is_whitespace) && shown == shown.to_lowercase(), "{shown:?}");
    let file_name = site.file_name();
    assert_segment(&file_name);
    assert_eq!(SiteName::from_file_name(&file_name).as_ref(), Ok(&site));
    let bundle = ObjectKey::bundle(&site, Generation(7));
    assert_eq!(ObjectKey::from_listing(bundle.as_str()).map(|key| key.listed()), Some(Listed::Bundle(site.clone(), Generation(7))));
    let lease = ObjectKey::lease(&site, Generation(7), Attempt(3));
    assert_eq!(ObjectKey::from_listing(lease.as_str()).map(|key| key.listed()), Some(Listed::Lease(site, Generation(7), Attempt(3))));
    Verdict::Accepted
}

fn identifier_holds(identifier: &Identifier) {
    let shown = identifier.to_string();
    assert_eq!(shown.parse().as_ref(), Ok(identifier));
    assert_segment(&identifier.file_name());
    assert_eq!(Identifier::from_file_name(&identifier.file_name()).as_ref(), Ok(identifier));
    assert!(identifier.covers(identifier));
    if let Some(name) = identifier.base_name() {
        let plain =
            |label: &str| !label.is_empty() && label.len() <= 63 && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        assert!(name.len() <= 253 && name.split('.').all(plain), "{name:?} is no name of a host");
    }
}
