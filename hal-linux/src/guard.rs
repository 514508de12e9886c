//! Telling a process from the child that was forked from it.
//!
//! A child has the parent's memory but none of its threads: its copy of a
//! ring would wait for ever for workers that are not there, or complete into
//! buffers that the parent does not see. So a ring refuses to work in a
//! child, by a read of one word a call: the word lives in a page that the
//! kernel wipes on fork, which also catches children made behind libc's back.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

/// The wiped page's first word: which process set up rings here, or 0.
static PAGE: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();

/// Stamps given so far. Ordinary memory, so a child goes on counting and
/// never gives a stamp that it inherited.
static STAMPS: AtomicU32 = AtomicU32::new(0);

/// Remembers which process made it.
#[derive(Clone, Copy, Debug)]
pub struct ForkGuard {
    page: &'static AtomicU32,
    stamp: u32,
}

fn page() -> Option<&'static AtomicU32> {
    let size = rustix::param::page_size();
    // SAFETY: a new private mapping, placed by the kernel.
    let at = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            size,
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    }
    .ok()?;
    // SAFETY: the whole of our own mapping, which nothing refers to yet.
    unsafe { madvise(at, size, Advice::LinuxWipeOnFork) }.ok()?;
    // SAFETY: zeroed, aligned, never unmapped.
    Some(unsafe { &*at.cast::<AtomicU32>() })
}

impl ForkGuard {
    /// A guard for the calling process.
    ///
    /// # Errors
    /// `ENOMEM` or `EINVAL` in short: the kernel cannot wipe a page on fork
    /// (before Linux 4.14), or has no page.
    pub fn new() -> io::Result<Self> {
        let page = PAGE.get_or_init(page).ok_or_else(|| {
            io::Error::other("no page that is wiped on fork could be had (Linux 4.14 or newer)")
        })?;
        // Relaxed, all: the words carry no data; a fork orders itself.
        let mut stamp = page.load(Ordering::Relaxed);
        if stamp == 0 {
            let fresh = STAMPS.fetch_add(1, Ordering::Relaxed) + 1;
            stamp = match page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => fresh,
                Err(other) => other,
            };
        }
        Ok(Self { page, stamp })
    }

    /// Whether this is another process than the one that made the guard.
    #[inline(always)]
    pub fn forked(&self) -> bool {
        // Relaxed: as above.
        self.page.load(Ordering::Relaxed) != self.stamp
    }

    /// Refuses in a child.
    ///
    /// # Errors
    /// `EOWNERDEAD`, wrapped in [`ForkedChild`], which says what to do.
    #[inline(always)]
    pub fn check(&self) -> io::Result<()> {
        if self.forked() { Err(refuse()) } else { Ok(()) }
    }
}

/// A ring was used in a child process of the one that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this ring belongs to the parent process; create a new ring after fork (EOWNERDEAD)")]
pub struct ForkedChild;

#[cold]
fn refuse() -> io::Error {
    io::Error::other(ForkedChild)
}
