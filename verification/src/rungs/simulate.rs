//! The rung `simulate`: the whole engine, driven by seeds.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use annulus::fault::{Fault, Kind};

use super::exec::Cmd;
use super::kernel::exe;
use super::programs::{Outcome, outcome};
use super::{Found, Step, Wishes, fault_programs};
use crate::simulate::FINDS;

/// Steps in CI, and with `--deep`.
const STEPS: (u64, u64) = (20_000_000, 1_000_000_000);
/// Within so many steps each fault must show.
const WITHIN: u64 = 10_000_000;
/// At least so many faults there must be.
const FAULTS: usize = 20;

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    if !wishes.rest.is_empty() {
        let rest = wishes.rest.clone();
        return vec![Step::check("a run as asked for", move |left| asked(&rest, left))];
    }
    let steps = if wishes.deep { STEPS.1 } else { STEPS.0 };
    let first = if wishes.deep { 1_000_000_000 } else { 1 };
    vec![
        Step::check(format!("{steps} steps from seed {first} on"), move |left| {
            many(&exe()?, first, steps, left)
        }),
        Step::check("build with seeded engine faults", fault_programs::build),
        Step::check("without a fault that build finds nothing", |left| {
            many(&fault_programs::exe(), 1, WITHIN / 10, left)
        }),
        Step::check(format!("{} seeded engine faults are found", FINDS.len()), faults),
    ]
}

/// As many processes as CPUs.
fn jobs() -> u64 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u64).clamp(1, 64)
}

fn start(exe: &Path, args: &[String]) -> Result<Child, String> {
    let cmd = Cmd::new(exe, &["seeds"]).args(args);
    cmd.start().map_err(|e| format!("{}: {e}", cmd.line()))
}

fn many(exe: &Path, first: u64, steps: u64, limit: Duration) -> Found {
    let (began, jobs) = (Instant::now(), jobs());
    let mut children = Vec::new();
    for job in 0..jobs {
        let [first, stride, steps] =
            [first + job, jobs, steps.div_ceil(jobs)].map(|n| n.to_string());
        let args = ["--first", &first, "--stride", &stride, "--steps", &steps];
        children.push(start(exe, &args.map(String::from))?);
    }
    let (mut taken, mut seeds) = (0, 0);
    let mut bad = None;
    for child in children {
        match outcome(child, limit.saturating_sub(began.elapsed())) {
            Outcome::Same(value) => {
                taken += value["steps"].as_u64().unwrap_or(0);
                seeds += value["seeds"].as_u64().unwrap_or(0);
            }
            Outcome::Different { what, report, .. } => {
                bad.get_or_insert(format!("{report}\n{what}"));
            }
        }
    }
    let speed = taken as f64 / began.elapsed().as_secs_f64() / 1e6;
    let said = format!("    {taken} steps, {seeds} seeds, {speed:.1} million steps a second\n");
    match bad {
        Some(why) => Err(why),
        None if taken < steps => Err(format!("{said}    too few")),
        None => Ok(said),
    }
}

/// With each fault switched on something must be found; the table says where.
fn faults(limit: Duration) -> Found {
    if FINDS.len() < FAULTS {
        return Err(format!("there must be {FAULTS}"));
    }
    let mut left = Fault::ALL.iter().filter(|fault| fault.kind() == Kind::Amid);
    if let Some(fault) = left.find(|fault| !FINDS.contains(fault)) {
        return Err(format!("{} is nobody's to find", fault.name()));
    }
    let began = Instant::now();
    let exe = fault_programs::exe();
    let mut table = String::new();
    let mut missed = 0;
    for batch in FINDS.chunks(jobs() as usize) {
        let started: Vec<_> = batch.iter().map(|fault| with(&exe, *fault)).collect();
        for (fault, child) in batch.iter().zip(started) {
            let found = outcome(child?, limit.saturating_sub(began.elapsed()));
            let line = match found {
                Outcome::Different { program: Some(seed), what, .. } => {
                    format!("seed {seed:<6} {what}")
                }
                Outcome::Different { what, .. } => {
                    missed += 1;
                    format!("{what}: nothing was found")
                }
                Outcome::Same(_) => {
                    missed += 1;
                    format!("NOT FOUND in {WITHIN} steps")
                }
            };
            table += &format!("    {:<26} {line}\n", fault.name());
        }
    }
    if missed == 0 { Ok(table) } else { Err(table) }
}

fn with(exe: &Path, fault: Fault) -> Result<Child, String> {
    let within = WITHIN.to_string();
    let args = ["--no-shrink", "--steps", &within, "--fault", fault.name()];
    start(exe, &args.map(String::from))
}

/// `cargo verify simulate -- --seed N` and the like.
fn asked(rest: &[String], left: Duration) -> Found {
    let exe = fault_programs::exe_for(rest, left)?;
    match outcome(start(&exe, rest)?, left) {
        Outcome::Same(value) => Ok(format!("    {value}\n")),
        Outcome::Different { what, report, .. } => Err(format!("{report}\n{what}")),
    }
}
