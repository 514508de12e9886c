//! What the engines have to do: the same operations at the same offsets for each of them.

use std::os::fd::RawFd;

use super::verify::{self, Ledger, Mismatch};
use crate::buffers::Buffers;
use crate::cli::Rw;

/// Which blocks a pass takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Every block once from the start, written.
    Fill,
    /// What was asked for, until time is up.
    Timed,
    /// Every block once from the start, read.
    ReadBack,
}

/// One operation on the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Io {
    /// Bytes from the start of the file.
    pub offset: u64,
    /// A write; else a read.
    pub write: bool,
}

/// The first of a round's errors, and how many there were.
#[derive(Debug, Default)]
pub struct Errors {
    /// Failed and short operations, and bad blocks.
    pub count: u64,
    /// What to tell the user about the first of them.
    pub first: Option<String>,
}

impl Errors {
    #[cold]
    fn add(&mut self, what: impl FnOnce() -> String) {
        self.count += 1;
        self.first.get_or_insert_with(what);
    }
}

/// A small fast generator (wyrand): one multiplication a number.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }
}

/// The file part of a bench: where the next operation goes, and whether the last one was right.
#[derive(Debug)]
pub struct Work {
    /// The open file.
    pub fd: RawFd,
    /// A buffer a slot.
    pub buffers: Buffers,
    /// What went wrong since the last [`begin`](Self::begin).
    pub errors: Errors,
    /// Blocks whose content was checked since the bench began.
    pub checked: u64,
    rw: Rw,
    blocks: u64,
    pass: Pass,
    next: u64,
    random: Random,
    free: Vec<u32>,
    ios: Vec<Io>,
    ledger: Option<Ledger>,
}

impl Work {
    /// Work on `blocks` blocks of `bs` bytes with `depth` operations in flight.
    pub fn new(fd: RawFd, rw: Rw, bs: usize, blocks: u64, depth: u32, verify: bool) -> Self {
        let mut buffers = Buffers::new(depth, bs);
        for slot in 0..depth as usize {
            // SAFETY: nothing is in flight yet.
            verify_fill(unsafe { buffers.bytes(slot) }, slot as u64);
        }
        Self {
            fd,
            buffers,
            errors: Errors::default(),
            checked: 0,
            rw,
            blocks,
            pass: Pass::Timed,
            next: 0,
            random: Random(0),
            free: (0..depth).rev().collect(),
            ios: vec![Io { offset: 0, write: false }; depth as usize],
            ledger: verify.then(|| Ledger::new(blocks as usize)),
        }
    }

    /// Starts a pass; engines given the same seed get the same random operations.
    pub fn begin(&mut self, pass: Pass, seed: u64) {
        self.pass = pass;
        self.next = 0;
        self.random = Random(seed);
        self.errors = Errors::default();
    }

    /// The next operation and the slot whose buffer it uses. None: nothing can start before
    /// something completes, or, with nothing in flight, the pass is over.
    #[inline]
    pub fn start(&mut self) -> Option<(usize, Io)> {
        let slot = *self.free.last()? as usize;
        let (wanted, write) = match self.pass {
            Pass::Timed if self.rw.random() => {
                let random = self.random.next();
                let block = (u128::from(random) * u128::from(self.blocks)) >> 64;
                // The lowest bit hardly takes part in the choice of the block.
                (block as u64, self.rw.writes() && (self.rw != Rw::RandomMix || random & 1 == 1))
            }
            Pass::Timed => (self.next, self.rw.writes()),
            Pass::Fill | Pass::ReadBack if self.next == self.blocks => return None,
            Pass::Fill => (self.next, true),
            Pass::ReadBack => (self.next, false),
        };
        let block = match &mut self.ledger {
            None => wanted,
            Some(ledger) => ledger.claim(wanted)?,
        };
        self.free.pop();
        self.next += 1;
        if self.pass == Pass::Timed && self.next == self.blocks {
            self.next = 0;
        }
        let io = Io { offset: block * self.buffers.block() as u64, write };
        self.ios[slot] = io;
        if let Some(ledger) = &self.ledger
            && write
        {
            let generation = ledger.next_generation(block);
            // SAFETY: the slot was free.
            verify::stamp(unsafe { self.buffers.bytes(slot) }, io.offset, generation);
        }
        Some((slot, io))
    }

    /// An operation ended: its slot is free again, and its result and content are checked.
    #[inline]
    pub fn done(&mut self, slot: usize, result: i32) {
        self.free.push(slot as u32);
        let io = self.ios[slot];
        let whole = result == self.buffers.block() as i32;
        if !whole {
            self.errors.add(|| describe(io, result, self.buffers.block()));
        }
        if self.ledger.is_some() {
            self.check(slot, io, whole);
        }
    }

    fn check(&mut self, slot: usize, io: Io, whole: bool) {
        let Some(ledger) = &mut self.ledger else { return };
        let block = io.offset / self.buffers.block() as u64;
        if !io.write
            && whole
            && let Some(generation) = ledger.expected(block)
        {
            self.checked += 1;
            // SAFETY: the slot's operation has ended.
            let bytes = unsafe { self.buffers.bytes(slot) };
            if let Err(mismatch) = verify::check(bytes, io.offset, generation) {
                self.errors.add(|| describe_mismatch(&mismatch));
            }
        }
        ledger.release(block, io.write.then_some(whole));
    }
}

/// Something else than zeros, which file systems and devices may treat in a special way.
fn verify_fill(block: &mut [u8], seed: u64) {
    let mut random = Random(seed);
    for bytes in block.chunks_mut(8) {
        bytes.copy_from_slice(&random.next().to_le_bytes()[..bytes.len()]);
    }
}

/// Fills a buffer for laying out a file.
pub fn fill_with_noise(bytes: &mut [u8]) {
    verify_fill(bytes, bytes.len() as u64);
}

fn describe(io: Io, result: i32, bs: usize) -> String {
    let verb = if io.write { "write" } else { "read" };
    if result < 0 {
        let error = std::io::Error::from_raw_os_error(-result);
        format!("{verb} of {bs} bytes at offset {}: {error}", io.offset)
    } else {
        format!("{verb} of {bs} bytes at offset {}: only {result} bytes were moved", io.offset)
    }
}

fn describe_mismatch(mismatch: &Mismatch) -> String {
    format!("--verify: {mismatch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BS: usize = 512;

    fn work(rw: Rw, blocks: u64, depth: u32, verify: bool) -> Work {
        Work::new(-1, rw, BS, blocks, depth, verify)
    }

    #[test]
    fn a_fill_writes_every_block_once() {
        let mut work = work(Rw::RandomRead, 5, 2, false);
        work.begin(Pass::Fill, 1);
        for block in 0..5 {
            let (slot, io) = work.start().unwrap();
            assert_eq!(io, Io { offset: block * BS as u64, write: true });
            work.done(slot, BS as i32);
        }
        assert_eq!(work.start(), None);
        assert_eq!(work.errors.count, 0);
    }

    #[test]
    fn the_same_seed_gives_the_same_operations() {
        let take = |seed| {
            let mut work = work(Rw::RandomMix, 1000, 1, false);
            work.begin(Pass::Timed, seed);
            let ios: Vec<Io> = (0..100)
                .map(|_| {
                    let (slot, io) = work.start().unwrap();
                    work.done(slot, BS as i32);
                    io
                })
                .collect();
            ios
        };
        assert_eq!(take(7), take(7));
        assert_ne!(take(7), take(8));
        assert!(take(7).iter().any(|io| io.write) && take(7).iter().any(|io| !io.write));
        assert!(take(7).iter().all(|io| io.offset < 1000 * BS as u64));
    }

    #[test]
    fn sequential_operations_wrap_at_the_end() {
        let mut work = work(Rw::Read, 2, 3, false);
        work.begin(Pass::Timed, 1);
        let offsets: Vec<u64> = (0..3).map(|_| work.start().unwrap().1.offset).collect();
        assert_eq!(offsets, [0, BS as u64, 0]);
        assert_eq!(work.start(), None, "all slots are in use");
    }

    #[test]
    fn errors_and_short_operations_are_counted_and_the_first_is_told() {
        let mut work = work(Rw::Read, 4, 2, false);
        work.begin(Pass::Timed, 1);
        let (slot, _) = work.start().unwrap();
        work.done(slot, -libc::EIO);
        let (slot, _) = work.start().unwrap();
        work.done(slot, 100);
        assert_eq!(work.errors.count, 2);
        assert_eq!(
            work.errors.first.as_deref(),
            Some("read of 512 bytes at offset 0: Input/output error (os error 5)")
        );
    }

    #[test]
    fn a_corrupted_block_is_found() {
        let mut work = work(Rw::RandomMix, 1, 1, true);
        work.begin(Pass::Fill, 1);
        let (slot, _) = work.start().unwrap();
        work.done(slot, BS as i32);
        work.begin(Pass::ReadBack, 1);
        let (slot, _) = work.start().unwrap();
        // The buffer still holds the block: a perfect read of it.
        work.done(slot, BS as i32);
        assert_eq!((work.errors.count, work.checked), (0, 1));
        work.begin(Pass::ReadBack, 1);
        let (slot, _) = work.start().unwrap();
        // SAFETY: nothing is in flight in this test.
        let bytes = unsafe { work.buffers.bytes(slot) };
        bytes[100] ^= 1;
        work.done(slot, BS as i32);
        assert_eq!(work.errors.count, 1);
        assert!(
            work.errors
                .first
                .as_deref()
                .unwrap()
                .starts_with("--verify: offset 0: expected generation 1")
        );
    }
}
