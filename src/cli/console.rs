//! What people see. Standard output carries the answer and nothing else; steps, notes and errors go to standard error.
//!
//! Errors read `error: what failed: why`, then `hint: what to do`. On a terminal each site, or host, has one line that changes; in a log every
//! step is a line of its own. Under `--quiet` steps and notes are left out, never errors.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::args::Color;
use super::exit::Exit;
use super::failure::Failure;
use crate::fleet::progress::Progress;
use crate::system::text::printable;

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// The width of an answer that does not go to a terminal.
const COLUMNS: usize = 80;

/// What a piece of the answer tells at a glance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    /// Nothing in particular.
    Plain,
    /// A heading.
    Heading,
    /// In order.
    Good,
    /// Not as it should be.
    Odd,
    /// It needs a person.
    Bad,
}

impl Tone {
    /// The parameters of SGR (ECMA-48 section 8.3.117).
    fn code(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("1"),
            Self::Good => Some("32"),
            Self::Odd => Some("33"),
            Self::Bad => Some("31;1"),
        }
    }
}

/// Both streams of one run.
pub(super) struct Console {
    detail: Detail,
    color: bool,
    /// Whether the answer is coloured: it may go elsewhere than the errors.
    answer_color: bool,
    /// The last step told of each subject: in a log, a step that lasts is told once.
    told: Mutex<BTreeMap<String, String>>,
    spinners: Option<Spinners>,
}

/// How much is told on the way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Detail {
    /// Only errors.
    Quiet,
    /// Steps and notes.
    Steps,
}

struct Spinners {
    all: MultiProgress,
    by_subject: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Console {
    /// A console as the flags want it.
    pub(super) fn new(detail: Detail, color: Color) -> Self {
        let terminal = io::stderr().is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let color_on = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        };
        let (color, answer_color) = (color_on(terminal), color_on(io::stdout().is_terminal()));
        let spinners = (terminal && detail == Detail::Steps).then(|| Spinners { all: MultiProgress::new(), by_subject: Mutex::default() });
        Self { detail, color, answer_color, told: Mutex::default(), spinners }
    }

    /// Prints the answer, or part of it. Readers that have gone away are no error: `certfleet … | head -1`.
    pub(super) fn answer(&self, text: &str) -> Result<(), Failure> {
        self.finish_steps();
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure {
                what: format!("cannot write to standard output: {error}"),
                hint: "what was written of the answer is incomplete: check the free space".to_owned(),
                exit: Exit::Failed,
            }),
            _ => Ok(()),
        }
    }

    /// How a piece of the answer is shown.
    pub(super) fn paint_answer(&self, text: &str, tone: Tone) -> String {
        match tone.code() {
            Some(code) if self.answer_color => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
            _ => text.to_owned(),
        }
    }

    /// The columns that the answer may fill: those of the terminal, or 80 where it goes elsewhere.
    pub(super) fn answer_columns() -> usize {
        let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        if columns == 0 { COLUMNS } else { columns }
    }

    /// Prints an error and what to do about it. Strangers' text may be in both.
    pub(super) fn error(&self, what: &str, hint: &str) {
        self.finish_steps();
        self.line(&format!("{} {}", self.paint("error:", "31;1"), printable(what)));
        if !hint.is_empty() {
            self.line(&format!("{} {}", self.paint("hint:", "36"), printable(hint)));
        }
    }

    /// Prints what ended a run.
    pub(super) fn failure(&self, failure: &Failure) {
        self.error(&failure.what, &failure.hint);
    }

    /// Removes the lines that change: what follows is final.
    pub(super) fn finish_steps(&self) {
        if let Some(spinners) = &self.spinners {
            let mut by_subject = spinners.by_subject.lock().unwrap_or_else(PoisonError::into_inner);
            for spinner in std::mem::take(&mut *by_subject).into_values() {
                spinner.finish_and_clear();
            }
        }
    }

    fn line(&self, text: &str) {
        match &self.spinners {
            Some(spinners) => spinners.all.suspend(|| eprint_line(text)),
            None => eprint_line(text),
        }
    }

    fn paint(&self, text: &str, code: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

impl Progress for Console {
    fn step(&self, subject: &dyn Display, what: &str) {
        let (subject, what) = (printable(&subject.to_string()), printable(what));
        match (&self.spinners, self.detail) {
            (_, Detail::Quiet) => {}
            (None, Detail::Steps) => {
                let before = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(subject.clone(), what.clone());
                if before.as_ref() != Some(&what) {
                    self.line(&format!("{subject}: {what}"));
                }
            }
            (Some(spinners), Detail::Steps) => {
                let mut by_subject = spinners.by_subject.lock().unwrap_or_else(PoisonError::into_inner);
                let spinner = by_subject.entry(subject.clone()).or_insert_with(|| {
                    let spinner = spinners.all.add(ProgressBar::new_spinner());
                    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                        spinner.set_style(style);
                    }
                    spinner.enable_steady_tick(TICK);
                    spinner
                });
                spinner.set_message(format!("{subject}: {what}"));
            }
        }
    }

    fn note(&self, what: &str) {
        if self.detail == Detail::Steps {
            self.line(&format!("{} {}", self.paint("note:", "33"), printable(what)));
        }
    }

    fn warning(&self, what: &str) {
        self.line(&format!("{} {}", self.paint("warning:", "33;1"), printable(what)));
    }
}

fn eprint_line(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
