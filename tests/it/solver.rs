//! Solvers on their own: what they leave where, for how long, and how they fail.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use certfleet::solver::script::Script;
use certfleet::solver::standalone::Standalone;
use certfleet::solver::webroot::Webroot;
use certfleet::solver::{Challenge, ChallengeKind, Presented, Solver as _, SolverError};
use http::{Method, Request, Response};
use tempfile::TempDir;
use zeroize::Zeroizing;

use crate::support::http::HttpClient;
use crate::support::process::{free_port, run};
use crate::support::tls;

fn challenge(identifier: &str, token: &str) -> Challenge {
    Challenge {
        identifier: identifier.parse().expect("an identifier"),
        token: token.to_owned(),
        key_authorization: format!("{token}.thumbprint"),
        dns_value: format!("digest-of-{token}"),
        remaining: 1,
        all: ["example.com", "*.example.com", "192.0.2.7"].map(|name| name.parse().expect("an identifier")).into(),
    }
}

/// An error with its causes, as people see it.
fn full(error: &SolverError) -> String {
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

async fn ask(method: Method, port: u16, path: &str) -> Response<Bytes> {
    let client = HttpClient::trusting(&tls::server_config(&["unused".to_owned()]).1);
    let request = Request::builder().method(method).uri(format!("http://127.0.0.1:{port}{path}")).body(Bytes::new());
    client.send(request.expect("a request")).await
}

fn is_free(port: u16) -> bool {
    std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
}

#[tokio::test]
async fn standalone_answers_for_its_tokens_only_and_only_while_there_are_any() {
    let port = free_port();
    let solver = Standalone::new(([127, 0, 0, 1], port).into());
    assert!(is_free(port), "nothing listens before the first challenge");
    let (one, two) = (challenge("one.example.com", "token-1"), challenge("two.example.com", "token-2"));
    let (presented, other) = tokio::join!(solver.present(&one), solver.present(&two));
    let presented = presented.and(other).expect("it listens");

    for (method, path, status, body) in [
        (Method::GET, "/.well-known/acme-challenge/token-1", 200, "token-1.thumbprint"),
        (Method::GET, "/.well-known/acme-challenge/token-2", 200, "token-2.thumbprint"),
        (Method::GET, "/.well-known/acme-challenge/token-2?x=1", 200, "token-2.thumbprint"),
        (Method::HEAD, "/.well-known/acme-challenge/token-1", 200, ""),
        (Method::POST, "/.well-known/acme-challenge/token-1", 404, ""),
        (Method::GET, "/.well-known/acme-challenge/token-3", 404, ""),
        (Method::GET, "/.well-known/acme-challenge/", 404, ""),
        (Method::GET, "/.well-known/acme-challenge/../../etc/passwd", 404, ""),
        (Method::GET, "/", 404, ""),
    ] {
        let response = ask(method.clone(), port, path).await;
        assert_eq!((response.status().as_u16(), &response.body()[..]), (status, body.as_bytes()), "{method} {path}");
    }

    solver.clean_up(&one, &presented).await.expect("clean");
    assert_eq!(ask(Method::GET, port, "/.well-known/acme-challenge/token-1").await.status(), 404);
    assert_eq!(ask(Method::GET, port, "/.well-known/acme-challenge/token-2").await.status(), 200);
    solver.clean_up(&two, &presented).await.expect("clean");
    assert!(is_free(port), "nothing listens after the last challenge");

    solver.present(&one).await.expect("it listens again");
    drop(solver);
    let released = async {
        while !is_free(port) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), released).await.expect("dropping it closes the listener");
}

#[tokio::test]
async fn a_taken_port_is_named_with_the_way_to_find_who_has_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let solver = Standalone::new(address);
    let challenge = challenge("example.com", "token");
    let error = solver.present(&challenge).await.expect_err("the port is taken");
    assert!(error.to_string().contains(&format!("port {}", address.port())), "{error}");
    assert!(error.hint.contains(&format!("ss -ltnp 'sport = :{}'", address.port())) && error.hint.contains("webroot"), "{}", error.hint);
    solver.clean_up(&challenge, &Presented::default()).await.expect("there is nothing to clean up");
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("a file").permissions().mode() & 0o7777
}

#[tokio::test]
async fn webroot_writes_for_the_web_server_and_tidies_up() {
    let root = tempfile::tempdir().expect("a directory");
    let solver = Webroot::new(root.path().to_owned());
    let (one, two) = (challenge("one.example.com", "token-1"), challenge("two.example.com", "token-2"));
    let directory = root.path().join(".well-known/acme-challenge");
    for challenge in [&one, &two, &one] {
        solver.present(challenge).await.expect("written; one that a killed run left is replaced");
    }
    assert_eq!(std::fs::read_to_string(directory.join("token-1")).expect("a file"), "token-1.thumbprint");
    assert_eq!((mode(&directory.join("token-1")), mode(&directory), mode(&root.path().join(".well-known"))), (0o644, 0o755, 0o755));

    solver.clean_up(&one, &Presented::default()).await.expect("clean");
    assert!(!directory.join("token-1").exists() && directory.join("token-2").exists());
    solver.clean_up(&two, &Presented::default()).await.expect("clean");
    solver.clean_up(&two, &Presented::default()).await.expect("cleaning up what is gone is no failure");
    assert!(!root.path().join(".well-known").exists(), "what it made is gone");

    // What was there before stays, and what others put there.
    std::fs::create_dir(root.path().join(".well-known")).expect("a directory");
    solver.present(&one).await.expect("written");
    solver.clean_up(&one, &Presented::default()).await.expect("clean");
    assert!(root.path().join(".well-known").exists() && !directory.exists());
    solver.present(&one).await.expect("written");
    std::fs::write(directory.join("of-another-program"), "").expect("a file");
    solver.clean_up(&one, &Presented::default()).await.expect("clean");
    assert!(directory.join("of-another-program").exists());
}

#[tokio::test]
async fn webroot_follows_no_links_and_needs_a_root() {
    let elsewhere = tempfile::tempdir().expect("a directory");
    let link = |make: &dyn Fn(&TempDir)| {
        let root = tempfile::tempdir().expect("a directory");
        make(&root);
        root
    };
    let target = elsewhere.path();
    let well_known = link(&|root| std::os::unix::fs::symlink(target, root.path().join(".well-known")).expect("a link"));
    let answers = link(&|root| {
        std::fs::create_dir(root.path().join(".well-known")).expect("a directory");
        std::os::unix::fs::symlink(target, root.path().join(".well-known/acme-challenge")).expect("a link");
    });
    let token = challenge("example.com", "token");
    for root in [&well_known, &answers] {
        let solver = Webroot::new(root.path().to_owned());
        let error = solver.present(&token).await.expect_err("a link");
        assert!(error.hint.contains("symbolic links"), "{}", error.hint);
        solver.clean_up(&token, &Presented::default()).await.expect_err("a link");
    }
    // A link in the place of the answer itself is replaced, and what it led to is not touched.
    let secret = target.join("secret");
    std::fs::write(&secret, "untouched").expect("a file");
    let file = link(&|root| {
        std::fs::create_dir_all(root.path().join(".well-known/acme-challenge")).expect("a directory");
        std::os::unix::fs::symlink(&secret, root.path().join(".well-known/acme-challenge/token")).expect("a link");
    });
    Webroot::new(file.path().to_owned()).present(&token).await.expect("written");
    assert_eq!(std::fs::read_to_string(&secret).expect("a file"), "untouched");
    assert_eq!(std::fs::read_dir(target).expect("a directory").count(), 1);

    let missing = Webroot::new(target.join("missing")).present(&token).await.expect_err("no root");
    assert!(missing.to_string().contains("missing") && missing.hint.starts_with("set path to "), "{missing}: {}", missing.hint);
}

fn provider(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/providers").join(name)
}

fn credentials<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Zeroizing<String>> {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), Zeroizing::new(value.to_owned()))).collect()
}

#[tokio::test]
async fn scripts_get_the_documented_environment_and_nothing_else() {
    let place = tempfile::tempdir().expect("a directory");
    let output = place.path().join("call").to_string_lossy().into_owned();
    let (path, home) = (std::env::var("PATH").expect("a path"), std::env::var("HOME").expect("a home"));
    let common = format!(
        "API_TOKEN=hush
CERTBOT_ALL_DOMAINS=example.com,example.com,192.0.2.7
CERTBOT_ALL_IDENTIFIERS=example.com,example.com,192.0.2.7
CERTBOT_DOMAIN=example.com
CERTBOT_IDENTIFIER=example.com
CERTBOT_REMAINING_CHALLENGES=1
CERTFLEET_IDENTIFIER=*.example.com
CERTFLEET_TOKEN=token
HOME={home}
OUTPUT={output}
PATH={path}
TTL=60
"
    );
    let dns = "CERTBOT_VALIDATION=digest-of-token\nCERTFLEET_CHALLENGE=dns-01\nCERTFLEET_RECORD=_acme-challenge.example.com\nCERTFLEET_VALUE=digest-of-token\n";
    let http = "CERTBOT_TOKEN=token\nCERTBOT_VALIDATION=token.thumbprint\nCERTFLEET_CHALLENGE=http-01\nCERTFLEET_PATH=/.well-known/acme-challenge/token\nCERTFLEET_VALUE=token.thumbprint\n";
    for (kind, own) in [(ChallengeKind::Dns01, dns), (ChallengeKind::Http01, http)] {
        let script = Script::load(&provider("environment"), kind, credentials([("OUTPUT", &output), ("API_TOKEN", "hush")]));
        let script = script.expect("a good provider");
        assert!(!format!("{script:?}").contains("hush"));
        let challenge = challenge("*.example.com", "token");
        let presented = script.present(&challenge).await.expect("success");
        assert_eq!(presented, Presented("said by present".to_owned()));
        script.clean_up(&challenge, &presented).await.expect("success");
        for (action, extra) in [("present", ""), ("cleanup", "CERTBOT_AUTH_OUTPUT=said by present\n")] {
            let text = format!("{common}{own}{extra}args={action}\n");
            let mut expected: Vec<_> = text.lines().collect();
            expected.sort_unstable();
            let seen = std::fs::read_to_string(format!("{output}.{action}")).expect("it was called");
            let mut seen: Vec<_> = seen.lines().collect();
            seen.sort_unstable();
            assert_eq!(seen, expected, "{kind} {action}");
        }
    }
}

#[test]
fn providers_are_checked_before_anything_is_done() {
    let place = tempfile::tempdir().expect("a directory");
    let make = |name: &str, toml: &str, mode: u32| {
        let directory = place.path().join(name);
        std::fs::create_dir(&directory).expect("a directory");
        std::fs::write(directory.join("provider.toml"), toml).expect("a file");
        std::fs::write(directory.join("run"), "#!/bin/sh\n").expect("a file");
        std::fs::set_permissions(directory.join("run"), std::fs::Permissions::from_mode(mode)).expect("a mode");
        directory
    };
    let head = "name = \"Example\"\ndocumentation = \"https://dns.example/api\"\n";
    let needs = format!("{head}[credentials]\nTOKEN = \"an API token\"\n[defaults]\nTTL = \"60\"\n");
    let good = make("good", &needs, 0o755);
    let load = |directory: &Path, given| Script::load(directory, ChallengeKind::Dns01, given);
    load(&good, credentials([("TOKEN", "x")])).expect("a good provider");
    load(&good, credentials([("TOKEN", "x"), ("TTL", "5")])).expect("a good provider");

    for (directory, given, in_error, in_hint) in [
        (place.path().join("missing"), credentials([]), "provider.toml cannot be read", "directory"),
        (make("mute", head, 0o644), credentials([]), "run is not executable", "chmod +x"),
        (make("odd", &format!("{head}nmae = 1\n"), 0o755), credentials([]), "unknown field `nmae`", "keys: name"),
        (make("thief", &format!("{head}[defaults]\nPATH = \"/tmp\"\n"), 0o755), credentials([]), "\"PATH\"", "capital letters"),
        (
            make("liar", &format!("{head}[credentials]\nCERTBOT_TOKEN = \"\"\n"), 0o755),
            credentials([]),
            "\"CERTBOT_TOKEN\"",
            "capital letters",
        ),
        (make("broken", &format!("{head}[credentials]\n\"A=B\" = \"\"\n"), 0o755), credentials([]), "\"A=B\"", "capital letters"),
        (make("timeless", &format!("{head}deadline = \"soon\"\n"), 0o755), credentials([]), "deadline", "5m"),
        (good.clone(), credentials([]), "TOKEN", "TOKEN: an API token"),
        (good.clone(), credentials([("TOKEN", "")]), "TOKEN", "https://dns.example/api"),
        (good.clone(), credentials([("TOKEN", "x"), ("TOKNE", "y")]), "TOKNE", "TOKEN, TTL"),
        (good.clone(), credentials([("TOKEN", "x\0y")]), "NUL", "plain text"),
    ] {
        let error = load(&directory, given).expect_err(in_error);
        assert!(full(&error).contains(in_error), "{in_error}: {}", full(&error));
        assert!(error.hint.contains(in_hint), "{in_error}: {}", error.hint);
    }
    for (present, cleanup) in [(vec![], None), (vec!["x".to_owned()], Some(vec![]))] {
        Script::from_hooks(ChallengeKind::Dns01, present, cleanup).expect_err("an empty hook");
    }
    let hooks = Script::from_hooks(ChallengeKind::Dns01, shell("true"), None).expect("hooks");
    let error = hooks.with_credentials(credentials([("TOKEN", "x\0y")])).expect_err("no variable can hold it");
    assert!(error.to_string().contains("the credential TOKEN contains a NUL"), "{error}");
}

fn shell(script: &str) -> Vec<String> {
    vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()]
}

#[tokio::test]
async fn failing_hooks_say_why() {
    for (script, deadline_seconds, in_error) in [
        ("echo no such zone >&2; exit 3", 60, "ended with exit status 3: no such zone"),
        ("echo waiting >&2; exec sleep 600", 2, "did not end within 2s: waiting"),
        ("kill -9 $$", 60, "killed by signal 9"),
    ] {
        let hooks = Script::from_hooks(ChallengeKind::Dns01, shell(script), None).expect("hooks");
        let hooks = hooks.with_deadline(Duration::from_secs(deadline_seconds));
        let challenge = challenge("*.example.com", "token");
        let error = hooks.present(&challenge).await.expect_err(in_error);
        assert!(error.to_string().contains("*.example.com") && full(&error).contains(in_error), "{}", full(&error));
        hooks.clean_up(&challenge, &Presented::default()).await.expect("there is no cleanup hook");
    }
    let missing = Script::from_hooks(ChallengeKind::Dns01, vec!["/no/such/hook".to_owned()], None).expect("hooks");
    let error = missing.present(&challenge("example.com", "token")).await.expect_err("no such program");
    assert!(full(&error).contains("/no/such/hook was not found"), "{}", full(&error));
}

/// What a script says goes to terminals and into the bucket; a `set -x` or a `curl -v` in it says everything.
#[tokio::test]
async fn credentials_are_not_in_what_a_script_is_quoted_with() {
    let secrets = [("API_TOKEN", "hush-hush"), ("API_TOKEN_LONG", "hush-hush-hush"), ("LINES", "first secret\nsecond"), ("TTL", "60")];
    for (script, deadline_seconds) in [
        ("set -x; : $API_TOKEN_LONG $TTL; echo \"$LINES\" >&2; exit 3", 60),
        ("set -x; : $API_TOKEN_LONG $TTL; echo \"$LINES\" >&2; exec sleep 600", 2),
    ] {
        let hooks = Script::from_hooks(ChallengeKind::Dns01, shell(script), Some(shell(script))).expect("hooks");
        let hooks = hooks.with_credentials(credentials(secrets)).expect("plain text").with_deadline(Duration::from_secs(deadline_seconds));
        let challenge = challenge("example.com", "token");
        let presented = hooks.present(&challenge).await.expect_err("it fails");
        let cleaned = hooks.clean_up(&challenge, &Presented::default()).await.expect_err("it fails");
        for error in [presented, cleaned] {
            let text = full(&error);
            assert!(text.contains(": *** 60") && !text.contains("hush") && !text.contains("secret"), "{text}");
        }
    }
}

/// `mkdir` succeeds for one only, so a second call at the same time would fail; and the order of lines is the order of calls.
#[tokio::test]
async fn hooks_run_one_after_the_other_in_order() {
    let place = tempfile::tempdir().expect("a directory");
    let (lock, log) = (place.path().join("lock"), place.path().join("log"));
    let script = format!(
        "set -e; mkdir {lock}; echo $CERTBOT_REMAINING_CHALLENGES >> {log}; sleep 0.05; rmdir {lock}",
        lock = lock.display(),
        log = log.display()
    );
    let hooks = Script::from_hooks(ChallengeKind::Dns01, shell(&script), None).expect("hooks");
    let challenges = [3, 2, 1, 0].map(|remaining| Challenge { remaining, ..challenge(&format!("n{remaining}.example.com"), "token") });
    let [a, b, c, d] = &challenges;
    let results = tokio::join!(hooks.present(a), hooks.present(b), hooks.present(c), hooks.present(d));
    for result in [results.0, results.1, results.2, results.3] {
        result.expect("nobody else ran");
    }
    assert_eq!(std::fs::read_to_string(log).expect("a log"), "3\n2\n1\n0\n");
}

/// Each call waits until the other has begun: they only end if they run at the same time. Two for one name would never end.
#[tokio::test]
async fn scripts_for_different_names_run_at_once() {
    let place = tempfile::tempdir().expect("a directory");
    let fifo = place.path().join("fifo");
    run(std::process::Command::new("mkfifo").arg(&fifo));
    let directory = place.path().join("meeting");
    std::fs::create_dir(&directory).expect("a directory");
    std::os::unix::fs::symlink(provider("meeting/run"), directory.join("run")).expect("a link");
    std::os::unix::fs::symlink(provider("meeting/provider.toml"), directory.join("provider.toml")).expect("a link");
    let load =
        || Script::load(&directory, ChallengeKind::Dns01, credentials([("FIFO", &fifo.to_string_lossy())])).expect("a good provider");
    let (writer, reader) = (challenge("writer.example.com", "token"), challenge("reader.example.com", "token"));
    let script = load();
    let (one, other) = tokio::join!(script.present(&writer), script.present(&reader));
    one.and(other).expect("they met");

    let (apex, star) = (challenge("example.com", "writer"), challenge("*.example.com", "reader"));
    let script = load().with_deadline(Duration::from_millis(500));
    let (one, other) = tokio::join!(script.present(&apex), script.present(&star));
    assert!(one.is_err() && other.is_err(), "two calls for one record ran at the same time");
}
