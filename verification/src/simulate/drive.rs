//! Who drives a ring if its application does not: a polling thread, or the
//! helper of a served ring. An actor like all others, and as little a thread: it
//! runs when an action says so, on a stack of its own, and gives way where it
//! sleeps and where it goes round in vain.

use core::mem::ManuallyDrop;
use std::cell::Cell;
use std::ptr::NonNull;
use std::rc::Rc;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

use annulus::engine::{Engine, EnterFlags, Remote};
use annulus::errno::Errno;
use annulus::hal::Parked;
use annulus::register::Call;
use annulus::served::Served;
use annulus::sync::{AtomicU32, Ordering};

use super::action::Drive;
use super::device::Simulated;
use super::place::{self, Place, with};
use super::world::World;

pub type Ring = Engine<'static, Simulated, Place>;

/// Where a driver gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Asleep,
    /// It goes on looking for work, and has found none.
    Idle,
    /// It has just woken somebody.
    Amid,
}

#[derive(Clone, Copy)]
struct Sleep {
    word: NonNull<AtomicU32>,
    expected: u32,
    deadline: Option<u64>,
}

/// What it answers is how many requests are in flight at its end.
type Stack = Coroutine<(), Way, u32, DefaultStack>;

thread_local! {
    /// The stack that the next driver runs on.
    static STACK: Cell<Option<DefaultStack>> = const { Cell::new(None) };
    /// How the driver gives way.
    static YIELDER: Cell<Option<NonNull<Yielder<(), Way>>>> = const { Cell::new(None) };
    static DRIVER: Cell<Option<Driver>> = const { Cell::new(None) };
    /// The word that it sleeps at.
    static SLEEPS: Cell<Option<Sleep>> = const { Cell::new(None) };
    /// It runs just now.
    static RUNS: Cell<bool> = const { Cell::new(false) };
}

/// Whether it is the driver that asks.
pub fn runs() -> bool {
    RUNS.get()
}

/// The driver gives way to everybody else.
pub fn give_way(way: Way) {
    let yielder = YIELDER.get().expect("a driver that runs");
    // SAFETY: the driver's own, which lasts as long as its stack has something
    // on it; it is the driver that calls.
    unsafe { yielder.as_ref() }.suspend(way);
}

/// A driver. Not dropped where the run has failed: what is on its stack is not
/// to be ended.
type Driver = ManuallyDrop<Stack>;

fn begin(drive: impl FnOnce() -> u32 + 'static) {
    let stack = STACK.take().unwrap_or_else(|| DefaultStack::new(1 << 18).expect("memory"));
    let stack = Coroutine::with_stack(stack, move |yielder, ()| {
        YIELDER.set(Some(NonNull::from(yielder)));
        drive()
    });
    DRIVER.set(Some(ManuallyDrop::new(stack)));
}

/// Forgets the driver of a run that is over, well or not.
pub fn forget() {
    RUNS.set(false);
    SLEEPS.set(None);
    let Some(driver) = DRIVER.take() else { return };
    let mut stack = ManuallyDrop::into_inner(driver);
    // SAFETY: what is there is forgotten, as everything of a run that has
    // failed, and never used again.
    unsafe { stack.force_reset() };
    STACK.set(Some(stack.into_stack()));
}

/// The driver while it runs. Back in its place when it does not, also by a panic.
struct Running(Option<Driver>);

impl Drop for Running {
    fn drop(&mut self) {
        RUNS.set(false);
        DRIVER.set(self.0.take());
    }
}

/// Lets it run until it gives way, or has come to its end.
fn resume() -> CoroutineResult<Way, u32> {
    let mut running = Running(DRIVER.take());
    let driver = running.0.as_mut().expect("a ring that has a driver");
    with(|world| world.vain = 0);
    RUNS.set(true);
    driver.resume(())
}

/// The driver, if there is one, goes on until it gives way, if it is awake. True
/// if it has nothing left to do.
pub fn go() -> bool {
    if with(|world| world.model.setup.drive) == Drive::Inline {
        return true;
    }
    if let Some(sleep) = SLEEPS.get() {
        // SAFETY: a word of the engine, which is asleep there.
        let word = unsafe { sleep.word.as_ref() };
        let late = sleep.deadline.is_some_and(|deadline| place::now() >= deadline);
        if word.load(Ordering::Relaxed) == sleep.expected && !late {
            with(World::sleeps_on);
            return true;
        }
    }
    with(World::drives);
    match resume() {
        CoroutineResult::Yield(Way::Amid) => {
            with(World::amid);
            return false;
        }
        CoroutineResult::Yield(Way::Asleep | Way::Idle) => with(World::driven),
        CoroutineResult::Return(_) => {
            with(|world| world.model.fail("the driver has come to its end, and nobody said so"));
        }
    }
    true
}

/// The driver goes on until it has nothing to do.
pub fn rest() {
    for _ in 0..8 {
        if go() {
            return;
        }
    }
    with(|world| world.model.fail("the driver wakes somebody for ever"));
}

/// The driver sleeps.
pub fn sleep(word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
    SLEEPS.set(Some(Sleep { word: NonNull::from(word), expected, deadline }));
    let parked = loop {
        if word.load(Ordering::Relaxed) != expected {
            break Parked::Woken;
        }
        if deadline.is_some_and(|deadline| place::now() >= deadline) {
            break Parked::TimedOut;
        }
        give_way(Way::Asleep);
    };
    SLEEPS.set(None);
    parked
}

/// The engine, in whoever's hands it is.
pub enum Hands {
    /// The application's. Not dropped where the run has failed.
    Inline(Box<ManuallyDrop<Ring>>),
    Polled(Remote<'static, Place>),
    Served(Rc<ManuallyDrop<Served<'static, Simulated, Place>>>, Remote<'static, Place>),
}

impl Hands {
    pub fn new(drive: Drive, ring: Ring, remote: Remote<'static, Place>) -> Self {
        forget();
        match drive {
            Drive::Inline => Self::Inline(Box::new(ManuallyDrop::new(ring))),
            Drive::Polled => {
                // As inline: a panic ends nothing.
                let mut ring = ManuallyDrop::new(ring);
                begin(move || {
                    ring.poll_loop();
                    ring.pending()
                });
                Self::Polled(remote)
            }
            Drive::Served => {
                let served = Rc::new(ManuallyDrop::new(Served::new(ring, remote)));
                let helped = served.clone();
                begin(move || {
                    helped.help();
                    0
                });
                Self::Served(served, remote)
            }
        }
    }

    /// `io_uring_enter`.
    pub fn enter(
        &mut self,
        count: u32,
        want: u32,
        flags: EnterFlags,
        deadline: Option<u64>,
    ) -> Result<u32, Errno> {
        match self {
            Self::Inline(ring) => ring.enter(count, want, flags, deadline),
            Self::Polled(remote) => {
                let waiting = with(|world| world.model.waiting_entries()) != 0;
                let wakes = if waiting && remote.need_wakeup() {
                    EnterFlags::SQ_WAKEUP
                } else {
                    EnterFlags::empty()
                };
                remote.enter(count, want, flags | wakes, deadline)
            }
            Self::Served(served, _) => served.enter(count, want, flags, deadline),
        }
    }

    /// # Safety
    /// As for [`Engine::call`].
    pub unsafe fn call(&mut self, call: Call<'_>) -> Result<u32, Errno> {
        with(|world| world.calls = true);
        // SAFETY: the caller's promise, in all.
        let answer = unsafe {
            match self {
                Self::Inline(ring) => ring.call(call),
                Self::Polled(remote) => remote.call(call),
                Self::Served(served, _) => served.call(call),
            }
        };
        with(|world| world.calls = false);
        answer
    }

    /// What a dump says.
    pub fn dump(&mut self) -> String {
        let mut dump = String::new();
        // SAFETY: no memory is named. A string takes everything.
        let _ = unsafe { self.call(Call::Dump(&mut dump)) };
        dump
    }

    /// Ends the engine. Requests that are in flight even then, if that can be
    /// asked.
    pub fn shut_down(&mut self) -> u32 {
        let remote = match self {
            Self::Inline(ring) => {
                ring.shutdown();
                return ring.pending();
            }
            Self::Polled(remote) | Self::Served(_, remote) => remote,
        };
        remote.stop();
        // It ends the turn that it is at.
        with(World::drives);
        for _ in 0..8 {
            match resume() {
                CoroutineResult::Return(pending) => return pending,
                CoroutineResult::Yield(Way::Amid) => {}
                CoroutineResult::Yield(way) => {
                    let what = format!("the driver is stopped, and is {way:?}");
                    with(|world| world.model.fail(what));
                }
            }
        }
        with(|world| world.model.fail("the driver is stopped, and goes on"));
        0
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use corosensei::stack::Stack as _;

    use super::*;

    /// Its stack is there for the next, and nobody is taken for it.
    #[test]
    fn a_driver_that_panics_leaves_nothing_behind() {
        forget();
        let mut stacks = Vec::new();
        for _ in 0..3 {
            begin(|| panic!("a driver may"));
            assert!(catch_unwind(AssertUnwindSafe(resume)).is_err());
            assert!(!runs());
            forget();
            let stack = STACK.take().expect("the stack of the last");
            stacks.push(stack.base());
            STACK.set(Some(stack));
        }
        assert!(stacks.iter().all(|base| *base == stacks[0]));
    }
}
