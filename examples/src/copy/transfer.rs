//! Data through rings: reads and writes in flight side by side, a block a slot.

use std::io;
use std::os::fd::RawFd;

use annulus_linux::{opcode, squeue, types};

use super::extents::Chunk;
use super::ring::Ring;
use super::side::Side;
use crate::buffers::Buffers;
use crate::device::Namespace;
use crate::error::{Failure, failed};
use crate::stop;

/// The user data of an fsync; slots are below.
const SYNC: u64 = u64::MAX;

/// Why a transfer ended early.
#[derive(Debug)]
pub enum Fault {
    /// The source's holes cannot be told from its data.
    Seek { error: io::Error },
    /// Reading the source failed.
    Read { offset: u64, error: io::Error },
    /// The source ends before its size.
    Ended { offset: u64 },
    /// Writing the copy failed.
    Write { offset: u64, error: io::Error },
    /// The copy cannot be made durable.
    Sync { error: io::Error },
    /// Reading the copy failed.
    Reread { offset: u64, error: io::Error },
    /// The copy is not what was written.
    Differs { offset: u64, expected: u32, found: u32 },
    /// The ring itself failed.
    Ring(Failure),
    /// The user asked to stop.
    Interrupted,
}

/// A chunk and the checksum of what was read from the source.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    /// Where it is.
    pub chunk: Chunk,
    /// CRC-32 of its bytes, padding at the copy's end included.
    pub crc: u32,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Write,
    /// Has the copy's device write zeroes by itself.
    Zero,
    Reread,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    step: Step,
    chunk: Chunk,
    /// Bytes of the chunk that this step has moved.
    moved: u32,
    /// Where the chunk's sum is.
    index: usize,
}

/// Rings and their buffers.
pub struct Transfer {
    // Before the buffers, so that they are dropped before them.
    rings: Vec<Ring>,
    buffers: Buffers,
    slots: Vec<Slot>,
    free: Vec<usize>,
    sums: Vec<Sum>,
    src: Side,
    dst: Side,
    /// Blocks of zeroes are not written: they are zeroes already.
    sparse: bool,
    /// Why nothing more is started: the first fault of the transfer that runs.
    fault: Option<Fault>,
}

impl Transfer {
    /// Room for `depth` blocks of `block` bytes in flight, between namespaces or, where none is
    /// given, files. `block` is a multiple of the namespaces' blocks.
    ///
    /// # Errors
    /// Those of setting rings up.
    pub fn new(
        depth: u32,
        block: usize,
        src: Option<&Namespace>,
        dst: Option<&Namespace>,
    ) -> Result<Self, Failure> {
        let buffers = Buffers::new(depth, block);
        let mut rings: Vec<Ring> = Vec::new();
        let mut side = |namespace: Option<&Namespace>| -> Result<Side, Failure> {
            let ring = match rings.iter().position(|ring| ring.is_for(namespace)) {
                Some(there) => there,
                None => {
                    rings.push(Ring::new(depth, &buffers, namespace)?);
                    rings.len() - 1
                }
            };
            Ok(Side::new(ring, namespace))
        };
        let (src_side, dst_side) = (side(src)?, side(dst)?);
        let chunk = Chunk { offset: 0, len: 0, hole: false };
        let idle = Slot { step: Step::Read, chunk, moved: 0, index: 0 };
        Ok(Self {
            rings,
            buffers,
            slots: vec![idle; depth as usize],
            free: (0..depth as usize).rev().collect(),
            sums: Vec::new(),
            src: src_side,
            dst: dst_side,
            // A new file is all hole, and a file that is read was asked for its holes.
            sparse: src.is_some() && dst.is_none(),
            fault: None,
        })
    }

    /// Copies the chunks; `progress` is told how far it is. Returns the checksums.
    ///
    /// # Errors
    /// The first fault; nothing is in flight any more then.
    pub fn copy(
        &mut self,
        src: RawFd,
        dst: RawFd,
        chunks: impl Iterator<Item = io::Result<Chunk>>,
        progress: impl FnMut(u64),
    ) -> Result<Vec<Sum>, Fault> {
        (self.src.fd, self.dst.fd) = (src, dst);
        self.sums.clear();
        self.run(Step::Read, chunks, progress)?;
        Ok(std::mem::take(&mut self.sums))
    }

    /// Reads the chunks back and compares their checksums.
    ///
    /// # Errors
    /// The first fault; nothing is in flight any more then.
    pub fn verify(
        &mut self,
        dst: RawFd,
        sums: &[Sum],
        progress: impl FnMut(u64),
    ) -> Result<(), Fault> {
        self.dst.fd = dst;
        self.sums.clear();
        self.sums.extend_from_slice(sums);
        self.run(Step::Reread, sums.iter().map(|sum| Ok(sum.chunk)), progress)
    }

    /// Makes a copy, or a directory beside it, durable.
    ///
    /// # Errors
    /// [`Fault::Sync`], or the ring's.
    pub fn sync(&mut self, fd: RawFd) -> Result<(), Fault> {
        loop {
            let ring = self.dst.ring;
            self.push(ring, opcode::Fsync::new(types::Fd(fd)).build().user_data(SYNC))?;
            let result = loop {
                self.rings[ring].submit(true).map_err(Fault::Ring)?;
                if let Some((_, result)) = self.rings[ring].reap() {
                    break result;
                }
            };
            match -result {
                0 => return Ok(()),
                libc::EINTR | libc::EAGAIN => {}
                errno => return Err(Fault::Sync { error: io::Error::from_raw_os_error(errno) }),
            }
        }
    }

    fn run(
        &mut self,
        first: Step,
        mut chunks: impl Iterator<Item = io::Result<Chunk>>,
        mut progress: impl FnMut(u64),
    ) -> Result<(), Fault> {
        let mut started = 0;
        let mut exhausted = false;
        loop {
            if stop::asked() {
                self.fault.get_or_insert(Fault::Interrupted);
            }
            while self.fault.is_none()
                && !exhausted
                && let Some(&slot) = self.free.last()
            {
                match chunks.next() {
                    None => exhausted = true,
                    Some(Err(error)) => self.fault = Some(Fault::Seek { error }),
                    Some(Ok(chunk)) => {
                        self.free.pop();
                        self.slots[slot] = Slot { step: first, chunk, moved: 0, index: started };
                        if first == Step::Read {
                            self.sums.push(Sum { chunk, crc: 0 });
                            if chunk.hole {
                                self.slots[slot].step = self.fill_hole(slot);
                            }
                        }
                        started += 1;
                        self.issue(slot)?;
                    }
                }
            }
            if self.free.len() == self.slots.len() {
                return self.fault.take().map_or(Ok(()), Err);
            }
            self.submit()?;
            while let Some((user_data, result)) = self.reap() {
                let slot = user_data as usize;
                match self.advance(slot, result) {
                    Ok(true) => self.issue(slot)?,
                    Ok(false) => {
                        let chunk = self.slots[slot].chunk;
                        progress(chunk.offset + u64::from(chunk.len));
                        self.free.push(slot);
                    }
                    Err(fault) => {
                        self.fault.get_or_insert(fault);
                        self.free.push(slot);
                    }
                }
            }
        }
    }

    /// A slot's chunk is a hole: it holds the zeroes from here on. Returns how they get into the
    /// copy.
    fn fill_hole(&mut self, slot: usize) -> Step {
        let len = self.dst.padded(self.slots[slot].chunk.len) as usize;
        // SAFETY: the slot was free.
        let bytes = unsafe { &mut self.buffers.bytes(slot)[..len] };
        bytes.fill(0);
        self.sums[self.slots[slot].index].crc = crc32fast::hash(bytes);
        if self.dst.zeroes { Step::Zero } else { Step::Write }
    }

    /// Bytes that a slot's step moves.
    fn length(&self, Slot { step, chunk, .. }: Slot) -> u32 {
        match step {
            Step::Read => self.src.padded(chunk.len),
            Step::Write | Step::Zero | Step::Reread => self.dst.padded(chunk.len),
        }
    }

    /// A slot's operation ended. True: its next one is to be issued; false: its chunk is done.
    fn advance(&mut self, slot: usize, result: i32) -> Result<bool, Fault> {
        let Slot { step, chunk, moved, index } = self.slots[slot];
        let offset = chunk.offset + u64::from(moved);
        if result < 0 {
            if matches!(-result, libc::EINTR | libc::EAGAIN) && self.fault.is_none() {
                return Ok(true);
            }
            let error = io::Error::from_raw_os_error(-result);
            return Err(match step {
                Step::Read => Fault::Read { offset, error },
                Step::Write | Step::Zero => Fault::Write { offset, error },
                Step::Reread => Fault::Reread { offset, error },
            });
        }
        if step == Step::Zero {
            return Ok(false);
        }
        if result == 0 {
            return Err(match step {
                Step::Read => Fault::Ended { offset },
                Step::Write | Step::Zero => {
                    Fault::Write { offset, error: io::ErrorKind::WriteZero.into() }
                }
                Step::Reread => {
                    Fault::Reread { offset, error: io::ErrorKind::UnexpectedEof.into() }
                }
            });
        }
        self.slots[slot].moved += result as u32;
        if self.slots[slot].moved < self.length(self.slots[slot]) {
            return Ok(self.fault.is_none());
        }
        let padded = self.dst.padded(chunk.len) as usize;
        // SAFETY: the slot's operation has ended.
        let bytes = unsafe { &mut self.buffers.bytes(slot)[..padded] };
        match step {
            Step::Read => {
                bytes[chunk.len as usize..].fill(0);
                self.sums[index].crc = crc32fast::hash(bytes);
                if self.sparse && bytes.iter().all(|&byte| byte == 0) {
                    return Ok(false);
                }
                self.slots[slot].step = Step::Write;
                self.slots[slot].moved = 0;
                Ok(self.fault.is_none())
            }
            Step::Write | Step::Zero => Ok(false),
            Step::Reread => {
                let (expected, found) = (self.sums[index].crc, crc32fast::hash(bytes));
                if expected == found {
                    Ok(false)
                } else {
                    Err(Fault::Differs { offset: chunk.offset, expected, found })
                }
            }
        }
    }

    /// Queues a slot's next operation: the part of its chunk that is left.
    fn issue(&mut self, slot: usize) -> Result<(), Fault> {
        let Slot { step, chunk, moved, .. } = self.slots[slot];
        // SAFETY: `moved` is less than the step's length, which is at most a block.
        let at = unsafe { self.buffers.slot(slot).add(moved as usize) };
        let len = self.length(self.slots[slot]) - moved;
        let offset = chunk.offset + u64::from(moved);
        let side = if step == Step::Read { self.src } else { self.dst };
        let entry = match step {
            Step::Read | Step::Reread => side.read(at, len, offset),
            Step::Write => side.write(at, len, offset),
            Step::Zero => side.zero(len, offset),
        };
        self.push(side.ring, entry.user_data(slot as u64))
    }

    fn push(&mut self, ring: usize, entry: squeue::Entry) -> Result<(), Fault> {
        // SAFETY: the buffers live as long as the rings and longer, and a slot's is not touched
        // before its completion; the files are open for as long as a transfer runs. It ends with
        // nothing in flight unless a ring itself fails, and then the rings go before the buffers.
        match unsafe { self.rings[ring].push(&entry) } {
            true => Ok(()),
            false => Err(Fault::Ring(failed!("the submission queue is full below its depth"))),
        }
    }

    /// Submits what is queued and waits for a completion of the ring that has most to do: it is
    /// what the others will wait for next.
    fn submit(&mut self) -> Result<(), Fault> {
        let busiest = (0..self.rings.len()).max_by_key(|&ring| self.rings[ring].in_flight());
        let mut wait = true;
        for (_, ring) in self.rings.iter_mut().enumerate().filter(|(at, _)| Some(*at) != busiest) {
            ring.submit(false).map_err(Fault::Ring)?;
            wait &= !ring.is_ready();
        }
        match busiest {
            Some(busiest) => self.rings[busiest].submit(wait).map_err(Fault::Ring),
            None => Ok(()),
        }
    }

    fn reap(&mut self) -> Option<(u64, i32)> {
        self.rings.iter_mut().find_map(Ring::reap)
    }
}

#[cfg(test)]
mod tests;
