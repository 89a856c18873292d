//! What to paste into a server's configuration: the answer to http-01 challenges, and the lines of the certificate. Values in, text out.

use thiserror::Error;

use super::identifier::Identifier;
use super::site::SiteName;

mod servers;

/// The servers that there is a text for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Server {
    /// nginx.
    Nginx,
    /// The Apache HTTP server.
    Apache,
    /// lighttpd.
    Lighttpd,
    /// HAProxy.
    Haproxy,
    /// Caddy.
    Caddy,
}

/// How the servers of a site answer http-01 challenges.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// With the token and this thumbprint of the fleet's account.
    Stateless(String),
    /// With a redirect to the token below this URL, which ends in a slash.
    Redirect(String),
}

/// What a server is to be told.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snippet {
    /// The site.
    pub site: SiteName,
    /// Everything that its certificate vouches for.
    pub identifiers: Vec<Identifier>,
    /// The directory with its current files.
    pub live: String,
    /// How challenges are answered; `None` where the server has no part in it.
    pub answer: Option<Answer>,
}

/// One file of a server's configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnippetFile {
    /// Where it belongs on Debian.
    pub path: String,
    /// What comments begin with there.
    pub comment: &'static str,
    /// What is in it.
    pub text: String,
}

/// A text that cannot stand in a configuration as it is.
#[derive(Debug, Error, PartialEq)]
#[error("{what} {text:?} cannot be written into every server's configuration")]
pub struct UnsafeText {
    /// What it is.
    pub what: &'static str,
    /// The text.
    pub text: String,
}

impl Snippet {
    /// The text for a server. What comes from elsewhere than this program is plain, or refused: nothing has to be quoted.
    pub fn files(&self, server: Server) -> Result<Vec<SnippetFile>, UnsafeText> {
        plain("the directory", &self.live, "/._-+@")?;
        match &self.answer {
            Some(Answer::Stateless(thumbprint)) => plain("the thumbprint", thumbprint, "-_")?,
            Some(Answer::Redirect(url)) => plain("the URL", url, "-._~/:[]")?,
            None => {}
        }
        Ok(match server {
            Server::Nginx => servers::nginx(self),
            Server::Apache => servers::apache(self),
            Server::Lighttpd => servers::lighttpd(self),
            Server::Haproxy => servers::haproxy(self),
            Server::Caddy => servers::caddy(self),
        })
    }
}

fn plain(what: &'static str, text: &str, also: &str) -> Result<(), UnsafeText> {
    let good = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c));
    if good { Ok(()) } else { Err(UnsafeText { what, text: text.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snippet(live: &str, answer: Option<Answer>) -> Snippet {
        let site = "www.example.com".parse().expect("a site");
        let identifiers = ["*.example.com", "www.example.com", "192.0.2.7", "2001:db8::1"].map(|name| name.parse().expect("a name"));
        Snippet { site, identifiers: identifiers.into(), live: live.to_owned(), answer }
    }

    const SERVERS: [Server; 5] = [Server::Nginx, Server::Apache, Server::Lighttpd, Server::Haproxy, Server::Caddy];

    #[test]
    fn what_is_not_plain_is_refused_whatever_the_server() {
        for (live, answer) in [
            ("/etc/ssl/a b", None),
            ("/etc/ssl/\"; }", None),
            ("/etc/ssl/$x", None),
            ("/etc/ssl/x\ny", None),
            ("/etc/ssl", Some(Answer::Stateless("a.b".to_owned()))),
            ("/etc/ssl", Some(Answer::Stateless(String::new()))),
            ("/etc/ssl", Some(Answer::Redirect("https://a.example/%{x}/".to_owned()))),
        ] {
            for server in SERVERS {
                assert!(snippet(live, answer.clone()).files(server).is_err(), "{live} {answer:?}");
            }
        }
    }

    #[test]
    fn every_server_is_told_the_files_and_the_answer() {
        for (answer, piece) in [
            (None, ""),
            (Some(Answer::Stateless("thumb-print_".to_owned())), "thumb-print_"),
            (Some(Answer::Redirect("https://a.example/challenges/".to_owned())), "https://a.example/challenges/"),
        ] {
            for server in SERVERS {
                let files = snippet("/etc/ssl/live/www.example.com", answer.clone()).files(server).expect("plain");
                let text: String = files.iter().map(|file| file.text.as_str()).collect();
                assert!(text.contains("/etc/ssl/live/www.example.com/") && text.contains(piece), "{server:?}:\n{text}");
                assert_eq!(text.contains("acme-challenge"), answer.is_some(), "{server:?}:\n{text}");
            }
        }
    }
}
