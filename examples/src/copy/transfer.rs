//! Data through the ring: reads and writes in flight side by side, a block a slot.

use std::io;
use std::os::fd::RawFd;

use annulus_linux::{IoUring, opcode, squeue, types};

use super::extents::Chunk;
use crate::buffers::Buffers;
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
    /// CRC-32 of its bytes.
    pub crc: u32,
}

/// What a slot is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Read,
    Write,
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

/// A ring and its buffers.
pub struct Transfer {
    // Before the buffers, so that it is dropped before them.
    ring: IoUring,
    buffers: Buffers,
    slots: Vec<Slot>,
    free: Vec<usize>,
    sums: Vec<Sum>,
    src: RawFd,
    dst: RawFd,
    /// Why nothing more is started: the first fault of the transfer that runs.
    fault: Option<Fault>,
}

impl Transfer {
    /// Room for `depth` blocks of `block` bytes in flight.
    ///
    /// # Errors
    /// Those of setting a ring up.
    pub fn new(depth: u32, block: usize) -> Result<Self, Failure> {
        let ring =
            IoUring::new(depth).map_err(|error| failed!("cannot set up the ring: {error}"))?;
        let idle =
            Slot { step: Step::Read, chunk: Chunk { offset: 0, len: 0 }, moved: 0, index: 0 };
        Ok(Self {
            ring,
            buffers: Buffers::new(depth, block),
            slots: vec![idle; depth as usize],
            free: (0..depth as usize).rev().collect(),
            sums: Vec::new(),
            src: -1,
            dst: -1,
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
        (self.src, self.dst) = (src, dst);
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
        self.dst = dst;
        self.sums.clear();
        self.sums.extend_from_slice(sums);
        self.run(Step::Reread, sums.iter().map(|sum| Ok(sum.chunk)), progress)
    }

    /// Makes a file durable.
    ///
    /// # Errors
    /// [`Fault::Sync`], or the ring's.
    pub fn sync(&mut self, fd: RawFd) -> Result<(), Fault> {
        loop {
            self.push(opcode::Fsync::new(types::Fd(fd)).build().user_data(SYNC))?;
            let result = loop {
                self.submit()?;
                if let Some(cqe) = self.ring.completion().next() {
                    break cqe.result();
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

    fn reap(&mut self) -> Option<(u64, i32)> {
        self.ring.completion().next().map(|cqe| (cqe.user_data(), cqe.result()))
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
                Step::Write => Fault::Write { offset, error },
                Step::Reread => Fault::Reread { offset, error },
            });
        }
        if result == 0 {
            return Err(match step {
                Step::Read => Fault::Ended { offset },
                Step::Write => Fault::Write { offset, error: io::ErrorKind::WriteZero.into() },
                Step::Reread => {
                    Fault::Reread { offset, error: io::ErrorKind::UnexpectedEof.into() }
                }
            });
        }
        self.slots[slot].moved += result as u32;
        if self.slots[slot].moved < chunk.len {
            return Ok(self.fault.is_none());
        }
        // SAFETY: the slot's operation has ended.
        let bytes = unsafe { self.buffers.bytes(slot) };
        match step {
            Step::Read => {
                self.sums[index].crc = crc32fast::hash(&bytes[..chunk.len as usize]);
                self.slots[slot].step = Step::Write;
                self.slots[slot].moved = 0;
                Ok(self.fault.is_none())
            }
            Step::Write => Ok(false),
            Step::Reread => {
                let (expected, found) =
                    (self.sums[index].crc, crc32fast::hash(&bytes[..chunk.len as usize]));
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
        // SAFETY: `moved` is less than the chunk's length, which is at most a block.
        let at = unsafe { self.buffers.slot(slot).add(moved as usize) };
        let (len, offset) = (chunk.len - moved, chunk.offset + u64::from(moved));
        let entry = match step {
            Step::Read => opcode::Read::new(types::Fd(self.src), at, len).offset(offset).build(),
            Step::Write => opcode::Write::new(types::Fd(self.dst), at, len).offset(offset).build(),
            Step::Reread => opcode::Read::new(types::Fd(self.dst), at, len).offset(offset).build(),
        };
        self.push(entry.user_data(slot as u64))
    }

    fn push(&mut self, entry: squeue::Entry) -> Result<(), Fault> {
        // SAFETY: the buffers live as long as the ring and longer, and a slot's is not touched
        // before its completion; the files are open for as long as a transfer runs. It ends with
        // nothing in flight unless the ring itself fails, and then the ring goes before the
        // buffers.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(|_| Fault::Ring(failed!("the submission queue is full below its depth")))
    }

    /// Submits what is queued and waits for a completion.
    fn submit(&mut self) -> Result<(), Fault> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            // Nothing is lost: reap and come again.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EBUSY | libc::EAGAIN | libc::EINTR)
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(Fault::Ring(failed!("submitting to the ring: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    const LEN: u32 = 4096;

    fn reading(transfer: &mut Transfer) {
        let chunk = Chunk { offset: 8192, len: LEN };
        transfer.slots[0] = Slot { step: Step::Read, chunk, moved: 0, index: 0 };
        transfer.sums = vec![Sum { chunk, crc: 0 }];
    }

    #[test]
    fn short_reads_and_writes_are_continued() {
        let mut transfer = Transfer::new(1, LEN as usize).unwrap();
        reading(&mut transfer);
        assert!(transfer.advance(0, 1000).unwrap());
        assert_eq!((transfer.slots[0].step, transfer.slots[0].moved), (Step::Read, 1000));
        assert!(transfer.advance(0, -libc::EINTR).unwrap());
        assert!(transfer.advance(0, 3096).unwrap());
        assert_eq!((transfer.slots[0].step, transfer.slots[0].moved), (Step::Write, 0));
        assert!(transfer.advance(0, 4095).unwrap());
        assert_eq!((transfer.slots[0].step, transfer.slots[0].moved), (Step::Write, 4095));
        assert!(!transfer.advance(0, 1).unwrap(), "the chunk is done");
    }

    #[test]
    fn faults_say_where_they_happened() {
        let mut transfer = Transfer::new(1, LEN as usize).unwrap();
        reading(&mut transfer);
        transfer.advance(0, 1000).unwrap();
        assert!(matches!(transfer.advance(0, 0), Err(Fault::Ended { offset: 9192 })));
        assert!(matches!(transfer.advance(0, -libc::EIO), Err(Fault::Read { offset: 9192, .. })));
        transfer.slots[0].step = Step::Write;
        assert!(matches!(
            transfer.advance(0, -libc::ENOSPC),
            Err(Fault::Write { offset: 9192, .. })
        ));
        assert!(matches!(transfer.advance(0, 0), Err(Fault::Write { offset: 9192, .. })));
        transfer.slots[0].step = Step::Reread;
        assert!(matches!(transfer.advance(0, 0), Err(Fault::Reread { offset: 9192, .. })));
    }

    #[test]
    fn a_damaged_copy_is_found() {
        let (src, dst) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        src.write_all_at(&[7; 20_000], 0).unwrap();
        let mut transfer = Transfer::new(3, LEN as usize).unwrap();
        let chunks =
            (0..5).map(|i| Ok(Chunk { offset: i * 4096, len: if i == 4 { 3616 } else { LEN } }));
        let sums = transfer.copy(src.as_raw_fd(), dst.as_raw_fd(), chunks, |_| {}).unwrap();
        transfer.sync(dst.as_raw_fd()).unwrap();
        transfer.verify(dst.as_raw_fd(), &sums, |_| {}).unwrap();
        dst.write_all_at(&[8], 10_000).unwrap();
        let fault = transfer.verify(dst.as_raw_fd(), &sums, |_| {}).unwrap_err();
        assert!(matches!(fault, Fault::Differs { offset: 8192, .. }), "{fault:?}");
        dst.set_len(5000).unwrap();
        let fault = transfer.verify(dst.as_raw_fd(), &sums, |_| {}).unwrap_err();
        assert!(matches!(fault, Fault::Reread { .. } | Fault::Differs { .. }), "{fault:?}");
    }
}
