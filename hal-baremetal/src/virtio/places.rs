//! The places of a queue: where a request's descriptors go, and what else of
//! it the device reaches.

use core::ops::Deref;

use super::backend::{DiskBackend, QueueOptions};
use super::chain::Table;
use super::queue::Place;
use super::spec::DESCRIPTOR_BYTES;
use super::{Disk, DiskInfo, Platform, Transport};

// What the device reaches of a place, besides its table: the request's
// header, its status, and what a request has for data that is not the
// application's (a range, the answer to GET_ID).
pub(super) const STATUS: usize = 16;
const TABLE: usize = 32;
const EXTRA_BYTES: usize = 32;

/// How a queue's places are laid out.
pub(super) struct Places {
    pub most: u32,
    pub pieces: u16,
    pub shift: u32,
    pub stride: usize,
}

impl Places {
    /// `None` if the queue has no room for a single request.
    pub fn of(
        options: &QueueOptions,
        info: &DiskInfo,
        size: u16,
        indirect: bool,
        trackers: usize,
    ) -> Option<Self> {
        // A chain is not longer than the queue (section 2.7.5.3.1), and has a
        // header and a status.
        let limit = size.checked_sub(2).filter(|limit| *limit != 0)?;
        let segments = info.segments.min(u32::from(u16::MAX)) as u16;
        let pieces = options.segments.min(segments).min(limit);
        // What a block needs has room whatever the caller says.
        let least = info.block.div_ceil(info.segment_bytes.max(1));
        // With less, no part of a request would come to a block.
        let least = u16::try_from(least).ok().filter(|least| *least <= limit)?;
        let pieces = pieces.max(least);
        let (shift, pieces) = if indirect {
            (0, pieces)
        } else {
            // As many descriptors a place as the depth leaves room for; no more
            // than are used.
            let useful = u32::from(pieces + 2).next_power_of_two().min(size.into());
            let needed = u32::from(least + 2).next_power_of_two();
            let depth = options.depth.min(trackers as u32).next_power_of_two();
            let each = (u32::from(size) / depth).clamp(needed, useful.max(needed));
            if each > u32::from(size) {
                return None;
            }
            (each.ilog2(), pieces.min(each as u16 - 2))
        };
        let most = (u32::from(size) >> shift).min(options.depth).min(trackers as u32);
        let table = if indirect { (usize::from(pieces) + 2) * DESCRIPTOR_BYTES } else { 0 };
        let stride = (TABLE + table + EXTRA_BYTES).next_multiple_of(64);
        Some(Self { most, pieces, shift, stride })
    }
}

impl<P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'_, P, T, D> {
    /// What the device reaches of a place.
    #[inline(always)]
    pub(super) fn memory(&self, id: u16) -> Table {
        let offset = usize::from(id) * self.stride;
        debug_assert!(offset + self.stride <= self.places.len);
        // SAFETY: inside the memory: a place is below `most`, for which it was
        // allocated.
        let at = unsafe { self.places.ptr.add(offset) };
        Table { at: at.cast(), device: self.places.device + offset as u64 }
    }

    /// Where the descriptors of a place go.
    #[inline(always)]
    pub(super) fn place(&self, id: u16, memory: Table) -> Place {
        let indirect = self.indirect.then(|| {
            // SAFETY: as in `memory`.
            let at = unsafe { memory.at.byte_add(TABLE) };
            (Table { at, device: memory.device + TABLE as u64 }, self.pieces + 2)
        });
        Place { id, shift: self.shift, indirect }
    }

    /// Memory of a place for data that are not the application's.
    pub(super) fn extra(&self, memory: Table) -> Table {
        let offset = self.stride - EXTRA_BYTES;
        // SAFETY: as in `memory`.
        let at = unsafe { memory.at.byte_add(offset) };
        Table { at, device: memory.device + offset as u64 }
    }
}
