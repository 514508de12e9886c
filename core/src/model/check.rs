//! Running a model, and telling why it failed.

use super::world::{self, World};
use crate::errno::Errno;
use core::fmt::Write;
use core::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::cell::RefCell;
use std::panic::PanicHookInfo;
use std::rc::Rc;
use std::string::{String, ToString};
use std::sync::{Arc, Once};

/// Switches of threads in an execution, at most. One that has more does not
/// come to an end: somebody waits for something that does not happen.
const BRANCHES: usize = 20_000;

/// How a model is to be run.
///
/// ```ignore
/// Model::new("put_and_get").preemptions(3).check(|| { ... });
/// ```
#[derive(Clone, Debug)]
pub struct Model {
    name: String,
    preemptions: Option<usize>,
    branches: usize,
    hasty: bool,
    failing: Option<(Errno, u32)>,
}

/// What a model that passed has been through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explored {
    /// How many executions there are within the bounds.
    pub executions: usize,
}

/// The model that this thread of the machine is at.
struct Current {
    model: Model,
    execution: Arc<AtomicUsize>,
}

std::thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

impl Model {
    /// A model in which a running thread is preempted twice in an execution, at
    /// most (`LOOM_MAX_PREEMPTIONS` raises that), deadlines do not pass, and
    /// nothing fails. The name is for what is printed.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            preemptions: Some(2),
            branches: BRANCHES,
            hasty: false,
            failing: None,
        }
    }

    /// At most so many preemptions in an execution. To switch to another thread
    /// where one waits, yields or ends is free.
    pub fn preemptions(mut self, most: usize) -> Self {
        self.preemptions = Some(most);
        self
    }

    /// As many preemptions as there can be.
    pub fn all_preemptions(mut self) -> Self {
        self.preemptions = None;
        self
    }

    /// An execution with more than so many steps of loom is one without an end;
    /// 20,000 otherwise.
    pub fn branches(mut self, most: usize) -> Self {
        self.branches = most;
        self
    }

    /// Every deadline of a wait has passed when it is looked at. Otherwise none
    /// ever passes.
    pub fn deadlines_pass(mut self) -> Self {
        self.hasty = true;
        self
    }

    /// Up to `most` requests of an execution fail with `errno`, any of them.
    pub fn failing(mut self, errno: Errno, most: u32) -> Self {
        self.failing = Some((errno, most));
        self
    }

    /// Runs `body` in every order within the bounds. At its end it has joined
    /// its threads and dropped its rings.
    ///
    /// # Panics
    /// If an execution fails: `body` panics, a thread waits for ever, a cell is
    /// used by two threads at once, or memory is used that a request has. What
    /// led to it is printed before.
    pub fn check(self, body: impl Fn() + Send + Sync + 'static) -> Explored {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let others = std::panic::take_hook();
            std::panic::set_hook(std::boxed::Box::new(move |info| {
                if !report(info) {
                    others(info);
                }
            }));
        });
        let mut loom = loom::model::Builder::new();
        loom.max_branches = self.branches;
        // What was asked for in the environment raises the bound.
        loom.preemption_bound = self.preemptions.map(|n| n.max(loom.preemption_bound.unwrap_or(0)));
        let model = Self { preemptions: loom.preemption_bound, ..self };
        let (hasty, failing) = (model.hasty, model.failing);
        let execution = Arc::new(AtomicUsize::new(0));
        let count = execution.clone();
        CURRENT.set(Some(Current { model, execution: execution.clone() }));
        loom.check(move || {
            count.fetch_add(1, Relaxed);
            let world = Rc::new(World::new(hasty, failing));
            world.enter();
            let device = {
                let world = world.clone();
                world::spawn("device".into(), move || world.queue.work(&world))
            };
            body();
            assert!(world.living.get() == 0, "a ring has not been dropped at the model's end");
            world.queue.end();
            device.join().expect("the device does not panic");
            World::leave();
        });
        let executions = execution.load(Relaxed);
        if let Some(Current { model, .. }) = CURRENT.take() {
            std::println!("model {}: {executions} executions, {}", model.name, model.bound());
        }
        Explored { executions }
    }

    fn bound(&self) -> String {
        match self.preemptions {
            Some(most) => std::format!("at most {most} preemptions in each"),
            None => "any number of preemptions".to_string(),
        }
    }
}

/// What is known of loom's own words.
fn explain(message: &str) -> Option<&'static str> {
    let first = message.trim_start();
    if first.starts_with("deadlock") {
        return Some("every thread waits: a wake-up is missing, or what is waited for never comes");
    }
    if first.starts_with("Model exceeded") {
        return Some("no end: a thread spins without a yield, or waits for what never comes");
    }
    if first.starts_with("Causality violation") {
        return Some("two threads use a cell, and nothing orders them");
    }
    None
}

/// Tells what happened in the execution that fails. False if no model runs on
/// this thread.
fn report(info: &PanicHookInfo<'_>) -> bool {
    let Some(Current { model, execution }) = CURRENT.take() else {
        return false;
    };
    let message = info.payload_as_str().unwrap_or("a panic without words");
    let mut text = String::new();
    let _ = writeln!(
        text,
        "\nmodel {} FAILED in execution {} ({})",
        model.name,
        execution.load(Relaxed),
        model.bound()
    );
    if let Some(world) = World::leave() {
        for (n, event) in world.events().iter().enumerate() {
            let _ = writeln!(text, "{:>4}  {event}", n + 1);
        }
        // It has words of loom's, whose execution ends here.
        core::mem::forget(world);
    }
    if let Some(why) = explain(message) {
        let _ = writeln!(text, "  why  {why}");
    }
    let _ = writeln!(text, "  why  {}", message.trim());
    // Where in loom is of no use here.
    if let Some(at) = info.location().filter(|at| !at.file().contains("/loom-")) {
        let _ = writeln!(text, "   at  {at}");
    }
    std::eprintln!("{text}");
    true
}
