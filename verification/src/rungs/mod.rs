//! The rungs of `cargo verify`: what each shows, its budget, its steps.

mod kernel;
mod loom;
mod miri;
mod setup;
mod step;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use setup::Need;
use step::{Outcome, Step};

/// What a run was asked for.
#[derive(Clone, Debug)]
pub struct Context {
    /// The long version.
    pub deep: bool,
    /// Times every budget.
    pub scale: f64,
    /// The workspace.
    pub root: PathBuf,
    /// Logs, and what the rungs build besides.
    pub work: PathBuf,
}

/// One rung.
struct Rung {
    name: &'static str,
    shows: &'static str,
    /// Minutes, normal and deep, from a cold start on 2 cores.
    budget: (u64, u64),
    needs: &'static [Need],
    steps: fn(&Context) -> Vec<Step>,
}

const RUNGS: &[Rung] = &[
    Rung {
        name: "test",
        shows: "format, lints, unit, property and doc tests; the main job; no_std builds without alloc",
        budget: (20, 20),
        needs: test::NEEDS,
        steps: test::steps,
    },
    Rung {
        name: "loom",
        shows: "rings, return list, wakes, slot life cycle, fallback, workers; seeded faults all caught",
        budget: (15, 120),
        needs: &[],
        steps: loom::steps,
    },
    Rung {
        name: "miri",
        shows: "core's tests without undefined behaviour; also 32-bit and big-endian",
        budget: (12, 40),
        needs: miri::NEEDS,
        steps: miri::steps,
    },
    Rung {
        name: "kernel",
        shows: "generated programs answer as on this machine's io_uring; seeded engine faults all caught",
        budget: (12, 120),
        needs: kernel::NEEDS,
        steps: kernel::steps,
    },
];

/// Rungs of the design that do not exist yet, and what they wait for.
const NOT_BUILT: &[(&str, &str)] = &[
    ("guest", "needs the NVMe and virtio backends"),
    ("fuzz", "comes with the hostile peers: SQE memory, NVMe and virtio devices"),
];

/// Prints what there is.
pub fn list() {
    for rung in RUNGS {
        println!("{:<8} {} ({} min)", rung.name, rung.shows, rung.budget.0);
    }
    for (name, why) in NOT_BUILT {
        println!("{name:<8} not built yet: {why}");
    }
}

/// Runs the rungs of these names, or all.
pub fn run(names: &[String], context: &Context) -> ExitCode {
    for name in names {
        if let Some((_, why)) = NOT_BUILT.iter().find(|(other, _)| other == name) {
            eprintln!("the rung `{name}` is not built yet: {why}");
            return ExitCode::from(2);
        }
        if !RUNGS.iter().any(|rung| rung.name == name) {
            eprintln!("there is no rung `{name}`; `cargo verify --list` names them");
            return ExitCode::from(2);
        }
    }
    let chosen = RUNGS.iter().filter(|r| names.is_empty() || names.iter().any(|n| n == r.name));
    if let Err(e) = std::fs::create_dir_all(&context.work) {
        eprintln!("{} cannot be made: {e}", context.work.display());
        return ExitCode::from(2);
    }
    let start = Instant::now();
    let results: Vec<_> = chosen.map(|rung| (rung, climb(rung, context))).collect();
    report(&results, names.is_empty(), start.elapsed())
}

/// What became of a rung.
struct Climb {
    outcomes: Vec<Outcome>,
    /// Why it could not run on this machine.
    missing: Option<String>,
    budget: Duration,
}

fn climb(rung: &Rung, context: &Context) -> Climb {
    let minutes = if context.deep { rung.budget.1 } else { rung.budget.0 };
    let budget = Duration::from_secs(minutes * 60).mul_f64(context.scale);
    println!("\n== {}: {} (at most {:.0} min)", rung.name, rung.shows, budget.as_secs_f64() / 60.0);
    let deadline = Instant::now() + budget;
    for need in rung.needs {
        if let Err(why) = need.provide() {
            println!(
                "\n!! THE RUNG {} CANNOT RUN ON THIS MACHINE\n!! {why}\n",
                rung.name.to_uppercase()
            );
            return Climb { outcomes: Vec::new(), missing: Some(why), budget };
        }
    }
    let mut outcomes = Vec::new();
    for (number, step) in (rung.steps)(context).into_iter().enumerate() {
        println!("  {}", step.name());
        let log = context.work.join(format!("{}-{number:02}.log", rung.name));
        let outcome = step.carry_out(&log, deadline);
        match &outcome.failure {
            None => println!("    ok, {:.1} s", outcome.took.as_secs_f64()),
            Some(why) => println!("    FAILED after {:.1} s: {why}", outcome.took.as_secs_f64()),
        }
        outcomes.push(outcome);
    }
    Climb { outcomes, missing: None, budget }
}

fn report(results: &[(&Rung, Climb)], all: bool, took: Duration) -> ExitCode {
    let ci = std::env::var_os("CI").is_some_and(|value| value == "true");
    let (mut passed, mut failed) = (0, 0);
    println!(
        "\n{:<8} {:>6} {:>6} {:>8} {:>8}  slowest step",
        "rung", "passed", "failed", "min", "budget"
    );
    for (rung, climb) in results {
        let bad = climb.outcomes.iter().filter(|outcome| outcome.failure.is_some()).count();
        let good = climb.outcomes.len() - bad;
        // What could not run is no pass; where nobody looks, it is a failure.
        let cannot = usize::from(climb.missing.is_some() && ci);
        passed += good;
        failed += bad + cannot;
        let spent: Duration = climb.outcomes.iter().map(|outcome| outcome.took).sum();
        let slowest = climb.outcomes.iter().max_by_key(|outcome| outcome.took);
        println!(
            "{:<8} {good:>6} {:>6} {:>8.1} {:>8.1}  {}",
            rung.name,
            bad + cannot,
            spent.as_secs_f64() / 60.0,
            climb.budget.as_secs_f64() / 60.0,
            match (&climb.missing, slowest) {
                (Some(why), _) => format!("DID NOT RUN: {why}"),
                (None, Some(step)) => format!("{} ({:.0} s)", step.name, step.took.as_secs_f64()),
                (None, None) => String::new(),
            }
        );
    }
    if all {
        for (name, why) in NOT_BUILT {
            println!("{name:<8} not built yet: {why}");
        }
    }
    for (rung, climb) in results {
        for outcome in climb.outcomes.iter().filter(|outcome| outcome.failure.is_some()) {
            println!("failed: {}: {}", rung.name, outcome.name);
        }
    }
    println!("{:.1} min in all", took.as_secs_f64() / 60.0);
    println!("verify: {passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed != 0))
}
