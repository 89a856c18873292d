//! PEM text (RFC 7468), read generously and written in one form.

use pem::{EncodeConfig, LineEnding, Pem};
use thiserror::Error;
use zeroize::Zeroizing;

/// One block of a PEM text.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Block {
    /// `CERTIFICATE`, `PRIVATE KEY`, ….
    pub label: String,
    /// The decoded body, wiped when dropped: it may be a key.
    pub der: Zeroizing<Vec<u8>>,
    /// Whether an RFC 1421 header says that the body is encrypted (OpenSSL's traditional format).
    pub encrypted: bool,
}

/// A block that begins but does not decode.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("a PEM block is damaged: {0}")]
pub struct PemError(String);

/// Every block of a text, in order. Text around the blocks, blank lines and CRLF are no matter.
pub fn blocks(text: &str) -> Result<Vec<Block>, PemError> {
    let parsed = pem::parse_many(text).map_err(|error| PemError(error.to_string()))?;
    Ok(parsed.into_iter().map(Block::from).collect())
}

/// One block with lines of 64 characters, each ended by a line feed.
pub fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let config = EncodeConfig::new().set_line_ending(LineEnding::LF);
    Zeroizing::new(pem::encode_config(&Pem::new(label, der), config))
}

impl From<Pem> for Block {
    fn from(pem: Pem) -> Self {
        let encrypted = pem.headers().get("Proc-Type").is_some_and(|value| value.contains("ENCRYPTED"));
        Self { label: pem.tag().to_owned(), encrypted, der: Zeroizing::new(pem.into_contents()) }
    }
}
