//! Certificates and keys as people paste them.

use certfleet::domain::identifier::Identifier;
use certfleet::domain::supplied::{GivenAs, Material, Note, SuppliedError, certificates_in, supplied};
use certfleet::system::error_chain::in_full;
use chrono::{DateTime, Utc};

use super::{Verdict, assert_printable};

/// Of the seeds' encrypted keys and archives.
pub const PASSWORD: &str = "test-password";

/// Within the life of the seeds' certificates: 2027-01-15.
const NOW: i64 = 1_800_000_000;

/// A run of base64 that long is taken for a piece of a key.
const PIECE_OF_KEY_CHARS: usize = 32;

pub fn check(data: &[u8]) -> Verdict {
    let text = std::str::from_utf8(data).unwrap_or_default();
    let first = judge(data, None, text);
    if first == Verdict::Accepted { first } else { judge(data, Some(PASSWORD), text) }
}

fn wanted() -> Vec<Identifier> {
    vec!["www.example.test".parse().expect("a name")]
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(NOW, 0).expect("a time")
}

/// `text` is what may not be quoted.
pub fn judge(data: &[u8], password: Option<&str>, text: &str) -> Verdict {
    let material = Material { name: "pasted", bytes: data, given_as: GivenAs::Either };
    if let Err(error) = certificates_in("pasted", data) {
        refused(&error, text);
    }
    let taken = match supplied(&[material], password, &wanted(), now()) {
        Ok(taken) => taken,
        Err(error) => {
            refused(&error, text);
            return Verdict::Refused;
        }
    };
    for note in &taken.notes {
        assert_printable(&note.to_string());
        quotes_no_key(&note.to_string(), text);
    }
    let bundle = &taken.bundle;
    assert_eq!(bundle.leaf().public(), bundle.key().public(), "a key of another certificate");
    assert_eq!(bundle.check(&wanted(), now()), Ok(()));
    assert!(!bundle.leaf().is_ca && bundle.chain().len() <= 10);
    // What was put right needs nothing put right any more, but for the root of a private CA that was left out.
    let combined = bundle.combined_pem();
    let material = Material { name: "again", bytes: combined.as_bytes(), given_as: GivenAs::Either };
    match supplied(&[material], None, &wanted(), now()) {
        Ok(again) => assert_eq!(again.bundle, *bundle),
        Err(SuppliedError::IssuerMissing { .. } | SuppliedError::Gap { .. }) => {
            assert!(taken.notes.iter().any(|note| matches!(note, Note::NotPublic(_))), "{:?}", taken.notes);
        }
        Err(other) => panic!("what we write: {other}"),
    }
    Verdict::Accepted
}

fn refused(error: &SuppliedError, text: &str) {
    for shown in [in_full(error), error.hint()] {
        assert_printable(&shown);
        quotes_no_key(&shown, text);
    }
}

/// A message about a text with PEM in it quotes no piece of it that could be a key: mangled pastes end in logs.
fn quotes_no_key(shown: &str, text: &str) {
    if !text.contains("-----BEGIN ") {
        return;
    }
    let is_base64 = |character: char| character.is_ascii_alphanumeric() || "+/".contains(character);
    let pieces = shown.split(|character| !is_base64(character)).filter(|piece| piece.len() >= PIECE_OF_KEY_CHARS);
    for piece in pieces {
        assert!(!text.contains(piece), "{piece:?} is quoted in {shown:?}");
    }
}
