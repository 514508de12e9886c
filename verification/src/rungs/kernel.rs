//! The rung `kernel`.

use std::path::PathBuf;
use std::time::Duration;

use super::exec::Cmd;
use super::{Found, Step, Wishes, call_scripts, fault_programs, programs, target_dir};

/// Programs in CI, and with `--deep`.
const PROGRAMS: (u64, u64) = (12_000, 200_000);
/// Programs of the second family in CI, and with `--deep`.
const HELD: (u64, u64) = (1_000, 40_000);
/// How many of them at once: they wait more than they work.
const HELD_JOBS: u64 = 8;
/// Programs that the kernel runs twice.
const SELF: u64 = 300;
/// Of a hundred operations, how many must move data.
const MOVING: f64 = 60.0;
/// The seed, unless another is asked for.
const SEED: u64 = 1;

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    if !wishes.rest.is_empty() {
        let rest = wishes.rest.clone();
        return vec![Step::check("programs as asked for", move |left| asked(&rest, left))];
    }
    let count = if wishes.deep { PROGRAMS.1 } else { PROGRAMS.0 };
    let mut steps = vec![
        Step::check(format!("{SELF} programs: the kernel against itself"), |left| {
            let args = ["--kernel-only", "--seed", "7"].map(String::from);
            programs::spread(&exe()?, &args, SELF, jobs(), left).map(|_| String::new())
        }),
        Step::check(
            format!("{count} programs, seed {SEED}: Annulus against the kernel"),
            move |left| compare(count, left),
        ),
    ];
    let (deep, held) = (wishes.deep, if wishes.deep { HELD.1 } else { HELD.0 });
    steps.push(Step::check(
        format!("{held} programs of chains, drains, timeouts and cancellation, seed {SEED}"),
        move |left| {
            let mut args = vec!["--held".to_owned(), "--seed".to_owned(), SEED.to_string()];
            if !deep {
                // Which SQEs a polling thread takes at once, and so what a chain
                // comes before, is a matter of the machine's speed.
                args.extend(["--mode", "inline"].map(String::from));
            }
            programs::spread(&exe()?, &args, held, HELD_JOBS, left).map(|tally| tally.show())
        },
    ));
    steps.extend(fault_programs::steps(wishes));
    steps.extend(call_scripts::steps());
    steps
}

/// As many processes as CPUs: a program uses one and a half.
fn jobs() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).clamp(1, 8)
}

pub fn exe() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| e.to_string())
}

fn compare(count: u64, left: Duration) -> Found {
    let args = ["--seed".to_owned(), SEED.to_string()];
    let tally = programs::spread(&exe()?, &args, count, jobs(), left)?;
    let table = tally.show();
    if tally.programs() < count {
        return Err(format!("{table}only {} of {count} programs ran", tally.programs()));
    }
    if tally.percent() < MOVING {
        return Err(format!("{table}fewer than {MOVING} % of the operations moved data"));
    }
    Ok(table)
}

/// `cargo verify kernel -- --seed N --program K` and the like.
fn asked(rest: &[String], left: Duration) -> Found {
    let has = |name: &str| rest.iter().any(|arg| arg == name);
    let cmd = if has("--fault") {
        fault_programs::build(&target_dir("verify").join("faults.log"), left)?;
        Cmd::new(fault_programs::exe(), &["programs"])
    } else {
        Cmd::new(exe()?, &["programs"])
    };
    let child = cmd.args(rest).start().map_err(|e| e.to_string())?;
    match programs::outcome(child, left) {
        programs::Outcome::Same(value) => {
            let mut tally = crate::kernel::Tally::default();
            tally.merge(&value);
            Ok(tally.show())
        }
        programs::Outcome::Different { what, report, .. } => Err(format!("{report}\n{what}")),
    }
}
