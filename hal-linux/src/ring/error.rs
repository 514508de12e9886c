//! Why a ring could not be set up.

use std::io;

use annulus::config::{ConfigError, MAX_CQ_ENTRIES, MAX_ENTRIES};

/// A ring that could not be set up: what is wrong, and what would be right.
///
/// Where `io_uring_setup` has an errno for it, [`errno`](Error::errno) is the
/// same, and converting to [`io::Error`] keeps the message.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `EINVAL`.
    #[error("a ring needs at least one SQ entry; ask for 1 to {MAX_ENTRIES}")]
    NoEntries,
    /// `EINVAL`.
    #[error(
        "{given} SQ entries are more than the {MAX_ENTRIES} that a ring can have; \
         ask for fewer, or clamp with setup_clamp()"
    )]
    TooManyEntries {
        /// What was asked for.
        given: u32,
    },
    /// `EINVAL`.
    #[error("a CQ needs at least one entry; leave setup_cqsize() out for twice the SQ's size")]
    NoCqEntries,
    /// `EINVAL`.
    #[error(
        "{given} CQ entries are more than the {MAX_CQ_ENTRIES} that a ring can have; \
         ask for fewer, or clamp with setup_clamp()"
    )]
    TooManyCqEntries {
        /// What was asked for.
        given: u32,
    },
    /// `EINVAL`.
    #[error(
        "the CQ ({cq} entries) must not be smaller than the SQ ({sq}); \
         give setup_cqsize() at least {sq}"
    )]
    CqSmallerThanSq {
        /// SQ entries, rounded up.
        sq: u32,
        /// CQ entries, rounded up.
        cq: u32,
    },
    /// `EINVAL`.
    #[error("setup_sqpoll_cpu() binds the polling thread, so it needs setup_sqpoll()")]
    AffinityWithoutSqpoll,
    /// `EINVAL`.
    #[error(
        "the polling thread cannot run on CPU {cpu}; choose one of `nproc`'s, as in taskset -p"
    )]
    Cpu {
        /// What was asked for.
        cpu: u32,
    },
    /// `EINVAL`.
    #[error("a ring is either polled (setup_sqpoll) or served (setup_served), not both")]
    TwoModes,
    /// `EINVAL`.
    #[error(
        "files have no interrupts to choose and cannot be polled for completions; leave \
         setup_iopoll() and interrupts() out, or build the ring on an NVMe controller"
    )]
    FilesNotPolled,
    /// `EBUSY`: every interrupt vector has its ring.
    #[error(
        "all {vectors} interrupt vectors of the controller are in use; \
         poll with setup_iopoll(), or end a ring"
    )]
    NoVector {
        /// How many there are for rings.
        vectors: usize,
    },
    /// A queue pair could not be had.
    #[error(transparent)]
    Nvme(#[from] annulus::nvme::Error),
    /// `EPERM`, under policy *seed*.
    #[error(
        "under Policy::Seed submission polling needs root or CAP_SYS_NICE; \
         run with it (setcap cap_sys_nice+ep PROGRAM), or use Policy::Current"
    )]
    NotPermitted,
    /// `EINVAL`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `ENOMEM`.
    #[error("no memory for the ring ({bytes} bytes): {source}; ask for fewer entries or requests")]
    Memory {
        /// Bytes that were asked for.
        bytes: usize,
        /// The system's answer.
        source: io::Error,
    },
    /// What a ring cannot do without.
    #[error("the system gave no {what}: {source}")]
    System {
        /// What was asked for.
        what: &'static str,
        /// The system's answer.
        source: io::Error,
    },
}

impl Error {
    /// The positive errno that `io_uring_setup` has for this.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Memory { source, .. } => source.raw_os_error().unwrap_or(libc::ENOMEM),
            Error::System { source, .. } => source.raw_os_error().unwrap_or(libc::EAGAIN),
            Error::NotPermitted => libc::EPERM,
            Error::NoVector { .. } => libc::EBUSY,
            Error::Nvme(error) => error.errno().raw(),
            _ => libc::EINVAL,
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = io::Error::from_raw_os_error(error.errno()).kind();
        io::Error::new(kind, error)
    }
}
