//! What is fed with hostile bytes: each target takes any bytes, and panics where a property does not hold.
//!
//! They are called from two sides: by libFuzzer (`fuzz_targets/`, see `fuzz/run`), and by `tests/corpora.rs`, which replays the corpora.

pub mod bundle_object;
pub mod configuration;
pub mod fleet_status;
pub mod listing;
pub mod names;
pub mod pfx;
pub mod problem_document;
pub mod records;
pub mod supplied;

use certfleet::system::text::printable;

/// What became of an input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// It was taken, and what was made of it was checked.
    Accepted,
    /// It was refused.
    Refused,
}

/// A target.
pub type Check = fn(&[u8]) -> Verdict;

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Check); 9] = [
    ("bundle_object", bundle_object::check),
    ("configuration", configuration::check),
    ("fleet_status", fleet_status::check),
    ("listing", listing::check),
    ("names", names::check),
    ("pfx", pfx::check),
    ("problem_document", problem_document::check),
    ("records", records::check),
    ("supplied", supplied::check),
];

/// A text as it is printed has nothing in it that moves a terminal's cursor, forges a line of a log, or turns the order of letters
/// round.
fn assert_printable(text: &str) {
    let shown = printable(text);
    let odd = shown.chars().find(|character| {
        character.is_control()
            || "\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{200e}\u{200f}\u{61c}\u{2028}\u{2029}"
                .contains(*character)
    });
    assert_eq!(odd, None, "printed: {shown:?}");
}

/// A name stays within the directory it is put into.
fn assert_segment(name: &str) {
    let leaves = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']);
    assert!(!leaves && name.len() <= 255 && !name.chars().any(char::is_control), "{name:?} is no name of a file");
}
