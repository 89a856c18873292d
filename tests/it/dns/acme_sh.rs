//! Scripts of acme.sh's dnsapi. acme.sh itself is not here: what stands in for it runs its first words as the real one does, and has the
//! functions that the scripts call, with the files that they leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use certfleet::solver::dns::Dns01;
use certfleet::solver::dns::acme_sh::AcmeSh;
use certfleet::solver::dns::zone::Resolver;
use certfleet::solver::{Presented, Solver as _};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{PATIENCE, challenge, refused};
use crate::support::bind9::{Bind9, Zone};

/// `main` of acme.sh: a first word that is no option is run as it is. `_initpath` makes the account's file below the working directory.
const ACME_SH: &str = r#"#!/usr/bin/env sh
_err() { printf '%s\n' "$@" >&2; return 1; }
_info() { printf '%s\n' "$@"; }
_initpath() { ACCOUNT_CONF_PATH="$LE_CONFIG_HOME/account.conf"; umask 077; : >> "$ACCOUNT_CONF_PATH"; }
_readaccountconf_mutable() { eval "printf '%s' \"\$SAVED_$1\""; }
_saveaccountconf_mutable() { printf "SAVED_%s='%s'\n" "$1" "$2" >> "$ACCOUNT_CONF_PATH"; }
main() {
  case "$1" in
  -*) _err "no option is known here" ;;
  *) "$@" ;;
  esac
}
main "$@"
"#;

/// A script as they are written: it keeps its token, fails without one, and works with what it is told.
const SCRIPT: &str = r#"#!/usr/bin/env sh
dns_test_add() {
  fulldomain=$1
  txtvalue=$2
  TEST_Token="${TEST_Token:-$(_readaccountconf_mutable TEST_Token)}"
  if [ -z "$TEST_Token" ]; then
    _err "You did not specify TEST_Token."
    return 1
  fi
  _saveaccountconf_mutable TEST_Token "$TEST_Token"
  if [ "$TEST_Fail" ]; then
    _err "the API says no to $TEST_Token"
    return 1
  fi
  printf '%s\n' "add $fulldomain $txtvalue $LE_WORKING_DIR $(stat -c %a "$LE_WORKING_DIR") $TEST_Token" >> "$TEST_Log"
}
dns_test_rm() {
  printf '%s\n' "rm $1 $2" >> "$TEST_Log"
}
"#;

struct Copy(TempDir);

impl Copy {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        fs::create_dir(directory.path().join("dnsapi")).expect("a directory");
        fs::write(directory.path().join("acme.sh"), ACME_SH).expect("a file");
        fs::write(directory.path().join("dnsapi/dns_test.sh"), SCRIPT).expect("a file");
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path().join("log")).unwrap_or_default()
    }

    fn solver(&self, server: &Bind9, credentials: &[(&str, &str)], settings: &[(&str, &str)]) -> Dns01 {
        let credentials = credentials.iter().map(|(name, value)| ((*name).to_owned(), Zeroizing::new((*value).to_owned())));
        let mut settings: BTreeMap<_, _> = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        settings.insert("TEST_Log".to_owned(), self.path().join("log").display().to_string());
        let records = AcmeSh::new(&self.path().join("acme.sh"), "dns_test", credentials.collect(), settings).expect("both files");
        Dns01::new(Box::new(records), Resolver::at(server.address), PATIENCE)
    }
}

#[tokio::test]
async fn a_script_is_called_as_acme_sh_calls_it_and_nothing_of_it_stays() {
    let (copy, server) = (Copy::new(), Bind9::primary(&[Zone::new("example.test", "")]));
    let marker = copy.path().join("carried-out");
    let hostile = format!("$(touch {0})`touch {0}`;touch {0} #", marker.display());
    let solver = copy.solver(&server, &[("TEST_Token", &hostile)], &[]);
    let challenge = challenge("*.www.example.test", "-value_of_base64url");
    solver.present(&challenge).await.expect("added");
    let log = copy.log();
    let words: Vec<_> = log.split(' ').collect();
    assert_eq!(words[..3], ["add", "_acme-challenge.www.example.test", "-value_of_base64url"]);
    assert_eq!(words[4], "700", "others can read the directory");
    assert!(!Path::new(words[3]).exists(), "{} is left behind", words[3]);
    assert!(log.trim_end().ends_with(&hostile), "{log}");
    solver.clean_up(&challenge, &Presented::default()).await.expect("removed");
    assert!(copy.log().ends_with("\nrm _acme-challenge.www.example.test -value_of_base64url\n"), "{}", copy.log());
    assert!(!marker.exists(), "a value was carried out");
}

#[tokio::test]
async fn a_script_that_fails_says_why_without_its_credentials() {
    let (copy, server) = (Copy::new(), Bind9::primary(&[Zone::new("example.test", "")]));
    let error = refused(&copy.solver(&server, &[], &[]), &challenge("example.test", "x")).await;
    let what = "acme.sh's dns_test cannot add a value to _acme-challenge.example.test: /bin/sh ended with exit status 1: ";
    assert_eq!(error.what, format!("{what}You did not specify TEST_Token."));
    let failing = copy.solver(&server, &[("TEST_Token", "hunter2-token")], &[("TEST_Fail", "1")]);
    let error = refused(&failing, &challenge("example.test", "x")).await;
    assert_eq!(error.what, format!("{what}the API says no to ***"));
}

#[test]
fn what_is_not_there_is_named_before_anything_is_asked() {
    let copy = Copy::new();
    let named = |acme_sh: &str, script: &str| {
        let error = AcmeSh::new(&copy.path().join(acme_sh), script, BTreeMap::new(), BTreeMap::new()).expect_err("missing");
        assert!(error.hint.starts_with("set acme_sh to your copy of acme.sh, with its dnsapi/ beside it"), "{}", error.hint);
        error.what
    };
    assert_eq!(named("acme.sh", "dns_nope"), format!("there is no {}", copy.path().join("dnsapi/dns_nope.sh").display()));
    assert_eq!(named("nope.sh", "dns_test"), format!("there is no {}", copy.path().join("nope.sh").display()));
}
