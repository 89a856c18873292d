//! The environment of the Agile Deployment Toolkit.

use super::*;

/// What its templates export.
fn toolkit() -> Place {
    Place::empty()
        .set("WEBSITE_URL", "www.example.com")
        .set("CLOUDHOST", "digitalocean")
        .set("BUILD_IDENTIFIER", "prod 1")
        .set("BUILD_HOME", "/root/build")
        .set("SSL_GENERATION_METHOD", "AUTOMATIC")
        .set("SSL_GENERATION_SERVICE", "LETSENCRYPT")
        .set("SSL_LIVE_CERT", "1")
        .set("DNS_CHOICE", "digitalocean")
        .set("DNS_USERNAME", "ops@example.com")
        .set("DNS_SECURITY_KEY", "hunter2")
        .set("S3_ACCESS_KEY", "access1|access2")
        .set("S3_SECRET_KEY", "hunter2|hunter3")
        .set("S3_HOST_BASE", "fra1.digitaloceanspaces.com|nyc3.digitaloceanspaces.com")
        .set("S3_LOCATION", "US")
        .set("WEBSERVER_CHOICE", "NGINX")
        .set("SYSTEM_TOEMAIL_ADDRESS", "to@example.com")
}

#[test]
fn manual_needs_nothing_else() {
    let settings = toolkit().set("SSL_GENERATION_METHOD", "MANUAL").settings();
    assert_eq!(settings.origin, Origin::Toolkit(None));
    assert_eq!(settings.ssl_dir(), Path::new("/root/build/runtimedata/digitalocean/prod 1/ssl"));
    assert_eq!(settings.contact.as_deref(), Some("to@example.com"));
    assert_eq!((names(&settings.sites), settings.sites[0].method), (vec!["www.example.com".to_owned()], Method::Manual));
    let Location::S3(s3) = &settings.datastore.location else { panic!("no bucket") };
    assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("www-example-com-digitalocean-lets-ssl", ""));
    assert_eq!(s3.endpoint.as_deref(), Some("https://fra1.digitaloceanspaces.com"));
    assert_eq!(s3.region.as_deref(), Some("us-east-1"));
    let credentials = s3.credentials.as_ref().expect("credentials");
    assert_eq!(credentials.access_key.resolve(&|_| None).expect("a secret").as_str(), "access1");
    assert_eq!(credentials.secret_key.resolve(&|_| None).expect("a secret").as_str(), "hunter2");
    assert!(!format!("{settings:?}").contains("hunter"));
}

#[test]
fn the_only_solver_of_a_file_serves_it() {
    let zerossl = "[issuer.zerossl]\neab = { kid = \"k\", hmac_key = { env = \"E\" } }\n";
    for (service, live, expected, lineage, bucket) in [
        ("LETSENCRYPT", "1", "letsencrypt", Lineage::Live, "www-example-com-digitalocean-lets-ssl"),
        ("LETSENCRYPT", "0", "letsencrypt-staging", Lineage::Staging, "www-example-com-digitalocean-lets-ssl"),
        ("ZEROSSL", "0", "zerossl", Lineage::Live, "www-example-com-digitalocean-zero-ssl"),
    ] {
        let place = toolkit().set("SSL_GENERATION_SERVICE", service).set("SSL_LIVE_CERT", live);
        place.write("certfleet.toml", &format!("cloudhost = \"elsewhere\"\n{SOLVER}{zerossl}[datastore]\nseal = \"none\""));
        let settings = place.settings();
        let site = &settings.sites[0];
        assert_eq!((site.issuers.as_slice(), site.name.lineage()), ([expected.to_owned()].as_slice(), lineage));
        assert_eq!(site.solver.as_deref(), Some("web"));
        assert_eq!((settings.cloudhost.as_str(), settings.datastore.seal), ("digitalocean", Seal::None));
        assert_eq!(settings.origin, Origin::Toolkit(Some(PathBuf::from("certfleet.toml"))));
        assert!(matches!(settings.datastore.location, Location::S3(s3) if s3.bucket == bucket));
    }
}

#[test]
fn another_directory_under_a_known_name_needs_no_binding() {
    let place = toolkit().set("SSL_GENERATION_SERVICE", "ZEROSSL");
    place.write("certfleet.toml", &format!("{SOLVER}[issuer.zerossl]\ndirectory = \"https://127.0.0.1:14000/dir\"\ntrust = \"root.pem\""));
    let settings = place.settings();
    assert_eq!(settings.sites[0].issuers, ["zerossl"]);
    let IssuerSettings::Acme(acme) = &settings.issuers["zerossl"] else { panic!("no ACME issuer") };
    assert_eq!((acme.directory.as_str(), &acme.trust), ("https://127.0.0.1:14000/dir", &Some(place.path("root.pem"))));
}

#[test]
fn the_webserver_is_a_target_unless_a_file_has_one() {
    for (choice, kind) in [("NGINX", TargetKind::Nginx), ("apache", TargetKind::Apache), ("LIGHTTPD", TargetKind::Lighttpd)] {
        let place = toolkit().set("SSL_GENERATION_METHOD", "MANUAL").set("WEBSERVER_CHOICE", choice).set("HOME", "/home/ws");
        let targets = place.settings().targets;
        assert_eq!((targets.len(), targets[0].kind, &targets[0].sites), (1, kind, &Wanted::All));
        assert_eq!((targets[0].ssl_root.as_path(), targets[0].key_mode), (Path::new("/home/ws/ssl"), 0o600));
        assert_eq!((targets[0].verify.as_deref(), &targets[0].reload), (Some("127.0.0.1:443"), &CommandSetting::Packaged));
        place.write("certfleet.toml", "[[target]]\nkind = \"files\"\nssl_root = \"/s\"");
        assert_eq!(place.settings().targets[0].kind, TargetKind::Files);
    }
    let place = toolkit().set("SSL_GENERATION_METHOD", "MANUAL").set("HOME", "/home/ws").set("WEBSERVER_CHOICE", "IIS");
    let error = place.load().expect_err("refused");
    assert_eq!(error.to_string(), "environment variable WEBSERVER_CHOICE: site: there is no choice \"IIS\"");
    for (variable, value) in [("WEBSERVER_CHOICE", ""), ("HOME", "")] {
        let place = toolkit().set("SSL_GENERATION_METHOD", "MANUAL").set(variable, value);
        assert!(place.settings().targets.is_empty(), "{variable}");
    }
}

#[test]
fn a_file_with_sites_is_left_alone() {
    let place = toolkit();
    place.write("certfleet.toml", "[[site]]\nname = \"a.example\"\nissuers = [\"local-ca\"]");
    let settings = place.settings();
    assert_eq!((names(&settings.sites), settings.cloudhost.as_str()), (vec!["a.example".to_owned()], "local"));
    assert_eq!(settings.datastore.location, Location::Directory(place.path("runtimedata/datastore")));
}

#[test]
fn what_is_missing_is_said_honestly() {
    for (name, value, said, hint) in [
        (
            "DNS_SECURITY_KEY",
            "",
            "environment variable DNS_CHOICE: site: the issuer \"letsencrypt\" needs a solver, and DNS at \"digitalocean\" is none without DNS_SECURITY_KEY",
            "set DNS_SECURITY_KEY; DNS_CHOICE is cloudflare, digitalocean, exoscale, linode or vultr",
        ),
        (
            "SSL_GENERATION_SERVICE",
            "ZEROSSL",
            "environment variable SSL_GENERATION_SERVICE: site: the issuer \"zerossl\" needs an external account binding",
            "add [issuer.zerossl] with eab = { kid = \"…\", hmac_key = { env = \"NAME\" } } to certfleet.toml; you get both from https://app.zerossl.com/developer",
        ),
        (
            "SSL_GENERATION_SERVICE",
            "LETSENCRIPT",
            "environment variable SSL_GENERATION_SERVICE: site: there is no choice \"LETSENCRIPT\"",
            "did you mean \"LETSENCRYPT\"?",
        ),
        (
            "WEBSITE_URL",
            "https://www.example.com",
            "environment variable WEBSITE_URL: site: \"https://www.example.com\" is not a DNS name or an IP address: labels hold letters, digits and inner hyphens, 63 characters at most",
            "the toolkit's WEBSITE_URL is a host name without a scheme: www.example.com",
        ),
        (
            "DNS_CHOICE",
            "",
            "environment variable DNS_CHOICE: site: the bucket cannot be named without it",
            "set it as the toolkit does: cloudflare, digitalocean, exoscale, linode or vultr",
        ),
        ("S3_SECRET_KEY", "", "environment variable S3_SECRET_KEY: site: it is not set, but S3_ACCESS_KEY is", "set both, or neither"),
        (
            "S3_HOST_BASE",
            "https://s3.example",
            "environment variable S3_HOST_BASE: site: it is not a host name",
            "without a scheme: fra1.digitaloceanspaces.com",
        ),
        (
            "CLOUDHOST",
            "a/b",
            "environment variable CLOUDHOST: cloudhost: \"a/b\" cannot be used",
            "it becomes the name of a directory: no slashes, and neither . nor ..",
        ),
    ] {
        let error = toolkit().set(name, value).load().expect_err("refused");
        assert_eq!((error.to_string().as_str(), error.hint().as_str()), (said, hint));
    }
    let bare = Place::empty().set("WEBSITE_URL", "www.example.com").load().expect_err("refused");
    assert_eq!(bare.to_string(), "environment variable WEBSITE_URL: site: the issuer \"letsencrypt\" needs a solver, and there is none");
}

#[test]
fn the_dns_provider_answers_challenges() {
    let secrets = |choice: &str, key: &str| {
        let settings = toolkit().set("DNS_CHOICE", choice).set("DNS_SECURITY_KEY", key).settings();
        assert_eq!(settings.sites[0].solver.as_deref(), Some("dns"));
        let SolverSettings::Dns01(dns) = &settings.solvers["dns"] else { panic!("another solver") };
        assert_eq!(dns.provider, DnsProvider::BuiltIn(choice.to_ascii_lowercase()));
        assert!(!format!("{settings:?}").contains("hush"), "{settings:?}");
        let resolved = |(name, secret): (&String, &Secret)| format!("{name}={}", secret.resolve(&|_| None).expect("a secret").as_str());
        dns.credentials.iter().map(resolved).collect::<Vec<_>>()
    };
    assert_eq!(secrets("CLOUDFLARE", "account:::hush"), ["CLOUDFLARE_DNS_API_TOKEN=hush"]);
    assert_eq!(secrets("cloudflare", "hush"), ["CLOUDFLARE_DNS_API_TOKEN=hush"]);
    assert_eq!(secrets("digitalocean", "hush"), ["DO_AUTH_TOKEN=hush"]);
    assert_eq!(secrets("exoscale", "key:hush:1"), ["EXOSCALE_API_KEY=key", "EXOSCALE_API_SECRET=hush:1"]);
    assert_eq!(secrets("linode", "hush"), ["LINODE_TOKEN=hush"]);
    assert_eq!(secrets("vultr", "hush"), ["VULTR_API_KEY=hush"]);
    for (choice, key, why) in [("exoscale", "hush", "Exoscale's has two parts"), ("cloudflare", &"0f".repeat(19)[1..], "global key")] {
        let error = toolkit().set("DNS_CHOICE", choice).set("DNS_SECURITY_KEY", key).load().expect_err("refused").to_string();
        assert!(error.contains(why) && !error.contains(key), "{error}");
    }
}

#[test]
fn a_solver_of_the_file_goes_before_the_dns_provider() {
    let place = toolkit();
    place.write("certfleet.toml", "[solver.web]\nkind = \"http-01\"");
    let settings = place.settings();
    assert_eq!(settings.sites[0].solver.as_deref(), Some("web"));
    assert!(!settings.solvers.contains_key("dns"));
}
