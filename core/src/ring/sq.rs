//! The submission queue: the application's half and the engine's.

use super::{RingRef, SqeCell, cell, checked};
use crate::fault::{self, Fault};
use crate::sqe::Sqe;
use crate::sync::{AtomicU32, Ordering};
use crate::uapi::{IORING_SQ_CQ_OVERFLOW, IORING_SQ_NEED_WAKEUP, IORING_SQ_TASKRUN};

/// The queue has no free entry: submit, then push again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the submission queue is full: submit what is in it (or wait, under SQPOLL), then push again"
)]
pub struct PushError;

/// The application's half of the submission queue.
///
/// One per ring; whoever has it `&mut` is the single producer.
pub struct SqHalf<'m> {
    ring: RingRef<'m>,
    /// What has been written; published by [`SubmissionQueue::sync`].
    tail: u32,
    /// The tail of a full queue, by the last head seen; that is read anew
    /// only when this is reached.
    full: u32,
    mask: u32,
}

impl<'m> SqHalf<'m> {
    pub(crate) fn new(ring: RingRef<'m>) -> Self {
        let entries = ring.sqes.len() as u32;
        Self { ring, tail: 0, full: entries, mask: entries - 1 }
    }

    /// Opens the queue for pushing; what was pushed is published on drop.
    #[inline]
    pub fn queue<'a>(&'a mut self) -> SubmissionQueue<'a, 'm> {
        SubmissionQueue { tail: self.tail, full: self.full, half: self }
    }

    /// Entries pushed and not yet taken by the engine: what `submit` asks for.
    #[inline]
    pub fn ready(&self) -> u32 {
        // Relaxed: only a number is wanted, no entry is touched for it.
        self.tail.wrapping_sub(self.ring.sq_head.load(Ordering::Relaxed))
    }

    /// Publishes the entries before `tail`.
    #[inline]
    fn publish(&mut self, tail: u32) {
        self.tail = tail;
        // Release: pairs with the engine's Acquire load of the tail in
        // SqConsumer::ready; the entries (and array) are written before.
        self.ring.sq_tail.store(tail, fault::order(Fault::SqTailRelaxed, Ordering::Release));
    }

    /// Looks how far the engine has come: the tail at which a queue that has
    /// this one is full.
    #[cold]
    fn refresh(&mut self, tail: u32) -> u32 {
        // Acquire: pairs with the engine's Release store of the head in
        // SqConsumer::commit; its reads of the entries are over.
        let head =
            self.ring.sq_head.load(fault::order(Fault::SqHeadLoadRelaxed, Ordering::Acquire));
        let entries = self.mask + 1;
        // An engine that lies about its head (shared memory): the queue is
        // full until the head makes sense again.
        let lies = tail.wrapping_sub(head) > entries;
        self.full = if lies { tail } else { head.wrapping_add(entries) };
        self.full
    }
}

/// The submission queue, open for pushing (`squeue::SubmissionQueue` of the
/// `io-uring` crate). Dropping it publishes what was pushed.
pub struct SubmissionQueue<'a, 'm> {
    half: &'a mut SqHalf<'m>,
    /// The half's, ahead of it by what has not been published yet. Here, so
    /// that a run of pushes has it in a register.
    tail: u32,
    /// The half's.
    full: u32,
}

impl SubmissionQueue<'_, '_> {
    /// Publishes what was pushed, and looks how far the engine has come.
    ///
    /// Publishing is a Release store that the engine's Acquire load of the
    /// tail meets: what was written before it, the engine sees.
    #[inline]
    pub fn sync(&mut self) {
        // Whoever waits for room comes here all the time; the engine's core
        // shall not lose the line for nothing.
        if self.tail != self.half.tail {
            self.half.publish(self.tail);
        }
        self.full = self.half.refresh(self.tail);
    }

    #[inline]
    fn room(&mut self, want: u32) -> bool {
        if self.full.wrapping_sub(self.tail) >= want {
            return true;
        }
        self.full = self.half.refresh(self.tail);
        self.full.wrapping_sub(self.tail) >= want
    }

    /// Appends one entry.
    ///
    /// # Errors
    /// [`PushError`] if the queue is full.
    ///
    /// # Safety
    /// What the entry points to (buffers, `iovec`s) stays valid, and unused
    /// by others where the kernel would write it, until its CQE has come.
    #[inline]
    pub unsafe fn push(&mut self, entry: &Sqe) -> Result<(), PushError> {
        if !self.room(1) {
            return Err(PushError);
        }
        cell(self.half.ring.sqes, self.tail, self.half.mask).write(entry);
        self.tail = self.tail.wrapping_add(1);
        Ok(())
    }

    /// Appends all entries or none.
    ///
    /// # Errors
    /// [`PushError`] if there is no room for all of them.
    ///
    /// # Safety
    /// As for [`push`](Self::push).
    #[inline]
    pub unsafe fn push_multiple(&mut self, entries: &[Sqe]) -> Result<(), PushError> {
        if entries.len() > self.capacity() || !self.room(entries.len() as u32) {
            return Err(PushError);
        }
        for entry in entries {
            // SAFETY: the caller's promise.
            unsafe { self.push(entry)? };
        }
        Ok(())
    }

    /// Sets which SQE the place of the next pushed entry names, for programs
    /// that use the index array themselves. An index outside the queue makes
    /// the engine count the place in [`dropped`](Self::dropped) and pass on.
    /// Without an array (`NO_SQARRAY`) nothing happens.
    ///
    /// The place keeps its index on the next time round. In a full queue it is
    /// still the engine's, and nothing happens.
    ///
    /// # Safety
    /// Whenever the engine comes to the place, now or on a later round, the
    /// entry that it names is one for which the promise of
    /// [`push`](Self::push) holds then, and is not being pushed over: an index
    /// may name an entry that was carried out long ago.
    pub unsafe fn set_next_index(&mut self, index: u32) {
        if !self.room(1) {
            return;
        }
        if let Some(array) = self.half.ring.sq_array {
            // Relaxed: published by the Release store of the tail.
            cell(array, self.tail, self.half.mask).store(index, Ordering::Relaxed);
        }
    }

    /// Entries in the queue that the engine has not taken, as last seen.
    #[inline]
    pub fn len(&self) -> usize {
        self.capacity() - self.full.wrapping_sub(self.tail) as usize
    }

    /// Whether the engine had taken everything, as last seen.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether there is no free entry, as last seen.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    /// Number of entries.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.half.ring.sqes.len()
    }

    /// Places passed over because they named an SQE outside the queue.
    pub fn dropped(&self) -> u32 {
        // Relaxed: a statistic.
        self.half.ring.sq_dropped.load(Ordering::Relaxed)
    }

    /// Whether the polling engine sleeps and wants
    /// [`SQ_WAKEUP`](crate::engine::EnterFlags::SQ_WAKEUP).
    ///
    /// `submit` asks this itself after a full fence; a program that asks by
    /// hand must publish ([`sync`](Self::sync)) and fence first.
    pub fn need_wakeup(&self) -> bool {
        self.flag(IORING_SQ_NEED_WAKEUP)
    }

    /// Whether completions wait for room in the CQ.
    pub fn cq_overflow(&self) -> bool {
        self.flag(IORING_SQ_CQ_OVERFLOW)
    }

    /// Whether the next `enter` has completions to fetch.
    pub fn taskrun(&self) -> bool {
        self.flag(IORING_SQ_TASKRUN)
    }

    fn flag(&self, bit: u32) -> bool {
        // Relaxed: a hint; whoever must not miss a change fences, as
        // `need_wakeup` says.
        self.half.ring.sq_flags.load(Ordering::Relaxed) & bit != 0
    }
}

impl Drop for SubmissionQueue<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        self.half.publish(self.tail);
    }
}

/// The entries of a submission queue by their places.
#[derive(Clone, Copy)]
pub(crate) struct ByPlace<'m> {
    array: Option<&'m [AtomicU32]>,
    sqes: &'m [SqeCell],
    mask: u32,
}

impl<'m> ByPlace<'m> {
    /// Whether there is an index array.
    #[inline(always)]
    pub fn has_array(self) -> bool {
        self.array.is_some()
    }

    /// The places from `position` on that follow each other in memory, `most`
    /// of them at most. For whoever has asked whether there is an
    /// [array](Self::has_array) and says so at compile time.
    #[inline(always)]
    pub fn stretch<const ARRAY: bool>(self, position: u32, most: usize) -> Stretch<'m, ARRAY> {
        let first = (position & self.mask) as usize;
        let places = first..first + most.min(self.mask as usize + 1 - first);
        debug_assert!(places.end <= self.sqes.len());
        let (array, sqes): (&[_], _) = match self.array {
            // SAFETY: the cells of a ring are one more than its mask (see
            // `cell`), and the places end there at the latest.
            Some(array) if ARRAY => (unsafe { array.get_unchecked(places) }, self.sqes),
            // SAFETY: as above.
            _ => (&[], unsafe { self.sqes.get_unchecked(places) }),
        };
        Stretch { array, sqes, mask: self.mask }
    }

    /// See [`SqConsumer::entry`].
    #[inline(always)]
    pub fn at(self, position: u32) -> Option<&'m SqeCell> {
        match self.array {
            None => Some(cell(self.sqes, position, self.mask)),
            // Relaxed: ordered by the tail. Read once, then checked.
            Some(array) => {
                let index = cell(array, position, self.mask).load(Ordering::Relaxed);
                checked(self.sqes, index, self.mask)
            }
        }
    }
}

/// Places of a submission queue that follow each other in memory.
#[derive(Clone, Copy)]
pub(crate) struct Stretch<'m, const ARRAY: bool> {
    /// Those places.
    array: &'m [AtomicU32],
    /// With an array all entries, without one those of the places.
    sqes: &'m [SqeCell],
    mask: u32,
}

impl<'m, const ARRAY: bool> Stretch<'m, ARRAY> {
    /// How many.
    #[inline(always)]
    pub fn len(self) -> usize {
        if ARRAY { self.array.len() } else { self.sqes.len() }
    }

    /// No more than the first `most`.
    #[inline(always)]
    pub fn first(self, most: usize) -> Self {
        let most = most.min(self.len());
        match ARRAY {
            // SAFETY: no more than there are.
            true => Self { array: unsafe { self.array.get_unchecked(..most) }, ..self },
            // SAFETY: as above.
            false => Self { sqes: unsafe { self.sqes.get_unchecked(..most) }, ..self },
        }
    }

    /// The entry that place `at` of these names; none if its index names no
    /// entry, or there is no such place.
    #[inline(always)]
    pub fn entry(self, at: usize) -> Option<&'m SqeCell> {
        match ARRAY {
            // Relaxed: ordered by the tail. Read once, then checked.
            true => checked(self.sqes, self.array.get(at)?.load(Ordering::Relaxed), self.mask),
            false => self.sqes.get(at),
        }
    }
}

/// The engine's half of the submission queue.
pub(crate) struct SqConsumer<'m> {
    ring: RingRef<'m>,
    head: u32,
    mask: u32,
}

impl<'m> SqConsumer<'m> {
    pub fn new(ring: RingRef<'m>) -> Self {
        Self { ring, head: 0, mask: ring.sqes.len() as u32 - 1 }
    }

    /// Entries ready to be taken; never more than the queue holds, whatever
    /// the application wrote into the tail.
    #[inline(always)]
    pub fn ready(&self) -> u32 {
        let most = if fault::on(Fault::TailUnbounded) { u32::MAX } else { self.mask + 1 };
        self.published().min(most)
    }

    /// Whether at least `want` entries, and one, are ready.
    #[inline(always)]
    pub fn has(&self, want: u32) -> bool {
        // One less: 0 becomes more than any queue has.
        let last = want.wrapping_sub(1);
        last <= self.mask && last < self.published()
    }

    /// What the application says it has published.
    #[inline(always)]
    fn published(&self) -> u32 {
        // Acquire: pairs with SqHalf::publish.
        let tail =
            self.ring.sq_tail.load(fault::order(Fault::SqTailLoadRelaxed, Ordering::Acquire));
        tail.wrapping_sub(self.head)
    }

    /// The place at the head of the queue, for a run over entries with the
    /// position in a local ([`seek`](Self::seek) brings it back).
    #[inline(always)]
    pub fn position(&self) -> u32 {
        self.head
    }

    /// Whether that is where the queue's memory begins.
    pub fn at_start(&self) -> bool {
        self.head & self.mask == 0
    }

    /// Moves to a position.
    #[inline(always)]
    pub fn seek(&mut self, position: u32) {
        self.head = position;
    }

    /// The entry that the place at `position` names; none if its index names
    /// no entry. The caller has seen by [`ready`](Self::ready) that the place
    /// was published.
    #[inline(always)]
    pub fn entry(&self, position: u32) -> Option<&'m SqeCell> {
        self.entries_by_place().at(position)
    }

    /// What [`entry`](Self::entry) needs, for a run over entries that keeps
    /// it in registers.
    #[inline(always)]
    pub fn entries_by_place(&self) -> ByPlace<'m> {
        ByPlace { array: self.ring.sq_array, sqes: self.ring.sqes, mask: self.mask }
    }

    /// Counts a place that named no entry.
    #[cold]
    pub fn count_dropped(&self) {
        // Relaxed, and no RMW: the engine is the only writer.
        let dropped = self.ring.sq_dropped.load(Ordering::Relaxed);
        self.ring.sq_dropped.store(dropped.wrapping_add(1), Ordering::Relaxed);
    }

    /// Gives the entries taken so far back to the application.
    #[inline(always)]
    pub fn commit(&mut self) {
        // Release: pairs with SqHalf::refresh; the copies are made before.
        self.ring.sq_head.store(self.head, fault::order(Fault::SqHeadRelaxed, Ordering::Release));
    }

    /// SQEs taken since the ring was made (wraps).
    pub fn total(&self) -> u32 {
        // Relaxed: the engine's own word.
        self.head.wrapping_sub(self.ring.sq_dropped.load(Ordering::Relaxed))
    }
}
