//! NVMe: a controller driven through its registers and queues.
//!
//! After the NVM Express Base Specification, revision 2.0c ("Base"), the NVM
//! Command Set Specification, revision 1.0c ("NVM"), and the PCIe Transport
//! Specification, revision 1.0c ("PCIe"). Nothing here allocates, and nothing
//! knows of a platform: registers, memory and time come from a [`Platform`].
//!
//! ```text
//!   ring A: NvmeBackend ── queue pair 1 ──┐
//!   ring B: NvmeBackend ── queue pair 2 ──┼── controller
//!              │    │                     │
//!              │    └──── admin lock ─── admin queue: identify, create, abort
//!              └─ state word: which incarnation of the controller this is
//! ```
//!
//! A [`Controller`] is shared; each ring's [`NvmeBackend`] owns one queue pair
//! and touches nothing of another's. What they share is the admin queue,
//! behind a lock, and one word that says which incarnation of the controller
//! is running: after a reset every backend finds a new number there, ends
//! what it had in flight, and asks for its queue pair anew.
//!
//! # What an application sees
//!
//! A namespace is a file: [`types::Fd`](crate::types::Fd) with the namespace
//! id, or a registered one. It behaves as a Linux block device opened with
//! `O_DIRECT`: offsets and lengths are multiples of the block (`-EINVAL`), a
//! read at the end answers 0, a write there `-ENOSPC`, one that crosses the
//! end is cut. Device memory is reached directly in registered buffers and
//! through bounce buffers otherwise.
//!
//! # Deadlines
//!
//! Every command has one. A command that passes it is aborted; if that does
//! not end it in as much time again, the controller is reset and everything in
//! flight ends: what was late with `-ETIMEDOUT`, the rest with `-EIO`. If the
//! controller cannot be reset its bus mastering is taken away first, so no
//! memory is given back that it could still write. A removed device (registers
//! read all ones) ends everything with `-ENODEV`.

mod admin;
mod backend;
mod bring_up;
mod controller;
mod describe;
mod error;
mod identify;
mod issue;
mod log;
mod memory;
mod prp;
mod queue;
mod recover;
mod regs;
mod serve;
mod short;
mod spec;
mod status;
mod tracker;

pub use backend::{BackendStats, Completions, NvmeBackend, QueueOptions};
pub use controller::{Controller, Limits, Options};
pub use error::Error;
pub use identify::{ControllerInfo, NamespaceInfo, SglAlignment};
pub use log::{Health, RecentError};
pub use status::Status;
pub use tracker::Tracker;

pub use crate::block::Vectors;
use crate::hal::Clock;
use crate::hal::device::{Dma, Mmio};

/// Where an NVMe controller is: its registers, memory for it, and time.
pub trait Platform: Mmio + Dma + Clock {
    /// Lets a little time pass (in the order of 100 µs) in a wait that is
    /// cold: for a reset, for an admin command.
    fn relax(&self);

    /// Takes the device's right to reach memory away (PCI bus mastering off).
    /// True if it surely cannot any more.
    fn isolate(&self) -> bool;

    /// Whether somebody wants the device back (it is to be unplugged): what is
    /// in flight ends with `-ENODEV` then, and everything after it.
    fn leaving(&self) -> bool {
        false
    }

    /// Resets the function and gives the right to reach memory back, after
    /// [`isolate`](Platform::isolate). False if there is no such reset.
    fn reset_function(&self) -> bool;
}
