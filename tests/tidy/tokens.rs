//! Rust source as the rules read it.

/// A name or a sign.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Token {
    /// As it is written.
    pub(crate) text: String,
    /// Counted from 1.
    pub(crate) line: usize,
}

/// Names, `::` and single signs. Comments, white space and the content of literals are left out.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut tokens = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let length = match bytes[at] {
            b'/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with("/*") => block_comment(rest),
            b'"' => string(rest),
            b'r' | b'b' | b'c' if literal_prefix(rest).is_some() => literal_prefix(rest).unwrap_or(1),
            b'\'' => character(rest),
            byte if is_name(byte) => {
                let length = rest.bytes().take_while(|byte| is_name(*byte)).count();
                tokens.push(Token { text: rest[..length].to_owned(), line });
                length
            }
            b':' if rest.starts_with("::") => {
                tokens.push(Token { text: "::".to_owned(), line });
                2
            }
            byte if byte.is_ascii_punctuation() => {
                tokens.push(Token { text: char::from(byte).to_string(), line });
                1
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        line += rest[..length].matches('\n').count();
        at += length;
    }
    tokens
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn block_comment(rest: &str) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (2, depth + 1),
            [b'*', b'/', ..] => (2, depth - 1),
            _ => (1, depth),
        };
        (at, depth) = (at + step.0, step.1);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of a literal in double quotes.
fn string(rest: &str) -> usize {
    let mut escaped = false;
    let end = rest.bytes().skip(1).position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    });
    end.map_or(rest.len(), |end| end + 2)
}

/// The length of a literal such as `b"…"`, `r"…"` or `br##"…"##`.
fn literal_prefix(rest: &str) -> Option<usize> {
    let letters = rest.bytes().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
    let (prefix, rest) = rest.split_at(letters.min(2));
    let hashes = rest.bytes().take_while(|byte| *byte == b'#').count();
    if !rest[hashes..].starts_with('"') {
        return None;
    }
    if !prefix.ends_with('r') {
        return (hashes == 0).then(|| prefix.len() + string(rest));
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = &rest[hashes + 1..];
    Some(prefix.len() + hashes + 1 + body.find(&end).map_or(body.len(), |at| at + end.len()))
}

/// The length of a literal such as `'x'` or `'\n'`, or that of the sign alone before a lifetime.
fn character(rest: &str) -> usize {
    let mut inside = rest.chars().skip(1);
    match inside.next() {
        Some('\\') => rest[3..].find('\'').map_or(1, |end| end + 4),
        Some(sign) if inside.next() == Some('\'') => sign.len_utf8() + 2,
        _ => 1,
    }
}
