//! The worker pool: work, sleep, leaving, growth that fails, and the end.

use annulus::model::Place;
use annulus::model::{EventCount, wait_until};
use annulus::sync::{AtomicU32, Ordering};
use annulus::worker::{Class, Load, Pool, Seat, Spawn, SpawnError, Worker};
use loom::thread::{self, JoinHandle};
use std::cell::RefCell;
use std::rc::Rc;

const CLASS: Class = Class::Bounded;

/// A pool, and who asked for its work.
struct Shop {
    place: Place,
    pool: Pool<[u32; 4], Vec<Seat>>,
    /// A bit for each job that was carried out.
    done: AtomicU32,
    finished: EventCount,
    threads: RefCell<Vec<JoinHandle<()>>>,
    /// What the next creations answer, the last first. After them they fail
    /// for good.
    script: RefCell<Vec<Result<(), SpawnError>>>,
    /// A job that ends only when the jobs of this set have ended.
    waits: Option<(u32, u32)>,
}

const MADE: Result<(), SpawnError> = Ok(());
const PASSING: Result<(), SpawnError> = Err(SpawnError::Passing);

fn shop(place: Place, seats: usize, script: &[Result<(), SpawnError>]) -> Rc<Shop> {
    Rc::new(plain(place, seats, script))
}

fn plain(place: Place, seats: usize, script: &[Result<(), SpawnError>]) -> Shop {
    let seats: Vec<_> = (0..seats).map(|_| Seat::new()).collect();
    let bounded = seats.len();
    Shop {
        place,
        pool: Pool::new([0; 4], seats, bounded),
        done: AtomicU32::new(0),
        finished: EventCount::new(),
        threads: RefCell::default(),
        script: RefCell::new(script.iter().rev().copied().collect()),
        waits: None,
    }
}

/// Makes workers on threads of the model.
struct Maker(Rc<Shop>);

impl Spawn for Maker {
    fn spawn(&self, worker: Worker) -> Result<(), SpawnError> {
        let shop = self.0.clone();
        shop.script.borrow_mut().pop().unwrap_or(Err(SpawnError::Final))?;
        let thread = thread::spawn(move || shop.work(worker));
        self.0.threads.borrow_mut().push(thread);
        Ok(())
    }
}

impl Shop {
    /// A worker's life.
    fn work(&self, mut worker: Worker) {
        while let Some(job) = self.pool.next(&mut worker, &self.place, 1) {
            if let Some((_, others)) = self.waits.filter(|&(waits, _)| waits == job) {
                self.wait(others);
            }
            let before = self.done.fetch_or(1 << job, Ordering::Relaxed);
            assert_eq!(before & 1 << job, 0, "a job is carried out once");
            self.finished.notify(&self.place);
        }
    }

    /// Queues a job, and sees to it that somebody takes it. True if it was
    /// cancelled.
    fn give(self: &Rc<Self>, job: u32) -> bool {
        assert!(self.pool.push(CLASS, job));
        let (owed, cancelled) = self.dispatch();
        assert!(!owed);
        assert!(cancelled & !(1 << job) == 0, "nothing else was queued");
        cancelled != 0
    }

    /// Looks for workers. Whether one is owed, and what was cancelled.
    fn dispatch(self: &Rc<Self>) -> (bool, u32) {
        let mut cancelled = 0;
        let maker = Maker(self.clone());
        let owed = self.pool.dispatch(&self.place, &maker, |job| cancelled |= 1 << job);
        (owed, cancelled)
    }

    /// Sleeps until these jobs have been carried out.
    fn wait(&self, jobs: u32) {
        let done = || self.done.load(Ordering::Relaxed) & jobs == jobs;
        wait_until(&self.finished, &self.place, None, done).expect("no deadline");
    }

    /// Ends the pool. The jobs that were cancelled.
    fn stop(&self) -> u32 {
        let mut cancelled = 0;
        self.pool.stop(&self.place, |job| cancelled |= 1 << job);
        let threads = std::mem::take(&mut *self.threads.borrow_mut());
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(self.pool.load(CLASS), Load::default(), "everybody has left");
        cancelled
    }

    fn done(&self) -> u32 {
        self.done.load(Ordering::Relaxed)
    }
}

/// Two jobs, one after the other: the second finds the first worker running,
/// going to sleep, or asleep, or makes another. Both are carried out.
pub fn workers_run() {
    let shop = shop(Place::new(), 2, &[MADE; 2]);
    assert!(!shop.give(0));
    assert!(!shop.give(1));
    shop.wait(0b11);
    assert_eq!(shop.stop(), 0);
}

/// One worker, which sleeps between two jobs, if it gets so far.
pub fn workers_wake() {
    let shop = shop(Place::new(), 1, &[MADE]);
    for job in 0..2 {
        assert!(!shop.give(job));
        shop.wait(1 << job);
    }
    assert_eq!(shop.stop(), 0);
}

/// A worker that leaves as soon as it is idle, and work that comes just then.
pub fn workers_leave() {
    let shop = shop(Place::hasty(), 1, &[MADE; 2]);
    for job in 0..2 {
        assert!(!shop.give(job));
        shop.wait(1 << job);
    }
    assert_eq!(shop.stop(), 0);
}

/// The same, with nobody to follow the worker that leaves: the second job is
/// carried out or cancelled, never left.
pub fn workers_fail() {
    let shop = shop(Place::hasty(), 2, &[MADE]);
    assert!(!shop.give(0));
    if !shop.give(1) {
        shop.wait(0b10);
    }
    assert_eq!(shop.stop(), 0);
    assert_eq!(shop.done() & 1, 1);
}

/// The end comes while a worker works, sleeps or has just been made: what has
/// not begun is cancelled, and everybody leaves.
pub fn workers_stop() {
    let shop = shop(Place::new(), 1, &[MADE]);
    assert!(!shop.give(0));
    assert!(!shop.give(1));
    let cancelled = shop.stop();
    assert_eq!(shop.done() ^ cancelled, 0b11, "done or cancelled, not both");
    assert!(!shop.pool.push(CLASS, 2), "no more work");
}

/// A first worker that cannot be made just now is owed until it is made; its
/// job is carried out.
pub fn workers_retry() {
    let shop = shop(Place::new(), 1, &[PASSING, PASSING, MADE]);
    assert!(shop.pool.push(CLASS, 0));
    for owed in [true, true, false] {
        assert_eq!(shop.dispatch(), (owed, 0));
    }
    shop.wait(1);
    assert_eq!(shop.stop(), 0);
}

/// So is one that a class with a worker needs: the worker that there is ends
/// only after the job that waits for the other.
pub fn workers_owed() {
    let mut shop = plain(Place::new(), 2, &[MADE, PASSING, MADE]);
    shop.waits = Some((0, 0b10));
    let shop = Rc::new(shop);
    assert!(!shop.give(0));
    assert!(shop.pool.push(CLASS, 1));
    while shop.dispatch().0 {}
    shop.wait(0b11);
    assert_eq!(shop.stop(), 0);
}

/// A first worker is owed when it turns out that there will be none: what is
/// queued is cancelled, and nothing is owed any more.
pub fn workers_given_up() {
    let shop = shop(Place::hasty(), 2, &[MADE, PASSING]);
    assert!(!shop.give(0));
    shop.wait(1);
    assert!(shop.pool.push(CLASS, 1));
    let mut cancelled = 0;
    loop {
        let (owed, more) = shop.dispatch();
        cancelled |= more;
        if !owed {
            break;
        }
    }
    // Carried out by the first worker, if it had not left.
    if cancelled == 0 {
        shop.wait(0b10);
    }
    assert_eq!(shop.stop(), 0);
    assert_eq!(shop.done() ^ cancelled, 0b11);
}

/// A limit is lowered while a worker is on its way to a job.
pub fn workers_limit() {
    let shop = shop(Place::new(), 2, &[MADE; 2]);
    assert!(shop.pool.push(CLASS, 0));
    assert!(!shop.give(1));
    shop.wait(0b11);
    assert!(!shop.give(2));
    shop.pool.set_limit(CLASS, 1, &shop.place);
    shop.wait(0b100);
    assert_eq!(shop.stop(), 0);
}

/// A worker is made while somebody else ends the pool.
pub fn workers_stop_making() {
    let shop = shop(Place::new(), 1, &[MADE]);
    let maker = {
        let shop = shop.clone();
        thread::spawn(move || {
            let queued = shop.pool.push(CLASS, 0);
            if queued {
                assert_eq!(shop.dispatch(), (false, 0));
            }
            queued
        })
    };
    let mut cancelled = 0;
    shop.pool.stop(&shop.place, |job| cancelled |= 1 << job);
    let queued = maker.join().unwrap();
    assert_eq!(shop.stop(), 0, "nothing was queued after the end");
    assert_eq!(shop.done() ^ cancelled, u32::from(queued));
}
