//! Annulus on Linux: io_uring's contract over ordinary files, threads and
//! futexes, without the kernel's io_uring.
//!
//! The names are the `io-uring` crate's: a program changes its `use` line.
//!
//! ```
//! use annulus_linux::{IoUring, opcode, types};
//! use std::os::fd::AsRawFd;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut ring = IoUring::new(8)?;
//! let fd = std::fs::File::open("/dev/zero")?;
//! let mut buf = [1; 16];
//! let read_e = opcode::Read::new(types::Fd(fd.as_raw_fd()), buf.as_mut_ptr(), 16).build();
//! // SAFETY: the buffer and the file outlive the request.
//! unsafe { ring.submission().push(&read_e) }.expect("room");
//! ring.submit_and_wait(1)?;
//! assert_eq!(ring.completion().next().expect("one").result(), 16);
//! assert_eq!(buf, [0; 16]);
//! # Ok(())
//! # }
//! ```
//!
//! # Three ways to drive a ring
//!
//! * *Inline* (the default): the calls of the thread that has the ring.
//! * *Polled* ([`Builder::setup_sqpoll`]): a thread of the ring's own.
//! * *Served* ([`Builder::setup_served`]): whoever has work, and a helper.
//!
//! # Differences from the kernel that a program can see
//!
//! * Files are held by duplicate descriptors: a request that waits takes one
//!   of the process's numbers, and a registered file does. When one of them
//!   is closed, POSIX record locks (`fcntl(F_SETLK)`) of the process on that
//!   file go, as with any `close`; open file description locks
//!   (`F_OFD_SETLK`) and `flock` stay.
//! * A child does not share a ring with its parent: every call of a child's
//!   copy fails with [`ForkedChild`], and dropping the copy does nothing.
//! * FSYNC of a range syncs the whole file.
//! * A ring's descriptor ([`Ring::as_fd`](std::os::fd::AsFd)) only names it, for
//!   messages of other rings. Messages that wait to be posted have so many
//!   places ([`Builder::messages`]), and are posted when their ring is driven.
#![warn(missing_docs)]
#![cfg(target_os = "linux")]

mod file;
mod guard;
mod host;
#[cfg(target_pointer_width = "64")]
pub mod nvme;
mod own;
mod ring;
mod rings;
mod sys;
mod threads;
#[cfg(target_pointer_width = "64")]
pub mod vfio;

pub use annulus::config::Policy;
pub use annulus::probe::Probe;
pub use annulus::ring::Layout;
pub use annulus::{DeviceStats, Stats, cqueue, opcode, squeue, types};
pub use guard::ForkedChild;
pub use host::LinuxHost;
pub use ring::{Builder, Error, Parameters, Ring, SharedRing, Submitter};

/// Sends the message of an [`opcode::MsgRingData`] without a ring to send it from
/// (`IORING_REGISTER_SEND_MSG_RING`).
///
/// # Errors
/// What the request would end with; `EINVAL` for another operation, or with
/// flags of an entry.
pub fn register_sync_msg(entry: &squeue::Entry) -> std::io::Result<()> {
    annulus::engine::send_message(&LinuxHost::default(), entry)
        .map_err(|errno| std::io::Error::from_raw_os_error(errno.raw()))
}

/// A ring, by the `io-uring` crate's name.
pub use ring::Ring as IoUring;

/// A ring's submission queue, open for pushing.
pub type SubmissionQueue<'a> = annulus::ring::SubmissionQueue<'a, 'static>;
/// A ring's completion queue, open for reading.
pub type CompletionQueue<'a> = annulus::ring::CompletionQueue<'a, 'static>;
