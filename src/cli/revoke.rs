//! `certfleet revoke`

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::args::{Arguments, Revoke};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::paste;
use super::rendering;
use super::session::{self, Purpose, Session};
use super::supplied::can_ask;
use crate::config::{IssuerSettings, Settings};
use crate::domain::object_key::Generation;
use crate::domain::record::IssuerClass;
use crate::domain::time::rfc3339;
use crate::fleet::revoke::{self, AtCa, Case, Replacing, RevokeError, Verdict};
use crate::issuer::{IssueError, Revoked, Revoker};
use crate::solver::standalone::Standalone;
use crate::system::text::printable;

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    site: String,
    generation: Generation,
    issuer: &'a str,
    fingerprint_sha256: &'a str,
    reason: &'static str,
    /// `now`, `before` or `not`.
    revoked: &'static str,
    object: &'a str,
    problem: Option<Problem>,
    replacement: Option<rendering::SiteAnswer<'a>>,
}

#[derive(Serialize)]
struct Problem {
    what: String,
    hint: String,
}

/// Takes a certificate back at its CA, once another is in its place.
pub(super) async fn run(arguments: &Arguments, options: &Revoke, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let sites = settings.select(std::slice::from_ref(&options.site))?;
    let failed = |error: RevokeError| match error {
        RevokeError::Datastore(error) => Failure::from(error),
        error => Failure::new(&error, error.hint(), Exit::Failed),
    };
    let store = assemble::datastore(&settings).await?;
    revoke::must_have_bundles(&*store, &sites[0].name).await.map_err(failed)?;
    let session = Session::begin(&settings, &sites, Purpose::Work, console).await?;
    let named = options.generation.map(Generation);
    let case = session.fleet.revocation_case(&sites[0], named, &session.snapshot).await.map_err(failed)?;
    // Whoever can be asked is known before anything is decided.
    let revoker = revoker(&settings, &case, &session)?;
    if !options.yes && !case.is_closed() {
        confirm(&case, options, &session, console).await?;
    }
    let replacing = if options.without_replacement { Replacing::IfPossible } else { Replacing::First };
    let verdict = session.fleet.revoke(&case, options.reason, replacing, revoker).await.map_err(failed)?;
    answer(arguments, &case, &verdict, &sites[0].name.to_string(), console)
}

/// Whoever made it, if that is an ACME CA that is configured.
fn revoker(settings: &Settings, case: &Case, session: &Session) -> Result<Option<Arc<dyn Revoker>>, Failure> {
    let Some(IssuerSettings::Acme(acme)) = settings.issuers.get(case.issuer()) else { return Ok(None) };
    let seal = Arc::new(OnceLock::from(session.fleet.seal.clone()));
    // No challenge is answered: any solver will do.
    let issuer = assemble::acme_ca(case.issuer(), acme, None, Arc::new(Standalone::everywhere()), &session.fleet.store, &seal)?;
    Ok(Some(Arc::new(issuer)))
}

/// On a terminal a person is asked; a script knows what it does.
async fn confirm(case: &Case, options: &Revoke, session: &Session, console: &Console) -> Result<(), Failure> {
    if !can_ask() {
        return Ok(());
    }
    console.finish_steps();
    let leaf = case.leaf();
    let question = format!(
        "Generation {} of {}, by {}, valid until {}, serial {}:\nit is replaced, and then revoked for good ({}). Go on? [y/N] ",
        case.generation(),
        options.site,
        case.issuer(),
        rfc3339(&leaf.not_after),
        leaf.serial,
        case.reason(options.reason),
    );
    let typed = match write!(io::stderr(), "{}", question.split('\n').map(printable).collect::<Vec<_>>().join("\n")) {
        Ok(()) => paste::visible_line(&session.fleet.interrupt).await,
        Err(error) => Err(error),
    };
    match typed {
        Ok(typed) if matches!(typed.trim(), "y" | "Y" | "yes") => Ok(()),
        Ok(_) => Err(Failure::usage("not confirmed", "nothing was done")),
        Err(_) => Err(session::interrupted()),
    }
}

fn answer(arguments: &Arguments, case: &Case, verdict: &Verdict, site: &str, console: &Console) -> Result<Exit, Failure> {
    let (problem, exit) = judged(case, verdict, site);
    let revoked = match verdict.at_ca {
        AtCa::Revoked(Revoked::Now) => "now",
        AtCa::Revoked(Revoked::Before) => "before",
        AtCa::NotReplaced | AtCa::Nobody(_) | AtCa::Failed(_) | AtCa::Interrupted => "not",
    };
    if !arguments.json {
        let mut text = String::new();
        let verb = match revoked {
            "now" => "is revoked",
            "before" => "was revoked before",
            _ => "is not revoked",
        };
        let _ = writeln!(text, "{site}  generation {}, by {}, {verb} ({})", case.generation(), printable(case.issuer()), verdict.reason);
        if let Some(in_place) = verdict.replacement.as_ref().and_then(|report| report.in_place.as_ref()) {
            let until = rfc3339(&in_place.leaf().not_after);
            let _ = writeln!(text, "  in its place  generation {}, valid until {until}", in_place.generation());
        }
        let _ = writeln!(text, "  object        {}", verdict.object);
        console.answer(&text)?;
    }
    if let Some(problem) = &problem {
        console.error(&problem.what, &problem.hint);
    }
    if arguments.json {
        console.answer(&rendering::document(&Answer {
            version: 1,
            site: site.to_owned(),
            generation: case.generation(),
            issuer: case.issuer(),
            fingerprint_sha256: &case.leaf().fingerprint,
            reason: verdict.reason.name(),
            revoked,
            object: verdict.object.as_str(),
            problem,
            replacement: verdict.replacement.as_ref().map(rendering::site_answer),
        }))?;
    }
    Ok(exit)
}

/// What is not as it was asked for.
fn judged(case: &Case, verdict: &Verdict, site: &str) -> (Option<Problem>, Exit) {
    let generation = case.generation();
    let again = "the decision is kept: the same command goes on from here";
    let replacing = verdict.replacement.as_ref();
    let replacing_failed = replacing.and_then(|report| report.problem.as_ref());
    let (what, hint, exit) = match &verdict.at_ca {
        AtCa::Revoked(_) => match (replacing, replacing_failed) {
            (Some(report), Some(problem)) => (format!("{site}: {}", problem.what), problem.hint.clone(), report.outcome.into()),
            _ => return (None, Exit::Done),
        },
        AtCa::NotReplaced => {
            let why = replacing_failed.map_or("another certificate could not be had", |problem| &problem.what);
            let hint = replacing_failed.map(|problem| format!("{}; ", problem.hint)).unwrap_or_default();
            let exit = replacing
                .map_or(Exit::Failed, |report| if Exit::from(report.outcome) == Exit::Temporary { Exit::Temporary } else { Exit::Failed });
            let what = format!("generation {generation} of {site} is not revoked, because nothing is in its place: {why}");
            (what, format!("{hint}{again}; --without-replacement revokes in any case"), exit)
        }
        AtCa::Nobody(class) => {
            let (what, hint) = nobody(*class, case, site);
            (what, hint, Exit::Failed)
        }
        AtCa::Failed(IssueError::Refused { reason, hint, .. }) => {
            (format!("generation {generation} of {site} is not revoked: {reason}"), format!("{hint}; {again}"), Exit::Failed)
        }
        AtCa::Failed(error) => (format!("generation {generation} of {site} is not revoked: {error}"), again.to_owned(), Exit::Failed),
        AtCa::Interrupted => (format!("generation {generation} of {site} is not revoked: interrupted"), again.to_owned(), Exit::Temporary),
    };
    (Some(Problem { what, hint }), exit)
}

fn nobody(class: IssuerClass, case: &Case, site: &str) -> (String, String) {
    let generation = case.generation();
    let what = format!("generation {generation} of {site} cannot be revoked from here: {} made it", printable(case.issuer()));
    let hint = match class {
        IssuerClass::Acme => "add an [issuer] table of that name with the CA's directory, and run the same command again".to_owned(),
        IssuerClass::Manual => "revoke it where you bought it; certfleet uses its key no more".to_owned(),
        IssuerClass::LocalCa | IssuerClass::SelfSigned => {
            format!(
                "nothing lists what is revoked there: certfleet uses its key no more, and who has that key can use it until {}",
                rfc3339(&case.leaf().not_after)
            )
        }
    };
    (what, hint)
}
