//! An interrupt line, between a handler and whoever drives a ring.

use std::sync::Arc;

use annulus::hal::{Host, Park, Parked};
use annulus::sync::{AtomicU32, Ordering, UnsafeCell};
use annulus_baremetal::Machine;
use annulus_baremetal::irq::Line;

use crate::place::Board;

/// A ring's host, its line, and what a device has written.
struct World {
    board: Board,
    line: Line,
    word: AtomicU32,
    /// How many completions there are.
    complete: AtomicU32,
    /// What they are: memory that the handler's core has seen written.
    data: UnsafeCell<u32>,
}

// SAFETY: loom watches the accesses to `data`.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

fn world(board: Board) -> Arc<World> {
    let (word, complete) = (AtomicU32::new(0), AtomicU32::new(0));
    Arc::new(World { board, line: Line::new(), word, complete, data: UnsafeCell::new(0) })
}

impl World {
    /// A device completes something, and the handler runs on this core.
    fn interrupt(&self) {
        // Relaxed: what orders it is the line.
        self.complete.fetch_add(1, Ordering::Relaxed);
        self.line.raise(&self.board);
    }

    /// Drives a ring until so many are complete.
    fn drive(&self, all: u32) {
        let host = Machine::new(&self.board).with_interrupt(&self.line);
        // Relaxed: as above.
        while self.complete.load(Ordering::Relaxed) < all {
            assert_eq!(host.sleep(&self.word, 0, None), Parked::Woken);
        }
    }
}

/// Interrupts on another core: each is seen, or wakes.
pub fn on_another_core() {
    let world = world(Board::new());
    let handler = {
        let world = world.clone();
        loom::thread::spawn(move || {
            world.interrupt();
            world.interrupt();
        })
    };
    world.drive(2);
    handler.join().unwrap();
}

/// What the handler's core saw of the device's writes, the driver sees, though
/// nothing orders them but the line.
pub fn unordered() {
    let world = world(Board::unordered());
    let handler = {
        let world = world.clone();
        loom::thread::spawn(move || {
            // SAFETY: before the line is raised nobody reads it.
            world.data.with_mut(|data| unsafe { *data = 7 });
            world.line.raise(&world.board);
        })
    };
    let host = Machine::new(&world.board).with_interrupt(&world.line);
    assert_eq!(host.sleep(&world.word, 0, None), Parked::Woken);
    // SAFETY: the line was raised, so it was written before.
    world.data.with(|data| assert_eq!(unsafe { *data }, 7));
    handler.join().unwrap();
}

/// An interrupt and another core's word: a driver that waits for both gets
/// both.
pub fn and_word() {
    let world = world(Board::new());
    let handler = {
        let world = world.clone();
        loom::thread::spawn(move || world.interrupt())
    };
    let waker = {
        let world = world.clone();
        loom::thread::spawn(move || {
            world.word.store(1, Ordering::Relaxed);
            Machine::new(&world.board).unpark(&world.word);
        })
    };
    let host = Machine::new(&world.board).with_interrupt(&world.line);
    loop {
        // Relaxed: the place orders what its wake-ups tell of.
        let word = world.word.load(Ordering::Relaxed);
        if word == 1 && world.complete.load(Ordering::Relaxed) == 1 {
            break;
        }
        assert_eq!(host.sleep(&world.word, word, None), Parked::Woken);
    }
    handler.join().unwrap();
    waker.join().unwrap();
}
