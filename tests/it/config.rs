//! The configuration: what is read from where, and what is said about mistakes. Files, modes and commands are real.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use certfleet::config::{
    self, Addressing, CommandSetting, ConfigError, DnsProvider, Election, Http01Settings, HttpAnswer, HttpCheck, IdentitySource,
    IssuerSettings, Location, Origin, Program, Role, Seal, Secret, ServerSideEncryption, Settings, SolverSettings, Sources, TargetKind,
    Wanted,
};
use certfleet::domain::key_type::KeyType;
use certfleet::domain::site::{Lineage, Method, Site};

mod mistakes;
mod secrets;
mod toolkit;

/// A directory to run in, with an environment.
struct Place {
    dir: tempfile::TempDir,
    environment: BTreeMap<&'static str, String>,
}

impl Place {
    fn empty() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory"), environment: BTreeMap::new() }
    }

    fn with(toml: &str) -> Self {
        let place = Self::empty();
        place.write("certfleet.toml", toml);
        place
    }

    fn set(mut self, name: &'static str, value: &str) -> Self {
        self.environment.insert(name, value.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, text).expect("written");
        path
    }

    fn look_up(&self, name: &str) -> Option<String> {
        self.environment.get(name).cloned()
    }

    fn load_from(&self, config: Option<&Path>) -> Result<Settings, ConfigError> {
        let environment = |name: &str| self.look_up(name);
        config::load(Sources { config, environment: &environment, current_dir: self.dir.path(), host_name: "build-1" })
    }

    fn load(&self) -> Result<Settings, ConfigError> {
        self.load_from(None)
    }

    #[track_caller]
    fn settings(&self) -> Settings {
        self.load().unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint()))
    }
}

fn names(sites: &[Site]) -> Vec<String> {
    sites.iter().map(|site| site.name.to_string()).collect()
}

fn select(settings: &Settings, names: &[&str]) -> Result<Vec<Site>, ConfigError> {
    settings.select(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
}

#[test]
fn no_file_at_all_is_enough() {
    let place = Place::empty();
    let settings = place.settings();
    let runtimedata = place.path("runtimedata");
    assert_eq!(settings.origin, Origin::Defaults);
    assert_eq!(settings.datastore.location, Location::Directory(runtimedata.join("datastore")));
    assert_eq!(settings.datastore.seal, Seal::Age);
    assert_eq!(settings.datastore.identity, IdentitySource::File(runtimedata.join("identity.age")));
    assert_eq!(settings.ssl_dir(), runtimedata.join("local/default/ssl"));
    assert_eq!(settings.local_ca_dir(), runtimedata.join("local-ca"));
    assert_eq!(settings.agent.node, "build-1");
    let sites = select(&settings, &["WWW.example.test", "www.example.test", "other.example.test+staging"]).expect("sites");
    assert_eq!(names(&sites), ["www.example.test", "other.example.test+staging"]);
    assert_eq!((sites[0].issuers.as_slice(), sites[0].method), (["local-ca".to_owned()].as_slice(), Method::Automatic));
    assert_eq!(sites[0].renew_before, Duration::from_secs(604_800));
}

#[test]
fn the_example_of_the_design_is_understood() {
    let place = Place::with(include_str!("config/example.toml")).set("HOME", "/home/ops");
    let settings = place.settings();
    assert_eq!(settings.contact.as_deref(), Some("ops@example.com"));
    assert_eq!(settings.ssl_dir(), place.path("runtimedata/digitalocean/prod/ssl"));
    let Location::S3(s3) = &settings.datastore.location else { panic!("{:?}", settings.datastore.location) };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("example-certs", "fleet-a"));
    assert_eq!(s3.endpoint.as_deref(), Some("https://fra1.digitaloceanspaces.com"));
    assert_eq!((s3.region.as_deref(), s3.addressing), (Some("fra1"), Addressing::VirtualHost));
    assert_eq!(s3.encryption, ServerSideEncryption::None);
    assert!(s3.credentials.is_none());
    let site = &settings.sites[0];
    assert_eq!(site.identifiers.iter().map(ToString::to_string).collect::<Vec<_>>(), ["www.example.com", "example.com"]);
    assert_eq!(site.issuers, ["letsencrypt", "zerossl", "corp"]);
    assert_eq!((site.key_type, site.profile_name()), (KeyType::EcdsaP256, Some("tlsserver")));
    let IssuerSettings::Acme(corp) = &settings.issuers["corp"] else { panic!("corp is no ACME issuer") };
    assert_eq!(corp.directory, "https://ca.corp.example/acme/directory");
    assert_eq!(corp.trust, Some(place.path("corp-root.pem")));
    assert_eq!(corp.contact.as_deref(), Some("ops@example.com"));
    assert_eq!(corp.eab.as_ref().expect("bound").kid, "k-1");
    let SolverSettings::Dns01Program(Program::Script { name, credentials }) = &settings.solvers["dns"] else { panic!("no script") };
    assert_eq!((name.as_str(), credentials.len()), ("digitalocean", 1));
    let answer = HttpAnswer::Webroot { path: PathBuf::from("/home/ops/www") };
    assert_eq!(settings.solvers["web"], SolverSettings::Http01(Http01Settings { answer, check: HttpCheck::System }));
    let target = &settings.targets[0];
    assert_eq!((target.kind, &target.sites, target.key_mode), (TargetKind::Nginx, &Wanted::All, 0o640));
    assert_eq!((target.ssl_root.as_path(), target.verify.as_deref()), (Path::new("/home/ops/ssl"), Some("127.0.0.1:443")));
    assert_eq!((settings.agent.node.as_str(), settings.agent.role), ("ws-1", Role::Renewer));
    assert_eq!((settings.agent.splay, settings.agent.stale_after), (Duration::from_secs(300), Duration::from_secs(129_600)));
}

#[test]
fn a_server_is_told_by_the_packages_programs_or_by_others() {
    let packaged = "[[target]]\nkind = \"nginx\"\nssl_root = \"/s\"\n";
    let others = "[[target]]\nkind = \"files\"\nssl_root = \"/s\"\ntest = []\nreload = [\"bin/tell\", \"\", \"now\"]\ndeadline = \"2m\"\n";
    let script = "[[target]]\nkind = \"script\"\nssl_root = \"/t\"\nprovider = \"box\"\ncredentials = { TOKEN = { env = \"T\" } }\nkey_mode = \"0640\"";
    let place = Place::with(&format!("{packaged}{others}{script}"));
    let targets = place.settings().targets;
    let told = |index: usize| (targets[index].test.clone(), targets[index].reload.clone(), targets[index].deadline.as_secs());
    let tell = [place.path("bin/tell").to_string_lossy().into_owned(), String::new(), "now".to_owned()];
    assert_eq!(told(0), (CommandSetting::Packaged, CommandSetting::Packaged, 30));
    assert_eq!(told(1), (CommandSetting::Nothing, CommandSetting::Program(tell.to_vec()), 120));
    let script = targets[2].script.as_ref().expect("a script");
    assert_eq!((script.name.as_str(), script.credentials.len(), &targets[1].script), ("box", 1, &None));
}

#[test]
fn the_first_file_in_the_order_is_used() {
    let place = Place::with("cloudhost = \"here\"").set("CERTFLEET_CONFIG", "named/by-variable.toml");
    place.write("named/by-variable.toml", "cloudhost = \"variable\"");
    let flag = place.write("flag/other.toml", "cloudhost = \"flag\"");
    assert_eq!(place.load_from(Some(&flag)).expect("settings").cloudhost, "flag");
    assert_eq!(place.settings().cloudhost, "variable");
    assert_eq!(place.settings().runtimedata, place.path("named/runtimedata"));
    let here = Place::with("cloudhost = \"here\"").settings();
    assert_eq!(here.cloudhost, "here");
    assert_eq!(here.origin, Origin::File(PathBuf::from("certfleet.toml")));
}

#[test]
fn a_file_that_was_named_must_be_there() {
    for place in [Place::empty(), Place::with("")] {
        let error = place.load_from(Some(Path::new("missing.toml"))).expect_err("refused");
        assert_eq!(error.to_string(), "cannot read the configuration missing.toml");
        assert_eq!(error.hint(), "`certfleet --config missing.toml init` writes a commented one");
    }
    let error = Place::with("").set("CERTFLEET_CONFIG", "missing.toml").load().expect_err("refused");
    assert!(matches!(error, ConfigError::Unreadable { .. }));
    let directory = Place::empty();
    fs::create_dir(directory.path("certfleet.toml")).expect("made");
    let error = directory.load().expect_err("refused");
    assert!(error.source().is_some() && matches!(error, ConfigError::Unreadable { .. }));
}

#[test]
fn variables_win_over_the_file() {
    let toml = "contact = \"a@example.com\"\ncloudhost = \"a\"\nbuild_identifier = \"a\"\nruntimedata = \"a\"\n[datastore]\nurl = \"file:a\"\n[agent]\nnode = \"a\"";
    let file = Place::with(toml).settings();
    assert_eq!((file.cloudhost.as_str(), file.agent.node.as_str()), ("a", "a"));
    let mut place = Place::with(toml);
    let value = |name: &str| {
        if name == "CERTFLEET_CONTACT" {
            "b@example.com"
        } else if name == "CERTFLEET_DATASTORE" {
            "file:b"
        } else {
            "b"
        }
    };
    for (name, _) in config::variables() {
        place = place.set(name, value(name));
    }
    let settings = place.settings();
    assert_eq!(settings.contact.as_deref(), Some("b@example.com"));
    assert_eq!(settings.ssl_dir(), place.path("b/b/b/ssl"));
    assert_eq!(settings.datastore.location, Location::Directory(place.path("b")));
    assert_eq!(settings.agent.node, "b");
    let empty = Place::with(toml).set("CERTFLEET_CLOUDHOST", "").settings();
    assert_eq!(empty.cloudhost, "a");
}

#[test]
fn datastores_are_understood_in_every_spelling() {
    let place = Place::empty().set("HOME", "/home/ops");
    for (url, directory) in [
        ("file:store", place.path("store")),
        ("file:./store/", place.path("store")),
        ("file:/srv/store", PathBuf::from("/srv/store")),
        ("file:///srv/store", PathBuf::from("/srv/store")),
        ("file:~/store", PathBuf::from("/home/ops/store")),
    ] {
        place.write("certfleet.toml", &format!("[datastore]\nurl = {url:?}\nseal = \"none\"\nelection = \"sole\""));
        let settings = place.settings();
        assert_eq!(settings.datastore.location, Location::Directory(directory), "{url}");
        assert_eq!((settings.datastore.seal, settings.datastore.election), (Seal::None, Election::Sole));
    }
    let toml = r#"
        [datastore]
        url = "s3://Bucket_1/"
        endpoint = "http://127.0.0.1:9000/"
        path_style = true
        server_side_encryption = "aws:kms"
        kms_key_id = "alias/certs"
        access_key = { env = "A" }
        secret_key = { file = "secret" }
        ca_file = "ca.pem"
        proxy = "http://proxy.example:3128"
        identity = { env = "IDENTITY" }
    "#;
    let place = Place::with(toml).set("A", "access").set("IDENTITY", "AGE-SECRET-KEY-1");
    place.write("secret", "topsecret\r\n");
    let settings = place.settings();
    let Location::S3(s3) = &settings.datastore.location else { panic!("no bucket") };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str(), s3.addressing), ("Bucket_1", "", Addressing::Path));
    assert_eq!(s3.endpoint.as_deref(), Some("http://127.0.0.1:9000"));
    assert_eq!(s3.encryption, ServerSideEncryption::Kms { key_id: Some("alias/certs".to_owned()) });
    assert_eq!(s3.ca_file, Some(place.path("ca.pem")));
    let environment = |name: &str| place.look_up(name);
    let credentials = s3.credentials.as_ref().expect("credentials");
    assert_eq!(credentials.access_key.resolve(&environment).expect("a secret").as_str(), "access");
    assert_eq!(credentials.secret_key.resolve(&environment).expect("a secret").as_str(), "topsecret");
    let IdentitySource::Secret(identity) = &settings.datastore.identity else { panic!("no secret") };
    assert_eq!(identity.resolve(&environment).expect("a secret").as_str(), "AGE-SECRET-KEY-1");
    let shown = format!("{settings:?}");
    assert!(!shown.contains("topsecret") && !shown.contains("AGE-SECRET"), "{shown}");
}

#[test]
fn sites_are_selected_by_name() {
    let toml = "[[site]]\nname = \"www.example.com\"\nmethod = \"manual\"\n[[site]]\nname = \"*.example.org\"\nissuers = [\"local-ca\"]";
    let settings = Place::with(toml).settings();
    assert_eq!(names(&select(&settings, &[]).expect("sites")), ["www.example.com", "*.example.org"]);
    assert_eq!(names(&select(&settings, &["*.example.org", "www.example.com."]).expect("sites")), ["*.example.org", "www.example.com"]);
    assert_eq!(names(&select(&settings, &["www.example.com+staging"]).expect("sites")), ["www.example.com+staging"]);
    let error = select(&settings, &["ww.example.com"]).expect_err("refused");
    assert_eq!(error.to_string(), "command line: SITE: there is no site \"ww.example.com\"");
    assert_eq!(error.hint(), "did you mean \"www.example.com\"?");
    let error = select(&settings, &["../etc"]).expect_err("refused");
    assert!(error.to_string().starts_with("command line: SITE: \"../etc\" is not a DNS name"), "{error}");
    let error = select(&Place::with("").settings(), &["www.example.com"]).expect_err("refused");
    assert_eq!(error.to_string(), "no site is configured");
    assert_eq!(error.hint(), "add [[site]] with name = \"www.example.com\" to certfleet.toml");
    let error = select(&Place::empty().settings(), &[]).expect_err("refused");
    assert_eq!(error.hint(), "name one (`certfleet ensure www.example.com`), or write a certfleet.toml (`certfleet init`)");
}

const SOLVER: &str = "[solver.web]\nkind = \"http-01\"\n";

#[test]
fn staging_and_live_never_share_a_lineage() {
    let tested = "[issuer.test]\nkind = \"acme\"\ndirectory = \"https://ca.example/d\"\nstaging = true\n";
    for (issuers, live, staging) in [
        (r#"["letsencrypt"]"#, "a.example.com", Ok(vec!["letsencrypt-staging"])),
        (r#"["letsencrypt", "self-signed"]"#, "a.example.com", Ok(vec!["letsencrypt-staging", "self-signed"])),
        (r#"["local-ca"]"#, "a.example.com", Ok(vec!["local-ca"])),
        (r#"["letsencrypt-staging"]"#, "a.example.com+staging", Ok(vec!["letsencrypt-staging"])),
        (r#"["test", "local-ca"]"#, "a.example.com+staging", Ok(vec!["test", "local-ca"])),
        (r#"["corp"]"#, "a.example.com", Err("a.example.com cannot be staged: the issuer \"corp\" has no staging counterpart")),
        (r#"["beta"]"#, "a.example.com", Ok(vec!["beta-staging"])),
    ] {
        let own = "[issuer.corp]\nkind = \"acme\"\ndirectory = \"https://ca.example/d\"\n[issuer.beta]\nkind = \"acme\"\ndirectory = \"https://ca.example/d\"\n[issuer.beta-staging]\nkind = \"acme\"\ndirectory = \"https://ca.example/t\"\nstaging = true\n";
        let settings = Place::with(&format!("{SOLVER}{tested}{own}[[site]]\nname = \"a.example.com\"\nissuers = {issuers}")).settings();
        let site = &settings.sites[0];
        assert_eq!(site.name.to_string(), live, "{issuers}");
        let staged = settings.staging(site);
        match (staged, staging) {
            (Ok(staged), Ok(expected)) => {
                assert_eq!((staged.issuers, staged.name.lineage()), (expected.iter().map(ToString::to_string).collect(), Lineage::Staging));
                assert_eq!((staged.identifiers, staged.solver), (site.identifiers.clone(), site.solver.clone()));
            }
            (Err(error), Err(expected)) => assert_eq!(error.to_string(), expected),
            (staged, _) => panic!("{issuers}: {staged:?}"),
        }
    }
}

#[test]
fn the_starter_works_as_it_is_and_switched_on() {
    let settings = Place::with(config::starter()).settings();
    assert_eq!(names(&settings.sites), ["www.example.test"]);
    let on: String = config::starter()
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned() + "\n")
        .collect();
    let settings = Place::with(&on).settings();
    assert_eq!(names(&settings.sites), ["www.example.test", "www.example.com"]);
    assert_eq!(settings.solvers.keys().collect::<Vec<_>>(), ["bucket", "dns", "every-server", "files", "hooks", "tls", "web"]);
    let bucket: String = on
        .lines()
        .filter(|line| !line.starts_with("url = \"file"))
        .map(|line| line.strip_prefix("#   ").unwrap_or(line).to_owned() + "\n")
        .collect();
    let settings = Place::with(&bucket).settings();
    assert!(matches!(settings.datastore.location, Location::S3(s3) if s3.credentials.is_some() && s3.proxy.is_some()));
}

#[test]
fn every_key_is_explained() {
    let manual = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).expect("the manual");
    let row = |key: &str| format!("| `{key}` |");
    for (table, keys) in config::keys() {
        let heading = match table {
            "" => "## Top level".to_owned(),
            "eab" => "The keys of `eab`".to_owned(),
            "a secret" => "## Secrets".to_owned(),
            table => format!("## `{table}`"),
        };
        let (_, section) = manual.split_once(&format!("\n{heading}")).unwrap_or_else(|| panic!("no section {heading}"));
        let section = section.split("\n## ").next().expect("a section");
        for key in keys {
            assert!(section.contains(&row(key)), "{key} is not explained under {heading}");
            let later = matches!(table, "[[target]]" | "[agent]") || matches!(*key, "target" | "agent");
            assert!(later || config::starter().contains(key), "{key} of {table:?} is not in the starter");
        }
    }
    for (variable, _) in config::variables() {
        assert!(manual.contains(&row(variable)), "{variable} is not explained");
    }
}

/// The rest of the table that a key needs in order to be looked at.
fn surroundings(table: &str, key: &str) -> (&'static str, &'static [&'static str]) {
    match (table, key) {
        ("", _) => ("", &[]),
        ("[datastore]", _) => ("[datastore]", &["url = \"s3://bucket\""]),
        ("[[site]]", _) => ("[[site]]", &["name = \"a.example\"", "issuers = [\"local-ca\"]"]),
        ("[issuer.NAME]", "lifetime") => ("[issuer.x]", &["kind = \"self-signed\""]),
        ("[issuer.NAME]", _) => ("[issuer.x]", &["kind = \"acme\"", "directory = \"https://ca.example/d\""]),
        ("eab", _) => ("[issuer.zerossl.eab]", &["kid = \"k\""]),
        ("[solver.NAME]", "url") => ("[solver.x]", &["kind = \"http-01\"", "mode = \"redirect\""]),
        ("[solver.NAME]", "listen" | "mode" | "check") => ("[solver.x]", &["kind = \"http-01\""]),
        ("[solver.NAME]", "path") => ("[solver.x]", &["kind = \"http-01\"", "mode = \"webroot\""]),
        ("[solver.NAME]", "settings" | "alias" | "resolver" | "propagation_timeout" | "acme_sh") => {
            ("[solver.x]", &["kind = \"dns-01\"", "provider = \"acme.sh:dns_x\"", "acme_sh = \"acme.sh\""])
        }
        ("[solver.NAME]", _) => ("[solver.x]", &["kind = \"dns-01\""]),
        ("[[target]]", "provider" | "credentials") => ("[[target]]", &["kind = \"script\"", "ssl_root = \"/s\"", "provider = \"p\""]),
        ("[[target]]", _) => ("[[target]]", &["kind = \"files\"", "ssl_root = \"/s\""]),
        ("[agent]", _) => ("[agent]", &[]),
        ("a secret", _) => ("[datastore.identity]", &[]),
        (table, key) => panic!("{key} of {table}: say here what it needs"),
    }
}

#[test]
fn every_key_is_read() {
    // A date is wrong for every key, so a key that nobody reads would be accepted here.
    for (table, keys) in config::keys() {
        for key in keys {
            let (heading, others) = surroundings(table, key);
            let others: Vec<_> = others.iter().filter(|line| !line.starts_with(&format!("{key} ="))).copied().collect();
            let toml = format!("{heading}\n{}\n{key} = 1979-05-27\n", others.join("\n"));
            let error = Place::with(&toml).load().map(|_| "accepted").expect_err(&toml);
            assert!(matches!(&error, ConfigError::WrongType { at, .. } if at.key.ends_with(key)), "{toml}{error}");
        }
    }
}
