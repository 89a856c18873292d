//! Mistakes: each is refused with its place, and with what would have been right.

use super::*;

/// A table of mistakes: the file, what is said about it (after the file's name), and the hint.
const MISTAKES: &[(&str, &str, &str)] = &[
    // Not TOML
    ("contact = ops@example.com", ":1:11: string values must be quoted", ""),
    ("contact = \"a@example.com\"\ncontact = \"b@example.com\"", ":2:1: duplicate key", ""),
    // Unknown keys
    ("contcat = \"a@example.com\"", ":1:1: unknown key \"contcat\" at the top level", "did you mean \"contact\"?"),
    ("[[site]]\nname = \"a.example\"\nissuer = [\"local-ca\"]", ":3:1: unknown key \"issuer\" in [[site]]", "did you mean \"issuers\"?"),
    ("[solver.web]\n  knid = \"http-01\"", ":2:3: unknown key \"knid\" in [solver.web]", "did you mean \"kind\"?"),
    (
        "[datastore]\ncontact = \"a@example.com\"",
        ":2:1: unknown key \"contact\" in [datastore]",
        "\"contact\" belongs at the top of the file, before the first [table]",
    ),
    ("[issuer.zerossl]\nkey_type = \"rsa-2048\"", ":2:1: unknown key \"key_type\" in [issuer.zerossl]", "\"key_type\" belongs in [[site]]"),
    ("[agent]\nxyz = 1", ":2:1: unknown key \"xyz\" in [agent]", "valid here: node, role, splay, stale_after"),
    (
        "[issuer.zerossl]\neab = { kid = \"k\", hmac = { env = \"E\" } }",
        ":2:20: unknown key \"hmac\" in [issuer.zerossl] eab",
        "did you mean \"hmac_key\"?",
    ),
    // Unknown words and names
    (
        "[[site]]\nname = \"a.example\"\nissuers = [\"letsencrypt\", \"zerosl\"]",
        ":3:27: [[site]] issuers: there is no issuer \"zerosl\"",
        "did you mean \"zerossl\"?",
    ),
    (
        "[solver.dns]\nkind = \"dns-01\"\npresent = [\"p\"]\n[[site]]\nname = \"a.example\"\nsolver = \"dsn\"",
        ":6:10: [[site]] solver: there is no solver \"dsn\"",
        "did you mean \"dns\"?",
    ),
    (
        "[[site]]\nname = \"a.example\"\nsolver = \"web\"",
        ":3:10: [[site]] solver: there is no solver \"web\"",
        "there is none to choose from",
    ),
    (
        "[[site]]\nname = \"a.example\"\nkey_type = \"ecdsa-p265\"",
        ":3:12: [[site]] key_type: there is no key type \"ecdsa-p265\"",
        "did you mean \"ecdsa-p256\"?",
    ),
    (
        "[solver.web]\nkind = \"http-01\"\nmode = \"web-root\"",
        ":3:8: [solver.web] mode: there is no mode \"web-root\"",
        "did you mean \"webroot\"?",
    ),
    (
        "[[target]]\nkind = \"nginx\"\nsites = [\"b.example\"]\nssl_root = \"/s\"\n[[site]]\nname = \"a.example\"\nmethod = \"manual\"",
        ":3:10: [[target]] sites: there is no site \"b.example\"",
        "did you mean \"a.example\"?",
    ),
    // Challenges
    (
        "[solver.web]\nkind = \"http-01\"\nmode = \"redirect\"\nurl = \"https://bucket.example/fleet/\"",
        ":4:7: [solver.web] url: \"https://bucket.example/fleet/\" cannot be where the datastore's answers are read",
        "write \"https://BUCKET.ENDPOINT/PREFIX/challenges/\": http or https, plain letters, no query, and challenges/ at the end",
    ),
    (
        "[solver.web]\nkind = \"http-01\"\nmode = \"redirect\"",
        ":1:1: [solver.web] url is missing",
        "write url = \"https://bucket.example/prefix/challenges/\", where visitors read the bucket",
    ),
    (
        "[solver.web]\nkind = \"http-01\"\nmode = \"stateless\"\npath = \"/www\"",
        ":4:1: [solver.web] path: does not apply to mode \"stateless\"",
        "keys that do: kind, mode, check",
    ),
    (
        "[solver.web]\nkind = \"http-01\"\ncheck = \"on\"",
        ":3:9: [solver.web] check: \"on\" is no place to look at",
        "write \"system\", \"off\", or the address of the servers as this machine reaches them: \"192.0.2.7:80\"",
    ),
    (
        "[solver.web]\nkind = \"tls-alpn-01\"\nlisten = \"443\"",
        ":3:10: [solver.web] listen: \"443\" is not an address with a port",
        "write \"0.0.0.0:443\" or \"[::]:443\"",
    ),
    (
        "[[site]]\nname = \"a.example\"\nissuers = [\"letsencrypt\", \"zerossl\"]\n[issuer.zerossl]\neab = { kid = \"k\", hmac_key = { env = \"K\" } }\n[solver.web]\nkind = \"http-01\"\nmode = \"stateless\"",
        ":1:1: [[site]] a.example: a stateless answer holds the thumbprint of one account, and the fleet has one at each of letsencrypt, zerossl",
        "keep one ACME issuer, or answer in another way: mode = \"redirect\" serves any number",
    ),
    (
        "[[site]]\nname = \"a.example\"\nidentifiers = [\"*.a.example\"]\n[solver.web]\nkind = \"tls-alpn-01\"",
        ":1:1: [[site]] a.example: *.a.example cannot be proven by a solver of kind tls-alpn-01",
        "name a solver of kind dns-01, or take it out of the identifiers",
    ),
    // Later releases
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"acme.sh:dns_cf\"",
        ":1:1: [solver.dns] acme_sh is missing",
        "write acme_sh = \"/path/to/acme.sh\", with dnsapi/ beside it",
    ),
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"acme.sh:../dns_cf\"\nacme_sh = \"acme.sh\"",
        ":3:12: [solver.dns] provider: \"../dns_cf\" is not a script of acme.sh's dnsapi",
        "write it as acme.sh does: \"acme.sh:dns_cf\"",
    ),
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"digitalocean\"\ncleanup = [\"prog\"]",
        ":4:1: [solver.dns] cleanup: does not apply to a DNS provider that is built in",
        "keys that do: kind, provider, credentials, settings, alias, resolver, propagation_timeout",
    ),
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"digitalocean\"\nresolver = \"ns.example\"",
        ":4:12: [solver.dns] resolver: \"ns.example\" is not an address",
        "write \"192.0.2.53\" or \"192.0.2.53:5353\"",
    ),
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"digitalocean\"\nsettings = { PATH = \"/tmp\" }",
        ":4:21: [solver.dns] settings.PATH: \"PATH\" cannot be the name of a credential",
        "it becomes an environment variable of the program: letters, digits and _, and none of our own",
    ),
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"digitalocean\"\npropagation_timeout = \"2h\"",
        ":4:23: [solver.dns] propagation_timeout: \"2h\" is out of range",
        "anything from 1 second to 60 minutes",
    ),
    (
        "[datastore]\nelection = \"best-efort\"",
        ":2:12: [datastore] election: there is no election \"best-efort\"",
        "did you mean \"best-effort\"?",
    ),
    (
        "[[site]]\nname = \"a.example\"\nprofile_fallback = true",
        ":3:20: [[site]] profile_fallback: there is no profile to fall back from",
        "add profile = \"tlsserver\", or remove it",
    ),
    (
        "[issuer.x]\nkind = \"acme\"\ndirectory = \"https://ca.example/d\"\nweekly_limit = 0",
        ":4:16: [issuer.x] weekly_limit: 0 is out of range",
        "write a number from 1 to 10000",
    ),
    // Types
    (
        "[site]\nname = \"a.example\"",
        ":1:1: site must be a list of tables, not a table",
        "write [[site]] with double brackets: there can be several",
    ),
    (
        "[[site]]\nname = \"a.example\"\nidentifiers = \"a.example\"",
        ":3:15: [[site]] identifiers must be a list, not a string",
        "write identifiers = [\"…\"]",
    ),
    (
        "[[site]]\nname = \"a.example\"\nrenew_before = 604800",
        ":3:16: [[site]] renew_before must be a duration, not a number",
        "write a number and a unit: \"7d\", \"36h\", \"90m\" or \"604800s\"",
    ),
    (
        "[datastore]\nurl = \"s3://bucket\"\npath_style = \"yes\"",
        ":3:14: [datastore] path_style must be true or false, not a string",
        "write path_style = true, without quotes",
    ),
    ("cloudhost = 7", ":1:13: cloudhost must be a string, not a number", "put it in quotes: cloudhost = \"…\""),
    ("issuer = 1", ":1:10: issuer must be a table of names, not a number", "write [issuer.NAME] and its keys below it"),
    (
        "[solver.dns]\nkind = \"dns-01\"\npresent = \"prog arg\"",
        ":3:11: [solver.dns] present must be a program and its arguments, not a string",
        "write [\"prog\", \"arg\"]; no shell is involved",
    ),
    // Durations
    (
        "[[site]]\nname = \"a.example\"\nrenew_before = \"7 dayz\"",
        ":3:16: [[site]] renew_before: \"7 dayz\" is not a duration",
        "write a number and a unit: \"7d\", \"36h\", \"90m\" or \"604800s\"",
    ),
    (
        "[[site]]\nname = \"a.example\"\nrenew_before = \"0s\"",
        ":3:16: [[site]] renew_before: \"0s\" is out of range",
        "anything from 1 second to 398 days",
    ),
    ("[[site]]\nname = \"a.example\"\nrenew_before = \"9y\"", ":3:16: [[site]] renew_before: \"9y\" is out of range", ""),
    (
        "[issuer.local-ca]\nlifetime = \"11y\"",
        ":2:12: [issuer.local-ca] lifetime: \"11y\" is out of range",
        "anything from 1 second to 3650 days",
    ),
    (
        "[[site]]\nname = \"a.example\"\nmust_staple = true",
        ":3:15: [[site]] must_staple: certificates that must be served with an OCSP answer are not ordered: CAs have given up OCSP, and refuse them",
        "remove must_staple; short-lived certificates (profile = \"shortlived\") serve the same purpose",
    ),
    (
        "[solver.dns]\nkind = \"dns-persist-01\"",
        ":2:8: [solver.dns] kind: dns-persist-01 is still a draft, whose records CAs have not agreed upon: it is not supported",
        "use dns-01",
    ),
    ("[agent]\nsplay = \"\"", ":2:9: [agent] splay: \"\" is not a duration", ""),
    // Missing
    ("[[site]]\nmethod = \"manual\"", ":1:1: [[site]] name is missing", "write name = \"www.example.com\""),
    ("[issuer.corp]\ndirectory = \"https://ca.example\"", ":1:1: [issuer.corp] kind is missing", "write kind = \"acme\""),
    ("[issuer.corp]\nkind = \"acme\"", ":1:1: [issuer.corp] directory is missing", ""),
    (
        "[solver.dns]\nkind = \"dns-01\"",
        ":1:1: [solver.dns] provider is missing",
        "write provider = \"NAME\" or \"script:NAME\", or present = [\"prog\", \"arg\"]",
    ),
    ("[solver.web]\nkind = \"http-01\"\nmode = \"webroot\"", ":1:1: [solver.web] path is missing", ""),
    (
        "[datastore]\nurl = \"s3://bucket\"\naccess_key = { env = \"A\" }",
        ":1:1: [datastore] secret_key is missing",
        "write secret_key = { env = \"NAME\" } beside access_key",
    ),
    // Secrets
    (
        "[datastore]\nurl = \"s3://bucket\"\naccess_key = { env = \"A\" }\nsecret_key = \"hunter2\"",
        ":4:14: [datastore] secret_key is written in plain text; secrets are never kept in the configuration",
        "write { env = \"NAME\" }, { file = \"PATH\" } or { command = [\"prog\", \"arg\"] }, and change a secret that others may have read",
    ),
    (
        "[datastore]\nidentity = { env = \"A\", file = \"b\" }",
        ":2:12: [datastore] identity: exactly one of env, file and command says where a secret is",
        "keep one of them",
    ),
    (
        "[datastore]\nidentity = { environment = \"A\" }",
        ":2:14: unknown key \"environment\" in [datastore] identity",
        "did you mean \"env\"?",
    ),
    ("[datastore]\nidentity = 7", ":2:12: [datastore] identity must be a table, not a number", ""),
    (
        "[solver.dns]\nkind = \"dns-01\"\nprovider = \"script:x\"\ncredentials = { PATH = { env = \"A\" } }",
        ":4:24: [solver.dns] credentials.PATH: \"PATH\" cannot be the name of a credential",
        "it becomes an environment variable of the program: letters, digits and _, and none of our own",
    ),
    // Keys that exclude each other
    (
        "[solver.web]\nkind = \"http-01\"\nmode = \"standalone\"\npath = \"/srv\"",
        ":4:1: [solver.web] path: does not apply to mode \"standalone\"",
        "keys that do: kind, mode, check, listen",
    ),
    (
        "[datastore]\nurl = \"file:store\"\nregion = \"fra1\"",
        ":3:1: [datastore] region: does not apply to a directory",
        "keys that do: url, seal, identity, election",
    ),
    ("[datastore]\nendpoint = \"https://s3.example\"", ":2:1: [datastore] endpoint: does not apply to a directory (there is no url)", ""),
    (
        "[issuer.letsencrypt]\nlifetime = \"90d\"",
        ":2:1: [issuer.letsencrypt] lifetime: does not apply to an ACME issuer; its CA decides",
        "",
    ),
    (
        "[datastore]\nurl = \"s3://bucket\"\nkms_key_id = \"k\"",
        ":3:14: [datastore] kms_key_id: does not apply without KMS",
        "write server_side_encryption = \"aws:kms\" as well",
    ),
    (
        "[issuer.local-ca]\nkind = \"acme\"",
        ":2:8: [issuer.local-ca] kind: a built-in issuer keeps its kind",
        "choose another name for your own",
    ),
    (
        "[solver.x]\nkind = \"dns-01\"\nprovider = \"script:x\"\npresent = [\"p\"]",
        ":3:12: [solver.x] provider: provider and present exclude each other",
        "keep one of them",
    ),
    // Values
    (
        "[datastore]\nurl = \"https://bucket.s3.example\"",
        ":2:7: [datastore] url: \"https://bucket.s3.example\" is neither s3://BUCKET/PREFIX nor file:DIRECTORY",
        "write \"s3://bucket/prefix\", \"file:some/directory\" or \"file:///some/directory\"",
    ),
    (
        "[datastore]\nurl = \"s3://bucket/a/../b\"",
        ":2:7: [datastore] url: \"s3://bucket/a/../b\" has an empty or special segment in its prefix",
        "",
    ),
    (
        "[datastore]\nurl = \"s3://a?b\"",
        ":2:7: [datastore] url: \"s3://a?b\" names no bucket: 3 to 63 letters, digits, hyphens or dots",
        "",
    ),
    (
        "[datastore]\nurl = \"file://host/dir\"",
        ":2:7: [datastore] url: \"file://host/dir\" names a host; a directory has three slashes or none",
        "",
    ),
    ("[datastore]\nurl = \"file:\"", ":2:7: [datastore] url: \"file:\" names no directory", ""),
    (
        "[datastore]\nurl = \"s3://bucket\"\nendpoint = \"fra1.digitaloceanspaces.com\"",
        ":3:12: [datastore] endpoint: \"fra1.digitaloceanspaces.com\" is not the URL of a server",
        "write scheme and host, and nothing after them: \"https://s3.example.com\"",
    ),
    (
        "[datastore]\nurl = \"s3://bucket\"\nproxy = \"http://user:hunter2@proxy\"",
        ":3:9: [datastore] proxy: it holds a user name or password",
        "only scheme, host and port: \"https://host:port\"",
    ),
    ("contact = \"ops\"", ":1:11: contact: \"ops\" is not a mail address", "write one address: \"ops@example.com\""),
    (
        "cloudhost = \"a/b\"",
        ":1:13: cloudhost: \"a/b\" cannot be used",
        "it becomes the name of a directory: no slashes, and neither . nor ..",
    ),
    ("build_identifier = \"..\"", ":1:20: build_identifier: \"..\" cannot be used", ""),
    ("contact = \" \"", ":1:11: contact: it is empty", "give it a value, or leave the key out"),
    ("runtimedata = \"~/x\"", ":1:15: runtimedata: it begins with ~/, but HOME is not set", "write the whole path"),
    ("runtimedata = \"~bob/x\"", ":1:15: runtimedata: of the paths with ~ only ~/ is understood", "write the whole path"),
    (
        "[issuer.corp]\nkind = \"acme\"\ndirectory = \"http://ca.example/dir\"",
        ":3:13: [issuer.corp] directory: it is not an https:// URL",
        "",
    ),
    (
        "[issuer.manual]\nkind = \"acme\"",
        ":1:1: issuer.manual: this name means certificates that people supply",
        "write method = \"manual\" in the [[site]]",
    ),
    ("[issuer.\"../x\"]\nkind = \"acme\"", ":1:1: issuer.../x: \"../x\" cannot be a name", "names are made of letters, digits, - and _"),
    (
        "[solver.web]\nkind = \"http-01\"\nlisten = \"80\"",
        ":3:10: [solver.web] listen: \"80\" is not an address with a port",
        "write \"0.0.0.0:80\" or \"[::]:80\"",
    ),
    (
        "[solver.d]\nkind = \"dns-01\"\nprovider = \"script:../x\"",
        ":3:12: [solver.d] provider: \"../x\" cannot be the name of a script",
        "",
    ),
    ("[agent]\nnode = \"a/b\"", ":2:8: [agent] node: \"a/b\" cannot be the name of a node", ""),
    ("[[target]]\nkind = \"nginx\"", ":1:1: [[target]] ssl_root is missing", ""),
    (
        "[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\nkey_mode = \"0644\"",
        ":4:12: [[target]] key_mode: with \"0644\" everybody could use the private keys",
        "write \"0600\", or \"0640\" for a group that may read keys",
    ),
    (
        "[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\nverify = \"localhost\"",
        ":4:10: [[target]] verify: \"localhost\" is not a host and a port",
        "",
    ),
    (
        "[[target]]\nkind = \"files\"\nssl_root = \"/s\"\nprovider = \"p\"",
        ":4:1: [[target]] provider: does not apply to any kind but \"script\"",
        "keys that do: kind, sites, ssl_root, owner, key_mode, verify, test, reload, deadline",
    ),
    (
        "[[target]]\nkind = \"script\"\nssl_root = \"/s\"\nprovider = \"p\"\nreload = [\"r\"]",
        ":5:1: [[target]] reload: does not apply to kind \"script\"",
        "",
    ),
    (
        "[[target]]\nkind = \"script\"\nssl_root = \"/s\"",
        ":1:1: [[target]] provider is missing",
        "write provider = \"NAME\", for providerscripts/deploy/NAME",
    ),
    (
        "[[target]]\nkind = \"script\"\nssl_root = \"/s\"\nprovider = \"../p\"",
        ":4:12: [[target]] provider: \"../p\" cannot be the name of a script",
        "",
    ),
    (
        "[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\nreload = \"nginx -s reload\"",
        ":4:10: [[target]] reload must be a program and its arguments, not a string",
        "write [\"prog\", \"arg\"]; no shell is involved",
    ),
    (
        "[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\ndeadline = \"1h\"",
        ":4:12: [[target]] deadline: \"1h\" is out of range",
        "anything from 1 second to 10 minutes",
    ),
    (
        "[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\n[[target]]\nkind = \"haproxy\"\nssl_root = \"/s\"\nkey_mode = \"0640\"",
        ":4:1: [[target]] ssl_root: /s is that of the [[target]] at certfleet.toml:1:1 too, with another owner or key_mode",
        "give both the same owner and key_mode, or another ssl_root",
    ),
    ("[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\nowner = \"a:b:c\"", ":4:9: [[target]] owner: \"a:b:c\" is not an owner", ""),
    // Sites
    (
        "[[site]]\nname = \"https://www.example.com/\"",
        ":2:8: [[site]] name: \"https://www.example.com/\" is not a DNS name or an IP address: labels hold letters, digits and inner hyphens, 63 characters at most",
        "a host name (www.example.com), a wildcard (*.example.com) or an IP address; no scheme, port or path",
    ),
    (
        "[[site]]\nname = \"a.example\"\nidentifiers = [\"a.example\", \"b_c.example\"]",
        ":3:29: [[site]] identifiers: \"b_c.example\" is not a DNS name",
        "",
    ),
    (
        "[[site]]\nname = \"a.example\"\nidentifiers = []",
        ":3:15: [[site]] identifiers: the list is empty",
        "list at least one, or leave the key out",
    ),
    (
        "[[site]]\nname = \"a.example\"\nmethod = \"manual\"\n[[site]]\nname = \"A.example.\"\nmethod = \"manual\"",
        ":5:8: [[site]] name: there are two sites \"a.example\"",
        "list all names of a site under its identifiers",
    ),
    (
        "[[site]]\nname = \"a.example\"",
        ":1:1: [[site]] a.example: the issuer \"letsencrypt\" needs a solver, and none is named",
        "add [solver.web] with kind = \"http-01\", and solver = \"web\" here; or issuers = [\"local-ca\"] to begin without a CA",
    ),
    (
        "[[site]]\nname = \"a.example\"\nissuers = [\"zerossl\"]",
        ":1:1: [[site]] a.example: the issuer \"zerossl\" needs an external account binding",
        "add [issuer.zerossl] with eab = { kid = \"…\", hmac_key = { env = \"NAME\" } }; you get both from https://app.zerossl.com/developer",
    ),
    (
        "[solver.w]\nkind = \"http-01\"\n[[site]]\nname = \"*.a.example\"",
        ":3:1: [[site]] *.a.example: *.a.example cannot be proven by a solver of kind http-01",
        "name a solver of kind dns-01, or take it out of the identifiers",
    ),
    (
        "[solver.d]\nkind = \"dns-01\"\npresent = [\"p\"]\n[[site]]\nname = \"192.0.2.1\"",
        ":4:1: [[site]] 192.0.2.1: 192.0.2.1 cannot be proven by a solver of kind dns-01",
        "name a solver of kind http-01 or tls-alpn-01, or take it out of the identifiers",
    ),
    (
        "[solver.w]\nkind = \"http-01\"\n[[site]]\nname = \"a.example\"\nissuers = [\"letsencrypt\", \"letsencrypt-staging\"]",
        ":4:8: [[site]] name: its issuers mix test certificates (\"letsencrypt-staging\") and live ones (\"letsencrypt\")",
        "keep one sort; `certfleet ensure --staging` tries a live site with test certificates",
    ),
    (
        "[[site]]\nname = \"a.example\"\nissuers = [\"local-ca\", \"local-ca\"]",
        ":3:24: [[site]] issuers: \"local-ca\" is listed twice",
        "issuers are tried in order, each once",
    ),
];

#[test]
fn mistakes_are_named_with_their_place_and_what_would_be_right() {
    let mut wrong = Vec::new();
    for (toml, said, hint) in MISTAKES {
        let Err(error) = Place::with(toml).load() else {
            panic!(
                "accepted:
{toml}"
            )
        };
        // Where the table has no hint it asks for some hint, and for the beginning of the text.
        let (text, expected) = (error.to_string(), format!("certfleet.toml{said}"));
        let right = match *hint {
            "" => text.starts_with(&expected) && !error.hint().is_empty(),
            hint => text == expected && error.hint() == hint,
        };
        if !right {
            wrong.push(format!(
                "{toml}
  said: {text}
wanted: {expected}
  hint: {}
wanted: {hint}
",
                error.hint()
            ));
        }
        assert!(!format!("{text}{}{error:?}", error.hint()).contains("hunter2"), "a secret was repeated: {text}");
    }
    assert!(
        wrong.is_empty(),
        "{}",
        wrong.join(
            "
"
        )
    );
}

#[test]
fn lines_and_columns_are_counted_in_characters() {
    let error = Place::with("# größer\r\ncloudhost = \"ü\" # ü\r\n  contcat = 1").load().expect_err("refused");
    assert_eq!(error.to_string(), "certfleet.toml:3:3: unknown key \"contcat\" at the top level");
}

#[test]
fn mistakes_in_variables_name_the_variable() {
    for (name, value, said) in [
        ("CERTFLEET_CLOUDHOST", "a/b", "environment variable CERTFLEET_CLOUDHOST: cloudhost: \"a/b\" cannot be used"),
        ("CERTFLEET_CONTACT", "ops", "environment variable CERTFLEET_CONTACT: contact: \"ops\" is not a mail address"),
        ("CERTFLEET_NODE", "a/b", "environment variable CERTFLEET_NODE: [agent] node: \"a/b\" cannot be the name of a node"),
        ("CERTFLEET_RUNTIMEDATA", "~/x", "environment variable CERTFLEET_RUNTIMEDATA: runtimedata: it begins with ~/, but HOME is not set"),
        (
            "CERTFLEET_DATASTORE",
            "store",
            "environment variable CERTFLEET_DATASTORE: datastore: \"store\" is neither s3://BUCKET/PREFIX nor file:DIRECTORY",
        ),
    ] {
        let error = Place::empty().set(name, value).load().expect_err("refused");
        assert_eq!(error.to_string(), said);
    }
}
