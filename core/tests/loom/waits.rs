//! Sleeping and waking, and the mailbox, without an engine.

use annulus::errno::Errno;
use annulus::model::Place;
use annulus::model::{EventCount, Post, wait_until};
use annulus::register::Call;
use annulus::sync::{AtomicU32, Ordering};
use loom::sync::Arc;
use loom::thread;

/// An event count and what it tells of.
struct Room {
    place: Place,
    events: EventCount,
    flags: [AtomicU32; 2],
}

impl Room {
    fn new(place: Place) -> Arc<Self> {
        let flags = [AtomicU32::new(0), AtomicU32::new(0)];
        Arc::new(Self { place, events: EventCount::new(), flags })
    }

    /// Relaxed: it is the event count that must order this.
    fn publish(&self, flag: usize) {
        self.flags[flag].store(1, Ordering::Relaxed);
        self.events.notify(&self.place);
    }

    fn shows(&self, flag: usize) -> bool {
        self.flags[flag].load(Ordering::Relaxed) != 0
    }

    fn wait(&self, ready: impl FnMut() -> bool) {
        wait_until(&self.events, &self.place, None, ready).expect("no deadline");
    }
}

/// Two wakers, each with news of its own, and one sleeper that needs both.
pub fn two_wakers() {
    wakers(Place::new());
}

/// The same, where sleep and wake-up order nothing by themselves.
pub fn two_wakers_unordered() {
    wakers(Place::unordered());
}

fn wakers(place: Place) {
    let room = Room::new(place);
    let wakers = [0, 1].map(|flag| {
        let room = room.clone();
        thread::spawn(move || room.publish(flag))
    });
    room.wait(|| room.shows(0) && room.shows(1));
    wakers.into_iter().for_each(|waker| waker.join().unwrap());
}

/// Two sleepers, each waiting for something else, and one waker.
pub fn two_sleepers() {
    let room = Room::new(Place::new());
    let sleepers = [0, 1].map(|flag| {
        let room = room.clone();
        thread::spawn(move || room.wait(|| room.shows(flag)))
    });
    room.publish(0);
    room.publish(1);
    sleepers.into_iter().for_each(|sleeper| sleeper.join().unwrap());
}

/// A mailbox and the engine's sleep.
struct Office {
    place: Place,
    engine: EventCount,
    post: Post,
}

impl Office {
    fn new(place: Place) -> Arc<Self> {
        Arc::new(Self { place, engine: EventCount::new(), post: Post::default() })
    }

    fn call(&self, number: u32) -> Result<u32, Errno> {
        let call = Call::RegisterFilesSparse(number);
        self.post.call(&self.place, call, || self.engine.notify(&self.place))
    }

    /// Answers one call, sleeping until it comes.
    fn answer(&self) {
        wait_until(&self.engine, &self.place, None, || self.post.waiting()).expect("no deadline");
        assert!(self.post.answer(&self.place, |call| match call {
            Call::RegisterFilesSparse(number) => Ok(number + 100),
            _ => Err(Errno::EINVAL),
        }));
    }
}

/// Two callers; each gets the answer to its own call.
pub fn mailbox() {
    calls(Place::new(), &[1, 2]);
}

/// One caller, where sleep and wake-up order nothing by themselves.
pub fn mailbox_unordered() {
    calls(Place::unordered(), &[1]);
}

fn calls(place: Place, numbers: &'static [u32]) {
    let office = Office::new(place);
    let call = |&number: &u32| {
        let office = office.clone();
        thread::spawn(move || assert_eq!(office.call(number), Ok(number + 100)))
    };
    let callers: Vec<_> = numbers.iter().map(call).collect();
    numbers.iter().for_each(|_| office.answer());
    callers.into_iter().for_each(|caller| caller.join().unwrap());
}

/// The mailbox closes between two callers: one may still get an answer,
/// whoever does not hears that there is nobody.
pub fn mailbox_close() {
    let office = Office::new(Place::new());
    let callers = [1, 2].map(|number| {
        let office = office.clone();
        thread::spawn(move || {
            let answer = office.call(number);
            assert!(answer == Ok(number + 100) || answer == Err(Errno::ENXIO), "{answer:?}");
            answer.is_ok()
        })
    });
    office.answer();
    office.post.close(&office.place);
    let answered = callers.map(|caller| caller.join().unwrap());
    assert!(answered[0] != answered[1], "one call was answered");
    assert_eq!(office.call(3), Err(Errno::ENXIO));
}
