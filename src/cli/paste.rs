//! A paste on a terminal: chain and key in any order, ended by a line with a dot. Nothing is echoed, because one part is a secret.

use std::io::{self, BufRead as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

/// More lines than any chain with its key has.
const MOST_LINES: usize = 2_000;

/// Asks, and reads until a line with a single dot, or Ctrl-D.
pub(super) fn read(site: &str) -> io::Result<Zeroizing<String>> {
    let mut stderr = io::stderr();
    writeln!(stderr, "Paste the certificate chain and the private key for {site}, in any order.")?;
    writeln!(stderr, "Nothing is shown. End with a line that holds a single dot.")?;
    let _silent = Silence::begin()?;
    let mut text = Zeroizing::new(String::new());
    for line in io::stdin().lock().lines().take(MOST_LINES) {
        let line = Zeroizing::new(line?);
        if line.trim() == "." {
            break;
        }
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

/// The terminal without its echo, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
