//! From a heap of certificates to the chain of one leaf, by signatures.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{FoundCertificate, FoundKey, Note, SuppliedError};
use crate::domain::certificate::Certificate;
use crate::domain::trust::{Trust, TrustError};

/// A store of all public roots has about 150; a chain has 10 at most.
pub(super) const MOST_CERTIFICATES: usize = 200;

/// The longest path looked at, leaf and root included: one more than a bundle may hold, for the root.
const LONGEST_PATH: usize = 11;

/// Cross-signed CAs can be combined in many ways; real ones in two or three.
const MOST_PATHS: usize = 500;

/// Drops every further copy of a certificate.
pub(super) fn without_duplicates(certificates: Vec<FoundCertificate>, notes: &mut Vec<Note>) -> Vec<FoundCertificate> {
    let mut seen = BTreeSet::new();
    let mut kept = Vec::new();
    for found in certificates {
        if seen.insert(found.certificate.fingerprint.clone()) {
            kept.push(found);
        } else {
            notes.push(Note::DuplicateRemoved { subject: found.certificate.subject, place: found.place });
        }
    }
    kept
}

/// The certificate that one of `keys` belongs to, with that key; `None` where no key has one.
pub(super) fn leaf<'a>(
    certificates: &'a [FoundCertificate],
    keys: &'a [FoundKey],
) -> Result<Option<(&'a FoundCertificate, &'a FoundKey)>, SuppliedError> {
    let key_of = |found: &FoundCertificate| keys.iter().find(|key| key.key.public() == found.certificate.public());
    let owned: Vec<_> = certificates.iter().filter_map(|found| key_of(found).map(|key| (found, key))).collect();
    let leaves: Vec<_> = owned.iter().filter(|(found, _)| !found.certificate.is_ca).collect();
    match (leaves.as_slice(), owned.first()) {
        ([], None) => Ok(None),
        ([], Some((ca, _))) => Err(SuppliedError::LeafIsCa { subject: ca.certificate.subject.clone(), place: ca.place.clone() }),
        ([only], _) => Ok(Some(**only)),
        (several, _) => {
            let describe = |(found, _): &&(&FoundCertificate, &FoundKey)| {
                let leaf = &found.certificate;
                format!("{} with serial {}, valid to {} ({})", leaf.title(), leaf.serial, leaf.not_after.format("%FT%TZ"), found.place)
            };
            Err(SuppliedError::SeveralLeaves(several.iter().map(describe).collect::<Vec<_>>().join("; ")))
        }
    }
}

/// The chain to send for `leaf`: itself, then the intermediates that lead on, without the root.
pub(super) fn build<'a>(
    leaf: &'a FoundCertificate,
    pool: &'a [FoundCertificate],
    now: DateTime<Utc>,
    notes: &mut Vec<Note>,
) -> Result<Vec<&'a Certificate>, SuppliedError> {
    if pool.len() > MOST_CERTIFICATES {
        return Err(SuppliedError::TooMany(pool.len()));
    }
    let mut paths = Vec::new();
    walk(&mut vec![&leaf.certificate], pool, &mut paths);
    // Backwards, because the last of equals would win. `walk` yields one path at least: the leaf alone.
    let path = paths.iter().rev().max_by_key(|path| rank(path, now)).cloned().unwrap_or_else(|| vec![&leaf.certificate]);
    complete(&path, &paths, pool, now, notes)?;
    let mut sent = sent(&path).to_vec();
    drop_expired(&mut sent, now, notes)?;
    tell(&path, &sent, pool, notes);
    Ok(sent)
}

/// Every way up from the end of `path` that cannot be continued.
fn walk<'a>(path: &mut Vec<&'a Certificate>, pool: &'a [FoundCertificate], paths: &mut Vec<Vec<&'a Certificate>>) {
    let Some(&last) = path.last() else { return };
    let signs = |candidate: &&Certificate| {
        let fresh = !path.contains(candidate);
        // The names first: verifying signatures is dear. Roots of the first X.509 version do not say that they are CAs.
        fresh && candidate.subject == last.issuer && (candidate.is_ca || candidate.is_self_signed()) && last.is_signed_by(candidate)
    };
    let above = if last.is_self_signed() { &[] } else { pool };
    let issuers: Vec<_> = above.iter().map(|found| &found.certificate).filter(signs).collect();
    if issuers.is_empty() || path.len() == LONGEST_PATH {
        paths.push(path.clone());
    }
    for issuer in issuers {
        if path.len() < LONGEST_PATH && paths.len() < MOST_PATHS {
            path.push(issuer);
            walk(path, pool, paths);
            path.pop();
        }
    }
}

/// What makes one path better than another: all of it is valid now, it stays so for longer, more of it is sent (a cross-sign reaches
/// older clients).
fn rank(path: &[&Certificate], now: DateTime<Utc>) -> (bool, Option<DateTime<Utc>>, usize) {
    let sent = sent(path);
    let current = sent.iter().all(|certificate| certificate.is_current(now));
    let earliest_end = sent.iter().map(|certificate| certificate.not_after).min();
    (current, earliest_end, sent.len())
}

/// All but the root.
fn sent<'p, 'a>(path: &'p [&'a Certificate]) -> &'p [&'a Certificate] {
    match path {
        [_, .., root] if root.is_self_signed() => &path[..path.len() - 1],
        _ => path,
    }
}

/// Refuses a path that stops too soon, as far as that can be told.
fn complete(
    path: &[&Certificate],
    paths: &[Vec<&Certificate>],
    pool: &[FoundCertificate],
    now: DateTime<Utc>,
    notes: &mut Vec<Note>,
) -> Result<(), SuppliedError> {
    let Some((&last, before)) = path.split_last() else { return Ok(()) };
    let chain: Vec<_> = path.iter().map(|&certificate| certificate.clone()).collect();
    let known = !matches!(Trust::web().leads_to(&chain, now), Err(TrustError::UnknownIssuer { .. }));
    if !last.is_self_signed() && before.is_empty() && !known {
        return Err(SuppliedError::IssuerMissing { certificate: last.title(), issuer: last.issuer.clone(), ca_issuers: last.ca_issuers() });
    }
    if !last.is_self_signed() && !known {
        let connected = |candidate: &Certificate| paths.iter().flatten().any(|&member| member == candidate);
        let loose = pool.iter().map(|found| &found.certificate).find(|candidate| candidate.is_ca && !connected(candidate));
        if let Some(beyond) = loose {
            let (certificate, issuer) = (last.subject.clone(), last.issuer.clone());
            return Err(SuppliedError::Gap { certificate, issuer, beyond: beyond.subject.clone(), ca_issuers: last.ca_issuers() });
        }
    }
    if !known {
        notes.push(Note::NotPublic(last.issuer.clone()));
    }
    Ok(())
}

/// Cuts the chain at its first expired intermediate where it leads to a public root without it, as old cross-signs do.
fn drop_expired(sent: &mut Vec<&Certificate>, now: DateTime<Utc>, notes: &mut Vec<Note>) -> Result<(), SuppliedError> {
    let Some(bad) = sent.iter().skip(1).position(|certificate| !certificate.is_current(now)).map(|index| index + 1) else { return Ok(()) };
    let kept: Vec<_> = sent[..bad].iter().map(|&certificate| certificate.clone()).collect();
    if Trust::web().leads_to(&kept, now).is_err() {
        let (subject, not_before, not_after) = (sent[bad].subject.clone(), sent[bad].not_before, sent[bad].not_after);
        return Err(SuppliedError::IntermediateNotCurrent { subject, not_before, not_after, now });
    }
    notes.extend(sent.drain(bad..).map(|certificate| Note::ExpiredRemoved(certificate.subject.clone())));
    Ok(())
}

/// Says what differs between the pool and the chain that is sent.
fn tell(path: &[&Certificate], sent: &[&Certificate], pool: &[FoundCertificate], notes: &mut Vec<Note>) {
    let position = |certificate: &&Certificate| pool.iter().position(|found| found.certificate == **certificate);
    if !sent.iter().map(position).is_sorted() {
        notes.push(Note::Reordered);
    }
    notes.extend(path[sent.len()..].iter().filter(|end| end.is_self_signed()).map(|root| Note::RootRemoved(root.subject.clone())));
    let unrelated = pool.iter().filter(|found| !path.contains(&&found.certificate));
    notes.extend(unrelated.map(|found| Note::UnrelatedRemoved { subject: found.certificate.subject.clone(), place: found.place.clone() }));
}
