//! Which memory is mapped where, and who uses it: the bookkeeping, without
//! a system call.

use std::collections::BTreeMap;
use std::ops::Range;

/// Memory that the device reaches: part of a mapping, or the whole of it.
///
/// Made by [`VfioDevice::map_buffer`](crate::vfio::VfioDevice::map_buffer).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer {
    /// What an address is off from the device's.
    delta: u64,
    /// The end of the mapping.
    end: usize,
    /// The buffer's own whole pages.
    pages: (usize, usize),
    mapping: u64,
}

impl Buffer {
    /// The device's address of the byte at `addr`.
    #[inline(always)]
    pub fn device(&self, addr: usize) -> u64 {
        (addr as u64).wrapping_add(self.delta)
    }

    /// Bytes from `addr` to the end of the mapping.
    #[inline(always)]
    pub fn rest(&self, addr: usize) -> usize {
        self.end.wrapping_sub(addr)
    }
}

/// One mapping of the IOMMU's.
#[derive(Debug)]
struct Mapping {
    pages: Range<usize>,
    iova: u64,
    /// How many buffers use the pages from each address on, to the next.
    users: BTreeMap<usize, u32>,
}

/// The mappings of registered memory, by what uses them.
///
/// A mapping is shared by every buffer that lies in memory which live
/// buffers of it cover, and by no other. Memory that no buffer covers may
/// have been given up (`munmap`, `MADV_DONTNEED`, an allocator that trims)
/// and be other pages now, under the same address, while the device still
/// reaches the old ones: there a new buffer gets a mapping of its own.
#[derive(Debug, Default)]
pub struct Shared {
    mappings: BTreeMap<u64, Mapping>,
    /// Memory in which new buffers share: end and mapping, by begin. Where
    /// mappings overlap, the last one's. Entries do not overlap.
    covered: BTreeMap<usize, (usize, u64)>,
    next: u64,
}

impl Shared {
    /// A further buffer of these whole pages, if a mapping covers them.
    pub fn share(&mut self, pages: &Range<usize>) -> Option<Buffer> {
        let (_, &(end, id)) = self.covered.range(..=pages.start).next_back()?;
        if end < pages.end {
            return None;
        }
        let mapping = self.mappings.get_mut(&id)?;
        adjust(&mut mapping.users, pages, 1);
        Some(mapping.buffer(pages, id))
    }

    /// The first buffer of a new mapping of these whole pages.
    pub fn insert(&mut self, pages: &Range<usize>, iova: u64) -> Buffer {
        let id = self.next;
        self.next += 1;
        let users = BTreeMap::from([(pages.start, 1), (pages.end, 0)]);
        let mapping = Mapping { pages: pages.clone(), iova, users };
        let buffer = mapping.buffer(pages, id);
        self.mappings.insert(id, mapping);
        self.uncover(pages, None);
        self.covered.insert(pages.start, (pages.end, id));
        buffer
    }

    /// Ends a buffer. Answers the mapping that nobody uses any more: its
    /// device address and length. A buffer that has ended changes nothing.
    pub fn release(&mut self, buffer: &Buffer) -> Option<(u64, usize)> {
        let id = buffer.mapping;
        let pages = buffer.pages.0..buffer.pages.1;
        let mapping = self.mappings.get_mut(&id)?;
        let free = adjust(&mut mapping.users, &pages, -1);
        for part in free {
            self.uncover(&part, Some(id));
        }
        let mapping = self.mappings.get(&id)?;
        if mapping.users.values().any(|&users| users != 0) {
            return None;
        }
        let mapping = self.mappings.remove(&id)?;
        Some((mapping.iova, mapping.pages.len()))
    }

    /// All mappings, which end here: device address and length of each.
    pub fn drain(&mut self) -> Vec<(u64, usize)> {
        self.covered.clear();
        let all = std::mem::take(&mut self.mappings).into_values();
        all.map(|mapping| (mapping.iova, mapping.pages.len())).collect()
    }

    /// How many mappings there are.
    pub fn len(&self) -> usize {
        self.mappings.len()
    }

    /// New buffers in these pages share nothing any more (`only`: not this
    /// mapping's).
    fn uncover(&mut self, pages: &Range<usize>, only: Option<u64>) {
        let from = self.covered.range(..=pages.start).next_back().map_or(pages.start, |(&s, _)| s);
        let hit: Vec<_> = self
            .covered
            .range(from..pages.end)
            .map(|(&start, &(end, id))| (start, end, id))
            .filter(|&(_, end, id)| end > pages.start && only.is_none_or(|only| only == id))
            .collect();
        for (start, end, id) in hit {
            self.covered.remove(&start);
            if start < pages.start {
                self.covered.insert(start, (pages.start, id));
            }
            if end > pages.end {
                self.covered.insert(pages.end, (end, id));
            }
        }
    }
}

impl Mapping {
    fn buffer(&self, pages: &Range<usize>, id: u64) -> Buffer {
        let delta = self.iova.wrapping_sub(self.pages.start as u64);
        Buffer { delta, end: self.pages.end, pages: (pages.start, pages.end), mapping: id }
    }
}

/// Counts one user more or less of `pages`, and answers the parts of it that
/// nobody uses any more.
fn adjust(users: &mut BTreeMap<usize, u32>, pages: &Range<usize>, by: i32) -> Vec<Range<usize>> {
    for at in [pages.start, pages.end] {
        let now = users.range(..=at).next_back().map_or(0, |(_, &count)| count);
        users.insert(at, now);
    }
    let mut free: Vec<Range<usize>> = Vec::new();
    let mut steps: Vec<usize> = users.range(pages.start..=pages.end).map(|(&at, _)| at).collect();
    for step in steps.windows(2) {
        let Some(count) = users.get_mut(&step[0]) else { continue };
        let before = *count;
        *count = count.saturating_add_signed(by);
        if before != 0 && *count == 0 {
            free.push(step[0]..step[1]);
        }
    }
    // Steps that are none any more go.
    steps.retain(|at| {
        let before = users.range(..at).next_back().map(|(_, &count)| count);
        before.is_some() && before == users.get(at).copied()
    });
    for at in steps.into_iter().rev() {
        // In descending order, so that what was equal to the one before it
        // still is.
        users.remove(&at);
    }
    free
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const P: usize = 4096;

    fn pages(from: usize, to: usize) -> Range<usize> {
        from * P..to * P
    }

    #[test]
    fn parts_of_a_live_buffer_share_its_mapping() {
        let mut shared = Shared::default();
        let outer = shared.insert(&pages(16, 32), 0x10_0000);
        let part = shared.share(&pages(20, 24)).expect("covered");
        assert_eq!(part.device(20 * P + 5), 0x10_0000 + 4 * P as u64 + 5);
        // On to the end of the mapping.
        assert_eq!(part.rest(20 * P + 5), 12 * P - 5);
        assert_eq!(shared.len(), 1);
        assert_eq!(shared.release(&outer), None);
        // Only what is still in use is shared.
        assert_eq!(shared.share(&pages(16, 17)), None);
        assert_eq!(shared.share(&pages(23, 25)), None);
        let again = shared.share(&pages(20, 21)).expect("covered by the part");
        assert_eq!(shared.release(&part), None);
        assert_eq!(shared.share(&pages(21, 22)), None);
        assert_eq!(shared.release(&again), Some((0x10_0000, 16 * P)));
        assert_eq!(shared.release(&again), None);
    }

    #[test]
    fn of_mappings_that_overlap_the_last_is_shared() {
        let mut shared = Shared::default();
        let old = shared.insert(&pages(10, 14), 0x10_0000);
        let new = shared.insert(&pages(12, 20), 0x20_0000);
        assert_eq!(shared.share(&pages(12, 13)).expect("both").device(12 * P), 0x20_0000);
        assert_eq!(shared.share(&pages(10, 12)).expect("old").device(10 * P), 0x10_0000);
        assert_eq!(shared.release(&old), None);
        assert_eq!(shared.release(&new), None);
        assert_eq!(shared.drain().len(), 2);
    }

    proptest! {
        /// Against a count for each page: what is shared was covered by live
        /// buffers of that mapping all the time, and mappings end with their
        /// last buffer.
        #[test]
        fn sharing_follows_the_live_buffers(
            steps in prop::collection::vec((0u8..3, 0usize..24, 1usize..12, any::<u32>()), 0..80),
        ) {
            let mut shared = Shared::default();
            let mut live: Vec<(Buffer, Range<usize>)> = Vec::new();
            let mut iova = 1u64 << 32;
            for (what, at, len, seed) in steps {
                let wanted = pages(at, at + len);
                if what == 0 && !live.is_empty() {
                    let (buffer, _) = live.swap_remove(seed as usize % live.len());
                    let last = live.iter().all(|(other, _)| other.mapping != buffer.mapping);
                    prop_assert_eq!(shared.release(&buffer).is_some(), last);
                    continue;
                }
                let buffer = match shared.share(&wanted) {
                    Some(buffer) => {
                        for page in wanted.clone().step_by(P) {
                            let id = buffer.mapping;
                            let holds = |(other, pages): &(Buffer, Range<usize>)| {
                                other.mapping == id && pages.contains(&page)
                            };
                            prop_assert!(live.iter().any(holds));
                        }
                        buffer
                    }
                    None => {
                        iova += 1 << 20;
                        shared.insert(&wanted, iova)
                    }
                };
                // A live buffer's own pages are always shared again.
                if let Some(twice) = shared.share(&wanted) {
                    prop_assert_eq!(shared.release(&twice), None);
                }
                live.push((buffer, wanted));
                let mut ids: Vec<u64> = live.iter().map(|(buffer, _)| buffer.mapping).collect();
                ids.sort_unstable();
                ids.dedup();
                prop_assert_eq!(shared.len(), ids.len());
            }
        }
    }
}
