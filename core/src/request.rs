//! The request pool: a fixed number of records, and one in reserve.

use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::slot::Slots;
use core::cell::Cell;

/// What the engine keeps of a request between its SQE and its CQE: the part
/// that every request needs. Engine-private plain memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    pub user_data: u64,
    pub what: What,
}

/// The part that only a request needs whose result cannot be posted at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub res: i32,
    pub cflags: u32,
    /// The next record of whatever list this one is on.
    pub next: u32,
}

/// Which table of registered resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Files,
    Buffers,
}

/// A request's opcode, what it uses of each table of registered resources, and
/// marks: one word, so that one store writes it, and whoever ends a request
/// sees at one look whether there is anything out of the ordinary.
///
/// Bits 0..8 are the opcode, 8..16 the marks, 16..40 the file and 40..64 the
/// buffer: a place of the table, [`NONE`], or, once the mark
/// [`detached`](Self::detached) is set, an entry ([`crate::files`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What(u64);

/// It has the reserved record.
pub(crate) const RESERVED: u8 = 1;
/// Its outcome is known, but a notice that crossed its end has still to come
/// home.
pub(crate) const ENDED: u8 = 1 << 1;
/// It has been cancelled, and comes home with `-ECANCELED`. Others find it until
/// then.
pub(crate) const CANCELLED: u8 = 1 << 5;
/// It is held ([`crate::held`]): its end is more than a CQE.
pub(crate) const HELD: u8 = 1 << 6;
/// A wait that has been taken out by a POLL_REMOVE: nobody finds it any more,
/// and it comes home with `-ECANCELED`.
pub(crate) const REMOVED: u8 = 1 << 7;
const FILE_DETACHED: u8 = 1 << 2;
const BUFFER_DETACHED: u8 = 1 << 3;
/// It opens a file into the table of files, at the place that its outcome's
/// `cflags` keep until then.
pub(crate) const DIRECT: u8 = 1 << 4;

const MARKS: u32 = 8;
const FILE: u32 = 16;
const BUFFER: u32 = 40;
const PLACE: u64 = NONE as u64;
const _: () = assert!(NONE.count_ones() == BUFFER - FILE && BUFFER + NONE.count_ones() == 64);

impl What {
    #[inline(always)]
    pub const fn new(opcode: u8, file: u32, buffer: u32) -> Self {
        let (file, buffer) = (file as u64 & PLACE, buffer as u64 & PLACE);
        Self(opcode as u64 | file << FILE | buffer << BUFFER)
    }

    pub fn opcode(self) -> u8 {
        self.0 as u8
    }

    /// Whether it has no mark.
    #[inline(always)]
    pub fn ordinary(self) -> bool {
        self.0 & 0xff << MARKS == 0
    }

    pub fn has(self, mark: u8) -> bool {
        self.0 & u64::from(mark) << MARKS != 0
    }

    pub fn set(&mut self, mark: u8) {
        self.0 |= u64::from(mark) << MARKS;
    }

    pub fn clear(&mut self, mark: u8) {
        self.0 &= !(u64::from(mark) << MARKS);
    }

    /// What it uses of a table.
    pub fn uses(self, table: Table) -> u32 {
        (self.0 >> table.shift() & PLACE) as u32
    }

    /// Whether that is an entry, its resource having lost its place.
    pub fn detached(self, table: Table) -> bool {
        self.has(table.mark())
    }

    /// Its resource has lost its place to `entry`.
    pub fn detach(&mut self, table: Table, entry: u32) {
        self.set(table.mark());
        self.0 &= !(PLACE << table.shift());
        self.0 |= u64::from(entry) << table.shift();
    }
}

impl Table {
    fn shift(self) -> u32 {
        match self {
            Table::Files => FILE,
            Table::Buffers => BUFFER,
        }
    }

    fn mark(self) -> u8 {
        match self {
            Table::Files => FILE_DETACHED,
            Table::Buffers => BUFFER_DETACHED,
        }
    }
}

impl Record {
    pub const fn empty() -> Self {
        Self { user_data: 0, what: What::new(0, NONE, NONE) }
    }
}

impl Outcome {
    pub const fn empty() -> Self {
        Self { res: 0, cflags: 0, next: NONE }
    }
}

/// Records and the stack of the free ones.
///
/// The reserved record has the index just past the pool. Whether it is busy
/// is kept here and not in the record (the fault of seed 000).
pub(crate) struct Pool<'m> {
    pub records: &'m mut [Record],
    pub outcomes: &'m mut [Outcome],
    free: &'m mut [u32],
    top: u32,
    fallback_busy: bool,
}

impl<'m> Pool<'m> {
    pub fn new(
        records: &'m mut [Record],
        outcomes: &'m mut [Outcome],
        free: &'m mut [u32],
    ) -> Self {
        // Behind the outcomes of requests are others'.
        debug_assert!(records.len() == free.len() + 1 && outcomes.len() >= records.len());
        let top = free.len() as u32;
        for (i, index) in free.iter_mut().enumerate() {
            // Low indices first.
            *index = top - 1 - i as u32;
        }
        Self { records, outcomes, free, top, fallback_busy: false }
    }

    /// Whether a batch of `want` can be had whole.
    #[inline(always)]
    pub fn has(&self, want: u32) -> bool {
        self.top >= want
    }

    /// Takes a record.
    #[inline(always)]
    pub fn take(&mut self) -> Option<u32> {
        // One less than 0 is no place either.
        let top = self.top.wrapping_sub(1);
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

    /// Its parts, for a run over requests with the stack's top in a local
    /// ([`set_top`](Self::set_top) brings it back).
    #[inline(always)]
    pub fn run(&mut self) -> Run<'_> {
        let (stack, places) = self.free.split_at_mut(self.top as usize);
        Run {
            records: self.records,
            outcomes: self.outcomes,
            stack: Cell::from_mut(stack).as_slice_of_cells(),
            places,
        }
    }

    /// Ends a run.
    #[inline(always)]
    pub fn set_top(&mut self, top: usize) {
        debug_assert!(top <= self.free.len());
        self.top = top as u32;
    }

    /// Ends a run over the `most` indices on top of the stack, upwards, that
    /// took `taken` of them and put `back` of these where the first had been.
    #[inline(always)]
    pub fn take_run(&mut self, most: usize, taken: usize, back: usize) {
        let full = self.top as usize;
        self.top -= (taken - back) as u32;
        if most != taken && taken != back {
            self.close_gap(full - most + back, full - most + taken, full);
        }
    }

    /// Moves the indices from `first` to `end` to `to`.
    #[cold]
    fn close_gap(&mut self, to: usize, first: usize, end: usize) {
        self.free.copy_within(first..end, to);
    }

    /// The requests in flight, `pending` of them.
    pub fn in_flight<'a>(
        &'a mut self,
        slots: &'a Slots<'_>,
        pending: u32,
    ) -> impl Iterator<Item = &'a mut What> {
        let records = self.records.iter_mut().enumerate();
        let live = records.filter(|(index, _)| slots.peek(*index).0);
        live.map(|(_, record)| &mut record.what).take(pending as usize)
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

/// The parts of a [`Pool`].
pub(crate) struct Run<'a> {
    pub records: &'a mut [Record],
    pub outcomes: &'a mut [Outcome],
    /// The indices of free records, the next one last. What is above the last
    /// one taken may be written.
    pub stack: &'a [Cell<u32>],
    /// Room on the stack.
    pub places: &'a mut [u32],
}

/// A first-in, first-out list of records, threaded through their outcomes.
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

    pub fn push(&mut self, outcomes: &mut [Outcome], index: u32) {
        outcomes[index as usize].next = NONE;
        match outcomes.get_mut(self.tail as usize) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
        self.len += 1;
    }

    /// Puts a record before all others.
    pub fn push_first(&mut self, outcomes: &mut [Outcome], index: u32) {
        outcomes[index as usize].next = self.head;
        if self.head == NONE {
            self.tail = index;
        }
        self.head = index;
        self.len += 1;
    }

    pub fn first(&self) -> Option<u32> {
        (self.head != NONE).then_some(self.head)
    }

    /// All of them, in order.
    pub fn iter(&self, outcomes: &[Outcome]) -> impl Iterator<Item = u32> {
        let next = |&index: &u32| Some(outcomes[index as usize].next).filter(|&next| next != NONE);
        core::iter::successors(self.first(), next)
    }

    pub fn pop(&mut self, outcomes: &[Outcome]) -> Option<u32> {
        let index = self.first()?;
        self.head = outcomes[index as usize].next;
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
        let (mut records, mut outcomes) = ([Record::empty(); 3], [Outcome::empty(); 3]);
        let mut free = [0; 2];
        let mut pool = Pool::new(&mut records, &mut outcomes, &mut free);
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
    fn one_word_says_what_a_request_is() {
        let mut what = What::new(5, 0xf_ffff, 0x3fff);
        assert!(what.ordinary() && !what.has(RESERVED));
        assert_eq!((what.opcode(), what.uses(Table::Files)), (5, 0xf_ffff));
        assert_eq!(what.uses(Table::Buffers), 0x3fff);
        what.set(ENDED);
        what.detach(Table::Files, 7);
        assert!(!what.ordinary() && what.has(ENDED));
        assert_eq!((what.detached(Table::Files), what.detached(Table::Buffers)), (true, false));
        assert_eq!((what.uses(Table::Files), what.uses(Table::Buffers)), (7, 0x3fff));
        what.clear(ENDED);
        what.detach(Table::Buffers, 0x8000);
        assert_eq!((what.uses(Table::Files), what.uses(Table::Buffers)), (7, 0x8000));
        assert_eq!((what.opcode(), what.has(ENDED)), (5, false));
        assert_eq!(What::new(1, NONE, NONE).uses(Table::Files), NONE);
    }

    #[test]
    fn fifo_keeps_order() {
        let mut outcomes = [Outcome::empty(); 4];
        let mut fifo = Fifo::new();
        for i in [2, 0, 3] {
            fifo.push(&mut outcomes, i);
        }
        assert_eq!(fifo.len(), 3);
        assert_eq!(fifo.pop(&outcomes), Some(2));
        fifo.push(&mut outcomes, 2);
        assert_eq!(
            core::array::from_fn(|_| fifo.pop(&outcomes)),
            [Some(0), Some(3), Some(2), None]
        );
        assert!(fifo.is_empty());
        fifo.push_first(&mut outcomes, 1);
        fifo.push_first(&mut outcomes, 0);
        fifo.push(&mut outcomes, 2);
        assert_eq!(
            core::array::from_fn(|_| fifo.pop(&outcomes)),
            [Some(0), Some(1), Some(2), None]
        );
    }
}
