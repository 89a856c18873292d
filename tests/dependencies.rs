//! What is built into the program: under which licences, from where, and what must never be among it.
//!
//! Known vulnerabilities are not looked for here, because their list is not on crates.io: `cargo install cargo-audit`, then `cargo audit`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Licences that let the program be passed on under its own (SPDX).
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "BSD-3-Clause",
    // The data of the web's roots, in webpki-roots.
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Where every crate comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// What must not come in, whoever wants it.
const BANNED: &[(&str, &str)] = &[
    ("hyper-tls", "there is one TLS stack: rustls with aws-lc-rs"),
    ("native-tls", "there is one TLS stack: rustls with aws-lc-rs"),
    ("openssl", "there is one TLS stack: rustls with aws-lc-rs"),
    ("openssl-sys", "there is one TLS stack, and nothing that the system has to provide"),
    ("ring", "there is one cryptographic library beside what age and PFX archives need: aws-lc-rs"),
    ("rsa", "it leaks keys by its timing (RUSTSEC-2023-0071)"),
    ("serde_yaml", "nobody maintains it"),
];

/// RustCrypto has two series of releases that do not mix: age and pkcs8 use one, the AWS SDK (SigV4a) and p12-keystore the other.
const RUST_CRYPTO: &str = "two series of RustCrypto";

/// Crates that are there in two versions, and why nothing can be done about it here.
const TWICE: &[(&str, &[&str])] = &[
    (
        RUST_CRYPTO,
        &[
            "aead",
            "aes",
            "aes-gcm",
            "base16ct",
            "block-buffer",
            "block-padding",
            "cbc",
            "chacha20",
            "cipher",
            "const-oid",
            "cpufeatures",
            "crypto-bigint",
            "crypto-common",
            "ctr",
            "der",
            "des",
            "digest",
            "elliptic-curve",
            "ff",
            "ghash",
            "group",
            "hmac",
            "hybrid-array",
            "inout",
            "p256",
            "pbkdf2",
            "pem-rfc7468",
            "pkcs5",
            "pkcs8",
            "polyval",
            "primeorder",
            "salsa20",
            "scrypt",
            "sec1",
            "sha1",
            "sha2",
            "spki",
            "universal-hash",
        ],
    ),
    ("age uses the earlier random numbers", &["getrandom", "rand", "rand_core"]),
    ("age's translations use earlier ones", &["thiserror", "thiserror-impl", "toml"]),
    ("x509-parser and age's translations use another", &["nom"]),
    ("hyper-util is ahead of the others", &["base64"]),
    ("macros of other crates, at build time alone", &["syn", "synstructure"]),
    ("aws-lc-rs and rustls-webpki use one each", &["untrusted"]),
];

/// A crate that is built in.
struct Crate {
    name: String,
    version: String,
    licence: String,
}

/// Everything that the program is built of on this platform, at run time and at build time, but not for tests.
fn crates() -> Vec<Crate> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--offline", "--edges", "normal,build", "--prefix", "none", "--no-dedupe", "--format", "{p}|{l}"]);
    let output = command.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: BTreeSet<_> = String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect();
    let crates = lines.iter().map(|line| {
        let (package, licence) = line.split_once('|').unwrap_or_else(|| panic!("{line}"));
        let mut words = package.split(' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("{line}")).to_owned();
        Crate { name: word(), version: word(), licence: licence.to_owned() }
    });
    let crates: Vec<_> = crates.collect();
    assert!(crates.iter().any(|one| one.name == "rustls"), "the list was read");
    crates
}

#[test]
fn every_licence_is_one_that_we_may_pass_on() {
    let refused: Vec<_> = crates().into_iter().filter(|one| !allows(&one.licence)).collect();
    let told: Vec<_> = refused.iter().map(|one| format!("{} {}: {:?}", one.name, one.version, one.licence)).collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn nothing_that_is_banned_is_built_in() {
    let crates = crates();
    for (name, why) in BANNED {
        assert!(!crates.iter().any(|one| one.name == *name), "{name} is built in, and {why}: see cargo tree -i {name}");
    }
}

#[test]
fn what_is_there_twice_is_known() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for one in crates() {
        versions.entry(one.name).or_default().insert(one.version);
    }
    let twice: BTreeSet<_> = versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name.as_str()).collect();
    let known: BTreeSet<_> = TWICE.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let new: Vec<_> = twice.difference(&known).collect();
    assert!(new.is_empty(), "there in several versions (see cargo tree -d): {new:?}");
    let gone: Vec<_> = known.difference(&twice).collect();
    assert!(gone.is_empty(), "listed in tests/dependencies.rs, and there once by now: {gone:?}");
    assert!(versions.values().all(|versions| versions.len() <= 2), "{versions:?}");
}

#[test]
fn everything_comes_from_the_registry_with_a_checksum() {
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(lock);
        let text = std::fs::read_to_string(path).expect("a lock file");
        let packages: Vec<_> = text.split("[[package]]\n").skip(1).collect();
        assert!(packages.len() > 300, "{lock} was read");
        for package in packages {
            let value = |key: &str| {
                package.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(" = ")).map(|value| value.trim_matches('"'))
            };
            let name = value("name").expect("a name");
            let ours = name.starts_with("certfleet");
            assert_eq!((value("source"), value("checksum").is_some()), (Some(REGISTRY).filter(|_| !ours), !ours), "{name} of {lock}");
        }
    }
}

/// Whether an SPDX expression leaves a choice among [`LICENCES`]. The old spelling with a slash means OR.
fn allows(expression: &str) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let (allowed, rest) = any(&words);
    allowed && rest.is_empty()
}

fn any<'w>(words: &'w [&'w str]) -> (bool, &'w [&'w str]) {
    let (mut allowed, mut rest) = all(words);
    while let Some(("OR", more)) = rest.split_first().map(|(first, more)| (*first, more)) {
        let (other, after) = all(more);
        (allowed, rest) = (allowed || other, after);
    }
    (allowed, rest)
}

fn all<'w>(words: &'w [&'w str]) -> (bool, &'w [&'w str]) {
    let (mut allowed, mut rest) = one(words);
    while let Some(("AND", more)) = rest.split_first().map(|(first, more)| (*first, more)) {
        let (other, after) = one(more);
        (allowed, rest) = (allowed && other, after);
    }
    (allowed, rest)
}

fn one<'w>(words: &'w [&'w str]) -> (bool, &'w [&'w str]) {
    match words {
        ["(", inside @ ..] => match any(inside) {
            (allowed, [")", rest @ ..]) => (allowed, rest),
            (_, rest) => (false, rest),
        },
        // An exception only ever permits more.
        [licence, "WITH", _, rest @ ..] | [licence, rest @ ..] => (LICENCES.contains(licence), rest),
        [] => (false, words),
    }
}

#[test]
fn expressions_are_understood() {
    for (expression, expected) in [
        ("MIT", true),
        ("MIT OR GPL-2.0-only", true),
        ("GPL-2.0-only/MIT", true),
        ("MIT AND GPL-2.0-only", false),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0-only WITH Classpath-exception-2.0", false),
        ("(MIT OR GPL-3.0-only) AND ISC", true),
        ("ISC AND (GPL-3.0-only OR AGPL-3.0-only)", false),
        ("GPL-3.0-only OR MIT AND ISC", true),
        ("MIT GPL-3.0-only", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(allows(expression), expected, "{expression:?}");
    }
}
