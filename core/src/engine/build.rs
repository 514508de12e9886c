//! Making a ring out of memory that the caller gives.

use super::links::Holding;
use super::messages::Inward;
use super::tags::Tags;
use super::{Completer, Engine, Remote, Shared};
use crate::config::{Config, ConfigError, Footprint, Mode, detached};
use crate::files::{Detached, NONE, Place, Table};
use crate::hal::{Backend, Host};
use crate::held::Held;
use crate::mailbox::Mailbox;
use crate::messages::{self, Letter, Messages};
use crate::provided::{Entry, Group, Provided};
use crate::request::{self, Fifo, Outcome, Pool, Record};
use crate::ring::{CqHalf, CqProducer, LINE, MadeRoom, RingRef, SqConsumer, SqHalf, align_up};
use crate::sent::SentFiles;
use crate::slot::{SharedSlot, Slots};
use crate::stats::Stats;
use crate::sync::AtomicU32;
use crate::wake::EventCount;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// Memory for a ring, exclusively the ring's for `'m`.
#[derive(Debug)]
pub struct Memory<'m> {
    base: NonNull<u8>,
    len: usize,
    _owned: PhantomData<&'m mut [u8]>,
}

// SAFETY: it stands for a `&mut [u8]`, which is Send.
unsafe impl Send for Memory<'_> {}

impl<'m> Memory<'m> {
    /// The memory of a slice. It must start at a multiple of 64.
    pub fn new(bytes: &'m mut [MaybeUninit<u8>]) -> Self {
        Self { base: NonNull::from(&mut *bytes).cast(), len: bytes.len(), _owned: PhantomData }
    }

    /// `len` bytes at `base`, for memory that is no Rust object (a mapping
    /// shared with another process).
    ///
    /// # Safety
    /// Valid for reads and writes for `'m`; in this process used through the
    /// ring only. Another process may read and write the *ring* memory as an
    /// application may (see SECURITY.md), never the engine's.
    pub unsafe fn from_raw(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len, _owned: PhantomData }
    }

    fn check(&self, what: &'static str, need: usize) -> Result<(), ConfigError> {
        if !(self.base.as_ptr() as usize).is_multiple_of(LINE) {
            return Err(ConfigError::Misaligned { what, need: LINE });
        }
        if self.len < need {
            return Err(ConfigError::MemoryTooSmall { what, need, given: self.len });
        }
        Ok(())
    }

    /// Where it starts, for whoever takes all of it.
    pub(crate) fn take_whole(
        self,
        what: &'static str,
        need: usize,
    ) -> Result<NonNull<u8>, ConfigError> {
        self.check(what, need)?;
        Ok(self.base)
    }

    /// Cuts `count` values off the front, each made by `make`.
    fn carve<T>(&mut self, count: usize, mut make: impl FnMut() -> T) -> &'m mut [T] {
        const { assert!(align_of::<T>() <= LINE) };
        let bytes = align_up(size_of::<T>() * count, LINE);
        assert!(bytes <= self.len, "the footprint counts every item");
        let at = self.base.cast::<T>();
        // SAFETY: inside the memory, aligned (every cut is a multiple of a
        // line), written before it is made a slice, and cut off for good.
        unsafe {
            self.base = self.base.add(bytes);
            self.len -= bytes;
            for i in 0..count {
                at.add(i).write(make());
            }
            core::slice::from_raw_parts_mut(at.as_ptr(), count)
        }
    }
}

/// Where the rings (not the engine's own memory) lie.
#[derive(Debug)]
pub enum RingMemory<'m> {
    /// In the same memory as the rest.
    Inside,
    /// In memory of their own, such as a mapping shared with the application.
    At(Memory<'m>),
}

/// Memory for one ring in a `static`.
///
/// ```
/// use annulus::engine::StaticMemory;
/// // `Footprint::of::<MyBackend, MyHost>(&CONFIG).total()` bytes.
/// static MEMORY: StaticMemory<{ 16 * 1024 }> = StaticMemory::new();
/// assert!(MEMORY.take().is_some());
/// assert!(MEMORY.take().is_none(), "once only");
/// ```
#[cfg(not(loom))]
#[repr(C, align(64))]
pub struct StaticMemory<const BYTES: usize> {
    bytes: core::cell::UnsafeCell<[MaybeUninit<u8>; BYTES]>,
    taken: AtomicU32,
}

// SAFETY: the bytes are handed out once, by `take`.
#[cfg(not(loom))]
unsafe impl<const BYTES: usize> Sync for StaticMemory<BYTES> {}

#[cfg(not(loom))]
impl<const BYTES: usize> Default for StaticMemory<BYTES> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(not(loom))]
impl<const BYTES: usize> StaticMemory<BYTES> {
    /// Untaken memory.
    pub const fn new() -> Self {
        Self {
            bytes: core::cell::UnsafeCell::new([const { MaybeUninit::uninit() }; BYTES]),
            taken: AtomicU32::new(0),
        }
    }

    /// The memory, the first time.
    pub fn take(&'static self) -> Option<Memory<'static>> {
        // Relaxed: only one caller sees 0, and the bytes carry nothing yet.
        if self.taken.swap(1, crate::sync::Ordering::Relaxed) != 0 {
            return None;
        }
        // SAFETY: nobody else has it or will have it, for ever.
        Some(Memory::new(unsafe { &mut *self.bytes.get() }))
    }
}

/// A ring, in its parts: the engine and the application's two halves.
pub struct Parts<'m, B: Backend, H: Host> {
    /// Drive it: inline, by a polling thread, or served.
    pub engine: Engine<'m, B, H>,
    /// The application's submission half.
    pub sq: SqHalf<'m>,
    /// The application's completion half.
    pub cq: CqHalf<'m>,
    /// What a thread that does not drive the engine uses.
    pub remote: Remote<'m, H>,
}

/// Makes a ring in `memory`.
///
/// The host lies in `memory` and is not dropped: one that owns something is
/// given by reference (`&H` is a host, too).
///
/// `backend` gets the [`Completer`] by which other threads bring completions
/// home.
///
/// # Errors
/// What is wrong with the configuration or the memory; see
/// [`Footprint::of`] for how much is needed.
pub fn build<'m, B: Backend, H: Host + Sync + 'm>(
    config: &Config,
    mut memory: Memory<'m>,
    rings: RingMemory<'m>,
    host: H,
    backend: impl FnOnce(Completer<'m, H>) -> B,
) -> Result<Parts<'m, B, H>, ConfigError> {
    config.validate()?;
    let need = Footprint::of::<B, H>(config);
    let ring = match rings {
        RingMemory::Inside => {
            memory.check("the ring's memory", need.total())?;
            let inside = memory.carve(need.rings, MaybeUninit::<u8>::uninit);
            Memory::new(inside)
        }
        RingMemory::At(at) => {
            memory.check("the engine's memory", need.engine())?;
            at.check("the rings' memory", need.rings)?;
            at
        }
    };
    // SAFETY: large enough and aligned (checked), exclusively ours for 'm.
    let ring = unsafe {
        RingRef::init(ring.base, &config.offsets(), config.sq_entries, config.cq_entries)
    };
    let slots = config.requests as usize + 1;
    let mut indices = 0..;
    let shared_slots: &'m [SharedSlot] =
        memory.carve(slots, || SharedSlot::new(indices.next().expect("an open range")));
    let letters = Messages::new(
        memory.carve(config.messages as usize, Letter::new),
        memory.carve(messages::words(config.messages) as usize, || AtomicU32::new(0)),
    );
    let sent = SentFiles::new(memory.carve(config.files as usize, || 0), B::SENDS_FILES);
    let (mut host, mut letters, mut sent) = (Some(host), Some(letters), Some(sent));
    let shared: &'m Shared<'m, H> = &memory.carve(1, || Shared {
        host: host.take().expect("made once"),
        ring,
        slots: Slots::new(shared_slots),
        engine_wait: EventCount::new(),
        app_wait: EventCount::new(),
        mailbox: Mailbox::new(),
        messages: letters.take().expect("made once"),
        sent: sent.take().expect("made once"),
        stop: AtomicU32::new(0),
        stopped: AtomicU32::new(0),
        timeouts: AtomicU32::new(0),
        mode: config.mode,
        bell: AtomicU32::new(0),
        disabled: AtomicU32::new(config.disabled.into()),
        boot_clock: AtomicU32::new(0),
    })[0];
    let backend = backend(Completer::new(shared));
    if config.iopoll && !backend.iopoll() {
        return Err(ConfigError::NotPolled);
    }
    let (tagged, sent) = (config.tags as usize, config.messages as usize);
    let outcomes = memory.carve(slots + tagged + sent, Outcome::empty);
    let tags = Tags::new(slots as u32, &mut outcomes[..slots + tagged]);
    let pool = Pool::new(
        memory.carve(slots, Record::empty),
        outcomes,
        memory.carve(config.requests as usize, || 0),
    );
    let holdable = config.held_requests() as usize;
    let holding = Holding::new(
        memory.carve(holdable, Held::empty),
        memory.carve(holdable, || 0),
        memory.carve(holdable, || 0),
    );
    let all = config.requests + 1;
    let files = Table::new(
        request::Table::Files,
        memory.carve(config.files as usize, Place::empty),
        memory.carve(detached(config.files, all) as usize, Detached::empty),
        memory.carve(config.tags_of(config.files) as usize, || NONE),
    );
    let buffers = Table::new(
        request::Table::Buffers,
        memory.carve(config.buffers as usize, Place::empty),
        memory.carve(detached(config.buffers, all) as usize, Detached::empty),
        memory.carve(config.tags_of(config.buffers) as usize, || NONE),
    );
    let provided = Provided::new(
        memory.carve(config.groups as usize, Group::empty),
        memory.carve(config.provided as usize, Entry::empty),
    );
    // Inline, the thread that makes room is the one that will use it.
    let room: Option<&'m dyn MadeRoom> = match config.mode {
        Mode::Inline => None,
        _ => Some(shared),
    };
    Ok(Parts {
        engine: Engine {
            shared,
            sq: SqConsumer::new(ring),
            cq: CqProducer::new(ring),
            pool,
            overflow: Fifo::new(),
            reaped: Fifo::new(),
            holding,
            provided,
            engaged: false,
            bell: Default::default(),
            inward: Inward::new((slots + tagged) as u32),
            restrict: Default::default(),
            tags,
            files,
            buffers,
            backend,
            config: *config,
            pending: 0,
            polls: 0,
            starved: false,
            down: false,
            short: config.mode == Mode::Inline && !config.disabled,
            stats: Stats::default(),
        },
        sq: SqHalf::new(ring),
        cq: CqHalf::new(ring, room),
        remote: Remote::new(shared),
    })
}
