//! Sealing: private keys and accounts leave the machine only encrypted to the fleet's identity (age, <https://age-encryption.org/v1>).

use age::secrecy::ExposeSecret as _;
use age::x25519;
use aws_lc_rs::hmac;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::domain::certificate::hex;
use crate::domain::record::Sealed;

/// Separates the keys of our proofs from any other use of the identity.
const PROOF_CONTEXT: &[u8] = b"certfleet proof, format 1\n";

/// How secrets are kept in the datastore.
#[derive(Clone)]
pub enum Seal {
    /// Encrypted to the fleet's identity.
    Age {
        /// The secret half.
        identity: x25519::Identity,
        /// Where it came from, for messages: the path of its file.
        origin: String,
    },
    /// In the clear, because the configuration says so.
    None,
}

/// A secret that cannot be opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// Sealed to somebody else.
    #[error("it is sealed to {recipient}, and the identity in {origin} is that of {own}")]
    OtherRecipient {
        /// Whom it is sealed to.
        recipient: String,
        /// Where our identity came from.
        origin: String,
        /// Our own recipient.
        own: String,
    },
    /// Sealed, and the configuration says `seal = "none"`.
    #[error("it is sealed to {recipient}, and the configuration says seal = \"none\"")]
    NoIdentity {
        /// Whom it is sealed to.
        recipient: String,
    },
    /// Sealed to us, but the ciphertext does not decrypt.
    #[error("its sealed part was altered or cut off")]
    Altered,
    /// Not written by a holder of the identity.
    #[error("its proof is missing or wrong: it was not written by this fleet, or was altered since")]
    Forged,
    /// Encryption failed; the library gives no reason that a person could act on.
    #[error("sealing failed")]
    Failed,
}

impl Seal {
    /// Whom secrets are sealed to.
    pub fn recipient(&self) -> Option<String> {
        match self {
            Self::Age { identity, .. } => Some(identity.to_public().to_string()),
            Self::None => None,
        }
    }

    /// Seals a secret text, and proves that a holder of the identity wrote it together with `beside`: what it is, and every field of
    /// its record that is acted on. Anybody can encrypt *to* the fleet; only the fleet can make the proof.
    pub fn close(&self, secret: &str, beside: &[&str]) -> Result<Sealed, SealError> {
        match self {
            Self::Age { identity, .. } => {
                let recipient = identity.to_public();
                let ciphertext = age::encrypt_and_armor(&recipient, secret.as_bytes()).map_err(|_| SealError::Failed)?;
                let proof = hex(hmac::sign(&proof_key(identity), &proof_text(secret, beside)).as_ref());
                Ok(Sealed::Age { recipient: recipient.to_string(), ciphertext, proof })
            }
            Self::None => Ok(Sealed::None { plaintext: secret.to_owned() }),
        }
    }

    /// Proves that a holder of the identity wrote what is no secret; `None` where nothing is sealed.
    pub fn prove(&self, fields: &[&str]) -> Option<String> {
        match self {
            Self::Age { identity, .. } => Some(hex(hmac::sign(&proof_key(identity), &proof_text("", fields)).as_ref())),
            Self::None => None,
        }
    }

    /// Whether [`Seal::prove`] made this proof of the same fields.
    pub fn is_proven(&self, proof: Option<&str>, fields: &[&str]) -> bool {
        let Self::Age { identity, .. } = self else { return true };
        let proof = proof.and_then(unhex);
        proof.is_some_and(|proof| hmac::verify(&proof_key(identity), &proof_text("", fields), &proof).is_ok())
    }

    /// Opens what [`Seal::close`] made beside the same fields. A sealed fleet takes nothing that lies in the clear: whoever can write
    /// to the bucket could have put it there.
    pub fn open(&self, sealed: &Sealed, beside: &[&str]) -> Result<Zeroizing<String>, SealError> {
        let (identity, origin, recipient, ciphertext, proof) = match (self, sealed) {
            (Self::None, Sealed::None { plaintext }) => return Ok(Zeroizing::new(plaintext.clone())),
            (Self::None, Sealed::Age { recipient, .. }) => return Err(SealError::NoIdentity { recipient: recipient.clone() }),
            (Self::Age { .. }, Sealed::None { .. }) => return Err(SealError::Forged),
            (Self::Age { identity, origin }, Sealed::Age { recipient, ciphertext, proof }) => {
                (identity, origin, recipient, ciphertext, proof)
            }
        };
        let own = identity.to_public().to_string();
        if own != *recipient {
            return Err(SealError::OtherRecipient { recipient: recipient.clone(), origin: origin.clone(), own });
        }
        let bytes = Zeroizing::new(age::decrypt(identity, ciphertext.as_bytes()).map_err(|_| SealError::Altered)?);
        let secret = std::str::from_utf8(&bytes).map_err(|_| SealError::Altered)?;
        let proof = unhex(proof).ok_or(SealError::Forged)?;
        hmac::verify(&proof_key(identity), &proof_text(secret, beside), &proof).map_err(|_| SealError::Forged)?;
        Ok(Zeroizing::new(secret.to_owned()))
    }
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Seal({})", self.recipient().as_deref().unwrap_or("none"))
    }
}

fn proof_key(identity: &x25519::Identity) -> hmac::Key {
    let mut material = Zeroizing::new(PROOF_CONTEXT.to_vec());
    material.extend_from_slice(identity.to_string().expose_secret().as_bytes());
    hmac::Key::new(hmac::HMAC_SHA256, &material)
}

/// Every field with its length before it, so that no two lists of fields have the same text.
fn proof_text(secret: &str, beside: &[&str]) -> Zeroizing<Vec<u8>> {
    let fields = beside.iter().copied().chain([secret]);
    let mut text = Zeroizing::new(Vec::with_capacity(fields.clone().map(|field| field.len() + 8).sum()));
    for field in fields {
        text.extend_from_slice(&(field.len() as u64).to_be_bytes());
        text.extend_from_slice(field.as_bytes());
    }
    text
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |at: usize| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    (0..text.len()).step_by(2).map(digit).collect()
}
