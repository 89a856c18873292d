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

/// The chain to send for `leaf`: itself, then the intermediates that lead on, without the root. `public` is who needs no root sent.
pub(super) fn build<'a>(
    leaf: &'a FoundCertificate,
    pool: &'a [FoundCertificate],
    public: &Trust,
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
    let whole: Vec<_> = path.iter().map(|&certificate| certificate.clone()).collect();
    if !matches!(public.leads_to(&whole, now), Ok(()) | Err(TrustError::NotCurrent { .. })) {
        let last = path[path.len() - 1];
        complete(last, &path, &paths, pool)?;
        notes.push(Note::NotPublic(last.issuer.clone()));
    }
    let mut sent = sent(&path).to_vec();
    let length = sent.len();
    drop_expired(&mut sent, public, now, notes)?;
    if sent.len() == length {
        acceptable(&whole, now)?;
    }
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

/// Refuses a path to nobody in particular that stops too soon, as far as that can be told.
fn complete(
    last: &Certificate,
    path: &[&Certificate],
    paths: &[Vec<&Certificate>],
    pool: &[FoundCertificate],
) -> Result<(), SuppliedError> {
    if last.is_self_signed() {
        return Ok(());
    }
    let (issuer, ca_issuers) = (last.issuer.clone(), last.ca_issuers());
    if path.len() == 1 {
        return Err(SuppliedError::IssuerMissing { certificate: last.title(), issuer, ca_issuers });
    }
    let connected = |candidate: &Certificate| paths.iter().flatten().any(|&member| member == candidate);
    let loose = pool.iter().map(|found| &found.certificate).find(|candidate| candidate.is_ca && !connected(candidate));
    loose.map_or(Ok(()), |beyond| {
        Err(SuppliedError::Gap { certificate: last.subject.clone(), issuer, beyond: beyond.subject.clone(), ca_issuers })
    })
}

/// Judges a path as a client would that trusts its end: damage, purpose and constraints that signatures alone do not tell.
fn acceptable(path: &[Certificate], now: DateTime<Utc>) -> Result<(), SuppliedError> {
    match path.split_last() {
        Some((end, below)) if !below.is_empty() => {
            Trust::roots(vec![end.clone()]).and_then(|trust| trust.leads_to(below, now)).map_err(SuppliedError::Unacceptable)
        }
        _ => Ok(()),
    }
}

/// Cuts the chain at its first expired intermediate where it leads to a public root without it, as old cross-signs do.
fn drop_expired(sent: &mut Vec<&Certificate>, public: &Trust, now: DateTime<Utc>, notes: &mut Vec<Note>) -> Result<(), SuppliedError> {
    let Some(bad) = sent.iter().skip(1).position(|certificate| !certificate.is_current(now)).map(|index| index + 1) else { return Ok(()) };
    let kept: Vec<_> = sent[..bad].iter().map(|&certificate| certificate.clone()).collect();
    if public.leads_to(&kept, now).is_err() {
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

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::bundle::certificates_pem;
    use crate::domain::supplied::Place;

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000, 0).expect("a time")
    }

    /// What is certified, valid for a year before and `days` after [`now`].
    fn params(name: &str, is_ca: IsCa, days: i64) -> CertificateParams {
        let mut params = CertificateParams::new([format!("{name}.example")]).expect("a name");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = is_ca;
        let day = |days| OffsetDateTime::from_unix_timestamp((now() + TimeDelta::days(days)).timestamp()).expect("a date");
        (params.not_before, params.not_after) = (day(-365), day(days));
        params
    }

    fn found(der: &[u8]) -> FoundCertificate {
        let certificate = Certificate::from_der(der).expect("a certificate");
        FoundCertificate { certificate, place: Place { file: "chain.pem".to_owned(), line: None } }
    }

    /// A leaf, its intermediate, the intermediate's issuer as a cross-sign with `days` left, and that issuer's own root.
    fn cross_signed(days: i64) -> (Vec<FoundCertificate>, Trust) {
        let key = || KeyPair::generate().expect("a key");
        let ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let (old_key, root_key, middle_key, leaf_key) = (key(), key(), key(), key());
        let (old, root, middle) = (params("old", ca, 900), params("root", ca, 900), params("middle", ca, 900));
        let (by_old, by_root) = (Issuer::from_params(&old, &old_key), Issuer::from_params(&root, &root_key));
        let crossed = params("root", root.is_ca, days).signed_by(&root_key, &by_old).expect("signed");
        let signed_middle = middle.signed_by(&middle_key, &by_root).expect("signed");
        let leaf = params("leaf", IsCa::ExplicitNoCa, 60).signed_by(&leaf_key, &Issuer::from_params(&middle, &middle_key)).expect("signed");
        let own_root = found(root.self_signed(&root_key).expect("signed").der());
        let trust = Trust::from_pem(&certificates_pem(std::slice::from_ref(&own_root.certificate))).expect("trust");
        (vec![found(leaf.der()), found(signed_middle.der()), found(crossed.der()), own_root], trust)
    }

    #[test]
    fn cross_signs_are_sent_while_they_serve() {
        // Days that the cross-sign has left, whether the root is given too, how many certificates are sent, what is told.
        for (days, with_root, length, told) in [
            (900, false, 3, vec![]),
            (900, true, 3, vec!["UnrelatedRemoved"]),
            (-1, false, 2, vec!["ExpiredRemoved"]),
            (-1, true, 2, vec!["RootRemoved", "UnrelatedRemoved"]),
            // It would end before the leaf does: the shorter chain is valid for longer.
            (30, true, 2, vec!["RootRemoved", "UnrelatedRemoved"]),
        ] {
            let (mut pool, trust) = cross_signed(days);
            pool.truncate(if with_root { 4 } else { 3 });
            let mut notes = Vec::new();
            let sent = build(&pool[0], &pool, &trust, now(), &mut notes).expect("a chain");
            let expected: Vec<_> = pool[..length].iter().map(|found| &found.certificate).collect();
            assert_eq!(sent, expected, "{days} days, root given: {with_root}");
            let names: Vec<_> =
                notes.iter().map(|note| format!("{note:?}").split(['(', ' ']).next().unwrap_or_default().to_owned()).collect();
            assert_eq!(names, told, "{days} days, root given: {with_root}");
        }
    }

    #[test]
    fn a_chain_to_nobody_must_not_have_expired() {
        let (mut pool, _) = cross_signed(-1);
        pool.truncate(3);
        let refused = build(&pool[0], &pool, &Trust::web(), now(), &mut Vec::new());
        assert!(matches!(&refused, Err(SuppliedError::IntermediateNotCurrent { subject, .. }) if subject.contains("root")), "{refused:?}");
    }
}
