//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

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
4 a renewal failed but a valid certificate is in place, 75 try again.\nErrors go to standard error as `error: …`, then `hint: …`.";

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
    /// Write a commented starter certfleet.toml and a new identity; never overwrites
    Init,
    /// Make sure that every site has a valid certificate, here and proven in the datastore
    Ensure(Ensure),
    /// Publish a certificate that you supply as the site's next generation
    Import(Import),
    /// Describe the certificate of a site, a file or a server
    Show(Show),
    /// Write a site's certificate and key in another format
    Export(Export),
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

/// The formats that bundles are exported in.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Format {
    /// The chain as PEM, leaf first, then the private key
    Combined,
    /// The chain as PEM, leaf first, without the key
    Pem,
}
