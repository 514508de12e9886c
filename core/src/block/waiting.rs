//! The order of requests that wait.

use super::NONE;

/// What a list of requests is threaded through: a driver's record of each.
pub trait Linked {
    /// Room for the request after this one. A request is in one list at a
    /// time; while it is in none the value is of no interest.
    fn next(&mut self) -> &mut u16;
}

/// Requests that wait, in order: a list of their numbers, threaded through a
/// driver's records of them.
///
/// All calls get the same records, and the numbers are places in these:
/// otherwise they panic, or the list is lost.
#[derive(Debug)]
pub struct Waiting {
    first: u16,
    last: u16,
}

impl Waiting {
    /// Nobody waits.
    pub const fn new() -> Self {
        Self { first: NONE, last: NONE }
    }

    /// Whether nobody waits.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    /// Whoever waits for longest.
    #[inline]
    pub fn first(&self) -> Option<u16> {
        (self.first != NONE).then_some(self.first)
    }

    /// Puts a request after all others.
    pub fn push(&mut self, records: &mut [impl Linked], index: u16) {
        *records[usize::from(index)].next() = NONE;
        match records.get_mut(usize::from(self.last)) {
            Some(last) if self.first != NONE => *last.next() = index,
            _ => self.first = index,
        }
        self.last = index;
    }

    /// Puts a request before all others.
    pub fn push_first(&mut self, records: &mut [impl Linked], index: u16) {
        *records[usize::from(index)].next() = self.first;
        if self.is_empty() {
            self.last = index;
        }
        self.first = index;
    }

    /// Takes a request out, wherever it is; goes through them all. False if it
    /// does not wait.
    pub fn remove(&mut self, records: &mut [impl Linked], index: u16) -> bool {
        let mut before = NONE;
        let mut at = self.first;
        while at != index && at != NONE {
            (before, at) = (at, *records[usize::from(at)].next());
        }
        if at == NONE {
            return false;
        }
        let next = *records[usize::from(at)].next();
        match records.get_mut(usize::from(before)) {
            Some(record) => *record.next() = next,
            None => self.first = next,
        }
        if self.last == at {
            self.last = before;
        }
        true
    }

    /// Takes [the first](Self::first) out.
    pub fn pop(&mut self, records: &mut [impl Linked]) -> Option<u16> {
        let index = self.first()?;
        self.first = *records[usize::from(index)].next();
        Some(index)
    }
}

impl Default for Waiting {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Record(u16);

    impl Linked for Record {
        fn next(&mut self) -> &mut u16 {
            &mut self.0
        }
    }

    #[test]
    fn order_is_kept_and_whoever_had_a_turn_comes_first() {
        let mut records: Vec<_> = (0..4).map(|_| Record(7)).collect();
        let mut waiting = Waiting::new();
        for _ in 0..2 {
            assert!(waiting.is_empty() && waiting.pop(&mut records).is_none());
            waiting.push_first(&mut records, 2);
            waiting.push(&mut records, 0);
            waiting.push(&mut records, 3);
            waiting.push_first(&mut records, 1);
            assert_eq!(waiting.first(), Some(1));
            let order: Vec<_> = core::iter::from_fn(|| waiting.pop(&mut records)).collect();
            assert_eq!(order, [1, 2, 0, 3]);
        }
        // Taken out at the end, in the middle, at the start.
        for (out, left) in [(3, [0, 1, 2]), (1, [0, 2, 3]), (0, [1, 2, 3])] {
            (0..4).for_each(|index| waiting.push(&mut records, index));
            assert!(waiting.remove(&mut records, out) && !waiting.remove(&mut records, out));
            waiting.push(&mut records, out);
            let order: Vec<_> = core::iter::from_fn(|| waiting.pop(&mut records)).collect();
            assert_eq!(order, [&left[..], &[out]].concat());
        }
        waiting.push(&mut records, 1);
        assert!(waiting.remove(&mut records, 1) && waiting.is_empty());
        // A list that has been emptied begins anew.
        waiting.push(&mut records, 3);
        assert_eq!([waiting.pop(&mut records), waiting.pop(&mut records)], [Some(3), None]);
    }
}
