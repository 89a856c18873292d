//! Replays the corpora of `fuzz/`: what was once found hostile enough to be kept is tried with every change.

#[path = "../fuzz/targets/mod.rs"]
#[allow(unreachable_pub, reason = "pub marks what the targets offer to both of their callers")]
mod targets;

use std::collections::BTreeMap;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use targets::{TARGETS, Verdict};

fn corpora() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

/// The inputs of a target, by their names.
fn inputs(target: &str) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(corpora().join(target)).unwrap_or_else(|error| panic!("the corpus of {target}: {error}"));
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), fs::read(&path).expect("an input"))).collect()
}

#[test]
fn every_property_holds_for_every_input() {
    let mut failed = Vec::new();
    for (target, check) in TARGETS {
        let mut verdicts = Vec::new();
        for (name, input) in inputs(target) {
            match catch_unwind(|| check(&input)) {
                Ok(verdict) => verdicts.push(verdict),
                Err(_) => failed.push(format!("fuzz/corpus/{target}/{name}")),
            }
        }
        // Properties of what is accepted, and of how the rest is refused: neither is tried by a corpus that has only the other.
        for wanted in [Verdict::Accepted, Verdict::Refused] {
            assert!(verdicts.contains(&wanted), "no input of {target} is {wanted:?}");
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn every_cut_and_every_flipped_bit_of_small_inputs_is_survived() {
    for (target, check) in TARGETS {
        let small = inputs(target).into_iter().filter(|(_, input)| input.len() <= 200);
        for (name, input) in small {
            for at in 0..input.len() {
                let mut flipped = input.clone();
                flipped[at] ^= 1 << (at % 8);
                for changed in [&flipped[..], &input[..at]] {
                    let survived = catch_unwind(|| check(changed));
                    assert!(survived.is_ok(), "{target} fails at {:?}, made of {name}", String::from_utf8_lossy(changed));
                }
            }
        }
    }
}

#[test]
fn every_corpus_belongs_to_a_target() {
    for entry in fs::read_dir(corpora()).expect("corpora") {
        let name = entry.expect("an entry").file_name();
        assert!(TARGETS.iter().any(|(target, _)| name == *target), "no target reads fuzz/corpus/{}", name.display());
    }
}
