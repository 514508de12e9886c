//! Buffers that are provided: the memory of all groups, and the ring of one.

use std::sync::atomic::Ordering;

use annulus::types::BufRingEntry;

use super::super::world::checksum;
use super::program::NOBODY;

/// Buffers of a group.
pub const EACH: u16 = 64;
/// Bytes of a buffer.
const LEN: u32 = 64;
/// Buffers that the ring has at the start.
const FIRST: u16 = 3;

#[repr(C, align(4096))]
struct Page([BufRingEntry; EACH as usize]);

/// The memory. One for all programs, as for all that SQEs point to.
pub struct Buffers {
    memory: Box<[u8]>,
    page: Box<Page>,
    tail: u16,
}

impl Buffers {
    /// Nothing provided.
    pub fn new() -> Self {
        let memory = vec![0; usize::from(NOBODY * EACH) * LEN as usize].into();
        Self { memory, page: Box::new(Page([const { BufRingEntry::new() }; _])), tail: 0 }
    }

    /// As before the first program.
    pub fn reset(&mut self) {
        self.memory.fill(0);
        self.page.0.fill_with(BufRingEntry::new);
        self.tail = 0;
    }

    /// Where the ring is, and its entries.
    pub fn ring(&mut self) -> (u64, u16) {
        self.fill(FIRST);
        (self.page.0.as_ptr().expose_provenance() as u64, EACH)
    }

    /// Where the buffer `id` of a group is, and its length.
    pub fn memory(&mut self, group: u16, id: u16) -> (u64, u32) {
        let at = usize::from(group % NOBODY * EACH + id % EACH) * LEN as usize;
        ((&raw mut self.memory[at]).expose_provenance() as u64, LEN)
    }

    /// Adds buffers to the ring, as far as it has room for all there ever were.
    pub fn fill(&mut self, count: u16) {
        for _ in 0..count.min(EACH - self.tail) {
            let (addr, len) = self.memory(super::program::RING, self.tail);
            let entry = &mut self.page.0[usize::from(self.tail)];
            entry.set_addr(addr);
            entry.set_len(len);
            entry.set_bid(self.tail);
            self.tail += 1;
        }
        // SAFETY: the first entry of the ring, in which its tail lies.
        let tail = unsafe { BufRingEntry::tail(self.page.0.as_ptr()) }.cast_mut();
        // SAFETY: aligned, and loaded by others as a word of 16 bits.
        let word = unsafe { std::sync::atomic::AtomicU16::from_ptr(tail) };
        // Release: pairs with the Acquire load of whoever picks a buffer.
        word.store(self.tail, Ordering::Release);
    }

    /// What has been read into them.
    pub fn checksum(&self) -> u64 {
        checksum(&self.memory)
    }
}
