//! `certfleet init`

use std::path::Path;
use std::sync::Arc;

use super::args::Arguments;
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use crate::config::{self, IdentitySource, Seal};
use crate::fleet::identity;
use crate::system::files::{self, Creation};

/// Writes the starter configuration and a new identity. What is there is left alone, and said.
pub(super) fn run(arguments: &Arguments, console: &Arc<Console>) -> Result<Exit, Failure> {
    let path = arguments.config.clone().unwrap_or_else(|| Path::new("certfleet.toml").to_owned());
    let written = files::create(&path, config::starter().as_bytes(), 0o644)?;
    let settings = assemble::settings(Some(&path))?;
    let configuration = (path.display().to_string(), written);
    let identity = match (&settings.datastore.seal, &settings.datastore.identity) {
        (Seal::Age, IdentitySource::File(path)) => Some((path.display().to_string(), identity::create(path)?)),
        _ => None,
    };
    let made = |creation| creation == Creation::Created;
    if arguments.json {
        let state = |(path, creation): &(String, Creation)| serde_json::json!({ "path": path, "created": made(*creation) });
        let answer = serde_json::json!({ "version": 1, "configuration": state(&configuration), "identity": identity.as_ref().map(state) });
        console.answer(&format!("{answer:#}\n"))?;
        return Ok(Exit::Done);
    }
    let tell = |what: &str, (path, creation): &(String, Creation)| {
        console.answer(&format!("{} {what} {path}\n", if made(*creation) { "wrote" } else { "kept " }))
    };
    tell("configuration", &configuration)?;
    if let Some(identity) = &identity {
        tell("identity     ", identity)?;
        console.answer("\nThe identity opens every private key in the datastore: keep a copy somewhere safe.\n")?;
    }
    console.answer("Next: edit the configuration, then run `certfleet doctor`, and `certfleet ensure --dry-run`.\n")?;
    Ok(Exit::Done)
}
