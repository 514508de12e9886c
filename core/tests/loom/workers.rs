//! The worker pool: work, sleep, leaving, growth that fails, and the end.

use crate::place::Place;
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
    /// How many workers can be made before making them fails for good.
    makers: RefCell<u32>,
}

fn shop(place: Place, seats: usize, makers: u32) -> Rc<Shop> {
    let seats: Vec<_> = (0..seats).map(|_| Seat::new()).collect();
    let bounded = seats.len();
    Rc::new(Shop {
        place,
        pool: Pool::new([0; 4], seats, bounded),
        done: AtomicU32::new(0),
        finished: EventCount::new(),
        threads: RefCell::default(),
        makers: RefCell::new(makers),
    })
}

/// Makes workers on threads of the model.
struct Maker(Rc<Shop>);

impl Spawn for Maker {
    fn spawn(&self, worker: Worker) -> Result<(), SpawnError> {
        let shop = self.0.clone();
        let left = shop.makers.borrow().checked_sub(1).ok_or(SpawnError::Final)?;
        *shop.makers.borrow_mut() = left;
        let thread = thread::spawn(move || shop.work(worker));
        self.0.threads.borrow_mut().push(thread);
        Ok(())
    }
}

impl Shop {
    /// A worker's life.
    fn work(&self, mut worker: Worker) {
        while let Some(job) = self.pool.next(&mut worker, &self.place, 1) {
            let before = self.done.fetch_or(1 << job, Ordering::Relaxed);
            assert_eq!(before & 1 << job, 0, "a job is carried out once");
            self.finished.notify(&self.place);
        }
    }

    /// Queues a job, and sees to it that somebody takes it. True if it was
    /// cancelled.
    fn give(self: &Rc<Self>, job: u32) -> bool {
        let mut cancelled = false;
        assert!(self.pool.push(CLASS, job));
        let again = self.pool.dispatch(&self.place, &Maker(self.clone()), |index| {
            assert_eq!(index, job);
            cancelled = true;
        });
        assert!(!again);
        cancelled
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
    let shop = shop(Place::new(), 2, 2);
    assert!(!shop.give(0));
    assert!(!shop.give(1));
    shop.wait(0b11);
    assert_eq!(shop.stop(), 0);
}

/// One worker, which sleeps between two jobs, if it gets so far.
pub fn workers_wake() {
    let shop = shop(Place::new(), 1, 1);
    for job in 0..2 {
        assert!(!shop.give(job));
        shop.wait(1 << job);
    }
    assert_eq!(shop.stop(), 0);
}

/// A worker that leaves as soon as it is idle, and work that comes just then.
pub fn workers_leave() {
    let shop = shop(Place::hasty(), 1, 2);
    for job in 0..2 {
        assert!(!shop.give(job));
        shop.wait(1 << job);
    }
    assert_eq!(shop.stop(), 0);
}

/// The same, with nobody to follow the worker that leaves: the second job is
/// carried out or cancelled, never left.
pub fn workers_fail() {
    let shop = shop(Place::hasty(), 2, 1);
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
    let shop = shop(Place::new(), 1, 1);
    assert!(!shop.give(0));
    assert!(!shop.give(1));
    let cancelled = shop.stop();
    assert_eq!(shop.done() ^ cancelled, 0b11, "done or cancelled, not both");
    assert!(!shop.pool.push(CLASS, 2), "no more work");
}
