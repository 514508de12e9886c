//! Random reads and writes whose every byte is checked.
//!
//! Each of the workers has a region of the namespace to itself, and knows what
//! is in it; they take turns in one ring, one operation of each in flight.

use std::ops::Range;
use std::time::{Duration, Instant};

use annulus_linux::nvme::NvmeRing;
use annulus_linux::types::Iovec;
use annulus_linux::{opcode, squeue, types};

use crate::epoch::Random;

/// How memory is given to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// A registered buffer.
    Fixed,
    /// Unregistered, at any byte.
    Plain,
    /// Unregistered, in pieces of any length.
    Vectored,
}

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// The namespace.
    pub nsid: u32,
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
    pub time: Duration,
    /// What everything random depends on.
    pub seed: u64,
    /// Bytes of the namespace that cannot be read, if there are any.
    pub bad: Option<Range<u64>>,
    /// The medium stalls meanwhile: operations may be late, and end with the
    /// reset that follows. What they were to write is written again.
    pub stalls: bool,
    /// Without a completion for so long everything in flight is lost; without
    /// this it is waited for for ever.
    pub patience: Option<Duration>,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default)]
pub struct Done {
    /// Operations.
    pub operations: u64,
    /// Bytes read and checked, and written.
    pub bytes: u64,
    /// The longest operation.
    pub longest: usize,
    /// Reads of what cannot be read.
    pub unread: u64,
    /// Operations that were late, and such as ended with a reset.
    pub late: u64,
    pub reset: u64,
}

/// How an operation has ended.
enum Ended {
    Well,
    /// As what cannot be read must.
    Unread,
    Late,
    Reset,
}

/// How operations end that are late, or in flight as the controller is reset.
const ENDS_OF_STALLS: [i32; 2] = [-libc::ETIMEDOUT, -libc::EIO];

/// Room around a buffer, so that it can begin at any byte.
const SLACK: usize = 64;

struct Worker {
    /// What the region holds.
    content: Vec<u8>,
    /// Where data come and go; the ring's while an operation is in flight.
    memory: Vec<u8>,
    iovecs: Vec<Iovec>,
    /// The operation in flight: at which byte of the region, how long, from
    /// which byte of the memory, and whether it writes.
    at: usize,
    len: usize,
    skip: usize,
    writes: bool,
    /// What is at this place is not known: it is written next.
    unknown: bool,
}

/// Runs the load; every operation must succeed, and every byte be right.
///
/// # Errors
/// What went wrong.
pub fn run(ring: &mut NvmeRing, load: &Load) -> Result<Done, String> {
    let mut random = Random(load.seed);
    let mut workers: Vec<Worker> = (0..load.depth)
        .map(|_| Worker {
            content: vec![0; load.region],
            memory: vec![0; load.longest + SLACK],
            iovecs: Vec::new(),
            at: 0,
            len: 0,
            skip: 0,
            writes: true,
            unknown: false,
        })
        .collect();
    let buffers: Vec<_> = workers
        .iter_mut()
        .map(|worker| libc::iovec {
            iov_base: worker.memory.as_mut_ptr().cast(),
            iov_len: worker.memory.len(),
        })
        .collect();
    // SAFETY: the workers' memory stays until the buffers are unregistered,
    // below or with the ring, which the caller drops after this returned with
    // nothing in flight.
    unsafe { ring.submitter().register_buffers(&buffers) }
        .map_err(|e| format!("registering {} buffers: {e}", buffers.len()))?;
    let done = match drive(ring, load, &mut workers, &mut random) {
        Ok(done) => done,
        Err(why) => {
            // Something may be in flight: its memory must stay.
            std::mem::forget(workers);
            return Err(why);
        }
    };
    let undone = ring.submitter().unregister_buffers();
    undone.map_err(|e| format!("unregistering the buffers: {e}"))?;
    Ok(done)
}

fn drive(
    ring: &mut NvmeRing,
    load: &Load,
    workers: &mut [Worker],
    random: &mut Random,
) -> Result<Done, String> {
    let mut done = Done::default();
    let mut failed = None;
    let mut in_flight = 0;
    // First each region is written once, as far as it goes at a time.
    let mut fresh = vec![0; workers.len()];
    let mut idle: Vec<usize> = (0..workers.len()).collect();
    let start = Instant::now();
    let mut moved = start;
    loop {
        let over = failed.is_some()
            || start.elapsed() >= load.time && fresh.iter().all(|&b| b == load.region);
        while !over && let Some(index) = idle.pop() {
            let entry = workers[index].next(index, load, random, &mut fresh[index]);
            // SAFETY: the worker's memory and vectors stay as they are until
            // the completion.
            unsafe { ring.submission().push(&entry.user_data(index as u64)) }
                .map_err(|_| "the submission queue is full below its depth")?;
            in_flight += 1;
        }
        if in_flight == 0 {
            return failed.map_or(Ok(done), Err);
        }
        submit(ring, load.patience)?;
        let completed: Vec<(u64, i32)> =
            ring.completion().map(|cqe| (cqe.user_data(), cqe.result())).collect();
        match load.patience {
            Some(patience) if completed.is_empty() && moved.elapsed() > patience => {
                return Err(format!("lost {in_flight}: nothing came in {patience:?}"));
            }
            _ if completed.is_empty() => {}
            _ => moved = Instant::now(),
        }
        for (index, result) in completed {
            if idle.contains(&(index as usize)) {
                return Err(format!("worker {index}: it ended twice, with {result}"));
            }
            in_flight -= 1;
            let worker = &mut workers[index as usize];
            done.operations += 1;
            match worker.check(index, load, result) {
                Ok(Ended::Well) => {
                    done.bytes += worker.len as u64;
                    done.longest = done.longest.max(worker.len);
                }
                Ok(Ended::Unread) => done.unread += 1,
                Ok(Ended::Late) => done.late += 1,
                Ok(Ended::Reset) => done.reset += 1,
                Err(why) => {
                    failed.get_or_insert(format!("worker {index}: {why}"));
                }
            }
            idle.push(index as usize);
        }
    }
}

/// Submits what was pushed, and waits for a completion.
fn submit(ring: &NvmeRing, patience: Option<Duration>) -> Result<(), String> {
    let submitted = match patience {
        None => ring.submit_and_wait(1),
        Some(patience) => {
            let time = types::Timespec::from(patience);
            ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&time))
        }
    };
    match submitted {
        Err(e) if e.raw_os_error() == Some(libc::ETIME) => Ok(()),
        // No request could be had: what is in flight comes first.
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        Err(e) => Err(format!("submitting: {e}")),
        Ok(_) => Ok(()),
    }
}

impl Worker {
    fn next(
        &mut self,
        index: usize,
        load: &Load,
        random: &mut Random,
        fresh: &mut usize,
    ) -> squeue::Entry {
        let blocks = (load.longest.min(load.region) / load.block) as u64;
        // Mostly short ones, now and then one as long as can be.
        let most = if random.below(8) == 0 { blocks } else { blocks.min(16) };
        let mut len = (1 + random.below(most)) as usize * load.block;
        if self.unknown {
            (len, self.writes, self.unknown) = (self.len, true, false);
        } else if *fresh < load.region {
            (self.at, self.writes) = (*fresh, true);
            len = len.min(load.region - *fresh);
            *fresh += len;
        } else {
            let places = (load.region - len) / load.block;
            self.at = random.below(places as u64 + 1) as usize * load.block;
            self.writes = random.below(2) == 0;
        }
        self.len = len;
        let memory = match random.below(4) {
            0 => Memory::Plain,
            1 => Memory::Vectored,
            _ => Memory::Fixed,
        };
        // Fixed ones lie on a dword most of the time, and anywhere sometimes.
        self.skip = match (memory, random.below(4)) {
            (Memory::Fixed, 1..) => random.below(SLACK as u64 / 4) as usize * 4,
            _ => random.below(SLACK as u64) as usize,
        };
        let data = &mut self.memory[self.skip..self.skip + len];
        if self.writes {
            for bytes in data.chunks_mut(8) {
                bytes.copy_from_slice(&random.next().to_le_bytes()[..bytes.len()]);
            }
            self.content[self.at..self.at + len].copy_from_slice(data);
        } else {
            data.fill(0xee);
        }
        let (base, len32) = (data.as_mut_ptr(), len as u32);
        let position = load.start + (index * load.region + self.at) as u64;
        let fd = types::Fd(load.nsid as i32);
        let number = index as u16;
        match (memory, self.writes) {
            (Memory::Fixed, false) => {
                opcode::ReadFixed::new(fd, base, len32, number).offset(position).build()
            }
            (Memory::Fixed, true) => {
                opcode::WriteFixed::new(fd, base, len32, number).offset(position).build()
            }
            (Memory::Plain, false) => opcode::Read::new(fd, base, len32).offset(position).build(),
            (Memory::Plain, true) => opcode::Write::new(fd, base, len32).offset(position).build(),
            (Memory::Vectored, writes) => {
                self.cut(base, random);
                let (array, count) = (self.iovecs.as_ptr(), self.iovecs.len() as u32);
                match writes {
                    false => opcode::Readv::new(fd, array, count).offset(position).build(),
                    true => opcode::Writev::new(fd, array, count).offset(position).build(),
                }
            }
        }
    }

    /// Cuts the operation's memory into pieces of any length.
    fn cut(&mut self, base: *mut u8, random: &mut Random) {
        self.iovecs.clear();
        let mut at = 0;
        while at < self.len {
            let most = (self.len - at) as u64;
            let len = match self.iovecs.len() {
                // What is left.
                900.. => most,
                _ => (1 + random.below(5000)).min(most),
            } as usize;
            self.iovecs.push(Iovec { base: base.wrapping_add(at).cast(), len });
            at += len;
        }
    }

    fn check(&mut self, index: u64, load: &Load, result: i32) -> Result<Ended, String> {
        let whole = usize::try_from(result).is_ok_and(|n| n == self.len);
        if load.stalls && !whole && (result >= 0 || ENDS_OF_STALLS.contains(&result)) {
            self.unknown |= self.writes;
            return Ok(if result == -libc::ETIMEDOUT { Ended::Late } else { Ended::Reset });
        }
        let what = if self.writes { "writing" } else { "reading" };
        let from = load.start + (index as usize * load.region + self.at) as u64;
        let until = from + self.len as u64;
        let meets = |bad: &&Range<u64>| !self.writes && bad.start < until && from < bad.end;
        let came = match (usize::try_from(result), load.bad.as_ref().filter(meets)) {
            (Ok(_), None) if whole => self.len,
            // What is before it may have come.
            (Ok(n), Some(bad)) if n as u64 <= bad.start.saturating_sub(from) => n,
            (Err(_), Some(_)) => 0,
            _ => return Err(format!("{what} {} bytes at {}: {result}", self.len, self.at)),
        };
        let data = &self.memory[self.skip..self.skip + came];
        let right = &self.content[self.at..self.at + came];
        match data.iter().zip(right).position(|(a, b)| a != b) {
            Some(wrong) if !self.writes => Err(format!(
                "reading {} bytes at {}: byte {wrong} is {:#x}, not {:#x}",
                self.len, self.at, data[wrong], right[wrong]
            )),
            _ if came == self.len => Ok(Ended::Well),
            _ => Ok(Ended::Unread),
        }
    }
}
