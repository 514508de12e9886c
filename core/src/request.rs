//! The request pool: a fixed number of records, and one in reserve.

use crate::fault::{self, Fault};
use crate::files::NONE;

/// The submission's reference: the engine is still starting the request.
pub(crate) const SUBMISSION: u8 = 1;
/// The completion's reference: the result has not come, or not been posted.
pub(crate) const COMPLETION: u8 = 2;

/// What the engine keeps of a request between its SQE and its CQE.
/// Engine-private plain memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub user_data: u64,
    pub res: i32,
    pub cflags: u32,
    /// The next record of whatever list this one is on.
    pub next: u32,
    /// Node of the registered file, or [`NONE`].
    pub file: u32,
    /// Node of the registered buffer, or [`NONE`].
    pub buffer: u32,
    pub opcode: u8,
    /// [`SUBMISSION`] | [`COMPLETION`]; the record is free when both are gone.
    /// Plain bits: the engine alone holds them; what the completion's holder
    /// outside has is the slot's LIVE bit.
    pub refs: u8,
    /// `res` is the result, but a notice that crossed the request's end has
    /// still to come home.
    pub ended: bool,
}

impl Record {
    pub const fn empty() -> Self {
        Self {
            user_data: 0,
            res: 0,
            cflags: 0,
            next: NONE,
            file: NONE,
            buffer: NONE,
            opcode: 0,
            refs: 0,
            ended: false,
        }
    }
}

/// Records and the stack of the free ones.
///
/// The reserved record has the index just past the pool. Whether it is busy
/// is kept here and not in the record (the fault of seed 000).
pub(crate) struct Pool<'m> {
    pub records: &'m mut [Record],
    free: &'m mut [u32],
    top: u32,
    fallback_busy: bool,
}

impl<'m> Pool<'m> {
    pub fn new(records: &'m mut [Record], free: &'m mut [u32]) -> Self {
        debug_assert_eq!(records.len(), free.len() + 1);
        records.fill(Record::empty());
        let top = free.len() as u32;
        for (i, index) in free.iter_mut().enumerate() {
            // Low indices first.
            *index = top - 1 - i as u32;
        }
        Self { records, free, top, fallback_busy: false }
    }

    /// Whether a batch of `want` can be had whole.
    #[inline(always)]
    pub fn has(&self, want: u32) -> bool {
        self.top >= want
    }

    /// Takes a record.
    #[inline(always)]
    pub fn take(&mut self) -> Option<u32> {
        let top = self.top.checked_sub(1)?;
        let index = *self.free.get(top as usize)?;
        self.top = top;
        Some(index)
    }

    /// Whether [`take`](Self::take) would give a record: enough to know for a
    /// request that ends at once and would put it back where it was.
    #[inline(always)]
    pub fn any(&self) -> bool {
        self.top != 0
    }

    /// Takes the reserved record.
    #[cold]
    pub fn take_fallback(&mut self) -> Option<u32> {
        if self.fallback_busy {
            return None;
        }
        self.fallback_busy = true;
        Some(self.fallback())
    }

    /// The reserved record's index.
    pub fn fallback(&self) -> u32 {
        self.free.len() as u32
    }

    /// Gives a record back.
    #[inline(always)]
    pub fn put(&mut self, index: u32) {
        match self.free.get_mut(self.top as usize) {
            Some(place) if index != self.records.len() as u32 - 1 => {
                *place = index;
                self.top += 1;
            }
            _ => self.put_fallback(),
        }
    }

    #[cold]
    fn put_fallback(&mut self) {
        self.fallback_busy = fault::on(Fault::FallbackLeaked);
    }

    /// Records in use, the reserved one included.
    pub fn used(&self) -> u32 {
        self.free.len() as u32 - self.top + u32::from(self.fallback_busy)
    }

    pub fn fallback_busy(&self) -> bool {
        self.fallback_busy
    }

    pub fn capacity(&self) -> u32 {
        self.free.len() as u32
    }
}

/// A first-in, first-out list of records, threaded through `next`.
#[derive(Debug)]
pub(crate) struct Fifo {
    head: u32,
    tail: u32,
    len: u32,
}

impl Fifo {
    pub const fn new() -> Self {
        Self { head: NONE, tail: NONE, len: 0 }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head == NONE
    }

    pub fn len(&self) -> u32 {
        self.len
    }

    pub fn push(&mut self, records: &mut [Record], index: u32) {
        records[index as usize].next = NONE;
        match records.get_mut(self.tail as usize) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.len += 1;
    }

    pub fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    pub fn pop(&mut self, records: &[Record]) -> Option<u32> {
        let index = self.first()?;
        self.head = records[index as usize].next;
        if self.head == NONE {
            self.tail = NONE;
        }
        self.len -= 1;
        Some(index)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_apart_from_the_pool() {
        let mut records = [Record::empty(); 3];
        let mut free = [0; 2];
        let mut pool = Pool::new(&mut records, &mut free);
        assert!(pool.has(2) && !pool.has(3));
        assert_eq!((pool.take(), pool.take(), pool.take()), (Some(0), Some(1), None));
        assert_eq!(pool.take_fallback(), Some(2));
        assert_eq!(pool.take_fallback(), None);
        assert_eq!(pool.used(), 3);
        pool.put(2);
        assert_eq!(pool.take(), None, "the reserve does not join the pool");
        assert_eq!(pool.take_fallback(), Some(2));
        pool.put(1);
        assert_eq!(pool.take(), Some(1));
    }

    #[test]
    fn fifo_keeps_order() {
        let mut records = [Record::empty(); 4];
        let mut fifo = Fifo::new();
        for i in [2, 0, 3] {
            fifo.push(&mut records, i);
        }
        assert_eq!(fifo.len(), 3);
        assert_eq!(fifo.pop(&records), Some(2));
        fifo.push(&mut records, 2);
        assert_eq!(core::array::from_fn(|_| fifo.pop(&records)), [Some(0), Some(3), Some(2), None]);
        assert!(fifo.is_empty());
    }
}
