//! The soak on files: rings of every kind, made and ended round after round, with
//! verified operations and injected faults of all kinds, for as long as is asked.
//!
//! A round is some lanes ([`lane`]), each a ring with a thread and files of its
//! own. What a lane does follows from the seed and the round's number; how threads
//! meet does not.

mod block;
mod disk;
mod draw;
mod fails;
mod group;
mod judge;
mod lane;
mod pages;
mod place;
mod plan;
mod tally;

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use annulus_guest::leaks::Holding;
use serde_json::json;

use crate::kernel::rng::Rng;
use lane::Lane;
use place::Place;
use plan::Plan;
use tally::Tally;

/// Rounds after which memory must not grow any more.
const WARM: u64 = 8;
/// Between two lines that tell how far it is.
const TELL: Duration = Duration::from_secs(300);

/// What to run.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// For how long
    #[arg(long, default_value_t = 20.0)]
    pub seconds: f64,
    /// What everything that is drawn depends on
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The first round
    #[arg(long, default_value_t = 0)]
    pub first: u64,
    /// No more rounds than that
    #[arg(long)]
    pub rounds: Option<u64>,
    /// Rings at once
    #[arg(long, default_value_t = 3)]
    pub lanes: u64,
    /// Seconds without a completion after which what is in flight is lost
    #[arg(long, default_value_t = 30.0)]
    pub patience: f64,
    /// Where the files are; otherwise where temporary ones are
    #[arg(long)]
    pub dir: Option<PathBuf>,
    /// Switch on a seeded fault (needs a build with --cfg annulus_faults)
    #[arg(long)]
    pub fault: Option<String>,
}

/// A run so far.
#[derive(Debug)]
struct Soak {
    tally: Tally,
    rounds: u64,
    /// What the process had before the first round.
    before: Holding,
    /// The most that it had while it warmed up.
    warm: Holding,
    /// What it has now.
    now: Holding,
    /// What it has more than it may.
    leaked: Vec<String>,
}

impl Soak {
    fn is_good(&self) -> bool {
        self.tally.is_good() && self.leaked.is_empty()
    }

    /// Looks what the process has, between two rounds. Descriptors and threads
    /// never become more; memory may while it warms up.
    fn look(&mut self) -> io::Result<()> {
        let Self { before, warm, rounds, .. } = self;
        (self.now, self.leaked) = Holding::settled(|now| {
            if *rounds <= WARM {
                *warm = warm.most(now);
            }
            Holding { descriptors: before.descriptors, threads: before.threads, ..*warm }
        })?;
        Ok(())
    }
}

/// Runs rounds in this process; the last line on standard output is JSON for
/// whoever started it.
///
/// # Errors
/// No such fault, or of the system.
pub fn main(options: &Options) -> io::Result<ExitCode> {
    crate::kernel::select_fault(options.fault.as_deref())?;
    let dir = match &options.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let place = Place::new(dir.path())?;
    let begun = Instant::now();
    let time = Duration::from_secs_f64(options.seconds);
    let before = Holding::now()?;
    let mut soak = Soak {
        tally: Tally::default(),
        rounds: 0,
        before,
        warm: before,
        now: before,
        leaked: Vec::new(),
    };
    let mut told = begun;
    let mut failed = None;
    for number in options.first.. {
        let left = time.saturating_sub(begun.elapsed());
        if left.is_zero() || options.rounds.is_some_and(|most| soak.rounds == most) {
            break;
        }
        soak.tally.add(round(options, &place, number, left)?);
        soak.rounds += 1;
        soak.look()?;
        if !soak.is_good() {
            failed = Some(number);
            break;
        }
        if told.elapsed() >= TELL {
            told = Instant::now();
            eprintln!("    files, {} min: {}", begun.elapsed().as_secs() / 60, soak.tally);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    report(options, &soak, failed, seconds);
    Ok(ExitCode::from(u8::from(failed.is_some()) * crate::kernel::DIFFERENT))
}

/// Runs the lanes of a round side by side.
fn round(options: &Options, place: &Place, number: u64, left: Duration) -> io::Result<Tally> {
    let patience = Duration::from_secs_f64(options.patience);
    let mut rng = Rng::nth(options.seed, number);
    let lanes: Vec<_> = (0..options.lanes)
        .map(|n| {
            let own = ((number * options.lanes + n) as u32) << 8;
            let mut plan = Plan::draw(&mut rng, own, n, patience);
            plan.time = plan.time.min(left);
            (plan, Rng::new(rng.next()))
        })
        .collect();
    let mut tally = Tally::default();
    std::thread::scope(|scope| {
        let threads: Vec<_> = lanes
            .into_iter()
            .map(|(plan, rng)| {
                scope.spawn(move || {
                    let lane = Lane::new(plan, place, rng).map_err(|e| e.to_string())?;
                    lane.run()
                })
            })
            .collect();
        for thread in threads {
            match thread.join() {
                Ok(Ok(lane)) => tally.add(lane),
                Ok(Err(why)) => tally.wrong(why),
                Err(_) => tally.wrong("a lane panicked".into()),
            }
        }
    });
    Ok(tally)
}

fn report(options: &Options, soak: &Soak, failed: Option<u64>, seconds: f64) {
    let Soak { tally, rounds, warm, now, leaked, .. } = soak;
    let mut value = tally.json();
    value["seconds"] = seconds.into();
    value["rounds"] = (*rounds).into();
    value["leaked"] = (tally.slots + leaked.len() as u64).into();
    if *rounds > WARM {
        value["grown"] = json!({
            "resident": now.resident as i64 - warm.resident as i64,
            "allocated": now.allocated as i64 - warm.allocated as i64,
        });
    }
    if let Some(round) = failed {
        for why in tally.problems.iter().chain(leaked) {
            println!("{why}");
        }
        let seed = options.seed;
        println!("the same round: cargo verify soak -- --seed {seed} --first {round} --rounds 1");
        let (lost, wrong) = (tally.lost, tally.wrong);
        let leaked = tally.slots + leaked.len() as u64;
        value["what"] =
            format!("round {round}: lost {lost}, wrong {wrong}, leaked {leaked}").into();
        value["program"] = round.into();
    }
    println!("{value}");
}
