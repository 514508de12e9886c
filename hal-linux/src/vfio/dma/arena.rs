//! Memory of our own that is mapped once and handed out in pieces.

use std::collections::BTreeMap;
use std::io;
use std::ptr::{self, NonNull};

use annulus::hal::device::PAGE;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// What an arena is a multiple of, and a huge page's size.
pub const HUGE: usize = 2 << 20;

/// Anonymous memory, zeroed, given up when dropped.
#[derive(Debug)]
pub struct Memory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: memory belongs to no thread.
unsafe impl Send for Memory {}

impl Memory {
    /// `len` bytes (whole pages) out of the pool of huge pages, if `huge`;
    /// else ordinary ones that the kernel may make huge.
    ///
    /// # Errors
    /// `mmap(2)`'s; `ENOMEM` if there are not so many huge pages.
    pub fn new(len: usize, huge: bool) -> io::Result<Self> {
        // With room to begin on a huge page's boundary.
        let room = if huge || len < HUGE { len } else { len + HUGE };
        let kind = if huge { MapFlags::HUGETLB | MapFlags::HUGE_2MB } else { MapFlags::empty() };
        let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE | kind);
        // SAFETY: a new mapping, where the kernel finds room.
        let at = unsafe { mmap_anonymous(ptr::null_mut(), room, prot, flags) }?;
        let start = at.cast::<u8>();
        let skip = if room > len { start.addr().next_multiple_of(HUGE) - start.addr() } else { 0 };
        let tail = room - skip - len;
        // SAFETY: both ends lie in the mapping, are whole pages, and nobody
        // has seen them.
        unsafe {
            if skip != 0 {
                let _ = munmap(at, skip);
            }
            if tail != 0 {
                let _ = munmap(start.add(skip + len).cast(), tail);
            }
        }
        // SAFETY: `skip` is inside.
        let base = NonNull::new(unsafe { start.add(skip) }).ok_or(io::ErrorKind::OutOfMemory)?;
        let memory = Self { base, len };
        let advise = |advice| {
            // SAFETY: our own mapping; neither advice changes what it holds.
            // A kernel that does not know it loses nothing.
            let _ = unsafe { madvise(memory.base.as_ptr().cast(), len, advice) };
        };
        if !huge {
            advise(Advice::LinuxHugepage);
        }
        // A fork must not make this copy-on-write: the device would go on
        // with the pages that the child has.
        advise(Advice::LinuxDontFork);
        Ok(memory)
    }

    pub fn addr(&self) -> usize {
        self.base.as_ptr().addr()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// A piece, zeroed.
    fn piece(&self, offset: usize, len: usize) -> NonNull<u8> {
        debug_assert!(offset + len <= self.len);
        // SAFETY: inside, by the arena's bookkeeping, which gives each byte to
        // one piece only.
        unsafe {
            let at = self.base.add(offset);
            at.write_bytes(0, len);
            at
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: our mapping, whole. The pieces are gone by the promise of
        // who frees them; what the device still reaches the kernel keeps.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Memory with an address for the device.
#[derive(Debug)]
pub struct Arena {
    memory: Memory,
    pub iova: u64,
    /// Length of each free piece, by offset; they do not adjoin.
    free: BTreeMap<usize, usize>,
}

impl Arena {
    pub fn new(memory: Memory, iova: u64) -> Self {
        let free = BTreeMap::from([(0, memory.len())]);
        Self { memory, iova, free }
    }

    pub fn len(&self) -> usize {
        self.memory.len()
    }

    pub fn is_unused(&self) -> bool {
        self.free.get(&0) == Some(&self.len())
    }

    pub fn contains(&self, addr: usize) -> bool {
        addr.checked_sub(self.memory.addr()).is_some_and(|offset| offset < self.len())
    }

    /// `len` bytes (whole pages), zeroed: where, and where for the device.
    pub fn take(&mut self, len: usize) -> Option<(NonNull<u8>, u64)> {
        debug_assert!(len.is_multiple_of(PAGE));
        let (&offset, &room) = self.free.iter().find(|&(_, &room)| room >= len)?;
        self.free.remove(&offset);
        if room > len {
            self.free.insert(offset + len, room - len);
        }
        Some((self.memory.piece(offset, len), self.iova + offset as u64))
    }

    /// Gives back what [`take`](Self::take) gave.
    pub fn give(&mut self, addr: usize, len: usize) {
        let mut offset = addr - self.memory.addr();
        let mut len = len;
        if let Some(behind) = self.free.remove(&(offset + len)) {
            len += behind;
        }
        if let Some((&before, &room)) = self.free.range(..offset).next_back()
            && before + room == offset
        {
            self.free.remove(&before);
            offset = before;
            len += room;
        }
        self.free.insert(offset, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_and_go_zeroed() {
        let memory = Memory::new(HUGE, false).expect("memory");
        let base = memory.addr();
        assert_eq!(base % HUGE, 0);
        let mut arena = Arena::new(memory, 0x10_0000);
        let (a, device) = arena.take(PAGE).expect("room");
        assert_eq!((a.as_ptr().addr(), device), (base, 0x10_0000));
        let (b, device) = arena.take(3 * PAGE).expect("room");
        assert_eq!((b.as_ptr().addr(), device), (base + PAGE, 0x10_1000));
        assert!(arena.take(HUGE).is_none());
        // SAFETY: four pages that were just taken.
        unsafe { a.write_bytes(0xff, 4 * PAGE) };
        arena.give(base, PAGE);
        arena.give(base + PAGE, 3 * PAGE);
        assert!(arena.is_unused());
        let (c, _) = arena.take(HUGE).expect("joined");
        // SAFETY: the whole arena, which was just taken.
        let bytes = unsafe { std::slice::from_raw_parts(c.as_ptr(), HUGE) };
        assert!(bytes.iter().all(|&byte| byte == 0));
        assert!(arena.contains(base + HUGE - 1) && !arena.contains(base + HUGE));
    }

    #[test]
    fn huge_pages_are_had_or_refused() {
        // What the machine has decides; neither answer may break anything.
        match Memory::new(HUGE, true) {
            Ok(memory) => assert_eq!(memory.addr() % HUGE, 0),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::OutOfMemory),
        }
    }
}
