//! The guest's half of the rung `soak`: a machine with a namespace that stalls and
//! one with a block that cannot be read.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;

use super::image;
use super::machine::{Controller, Drive, Machine};
use super::{FAULT, Session};
use crate::rungs::{Found, Step};

/// The guest's scenario.
pub const SCENARIO: &str = "nvme-soak";

/// Seeded faults, the round that shows them, and what the scenario must say.
const FAILING: &[(&str, u64, &str)] =
    &[("PartsOverlap", 0, "bytes at"), ("ResetForgets", 2, "nothing came in 5s")];

/// What it may take more than the time that it was asked for: the last round, and
/// what is late in it.
const MORE: u64 = 150;

/// The machine over the steps that use it.
#[derive(Clone)]
pub struct Half(Rc<RefCell<Session>>);

impl Half {
    /// One that is not booted yet.
    pub fn new(scale: f64) -> Self {
        let failing = Drive::file(128).fails("read", Some(super::plan::BAD), super::plan::EIO);
        let controller = Controller::new()
            .with("mdts", 5)
            .namespace(Drive::file(128), 512)
            .namespace(failing, 512);
        let machine = Machine::new("soak").controller(controller);
        Self(Rc::new(RefCell::new(Session::new(machine, scale))))
    }

    /// What has to be built and booted; with the seeded faults, if that is asked for.
    pub fn begin(&self, faults: bool) -> Vec<Step> {
        let session = Rc::clone(&self.0);
        let mut steps = vec![
            Step::command("the guest's programs", image::build()),
            Step::check("the guest's kernel", image::fetch),
        ];
        if faults {
            let build = image::build_faulty();
            steps.push(Step::command("the guest's program, with seeded faults", build));
        }
        steps.push(Step::check("the guest boots", move |left| {
            let mut session = session.borrow_mut();
            if faults {
                session.more = image::faulty();
            }
            session.boot(left)
        }));
        steps
    }

    /// Runs it for so long: its report.
    ///
    /// # Errors
    /// What was lost, wrong or leaked.
    pub fn run(&self, seconds: u64, seed: u64, left: Duration) -> Result<Value, String> {
        let words = format!("{SCENARIO} seconds={seconds} seed={seed}");
        let said = self.0.borrow_mut().run(&words, seconds + MORE, left)?;
        serde_json::from_str(said.trim()).map_err(|e| format!("the guest says {said:?}: {e}"))
    }

    /// The seeded faults, which it must find, and the end.
    pub fn end(&self, faults: bool) -> Vec<Step> {
        let mut steps = Vec::new();
        for &(fault, first, why) in FAILING.iter().filter(|_| faults) {
            let session = Rc::clone(&self.0);
            let words = format!("{SCENARIO} seconds=4 first={first} patience=5{FAULT}{fault}");
            steps.push(Step::check(format!("{words}, as it must"), move |left| {
                let limit = Duration::from_secs(4 + MORE);
                session.borrow_mut().fails(&words, why, limit, left)
            }));
        }
        let session = Rc::clone(&self.0);
        let off = move |left| -> Found { session.borrow_mut().off(left) };
        steps.push(Step::check("the guest powers off", off));
        steps
    }
}
