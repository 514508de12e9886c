//! From the loader to Rust: the PVH entry (Xen's `pvh` boot protocol, as QEMU
//! and others follow it), page tables, and the way of a second core.
//!
//! A PVH loader enters in 32-bit protected mode with paging off, flat
//! segments, interrupts off, and the address of its start info in `ebx`. It
//! finds the entry in an ELF note, and has zeroed what is `.bss`.
//!
//! The first 4 GiB are mapped one to one by pages of 2 MiB: the first half is
//! memory; the second is where a PC has its devices, and not cached.

use core::arch::global_asm;

/// Memory is cached below this; device registers are above.
pub const MEMORY_END: u64 = 2 << 30;

/// Where a second core starts: a page below 1 MiB that nobody uses then.
pub const TRAMPOLINE: usize = 0x8000;

global_asm!(
    r#"
    .pushsection .note.pvh, "a", @note
    .balign 4
    .long 4, 8, 18              # bytes of name and value, XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_entry
    .popsection

    .pushsection .bss.boot, "aw", @nobits
    .balign 4096
    .globl page_map
    page_map:  .skip 4096       # level 4
    .globl page_pointers
    page_pointers: .skip 4096   # level 3: a GiB each
    directories: .skip 4 * 4096 # level 2: 2 MiB each
    .balign 16
    .skip 256 * 1024
    stack_0:
    .skip 256 * 1024
    stack_1:
    .popsection

    .pushsection .rodata.boot, "a"
    .balign 16
    segments:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: code, 64 bits
    .quad 0x00cf93000000ffff    # 0x10: data
    .quad 0x00cf9b000000ffff    # 0x18: code, 32 bits
    segments_end:
    .globl segments_at
    segments_at:
    .word segments_end - segments - 1
    .quad segments
    .popsection

    .pushsection .text.boot, "ax"
    .code32
    .globl pvh_entry
    pvh_entry:
        cli
        cld
        # Kept where nothing below needs it: the start info.
        movl %ebx, %ebp
        # Present and writable; the tables lie behind each other.
        movl $page_pointers + 3, page_map
        movl $directories + 3, %eax
        movl $page_pointers, %edi
        movl $4, %ecx
    1:  movl %eax, (%edi)
        addl $4096, %eax
        addl $8, %edi
        loop 1b
        # Present, writable, large; then also written through and not cached.
        movl $0x83, %eax
        movl $directories, %edi
        movl $2048, %ecx
    2:  cmpl $1024, %ecx
        jne 3f
        orl $0x18, %eax
    3:  movl %eax, (%edi)
        movl $0, 4(%edi)
        addl $0x200000, %eax
        addl $8, %edi
        loop 2b
        movl $stack_0, %ebx
        lgdt segments_at

    # Long mode, with the stack in ebx; ebp is kept.
    long_mode:
        movl %cr4, %eax
        orl $0x20, %eax         # physical address extension
        movl %eax, %cr4
        movl $page_map, %eax
        movl %eax, %cr3
        movl $0xc0000080, %ecx  # EFER
        rdmsr
        orl $0x100, %eax        # long mode
        wrmsr
        movl %cr0, %eax
        andl $0x9fffffff, %eax  # caches on
        orl $0x80010001, %eax   # paging, write protection, protected mode
        movl %eax, %cr0
        ljmpl $0x08, $5f
    .code64
    5:  movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        xorl %eax, %eax
        movl %eax, %fs
        movl %eax, %gs
        movl %ebx, %esp
        movl %ebp, %edi
        xorl %ebp, %ebp
        cmpl $stack_0, %ebx
        jne 6f
        call first_core
    6:  call second_core
        ud2

    # Copied to the trampoline page. Of the cores that come, one is let on.
    .code16
    .globl trampoline
    trampoline:
        cli
        xorw %ax, %ax
        movw %ax, %ds
        lgdtl {trampoline_at} + (trampoline_segments - trampoline)
        movl %cr0, %eax
        orl $1, %eax
        movl %eax, %cr0
        ljmpl $0x18, $second_entry
    trampoline_segments:
    .word segments_end - segments - 1
    .long segments
    .globl trampoline_end
    trampoline_end:

    .code32
    second_entry:
        movl $0x10, %eax
        movl %eax, %ds
        movl %eax, %es
        movl %eax, %ss
        movl $1, %eax
        xchgl %eax, second_taken
        testl %eax, %eax
        jnz 7f
        cld
        xorl %ebp, %ebp
        movl $stack_1, %ebx
        jmp long_mode
    7:  cli
        hlt
        jmp 7b
    .code64
    .popsection

    .pushsection .data.boot, "aw"
    .balign 4
    second_taken: .long 0
    .popsection
    "#,
    trampoline_at = const TRAMPOLINE,
    options(att_syntax)
);

unsafe extern "C" {
    /// The first byte of what a second core starts with.
    pub static trampoline: u8;
    /// The byte behind it.
    pub static trampoline_end: u8;
    /// Level 3 of the page tables: a GiB an entry.
    pub static mut page_pointers: [u64; 512];
}
