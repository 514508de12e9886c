//! The interrupt controller, a GICv2 (Arm IHI 0048B), and its frame for MSIs.
//!
//! Version 2 because an MSI is a plain write there: GICv2m's frame (Arm DEN
//! 0029, appendix E) turns a write of an interrupt's number into that
//! interrupt. Version 3 would need an ITS, with tables and a command queue in
//! memory, and shows nothing more of rings.

use annulus::hal::device::barrier;
use annulus::sync::{AtomicU32, AtomicUsize, Ordering};
use annulus_unikernel::board::Gic;

use super::timer;
use crate::arch::VECTORS;

/// Interrupts that a GICv2 can have; the numbers above tell of none.
const INTERRUPTS: u32 = 1020;
/// Numbers below are each core's own.
const SHARED: u32 = 32;
/// The interrupt that one core sends to the others.
const IPI: u32 = 0;

// Of the distributor (4.1.2), and of a core's interface (4.1.3).
const GICD_CTLR: usize = 0x000;
const GICD_TYPER: usize = 0x004;
const GICD_ISENABLER: usize = 0x100;
const GICD_ICENABLER: usize = 0x180;
const GICD_ICPENDR: usize = 0x280;
const GICD_IPRIORITYR: usize = 0x400;
const GICD_ITARGETSR: usize = 0x800;
const GICD_ICFGR: usize = 0xc00;
const GICD_SGIR: usize = 0xf00;
const GICC_CTLR: usize = 0x00;
const GICC_PMR: usize = 0x04;
const GICC_IAR: usize = 0x0c;
const GICC_EOIR: usize = 0x10;

// Of the MSI frame.
const MSI_TYPER: usize = 0x008;
const MSI_SETSPI_NS: usize = 0x040;

/// The middle priority, for all: none interrupts another.
const PRIORITY: u8 = 0x80;
/// A core's interface lets everything through.
const ANY: u32 = 0xff;

// Set by `start` before there is a second core or an interrupt; so all are
// read and written without an order of their own.
static DISTRIBUTOR: AtomicUsize = AtomicUsize::new(0);
static CORE: AtomicUsize = AtomicUsize::new(0);
static FRAME: AtomicUsize = AtomicUsize::new(0);
static TIMER: AtomicU32 = AtomicU32::new(0);
/// The first core, as the distributor names it: a bit.
static TARGET: AtomicU32 = AtomicU32::new(0);

/// The interrupt that each of the image's vectors stands for, and what it
/// does (`fn(u32)`); 0 for none.
static NUMBERS: [AtomicU32; VECTORS as usize] = [const { AtomicU32::new(0) }; VECTORS as usize];
static HANDLERS: [AtomicUsize; VECTORS as usize] =
    [const { AtomicUsize::new(0) }; VECTORS as usize];

/// How a device tells of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By a write, once.
    Edge,
    /// By its line, as long as that is up.
    Level,
}

fn distributor(offset: usize) -> *mut u32 {
    (DISTRIBUTOR.load(Ordering::Relaxed) + offset) as *mut u32
}

fn interface(offset: usize) -> *mut u32 {
    (CORE.load(Ordering::Relaxed) + offset) as *mut u32
}

fn read(register: *mut u32) -> u32 {
    // SAFETY: a register of the controller, which is mapped for ever.
    unsafe { register.read_volatile() }
}

fn write(register: *mut u32, value: u32) {
    // SAFETY: as above; every use says what it does.
    unsafe { register.write_volatile(value) }
}

/// A byte of the arrays that have one for each interrupt.
fn write_byte(array: usize, interrupt: u32, value: u8) {
    let register = distributor(array).cast::<u8>();
    // SAFETY: as above, and these registers take bytes (4.1.4).
    unsafe { register.add(interrupt as usize).write_volatile(value) }
}

/// Sets the controller up, with every interrupt of a device off, and the
/// first core's interface. `alarm` is the timer's interrupt, of the core's own.
pub fn start(gic: &Gic, alarm: u32) {
    DISTRIBUTOR.store(gic.distributor, Ordering::Relaxed);
    CORE.store(gic.core, Ordering::Relaxed);
    FRAME.store(gic.frame.unwrap_or(0), Ordering::Relaxed);
    TIMER.store(alarm, Ordering::Relaxed);
    write(distributor(GICD_CTLR), 0);
    for n in SHARED as usize / 32..lines() as usize / 32 {
        write(distributor(GICD_ICENABLER + 4 * n), u32::MAX);
        write(distributor(GICD_ICPENDR + 4 * n), u32::MAX);
    }
    // The interrupts of a core's own are all for it, which tells its name
    // (4.3.12).
    TARGET.store(read(distributor(GICD_ITARGETSR)) & 0xff, Ordering::Relaxed);
    write(distributor(GICD_CTLR), 1);
    start_core();
}

/// Sets the interface of the core that calls it up: for interrupts of other
/// cores, and for its timer's.
pub fn start_core() {
    for own in [IPI, TIMER.load(Ordering::Relaxed)] {
        write_byte(GICD_IPRIORITYR, own, PRIORITY);
        write(distributor(GICD_ISENABLER), 1 << (own % 32));
    }
    write(interface(GICC_PMR), ANY);
    write(interface(GICC_CTLR), 1);
}

/// How many interrupts the controller has (a multiple of 32).
fn lines() -> u32 {
    ((read(distributor(GICD_TYPER)) & 0x1f) + 1) * 32
}

/// What `vector` does.
pub fn set_handler(vector: u32, handler: fn(u32)) {
    // Release: pairs with the Acquire in `interrupt`, for what the handler
    // uses.
    HANDLERS[vector as usize].store(handler as usize, Ordering::Release);
}

/// Lets the interrupt `number` of a device raise `vector` on the first core. `false` if the
/// controller has no such interrupt.
pub fn enable(number: u32, trigger: Trigger, vector: u32) -> bool {
    if !(SHARED..lines().min(INTERRUPTS)).contains(&number) {
        return false;
    }
    // Relaxed: the interrupt comes after it is enabled, which is a write to a
    // device behind a barrier.
    NUMBERS[vector as usize].store(number, Ordering::Relaxed);
    write_byte(GICD_IPRIORITYR, number, PRIORITY);
    let (word, bit) = (4 * (number as usize / 32), 1 << (number % 32));
    write(distributor(GICD_ICENABLER + word), bit);
    // Two bits an interrupt, of which the upper one says "edge".
    let register = distributor(GICD_ICFGR + 4 * (number as usize / 16));
    let edge = 2 << (number % 16 * 2);
    let others = read(register) & !edge;
    write(register, others | if trigger == Trigger::Edge { edge } else { 0 });
    write_byte(GICD_ITARGETSR, number, TARGET.load(Ordering::Relaxed) as u8);
    write(distributor(GICD_ICPENDR + word), bit);
    barrier::write();
    write(distributor(GICD_ISENABLER + word), bit);
    true
}

/// Where a device writes what to raise `vector`, if there is a frame for that.
pub fn msi(vector: u32) -> Option<(u64, u32)> {
    // Relaxed: as for all of them.
    let frame = FRAME.load(Ordering::Relaxed);
    if frame == 0 {
        return None;
    }
    let typer = read((frame + MSI_TYPER) as *mut u32);
    let (first, count) = (typer >> 16 & 0x3ff, typer & 0x3ff);
    let number = first + vector;
    let there = vector < count && enable(number, Trigger::Edge, vector);
    there.then_some(((frame + MSI_SETSPI_NS) as u64, number))
}

/// Interrupts every other core.
pub fn ipi() {
    // What this core wrote can be seen by the others before the interrupt is.
    barrier::write();
    // All but the one that asks (4.3.15).
    write(distributor(GICD_SGIR), 1 << 24 | IPI);
}

/// By the vector: everything that is pending, one after the other. What other
/// cores send only ends a sleep.
pub extern "C" fn interrupt() {
    loop {
        let acknowledged = read(interface(GICC_IAR));
        let number = acknowledged & 0x3ff;
        if number >= INTERRUPTS {
            return;
        }
        // Relaxed: as for all of them.
        if number == TIMER.load(Ordering::Relaxed) {
            timer::set(None);
        } else if number >= SHARED {
            handle(number);
        }
        // What the handler wrote to its device comes first, or a line that is
        // still up would interrupt again.
        barrier::full();
        write(interface(GICC_EOIR), acknowledged);
    }
}

/// Calls the handler of a device's interrupt.
fn handle(number: u32) {
    // Relaxed: see `enable`.
    let of = |at: &AtomicU32| at.load(Ordering::Relaxed) == number;
    let Some(vector) = NUMBERS.iter().position(of) else { return };
    // Acquire: pairs with the Release in `set_handler`.
    let handler = HANDLERS[vector].load(Ordering::Acquire);
    if handler != 0 {
        // SAFETY: `set_handler` stores nothing else.
        let handler = unsafe { core::mem::transmute::<usize, fn(u32)>(handler) };
        handler(vector as u32);
    }
}
