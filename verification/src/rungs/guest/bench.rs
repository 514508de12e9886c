//! The benchmark: who reads how fast from the same emulated controller, in
//! one boot and by turns.

use std::cell::RefCell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use super::Session;
use super::image;
use super::load::Load;
use super::machine::{Controller, Drive, Machine};
use super::running::Running;
use crate::rungs::{Found, Step, Wishes};

/// The name of the machine, and what it is asked for by.
pub const NAME: &str = "bench";
/// The guest's scenario that is one run.
pub const SCENARIO: &str = "measures";
/// Requests in flight.
const DEPTHS: [u64; 3] = [1, 32, 128];

/// Who is measured: what the table calls it, and the arguments of the
/// guest's scenario (`guest/src/scenarios/bench.rs`).
const CONTENDERS: &[(&str, &str)] = &[
    ("kernel, as it comes", "driver=kernel"),
    ("kernel, at its strongest", "driver=kernel-strongest"),
    ("the same, 16 completions at a time", "driver=kernel-strongest wait=16"),
    ("Annulus, polled", "driver=annulus with=--registered,--completions,polled"),
    (
        "the same, 16 completions at a time",
        "driver=annulus wait=16 with=--registered,--completions,polled",
    ),
    (
        "Annulus, polled, SQPOLL on the other processor",
        "driver=annulus with=--registered,--completions,polled,--mode,sqpoll,--sqpoll-cpu,1",
    ),
    ("Annulus, interrupts", "driver=annulus with=--registered,--completions,interrupts"),
    (
        "Annulus, polled, shadow doorbells",
        "driver=annulus with=--registered,--completions,polled,--shadow-doorbells",
    ),
];

/// What QEMU calls the thread that is the guest's first processor.
const FIRST_PROCESSOR: &str = "CPU 0/TCG";

/// How long and how often.
#[derive(Clone, Copy)]
struct Effort {
    seconds: u64,
    rounds: usize,
}

/// For the table that is kept, and for one that shows that it can be made.
const FULL: Effort = Effort { seconds: 4, rounds: 3 };
const SHORT: Effort = Effort { seconds: 2, rounds: 1 };

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let effort = if wishes.deep || !wishes.rest.is_empty() { FULL } else { SHORT };
    let drive = Drive::null(1024);
    let machine = Machine::new(NAME).controller(Controller::new().namespace(drive, 512));
    let session = Rc::new(RefCell::new(Session::new(machine, wishes.budget_scale)));
    let (runs, ends) = (Rc::clone(&session), Rc::clone(&session));
    let Effort { seconds, rounds } = effort;
    vec![
        Step::check(format!("{NAME}: boots"), move |left| {
            let mut session = session.borrow_mut();
            session.more = image::with_libraries("fio", "/bin/fio")?;
            let booted = session.boot(left)?;
            session.running.as_ref().map_or(Ok(()), |running| place(running.process()))?;
            Ok(booted)
        }),
        Step::check(format!("{NAME}: {rounds} x {seconds} s each, by turns"), move |left| {
            measure(&mut runs.borrow_mut(), effort, left)
        }),
        Step::check(format!("{NAME}: powers off"), move |left| ends.borrow_mut().off(left)),
    ]
}

/// Gives the guest's first processor, on which the load is, one of this
/// machine's for itself, and all that works for it the other. Left alone, a
/// processor that polls and the device that it polls for are now and then on
/// the same one, for a part of a run.
fn place(process: u32) -> Result<(), String> {
    let tasks = format!("/proc/{process}/task");
    let failed = |e: std::io::Error| format!("    {tasks}: {e}");
    let mut first = 0;
    for task in fs::read_dir(&tasks).map_err(failed)? {
        let task = task.map_err(failed)?;
        let name = fs::read_to_string(task.path().join("comm")).map_err(failed)?;
        let is_first = name.starts_with(FIRST_PROCESSOR);
        let thread = task.file_name().to_str().and_then(|id| id.parse().ok());
        let thread = thread.and_then(Pid::from_raw).ok_or("    a thread without a number")?;
        let mut processors = CpuSet::new();
        processors.set(usize::from(!is_first));
        sched_setaffinity(Some(thread), &processors).map_err(|e| failed(e.into()))?;
        first += usize::from(is_first);
    }
    if first == 1 { Ok(()) } else { Err(format!("    {first} threads are {FIRST_PROCESSOR}")) }
}

fn measure(session: &mut Session, effort: Effort, left: Duration) -> Found {
    let start = std::time::Instant::now();
    let process = session.running.as_ref().map(Running::process);
    let load = process.map(Load::of_others_than);
    // By contender and depth.
    let mut figures = vec![[const { Vec::new() }; DEPTHS.len()]; CONTENDERS.len()];
    for _ in 0..effort.rounds {
        for (d, depth) in DEPTHS.iter().enumerate() {
            for (c, (name, arguments)) in CONTENDERS.iter().enumerate() {
                let seconds = effort.seconds;
                let words = format!("{SCENARIO} {arguments} depth={depth} seconds={seconds}");
                let left = left.saturating_sub(start.elapsed());
                let said = session.run(&words, 30 + 2 * seconds, left);
                let said = said.map_err(|why| format!("    {name}, depth {depth}:\n{why}"))?;
                let iops = said.split_whitespace().next().and_then(|word| word.parse().ok());
                figures[c][d].push(iops.ok_or_else(|| format!("    no figure in {said:?}"))?);
            }
        }
    }
    let mut text = table(&figures);
    if let Some(load) = load {
        let (others, all) = (load.processors(), std::thread::available_parallelism());
        let all = all.map_or(0, |all| all.get());
        text +=
            &format!("    meanwhile others used {others:.2} of this machine's {all} processors");
    }
    Ok(text)
}

/// In markdown, with thousands of reads a second: the median, and in brackets
/// the least and the most if there are several.
fn table(figures: &[[Vec<f64>; DEPTHS.len()]]) -> String {
    let heads = DEPTHS.map(|depth| format!("depth {depth}")).join(" | ");
    let mut text = format!("    | thousand IOPS, 4 KiB random reads | {heads} |\n");
    text += &format!("    |---|{}\n", "---:|".repeat(DEPTHS.len()));
    for ((name, _), figures) in CONTENDERS.iter().zip(figures) {
        let cells = figures.clone().map(cell).join(" | ");
        text += &format!("    | {name} | {cells} |\n");
    }
    text
}

fn cell(mut runs: Vec<f64>) -> String {
    runs.sort_by(f64::total_cmp);
    let thousand = |iops: f64| format!("{:.1}", iops / 1000.0);
    match runs[..] {
        [] => "-".into(),
        [only] => thousand(only),
        [least, .., most] => {
            let median = thousand(runs[runs.len() / 2]);
            format!("{median} ({} to {})", thousand(least), thousand(most))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_the_median() {
        assert_eq!(cell(vec![30_000.0, 10_000.0, 20_440.0]), "20.4 (10.0 to 30.0)");
        assert_eq!((cell(vec![1_500.0]), cell(Vec::new())), ("1.5".into(), "-".into()));
    }

    #[test]
    fn a_contender_has_a_row() {
        let figures = vec![[const { Vec::new() }; DEPTHS.len()]; CONTENDERS.len()];
        let text = table(&figures);
        assert_eq!(text.lines().count(), 2 + CONTENDERS.len());
        assert!(text.contains("| kernel, as it comes | - | - | - |"), "{text}");
    }
}
