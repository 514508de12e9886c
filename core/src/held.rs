//! What the engine keeps of a request that does not start when its SQE is
//! taken, that others wait for, or that ends by time.
//!
//! A record of its own for each slot, touched only by such requests: links,
//! drained ones, timeouts. Engine-private plain memory.

use crate::files::NONE;
use crate::hal::OtherClock;
use crate::provided::Picked;
use crate::sqe::Sqe;

/// What is to be done with a held request when its turn comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Start it.
    Start,
    /// End it and its chain without a start.
    Fail,
    /// It has ended; its outcome says how.
    End,
}

bitflags::bitflags! {
    /// What is special about a held request.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Marks: u16 {
        /// The next of its chain starts whatever its result.
        const HARD = 1;
        /// No CQE if it succeeds.
        const SKIP = 1 << 1;
        /// It failed, and had SKIP: the rest of its chain ends without CQEs.
        const SKIP_LINKS = 1 << 2;
        /// It starts when everything before it has ended.
        const DRAIN = 1 << 3;
        /// It was refused when it was taken, or another of its chain was.
        const FAILED = 1 << 4;
        /// The backend has prepared it, and may have a copy of its array of
        /// `iovec`s.
        const KEPT = 1 << 5;
        /// `-ETIME` is no failure of it.
        const TIME_IS_SUCCESS = 1 << 6;
        /// It fires again and again.
        const MULTISHOT = 1 << 7;
        /// Its time is a point in time.
        const ABSOLUTE = 1 << 8;
        /// It guards the request before it in its chain.
        const GUARD = 1 << 9;
        /// Its result is nobody's failure.
        const ALWAYS_SUCCESS = 1 << 10;
        /// It was a READV of one buffer, and is carried out as a READ.
        const WAS_READV = 1 << 11;
        /// It has picked a buffer of a ring, and how much of it it uses has still
        /// to be told.
        const UNSPENT = 1 << 12;
        /// There is more of that buffer.
        const BUF_MORE = 1 << 13;
    }
}

/// By what a [`Heap`] is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Order {
    /// The time at which a timeout ends, on the host's clock.
    Time = 0,
    /// The number of CQEs at which it does.
    Count = 1,
}

/// The record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub sqe: Sqe,
    pub keys: [u64; 2],
    /// Nanoseconds of a timeout.
    pub span: u64,
    /// When it ends by another clock than the heap's.
    pub other: Option<(OtherClock, u64)>,
    /// The result that is success, of a request that moves bytes.
    pub whole: Option<u32>,
    pub marks: Marks,
    pub step: Step,
    /// The next of its chain.
    pub link: u32,
    /// Where it is in each heap.
    pub places: [u32; 2],
    /// Breaks ties: which of two was armed first.
    pub stamp: u32,
    /// How often a multishot timeout fires still; 0: for ever.
    pub repeats: u32,
    /// Which wait for readiness it is, counted over all; 0: none. Also of
    /// requests that are not held.
    pub waits: u32,
    /// Whom a link timeout guards, once it is armed.
    pub guarded: u32,
    /// The most bytes of a read that picks its buffer; 0: the buffer's.
    pub wanted: u32,
    /// The buffer that it has picked.
    pub picked: Option<Picked>,
}

impl Held {
    pub const fn empty() -> Self {
        Self::new(Sqe::ZERO)
    }

    pub const fn new(sqe: Sqe) -> Self {
        Self {
            sqe,
            keys: [0; 2],
            span: 0,
            other: None,
            whole: None,
            marks: Marks::empty(),
            step: Step::Start,
            link: NONE,
            places: [NONE; 2],
            stamp: 0,
            repeats: 0,
            waits: 0,
            guarded: NONE,
            wanted: 0,
            picked: None,
        }
    }

    /// It fails, for itself or with its chain: what becomes of its CQE and of
    /// those after it.
    pub fn fail(&mut self) {
        self.marks.insert(Marks::FAILED);
        if self.marks.contains(Marks::SKIP) {
            self.marks.remove(Marks::SKIP);
            self.marks.insert(Marks::SKIP_LINKS);
        }
    }
}

/// Timeouts, the first to end on top: a binary heap of indices.
#[derive(Debug)]
pub(crate) struct Heap<'m> {
    order: Order,
    indices: &'m mut [u32],
    len: usize,
}

impl<'m> Heap<'m> {
    pub fn new(order: Order, indices: &'m mut [u32]) -> Self {
        Self { order, indices, len: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is in it, in no order.
    pub fn indices(&self) -> &[u32] {
        &self.indices[..self.len]
    }

    /// The first to end, and its key.
    pub fn first(&self, held: &[Held]) -> Option<(u32, u64)> {
        let &index = self.indices().first()?;
        Some((index, held[index as usize].keys[self.order as usize]))
    }

    pub fn push(&mut self, held: &mut [Held], index: u32, key: u64) {
        held[index as usize].keys[self.order as usize] = key;
        let at = self.len;
        self.len += 1;
        self.put(held, at, index);
        self.up(held, at);
    }

    /// Takes it out, if it is in.
    pub fn remove(&mut self, held: &mut [Held], index: u32) {
        let at = core::mem::replace(&mut held[index as usize].places[self.order as usize], NONE);
        if at == NONE {
            return;
        }
        self.len -= 1;
        let (at, last) = (at as usize, self.indices[self.len]);
        if at < self.len {
            self.put(held, at, last);
            self.up(held, at);
            let at = held[last as usize].places[self.order as usize] as usize;
            self.down(held, at);
        }
    }

    fn put(&mut self, held: &mut [Held], at: usize, index: u32) {
        self.indices[at] = index;
        held[index as usize].places[self.order as usize] = at as u32;
    }

    fn before(&self, held: &[Held], a: usize, b: usize) -> bool {
        let key = |at: usize| {
            let held = &held[self.indices[at] as usize];
            (held.keys[self.order as usize], held.stamp)
        };
        key(a) < key(b)
    }

    fn swap(&mut self, held: &mut [Held], a: usize, b: usize) {
        let (at_a, at_b) = (self.indices[a], self.indices[b]);
        self.put(held, a, at_b);
        self.put(held, b, at_a);
    }

    fn up(&mut self, held: &mut [Held], mut at: usize) {
        while at != 0 && self.before(held, at, (at - 1) / 2) {
            self.swap(held, at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    fn down(&mut self, held: &mut [Held], mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.len && self.before(held, child, least) {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.swap(held, at, least);
            at = least;
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn the_first_is_on_top_whatever_comes_and_goes() {
        let mut held = [Held::empty(); 64];
        let mut places = [0; 64];
        let mut heap = Heap::new(Order::Time, &mut places);
        let mut model: Vec<(u64, u32)> = Vec::new();
        let mut random = 12345u32;
        // Under Miri a round takes its time.
        for _ in 0..if cfg!(miri) { 200 } else { 5000 } {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (index, key) = (random >> 26, u64::from(random >> 8 & 0x1f));
            match model.iter().position(|&(_, other)| other == index) {
                Some(at) => {
                    heap.remove(&mut held, index);
                    model.remove(at);
                }
                None => {
                    held[index as usize].stamp = index;
                    heap.push(&mut held, index, key);
                    model.push((key, index));
                }
            }
            let first = model.iter().min().map(|&(key, index)| (index, key));
            assert_eq!(heap.first(&held), first);
            assert_eq!(heap.indices().len(), model.len());
        }
        heap.remove(&mut held, model.iter().min().unwrap().1);
        assert_eq!(heap.indices().len(), model.len() - 1);
    }

    #[test]
    fn removing_what_is_not_in_does_nothing() {
        let mut held = [Held::empty(); 2];
        let mut places = [0; 2];
        let mut heap = Heap::new(Order::Count, &mut places);
        heap.push(&mut held, 1, 5);
        heap.remove(&mut held, 0);
        assert_eq!(heap.first(&held), Some((1, 5)));
    }

    #[test]
    fn a_failure_speaks_once() {
        let mut held = Held::empty();
        held.marks = Marks::SKIP | Marks::HARD;
        held.fail();
        assert_eq!(held.marks, Marks::HARD | Marks::FAILED | Marks::SKIP_LINKS);
    }
}
