//! The ring, as an application has it.

mod builder;
mod drive;
mod error;
mod memory;
#[cfg(target_pointer_width = "64")]
mod nvme;
mod params;
mod submitter;
mod tables;

use std::cell::UnsafeCell;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use annulus::Stats;
use annulus::engine::{EnterFlags, Until};
use annulus::hal::Backend;
use annulus::register::Call;
use annulus::ring::{CqHalf, SqHalf};
use annulus::uapi::IORING_SQ_TASKRUN;

use crate::file::FileBackend;
use crate::guard::ForkGuard;
use crate::rings::Door;
use crate::{CompletionQueue, SubmissionQueue};
pub use builder::Builder;
use drive::{Driver, Place, RemoteRing};
pub use error::Error;
pub use params::Parameters;
pub use submitter::Submitter;

/// A ring: io_uring's contract over ordinary files.
///
/// The `io-uring` crate's `IoUring`, and exported by that name as well. One
/// thread has it; [`into_shared`](Ring::into_shared) makes a ring that
/// several can use.
///
/// Dropping it cancels what waits, lets what runs come to its end, and joins
/// every thread: afterwards nothing touches the application's memory.
///
/// ```
/// use annulus_linux::{Ring, opcode, types};
/// use std::os::fd::AsRawFd;
///
/// # fn main() -> std::io::Result<()> {
/// let mut ring = Ring::new(8)?;
/// let file = std::fs::File::open("/etc/hostname").or_else(|_| std::fs::File::open("/dev/zero"))?;
/// let mut buffer = vec![0; 64];
/// let read = opcode::Read::new(types::Fd(file.as_raw_fd()), buffer.as_mut_ptr(), 64)
///     .build()
///     .user_data(42);
/// // SAFETY: file and buffer outlive the request.
/// unsafe { ring.submission().push(&read) }.expect("a new queue has room");
/// ring.submit_and_wait(1)?;
/// let cqe = ring.completion().next().expect("waited for it");
/// assert_eq!(cqe.user_data(), 42);
/// assert!(cqe.result() > 0);
/// # Ok(())
/// # }
/// ```
pub struct Ring<B: RingBackend = FileBackend> {
    // In this order: nobody finds a ring that ends, and whoever drives ends
    // before what it lives in. None of them is dropped in a forked child.
    door: ManuallyDrop<Door>,
    driver: ManuallyDrop<Driver<B>>,
    place: ManuallyDrop<Place>,
    sq: UnsafeCell<SqHalf<'static>>,
    cq: UnsafeCell<CqHalf<'static>>,
    remote: RemoteRing,
    params: Parameters,
    guard: ForkGuard,
}

/// What can carry out the requests of a [`Ring`].
pub trait RingBackend: Backend<File: Send, Buffer: Send> + fmt::Debug + Send + 'static {}

impl<B> RingBackend for B where B: Backend<File: Send, Buffer: Send> + fmt::Debug + Send + 'static {}

const _: () = {
    const fn send<T: Send>() {}
    send::<Ring>();
};

impl Ring {
    /// A ring over files, with at least `entries` SQ entries and everything
    /// else as the kernel has it: twice as many CQEs, driven by the calls of
    /// its owner.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(entries: u32) -> Result<Self, Error> {
        Self::builder().build(entries)
    }

    /// A ring with choices.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }
}

impl<B: RingBackend> Ring<B> {
    fn new_parts(
        driver: Driver<B>,
        halves: (SqHalf<'static>, CqHalf<'static>),
        remote: RemoteRing,
        params: Parameters,
        guard: ForkGuard,
        (door, place): (Door, Place),
    ) -> Self {
        Self {
            door: ManuallyDrop::new(door),
            driver: ManuallyDrop::new(driver),
            place: ManuallyDrop::new(place),
            sq: UnsafeCell::new(halves.0),
            cq: UnsafeCell::new(halves.1),
            remote,
            params,
            guard,
        }
    }

    /// What the ring was set up with.
    #[inline]
    pub fn params(&self) -> &Parameters {
        &self.params
    }

    /// Submits, waits and registers.
    #[inline]
    pub fn submitter(&self) -> Submitter<'_, B> {
        Submitter { ring: self }
    }

    /// Submits what was pushed. See [`Submitter::submit`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn submit(&self) -> io::Result<usize> {
        self.submitter().submit()
    }

    /// Submits, and waits for `want` completions. See
    /// [`Submitter::submit_and_wait`].
    ///
    /// # Errors
    /// As there.
    #[inline]
    pub fn submit_and_wait(&self, want: usize) -> io::Result<usize> {
        self.submitter().submit_and_wait(want)
    }

    /// The submission queue. What was pushed is published when it is dropped
    /// or synced.
    #[inline]
    pub fn submission(&mut self) -> SubmissionQueue<'_> {
        self.sq.get_mut().queue()
    }

    /// The completion queue, with what has come. What was taken is given
    /// back when it is dropped or synced.
    ///
    /// Driven inline, it first fetches what other threads have completed
    /// (`IORING_SQ_TASKRUN`), so that a program that only looks here gets on.
    #[inline]
    pub fn completion(&mut self) -> CompletionQueue<'_> {
        if self.remote.sq_flags() & IORING_SQ_TASKRUN != 0 {
            self.fetch();
        }
        self.cq.get_mut().queue()
    }

    #[cold]
    fn fetch(&mut self) {
        // In a forked child there is nothing to fetch.
        let _ = self.enter(0, 0, EnterFlags::empty(), Until::default());
    }

    /// Submitter and both queues at once.
    ///
    /// Sync or drop a queue before submitting or waiting: until then what was
    /// pushed or taken is not seen.
    #[inline]
    pub fn split(&mut self) -> (Submitter<'_, B>, SubmissionQueue<'_>, CompletionQueue<'_>) {
        let ring: &Self = self;
        // SAFETY: borrowed mutably as a whole, and a submitter touches
        // neither half: it counts by the ring's own words.
        let (sq, cq) = unsafe { (&mut *ring.sq.get(), &mut *ring.cq.get()) };
        (Submitter { ring }, sq.queue(), cq.queue())
    }

    /// The submission queue of a ring that is borrowed elsewhere.
    ///
    /// # Safety
    /// No other submission queue of this ring exists.
    #[inline]
    pub unsafe fn submission_shared(&self) -> SubmissionQueue<'_> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.sq.get() }.queue()
    }

    /// The completion queue of a ring that is borrowed elsewhere.
    ///
    /// # Safety
    /// No other completion queue of this ring exists.
    #[inline]
    pub unsafe fn completion_shared(&self) -> CompletionQueue<'_> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.cq.get() }.queue()
    }

    /// The eventfd that is rung when completions come, if one was asked for
    /// ([`Builder::eventfd`]). Read it to reset it, then look at the CQ.
    pub fn eventfd(&self) -> Option<BorrowedFd<'_>> {
        self.remote.host().eventfd()
    }

    /// What the ring has done so far; zeros in a forked child.
    pub fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        // SAFETY: registers no memory.
        let _ = unsafe { self.call(Call::Stats(&mut stats)) };
        stats
    }

    /// A readable picture of what the ring is doing, for the day that
    /// something hangs. It takes no lock and waits for nobody; inline it
    /// tells more.
    pub fn dump(&self) -> impl fmt::Display + '_ {
        Dump { ring: self }
    }

    /// A ring that several threads can use at once: one that is polled or
    /// served.
    ///
    /// # Errors
    /// The ring back, if its owner drives it.
    #[allow(clippy::result_large_err)] // the ring itself, as it came
    pub fn into_shared(self) -> Result<SharedRing<B>, Self> {
        match *self.driver {
            Driver::Inline(_) => Err(self),
            _ => Ok(SharedRing { ring: self }),
        }
    }

    #[inline(always)]
    fn enter(
        &self,
        to_submit: u32,
        min_complete: u32,
        flags: EnterFlags,
        until: Until,
    ) -> io::Result<usize> {
        self.guard.check()?;
        // SAFETY: inline, a ring is not Sync, so this is its only thread.
        let done =
            unsafe { self.driver.enter(&self.remote, to_submit, min_complete, flags, until) };
        match done {
            Ok(count) => Ok(count as usize),
            Err(errno) => Err(io::Error::from_raw_os_error(errno.raw())),
        }
    }

    /// # Safety
    /// As the call says.
    unsafe fn call(&self, call: Call<'_>) -> io::Result<u32> {
        self.guard.check()?;
        // SAFETY: as above, and the caller's promise.
        unsafe { self.driver.call(&self.remote, call) }
            .map_err(|errno| io::Error::from_raw_os_error(errno.raw()))
    }
}

/// The ring's name, for messages of other rings
/// ([`MsgRingData`](crate::opcode::MsgRingData)). It is good for nothing else: no
/// system call takes it for a ring, and there is nothing to be read or waited
/// for.
impl<B: RingBackend> AsFd for Ring<B> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.door.as_fd()
    }
}

/// As [`AsFd`].
impl<B: RingBackend> AsRawFd for Ring<B> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<B: RingBackend> Drop for Ring<B> {
    fn drop(&mut self) {
        if self.guard.forked() {
            // A child has no thread to wait for, and must not touch what it
            // shares with the parent (descriptors in an epoll set). Its copy
            // of the memory goes when it ends.
            return;
        }
        // SAFETY: taken once, here; nobody sends messages any more, and the driver, and with it everything that
        // refers to the place, has ended when the place goes.
        unsafe {
            ManuallyDrop::drop(&mut self.door);
            ManuallyDrop::take(&mut self.driver).end(&self.remote);
            ManuallyDrop::drop(&mut self.place);
        }
    }
}

impl<B: RingBackend> fmt::Debug for Ring<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("params", &self.params).finish_non_exhaustive()
    }
}

struct Dump<'a, B: RingBackend> {
    ring: &'a Ring<B>,
}

impl<B: RingBackend> fmt::Display for Dump<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ring.guard.forked() {
            writeln!(f, "a forked child's copy of a ring; the parent's may go on")?;
        }
        match &*self.ring.driver {
            Driver::Inline(engine) => {
                // SAFETY: inline, a ring is not Sync, and no call is going on.
                let engine = unsafe { &*engine.get() };
                engine.dump(f)?;
                writeln!(f, "backend: {:?}", engine.backend())
            }
            _ => self.ring.remote.dump(f),
        }
    }
}

/// A polled or served ring that several threads use at once.
///
/// Everything that takes `&self` on a [`Ring`] may be called from any thread:
/// submitting, waiting, registering. The queues have one producer and one
/// consumer each; [`Ring::submission_shared`] and [`Ring::completion_shared`]
/// are for threads that take turns by a lock of their own.
#[derive(Debug)]
pub struct SharedRing<B: RingBackend = FileBackend> {
    ring: Ring<B>,
}

// SAFETY: not inline (into_shared). `&self` then reaches the engine by
// `Served` or `Remote`, which are Sync, and the halves only by unsafe
// functions whose caller promises to be alone. Parameters and guard are
// plain data.
unsafe impl<B: RingBackend> Sync for SharedRing<B> {}

impl<B: RingBackend> Deref for SharedRing<B> {
    type Target = Ring<B>;

    fn deref(&self) -> &Ring<B> {
        &self.ring
    }
}

impl<B: RingBackend> SharedRing<B> {
    /// The ring, for one thread again.
    pub fn into_inner(self) -> Ring<B> {
        self.ring
    }
}
