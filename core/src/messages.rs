//! Messages: CQEs that other rings send (MSG_RING), on their way to the engine, and
//! the news of files that come without one ([`crate::sent`]).
//!
//! ```text
//!   a sender                                 the engine
//!   takes a letter: sets its bit             takes all letters: swaps the head
//!   writes the CQE                           reads each, and posts it
//!   pushes the letter: CAS on the head       gives it back: clears its bit
//!   was it the first? tells the engine, by the return list
//! ```
//!
//! * A letter is the named storage of its CQE from the push until that is in
//!   the CQ: a message that was accepted is never lost, and one that finds no
//!   letter is refused at once.
//! * Letters are taken by a bit each and given back by it, and the list is only
//!   ever taken whole: there is no pop that an ABA could fool.
//! * Only who pushes on an empty list tells the engine. The list is emptied when
//!   the engine has taken that news off the return list, so it is never there
//!   twice.
//! * The end is a value of the head, which no push replaces: a message is either
//!   among those that the end has taken, or refused.

use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::sync::{AtomicU32, Ordering, UnsafeCell};

/// No letter.
const NIL: u32 = 0;
/// The ring has ended.
const CLOSED: u32 = u32::MAX;

/// The storage of one message.
#[derive(Debug)]
pub(crate) struct Letter {
    /// The letter below on the list, plus one.
    next: AtomicU32,
    /// None: what came has no CQE.
    cqe: UnsafeCell<Option<Cqe>>,
}

// SAFETY: `cqe` is written by whoever has set the letter's bit, before the push
// that hands it to the engine, which clears the bit when it has read it.
unsafe impl Sync for Letter {}

impl Letter {
    pub fn new() -> Self {
        Self { next: AtomicU32::new(NIL), cqe: UnsafeCell::new(None) }
    }
}

/// Words of bits for so many letters.
pub(crate) const fn words(letters: u32) -> u32 {
    letters.div_ceil(u32::BITS)
}

/// The lane of messages to one ring.
pub(crate) struct Messages<'m> {
    letters: &'m [Letter],
    /// A bit each: it is in use. Those that there are no letters for are set.
    used: &'m [AtomicU32],
    /// The newest letter, plus one.
    head: AtomicU32,
}

/// Letters taken off the lane, oldest first.
#[derive(Debug)]
pub(crate) struct Taken {
    first: u32,
}

impl<'m> Messages<'m> {
    /// The lane of these letters, with as many [`words`] of bits, all clear.
    pub fn new(letters: &'m [Letter], used: &'m [AtomicU32]) -> Self {
        let count = letters.len() as u32;
        debug_assert_eq!(used.len() as u32, words(count));
        if let (Some(last), rest @ 1..) = (used.last(), count % u32::BITS) {
            // Relaxed: nobody else has it yet.
            last.store(u32::MAX << rest, Ordering::Relaxed);
        }
        Self { letters, used, head: AtomicU32::new(NIL) }
    }

    // -- senders ----------------------------------------------------------

    /// Puts a message on the lane, or the news of something without one. True if
    /// the lane was empty, and the engine has to be told.
    ///
    /// # Errors
    /// `EOVERFLOW` if every letter is in use, `EBADFD` if the ring has ended.
    pub fn send(&self, cqe: Option<Cqe>) -> Result<bool, Errno> {
        let index = self.take_letter().ok_or(Errno::EOVERFLOW)?;
        let letter = &self.letters[index as usize];
        // SAFETY: the letter is ours until it is pushed.
        letter.cqe.with_mut(|cell| unsafe { *cell = cqe });
        // Relaxed: the value is only compared and passed on.
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            if head == CLOSED {
                self.give_back(index);
                return Err(Errno::EBADFD);
            }
            // Relaxed: published by the CAS.
            letter.next.store(head, Ordering::Relaxed);
            // Release: pairs with the Acquire swap in `take`. Acquire: pairs
            // with the Release there, for who tells the engine next: the news
            // before has been read off the return list.
            let order = fault::order(Fault::MessagePushRelaxed, Ordering::AcqRel);
            match self.head.compare_exchange_weak(head, index + 1, order, Ordering::Relaxed) {
                Ok(_) => return Ok(head == NIL),
                Err(now) => head = now,
            }
        }
    }

    fn take_letter(&self) -> Option<u32> {
        for (at, word) in self.used.iter().enumerate() {
            // Relaxed: only a hint where to try.
            let mut bits = word.load(Ordering::Relaxed);
            while bits != u32::MAX {
                let free = bits.trailing_ones();
                // Acquire: pairs with the Release in `give_back`: what was in
                // the letter before has been read.
                let order = fault::order(Fault::LetterTakenRelaxed, Ordering::Acquire);
                bits = word.fetch_or(1 << free, order);
                if bits & 1 << free == 0 {
                    return Some(at as u32 * u32::BITS + free);
                }
            }
        }
        None
    }

    // -- the engine -------------------------------------------------------

    /// Whether the ring has ended.
    pub fn ended(&self) -> bool {
        // Relaxed: no data goes with it.
        self.head.load(Ordering::Relaxed) == CLOSED
    }

    /// Whether there are any.
    pub fn any(&self) -> bool {
        // Relaxed: a hint.
        !matches!(self.head.load(Ordering::Relaxed), NIL | CLOSED)
    }

    /// Takes all that have come.
    pub fn take(&self) -> Taken {
        // Relaxed: the engine's own write.
        if self.head.load(Ordering::Relaxed) == CLOSED {
            return Taken { first: NIL };
        }
        self.empty(NIL)
    }

    /// Ends the lane, and takes what had come before.
    pub fn close(&self) -> Taken {
        if fault::on(Fault::MessagesForgottenAtEnd) {
            let left = self.empty(CLOSED);
            return Taken { first: left.first & NIL };
        }
        self.empty(CLOSED)
    }

    fn empty(&self, value: u32) -> Taken {
        // Acquire and Release: pair with the CAS in `send`, see there.
        let order = fault::order(Fault::MessageTakeRelaxed, Ordering::AcqRel);
        let mut top = self.head.swap(value, order);
        // Newest first, so turned round. Relaxed: a taken list is the engine's
        // own.
        let mut first = NIL;
        while top != NIL {
            let letter = &self.letters[top as usize - 1];
            let below = letter.next.load(Ordering::Relaxed);
            letter.next.store(first, Ordering::Relaxed);
            (first, top) = (top, below);
        }
        Taken { first }
    }

    /// The next letter of a taken list.
    pub fn next(&self, list: &mut Taken) -> Option<u32> {
        let index = list.first.checked_sub(1)?;
        // Relaxed: as above. Read before the letter is given back.
        list.first = self.letters[index as usize].next.load(Ordering::Relaxed);
        Some(index)
    }

    /// What a letter that has been taken off the lane says.
    pub fn read(&self, index: u32) -> Option<Cqe> {
        // SAFETY: the engine's until it is given back.
        self.letters[index as usize].cqe.with(|cell| unsafe { *cell })
    }

    /// Lets senders have a letter again.
    pub fn give_back(&self, index: u32) {
        let bit = 1 << (index % u32::BITS);
        // Release: pairs with the Acquire in `take_letter`.
        let order = fault::order(Fault::LetterGivenBackRelaxed, Ordering::Release);
        self.used[(index / u32::BITS) as usize].fetch_and(!bit, order);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    fn one(n: u64) -> Option<Cqe> {
        Some(Cqe { user_data: n, res: -1, flags: 7 })
    }

    fn seen(lane: &Messages<'_>, mut list: Taken) -> Vec<u64> {
        core::iter::from_fn(|| {
            let index = lane.next(&mut list)?;
            let cqe = lane.read(index)?;
            lane.give_back(index);
            assert_eq!((cqe.res, cqe.flags), (-1, 7));
            Some(cqe.user_data)
        })
        .collect()
    }

    #[test]
    fn there_are_as_many_letters_as_were_asked_for() {
        for count in [0, 1, 31, 32, 33, 70] {
            let letters: Vec<_> = (0..count).map(|_| Letter::new()).collect();
            let used: Vec<_> = (0..words(count)).map(|_| AtomicU32::new(0)).collect();
            let lane = Messages::new(&letters, &used);
            for round in 0..3 {
                for n in 0..count {
                    assert_eq!(lane.send(one(n.into())), Ok(n == 0), "{round}");
                }
                assert_eq!(lane.send(one(9)), Err(Errno::EOVERFLOW));
                assert_eq!(lane.any(), count != 0);
                let all: Vec<u64> = (0..count.into()).collect();
                assert_eq!(seen(&lane, lane.take()), all, "in order");
            }
        }
    }

    #[test]
    fn after_the_end_nothing_is_accepted() {
        let (letters, used) = ([(); 2].map(|()| Letter::new()), [AtomicU32::new(0)]);
        let lane = Messages::new(&letters, &used);
        assert_eq!(lane.send(one(1)), Ok(true));
        assert_eq!(seen(&lane, lane.close()), [1]);
        for _ in 0..3 {
            // A letter that was taken in vain is given back.
            assert_eq!(lane.send(one(2)), Err(Errno::EBADFD));
        }
        assert!(!lane.any() && seen(&lane, lane.take()).is_empty());
        assert_eq!(lane.send(one(2)), Err(Errno::EBADFD));
    }
}
