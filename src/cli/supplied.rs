//! Certificates that a person hands over: read from files, standard input or a paste, and judged.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;

use chrono::{DateTime, Utc};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::args;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::paste;
use crate::domain::bundle::Bundle;
use crate::domain::site::Site;
use crate::domain::supplied::{GivenAs, Material, SuppliedError, supplied};
use crate::fleet::progress::Progress as _;
use crate::system::error_chain::in_full;

/// More than any chain, key or archive has: whoever names the wrong file learns it at once.
const LARGEST_FILE_BYTES: u64 = 1 << 20;

/// What was handed over, not yet judged.
pub(super) struct Materials {
    pieces: Vec<(String, Zeroizing<Vec<u8>>, GivenAs)>,
    password: Option<Zeroizing<String>>,
}

/// Reads the files that the flags name; `None` where they name none.
pub(super) fn read(flags: &args::Supplied) -> Result<Option<Materials>, Failure> {
    let Some(fullchain) = &flags.fullchain else { return Ok(None) };
    let as_chain = if flags.privkey.is_some() { GivenAs::Chain } else { GivenAs::Either };
    let mut pieces = vec![piece(fullchain, as_chain)?];
    match &flags.privkey {
        Some(privkey) if privkey == fullchain => pieces[0].2 = GivenAs::Either,
        Some(privkey) => pieces.push(piece(privkey, GivenAs::Key)?),
        None => {}
    }
    let password = match &flags.password_file {
        None => None,
        Some(path) => {
            let (_, bytes, _) = piece(path, GivenAs::Either)?;
            let text = std::str::from_utf8(&bytes).map_err(|error| unreadable(path, &error))?;
            Some(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
    };
    Ok(Some(Materials { pieces, password }))
}

/// Whether there is somebody to ask.
pub(super) fn can_ask() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a paste of chain and key, until `interrupt` is cancelled.
pub(super) async fn ask(site: &Site, interrupt: &CancellationToken, console: &Console) -> Result<Materials, Failure> {
    console.finish_steps();
    let text = paste::read(&site.name.to_string(), interrupt).await;
    let text = text.map_err(|error| unasked(&error, "use --fullchain and --privkey with files instead"))?;
    Ok(Materials { pieces: vec![("the paste".to_owned(), text, GivenAs::Either)], password: None })
}

/// Judges what was handed over: a proven bundle for the site, or what is wrong with it. Everything that was put right is said. A password
/// that is missing is asked for, until `interrupt` is cancelled.
pub(super) async fn accept(
    materials: &Materials,
    site: &Site,
    now: DateTime<Utc>,
    interrupt: &CancellationToken,
    console: &Console,
) -> Result<Bundle, Failure> {
    let pieces: Vec<_> = materials.pieces.iter().map(|(name, bytes, given_as)| Material { name, bytes, given_as: *given_as }).collect();
    let judge = |password: Option<&str>| supplied(&pieces, password, &site.identifiers, now);
    let mut judged = judge(materials.password.as_ref().map(|password| password.as_str()));
    if judged.as_ref().is_err_and(SuppliedError::wants_password) && can_ask() {
        console.finish_steps();
        let password = paste::password(interrupt).await.map_err(|error| unasked(&error, "use --password-file instead"))?;
        judged = judge(Some(&password));
    }
    let accepted = judged.map_err(|error| {
        let what = format!("the certificate was refused: {}", in_full(&error));
        let how = if matches!(error, SuppliedError::PasswordMissing(_)) { ": --password-file FILE" } else { "" };
        Failure { what, hint: error.hint() + how, exit: Exit::Failed }
    })?;
    for note in &accepted.notes {
        console.note(&note.to_string());
    }
    Ok(accepted.bundle)
}

fn piece(path: &Path, given_as: GivenAs) -> Result<(String, Zeroizing<Vec<u8>>, GivenAs), Failure> {
    Ok((name(path), contents(path)?, given_as))
}

fn name(path: &Path) -> String {
    if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() }
}

/// All of a file that holds certificates, keys or a password, or of standard input where it is called `-`.
pub(super) fn contents(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = if path == Path::new("-") {
        io::stdin().lock().take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(LARGEST_FILE_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| unreadable(path, &error))?;
    if bytes.len() as u64 > LARGEST_FILE_BYTES {
        return Err(Failure::usage(format!("{} is larger than any certificate or key", name(path)), "check the file's name"));
    }
    if bytes.is_empty() {
        return Err(Failure::usage(format!("{} is empty", name(path)), "check the file's name, and whatever was to write it"));
    }
    Ok(bytes)
}

/// A question that brought no answer.
fn unasked(error: &io::Error, instead: &str) -> Failure {
    if error.kind() == io::ErrorKind::Interrupted {
        return Failure { what: "interrupted: nothing of it was kept".to_owned(), hint: instead.to_owned(), exit: Exit::Temporary };
    }
    Failure::new(error, instead, Exit::Failed)
}

fn unreadable(path: &Path, error: &dyn std::error::Error) -> Failure {
    Failure::usage(format!("cannot read {}: {error}", path.display()), "check the file's name and who may read it")
}
