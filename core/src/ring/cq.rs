//! The completion queue: the engine's half and the application's.

use super::{CqeCell, RingRef, cell};
use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::sync::Ordering;

/// The engine's half of the completion queue: the only producer of CQEs.
pub(crate) struct CqProducer<'m> {
    ring: RingRef<'m>,
    /// What has been written; published by `commit`.
    tail: u32,
    /// The tail of a full queue, by the last head seen; that is read anew
    /// only when this is reached.
    full: u32,
    mask: u32,
}

impl<'m> CqProducer<'m> {
    pub fn new(ring: RingRef<'m>) -> Self {
        let entries = ring.cqes.len() as u32;
        Self { ring, tail: 0, full: entries, mask: entries - 1 }
    }

    /// Writes one entry if there is room.
    #[inline(always)]
    pub fn push(&mut self, cqe: Cqe) -> bool {
        if self.tail == self.full && !self.refresh() {
            return false;
        }
        cell(self.ring.cqes, self.tail, self.mask).write(cqe);
        self.tail = self.tail.wrapping_add(1);
        true
    }

    /// Entries that can be written without looking at the application's
    /// head: for a run of [`put`](Run::put)s with the tail in a register,
    /// brought back by [`advance`](Self::advance).
    #[inline(always)]
    pub fn run(&self) -> Run<'m> {
        Run {
            cqes: self.ring.cqes,
            mask: self.mask,
            first: self.tail,
            room: self.full.wrapping_sub(self.tail),
        }
    }

    /// Ends a run.
    #[inline(always)]
    pub fn advance(&mut self, tail: u32) {
        debug_assert!(self.full.wrapping_sub(tail) <= self.mask + 1);
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
        if self.tail.wrapping_sub(head) <= self.mask + 1 || fault::on(Fault::HeadBelieved) {
            self.full = head.wrapping_add(self.mask + 1);
        }
        self.tail != self.full
    }

    /// Whether entries were written that are not visible yet.
    #[inline(always)]
    pub fn uncommitted(&self) -> bool {
        // Relaxed: our own word.
        self.ring.cq_tail.load(Ordering::Relaxed) != self.tail
    }

    /// Makes the entries written so far visible; true if there were any.
    #[inline(always)]
    pub fn commit(&mut self) -> bool {
        if !self.uncommitted() {
            return false;
        }
        self.post();
        true
    }

    /// [`commit`](Self::commit) after something was written.
    #[inline(always)]
    pub fn post(&self) {
        // Release: pairs with CqHalf::refresh; the entries are written before.
        self.ring.cq_tail.store(self.tail, fault::order(Fault::CqTailRelaxed, Ordering::Release));
    }

    /// Entries written that the application has not taken; more than there are
    /// if it lies about its head.
    #[inline(always)]
    pub fn unread(&self) -> u32 {
        // Relaxed: only a number is wanted.
        self.tail.wrapping_sub(self.ring.cq_head.load(Ordering::Relaxed))
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

/// Room for some entries of a completion queue.
#[derive(Clone, Copy)]
pub(crate) struct Run<'m> {
    cqes: &'m [CqeCell],
    mask: u32,
    /// Where the next entry goes.
    pub first: u32,
    /// Entries that can be written.
    pub room: u32,
}

impl Run<'_> {
    /// Writes one entry.
    #[inline(always)]
    pub fn put(self, tail: u32, cqe: Cqe) {
        cell(self.cqes, tail, self.mask).write(cqe);
    }
}

/// The application's half of the completion queue.
///
/// One per ring; whoever has it `&mut` is the single consumer.
pub struct CqHalf<'m> {
    ring: RingRef<'m>,
    /// What has been taken and given back.
    head: u32,
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
        Self { ring, head: 0, mask, room }
    }

    /// Opens the queue for reading; what was taken is given back on drop.
    #[inline]
    pub fn queue<'a>(&'a mut self) -> CompletionQueue<'a, 'm> {
        let head = self.head;
        CompletionQueue { head, tail: self.look(head), half: self }
    }

    /// How far the engine has come, for one who has taken all before `head`.
    #[inline]
    fn look(&self, head: u32) -> u32 {
        // Acquire: pairs with CqProducer::commit.
        let tail =
            self.ring.cq_tail.load(fault::order(Fault::CqTailLoadRelaxed, Ordering::Acquire));
        // A tail that goes back or runs away (an engine that lies, in shared
        // memory) is not believed: no entry is read that was not written.
        if tail.wrapping_sub(head) > self.mask + 1 {
            return self.disbelieve(head);
        }
        tail
    }

    /// A function of its own, so that those who have nothing to disbelieve
    /// go straight on.
    #[cold]
    #[inline(never)]
    fn disbelieve(&self, head: u32) -> u32 {
        head
    }

    /// Gives back what was taken, all before `head`.
    #[inline]
    fn publish(&mut self, head: u32) {
        if self.head == head {
            return;
        }
        self.head = head;
        // Release: pairs with CqProducer::refresh; the copies are made before.
        self.ring.cq_head.store(head, fault::order(Fault::CqHeadRelaxed, Ordering::Release));
        if let Some(room) = self.room {
            room.made_room();
        }
    }
}

/// The completion queue, open for reading (`cqueue::CompletionQueue` of the
/// `io-uring` crate): an iterator over what has come. Dropping it gives the
/// entries taken back to the engine.
pub struct CompletionQueue<'a, 'm> {
    half: &'a mut CqHalf<'m>,
    /// The half's, ahead of it by what has not been given back yet. Here, so
    /// that a run of reads has it in a register.
    head: u32,
    /// The last tail seen.
    tail: u32,
}

impl CompletionQueue<'_, '_> {
    /// Gives back what was taken and looks for what is new.
    #[inline]
    pub fn sync(&mut self) {
        self.half.publish(self.head);
        self.tail = self.half.look(self.head);
    }

    /// Entries to read, as last seen.
    #[inline]
    pub fn len(&self) -> usize {
        self.tail.wrapping_sub(self.head) as usize
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

    /// Whether a registered eventfd is not to be rung
    /// (`IORING_CQ_EVENTFD_DISABLED`), for as long as the application looks
    /// here by itself.
    pub fn disable_eventfd(&self, yes: bool) {
        let bit = crate::uapi::IORING_CQ_EVENTFD_DISABLED;
        // Relaxed: a wish; a signal that is on its way may still come.
        match yes {
            true => self.half.ring.cq_flags.fetch_or(bit, Ordering::Relaxed),
            false => self.half.ring.cq_flags.fetch_and(!bit, Ordering::Relaxed),
        };
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
        if self.tail == self.head {
            return None;
        }
        let cqe = cell(self.half.ring.cqes, self.head, self.half.mask).read();
        self.head = self.head.wrapping_add(1);
        Some(cqe)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.len(), Some(self.len()))
    }
}

impl Drop for CompletionQueue<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.half.publish(self.head);
    }
}
