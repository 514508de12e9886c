//! The processor's I/O ports.

use core::arch::asm;

/// Reads a byte.
///
/// # Safety
/// Reading this port does to memory nothing that the program does not expect.
pub unsafe fn read8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: the caller's promise.
    unsafe {
        asm!("in al, dx", in("dx") port, out("al") value, options(nomem, nostack, preserves_flags));
    }
    value
}

/// Writes a byte.
///
/// # Safety
/// Writing this to the port does to memory nothing that the program does not
/// expect.
pub unsafe fn write8(port: u16, value: u8) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("out dx, al", in("dx") port, in("al") value, options(nomem, nostack, preserves_flags));
    }
}

/// Writes 32 bits.
///
/// # Safety
/// As for [`write8`].
pub unsafe fn write32(port: u16, value: u32) {
    // SAFETY: the caller's promise.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value,
            options(nomem, nostack, preserves_flags));
    }
}
