//! Workers: threads that carry out what would block the engine.
//!
//! The pool is a state machine without threads of its own. A place makes the
//! threads ([`Spawn`]), lets them sleep ([`Park`]), and keeps what a job is;
//! here are only slot indices, queues and counts.
//!
//! ```text
//!            push          dispatch: wake or make         next
//!  engine ────────▶ queue ┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄┄▶ worker ────────▶ job
//!                     │                            │ ▲ queue empty
//!                     │ stop, drain,               ▼ │ woken
//!                     ▼ no worker can be made     idle ──▶ leaves after a while
//!                  cancelled
//! ```
//!
//! * Two classes, as in io-wq: *bounded* work ends by itself (regular files,
//!   block devices), *unbounded* work may take for ever. One never waits for
//!   the other's workers.
//! * A class grows by what [`dispatch`](Pool::dispatch) finds queued beyond
//!   the workers already on their way, up to its limit. Growth that fails is
//!   not fatal while the class has a worker. Without any, a passing failure
//!   leaves the work queued and asks to be called again, a final one cancels
//!   it; nothing is left hanging.
//! * Idle workers are woken newest first, each on a word of its own: the
//!   caches stay warm, one job wakes one worker, and the surplus ages out.

use crate::fault::{self, Fault};
use crate::hal::{Clock, Park, Parked};
use crate::sync::{Mutex, Ordering};

mod lane;
pub use lane::Seat;
use lane::{IDLE, Lane, NIL};

/// How a job behaves, and so which workers may take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Ends by itself in bounded time.
    Bounded = 0,
    /// May wait for ever for somebody else.
    Unbounded = 1,
}

impl Class {
    /// Both classes.
    pub const ALL: [Class; 2] = [Class::Bounded, Class::Unbounded];
}

/// Why a worker could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpawnError {
    /// Trying again later may work (a signal, a shortage).
    #[error("no worker could be made just now; it is tried again")]
    Passing,
    /// Trying again will not help.
    #[error("no worker can be made; work that needs one is cancelled")]
    Final,
}

/// Makes workers.
pub trait Spawn {
    /// Starts something that calls [`Pool::next`] with `worker` and carries
    /// out the jobs it gets until there is none. Must not wait for it.
    ///
    /// # Errors
    /// Why there is no worker; `worker` is then forgotten.
    fn spawn(&self, worker: Worker) -> Result<(), SpawnError>;
}

/// A worker's place in its pool. Made by the pool, owned by the worker.
#[derive(Debug)]
pub struct Worker {
    class: Class,
    seat: u32,
    /// Woken or just made, and counted in `coming` until it says hello.
    arriving: bool,
}

impl Worker {
    /// The class it works for.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Its seat's index, unique among the living workers of the pool.
    pub fn seat(&self) -> usize {
        self.seat as usize
    }
}

/// What a class is doing, for the eye.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Jobs waiting for a worker.
    pub queued: u32,
    /// Workers: running, idle, or being made.
    pub workers: u32,
    /// Workers that sleep.
    pub idle: u32,
}

#[derive(Debug)]
struct State<L> {
    links: L,
    lanes: [Lane; 2],
    stopping: bool,
}

/// The pool. `L` stores one link a slot, `S` one [`Seat`] a worker.
#[derive(Debug)]
pub struct Pool<L, S> {
    state: Mutex<State<L>>,
    seats: S,
}

/// What [`Pool::dispatch`] has to do outside the lock.
enum Step {
    Wake(u32),
    Make(u32),
    Done,
}

/// What [`Pool::next`] found.
enum Next {
    Job(u32),
    Sleep,
    Leave,
}

impl<L: AsMut<[u32]>, S: AsRef<[Seat]>> Pool<L, S> {
    /// A pool for slots `0..links.len()`; of the seats the first `bounded`
    /// are the bounded class's, the others the unbounded one's.
    ///
    /// A class without a seat has no workers: its work is cancelled.
    pub fn new(links: L, seats: S, bounded: usize) -> Self {
        let mut lanes = [Lane::new(), Lane::new()];
        // Backwards, so that the lowest seat is on top.
        for seat in (0..seats.as_ref().len()).rev() {
            lanes[usize::from(seat >= bounded)].push_free(seats.as_ref(), seat as u32);
        }
        Self { state: Mutex::new(State { links, lanes, stopping: false }), seats }
    }

    /// Queues slot `index`. False if the pool has been stopped: the caller
    /// keeps the job, and cancels it.
    ///
    /// Nobody is woken before [`dispatch`](Self::dispatch), which the engine
    /// calls once a batch.
    pub fn push(&self, class: Class, index: u32) -> bool {
        self.state.with(|state| {
            if state.stopping {
                return false;
            }
            state.lanes[class as usize].push(state.links.as_mut(), index);
            true
        })
    }

    /// Wakes or makes workers until there is one on its way for every queued
    /// job, as far as the limits allow.
    ///
    /// Jobs of a class that cannot have a worker go to `cancelled`. True if
    /// work is left that only another call can move: a class has no worker,
    /// for a passing reason.
    pub fn dispatch(
        &self,
        place: &impl Park,
        spawn: &impl Spawn,
        mut cancelled: impl FnMut(u32),
    ) -> bool {
        let mut again = false;
        for class in Class::ALL {
            loop {
                match self.step(class) {
                    Step::Done => break,
                    Step::Wake(seat) => {
                        if !fault::on(Fault::WorkerNotWoken) {
                            place.unpark(&self.seats.as_ref()[seat as usize].word);
                        }
                    }
                    Step::Make(seat) => {
                        let worker = Worker { class, seat, arriving: true };
                        if let Err(why) = spawn.spawn(worker) {
                            again |= self.not_made(class, seat, why, &mut cancelled);
                            break;
                        }
                    }
                }
            }
            if !self.has_seats(class) {
                self.drain(class, &mut cancelled);
            }
        }
        again
    }

    fn step(&self, class: Class) -> Step {
        let seats = self.seats.as_ref();
        self.state.with(|state| {
            let lane = &mut state.lanes[class as usize];
            if lane.queued <= lane.coming {
                return Step::Done;
            }
            if let Some(seat) = lane.pop_idle(seats) {
                return Step::Wake(seat);
            }
            match lane.pop_free(seats) {
                Some(seat) => {
                    lane.workers += 1;
                    lane.coming += 1;
                    Step::Make(seat)
                }
                None => Step::Done,
            }
        })
    }

    /// A worker could not be made. True if that leaves its class stranded.
    fn not_made(
        &self,
        class: Class,
        seat: u32,
        why: SpawnError,
        cancelled: &mut impl FnMut(u32),
    ) -> bool {
        let stranded = self.state.with(|state| {
            let lane = &mut state.lanes[class as usize];
            lane.workers -= 1;
            lane.coming -= 1;
            lane.push_free(self.seats.as_ref(), seat);
            lane.workers == 0 && lane.queued > 0
        });
        match why {
            SpawnError::Passing => stranded,
            SpawnError::Final => {
                if stranded {
                    self.drain(class, cancelled);
                }
                false
            }
        }
    }

    fn has_seats(&self, class: Class) -> bool {
        self.state.with(|state| {
            let lane = &state.lanes[class as usize];
            lane.free != NIL || lane.workers > 0
        })
    }

    /// Takes everything queued away from a class. One by one: `cancelled`
    /// runs outside the lock.
    fn drain(&self, class: Class, cancelled: &mut impl FnMut(u32)) {
        let pop = || self.state.with(|state| state.lanes[class as usize].pop(state.links.as_mut()));
        while let Some(index) = pop() {
            cancelled(index);
        }
    }

    /// Hands every job that has not begun to `cancelled`.
    pub fn cancel_queued(&self, mut cancelled: impl FnMut(u32)) {
        for class in Class::ALL {
            self.drain(class, &mut cancelled);
        }
    }

    /// Ends the pool: takes no more work, hands what has not begun to
    /// `cancelled`, and sends the workers away, each after the job it is at.
    /// Does not wait for them.
    pub fn stop(&self, place: &impl Park, cancelled: impl FnMut(u32)) {
        self.state.with(|state| state.stopping = true);
        self.cancel_queued(cancelled);
        for class in Class::ALL {
            let pop = || {
                self.state.with(|state| state.lanes[class as usize].pop_idle(self.seats.as_ref()))
            };
            while let Some(seat) = pop() {
                if !fault::on(Fault::WorkersNotSentAway) {
                    place.unpark(&self.seats.as_ref()[seat as usize].word);
                }
            }
        }
    }

    /// The worker's next job; sleeps until there is one. `None` tells the
    /// worker to end: the pool stops, or there was nothing to do for `idle`
    /// nanoseconds. Its seat is given away then.
    pub fn next<H: Park + Clock>(&self, worker: &mut Worker, place: &H, idle: u64) -> Option<u32> {
        loop {
            match self.look(worker) {
                Next::Job(index) => return Some(index),
                Next::Leave => return None,
                Next::Sleep => {
                    if !self.sleep(worker, place, idle) {
                        return None;
                    }
                    worker.arriving = true;
                }
            }
        }
    }

    fn look(&self, worker: &mut Worker) -> Next {
        let seats = self.seats.as_ref();
        self.state.with(|state| {
            let lane = &mut state.lanes[worker.class as usize];
            if worker.arriving {
                worker.arriving = false;
                lane.coming -= u32::from(!fault::on(Fault::WorkerComesForEver));
            }
            if let Some(index) = lane.pop(state.links.as_mut()) {
                return Next::Job(index);
            }
            if state.stopping && !fault::on(Fault::WorkerSleepsThroughEnd) {
                lane.workers -= 1;
                lane.push_free(seats, worker.seat);
                return Next::Leave;
            }
            lane.push_idle(seats, worker.seat);
            Next::Sleep
        })
    }

    /// Sleeps on the worker's seat. False if nobody called in time; the
    /// worker has left then.
    fn sleep<H: Park + Clock>(&self, worker: &Worker, place: &H, idle: u64) -> bool {
        let seats = self.seats.as_ref();
        let word = &seats[worker.seat as usize].word;
        let deadline = place.now().saturating_add(idle);
        loop {
            // Relaxed: the queue is read under the lock, which orders it.
            if word.load(Ordering::Relaxed) != IDLE {
                return true;
            }
            if place.park(word, IDLE, Some(deadline)) != Parked::TimedOut {
                continue;
            }
            // Under the lock it is certain whether somebody has called.
            let left = self.state.with(|state| {
                if !fault::on(Fault::WorkerLeavesCalled) && word.load(Ordering::Relaxed) != IDLE {
                    return false;
                }
                let lane = &mut state.lanes[worker.class as usize];
                lane.remove_idle(seats, worker.seat);
                lane.workers -= 1;
                lane.push_free(seats, worker.seat);
                true
            });
            return !left;
        }
    }

    /// What a class is doing.
    pub fn load(&self, class: Class) -> Load {
        self.state.with(|state| {
            let lane = &state.lanes[class as usize];
            Load { queued: lane.queued, workers: lane.workers, idle: lane.idle_count }
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
