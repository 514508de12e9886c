//! The rung `guest`: virtual machines with emulated devices.
//!
//! How to add a scenario stands in the text of `annulus-guest`
//! (`guest/src/lib.rs`).

mod bench;
mod cpio;
mod image;
mod images;
mod load;
mod machine;
mod plan;
mod power_cut;
mod qmp;
mod running;
pub mod soak;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use image::TARGET;
use machine::Machine;
use plan::Planned;
use running::{Ended, Running};

use super::embedded;
use super::needs::Need;
use super::{Found, Step, Wishes, target_dir};

/// What the rung needs.
pub const NEEDS: &[Need] = &[
    Need::Targets(&[TARGET]),
    images::NEEDS[0],
    images::NEEDS[1],
    Need::Programs(&[embedded::QEMU]),
    images::NEEDS[2],
    Need::Programs(&[running::QEMU, ("depmod", "kmod"), ("dpkg-deb", "dpkg"), ("fio", "fio")]),
];

/// What a scenario's words have in them that needs the build with faults.
const FAULT: &str = " fault=";

/// How long a guest may take until it is set up, and to power off.
const BOOT: Duration = Duration::from_secs(120);
const OFF: Duration = Duration::from_secs(30);

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let wanted = |words: &str| {
        wishes.rest.is_empty() || wishes.rest.iter().any(|wish| words.contains(wish.as_str()))
    };
    let mut steps = Vec::new();
    let mut machines = Vec::new();
    for planned in plan::all() {
        machines.extend(steps_of(planned, wanted, wishes.budget_scale));
    }
    if machines.iter().any(|step| step.name.contains(FAULT)) {
        steps.push(Step::command("the guest's program, with seeded faults", image::build_faulty()));
    }
    steps.append(&mut machines);
    if wanted(bench::NAME) {
        steps.extend(bench::steps(wishes));
    }
    if !steps.is_empty() {
        let programs = Step::command("the guest's programs", image::build());
        steps.splice(0..0, [programs, Step::check("the guest's kernel", image::fetch)]);
    }
    steps.extend(images::steps(wishes));
    steps.extend(embedded::guest_steps(wanted));
    steps
}

/// What a planned machine does of what is wanted.
fn steps_of(planned: Planned, wanted: impl Fn(&str) -> bool, scale: f64) -> Vec<Step> {
    let Planned { machine, scenarios, failing, checks } = planned;
    let name = machine.name;
    let whole = scenarios.iter().all(|(words, _)| wanted(words));
    let scenarios: Vec<_> = scenarios.iter().filter(|(words, _)| wanted(words)).collect();
    let failing: Vec<_> = failing.iter().filter(|(words, ..)| whole || wanted(words)).collect();
    if scenarios.is_empty() && failing.is_empty() {
        return Vec::new();
    }
    let mut session = Session::new(machine, scale);
    let faulty = |words: &str| words.contains(FAULT);
    if scenarios.iter().any(|(words, _)| faulty(words)) || failing.iter().any(|(w, ..)| faulty(w)) {
        session.more = image::faulty();
    }
    let dir = session.dir();
    let session = Rc::new(RefCell::new(session));
    let step = |what: &str, work: fn(&mut Session, Duration) -> Found| {
        let session = Rc::clone(&session);
        Step::check(format!("{name}: {what}"), move |left| work(&mut session.borrow_mut(), left))
    };
    let mut steps = vec![step("boots", Session::boot)];
    for &&(words, seconds) in &scenarios {
        let session = Rc::clone(&session);
        steps.push(Step::check(format!("{name}: {words}"), move |left| {
            session.borrow_mut().run(words, seconds, left)
        }));
    }
    for &&(words, why, seconds) in &failing {
        let session = Rc::clone(&session);
        steps.push(Step::check(format!("{name}: {words}, as it must"), move |left| {
            let limit = Duration::from_secs(seconds);
            session.borrow_mut().fails(words, why, limit, left)
        }));
    }
    steps.push(step("powers off", Session::off));
    // They are about what all of its scenarios have done.
    for &(what, check) in checks.iter().filter(|_| whole) {
        let dir = dir.clone();
        steps.push(Step::check(format!("{name}: {what}"), move |_| check(&dir)));
    }
    steps
}

/// A machine over the steps that use it.
struct Session {
    machine: Machine,
    scale: f64,
    /// What its guest has more than any.
    more: image::Files,
    running: Option<Running>,
}

impl Session {
    fn new(machine: Machine, scale: f64) -> Self {
        Self { machine, scale, more: Vec::new(), running: None }
    }

    /// Where the machine's files lie.
    fn dir(&self) -> PathBuf {
        target_dir("guest").join("machines").join(self.machine.name)
    }

    fn boot(&mut self, left: Duration) -> Found {
        let initramfs = target_dir("guest").join("initramfs");
        image::initramfs(&initramfs, &self.more)?;
        let limit = BOOT.mul_f64(self.scale).min(left);
        let (running, release) = Running::start(&self.machine, &initramfs, &self.dir(), limit)?;
        self.running = Some(running);
        Ok(format!("    Linux {release}"))
    }

    /// Runs a scenario. One that fails ends the machine: the next has a new
    /// one, and nothing of what was left behind.
    fn run(&mut self, words: &str, seconds: u64, left: Duration) -> Found {
        if self.running.is_none() {
            self.boot(left)?;
        }
        let running = self.running.as_mut().ok_or("it does not run")?;
        let limit = Duration::from_secs(seconds).mul_f64(self.scale).min(left);
        match running.run(words, limit) {
            Ended::Passed(text) => Ok(format!("    {text}")),
            Ended::Failed(why) => {
                self.running = None;
                Err(format!("    {why}"))
            }
        }
    }

    /// Runs a scenario that must fail, and say `why`.
    fn fails(&mut self, words: &str, why: &str, limit: Duration, left: Duration) -> Found {
        if self.running.is_none() {
            self.boot(left)?;
        }
        let running = self.running.as_mut().ok_or("it does not run")?;
        match running.run(words, limit.mul_f64(self.scale).min(left)) {
            Ended::Failed(said) if said.contains(why) => Ok(String::new()),
            Ended::Failed(said) => Err(format!("    it does not say {why:?} but {said}")),
            Ended::Passed(text) => Err(format!("    IT PASSED: {text}")),
        }
    }

    fn off(&mut self, left: Duration) -> Found {
        match self.running.take() {
            Some(running) => running.off(OFF.mul_f64(self.scale).min(left)).map(|()| String::new()),
            None => Err("    it does not run any more".into()),
        }
    }
}
