//! The serial port, a PL011 (Arm DDI 0183).

use annulus::sync::{AtomicUsize, Ordering, spin_loop};

const DATA: usize = 0x00;
const FLAGS: usize = 0x18;
const CONTROL: usize = 0x30;
/// The transmitter has no room.
const FULL: u32 = 1 << 5;
/// The port, its transmitter, its receiver.
const ON: u32 = 1 | 1 << 8 | 1 << 9;

/// Where it is on this machine, for what there is to say before the device
/// tree has been read. Read and written without an order: set before there is
/// a second core.
static PORT: AtomicUsize = AtomicUsize::new(0x0900_0000);

fn register(offset: usize) -> *mut u32 {
    (PORT.load(Ordering::Relaxed) + offset) as *mut u32
}

/// Uses the port at `address` from now on.
pub fn start(address: usize) {
    PORT.store(address, Ordering::Relaxed);
    // SAFETY: a register of the port, which is mapped for ever.
    unsafe { register(CONTROL).write_volatile(ON) };
}

/// Writes `bytes` as they are.
pub fn write(bytes: &[u8]) {
    for &byte in bytes {
        // SAFETY: registers of the port, which is mapped for ever.
        unsafe {
            while register(FLAGS).read_volatile() & FULL != 0 {
                spin_loop();
            }
            register(DATA).write_volatile(byte.into());
        }
    }
}
