//! `certfleet export`

use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::args::{Arguments, Export, Format};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::session::{Purpose, Session};
use crate::system::files;

/// Writes the site's bundle from the datastore. Only its bytes go to standard output.
pub(super) async fn run(arguments: &Arguments, options: &Export, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let sites = settings.select(std::slice::from_ref(&options.site))?;
    let session = Session::begin(&settings, &[], Purpose::Look, console).await?;
    let opened = session.fleet.stored_bundle(&sites[0].name, &session.snapshot).await.map_err(|error| Failure::from_look(&error))?;
    let text = match options.format {
        Format::Combined => opened.bundle.combined_pem(),
        Format::Pem => Zeroizing::new(opened.bundle.chain_pem()),
    };
    if options.output == Path::new("-") {
        console.answer(&text)?;
    } else {
        files::replace(&options.output, text.as_bytes(), files::SECRET_FILE)?;
    }
    Ok(Exit::Done)
}
