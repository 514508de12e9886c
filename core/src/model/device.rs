//! The one device of a model: it does each request at any time, and those that
//! it has together in every order.
//!
//! Loom explores what threads do, and has no way to ask for a choice. So the
//! choice is made of what loom does explore: a load may see any store that is
//! not ordered before it. Whoever gives work to the device throws dice for it
//! *after* the lock is released: a word of 0, then a store of 1, of 2, and so
//! on. The device loads them all at once, when it first sees the work and before
//! it makes a fence; nothing orders the stores before the loads, so each load
//! sees any of the numbers, in some execution.

use super::file;
use super::place::Place;
use super::world::World;
use crate::engine::Completer;
use crate::errno::Errno;
use crate::hal::{Backend, Cancel, Request, Start, Target, Token};
use crate::types::Iovec;
use crate::uapi::{
    IORING_OP_FSYNC, IORING_OP_READ, IORING_OP_READ_FIXED, IORING_OP_READV, IORING_OP_WRITE,
    IORING_OP_WRITE_FIXED, IORING_OP_WRITEV,
};
use core::slice;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use std::rc::Rc;
use std::vec::Vec;

/// Sides of a die: the stores that loom keeps of a word, at most.
const SIDES: usize = 7;

/// What the memory of a READ is full of while it is in flight.
const POISON: u8 = 0xA5;

/// A word that has one of so many values for whoever loads it first.
#[derive(Clone)]
struct Die(Rc<AtomicUsize>);

impl Die {
    fn new() -> Self {
        Self(Rc::new(AtomicUsize::new(0)))
    }

    fn throw(&self, sides: usize) {
        // Relaxed, here and in `look`: that nothing orders them is the point.
        (1..sides.min(SIDES)).for_each(|side| self.0.store(side, Ordering::Relaxed));
    }

    fn look(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a request is about.
enum Work {
    Read,
    /// With a sum of what is written, as it was when the request was started.
    Write(u64),
    Sync,
}

/// A request that the device has, or will get.
struct Job {
    number: u32,
    ring: u32,
    hands: Completer<'static, Place>,
    token: Token,
    work: Work,
    memory: Vec<(usize, usize)>,
    file: usize,
    off: u64,
    /// Whether it may fail, by a die.
    fate: Option<Die>,
    fails: bool,
}

/// What the device has to do.
pub(super) struct Queue {
    jobs: Mutex<Jobs>,
    more: Condvar,
}

#[derive(Default)]
struct Jobs {
    waiting: Vec<Job>,
    /// Thrown since the device has looked last.
    dice: Vec<Die>,
    ended: bool,
}

impl Queue {
    pub fn new() -> Self {
        Self { jobs: Mutex::default(), more: Condvar::new() }
    }

    /// Gives work to the device.
    fn push(&self, batch: &mut Vec<Job>) {
        let fates: Vec<_> = batch.iter().filter_map(|job| job.fate.clone()).collect();
        let dice = {
            let mut jobs = self.jobs.lock().unwrap();
            jobs.waiting.append(batch);
            // Which of them is first, which of the others next, and so on.
            jobs.dice = (1..jobs.waiting.len()).map(|_| Die::new()).collect();
            self.more.notify_one();
            jobs.dice.clone()
        };
        for (left, die) in (2..=dice.len() + 1).rev().zip(dice) {
            die.throw(left);
        }
        fates.iter().for_each(|fate| fate.throw(2));
    }

    /// Takes a request back, unless the device has done it.
    fn cancel(&self, ring: u32, token: Token) -> bool {
        let mut jobs = self.jobs.lock().unwrap();
        let before = jobs.waiting.len();
        jobs.waiting.retain(|job| (job.ring, job.token) != (ring, token));
        jobs.waiting.len() < before
    }

    /// The requests of a ring that the device has not done.
    fn of(&self, ring: u32) -> Vec<Token> {
        let jobs = self.jobs.lock().unwrap();
        jobs.waiting.iter().filter(|job| job.ring == ring).map(|job| job.token).collect()
    }

    /// The device's thread, until [`end`](Self::end).
    pub fn work(&self, world: &World) {
        loop {
            let mut jobs = self.jobs.lock().unwrap();
            while jobs.waiting.is_empty() && !jobs.ended {
                jobs = self.more.wait(jobs).unwrap();
            }
            let dice = core::mem::take(&mut jobs.dice);
            let waiting = &mut jobs.waiting;
            for (at, die) in dice.iter().enumerate().take(waiting.len().saturating_sub(1)) {
                let pick = at + die.look() % (waiting.len() - at);
                waiting.swap(at, pick);
            }
            for job in waiting.iter_mut() {
                job.fails |= job.fate.take().is_some_and(|fate| fate.look() == 1);
            }
            if waiting.is_empty() {
                return;
            }
            let job = waiting.remove(0);
            drop(jobs);
            let result = job.run(world);
            world.note(format_args!("#{} ends with {result}", job.number));
            let _ = job.hands.complete(job.token, result);
        }
    }

    /// No more work comes.
    pub fn end(&self) {
        self.jobs.lock().unwrap().ended = true;
        self.more.notify_one();
    }
}

impl Job {
    /// Does it, in one step as far as the model can see.
    fn run(&self, world: &World) -> i32 {
        self.check_memory();
        if let (true, Some((errno, left @ 1..))) = (self.fails, world.failing.get()) {
            world.failing.set(Some((errno, left - 1)));
            return errno.to_result();
        }
        let file = &mut world.files.borrow_mut()[self.file];
        let position = self.off == u64::MAX;
        let start = if position { file.at } else { self.off } as usize;
        let mut at = start;
        match self.work {
            Work::Sync => {
                file.synced.clone_from(&file.bytes);
                return 0;
            }
            Work::Read => {
                for &(addr, len) in &self.memory {
                    let from = file.bytes.get(at..).unwrap_or_default();
                    let from = &from[..len.min(from.len())];
                    // SAFETY: valid until the request's end, by the promise of
                    // whoever pushed it.
                    unsafe { bytes_mut(addr, from.len()) }.copy_from_slice(from);
                    at += from.len();
                }
            }
            Work::Write(_) => {
                for &(addr, len) in &self.memory {
                    let end = at + len;
                    if file.bytes.len() < end {
                        file.bytes.resize(end, 0);
                    }
                    // SAFETY: as above.
                    file.bytes[at..end].copy_from_slice(unsafe { bytes(addr, len) });
                    at = end;
                }
            }
        }
        if position {
            file.at = at as u64;
        }
        (at - start) as i32
    }

    /// The memory of a request belongs to it until its CQE has come.
    fn check_memory(&self) {
        let number = self.number;
        match self.work {
            Work::Write(sum) => assert!(
                sum == checksum(&self.memory),
                "the memory of WRITE #{number} was changed before its CQE came"
            ),
            Work::Read => {
                for &(addr, len) in &self.memory {
                    // SAFETY: valid until the request's end, and written when
                    // it was started.
                    let untouched = unsafe { bytes(addr, len) }.iter().all(|&b| b == POISON);
                    assert!(
                        untouched,
                        "the memory of READ #{number} was written before its CQE came"
                    );
                }
            }
            Work::Sync => {}
        }
    }
}

/// # Safety
/// Valid for reads, and not written meanwhile.
unsafe fn bytes<'a>(addr: usize, len: usize) -> &'a [u8] {
    if len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(core::ptr::with_exposed_provenance(addr), len) }
}

/// # Safety
/// Valid for writes, and nobody else's meanwhile.
unsafe fn bytes_mut<'a>(addr: usize, len: usize) -> &'a mut [u8] {
    if len == 0 {
        return &mut [];
    }
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts_mut(core::ptr::with_exposed_provenance_mut(addr), len) }
}

/// FNV-1a: enough to see that something else is there.
fn checksum(memory: &[(usize, usize)]) -> u64 {
    let step = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    // SAFETY: the memory of a request in flight.
    let all = memory.iter().flat_map(|&(addr, len)| unsafe { bytes(addr, len) });
    all.fold(0xcbf2_9ce4_8422_2325, step)
}

/// A ring's way to the device.
pub(super) struct Device {
    world: Rc<World>,
    ring: u32,
    hands: Completer<'static, Place>,
    /// Started, and not given to the device yet.
    batch: Vec<Job>,
}

impl Device {
    pub fn new(world: Rc<World>, ring: u32, hands: Completer<'static, Place>) -> Self {
        Self { world, ring, hands, batch: Vec::new() }
    }
}

impl Backend for Device {
    type File = usize;
    type Buffer = ();

    fn supports(&self, opcode: u8) -> bool {
        matches!(
            opcode,
            IORING_OP_READ
                | IORING_OP_WRITE
                | IORING_OP_READV
                | IORING_OP_WRITEV
                | IORING_OP_READ_FIXED
                | IORING_OP_WRITE_FIXED
                | IORING_OP_FSYNC
        )
    }

    fn is_open(&mut self, fd: i32) -> bool {
        file::find(&self.world, fd).is_ok()
    }

    fn open(&mut self, fd: i32) -> Result<usize, Errno> {
        file::find(&self.world, fd)
    }

    fn close(&mut self, _: usize) {}

    unsafe fn map(&mut self, addr: usize, _: usize) -> Result<(), Errno> {
        if addr == 0 { Err(Errno::EFAULT) } else { Ok(()) }
    }

    fn unmap(&mut self, (): ()) {}

    unsafe fn start(&mut self, token: Token, request: &Request<usize, ()>) -> Start {
        let file = match request.target {
            Target::Registered(file) => Ok(file),
            Target::Fd(fd) => file::find(&self.world, fd),
        };
        let file = match file {
            Ok(file) => file,
            Err(errno) => return Start::Done(errno.to_result()),
        };
        let (addr, len) = (request.addr as usize, request.len as usize);
        let memory: Vec<(usize, usize)> = match request.opcode {
            IORING_OP_FSYNC => Vec::new(),
            IORING_OP_READV | IORING_OP_WRITEV => {
                let array = core::ptr::with_exposed_provenance::<Iovec>(addr);
                // SAFETY: the caller's promise: an array of so many.
                let each = (0..len).map(|n| unsafe { array.add(n).read() });
                each.map(|part| (part.base.expose_provenance(), part.len)).collect()
            }
            _ => std::vec![(addr, len)],
        };
        let (name, work) = match request.opcode {
            IORING_OP_FSYNC => ("FSYNC", Work::Sync),
            IORING_OP_WRITE | IORING_OP_WRITEV | IORING_OP_WRITE_FIXED => {
                ("WRITE", Work::Write(checksum(&memory)))
            }
            _ => {
                for &(addr, len) in &memory {
                    // SAFETY: the request's from now on.
                    unsafe { bytes_mut(addr, len) }.fill(POISON);
                }
                ("READ", Work::Read)
            }
        };
        let world = &self.world;
        let number = world.started.get() + 1;
        world.started.set(number);
        let total: usize = memory.iter().map(|&(_, len)| len).sum();
        let (ring, off) = (self.ring, request.off);
        match work {
            Work::Sync => world.note(format_args!("ring {ring}: #{number} {name} of file {file}")),
            _ => world.note(format_args!(
                "ring {ring}: #{number} {name} of {total} bytes at {off} of file {file}"
            )),
        }
        let fate = world.failing.get().map(|_| Die::new());
        let (hands, fails) = (self.hands, false);
        self.batch.push(Job { number, ring, hands, token, work, memory, file, off, fate, fails });
        Start::Pending
    }

    fn kick(&mut self) {
        if !self.batch.is_empty() {
            self.world.queue.push(&mut self.batch);
        }
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        self.kick();
        if !self.world.queue.cancel(self.ring, token) {
            return Cancel::Running;
        }
        // Nobody else has the token now.
        let _ = self.hands.complete(token, Errno::ECANCELED.to_result());
        Cancel::Ended
    }

    fn cancel_all(&mut self) {
        self.kick();
        for token in self.world.queue.of(self.ring) {
            self.cancel(token);
        }
    }
}
