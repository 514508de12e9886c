//! Files that other rings send (MSG_RING), on their way into the engine's table
//! of registered files.
//!
//! A sender is told at once which place its file has. So who has which place is
//! told by a record that engine and senders share, behind a lock. It is taken by
//! what changes the table, or takes files into it, and held for a look at a few
//! places, at most at all of them, and for a push on the lane of messages.
//! Starting a request on a registered file has nothing to do with it.
//!
//! * The engine marks its own changes in the record before it makes them.
//! * A sender leaves the *number* of its file in the record; the engine makes a
//!   registered file of it before it looks for one there. It is told of it as of
//!   any message, and sees it in any case if it sees what came of the sender's
//!   answer: [`any`](SentFiles::any) is set before.
//! * A number is somebody's to close as long as it is in the record: whoever
//!   takes it out.

use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::sync::{AtomicU32, Mutex, Ordering};
use crate::uapi::IORING_FILE_INDEX_ALLOC;

/// The place has nothing.
const EMPTY: i32 = -1;
/// The place has a file of the engine's table.
const TAKEN: i32 = -2;

/// Who has which place.
struct Places<'m> {
    /// [`EMPTY`], [`TAKEN`], or the number of a file that has come.
    all: &'m mut [i32],
    /// Places registered.
    len: u32,
    /// Where the search for an empty place begins, as in Linux: after the
    /// place filled last, or at the one emptied last.
    hint: u32,
    /// No file has come to a place before this one.
    first: u32,
}

/// The record.
pub(crate) struct SentFiles<'m> {
    places: Mutex<Places<'m>>,
    /// 1: files may have come that the engine has not taken.
    any: AtomicU32,
    /// Whether the engine's backend can do anything with them.
    accepts: bool,
}

/// Where a file that was sent has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    /// As for an OPENAT: the place if it was chosen here, or 0.
    pub result: i32,
    /// The number of a file that had come there before and is nobody's now.
    pub left: Option<i32>,
    /// The engine has to be told.
    pub first: bool,
}

impl Places<'_> {
    /// The place that `file_index` means.
    fn find(&self, file_index: u32) -> Result<u32, Errno> {
        if file_index == IORING_FILE_INDEX_ALLOC {
            let free = |&place: &u32| self.all[place as usize] == EMPTY;
            let hint = if fault::on(Fault::EmptyPlaceFromStart) { 0 } else { self.hint };
            let hint = hint.min(self.len);
            return (hint..self.len)
                .find(free)
                .or_else(|| (0..hint).find(free))
                .ok_or(Errno::ENFILE);
        }
        if self.len == 0 {
            return Err(Errno::ENXIO);
        }
        // 0 means none, and is beyond any table.
        let place = file_index.wrapping_sub(u32::from(!fault::on(Fault::DirectOpenBeside)));
        if place < self.len { Ok(place) } else { Err(Errno::EINVAL) }
    }

    /// Fills a place. Some: the number of a file that has come there.
    fn fill(&mut self, place: u32, with: i32) -> Option<i32> {
        let old = core::mem::replace(&mut self.all[place as usize], with);
        // Where there was something, no place was filled that had been empty.
        if old == EMPTY {
            self.hint = place + 1;
        }
        number(old)
    }
}

fn number(has: i32) -> Option<i32> {
    (has >= 0).then_some(has)
}

impl<'m> SentFiles<'m> {
    /// A record for so many places, whose files can be sent to the engine if it
    /// `accepts` any. No table is registered.
    pub fn new(all: &'m mut [i32], accepts: bool) -> Self {
        all.fill(EMPTY);
        let places = Places { all, len: 0, hint: 0, first: NONE };
        Self { places: Mutex::new(places), any: AtomicU32::new(0), accepts }
    }

    // -- senders ----------------------------------------------------------

    /// Leaves the file of this number at a place, and has `tell` tell of it,
    /// which is given its result and answers whether the engine has to be told.
    ///
    /// # Errors
    /// `EBADF` for a negative number; `EINVAL` if the engine takes none, or for a
    /// place beyond its table; `ENXIO` if it has no table, but `ENFILE` for any
    /// place, as if none is empty; or `tell`'s. The number is still the caller's
    /// then.
    pub fn send(
        &self,
        number: i32,
        file_index: u32,
        tell: impl FnOnce(i32) -> Result<bool, Errno>,
    ) -> Result<Arrived, Errno> {
        if number < 0 {
            return Err(Errno::EBADF);
        }
        if !self.accepts {
            return Err(Errno::EINVAL);
        }
        self.places.with(|places| {
            let place = places.find(file_index)?;
            let chosen = file_index == IORING_FILE_INDEX_ALLOC;
            let result = if chosen { place as i32 } else { 0 };
            // Relaxed: whoever has taken what `tell` tells of, or has our
            // answer, sees it by that; the file itself comes with the lock, at
            // which an engine waits that sees this early. If `tell` fails it
            // looks in vain, once.
            self.any.store(1, Ordering::Relaxed);
            let first = tell(result)?;
            let left = places.fill(place, number);
            places.first = places.first.min(place);
            Ok(Arrived { result, left, first })
        })
    }

    // -- the engine -------------------------------------------------------

    /// Whether there may be any to [`take`](Self::take).
    #[inline(always)]
    pub fn any(&self) -> bool {
        // Relaxed: see `send`.
        self.any.load(Ordering::Relaxed) != 0
    }

    /// Takes a file that has come: its place, which the engine has from then on,
    /// and its number.
    pub fn take(&self) -> Option<(u32, i32)> {
        self.places.with(|places| {
            let first = places.first;
            let later = places.all.iter_mut().enumerate().skip(first as usize);
            let found = later.map(|(at, has)| (at as u32, has)).find(|(_, has)| **has >= 0);
            let Some((place, has)) = found else {
                places.first = NONE;
                // Relaxed: by the lock no sender is about to set it.
                self.any.store(0, Ordering::Relaxed);
                return None;
            };
            places.first = place + 1;
            let kept = if place < places.len { TAKEN } else { EMPTY };
            Some((place, core::mem::replace(has, kept)))
        })
    }

    /// A table of `len` places is registered, of which those have files that
    /// `taken` says.
    pub fn open(&self, len: u32, taken: impl Fn(u32) -> bool) {
        self.places.with(|places| {
            (places.len, places.hint) = (len, 0);
            for (place, has) in (0..len).zip(places.all.iter_mut()) {
                *has = if taken(place) { TAKEN } else { EMPTY };
            }
        });
    }

    /// The table ends: nothing comes any more. What has come is still to be
    /// taken.
    pub fn close(&self) {
        self.places.with(|places| {
            places.len = 0;
            places.all.iter_mut().filter(|has| **has == TAKEN).for_each(|has| *has = EMPTY);
        });
    }

    /// The engine fills the place that `file_index` means. Which one, and the
    /// number of a file that has come there and is nobody's now.
    ///
    /// # Errors
    /// Of [`send`](Self::send), those for the place.
    pub fn claim(&self, file_index: u32) -> Result<(u32, Option<i32>), Errno> {
        self.places.with(|places| {
            let place = places.find(file_index)?;
            Ok((place, places.fill(place, TAKEN)))
        })
    }

    /// The engine empties this place and is about to fill it
    /// ([`settle`](Self::settle)); nobody finds it empty meanwhile. The number of
    /// a file that has come there and is nobody's now.
    pub fn occupy(&self, place: u32) -> Option<i32> {
        self.places.with(|places| {
            let old = core::mem::replace(&mut places.all[place as usize], TAKEN);
            // In Linux the place is empty for a moment, if it was not before.
            if old != EMPTY {
                places.hint = place;
            }
            number(old)
        })
    }

    /// The engine has filled a place that was its own, or failed to. What has been
    /// sent there meanwhile stays.
    pub fn settle(&self, place: u32, filled: bool) {
        self.places.with(|places| {
            let has = &mut places.all[place as usize];
            if filled {
                places.hint = place + 1;
            } else if *has == TAKEN {
                *has = EMPTY;
            }
        });
    }

    /// The engine empties this place; the search begins there if there was
    /// anything. The number of a file that has come there and is nobody's now.
    pub fn vacate(&self, place: u32) -> Option<i32> {
        self.places.with(|places| {
            let has = places.all.get_mut(place as usize)?;
            let old = core::mem::replace(has, EMPTY);
            if old != EMPTY {
                places.hint = place;
            }
            number(old)
        })
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const ANY: u32 = IORING_FILE_INDEX_ALLOC;

    fn sent(
        record: &SentFiles<'_>,
        number: i32,
        file_index: u32,
    ) -> Result<(i32, Option<i32>), Errno> {
        let mut told = None;
        let arrived = record.send(number, file_index, |result| {
            told = Some(result);
            Ok(true)
        })?;
        assert_eq!(told, Some(arrived.result));
        Ok((arrived.result, arrived.left))
    }

    #[test]
    fn the_first_empty_place_is_after_the_one_filled_last() {
        let mut all = [0; 4];
        let record = SentFiles::new(&mut all, true);
        assert_eq!(record.claim(ANY), Err(Errno::ENFILE));
        assert_eq!(record.claim(1), Err(Errno::ENXIO));
        record.open(4, |place| place == 1);
        assert_eq!(record.claim(ANY), Ok((0, None)));
        assert_eq!(sent(&record, 70, ANY), Ok((2, None)));
        assert_eq!(record.claim(ANY), Ok((3, None)));
        assert_eq!(sent(&record, 71, ANY), Err(Errno::ENFILE));
        assert_eq!(record.vacate(1), None);
        assert_eq!(record.vacate(1), None, "empty already");
        assert_eq!(record.vacate(9), None);
        assert_eq!(sent(&record, 71, ANY), Ok((1, None)));
        assert_eq!(sent(&record, 71, 5), Err(Errno::EINVAL));
        assert_eq!(sent(&record, 71, 0), Err(Errno::EINVAL));
    }

    #[test]
    fn whoever_takes_a_number_out_has_it() {
        let mut all = [0; 3];
        let record = SentFiles::new(&mut all, true);
        record.open(3, |_| false);
        assert!(!record.any() && record.take().is_none());
        for number in 10..13 {
            sent(&record, number, ANY).unwrap();
        }
        assert!(record.any());
        assert_eq!(sent(&record, 20, 3), Ok((0, Some(12))), "one by another");
        assert_eq!(record.occupy(0), Some(10));
        record.settle(0, true);
        assert_eq!(record.vacate(1), Some(11));
        assert_eq!(record.take(), Some((2, 20)));
        assert!(record.any(), "nobody has looked for more");
        assert_eq!((record.take(), record.any()), (None, false));
        assert_eq!(sent(&record, 30, ANY), Ok((1, None)));
        record.close();
        assert_eq!(sent(&record, 31, 1), Err(Errno::ENXIO));
        assert_eq!((record.take(), record.take()), (Some((1, 30)), None));
        record.open(3, |_| false);
        assert_eq!(record.claim(ANY), Ok((0, None)), "all are empty");
    }

    #[test]
    fn a_place_that_could_not_be_filled_is_empty_but_for_what_was_sent() {
        let mut all = [0; 4];
        let record = SentFiles::new(&mut all, true);
        record.open(4, |place| place == 3);
        // It was empty: where the search begins is as it was.
        assert_eq!(record.occupy(2), None);
        assert_eq!(record.claim(ANY), Ok((0, None)));
        record.settle(2, false);
        assert_eq!(record.claim(ANY), Ok((1, None)));
        assert_eq!(record.occupy(3), None);
        record.settle(3, false);
        assert_eq!(record.claim(ANY), Ok((3, None)), "where something was");
        assert_eq!(record.occupy(0), None);
        assert_eq!(sent(&record, 7, 1), Ok((0, None)), "while it is being filled");
        record.settle(0, false);
        assert_eq!(record.take(), Some((0, 7)));
        assert_eq!(sent(&record, -2, ANY), Err(Errno::EBADF));
    }

    #[test]
    fn what_cannot_be_told_of_does_not_come() {
        let mut all = [0; 1];
        let record = SentFiles::new(&mut all, true);
        record.open(1, |_| false);
        let told = record.send(5, ANY, |_| Err(Errno::EOVERFLOW));
        assert_eq!(told, Err(Errno::EOVERFLOW));
        assert_eq!(record.take(), None);
        assert_eq!(sent(&record, 5, ANY), Ok((0, None)));
        let mut all = [0; 1];
        let deaf = SentFiles::new(&mut all, false);
        deaf.open(1, |_| false);
        assert_eq!(sent(&deaf, 5, ANY), Err(Errno::EINVAL));
        assert_eq!(deaf.claim(1), Ok((0, None)), "that is the engine's own");
    }
}
