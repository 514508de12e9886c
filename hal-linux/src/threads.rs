//! Threads of a ring.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Enough for system calls and a panic's message.
const STACK: usize = 256 * 1024;

/// Starts a thread that no signal handler of the application ever runs on.
///
/// # Errors
/// `EAGAIN` (`WouldBlock`) for want of threads or memory just now.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
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
