//! The local APIC of each core (xAPIC, in memory) and the I/O APIC.

use core::ptr::NonNull;

use annulus::hal::device::Mmio as _;
use annulus::sync::{AtomicU32, AtomicUsize, Mutex, Ordering, spin_loop};
use annulus_baremetal::{Registers, Window};

use super::traps::{IPI, SPURIOUS, TIMER, number};
use super::{boot, clock, ports};

const LOCAL: usize = 0xfee0_0000;
const IO: usize = 0xfec0_0000;

const ID: usize = 0x20;
const END: usize = 0xb0;
const SPURIOUS_VECTOR: usize = 0xf0;
const COMMAND: usize = 0x300;
const COMMAND_TO: usize = 0x310;
const TIMER_ENTRY: usize = 0x320;
const TIMER_INITIAL: usize = 0x380;
const TIMER_CURRENT: usize = 0x390;
const TIMER_DIVIDE: usize = 0x3e0;

const ENABLED: u32 = 0x100;
const BUSY: u32 = 1 << 12;
const ASSERT: u32 = 1 << 14;
const ALL_OTHERS: u32 = 3 << 18;
const INIT: u32 = 5 << 8;
const STARTUP: u32 = 6 << 8;
/// The timer counts one in 16.
const BY_16: u32 = 3;

/// In the I/O APIC: which register, and its value.
const SELECT: usize = 0;
const VALUE: usize = 0x10;
const LEVEL: u32 = 1 << 15;

/// The timer's counts a millisecond.
static PER_MS: AtomicU32 = AtomicU32::new(0);
/// The local APIC's number of core 0.
static FIRST: AtomicU32 = AtomicU32::new(0);
/// What the second core shall run; 0 is nothing.
static RUN: AtomicUsize = AtomicUsize::new(0);
/// Whether it has started.
static STARTED: AtomicU32 = AtomicU32::new(0);
static IO_LOCK: Mutex<()> = Mutex::new(());

fn window(at: usize) -> Window {
    let base = NonNull::new(at as *mut u8).unwrap_or(NonNull::dangling());
    // SAFETY: where a PC has its APICs; mapped for ever, and not cached.
    unsafe { Window::new(base, 0x400) }
}

/// The local APIC of the core that asks.
fn local() -> Window {
    window(LOCAL)
}

/// On every core.
pub fn init_core() {
    local().write32(SPURIOUS_VECTOR, ENABLED | u32::from(SPURIOUS));
    local().write32(TIMER_DIVIDE, BY_16);
    local().write32(TIMER_ENTRY, TIMER.into());
}

/// On core 0, once there is a clock.
pub fn init() {
    // The old interrupt controllers: out of the exceptions' way, and silent.
    // SAFETY: they touch no memory.
    unsafe {
        for (command, data, first) in [(0x20, 0x21, 0x20), (0xa0, 0xa1, 0x28)] {
            ports::write8(command, 0x11);
            ports::write8(data, first);
            ports::write8(data, if command == 0x20 { 4 } else { 2 });
            ports::write8(data, 1);
            ports::write8(data, 0xff);
        }
    }
    init_core();
    // Relaxed, all of them: before there is another core.
    FIRST.store(local().read32(ID) >> 24, Ordering::Relaxed);
    // Long enough for a clock that a busy host stops now and then.
    let start = clock::now();
    local().write32(TIMER_INITIAL, u32::MAX);
    while clock::now() - start < 5_000_000 {
        spin_loop();
    }
    let counted = u32::MAX - local().read32(TIMER_CURRENT);
    let passed = clock::now() - start;
    local().write32(TIMER_INITIAL, 0);
    PER_MS.store((u64::from(counted) * 1_000_000 / passed).max(1) as u32, Ordering::Relaxed);
}

/// Acknowledges the interrupt that is being handled.
pub fn end_of_interrupt() {
    local().write32(END, 0);
}

/// Which core this is.
pub fn core() -> usize {
    // Relaxed: set once, by core 0, before there is another.
    usize::from(local().read32(ID) >> 24 != FIRST.load(Ordering::Relaxed))
}

/// This core gets an interrupt at about that time.
pub fn set_alarm(at: Option<u64>) {
    let counts = at.map_or(0, |at| {
        let left = u128::from(at.saturating_sub(clock::now()));
        // Relaxed: as above.
        let counts = left * u128::from(PER_MS.load(Ordering::Relaxed)) / 1_000_000;
        // One that is over comes at once, and one far away too early.
        counts.clamp(1, u32::MAX.into()) as u32
    });
    local().write32(TIMER_INITIAL, counts);
}

/// What a device writes where to raise an interrupt, on core 0.
pub fn msi(vector: u32) -> Option<(u64, u32)> {
    // Relaxed: as above.
    let first = FIRST.load(Ordering::Relaxed);
    Some((LOCAL as u64 | u64::from(first) << 12, number(vector).into()))
}

/// The interrupt line raises the vector on core 0, as long as it is high.
pub fn line(irq: u32, vector: u32) {
    let io = window(IO);
    let entry = 0x10 + 2 * irq;
    IO_LOCK.with(|()| {
        let write = |register: u32, value: u32| {
            io.write8(SELECT, register as u8);
            io.write32(VALUE, value);
        };
        // Relaxed: as above.
        write(entry + 1, FIRST.load(Ordering::Relaxed) << 24);
        write(entry, LEVEL | u32::from(number(vector)));
    });
}

/// Interrupts every other core that has started.
pub fn ipi() {
    // Relaxed: one that starts now looks at everything anyway.
    if STARTED.load(Ordering::Relaxed) != 0 {
        command(ALL_OTHERS | ASSERT | u32::from(IPI));
    }
}

fn command(command: u32) {
    // In one piece: a handler on this core sends commands too.
    let on = super::interrupts_off();
    while local().read32(COMMAND) & BUSY != 0 {
        spin_loop();
    }
    local().write32(COMMAND_TO, 0);
    local().write32(COMMAND, command);
    if on {
        super::interrupts_on();
    }
}

fn pause(nanoseconds: u64) {
    let until = clock::now() + nanoseconds;
    while clock::now() < until {
        spin_loop();
    }
}

/// Starts one more core. False if there is none, or it runs already.
pub fn start_core(run: fn()) -> bool {
    // Relaxed: core 0's own, until it has started the other.
    if RUN.swap(run as usize, Ordering::Relaxed) != 0 {
        return false;
    }
    let (from, to) = (&raw const boot::trampoline, &raw const boot::trampoline_end);
    let len = to.addr() - from.addr();
    // SAFETY: a page of memory below 1 MiB, which is not the image's; the
    // firmware has come to its end.
    unsafe { core::ptr::copy_nonoverlapping(from, boot::TRAMPOLINE as *mut u8, len) };
    command(ALL_OTHERS | ASSERT | INIT);
    pause(10_000_000);
    // Twice, as the processor's manual has it: the first may be lost.
    for limit in [1_000_000, 1_000_000_000] {
        command(ALL_OTHERS | ASSERT | STARTUP | (boot::TRAMPOLINE >> 12) as u32);
        let until = clock::now() + limit;
        while clock::now() < until {
            // Acquire: pairs with the Release in `started`.
            if STARTED.load(Ordering::Acquire) != 0 {
                return true;
            }
            spin_loop();
        }
    }
    false
}

/// On the second core: says that it is there. What it shall run.
pub fn started() -> fn() {
    // The start of this core has ordered everything before it.
    let run = RUN.load(Ordering::Relaxed);
    // Release: pairs with the Acquire in `start_core`.
    STARTED.store(1, Ordering::Release);
    // SAFETY: `start_core` stores nothing else, before it starts a core.
    unsafe { core::mem::transmute::<usize, fn()>(run) }
}
