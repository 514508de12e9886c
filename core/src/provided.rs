//! Provided buffers: groups of memory that a read picks from when it starts.
//!
//! A group is a list of entries, filled by PROVIDE_BUFFERS, or a ring that the
//! application fills by itself. Entries are the bookkeeping and come from one
//! pool of the ring; they go back to it when a buffer is used or removed. The
//! memory itself is the application's from then on, until it provides it again.

use core::ptr::NonNull;

use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::sync::AtomicU16;
use crate::types::BufRingEntry;

const NONE: u32 = u32::MAX;

/// The most entries of a ring of buffers, as in Linux: fewer than its 16-bit
/// tail can count.
pub(crate) const MAX_RING: u32 = 1 << 15;

/// Memory that a request has picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Picked {
    pub addr: u64,
    pub len: u32,
    pub id: u16,
}

/// One provided buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    buffer: Picked,
    /// The next of its group, or of the free ones.
    next: u32,
}

impl Entry {
    pub const fn empty() -> Self {
        Self { buffer: Picked { addr: 0, len: 0, id: 0 }, next: NONE }
    }
}

/// Where the buffers of a group are.
#[derive(Clone, Copy, Debug)]
enum From {
    /// Nowhere: the place is free.
    Nothing,
    List {
        first: u32,
        last: u32,
        count: u32,
    },
    Ring(Ring),
    /// A ring whose buffers are used up by parts.
    Parts(Ring),
}

/// A ring of buffers.
#[derive(Clone, Copy, Debug)]
struct Ring {
    base: NonNull<BufRingEntry>,
    mask: u16,
    head: u16,
}

/// A place for a group.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    id: u16,
    from: From,
}

impl Group {
    pub const fn empty() -> Self {
        Self { id: 0, from: From::Nothing }
    }
}

/// The groups of a ring.
pub(crate) struct Provided<'m> {
    groups: &'m mut [Group],
    entries: &'m mut [Entry],
    free: u32,
    /// Where the last group was found.
    hint: usize,
}

// SAFETY: the rings' memory is the application's, promised to the engine
// wherever that runs; what is written of it is the entry at the head of a ring,
// which is the engine's until it has been used up.
#[allow(unsafe_code)]
unsafe impl Send for Provided<'_> {}

impl<'m> Provided<'m> {
    pub fn new(groups: &'m mut [Group], entries: &'m mut [Entry]) -> Self {
        let count = entries.len() as u32;
        for (next, entry) in (1..).zip(entries.iter_mut()) {
            entry.next = if next < count { next } else { NONE };
        }
        Self { groups, entries, free: if count == 0 { NONE } else { 0 }, hint: 0 }
    }

    /// Whether there can be any group.
    pub fn any(&self) -> bool {
        !self.groups.is_empty()
    }

    fn find(&mut self, id: u16) -> Option<usize> {
        let is = |group: &Group| group.id == id && !matches!(group.from, From::Nothing);
        if !self.groups.get(self.hint).is_some_and(is) {
            self.hint = self.groups.iter().position(is)?;
        }
        Some(self.hint)
    }

    fn make(&mut self, id: u16, from: From) -> Result<usize, Errno> {
        let free = self.groups.iter().position(|group| matches!(group.from, From::Nothing));
        let at = free.ok_or(Errno::ENOMEM)?;
        self.groups[at] = Group { id, from };
        Ok(at)
    }

    /// Adds `count` buffers of `len` bytes that follow each other, numbered
    /// from `first.id` on.
    pub fn provide(&mut self, id: u16, first: Picked, count: u32) -> Result<(), Errno> {
        let at = match self.find(id) {
            Some(at) => at,
            None => self.make(id, From::List { first: NONE, last: NONE, count: 0 })?,
        };
        for n in 0..count {
            let From::List { first: head, last, count: have } = &mut self.groups[at].from else {
                return Err(Errno::EINVAL);
            };
            // As in Linux, some are enough for a good answer.
            let why = if *have == u32::from(u16::MAX) { Errno::EOVERFLOW } else { Errno::ENOMEM };
            let entry = if *have == u32::from(u16::MAX) { NONE } else { self.free };
            let Some(free) = self.entries.get_mut(entry as usize) else {
                return if n == 0 { Err(why) } else { Ok(()) };
            };
            self.free = free.next;
            let addr = first.addr + u64::from(n) * u64::from(first.len);
            let buffer = Picked { addr, len: first.len, id: first.id.wrapping_add(n as u16) };
            *free = Entry { buffer, next: NONE };
            match *last {
                NONE => *head = entry,
                last => self.entries[last as usize].next = entry,
            }
            *last = entry;
            *have += 1;
        }
        Ok(())
    }

    /// Removes up to `count` buffers of a list; how many.
    pub fn remove(&mut self, id: u16, count: u32) -> Result<u32, Errno> {
        let at = self.find(id).ok_or(Errno::ENOENT)?;
        let From::List { .. } = self.groups[at].from else { return Err(Errno::EINVAL) };
        Ok((0..count).map_while(|_| self.pick(id)).count() as u32)
    }

    /// The next buffer of a group.
    pub fn pick(&mut self, id: u16) -> Option<Picked> {
        let at = self.find(id)?;
        match &mut self.groups[at].from {
            From::List { first, last, count } => {
                let index = *first;
                let entry = self.entries.get_mut(index as usize)?;
                (*first, *count) = (entry.next, *count - 1);
                if *first == NONE {
                    *last = NONE;
                }
                entry.next = self.free;
                self.free = index;
                Some(entry.buffer)
            }
            From::Ring(ring) => {
                let picked = ring.first()?;
                ring.head = ring.head.wrapping_add(1);
                Some(picked)
            }
            From::Parts(_) | From::Nothing => None,
        }
    }

    /// What is left of the first buffer of a ring whose buffers are used up by
    /// parts. It is used by [`spend`](Self::spend), and nothing of it is before.
    #[cold]
    pub fn part(&mut self, id: u16) -> Option<Picked> {
        let at = self.find(id)?;
        match &self.groups[at].from {
            From::Parts(ring) => ring.first(),
            _ => None,
        }
    }

    /// Uses `bytes` at the front of what [`part`](Self::part) has just given.
    /// True if there is more of that buffer.
    #[cold]
    pub fn spend(&mut self, id: u16, part: Picked, bytes: u32) -> bool {
        match self.find(id).map(|at| &mut self.groups[at].from) {
            Some(From::Parts(ring)) => ring.spend(part, bytes),
            _ => false,
        }
    }

    /// Takes back what was picked last of a group: its memory was not used.
    pub fn put_back(&mut self, id: u16, buffer: Picked) {
        let Some(at) = self.find(id) else { return };
        match &mut self.groups[at].from {
            From::List { first, last, count } => {
                let index = self.free;
                // The one that it had: nobody has taken any since.
                let Some(entry) = self.entries.get_mut(index as usize) else { return };
                self.free = entry.next;
                *entry = Entry { buffer, next: *first };
                if *first == NONE {
                    *last = index;
                }
                (*first, *count) = (index, *count + 1);
            }
            From::Ring(ring) => ring.head = ring.head.wrapping_sub(1),
            // Nothing of it has been used.
            From::Parts(_) | From::Nothing => {}
        }
    }

    /// Makes a group of a ring of `entries` buffers, which is valid until
    /// [`unregister`](Self::unregister). `parts`: each is used up by parts.
    pub fn register(
        &mut self,
        id: u16,
        base: NonNull<BufRingEntry>,
        entries: u32,
        parts: bool,
    ) -> Result<(), Errno> {
        let ring = Ring { base, mask: (entries - 1) as u16, head: 0 };
        let ring = if parts { From::Parts(ring) } else { From::Ring(ring) };
        match self.find(id) {
            Some(at) => match self.groups[at].from {
                From::List { count: 0, .. } => {
                    self.groups[at].from = ring;
                    Ok(())
                }
                _ => Err(Errno::EEXIST),
            },
            None => self.make(id, ring).map(|_| ()),
        }
    }

    /// Ends a ring of buffers.
    pub fn unregister(&mut self, id: u16) -> Result<(), Errno> {
        let at = self.find(id).ok_or(Errno::ENOENT)?;
        let (From::Ring(_) | From::Parts(_)) = self.groups[at].from else {
            return Err(Errno::EINVAL);
        };
        self.groups[at] = Group::empty();
        Ok(())
    }

    /// Whether a group is a ring, to which a buffer that waits can go back:
    /// as in Linux, one of a list stays with the request that has picked it.
    pub fn takes_back(&mut self, id: u16) -> bool {
        let Some(at) = self.find(id) else { return false };
        matches!(self.groups[at].from, From::Ring(_) | From::Parts(_))
    }

    /// How many buffers of a ring have been picked, or used up, modulo 2^16.
    pub fn head(&mut self, id: u16) -> Result<u16, Errno> {
        let at = self.find(id).ok_or(Errno::ENOENT)?;
        match self.groups[at].from {
            From::Ring(ring) | From::Parts(ring) => Ok(ring.head),
            _ => Err(Errno::EINVAL),
        }
    }
}

/// A ring is valid from its registration until it is unregistered.
impl Ring {
    /// The entry at the head, if the application has filled it.
    #[inline]
    fn first(&self) -> Option<Picked> {
        // SAFETY: the ring is valid.
        #[allow(unsafe_code)]
        let tail = unsafe { BufRingEntry::tail_of(self.base.as_ptr()) };
        // Acquire: pairs with the application's Release store: what it has
        // filled in before is there.
        if tail.load(core::sync::atomic::Ordering::Acquire) == self.head {
            return None;
        }
        // SAFETY: inside the ring; each field is read once, aligned, and as a
        // word that somebody else may write.
        #[allow(unsafe_code)]
        unsafe {
            let entry = self.entry();
            let addr = (&raw const (*entry).addr).read_volatile();
            let len = (&raw const (*entry).len).read_volatile();
            let id = (&raw const (*entry).bid).read_volatile();
            Some(Picked { addr, len, id })
        }
    }

    /// Uses `bytes` of the entry at the head, which is `part`. True if there is
    /// more of it.
    fn spend(&mut self, part: Picked, bytes: u32) -> bool {
        let left = part.len.saturating_sub(bytes);
        let more = left != 0 || bytes == 0;
        if !fault::on(Fault::PartUsedTwice) {
            // SAFETY: inside the ring; the application does not look at an entry
            // before a CQE tells of it, and not while there is more of it.
            #[allow(unsafe_code)]
            unsafe {
                let entry = self.entry();
                if more {
                    let addr = part.addr.wrapping_add(bytes.into());
                    (&raw mut (*entry).addr).write_volatile(addr);
                }
                (&raw mut (*entry).len).write_volatile(left);
            }
        }
        if !more {
            self.head = self.head.wrapping_add(1);
        }
        more
    }

    /// The entry at the head.
    #[inline]
    fn entry(&self) -> *mut BufRingEntry {
        let mask = if fault::on(Fault::BufferRingUnmasked) { u16::MAX } else { self.mask };
        self.base.as_ptr().wrapping_add(usize::from(self.head & mask))
    }
}

impl BufRingEntry {
    /// # Safety
    /// The ring is valid.
    #[allow(unsafe_code)]
    unsafe fn tail_of<'a>(base: *const Self) -> &'a AtomicU16 {
        // SAFETY: the caller's promise; this field is the ring's tail in its
        // first entry, and reached by atomic accesses only.
        unsafe { &*(&raw const (*base).tail).cast::<AtomicU16>() }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn buffers(n: usize) -> ([Group; 2], std::vec::Vec<Entry>) {
        ([Group::empty(); 2], std::vec![Entry::empty(); n])
    }

    const FIRST: Picked = Picked { addr: 1000, len: 10, id: 5 };

    #[test]
    fn a_list_is_picked_from_the_front_and_taken_back_there() {
        let (mut groups, mut entries) = buffers(4);
        let mut all = Provided::new(&mut groups, &mut entries);
        assert_eq!(all.pick(7), None);
        all.provide(7, FIRST, 3).unwrap();
        let first = all.pick(7).unwrap();
        assert_eq!(first, FIRST);
        all.put_back(7, first);
        assert_eq!(all.pick(7), Some(FIRST));
        assert_eq!(all.pick(7), Some(Picked { addr: 1010, id: 6, ..FIRST }));
        assert_eq!(all.remove(7, 9), Ok(1));
        assert_eq!((all.pick(7), all.remove(7, 1)), (None, Ok(0)));
        assert_eq!(all.remove(8, 1), Err(Errno::ENOENT));
    }

    #[test]
    fn entries_come_back_however_buffers_go() {
        let (mut groups, mut entries) = buffers(3);
        let mut all = Provided::new(&mut groups, &mut entries);
        for _ in 0..10 {
            // One more than there is room for.
            assert_eq!(all.provide(1, FIRST, 4), Ok(()));
            assert_eq!(all.provide(2, FIRST, 1), Err(Errno::ENOMEM));
            all.pick(1).unwrap();
            assert_eq!(all.remove(1, 9), Ok(2));
        }
        assert_eq!(all.provide(3, FIRST, 1), Err(Errno::ENOMEM), "two groups there may be");
    }

    #[test]
    fn a_ring_is_read_up_to_its_tail() {
        let (mut groups, mut entries) = buffers(0);
        let mut ring = [const { BufRingEntry::new() }; 4];
        let base = NonNull::from(&mut ring).cast::<BufRingEntry>();
        let mut all = Provided::new(&mut groups, &mut entries);
        all.register(1, base, 4, false).unwrap();
        assert_eq!(all.register(1, base, 4, false), Err(Errno::EEXIST));
        assert_eq!(all.provide(1, FIRST, 1), Err(Errno::EINVAL));
        assert_eq!(all.pick(1), None);
        let fill = |at: usize, id: u16| {
            // SAFETY: an entry of the array above.
            #[allow(unsafe_code)]
            unsafe {
                let entry = base.as_ptr().add(at % 4);
                (*entry).set_addr(u64::from(id) * 100);
                (*entry).set_len(64);
                (*entry).set_bid(id);
                BufRingEntry::tail_of(base.as_ptr())
                    .store(at as u16 + 1, core::sync::atomic::Ordering::Release);
            }
        };
        for at in 0..10 {
            fill(at, at as u16);
            let picked = all.pick(1).unwrap();
            assert_eq!(picked, Picked { addr: at as u64 * 100, len: 64, id: at as u16 });
            all.put_back(1, picked);
            assert_eq!(all.pick(1), Some(picked));
            assert_eq!((all.pick(1), all.head(1)), (None, Ok(at as u16 + 1)));
        }
        assert_eq!((all.unregister(1), all.unregister(1)), (Ok(()), Err(Errno::ENOENT)));
    }

    #[test]
    fn a_buffer_is_used_up_by_parts() {
        let (mut groups, mut entries) = buffers(0);
        let mut ring = [const { BufRingEntry::new() }; 2];
        let base = NonNull::from(&mut ring).cast::<BufRingEntry>();
        let mut all = Provided::new(&mut groups, &mut entries);
        all.register(1, base, 2, true).unwrap();
        assert_eq!((all.part(1), all.part(2)), (None, None));
        assert_eq!(all.provide(1, FIRST, 1), Err(Errno::EINVAL));
        // SAFETY: entries of the array above.
        #[allow(unsafe_code)]
        unsafe {
            for (at, len) in [(0, 10), (1, 0)] {
                let entry = base.as_ptr().add(at);
                ((*entry).addr, (*entry).len, (*entry).bid) = (100 * at as u64, len, at as u16);
            }
            BufRingEntry::tail_of(base.as_ptr()).store(2, core::sync::atomic::Ordering::Release);
        }
        assert_eq!(all.pick(1), None, "it is not used whole");
        for (addr, bytes, more) in [(0, 4, true), (4, 0, true), (4, 6, false)] {
            let part = all.part(1).unwrap();
            assert_eq!(part, Picked { addr, len: 10 - addr as u32, id: 0 });
            assert!(all.takes_back(1));
            all.put_back(1, part);
            assert_eq!(all.part(1), Some(part));
            assert_eq!(all.head(1), Ok(0));
            assert_eq!(all.spend(1, part, bytes), more);
        }
        // Nothing can be used of nothing.
        for _ in 0..2 {
            let part = all.part(1).unwrap();
            assert_eq!(part, Picked { addr: 100, len: 0, id: 1 });
            assert!(all.spend(1, part, 0));
            assert_eq!(all.head(1), Ok(1));
        }
        assert_eq!(all.unregister(1), Ok(()));
        assert!(!all.spend(1, FIRST, 1), "there is no such ring any more");
    }
}
