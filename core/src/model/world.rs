//! What one execution of a model has: files, a device's queue, a record of
//! what happened.

use super::device::Queue;
use super::file::Content;
use super::place::Arena;
use crate::errno::Errno;
use core::cell::{Cell, RefCell};
use core::fmt;
use loom::thread::{JoinHandle, ThreadId};
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

std::thread_local! {
    /// A model and all of its threads run on one thread of the machine.
    static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
}

/// Nothing in here is loom's but the queue, so that asking for a file or
/// noting an event orders nothing between the threads of a model.
pub(super) struct World {
    /// Whether every deadline has passed when it is looked at.
    pub hasty: bool,
    /// What requests fail with, and how many still may.
    pub failing: Cell<Option<(Errno, u32)>>,
    pub files: RefCell<Vec<Content>>,
    /// The file of each number that is open.
    pub numbers: RefCell<Vec<Option<usize>>>,
    pub queue: Queue,
    /// Rings made so far, and those that have not been dropped.
    pub made: Cell<u32>,
    pub living: Cell<u32>,
    /// Requests started so far.
    pub started: Cell<u32>,
    /// Memory of rings that have been dropped.
    arenas: RefCell<Vec<Arena>>,
    events: RefCell<Vec<String>>,
    threads: RefCell<Vec<ThreadId>>,
}

impl World {
    pub fn new(hasty: bool, failing: Option<(Errno, u32)>) -> Self {
        Self {
            hasty,
            failing: Cell::new(failing),
            files: RefCell::default(),
            numbers: RefCell::default(),
            queue: Queue::new(),
            made: Cell::new(0),
            living: Cell::new(0),
            started: Cell::new(0),
            arenas: RefCell::default(),
            events: RefCell::default(),
            threads: RefCell::default(),
        }
    }

    /// The calling thread's.
    ///
    /// # Panics
    /// Outside of a model.
    pub fn current() -> Rc<Self> {
        let world = WORLD.with(|world| world.borrow().clone());
        world.expect("a ring or file of a model is used outside of `Model::check`")
    }

    pub fn enter(self: &Rc<Self>) {
        WORLD.with(|world| *world.borrow_mut() = Some(self.clone()));
    }

    /// Ends the thread's world, if there is one.
    pub fn leave() -> Option<Rc<Self>> {
        WORLD.with(|world| world.borrow_mut().take())
    }

    /// Keeps a ring's memory until all threads have ended.
    pub fn keep(&self, arena: Arena) {
        self.arenas.borrow_mut().push(arena);
    }

    /// Adds a line to what is shown if the execution fails.
    pub fn note(&self, what: fmt::Arguments<'_>) {
        let thread = loom::thread::current();
        let line = match thread.name() {
            Some(name) => std::format!("{name}: {what}"),
            None => std::format!("thread {}: {what}", self.number(thread.id())),
        };
        self.events.borrow_mut().push(line);
    }

    /// A thread's number: in the order in which they are first heard of.
    fn number(&self, id: ThreadId) -> usize {
        let mut threads = self.threads.borrow_mut();
        threads.iter().position(|&known| known == id).unwrap_or_else(|| {
            threads.push(id);
            threads.len() - 1
        })
    }

    pub fn events(&self) -> Vec<String> {
        self.events.borrow().clone()
    }
}

/// What is only used on one thread of the machine.
struct Here<F>(F);

// SAFETY: the threads of a model are turns on one thread of the machine.
unsafe impl<F> Send for Here<F> {}

impl<F: FnOnce()> Here<F> {
    fn run(self) {
        (self.0)();
    }
}

/// A thread of the model, with a name.
pub(super) fn spawn(name: String, work: impl FnOnce() + 'static) -> JoinHandle<()> {
    let here = Here(work);
    let thread = loom::thread::Builder::new().name(name).spawn(move || here.run());
    thread.expect("a thread of a model")
}

/// Adds a line to what is shown if this execution fails.
///
/// ```ignore
/// annulus::model::note(format_args!("put {key}"));
/// ```
///
/// # Panics
/// Outside of [`Model::check`](super::Model::check).
pub fn note(what: fmt::Arguments<'_>) {
    World::current().note(what);
}
