//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::domain::revocation::Reason;
use crate::domain::schedule::MachineRole;
use crate::domain::snippet::Server;

/// One TLS certificate per site, one renewal per fleet, one bucket between them.
#[derive(Debug, Parser)]
#[command(name = "certfleet", version, about, max_term_width = 100, disable_help_subcommand = true, after_help = EXITS)]
pub(super) struct Arguments {
    /// The configuration file [default: $CERTFLEET_CONFIG, ./certfleet.toml, /etc/certfleet/certfleet.toml]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Print the answer as one JSON document
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Tell more on standard error; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count, conflicts_with = "quiet")]
    pub(super) verbose: u8,
    /// Print nothing when nothing happened
    #[arg(short, long, global = true)]
    pub(super) quiet: bool,
    /// When to use colour; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(super) color: Color,
    /// What to do
    #[command(subcommand)]
    pub(super) command: Command,
}

const EXITS: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, \
3 something needs attention (status, doctor), 4 a renewal or an installation failed but a valid certificate is in place, 75 try again.\nErrors go to standard error as `error: …`, then `hint: …`.";

/// When to use colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Color {
    /// On terminals.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show the fleet's account at a CA, or change it
    Account(Account),
    /// On a webserver: have every site installed and served as the fleet has it now, and renew what is due if elected
    Agent(Agent),
    /// On a new webserver: install every site from the datastore, without ever renewing
    Bootstrap(Bootstrap),
    /// Try everything that the configuration relies on, and say what to do about what fails; exit 3 when there is anything
    Doctor,
    /// Write a commented starter certfleet.toml and a new identity; never overwrites
    Init,
    /// Make sure that every site has a valid certificate, here and proven in the datastore
    Ensure(Ensure),
    /// Publish a certificate that you supply as the site's next generation
    Import(Import),
    /// Delete what nobody needs: old certificates, old leases, reports of vanished nodes
    Prune(Prune),
    /// Take a certificate back at its CA, once another is in its place
    Revoke(Revoke),
    /// Publish an earlier certificate of a site again, as its next generation
    Rollback(Rollback),
    /// Show how every site and every node stands, worst first; exit 3 when something needs a person
    Status,
    /// Describe the certificate of a site, a file or a server
    Show(Show),
    /// Write a site's certificate and key in another format
    Export(Export),
    /// Send configuration, identity and bundles to webservers by ssh, and bootstrap them
    Push(Push),
    /// Print, or install, the timer for this machine: cron or systemd
    Schedule(Schedule),
    /// Print what to paste into a web server's configuration: the answer to challenges, and the lines of the certificate
    Snippet(Snippet),
}

/// `certfleet account`
#[derive(Args, Debug)]
pub(super) struct Account {
    /// What to do with it
    #[command(subcommand)]
    pub(super) action: AccountAction,
}

/// What `certfleet account` does. ISSUER can be left out where sites list only one that has accounts.
#[derive(Debug, Subcommand)]
pub(super) enum AccountAction {
    /// Show it as the CA has it: URL, status, contact, and the thumbprint of its key
    Show {
        /// The issuer, by name
        issuer: Option<String>,
    },
    /// Tell the CA the contact of the configuration
    Update {
        /// The issuer, by name
        issuer: Option<String>,
    },
    /// Give it a new key, everywhere
    Rollover {
        /// The issuer, by name
        issuer: Option<String>,
    },
    /// Give it up for good
    Deactivate {
        /// The issuer, by name
        issuer: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl AccountAction {
    /// The issuer that was named.
    pub(super) fn issuer(&self) -> Option<&str> {
        match self {
            Self::Show { issuer } | Self::Update { issuer } | Self::Rollover { issuer } | Self::Deactivate { issuer, .. } => {
                issuer.as_deref()
            }
        }
    }
}

/// `certfleet agent`
#[derive(Args, Debug)]
pub(super) struct Agent {
    /// Run once and end: what is done anyway without --interval
    #[arg(long, conflicts_with = "interval")]
    pub(super) once: bool,
    /// Keep running, with a run this long after the end of the last one; SIGHUP reads the configuration again, SIGTERM ends it
    #[arg(long, value_name = "DURATION")]
    pub(super) interval: Option<humantime::Duration>,
    /// Put the start off by a random time, this long at most [default: the configuration's, 5m; none on a terminal]
    #[arg(long, value_name = "DURATION")]
    pub(super) splay: Option<humantime::Duration>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `certfleet bootstrap`
#[derive(Args, Debug)]
pub(super) struct Bootstrap {
    /// How long to wait for the datastore, and for the first certificate of every site
    #[arg(long, value_name = "DURATION", default_value = "60s")]
    pub(super) wait: humantime::Duration,
    /// First put in place what `certfleet push` sends; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(super) delivery: Option<PathBuf>,
}

/// `certfleet ensure`
#[derive(Args, Debug)]
pub(super) struct Ensure {
    /// The sites, by name [default: all that are configured]
    #[arg(value_name = "SITE")]
    pub(super) sites: Vec<String>,
    /// Print what would be done, and do nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Make a new certificate although the present one is good, also before a recorded retry time
    #[arg(long)]
    pub(super) force: bool,
    /// Use the staging counterparts of the issuers; kept apart from live certificates everywhere
    #[arg(long)]
    pub(super) staging: bool,
    /// The files of a certificate that you supply
    #[command(flatten)]
    pub(super) supplied: Supplied,
}

/// `certfleet import`
#[derive(Args, Debug)]
pub(super) struct Import {
    /// The site, by name
    #[arg(value_name = "SITE")]
    pub(super) site: String,
    /// The files; on a terminal without them, you are asked to paste
    #[command(flatten)]
    pub(super) supplied: Supplied,
}

/// Files of a certificate that a person supplies.
#[derive(Args, Debug, Default)]
pub(super) struct Supplied {
    /// The certificate chain: PEM in any order, DER, or a PFX archive; `-` reads standard input
    #[arg(long, value_name = "FILE")]
    pub(super) fullchain: Option<PathBuf>,
    /// The private key, if it is not in the same file
    #[arg(long, value_name = "FILE", requires = "fullchain")]
    pub(super) privkey: Option<PathBuf>,
    /// A file that holds the password of the key or the archive [default: asked for on a terminal]
    #[arg(long, value_name = "FILE", requires = "fullchain")]
    pub(super) password_file: Option<PathBuf>,
}

/// `certfleet prune`
#[derive(Args, Debug)]
pub(super) struct Prune {
    /// How many generations of each site to keep, whether a node has them or not, and whether they can serve or not
    #[arg(long, value_name = "N", default_value = "3")]
    pub(super) keep: usize,
    /// How long a node is silent before its report is deleted
    #[arg(long, value_name = "DURATION", default_value = "30d", value_parser = humantime::parse_duration)]
    pub(super) vanished_after: Duration,
    /// Print what would be deleted, and delete nothing
    #[arg(long)]
    pub(super) dry_run: bool,
}

/// `certfleet revoke`
#[derive(Args, Debug)]
pub(super) struct Revoke {
    /// The site, by name
    #[arg(value_name = "SITE")]
    pub(super) site: String,
    /// Which certificate [default: the one whose revocation was begun; if there is none, the newest]
    #[arg(long, value_name = "GENERATION")]
    pub(super) generation: Option<u64>,
    /// Why: unspecified, keyCompromise, affiliationChanged, superseded or cessationOfOperation
    #[arg(long, value_name = "REASON", default_value = "unspecified")]
    pub(super) reason: Reason,
    /// Revoke also where no other certificate can be had
    #[arg(long)]
    pub(super) without_replacement: bool,
    /// Do not ask
    #[arg(long)]
    pub(super) yes: bool,
}

/// `certfleet rollback`
#[derive(Args, Debug)]
pub(super) struct Rollback {
    /// The site, by name
    #[arg(value_name = "SITE")]
    pub(super) site: String,
    /// The generation to go back to [default: the highest usable one that is not in use]
    #[arg(long, value_name = "GENERATION", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) to: Option<u64>,
}

/// `certfleet show`
#[derive(Args, Debug)]
pub(super) struct Show {
    /// A configured site, a file with certificates, or the address of a TLS server
    #[arg(value_name = "SITE|FILE|HOST:PORT")]
    pub(super) subject: String,
}

/// `certfleet export`
#[derive(Args, Debug)]
pub(super) struct Export {
    /// The site, by name
    #[arg(value_name = "SITE")]
    pub(super) site: String,
    /// The format
    #[arg(long)]
    pub(super) format: Format,
    /// Where to write it, mode 0600; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) output: PathBuf,
}

/// `certfleet push`
#[derive(Args, Debug)]
pub(super) struct Push {
    /// The machines, as ssh knows them: web1, deploy@web1, ssh://deploy@web1:2222
    #[arg(value_name = "HOST", required = true)]
    pub(super) hosts: Vec<String>,
    /// How many at once
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..))]
    pub(super) jobs: u8,
    /// Run certfleet there with `sudo -n`
    #[arg(long)]
    pub(super) sudo: bool,
    /// What certfleet is called there
    #[arg(long, value_name = "PATH", default_value = "certfleet")]
    pub(super) remote_program: String,
    /// The configuration to install there, as /etc/certfleet/certfleet.toml [default: this machine's own]
    #[arg(long, value_name = "FILE")]
    pub(super) host_config: Option<PathBuf>,
}

/// `certfleet schedule`
#[derive(Args, Debug)]
pub(super) struct Schedule {
    /// For cron [default: for systemd where it runs, else for cron]
    #[arg(long, conflicts_with = "systemd")]
    pub(super) cron: bool,
    /// For systemd
    #[arg(long)]
    pub(super) systemd: bool,
    /// Put the files in place and switch them on; what was changed by hand is never overwritten
    #[arg(long)]
    pub(super) install: bool,
    /// What this machine is [default: a webserver where the configuration has a `[[target]]`]
    #[arg(long = "for", value_name = "ROLE")]
    pub(super) role: Option<Role>,
}

/// `certfleet snippet`
#[derive(Args, Debug)]
pub(super) struct Snippet {
    /// The server
    #[arg(value_name = "SERVER")]
    pub(super) server: WebServer,
    /// The site, by name
    #[arg(value_name = "SITE")]
    pub(super) site: String,
    /// Open the fleet's account at the CA first, if there is none yet: stateless answers hold its thumbprint
    #[arg(long)]
    pub(super) open_account: bool,
}

/// The servers whose configuration is known.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum WebServer {
    /// nginx
    Nginx,
    /// The Apache HTTP server
    Apache,
    /// lighttpd
    Lighttpd,
    /// HAProxy
    Haproxy,
    /// Caddy
    Caddy,
}

impl From<WebServer> for Server {
    fn from(server: WebServer) -> Self {
        match server {
            WebServer::Nginx => Self::Nginx,
            WebServer::Apache => Self::Apache,
            WebServer::Lighttpd => Self::Lighttpd,
            WebServer::Haproxy => Self::Haproxy,
            WebServer::Caddy => Self::Caddy,
        }
    }
}

/// What a machine is to the fleet.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Role {
    /// It serves sites: it runs the agent
    Webserver,
    /// It makes sure that certificates exist before anything is deployed
    BuildMachine,
}

impl From<Role> for MachineRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Webserver => Self::Webserver,
            Role::BuildMachine => Self::BuildMachine,
        }
    }
}

/// The formats that bundles are exported in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// The chain as PEM, leaf first, then the private key
    Combined,
    /// The chain as PEM, leaf first, without the key
    Pem,
}
