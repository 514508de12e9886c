//! Threads of a ring.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Enough for system calls and a panic's message.
const STACK: usize = 256 * 1024;

/// Whether a thread that could not be made for this reason may be made later:
/// a shortage of threads or memory, or a signal that came in between.
pub fn passes(e: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, WouldBlock};
    matches!(e.kind(), WouldBlock | Interrupted | OutOfMemory)
}

/// The most threads that the user may have (`RLIMIT_NPROC`).
pub fn limit() -> u32 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nproc);
    limit.current.and_then(|limit| u32::try_from(limit).ok()).unwrap_or(u32::MAX)
}

/// Starts a thread that no signal handler of the application ever runs on.
///
/// # Errors
/// `EAGAIN` (`WouldBlock`) for want of threads or memory just now.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    #[cfg(test)]
    if let Some(errno) = tests::next() {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let blocked = BlockedSignals::new();
    let made = Builder::new().name(name.into()).stack_size(STACK).spawn(work);
    drop(blocked);
    made
}

/// All signals blocked for the calling thread; a thread inherits that.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        // SAFETY: plain data, filled by the calls; they fail only for
        // arguments that these are not.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Self { before }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: the mask as it was.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::collections::VecDeque;

    thread_local! {
        static SCRIPT: RefCell<VecDeque<i32>> = RefCell::default();
    }

    /// What the next threads that this one makes fail with.
    pub fn fail(errnos: &[i32]) {
        SCRIPT.with_borrow_mut(|script| *script = errnos.iter().copied().collect());
    }

    /// How many failures are left.
    pub fn left() -> usize {
        SCRIPT.with_borrow(VecDeque::len)
    }

    pub(super) fn next() -> Option<i32> {
        SCRIPT.with_borrow_mut(VecDeque::pop_front)
    }

    #[test]
    fn a_shortage_and_a_signal_pass() {
        let passing = [libc::EAGAIN, libc::EINTR, libc::ENOMEM];
        assert!(passing.map(|e| passes(&io::Error::from_raw_os_error(e))).iter().all(|&yes| yes));
        assert!(!passes(&io::Error::from_raw_os_error(libc::EPERM)));
    }
}
