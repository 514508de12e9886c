//! A ring over nothing: the core engine with the smallest backend and host
//! that keep the contract, so that what is measured is the engine.

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

/// A ring over nothing, driven inline.
pub type NullRing = Parts<'static, Null<'static>, Nowhere>;

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
    let config = Config::new(entries).files(1).buffers(1);
    let memory = memory(Footprint::of::<Null<'static>, Nowhere>(&config).total());
    build(&config, memory, RingMemory::Inside, Nowhere, |completer| Null { completer, ends })
        .expect("a ring of a power of two")
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
pub fn submit<const BATCH: usize>(ring: &mut NullRing) {
    let batch = BATCH as u32;
    let taken = ring.engine.enter(ring.sq.ready(), batch, EnterFlags::GETEVENTS, None);
    assert!(matches!(taken, Ok(taken) if taken == batch));
}

/// Reaps a batch of completions, all of this result. Answers the sum of their
/// user data.
#[inline(always)]
pub fn reap<const BATCH: usize>(ring: &mut NullRing, result: i32) -> u64 {
    let mut sum = 0;
    let mut queue = ring.cq.queue();
    for _ in 0..BATCH {
        let cqe = queue.next().expect("waited for it");
        assert!(cqe.result() == result);
        sum += cqe.user_data();
    }
    sum
}
