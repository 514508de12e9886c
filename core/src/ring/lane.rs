//! A submission queue by itself, without an engine behind it.

use super::{RingRef, SqConsumer, SqHalf};
use crate::config::{Config, ConfigError};
use crate::engine::Memory;
use crate::sqe::Sqe;

/// Makes a submission queue and nothing else: the application's half, and the
/// end where its entries come out. For whoever carries them out by other
/// means than an [`Engine`](crate::engine::Engine), hands them on, or measures
/// the lane alone.
///
/// Of `config` the SQ's size, the index array and the layout count. `memory`
/// is the ring's, `config.offsets().total` bytes.
///
/// # Errors
/// What is wrong with the configuration or the memory.
pub fn lane<'m>(
    config: &Config,
    memory: Memory<'m>,
) -> Result<(SqHalf<'m>, LaneEnd<'m>), ConfigError> {
    config.validate()?;
    let offsets = config.offsets();
    let base = memory.take_whole("the ring's memory", offsets.total)?;
    // SAFETY: large enough and aligned (checked), exclusively ours for 'm.
    let ring = unsafe { RingRef::init(base, &offsets, config.sq_entries, config.cq_entries) };
    Ok((SqHalf::new(ring), LaneEnd { sq: SqConsumer::new(ring) }))
}

/// Where a [`lane`]'s entries come out. Whoever has it `&mut` is the single
/// consumer.
pub struct LaneEnd<'m> {
    sq: SqConsumer<'m>,
}

impl<'m> LaneEnd<'m> {
    /// Entries published and not yet taken.
    #[inline]
    pub fn len(&self) -> usize {
        self.sq.ready() as usize
    }

    /// Whether there is nothing to take.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Opens the lane for taking what has been published by now. What was
    /// taken is given back to the application on drop.
    #[inline]
    pub fn take<'a>(&'a mut self) -> Taken<'a, 'm> {
        let (first, left) = (self.sq.position(), self.sq.ready());
        Taken { sq: &mut self.sq, first, left }
    }
}

/// An iterator over copies of the entries in a [`lane`]. A place whose index
/// names no entry is passed over and counted in
/// [`dropped`](super::SubmissionQueue::dropped).
pub struct Taken<'a, 'm> {
    sq: &'a mut SqConsumer<'m>,
    first: u32,
    left: u32,
}

impl Iterator for Taken<'_, '_> {
    type Item = Sqe;

    #[inline]
    fn next(&mut self) -> Option<Sqe> {
        while self.left != 0 {
            self.left -= 1;
            let position = self.sq.position();
            self.sq.seek(position.wrapping_add(1));
            match self.sq.entry(position) {
                Some(cell) => return Some(cell.read()),
                None => self.sq.count_dropped(),
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.left as usize))
    }
}

impl Drop for Taken<'_, '_> {
    #[inline]
    fn drop(&mut self) {
        // Looking in vain disturbs nobody.
        if self.sq.position() != self.first {
            self.sq.commit();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use core::mem::MaybeUninit;

    #[repr(align(64))]
    struct Room([MaybeUninit<u8>; 2048]);

    #[test]
    fn what_goes_in_comes_out_in_order() {
        let mut room = Room([MaybeUninit::uninit(); 2048]);
        let config = Config::new(4);
        let (mut sq, mut end) = lane(&config, Memory::new(&mut room.0)).unwrap();
        let entry = |user_data| Sqe { user_data, ..Sqe::default() };
        for round in 0..3 {
            let mut queue = sq.queue();
            for i in 0..4 {
                // SAFETY: nobody looks behind these entries.
                unsafe { queue.push(&entry(4 * round + i)) }.unwrap();
            }
            drop(queue);
            assert_eq!(end.len(), 4);
            assert!(end.take().map(|sqe| sqe.user_data).eq(4 * round..4 * round + 4));
            assert!(end.is_empty());
        }
    }

    #[test]
    fn a_bad_index_is_passed_over_and_counted() {
        let mut room = Room([MaybeUninit::uninit(); 2048]);
        let config = Config::new(4);
        let (mut sq, mut end) = lane(&config, Memory::new(&mut room.0)).unwrap();
        let mut queue = sq.queue();
        for index in [9, 1] {
            let entry = Sqe { user_data: index.into(), ..Sqe::default() };
            // SAFETY: nobody looks behind these entries.
            unsafe {
                queue.set_next_index(index);
                queue.push(&entry).unwrap();
            }
        }
        drop(queue);
        assert!(end.take().map(|sqe| sqe.user_data).eq([1]));
        assert_eq!(sq.queue().dropped(), 1);
        assert_eq!(sq.ready(), 0);
    }

    #[test]
    fn memory_that_is_too_small_is_named() {
        let mut room = Room([MaybeUninit::uninit(); 2048]);
        let too_small = lane(&Config::new(64), Memory::new(&mut room.0));
        assert!(matches!(too_small, Err(ConfigError::MemoryTooSmall { given: 2048, .. })));
    }
}
