//! The place that a simulated ring runs in: a clock that stands still until an
//! action moves it, and a sleep in which others act.

use std::cell::{Cell, RefCell};

use annulus::hal::{Clock, Host, Park, Parked};
use annulus::sync::{AtomicU32, Ordering};

use super::action::Action;
use super::drive::{self, Way};
use super::world::World;

thread_local! {
    static NOW: Cell<u64> = const { Cell::new(0) };
    static WORLD: RefCell<World> = const { RefCell::new(World::new()) };
}

/// Nanoseconds since the run began.
pub fn now() -> u64 {
    NOW.get()
}

/// Moves the clock.
pub fn set_now(now: u64) {
    NOW.set(now);
}

/// What everybody but the engine sees and does.
pub fn with<R>(act: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(act)
}

/// The engine calls its backend: the application may act meanwhile. A driver
/// that has failed goes no further.
pub fn called() {
    let failed = with(|world| {
        world.called();
        world.model.why.is_some()
    });
    if failed && drive::runs() {
        drive::give_way(Way::Amid);
    }
}

/// The host.
#[derive(Clone, Copy, Debug)]
pub struct Place;

impl Clock for Place {
    fn now(&self) -> u64 {
        // A polling thread looks at the clock when it has nothing to do.
        if drive::runs() && with(World::idles) {
            drive::give_way(Way::Idle);
        }
        now()
    }
}

impl Park for Place {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        let closing = with(|world| world.device.closing);
        if drive::runs() && !closing {
            return drive::sleep(word, expected, deadline);
        }
        with(|world| world.sleeps = !drive::runs());
        let parked = sleep(word, expected, deadline);
        with(|world| {
            world.sleeps = false;
            world.woken(parked);
        });
        parked
    }

    fn unpark(&self, _: &AtomicU32) {
        // Whoever is woken may be faster than who goes on: who waits to drive
        // the engine, too.
        let wakes = |world: &World| world.is_served() && world.sleeps;
        // Not by what others do in between.
        if drive::runs() && WORLD.with(|world| world.try_borrow().is_ok_and(|world| wakes(&world)))
        {
            drive::give_way(Way::Amid);
        }
    }
}

impl Host for Place {}

/// Others act until the sleeper has a reason to go on.
fn sleep(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
    let driven = with(World::asleep);
    let mut vain = 0;
    loop {
        if word.load(Ordering::Relaxed) != expected {
            return Parked::Woken;
        }
        if deadline.is_some_and(|deadline| now() >= deadline) {
            return Parked::TimedOut;
        }
        // Who drives may never come to its end.
        assert!(!driven || with(|world| world.model.why.is_none()), "the run has failed");
        match with(|world| world.meanwhile(deadline)) {
            Some(Action::Signal) => return Parked::Interrupted,
            Some(Action::Drive) => drive_on(word, expected),
            Some(action) => with(|world| world.outside(action)),
            None if driven && vain < 8 => {
                vain += 1;
                drive_on(word, expected);
            }
            None => match deadline {
                Some(deadline) => set_now(deadline),
                None => {
                    assert!(!with(|world| world.calls), "a call is never answered");
                    return Parked::Interrupted;
                }
            },
        }
    }
}

/// The driver goes on, while the application sleeps.
fn drive_on(word: &AtomicU32, expected: u32) {
    if drive::go() && word.load(Ordering::Relaxed) == expected {
        with(World::nobody_is_woken);
    }
}
