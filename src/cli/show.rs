//! `certfleet show`

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};

use super::args::{Arguments, Show};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::rendering;
use super::session::{Purpose, Session};
use super::supplied;
use crate::domain::certificate::Certificate;
use crate::domain::description::Description;
use crate::domain::identifier::Identifier;
use crate::domain::site::SiteName;
use crate::domain::supplied::certificates_in;
use crate::fleet::look::LookError;
use crate::system::error_chain::in_full;
use crate::system::text::printable;
use crate::target::handshake::presented_chain;

/// How long a server may take to present its certificate.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Describes what was named: a file where there is one, else a server's address where it has a port, else a site.
pub(super) async fn run(arguments: &Arguments, options: &Show, console: &Arc<Console>) -> Result<Exit, Failure> {
    let subject = options.subject.as_str();
    let here = DateTime::<Utc>::from(SystemTime::now());
    let (chain, wanted, now) = if Path::new(subject).exists() && !Path::new(subject).is_dir() {
        (of_file(subject)?, Vec::new(), here)
    } else if let Some(host) = host_of(subject) {
        let (chain, wanted) = of_server(subject, host).await?;
        (chain, wanted, here)
    } else {
        of_site(arguments, subject, console).await?
    };
    let Some(description) = Description::new(&chain, &wanted, now) else {
        return Err(Failure { what: format!("{subject} presents no certificate"), hint: String::new(), exit: Exit::Failed });
    };
    if arguments.json {
        console.answer(&rendering::document(&description))?;
    } else {
        let mut text = String::new();
        for (label, value) in description.lines() {
            let _ = writeln!(text, "{label:<14}{}", printable(&value));
        }
        console.answer(&text)?;
    }
    Ok(if description.verdict.is_good() { Exit::Done } else { Exit::Failed })
}

fn of_file(path: &str) -> Result<Vec<Certificate>, Failure> {
    let bytes = supplied::contents(Path::new(path))?;
    certificates_in(path, &bytes).map_err(|error| Failure::new(&error, error.hint(), Exit::Failed))
}

async fn of_server(address: &str, host: &str) -> Result<(Vec<Certificate>, Vec<Identifier>), Failure> {
    let name: Identifier = host.parse().map_err(|error| Failure::new(&error, "write HOST:PORT, as in www.example.com:443", Exit::Usage))?;
    let presented = presented_chain(address, &name, HANDSHAKE_DEADLINE).await;
    let presented = presented.map_err(|error| Failure::new(&error, error.hint(), Exit::Failed))?;
    let chain = presented.iter().map(|der| Certificate::from_der(der)).collect::<Result<Vec<_>, _>>();
    let chain =
        chain.map_err(|error| Failure { what: format!("{address}: {}", in_full(&error)), hint: String::new(), exit: Exit::Failed })?;
    Ok((chain, vec![name]))
}

/// A site's bundle is judged by the store's clock, like everything that a renewal rests on.
async fn of_site(
    arguments: &Arguments,
    site: &str,
    console: &Arc<Console>,
) -> Result<(Vec<Certificate>, Vec<Identifier>, DateTime<Utc>), Failure> {
    // What cannot be a site was meant to be something else.
    site.parse::<SiteName>().map_err(|_| {
        if Path::new(site).is_dir() {
            return Failure::usage(format!("{site} is a directory"), "name a file in it, such as fullchain.pem");
        }
        let what = format!("there is no file {site:?}, and it is neither a site nor HOST:PORT");
        Failure::usage(what, "check the file's name; servers are written www.example.com:443, or [2001:db8::1]:443")
    })?;
    let settings = assemble::settings(arguments.config.as_deref())?;
    let sites = settings.select(&[site.to_owned()])?;
    let session = Session::begin(&settings, &[], Purpose::Look, console).await?;
    let opened = session.fleet.stored_bundle(&sites[0].name, &session.snapshot).await.map_err(|error| {
        let failure = Failure::from_look(&error);
        // With no configuration every name is a site, and so is that of a file that is not there.
        let what =
            if matches!(error, LookError::Absent(_)) { format!("{}, and there is no file {site:?}", failure.what) } else { failure.what };
        Failure { what, ..failure }
    })?;
    Ok((opened.bundle.chain().to_vec(), sites[0].identifiers.clone(), session.snapshot.clock().now()))
}

/// The host of HOST:PORT; IPv6 addresses stand in brackets.
fn host_of(subject: &str) -> Option<&str> {
    let (host, port) = subject.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    bracketed.or_else(|| (!host.contains(':')).then_some(host))
}
