//! Why a controller cannot be used.

use super::Status;
use crate::errno::Errno;

/// Why a controller, a namespace or a queue pair cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Every register reads all ones.
    #[error("the controller does not answer: it was removed, or has no power")]
    Gone,
    /// The registers have no room for what the capabilities say.
    #[error("the register window has {have} bytes and {need} are needed: not an NVMe controller?")]
    Window {
        /// Bytes there are.
        have: usize,
        /// Bytes needed.
        need: usize,
    },
    /// Capabilities that no NVMe controller can have, or that this driver
    /// cannot work with.
    #[error("controller capabilities (CAP {cap:#018x}): {why}")]
    Capabilities {
        /// The register.
        cap: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `CSTS.CFS`.
    #[error("the controller reports a fatal status (CSTS {csts:#x}); a power cycle may help")]
    Fatal {
        /// The register.
        csts: u32,
    },
    /// A wait for the controller came to its deadline.
    #[error("the controller did not {what} within {ms} ms")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// For how long.
        ms: u64,
    },
    /// An admin command failed.
    #[error("{what}: {status}")]
    Command {
        /// Which.
        what: &'static str,
        /// The controller's answer.
        status: Status,
    },
    /// Identify data that contradict themselves or the standard.
    #[error("identify data cannot be right: {why}")]
    Identify {
        /// What is wrong.
        why: &'static str,
    },
    /// No such namespace, or not an active one.
    #[error("there is no active namespace {nsid}; the controller has {count}, numbered from 1")]
    NoNamespace {
        /// The number asked for.
        nsid: u32,
        /// `NN` of the controller.
        count: u32,
    },
    /// A namespace in a format that is not supported.
    #[error("namespace {nsid} cannot be used: {why}; format it with another LBA format")]
    Format {
        /// The namespace.
        nsid: u32,
        /// What is wrong with its format.
        why: &'static str,
    },
    /// All queue pairs are in use.
    #[error("all {pairs} queue pairs of the controller are in use; end a ring, or use fewer")]
    NoQueue {
        /// How many there are.
        pairs: u16,
    },
    /// A wrong argument.
    #[error("{0}")]
    Argument(&'static str),
    /// Memory for the device.
    #[error("memory for the device: {0}")]
    Memory(Errno),
}

impl Error {
    /// Whether there is no queue pair to be had, now or later.
    pub(super) fn is_no_queue(self) -> bool {
        matches!(self, Error::NoQueue { .. })
    }

    /// The errno that says the same, for a CQE or a registration.
    pub fn errno(self) -> Errno {
        match self {
            Error::Gone => Errno::ENODEV,
            Error::Timeout { .. } => Errno::ETIMEDOUT,
            Error::Command { status, .. } => status.errno(),
            Error::NoNamespace { .. } => Errno::EBADF,
            Error::Format { .. } => Errno::EOPNOTSUPP,
            Error::NoQueue { .. } => Errno::EBUSY,
            Error::Argument(_) => Errno::EINVAL,
            Error::Memory(errno) => errno,
            _ => Errno::EIO,
        }
    }
}
