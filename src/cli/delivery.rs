//! Receiving what the build machine pushes: `certfleet bootstrap --delivery -`.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::assemble;
use super::console::Console;
use super::exit::Exit;
use super::failure::Failure;
use super::node;
use crate::config::{IdentitySource, Seal};
use crate::domain::delivery::Delivery;
use crate::fleet::delivery::{Delivered, Destination, ReceiveError, receive};
use crate::fleet::progress::Progress as _;
use crate::issuer::local_ca;

/// Where a machine has its configuration unless it is told otherwise.
pub(super) const CONFIGURATION: &str = "/etc/certfleet/certfleet.toml";

/// Thousands of sites fit: a bundle has a few kilobytes.
const LARGEST_DELIVERY_BYTES: u64 = 64 << 20;

/// Puts the delivery from `source` (`-` is standard input) in place; `config` is where its configuration belongs. Returns that path: the
/// run goes on with what was delivered. The whole delivery is checked before anything is touched.
pub(super) fn take(source: &Path, config: Option<&Path>, console: &Console) -> Result<PathBuf, Failure> {
    let delivery = Delivery::read(&contents(source)?).map_err(ReceiveError::from)?;
    let config = std::path::absolute(config.unwrap_or(Path::new(CONFIGURATION)))
        .map_err(|error| Failure::new(&error, "change to a directory that exists", Exit::Failed))?;
    let settings = assemble::settings_of(&config, &delivery.configuration)?;
    // With a configuration that no run here could go by, the machine would be worse off than before.
    node::sites(&settings)?;
    let destination = Destination {
        configuration: config.clone(),
        identity: match (&settings.datastore.seal, &settings.datastore.identity) {
            (Seal::Age, IdentitySource::File(path)) => Some(path.clone()),
            _ => None,
        },
        local_ca_root: settings.local_ca_dir().join(local_ca::ROOT_FILE),
        local_ca_key: settings.local_ca_dir().join(local_ca::KEY_FILE),
        delivered: Delivered::in_place(&assemble::place_directory(&settings)),
    };
    for path in receive(&delivery, &destination)? {
        console.note(&format!("wrote {}", path.display()));
    }
    Ok(config)
}

fn contents(source: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: io::Error| {
        let name = if source == Path::new("-") { "standard input".to_owned() } else { source.display().to_string() };
        Failure::usage(format!("cannot read the delivery from {name}: {error}"), "`certfleet push` sends one")
    };
    // Room for all of it at once: a growing buffer would leave copies of the identity behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(1 << 20));
    let reader: Box<dyn io::Read> =
        if source == Path::new("-") { Box::new(io::stdin().lock()) } else { Box::new(File::open(source).map_err(failed)?) };
    reader.take(LARGEST_DELIVERY_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > LARGEST_DELIVERY_BYTES {
        return Err(Failure::usage("the delivery is too large", "`certfleet push` sends one"));
    }
    Ok(bytes)
}
