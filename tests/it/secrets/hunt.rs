//! Looks for secrets in every form in which they could have been written down.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use certfleet::domain::certificate::hex;
use certfleet::domain::pem;

/// The parameters of a private key on P-256 before its number: OCTET STRING, 32 bytes (RFC 5915).
const SCALAR: [u8; 2] = [0x04, 0x20];

/// What must not be found.
#[derive(Default)]
pub(super) struct Secrets(Vec<Secret>);

struct Secret {
    name: String,
    forms: Vec<String>,
}

impl Secrets {
    /// A password, token or other text.
    pub(super) fn add_text(&mut self, name: &str, text: &str) {
        let text = text.trim();
        assert!(text.len() >= 16, "{name}: what is that short is found by chance");
        let base64 = [BASE64_STANDARD.encode(text), BASE64_STANDARD_NO_PAD.encode(text), hex(text.as_bytes()), text.to_lowercase()];
        let forms: Vec<_> = base64.into_iter().map(String::into_bytes).chain([text.as_bytes().to_vec()]).collect();
        self.add(name, &forms);
    }

    /// A private key as PKCS#8: whole and its number alone, as bytes, hexadecimal and base64, and each line of its PEM.
    pub(super) fn add_key(&mut self, name: &str, der: &[u8]) {
        let at = der.windows(2).position(|two| two == SCALAR).expect("a key on P-256") + SCALAR.len();
        let scalar = &der[at..at + 32];
        let mut forms = vec![der.to_vec(), scalar.to_vec()];
        for bytes in [der, scalar] {
            let colons = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
            // What `{:?}` makes of a list of bytes.
            let numbers = format!("{bytes:?}").trim_matches(['[', ']']).to_owned();
            let texts = [hex(bytes), hex(bytes).to_uppercase(), BASE64_STANDARD_NO_PAD.encode(bytes), BASE64_URL_SAFE_NO_PAD.encode(bytes)];
            forms.extend(texts.into_iter().chain([colons, numbers]).map(String::into_bytes));
        }
        forms.extend(pem::encode("PRIVATE KEY", der).lines().filter(|line| !line.starts_with('-')).map(|line| line.as_bytes().to_vec()));
        self.add(name, &forms);
    }

    /// Every private key in a PEM file.
    pub(super) fn add_keys_of(&mut self, path: &Path) {
        let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let keys: Vec<_> = pem::blocks(&text).expect("PEM").into_iter().filter(|block| block.label.ends_with("PRIVATE KEY")).collect();
        assert!(!keys.is_empty(), "{} holds no key", path.display());
        for key in &keys {
            self.add_key(&path.display().to_string(), &key.der);
        }
    }

    fn add(&mut self, name: &str, forms: &[Vec<u8>]) {
        let forms = forms.iter().map(|form| as_text(form)).filter(|form| form.len() >= 16).collect();
        self.0.push(Secret { name: name.to_owned(), forms });
    }

    /// The names of the secrets in `bytes`.
    pub(super) fn found_in(&self, bytes: &[u8]) -> Vec<&str> {
        let text = as_text(bytes);
        let holds = |form: &String| text.contains(form);
        self.0.iter().filter(|secret| secret.forms.iter().any(holds)).map(|secret| secret.name.as_str()).collect()
    }

    /// Panics where one of them is.
    #[track_caller]
    pub(super) fn expect_absent(&self, place: &str, bytes: &[u8]) {
        let found = self.found_in(bytes);
        assert!(found.is_empty(), "{found:?} in {place}");
        // Keys that nobody remembers: what begins a block, as it is and as JSON and `{:?}` write it.
        let markers = ["PRIVATE KEY-----\nM", "PRIVATE KEY-----\r\nM", "PRIVATE KEY-----\\nM"];
        let text = as_text(bytes);
        let marked = markers.iter().find(|marker| text.contains(*marker)).or_else(|| {
            let mut identities = text.match_indices("AGE-SECRET-KEY-1").map(|(at, marker)| text[at + marker.len()..].chars().next());
            identities.any(|next| next.is_some_and(|next| next.is_ascii_alphanumeric())).then_some(&"an identity")
        });
        assert!(marked.is_none(), "{marked:?} in {place}");
    }

    /// The secrets that no file below `roots` holds, after making sure that only files that others cannot read, and of the names in
    /// `allowed`, hold any.
    #[track_caller]
    pub(super) fn expect_only_in(&self, roots: &[PathBuf], allowed: &[&str]) -> Vec<&str> {
        let mut missing: Vec<&str> = self.0.iter().map(|secret| secret.name.as_str()).collect();
        let mut waiting = roots.to_vec();
        while let Some(path) = waiting.pop() {
            let kind = fs::symlink_metadata(&path).expect("metadata");
            if kind.is_dir() {
                waiting.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
            } else if kind.is_file() {
                let bytes = fs::read(&path).expect("a file");
                let name = path.file_name().expect("a name").to_string_lossy();
                if allowed.contains(&name.as_ref()) {
                    let found = self.found_in(&bytes);
                    let mode = kind.permissions().mode() & 0o777;
                    assert!(found.is_empty() || [0o600, 0o700].contains(&mode), "{found:?} in {} of mode {mode:o}", path.display());
                    missing.retain(|name| !found.contains(name));
                } else {
                    self.expect_absent(&path.display().to_string(), &bytes);
                }
            }
        }
        missing
    }
}

/// Every byte as the character of its number: texts are searched faster than bytes.
fn as_text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[test]
fn every_form_is_found() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let der = key.serialize_der();
    let mut secrets = Secrets::default();
    secrets.add_key("key", &der);
    secrets.add_text("token", "a-token-that-is-long-enough");
    let indented: String = key.serialize_pem().lines().flat_map(|line| ["  ", line, "\n"]).collect();
    for text in [hex(&der), format!("{der:?}"), format!("{der:02x?}").replace(", ", ":"), BASE64_STANDARD.encode(&der), indented] {
        assert_eq!(secrets.found_in(format!("before{text}after").as_bytes()), ["key"], "{text}");
    }
    assert_eq!(secrets.found_in(&[b"before", &der[..], b"after"].concat()), ["key"]);
    assert_eq!(secrets.found_in(b"Token: A-Token-that-is-long-enough a-token-that-is-long-enough"), ["token"]);
    assert_eq!(secrets.found_in(key.public_key_pem().as_bytes()), [""; 0]);
}
