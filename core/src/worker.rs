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
//!   the workers already on their way, up to its limit, which can be changed.
//!   A creation that fails in passing is owed: `dispatch` asks to be called
//!   again, and does not wait. One that fails for good is not fatal while the
//!   class has a worker; without any, the queued work is cancelled, and nothing
//!   is owed any more. Nothing is left hanging.
//! * Idle workers are woken newest first, each on a word of its own: the
//!   caches stay warm, one job wakes one worker, and the surplus ages out.
//! * A worker beyond a limit that was lowered leaves after the job it is at,
//!   and calls another if it was on its way to a job.

use crate::fault::{self, Fault};
use crate::hal::Park;
use crate::sync::Mutex;

mod lane;
mod life;
pub use lane::Seat;
use lane::{Lane, NIL};

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
    /// out the jobs it gets until there is none. Must not wait, neither for it
    /// nor for a better moment: a passing failure is tried again.
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
    /// Creations that failed in passing for the same need, before this one.
    tries: u32,
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

    /// How often a worker could not be made in passing since its class last
    /// got one, or had all that it needed. A place that finds it has been
    /// trying for too long answers [`SpawnError::Final`].
    pub fn tries(&self) -> u32 {
        self.tries
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
    Make(Worker),
    Done,
}

impl<L: AsMut<[u32]>, S: AsRef<[Seat]>> Pool<L, S> {
    /// A pool for slots `0..links.len()`; of the seats the first `bounded`
    /// are the bounded class's, the others the unbounded one's. Each class is
    /// limited by its seats, and by [`set_limit`](Self::set_limit).
    ///
    /// A class without a seat has no workers: its work is cancelled.
    pub fn new(links: L, seats: S, bounded: usize) -> Self {
        let others = seats.as_ref().len().saturating_sub(bounded);
        let mut lanes = [bounded, others].map(|seats| Lane::new(seats as u32));
        // Backwards, so that the lowest seat is on top.
        for seat in (0..seats.as_ref().len()).rev() {
            lanes[usize::from(seat >= bounded)].push_free(seats.as_ref(), seat as u32);
        }
        Self { state: Mutex::new(State { links, lanes, stopping: false }), seats }
    }

    /// How many workers a class may have. More than its seats it never has.
    pub fn limit(&self, class: Class) -> u32 {
        self.state.with(|state| state.lanes[class as usize].limit)
    }

    /// Changes a class's limit. Workers beyond it leave: those that are idle
    /// now, the others after the job that they are at. The last one stays,
    /// even if the limit is 0, as long as there is work; with a limit of 0
    /// none is made, and work that finds no worker is cancelled.
    pub fn set_limit(&self, class: Class, limit: u32, place: &impl Park) {
        self.state.with(|state| state.lanes[class as usize].limit = limit);
        // Who is called and finds no work leaves, if it is one too many.
        let pop = || {
            self.state.with(|state| {
                let lane = &mut state.lanes[class as usize];
                if lane.surplus() > lane.coming { lane.pop_idle(self.seats.as_ref()) } else { None }
            })
        };
        while let Some(seat) = pop() {
            place.unpark(&self.seats.as_ref()[seat as usize].word);
        }
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
    /// Jobs of a class that cannot have a worker go to `cancelled`. True if a
    /// worker is owed: it could not be made for a passing reason, so call
    /// again after a while. Until then the workers that the class has go on
    /// with its queue; if it has none, nobody else will move it.
    pub fn dispatch(
        &self,
        place: &impl Park,
        spawn: &impl Spawn,
        mut cancelled: impl FnMut(u32),
    ) -> bool {
        let mut owed = false;
        for class in Class::ALL {
            loop {
                match self.step(class) {
                    Step::Done => break,
                    Step::Wake(seat) => {
                        if !fault::on(Fault::WorkerNotWoken) {
                            place.unpark(&self.seats.as_ref()[seat as usize].word);
                        }
                    }
                    Step::Make(worker) => {
                        let seat = worker.seat;
                        match spawn.spawn(worker) {
                            Ok(()) => self.made(class),
                            Err(why) => {
                                owed |= self.not_made(class, seat, why, &mut cancelled);
                                break;
                            }
                        }
                    }
                }
            }
            if !self.can_have_workers(class) {
                self.drain(class, &mut cancelled);
            }
        }
        owed
    }

    fn step(&self, class: Class) -> Step {
        let seats = self.seats.as_ref();
        self.state.with(|state| {
            let lane = &mut state.lanes[class as usize];
            if lane.queued <= lane.coming {
                lane.tries = 0;
                return Step::Done;
            }
            if let Some(seat) = lane.pop_idle(seats) {
                return Step::Wake(seat);
            }
            let seat = if lane.workers < lane.limit { lane.pop_free(seats) } else { None };
            match seat {
                Some(seat) => {
                    lane.workers += 1;
                    lane.coming += 1;
                    Step::Make(Worker { class, seat, tries: lane.tries, arriving: true })
                }
                None => {
                    lane.tries = 0;
                    Step::Done
                }
            }
        })
    }

    /// A worker has been made: the next that fails is another matter.
    fn made(&self, class: Class) {
        self.state.with(|state| state.lanes[class as usize].tries = 0);
    }

    /// A worker could not be made. True if it is owed.
    fn not_made(
        &self,
        class: Class,
        seat: u32,
        why: SpawnError,
        cancelled: &mut impl FnMut(u32),
    ) -> bool {
        let (wanted, alone) = self.state.with(|state| {
            let lane = &mut state.lanes[class as usize];
            lane.workers -= u32::from(!fault::on(Fault::WorkerNeverMadeCounts));
            lane.coming -= u32::from(!fault::on(Fault::WorkerNeverMadeComes));
            lane.push_free(self.seats.as_ref(), seat);
            let wanted = lane.queued > lane.coming;
            let again = wanted && why == SpawnError::Passing;
            lane.tries = if again { lane.tries.saturating_add(1) } else { 0 };
            (wanted, lane.workers == 0)
        });
        match why {
            SpawnError::Passing if fault::on(Fault::WorkerOwedForgotten) => wanted && alone,
            SpawnError::Passing => wanted,
            SpawnError::Final => {
                if alone && !fault::on(Fault::WorkerlessWorkKept) {
                    self.drain(class, cancelled);
                }
                false
            }
        }
    }

    fn can_have_workers(&self, class: Class) -> bool {
        self.state.with(|state| {
            let lane = &state.lanes[class as usize];
            lane.workers > 0 || lane.limit > 0 && lane.free != NIL
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

    /// Takes the job of slot `index` away, if it is queued. It is the
    /// caller's again then, who cancels it.
    pub fn take(&self, index: u32) -> bool {
        self.state.with(|state| {
            let links = state.links.as_mut();
            state.lanes.iter_mut().any(|lane| lane.remove(links, index))
        })
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

    /// What a class is doing.
    pub fn load(&self, class: Class) -> Load {
        self.state.with(|state| {
            let lane = &state.lanes[class as usize];
            Load { queued: lane.queued, workers: lane.workers, idle: lane.idle_count }
        })
    }

    /// How many jobs the class's workers have taken from the queue.
    pub fn taken(&self, class: Class) -> u64 {
        self.state.with(|state| state.lanes[class as usize].taken)
    }
}

#[cfg(all(test, not(loom)))]
mod property;
#[cfg(all(test, not(loom)))]
mod tests;
