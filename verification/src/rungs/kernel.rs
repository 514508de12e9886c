//! The rung `kernel`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use super::exec::Cmd;
use super::{Found, Step, Wishes, call_scripts, fault_programs, programs};
use crate::kernel::Tally;

/// Programs in CI, and with `--deep`.
const PROGRAMS: (u64, u64) = (16_500, 200_000);
/// Programs of the second family in CI, and with `--deep`, by who drives the
/// ring, and how many at once: they wait more than they work, but for the
/// kernel's polling threads.
const HELD: [(&str, u64, u64, u64); 3] =
    [("inline", 7_000, 40_000, 8), ("sqpoll", 2_000, 20_000, 3), ("served", 1_000, 20_000, 8)];
/// Programs of the third family, of two rings, in the same way.
const PAIR: [(&str, u64, u64, u64); 3] =
    [("inline", 1_000, 10_000, 8), ("sqpoll", 300, 3_000, 3), ("served", 500, 5_000, 8)];
/// So many programs of all families must have run inline and with a polling
/// thread.
const TOGETHER: u64 = 20_000;
/// Programs that the kernel runs twice.
const SELF: u64 = 300;
/// Of a hundred operations, how many must move data.
const MOVING: f64 = 60.0;
/// One program of so many may differ once and not again: on a busy machine one of
/// 140 did.
const UNSTEADY: u64 = 40;
/// The seed, unless another is asked for.
const SEED: u64 = 1;

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    if !wishes.rest.is_empty() {
        let rest = wishes.rest.clone();
        return vec![Step::check("programs as asked for", move |left| asked(&rest, left))];
    }
    let count = if wishes.deep { PROGRAMS.1 } else { PROGRAMS.0 };
    let ran = Ran::default();
    let mut steps = vec![
        Step::check(format!("{SELF} programs: the kernel against itself"), |left| {
            let args = ["--kernel-only", "--seed", "7"].map(String::from);
            programs::spread(&exe()?, &args, SELF, JOBS, left).map(|_| String::new())
        }),
        Step::check(format!("{count} programs, seed {SEED}: Annulus against the kernel"), {
            let ran = ran.clone();
            move |left| compare(count, &ran, left)
        }),
    ];
    for (family, what, shares) in
        [("--held", "chains and races", HELD), ("--pair", "two rings", PAIR)]
    {
        for (mode, count, deep, jobs) in shares {
            let count = if wishes.deep { deep } else { count };
            let ran = ran.clone();
            steps.push(Step::check(
                format!("{count} {mode} programs of {what}, seed {SEED}"),
                move |left| {
                    let seed = SEED.to_string();
                    let args = [family, "--seed", &seed, "--mode", mode].map(String::from);
                    let tally = programs::spread(&exe()?, &args, count, jobs, left)?;
                    add(&ran, &tally);
                    match tally.unsteady * UNSTEADY > count {
                        false => Ok(tally.show()),
                        true => Err(format!("{}too many differed once", tally.show())),
                    }
                },
            ));
        }
    }
    steps.push(Step::check(
        format!("{TOGETHER} programs or more have run inline and with a polling thread"),
        move |_| together(&ran.borrow()),
    ));
    steps.extend(fault_programs::steps(wishes));
    steps.extend(call_scripts::steps());
    steps
}

/// Processes for the first family: whoever has every third program has those
/// that a thread polls, so that there is one such thread at a time.
const JOBS: u64 = 3;

pub fn exe() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| e.to_string())
}

/// Programs of all families that have run without a difference, by mode.
type Ran = Rc<RefCell<BTreeMap<String, u64>>>;

fn add(ran: &Ran, tally: &Tally) {
    let mut ran = ran.borrow_mut();
    for (mode, count) in tally.modes.iter().filter(|(mode, _)| !mode.contains(' ')) {
        *ran.entry(mode.clone()).or_default() += count;
    }
}

fn together(ran: &BTreeMap<String, u64>) -> Found {
    let table: String = ran.iter().map(|(mode, n)| format!("{n:>8} programs {mode}\n")).collect();
    let count: u64 = ["inline", "sqpoll"].iter().filter_map(|mode| ran.get(*mode)).sum();
    match count {
        TOGETHER.. => Ok(table),
        _ => Err(format!("{table}only {count} inline and with a polling thread")),
    }
}

fn compare(count: u64, ran: &Ran, left: Duration) -> Found {
    let args = ["--seed".to_owned(), SEED.to_string()];
    let tally = programs::spread(&exe()?, &args, count, JOBS, left)?;
    add(ran, &tally);
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
    let cmd = Cmd::new(fault_programs::exe_for(rest, left)?, &["programs"]);
    let child = cmd.args(rest).start().map_err(|e| e.to_string())?;
    match programs::outcome(child, left) {
        programs::Outcome::Same(value) => {
            let mut tally = Tally::default();
            tally.merge(&value);
            Ok(tally.show())
        }
        programs::Outcome::Different { what, report, .. } => Err(format!("{report}\n{what}")),
    }
}
