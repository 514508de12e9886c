//! From the first instruction to Rust, on either core.
//!
//! QEMU starts an ELF image at its entry, at EL1 (or at EL2 with
//! `virtualization=on`), the MMU off, and the device tree at the beginning of
//! memory; a loader that follows Linux's boot protocol passes its address in
//! `x0`. The second core comes here by PSCI's CPU_ON, in the same state.

use core::arch::global_asm;

/// Where memory begins on this machine, and the device tree with it if no
/// loader says otherwise.
pub const MEMORY: usize = 0x4000_0000;

global_asm!(
    r#"
    .section .text.boot, "ax"
    .global _start
_start:
    mov     x19, x0
    bl      to_el1
    cbnz    x19, 1f
    mov     x19, {memory}
1:
    ldr     x0, =__stack_top
    mov     sp, x0
    ldr     x0, =__bss_start
    ldr     x1, =__bss_end
2:
    cmp     x0, x1
    b.hs    3f
    stp     xzr, xzr, [x0], #16
    b       2b
3:
    bl      {fill}
    bl      to_rust
    mov     x0, x19
    bl      {first}
    b       .

    .global _start_second
_start_second:
    bl      to_el1
    ldr     x0, =__second_stack_top
    mov     sp, x0
    bl      to_rust
    bl      {second}
    b       .

// From EL2 to EL1, which is AArch64 and has its timer; nothing at EL1. What
// is not set here traps to nowhere, or is not there at EL1.
to_el1:
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    4f
    mov     x1, #(1 << 31)
    msr     hcr_el2, x1
    mov     x1, #3
    msr     cnthctl_el2, x1
    msr     cntvoff_el2, xzr
    mov     x1, #0x33ff
    msr     cptr_el2, x1
    mov     x1, #0x3c5
    msr     spsr_el2, x1
    msr     elr_el2, x30
    eret
4:
    ret

// Vectors, floating point (the compiler uses its registers to copy), and the
// page tables of `mmu.rs`: all without looking at memory, which the other
// core has in its cache.
to_rust:
    ldr     x1, =vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)
    msr     cpacr_el1, x1
    ldr     x1, ={mair}
    msr     mair_el1, x1
    // The physical addresses that this processor has, up to 48 bits.
    mrs     x1, id_aa64mmfr0_el1
    and     x1, x1, #0xf
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    ldr     x2, ={tcr}
    orr     x1, x2, x1, lsl #32
    msr     tcr_el1, x1
    ldr     x1, ={root}
    msr     ttbr0_el1, x1
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    // MMU, data cache, instruction cache, alignment of the stack pointer, and
    // the bits that were always one.
    ldr     x1, =0x30d0180d
    msr     sctlr_el1, x1
    isb
    ret
    "#,
    memory = const MEMORY,
    fill = sym super::mmu::fill,
    root = sym super::mmu::ROOT,
    mair = const super::mmu::MAIR,
    tcr = const super::mmu::TCR,
    first = sym super::first,
    second = sym super::second,
);
