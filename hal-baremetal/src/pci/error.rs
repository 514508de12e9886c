//! Why a device cannot be used.

use super::Address;

/// What is in the way, at which step, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// All ones, where a function should be.
    #[error("{0}: no function answers there; was it removed, or is another address meant?")]
    Absent(Address),
    /// More bridges below each other than are followed.
    #[error("{bridge}: more than {levels} bridges lie above each other; move the device up")]
    Depth {
        /// The bridge that is too deep.
        bridge: Address,
        /// How many are followed.
        levels: usize,
    },
    /// A bridge that gets no bus number.
    #[error(
        "{bridge}: no bus number is left for what is behind this bridge; give the \
         configuration space more buses, or let the firmware number them"
    )]
    Buses {
        /// The bridge.
        bridge: Address,
    },
    /// A base address register that makes no sense.
    #[error("{address}: BAR {bar} {why}")]
    Bar {
        /// The function.
        address: Address,
        /// Which.
        bar: u8,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No room for a BAR.
    #[error(
        "{address}: BAR {bar} needs {size:#x} bytes of addresses, and the window has not so \
         many left; give `pci::set_up` a larger window"
    )]
    NoRoom {
        /// The function.
        address: Address,
        /// Which.
        bar: u8,
        /// Bytes.
        size: u64,
    },
    /// The platform does not map the registers.
    #[error(
        "{address}: the platform maps no registers at {physical:#x} ({len:#x} bytes); \
         `Platform::registers` answers for the windows of PCI"
    )]
    Unmapped {
        /// The function.
        address: Address,
        /// Where.
        physical: u64,
        /// Bytes.
        len: u64,
    },
    /// The function has no such capability.
    #[error("{address}: the function has no {what}")]
    Missing {
        /// The function.
        address: Address,
        /// What it lacks, and what to do.
        what: &'static str,
    },
    /// A capability that contradicts itself.
    #[error("{address}: the capability {what} cannot be right: {why}")]
    Capability {
        /// The function.
        address: Address,
        /// Which.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such interrupt vector.
    #[error("{address}: there is no interrupt vector {vector}; the function has {vectors}")]
    Vector {
        /// The function.
        address: Address,
        /// The vector asked for.
        vector: u16,
        /// How many there are.
        vectors: u16,
    },
    /// A device of another kind.
    #[error("{address}: this is {vendor:04x}:{device:04x}, not {wanted}")]
    Kind {
        /// The function.
        address: Address,
        /// Its vendor.
        vendor: u16,
        /// Its device ID.
        device: u16,
        /// What was wanted.
        wanted: &'static str,
    },
    /// A virtio device with the interface from before Virtio 1.0 only.
    #[error(
        "{address}: this virtio device speaks the legacy interface only; start it as a modern \
         or transitional one (QEMU: without disable-modern=on)"
    )]
    Legacy {
        /// The function.
        address: Address,
    },
    /// A wait for a function came to its deadline.
    #[error("{address}: the function did not {what} within {ms} ms")]
    Timeout {
        /// The function.
        address: Address,
        /// What was waited for.
        what: &'static str,
        /// For how long.
        ms: u64,
    },
}
