//! `kind = "http-01"` and `kind = "tls-alpn-01"`: what answers on ports 80 and 443.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use http::Uri;

use super::{Program, program};
use crate::config::error::ConfigError;
use crate::config::paths::Base;
use crate::config::read::{Choice, Field, Table};

/// The port that CAs ask for http-01 answers at (RFC 8555 section 8.3).
const HTTP_PORT: u16 = 80;

/// The port that CAs shake hands at for tls-alpn-01 (RFC 8737 section 3).
const HTTPS_PORT: u16 = 443;

/// http-01: a file on port 80.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Http01Settings {
    /// Who has the answer.
    pub answer: HttpAnswer,
    /// Where the answer is looked for before the CA is asked to.
    pub check: HttpCheck,
}

/// Who has the answer to an http-01 challenge.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum HttpAnswer {
    /// A server of our own, for as long as it takes.
    Standalone {
        /// What it listens at. `[::]` stands for every address, IPv4 included.
        listen: SocketAddr,
    },
    /// Files in the directory of a server that is already there.
    Webroot {
        /// The directory it serves as `/`.
        path: PathBuf,
    },
    /// Every server of the fleet, from its own configuration: nothing is put anywhere.
    Stateless,
    /// The datastore; every server redirects there.
    Redirect {
        /// Where visitors read what the datastore has below `challenges/`; ends in a slash.
        url: String,
    },
    /// A program puts it where the CA will look.
    Program(Program),
}

/// Where an http-01 answer is looked for before the CA is asked to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HttpCheck {
    /// At every address that the system's resolver knows for the name.
    System,
    /// At this address, whatever the name.
    At(SocketAddr),
    /// Nowhere.
    Off,
}

#[derive(Clone, Copy)]
enum Mode {
    Standalone,
    Webroot,
    Stateless,
    Redirect,
    Script,
}

const MODES: Choice<'_, Mode> = Choice {
    what: "mode",
    words: &[
        ("standalone", Mode::Standalone),
        ("webroot", Mode::Webroot),
        ("stateless", Mode::Stateless),
        ("redirect", Mode::Redirect),
        ("script", Mode::Script),
    ],
    later: &[],
};

pub(super) fn http_01(table: &Table<'_>, base: &Base) -> Result<Http01Settings, ConfigError> {
    let answer = match table.choose("mode", &MODES, Mode::Standalone)? {
        Mode::Standalone => {
            table.only(&["kind", "mode", "check", "listen"], r#"mode "standalone""#)?;
            HttpAnswer::Standalone { listen: listen(table, HTTP_PORT)? }
        }
        Mode::Webroot => {
            table.only(&["kind", "mode", "check", "path"], r#"mode "webroot""#)?;
            let path = table.require("path", r#"path = "/var/www/html", the directory that the web server serves"#)?.path(base)?;
            HttpAnswer::Webroot { path }
        }
        Mode::Stateless => {
            table.only(&["kind", "mode", "check"], r#"mode "stateless""#)?;
            HttpAnswer::Stateless
        }
        Mode::Redirect => {
            table.only(&["kind", "mode", "check", "url"], r#"mode "redirect""#)?;
            let url = table.require("url", r#"url = "https://bucket.example/prefix/challenges/", where visitors read the bucket"#)?;
            HttpAnswer::Redirect { url: public_url(&url)? }
        }
        Mode::Script => {
            table.only(&["kind", "mode", "check", "provider", "credentials", "present", "cleanup"], r#"mode "script""#)?;
            HttpAnswer::Program(program(table, base)?)
        }
    };
    Ok(Http01Settings { answer, check: table.get("check").map_or(Ok(HttpCheck::System), |field| check(&field))? })
}

/// The address of a tls-alpn-01 listener.
pub(super) fn tls_alpn_01(table: &Table<'_>) -> Result<SocketAddr, ConfigError> {
    table.only(&["kind", "listen"], "tls-alpn-01")?;
    listen(table, HTTPS_PORT)
}

/// On every address of the machine where none is given.
fn listen(table: &Table<'_>, port: u16) -> Result<SocketAddr, ConfigError> {
    let everywhere = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
    table.get("listen").map_or(Ok(everywhere), |field| {
        let text = field.text()?;
        let hint = format!(r#"write "0.0.0.0:{port}" or "[::]:{port}""#);
        text.parse().map_err(|_| field.rejected(format!("{text:?} is not an address with a port"), hint))
    })
}

fn check(field: &Field<'_>) -> Result<HttpCheck, ConfigError> {
    match field.text()? {
        "system" => Ok(HttpCheck::System),
        "off" => Ok(HttpCheck::Off),
        text => text.parse().map(HttpCheck::At).map_err(|_| {
            let hint = r#"write "system", "off", or the address of the servers as this machine reaches them: "192.0.2.7:80""#;
            field.rejected(format!("{text:?} is no place to look at"), hint)
        }),
    }
}

/// A URL that can stand in every server's configuration as it is. Something is put behind it, so it has no query.
fn public_url(field: &Field<'_>) -> Result<String, ConfigError> {
    let text = field.text()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~/:[]".contains(c);
    let parsed = text.parse::<Uri>().ok().filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some());
    if parsed.is_some() && text.chars().all(plain) && text.ends_with("/challenges/") {
        return Ok(text.to_owned());
    }
    let why = format!("{text:?} cannot be where the datastore's answers are read");
    let hint = r#"write "https://BUCKET.ENDPOINT/PREFIX/challenges/": http or https, plain letters, no query, and challenges/ at the end"#;
    Err(field.rejected(why, hint))
}
