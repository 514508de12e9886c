//! Random reads and writes whose every byte is checked.
//!
//! Each of the workers has a region of the disk to itself and a model of what
//! is in it; they take turns in one ring, one operation of each in flight.

use annulus::hal::Clock as _;
use annulus::opcode;
use annulus::squeue::Entry;
use annulus::types::{Fd, Iovec};
use annulus_unikernel::epoch::Random;

use crate::memory::Region;
use crate::place::MACHINE;
use crate::ring::App;
use crate::text;
use crate::text::Text;

/// The most workers.
pub const WORKERS: usize = 32;
/// The most pieces of an operation.
const PIECES: usize = 24;
/// Room around a buffer, so that it can begin at any byte.
const SLACK: usize = 64;

/// What to do.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The disk.
    pub fd: Fd,
    /// Bytes of a logical block.
    pub block: usize,
    /// Where the workers' regions begin, in bytes.
    pub start: u64,
    /// Bytes of each region.
    pub region: usize,
    /// Operations in flight.
    pub depth: usize,
    /// The longest operation in bytes.
    pub longest: usize,
    /// For how long.
    pub ns: u64,
    /// What everything random depends on.
    pub seed: u64,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Operations.
    pub operations: u32,
    /// Bytes read and checked, and written.
    pub bytes: u64,
}

/// What the workers need, so long as anything is in flight.
pub struct Workers {
    load: Load,
    /// What the regions hold.
    model: Region,
    /// Where data come and go.
    memory: Region,
    all: [Worker; WORKERS],
}

#[derive(Clone, Copy)]
struct Worker {
    /// How far the region has been written once.
    fresh: usize,
    /// The operation in flight: at which byte of the region, how long, from
    /// which byte of the memory, and whether it writes.
    at: usize,
    len: usize,
    skip: usize,
    writes: bool,
    pieces: [Iovec; PIECES],
}

const EMPTY: Iovec = Iovec { base: core::ptr::null_mut(), len: 0 };
const IDLE: Worker =
    Worker { fresh: 0, at: 0, len: 0, skip: 0, writes: true, pieces: [EMPTY; PIECES] };

impl Workers {
    /// The memory for a load.
    pub fn new(load: Load) -> Result<Self, Text> {
        assert!(load.depth <= WORKERS && load.longest <= load.region);
        Ok(Self {
            load,
            model: Region::new(load.depth * load.region)?,
            memory: Region::new(load.depth * (load.longest + SLACK))?,
            all: [IDLE; WORKERS],
        })
    }

    /// Runs the load; every operation must succeed, and every byte be right.
    ///
    /// # Safety
    /// The workers are not dropped before the ring has ended.
    pub unsafe fn run(&mut self, app: &mut App<'_, '_>) -> Result<Done, Text> {
        let Load { depth, longest, ns, seed, region, .. } = self.load;
        let mut random = Random(seed);
        let mut buffers = [EMPTY; WORKERS];
        for (n, buffer) in buffers[..depth].iter_mut().enumerate() {
            let base = self.memory[n * (longest + SLACK)..].as_mut_ptr().cast();
            *buffer = Iovec { base, len: longest + SLACK };
        }
        // SAFETY: the caller keeps the workers.
        unsafe { app.register_buffers(&buffers[..depth])? };
        let mut done = Done::default();
        let mut failed = None;
        let mut busy = [false; WORKERS];
        let until = MACHINE.now() + ns;
        loop {
            let filled = self.all[..depth].iter().all(|worker| worker.fresh == region);
            let over = failed.is_some() || filled && MACHINE.now() >= until;
            for (n, busy) in busy[..depth].iter_mut().enumerate() {
                if !over && !*busy {
                    let entry = self.next(n, &mut random).user_data(n as u64);
                    // SAFETY: a worker's memory and pieces stay as they are
                    // until the completion.
                    unsafe { app.push(&entry)? };
                    *busy = true;
                }
            }
            if !busy.contains(&true) {
                return failed.map_or(Ok(done), Err);
            }
            app.submit_and_wait(1)?;
            for cqe in app.completions() {
                let n = cqe.user_data() as usize;
                if !busy.get(n).is_some_and(|busy| *busy) {
                    return Err(text!("a completion of {n}, which has nothing in flight"));
                }
                busy[n] = false;
                done.operations += 1;
                done.bytes += self.all[n].len as u64;
                if let Err(why) = self.check(n, cqe.result()) {
                    failed.get_or_insert(why);
                }
            }
        }
    }

    fn next(&mut self, n: usize, random: &mut Random) -> Entry {
        let Load { block, region, longest, start, fd, .. } = self.load;
        let worker = &mut self.all[n];
        let blocks = (longest / block) as u64;
        // Mostly short ones, now and then one as long as can be.
        let most = if random.below(8) == 0 { blocks } else { blocks.min(16) };
        let mut len = (1 + random.below(most)) as usize * block;
        if worker.fresh < region {
            len = longest.min(region - worker.fresh);
            (worker.at, worker.writes) = (worker.fresh, true);
            worker.fresh += len;
        } else {
            let places = (region - len) / block;
            worker.at = random.below(places as u64 + 1) as usize * block;
            worker.writes = random.below(2) == 0;
        }
        worker.len = len;
        let (plain, vectored) = match random.below(4) {
            0 => (true, false),
            1 => (false, true),
            _ => (false, false),
        };
        // Registered ones lie on a dword most of the time, and anywhere
        // sometimes.
        worker.skip = match (plain || vectored, random.below(4)) {
            (false, 1..) => random.below(SLACK as u64 / 4) as usize * 4,
            _ => random.below(SLACK as u64) as usize,
        };
        let from = n * (longest + SLACK) + worker.skip;
        let data = &mut self.memory[from..from + len];
        if worker.writes {
            // Each block's bytes are its own and this generation's.
            let seed = random.next();
            for (words, place) in (0..).zip(data.chunks_exact_mut(8)) {
                let word = (seed ^ words).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                place.copy_from_slice(&word.to_le_bytes());
            }
            let at = n * region + worker.at;
            self.model[at..at + len].copy_from_slice(data);
        } else {
            data.fill(0xee);
        }
        let (base, count) = (data.as_mut_ptr(), len as u32);
        let position = start + (n * region + worker.at) as u64;
        if vectored {
            let pieces = cut(&mut worker.pieces, base, len, random) as u32;
            let array = worker.pieces.as_ptr();
            return match worker.writes {
                true => opcode::Writev::new(fd, array, pieces).offset(position).build(),
                false => opcode::Readv::new(fd, array, pieces).offset(position).build(),
            };
        }
        match (plain, worker.writes) {
            (true, true) => opcode::Write::new(fd, base, count).offset(position).build(),
            (true, false) => opcode::Read::new(fd, base, count).offset(position).build(),
            (false, true) => {
                opcode::WriteFixed::new(fd, base, count, n as u16).offset(position).build()
            }
            (false, false) => {
                opcode::ReadFixed::new(fd, base, count, n as u16).offset(position).build()
            }
        }
    }

    fn check(&self, n: usize, result: i32) -> Result<(), Text> {
        let Worker { at, len, skip, writes, .. } = self.all[n];
        let what = if writes { "writing" } else { "reading" };
        if result != len as i32 {
            return Err(text!("worker {n}: {what} {len} bytes at {at}: {result}"));
        }
        let from = n * (self.load.longest + SLACK) + skip;
        let data = &self.memory[from..from + len];
        let right = &self.model[n * self.load.region + at..][..len];
        if writes || data == right {
            return Ok(());
        }
        let wrong = data.iter().zip(right).position(|(a, b)| a != b).unwrap_or(0);
        let (is, should) = (data[wrong], right[wrong]);
        Err(text!(
            "worker {n}: reading {len} bytes at {at}: byte {wrong} is {is:#x}, not {should:#x}"
        ))
    }
}

/// Cuts an operation's memory into pieces of any length. How many.
fn cut(pieces: &mut [Iovec; PIECES], base: *mut u8, len: usize, random: &mut Random) -> usize {
    let mut at = 0;
    for (n, piece) in pieces.iter_mut().enumerate() {
        let left = len - at;
        let own = if n + 1 == PIECES { left } else { (1 + random.below(9000) as usize).min(left) };
        *piece = Iovec { base: base.wrapping_add(at).cast(), len: own };
        at += own;
        if at == len {
            return n + 1;
        }
    }
    PIECES
}
