//! What the image knows of its machine. Every architecture has the same names:
//!
//! | name | what it does |
//! |---|---|
//! | `write(bytes)` | puts bytes on the serial line |
//! | `exit(ok) -> !` | ends the machine, with a verdict where it can carry one |
//! | `command_line()` | what the loader was told for the image |
//! | `now()` | nanoseconds since some time before the boot, the same on all cores |
//! | `core()` | which core this is: 0 booted the machine |
//! | `interrupts_off() -> bool`, `interrupts_on()` | this core's; whether they were on |
//! | `wait()` | turns interrupts on and sleeps until one has come, with nothing lost in between |
//! | `set_alarm(at)` | this core gets an interrupt at about that time (`None`: no more) |
//! | `set_handler(vector, handler)` | what an interrupt does; `vector` is below `VECTORS` |
//! | `msi(vector)` | what a device writes where to raise it: address and data |
//! | `line(irq, vector)` | the machine's interrupt line `irq` (level) raises it |
//! | `start_core(run)` | starts one more core, with interrupts on; false if there is none |
//! | `ipi()` | interrupts every other core |
//! | `pci()` | how configuration space is reached |
//! | `pci_windows()` | addresses for PCI devices, where no firmware has given them any |
//! | `virtio_mmio()` | the virtio-mmio devices that the machine tells of |
//! | `registers(physical, len)` | where a device's registers are mapped, not cached |
//! | `memory_end()` | memory below this address is mapped one to one, and devices reach it |
//!
//! Device interrupts come to core 0.

use core::ops::RangeInclusive;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "aarch64")]
pub use aarch64::*;
#[cfg(target_arch = "x86_64")]
pub use x86_64::*;

/// Interrupts that the image can have handlers for.
pub const VECTORS: u32 = 32;

/// How PCI configuration space is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pci {
    /// As memory: 4 KiB a function, from this physical address on for the
    /// first of these buses.
    Ecam {
        /// Of the first bus.
        base: u64,
        /// The buses there.
        buses: RangeInclusive<u8>,
    },
    /// By x86's ports 0xcf8 and 0xcfc.
    #[cfg(target_arch = "x86_64")]
    Ports,
}

/// Where a virtio-mmio device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VirtioMmio {
    /// The physical address of its registers.
    pub base: u64,
    /// Their bytes.
    pub len: usize,
    /// Its interrupt line, as `line` takes it.
    pub irq: u32,
}
