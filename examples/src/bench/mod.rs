//! `annulus bench`: the engines take turns in short rounds, on the same work.

mod annulus;
mod engine;
mod kernel;
mod medium;
mod nvme;
mod pace;
pub mod plan;
mod pread;
mod report;
mod stats;
mod target;
mod verify;
mod work;

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{BenchArgs, Mode};
use crate::error::{Failure, failed};
use crate::{output, stop};
use engine::{Engine, Load};
use medium::Medium;
use plan::Plan;
use stats::Lane;
use work::{Pass, Work};

/// How long a polling thread waits for work before it sleeps. Short: it would take a processor from
/// the others' rounds.
const SQPOLL_IDLE_MS: u32 = 5;

/// How long a round lasts, when the time allows it.
const ROUND: f64 = 0.25;

/// An odd number, for the median.
const MOST_ROUNDS: u32 = 15;

/// Warming up takes at most this long an engine.
const WARM_UP: Duration = Duration::from_millis(100);

/// A file is read into the page cache up to this size before it is measured.
const WARMED: u64 = 4 << 30;

/// Runs the bench and prints its report.
///
/// # Errors
/// Bad options, what keeps an engine from running, operations that failed, bad blocks, Ctrl-C.
pub fn run(args: &BenchArgs) -> Result<(), Failure> {
    let plan = Plan::new(args)?;
    let medium = plan.rw.map(|_| Medium::open(args, &plan)).transpose()?;
    let mut work = match (&medium, plan.rw) {
        (Some(medium), Some(rw)) => {
            let blocks = medium.size() / plan.bs;
            Some(Work::new(medium.fd(), rw, plan.bs as usize, blocks, plan.depth, plan.verify))
        }
        _ => None,
    };
    // After `work`, so that they are dropped before it: they may have its buffers registered.
    let mut lanes = lanes(&plan, work.as_ref(), medium.as_ref())?;
    if let Some(Medium::File(target)) = &medium
        && !plan.direct
        && !plan.verify
    {
        target.warm(WARMED)?;
    }
    let rounds = ((plan.time.as_secs_f64() / ROUND) as u32).clamp(1, MOST_ROUNDS) | 1;
    let measured = measure(&plan, &mut lanes, work.as_mut(), rounds);
    let interrupted = matches!(measured, Err(Failure::Interrupted));
    if !interrupted {
        measured?;
    }
    // Interrupted, a person still wants to see what there is; a program wants all or nothing.
    lanes.retain(|lane| !lane.rounds.is_empty());
    if plan.json {
        if !interrupted {
            output::print(&report::json(&plan, &lanes));
        }
    } else if !lanes.is_empty() {
        let checked = work.as_ref().map_or(0, |work| work.checked);
        output::print(&report::text(&plan, medium.as_ref(), &lanes, checked));
    }
    if interrupted {
        return Err(Failure::Interrupted);
    }
    verdict(&lanes, medium.as_ref())
}

/// The engines that take part, set up.
fn lanes(plan: &Plan, work: Option<&Work>, medium: Option<&Medium>) -> Result<Vec<Lane>, Failure> {
    let lane = |engine: Box<dyn Engine>| Lane::new(engine, plan);
    let ours: Box<dyn Engine> = match (medium, work) {
        (Some(Medium::Namespace(namespace, _)), Some(work)) => {
            Box::new(nvme::Nvme::new(plan, work, namespace)?)
        }
        _ => Box::new(annulus::Annulus::new(plan, work)?),
    };
    let mut lanes = vec![lane(ours)];
    if plan.compare {
        match kernel::Kernel::new(plan, work) {
            Ok(kernel) => lanes.push(lane(Box::new(kernel))),
            Err(failure) => eprintln!("annulus: {failure}; comparing without it"),
        }
        lanes.push(lane(Box::new(pread::Pread::new()?)));
    }
    Ok(lanes)
}

fn measure(
    plan: &Plan,
    lanes: &mut [Lane],
    mut work: Option<&mut Work>,
    rounds: u32,
) -> Result<(), Failure> {
    let bar = progress(plan, u64::from(rounds) * lanes.len() as u64);
    if plan.verify
        && let Some(work) = work.as_deref_mut()
    {
        bar.set_message("writing blocks to verify");
        whole_file(&mut lanes[0], work, Pass::Fill)?;
    }
    bar.set_message("warming up");
    for lane in &mut *lanes {
        let length = WARM_UP.min(plan.time / 5);
        let ops = round(lane, work.as_deref_mut(), Pass::Timed, 0, Some(length))?;
        lane.pace.calibrate(lane.pace.elapsed_ns() as f64 / ops.max(1) as f64);
        stop::check()?;
    }
    for number in 0..rounds {
        for turn in 0..lanes.len() {
            // Another one is the first in each round: nobody always runs after the same neighbour.
            let lane = (turn + number as usize) % lanes.len();
            let lane = &mut lanes[lane];
            bar.set_message(lane.engine.name());
            if plan.mode != Mode::Inline && plan.compare {
                // Let the threads of the one before fall asleep.
                std::thread::sleep(Duration::from_millis(3 * u64::from(SQPOLL_IDLE_MS)));
            }
            let ops = round(
                lane,
                work.as_deref_mut(),
                Pass::Timed,
                u64::from(number) + 1,
                Some(plan.time / rounds),
            )?;
            lane.note_round(ops);
            bar.inc(1);
            stop::check()?;
        }
        if lanes.iter().any(|lane| lane.errors > 0) {
            // The figures are worth nothing; more of them would not help.
            break;
        }
    }
    if plan.verify
        && let Some(work) = work
    {
        bar.set_message("reading back");
        for lane in lanes {
            whole_file(lane, work, Pass::ReadBack)?;
        }
    }
    bar.finish_and_clear();
    Ok(())
}

/// Runs an engine for a while or over the whole file; its errors are added up. Returns how many
/// operations ended.
fn round(
    lane: &mut Lane,
    work: Option<&mut Work>,
    pass: Pass,
    seed: u64,
    length: Option<Duration>,
) -> Result<u64, Failure> {
    let mut load =
        Load { work, depth: lane.depth, batch: lane.batch, wait: lane.wait, nop_errors: 0 };
    if let Some(work) = &mut load.work {
        work.begin(pass, seed);
    }
    lane.pace.start(length);
    let ops = lane.engine.run(&mut load, &mut lane.pace)?;
    lane.note_end();
    lane.errors += load.nop_errors;
    if let Some(work) = load.work {
        lane.errors += work.errors.count;
        lane.first_error = lane.first_error.take().or(work.errors.first.take());
    }
    Ok(ops)
}

fn whole_file(lane: &mut Lane, work: &mut Work, pass: Pass) -> Result<(), Failure> {
    round(lane, Some(work), pass, 0, None)?;
    stop::check()
}

fn progress(plan: &Plan, length: u64) -> ProgressBar {
    // Hidden by itself when stderr is no terminal. Drawn between rounds only: no thread of its own
    // disturbs them.
    let target =
        if plan.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = ProgressStyle::with_template(
        "{bar:40} {pos}/{len} rounds, {elapsed} of about {duration}  {msg}",
    );
    ProgressBar::with_draw_target(Some(length), target)
        .with_style(style.expect("a valid constant template"))
}

fn verdict(lanes: &[Lane], medium: Option<&Medium>) -> Result<(), Failure> {
    let errors: u64 = lanes.iter().map(|lane| lane.errors).sum();
    let Some(lane) = lanes.iter().find(|lane| lane.errors > 0) else { return Ok(()) };
    let first = lane.first_error.as_deref().unwrap_or("an operation that does nothing failed");
    let more = medium.map_or_else(String::new, Medium::last_failure);
    let name = lane.engine.name();
    Err(failed!("{errors} operations failed; the first, through {name}: {first}{more}"))
}

#[cfg(test)]
mod tests;
