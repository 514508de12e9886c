//! The split virtqueue (section 2.7).

use core::ptr::NonNull;

use super::chain::{Chain, Order, Table};
use super::queue::{Lie, Next, Part, Place};
use super::shared::{Index, Word, any, ask, look, passed, show};
use super::spec::{DESCRIPTOR_BYTES, NO_EVENTS, descriptor};

/// A queue of descriptors, a ring of those made available, a ring of those
/// used.
///
/// What the device writes is `used` alone, and each word of it is read once;
/// what it says is checked against what only the driver knows.
#[derive(Debug, Clone)]
pub(super) struct Split {
    table: Table,
    size: u16,
    /// Free-running; what the device has been shown of it is `published`.
    available: u16,
    published: u16,
    /// Free-running: taken, and seen to be used.
    taken: u16,
    seen: u16,
    event_idx: bool,
    avail_flags: Word<u16>,
    avail_index: Word<u16>,
    avail_ring: NonNull<u16>,
    used_event: Word<u16>,
    used_flags: Word<u16>,
    used_index: Word<u16>,
    used_ring: NonNull<u32>,
    avail_event: Word<u16>,
}

// SAFETY: memory of a queue, which belongs to no thread; whoever has this is
// the only one here to touch it.
unsafe impl Send for Split {}

impl Split {
    /// Where the three parts are, and the bytes of it all.
    pub fn layout(size: u16) -> ([usize; 3], usize) {
        let size = usize::from(size);
        let available = size * DESCRIPTOR_BYTES;
        // Each ring has flags and index before it, and an event after it. The
        // used ring on a cache line of its own.
        let used = (available + 6 + 2 * size).next_multiple_of(64);
        ([0, available, used], used + 6 + 8 * size)
    }

    /// A queue in zeroed memory.
    ///
    /// # Safety
    /// The part has the bytes of [`layout`](Self::layout), on a multiple of 16,
    /// for as long as this is used; nobody else writes it but the device.
    pub unsafe fn new(part: &Part, size: u16, event_idx: bool) -> Self {
        let ([_, available, used], _) = Self::layout(size);
        let entries = usize::from(size);
        // SAFETY: inside the part, as the layout says, and aligned as it is.
        let at = |offset: usize| unsafe { part.at.add(offset) };
        // SAFETY: as above.
        let word = |offset: usize| unsafe { Word::new(at(offset)) };
        let queue = Self {
            table: Table { at: part.at.cast(), device: part.device },
            size,
            available: 0,
            published: 0,
            taken: 0,
            seen: 0,
            event_idx,
            avail_flags: word(available),
            avail_index: word(available + 2),
            avail_ring: at(available + 4).cast(),
            used_event: word(available + 4 + 2 * entries),
            used_flags: word(used),
            used_index: word(used + 2),
            used_ring: at(used + 4).cast(),
            avail_event: word(used + 4 + 8 * entries),
        };
        queue.hush();
        queue
    }

    /// No interrupts, until [`ask`](Self::ask).
    pub fn hush(&self) {
        if self.event_idx {
            // The flags stay 0 (section 2.7.7.1); the event is as far away as
            // can be.
            self.used_event.store(self.taken.wrapping_sub(1));
        } else {
            self.avail_flags.store(NO_EVENTS);
        }
    }

    /// An interrupt for the next used entry. Whoever asks looks again before
    /// it sleeps.
    pub fn ask(&self) {
        if self.event_idx {
            ask(self.used_event, self.taken);
        } else {
            ask(self.avail_flags, 0);
        }
    }

    /// Opens a chain for the request of `place`.
    ///
    /// # Safety
    /// The place has no request in flight, and lies in the queue.
    #[inline(always)]
    pub unsafe fn open(&self, place: Place) -> Chain {
        match place.indirect {
            // SAFETY: the caller's promise.
            Some((table, room)) => unsafe { Chain::new(table, Order::Linked(0), room, place.id) },
            None => {
                let room = 1 << place.shift;
                let first = place.id << place.shift;
                debug_assert!(u32::from(first) + u32::from(room) <= u32::from(self.size));
                let at = usize::from(first) * (DESCRIPTOR_BYTES / 8);
                // SAFETY: as above: the place's own descriptors.
                unsafe {
                    let table = Table { at: self.table.at.add(at), device: 0 };
                    Chain::new(table, Order::Linked(first), room, place.id)
                }
            }
        }
    }

    /// Makes a chain available, with the next [`publish`](Self::publish).
    ///
    /// # Safety
    /// As for [`open`](Self::open), of the same place.
    #[inline(always)]
    pub unsafe fn close(&mut self, place: Place, chain: &Chain) {
        let head = place.id << place.shift;
        debug_assert!(head < self.size);
        if let Some((table, _)) = place.indirect {
            let len = u64::from(chain.count) * DESCRIPTOR_BYTES as u64;
            let last = len | u64::from(descriptor::INDIRECT) << 32;
            // SAFETY: the place's descriptor lies in the table.
            unsafe {
                let at = self.table.at.add(usize::from(head) * (DESCRIPTOR_BYTES / 8));
                at.write_volatile(table.device.to_le());
                at.add(1).write_volatile(last.to_le());
            }
        }
        let at = usize::from(self.available & (self.size - 1));
        // SAFETY: below the size, which the ring has room for.
        unsafe { self.avail_ring.add(at).write_volatile(head.to_le()) };
        self.available = self.available.wrapping_add(1);
    }

    /// Shows the device what was made available since. Answers whether it
    /// wants to be notified.
    #[inline(always)]
    pub fn publish(&mut self) -> bool {
        let (new, old) = (self.available, self.published);
        if new == old {
            return false;
        }
        self.published = new;
        show(self.avail_index, new);
        match self.event_idx {
            true => passed(self.avail_event.load(), new, old),
            false => self.used_flags.load() & NO_EVENTS == 0,
        }
    }

    /// What a notification says of the queue's position.
    pub fn position(&self) -> u16 {
        self.available
    }

    /// Whether there are used entries.
    #[inline(always)]
    pub fn any(&self) -> bool {
        any(self.used_index, self.taken)
    }

    /// The next used entry: each is taken once, and read once.
    #[inline(always)]
    pub fn next(&mut self, shift: u32, in_flight: u32) -> Next {
        if self.taken == self.seen {
            let Some(seen) = look(self.used_index, self.taken) else { return Next::Nothing };
            let new = seen.wrapping_sub(self.taken);
            if u32::from(new) > in_flight {
                return Next::Lie(Lie::Index(seen));
            }
            self.seen = seen;
        }
        let at = usize::from(self.taken & (self.size - 1)) * 2;
        self.taken = self.taken.wrapping_add(1);
        // SAFETY: below the size, which the ring has room for. Volatile, for
        // the device writes it.
        let (id, len) = unsafe {
            (self.used_ring.add(at).read_volatile(), self.used_ring.add(at + 1).read_volatile())
        };
        let (id, len) = (u32::from_le(id), u32::from_le(len));
        // A head is the first of its place's descriptors: other numbers turn
        // into places that there are not.
        Next::Used { place: id.rotate_right(shift), len }
    }
}
