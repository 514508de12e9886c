//! Rings of a model, with the names of `annulus_linux::IoUring`.

use super::device::Device;
use super::place::{Arena, Place};
use super::world::{self, World};
use crate::config::{Config, Footprint, Mode};
use crate::engine::{Engine, EnterFlags, Parts, Remote, RingMemory, build};
use crate::errno::Errno;
use crate::register::Call;
use crate::ring::{CompletionQueue, CqHalf, SqHalf, SubmissionQueue};
use crate::served::Served;
use crate::types::Iovec;
use crate::uapi::IORING_SQ_TASKRUN;
use core::cell::UnsafeCell;
use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;
use loom::thread::JoinHandle;
use std::io;
use std::rc::Rc;

/// Places for registered files and buffers, unless asked for otherwise.
const PLACES: u32 = 4;
/// The most entries of a ring: each is something that loom watches.
const MOST: u32 = 64;

/// How a ring is to be set up.
#[derive(Clone, Debug, Default)]
pub struct Builder {
    cq_entries: Option<u32>,
    requests: Option<u32>,
    mode: Mode,
    submit_all: bool,
}

impl Builder {
    /// The CQ gets this many entries instead of twice the SQ's.
    pub fn setup_cqsize(&mut self, entries: u32) -> &mut Self {
        self.cq_entries = Some(entries);
        self
    }

    /// A thread polls the SQ. It sleeps as soon as it finds nothing: a longer
    /// idle period shows a model nothing new.
    pub fn setup_sqpoll(&mut self, _idle: u32) -> &mut Self {
        self.mode = Mode::SqPoll { idle_ms: 0 };
        self
    }

    /// Whoever has work drives the ring, and a helper thread.
    pub fn setup_served(&mut self) -> &mut Self {
        self.mode = Mode::Served;
        self
    }

    /// A failing SQE does not end its batch.
    pub fn setup_submit_all(&mut self) -> &mut Self {
        self.submit_all = true;
        self
    }

    /// Requests that can be in flight at once; otherwise as many as SQ entries.
    pub fn requests(&mut self, requests: u32) -> &mut Self {
        self.requests = Some(requests);
        self
    }

    /// Sets the ring up.
    ///
    /// # Errors
    /// `InvalidInput`, with what is wrong.
    ///
    /// # Panics
    /// Outside of [`Model::check`](super::Model::check).
    pub fn build(&self, entries: u32) -> io::Result<Ring> {
        let wrong = |why| io::Error::new(io::ErrorKind::InvalidInput, why);
        let sq = entries.checked_next_power_of_two().unwrap_or(0);
        let cq = self.cq_entries.unwrap_or(sq.saturating_mul(2));
        if sq > MOST || cq > 2 * MOST {
            return Err(wrong("a model's ring has at most 64 entries: let it be small".into()));
        }
        let mut config = Config::new(sq)
            .cq_entries(cq)
            .requests(self.requests.unwrap_or(sq))
            .files(PLACES)
            .buffers(PLACES)
            .mode(self.mode);
        config = config.submit_all(self.submit_all);
        config.validate().map_err(|why| wrong(std::string::ToString::to_string(&why)))?;
        Ok(Ring::new_in(World::current(), &config))
    }
}

type ServedRing = Served<'static, Device, Place>;

/// Who drives the engine.
#[allow(clippy::large_enum_variant)] // one a ring
enum Driver {
    Inline(UnsafeCell<Engine<'static, Device, Place>>),
    SqPoll(JoinHandle<()>),
    Served(Rc<ServedRing>, JoinHandle<()>),
}

/// A ring over the [`File`](super::File)s of a model.
///
/// What differs from `annulus_linux::IoUring` beside its place: NOP, READ,
/// WRITE (each also with `iovec`s or registered buffers) and FSYNC are carried
/// out, and all that needs no place, such as links, drains, timeouts and
/// cancellation. The memory of a READ is overwritten as soon as it is
/// submitted, as the contract allows.
pub struct Ring {
    driver: ManuallyDrop<Driver>,
    sq: UnsafeCell<SqHalf<'static>>,
    cq: UnsafeCell<CqHalf<'static>>,
    remote: Remote<'static, Place>,
    arena: ManuallyDrop<Arena>,
    world: Rc<World>,
    mode: Mode,
}

// SAFETY: the threads of a model are turns on one thread of the machine.
unsafe impl Send for Ring {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring with at least `entries` SQ entries, driven by the calls of its
    /// owner.
    ///
    /// # Errors
    /// As [`Builder::build`].
    pub fn new(entries: u32) -> io::Result<Self> {
        Self::builder().build(entries)
    }

    /// A ring with choices.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    fn new_in(world: Rc<World>, config: &Config) -> Self {
        let arena = Arena::new(Footprint::of::<Device, Place>(config).total());
        let number = world.made.get() + 1;
        world.made.set(number);
        world.living.set(world.living.get() + 1);
        let place = if world.hasty { Place::hasty() } else { Place::new() };
        // SAFETY: the arena goes with the world, after every thread.
        let memory = unsafe { arena.memory() };
        let device = |hands| Device::new(world.clone(), number, hands);
        let parts = build(config, memory, RingMemory::Inside, place, device);
        let Parts { mut engine, sq, cq, remote } = parts.expect("a configuration that is valid");
        let mode = config.mode;
        let driver = match mode {
            Mode::Inline => Driver::Inline(UnsafeCell::new(engine)),
            Mode::SqPoll { .. } => {
                let name = std::format!("poller of ring {number}");
                Driver::SqPoll(world::spawn(name, move || engine.poll_loop()))
            }
            Mode::Served => {
                let served = Rc::new(Served::new(engine, remote));
                let helped = served.clone();
                let name = std::format!("helper of ring {number}");
                Driver::Served(served, world::spawn(name, move || helped.help()))
            }
        };
        Self {
            driver: ManuallyDrop::new(driver),
            sq: UnsafeCell::new(sq),
            cq: UnsafeCell::new(cq),
            remote,
            arena: ManuallyDrop::new(arena),
            world,
            mode,
        }
    }

    /// Submits, waits and registers.
    pub fn submitter(&self) -> Submitter<'_> {
        Submitter { ring: self }
    }

    /// Submits what was pushed.
    ///
    /// # Errors
    /// As [`Submitter::submit`].
    pub fn submit(&self) -> io::Result<usize> {
        self.submitter().submit()
    }

    /// Submits, and waits for `want` completions.
    ///
    /// # Errors
    /// As [`Submitter::submit`].
    pub fn submit_and_wait(&self, want: usize) -> io::Result<usize> {
        self.submitter().submit_and_wait(want)
    }

    /// The submission queue. What was pushed is published when it is dropped
    /// or synced.
    pub fn submission(&mut self) -> SubmissionQueue<'_, 'static> {
        self.sq.get_mut().queue()
    }

    /// The completion queue, with what has come.
    pub fn completion(&mut self) -> CompletionQueue<'_, 'static> {
        if self.remote.sq_flags() & IORING_SQ_TASKRUN != 0 {
            // Only looks: there is no answer to be had.
            let _ = self.enter(0, 0, EnterFlags::empty());
        }
        self.cq.get_mut().queue()
    }

    /// Submitter and both queues at once.
    pub fn split(
        &mut self,
    ) -> (Submitter<'_>, SubmissionQueue<'_, 'static>, CompletionQueue<'_, 'static>) {
        let ring: &Self = self;
        // SAFETY: borrowed mutably as a whole; a submitter touches neither.
        let (sq, cq) = unsafe { (&mut *ring.sq.get(), &mut *ring.cq.get()) };
        (Submitter { ring }, sq.queue(), cq.queue())
    }

    /// The submission queue of a ring that is borrowed elsewhere.
    ///
    /// # Safety
    /// No other submission queue of this ring exists.
    pub unsafe fn submission_shared(&self) -> SubmissionQueue<'_, 'static> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.sq.get() }.queue()
    }

    /// The completion queue of a ring that is borrowed elsewhere.
    ///
    /// # Safety
    /// No other completion queue of this ring exists.
    pub unsafe fn completion_shared(&self) -> CompletionQueue<'_, 'static> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.cq.get() }.queue()
    }

    /// A ring that several threads can use at once: one that is polled or
    /// served.
    ///
    /// # Errors
    /// The ring back, if its owner drives it.
    #[allow(clippy::result_large_err)] // the ring itself, as it came
    pub fn into_shared(self) -> Result<SharedRing, Self> {
        if self.mode == Mode::Inline { Err(self) } else { Ok(SharedRing { ring: self }) }
    }

    fn enter(&self, to_submit: u32, want: u32, flags: EnterFlags) -> io::Result<usize> {
        let done = match &*self.driver {
            // SAFETY: inline, a ring is not Sync, and calls do not nest.
            Driver::Inline(engine) => unsafe {
                (*engine.get()).enter(to_submit, want, flags, None)
            },
            Driver::SqPoll(_) => self.remote.enter(to_submit, want, flags, None),
            Driver::Served(served, _) => served.enter(to_submit, want, flags, None),
        };
        done.map(|count| count as usize).map_err(raw)
    }

    /// # Safety
    /// As the call says.
    unsafe fn call(&self, call: Call<'_>) -> io::Result<u32> {
        // SAFETY: as above, and the caller's promise.
        let done = unsafe {
            match &*self.driver {
                Driver::Inline(engine) => (*engine.get()).call(call),
                Driver::SqPoll(_) => self.remote.call(call),
                Driver::Served(served, _) => served.call(call),
            }
        };
        done.map_err(raw)
    }
}

fn raw(errno: Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.raw())
}

impl Drop for Ring {
    /// Cancels what waits, and joins every thread of the ring.
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The execution is over, and nobody would come to our help.
            return;
        }
        // SAFETY: taken once, here.
        match unsafe { ManuallyDrop::take(&mut self.driver) } {
            Driver::Inline(engine) => drop(engine),
            Driver::SqPoll(thread) => {
                self.remote.stop();
                thread.join().expect("the poller does not panic");
            }
            Driver::Served(served, thread) => {
                self.remote.stop();
                thread.join().expect("the helper does not panic");
                drop(served);
            }
        }
        // The device may be about to look whether somebody sleeps here.
        // SAFETY: taken once, here.
        self.world.keep(unsafe { ManuallyDrop::take(&mut self.arena) });
        self.world.living.set(self.world.living.get() - 1);
    }
}

/// A polled or served ring that several threads use at once. As
/// `annulus_linux::SharedRing`.
#[derive(Debug)]
pub struct SharedRing {
    ring: Ring,
}

// SAFETY: not inline; and see `Send` of a ring.
unsafe impl Sync for SharedRing {}

impl Deref for SharedRing {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.ring
    }
}

impl SharedRing {
    /// The ring, for one thread again.
    pub fn into_inner(self) -> Ring {
        self.ring
    }
}

/// What submits, waits and registers.
#[derive(Clone, Copy, Debug)]
pub struct Submitter<'a> {
    ring: &'a Ring,
}

impl Submitter<'_> {
    /// Submits what was pushed and synced.
    ///
    /// # Errors
    /// `EBUSY` if no request can be had: reap completions, then try again.
    pub fn submit(&self) -> io::Result<usize> {
        self.submit_and_wait(0)
    }

    /// Submits, and waits until there are `want` completions to read.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_and_wait(&self, want: usize) -> io::Result<usize> {
        let ring = self.ring;
        let len = ring.remote.sq_ready();
        let want = u32::try_from(want).unwrap_or(u32::MAX);
        let mut flags = if want > 0 { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        if matches!(ring.mode, Mode::SqPoll { .. }) {
            if ring.remote.need_wakeup() {
                flags |= EnterFlags::SQ_WAKEUP;
            } else if want == 0 {
                return Ok(len as usize);
            }
        }
        ring.enter(len, want, flags)
    }

    /// Waits until the SQ of a polled ring has room.
    ///
    /// # Errors
    /// If the ring has ended.
    pub fn squeue_wait(&self) -> io::Result<usize> {
        self.ring.enter(0, 0, EnterFlags::SQ_WAIT)
    }

    /// Registers files for [`types::Fixed`](crate::types::Fixed).
    ///
    /// # Errors
    /// As [`Call::RegisterFiles`].
    pub fn register_files(&self, fds: &[i32]) -> io::Result<()> {
        // SAFETY: registers no memory.
        unsafe { self.ring.call(Call::RegisterFiles(fds)) }.map(drop)
    }

    /// Ends the registration of files.
    ///
    /// # Errors
    /// `ENXIO` without registered files.
    pub fn unregister_files(&self) -> io::Result<()> {
        // SAFETY: as above.
        unsafe { self.ring.call(Call::UnregisterFiles) }.map(drop)
    }

    /// Registers buffers for `ReadFixed` and `WriteFixed`.
    ///
    /// # Errors
    /// As [`Call::RegisterBuffers`].
    ///
    /// # Safety
    /// The memory stays valid until it is unregistered and its last request
    /// has ended, or the ring is gone.
    pub unsafe fn register_buffers(&self, buffers: &[Iovec]) -> io::Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.ring.call(Call::RegisterBuffers(buffers)) }.map(drop)
    }

    /// Ends the registration of buffers.
    ///
    /// # Errors
    /// `ENXIO` without registered buffers.
    pub fn unregister_buffers(&self) -> io::Result<()> {
        // SAFETY: registers no memory.
        unsafe { self.ring.call(Call::UnregisterBuffers) }.map(drop)
    }
}
