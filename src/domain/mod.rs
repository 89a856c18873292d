//! The pure heart: values and rules, with no input, output, clock or randomness.
//!
//! Whatever these functions need to know about the world (the time, the listing of a datastore, bytes read from a file) is handed
//! to them. That is what lets every rule be tested in microseconds, and lets a plan be printed instead of executed.

pub mod attention;
pub mod budget;
pub mod bundle;
pub mod candidacy;
pub mod certificate;
pub mod checkup;
pub mod delivery;
pub mod description;
pub mod fleet_status;
pub mod identifier;
pub mod key_type;
pub mod lease;
pub mod node_plan;
pub mod node_report;
pub mod object_key;
pub mod pem;
pub mod plan;
pub mod policy;
pub mod private_key;
pub mod prune;
pub mod record;
pub mod renewal_window;
pub mod revocation;
pub mod schedule;
pub mod site;
pub mod snippet;
pub mod starter;
pub mod supplied;
pub mod time;
pub mod trust;
