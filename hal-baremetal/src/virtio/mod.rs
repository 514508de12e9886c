//! virtio-blk: a disk driven through virtqueues.
//!
//! After "Virtual I/O Device (VIRTIO) Version 1.3"; "section" means its
//! sections. Nothing here allocates. Registers come by a [`Transport`], memory
//! and time from a [`Platform`].
//!
//! ```text
//!   ring A: DiskBackend ── queue 0 ──┐
//!   ring B: DiskBackend ── queue 1 ──┼── Disk ── Transport: MMIO or PCI
//!              │    │                │
//!              │    └── cold lock ───┴─ negotiation, configuration, reset
//!              └─ state word: which incarnation of the device this is
//! ```
//!
//! A [`Disk`] is shared; each ring's [`DiskBackend`] owns one virtqueue and
//! touches nothing of another's. All queues are made when the disk is, for a
//! virtio device takes none later. What the backends share is one word that
//! says which incarnation of the device is running: after a reset every
//! backend finds a new number there, ends what it had in flight, and takes its
//! queue anew. That lies in other memory than before ([`Disk`] keeps two
//! halves), so nothing that a backend writes before it looks reaches the new
//! incarnation.
//!
//! # What an application sees
//!
//! The disk is one file: file number 0, or a registered file made of it. It
//! behaves as a Linux block device opened with `O_DIRECT`, and as an NVMe
//! namespace does: offsets and lengths are multiples of the block (`-EINVAL`),
//! a read at the end answers 0, a write there `-ENOSPC`, one that crosses the
//! end is cut; a read-only disk answers `-EROFS` to writes. FALLOCATE zeroes
//! ranges and punches holes (both by the device's write-zeroes; a hole may be
//! deallocated), and discards with `FALLOC_FL_NO_HIDE_STALE`. Registered
//! buffers are reached directly. Other memory goes through bounce buffers: only
//! registration makes memory known to the place (as a rule it is reachable,
//! but there may be an IOMMU or a cache in between), and it costs more than to
//! copy a block.
//!
//! # The device is not trusted
//!
//! Descriptors are written and never read. Used entries and status bytes are
//! read once and checked against trackers that the device cannot reach: what
//! was not in flight, what is longer than it can be, an index beyond all that
//! was made available are a [`Lie`], which is counted, and resets the device;
//! its requests end with `-EIO`.
//!
//! # Deadlines
//!
//! Every request has one. virtio-blk has no abort: when a request passes it,
//! the device is reset, and everything in flight ends: what was late with
//! `-ETIMEDOUT`, the rest with `-EIO`. A device that does not even finish its
//! reset keeps the memory that it may still write. A removed device (its
//! status reads all ones) ends everything with `-ENODEV`.

mod backend;
mod chain;
mod config;
mod describe;
mod disk;
mod error;
mod issue;
mod mmio;
mod negotiate;
mod packed;
mod pci;
mod places;
mod plan;
mod queue;
mod recover;
mod serve;
mod shared;
mod slots;
mod spec;
mod split;
mod tracker;
mod transport;

pub use backend::{BackendStats, Completions, DiskBackend, Failure, QueueOptions};
pub use config::DiskInfo;
pub use disk::{Disk, MOST_QUEUES, Options};
pub use error::Error;
pub use mmio::MmioTransport;
pub use pci::{PciTransport, PciWindows};
pub use plan::DiskFile;
pub use queue::Lie;
pub use tracker::Tracker;
pub use transport::{Interrupts, QueueSetup, Transport};

pub use annulus::block::Vectors;
use annulus::hal::Clock;
use annulus::hal::device::Dma;

/// Where a virtio device is: memory for it, and time.
pub trait Platform: Dma + Clock {
    /// Lets a little time pass (in the order of 100 µs) in a wait that is
    /// cold: for a reset.
    fn relax(&self);

    /// Whether somebody wants the device back (it is to be unplugged): what is
    /// in flight ends with `-ENODEV` then, and everything after it.
    fn leaving(&self) -> bool {
        false
    }
}

#[cfg(loom)]
#[doc(hidden)]
pub use shared::model;

impl<P: crate::Platform> Platform for crate::Machine<P> {
    fn relax(&self) {
        crate::Machine::relax(self);
    }
}
