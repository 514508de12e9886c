//! The kernel comparison: the same programs of SQEs on this machine's own
//! io_uring and on Annulus over files.

mod annulus;
mod apart;
mod check;
mod compare;
mod draw;
mod generate;
mod held;
mod interrupt;
mod memory;
mod model;
mod pair;
mod polls;
mod program;
mod registrations;
mod rest;
pub mod rng;
mod run;
mod show;
mod shrink;
mod tally;
mod target;
pub mod threads;
mod uring;
mod watchdog;
mod world;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;

use annulus::Annulus;
use compare::{Difference, compare};
use generate::Wish;
use memory::Arena;
use model::Model;
use program::{Mode, Program};
use run::Trace;
pub use tally::Tally;
use target::Target;
use uring::Kernel;

/// Exit code of a process that found a difference.
pub const DIFFERENT: u8 = 1;
/// One program of so many is one of polls.
const POLLS: u64 = 8;
/// Exit code of a process in which a program hung.
pub const HUNG: u8 = 3;

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The programs' seed
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Only this program, with everything it did
    #[arg(long)]
    pub program: Option<u64>,
    /// The first program
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// From one program to the next
    #[arg(long, default_value_t = 1)]
    pub stride: u64,
    /// How many programs
    #[arg(long, default_value_t = 1000)]
    pub count: u64,
    /// Only rings driven this way: inline, sqpoll, served
    #[arg(long, value_parser = mode)]
    pub mode: Option<Mode>,
    /// The second family: chains, drains, timeouts, cancellation
    #[arg(long)]
    pub held: bool,
    /// The third family: two rings, messages, eventfds, calls, waits
    #[arg(long, conflicts_with = "held")]
    pub pair: bool,
    /// Compare the kernel with itself
    #[arg(long)]
    pub kernel_only: bool,
    /// Switch on a seeded fault (needs a build with --cfg annulus_faults)
    #[arg(long)]
    pub fault: Option<String>,
    /// End at the first difference without making it smaller
    #[arg(long)]
    pub no_shrink: bool,
    /// Go on after a difference, and list the first of each kind
    #[arg(long)]
    pub keep_going: bool,
    /// How many seconds a completion that must come may take
    #[arg(long, default_value_t = 5)]
    pub patience: u64,
}

impl Options {
    /// The numbers of the programs.
    fn indices(&self) -> Vec<u64> {
        match self.program {
            Some(one) => vec![one],
            None => (0..self.count).map(|i| self.first + i * self.stride).collect(),
        }
    }
}

fn mode(name: &str) -> Result<Mode, String> {
    let known = Mode::ALL.into_iter().find(|mode| mode.name() == name);
    known.ok_or_else(|| "one of inline, sqpoll, served".into())
}

/// Runs programs in this process; the last line on standard output is JSON
/// for whoever started it.
///
/// # Errors
/// Of the machine: no io_uring, no temporary directory, no such fault.
pub fn main(options: &Options) -> io::Result<ExitCode> {
    select_fault(options.fault.as_deref())?;
    // Next to the program: a real file system, where O_DIRECT works.
    let exe = std::env::current_exe()?;
    let parent = exe.parent().unwrap_or(Path::new("."));
    let dir = tempfile::Builder::new().prefix("annulus-kernel-").tempdir_in(parent)?;
    if options.held {
        return held::main(options, dir.path());
    }
    if options.pair {
        return pair::main(options, dir.path());
    }
    let mut bench = Bench {
        dir: dir.path(),
        memory: Arena::new()?,
        patience: Duration::from_secs(options.patience),
        kernel_only: options.kernel_only,
    };
    bench.probe()?;
    let wish = Wish { seed: options.seed, mode: options.mode };
    let mut tally = Tally::default();
    let mut kinds = BTreeSet::new();
    let dog = watchdog::start(Duration::from_secs(4 * options.patience + 20));
    for index in options.indices() {
        if index % POLLS == POLLS - 1 {
            let mode = options.mode.unwrap_or(Mode::ALL[(index / POLLS % 3) as usize]);
            let program = polls::Program::nth(options.seed, index, mode);
            dog.watch(index, &program);
            match program.compare(bench.dir, bench.patience, bench.kernel_only)? {
                Ok(outcomes) => tally.add_polls(program.mode().name(), outcomes),
                Err(fault) if options.keep_going => println!("program {index}: {}", fault.what),
                Err(fault) => {
                    if !options.no_shrink {
                        println!("{program}\n{}\n", fault.what);
                        let small = program.smaller(bench.dir, &fault)?;
                        println!("the smallest program found that goes wrong:\n{small}");
                    }
                    println!("{}", json!({ "program": index, "what": fault.what }));
                    return Ok(ExitCode::from(DIFFERENT));
                }
            }
            continue;
        }
        let program = generate::program(&wish, index);
        dog.watch(index, &program);
        let (result, theirs, unsteady) = bench.steady(&program)?;
        tally.unsteady += u64::from(unsteady);
        if options.program.is_some() {
            println!("{program}");
            print_traces(&mut bench, &program)?;
        }
        let Some(difference) = result else {
            if let (Some(theirs), Ok(plan)) = (&theirs, Model::plan(&program)) {
                tally.add(&program, &plan, theirs);
            }
            continue;
        };
        if options.keep_going {
            if kinds.insert(difference.kind.clone()) {
                println!("program {index} step {}: {}", difference.step, difference.what);
            }
            continue;
        }
        if !options.no_shrink {
            report(&mut bench, &wish, index, &program, &difference)?;
        }
        println!("{}", json!({ "program": index, "what": difference.what }));
        return Ok(ExitCode::from(DIFFERENT));
    }
    println!("{}", tally.to_json());
    Ok(ExitCode::SUCCESS)
}

#[cfg(annulus_faults)]
pub fn select_fault(name: Option<&str>) -> io::Result<()> {
    use ::annulus::fault::{Fault, select};
    if let Some(name) = name {
        let fault = Fault::from_name(name)
            .ok_or_else(|| io::Error::other(format!("there is no seeded fault {name}")))?;
        select(Some(fault));
    }
    Ok(())
}

#[cfg(not(annulus_faults))]
pub fn select_fault(name: Option<&str>) -> io::Result<()> {
    match name {
        None => Ok(()),
        Some(_) => Err(io::Error::other(
            "this build has no seeded faults: build with RUSTFLAGS=\"--cfg annulus_faults\"",
        )),
    }
}

/// What programs run with.
struct Bench<'a> {
    dir: &'a Path,
    memory: Arena,
    patience: Duration,
    kernel_only: bool,
}

impl Bench<'_> {
    /// Says what to do where io_uring cannot be used at all.
    fn probe(&self) -> io::Result<()> {
        let program = Program {
            setup: program::Setup {
                mode: Mode::Inline,
                entries: 1,
                cq_entries: None,
                array: true,
                submit_all: false,
                clamp: false,
                pool: None,
                uapi_layout: false,
                disabled: false,
            },
            steps: Vec::new(),
        };
        match Kernel::setup(&program.setup) {
            Ok(_) => Ok(()),
            Err(errno) => Err(io::Error::other(format!(
                "this machine's io_uring cannot be used ({}): see /proc/sys/kernel/io_uring_disabled \
                 and the container's seccomp profile",
                compare::result(-errno)
            ))),
        }
    }

    fn run<T: Target>(&mut self, program: &Program, plan: &model::Plan) -> io::Result<Trace> {
        run::run::<T>(program, plan, self.dir, &mut self.memory, self.patience)
    }

    /// Runs a program on both sides; the kernel's trace, if it was valid.
    fn both(&mut self, program: &Program) -> io::Result<(Option<Difference>, Option<Trace>)> {
        let Ok(plan) = Model::plan(program) else { return Ok((None, None)) };
        let theirs = self.run::<Kernel>(program, &plan)?;
        let ours = match self.kernel_only {
            true => self.run::<Kernel>(program, &plan)?,
            false => self.run::<Annulus>(program, &plan)?,
        };
        Ok((compare(program, &plan, &ours, &theirs), Some(theirs)))
    }

    /// As [`both`](Self::both), but an order that is not kept only once is
    /// let go: even a page that has just been written can be away for a
    /// moment, on either side. Whether that was so is the last answer.
    fn steady(
        &mut self,
        program: &Program,
    ) -> io::Result<(Option<Difference>, Option<Trace>, bool)> {
        const AGAIN: usize = 2;
        let (mut found, theirs) = self.both(program)?;
        let order = |found: &Option<Difference>| found.as_ref().is_some_and(|d| d.kind == "order");
        if !order(&found) {
            return Ok((found, theirs, false));
        }
        for _ in 0..AGAIN {
            found = self.both(program)?.0;
            if !order(&found) {
                return Ok((found, theirs, true));
            }
        }
        Ok((found, theirs, false))
    }
}

fn print_traces(bench: &mut Bench<'_>, program: &Program) -> io::Result<()> {
    let Ok(plan) = Model::plan(program) else { return Ok(()) };
    let theirs = bench.run::<Kernel>(program, &plan)?;
    println!("{}:\n{}", Kernel::NAME, compare::show(&theirs));
    if !bench.kernel_only {
        let ours = bench.run::<Annulus>(program, &plan)?;
        println!("{}:\n{}", Annulus::NAME, compare::show(&ours));
    }
    Ok(())
}

/// Tells of a difference: how often it comes, and the smallest program.
fn report(
    bench: &mut Bench<'_>,
    wish: &Wish,
    index: u64,
    program: &Program,
    first: &Difference,
) -> io::Result<()> {
    const AGAIN: usize = 5;
    let mut again = 0;
    for _ in 0..AGAIN {
        again += usize::from(bench.both(program)?.0.is_some());
    }
    println!(
        "program {index} of seed {} differs at step {}: {}",
        wish.seed, first.step, first.what
    );
    println!("it differed {again} times of {AGAIN} more\n");
    // One that comes and goes cannot be made smaller by trying once.
    let tries = if again == AGAIN { 1 } else { 4 };
    let small = shrink::shrink(program, Duration::from_secs(40), |next| {
        let same = |d: Option<Difference>| d.is_some_and(|d| d.kind == first.kind);
        (0..tries).any(|_| bench.steady(next).is_ok_and(|(difference, ..)| same(difference)))
    });
    println!("the smallest program found that differs:\n{small}");
    if let Some(difference) = bench.both(&small)?.0 {
        println!("at step {}: {} (Annulus against the kernel)\n", difference.step, difference.what);
    }
    print_traces(bench, &small)?;
    let only = wish.mode.map_or(String::new(), |mode| format!(" --mode {}", mode.name()));
    println!(
        "to run it again: cargo verify kernel -- --seed {} --program {index}{only}",
        wish.seed
    );
    Ok(())
}

#[cfg(test)]
mod tests;
