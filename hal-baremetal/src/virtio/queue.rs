//! A virtqueue of either layout, and its memory.

use core::ptr::NonNull;

use annulus::hal::device::Coherent;

use super::QueueSetup;
use super::chain::{Chain, Table};
use super::packed::Packed;
use super::split::Split;

/// Where a request's descriptors go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The number of the place, which is the request's token for the device.
    pub id: u16,
    /// Split: its descriptors in the queue are 2^shift, from `id << shift` on.
    pub shift: u32,
    /// Its table and the entries of that, if its descriptors are there.
    pub indirect: Option<(Table, u16)>,
}

/// How a device lied. Its own requests end with `-EIO`, and it is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lie {
    /// Its index says that more was used than was in flight.
    Index(u16),
    /// It says to have used what was not in flight: never, or not any more.
    Id(u32),
    /// It says to have written more than there was room for.
    Length(u32),
    /// It used a request and wrote no status.
    NoStatus,
}

/// What [`Ring::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// The device is done with a place, or says so of a number that is none;
    /// and how much it has written.
    Used {
        place: u32,
        len: u32,
    },
    Lie(Lie),
}

/// One of the two halves of a queue's memory.
#[derive(Debug)]
pub(super) struct Part {
    pub at: NonNull<u8>,
    pub device: u64,
}

/// How a queue is to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub packed: bool,
    pub event_idx: bool,
    pub size: u16,
}

impl Layout {
    fn parts(self) -> ([usize; 3], usize) {
        if self.packed { Packed::layout(self.size) } else { Split::layout(self.size) }
    }

    /// Bytes of a half.
    fn half(self) -> usize {
        self.parts().1.next_multiple_of(64)
    }

    /// Bytes of a queue's memory.
    ///
    /// It has two halves, used in turn: after a reset the device is given the
    /// other one, so that a ring that does not know of the reset yet writes
    /// where nobody looks.
    pub fn bytes(self) -> usize {
        2 * self.half()
    }

    /// A half of a queue's memory.
    fn part(self, memory: &Coherent, second: bool) -> Part {
        let offset = if second { self.half() } else { 0 };
        assert!(offset + self.half() <= memory.len, "memory was allocated for this layout");
        // SAFETY: inside the memory, checked above.
        Part { at: unsafe { memory.ptr.add(offset) }, device: memory.device + offset as u64 }
    }

    /// What the device is told of a queue in a half of its memory.
    pub fn setup(self, memory: &Coherent, second: bool, vector: Option<u16>) -> QueueSetup {
        let ([descriptors, driver, device], _) = self.parts();
        let at = self.part(memory, second).device;
        QueueSetup {
            size: self.size,
            descriptors: at + descriptors as u64,
            driver: at + driver as u64,
            device: at + device as u64,
            vector,
            notification_data: false,
        }
    }

    /// A new queue in a half of its memory.
    ///
    /// # Safety
    /// Nobody uses that half, neither a ring nor the device; the memory lives
    /// as long as what is made here.
    pub unsafe fn ring(self, memory: &Coherent, second: bool) -> Ring {
        let part = self.part(memory, second);
        for word in 0..self.half() / 8 {
            // SAFETY: inside the half, and aligned: it is a multiple of 64.
            unsafe { part.at.cast::<u64>().add(word).write_volatile(0) };
        }
        // SAFETY: a half has the bytes of its layout; the rest is the caller's
        // promise.
        unsafe {
            match self.packed {
                true => Ring::Packed(Packed::new(&part, self.size, self.event_idx)),
                false => Ring::Split(Split::new(&part, self.size, self.event_idx)),
            }
        }
    }
}

/// A virtqueue as its driver has it.
#[derive(Debug, Clone)]
pub(super) enum Ring {
    Split(Split),
    Packed(Packed),
}

impl Ring {
    /// The queue for its next owner; this one does not use it any more.
    pub fn hand_over(&self) -> Self {
        self.clone()
    }

    /// See [`Split::hush`].
    pub fn hush(&self) {
        match self {
            Ring::Split(ring) => ring.hush(),
            Ring::Packed(ring) => ring.hush(),
        }
    }

    /// See [`Split::ask`].
    pub fn ask(&self) {
        match self {
            Ring::Split(ring) => ring.ask(),
            Ring::Packed(ring) => ring.ask(),
        }
    }

    /// See [`Split::open`].
    ///
    /// # Safety
    /// The place has no request in flight, and is one of this queue's.
    #[inline(always)]
    pub unsafe fn open(&self, place: Place) -> Chain {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Ring::Split(ring) => ring.open(place),
                Ring::Packed(ring) => ring.open(place),
            }
        }
    }

    /// Makes a chain available. Answers what [`took`](Self::took) wants to
    /// know of it.
    ///
    /// # Safety
    /// As for [`open`](Self::open), of the same place.
    #[inline(always)]
    pub unsafe fn close(&mut self, place: Place, chain: &Chain) -> u16 {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                Ring::Split(ring) => {
                    ring.close(place, chain);
                    1
                }
                Ring::Packed(ring) => ring.close(place, chain),
            }
        }
    }

    /// Shows the device what there is, and answers whether it wants to be
    /// notified.
    #[inline(always)]
    pub fn publish(&mut self) -> bool {
        match self {
            Ring::Split(ring) => ring.publish(),
            Ring::Packed(ring) => ring.publish(),
        }
    }

    /// What a notification says of the queue's position.
    pub fn position(&self) -> u16 {
        match self {
            Ring::Split(ring) => ring.position(),
            Ring::Packed(ring) => ring.position(),
        }
    }

    /// Whether there are used entries.
    #[inline(always)]
    pub fn any(&self) -> bool {
        match self {
            Ring::Split(ring) => ring.any(),
            Ring::Packed(ring) => ring.any(),
        }
    }

    /// The next used entry.
    #[inline(always)]
    pub fn next(&mut self, shift: u32, in_flight: u32) -> Next {
        match self {
            Ring::Split(ring) => ring.next(shift, in_flight),
            Ring::Packed(ring) => ring.next(),
        }
    }

    /// Goes on to the one after it: what [`close`](Self::close) answered.
    #[inline(always)]
    pub fn took(&mut self, count: u16) {
        if let Ring::Packed(ring) = self {
            ring.took(count);
        }
    }
}
