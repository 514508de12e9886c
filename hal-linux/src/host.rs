//! A Linux process as a place: monotonic time, futexes, an eventfd.

use std::num::NonZeroU32;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use annulus::hal::{Clock, Host, Park, Parked};
use annulus::sync::AtomicU32;
use rustix::io::Errno;
use rustix::thread::futex;
use rustix::time::{ClockId, Timespec, clock_gettime};

const NANOS: u64 = 1_000_000_000;

/// Linux as the place that a ring runs in.
#[derive(Debug, Default)]
pub struct LinuxHost {
    eventfd: Option<OwnedFd>,
}

impl LinuxHost {
    /// A place that rings `eventfd`, if there is one, whenever CQEs were
    /// posted.
    pub fn new(eventfd: Option<OwnedFd>) -> Self {
        Self { eventfd }
    }

    /// The eventfd that is rung.
    pub fn eventfd(&self) -> Option<BorrowedFd<'_>> {
        self.eventfd.as_ref().map(AsFd::as_fd)
    }
}

impl Clock for LinuxHost {
    fn now(&self) -> u64 {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * NANOS + now.tv_nsec as u64
    }
}

impl Park for LinuxHost {
    fn park(&self, word: &AtomicU32, expected: u32, deadline: Option<u64>) -> Parked {
        // Always with a deadline, on the monotonic clock: then a signal
        // handler makes the kernel answer EINTR even where it was installed
        // with SA_RESTART, and a wait for CQEs can be interrupted as
        // io_uring_enter can. 68 years stand for ever.
        let until = match deadline {
            Some(at) => Timespec { tv_sec: (at / NANOS) as _, tv_nsec: (at % NANOS) as _ },
            None => Timespec { tv_sec: i32::MAX as _, tv_nsec: 0 },
        };
        let flags = futex::Flags::PRIVATE;
        match futex::wait_bitset(word, flags, expected, Some(&until), NonZeroU32::MAX) {
            Err(Errno::INTR) => Parked::Interrupted,
            Err(Errno::TIMEDOUT) if deadline.is_some() => Parked::TimedOut,
            // Woken, or EAGAIN: the word had changed.
            _ => Parked::Woken,
        }
    }

    fn unpark(&self, word: &AtomicU32) {
        // Fails for a word that is not memory only, which a reference is.
        let _ = futex::wake(word, futex::Flags::PRIVATE, i32::MAX as u32);
    }
}

impl Host for LinuxHost {
    #[inline]
    fn cqes_posted(&self) {
        if let Some(eventfd) = &self.eventfd {
            // The only failure is a counter that is full, so non-zero, so
            // readable: the application is told already.
            let _ = rustix::io::write(eventfd, &1u64.to_ne_bytes());
        }
    }
}
