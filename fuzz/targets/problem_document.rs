//! What a CA answers when it refuses: a problem document, or any page.

use certfleet::issuer::acme::Refusal;
use http::StatusCode;

use super::{Verdict, assert_printable};

/// More than a person reads, and far less than a CA can send.
const LONGEST_CHARS: usize = 32_000;

pub fn check(data: &[u8]) -> Verdict {
    let refusal = Refusal::read(StatusCode::FORBIDDEN, data, None);
    let text = refusal.to_string();
    assert_printable(&text);
    // It is written into leases, where it is read by machines that have no terminal to protect.
    assert!(!text.contains(char::is_control), "{text:?}");
    assert!(text.chars().count() <= LONGEST_CHARS, "{} characters", text.chars().count());
    if serde_json::from_slice::<serde_json::Value>(data).is_ok_and(|value| value.is_object()) {
        Verdict::Accepted
    } else {
        Verdict::Refused
    }
}
