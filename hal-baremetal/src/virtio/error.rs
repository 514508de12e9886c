//! Why a disk cannot be used.

use annulus::errno::Errno;

/// Why a device, a disk or a queue of it cannot be had. The device has been
/// reset, unless the text says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its registers read all ones.
    #[error("the device does not answer: it was removed, or has no power")]
    Gone,
    /// There is no device behind these registers.
    #[error("there is no virtio device at these registers ({why}); look at the next place")]
    NoDevice {
        /// How that was seen.
        why: &'static str,
    },
    /// A device of before version 1 of the standard.
    #[error(
        "the device has only the legacy interface (version {version}); have it made as a modern \
         one (in QEMU: -global virtio-mmio.force-legacy=false, or disable-legacy=on for PCI)"
    )]
    Legacy {
        /// What its version register says.
        version: u32,
    },
    /// A virtio device, and no disk.
    #[error("the device is of virtio type {have}, not a block device (2); look at the next one")]
    WrongType {
        /// Its type.
        have: u32,
    },
    /// A register window is smaller than what must be in it.
    #[error("the window of {what} has {have} bytes and {need} are needed: map all of it")]
    Window {
        /// Which.
        what: &'static str,
        /// Bytes there are.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// A wait for the device came to its deadline.
    #[error("the device did not {what} within {ms} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        ms: u64,
    },
    /// The device lacks a feature that there is no way around.
    #[error("the device does not offer {what}, which this driver needs")]
    NoFeature {
        /// Which.
        what: &'static str,
    },
    /// FEATURES_OK did not stay set.
    #[error("the device refuses the features {features:#x}; try with fewer (`Options`)")]
    Refused {
        /// What the driver chose of those on offer.
        features: u64,
    },
    /// Configuration that contradicts itself or the standard.
    #[error("the device's configuration cannot be right: {why}")]
    Config {
        /// What is wrong.
        why: &'static str,
    },
    /// A queue that cannot be used.
    #[error("queue {queue} of the device cannot be used: {why}")]
    Queue {
        /// Which.
        queue: u16,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The device has no room for one more MSI-X vector.
    #[error("the device does not take MSI-X vector {vector}; use fewer, or the line interrupt")]
    Vector {
        /// Which.
        vector: u16,
    },
    /// All queues are in use.
    #[error("all {queues} queues of the disk are in use; end a ring, or ask for more queues")]
    NoQueue {
        /// How many there are.
        queues: u16,
    },
    /// The disk has ended: it could not be reset.
    #[error("the disk could not be reset and is out of use; a power cycle may help")]
    Dead,
    /// A request of the driver itself failed.
    #[error("{what}: {errno}")]
    Request {
        /// Which.
        what: &'static str,
        /// How.
        errno: Errno,
    },
    /// A wrong argument.
    #[error("{0}")]
    Argument(&'static str),
    /// Memory for the device.
    #[error("memory for {what}: {errno}; give the platform more, or ask for less")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// The place's answer.
        errno: Errno,
    },
}

impl Error {
    /// The errno that says the same, for a CQE or a registration.
    pub fn errno(self) -> Errno {
        match self {
            Error::Gone | Error::NoDevice { .. } => Errno::ENODEV,
            Error::Timeout { .. } => Errno::ETIMEDOUT,
            Error::NoFeature { .. } | Error::Legacy { .. } | Error::WrongType { .. } => {
                Errno::EOPNOTSUPP
            }
            Error::NoQueue { .. } => Errno::EBUSY,
            Error::Argument(_) => Errno::EINVAL,
            Error::Request { errno, .. } | Error::Memory { errno, .. } => errno,
            _ => Errno::EIO,
        }
    }
}
