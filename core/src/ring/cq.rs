//! The completion queue: the engine's half and the application's.

use super::{RingRef, cell};
use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::sync::Ordering;

/// The engine's half of the completion queue: the only producer of CQEs.
pub(crate) struct CqProducer<'m> {
    ring: RingRef<'m>,
    /// What has been written; published by `commit`.
    tail: u32,
    published: u32,
    /// The last head seen; read anew only when the queue looks full.
    head: u32,
    mask: u32,
}

impl<'m> CqProducer<'m> {
    pub fn new(ring: RingRef<'m>) -> Self {
        Self { ring, tail: 0, published: 0, head: 0, mask: ring.cqes.len() as u32 - 1 }
    }

    /// Writes one entry if there is room.
    #[inline(always)]
    pub fn push(&mut self, cqe: Cqe) -> bool {
        if self.tail.wrapping_sub(self.head) > self.mask && !self.refresh() {
            return false;
        }
        cell(self.ring.cqes, self.tail, self.mask).write(cqe);
        self.tail = self.tail.wrapping_add(1);
        true
    }

    /// Entries that can be written without looking at the application's
    /// head (none once a [`push`](Self::push) has failed, until one succeeds),
    /// and where the next one goes: for a run of [`put`](Self::put)s with the
    /// tail in a local, brought back by [`advance`](Self::advance).
    #[inline(always)]
    pub fn run(&self) -> (u32, u32) {
        (self.mask + 1 - self.tail.wrapping_sub(self.head), self.tail)
    }

    /// Writes one entry of a run.
    #[inline(always)]
    pub fn put(&self, tail: u32, cqe: Cqe) {
        cell(self.ring.cqes, tail, self.mask).write(cqe);
    }

    /// Ends a run.
    #[inline(always)]
    pub fn advance(&mut self, tail: u32) {
        debug_assert!(tail.wrapping_sub(self.head) <= self.mask + 1);
        self.tail = tail;
    }

    /// Looks how far the application has come; true if there is room.
    #[cold]
    pub fn refresh(&mut self) -> bool {
        // Acquire: pairs with CqHalf's Release store of the head; its reads
        // of the entries are over.
        let head =
            self.ring.cq_head.load(fault::order(Fault::CqHeadLoadRelaxed, Ordering::Acquire));
        // A head past the tail, or far behind it, is an application's lie:
        // the queue stays full until the head makes sense again.
        if self.tail.wrapping_sub(head) <= self.mask + 1 {
            self.head = head;
        }
        self.tail.wrapping_sub(self.head) <= self.mask
    }

    /// Makes the entries written so far visible; true if there were any.
    #[inline(always)]
    pub fn commit(&mut self) -> bool {
        if self.published == self.tail {
            return false;
        }
        self.published = self.tail;
        // Release: pairs with CqHalf::refresh; the entries are written before.
        self.ring.cq_tail.store(self.tail, fault::order(Fault::CqTailRelaxed, Ordering::Release));
        true
    }

    /// Entries written that the application has not taken.
    #[inline(always)]
    pub fn unread(&self) -> u32 {
        // Relaxed: only a number is wanted.
        self.tail.wrapping_sub(self.ring.cq_head.load(Ordering::Relaxed)).min(self.mask + 1)
    }

    #[inline(always)]
    pub fn entries(&self) -> u32 {
        self.mask + 1
    }

    /// CQEs written since the ring was made (wraps).
    pub fn total(&self) -> u32 {
        self.tail
    }
}

/// The application's half of the completion queue.
///
/// One per ring; whoever has it `&mut` is the single consumer.
pub struct CqHalf<'m> {
    ring: RingRef<'m>,
    /// What has been taken; published when the queue is closed.
    head: u32,
    published: u32,
    /// The last tail seen.
    tail: u32,
    mask: u32,
    /// Whom to tell that there is room; nobody when the owner of this half
    /// also drives the engine.
    room: Option<&'m dyn MadeRoom>,
}

/// Who wants to know that the application made room in the CQ. Called once a
/// batch of reaped CQEs, never per CQE.
pub(crate) trait MadeRoom: Sync {
    fn made_room(&self);
}

impl<'m> CqHalf<'m> {
    pub(crate) fn new(ring: RingRef<'m>, room: Option<&'m dyn MadeRoom>) -> Self {
        let mask = ring.cqes.len() as u32 - 1;
        Self { ring, head: 0, published: 0, tail: 0, mask, room }
    }

    /// Opens the queue for reading; what was taken is given back on drop.
    #[inline]
    pub fn queue<'a>(&'a mut self) -> CompletionQueue<'a, 'm> {
        self.refresh();
        CompletionQueue { half: self }
    }

    #[inline]
    fn refresh(&mut self) {
        // Acquire: pairs with CqProducer::commit.
        let tail =
            self.ring.cq_tail.load(fault::order(Fault::CqTailLoadRelaxed, Ordering::Acquire));
        // A tail that goes back or runs away (an engine that lies, in shared
        // memory) is not believed: no entry is read that was not written.
        if tail.wrapping_sub(self.head) <= self.mask + 1 {
            self.tail = tail;
        }
    }

    /// Gives back what was taken.
    #[inline]
    fn publish(&mut self) {
        if self.published == self.head {
            return;
        }
        self.published = self.head;
        // Release: pairs with CqProducer::refresh; the copies are made before.
        self.ring.cq_head.store(self.head, fault::order(Fault::CqHeadRelaxed, Ordering::Release));
        if let Some(room) = self.room {
            room.made_room();
        }
    }

    #[inline(always)]
    fn next(&mut self) -> Option<Cqe> {
        if self.tail == self.head {
            return None;
        }
        let cqe = cell(self.ring.cqes, self.head, self.mask).read();
        self.head = self.head.wrapping_add(1);
        Some(cqe)
    }
}

/// The completion queue, open for reading (`cqueue::CompletionQueue` of the
/// `io-uring` crate): an iterator over what has come. Dropping it gives the
/// entries taken back to the engine.
pub struct CompletionQueue<'a, 'm> {
    half: &'a mut CqHalf<'m>,
}

impl CompletionQueue<'_, '_> {
    /// Gives back what was taken and looks for what is new.
    #[inline]
    pub fn sync(&mut self) {
        self.half.publish();
        self.half.refresh();
    }

    /// Entries to read, as last seen.
    #[inline]
    pub fn len(&self) -> usize {
        self.half.tail.wrapping_sub(self.half.head) as usize
    }

    /// Whether there was nothing to read, as last seen.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether every entry was in use, as last seen.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// Number of entries.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.half.ring.cqes.len()
    }

    /// The uapi's counter of lost CQEs: always 0, for no CQE is ever lost.
    pub fn overflow(&self) -> u32 {
        // Relaxed: a statistic.
        self.half.ring.cq_overflow.load(Ordering::Relaxed)
    }
}

impl Iterator for CompletionQueue<'_, '_> {
    type Item = Cqe;

    #[inline(always)]
    fn next(&mut self) -> Option<Cqe> {
        self.half.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl Drop for CompletionQueue<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.half.publish();
    }
}
