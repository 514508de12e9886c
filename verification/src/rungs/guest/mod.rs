//! The rung `guest`: virtual machines with emulated devices.
//!
//! How to add a scenario stands in the text of `annulus-guest`
//! (`guest/src/lib.rs`).

mod bench;
mod cpio;
mod image;
mod machine;
mod plan;
mod power_cut;
mod qmp;
mod running;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use image::TARGET;
use machine::Machine;
use running::{Ended, Running};

use super::needs::Need;
use super::{Found, Step, Wishes, target_dir};

/// What the rung needs.
pub const NEEDS: &[Need] = &[
    Need::Targets(&[TARGET]),
    Need::Programs(&[running::QEMU, ("depmod", "kmod"), ("dpkg-deb", "dpkg"), ("fio", "fio")]),
];

/// How long a guest may take until it is set up, and to power off.
const BOOT: Duration = Duration::from_secs(120);
const OFF: Duration = Duration::from_secs(30);
/// What a scenario gets that must fail; one of them takes all of it.
const FAILS: Duration = Duration::from_secs(3);

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let mut steps = vec![
        Step::command("the guest's programs", image::build()),
        Step::check("the guest's kernel", |_| image::fetch()),
    ];
    let wanted = |words: &str| {
        wishes.rest.is_empty() || wishes.rest.iter().any(|wish| words.contains(wish.as_str()))
    };
    for planned in plan::all() {
        let name = planned.machine.name;
        let all_wanted = planned.scenarios.iter().all(|(words, _)| wanted(words));
        let scenarios = planned.scenarios.iter().filter(|(words, _)| wanted(words));
        let machine = Rc::new(RefCell::new(Session::new(planned.machine, wishes.budget_scale)));
        let mut own = Vec::new();
        for &(words, seconds) in scenarios {
            let machine = Rc::clone(&machine);
            own.push(Step::check(format!("{name}: {words}"), move |left| {
                machine.borrow_mut().run(words, seconds, left)
            }));
        }
        if own.is_empty() {
            continue;
        }
        for &(words, why) in planned.failing.iter().filter(|_| all_wanted) {
            let machine = Rc::clone(&machine);
            own.push(Step::check(format!("{name}: {words}, as it must"), move |left| {
                machine.borrow_mut().fails(words, why, left)
            }));
        }
        let boots = Rc::clone(&machine);
        steps
            .push(Step::check(format!("{name}: boots"), move |left| boots.borrow_mut().boot(left)));
        steps.append(&mut own);
        let ends = Rc::clone(&machine);
        steps.push(Step::check(format!("{name}: powers off"), move |left| {
            ends.borrow_mut().off(left)
        }));
        // They are about what all of its scenarios have done.
        for &(what, check) in planned.checks.iter().filter(|_| all_wanted) {
            let dir = machine.borrow().dir();
            steps.push(Step::check(format!("{name}: {what}"), move |_| check(&dir)));
        }
    }
    if wanted(bench::NAME) {
        steps.extend(bench::steps(wishes));
    }
    steps
}

/// A machine over the steps that use it.
struct Session {
    machine: Machine,
    scale: f64,
    /// What the guest has more than any: where it is to lie, and where it is.
    more: Vec<(String, PathBuf)>,
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

    /// Boots it with more files in its initramfs.
    fn boot_with(&mut self, more: Vec<(String, PathBuf)>, left: Duration) -> Found {
        self.more = more;
        self.boot(left)
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
    fn fails(&mut self, words: &str, why: &str, left: Duration) -> Found {
        if self.running.is_none() {
            self.boot(left)?;
        }
        let running = self.running.as_mut().ok_or("it does not run")?;
        match running.run(words, FAILS.mul_f64(self.scale).min(left)) {
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
