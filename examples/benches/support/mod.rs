//! A ring over nothing: the core engine with the smallest backend and host
//! that keep the contract, so that what is measured is the engine.

pub mod nvme;

use annulus::config::{Config, Footprint};
use annulus::engine::{Completer, EnterFlags, Memory, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Clock, Host, Park, Parked, Request, Start, Token};
use annulus::opcode;
use annulus::squeue::Entry;
use annulus::sync::AtomicU32;
use std::mem::MaybeUninit;
use std::sync::OnceLock;
use std::time::Instant;

/// A place without anything in it.
#[derive(Debug, Default)]
pub struct Nowhere;

impl Clock for Nowhere {
    fn now(&self) -> u64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as u64
    }
}

impl Park for Nowhere {
    /// Spuriously woken, always, which the contract allows.
    fn park(&self, _: &AtomicU32, _: u32, _: Option<u64>) -> Parked {
        std::thread::yield_now();
        Parked::Woken
    }

    fn unpark(&self, _: &AtomicU32) {}
}

impl Host for Nowhere {}

/// How [`Null`] ends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Within its start.
    AtOnce,
    /// By the completer, as a worker or an interrupt would end it: over the
    /// return list.
    ByCompleter,
}

/// A backend whose every file is as long as one could wish, and whose every
/// read has been done before it was asked for.
pub struct Null<'m> {
    completer: Completer<'m, Nowhere>,
    ends: Ends,
}

impl Backend for Null<'_> {
    type File = i32;
    type Buffer = ();

    fn supports(&self, _: u8) -> bool {
        true
    }

    fn open(&mut self, fd: i32) -> Result<i32, Errno> {
        Ok(fd)
    }

    fn close(&mut self, _: i32) {}

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<(), Errno> {
        Ok(())
    }

    fn unmap(&mut self, (): ()) {}

    #[inline]
    unsafe fn start(&mut self, token: Token, request: &Request<i32, ()>) -> Start {
        let result = request.len as i32;
        match self.ends {
            Ends::AtOnce => Start::Done(result),
            Ends::ByCompleter => match self.completer.complete(token, result) {
                Ok(()) => Start::Pending,
                Err(_) => Start::Done(Errno::EIO.to_result()),
            },
        }
    }
}

/// Requests that [`Polled`] can have under way: those of the largest ring here.
const IN_FLIGHT: usize = 64;

/// The smallest device that is polled: it takes requests, and has done them all
/// when it is asked.
pub struct Polled {
    under_way: [(Token, i32); IN_FLIGHT],
    count: usize,
}

impl Polled {
    pub fn new() -> Self {
        Self { under_way: [(Token::from_raw(0), 0); IN_FLIGHT], count: 0 }
    }
}

impl Backend for Polled {
    type File = u32;
    /// What is to be added to an address for the device's.
    type Buffer = usize;

    #[inline]
    fn supports(&self, _: u8) -> bool {
        true
    }

    fn open(&mut self, fd: i32) -> Result<u32, Errno> {
        Ok(fd as u32)
    }

    fn close(&mut self, _: u32) {}

    unsafe fn map(&mut self, _: usize, _: usize) -> Result<usize, Errno> {
        Ok(0)
    }

    fn unmap(&mut self, _: usize) {}

    #[inline]
    unsafe fn start(&mut self, token: Token, request: &Request<u32, usize>) -> Start {
        let Some(place) = self.under_way.get_mut(self.count) else {
            return Start::NoRoom;
        };
        *place = (token, request.len as i32);
        self.count += 1;
        Start::Pending
    }

    #[inline]
    fn poll(&mut self, mut done: impl FnMut(Token, i32)) {
        for &(token, result) in &self.under_way[..core::mem::take(&mut self.count)] {
            done(token, result);
        }
    }

    #[inline]
    fn polling(&self) -> bool {
        self.count != 0
    }
}

/// A ring, driven inline.
pub type Ring<B> = Parts<'static, B, Nowhere>;
/// A ring over nothing, driven inline.
pub type NullRing = Ring<Null<'static>>;

/// `len` bytes that live for ever, aligned as a ring wants them.
pub fn memory(len: usize) -> Memory<'static> {
    #[derive(Clone, Copy)]
    #[repr(C, align(64))]
    struct Line([MaybeUninit<u8>; 64]);
    let lines = vec![Line([MaybeUninit::uninit(); 64]); len.div_ceil(64)].leak();
    let bytes = size_of_val(lines);
    // SAFETY: the same memory, nobody else's, and any byte may be uninitialised.
    Memory::new(unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), bytes) })
}

/// A ring over nothing of `entries` entries.
pub fn null_ring(entries: u32, ends: Ends) -> NullRing {
    ring(Config::new(entries), |completer| Null { completer, ends })
}

/// As [`null_ring`], with room for one ring of provided buffers.
pub fn providing_ring(entries: u32) -> NullRing {
    let config = Config::new(entries).provided(0, 1);
    ring(config, |completer| Null { completer, ends: Ends::AtOnce })
}

/// A ring over a backend, with room for a registered file and buffer.
pub fn ring<B: Backend>(
    config: Config,
    backend: impl FnOnce(Completer<'static, Nowhere>) -> B,
) -> Ring<B> {
    let config = config.files(1).buffers(1);
    let memory = memory(Footprint::of::<B, Nowhere>(&config).total());
    build(&config, memory, RingMemory::Inside, Nowhere, backend).expect("a ring of a power of two")
}

/// A NOP with this user data.
#[inline(always)]
pub fn nop(user_data: u64) -> Entry {
    opcode::Nop::new().build().user_data(user_data)
}

/// The core engine's NOPs: pushes a batch, submits, reaps it.
#[inline(always)]
pub fn nop_round<const BATCH: usize>(ring: &mut NullRing) -> u64 {
    push_nops::<BATCH>(ring);
    submit::<BATCH>(ring);
    reap::<BATCH>(ring, 0)
}

/// Pushes and publishes a batch.
#[inline(always)]
pub fn push_nops<const BATCH: usize>(ring: &mut NullRing) {
    let mut queue = ring.sq.queue();
    for i in 0..BATCH {
        // SAFETY: a NOP points to nothing.
        unsafe { queue.push(&nop(i as u64)) }.expect("the batch fits");
    }
}

/// Submits what was pushed, and waits for as much.
#[inline(always)]
pub fn submit<const BATCH: usize>(ring: &mut Ring<impl Backend>) {
    let batch = BATCH as u32;
    let taken = ring.engine.enter(ring.sq.ready(), batch, EnterFlags::GETEVENTS, None);
    assert!(matches!(taken, Ok(taken) if taken == batch));
}

/// Reaps a batch of completions, all of this result. Answers the sum of their
/// user data.
#[inline(always)]
pub fn reap<const BATCH: usize>(ring: &mut Ring<impl Backend>, result: i32) -> u64 {
    let mut sum = 0;
    let mut queue = ring.cq.queue();
    for _ in 0..BATCH {
        let cqe = queue.next().expect("waited for it");
        assert!(cqe.result() == result);
        sum += cqe.user_data();
    }
    sum
}
