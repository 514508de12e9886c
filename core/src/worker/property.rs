//! Row *workers*, as properties: whatever fails, whatever is changed and in
//! whatever order everybody moves, each job is carried out or cancelled, once.

extern crate std;

use super::life::Next;
use super::*;
use crate::hal::{Clock, Parked};
use crate::sync::AtomicU32;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::vec::Vec;

const SLOTS: u32 = 16;
const SEATS: [u32; 2] = [4, 2];

/// What happens next. Numbers choose among what there is.
#[derive(Clone, Copy, Debug)]
enum Step {
    Push {
        unbounded: bool,
        slot: u32,
    },
    Dispatch,
    /// A worker looks for its next job, having been made or woken, or having
    /// ended its last.
    Look(usize),
    /// A sleeping worker's time is up.
    Tire(usize),
    Limit {
        unbounded: bool,
        limit: u32,
    },
    Take(u32),
    Stop,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (any::<bool>(), 0..SLOTS).prop_map(|(unbounded, slot)| Step::Push { unbounded, slot }),
        6 => Just(Step::Dispatch),
        8 => any::<usize>().prop_map(Step::Look),
        2 => any::<usize>().prop_map(Step::Tire),
        2 => (any::<bool>(), 0u32..6).prop_map(|(unbounded, limit)| Step::Limit { unbounded, limit }),
        1 => (0..SLOTS).prop_map(Step::Take),
        1 => Just(Step::Stop),
    ]
}

fn answer() -> impl Strategy<Value = Result<(), SpawnError>> {
    prop_oneof![
        3 => Just(Ok(())),
        2 => Just(Err(SpawnError::Passing)),
        1 => Just(Err(SpawnError::Final)),
    ]
}

/// Where everybody is. Also the place: it is called under no lock.
struct World {
    pool: Pool<[u32; SLOTS as usize], Vec<Seat>>,
    script: RefCell<VecDeque<Result<(), SpawnError>>>,
    /// Workers awake, and asleep.
    awake: RefCell<Vec<Worker>>,
    asleep: RefCell<Vec<Worker>>,
    /// What became of each job: how often it was pushed, and ended.
    pushed: RefCell<[u32; SLOTS as usize]>,
    ended: RefCell<[u32; SLOTS as usize]>,
    stopped: Cell<bool>,
}

impl Spawn for World {
    fn spawn(&self, worker: Worker) -> Result<(), SpawnError> {
        self.script.borrow_mut().pop_front().unwrap_or(Ok(()))?;
        self.awake.borrow_mut().push(worker);
        Ok(())
    }
}

impl Clock for World {
    fn now(&self) -> u64 {
        0
    }
}

impl Park for World {
    fn park(&self, _: &AtomicU32, _: u32, _: Option<u64>) -> Parked {
        Parked::TimedOut
    }

    fn unpark(&self, word: &AtomicU32) {
        let mut asleep = self.asleep.borrow_mut();
        let of = |worker: &Worker| core::ptr::eq(&self.pool.seats[worker.seat()].word, word);
        let at = asleep.iter().position(of).expect("only sleepers are woken");
        let mut worker = asleep.swap_remove(at);
        worker.arriving = true;
        self.awake.borrow_mut().push(worker);
    }
}

fn class(unbounded: bool) -> Class {
    Class::ALL[usize::from(unbounded)]
}

fn pick(list: &RefCell<Vec<Worker>>, n: usize) -> Option<Worker> {
    let mut list = list.borrow_mut();
    let at = n.checked_rem(list.len())?;
    Some(list.swap_remove(at))
}

impl World {
    fn new(script: Vec<Result<(), SpawnError>>) -> Self {
        let seats = (0..SEATS[0] + SEATS[1]).map(|_| Seat::new()).collect();
        Self {
            pool: Pool::new([0; SLOTS as usize], seats, SEATS[0] as usize),
            script: RefCell::new(script.into()),
            awake: RefCell::default(),
            asleep: RefCell::default(),
            pushed: RefCell::default(),
            ended: RefCell::default(),
            stopped: Cell::new(false),
        }
    }

    fn busy(&self, slot: u32) -> bool {
        self.pushed.borrow()[slot as usize] != self.ended.borrow()[slot as usize]
    }

    fn end(&self, slot: u32) {
        assert!(self.busy(slot), "job {slot} ended twice");
        self.ended.borrow_mut()[slot as usize] += 1;
    }

    fn dispatch(&self) -> bool {
        self.pool.dispatch(self, self, |slot| self.end(slot))
    }

    fn look(&self, mut worker: Worker) {
        match self.pool.look(&mut worker) {
            Next::Job(slot) => {
                self.end(slot);
                self.awake.borrow_mut().push(worker);
            }
            Next::Sleep => self.asleep.borrow_mut().push(worker),
            Next::Leave(other) => {
                if let Some(seat) = other {
                    self.unpark(&self.pool.seats[seat as usize].word);
                }
            }
        }
    }

    fn step(&self, step: Step) {
        match step {
            Step::Push { unbounded, slot } if !self.busy(slot) => {
                let queued = self.pool.push(class(unbounded), slot);
                assert_eq!(queued, !self.stopped.get());
                self.pushed.borrow_mut()[slot as usize] += u32::from(queued);
            }
            Step::Push { .. } => {}
            Step::Dispatch => drop(self.dispatch()),
            Step::Look(n) => {
                if let Some(worker) = pick(&self.awake, n) {
                    self.look(worker);
                }
            }
            Step::Tire(n) => {
                if let Some(worker) = pick(&self.asleep, n) {
                    assert!(!self.pool.sleep(&worker, self, 1), "nobody has called it");
                }
            }
            Step::Limit { unbounded, limit } => {
                self.pool.set_limit(class(unbounded), limit, self);
                assert_eq!(self.pool.limit(class(unbounded)), limit);
            }
            Step::Take(slot) => {
                if self.pool.take(slot) {
                    self.end(slot);
                }
            }
            Step::Stop => {
                self.stopped.set(true);
                self.pool.stop(self, |slot| self.end(slot));
            }
        }
        self.check();
    }

    fn check(&self) {
        for class in Class::ALL {
            let of = |list: &RefCell<Vec<Worker>>| {
                list.borrow().iter().filter(|worker| worker.class() == class).count() as u32
            };
            let load = self.pool.load(class);
            assert_eq!(load.idle, of(&self.asleep));
            assert_eq!(load.workers, of(&self.awake) + load.idle);
            assert!(load.workers <= SEATS[class as usize]);
        }
    }

    /// Lets everybody go on until nothing moves, and creation fail as the
    /// script says, then no more.
    fn settle(&self) {
        loop {
            let owed = self.dispatch();
            let awake = self.awake.take();
            let still = awake.is_empty() && !owed;
            awake.into_iter().for_each(|worker| self.look(worker));
            self.check();
            if still {
                return;
            }
        }
    }
}

proptest! {
    #[test]
    fn every_job_ends_once(
        script in prop::collection::vec(answer(), 0..24),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let world = World::new(script);
        steps.into_iter().for_each(|step| world.step(step));
        world.settle();
        for class in Class::ALL {
            let (load, limit) = (world.pool.load(class), world.pool.limit(class));
            prop_assert_eq!(load.queued, 0, "left hanging: {:?}", class);
            prop_assert!(load.workers <= limit.max(1));
        }
        prop_assert_eq!(world.pushed.take(), world.ended.take());
        world.step(Step::Stop);
        world.settle();
        prop_assert_eq!(Class::ALL.map(|class| world.pool.load(class)), [Load::default(); 2]);
    }
}
