//! The machine that models run on.

use std::ptr::NonNull;

use annulus::hal::device::Span;
use annulus_baremetal::Platform;
use loom::sync::{Condvar, Mutex};

/// Two cores. A wake-up ends the other's sleep, if it sleeps: one that comes
/// before is an interrupt that was served, and forgotten.
///
/// The lock of the bed stands for the interrupts that are off between the look
/// and the sleep: an interprocessor interrupt that comes then waits for the
/// sleep. It also orders what the waker wrote, which
/// [`wake`](Platform::wake) promises.
pub struct Board {
    bed: Option<(Mutex<()>, Condvar)>,
}

impl Board {
    pub fn new() -> Self {
        Self { bed: Some((Mutex::new(()), Condvar::new())) }
    }

    /// A machine whose sleep is to look again, and orders nothing.
    pub fn unordered() -> Self {
        Self { bed: None }
    }
}

// SAFETY: no memory is asked for.
unsafe impl Platform for Board {
    fn now(&self) -> u64 {
        0
    }

    fn device_address(&self, _: usize) -> Option<Span> {
        None
    }

    fn alloc(&self, _: usize) -> Option<NonNull<u8>> {
        None
    }

    unsafe fn free(&self, _: NonNull<u8>, _: usize) {}

    fn registers(&self, _: u64, _: usize) -> Option<NonNull<u8>> {
        None
    }

    fn sleep(&self, _: Option<u64>, still: &dyn Fn() -> bool) {
        match &self.bed {
            None => loom::thread::yield_now(),
            Some((lock, bed)) => {
                let lock = lock.lock().unwrap();
                if still() {
                    drop(bed.wait(lock).unwrap());
                }
            }
        }
    }

    fn wake(&self) {
        if let Some((lock, bed)) = &self.bed {
            let _lock = lock.lock().unwrap();
            bed.notify_all();
        }
    }
}
