//! `certfleet import`

use std::sync::Arc;

use super::args::{Arguments, Import};
use super::assemble;
use super::console::Console;
use super::ensure;
use super::exit::Exit;
use super::failure::Failure;
use super::session::{self, Purpose, Session};
use super::supplied;
use crate::domain::plan::Intent;
use crate::fleet::gather::SiteWanted;

/// Publishes a supplied bundle as the next generation, whatever the site's method.
pub(super) async fn run(arguments: &Arguments, options: &Import, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let mut sites = settings.select(std::slice::from_ref(&options.site))?;
    let Some(site) = sites.pop() else {
        return Err(Failure::usage(format!("there is no site {:?}", options.site), "name a configured site"));
    };
    let (materials, interrupt) = match supplied::read(&options.supplied)? {
        Some(materials) => (materials, None),
        None if supplied::can_ask() => {
            let interrupt = session::interrupt(console)?;
            (supplied::ask(&site, &interrupt, console).await?, Some(interrupt))
        }
        None => {
            let hint = format!("certfleet import {} --fullchain FILE --privkey FILE", site.name.in_shell());
            return Err(Failure::usage("there is no certificate to import, and no terminal to ask at", hint));
        }
    };
    let session = Session::begin_under(interrupt, &settings, std::slice::from_ref(&site), Purpose::Work, console).await?;
    let accepted = supplied::accept(&materials, &site, session.snapshot.clock().now(), &session.fleet.interrupt, console);
    let bundle = accepted.await.map_err(|failure| failure.about(&site.name))?;
    let wanted = SiteWanted { site, intent: Intent::IfDue, supplied: Some(bundle), held: None };
    let reports = session.fleet.ensure(&[wanted], &session.snapshot).await;
    ensure::answer(arguments, &settings, &session.snapshot, &reports, console)
}
