//! Exceptions and interrupts.

use core::arch::{asm, global_asm};

use annulus::sync::{AtomicUsize, Mutex, Ordering};

use super::apic;
use crate::arch::VECTORS;
use crate::println;

/// Where the interrupts of devices begin.
const FIRST: u8 = 0x40;
/// From another core.
pub const IPI: u8 = 0x30;
/// This core's timer.
pub const TIMER: u8 = 0x31;
/// The local APIC's, for one that went away; not to be acknowledged.
pub const SPURIOUS: u8 = 0xff;

global_asm!(
    r#"
    .pushsection .text.traps, "ax"
    # An entry in 16 bytes. Some exceptions (8, 10 to 14, 17, 21, 29, 30) bring
    # a word; the others get one.
    .balign 16
    .globl trap_entries
    trap_entries:
    .set vector, 0
    .rept 256
        .balign 16
        .if vector >= 32 || !(0x60227d00 >> vector & 1)
            pushq $0
        .endif
        pushq $vector
        jmp trap_entry
        .set vector, vector + 1
    .endr
    # What a Rust function does not keep; there are no vector registers.
    trap_entry:
        pushq %rax
        pushq %rcx
        pushq %rdx
        pushq %rsi
        pushq %rdi
        pushq %r8
        pushq %r9
        pushq %r10
        pushq %r11
        cld
        leaq 72(%rsp), %rdi
        call trap
        popq %r11
        popq %r10
        popq %r9
        popq %r8
        popq %rdi
        popq %rsi
        popq %rdx
        popq %rcx
        popq %rax
        addq $16, %rsp
        iretq
    .popsection
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static trap_entries: u8;
}

/// What lies on the stack of a trap.
#[repr(C)]
struct Frame {
    vector: u64,
    word: u64,
    rip: u64,
    cs: u64,
    flags: u64,
    rsp: u64,
}

/// An entry of the interrupt descriptor table.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate([u64; 2]);

impl Gate {
    /// An interrupt gate (interrupts are off in it) into the code segment.
    fn to(entry: u64) -> Self {
        const INTERRUPT: u64 = 0x8e00 << 32;
        const CODE: u64 = 0x08 << 16;
        Self([entry & 0xffff | CODE | INTERRUPT | (entry & 0xffff_0000) << 32, entry >> 32])
    }
}

#[repr(C, align(16))]
struct Table([Gate; 256]);

#[repr(C, packed)]
struct TableAt {
    limit: u16,
    base: *const Table,
}

static GATES: Mutex<Table> = Mutex::new(Table([Gate([0; 2]); 256]));

/// `fn(u32)` each, or 0.
static HANDLERS: [AtomicUsize; VECTORS as usize] =
    [const { AtomicUsize::new(0) }; VECTORS as usize];

/// Makes this core take traps.
pub fn init() {
    GATES.with(|table| {
        let entries = (&raw const trap_entries) as u64;
        for (n, gate) in (0..).zip(&mut table.0) {
            *gate = Gate::to(entries + 16 * n);
        }
        let at = TableAt { limit: (size_of::<Table>() - 1) as u16, base: table };
        // SAFETY: the table is a static, whole, and never changes again but
        // to the same.
        unsafe { asm!("lidt [{}]", in(reg) &raw const at, options(readonly, nostack)) };
    });
}

/// What an interrupt does.
pub fn set_handler(vector: u32, handler: fn(u32)) {
    // Release: pairs with the Acquire in `trap`, for what the handler uses.
    HANDLERS[vector as usize].store(handler as usize, Ordering::Release);
}

/// The processor's number of an interrupt.
pub fn number(vector: u32) -> u8 {
    assert!(vector < VECTORS, "there are only {VECTORS} vectors");
    FIRST + vector as u8
}

#[unsafe(no_mangle)]
extern "C" fn trap(frame: &Frame) {
    let vector = frame.vector as u8;
    match vector {
        0..32 => exception(frame),
        SPURIOUS => return,
        IPI | TIMER => {}
        _ => {
            let slot = u32::from(vector).wrapping_sub(u32::from(FIRST));
            // Acquire: pairs with `set_handler`.
            let handler = HANDLERS.get(slot as usize).map_or(0, |h| h.load(Ordering::Acquire));
            if handler != 0 {
                // SAFETY: `set_handler` stores nothing else.
                let handler = unsafe { core::mem::transmute::<usize, fn(u32)>(handler) };
                handler(slot);
            }
        }
    }
    apic::end_of_interrupt();
}

/// Nothing in an image is meant to bring one about.
fn exception(frame: &Frame) -> ! {
    let address: u64;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, cr2", out(reg) address, options(nomem, nostack, preserves_flags)) };
    let Frame { vector, word, rip, cs, flags, rsp } = frame;
    crate::console::force();
    println!("EXCEPTION {vector} ({word:#x}) on core {} at {cs:#x}:{rip:#x}", super::core());
    println!("  stack {rsp:#x}, flags {flags:#x}, the last page fault's address {address:#x}");
    crate::verdict(false)
}
