//! A virtqueue's indices with EVENT_IDX: publish, notify, sleep, on both
//! sides. The driver's lines are the crate's own; the device is a thread, and
//! correct (VIRTIO 1.3, section 2.7.10).

use std::sync::Arc;

use annulus::sync::{AtomicU32, Ordering, UnsafeCell, fence};
use annulus_baremetal::virtio::model::Driver;
use loom::sync::{Condvar, Mutex};

/// Where the indices begin: they wrap within the model.
const START: u16 = u16::MAX;

/// A notification or an interrupt, which a sleeper waits for.
struct Bell {
    rung: Mutex<bool>,
    sleeper: Condvar,
}

impl Bell {
    fn new() -> Self {
        Self { rung: Mutex::new(false), sleeper: Condvar::new() }
    }

    fn ring(&self) {
        *self.rung.lock().unwrap() = true;
        self.sleeper.notify_one();
    }

    fn wait(&self) {
        let mut rung = self.rung.lock().unwrap();
        while !std::mem::take(&mut *rung) {
            rung = self.sleeper.wait(rung).unwrap();
        }
    }
}

struct Queue {
    available: AtomicU32,
    avail_event: AtomicU32,
    used: AtomicU32,
    used_event: AtomicU32,
    notification: Bell,
    interrupt: Bell,
    /// What an entry is, there and back.
    there: UnsafeCell<u32>,
    back: UnsafeCell<u32>,
}

// SAFETY: loom watches the accesses to the cells.
unsafe impl Sync for Queue {}
// SAFETY: as above.
unsafe impl Send for Queue {}

fn queue() -> Arc<Queue> {
    let word = |value: u16| AtomicU32::new(value.into());
    Arc::new(Queue {
        available: word(START),
        // The device is awake, and wants to hear of nothing yet.
        avail_event: word(START.wrapping_sub(1)),
        used: word(START),
        used_event: word(START.wrapping_sub(1)),
        notification: Bell::new(),
        interrupt: Bell::new(),
        there: UnsafeCell::new(0),
        back: UnsafeCell::new(0),
    })
}

impl Queue {
    fn driver(&self) -> Driver<'_> {
        let Self { available, avail_event, used, used_event, .. } = self;
        Driver { available, avail_event, used, used_event }
    }

    /// The device, until it has used `count` entries, each by itself.
    fn serve(&self, count: u16) {
        let end = START.wrapping_add(count);
        let mut at = START;
        while at != end {
            // Relaxed: a queue's words are ordered by barriers alone.
            if self.available.load(Ordering::Relaxed) as u16 == at {
                self.avail_event.store(at.into(), Ordering::Relaxed);
                // Pairs with the driver's, between its index and our wish.
                fence(Ordering::SeqCst);
                if self.available.load(Ordering::Relaxed) as u16 == at {
                    self.notification.wait();
                }
                continue;
            }
            let next = at.wrapping_add(1);
            self.used.store(next.into(), Ordering::Relaxed);
            // Pairs with the driver's, between its wish and our index.
            fence(Ordering::SeqCst);
            let event = self.used_event.load(Ordering::Relaxed) as u16;
            if event == at {
                self.interrupt.ring();
            }
            at = next;
        }
    }
}

/// An entry, published while the device may be about to sleep and awaited
/// while it may be about to be used: nobody sleeps for ever.
pub fn sleeps() {
    let queue = queue();
    let device = {
        let queue = queue.clone();
        loom::thread::spawn(move || queue.serve(1))
    };
    let driver = queue.driver();
    let end = START.wrapping_add(1);
    if driver.publish(end, START) {
        queue.notification.ring();
    }
    while driver.look(START).is_none() {
        if driver.may_sleep(START) {
            queue.interrupt.wait();
        }
    }
    device.join().unwrap();
}

/// What is published is there: nothing orders it but the barriers.
pub fn data() {
    let queue = queue();
    let device = {
        let queue = queue.clone();
        loom::thread::spawn(move || {
            // Relaxed: as above.
            while queue.available.load(Ordering::Relaxed) as u16 == START {
                loom::thread::yield_now();
            }
            // Pairs with the driver's write barrier.
            fence(Ordering::Acquire);
            // SAFETY: published, so written before.
            let value = queue.there.with(|there| unsafe { *there });
            // SAFETY: not read before it is published.
            queue.back.with_mut(|back| unsafe { *back = value + 1 });
            // Pairs with the driver's read barrier.
            fence(Ordering::Release);
            queue.used.store(START.wrapping_add(1).into(), Ordering::Relaxed);
        })
    };
    let driver = queue.driver();
    // SAFETY: not read before it is published.
    queue.there.with_mut(|there| unsafe { *there = 7 });
    driver.publish(START.wrapping_add(1), START);
    while driver.look(START).is_none() {
        loom::thread::yield_now();
    }
    // SAFETY: used, so written before.
    queue.back.with(|back| assert_eq!(unsafe { *back }, 8));
    device.join().unwrap();
}
