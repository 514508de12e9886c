//! The smallest kernel that calls it: QEMU's riscv64 machine, without
//! firmware, one core, memory as it comes.
#![no_std]
#![no_main]

use core::arch::{asm, global_asm};
use core::fmt::{self, Write};

use annulus_baremetal::{Machine, Pages};
use embedded::{FOOTPRINT, Kernel, RING, find, verified_read};

// QEMU starts every core here, in machine mode.
global_asm!(
    ".section .text.start",
    ".global _start",
    "_start:",
    "la sp, stack_end",
    "call main",
    "0: wfi",
    "j 0b",
);

/// Pages for the disk: one for its queue, one for its requests.
const NEEDED: usize = 2;
static PAGES: Pages<NEEDED> = Pages::new();

/// Where the machine has its devices (QEMU, hw/riscv/virt.c).
const EXIT: usize = 0x10_0000;
const SERIAL: usize = 0x1000_0000;
const VIRTIO: u64 = 0x1000_1000;
const PLACES: u64 = 8;
const MEMORY: usize = 0x8000_0000;

/// The time counter's tick, in nanoseconds.
const TICK: u64 = 100;

fn now() -> u64 {
    let ticks: u64;
    // SAFETY: reads a counter.
    unsafe { asm!("rdtime {}", out(reg) ticks, options(nomem, nostack)) };
    ticks * TICK
}

struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: the port's register for a byte to send.
            unsafe { (SERIAL as *mut u8).write_volatile(byte) };
        }
        Ok(())
    }
}

fn exit(good: bool) -> ! {
    // SAFETY: the register that ends the machine.
    unsafe { (EXIT as *mut u32).write_volatile(if good { 0x5555 } else { 0x1_3333 }) };
    loop {
        core::hint::spin_loop();
    }
}

#[unsafe(no_mangle)]
extern "C" fn main() -> ! {
    unsafe extern "C" {
        static memory_end: u8;
    }
    let kernel = Kernel {
        clock: now,
        memory: MEMORY..(&raw const memory_end).addr(),
        devices: VIRTIO..VIRTIO + PLACES * 0x1000,
        pages: PAGES.take().expect("only here"),
    };
    let machine = Machine::new(&kernel);
    let places = (0..PLACES).map(|place| VIRTIO + place * 0x1000);
    let verified = find(machine, places).and_then(|disk| {
        let verified = verified_read(machine, &disk);
        verified.map(|()| disk.info().bytes)
    });
    let _ = match &verified {
        Ok(bytes) => writeln!(
            Serial,
            "verified a read of a disk of {bytes} bytes: {RING} bytes for the ring, {FOOTPRINT} in \
             all, and {NEEDED} pages"
        ),
        Err(error) => writeln!(Serial, "failed: {error}"),
    };
    exit(verified.is_ok())
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let _ = writeln!(Serial, "{info}");
    exit(false)
}
