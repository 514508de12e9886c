//! Time: the processor's time stamp counter, its speed measured against the
//! programmable interval timer, channel 0 (1,193,182 Hz), which every PC has.
//!
//! A virtual core may lose its processor at any moment. So a moment is only
//! taken when the counter says that reading the timer took no time worth
//! speaking of, and two measurements must agree.

use core::arch::asm;

use annulus::sync::{AtomicU32, Ordering, spin_loop};

use super::ports::{read8, write8};

const CHANNEL_0: u16 = 0x40;
const COMMAND: u16 = 0x43;
/// Channel 0 counts down from 65,536 again and again.
const RATE: u8 = 0x34;
const LATCH: u8 = 0;
const HZ: u64 = 1_193_182;
/// About 20 ms of the 55 until the timer begins anew.
const MEASURED: u16 = 24_000;
/// Of two measurements that agree: a part in so many.
const AGREE: u64 = 500;

/// Nanoseconds a tick, as a number of 1/2^24; 0 until it is known.
static SCALE: AtomicU32 = AtomicU32::new(0);

/// The counter.
pub fn ticks() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reads a counter; the fence keeps it behind what came before.
    unsafe {
        asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(low) | u64::from(high) << 32
}

/// Nanoseconds since some time before the boot.
pub fn now() -> u64 {
    // Relaxed: set once, by core 0, before there is another.
    let scale = SCALE.load(Ordering::Relaxed);
    ((u128::from(ticks()) * u128::from(scale)) >> 24) as u64
}

/// The timer and the counter of one moment.
fn moment() -> (u16, u64) {
    let mut best = u64::MAX;
    let mut found = (0, 0);
    for _ in 0..8 {
        let before = ticks();
        // SAFETY: the timer touches no memory.
        let count = unsafe {
            write8(COMMAND, LATCH);
            let low = read8(CHANNEL_0);
            u16::from_le_bytes([low, read8(CHANNEL_0)])
        };
        let took = ticks() - before;
        if took < best {
            best = took;
            found = (count, before + took / 2);
        }
    }
    found
}

/// Ticks a second, once.
fn measure() -> u64 {
    let (first, from) = moment();
    loop {
        let (count, to) = moment();
        let passed = first.wrapping_sub(count);
        if passed >= MEASURED {
            return (to - from) * HZ / u64::from(passed);
        }
        spin_loop();
    }
}

/// Finds out how fast the counter counts.
pub fn init() {
    // SAFETY: as above.
    unsafe {
        write8(COMMAND, RATE);
        write8(CHANNEL_0, 0);
        write8(CHANNEL_0, 0);
    }
    let mut last = measure();
    let hz = loop {
        let next = measure();
        if last.abs_diff(next) < next / AGREE {
            break next;
        }
        last = next;
    };
    // Relaxed: as for loading it.
    SCALE.store(((1_000_000_000u64 << 24) / hz) as u32, Ordering::Relaxed);
}
