//! The first serial line: a 16550, polled.

use super::ports::{read8, write8};

const BASE: u16 = 0x3f8;
const INTERRUPTS: u16 = BASE + 1;
const FIFO: u16 = BASE + 2;
const LINE: u16 = BASE + 3;
const STATUS: u16 = BASE + 5;

const DIVISOR: u8 = 0x80;
const EIGHT_BITS: u8 = 3;
/// Ready for a byte.
const EMPTY: u8 = 0x20;

/// 115,200 baud, 8 bits, no interrupts.
pub fn init() {
    // SAFETY: the serial line touches no memory.
    unsafe {
        write8(INTERRUPTS, 0);
        write8(LINE, DIVISOR);
        write8(BASE, 1);
        write8(BASE + 1, 0);
        write8(LINE, EIGHT_BITS);
        write8(FIFO, 1);
    }
}

/// Sends the bytes.
pub fn write(bytes: &[u8]) {
    for byte in bytes {
        // SAFETY: as above.
        unsafe {
            while read8(STATUS) & EMPTY == 0 {
                core::hint::spin_loop();
            }
            write8(BASE, *byte);
        }
    }
}
