//! The second family of programs: requests that are held back by links and
//! drains, that wait, that end by time, and that end each other.
//!
//! What such requests do depends on each other more than on data, so these
//! programs have no model that says beforehand what may come: the kernel goes
//! first. Programs are drawn such that its answer is one only, except for what
//! lies in the hands of workers; a difference that is not there again counts as
//! unsteady.

mod buffers;
mod compare;
mod files;
mod generate;
mod program;
mod race;
mod run;
mod show;
mod shrink;
mod world;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use ::annulus::uapi;
use serde_json::json;

use super::annulus::Annulus;
use super::compare::result;
use super::generate::Wish;
use super::shrink::smallest;
use super::target::{Cqe, Target as _};
use super::uring::Kernel;
use super::{DIFFERENT, Options, Tally, watchdog};
use compare::{Difference, compare};
use program::Program;
use run::{Trace, run};
use world::Arena;

/// One program of so many is one of races.
const RACES: u64 = 10;
/// How often a difference must be there again.
const AGAIN: usize = 3;

struct Bench<'a> {
    dir: &'a Path,
    arena: Arena,
    patience: Duration,
    kernel_only: bool,
    /// Everything that takes time is given so many times as much.
    slowly: u32,
}

impl Bench<'_> {
    fn both(&mut self, program: &Program) -> io::Result<(Option<Difference>, Trace, Trace)> {
        let (dir, slowly, arena) = (self.dir, self.slowly, &mut self.arena);
        let theirs = run::<Kernel>(program, slowly, None, dir, arena)?;
        let told = Some((&theirs, self.patience));
        let ours = match self.kernel_only {
            true => run::<Kernel>(program, slowly, told, dir, arena)?,
            false => run::<Annulus>(program, slowly, told, dir, arena)?,
        };
        Ok((compare(program, &ours, &theirs), ours, theirs))
    }

    /// The difference, if it is there every time, and the one that was there once.
    fn steady(
        &mut self,
        program: &Program,
    ) -> io::Result<(Option<Difference>, Trace, Option<Difference>)> {
        let (mut found, _, theirs) = self.both(program)?;
        let once = found.clone();
        for again in 0..AGAIN {
            if found.is_none() {
                break;
            }
            // The machine may be busy.
            self.slowly = 4 << again;
            found = self.both(program)?.0;
        }
        self.slowly = 1;
        let unsteady = once.filter(|_| found.is_none());
        Ok((found, theirs, unsteady))
    }

    fn report(&mut self, wish: &Wish, index: u64, program: &Program) -> io::Result<()> {
        let kind = |found: Option<Difference>| found.map(|found| found.kind);
        let first = kind(self.both(program)?.0);
        let small = smallest(program, Duration::from_secs(30), shrink::simpler, |next| {
            let same = |bench: &mut Self| bench.both(next).is_ok_and(|(d, ..)| kind(d) == first);
            first.is_some() && (0..2).all(|_| same(self))
        });
        println!("the smallest program found that differs:\n{small}");
        self.print(&small)?;
        let only = wish.mode.map_or(String::new(), |mode| format!(" --mode {}", mode.name()));
        println!(
            "to run it again: cargo verify kernel -- --held --seed {} --program {index}{only}",
            wish.seed
        );
        Ok(())
    }

    fn print(&mut self, program: &Program) -> io::Result<()> {
        let (difference, ours, theirs) = self.both(program)?;
        println!("{}:\n{}", Kernel::NAME, compare::show(&theirs));
        println!("{}:\n{}", Annulus::NAME, compare::show(&ours));
        if let Some(Difference { what, .. }) = difference {
            println!("{what} (Annulus against the kernel)");
        }
        Ok(())
    }
}

/// Runs programs of this family in this process.
///
/// # Errors
/// Of the machine.
pub fn main(options: &Options, dir: &Path) -> io::Result<ExitCode> {
    let patience = Duration::from_secs(options.patience);
    let mut bench =
        Bench { dir, arena: Arena::new(), patience, kernel_only: options.kernel_only, slowly: 1 };
    let wish = Wish { seed: options.seed, mode: options.mode };
    let mut tally = Tally::default();
    let mut kinds = BTreeSet::new();
    let dog = watchdog::start(4 * patience + Duration::from_secs(20));
    for index in options.indices() {
        if index % RACES == RACES - 1 {
            let program = race::Program::nth(options.seed, index, options.mode);
            dog.watch(index, &program);
            match program.compare(patience)? {
                Ok(came) => count_races(&mut tally, program.mode().name(), &came),
                Err(what) if options.keep_going => println!("program {index}: {what}"),
                Err(what) => {
                    println!("{program}\n{what}");
                    println!("{}", json!({ "program": index, "what": what }));
                    return Ok(ExitCode::from(DIFFERENT));
                }
            }
            continue;
        }
        let program = generate::program(&wish, index);
        dog.watch(index, &program);
        let (found, theirs, unsteady) = bench.steady(&program)?;
        if let Some(once) = unsteady {
            tally.unsteady += 1;
            if options.keep_going {
                println!("program {index} differed once: {}", once.what);
            }
        }
        if options.program.is_some() {
            println!("{program}");
            bench.print(&program)?;
        }
        let Some(found) = found else {
            count(&mut tally, &program, &theirs);
            continue;
        };
        if options.keep_going {
            if kinds.insert(found.kind) {
                println!("program {index}: {}", found.what);
            }
            continue;
        }
        println!("program {index} of seed {} differs: {}", wish.seed, found.what);
        if !options.no_shrink {
            bench.report(&wish, index, &program)?;
        }
        println!("{}", json!({ "program": index, "what": found.what }));
        return Ok(ExitCode::from(DIFFERENT));
    }
    println!("{}", tally.to_json());
    Ok(ExitCode::SUCCESS)
}

/// What a program of races reached.
fn count_races(tally: &mut Tally, mode: &str, came: &[(u8, Cqe)]) {
    *tally.modes.entry(mode.into()).or_default() += 1;
    *tally.modes.entry(format!("of these {mode}, races")).or_default() += 1;
    for (op, cqe) in came {
        let name = uapi::opcode_name(*op).unwrap_or("?");
        let outcome = if cqe.res < 0 { result(cqe.res) } else { "ok".into() };
        *tally.table.entry(name.into()).or_default().entry(outcome).or_default() += 1;
    }
}

/// What a program reached.
fn count(tally: &mut Tally, program: &Program, trace: &Trace) {
    *tally.modes.entry(program.mode.name().into()).or_default() += 1;
    let sqes = || program.rounds.iter().flat_map(|round| &round.sqes);
    let (mut moved, mut all) = (0, 0);
    for cqe in trace.rounds.iter().flat_map(|seen| &seen.cqes) {
        let Some(sqe) = sqes().find(|sqe| sqe.user_data == cqe.user_data) else { continue };
        let name = uapi::opcode_name(sqe.what.opcode()).unwrap_or("?");
        let outcome = if cqe.res < 0 { result(cqe.res) } else { "ok".into() };
        *tally.table.entry(name.into()).or_default().entry(outcome).or_default() += 1;
        let op = sqe.what.opcode();
        let transfer = [
            uapi::IORING_OP_READ,
            uapi::IORING_OP_READV,
            uapi::IORING_OP_READ_FIXED,
            uapi::IORING_OP_WRITE,
            uapi::IORING_OP_WRITEV,
            uapi::IORING_OP_WRITE_FIXED,
        ];
        all += 1;
        moved += u64::from(transfer.contains(&op) && cqe.res > 0);
    }
    tally.moved += moved;
    tally.operations += all;
    tally.moving += u64::from(2 * moved > all);
}
