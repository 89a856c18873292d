//! What a certificate vouches for: DNS names, wildcards and IP addresses (RFC 8555 section 7.1.3, RFC 8738).

use std::cmp::Ordering;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use thiserror::Error;

/// The longest DNS name in text form (RFC 1035 section 2.3.4: 255 octets on the wire).
const LONGEST_NAME_CHARS: usize = 253;

/// One subject of a certificate, in the only spelling we ever store or compare.
///
/// Names are lower-case A-labels without a trailing dot, so equal identifiers are equal strings.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Identifier {
    /// A DNS name: `www.example.com`.
    Dns(String),
    /// An IP address.
    Ip(IpAddr),
    /// Every name one label below the one held here: `example.com` stands for `*.example.com`.
    Wildcard(String),
}

/// Why a text is not an identifier. Each variant carries the text as it was written.
#[derive(Debug, Error, Eq, PartialEq)]
pub enum IdentifierError {
    /// Characters or labels that no public name may have.
    #[error("{0:?} is not a DNS name or an IP address: {1}")]
    NotAName(String, &'static str),
    /// A `*` anywhere but as the whole first label.
    #[error("{0:?} has a * that is not the whole first label")]
    MisplacedWildcard(String),
}

impl Identifier {
    /// The DNS name at which a challenge for this identifier is answered, or `None` for an address.
    ///
    /// A wildcard is validated at the name below the star (RFC 8555 section 7.1.4).
    pub fn base_name(&self) -> Option<&str> {
        match self {
            Self::Dns(name) | Self::Wildcard(name) => Some(name),
            Self::Ip(_) => None,
        }
    }

    /// Whether a certificate for `self` is good for `other` (RFC 6125: a star stands for exactly one label).
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Wildcard(base), Self::Dns(name)) => name.split_once('.').is_some_and(|(_, rest)| rest == base),
            _ => self == other,
        }
    }

    /// The name under which files and objects about this identifier are kept: `_wildcard.` stands for `*.`.
    ///
    /// It is a single path segment by construction: labels hold only letters, digits and hyphens.
    pub fn file_name(&self) -> String {
        match self {
            Self::Dns(name) => name.clone(),
            Self::Ip(address) => address.to_string(),
            Self::Wildcard(base) => format!("_wildcard.{base}"),
        }
    }

    /// Reads [`Identifier::file_name`] back, and nothing else: what is only another spelling of it is the name of a stranger's file.
    pub fn from_file_name(file_name: &str) -> Result<Self, IdentifierError> {
        let identifier: Self = match file_name.strip_prefix("_wildcard.") {
            Some(base) => format!("*.{base}").parse()?,
            None => file_name.parse()?,
        };
        if identifier.file_name() == file_name {
            return Ok(identifier);
        }
        Err(IdentifierError::NotAName(file_name.to_owned(), "files and objects are named in lower-case A-labels"))
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => f.write_str(name),
            Self::Ip(address) => write!(f, "{address}"),
            Self::Wildcard(base) => write!(f, "*.{base}"),
        }
    }
}

impl Ord for Identifier {
    fn cmp(&self, other: &Self) -> Ordering {
        self.to_string().cmp(&other.to_string())
    }
}

impl PartialOrd for Identifier {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl FromStr for Identifier {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let trimmed = text.trim();
        if let Ok(address) = trimmed.parse::<IpAddr>() {
            return Ok(Self::Ip(address));
        }
        let bracketed = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(Ok(address)) = bracketed.map(str::parse::<Ipv6Addr>) {
            return Ok(Self::Ip(address.into()));
        }
        let (wildcard, rest) = match trimmed.strip_prefix("*.") {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        if rest.contains('*') {
            return Err(IdentifierError::MisplacedWildcard(text.to_owned()));
        }
        let name = dns_name(rest).map_err(|why| IdentifierError::NotAName(text.to_owned(), why))?;
        if wildcard && !name.contains('.') {
            return Err(IdentifierError::NotAName(text.to_owned(), "a wildcard needs at least two labels below the star"));
        }
        Ok(if wildcard { Self::Wildcard(name) } else { Self::Dns(name) })
    }
}

/// Brings a name to lower-case A-labels (UTS 46, IDNA 2008) and refuses what no host name may contain (RFC 1123 section 2.1).
fn dns_name(text: &str) -> Result<String, &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err("it is empty");
    }
    // Most names are as they are to be: a listing of thousands has no need of the tables of Unicode.
    let plain = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.')) && !text.contains("--");
    let converted = if plain { Ok(text.to_owned()) } else { idna::domain_to_ascii_strict(text) };
    let name = converted.map_err(|_| "labels hold letters, digits and inner hyphens, 63 characters at most")?;
    if name.len() > LONGEST_NAME_CHARS {
        return Err("it is longer than 253 characters");
    }
    for label in name.split('.') {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if label.is_empty() || label.len() > 63 || !plain || label.starts_with('-') || label.ends_with('-') {
            return Err("labels hold letters, digits and inner hyphens, 63 characters at most");
        }
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("the last label may not be a number");
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        let identifier: Identifier = text.parse().expect("an identifier");
        assert_eq!(identifier.to_string(), expected);
        assert_eq!(Identifier::from_file_name(&identifier.file_name()), Ok(identifier));
    }

    #[test]
    fn accepts_what_sites_are_called() {
        check("WWW.Example.COM", "www.example.com");
        check("example.com.", "example.com");
        check("*.example.com", "*.example.com");
        check("bücher.example", "xn--bcher-kva.example");
        check("*.bücher.example", "*.xn--bcher-kva.example");
        check("localhost", "localhost");
        check("192.0.2.7", "192.0.2.7");
        check("2001:0DB8::1", "2001:db8::1");
        check("[2001:db8::1]", "2001:db8::1");
    }

    #[test]
    fn refuses_hostile_and_impossible_names() {
        let long_label = format!("{}.example.com", "a".repeat(64));
        let long_name = format!("{}com", "abcdefgh.".repeat(30));
        for text in [
            "",
            ".",
            "..",
            "../../etc/passwd",
            "a/b",
            "a\\b",
            "/etc",
            "www..example.com",
            "-a.example",
            "a-.example",
            "a_b.example",
            "www.example.com\0",
            "www.example.com\nevil",
            "a b.example",
            "*",
            "*.",
            "*.com",
            "w*.example.com",
            "a.*.example.com",
            "*.*.example.com",
            "300.1.2.3",
            "example.123",
            "+staging",
            "www.example.com+staging",
            "$(id).example",
            "%2e%2e",
            "~",
            "xn--a.example",
            &long_label,
            &long_name,
        ] {
            assert!(text.parse::<Identifier>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn another_spelling_is_no_name_of_a_file() {
        for text in ["WWW.example.com", "www.example.com.", " www.example.com", "*.example.com", "bücher.example", "[::1]", "2001:DB8::1"]
        {
            assert!(text.parse::<Identifier>().is_ok(), "{text:?} is typed by people");
            assert!(Identifier::from_file_name(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn a_star_stands_for_exactly_one_label() {
        let star: Identifier = "*.example.com".parse().expect("a wildcard");
        for (name, covered) in [
            ("www.example.com", true),
            ("a.b.example.com", false),
            ("example.com", false),
            ("*.example.com", true),
            ("www.example.org", false),
        ] {
            assert_eq!(star.covers(&name.parse().expect("a name")), covered, "{name}");
        }
    }
}
