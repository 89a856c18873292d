//! What happens when the CA refuses, fails, lies, or cannot be reached.

use super::Resource::{Authorization, Certificate, Challenge, Directory, Finalize, NewAccount, NewNonce, NewOrder};
use super::*;

struct Row {
    resource: Resource,
    fault: Fault,
    /// How many requests in a row fail.
    times: usize,
    in_reason: &'static [&'static str],
    in_hint: &'static str,
    retry_after_seconds: Option<u64>,
}

fn problem(status: u16, kind: &'static str, detail: &'static str, retry_after: Option<&'static str>) -> Fault {
    Fault::Problem { status, kind, detail, retry_after }
}

fn row(resource: Resource, fault: Fault, in_reason: &'static [&'static str], in_hint: &'static str) -> Row {
    Row { resource, fault, times: 1, in_reason, in_hint, retry_after_seconds: None }
}

fn rows() -> Vec<Row> {
    const LIMIT: &str = "too many certificates (5) already issued for this exact set of identifiers";
    vec![
        Row {
            retry_after_seconds: Some(7200),
            ..row(NewOrder, problem(429, "rateLimited", LIMIT, Some("7200")), &[LIMIT, "rateLimited", "place the order"], "--staging")
        },
        Row {
            retry_after_seconds: Some(30),
            ..row(NewAccount, problem(429, "rateLimited", "too many registrations", Some("30")), &["too many registrations"], "wait")
        },
        Row {
            times: 9,
            retry_after_seconds: Some(120),
            ..row(
                NewOrder,
                problem(503, "serverInternal", "down for maintenance", Some("120")),
                &["down for maintenance", "503"],
                "status page",
            )
        },
        Row { times: 9, ..row(NewOrder, problem(500, "serverInternal", "oops", None), &["status 500", "oops"], "another issuer") },
        Row {
            times: 9,
            ..row(Directory, Fault::Page(502, "<html>\u{1b}[2JBad Gateway</html>"), &["status 502", "<html> [2JBad Gateway"], "status page")
        },
        row(Directory, Fault::Page(404, "not here"), &["404", "not here"], "directory URL"),
        row(Directory, Fault::Page(200, "<html>welcome</html>"), &["open the account"], "is that URL the directory"),
        Row { times: 9, ..row(NewNonce, Fault::Unheard, &["did not answer"], "firewall") },
        row(NewOrder, problem(403, "userActionRequired", "terms have changed", None), &["terms have changed"], "a person must act"),
        row(
            NewOrder,
            problem(400, "rejectedIdentifier", "policy forbids issuing for \"www.example.com\"", None),
            &["policy forbids"],
            "another issuer",
        ),
        row(NewOrder, problem(400, "unsupportedIdentifier", "no IP addresses", None), &["no IP addresses"], "another issuer"),
        row(
            NewOrder,
            problem(400, "malformed", "NewOrder request included invalid non-DNS type", None),
            &["invalid non-DNS type"],
            "check the identifiers",
        ),
        row(
            NewOrder,
            problem(400, "accountDoesNotExist", "unknown account", None),
            &["accountDoesNotExist", "unknown account"],
            "accounts/pebble",
        ),
        row(NewOrder, problem(403, "unauthorized", "account is deactivated", None), &["account is deactivated"], "deactivated"),
        row(NewOrder, problem(403, "weird", "something new", None), &["something new", "weird"], "what the CA says"),
        Row { times: 99, ..row(NewOrder, problem(400, "badNonce", "nonce is stale", None), &["nonce is stale"], "nonces") },
        row(
            Finalize,
            problem(403, "caa", "CAA record for example.com prevents issuance", None),
            &["CAA record for example.com", "finalize the order"],
            "dig CAA",
        ),
        row(Finalize, problem(400, "badCSR", "weak key", None), &["weak key"], "key_type"),
        Row {
            times: 99,
            retry_after_seconds: Some(120),
            ..row(
                Finalize,
                problem(503, "serverInternal", "the signer is away", Some("120")),
                &["the signer is away", "503", "finalize the order"],
                "status page",
            )
        },
        Row { times: 99, ..row(Finalize, Fault::Page(502, "no signer"), &["status 502", "no signer", "finalize"], "status page") },
        row(Certificate, problem(403, "unauthorized", "not yours", None), &["not yours", "fetch the certificate"], "account"),
        row(Authorization, tokens("../../../etc/passwd"), &["does not keep to the rules", "base64url"], "another issuer"),
        row(Authorization, tokens("$(touch /tmp/x)"), &["base64url"], "another issuer"),
        row(Authorization, tokens(""), &["base64url"], "another issuer"),
        row(
            Authorization,
            Fault::rewritten(|value| value["identifier"]["value"] = "bank.example".into()),
            &["bank.example", "not wanted"],
            "another issuer",
        ),
        row(
            Authorization,
            Fault::rewritten(only_unknown_challenges),
            &["no http-01 challenge for www.example.com", "dns-persist-01"],
            "solver of a kind",
        ),
    ]
}

fn only_unknown_challenges(value: &mut serde_json::Value) {
    let unknown =
        serde_json::json!({ "type": "dns-persist-01", "url": "https://ca.example/1", "status": "pending", "issuer-domain-names": ["x"] });
    value["challenges"] = serde_json::json!([unknown]);
}

/// Gives every challenge this token.
fn tokens(token: &'static str) -> Fault {
    Fault::rewritten(move |value| {
        for challenge in value["challenges"].as_array_mut().expect("challenges") {
            challenge["token"] = token.into();
        }
    })
}

#[track_caller]
fn refused(result: Result<Bundle, IssueError>) -> (String, String, Option<Duration>) {
    match result {
        Err(IssueError::Refused { reason, hint, retry_after }) => (reason, hint, retry_after),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn every_refusal_is_passed_on_with_a_hint() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    for row in rows() {
        let case = format!("{:?}: {:?}", row.resource, row.fault);
        front.inject(row.resource, row.times, row.fault);
        let issuer = issuer_behind(&front, standalone(&pebble));
        let (reason, hint, retry_after) = refused(issue(&issuer, &["www.example.com"]).await);
        for text in row.in_reason {
            assert!(reason.contains(text), "{case}: {text:?} is missing: {reason}");
        }
        assert!(!reason.contains("pebble: ") && !reason.contains(char::is_control), "{case}: {reason:?}");
        assert!(hint.contains(row.in_hint), "{case}: {hint}");
        assert_eq!(retry_after, row.retry_after_seconds.map(Duration::from_secs), "{case}");
        assert_port_free(&pebble);
        front.clear_faults();
    }
}

#[tokio::test]
async fn short_faults_are_overcome() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let down = problem(503, "serverInternal", "a moment", None);
    let stale = problem(400, "badNonce", "stale", None);
    for resource in [Directory, NewNonce, NewAccount, NewOrder, Authorization, Challenge, Resource::Order, Finalize, Certificate] {
        // The library itself tries three times when a nonce is refused; nonces are needed for all but the first two.
        let nonces = if matches!(resource, Directory | NewNonce) { 0 } else { 5 };
        for (fault, times) in [(down.clone(), 1), (Fault::Unheard, 1), (Fault::Swallowed, 1), (stale.clone(), nonces)] {
            let case = format!("{resource:?}: {fault:?}");
            front.inject(resource, times, fault);
            let before = pebble.issued();
            let issuer = issuer_behind(&front, standalone(&pebble));
            issue(&issuer, &["www.example.com"]).await.unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(pebble.issued(), before + 1, "{case}");
            front.clear_faults();
        }
    }
}

#[tokio::test]
async fn a_ca_that_asks_for_time_gets_it() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    front.inject(Finalize, 1, Fault::Delayed("1"));
    let start = Instant::now();
    issue(&issuer_behind(&front, standalone(&pebble)), &["www.example.com"]).await.expect("a bundle");
    assert!(start.elapsed() >= Duration::from_secs(1), "{:?}", start.elapsed());
}

/// What pebble itself finds, in its own words, for each identifier.
#[tokio::test]
async fn failed_validations_are_explained() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    pebble.set_address("away.example.com", "127.0.0.77").await;
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    let (reason, hint, _) = refused(issue(&issuer, &["here.example.com", "away.example.com"]).await);
    assert!(reason.contains("away.example.com: ") && reason.contains("acme:error:connection"), "{reason}");
    assert!(!reason.contains("here.example.com: "), "{reason}");
    assert!(hint.contains("port 80"), "{hint}");
    assert_eq!(front.count(Authorization), 4, "each is fetched for its challenge, and for what became of it");
    assert_port_free(&pebble);

    let hook = Script::from_hooks(ChallengeKind::Dns01, vec!["/bin/true".to_owned()], None).expect("a hook");
    let (reason, hint, _) = refused(issue(&issuer_at(&pebble, Arc::new(hook)), &["*.example.com"]).await);
    assert!(reason.contains("*.example.com: ") && reason.contains("acme:error:unauthorized"), "{reason}");
    assert!(hint.contains("TXT"), "{hint}");
}

#[tokio::test]
async fn challenges_of_another_kind_are_named() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let (reason, hint, _) = refused(issue(&issuer_at(&pebble, standalone(&pebble)), &["*.example.com"]).await);
    // pebble offers others too, which nobody here knows, in an order of its own.
    assert!(reason.contains("no http-01 challenge for *.example.com; it offers: ") && reason.contains("dns-01"), "{reason}");
    assert!(hint.contains("dns-01"), "{hint}");
}

#[tokio::test]
async fn profiles_are_asked_for_only_where_they_are_offered() {
    let profiles = vec![("classic".to_owned(), 90 * 86_400), ("shortlived".to_owned(), 160 * 3_600)];
    let pebble = Pebble::start(PebbleOptions { profiles, ..PebbleOptions::default() }).await;
    let front = CaFront::start(&pebble);
    let wanted = Request { profile: Some(short_lived(IfMissing::Refuse)), ..request(&["www.example.com"]) };
    front.inject(Directory, 1, Fault::rewritten(|value| value["meta"]["profiles"] = serde_json::json!({})));
    let (reason, hint, _) = refused(issuer_behind(&front, standalone(&pebble)).issue(&wanted, &HeldLease::new()).await);
    assert!(reason.contains("no profile \"shortlived\"") && hint.contains("remove profile"), "{reason}: {hint}");
    assert_eq!(front.count(NewOrder), 0);

    let offer = |names: &'static [&'static str]| {
        Fault::rewritten(move |value| {
            value["meta"]["profiles"] =
                names.iter().map(|name| ((*name).to_owned(), "about it".into())).collect::<serde_json::Map<_, _>>().into();
        })
    };
    front.inject(Directory, 1, offer(&["classic"]));
    let (_, hint, _) = refused(issuer_behind(&front, standalone(&pebble)).issue(&wanted, &HeldLease::new()).await);
    assert!(hint.contains("classic"), "{hint}");
    let bundle = issuer_behind(&front, standalone(&pebble)).issue(&wanted, &HeldLease::new()).await.expect("a bundle");
    assert!(bundle.leaf().lifetime() <= Duration::from_secs(160 * 3_600), "{:?}", bundle.leaf().lifetime());
}

fn short_lived(if_missing: IfMissing) -> Profile {
    Profile { name: "shortlived".to_owned(), if_missing }
}

#[tokio::test]
async fn a_site_may_do_without_a_profile_that_is_not_offered() {
    let pebble = Pebble::start(PebbleOptions { profiles: vec![("classic".to_owned(), 90 * 86_400)], ..PebbleOptions::default() }).await;
    let wanted = Request { profile: Some(short_lived(IfMissing::TakeDefault)), ..request(&["www.example.com"]) };
    let front = CaFront::start(&pebble);
    let issuer = issuer_behind(&front, standalone(&pebble));
    front.inject(Finalize, 1, Fault::Problem { status: 403, kind: "rateLimited", detail: "later", retry_after: None });
    let lease = HeldLease::new();
    issuer.issue(&wanted, &lease).await.expect_err("the fault is in the way");

    // Whoever takes that order up, takes it for what was wanted, although the CA says that it is of a profile.
    let again = Request { unfinished: lease.last_order(), ..wanted };
    let bundle = issuer.issue(&again, &HeldLease::new()).await.expect("a bundle");
    assert!(bundle.leaf().lifetime() > Duration::from_secs(89 * 86_400), "{:?}", bundle.leaf().lifetime());
    assert_eq!(front.count(NewOrder), 1);
}

#[tokio::test]
async fn an_order_of_another_profile_than_was_asked_for_is_not_finished() {
    let profiles = vec![("classic".to_owned(), 90 * 86_400), ("shortlived".to_owned(), 160 * 3_600)];
    let pebble = Pebble::start(PebbleOptions { profiles, ..PebbleOptions::default() }).await;
    let front = CaFront::start(&pebble);
    let wanted = Request { profile: Some(short_lived(IfMissing::Refuse)), ..request(&["www.example.com"]) };
    front.inject(NewOrder, 1, Fault::rewritten(|value| value["profile"] = "classic".into()));
    let (reason, _, _) = refused(issuer_behind(&front, standalone(&pebble)).issue(&wanted, &HeldLease::new()).await);
    assert!(reason.contains("asked for another profile") && reason.contains("\"classic\""), "{reason}");
    assert_eq!(pebble.issued(), 0);
}

#[tokio::test]
async fn a_ca_out_of_reach_is_told_from_one_that_is_not_trusted() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let front = CaFront::start(&pebble);
    let closed = format!("https://127.0.0.1:{}/dir", crate::support::process::free_port());
    let untrusted = "the CA's own TLS certificate is not trusted";
    for (directory, trust, in_reason, in_hint) in [
        (closed, Some(pebble.root_pem()), "refused", "firewall"),
        ("https://no-such-host.invalid/dir".to_owned(), Some(pebble.root_pem()), "did not answer", "name resolution"),
        (pebble.directory_url(), Some(front.root_pem()), "certificate", untrusted),
        (pebble.directory_url(), None, "certificate", untrusted),
    ] {
        let trust = trust.map(str::to_owned);
        let issuer = AcmeIssuer::new(AcmeOptions { trust, ..options(directory.clone(), "", standalone(&pebble)) }).expect("good options");
        let (reason, hint, _) = refused(issue(&issuer, &["www.example.com"]).await);
        assert!(reason.contains(in_reason), "{directory}: {reason}");
        assert!(hint.contains(in_hint), "{directory}: {hint}");
    }
}

#[tokio::test]
async fn an_account_of_another_ca_is_refused() {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    for kept in ["not JSON", r#"{"id":"https://ca.example/1","key_pkcs8":"AA","directory":"https://ca.example/dir"}"#] {
        let accounts = SharedAccount(Mutex::new(Some(Zeroizing::new(kept.as_bytes().to_vec()))), Mutex::default());
        let shared =
            AcmeOptions { accounts: Arc::new(accounts), ..options(pebble.directory_url(), pebble.root_pem(), standalone(&pebble)) };
        let issuer = AcmeIssuer::new(shared).expect("good options");
        let (reason, hint, _) = refused(issue(&issuer, &["www.example.com"]).await);
        assert!(reason.contains("the account that the fleet keeps for it is unusable"), "{reason}");
        assert!(hint.contains("accounts/pebble"), "{hint}");
    }
}
