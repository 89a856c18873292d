//! `certfleet snippet`

use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::args::{Arguments, Snippet as Options, WebServer};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::rendering;
use super::session::{Purpose, Session};
use super::targets::wants;
use crate::config::{AcmeSettings, HttpAnswer, IssuerSettings, Settings, SolverSettings, TargetKind};
use crate::domain::object_key::ObjectKey;
use crate::domain::site::Site;
use crate::domain::snippet::{Answer, Snippet, SnippetFile};
use crate::fleet::accounts::StoredAccount;
use crate::fleet::progress::Progress as _;
use crate::issuer::IssueError;
use crate::solver::stateless::Stateless;
use crate::system::error_chain::in_full;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    site: String,
    server: &'static str,
    challenges: Option<&'static str>,
    files: Vec<FileAnswer<'a>>,
}

#[derive(Serialize)]
struct FileAnswer<'a> {
    path: &'a str,
    text: &'a str,
}

/// Prints what a server has to be told of a site. Nothing is written, but for the account where `--open-account` opens one.
pub(super) async fn run(arguments: &Arguments, options: &Options, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let site = settings.select(std::slice::from_ref(&options.site))?.remove(0);
    let kind = target_kind(options.server);
    let target = settings.targets.iter().find(|target| target.kind == kind && wants(target, &site)).ok_or_else(|| {
        let hint =
            format!("add [[target]] with kind = \"{}\" and its ssl_root, the directory that it reads certificates from", kind.name());
        Failure::usage(format!("no [[target]] says where {} finds the certificate of {}", kind.name(), site.name), hint)
    })?;
    let live = target.ssl_root.join("live").join(site.name.file_name());
    let answer = answer(&settings, &site, options, console).await?;
    let challenges = answer.as_ref().map(|answer| match answer {
        Answer::Stateless(_) => "stateless",
        Answer::Redirect(_) => "redirect",
    });
    let (name, identifiers) = (site.name.clone(), site.identifiers.clone());
    let snippet = Snippet { site: name, identifiers, live: live.to_string_lossy().into_owned(), answer };
    let files = snippet.files(options.server.into()).map_err(|error| Failure::new(&error, "choose a plain one", Exit::Usage))?;
    let text = if arguments.json {
        let files = files.iter().map(|file| FileAnswer { path: &file.path, text: &file.text }).collect();
        rendering::document(&Document { version: 1, site: site.name.to_string(), server: kind.name(), challenges, files })
    } else {
        printed(&files)
    };
    console.answer(&text)?;
    if challenges.is_none() && !arguments.quiet {
        console.note("no answer to challenges among it: that is for modes \"stateless\" and \"redirect\" of http-01");
    }
    Ok(Exit::Done)
}

fn printed(files: &[SnippetFile]) -> String {
    let mut text = String::new();
    for file in files {
        let separator = if text.is_empty() { "" } else { "\n" };
        let _ = write!(text, "{separator}{} {}\n{}", file.comment, file.path, file.text);
    }
    text
}

/// How the servers of a site answer challenges, where its solver leaves that to their configuration.
async fn answer(settings: &Settings, site: &Site, options: &Options, console: &Arc<Console>) -> Result<Option<Answer>, Failure> {
    let solver = site.solver.as_ref().and_then(|solver| settings.solvers.get(solver));
    let Some(SolverSettings::Http01(http)) = solver else { return Ok(None) };
    let acme = site.issuers.iter().find_map(|name| match settings.issuers.get(name) {
        Some(IssuerSettings::Acme(acme)) => Some((name, &**acme)),
        _ => None,
    });
    match (&http.answer, acme) {
        // The configuration allows no more than one.
        (HttpAnswer::Stateless, Some((name, acme))) => {
            let thumbprint = thumbprint(settings, site, name, acme, options, console).await?;
            Ok(Some(Answer::Stateless(thumbprint)))
        }
        (HttpAnswer::Redirect { url }, _) => Ok(Some(Answer::Redirect(url.clone()))),
        _ => Ok(None),
    }
}

async fn thumbprint(
    settings: &Settings,
    site: &Site,
    name: &str,
    acme: &AcmeSettings,
    options: &Options,
    console: &Arc<Console>,
) -> Result<String, Failure> {
    let purpose = if options.open_account { Purpose::WorkWithoutIssuers } else { Purpose::Look };
    let session = Session::begin(settings, &[], purpose, console).await?;
    let Some(key) = ObjectKey::account(name) else {
        return Err(Failure::usage(format!("an issuer cannot be called {name:?}"), "use letters, digits and hyphens"));
    };
    let seal = Arc::new(OnceLock::from(session.fleet.seal.clone()));
    let kept = StoredAccount::new(Arc::clone(&session.fleet.store), Arc::clone(&seal), key).thumbprint(&acme.directory).await;
    match kept.map_err(|error| Failure::new(&error, error.hint.clone(), Exit::Failed))? {
        Some(thumbprint) => Ok(thumbprint),
        None if options.open_account => {
            let issuer = assemble::acme_ca(name, acme, None, Arc::new(Stateless), &session.fleet.store, &seal)?;
            issuer.open_account(&|step| console.note(&format!("{name}: {step}"))).await.map_err(|error| refused(&error))
        }
        None => {
            let what = format!("the fleet has no account at {name} yet, and stateless answers hold its thumbprint");
            let hint =
                format!("open it with: certfleet snippet {} {} --open-account", target_kind(options.server).name(), site.name.in_shell());
            Err(Failure { what, hint, exit: Exit::Failed })
        }
    }
}

fn refused(error: &IssueError) -> Failure {
    let hint = match error {
        IssueError::Refused { hint, .. } => hint.clone(),
        IssueError::Account(error) => error.hint.clone(),
        IssueError::Ended(_) => "try again".to_owned(),
    };
    Failure { what: in_full(error), hint, exit: Exit::Failed }
}

fn target_kind(server: WebServer) -> TargetKind {
    match server {
        WebServer::Nginx => TargetKind::Nginx,
        WebServer::Apache => TargetKind::Apache,
        WebServer::Lighttpd => TargetKind::Lighttpd,
        WebServer::Haproxy => TargetKind::Haproxy,
        WebServer::Caddy => TargetKind::Caddy,
    }
}
