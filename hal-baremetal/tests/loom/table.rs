//! The models, which fault each of them must catch, and running them.

use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use annulus::sync::watched;
use annulus_baremetal::fault::{self, Fault};

use crate::{line, queue};

const MODELS: &[(&str, fn())] = &[
    ("line_on_another_core", line::on_another_core),
    ("line_unordered", line::unordered),
    ("line_and_word", line::and_word),
    ("queue_sleeps", queue::sleeps),
    ("queue_data", queue::data),
];

pub const FAULTS: &[(Fault, &[&str])] = &[
    (Fault::RaiseRelaxed, &["line_unordered"]),
    (Fault::RaiseNoWake, &["line_on_another_core", "line_and_word"]),
    (Fault::RaiseTwoSteps, &["line_on_another_core"]),
    (Fault::TakeRelaxed, &["line_unordered"]),
    (Fault::SleepUnannounced, &["line_on_another_core"]),
    (Fault::SleepNoSecondLook, &["line_on_another_core"]),
    (Fault::ShowUnordered, &["queue_data"]),
    (Fault::ShowNoFence, &["queue_sleeps"]),
    (Fault::LookUnordered, &["queue_data"]),
    (Fault::AskNoFence, &["queue_sleeps"]),
    (Fault::AskNoSecondLook, &["queue_sleeps"]),
    (Fault::EventOneLate, &["queue_sleeps"]),
];

/// In a child: which model to run, and with which fault.
const MODEL: &str = "ANNULUS_MODEL";
const FAULT: &str = "ANNULUS_FAULT";

static EXECUTIONS: AtomicUsize = AtomicUsize::new(0);

pub fn main() -> ExitCode {
    if let Ok(name) = std::env::var(MODEL) {
        return child(&name);
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    let mut good = true;
    for (name, _) in MODELS.iter().filter(|(name, _)| chosen(name)) {
        let (passed, said) = run(name, None);
        println!("model {name:<24} {said}");
        good &= passed;
    }
    for fault in Fault::ALL {
        let listed = FAULTS.iter().find(|(other, _)| other == fault);
        let Some((_, models)) = listed else {
            println!("fault {:<24} is in no model's list", fault.name());
            good = false;
            continue;
        };
        for model in models.iter().filter(|model| chosen(model) || chosen(fault.name())) {
            let (passed, said) = run(model, Some(*fault));
            let verdict = if passed { "NOT CAUGHT" } else { "caught" };
            println!("fault {:<24} {verdict} by {model} ({said})", fault.name());
            good &= !passed;
        }
    }
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(model: &str, fault: Option<Fault>) -> (bool, String) {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.env(MODEL, model).env_remove(FAULT).stderr(Stdio::null());
    if let Some(fault) = fault {
        // What comes by where is asked of the model as it is.
        command.env(FAULT, fault.name()).env_remove(watched::SITES);
    }
    let output = command.output().expect("this program can be started");
    (output.status.success(), String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn child(name: &str) -> ExitCode {
    if let Ok(name) = std::env::var(FAULT) {
        let fault = Fault::ALL.iter().find(|fault| fault.name() == name);
        fault::select(*fault.expect("a fault's name"));
    }
    // Not unwinding: loom's other threads are in the middle of something.
    std::panic::set_hook(Box::new(|info| {
        let text = info.payload_as_str().unwrap_or("?");
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("?");
        println!("execution {}: {:.80}", EXECUTIONS.load(Ordering::Relaxed), first.trim());
        std::process::exit(101);
    }));
    watched::begin();
    let (_, body) = MODELS.iter().find(|(other, _)| *other == name).expect("a model's name");
    let mut builder = loom::model::Builder::new();
    // Every order, whatever the environment says of other models.
    builder.preemption_bound = None;
    builder.check(|| {
        EXECUTIONS.fetch_add(1, Ordering::Relaxed);
        body();
    });
    watched::passed(name);
    println!("{} executions", EXECUTIONS.load(Ordering::Relaxed));
    ExitCode::SUCCESS
}
