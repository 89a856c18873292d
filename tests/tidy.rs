//! The rules of the house, as tests: each names the line that breaks it.
//!
//! A rule reads tokens, not text: what stands in a comment or in a string breaks nothing.

#[path = "tidy/tokens.rs"]
mod tokens;

use std::fs;
use std::path::Path;

use tokens::{Token, tokens};

/// The longest file of `src/`, in lines: what is longer is about more than one thing.
const LONGEST_FILE_LINES: usize = 400;

/// Which layers a layer may import from. Code in `#[cfg(test)]` counts too.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &["config", "datastore", "domain", "fleet", "issuer", "solver", "system", "target"]),
    ("config", &["domain", "system"]),
    ("datastore", &["domain", "system"]),
    ("domain", &[]),
    ("fleet", &["datastore", "domain", "issuer", "solver", "system", "target"]),
    ("issuer", &["domain", "solver", "system"]),
    ("lib.rs", &["cli", "config", "datastore", "domain", "fleet", "issuer", "solver", "system", "target"]),
    ("main.rs", &["cli"]),
    ("solver", &["domain", "system"]),
    ("system", &[]),
    ("target", &["domain", "system"]),
];

/// What a test may wait for by the clock, because nothing tells it of the event.
const SLEEPERS: &[(&str, &str)] = &[
    ("src/system/clock.rs", "the clock is paused: no time passes"),
    ("tests/it/fleet.rs", "the clock is paused: no time passes"),
    ("tests/it/fleet/best_effort.rs", "the clock is paused: no time passes"),
    ("tests/it/fleet/careless.rs", "the clock is paused, and slowness is the fault"),
    ("tests/it/fleet/node.rs", "the clock is paused: no time passes"),
    ("tests/it/support/hostile_proxy.rs", "slowness is the fault"),
    ("tests/it/support/process.rs", "other programs do not say when they are ready"),
    ("tests/it/support/s3_in_process/front.rs", "slowness is the fault"),
];

/// Where the fleet looks at a clock: the monotonic one to measure, and the one of the file system to find its own old leftovers. What
/// time it is, only the store says.
const CLOCKS_OF_THE_FLEET: &[(&str, &str)] = &[
    ("src/fleet/agent.rs", "how long to wait for another machine"),
    ("src/fleet/doctor/store.rs", "how long the store takes to answer"),
    ("src/fleet/election.rs", "when a request left"),
    ("src/fleet/ensure.rs", "how long to wait for another machine"),
    ("src/fleet/lease.rs", "when a refresh left, and when the next is due"),
    ("src/fleet/place.rs", "the age of leftover temporary files"),
    ("src/fleet/snapshot.rs", "how long ago the store told its time"),
    ("src/fleet/stand.rs", "how long a candidacy has been under way"),
    ("src/fleet/wait.rs", "how long to wait for another machine"),
];

/// A file of the project and what the compiler sees in it.
struct Source {
    /// From the root of the project: `src/cli/mod.rs`.
    path: String,
    lines: usize,
    tokens: Vec<Token>,
}

type Rule = fn(&Source) -> Vec<(usize, String)>;

#[test]
fn imports_go_one_way() {
    hold("src", imports);
}

#[test]
fn only_the_command_line_prints() {
    hold("src", prints);
}

#[test]
fn nothing_is_unsafe_unfinished_or_ignored() {
    for folder in ["src", "tests", "benches"] {
        hold(folder, unfinished);
    }
}

#[test]
fn tests_wait_for_events_and_not_for_time() {
    for folder in ["src", "tests"] {
        hold(folder, sleeps);
    }
}

#[test]
fn only_the_store_says_what_time_it_is() {
    hold("src", clocks);
}

#[test]
fn the_domain_is_pure() {
    hold("src", impurities);
}

#[test]
fn files_are_short() {
    hold("src", lengths);
}

#[test]
fn the_changelog_knows_this_version() {
    let changelog = fs::read_to_string(root().join("CHANGELOG.md")).expect("a changelog");
    let heading = format!("## {}", env!("CARGO_PKG_VERSION"));
    let told = changelog.lines().any(|line| line == heading || line.starts_with(&format!("{heading} ")));
    assert!(told, "CHANGELOG.md has no heading {heading:?}");
}

#[test]
fn what_the_lists_allow_exists() {
    let gone = gone(&[SLEEPERS, CLOCKS_OF_THE_FLEET], |path| root().join(path).is_file());
    assert!(gone.is_empty(), "listed in tests/tidy.rs, and gone: {gone:?}");
}

#[test]
fn what_the_lists_allow_and_is_gone_is_found() {
    let (first, second): (&[_], &[_]) = (&[("here.rs", "why"), ("gone.rs", "why")], &[("lost.rs", "why"), ("here.rs", "why")]);
    assert_eq!(gone(&[first, second], |path| path == "here.rs"), ["gone.rs", "lost.rs"]);
    assert_eq!(gone(&[first, second], |_| true), [""; 0]);
}

/// A rule that has never been broken may not be able to tell.
#[test]
fn every_rule_finds_what_it_is_for() {
    let long = "\n".repeat(LONGEST_FILE_LINES + 1);
    for (rule, path, text, found) in [
        (imports as Rule, "src/domain/plan.rs", "use crate::system::text;", 1),
        (imports, "src/domain/plan.rs", "use crate::domain::site::Site;", 0),
        (imports, "src/fleet/look.rs", "fn a() { crate::cli::main(); }", 1),
        (imports, "src/fleet/look.rs", "use crate::{config::Settings, issuer::{self, acme}, datastore, cli};", 2),
        (imports, "src/datastore/memory.rs", "#[cfg(test)] mod tests { use crate::issuer::Issuer; }", 1),
        (imports, "src/solver/mod.rs", "use super::issuer::Issuer;", 1),
        (imports, "src/solver/script/provider.rs", "use super::super::super::fleet::Fleet;", 1),
        (imports, "src/solver/script/provider.rs", "use super::super::Solver;", 0),
        (imports, "src/solver/script.rs", "mod tests { use super::super::Solver; }", 0),
        (imports, "src/solver/script.rs", "mod tests { use super::super::super::fleet::Fleet; }", 1),
        (imports, "src/issuer/mod.rs", "use crate::*;", 1),
        (imports, "src/issuer/mod.rs", "use crate as everything;", 1),
        (imports, "src/main.rs", "fn main() { certfleet::fleet::run() }", 1),
        (imports, "src/elsewhere/mod.rs", "use crate::domain::pem;", 1),
        (prints, "src/fleet/look.rs", "fn a() { println!(\"x\"); eprint!(\"x\"); dbg!(1); }", 3),
        (prints, "src/fleet/look.rs", "use std::io::{self, stdout}; fn a() { io::stderr().lock(); stdout(); }", 2),
        (prints, "src/fleet/look.rs", "fn a() { command.stdout(Stdio::piped()); } // println!()", 0),
        (prints, "src/cli/console.rs", "fn a() { println!(\"x\"); }", 0),
        (unfinished, "tests/it/s3.rs", "#[test] #[ignore = \"slow\"] fn a() { todo!() }", 2),
        (unfinished, "src/system/lock.rs", "fn a() { unsafe { b() } unimplemented!() }", 2),
        (unfinished, "src/system/lock.rs", "/* unsafe /* todo!() */ unsafe */ fn a() -> &'static str { r#\"unsafe \" todo!()\"# }", 0),
        (sleeps, "tests/it/s3.rs", "async fn a() { tokio::time::sleep(x).await; std::thread::sleep(x); }", 2),
        (sleeps, "src/system/lock.rs", "fn a() { sleep(x) } #[cfg(test)] mod tests { fn b() { thread::sleep(x) } }", 1),
        (sleeps, "tests/it/support/process.rs", "fn a() { sleep(x) }", 0),
        (clocks, "src/domain/policy.rs", "fn a() { Utc::now(); std::time::SystemTime::now(); Instant::now(); }", 3),
        (clocks, "src/fleet/gather.rs", "fn a() { Utc::now(); clock.now(); }", 1),
        (clocks, "src/fleet/lease.rs", "fn a() { Instant::now(); Utc::now(); }", 1),
        (impurities, "src/domain/policy.rs", "use std::fs::File; use tokio::time; use std::net::IpAddr;", 2),
        (lengths, "src/domain/policy.rs", &long, 1),
    ] {
        let broken = rule(&source(path, text));
        assert_eq!(broken.len(), found, "{path}: {text}\n{broken:?}");
    }
}

/// Panics with everything below `folder` that breaks the rule.
#[track_caller]
fn hold(folder: &str, rule: Rule) {
    let mut sources = Vec::new();
    collect(&root().join(folder), &mut sources);
    assert!(sources.len() > usize::from(folder == "src") * 50, "{folder} was not found");
    let tell = |source: &Source| rule(source).into_iter().map(|(line, what)| format!("{}:{line}: {what}", source.path)).collect();
    let broken: Vec<String> = sources.iter().flat_map::<Vec<_>, _>(tell).collect();
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// What the lists name and is not there: an exception without a use would let the next file of that name break the rule.
fn gone<'a>(lists: &[&[(&'a str, &str)]], exists: impl Fn(&str) -> bool) -> Vec<&'a str> {
    lists.iter().flat_map(|list| list.iter()).map(|(path, _)| *path).filter(|path| !exists(path)).collect()
}

fn imports(source: &Source) -> Vec<(usize, String)> {
    let components: Vec<_> = source.path.split('/').skip(1).collect();
    let layer = components[0];
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
        return vec![(1, format!("{layer} is not a layer that tests/tidy.rs knows"))];
    };
    // The modules above the code of a file: its folders and, unless it is called after its folder, itself.
    let named = components.last().is_some_and(|name| !matches!(*name, "mod.rs" | "lib.rs" | "main.rs"));
    let mut depth = components.len() - 1 + usize::from(named);
    let mut modules = Vec::new();
    let mut braces = 0_usize;
    let mut found = Vec::new();
    for (index, token) in source.tokens.iter().enumerate() {
        let ahead = |by: usize| source.tokens.get(index + by).map_or("", |token| token.text.as_str());
        match token.text.as_str() {
            "{" => {
                braces += 1;
                if index >= 2 && source.tokens[index - 2].text == "mod" {
                    modules.push(braces);
                    depth += 1;
                }
            }
            "}" => {
                if modules.last() == Some(&braces) {
                    modules.pop();
                    depth -= 1;
                }
                braces = braces.saturating_sub(1);
            }
            "super" if index == 0 || source.tokens[index - 1].text != "::" => {
                let supers = (0..=depth).take_while(|step| ahead(step * 2) == "super").count();
                if supers >= depth {
                    found.push((token.line, "super leaves the layer: write crate::".to_owned()));
                }
            }
            "crate" if ahead(1) == "::" => found.extend(named_after(&source.tokens[index + 2..]).filter_map(|imported| {
                let fits = imported.text == layer || allowed.contains(&imported.text.as_str());
                (!fits).then(|| (imported.line, format!("{layer} imports {}", imported.text)))
            })),
            "crate" if ahead(1) == "as" => found.push((token.line, "the whole crate gets a name".to_owned())),
            "certfleet" if ahead(1) == "::" && !allowed.contains(&ahead(2)) => {
                found.push((token.line, format!("{layer} imports {}", ahead(2))));
            }
            _ => {}
        }
    }
    found
}

/// What follows `crate::`: a name, or the first name of each path of a group.
fn named_after(tokens: &[Token]) -> impl Iterator<Item = &Token> {
    let group = tokens.first().is_some_and(|token| token.text == "{");
    let mut depth = 0_usize;
    let mut first = true;
    tokens
        .iter()
        .enumerate()
        .map_while(move |(index, token)| {
            if !group {
                return (index == 0).then_some(Some(token));
            }
            match token.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                "," if depth == 1 => first = true,
                _ if depth == 1 && first => {
                    first = false;
                    return Some(Some(token));
                }
                _ => {}
            }
            (depth > 0).then_some(None)
        })
        .flatten()
}

fn prints(source: &Source) -> Vec<(usize, String)> {
    if source.path.starts_with("src/cli/") {
        return Vec::new();
    }
    picked(source, |before, text, after| match text {
        "print" | "println" | "eprint" | "eprintln" | "dbg" => after == "!",
        "stdout" | "stderr" => before == "::" || (after == "(" && !matches!(before, "." | "fn")),
        _ => false,
    })
}

fn unfinished(source: &Source) -> Vec<(usize, String)> {
    picked(source, |before, text, after| match text {
        "unsafe" => true,
        "todo" | "unimplemented" => after == "!",
        "ignore" => before == "[",
        _ => false,
    })
}

fn sleeps(source: &Source) -> Vec<(usize, String)> {
    if SLEEPERS.iter().any(|(path, _)| *path == source.path) {
        return Vec::new();
    }
    let tests_from = if source.path.starts_with("src/") {
        let marks = source.tokens.windows(4).position(|four| four.iter().map(|token| token.text.as_str()).eq(["cfg", "(", "test", ")"]));
        marks.unwrap_or(source.tokens.len())
    } else {
        0
    };
    let tests = Source { path: source.path.clone(), lines: source.lines, tokens: source.tokens[tests_from..].to_vec() };
    picked(&tests, |_, text, after| matches!(text, "sleep" | "sleep_until") && after == "(")
}

fn clocks(source: &Source) -> Vec<(usize, String)> {
    let measures = CLOCKS_OF_THE_FLEET.iter().any(|(path, _)| *path == source.path);
    if !source.path.starts_with("src/domain/") && !source.path.starts_with("src/fleet/") {
        return Vec::new();
    }
    let of = |wanted: &[&str]| -> Vec<(usize, String)> {
        let calls = source.tokens.windows(3).filter(|three| three[1].text == "::" && three[2].text == "now");
        calls
            .filter(|three| wanted.contains(&three[0].text.as_str()))
            .map(|three| (three[0].line, format!("{}::now", three[0].text)))
            .collect()
    };
    if measures { of(&["Utc", "Local"]) } else { of(&["Utc", "Local", "SystemTime", "Instant"]) }
}

fn impurities(source: &Source) -> Vec<(usize, String)> {
    if !source.path.starts_with("src/domain/") {
        return Vec::new();
    }
    picked(source, |before, text, after| match text {
        "tokio" | "rustix" | "tempfile" | "SystemRandom" => after == "::" || before == "::",
        "fs" | "env" | "process" | "thread" => before == "::",
        _ => false,
    })
}

fn lengths(source: &Source) -> Vec<(usize, String)> {
    let long = source.lines > LONGEST_FILE_LINES;
    long.then(|| (source.lines, format!("{} lines, and {LONGEST_FILE_LINES} at most are wanted", source.lines))).into_iter().collect()
}

/// The tokens that are not wanted, told by themselves and their neighbours.
fn picked(source: &Source, unwanted: impl Fn(&str, &str, &str) -> bool) -> Vec<(usize, String)> {
    let text = |index: usize| source.tokens.get(index).map_or("", |token| token.text.as_str());
    let indices = 0..source.tokens.len();
    let found = indices.filter(|index| unwanted(index.checked_sub(1).map_or("", text), text(*index), text(index + 1)));
    found.map(|index| (source.tokens[index].line, text(index).to_owned())).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Rust files below a folder. None where there is no such folder: nothing that is not there breaks a rule.
fn collect(folder: &Path, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source");
            let name = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
            sources.push(source(&name, &text));
        }
    }
}

fn source(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), lines: text.lines().count(), tokens: tokens(text) }
}
