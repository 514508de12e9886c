//! Work for the second core.

use annulus::sync::{AtomicU32, Mutex, Ordering, spin_loop};

use crate::arch;

/// A job; whoever gives it waits until it is done.
struct Job(*mut (dyn FnMut() + Send));

// SAFETY: the closure may go to another core.
unsafe impl Send for Job {}

static JOB: Mutex<Option<Job>> = Mutex::new(None);
static STATE: AtomicU32 = AtomicU32::new(ABSENT);
const ABSENT: u32 = 0;
const IDLE: u32 = 1;
const BUSY: u32 = 2;

/// Runs `job` on the second core and `here` meanwhile on this one, and waits
/// for both. `None` if the machine has no second core.
///
/// From core 0 only.
pub fn meanwhile<R>(mut job: impl FnMut() + Send, here: impl FnOnce() -> R) -> Option<R> {
    // Relaxed: only core 0 starts the other.
    if STATE.load(Ordering::Relaxed) == ABSENT {
        STATE.store(IDLE, Ordering::Relaxed);
        if !arch::start_core(serve) {
            STATE.store(ABSENT, Ordering::Relaxed);
            return None;
        }
    }
    let job: *mut (dyn FnMut() + Send) = &mut job;
    // SAFETY: only the lifetime changes; it is done with before this returns,
    // and a panic ends the image.
    let job: *mut (dyn FnMut() + Send + 'static) = unsafe { core::mem::transmute(job) };
    JOB.with(|place| *place = Some(Job(job)));
    // Release: pairs with the Acquire in `serve`.
    STATE.store(BUSY, Ordering::Release);
    arch::ipi();
    let result = here();
    // Acquire: pairs with the Release in `serve`: what the job did is seen.
    while STATE.load(Ordering::Acquire) == BUSY {
        spin_loop();
    }
    Some(result)
}

/// What the second core does.
fn serve() {
    loop {
        arch::interrupts_off();
        // Acquire: pairs with the Release in `meanwhile`.
        if STATE.load(Ordering::Acquire) != BUSY {
            // The interrupt that follows the job ends this.
            arch::wait();
            continue;
        }
        arch::interrupts_on();
        if let Some(Job(job)) = JOB.with(Option::take) {
            // SAFETY: whoever gave it waits until it is done.
            unsafe { (*job)() };
        }
        // Release: pairs with the Acquire in `meanwhile`.
        STATE.store(IDLE, Ordering::Release);
    }
}
