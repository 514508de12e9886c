//! QEMU's `virt` machine for Arm, with a GICv2 (`-M virt,gic-version=2`), and
//! any processor of the architecture's first version (`-cpu cortex-a72`).
//!
//! What is used of it: the device tree, the MMU, the GICv2 and its frame for
//! MSIs, the PL011, the generic timer, and PSCI for the second core and the
//! end. There is no device that would carry a verdict: it is the last line on
//! the serial port.

#[allow(missing_docs)]
mod boot;
mod exceptions;
mod gic;
mod mmu;
mod psci;
mod serial;
mod timer;

use core::arch::asm;

use annulus::hal::device::{PAGE, barrier};
use annulus::sync::{AtomicUsize, Mutex, Ordering};
use annulus_unikernel::board::{self, Board, Gic, Unfit};

use annulus_baremetal::pci::Windows;

use super::{Pci, VirtioMmio};
use crate::println;

pub use gic::{ipi, msi, set_handler};
pub use mmu::{image_end as memory_end, registers};
pub use serial::write;
pub use timer::{now, set as set_alarm};

unsafe extern "C" {
    /// Where the second core begins (`boot.rs`).
    fn _start_second();
}

static BOARD: Mutex<Option<Board<'static>>> = Mutex::new(None);

/// What the second core does: `fn()`.
static RUN: AtomicUsize = AtomicUsize::new(0);

/// On core 0, with the MMU on, from `boot.rs`.
extern "C" fn first(tree: usize) -> ! {
    errors_on();
    let board = match machine(tree) {
        Ok(board) => board,
        Err(why) => {
            println!("this machine does not suit the image: {why}");
            crate::verdict(false);
        }
    };
    serial::start(board.serial);
    gic::start(&board.gic, board.timer);
    BOARD.with(|known| *known = Some(board));
    interrupts_on();
    crate::main()
}

/// On the second core, from `boot.rs`.
extern "C" fn second() -> ! {
    errors_on();
    gic::start_core();
    // Acquire: pairs with the Release in `start_core`.
    let run = RUN.load(Ordering::Acquire);
    // SAFETY: `start_core` stores nothing else, before the core runs.
    let run = unsafe { core::mem::transmute::<usize, fn()>(run) };
    interrupts_on();
    run();
    loop {
        wait();
    }
}

/// Reads the device tree, which lies below the image.
fn machine(tree: usize) -> Result<Board<'static>, Unfit> {
    let there = boot::MEMORY..mmu::image_start();
    let room =
        there.end.checked_sub(tree).filter(|_| there.contains(&tree) && tree.is_multiple_of(8));
    let header = room.filter(|room| *room >= 8).map(|_| tree as *const [u8; 8]);
    // SAFETY: mapped, and nobody writes there.
    let len = header.and_then(|header| board::tree_len(unsafe { &*header }));
    let len = len.filter(|len| Some(*len) <= room).ok_or(Unfit::NoTree)?;
    // SAFETY: as above, for ever.
    let blob = unsafe { core::slice::from_raw_parts(tree as *const u8, len) };
    let board = Board::read(blob, memory_end() as u64)?;
    // What is used before anything asks for its registers.
    let Gic { distributor, core, frame } = board.gic;
    for address in [board.serial, distributor, core].into_iter().chain(frame) {
        registers(address as u64, PAGE).ok_or(Unfit::Odd("addresses of registers"))?;
    }
    Ok(board)
}

/// Asks the board, once it is known.
fn ask<T>(what: impl FnOnce(&Board<'static>) -> T) -> Option<T> {
    BOARD.with(|board| board.as_ref().map(what))
}

/// What the loader was told for the image.
pub fn command_line() -> &'static str {
    ask(|board| board.command_line).unwrap_or("")
}

/// How configuration space is reached.
pub fn pci() -> Option<Pci> {
    let pci = ask(|board| board.pci).flatten()?;
    Some(Pci::Ecam { base: pci.ecam, buses: pci.buses.0..=pci.buses.1 })
}

/// Addresses for PCI devices: there is no firmware that has given them any.
pub fn pci_windows() -> Option<Windows> {
    let pci = ask(|board| board.pci).flatten()?;
    // The same for the processor and for devices, as on QEMU's virt.
    let range = |window: board::Window| {
        (window.bus == window.processor).then(|| window.bus..window.bus + window.len)
    };
    Some(Windows { memory: range(pci.low)?, prefetchable: pci.high.and_then(range) })
}

/// The virtio-mmio places that the machine tells of; in most is no device.
pub fn virtio_mmio() -> impl Iterator<Item = VirtioMmio> {
    (0..).map_while(|n| ask(|board| board.places().nth(n)).flatten()).map(|place| VirtioMmio {
        base: place.base as u64,
        len: place.len,
        irq: place.interrupt,
    })
}

/// The machine's interrupt line `irq`, one of [`virtio_mmio`]'s, raises `vector`
/// on core 0. The line is up as long as a bit of InterruptStatus is set (Virtio
/// 1.2, 4.2.3.4), so it is taken by its level although the device tree says
/// edge: a bit that is set while another is acknowledged would make no edge,
/// nor would any after it.
pub fn line(irq: u32, vector: u32) {
    let there = gic::enable(irq, gic::Trigger::Level, vector);
    assert!(there, "the machine has no interrupt line {irq}");
}

/// Which core this is: 0 booted the machine.
pub fn core() -> usize {
    let name: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mrs {}, mpidr_el1", out(reg) name, options(nomem, nostack, preserves_flags)) };
    name as usize & 0xff
}

/// Starts one more core, with interrupts on. False if there is none.
pub fn start_core(run: fn()) -> bool {
    // Release: pairs with the Acquire in `second`.
    RUN.store(run as usize, Ordering::Release);
    let entry = _start_second as *const ();
    // What was written is in memory, where a core without its cache looks.
    barrier::full();
    let start =
        |board: &Board<'_>| Some(psci::start(board.conduit, board.second_core?, entry as u64));
    ask(start).flatten().unwrap_or(false)
}

/// Has system errors taken, for which the image fails: until then one that a
/// device caused would be pending for ever, and nobody the wiser.
fn errors_on() {
    // SAFETY: they have a handler.
    unsafe { asm!("msr daifclr, #4", options(nostack, preserves_flags)) };
}

/// Turns this core's interrupts on.
pub fn interrupts_on() {
    // SAFETY: every interrupt has a handler. A barrier for the compiler.
    unsafe { asm!("msr daifclr, #2", options(nostack, preserves_flags)) };
}

/// Turns this core's interrupts off. Whether they were on.
pub fn interrupts_off() -> bool {
    const MASKED: u64 = 1 << 7;
    let daif: u64;
    // SAFETY: as above.
    unsafe { asm!("mrs {}, daif", "msr daifset, #2", out(reg) daif, options(nostack)) };
    daif & MASKED == 0
}

/// Turns interrupts on and sleeps until one has come. `wfi` ends on an
/// interrupt that is masked too, so it comes first and none is lost.
pub fn wait() {
    // SAFETY: as above.
    unsafe { asm!("dsb sy", "wfi", "msr daifclr, #2", "isb", options(nostack)) };
}

/// Ends the machine: good or bad, it says so on the serial port only.
pub fn exit(_ok: bool) -> ! {
    if let Some(conduit) = BOARD.try_with(|board| board.as_ref().map(|b| b.conduit)).flatten() {
        psci::off(conduit);
    }
    halt()
}

/// Stops this core for ever.
fn halt() -> ! {
    loop {
        interrupts_off();
        // SAFETY: with interrupts off nothing comes of it.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
