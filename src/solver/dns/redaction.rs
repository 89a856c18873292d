//! Errors of others without our secrets in them.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zeroize::Zeroizing;

use crate::system::text::printable;

/// Shorter ones are part of ordinary words.
const SHORTEST_HIDDEN_BYTES: usize = 4;

/// How much of a provider's answer is shown, in characters.
const SHOWN_CHARS: usize = 400;

/// `text` with `***` in the place of each of `secrets`: as it is, as it stands in URLs, and in base64, as in a header.
pub(super) fn without<'s>(text: &str, secrets: impl IntoIterator<Item = &'s str>) -> String {
    let mut hidden = Vec::new();
    for secret in secrets.into_iter().filter(|secret| secret.len() >= SHORTEST_HIDDEN_BYTES) {
        let in_json = serde_json::to_string(secret).unwrap_or_default();
        let in_url = url_encoded(secret);
        hidden.extend([in_url.replace("%20", "+"), in_url.to_lowercase(), in_url, in_json.trim_matches('"').to_owned()]);
        hidden.extend([BASE64_STANDARD.encode(secret), secret.to_owned()]);
    }
    let mut hidden: Vec<_> = hidden.into_iter().map(Zeroizing::new).collect();
    // One may be a part of another.
    hidden.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
    let text = hidden.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"));
    printable(&text).chars().take(SHOWN_CHARS).collect()
}

fn url_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_however_they_are_written() {
        let secret = "a/b c+\"é";
        for written in [secret, "a%2Fb%20c%2B%22%C3%A9", "a%2Fb+c%2B%22%C3%A9", "a%2fb%20c%2b%22%c3%a9", r#"a/b c+\"é"#, "YS9iIGMrIsOp"] {
            let text = format!("cannot ask https://api.example/?key={written}&x=1: no");
            assert_eq!(without(&text, [secret]), "cannot ask https://api.example/?key=***&x=1: no");
        }
    }

    #[test]
    fn a_secret_within_a_longer_one_reveals_nothing_of_it() {
        assert_eq!(without("token-and-more", ["token", "token-and-more"]), "***");
    }
}
