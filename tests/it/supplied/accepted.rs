//! What is put right, and told.

use certfleet::domain::private_key::PrivateKey;
use certfleet::domain::supplied::{GivenAs, Supplied};
use chrono::Utc;

use super::{Given, SITE, edited, hand_over, pair};
use crate::support::openssl::{CA, LEAF, Order, P256, Workshop};

/// The names of the notes, sorted, without the one that every private CA gets.
fn note_names(supplied: &Supplied) -> Vec<String> {
    let name = |debug: String| debug.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or_default().to_owned();
    let mut names: Vec<_> = supplied.notes.iter().map(|note| name(format!("{note:?}"))).filter(|name| name != "NotPublic").collect();
    names.sort();
    names
}

fn utf16(bytes: &[u8]) -> Vec<u8> {
    let text = std::str::from_utf8(bytes).expect("text");
    [0xff, 0xfe].into_iter().chain(text.encode_utf16().flat_map(u16::to_le_bytes)).collect()
}

/// What is accepted: a name for the row, what is given, the password, the notes.
type Accepted<'a> = (&'a str, Vec<Given<'a>>, Option<&'a str>, &'a [&'a str]);

fn check_accepted(rows: Vec<Accepted<'_>>, shop: &Workshop, chain: &[&str], key: &str) {
    let expected: Vec<_> = chain.iter().map(|name| shop.certificate(name)).collect();
    let key = PrivateKey::from_pem(&String::from_utf8(shop.read(key)).expect("text")).expect("a key");
    for (row, given, password, notes) in rows {
        let supplied = hand_over(&given, password, &SITE, Utc::now()).unwrap_or_else(|error| panic!("{row}: {error}"));
        assert_eq!(supplied.bundle.chain(), expected, "{row}");
        assert_eq!(supplied.bundle.key(), &key, "{row}");
        assert_eq!(note_names(&supplied), notes, "{row}: {:?}", supplied.notes);
        for note in &supplied.notes {
            assert!(!note.to_string().is_empty(), "{row}");
        }
    }
}

#[test]
fn text_is_accepted_in_every_shape() {
    let shop = Workshop::with_chain();
    let chain = shop.joined(&["leaf.pem", "inter.pem"]);
    let key = || shop.read("leaf.key");
    let with = |edit: &dyn Fn(&str) -> String| pair(edited(&chain, edit), key());
    check_accepted(
        vec![
            ("tidy", pair(chain.clone(), key()), None, &[]),
            ("text around", with(&|text| format!("Dear customer,\n\nhere it is:\n{text}\nRegards")), None, &["TextIgnored"]),
            (
                "openssl's text",
                pair(shop.openssl("x509 -in leaf.pem -text").into_bytes(), [shop.read("inter.pem"), key()].concat()),
                None,
                &["TextIgnored"],
            ),
            ("CRLF", with(&|text| text.replace('\n', "\r\n")), None, &["LineEnds"]),
            ("old Macintosh", with(&|text| text.replace('\n', "\r")), None, &["LineEnds", "Spacing"]),
            ("byte order mark", with(&|text| format!("\u{feff}{text}")), None, &["Encoding"]),
            ("UTF-16", pair(utf16(&chain), key()), None, &["Encoding"]),
            ("blank lines everywhere", with(&|text| text.replace('\n', "\n\n")), None, &["Spacing"]),
            ("blank lines at the ends", with(&|text| format!("\n\n{text}\n\n\n")), None, &[]),
            ("indented", with(&|text| text.replace('\n', "\n    ")), None, &["Spacing"]),
            ("trailing spaces", with(&|text| text.replace('\n', "  \t\n")), None, &["Spacing"]),
            ("one line", with(&|text| text.replace('\n', " ")), None, &["Spacing"]),
            ("no line between blocks", with(&|text| text.replace("-----\n-----", "----------")), None, &[]),
            ("a dash lost at the end", with(&|text| text.trim_end().trim_end_matches('-').to_owned() + "----"), None, &["Spacing"]),
            ("old label", with(&|text| text.replace(" CERTIFICATE", " X509 CERTIFICATE")), None, &["Relabelled", "Relabelled"]),
        ],
        &shop,
        &["leaf", "inter"],
        "leaf.key",
    );
}

#[test]
fn chains_are_put_in_order() {
    let shop = Workshop::with_chain();
    let order =
        |name, common_name, issuer, days, extensions| shop.certify(&Order { name, common_name, issuer, key: P256, days, extensions });
    order("stranger", "Stranger", "stranger", 90, CA);
    order("other", "other.example.test", "inter", 90, LEAF);
    // Another certificate of the same CA, with the same key: shorter-lived, and made by another root.
    std::fs::copy(shop.path("inter.key"), shop.path("inter-short.key")).expect("copied");
    order("inter-short", "Inter-One", "root", 30, CA);
    std::fs::copy(shop.path("inter.key"), shop.path("inter-crossed.key")).expect("copied");
    order("inter-crossed", "Inter-One", "stranger", 45, CA);
    // Of the same name as the right one, but with another key: only the signature tells.
    order("inter-namesake", "Inter-One", "root", 2000, CA);
    let key = || shop.read("leaf.key");
    let row = |files: &[&str]| pair(shop.joined(files), key());
    let combined = shop.joined(&["leaf.key", "inter.pem", "leaf.pem"]);
    check_accepted(
        vec![
            ("upside down", row(&["inter.pem", "leaf.pem"]), None, &["Reordered"]),
            ("root included", row(&["leaf.pem", "inter.pem", "root.pem"]), None, &["RootRemoved"]),
            ("all upside down", row(&["root.pem", "inter.pem", "leaf.pem"]), None, &["Reordered", "RootRemoved"]),
            ("twice", row(&["leaf.pem", "leaf.pem", "inter.pem"]), None, &["DuplicateRemoved"]),
            ("a stranger's root", row(&["leaf.pem", "inter.pem", "root.pem", "stranger.pem"]), None, &["RootRemoved", "UnrelatedRemoved"]),
            ("another leaf", row(&["other.pem", "leaf.pem", "inter.pem"]), None, &["UnrelatedRemoved"]),
            ("an older intermediate", row(&["leaf.pem", "inter-short.pem", "inter.pem"]), None, &["UnrelatedRemoved"]),
            ("a cross-sign", row(&["leaf.pem", "inter-crossed.pem", "inter.pem"]), None, &["UnrelatedRemoved"]),
            ("a namesake", row(&["leaf.pem", "inter-namesake.pem", "inter.pem", "root.pem"]), None, &["RootRemoved", "UnrelatedRemoved"]),
            ("all in one file", vec![("all.pem", combined.clone(), GivenAs::Either)], None, &["Reordered"]),
            ("one file for both", pair(combined.clone(), combined), None, &["Reordered"]),
            ("key file with certificate", pair(shop.read("inter.pem"), shop.joined(&["leaf.key", "leaf.pem"])), None, &["Reordered"]),
            (
                "two keys",
                pair(shop.joined(&["leaf.pem", "inter.pem"]), shop.joined(&["other.key", "leaf.key"])),
                None,
                &["OtherKeyIgnored"],
            ),
            ("request beside", pair(shop.joined(&["leaf.csr", "leaf.pem", "inter.pem"]), key()), None, &["BlockIgnored"]),
            (
                "swapped",
                vec![("a.pem", key(), GivenAs::Chain), ("b.pem", shop.joined(&["leaf.pem", "inter.pem"]), GivenAs::Key)],
                None,
                &["Swapped"],
            ),
        ],
        &shop,
        &["leaf", "inter"],
        "leaf.key",
    );
}

#[test]
fn keys_and_archives_are_opened() {
    let shop = Workshop::with_chain();
    for command in [
        "ec -in leaf.key -out sec1.key",
        "ecparam -name prime256v1 -out parameters.pem",
        "pkcs8 -topk8 -in leaf.key -passout pass:secret -out pbes2.key",
        "pkcs8 -topk8 -in leaf.key -passout pass:secret -scrypt -out scrypt.key",
        "pkcs8 -topk8 -in leaf.key -passout pass:secret -v2 des3 -v2prf hmacWithSHA1 -out des.key",
        "pkcs8 -topk8 -in leaf.key -passout pass:secret -outform DER -out pbes2.der",
        "pkcs8 -topk8 -nocrypt -in leaf.key -outform DER -out key.der",
        "ec -in leaf.key -outform DER -out sec1.der",
        "x509 -in leaf.pem -outform DER -out leaf.der",
        "x509 -in inter.pem -outform DER -out inter.der",
        "x509 -in leaf.pem -trustout -addtrust serverAuth -out trusted.pem",
        "pkcs12 -export -in leaf.pem -inkey leaf.key -certfile inter.pem -passout pass:secret -out modern.pfx",
        "pkcs12 -export -in leaf.pem -inkey leaf.key -certfile inter.pem -passout pass: -out empty.pfx",
        "pkcs12 -export -legacy -in leaf.pem -inkey leaf.key -certfile inter.pem -passout pass:secret -out rc2.pfx",
        "pkcs12 -export -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES -macalg sha1 -in leaf.pem -inkey leaf.key -certfile inter.pem \
         -passout pass:secret -out des.pfx",
    ] {
        shop.openssl(command);
    }
    let chain = || shop.joined(&["leaf.pem", "inter.pem"]);
    let key = |file: &str| pair(chain(), shop.read(file));
    let archive = |file| vec![("site.pfx", shop.read(file), GivenAs::Either)];
    let der = |key: &str| {
        vec![
            ("a", shop.read("leaf.der"), GivenAs::Chain),
            ("b", shop.read("inter.der"), GivenAs::Chain),
            ("c", shop.read(key), GivenAs::Key),
        ]
    };
    check_accepted(
        vec![
            ("SEC 1", key("sec1.key"), None, &["KeyConverted"]),
            ("SEC 1 with parameters", pair(chain(), shop.joined(&["parameters.pem", "sec1.key"])), None, &["KeyConverted"]),
            ("PBES2", key("pbes2.key"), Some("secret"), &["KeyDecrypted"]),
            ("scrypt", key("scrypt.key"), Some("secret"), &["KeyDecrypted"]),
            ("PBES2 of old", key("des.key"), Some("secret"), &["KeyDecrypted"]),
            ("DER", der("key.der"), None, &["FromDer", "FromDer", "FromDer"]),
            ("DER SEC 1", der("sec1.der"), None, &["FromDer", "FromDer", "FromDer", "KeyConverted"]),
            ("DER PBES2", der("pbes2.der"), Some("secret"), &["FromDer", "FromDer", "FromDer", "KeyDecrypted"]),
            ("trusted", pair(shop.joined(&["trusted.pem", "inter.pem"]), shop.read("leaf.key")), None, &["Relabelled"]),
            ("PFX", archive("modern.pfx"), Some("secret"), &["FromArchive"]),
            ("PFX, empty password", archive("empty.pfx"), None, &["FromArchive"]),
            ("PFX, RC2", archive("rc2.pfx"), Some("secret"), &["FromArchive"]),
            ("PFX, 3DES", archive("des.pfx"), Some("secret"), &["FromArchive"]),
            ("an encrypted key of no use", pair(chain(), shop.joined(&["pbes2.key", "leaf.key"])), None, &[]),
        ],
        &shop,
        &["leaf", "inter"],
        "leaf.key",
    );
}

#[test]
fn every_usual_kind_of_key_and_signer_is_accepted() {
    let rsa = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    let p384 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-384";
    let p521 = "-algorithm EC -pkeyopt ec_paramgen_curve:P-521";
    for (ca, leaf) in [(rsa, rsa), (p384, P256), (p521, p521), (P256, "-algorithm ED25519")] {
        let shop = Workshop::new();
        shop.certify(&Order { name: "root", common_name: "Root", issuer: "root", key: ca, days: 90, extensions: CA });
        shop.certify(&Order { name: "leaf", common_name: "leaf", issuer: "root", key: leaf, days: 90, extensions: LEAF });
        let rows: Vec<Accepted<'_>> =
            vec![("signed by a root", pair(shop.joined(&["leaf.pem", "root.pem"]), shop.read("leaf.key")), None, &["RootRemoved"])];
        check_accepted(rows, &shop, &["leaf"], "leaf.key");
    }
}

#[test]
fn a_pkcs1_key_is_converted() {
    let shop = Workshop::new();
    let key = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
    shop.certify(&Order { name: "leaf", common_name: "leaf", issuer: "leaf", key, days: 90, extensions: LEAF });
    shop.openssl("rsa -in leaf.key -traditional -out pkcs1.key");
    let given = pair(shop.read("leaf.pem"), shop.read("pkcs1.key"));
    check_accepted(vec![("a self-signed leaf", given, None, &["KeyConverted"])], &shop, &["leaf"], "leaf.key");
}

#[test]
fn private_chains_are_told() {
    let shop = Workshop::with_chain();
    let given = pair(shop.joined(&["leaf.pem", "inter.pem"]), shop.read("leaf.key"));
    let supplied = hand_over(&given, None, &SITE, Utc::now()).expect("supplied");
    let notes: Vec<_> = supplied.notes.iter().map(ToString::to_string).collect();
    assert!(matches!(&notes[..], [only] if only.contains("CN=Root-One") && only.contains("no public root")), "{notes:?}");
}
