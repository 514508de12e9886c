//! The vectors: an interrupt goes to its handler, everything else ends the
//! image.

use core::arch::{asm, global_asm};

use annulus::sync::{AtomicU32, Ordering};

use super::{gic, halt};
use crate::println;

// An interrupt keeps what a Rust function may change, all of the vector
// registers with it (of q8 to q15 a callee keeps only the lower half), and
// the return state, so that nothing depends on the handler's own frame.
global_asm!(
    r#"
    .section .text.vectors, "ax"
    .macro fatal number
    .balign 0x80
    mov     x0, #\number
    b       fatal_exception
    .endm

    .balign 0x800
    .global vectors
vectors:
    fatal   0
    fatal   1
    fatal   2
    fatal   3
    fatal   4
    .balign 0x80
    b       interrupt
    fatal   6
    fatal   7
    fatal   8
    fatal   9
    fatal   10
    fatal   11
    fatal   12
    fatal   13
    fatal   14
    fatal   15

    .balign 4
// On a stack of its own, one for each core: the other may be what is wrong.
fatal_exception:
    mrs     x1, mpidr_el1
    and     x1, x1, #1
    ldr     x2, =__last_stack_top
    sub     x2, x2, x1, lsl #13
    mov     sp, x2
    b       {unexpected}

interrupt:
    sub     sp, sp, #720
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x29, [sp, #144]
    mrs     x0, elr_el1
    mrs     x1, spsr_el1
    stp     x30, x0, [sp, #160]
    mrs     x2, fpcr
    mrs     x3, fpsr
    stp     x1, x2, [sp, #176]
    str     x3, [sp, #192]
    add     x4, sp, #208
    stp     q0, q1, [x4, #0]
    stp     q2, q3, [x4, #32]
    stp     q4, q5, [x4, #64]
    stp     q6, q7, [x4, #96]
    stp     q8, q9, [x4, #128]
    stp     q10, q11, [x4, #160]
    stp     q12, q13, [x4, #192]
    stp     q14, q15, [x4, #224]
    stp     q16, q17, [x4, #256]
    stp     q18, q19, [x4, #288]
    stp     q20, q21, [x4, #320]
    stp     q22, q23, [x4, #352]
    stp     q24, q25, [x4, #384]
    stp     q26, q27, [x4, #416]
    stp     q28, q29, [x4, #448]
    stp     q30, q31, [x4, #480]
    bl      {interrupt}
    add     x4, sp, #208
    ldp     q0, q1, [x4, #0]
    ldp     q2, q3, [x4, #32]
    ldp     q4, q5, [x4, #64]
    ldp     q6, q7, [x4, #96]
    ldp     q8, q9, [x4, #128]
    ldp     q10, q11, [x4, #160]
    ldp     q12, q13, [x4, #192]
    ldp     q14, q15, [x4, #224]
    ldp     q16, q17, [x4, #256]
    ldp     q18, q19, [x4, #288]
    ldp     q20, q21, [x4, #320]
    ldp     q22, q23, [x4, #352]
    ldp     q24, q25, [x4, #384]
    ldp     q26, q27, [x4, #416]
    ldp     q28, q29, [x4, #448]
    ldp     q30, q31, [x4, #480]
    ldr     x3, [sp, #192]
    ldp     x1, x2, [sp, #176]
    ldp     x30, x0, [sp, #160]
    msr     fpsr, x3
    msr     fpcr, x2
    msr     spsr_el1, x1
    msr     elr_el1, x0
    ldp     x18, x29, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp, #0]
    add     sp, sp, #720
    eret
    "#,
    unexpected = sym unexpected,
    interrupt = sym gic::interrupt,
);

/// What happened, by the number of its vector (Arm ARM D1.4.1).
fn name(vector: u64) -> &'static str {
    match vector % 4 {
        0 => "synchronous",
        1 => "interrupt",
        2 => "fast interrupt",
        _ => "system error",
    }
}

/// Any exception but an interrupt: the image has failed.
extern "C" fn unexpected(vector: u64) -> ! {
    static FAILING: AtomicU32 = AtomicU32::new(0);
    // Once: what fails while it says so, or on the other core, only stops.
    // Relaxed: nothing else is told by it.
    if FAILING.swap(1, Ordering::Relaxed) != 0 {
        halt();
    }
    let (syndrome, address, from): (u64, u64, u64);
    // SAFETY: reads registers.
    unsafe {
        asm!(
            "mrs {}, esr_el1", "mrs {}, far_el1", "mrs {}, elr_el1",
            out(reg) syndrome, out(reg) address, out(reg) from,
            options(nomem, nostack, preserves_flags)
        );
    }
    crate::console::force();
    // Why, by the class of the syndrome (D17.2.37): 0x25 is data that cannot
    // be had, 0x21 an instruction.
    let (class, core) = (syndrome >> 26 & 0x3f, super::core());
    println!("EXCEPTION: {}, class {class:#x}, on core {core} at {from:#x}", name(vector));
    println!("  vector {vector}, syndrome {syndrome:#x}, address {address:#x}");
    crate::verdict(false)
}
