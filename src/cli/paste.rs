//! Questions on a terminal: a paste of chain and key in any order, and passwords. Nothing is echoed, because it is secret.
//!
//! While a question waits, Ctrl-C is a character like any other, which ends it with [`io::ErrorKind::Interrupted`]: the signal would end
//! the program with the terminal left silent. Other signals end it through the token that whoever asks has tied to them.

use std::io::{self, BufRead, StdinLock, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// More than any chain with its key has.
const LONGEST_PASTE_BYTES: usize = 1 << 20;

/// What a terminal sends for Ctrl-C.
const CTRL_C: u8 = 3;

/// Asks for chain and key, and reads until a line with a single dot, or Ctrl-D.
pub(super) async fn read(site: &str, interrupt: &CancellationToken) -> io::Result<Zeroizing<Vec<u8>>> {
    // Before the question: whoever answers at once is not shown either.
    let _silent = Silence::begin()?;
    let mut stderr = io::stderr();
    writeln!(stderr, "Paste the certificate chain and the private key for {site}, in any order.")?;
    writeln!(stderr, "Nothing is shown. End with a line that holds a single dot; Ctrl-C gives up.")?;
    answer(interrupt, lines_until_dot).await
}

/// Asks for the password of a private key.
pub(super) async fn password(interrupt: &CancellationToken) -> io::Result<Zeroizing<String>> {
    let silent = Silence::begin()?;
    write!(io::stderr(), "password of the private key (nothing is shown): ")?;
    let line = answer(interrupt, line).await;
    drop(silent);
    // The line end of whoever typed was not shown either.
    writeln!(io::stderr())?;
    let line = line?;
    let text = std::str::from_utf8(&line).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
}

/// One line, shown as it is typed.
pub(super) async fn visible_line(interrupt: &CancellationToken) -> io::Result<String> {
    let line = answer(interrupt, line).await?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// What is read from standard input. That happens on a thread of its own, so that the interruption is noticed; the thread is left behind
/// then, and ends with the program.
async fn answer<T: Send + 'static>(
    interrupt: &CancellationToken,
    read: impl FnOnce(&mut StdinLock<'static>) -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let reading = tokio::task::spawn_blocking(move || read(&mut io::stdin().lock()));
    tokio::select! {
        read = reading => read.map_err(io::Error::other)?,
        () = interrupt.cancelled() => Err(io::ErrorKind::Interrupted.into()),
    }
}

fn lines_until_dot(input: &mut impl BufRead) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::new());
    while text.len() < LONGEST_PASTE_BYTES {
        let line = line(input)?;
        if line.is_empty() || line.trim_ascii() == b"." {
            break;
        }
        text.extend_from_slice(&line);
    }
    Ok(text)
}

/// The next line with its end; nothing where the input ends.
fn line(input: &mut impl BufRead) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut line = Zeroizing::new(Vec::new());
    loop {
        let piece = input.fill_buf()?;
        let end = piece.iter().position(|byte| matches!(*byte, b'\n' | CTRL_C));
        let taken = end.map_or(piece.len(), |end| end + 1);
        line.extend_from_slice(&piece[..taken]);
        input.consume(taken);
        if line.ends_with(&[CTRL_C]) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        if end.is_some() || taken == 0 || line.len() > LONGEST_PASTE_BYTES {
            return Ok(line);
        }
    }
}

/// The terminal without its echo, until this is dropped.
struct Silence {
    before: Termios,
}

impl Silence {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        // Handed over at once, and not with the line that it stands in.
        silent.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
        tcsetattr(io::stdin(), OptionalActions::Now, &silent)?;
        Ok(Self { before })
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &self.before);
    }
}
