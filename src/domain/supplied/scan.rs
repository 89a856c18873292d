//! Finds certificates and keys in one file, whatever it is wrapped in.

use std::iter;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use pkcs8::EncryptedPrivateKeyInfo;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use super::{Foreign, ForeignKind, Found, FoundCertificate, Material, Note, Place, SuppliedError, archive, key};
use crate::domain::certificate::Certificate;
use crate::domain::pem;

/// Lost or doubled padding does no harm.
const BASE64: GeneralPurpose =
    GeneralPurpose::new(&alphabet::STANDARD, GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent));

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// The first bytes of Java's own keystores, JKS and JCEKS.
const JAVA_KEYSTORES: [[u8; 4]; 2] = [[0xfe, 0xed, 0xfe, 0xed], [0xce, 0xce, 0xce, 0xce]];

/// id-signedData (RFC 5652 section 5.1), DER encoded: what a PKCS#7 file says it is.
const SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];

/// id-data (RFC 5652 section 4), DER encoded: what the safe of a PKCS#12 archive says it is.
const DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];

/// Longer than every word of a label of RFC 7468 (`CERTIFICATE`).
const LONGEST_LABEL_WORD_CHARS: usize = 16;

/// More words than any label has (`NEW CERTIFICATE REQUEST`).
const MOST_LABEL_WORDS: usize = 5;

/// How far into a file its kind is told: SEQUENCE, its length, a version, SEQUENCE, its length, the kind.
const HEAD_BYTES: usize = 32;

/// Everything in `material`, PEM or binary.
pub(super) fn scan(material: &Material<'_>, password: Option<&str>, notes: &mut Vec<Note>) -> Result<Found, SuppliedError> {
    let text = text(material, notes);
    if text.contains(BEGIN) {
        return scan_pem(material.name, &text, password, notes);
    }
    scan_binary(material, password, notes)
}

/// The content as text without byte order mark. Bytes that are no text become replacement characters: they only matter inside of blocks.
fn text(material: &Material<'_>, notes: &mut Vec<Note>) -> Zeroizing<String> {
    let units =
        |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Vec<u16> { bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect() };
    let (marked, text) = match material.bytes {
        [0xff, 0xfe, rest @ ..] => (true, String::from_utf16_lossy(&Zeroizing::new(units(rest, u16::from_le_bytes)))),
        [0xfe, 0xff, rest @ ..] => (true, String::from_utf16_lossy(&Zeroizing::new(units(rest, u16::from_be_bytes)))),
        [0xef, 0xbb, 0xbf, rest @ ..] => (true, String::from_utf8_lossy(rest).into_owned()),
        plain => (false, String::from_utf8_lossy(plain).into_owned()),
    };
    let text = Zeroizing::new(text);
    // Java keystores begin with FE ED, which is no mark: only what turns out to be text is told.
    if marked && text.contains(BEGIN) {
        notes.push(Note::Encoding(material.name.to_owned()));
    }
    text
}

/// One block between its BEGIN and END, not yet decoded.
struct RawBlock<'t> {
    label: &'t str,
    body: &'t str,
    place: Place,
    /// From the first dash of BEGIN to the last of END.
    whole: &'t str,
}

fn scan_pem(file: &str, text: &str, password: Option<&str>, notes: &mut Vec<Note>) -> Result<Found, SuppliedError> {
    let mut found = Found::default();
    let (mut position, mut outside, mut spaced) = (0, false, false);
    while let Some(offset) = text[position..].find(BEGIN) {
        let begin = position + offset;
        outside |= !is_blank(&text[position..begin]);
        let block = raw_block(file, text, begin)?;
        let der = decode(&block)?;
        let regular = pem::encode(block.label, &der);
        spaced |= block.whole.replace('\r', "").trim_end() != regular.trim_end() && !block.body.contains(':');
        position = begin + block.whole.len();
        take(&block, &der, password, notes, &mut found)?;
    }
    outside |= !is_blank(&text[position..]);
    let told = [(outside, Note::TextIgnored as fn(String) -> Note), (text.contains('\r'), Note::LineEnds), (spaced, Note::Spacing)];
    notes.extend(told.into_iter().filter(|(is_so, _)| *is_so).map(|(_, note)| note(file.to_owned())));
    Ok(found)
}

/// Editors and mail programs add characters that are not seen: zero width spaces, and byte order marks between joined files.
fn is_invisible(character: char) -> bool {
    character.is_whitespace() || matches!(character, '\u{feff}' | '\u{200b}' | '\u{1a}' | '\0')
}

fn is_blank(text: &str) -> bool {
    text.chars().all(is_invisible)
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text[..position].matches('\n').count()
}

/// A label as it may be shown: where a line end or dashes were lost, the key itself stands in the same line.
fn shown(label: &str) -> String {
    let is_word = |word: &&str| {
        let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'#';
        word.len() <= LONGEST_LABEL_WORD_CHARS && word.bytes().all(plain)
    };
    let words: Vec<_> = label.split_whitespace().take_while(is_word).take(MOST_LABEL_WORDS).collect();
    let all = words.len() == label.split_whitespace().count();
    words.into_iter().chain((!all).then_some("…")).collect::<Vec<_>>().join(" ")
}

fn raw_block<'t>(file: &str, text: &'t str, begin: usize) -> Result<RawBlock<'t>, SuppliedError> {
    let place = Place { file: file.to_owned(), line: Some(line_of(text, begin)) };
    let damaged =
        |label: &str, why: String| SuppliedError::Damaged { what: format!("the block {:?}", shown(label)), place: place.clone(), why };
    let after = &text[begin + BEGIN.len()..];
    let label_length = after.find(['\n', '-']).unwrap_or(after.len());
    let label = after[..label_length].trim();
    if !after[label_length..].starts_with(DASHES) {
        return Err(damaged(label, "its BEGIN line does not end with five dashes".to_owned()));
    }
    let body = &after[label_length + DASHES.len()..];
    let end = body.find(END).filter(|end| body.find(BEGIN).is_none_or(|next| *end < next));
    let Some(end) = end else {
        return Err(damaged(label, format!("its END line is missing: -----END {}-----", shown(label))));
    };
    let after_end = &body[end + END.len()..];
    let end_length = after_end.find(['\n', '-']).unwrap_or(after_end.len());
    let end_label = after_end[..end_length].trim();
    if end_label != label {
        return Err(damaged(label, format!("it ends as {:?}", shown(end_label))));
    }
    // A last dash lost in copying does no harm.
    let dashes = after_end[end_length..].bytes().take(DASHES.len()).take_while(|byte| *byte == b'-').count();
    let length = BEGIN.len() + label_length + DASHES.len() + end + END.len() + end_length + dashes;
    Ok(RawBlock { label, body: &body[..end], whole: &text[begin..begin + length], place })
}

/// The bytes of a block. RFC 1421 headers ("Proc-Type: …") are passed over.
fn decode(block: &RawBlock<'_>) -> Result<Zeroizing<Vec<u8>>, SuppliedError> {
    let what = format!("the block {:?}", shown(block.label));
    let mut base64 = Zeroizing::new(String::with_capacity(block.body.len()));
    for (index, line) in block.body.split('\n').enumerate() {
        if line.contains(':') {
            continue;
        }
        let wrong =
            line.chars().find(|&character| !(character.is_ascii_alphanumeric() || "+/=".contains(character) || is_invisible(character)));
        if let Some(wrong) = wrong {
            let place = Place { file: block.place.file.clone(), line: block.place.line.map(|line| line + index) };
            return Err(SuppliedError::Damaged { what, place, why: format!("{wrong:?} is no character of base64") });
        }
        base64.extend(line.chars().filter(|&character| !is_invisible(character)));
    }
    let damaged = |why: &str| SuppliedError::Damaged { what, place: block.place.clone(), why: why.to_owned() };
    if base64.is_empty() {
        return Err(damaged("it is empty"));
    }
    // The decoder's own words would quote the text, which may be a key.
    BASE64.decode(base64.as_bytes()).map(Zeroizing::new).map_err(|_| damaged("characters are missing, or too many"))
}

fn take(block: &RawBlock<'_>, der: &[u8], password: Option<&str>, notes: &mut Vec<Note>, found: &mut Found) -> Result<(), SuppliedError> {
    let place = || block.place.clone();
    let foreign = |kind| Foreign { kind, place: place() };
    match block.label {
        "CERTIFICATE" => found.certificates.push(certificate(block, der)?),
        "X509 CERTIFICATE" | "TRUSTED CERTIFICATE" => {
            found.certificates.push(certificate(block, der)?);
            notes.push(Note::Relabelled { label: shown(block.label), place: place() });
        }
        label if label.ends_with("PRIVATE KEY") && is_traditionally_encrypted(block) => {
            found.locked.get_or_insert(SuppliedError::TraditionalEncryption(place()));
        }
        "ENCRYPTED PRIVATE KEY" => lock(found, key::encrypted(der, password, place(), notes))?,
        "OPENSSH PRIVATE KEY" => found.foreign.push(foreign(ForeignKind::OpenSshKey)),
        label if label.ends_with("PRIVATE KEY") => found.keys.push(key::plain(label, der, place(), notes)?),
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => found.foreign.push(foreign(ForeignKind::Request)),
        "PUBLIC KEY" | "RSA PUBLIC KEY" => found.foreign.push(foreign(ForeignKind::PublicKey)),
        "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => return Err(SuppliedError::Pkcs7(place())),
        // `openssl ecparam -genkey` writes the curve's name before the key that contains it, too.
        "EC PARAMETERS" => {}
        label => notes.push(Note::BlockIgnored { label: shown(label), place: place() }),
    }
    Ok(())
}

/// A key that stays shut is only a failure where no other key fits.
fn lock(found: &mut Found, opened: Result<super::FoundKey, SuppliedError>) -> Result<(), SuppliedError> {
    match opened {
        Ok(key) => found.keys.push(key),
        Err(damaged @ SuppliedError::Damaged { .. }) => return Err(damaged),
        Err(locked) => {
            found.locked.get_or_insert(locked);
        }
    }
    Ok(())
}

fn is_traditionally_encrypted(block: &RawBlock<'_>) -> bool {
    block.body.lines().any(|line| line.trim_start().starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

fn certificate(block: &RawBlock<'_>, der: &[u8]) -> Result<FoundCertificate, SuppliedError> {
    // OpenSSL's trusted certificates carry its own notes after the certificate.
    let length = match X509Certificate::from_der(der) {
        Ok((rest, _)) if block.label == "TRUSTED CERTIFICATE" => der.len() - rest.len(),
        _ => der.len(),
    };
    let certificate = Certificate::from_der(&der[..length]).map_err(|source| SuppliedError::Damaged {
        what: format!("the block {:?}", shown(block.label)),
        place: block.place.clone(),
        why: source.to_string(),
    })?;
    Ok(FoundCertificate { certificate, place: block.place.clone() })
}

/// A file without PEM: DER of any kind, or an archive.
fn scan_binary(material: &Material<'_>, password: Option<&str>, notes: &mut Vec<Note>) -> Result<Found, SuppliedError> {
    let der = material.bytes;
    let place = Place { file: material.name.to_owned(), line: None };
    let head = &der[..der.len().min(HEAD_BYTES)];
    let says = |kind: &[u8]| head.windows(kind.len()).any(|window| window == kind);
    let mut found = Found::default();
    if JAVA_KEYSTORES.iter().any(|magic| der.starts_with(magic)) {
        return Err(SuppliedError::JavaKeystore(place));
    } else if says(&SIGNED_DATA) {
        return Err(SuppliedError::Pkcs7(place));
    } else if says(&DATA) {
        return archive::open(der, password, &place, notes);
    } else if let Ok(certificate) = Certificate::from_der(der) {
        found.certificates.push(FoundCertificate { certificate, place });
    } else if X509CertificationRequest::from_der(der).is_ok() {
        found.foreign.push(Foreign { kind: ForeignKind::Request, place });
    } else if EncryptedPrivateKeyInfo::try_from(der).is_ok() {
        lock(&mut found, key::encrypted(der, password, place, notes))?;
    } else if SubjectPublicKeyInfo::from_der(der).is_ok() {
        found.foreign.push(Foreign { kind: ForeignKind::PublicKey, place });
    } else {
        let labels = ["PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"];
        let mut key_notes = Vec::new();
        let key = labels.iter().find_map(|label| key::plain(label, der, place.clone(), &mut key_notes).ok());
        // What is none of all this is left to the caller: it says that nothing was found, and where.
        let Some(key) = key else { return Ok(found) };
        found.keys.push(key);
        notes.append(&mut key_notes);
    }
    notes.extend(iter::once(Note::FromDer(material.name.to_owned())));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_part_of_a_key_is_taken_for_a_label() {
        for (label, expected) in [
            ("PRIVATE KEY", "PRIVATE KEY"),
            ("NEW CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"),
            ("PKCS #7 SIGNED DATA", "PKCS #7 SIGNED DATA"),
            ("PRIVATE KEY MIGHAgEAMBMGByqGSM49", "PRIVATE KEY …"),
            ("PRIVATE KEYMIGHAgEA", "PRIVATE …"),
            ("MIGHAGEAMBMGBYQGSM49", "…"),
            ("A B C D E F G", "A B C D E …"),
            ("", ""),
        ] {
            assert_eq!(shown(label), expected);
        }
        let mangled = Material { name: "pasted", bytes: b"-----BEGIN PRIVATE KEY MIGHAgEA\n", given_as: super::super::GivenAs::Either };
        let refused = scan(&mangled, None, &mut Vec::new()).err().expect("a refusal").to_string();
        assert!(refused.contains("PRIVATE KEY") && !refused.contains("MIGH"), "{refused}");
    }
}
