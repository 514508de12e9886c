//! io_uring's contract as a library, with no kernel behind it.
//!
//! The submission and completion queues, their entries, flags and promises
//! are Linux's, byte for byte; who carries requests out is a
//! [`hal::Backend`]: ordinary files, an NVMe controller, a virtio disk.
//! Nothing here allocates, and nothing needs an operating system.
//!
//! A ring is made by [`engine::build`] out of memory that the caller gives.
//! The application pushes entries into its [`ring::SqHalf`], somebody drives
//! the [`engine::Engine`] (see [`config::Mode`]), and completions are read
//! from the [`ring::CqHalf`].
#![no_std]
#![deny(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(any(test, loom))]
extern crate std;

#[allow(unsafe_code)] // copies the data of requests
pub mod block;
pub mod config;
pub mod cqe;
#[allow(unsafe_code)] // starts requests and hands out memory; see its files
pub mod engine;
pub mod errno;
pub mod fault;
mod files;
#[allow(unsafe_code)] // names the seams' unsafe functions
pub mod hal;
mod held;
#[allow(unsafe_code)] // a cell between a caller and the engine
mod mailbox;
#[allow(unsafe_code)] // a cell between a sender and the engine
mod messages;
#[cfg(loom)]
#[allow(unsafe_code)] // memory for models, and what their requests point to
pub mod model;
#[cfg(feature = "nvme")]
#[allow(unsafe_code)] // memory shared with a device
pub mod nvme;
mod op;
pub mod opcode;
mod poller;
pub mod probe;
mod provided;
pub mod register;
mod request;
#[allow(unsafe_code)] // typed access to ring memory
pub mod ring;
mod sent;
#[allow(unsafe_code)] // a cell behind a claim
pub mod served;
#[allow(unsafe_code)] // has the seams' unsafe functions
pub mod signal;
mod slot;
pub mod sqe;
mod stats;
#[allow(unsafe_code)] // none of its own; re-exports cells
pub mod sync;
pub mod types;
pub mod uapi;
mod wake;
pub mod worker;

pub use slot::Stale;
pub use stats::{DeviceStats, Stats};

/// Submission queue names as in the `io-uring` crate.
pub mod squeue {
    pub use crate::ring::{PushError, SubmissionQueue};
    pub use crate::sqe::{Flags, Sqe as Entry};
}

/// Completion queue names as in the `io-uring` crate.
pub mod cqueue {
    pub use crate::cqe::{Cqe as Entry, buffer_more, buffer_select, more, notif, sock_nonempty};
    pub use crate::ring::CompletionQueue;
}
