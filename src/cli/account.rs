//! `certfleet account`

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use super::args::{Account, AccountAction, Arguments};
use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::paste;
use super::rendering;
use super::session::{Purpose, Session};
use super::supplied::can_ask;
use crate::config::{AcmeSettings, IssuerSettings, Settings, SolverSettings};
use crate::domain::object_key::ObjectKey;
use crate::domain::site::Site;
use crate::fleet::progress::Progress as _;
use crate::issuer::acme::{AccountView, AcmeIssuer};
use crate::solver::standalone::Standalone;
use crate::system::text::printable;

#[derive(Serialize)]
struct Answer<'a> {
    version: u32,
    issuer: &'a str,
    object: Option<&'a str>,
    account: Option<AccountAnswer<'a>>,
}

#[derive(Serialize)]
struct AccountAnswer<'a> {
    url: &'a str,
    status: &'a str,
    contact: &'a [String],
    thumbprint: &'a str,
}

/// Looks at the fleet's account at a CA, or changes it. No order is placed, and no account opened.
pub(super) async fn run(arguments: &Arguments, options: &Account, console: &Arc<Console>) -> Result<Exit, Failure> {
    let settings = assemble::settings(arguments.config.as_deref())?;
    let (name, acme) = chosen(&settings, options.action.issuer())?;
    let purpose = if matches!(options.action, AccountAction::Show { .. }) { Purpose::Look } else { Purpose::Work };
    let session = Session::begin(&settings, &[], purpose, console).await?;
    if let AccountAction::Deactivate { yes: false, .. } = options.action {
        confirm(&name, &session, console).await?;
    }
    let seal = Arc::new(OnceLock::from(session.fleet.seal.clone()));
    // No challenge is answered: any solver will do.
    let issuer = assemble::acme_ca(&name, acme, None, Arc::new(Standalone::everywhere()), &session.fleet.store, &seal)?;
    let view = tokio::select! {
        view = act(&options.action, &issuer) => view.map_err(Failure::from)?,
        () = session.fleet.interrupt.cancelled() => return Err(super::session::interrupted()),
    };
    answer(arguments, &options.action, &name, view.as_ref(), console)?;
    if matches!(options.action, AccountAction::Rollover { .. }) && view.is_some() {
        warn_of_thumbprints(&settings, &name, console);
    }
    Ok(Exit::Done)
}

/// Servers that answer challenges by themselves do it with the thumbprint of the account's key.
fn warn_of_thumbprints(settings: &Settings, issuer: &str, console: &Console) {
    let stateless =
        |site: &&Site| site.solver.as_ref().and_then(|name| settings.solvers.get(name)).is_some_and(SolverSettings::is_stateless);
    for site in settings.sites.iter().filter(|site| site.issuers.iter().any(|name| name == issuer)).filter(stateless) {
        console.warning(&format!(
            "{0}: its servers answer challenges with the thumbprint of the old key: paste what `certfleet snippet SERVER {1}` prints now on each, before it is renewed",
            site.name,
            site.name.in_shell(),
        ));
    }
}

async fn act(action: &AccountAction, issuer: &AcmeIssuer) -> Result<Option<AccountView>, crate::issuer::IssueError> {
    match action {
        AccountAction::Show { .. } => issuer.account_view().await,
        AccountAction::Update { .. } => issuer.update_account().await,
        AccountAction::Rollover { .. } => issuer.roll_over().await,
        AccountAction::Deactivate { .. } => issuer.deactivate_account().await,
    }
}

/// The issuer that is named, or the only ACME issuer that sites list.
fn chosen<'a>(settings: &'a Settings, named: Option<&str>) -> Result<(String, &'a AcmeSettings), Failure> {
    let acme = |name: &str| match settings.issuers.get(name) {
        Some(IssuerSettings::Acme(acme)) => Some(&**acme),
        _ => None,
    };
    let listed: BTreeSet<_> = settings.sites.iter().flat_map(|site| &site.issuers).filter(|name| acme(name).is_some()).collect();
    let all = || listed.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    match (named, listed.iter().next()) {
        (Some(name), _) => acme(name).map(|settings| (name.to_owned(), settings)).ok_or_else(|| {
            let what = format!("there is no ACME issuer {:?}", printable(name));
            Failure::usage(what, format!("ACME issuers that sites list: {}", all()))
        }),
        (None, Some(only)) if listed.len() == 1 => acme(only).map(|acme| ((*only).clone(), acme)).ok_or_else(nothing),
        (None, Some(_)) => Err(Failure::usage("several issuers have accounts", format!("name one of: {}", all()))),
        (None, None) => Err(nothing()),
    }
}

fn nothing() -> Failure {
    Failure::usage("no site lists an issuer that has accounts", "accounts are those of ACME issuers: name one of them")
}

/// Has a person type the issuer's name.
async fn confirm(name: &str, session: &Session, console: &Console) -> Result<(), Failure> {
    if !can_ask() {
        return Err(Failure::usage("an account that is deactivated cannot be used again, by nobody", "add --yes if that is what you want"));
    }
    console.finish_steps();
    let question = format!(
        "The account at {name} will be given up for good: what it has ordered cannot be renewed or revoked with it, and open orders end.\n\
         Certificates stay valid. The next order opens a new account, unless no site lists {name} any more.\n\
         Type the name of the issuer to go on: "
    );
    let asked = write!(io::stderr(), "{question}");
    let typed = match asked {
        Ok(()) => paste::visible_line(&session.fleet.interrupt).await,
        Err(error) => Err(error),
    };
    match typed {
        Ok(typed) if typed.trim() == name => Ok(()),
        _ => Err(Failure::usage("not confirmed", "nothing was done")),
    }
}

fn answer(arguments: &Arguments, action: &AccountAction, name: &str, view: Option<&AccountView>, console: &Console) -> Result<(), Failure> {
    let object = ObjectKey::account(name);
    if arguments.json {
        let account =
            view.map(|view| AccountAnswer { url: &view.url, status: &view.status, contact: &view.contact, thumbprint: &view.thumbprint });
        let object = object.as_ref().filter(|_| view.is_some()).map(ObjectKey::as_str);
        console.answer(&rendering::document(&Answer { version: 1, issuer: name, object, account }))?;
    } else if let Some(view) = view {
        let contact = if view.contact.is_empty() { "none".to_owned() } else { view.contact.join(", ") };
        let status = if view.status.is_empty() { "unknown to the CA" } else { &view.status };
        let mut text =
            format!("{name}  {status}\n  account     {}\n  contact     {contact}\n  thumbprint  {}\n", view.url, view.thumbprint);
        if let Some(object) = object {
            let verb = if matches!(action, AccountAction::Deactivate { .. }) { "deleted     " } else { "object      " };
            let _ = writeln!(text, "  {verb}{object}");
        }
        console.answer(&text)?;
    }
    if view.is_none() {
        console.note(&format!("the fleet has no account at {name}: the first order opens one"));
    }
    Ok(())
}
