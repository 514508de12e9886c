//! The third family of programs: two rings that send each other messages, their
//! eventfds, calls that cancel, waits with every argument, clocks, tags of files,
//! and a ring that starts disabled and restricted.
//!
//! The kernel goes first, as for the second family; here every step ends before
//! the next begins, so that what a call answers, how long a wait takes and
//! whether an eventfd has been rung can be compared, too.

mod calls;
mod compare;
mod draw;
mod program;
mod run;
mod shrink;
mod target;
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
use super::target::Target as _;
use super::uring::Kernel;
use super::{DIFFERENT, Options, Tally, watchdog};
use compare::{Difference, TIME, compare, name, show};
use program::{MESSAGES, Program, TAGS};
use run::{Trace, run};
use world::Arena;

/// How often a difference must be there again.
const AGAIN: usize = 4;

struct Bench<'a> {
    dir: &'a Path,
    arena: Arena,
    patience: Duration,
    kernel_only: bool,
}

impl Bench<'_> {
    /// Runs a program on both sides; everything that takes time is given
    /// `slowly` times as much.
    fn both(
        &mut self,
        program: &Program,
        slowly: u32,
    ) -> io::Result<(Option<Difference>, Trace, Trace)> {
        let (dir, arena) = (self.dir, &mut self.arena);
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
        let (mut found, _, theirs) = self.both(program, 1)?;
        let once = found.clone();
        for again in 0..AGAIN {
            if found.is_none() {
                break;
            }
            // The machine may be busy.
            found = self.both(program, 4 << again)?.0;
        }
        let unsteady = once.filter(|_| found.is_none());
        Ok((found, theirs, unsteady))
    }

    fn report(&mut self, wish: &Wish, index: u64, program: &Program) -> io::Result<()> {
        let kind = |found: Option<Difference>| found.map(|found| found.kind);
        let first = kind(self.both(program, 2)?.0);
        let small = smallest(program, Duration::from_secs(30), shrink::simpler, |next| {
            let same = |bench: &mut Self| bench.both(next, 2).is_ok_and(|(d, ..)| kind(d) == first);
            first.is_some() && (0..2).all(|_| same(self))
        });
        println!("the smallest program found that differs:\n{small}");
        self.print(&small)?;
        let only = wish.mode.map_or(String::new(), |mode| format!(" --mode {}", mode.name()));
        println!(
            "to run it again: cargo verify kernel -- --pair --seed {} --program {index}{only}",
            wish.seed
        );
        Ok(())
    }

    fn print(&mut self, program: &Program) -> io::Result<()> {
        let (difference, ours, theirs) = self.both(program, 1)?;
        println!("{}:\n{}", Kernel::NAME, show(&theirs));
        println!("{}:\n{}", Annulus::NAME, show(&ours));
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
    let mut bench = Bench { dir, arena: Arena::new(), patience, kernel_only: options.kernel_only };
    let wish = Wish { seed: options.seed, mode: options.mode };
    let mut tally = Tally::default();
    let mut kinds = BTreeSet::new();
    let dog = watchdog::start(4 * patience + Duration::from_secs(20));
    for index in options.indices() {
        let program = draw::program(&wish, index);
        dog.watch(index, &program);
        let (found, theirs, unsteady) = bench.steady(&program)?;
        if let Some(once) = unsteady {
            tally.unsteady += u64::from(once.kind != TIME);
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

/// What a program reached: outcomes of operations and of calls.
fn count(tally: &mut Tally, program: &Program, trace: &Trace) {
    *tally.modes.entry(program.mode.name().into()).or_default() += 1;
    *tally.modes.entry(format!("of these {}, two rings", program.mode.name())).or_default() += 1;
    let mut add = |name: &str, res: i32| {
        let outcome = if res < 0 { result(res) } else { "ok".into() };
        *tally.table.entry(name.into()).or_default().entry(outcome).or_default() += 1;
    };
    for (step, seen) in program.steps.iter().zip(&trace.steps) {
        add(name(&step.act), seen.answer);
        for cqe in seen.cqes.iter().flatten() {
            let sqe = program.sqes().find(|sqe| sqe.user_data == cqe.user_data);
            match (cqe.user_data, sqe) {
                (TAGS.., _) => add("tag", cqe.res),
                (MESSAGES.., _) => add("message", 0),
                (_, Some(sqe)) => {
                    tally.operations += 1;
                    add(uapi::opcode_name(sqe.what.opcode()).unwrap_or("?"), cqe.res);
                }
                _ => {}
            }
        }
    }
}
