//! Everybody but the engine: the hostile application, what the backend has in
//! flight, and who acts next.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering::Relaxed};

use annulus::config::Config;
use annulus::engine::{Completer, Remote};
use annulus::hal::Token;
use annulus::ring::Offsets;
use annulus::uapi::*;
use annulus_fuzz::Bytes;

use crate::place::{self, Place};

/// Bytes of the registered buffers, and entries of the ring of buffers.
pub const BUFFER: usize = 512;
pub const RINGED: usize = 4;

/// Memory of just so many bytes.
pub struct Block {
    pub at: NonNull<u8>,
    pub len: usize,
    layout: Layout,
}

impl Block {
    pub fn new(len: usize, align: usize) -> Self {
        let layout = Layout::from_size_align(len, align).expect("a size");
        // SAFETY: not of size 0.
        let at = NonNull::new(unsafe { std::alloc::alloc_zeroed(layout) }).expect("memory");
        Self { at, len, layout }
    }

    pub fn addr(&self, skip: usize) -> usize {
        self.at.as_ptr().expose_provenance() + skip
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout.
        unsafe { std::alloc::dealloc(self.at.as_ptr(), self.layout) };
    }
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    pub token: Token,
    pub file: Option<u32>,
    pub buffer: Option<u32>,
    /// It waits for readiness, perhaps again and again.
    pub poll: bool,
}

/// What a sleep comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sleep {
    GoesOn,
    Ends,
    Lasts,
}

#[derive(Default)]
pub struct World {
    pub bytes: Bytes,
    pub completer: Option<Completer<'static, Place>>,
    pub remote: Option<Remote<'static, Place>>,
    rings: Option<(NonNull<u8>, Offsets, u32, u32)>,
    /// The registered buffers, and the ring of buffers.
    registered: usize,
    ring: Option<NonNull<u8>>,
    /// In flight, by slot.
    pub slots: Vec<Option<Flight>>,
    /// What was brought home last, by slot.
    pub home: Vec<Option<Token>>,
    pub files: Vec<u32>,
    /// Handle, address, bytes.
    pub buffers: Vec<(u32, usize, usize)>,
    handles: u32,
    /// Ends are found by polling.
    pub polled: bool,
    /// The engine comes to its end.
    pub closing: bool,
    /// Nothing drives the engine but itself, until it is stopped.
    by_itself: bool,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
    /// Acts of others that are to come in between, and accesses before the next.
    static ACTS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    /// Others act just now.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// What everybody but the engine sees and does.
pub fn with<R>(act: impl FnOnce(&mut World) -> R) -> R {
    WORLD.with_borrow_mut(act)
}

/// The sizes of the queues.
pub fn entries(config: &Config) -> (u32, u32) {
    let offsets = config.offsets();
    let sqes = (offsets.total - offsets.sqes) / 64;
    let after = offsets.sq_array.unwrap_or(offsets.sqes);
    // As many as there are, or a few more to the next cache line.
    (sqes as u32, ((after - offsets.cqes) / 16) as u32)
}

impl World {
    pub fn new(
        bytes: Bytes,
        config: &Config,
        rings: &Block,
        buffers: &Block,
        ring: &Block,
        polled: bool,
    ) -> Self {
        ACTS.set((0, 0));
        place::set_now(0);
        let (sq, cq) = entries(config);
        Self {
            bytes,
            rings: Some((rings.at, config.offsets(), sq, cq)),
            registered: buffers.addr(0),
            ring: Some(ring.at),
            slots: vec![None; 9],
            home: vec![None; 9],
            polled,
            by_itself: config.setup_flags() & IORING_SETUP_SQPOLL != 0,
            ..Self::default()
        }
    }

    pub fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.slots.iter().flatten()
    }

    pub fn flying(&self) -> usize {
        self.flights().count()
    }

    pub fn open(&mut self) -> u32 {
        self.handles += 1;
        self.files.push(self.handles);
        self.handles
    }

    pub fn map(&mut self, addr: usize, len: usize) -> u32 {
        self.handles += 1;
        self.buffers.push((self.handles, addr, len));
        self.handles
    }

    pub fn land(&mut self, token: Token) {
        let slot = self.slots[token.index()].take_if(|flight| flight.token == token);
        assert!(slot.is_some(), "a request ends that is not in flight");
    }

    /// One that polling finds now.
    pub fn polled_end(&mut self) -> Option<Token> {
        let ends = self.closing || self.bytes.is_empty() || self.bytes.flag();
        let token = self.flights().next().filter(|_| self.polled && ends)?.token;
        self.land(token);
        Some(token)
    }

    /// The engine has ended: nothing is left of it.
    pub fn over(&mut self) {
        assert_eq!(self.flying(), 0, "requests that have not ended");
        assert!(self.files.is_empty(), "files that were not closed");
        assert!(self.buffers.is_empty(), "buffers that were not unmapped");
        // Nobody acts any more: the memory is freed.
        *self = Self::default();
        ACTS.set((0, 0));
    }

    /// A word of ring memory, to be written at any time.
    fn word(&self, offset: usize) -> &AtomicU32 {
        let (base, offsets, ..) = self.rings.expect("a ring");
        assert!(offset + 4 <= offsets.total && offset.is_multiple_of(4));
        // SAFETY: inside the rings' memory, which the engine reaches by
        // atomic accesses, or in this thread.
        unsafe { base.add(offset).cast().as_ref() }
    }

    /// The hostile application writes something.
    fn write(&self) {
        let (_, offsets, sq, cq) = self.rings.expect("a ring");
        let bytes = &self.bytes;
        let odd = |word: &AtomicU32| word.store(bytes.odd(word.load(Relaxed)), Relaxed);
        match bytes.u8() % 16 {
            0..4 => self.write_entry(),
            4 | 5 => {
                let published = self.word(offsets.sq_tail).load(Relaxed);
                let more = 1 + u32::from(bytes.u8()) % sq;
                self.word(offsets.sq_tail).store(published.wrapping_add(more), Relaxed);
            }
            6 => odd(self.word(offsets.sq_tail)),
            7 => {
                let posted = self.word(offsets.cq_tail).load(Relaxed);
                self.word(offsets.cq_head).store(posted, Relaxed);
            }
            8 => odd(self.word(offsets.cq_head)),
            9 => {
                let flags = self.word(offsets.sq_flags);
                flags.store(flags.load(Relaxed) ^ u32::from(bytes.u8()), Relaxed);
            }
            10 => {
                let Some(array) = offsets.sq_array else { return };
                odd(self.word(array + 4 * bytes.below(sq as usize)));
            }
            11 => self.write_ring(),
            12 => {
                let own = [offsets.sq_head, offsets.cq_tail, offsets.sq_dropped];
                let rest = [offsets.sq_ring_mask, offsets.cq_ring_entries, offsets.cq_flags];
                odd(self.word([own, rest].concat()[bytes.below(6)]));
            }
            13 => odd(self.word(offsets.cqes + 4 * bytes.below(4 * cq as usize))),
            _ => {
                // A word of an entry, perhaps while it is taken.
                let at = offsets.sqes + 8 * bytes.below(8 * sq as usize);
                let low = self.word(at);
                match bytes.u8() & 3 {
                    0 => low.store(bytes.u32(), Relaxed),
                    1 => odd(self.word(at + 4)),
                    _ => odd(low),
                }
            }
        }
    }

    /// A whole entry, good for the most part.
    fn write_entry(&self) {
        let (base, offsets, sq, _) = self.rings.expect("a ring");
        let bytes = &self.bytes;
        let [kind, how, small, data, place] = bytes.take();
        let fd = u32::from(small & 7);
        let (mut opcode, mut flags) = (IORING_OP_NOP, 0u8);
        let (mut fd, mut off, mut addr, mut len) = (fd, u64::from(small), 0u64, 0u32);
        let (mut op_flags, mut group) = (0u32, 0u32);
        match kind % 16 {
            0 | 1 => {}
            2..5 => {
                opcode = if how & 1 == 0 { IORING_OP_READ_FIXED } else { IORING_OP_WRITE_FIXED };
                (flags, fd, group) = (IOSQE_FIXED_FILE, fd & 2, u32::from(how >> 1 & 1));
                let skip = BUFFER / 2 * group as usize + usize::from(small);
                (addr, len) = ((self.registered + skip) as u64, u32::from(how >> 2));
            }
            5 | 6 => {
                let some = [IORING_OP_READ, IORING_OP_WRITE, IORING_OP_READV, IORING_OP_FSYNC];
                opcode = some[usize::from(how & 3)];
                (addr, len) = (self.registered as u64, u32::from(how >> 3));
                len = if opcode == IORING_OP_FSYNC { 0 } else { len };
            }
            7 => {
                (opcode, flags, group) = (IORING_OP_READ, IOSQE_BUFFER_SELECT, 1);
                len = u32::from(how);
            }
            8 => {
                (opcode, addr) = (IORING_OP_POLL_ADD, 0);
                (op_flags, len) = (1, u32::from(how & 1));
            }
            9 => (opcode, addr) = (IORING_OP_POLL_REMOVE, u64::from(how & 7)),
            10 => {
                (opcode, addr, len) = (IORING_OP_TIMEOUT, 2, 1);
                (off, op_flags) = (u64::from(how & 3), u32::from(how >> 2 & 0x40));
            }
            11 => {
                let some = [IORING_OP_LINK_TIMEOUT, IORING_OP_TIMEOUT_REMOVE];
                (opcode, addr) = (some[usize::from(how & 1)], 2 * u64::from(how >> 5));
                (len, off) = (u32::from(1 - (how & 1)), 0);
            }
            12 => {
                (opcode, addr) = (IORING_OP_ASYNC_CANCEL, u64::from(how & 7));
                (op_flags, off) = (u32::from(how >> 3), 0);
            }
            13 => {
                let some = [IORING_OP_PROVIDE_BUFFERS, IORING_OP_REMOVE_BUFFERS];
                (opcode, group) = (some[usize::from(how & 1)], u32::from(how >> 1 & 3));
                fd = 1 + u32::from(how >> 3);
                if how & 1 == 0 {
                    (addr, len) = (self.registered as u64, 16);
                } else {
                    off = 0;
                }
            }
            14 => {
                let some = [IORING_OP_OPENAT, IORING_OP_CLOSE, IORING_OP_FILES_UPDATE];
                opcode = some[usize::from(how) % 3];
                (addr, len) = (2, u32::from(how >> 6));
                off = if opcode == IORING_OP_CLOSE { 0 } else { u64::from(how >> 4) };
            }
            _ => {
                (opcode, len, off) = (how, bytes.odd(8), u64::from(bytes.odd(2)));
                op_flags = bytes.odd(0);
            }
        }
        if place & 0xc0 == 0x40 {
            flags |= bytes.u8();
        }
        let row = u64::from(u32::from_ne_bytes([opcode, flags, 0, 0]));
        let (first, second) =
            (u64::from(fd) << 32 | row, u64::from(op_flags) << 32 | u64::from(len));
        let words = [first, off, addr, second, u64::from(data & 7), u64::from(group), 0, 0];
        let slot = usize::from(place) % sq as usize;
        for (n, word) in words.into_iter().enumerate() {
            // SAFETY: as in `word`.
            let to =
                unsafe { base.add(offsets.sqes + 64 * slot + 8 * n).cast::<AtomicU64>().as_ref() };
            to.store(word, Relaxed);
        }
    }

    /// The ring of buffers.
    fn write_ring(&self) {
        let base = self.ring.expect("a ring of buffers");
        let bytes = &self.bytes;
        if bytes.flag() {
            // SAFETY: the tail, in the first entry; read by atomic loads.
            let tail = unsafe { base.add(14).cast::<AtomicU16>().as_ref() };
            tail.store(tail.load(Relaxed).wrapping_add(bytes.odd(4) as u16), Relaxed);
        } else {
            let at = 16 * bytes.below(RINGED) + 4 * bytes.below(3);
            // SAFETY: inside.
            let word = unsafe { base.add(at).cast::<AtomicU32>().as_ref() };
            word.store(bytes.odd(64), Relaxed);
        }
    }

    /// One of those in flight.
    fn some(&self) -> Option<Token> {
        let nth = self.bytes.below(self.flying());
        self.flights().nth(nth).map(|flight| flight.token)
    }
}

/// A request comes to its end.
pub fn complete(token: Token, result: i32) {
    let completer = with(|world| world.completer).expect("set at the start");
    // Refused while it has been woken, and not resumed since.
    if completer.complete(token, result).is_ok() {
        with(|world| {
            world.home[token.index()] = Some(token);
            world.land(token);
        });
    }
}

/// All of them do.
pub fn complete_all() {
    if with(|world| world.polled) {
        return;
    }
    let tokens: Vec<Token> = with(|world| world.flights().map(|flight| flight.token).collect());
    tokens.into_iter().for_each(|token| complete(token, 1));
}

/// Somebody outside of the engine does something.
pub fn outside() {
    let (what, polled) = with(|world| (world.bytes.u8() % 8, world.polled));
    match what {
        0 if !polled => {
            if let Some(token) = with(|world| world.some()) {
                complete(token, with(|world| world.bytes.u8()).into());
            }
        }
        1 if !polled => {
            if let (Some(token), Some(completer)) = with(|world| (world.some(), world.completer)) {
                let _ = completer.ready(token);
            }
        }
        // Not in between: it may name a request on its way to the backend.
        2 if !BUSY.get() => {
            // A token that is none, or an old one.
            let (raw, completer) = with(|world| (world.bytes.u32(), world.completer));
            let token = Token::from_raw(raw);
            let flies = with(|world| world.flights().any(|flight| flight.token == token));
            if let Some(completer) = completer.filter(|_| !flies) {
                assert!(completer.complete(token, 1).is_err(), "an invented token is taken");
            }
        }
        3 => place::set_now(place::now() + u64::from(with(|world| world.bytes.u16()))),
        _ => with(|world| world.write()),
    }
}

/// From here on others act in between, some times.
pub fn arm(bytes: &Bytes) {
    ACTS.set((1 + u32::from(bytes.u8() & 7), u32::from(bytes.u8())));
}

/// The ring is set up.
pub fn begin() {
    if with(|world| world.by_itself) {
        ACTS.set((u32::MAX, 0));
    }
}

/// Others do nothing any more.
pub fn quiet() {
    ACTS.set((0, 0));
}

/// Called before each access to an atomic word, or to a word of an entry.
pub fn act() {
    let (acts, wait) = ACTS.get();
    if acts == 0 || BUSY.get() {
        return;
    }
    if wait != 0 {
        return ACTS.set((acts, wait - 1));
    }
    // Not while the backend is at it.
    let Some(bytes) = WORLD.with(|world| Some(world.try_borrow().ok()?.bytes.clone())) else {
        return;
    };
    BUSY.set(true);
    if bytes.is_empty() {
        ACTS.set((0, 0));
        if let Some(remote) = with(|world| world.by_itself.then_some(world.remote).flatten()) {
            remote.stop();
        }
    } else {
        outside();
        let acts = if acts == u32::MAX { acts } else { acts - 1 };
        ACTS.set((acts, u32::from(bytes.u8() & 31)));
    }
    BUSY.set(false);
}

/// The engine, or who waits for it, sleeps.
pub fn sleeps() -> Sleep {
    let (closing, bytes) = with(|world| (world.closing, world.bytes.clone()));
    if closing {
        complete_all();
        return Sleep::Ends;
    }
    if bytes.is_empty() {
        if let Some(remote) = with(|world| world.by_itself.then_some(world.remote).flatten()) {
            remote.stop();
        }
        return Sleep::Lasts;
    }
    match bytes.u8() % 4 {
        0 => Sleep::Ends,
        1 => Sleep::Lasts,
        _ => {
            outside();
            Sleep::GoesOn
        }
    }
}
