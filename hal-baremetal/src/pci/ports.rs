//! Configuration space by two ports of the processor (PCI 3.2.2.3.2).

use core::arch::asm;
use core::ops::RangeInclusive;

use annulus::sync::Mutex;

use super::config::{Address, ConfigSpace};

const ADDRESS: u16 = 0xcf8;
const DATA: u16 = 0xcfc;
const ENABLE: u32 = 1 << 31;

/// Configuration space through ports 0xCF8 and 0xCFC: every x86 machine has
/// it for the first segment, and of each function the first 256 bytes.
///
/// An access is two instructions under a lock, so not for interrupt handlers.
#[derive(Debug)]
pub struct Ports {
    lock: Mutex<()>,
}

impl Ports {
    /// The two ports.
    ///
    /// # Safety
    /// The machine has them, the program may use ports, and nobody else uses
    /// these while this exists: between two others' instructions an access
    /// would reach a register of another device.
    #[cfg(not(loom))]
    pub const unsafe fn new() -> Self {
        Self { lock: Mutex::new(()) }
    }

    /// The same, as loom's locks need it.
    ///
    /// # Safety
    /// As there.
    #[cfg(loom)]
    pub unsafe fn new() -> Self {
        Self { lock: Mutex::new(()) }
    }

    /// Runs `access` with the port of the register chosen, if there is one.
    fn at<R>(&self, at: Address, offset: u16, access: impl FnOnce(u16) -> R) -> Option<R> {
        if offset > 0xff {
            return None;
        }
        let chosen = ENABLE | u32::from(at.id()) << 8 | u32::from(offset & 0xfc);
        Some(self.lock.with(|()| {
            // SAFETY: `new`'s promise. Chooses a register, touches no memory.
            unsafe {
                asm!("out dx, eax", in("dx") ADDRESS, in("eax") chosen,
                    options(nostack, preserves_flags));
            }
            access(DATA + (offset & 3))
        }))
    }
}

/// An access by the data port.
macro_rules! port {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        fn $read(&self, at: Address, offset: u16) -> $type {
            let read = self.at(at, offset, |port| {
                let value: $type;
                // SAFETY: `new`'s promise; a configuration register has been
                // chosen.
                unsafe {
                    asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                        options(nostack, preserves_flags));
                }
                value
            });
            read.unwrap_or(<$type>::MAX)
        }

        fn $write(&self, at: Address, offset: u16, value: $type) {
            self.at(at, offset, |port| {
                // SAFETY: as for reading. What a device does with it is for
                // the caller to know.
                unsafe {
                    asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                        options(nostack, preserves_flags));
                }
            });
        }
    };
}

impl ConfigSpace for Ports {
    fn buses(&self) -> RangeInclusive<u8> {
        0..=255
    }

    port!(read8, write8, u8, "al");
    port!(read16, write16, u16, "ax");
    port!(read32, write32, u32, "eax");
}
