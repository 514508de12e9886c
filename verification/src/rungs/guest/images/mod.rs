//! Images without an operating system (`examples/unikernel`), each booted with
//! a device or two and the scenarios that it shall run.

mod fat;
mod machine;
mod plan;
mod running;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use fat::Fat;
use machine::Machine;
use plan::Planned;
use running::{Ended, Running};

use crate::rungs::exec::Cmd;
use crate::rungs::needs::Need;
use crate::rungs::{Found, Step, Wishes, target_dir};

/// Where the images are built for.
const TARGETS: &[&str] = &["x86_64-unknown-none", "aarch64-unknown-none"];
/// What the images need besides the guest's own.
pub const NEEDS: [Need; 3] =
    [Need::Targets(TARGETS), Need::Programs(&[machine::QEMU_ARM]), Need::Programs(fat::PROGRAMS)];

const PACKAGE: &str = "annulus-unikernel";
/// What a scenario's words have in them that needs the build with faults.
const FAULT: &str = " fault=";

/// The steps of what is wanted.
pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let wanted = |text: &str| {
        wishes.rest.is_empty() || wishes.rest.iter().any(|wish| text.contains(wish.as_str()))
    };
    let mut machines = Vec::new();
    for planned in plan::all() {
        machines.extend(steps_of(planned, wanted, wishes.budget_scale));
    }
    if machines.is_empty() {
        return machines;
    }
    let faulty = machines.iter().any(|step| step.name.contains(FAULT));
    let mut steps = vec![Step::command("the images", build())];
    if faulty {
        steps.push(Step::command("the images, with seeded faults", build_faulty()));
    }
    steps.append(&mut machines);
    steps
}

fn build() -> Cmd {
    let targets = TARGETS.iter().flat_map(|target| ["--target", target]);
    Cmd::cargo(&["build", "--release", "-p", PACKAGE]).args(targets)
}

fn build_faulty() -> Cmd {
    let flags = format!("{} --cfg annulus_faults", std::env::var("RUSTFLAGS").unwrap_or_default());
    build().env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", target_dir("faults"))
}

/// The image for a machine, as it is or with seeded faults.
fn image(machine: &Machine, faulty: bool) -> PathBuf {
    let base = target_dir(if faulty { "faults" } else { "" });
    base.join(machine.kind.target()).join("release").join(PACKAGE)
}

/// What a planned machine does of what is wanted.
fn steps_of(planned: Planned, wanted: impl Fn(&str) -> bool, scale: f64) -> Vec<Step> {
    let Planned { machine, scenarios, failing, checks } = planned;
    let title = |words: &str| format!("{}: {words}", machine.name);
    let whole = scenarios.iter().all(|(words, _)| wanted(&title(words)));
    let scenarios: Vec<_> =
        scenarios.iter().copied().filter(|(words, _)| wanted(&title(words))).collect();
    let mut steps = Vec::new();
    if !scenarios.is_empty() {
        let names: Vec<&str> = scenarios.iter().map(|(words, _)| *words).collect();
        let session = Session { machine: machine.clone(), scale, running: None, left: names };
        let session = Rc::new(RefCell::new(session));
        for (words, seconds) in scenarios {
            let session = Rc::clone(&session);
            steps.push(Step::check(title(words), move |left| {
                session.borrow_mut().run(words, seconds, left)
            }));
        }
        steps.push(Step::check(title("ends by itself"), move |left| {
            session.borrow_mut().ends(left)
        }));
    }
    for &(words, why, seconds) in failing.iter().filter(|(words, ..)| wanted(&title(words))) {
        let machine = machine.clone();
        steps.push(Step::check(title(&format!("{words}, as it must")), move |left| {
            fails(&machine, words, why, Duration::from_secs(seconds).mul_f64(scale).min(left))
        }));
    }
    // They are about what all of its scenarios have done.
    for &(what, check) in checks.iter().filter(|_| whole) {
        let dir = dir(&machine);
        steps.push(Step::check(title(what), move |_| check(&dir)));
    }
    steps
}

/// Where a machine's files lie.
fn dir(machine: &Machine) -> PathBuf {
    target_dir("guest").join("images").join(&machine.name)
}

fn start(machine: &Machine, scenarios: &[&str]) -> Result<Running, String> {
    let faulty = scenarios.iter().any(|words| words.contains(FAULT));
    Running::start(machine, &image(machine, faulty), &scenarios.join(" ; "), &dir(machine))
}

/// A machine that must fail, and say `why`; no words are a machine that says
/// nothing more.
fn fails(machine: &Machine, words: &str, why: &str, limit: Duration) -> Found {
    let mut running = start(machine, &[words])?;
    match running.scenario(words, limit) {
        Ended::Good(said) => Err(format!("    IT PASSED: {said}")),
        Ended::Bad(said) if said.contains(why) => Ok(String::new()),
        Ended::Bad(said) => Err(format!("    it does not say {why:?} but {said}")),
    }
}

/// A machine over the steps that use it.
struct Session {
    machine: Machine,
    scale: f64,
    running: Option<Running>,
    /// What is still to be run, in this order.
    left: Vec<&'static str>,
}

impl Session {
    /// Waits for what the image says of a scenario. One that fails in a way
    /// that ends the image has the rest run in a new one.
    fn run(&mut self, words: &'static str, seconds: u64, left: Duration) -> Found {
        if self.running.is_none() {
            self.running = Some(start(&self.machine, &self.left)?);
        }
        self.left.retain(|other| *other != words);
        let running = self.running.as_mut().ok_or("it does not run")?;
        let limit = Duration::from_secs(seconds).mul_f64(self.scale).min(left);
        match running.scenario(words, limit) {
            Ended::Good(said) => Ok(format!("    {said}")),
            Ended::Bad(why) => {
                self.running = None;
                Err(format!("    {why}"))
            }
        }
    }

    fn ends(&mut self, left: Duration) -> Found {
        match self.running.take() {
            Some(running) => running.ends(left).map(|()| String::new()),
            None => Err("    it does not run any more".into()),
        }
    }
}
