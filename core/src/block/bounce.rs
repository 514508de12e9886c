//! Memory that the device reaches, for data that lie where it does not.

use super::NONE;
use crate::errno::Errno;
use crate::hal::device::{Coherent, Dma};

/// The most chunks of a ring.
const MOST: usize = 256;

/// Chunks of one length, each for one part of a request at a time.
#[derive(Debug)]
pub(super) struct Bounce {
    memory: Option<Coherent>,
    chunk: usize,
    free: [u16; MOST],
    count: usize,
}

impl Bounce {
    /// `count` chunks of `chunk` bytes, a multiple of a page.
    pub fn new(dma: &impl Dma, count: usize, chunk: usize) -> Result<Self, Errno> {
        let count = count.min(MOST);
        let memory = match count {
            0 => None,
            _ => Some(dma.alloc(count.checked_mul(chunk).ok_or(Errno::ENOMEM)?)?),
        };
        let mut free = [NONE; MOST];
        for (index, place) in free[..count].iter_mut().enumerate() {
            *place = (count - 1 - index) as u16;
        }
        Ok(Self { memory, chunk, free, count })
    }

    /// Bytes of a chunk; 0 if there are none.
    pub fn chunk(&self) -> usize {
        if self.memory.is_some() { self.chunk } else { 0 }
    }

    pub fn take(&mut self) -> Option<u16> {
        self.count = self.count.checked_sub(1)?;
        Some(self.free[self.count])
    }

    pub fn put(&mut self, chunk: u16) {
        self.free[self.count] = chunk;
        self.count += 1;
    }

    /// Where the processor and the device find a chunk.
    pub fn at(&self, chunk: u16) -> (*mut u8, u64) {
        let memory = self.memory.as_ref().expect("a chunk was taken of it");
        let offset = usize::from(chunk) * self.chunk;
        assert!(offset + self.chunk <= memory.len, "a chunk lies in the memory");
        // SAFETY: inside the allocation, checked above.
        (unsafe { memory.ptr.as_ptr().add(offset) }, memory.device + offset as u64)
    }

    /// The memory, which the device must not use any more when it is freed.
    pub fn take_memory(&mut self) -> Option<Coherent> {
        self.memory.take()
    }
}
