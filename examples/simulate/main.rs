//! Tries to prove the fleet wrong: `cargo run --release --example simulate -- --seeds 1000000`
//!
//! Each seed is the history of one fleet: a build machine and some nodes live through a week or two of nights in which the store, the CA,
//! the servers, the disks, the clocks and the processes fail in every way that `simulation/fault.rs` lists. What must hold is looked at
//! throughout; then the faults stop, and everybody must end up serving the newest certificate. A seed that finds something is printed, and
//! `--seed N` lives it through again, with every step.

#![allow(unreachable_pub, missing_docs, reason = "a program of its own: nobody imports it")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use clap::Parser;

mod simulation;

use simulation::bug::Bug;
use simulation::fault::{Counts, Fault};
use simulation::interleaving::{self, Case};
use simulation::scenario::Store;
use simulation::{History, Options, Violation, run};

/// Simulates fleets until an invariant breaks.
#[derive(Debug, Parser)]
#[allow(clippy::struct_excessive_bools, reason = "flags of a command line")]
struct Arguments {
    /// How many histories to live through
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first seed; a fresh one where it is not given
    #[arg(long)]
    from: Option<u64>,
    /// Live through this one alone, and print every step
    #[arg(long)]
    seed: Option<u64>,
    /// Nodes of each fleet; 5 in most where it is not given
    #[arg(long)]
    nodes: Option<usize>,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// The store lets second creates through, and the fleet is told election = "best-effort"
    #[arg(long)]
    best_effort: bool,
    /// Put a deliberate bug in: see --bugs
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
    /// Put in every deliberate bug, one after the other, and see each found
    #[arg(long)]
    bugs: bool,
    /// Have one node run wholly inside each call of another, in every pair of them
    #[arg(long)]
    interleavings: bool,
    /// What the tests run: some thousand fresh seeds, all interleavings, all bugs, and one seed twice
    #[arg(long)]
    check: bool,
}

fn bug(word: &str) -> Result<Bug, String> {
    Bug::of_word(word).ok_or_else(|| format!("one of: {}", Bug::ALL.iter().map(|bug| bug.word()).collect::<Vec<_>>().join(", ")))
}

/// All histories together.
#[derive(Default)]
struct Sum {
    histories: u64,
    nights: u64,
    runs: u64,
    issued: u64,
    calm: u64,
    counts: Counts,
    found: Option<(u64, History)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let store = if arguments.best_effort { Store::BestEffort } else { Store::Exclusive };
    let options = Options { store, nodes: arguments.nodes, bug: arguments.bug, traced: arguments.seed.is_some() };
    let ended = if let Some(seed) = arguments.seed {
        one(seed, &options)
    } else if arguments.bugs {
        all_bugs(&arguments, &options)
    } else if arguments.interleavings {
        all_interleavings(&arguments, &options)
    } else if arguments.check {
        check(&arguments, &options)
    } else {
        all_seeds(&arguments, &options)
    };
    let _ = std::fs::remove_dir_all(simulation::disks());
    if ended { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fresh_seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_micros()).unwrap_or_default() << 8
}

/// Everything that the tests run.
fn check(arguments: &Arguments, options: &Options) -> bool {
    let best_effort = Options { store: Store::BestEffort, ..options.clone() };
    let all = [
        all_seeds(arguments, options),
        all_seeds(arguments, &best_effort),
        all_interleavings(arguments, options),
        all_interleavings(arguments, &best_effort),
        all_bugs(arguments, options),
        is_replayed(arguments.from.unwrap_or_else(fresh_seed), options),
        is_replayed(arguments.from.unwrap_or_else(fresh_seed), &best_effort),
    ];
    all.into_iter().all(|well| well)
}

fn all_seeds(arguments: &Arguments, options: &Options) -> bool {
    let from = arguments.from.unwrap_or_else(fresh_seed);
    let began = Instant::now();
    let sum = many(from, arguments.seeds, arguments.jobs, options);
    report(&sum, from, began.elapsed().as_secs_f64(), arguments.jobs, options);
    sum.found.is_none()
}

/// A seed that finds something is worth nothing if it does not find it again.
fn is_replayed(from: u64, options: &Options) -> bool {
    let traced = Options { traced: true, ..options.clone() };
    let differs = |seed: &u64| run(*seed, &traced).trace != run(*seed, &traced).trace;
    match (from..from + 20).find(differs) {
        None => println!("20 seeds have given the same trace twice"),
        Some(seed) => println!("seed {seed} has given two traces"),
    }
    (from..from + 20).all(|seed| !differs(&seed))
}

/// Every pair of places where another node can run.
fn all_interleavings(arguments: &Arguments, options: &Options) -> bool {
    let found = find_among_interleavings(arguments.jobs, options);
    match &found {
        None => println!("all interleavings of two nodes ({:?}): no invariant was broken", options.store),
        Some((case, violation)) => {
            println!("{case:?} ({:?}): {} does not hold: {}\n", options.store, violation.invariant, violation.what);
            interleaving::run(*case, &Options { traced: true, ..options.clone() }).trace.iter().for_each(|line| println!("{line}"));
        }
    }
    found.is_none()
}

/// The first case in which something breaks.
fn find_among_interleavings(jobs: usize, options: &Options) -> Option<(Case, Violation)> {
    let boundaries = interleaving::boundaries(&Options { bug: None, ..options.clone() });
    let cases = interleaving::cases(boundaries);
    let (next, found) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Some(violation) = interleaving::run(*case, options).violation {
                found.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((*case, violation));
                return;
            }
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    println!("{} interleavings at {boundaries} boundaries", cases.len());
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Lives through one history, and prints it.
fn one(seed: u64, options: &Options) -> bool {
    let history = run(seed, options);
    println!("seed {seed}: {:?}\n", history.scenario);
    history.trace.iter().for_each(|line| println!("{line}"));
    match &history.violation {
        None => println!("\nnothing found in {} nights", history.nights),
        Some(violation) => println!("\n{} does not hold: {}", violation.invariant, violation.what),
    }
    history.violation.is_none()
}

/// Lives through many, on several threads, until one finds something.
fn many(from: u64, seeds: u64, jobs: usize, options: &Options) -> Sum {
    let (next, stop, sum) = (AtomicU64::new(from), AtomicBool::new(false), Mutex::new(Sum::default()));
    let work = || {
        while !stop.load(Ordering::Relaxed) {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= from + seeds {
                return;
            }
            let history = run(seed, options);
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.histories += 1;
            sum.nights += history.nights;
            sum.runs += history.runs;
            sum.issued += history.issued;
            sum.calm += u64::from(history.scenario.is_calm());
            sum.counts.add(&history.counts);
            // With a bug, it is its own invariant that has to break: what else goes wrong may come first.
            let wanted = |violation: &Violation| options.bug.is_none_or(|bug| violation.invariant == bug.invariant());
            if history.violation.as_ref().is_some_and(wanted) {
                stop.store(true, Ordering::Relaxed);
                sum.found.get_or_insert((seed, history));
            }
        }
    };
    std::thread::scope(|scope| (0..jobs).for_each(|_| drop(scope.spawn(work))));
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What makes the same seed the same history.
fn flags(options: &Options) -> String {
    let store = if options.store == Store::BestEffort { " --best-effort" } else { "" };
    let nodes = options.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    let bug = options.bug.map(|bug| format!(" --bug {}", bug.word())).unwrap_or_default();
    format!("{store}{nodes}{bug}")
}

fn report(sum: &Sum, from: u64, seconds: f64, jobs: usize, options: &Options) {
    println!("seeds {from} to {}", from + sum.histories.saturating_sub(1));
    #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = sum.nights as f64 / seconds / jobs as f64;
    println!(
        "{} histories ({} of them calm), {} fleet-nights, {} runs, {} certificates in {seconds:.1} s: {rate:.0} fleet-nights a second on each of {jobs} threads",
        sum.histories, sum.calm, sum.nights, sum.runs, sum.issued
    );
    for fault in Fault::ALL {
        println!("{:>12}  {fault}", sum.counts.of(*fault));
    }
    match &sum.found {
        None => println!("no invariant was broken"),
        Some((seed, history)) => {
            if let Some(violation) = &history.violation {
                println!("{} does not hold: {}", violation.invariant, violation.what);
            }
            println!("every step of it:  cargo run --release --example simulate -- --seed {seed}{}", flags(options));
        }
    }
}

/// Each bug must be found within the number of seeds that is stated for it.
fn all_bugs(arguments: &Arguments, options: &Options) -> bool {
    let from = arguments.from.unwrap_or_else(fresh_seed);
    let mut all = true;
    println!("seeds from {from}");
    for &bug in Bug::ALL {
        let sum = many(from, bug.within(), arguments.jobs, &Options { bug: Some(bug), ..options.clone() });
        let found = sum.found.as_ref().and_then(|(seed, history)| Some((seed, history.violation.as_ref()?)));
        all &= found.is_some();
        match found {
            Some((seed, violation)) => {
                println!(
                    "found     {:<24} {} ({} seeds; {seed}: {}: {})",
                    bug.word(),
                    bug.text(),
                    sum.histories,
                    violation.invariant,
                    violation.what
                );
            }
            None => println!("NOT FOUND {:<24} {} ({} seeds)", bug.word(), bug.text(), sum.histories),
        }
    }
    all
}
