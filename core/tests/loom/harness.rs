//! Runs the models, then every seeded fault against the models that name it.
//!
//! Each run is a process of its own: a model that fails leaves loom's threads
//! where they are, and the switch for the faults is one per process. The
//! outcome of each is deterministic; only the order of the lines in time is
//! not, so they are printed in the order of the table.

use crate::table::{self, Expect, Model};
use annulus::fault::{self, Fault, Kind};
use annulus::sync::watched;
use std::io::Read;
use std::os::unix::process::parent_id;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// In a child: which model to run, and with which fault.
const MODEL: &str = "ANNULUS_MODEL";
const FAULT: &str = "ANNULUS_FAULT";
/// No run comes near it; one that does is an error, not a catch.
const LIMIT: Duration = Duration::from_secs(400);
/// The same when a longer run is asked for.
const LONG_LIMIT: Duration = Duration::from_secs(8 * 3600);
const PREEMPTIONS: &str = "LOOM_MAX_PREEMPTIONS";

static ITERATIONS: AtomicUsize = AtomicUsize::new(0);

pub fn main() -> ExitCode {
    if let Ok(name) = std::env::var(MODEL) {
        return child(&name);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let start = Instant::now();

    let models: Vec<_> = table::MODELS.iter().filter(|m| chosen(m.name)).collect();
    let mut good = true;
    good &= each(
        &models,
        |model| run(model, None),
        |model, run| {
            let verdict = match &run.failure {
                None => format!("{} executions", run.iterations),
                Some(why) => format!("FAILED at execution {}: {why}", run.iterations),
            };
            let bound = bound(model).map_or("all orders".to_owned(), |n| format!("bound {n}"));
            let seconds = run.time.as_secs_f64();
            println!("model {:<20} {bound:<10} {seconds:>6.1} s  {verdict}", model.name);
            run.failure.is_none()
        },
    );
    let clean = start.elapsed();

    let all: Vec<_> = Fault::ALL.iter().copied().filter(|f| f.kind() == Kind::Loom).collect();
    let mut pairs = Vec::new();
    for &fault in &all {
        match table::expect(fault) {
            Expect::Caught(by) => pairs.extend(by.iter().map(|name| (fault, *name, true))),
            Expect::Harmless(model) => pairs.push((fault, model, false)),
            Expect::Unknown => {
                println!("fault {:<24} is in no model's list", fault.name());
                good = false;
            }
        }
    }
    pairs.retain(|(fault, model, _)| chosen(fault.name()) || chosen(model));
    let mut caught = 0;
    good &= each(
        &pairs,
        |(fault, name, _)| run(table::model(name), Some(*fault)),
        |(fault, name, must), run| {
            let verdict = match (&run.failure, must) {
                (Some(why), true) if !run.timed_out => {
                    format!("caught by {name} (execution {}: {why})", run.iterations)
                }
                (None, false) => format!("harmless, by the proof in table.rs ({name} passes)"),
                (Some(why), _) => format!("UNEXPECTED in {name}: {why}"),
                (None, true) => format!("NOT CAUGHT by {name} in {} executions", run.iterations),
            };
            println!("fault {:<24} {verdict}", fault.name());
            caught += usize::from(*must && run.failure.is_some() && !run.timed_out);
            run.failure.is_some() == *must && !run.timed_out
        },
    );
    let must = pairs.iter().filter(|(_, _, must)| *must).count();
    println!(
        "{} models in {:.0} s; {caught} of {must} catches for {} faults in {:.0} s",
        models.len(),
        clean.as_secs_f64(),
        all.len(),
        (start.elapsed() - clean).as_secs_f64()
    );
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A model's bound, raised to what LOOM_MAX_PREEMPTIONS asks for.
fn bound(model: &Model) -> Option<usize> {
    let asked = std::env::var(PREEMPTIONS).ok();
    let least = asked.map_or(0, |n| n.parse().expect("LOOM_MAX_PREEMPTIONS is a number"));
    model.bound.map(|bound| bound.max(least))
}

/// One process's outcome.
struct Run {
    iterations: usize,
    failure: Option<String>,
    timed_out: bool,
    time: Duration,
}

/// Does `work` for each item, two or more at a time, and `report`s in order.
/// True if every report was.
fn each<T: Sync>(
    items: &[T],
    work: impl Fn(&T) -> Run + Sync,
    mut report: impl FnMut(&T, &Run) -> bool,
) -> bool {
    let next = AtomicUsize::new(0);
    let runs: Vec<Mutex<Option<Run>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let lanes = std::thread::available_parallelism().map_or(1, |n| n.get());
    let mut good = true;
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                while let Some(i) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&i| i < items.len())
                {
                    *runs[i].lock().unwrap() = Some(work(&items[i]));
                }
            });
        }
        for (item, slot) in items.iter().zip(&runs) {
            let run = loop {
                if let Some(run) = slot.lock().unwrap().take() {
                    break run;
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            good &= report(item, &run);
        }
    });
    good
}

fn run(model: &Model, fault: Option<Fault>) -> Run {
    let start = Instant::now();
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.env(MODEL, model.name).env_remove(FAULT).stdout(Stdio::piped()).stderr(Stdio::null());
    if let Some(fault) = fault {
        // What comes by where is asked of the model as it is.
        command.env(FAULT, fault.name()).env_remove(watched::SITES);
    }
    let mut child = command.spawn().expect("this program can be started");
    let mut timed_out = false;
    let limit = if std::env::var_os(PREEMPTIONS).is_some() { LONG_LIMIT } else { LIMIT };
    let status = loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            break status;
        }
        if start.elapsed() > limit {
            timed_out = true;
            child.kill().expect("a child can be ended");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut said = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut said).expect("text");
    let (iterations, message) = said.trim().split_once(' ').unwrap_or(("0", "said nothing"));
    let failure = match (timed_out, status.success()) {
        (true, _) => Some(format!("no end after {} s", limit.as_secs())),
        (false, true) => None,
        (false, false) => Some(message.to_owned()),
    };
    Run { iterations: iterations.parse().unwrap_or(0), failure, timed_out, time: start.elapsed() }
}

fn child(name: &str) -> ExitCode {
    if let Ok(name) = std::env::var(FAULT) {
        fault::select(Some(Fault::from_name(&name).expect("a fault's name")));
    }
    // Not unwinding: loom's other threads are in the middle of something.
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("?");
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("?").trim();
        // What loom adds is of no use here.
        let first = match first {
            _ if first.starts_with("deadlock") => "deadlock",
            _ if first.starts_with("Model exceeded") => "no end",
            _ => first.trim_start_matches("Causality violation: "),
        };
        let mut first: String = first.chars().take(90).collect();
        if let (true, Some(at)) = (std::env::var_os("ANNULUS_WHERE").is_some(), info.location()) {
            first = format!("{first} ({at})");
        }
        println!("{} {first}", ITERATIONS.load(Ordering::Relaxed));
        std::process::exit(101);
    }));
    watched::begin();
    let model = table::model(name);
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 5_000;
    builder.preemption_bound = bound(model);
    let body = model.run;
    let parent = parent_id();
    builder.check(move || {
        let iteration = ITERATIONS.fetch_add(1, Ordering::Relaxed);
        if iteration.is_multiple_of(10_000) && parent_id() != parent {
            // Whoever wanted to know is gone.
            std::process::exit(1);
        }
        body();
    });
    watched::passed(name);
    println!("{} passed", ITERATIONS.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}
