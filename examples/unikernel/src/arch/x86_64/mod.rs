//! A PC: QEMU's q35 and microvm, and what is like them.
//!
//! What is used of it: the PVH entry, the local APIC of each core and one I/O
//! APIC, the 16550 of the first serial line, the interval timer to measure the
//! clock by, and for the end QEMU's isa-debug-exit at port 0xf4 if it is
//! there.

mod apic;
#[allow(missing_docs)]
mod boot;
mod clock;
mod info;
mod ports;
mod serial;
mod traps;

use core::arch::asm;
use core::ptr::NonNull;

use annulus::sync::Mutex;

pub use apic::{core, ipi, line, msi, set_alarm, start_core};
pub use clock::now;
pub use info::{command_line, pci, pci_windows, virtio_mmio};
pub use serial::write;
pub use traps::set_handler;

/// `isa-debug-exit,iobase=0xf4`: the machine ends with twice the value and 1.
const DEBUG_EXIT: u16 = 0xf4;
/// As QEMU's exit codes, 33 and 35.
const EXIT_GOOD: u32 = 16;
const EXIT_BAD: u32 = 17;

const GIB: u64 = 1 << 30;

#[unsafe(no_mangle)]
extern "C" fn first_core(start_info: u64) -> ! {
    serial::init();
    info::init(start_info);
    traps::init();
    clock::init();
    apic::init();
    interrupts_on();
    crate::main()
}

#[unsafe(no_mangle)]
extern "C" fn second_core() -> ! {
    traps::init();
    apic::init_core();
    let run = apic::started();
    interrupts_on();
    run();
    loop {
        wait();
    }
}

/// Turns this core's interrupts on.
pub fn interrupts_on() {
    // SAFETY: every interrupt has a handler. A barrier for the compiler.
    unsafe { asm!("sti", options(nostack)) };
}

/// Turns this core's interrupts off. Whether they were on.
pub fn interrupts_off() -> bool {
    const INTERRUPTS: u64 = 1 << 9;
    let flags: u64;
    // SAFETY: as above; the stack is left as it was.
    unsafe { asm!("pushfq", "pop {}", "cli", out(reg) flags) };
    flags & INTERRUPTS != 0
}

/// Turns interrupts on and sleeps until one has come. `sti` lets none in
/// before the instruction behind it has begun, so none is lost.
pub fn wait() {
    // SAFETY: as above.
    unsafe { asm!("sti", "hlt", options(nostack)) };
}

/// Ends the machine; without QEMU's device for that, stops this core for ever.
pub fn exit(ok: bool) -> ! {
    // SAFETY: the port of that device, or of none.
    unsafe { ports::write32(DEBUG_EXIT, if ok { EXIT_GOOD } else { EXIT_BAD }) };
    loop {
        interrupts_off();
        // SAFETY: with interrupts off it does not come back.
        unsafe { asm!("hlt", options(nomem, nostack)) };
    }
}

/// Memory below this is mapped one to one.
pub fn memory_end() -> usize {
    boot::MEMORY_END as usize
}

/// Where device registers at a physical address are mapped.
pub fn registers(physical: u64, len: usize) -> Option<NonNull<u8>> {
    let end = physical.checked_add(len as u64)?;
    if physical < boot::MEMORY_END || end > 512 * GIB {
        return None;
    }
    for gib in physical / GIB..=(end - 1).max(physical) / GIB {
        map(gib)?;
    }
    NonNull::new(physical as *mut u8)
}

/// Maps a GiB, not cached, unless it is.
fn map(gib: u64) -> Option<()> {
    const COUNT: usize = 4;
    /// Present, writable, large, written through, not cached.
    const DEVICE: u64 = 0x9b;
    #[repr(C, align(4096))]
    struct Directories([[u64; 512]; COUNT]);
    static SPARE: Mutex<(Directories, usize)> = Mutex::new((Directories([[0; 512]; COUNT]), 0));
    SPARE.with(|(spare, used)| {
        let entry = &raw mut boot::page_pointers;
        // SAFETY: a level 3 entry, changed under the lock alone.
        let entry = unsafe { &mut (*entry)[gib as usize] };
        if *entry != 0 {
            return Some(());
        }
        let directory = spare.0.get_mut(*used)?;
        *used += 1;
        for (n, page) in (0..).zip(&mut *directory) {
            *page = (gib * GIB + n * (2 << 20)) | DEVICE;
        }
        // What was not present is not in any core's TLB.
        *entry = directory.as_ptr() as u64 | 3;
        Some(())
    })
}
