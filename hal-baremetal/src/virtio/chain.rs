//! A request's descriptors, on their way to the device.

use core::ptr::NonNull;

use super::spec::{DESCRIPTOR_BYTES, descriptor};

/// A table that a chain is written to: only the driver writes it, and never
/// reads it again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table {
    pub at: NonNull<u64>,
    pub device: u64,
}

/// How the descriptors of a chain follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// By their `next` fields, counted from this one on (split).
    Linked(u16),
    /// One after the other (the indirect table of a packed queue).
    Listed,
    /// One after the other in a packed queue's ring, which wraps.
    Ring(Position),
}

/// A place in a packed queue's ring, with its wrap counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub at: u16,
    pub wrap: bool,
}

impl Position {
    /// Where both sides begin.
    pub const FIRST: Self = Self { at: 0, wrap: true };

    /// `count` places on; no more than `size`.
    #[inline(always)]
    pub fn plus(self, count: u16, size: u16) -> Self {
        let at = u32::from(self.at) + u32::from(count);
        match at < u32::from(size) {
            true => Self { at: at as u16, wrap: self.wrap },
            false => Self { at: (at - u32::from(size)) as u16, wrap: !self.wrap },
        }
    }

    /// As the words for events have it.
    #[inline(always)]
    pub fn to_event(self) -> u16 {
        self.at | u16::from(self.wrap) << 15
    }

    /// The flags of a descriptor that becomes available here.
    #[inline(always)]
    pub fn available(self) -> u16 {
        if self.wrap { descriptor::AVAIL } else { descriptor::USED }
    }

    /// Whether a descriptor here with these flags was used.
    #[inline(always)]
    pub fn is_used(self, flags: u16) -> bool {
        let both = descriptor::AVAIL | descriptor::USED;
        flags & both == if self.wrap { both } else { 0 }
    }
}

/// A chain that is being written.
#[derive(Debug)]
pub(super) struct Chain {
    table: Table,
    order: Order,
    /// Entries of the table or of the ring.
    room: u16,
    id: u16,
    pub count: u16,
    /// In a ring: what makes the first descriptor available, when the others
    /// are all there.
    pub first_flags: u16,
}

impl Chain {
    /// A chain of request `id`, in a table of `room` entries.
    ///
    /// # Safety
    /// The table has that room; it is used by no request in flight.
    #[inline(always)]
    pub unsafe fn new(table: Table, order: Order, room: u16, id: u16) -> Self {
        Self { table, order, room, id, count: 0, first_flags: 0 }
    }

    /// The next piece; not the last.
    #[inline(always)]
    pub fn add(&mut self, device: u64, len: u32, writes: bool) {
        let flags = if writes { descriptor::WRITE } else { 0 };
        self.write(device, len, flags | descriptor::NEXT);
    }

    /// The last piece, which the device writes: a request's status.
    #[inline(always)]
    pub fn end(&mut self, device: u64, len: u32) {
        self.write(device, len, descriptor::WRITE);
    }

    #[inline(always)]
    fn write(&mut self, device: u64, len: u32, flags: u16) {
        assert!(self.count < self.room, "as many pieces as were planned for");
        // The two layouts differ in what their last words are: split has the
        // flags first, packed the id.
        let last = match self.order {
            Order::Linked(base) if flags & descriptor::NEXT != 0 => {
                let next = base.wrapping_add(self.count + 1);
                u64::from(flags) << 32 | u64::from(next) << 48
            }
            Order::Linked(_) => u64::from(flags) << 32,
            // There NEXT is reserved (section 2.8.7), and the id not used.
            Order::Listed => u64::from(flags & !descriptor::NEXT) << 48,
            Order::Ring(first) => return self.write_in_ring(first, device, len, flags),
        };
        let word = usize::from(self.count) * (DESCRIPTOR_BYTES / 8);
        // SAFETY: inside the table (`new`): below `room`. Volatile, for the
        // device reads it.
        unsafe {
            self.table.at.add(word).write_volatile(device.to_le());
            self.table.at.add(word + 1).write_volatile((u64::from(len) | last).to_le());
        }
        self.count += 1;
    }

    /// All of it but the first one's flags: before these the device looks at
    /// nothing.
    fn write_in_ring(&mut self, first: Position, device: u64, len: u32, flags: u16) {
        let here = first.plus(self.count, self.room);
        let flags = flags | here.available();
        // SAFETY: as above: a place of the ring is below its size.
        unsafe {
            let at = self.table.at.add(usize::from(here.at) * (DESCRIPTOR_BYTES / 8));
            at.write_volatile(device.to_le());
            at.add(1).cast::<u32>().write_volatile(len.to_le());
            let at = at.add(1).cast::<u16>();
            at.add(2).write_volatile(self.id.to_le());
            match self.count {
                0 => self.first_flags = flags,
                _ => at.add(3).write_volatile(flags.to_le()),
            }
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_wrap() {
        let mut at = Position::FIRST;
        for step in 0..40u16 {
            assert_eq!((at.at, at.wrap), (step * 3 % 8, step * 3 / 8 % 2 == 0));
            assert!(!at.is_used(at.available()), "available is not used");
            at = at.plus(3, 8);
        }
        assert_eq!(Position { at: 5, wrap: true }.to_event(), 0x8005);
        assert_eq!(Position::FIRST.plus(8, 8), Position { at: 0, wrap: false });
    }
}
