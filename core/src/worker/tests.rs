//! Rows *async punt* and *workers*, with scripted creation and time.

extern crate std;

use super::*;
use crate::hal::{Clock, Parked};
use crate::sync::{AtomicU32, Ordering};
use std::cell::{Cell, RefCell};
use std::vec::Vec;

const IDLE_NS: u64 = 5_000_000_000;

/// Creation as a script: what the next calls answer (then success), and the
/// workers made so far.
#[derive(Default)]
struct Script {
    answers: RefCell<Vec<Result<(), SpawnError>>>,
    made: RefCell<Vec<Worker>>,
    calls: Cell<u32>,
}

impl Script {
    fn failing(answers: &[SpawnError]) -> Self {
        let script = Self::default();
        *script.answers.borrow_mut() = answers.iter().rev().map(|&e| Err(e)).collect();
        script
    }
}

impl Spawn for Script {
    fn spawn(&self, worker: Worker) -> Result<(), SpawnError> {
        self.calls.set(self.calls.get() + 1);
        self.answers.borrow_mut().pop().unwrap_or(Ok(()))?;
        self.made.borrow_mut().push(worker);
        Ok(())
    }
}

/// A place where every wait runs out at once, unless `on_park` does something.
#[derive(Default)]
struct Place<'a> {
    unparked: Cell<u32>,
    on_park: RefCell<Option<std::boxed::Box<dyn FnOnce() + 'a>>>,
}

impl Clock for Place<'_> {
    fn now(&self) -> u64 {
        0
    }
}

impl Park for Place<'_> {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        assert_eq!(deadline, Some(IDLE_NS));
        if let Some(act) = self.on_park.borrow_mut().take() {
            act();
        }
        if word.load(Ordering::Relaxed) == expected { Parked::TimedOut } else { Parked::Woken }
    }

    fn unpark(&self, _: &AtomicU32) {
        self.unparked.set(self.unparked.get() + 1);
    }
}

fn pool(bounded: usize, unbounded: usize) -> Pool<[u32; 16], Vec<Seat>> {
    let seats = (0..bounded + unbounded).map(|_| Seat::new()).collect();
    Pool::new([0; 16], seats, bounded)
}

fn nobody(index: u32) {
    panic!("job {index} was cancelled");
}

#[test]
fn one_worker_takes_jobs_in_order() {
    let (pool, script, place) = (pool(1, 0), Script::default(), Place::default());
    for index in [3, 0, 7] {
        assert!(pool.push(Class::Bounded, index));
    }
    assert!(!pool.dispatch(&place, &script, nobody));
    let mut worker = script.made.borrow_mut().pop().unwrap();
    for index in [3, 0, 7] {
        assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(index));
    }
    assert_eq!(pool.next(&mut worker, &place, IDLE_NS), None);
    assert_eq!(pool.load(Class::Bounded), Load::default());
}

#[test]
fn grows_on_demand_up_to_the_limit_per_class() {
    let (pool, script, place) = (pool(2, 1), Script::default(), Place::default());
    for index in 0..4 {
        pool.push(Class::Bounded, index);
    }
    pool.push(Class::Unbounded, 9);
    pool.dispatch(&place, &script, nobody);
    // A second look finds workers on their way, or the limit.
    pool.dispatch(&place, &script, nobody);
    assert_eq!(script.calls.get(), 3);
    let classes: Vec<_> = script.made.borrow().iter().map(Worker::class).collect();
    assert_eq!(classes, [Class::Bounded, Class::Bounded, Class::Unbounded]);
    // The bounded workers never see the unbounded job.
    let mut made = script.made.take();
    let mut unbounded = made.pop().unwrap();
    for index in 0..4 {
        assert_eq!(pool.next(&mut made[0], &place, IDLE_NS), Some(index));
    }
    assert_eq!(pool.next(&mut made[1], &place, IDLE_NS), None);
    assert_eq!(pool.next(&mut unbounded, &place, IDLE_NS), Some(9));
}

#[test]
fn an_idle_worker_is_woken_before_one_is_made() {
    let (pool, script) = (pool(4, 0), Script::default());
    let waker = Place::default();
    pool.push(Class::Bounded, 1);
    pool.dispatch(&waker, &script, nobody);
    let mut worker = script.made.borrow_mut().pop().unwrap();
    assert_eq!(pool.next(&mut worker, &waker, IDLE_NS), Some(1));
    let place = Place::default();
    *place.on_park.borrow_mut() = Some(std::boxed::Box::new(|| {
        assert_eq!(pool.load(Class::Bounded), Load { queued: 0, workers: 1, idle: 1 });
        pool.push(Class::Bounded, 2);
        pool.dispatch(&waker, &script, nobody);
        // One job, one wake-up.
        pool.dispatch(&waker, &script, nobody);
    }));
    assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(2));
    assert_eq!((script.calls.get(), waker.unparked.get()), (1, 1));
    assert_eq!(pool.load(Class::Bounded), Load { queued: 0, workers: 1, idle: 0 });
}

#[test]
fn an_idle_worker_leaves_from_the_middle_of_the_stack() {
    let (pool, script, place) = (pool(3, 0), Script::default(), Place::default());
    for index in 0..3 {
        pool.push(Class::Bounded, index);
    }
    pool.dispatch(&place, &script, nobody);
    let mut made = script.made.take();
    for worker in &mut made {
        assert!(matches!(pool.look(worker), life::Next::Job(_)));
    }
    for worker in &mut made {
        assert!(matches!(pool.look(worker), life::Next::Sleep));
    }
    assert!(!pool.sleep(&made[1], &place, IDLE_NS));
    assert_eq!(pool.load(Class::Bounded), Load { queued: 0, workers: 2, idle: 2 });
    assert!(!pool.sleep(&made[2], &place, IDLE_NS));
    assert!(!pool.sleep(&made[0], &place, IDLE_NS));
    assert_eq!(pool.load(Class::Bounded), Load::default());
    // Every seat can be used again.
    for index in 0..3 {
        pool.push(Class::Bounded, index);
    }
    pool.dispatch(&place, &script, nobody);
    assert_eq!(script.made.borrow().len(), 3);
}

#[test]
fn growth_that_fails_is_not_fatal() {
    for why in [SpawnError::Passing, SpawnError::Final] {
        let (pool, script, place) = (pool(4, 0), Script::default(), Place::default());
        pool.push(Class::Bounded, 0);
        pool.dispatch(&place, &script, nobody);
        script.answers.borrow_mut().push(Err(why));
        pool.push(Class::Bounded, 1);
        // Owed, if it may be made later; nothing waits for it.
        assert_eq!(pool.dispatch(&place, &script, nobody), why == SpawnError::Passing);
        let mut worker = script.made.borrow_mut().pop().unwrap();
        assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(0));
        assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(1));
    }
}

#[test]
fn a_first_worker_that_fails_in_passing_is_tried_again() {
    use SpawnError::Passing;
    let (pool, script, place) =
        (pool(2, 0), Script::failing(&[Passing, Passing]), Place::default());
    pool.push(Class::Bounded, 5);
    assert!(pool.dispatch(&place, &script, nobody));
    assert!(pool.dispatch(&place, &script, nobody));
    assert_eq!(pool.load(Class::Bounded), Load { queued: 1, workers: 0, idle: 0 });
    assert!(!pool.dispatch(&place, &script, nobody));
    let mut worker = script.made.borrow_mut().pop().unwrap();
    assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(5));
}

#[test]
fn growth_that_fails_in_passing_is_tried_again_while_it_is_needed() {
    use SpawnError::Passing;
    let (pool, script, place) = (pool(4, 0), Script::default(), Place::default());
    pool.push(Class::Bounded, 0);
    pool.dispatch(&place, &script, nobody);
    let mut first = script.made.borrow_mut().pop().unwrap();
    assert_eq!(pool.next(&mut first, &place, IDLE_NS), Some(0));
    *script.answers.borrow_mut() = std::vec![Err(Passing); 2];
    pool.push(Class::Bounded, 1);
    assert!(pool.dispatch(&place, &script, nobody));
    assert!(pool.dispatch(&place, &script, nobody));
    assert!(!pool.dispatch(&place, &script, nobody));
    let second = script.made.borrow_mut().pop().unwrap();
    assert_eq!((second.tries(), script.calls.get()), (2, 4));
    // Not needed any more: the first worker has taken the job meanwhile.
    script.answers.borrow_mut().push(Err(Passing));
    pool.push(Class::Bounded, 2);
    pool.push(Class::Bounded, 3);
    assert!(pool.dispatch(&place, &script, nobody));
    for index in 1..=3 {
        assert_eq!(pool.next(&mut first, &place, IDLE_NS), Some(index));
    }
    assert!(!pool.dispatch(&place, &script, nobody));
    assert_eq!(script.calls.get(), 5);
    // The next need begins to count anew.
    for index in 4..7 {
        pool.push(Class::Bounded, index);
    }
    assert!(!pool.dispatch(&place, &script, nobody));
    assert!(script.made.borrow().iter().all(|worker| worker.tries() == 0));
}

#[test]
fn a_worker_that_is_owed_is_forgotten_with_its_class() {
    use SpawnError::{Final, Passing};
    let (pool, script, place) = (pool(2, 0), Script::failing(&[Passing, Final]), Place::default());
    pool.push(Class::Bounded, 5);
    assert!(pool.dispatch(&place, &script, nobody));
    let mut cancelled = Vec::new();
    assert!(!pool.dispatch(&place, &script, |index| cancelled.push(index)));
    assert_eq!(cancelled, [5]);
    assert!(!pool.dispatch(&place, &script, nobody));
    assert_eq!(script.calls.get(), 2, "nothing is owed");
    // By a stop, too.
    script.answers.borrow_mut().push(Err(Passing));
    pool.push(Class::Bounded, 6);
    assert!(pool.dispatch(&place, &script, nobody));
    pool.stop(&place, |index| cancelled.push(index));
    assert!(!pool.dispatch(&place, &script, nobody));
    assert_eq!((cancelled, script.calls.get()), (std::vec![5, 6], 3));
}

#[test]
fn limits_are_read_and_set() {
    let (pool, script, place) = (pool(4, 2), Script::default(), Place::default());
    assert_eq!(Class::ALL.map(|class| pool.limit(class)), [4, 2]);
    pool.set_limit(Class::Bounded, 2, &place);
    pool.set_limit(Class::Unbounded, 100, &place);
    assert_eq!(Class::ALL.map(|class| pool.limit(class)), [2, 100]);
    for index in 0..8 {
        pool.push(if index < 4 { Class::Bounded } else { Class::Unbounded }, index);
    }
    pool.dispatch(&place, &script, nobody);
    assert_eq!(Class::ALL.map(|class| pool.load(class).workers), [2, 2], "limit, and seats");
    // Raised: the queue gets more workers.
    pool.set_limit(Class::Bounded, 3, &place);
    pool.dispatch(&place, &script, nobody);
    assert_eq!(pool.load(Class::Bounded).workers, 3);
}

#[test]
fn workers_beyond_a_lowered_limit_leave() {
    let (pool, script) = (pool(4, 0), Script::default());
    let place = Place::default();
    for index in 0..4 {
        pool.push(Class::Bounded, index);
    }
    pool.dispatch(&place, &script, nobody);
    let mut made = script.made.take();
    for worker in &mut made {
        assert!(matches!(pool.look(worker), life::Next::Job(_)));
    }
    // Two go to sleep, two are at work.
    for worker in &mut made[2..] {
        assert!(matches!(pool.look(worker), life::Next::Sleep));
    }
    pool.set_limit(Class::Bounded, 1, &place);
    assert_eq!(place.unparked.get(), 2, "the idle ones are sent away");
    for worker in &mut made[2..] {
        worker.arriving = true;
        assert_eq!(pool.next(worker, &place, IDLE_NS), None);
    }
    // One of the others, even though there is work.
    pool.push(Class::Bounded, 4);
    pool.dispatch(&place, &script, nobody);
    assert_eq!(pool.next(&mut made[0], &place, IDLE_NS), None);
    assert_eq!(pool.next(&mut made[1], &place, IDLE_NS), Some(4));
    assert_eq!(pool.load(Class::Bounded), Load { queued: 0, workers: 1, idle: 0 });
    assert_eq!((script.calls.get(), pool.taken(Class::Bounded)), (4, 5));
}

#[test]
fn a_surplus_worker_calls_another_to_the_job_it_was_called_for() {
    let (pool, script, place) = (pool(2, 0), Script::default(), Place::default());
    pool.push(Class::Bounded, 0);
    pool.push(Class::Bounded, 1);
    pool.dispatch(&place, &script, nobody);
    let mut made = script.made.take();
    for worker in &mut made {
        assert!(matches!(pool.look(worker), life::Next::Job(_)));
    }
    for worker in &mut made {
        assert!(matches!(pool.look(worker), life::Next::Sleep));
    }
    pool.push(Class::Bounded, 2);
    pool.dispatch(&place, &script, nobody);
    pool.set_limit(Class::Bounded, 1, &place);
    // The newest was called, and is one too many.
    made[1].arriving = true;
    assert_eq!(pool.next(&mut made[1], &place, IDLE_NS), None);
    assert_eq!(place.unparked.get(), 2);
    made[0].arriving = true;
    assert_eq!(pool.next(&mut made[0], &place, IDLE_NS), Some(2));
}

#[test]
fn a_limit_of_nothing_cancels() {
    let (pool, script, place) = (pool(2, 0), Script::default(), Place::default());
    pool.set_limit(Class::Bounded, 0, &place);
    pool.push(Class::Bounded, 4);
    let mut cancelled = Vec::new();
    assert!(!pool.dispatch(&place, &script, |index| cancelled.push(index)));
    assert_eq!((cancelled, script.calls.get()), (std::vec![4], 0));
}

#[test]
fn a_queued_job_can_be_taken_away() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let (pool, script, place) = (pool(1, 1), Script::default(), Place::default());
        for index in 0..3 {
            pool.push(Class::Bounded, index);
        }
        pool.push(Class::Unbounded, 9);
        for (n, index) in order.into_iter().enumerate() {
            assert!(pool.take(index));
            assert!(!pool.take(index), "once");
            assert_eq!(pool.load(Class::Bounded).queued, 2 - n as u32);
        }
        assert!(pool.take(9));
        pool.push(Class::Bounded, 7);
        pool.push(Class::Bounded, 8);
        assert!(pool.take(8));
        pool.push(Class::Bounded, 6);
        pool.dispatch(&place, &script, nobody);
        let mut worker = script.made.borrow_mut().pop().unwrap();
        assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(7));
        assert!(!pool.take(7), "it has begun");
        assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(6));
        assert_eq!(pool.next(&mut worker, &place, IDLE_NS), None);
    }
}

#[test]
fn a_first_worker_that_fails_for_good_cancels_its_class_only() {
    let (pool, place) = (pool(2, 2), Place::default());
    let script = Script::failing(&[SpawnError::Final]);
    for (class, index) in [(Class::Bounded, 1), (Class::Bounded, 2), (Class::Unbounded, 3)] {
        pool.push(class, index);
    }
    let mut cancelled = Vec::new();
    assert!(!pool.dispatch(&place, &script, |index| cancelled.push(index)));
    assert_eq!(cancelled, [1, 2]);
    assert_eq!(pool.load(Class::Bounded), Load::default());
    assert_eq!(pool.load(Class::Unbounded), Load { queued: 1, workers: 1, idle: 0 });
}

#[test]
fn a_class_without_seats_cancels() {
    let (pool, script, place) = (pool(0, 1), Script::default(), Place::default());
    pool.push(Class::Bounded, 4);
    let mut cancelled = Vec::new();
    assert!(!pool.dispatch(&place, &script, |index| cancelled.push(index)));
    assert_eq!((cancelled, script.calls.get()), (std::vec![4], 0));
}

#[test]
fn stop_cancels_the_queue_and_lets_running_work_finish() {
    let (pool, script, place) = (pool(1, 0), Script::default(), Place::default());
    for index in 0..3 {
        pool.push(Class::Bounded, index);
    }
    pool.dispatch(&place, &script, nobody);
    let mut worker = script.made.borrow_mut().pop().unwrap();
    assert_eq!(pool.next(&mut worker, &place, IDLE_NS), Some(0));
    let mut cancelled = Vec::new();
    pool.stop(&place, |index| cancelled.push(index));
    assert_eq!(cancelled, [1, 2]);
    assert!(!pool.push(Class::Bounded, 3));
    assert_eq!(pool.load(Class::Bounded), Load { queued: 0, workers: 1, idle: 0 });
    assert_eq!(pool.next(&mut worker, &place, IDLE_NS), None);
    assert_eq!(pool.load(Class::Bounded), Load::default());
}

#[test]
fn stop_wakes_the_idle() {
    let (pool, script) = (pool(1, 0), Script::default());
    let waker = Place::default();
    pool.push(Class::Bounded, 0);
    pool.dispatch(&waker, &script, nobody);
    let mut worker = script.made.borrow_mut().pop().unwrap();
    assert_eq!(pool.next(&mut worker, &waker, IDLE_NS), Some(0));
    let place = Place::default();
    *place.on_park.borrow_mut() = Some(std::boxed::Box::new(|| pool.stop(&waker, nobody)));
    assert_eq!(pool.next(&mut worker, &place, IDLE_NS), None);
    assert_eq!(waker.unparked.get(), 1);
    assert_eq!(pool.load(Class::Bounded), Load::default());
}
