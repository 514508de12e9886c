//! From a plan to descriptors: parts, one after the other from the same slot.

use core::ops::Deref;

use annulus::block::{NONE, Source};
use annulus::hal::{Start, Token};

use super::backend::DiskBackend;
use super::chain::Table;
use super::places::STATUS;
use super::plan::Plan;
use super::spec::{HEADER_BYTES, RANGE_BYTES, SECTOR_SHIFT, request as kind};
use super::tracker::{Hot, Issued};
use super::{Disk, Platform, Transport};

/// A status byte that no device writes: it has written none.
pub(super) const NO_STATUS: u8 = 0xff;

/// A request's header and status, as the device finds them.
///
/// # Safety
/// The memory of a place that has no request in flight.
#[inline(always)]
pub(super) unsafe fn head(memory: Table, kind: u32, position: u64) {
    // Type and a reserved word; the sector (section 5.2.6).
    // SAFETY: a place has room for them at its start; volatile, for the device
    // reads them.
    unsafe {
        memory.at.write_volatile(u64::from(kind).to_le());
        memory.at.add(1).write_volatile((position >> SECTOR_SHIFT).to_le());
        memory.at.cast::<u8>().add(STATUS).write_volatile(NO_STATUS);
    }
}

impl<'m, P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'m, P, T, D> {
    /// Puts a planned request into its tracker, and starts it if it can be.
    #[inline(never)]
    pub(super) fn enter(&mut self, token: Token, plan: Plan<P::Buffer>) -> Start {
        let index = token.index() as u16;
        let tracker = &mut self.trackers[token.index()];
        tracker.token = token.to_raw();
        (tracker.kind, tracker.flags) = (plan.kind, plan.flags);
        (tracker.source, tracker.addr) = (plan.source, plan.addr);
        tracker.position = plan.position;
        (tracker.part, tracker.left) = (0, plan.bytes);
        (tracker.result, tracker.sync) = (plan.result, plan.sync);
        tracker.chunk = NONE;
        if !self.live() || !self.waiting.is_empty() || !self.issue(index) {
            self.waiting.push(self.trackers, index);
            self.set_gate();
            self.stats.waited += 1;
        }
        Start::Pending
    }

    /// Takes a free place.
    #[inline(always)]
    pub(super) fn take_place(&mut self) -> Option<u16> {
        let id = self.free;
        self.free = self.trackers.get(usize::from(id))?.hot.next;
        Some(id)
    }

    /// The device is done with a place.
    #[inline(always)]
    pub(super) fn free_place(&mut self, id: u16) {
        let hot = &mut self.trackers[usize::from(id)].hot;
        hot.issued = Issued::No;
        hot.next = self.free;
        self.free = id;
    }

    /// Issues the next part of a request. False, and nothing happened, if
    /// there is no place in the queue or no bounce buffer.
    pub(super) fn issue(&mut self, index: u16) -> bool {
        let slot = usize::from(index);
        if self.free == NONE {
            return false;
        }
        let copied = self.trackers[slot].source.is_copied();
        if copied && self.trackers[slot].chunk == NONE {
            let Some(chunk) = self.copies.take() else { return false };
            self.trackers[slot].chunk = chunk;
            self.stats.bounced += 1;
        }
        let part = self.next_part(slot);
        let Some(id) = self.take_place() else { return false };
        let memory = self.memory(id);
        let place = self.place(id, memory);
        let tracker = &self.trackers[slot];
        let (kind, addr) = (tracker.kind, tracker.addr);
        // A range names its position itself (section 5.2.6.1), and of a flush
        // it is zero.
        let position = match kind {
            kind::IN | kind::OUT => tracker.position,
            _ => 0,
        };
        // SAFETY: a free place was taken, so it has nothing in flight.
        let mut chain = unsafe {
            head(memory, kind, position);
            self.ring.open(place)
        };
        chain.add(memory.device, HEADER_BYTES, false);
        let reads = kind == kind::IN;
        let mut add = |device, len| chain.add(device, len, reads);
        let platform = self.disk.platform();
        match tracker.source {
            Source::None if matches!(kind, kind::DISCARD | kind::WRITE_ZEROES) => {
                let extra = self.extra(memory);
                let sectors = part >> SECTOR_SHIFT;
                let last = sectors | u64::from(tracker.flags) << 32;
                // SAFETY: the place's own memory, as above.
                unsafe {
                    extra.at.write_volatile((tracker.position >> SECTOR_SHIFT).to_le());
                    extra.at.add(1).write_volatile(last.to_le());
                }
                add(extra.device, RANGE_BYTES);
            }
            Source::None => {}
            Source::Mapped(buffer) => {
                platform.sync_for_device(addr, part as usize);
                let (piece, most) = (self.piece, self.pieces);
                let span = |skip| {
                    let span = platform.span(&buffer, addr + skip);
                    (span.device, span.len)
                };
                pieces(part as usize, piece, most, span, &mut add);
            }
            Source::Copied | Source::Vectors(_) => {
                let device = self.copies.device(tracker.chunk);
                if !reads {
                    let (chunk, source) = (tracker.chunk, &tracker.source);
                    // SAFETY: the request's memory (`start`'s promise), and a
                    // chunk that is this request's alone.
                    unsafe { self.copies.fill(chunk, source, addr, part as usize) };
                }
                let span = |skip| (device + skip as u64, usize::MAX);
                pieces(part as usize, self.piece, self.pieces, span, &mut add);
            }
        }
        chain.end(memory.device + STATUS as u64, 1);
        // SAFETY: as for `open`.
        let count = unsafe { self.ring.close(place, &chain) };
        let tracker = &mut self.trackers[slot];
        tracker.part = part;
        tracker.left -= part;
        let (token, result) = (tracker.token, tracker.result);
        self.trackers[usize::from(id)].hot = Hot {
            token,
            result,
            stamp: self.pace.tick(),
            most: if reads { part as u32 + 1 } else { 1 },
            count,
            next: NONE,
            issued: Issued::Complex,
        };
        self.in_flight += 1;
        true
    }

    /// How many bytes the next part of a request has.
    fn next_part(&self, slot: usize) -> u64 {
        let tracker = &self.trackers[slot];
        let limit = match (tracker.source, tracker.kind) {
            (_, kind::DISCARD) => self.info.max_discard,
            (_, kind::WRITE_ZEROES) => self.info.max_zeroes,
            (Source::Copied | Source::Vectors(_), _) => {
                u64::from(self.max_part).min(self.copies.chunk() as u64)
            }
            _ => self.max_part.into(),
        };
        let part = tracker.left.min(limit);
        let fits = match tracker.source {
            Source::None => return part,
            Source::Mapped(buffer) => {
                let platform = self.disk.platform();
                let span = |skip| {
                    let span = platform.span(&buffer, tracker.addr + skip);
                    (span.device, span.len)
                };
                pieces(part as usize, self.piece, self.pieces, span, &mut |_, _| ())
            }
            _ => (usize::from(self.pieces)).saturating_mul(self.piece as usize),
        };
        part.min(fits as u64) & !self.block_mask
    }

    /// A part of a request has ended well. Answers the result if it was the
    /// last; otherwise the next is under way, or waits.
    pub(super) fn part_done(&mut self, index: u16) -> Option<i32> {
        let slot = usize::from(index);
        let tracker = &mut self.trackers[slot];
        let bytes = tracker.part;
        if tracker.kind == kind::IN {
            let part = bytes as usize;
            match &tracker.source {
                Source::Mapped(_) => self.disk.platform().sync_for_cpu(tracker.addr, part),
                source => {
                    // SAFETY: as for the way there, in `issue`.
                    unsafe { self.copies.empty(tracker.chunk, source, tracker.addr, part) };
                }
            }
        }
        tracker.position += bytes;
        if !matches!(tracker.source, Source::None) {
            tracker.addr += bytes as usize;
        }
        if tracker.left == 0 && !tracker.sync {
            let result = tracker.result;
            self.free_parts(index);
            return Some(result);
        }
        if tracker.left == 0 {
            // All is written; now it is to last.
            tracker.sync = false;
            tracker.kind = kind::FLUSH;
            let result = tracker.result;
            self.free_parts(index);
            self.trackers[slot].result = result;
        }
        if !self.live() || !self.issue(index) {
            // Before those that wait for what it holds.
            self.waiting.push_first(self.trackers, index);
            self.set_gate();
        }
        None
    }

    /// Gives back what a request holds besides its place.
    pub(super) fn free_parts(&mut self, index: u16) {
        let tracker = &mut self.trackers[usize::from(index)];
        self.copies.give_back(&mut tracker.chunk, &mut tracker.source);
    }
}

/// Calls `f` with each piece of `len` bytes of memory, as `span` finds them:
/// what follows each other is one piece, none is longer than `piece`, and
/// there are `most`. Answers the bytes of them all.
fn pieces(
    len: usize,
    piece: u32,
    most: u16,
    span: impl Fn(usize) -> (u64, usize),
    f: &mut impl FnMut(u64, u32),
) -> usize {
    let mut at = 0;
    let mut left = most;
    // A run of memory that goes on for the device.
    let (mut device, mut run) = (0, 0usize);
    while left != 0 && at + run < len {
        let (next, more) = span(at + run);
        let more = more.min(len - at - run);
        if run != 0 && next != device + run as u64 {
            let used = cut(device, run, piece, &mut left, f);
            at += used;
            if used < run {
                return at;
            }
            run = 0;
        }
        if run == 0 {
            device = next;
        }
        run += more;
    }
    at + cut(device, run, piece, &mut left, f)
}

/// Cuts a run into pieces.
fn cut(device: u64, run: usize, piece: u32, left: &mut u16, f: &mut impl FnMut(u64, u32)) -> usize {
    let mut at = 0;
    while at < run && *left != 0 {
        let len = (run - at).min(piece as usize);
        f(device + at as u64, len as u32);
        at += len;
        *left -= 1;
    }
    at
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    fn all(len: usize, piece: u32, most: u16, spans: &[(u64, usize)]) -> (usize, Vec<(u64, u32)>) {
        let span = |skip: usize| {
            let mut from = 0;
            for &(device, len) in spans {
                if skip < from + len {
                    return (device + (skip - from) as u64, len - (skip - from));
                }
                from += len;
            }
            panic!("beyond the spans")
        };
        let mut found = Vec::new();
        let bytes = pieces(len, piece, most, span, &mut |device, len| found.push((device, len)));
        (bytes, found)
    }

    #[test]
    fn what_follows_is_one_piece_and_none_is_too_long() {
        let spans = [(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 0x1000)];
        let whole = 0x3000;
        assert_eq!(
            all(whole, u32::MAX, 9, &spans),
            (whole, [(0x1000, 0x2000), (0x8000, 0x1000)].into())
        );
        assert_eq!(all(whole, u32::MAX, 1, &spans), (0x2000, [(0x1000, 0x2000)].into()));
        assert_eq!(
            all(0x2800, 0x1800, 9, &spans),
            (0x2800, [(0x1000, 0x1800), (0x2800, 0x800), (0x8000, 0x800)].into())
        );
        assert_eq!(all(whole, 0x800, 3, &spans).0, 0x1800);
        assert_eq!(all(0x200, u32::MAX, 9, &spans), (0x200, [(0x1000, 0x200)].into()));
    }
}
