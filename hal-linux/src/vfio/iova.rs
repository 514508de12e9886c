//! Addresses for the device: which are free.

use std::collections::BTreeMap;

/// A superpage of every IOMMU that has any with 4 KiB pages.
pub const SUPERPAGE: u64 = 2 << 20;

/// Nothing is placed below: a device that is handed a small number by
/// mistake, or address 0, shall hit nothing.
const LOWEST: u64 = 64 << 10;

/// The free part of a device's address space, in whole pages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Space {
    page: u64,
    /// First to last address of each free range. They neither overlap nor
    /// adjoin.
    free: BTreeMap<u64, u64>,
}

impl Space {
    /// The whole pages (a power of two of bytes) of `ranges`, each from its
    /// first to its last address.
    pub fn new(ranges: &[(u64, u64)], page: u64) -> Self {
        let mut space = Self { page, free: BTreeMap::new() };
        let mut ranges = ranges.to_vec();
        ranges.sort_unstable();
        // What no range may begin below: behind the one before it.
        let mut least = Some(LOWEST);
        for (first, last) in ranges {
            let Some(from) = least else { break };
            let Some(first) = first.max(from).checked_next_multiple_of(page) else { break };
            // The last address of the last whole page.
            let end = match last.checked_add(1) {
                Some(end) => end & !(page - 1),
                None => 0u64.wrapping_sub(page),
            };
            if end > first {
                space.insert(first, end - 1);
            }
            least = last.checked_add(1).map(|next| next.max(from));
        }
        space
    }

    /// Takes `len` bytes (whole pages, not 0): the first fit. Where `len`
    /// covers a superpage the place is congruent to `like`, the memory's
    /// address, modulo that, if there is such a place, so that the IOMMU can
    /// use superpages.
    pub fn take(&mut self, len: u64, like: u64) -> Option<u64> {
        debug_assert!(len != 0 && len.is_multiple_of(self.page));
        let congruent = (len >= SUPERPAGE).then_some(like % SUPERPAGE);
        let found = congruent
            .and_then(|rest| self.find(len, |first| first_like(first, rest)))
            .or_else(|| self.find(len, Some))?;
        let (start, last, at) = found;
        let end = at + (len - 1);
        self.free.remove(&start);
        if at > start {
            self.free.insert(start, at - 1);
        }
        if end < last {
            self.free.insert(end + 1, last);
        }
        Some(at)
    }

    /// The first range with room for `len` from `place(its begin)` on: its
    /// begin, its end, the place.
    fn find(&self, len: u64, place: impl Fn(u64) -> Option<u64>) -> Option<(u64, u64, u64)> {
        self.free.iter().find_map(|(&start, &last)| {
            let at = place(start)?;
            let fits = at <= last && last - at >= len - 1;
            fits.then_some((start, last, at))
        })
    }

    /// Gives back what [`take`](Self::take) gave.
    pub fn give(&mut self, at: u64, len: u64) {
        debug_assert!(len != 0 && at.is_multiple_of(self.page) && len.is_multiple_of(self.page));
        self.insert(at, at + (len - 1));
    }

    /// Inserts a range that is not free, joining it with its neighbours.
    fn insert(&mut self, mut first: u64, mut last: u64) {
        if let Some((&before, &end)) = self.free.range(..first).next_back() {
            debug_assert!(end < first, "given twice");
            if end + 1 == first {
                self.free.remove(&before);
                first = before;
            }
        }
        if let Some(next) = last.checked_add(1)
            && let Some(end) = self.free.remove(&next)
        {
            last = end;
        }
        self.free.insert(first, last);
    }
}

/// The first address from `first` on that is `rest` modulo a superpage.
fn first_like(first: u64, rest: u64) -> Option<u64> {
    let behind = rest.wrapping_sub(first) % SUPERPAGE;
    first.checked_add(behind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 4096;

    /// What Intel's IOMMU with 39 bits reports.
    const INTEL: [(u64, u64); 2] = [(0, 0xfedf_ffff), (0xfef0_0000, (1 << 39) - 1)];

    #[test]
    fn the_first_page_and_what_is_reserved_are_never_given() {
        let mut space = Space::new(&INTEL, PAGE);
        assert_eq!(space.take(PAGE, 0), Some(LOWEST));
        // Fill everything up to the interrupts' window.
        let rest = 0xfee0_0000 - LOWEST - PAGE;
        assert_eq!(space.take(rest, LOWEST + PAGE), Some(LOWEST + PAGE));
        assert_eq!(space.take(PAGE, 0), Some(0xfef0_0000));
        // More than is left in one piece.
        assert_eq!(space.take(1 << 39, 0), None);
    }

    #[test]
    fn large_pieces_are_congruent_to_their_memory() {
        let mut space = Space::new(&INTEL, PAGE);
        let like = 0x7f12_3456_7000;
        let at = space.take(4 << 20, like).expect("room");
        assert_eq!(at % SUPERPAGE, like % SUPERPAGE);
        // The gap before it serves small ones.
        assert_eq!(space.take(PAGE, like), Some(LOWEST));
    }

    #[test]
    fn congruence_is_given_up_before_the_request() {
        let mut space = Space::new(&[(0x10_0000, 0x2f_ffff)], PAGE);
        assert_eq!(space.take(2 << 20, 0x1000), Some(0x10_0000));
    }

    #[test]
    fn what_is_given_back_joins_its_neighbours() {
        let whole = Space::new(&INTEL, PAGE);
        let mut space = whole.clone();
        let pieces: Vec<u64> = (0..3).map(|_| space.take(PAGE, 0).expect("room")).collect();
        for at in [pieces[0], pieces[2], pieces[1]] {
            space.give(at, PAGE);
        }
        assert_eq!(space, whole);
    }

    #[test]
    fn odd_ranges_are_cut_to_whole_pages() {
        let ranges = [(0x2_0800, 0x2_2fff), (0x2_2000, 0x2_4800), (u64::MAX - 0x1fff, u64::MAX)];
        let mut space = Space::new(&ranges, PAGE);
        assert_eq!(space.take(0x3000, 0), Some(0x2_1000));
        // The very last page is not used, so that ends can be computed.
        assert_eq!(space.take(PAGE, 0), Some(u64::MAX - 0x1fff));
        assert_eq!(space.take(PAGE, 0), None);
        assert_eq!(Space::new(&[], PAGE).take(PAGE, 0), None);
        assert_eq!(Space::new(&[(0, u64::MAX)], PAGE).take(1 << 63, 0), Some(SUPERPAGE));
    }

    proptest! {
        /// Against a list of what is taken: nothing overlaps, all lies in the
        /// ranges, and all of it given back is the space as it was.
        #[test]
        fn nothing_is_given_twice(
            ranges in prop::collection::vec((0u64..1 << 24, 0u64..1 << 23), 0..6),
            steps in prop::collection::vec((any::<bool>(), 1u64..600, any::<u32>()), 0..60),
        ) {
            let ranges: Vec<_> =
                ranges.into_iter().map(|(first, len)| (first, first + len)).collect();
            let whole = Space::new(&ranges, PAGE);
            let mut space = whole.clone();
            let mut taken: Vec<(u64, u64)> = Vec::new();
            for (give, pages, seed) in steps {
                if give && !taken.is_empty() {
                    let (at, len) = taken.swap_remove(seed as usize % taken.len());
                    space.give(at, len);
                    continue;
                }
                let len = pages * PAGE;
                let Some(at) = space.take(len, u64::from(seed) * PAGE) else { continue };
                prop_assert!(at >= LOWEST && at % PAGE == 0);
                prop_assert!(taken.iter().all(|&(t, l)| at + len <= t || t + l <= at));
                // Every page of it lies in some range.
                for page in (at..at + len).step_by(PAGE as usize) {
                    let inside = |&(first, last): &(u64, u64)| {
                        first <= page && page + PAGE - 1 <= last
                    };
                    let joined = ranges.iter().any(inside)
                        || (covered(&ranges, page) && covered(&ranges, page + PAGE - 1));
                    prop_assert!(joined, "{page:#x}");
                }
                taken.push((at, len));
            }
            for (at, len) in taken {
                space.give(at, len);
            }
            prop_assert_eq!(space, whole);
        }
    }

    fn covered(ranges: &[(u64, u64)], at: u64) -> bool {
        ranges.iter().any(|&(first, last)| first <= at && at <= last)
    }
}
