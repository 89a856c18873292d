//! What is refused, with the reason named.

use certfleet::domain::supplied::GivenAs;
use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

use super::{Given, SITE, edited, hand_over, pair};
use crate::support::openssl::{CA, LEAF, Order, P256, Workshop};

/// What is refused: a name for the row, what is given, the password, and what the message and its hint must say.
type Refused<'a> = (&'a str, Vec<Given<'a>>, Option<&'a str>, &'a [&'a str]);

fn check_refused(rows: Vec<Refused<'_>>, names: &[&str], now: DateTime<Utc>) {
    for (row, given, password, words) in rows {
        let error = hand_over(&given, password, names, now).map(|supplied| supplied.notes).expect_err(row);
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        let message = format!("{error}{cause}\n{}\n{error:?}", error.hint());
        for word in words {
            assert!(message.contains(word), "{row}: {word:?} is not in {message}");
        }
        // Whatever goes wrong, no line of a key is quoted.
        for (_, bytes, _) in &given {
            let text = String::from_utf8_lossy(bytes);
            for line in text.lines().filter(|line| line.len() == 64) {
                assert!(!message.contains(line), "{row}: {message}");
            }
        }
    }
}

#[test]
fn what_is_not_there_is_named() {
    let shop = Workshop::with_chain();
    for command in [
        "pkey -in leaf.key -pubout -out public.pem",
        "req -in leaf.csr -outform DER -out request.der",
        "crl2pkcs7 -nocrl -certfile leaf.pem -out chain.p7b",
        "crl2pkcs7 -nocrl -certfile leaf.pem -outform DER -out chain.der",
        "pkcs8 -topk8 -in leaf.key -passout pass:secret -out pbes2.key",
        "pkcs8 -topk8 -in leaf.key -passout pass:secret -v1 PBE-SHA1-3DES -out pbes1.key",
        "ec -in leaf.key -aes128 -passout pass:secret -out traditional.key",
        "pkcs12 -export -in leaf.pem -inkey leaf.key -certfile inter.pem -passout pass:secret -out site.pfx",
        "pkcs12 -export -in leaf.pem -nokeys -certfile inter.pem -passout pass:secret -out keyless.pfx",
    ] {
        shop.openssl(command);
    }
    let ssh = "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAA\n-----END OPENSSH PRIVATE KEY-----\n";
    let chain = || shop.joined(&["leaf.pem", "inter.pem"]);
    let file = |file: &str| pair(chain(), shop.read(file));
    let archive = |file| vec![("site.pfx", shop.read(file), GivenAs::Either)];
    let first = |file: &str| pair(shop.read(file), shop.read("leaf.key"));
    check_refused(
        vec![
            ("nothing", vec![], None, &["NoCertificate", "no certificate in what was given"]),
            ("empty files", pair(vec![], vec![]), None, &["NoCertificate", "chain.pem and site.key"]),
            (
                "a web page",
                pair(b"<html>404</html>".to_vec(), shop.read("leaf.key")),
                None,
                &["NoCertificate", "chain.pem", "BEGIN CERTIFICATE"],
            ),
            ("a request", first("leaf.csr"), None, &["RequestGiven", "chain.pem, line 1", "CSR"]),
            ("a request in DER", first("request.der"), None, &["RequestGiven", "chain.pem is a certificate request"]),
            ("PKCS#7", first("chain.p7b"), None, &["Pkcs7", "openssl pkcs7 -in chain.pem -print_certs"]),
            ("PKCS#7 in DER", first("chain.der"), None, &["Pkcs7", "openssl pkcs7 -inform DER -in chain.pem -print_certs"]),
            ("a Java keystore", pair(vec![0xfe, 0xed, 0xfe, 0xed, 0, 0, 0, 2], vec![]), None, &["JavaKeystore", "keytool -importkeystore"]),
            ("no key", pair(chain(), chain()), None, &["NoKey", "no private key in chain.pem", "BEGIN PRIVATE KEY"]),
            ("a public key", file("public.pem"), None, &["PublicKeyGiven", "site.key, line 1"]),
            ("an OpenSSH key", pair(chain(), ssh.into()), None, &["OpenSshKeyGiven", "site.key, line 1"]),
            ("encrypted", file("pbes2.key"), None, &["PasswordMissing", "site.key, line 1"]),
            ("wrong password", file("pbes2.key"), Some("Secret"), &["WrongPassword", "site.key, line 1"]),
            ("old encryption", file("pbes1.key"), Some("secret"), &["UnsupportedEncryption", "openssl pkey -in site.key"]),
            ("traditional encryption", file("traditional.key"), Some("secret"), &["TraditionalEncryption", "openssl pkey -in site.key"]),
            ("PFX without password", archive("site.pfx"), None, &["PasswordMissing", "site.pfx"]),
            ("PFX with wrong password", archive("site.pfx"), Some("Secret"), &["WrongPassword", "site.pfx"]),
            ("PFX without key", archive("keyless.pfx"), Some("secret"), &["NoKey", "site.pfx"]),
            (
                "half a PFX",
                vec![("site.pfx", shop.read("site.pfx")[..400].to_vec(), GivenAs::Either)],
                None,
                &["UnreadableArchive", "-nodes"],
            ),
        ],
        &SITE,
        Utc::now(),
    );
}

#[test]
fn damage_is_located() {
    let shop = Workshop::with_chain();
    let chain = shop.joined(&["leaf.pem", "inter.pem"]);
    let begin_of_second = shop.read("leaf.pem").split(|byte| *byte == b'\n').count();
    let line_of_second = format!("chain.pem, line {begin_of_second}");
    let wrong_line = format!("chain.pem, line {}", begin_of_second + 2);
    let with = |edit: &dyn Fn(&str) -> String| pair(edited(&chain, edit), shop.read("leaf.key"));
    let cut = |text: &str| text[..text.len() - 60].to_owned();
    let second_line = |edit: &dyn Fn(&str) -> String| {
        with(&|text| {
            let lines = text.lines().enumerate();
            lines.map(|(index, line)| if index == begin_of_second + 1 { edit(line) } else { line.to_owned() } + "\n").collect()
        })
    };
    let key = || edited(&shop.read("leaf.key"), |text| text.replacen("MIG", "MI!", 1));
    // Three: one character is left over then, which is no base64 whatever it is. Two may be some, by chance.
    let short_key = || edited(&shop.read("leaf.key"), |text| text.replacen("MIGH", "M", 1));
    check_refused(
        vec![
            ("cut off", with(&cut), None, &["Damaged", &line_of_second, "END line is missing"]),
            (
                "no END before the next",
                with(&|text| text.replacen("-----END CERTIFICATE-----\n", "", 1)),
                None,
                &["chain.pem, line 1", "END line is missing"],
            ),
            (
                "ends as another",
                with(&|text| text.replacen("END CERTIFICATE", "END PRIVATE KEY", 1)),
                None,
                &["chain.pem, line 1", "PRIVATE KEY"],
            ),
            ("a wrong character", second_line(&|line| line.replacen(&line[9..10], "#", 1)), None, &[&wrong_line, "'#'"]),
            ("a lost character", second_line(&|line| line[1..].to_owned()), None, &["Damaged", &line_of_second]),
            ("a lost line", second_line(&|_| String::new()), None, &["Damaged", &line_of_second, "not an X.509 certificate"]),
            (
                "no dashes",
                with(&|text| text.replacen("BEGIN CERTIFICATE-----", "BEGIN CERTIFICATE", 1)),
                None,
                &["chain.pem, line 1", "dashes"],
            ),
            ("a wrong character in the key", pair(chain.clone(), key()), None, &["Damaged", "site.key, line 2", "'!'"]),
            ("lost characters in the key", pair(chain.clone(), short_key()), None, &["Damaged", "site.key, line 1"]),
            (
                "a key that is none",
                pair(chain.clone(), b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
                None,
                &["UnusableKey", "site.key, line 1", "unsupported kind"],
            ),
        ],
        &SITE,
        Utc::now(),
    );
}

#[test]
fn what_does_not_belong_together_is_named() {
    let shop = Workshop::with_chain();
    let order =
        |name, common_name, issuer, days, extensions| shop.certify(&Order { name, common_name, issuer, key: P256, days, extensions });
    order("other", "other.example.test", "inter", 90, "subjectAltName=DNS:other.example.test");
    order("low", "Inter-Low", "inter", 90, CA);
    order("deep", "www.example.test", "low", 90, LEAF);
    std::fs::copy(shop.path("leaf.key"), shop.path("again.key")).expect("copied");
    order("again", "www.example.test", "inter", 60, LEAF);
    let row = |files: &[&str], key: &str| pair(shop.joined(files), shop.read(key));
    let fingerprint = |name: &str| shop.certificate(name).public_fingerprint();
    let (leaf, other) = (fingerprint("leaf"), fingerprint("other"));
    let sha256 = shop.openssl("pkey -in other.key -pubout -outform DER -out other.der") + &shop.openssl("dgst -sha256 -r other.der");
    assert!(sha256.starts_with(&other), "{sha256} is not {other}");
    let serial = shop.certificate("again").serial;
    check_refused(
        vec![
            (
                "another key",
                row(&["leaf.pem", "inter.pem"], "other.key"),
                None,
                &["OtherKey", "*.w.example.test (chain.pem, line 1)", &leaf, &other, "sha256sum"],
            ),
            ("no leaf", row(&["inter.pem", "root.pem"], "leaf.key"), None, &["LeafMissing", "CN=Inter-One"]),
            ("the CA's key", row(&["leaf.pem", "inter.pem"], "inter.key"), None, &["LeafIsCa", "CN=Inter-One", "line"]),
            ("two leaves", row(&["leaf.pem", "again.pem", "inter.pem"], "leaf.key"), None, &["SeveralLeaves", &serial, "-serial"]),
            ("leaf alone", row(&["leaf.pem"], "leaf.key"), None, &["IssuerMissing", "CN=Inter-One", "http://ca.example.test/inter.der"]),
            ("leaf and root", row(&["leaf.pem", "root.pem"], "leaf.key"), None, &["IssuerMissing", "CN=Inter-One"]),
            ("a gap", row(&["deep.pem", "low.pem", "root.pem"], "deep.key"), None, &["Gap", "CN=Inter-Low", "CN=Inter-One", "CN=Root-One"]),
        ],
        &SITE,
        Utc::now(),
    );
}

#[test]
fn what_clients_would_refuse_is_refused() {
    let shop = Workshop::with_chain();
    let order = |name, issuer, extensions: &str| shop.certify(&Order { name, common_name: name, issuer, key: P256, days: 90, extensions });
    order("client", "inter", &LEAF.replace("serverAuth", "clientAuth"));
    order("narrow", "root", &format!("{CA}\nnameConstraints=critical,permitted;DNS:example.org"));
    order("outside", "narrow", LEAF);
    order("last", "root", "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign");
    order("beyond", "last", CA);
    order("below", "beyond", LEAF);
    let row = |files: &[&str], key: &str| pair(shop.joined(files), shop.read(key));
    check_refused(
        vec![
            ("a client's", row(&["client.pem", "inter.pem"], "client.key"), None, &["Unacceptable", "not meant for TLS servers"]),
            ("name constraints", row(&["outside.pem", "narrow.pem"], "outside.key"), None, &["Unacceptable", "NameConstraint"]),
            ("path length", row(&["below.pem", "beyond.pem", "last.pem", "root.pem"], "below.key"), None, &["Unacceptable", "PathLen"]),
        ],
        &SITE,
        Utc::now(),
    );
}

#[test]
fn what_does_not_fit_the_site_or_the_time_is_named() {
    let shop = Workshop::with_chain();
    shop.certify(&Order { name: "brief", common_name: "Brief", issuer: "root", key: P256, days: 10, extensions: CA });
    shop.certify(&Order { name: "late", common_name: "late", issuer: "brief", key: P256, days: 90, extensions: LEAF });
    let good = || pair(shop.joined(&["leaf.pem", "inter.pem"]), shop.read("leaf.key"));
    let late = || pair(shop.joined(&["late.pem", "brief.pem"]), shop.read("late.key"));
    let now = Utc::now();
    let at = |time: DateTime<Utc>| time.format("%FT%TZ").to_string();
    let leaf = shop.certificate("leaf");
    let (from, to) = (at(leaf.not_before), at(leaf.not_after));
    let names = ["www.example.test", "example.test", "b.a.w.example.test", "192.0.2.8"];
    let missing = "example.test, b.a.w.example.test, 192.0.2.8; it covers *.w.example.test, 192.0.2.7, www.example.test";
    let after = leaf.not_after + TimeDelta::seconds(1);
    // The clocks of a CA and of a datastore may differ by this much.
    let earliest = leaf.not_before - TimeDelta::minutes(5);
    let before = earliest - TimeDelta::seconds(1);
    let brief_over = shop.certificate("brief").not_after + TimeDelta::seconds(1);
    check_refused(vec![("names", good(), None, &["Names", missing])], &names, now);
    check_refused(vec![("expired", good(), None, &["Expired", &to, &at(after)])], &SITE, after);
    check_refused(vec![("not yet", good(), None, &["NotYetValid", &from, &at(before)])], &SITE, before);
    check_refused(vec![("intermediate", late(), None, &["IntermediateNotCurrent", "CN=Brief", &at(brief_over)])], &SITE, brief_over);
    for edge in [earliest, leaf.not_before, leaf.not_after] {
        hand_over(&good(), None, &SITE, edge).unwrap_or_else(|error| panic!("{error} at the edge {edge}"));
    }
}

#[test]
fn damage_never_makes_another_bundle() {
    let shop = Workshop::with_chain();
    let (chain, key) = (shop.joined(&["leaf.pem", "inter.pem", "root.pem"]), shop.read("leaf.key"));
    let good = hand_over(&pair(chain.clone(), key.clone()), None, &SITE, Utc::now()).expect("good").bundle;
    let cuts = prop::collection::vec((any::<prop::sample::Index>(), 0..90_usize, prop::collection::vec(any::<u8>(), 0..6)), 0..4);
    // The certificates are new in every run: a seed of an earlier failure would mean nothing.
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(cuts in cuts, binary in any::<bool>())| {
        let mut damaged = if binary { shop.certificate("leaf").der().to_vec() } else { chain.clone() };
        for (at, length, inserted) in cuts {
            let start = at.index(damaged.len() + 1);
            let end = damaged.len().min(start + length);
            damaged.splice(start..end, inserted);
        }
        if let Ok(supplied) = hand_over(&pair(damaged, key.clone()), None, &SITE, Utc::now()) {
            prop_assert_eq!(supplied.bundle.leaf(), good.leaf());
            prop_assert_eq!(supplied.bundle.key(), good.key());
        }
    });
}
