//! The threads of the worker pool, and what they share with the engine.
//!
//! A thread that cannot be made just now is tried again by whoever drives the
//! ring, between other things: its sleep has a deadline as long as one is owed.
//! An application that drives its ring itself and is outside of it is asked to
//! come back (TASKRUN, and the eventfd), for nobody else would try.

use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use annulus::Stats;
use annulus::hal::{Cancel, Clock, Token};
use annulus::worker::{Class, Load, Pool, Seat, Spawn, SpawnError, Worker};

use super::blocks::Blocks;
use super::held::Held;
use super::job::{Job, Op};
use super::lane::Lane;
use super::order::{Next, Order, Span};

use crate::threads;

/// A worker without work leaves after this long, as in io-wq.
const IDLE_NS: u64 = 5_000_000_000;

/// Between two tries to make a thread.
const RETRY_NS: u64 = 5_000_000;

/// After so long a shortage counts as final: the work of a class without any
/// worker is cancelled, one that has some grows no further for now.
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

    /// Carries a job out that is the caller's, a worker's, and after it those
    /// of its run.
    fn carry_out(&self, index: u32) {
        let mut next = Some(Next { index, in_run: true });
        while let Some(Next { index, in_run }) = next {
            if !in_run {
                // At the end of the queue, for others wait, too. The worker
                // will look there.
                return self.hand_on(index);
            }
            // SAFETY: the request is in flight, so its memory is promised.
            next = self.end(index, |job| unsafe { job.carry_out(&self.blocks) });
        }
    }

    /// Queues a job whose turn has come.
    fn hand_on(&self, index: u32) {
        if !self.pool.push(Class::Bounded, index) {
            // The end has come, for those behind it as well.
            self.cancel(index);
        }
    }

    /// Ends one job; answers whose turn it is.
    fn end(&self, index: u32, run: impl FnOnce(&mut Job) -> i32) -> Option<Next> {
        // SAFETY: the pool, or a chain, handed us the index.
        let job = unsafe { self.job(index as usize) };
        let result = run(job);
        let (token, inode) = (job.token, job.inode);
        job.let_go(&self.held, &self.blocks);
        // Before the slot may be the next request's, as its record may from
        // here on.
        let next = inode.and_then(|_| self.order.leave(index));
        // Never stale: the engine waits for exactly this one.
        let _ = self.lane.complete(token, result);
        next
    }

    /// Cancels a job that had its turn and has not begun.
    fn cancel(&self, index: u32) {
        let mut next = self.end(index, |_| -libc::ECANCELED);
        while let Some(Next { index, .. }) = next {
            if self.pool.push(Class::Bounded, index) {
                return;
            }
            next = self.end(index, |_| -libc::ECANCELED);
        }
    }

    /// Cancels a job that waited for its turn, and has left.
    fn cancel_waiting(&self, index: u32) {
        // SAFETY: the chain handed us the index.
        let job = unsafe { self.job(index as usize) };
        // It never had its turn, so it gives none on.
        job.inode = None;
        self.end(index, |_| -libc::ECANCELED);
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
    /// Since when a class has not got the thread that it needs.
    failing_since: [Cell<u64>; 2],
    /// Work is queued that nobody has been woken for.
    pushed: bool,
    /// A thread could not be made for a passing reason, and is tried again.
    owed: bool,
    /// When.
    retry_at: Cell<u64>,
}

impl Workers {
    /// A pool for `slots` requests. Threads are made when there is work.
    pub fn new(slots: usize, limits: Limits, blocks: Blocks, lane: Lane) -> Self {
        // More than requests could never all have work.
        let seats = 2 * slots;
        let shared = Shared {
            jobs: (0..slots).map(|_| UnsafeCell::new(Job::empty())).collect(),
            held: Held::new(slots),
            blocks,
            order: Order::new(slots),
            pool: Pool::new(
                vec![0; slots].into_boxed_slice(),
                (0..seats).map(|_| Seat::new()).collect(),
                slots,
            ),
            lane,
        };
        shared.pool.set_limit(Class::Bounded, limits.bounded, lane.host());
        shared.pool.set_limit(Class::Unbounded, limits.unbounded, lane.host());
        Self {
            shared: Arc::new(shared),
            threads: RefCell::new((0..seats).map(|_| None).collect()),
            failing_since: [const { Cell::new(0) }; 2],
            pushed: false,
            owed: false,
            retry_at: Cell::new(0),
        }
    }

    /// Queues the job of slot `index`; the record is the workers' now.
    pub fn push(&mut self, class: Class, index: usize) {
        // SAFETY: filled by the engine just now, and still its own.
        let job = unsafe { self.shared.job(index) };
        let span = job.inode.map(|file| Span {
            file,
            write: job.op != Op::Read,
            bytes: match job.op {
                Op::Read | Op::Write => Some((job.off, job.total - job.done)),
                _ => None,
            },
        });
        if span.is_some_and(|span| !self.shared.order.enter(span, index)) {
            // Whoever is at the file now hands it out, or goes on with it.
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
    fn dispatch(&mut self) {
        self.pushed = false;
        let shared = &self.shared;
        self.owed = shared.pool.dispatch(shared.lane.host(), self, |index| shared.cancel(index));
        if self.owed {
            shared.lane.call_in();
        }
    }

    /// When to [`retry`](Self::retry), if at all.
    pub fn retry_at(&self) -> Option<u64> {
        self.owed.then(|| self.retry_at.get())
    }

    /// Whether it is time to.
    #[inline]
    pub fn due(&self) -> bool {
        self.owed && self.shared.lane.host().now() >= self.retry_at.get()
    }

    /// Tries again to make the thread that is owed, if it is time.
    pub fn retry(&mut self) {
        if self.due() {
            self.dispatch();
        }
    }

    /// Whether nobody but the ring's driver moves what is queued.
    pub fn unattended(&self) -> bool {
        if self.owed {
            self.shared.lane.ring();
        }
        self.owed
    }

    /// Sets the limits that are not 0; tells the old ones.
    pub fn set_limits(&mut self, counts: &mut [u32; 2]) {
        let shared = &self.shared;
        for (class, count) in Class::ALL.into_iter().zip(counts) {
            let old = shared.pool.limit(class);
            if *count != 0 {
                shared.pool.set_limit(class, (*count).min(threads::limit()), shared.lane.host());
            }
            *count = old;
        }
        // Raised, there may be room for what is queued.
        self.dispatch();
    }

    /// What a class is doing.
    pub fn load(&self, class: Class) -> Load {
        self.shared.pool.load(class)
    }

    /// Ends a request if it waits for a worker, or for its turn.
    pub fn cancel(&mut self, token: Token) -> Cancel {
        let (shared, index) = (&self.shared, token.index() as u32);
        if shared.order.take(index) {
            shared.cancel_waiting(index);
        } else if shared.pool.take(index) {
            shared.cancel(index);
            // Its turn is another's now, for whom nobody was woken.
            self.dispatch();
        } else {
            return Cancel::Running;
        }
        Cancel::Ended
    }

    /// What the workers have done.
    pub fn count(&self, stats: &mut Stats) {
        let taken = Class::ALL.map(|class| self.shared.pool.taken(class));
        stats.handovers = taken.iter().sum();
        stats.merged = self.shared.order.merged();
    }

    /// Ends everything that has not begun with `-ECANCELED`.
    pub fn cancel_queued(&mut self) {
        while let Some(index) = self.shared.order.take_waiting() {
            self.shared.cancel_waiting(index);
        }
        self.shared.pool.cancel_queued(|index| self.shared.cancel(index));
        self.owed = false;
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

impl Workers {
    /// A thread could not be made.
    fn not_made(&self, class: Class, tries: u32, e: &io::Error) -> SpawnError {
        if !threads::passes(e) {
            return SpawnError::Final;
        }
        let now = self.shared.lane.host().now();
        let since = &self.failing_since[class as usize];
        if tries == 0 {
            since.set(now);
        }
        self.retry_at.set(now + RETRY_NS);
        match now.saturating_sub(since.get()) {
            passed if passed < KEEP_TRYING_NS => SpawnError::Passing,
            _ => SpawnError::Final,
        }
    }
}

impl Spawn for Workers {
    fn spawn(&self, mut worker: Worker) -> Result<(), SpawnError> {
        let (seat, class, tries) = (worker.seat(), worker.class(), worker.tries());
        if tries > 0 && self.shared.lane.host().now() < self.retry_at.get() {
            // Submissions meanwhile need not pay for a call in vain.
            return Err(SpawnError::Passing);
        }
        let shared = Arc::clone(&self.shared);
        let name = match class {
            Class::Bounded => "annulus-wrk",
            Class::Unbounded => "annulus-wrk-unb",
        };
        let made = threads::spawn(name, move || {
            let host = shared.lane.host();
            while let Some(index) = shared.pool.next(&mut worker, host, IDLE_NS) {
                shared.carry_out(index);
            }
        });
        let thread = made.map_err(|e| self.not_made(class, tries, &e))?;
        // The seat's last thread gave it away as its last act; it is at its
        // very end.
        if let Some(last) = self.threads.borrow_mut()[seat].replace(thread) {
            let _ = last.join();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
