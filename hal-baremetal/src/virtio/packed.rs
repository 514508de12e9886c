//! The packed virtqueue (section 2.8).

use core::ptr::NonNull;

use super::chain::{Chain, Order, Position, Table};
use super::queue::{Next, Part, Place};
use super::shared::{Index, Word, ask, barrier, passed};
use super::spec::{DESCRIPTOR_BYTES, descriptor, event};

/// One ring of descriptors, which driver and device write in turn.
///
/// A used descriptor is read once, and nothing but its flags, id and length;
/// how many places its chain takes is what the driver remembers.
#[derive(Debug, Clone)]
pub(super) struct Packed {
    table: Table,
    size: u16,
    next: Position,
    taken: Position,
    /// Descriptors made available, free-running, and how many of them the
    /// device was told of.
    available: u16,
    published: u16,
    event_idx: bool,
    driver_event: Word<u16>,
    driver_flags: Word<u16>,
    device_event: Word<u32>,
}

// SAFETY: memory of a queue, which belongs to no thread; whoever has this is
// the only one here to touch it.
unsafe impl Send for Packed {}

impl Packed {
    /// Where the three parts are, and the bytes of it all.
    pub fn layout(size: u16) -> ([usize; 3], usize) {
        // The two words for events on cache lines of their own.
        let driver = (usize::from(size) * DESCRIPTOR_BYTES).next_multiple_of(64);
        ([0, driver, driver + 64], driver + 128)
    }

    /// A queue in zeroed memory.
    ///
    /// # Safety
    /// As for [`Split::new`](super::split::Split::new).
    pub unsafe fn new(part: &Part, size: u16, event_idx: bool) -> Self {
        let ([_, driver, device], _) = Self::layout(size);
        // SAFETY: inside the part, as the layout says, and aligned as it is.
        let queue = unsafe {
            Self {
                table: Table { at: part.at.cast(), device: part.device },
                size,
                next: Position::FIRST,
                taken: Position::FIRST,
                available: 0,
                published: 0,
                event_idx,
                driver_event: Word::new(part.at.add(driver)),
                driver_flags: Word::new(part.at.add(driver + 2)),
                device_event: Word::new(part.at.add(device)),
            }
        };
        queue.hush();
        queue
    }

    /// No interrupts, until [`ask`](Self::ask).
    pub fn hush(&self) {
        self.driver_flags.store(event::DISABLE);
    }

    /// An interrupt for the next used entry. Whoever asks looks again before
    /// it sleeps.
    pub fn ask(&self) {
        if self.event_idx {
            self.driver_event.store(self.taken.to_event());
            // The flags say that the event means something.
            barrier::write();
            ask(self.driver_flags, event::DESC);
        } else {
            ask(self.driver_flags, event::ENABLE);
        }
    }

    /// Opens a chain for the request of `place`.
    ///
    /// # Safety
    /// The place has no request in flight, and so many of them are in flight
    /// that its descriptors find room.
    #[inline(always)]
    pub unsafe fn open(&self, place: Place) -> Chain {
        match place.indirect {
            // SAFETY: the caller's promise.
            Some((table, room)) => unsafe { Chain::new(table, Order::Listed, room, place.id) },
            // SAFETY: as above; what is not in flight is free, and follows
            // what is.
            None => unsafe { Chain::new(self.table, Order::Ring(self.next), self.size, place.id) },
        }
    }

    /// Makes a chain available. Answers how many places it takes.
    ///
    /// # Safety
    /// As for [`open`](Self::open), of the same place.
    #[inline(always)]
    pub unsafe fn close(&mut self, place: Place, chain: &Chain) -> u16 {
        let at = usize::from(self.next.at) * (DESCRIPTOR_BYTES / 8);
        // SAFETY: a position is below the size.
        let at = unsafe { self.table.at.add(at) };
        let (count, flags) = match place.indirect {
            Some((table, _)) => {
                let len = u32::from(chain.count) * DESCRIPTOR_BYTES as u32;
                // SAFETY: as above; volatile, for the device reads it.
                unsafe {
                    at.write_volatile(table.device.to_le());
                    at.add(1).cast::<u32>().write_volatile(len.to_le());
                    at.add(1).cast::<u16>().add(2).write_volatile(place.id.to_le());
                }
                (1, descriptor::INDIRECT | self.next.available())
            }
            None => (chain.count, chain.first_flags),
        };
        // The device that sees these flags sees the rest of the chain.
        barrier::write();
        // SAFETY: as above.
        unsafe { at.add(1).cast::<u16>().add(3).write_volatile(flags.to_le()) };
        self.next = self.next.plus(count, self.size);
        self.available = self.available.wrapping_add(count);
        count
    }

    /// Answers whether the device wants to be notified of what was made
    /// available since the last time.
    #[inline(always)]
    pub fn publish(&mut self) -> bool {
        let added = self.available.wrapping_sub(self.published);
        if added == 0 {
            return false;
        }
        self.published = self.available;
        // Between our flags and the device's wish.
        barrier::full();
        let wish = self.device_event.load();
        let (at, flags) = (wish as u16, (wish >> 16) as u16 & 3);
        match flags {
            event::DISABLE => false,
            event::DESC if self.event_idx => {
                // Both counted from this round of the ring on.
                let round = if (at >> 15 != 0) == self.next.wrap { 0 } else { self.size };
                let event = (at & 0x7fff).wrapping_sub(round);
                let new = self.next.at;
                passed(event, new, new.wrapping_sub(added))
            }
            _ => true,
        }
    }

    /// What a notification says of the queue's position.
    pub fn position(&self) -> u16 {
        self.next.to_event()
    }

    fn word(&self, word: usize) -> NonNull<u16> {
        let at = usize::from(self.taken.at) * (DESCRIPTOR_BYTES / 2) + word;
        // SAFETY: a position is below the size; `word` is below 8.
        unsafe { self.table.at.cast::<u16>().add(at) }
    }

    /// Whether there are used entries.
    #[inline(always)]
    pub fn any(&self) -> bool {
        // SAFETY: see `word`. Volatile, for the device writes it.
        self.taken.is_used(u16::from_le(unsafe { self.word(7).read_volatile() }))
    }

    /// The next used entry, which stays the next until [`took`](Self::took).
    #[inline(always)]
    pub fn next(&self) -> Next {
        if !self.any() {
            return Next::Nothing;
        }
        // Nothing else of the entry is read before its flags.
        barrier::read();
        // SAFETY: as in `any`.
        let (id, len) =
            unsafe { (self.word(6).read_volatile(), self.word(4).cast::<u32>().read_volatile()) };
        Next::Used { place: u16::from_le(id).into(), len: u32::from_le(len) }
    }

    /// Takes the next used entry, of a chain of so many places.
    #[inline(always)]
    pub fn took(&mut self, count: u16) {
        self.taken = self.taken.plus(count, self.size);
    }
}
