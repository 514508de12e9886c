//! The generic timer: a counter that every core sees alike, and an interrupt
//! of the virtual timer to end a wait.

use core::arch::asm;

const NANOS: u64 = 1_000_000_000;

/// Counts a second; set by whoever starts the machine.
fn frequency() -> u64 {
    let hertz: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, cntfrq_el0", out(reg) hertz, options(nomem, nostack)) };
    hertz.max(1)
}

fn count() -> u64 {
    let count: u64;
    // SAFETY: reads a register, not before what comes before it in the program.
    unsafe { asm!("isb", "mrs {}, cntvct_el0", out(reg) count, options(nostack)) };
    count
}

/// Nanoseconds since the counter began.
pub fn now() -> u64 {
    let (count, hertz) = (count(), frequency());
    // In two parts, so that nothing overflows for five centuries.
    count / hertz * NANOS + count % hertz * NANOS / hertz
}

/// Interrupts this core at about `deadline` on the scale of [`now`], or no
/// more.
pub fn set(deadline: Option<u64>) {
    const ON: u64 = 1;
    let Some(deadline) = deadline else {
        // SAFETY: stops this core's timer.
        unsafe { asm!("msr cntv_ctl_el0, xzr", "isb", options(nomem, nostack)) };
        return;
    };
    let hertz = frequency();
    let count = (deadline / NANOS).saturating_mul(hertz);
    let count = count.saturating_add((deadline % NANOS * hertz).div_ceil(NANOS));
    // SAFETY: sets this core's timer, and lets it interrupt.
    unsafe {
        asm!("msr cntv_cval_el0, {}", "msr cntv_ctl_el0, {}", "isb",
            in(reg) count, in(reg) ON, options(nomem, nostack));
    }
}
