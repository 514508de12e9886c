//! The threads of the worker pool, and what they share with the engine.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use annulus::hal::Clock;
use annulus::worker::{Class, Load, Pool, Seat, Spawn, SpawnError, Worker};

use super::blocks::Blocks;
use super::held::Held;
use super::job::Job;
use super::lane::Lane;
use super::order::Order;
use crate::threads;

/// A worker without work leaves after this long, as in io-wq.
const IDLE_NS: u64 = 5_000_000_000;

/// A class without any worker is tried again for this long before the
/// shortage counts as final and its work is cancelled.
const KEEP_TRYING_NS: u64 = 1_000_000_000;

/// What the engine and the workers share.
pub struct Shared {
    jobs: Box<[UnsafeCell<Job>]>,
    pub held: Held,
    pub blocks: Blocks,
    order: Order,
    pool: Pool<Box<[u32]>, Box<[Seat]>>,
    pub lane: Lane,
}

// SAFETY: a job is the engine's until it is queued, then whoever's the pool
// hands its index to, until the completion; the pool's lock and the return
// list order their accesses. The rest is Sync.
unsafe impl Sync for Shared {}
// SAFETY: nothing in it belongs to a thread.
unsafe impl Send for Shared {}

impl Shared {
    /// The record of slot `index`.
    ///
    /// # Safety
    /// The caller is the one it belongs to (see `Sync`), and holds no other
    /// reference to it.
    #[allow(clippy::mut_from_ref)] // the caller's promise
    pub unsafe fn job(&self, index: usize) -> &mut Job {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.jobs[index].get() }
    }

    /// Ends a job that is the caller's, and lets the next of its file have
    /// its turn.
    fn end(&self, index: u32, run: impl FnOnce(&mut Job) -> i32) {
        let mut next = self.end_one(index, run);
        while let Some(index) = next {
            if self.pool.push(Class::Bounded, index) {
                // At the end of the queue, for others wait, too. If the
                // caller is a worker it will look there; if not, it is
                // emptying the queue.
                return;
            }
            next = self.end_one(index, |_| -libc::ECANCELED);
        }
    }

    /// Ends one job; answers whose turn it is.
    fn end_one(&self, index: u32, run: impl FnOnce(&mut Job) -> i32) -> Option<u32> {
        // SAFETY: the pool, or a chain, handed us the index.
        let job = unsafe { self.job(index as usize) };
        let result = run(job);
        let (token, bucket) = (job.token, job.bucket);
        job.let_go(&self.held, &self.blocks);
        // From here on the record may be the next request's. Never stale:
        // the engine waits for exactly this one.
        let _ = self.lane.complete(token, result);
        bucket.and_then(|bucket| self.order.leave(bucket))
    }

    fn cancel(&self, index: u32) {
        self.end(index, |_| -libc::ECANCELED);
    }

    /// Cancels what waits for its turn behind a job that runs.
    fn cancel_waiting(&self) {
        while let Some(index) = self.order.take_waiting() {
            // SAFETY: the chain handed us the index.
            let job = unsafe { self.job(index as usize) };
            // It never had its turn, so it gives none on.
            job.bucket = None;
            self.end_one(index, |_| -libc::ECANCELED);
        }
    }
}

/// How many workers each class may have.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bounded: u32,
    pub unbounded: u32,
}

/// The pool with its threads. The engine's.
pub struct Workers {
    pub shared: Arc<Shared>,
    /// One a seat, so that the last thread there can be waited for.
    threads: RefCell<Box<[Option<JoinHandle<()>>]>>,
    /// Since when a class without workers has not got one; none if all have.
    failing_since: Cell<Option<u64>>,
    /// Work is queued that nobody has been woken for.
    pushed: bool,
    /// Work is queued that nobody can be woken for: creation failed for a
    /// passing reason.
    pub stranded: bool,
}

impl Workers {
    /// A pool for `slots` requests. Threads are made when there is work.
    pub fn new(slots: usize, limits: Limits, blocks: Blocks, lane: Lane) -> Self {
        let seats = (limits.bounded + limits.unbounded) as usize;
        let shared = Shared {
            jobs: (0..slots).map(|_| UnsafeCell::new(Job::empty())).collect(),
            held: Held::new(slots),
            blocks,
            order: Order::new(slots),
            pool: Pool::new(
                vec![0; slots].into_boxed_slice(),
                (0..seats).map(|_| Seat::new()).collect(),
                limits.bounded as usize,
            ),
            lane,
        };
        Self {
            shared: Arc::new(shared),
            threads: RefCell::new((0..seats).map(|_| None).collect()),
            failing_since: Cell::new(None),
            pushed: false,
            stranded: false,
        }
    }

    /// Queues the job of slot `index`; the record is the workers' now.
    pub fn push(&mut self, class: Class, index: usize) {
        // SAFETY: filled by the engine just now, and still its own.
        let bucket = unsafe { self.shared.job(index) }.bucket;
        if bucket.is_some_and(|bucket| !self.shared.order.enter(bucket, index)) {
            // Whoever is at the file now hands it out.
            return;
        }
        if self.shared.pool.push(class, index as u32) {
            self.pushed = true;
        } else {
            self.shared.cancel(index as u32);
        }
    }

    /// Wakes or makes workers for what was pushed.
    #[inline]
    pub fn kick(&mut self) {
        if self.pushed {
            self.dispatch();
        }
    }

    /// Looks for a worker for everything queued.
    pub fn dispatch(&mut self) {
        self.pushed = false;
        let shared = &self.shared;
        self.stranded =
            shared.pool.dispatch(shared.lane.host(), self, |index| shared.cancel(index));
        if !self.stranded {
            self.failing_since.set(None);
        }
    }

    /// What a class is doing.
    pub fn load(&self, class: Class) -> Load {
        self.shared.pool.load(class)
    }

    /// Ends everything that has not begun with `-ECANCELED`.
    pub fn cancel_queued(&mut self) {
        self.shared.cancel_waiting();
        self.shared.pool.cancel_queued(|index| self.shared.cancel(index));
        self.stranded = false;
    }

    /// Sends the workers away and waits for them.
    pub fn stop(&mut self) {
        let shared = &self.shared;
        shared.pool.stop(shared.lane.host(), |index| shared.cancel(index));
        for thread in self.threads.get_mut() {
            if let Some(thread) = thread.take() {
                // A worker does not panic; if it did, it is gone all the same.
                let _ = thread.join();
            }
        }
    }
}

impl Spawn for Workers {
    fn spawn(&self, mut worker: Worker) -> Result<(), SpawnError> {
        let seat = worker.seat();
        let (class, shared) = (worker.class(), Arc::clone(&self.shared));
        let name = match class {
            Class::Bounded => "annulus-wrk",
            Class::Unbounded => "annulus-wrk-unb",
        };
        let made = threads::spawn(name, move || {
            let host = shared.lane.host();
            while let Some(index) = shared.pool.next(&mut worker, host, IDLE_NS) {
                // SAFETY: the request is in flight, so its memory is promised.
                shared.end(index, |job| unsafe { job.carry_out(&shared.blocks) });
            }
        });
        match made {
            Ok(thread) => {
                // The seat's last thread gave it away as its last act; it is
                // at its very end.
                if let Some(last) = self.threads.borrow_mut()[seat].replace(thread) {
                    let _ = last.join();
                }
                Ok(())
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let now = self.shared.lane.host().now();
                let since = self.failing_since.get().unwrap_or(now);
                self.failing_since.set(Some(since));
                if now.saturating_sub(since) < KEEP_TRYING_NS {
                    Err(SpawnError::Passing)
                } else {
                    Err(SpawnError::Final)
                }
            }
            Err(_) => Err(SpawnError::Final),
        }
    }
}
