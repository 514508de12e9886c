//! Reads and writes that are one command with a short data pointer: the way of
//! most.

use core::ops::Deref;

use super::backend::NvmeBackend;
use super::identify::NamespaceInfo;
use super::queue::Places;
use super::spec::{Command, nvm};
use super::tracker::{Tracker, stamp};
use super::{Controller, Platform};
use crate::block::{NONE, Source};
use crate::fault::{self, Fault};
use crate::hal::device::{PAGE, Span};
use crate::hal::{Alike, Piece, Run, Start};
use crate::uapi;

/// Issues short commands that differ in nothing but their pieces, with
/// everything else looked up.
pub(super) struct Short<'a, P: Platform> {
    platform: &'a P,
    trackers: &'a mut [Tracker<P::Buffer>],
    /// Places, as there were at first.
    room: u32,
    places: Places<'a>,
    /// See [`stamp`].
    stamp: u64,
    /// What the commands have in common of their first word.
    first: u64,
    buffer: P::Buffer,
    /// See [`NamespaceInfo`].
    short_end: u64,
    /// Blocks of a page.
    most: u32,
    shift: u32,
}

impl<'m, P: Platform, C: Deref<Target = Controller<P>>> NvmeBackend<'m, P, C> {
    /// For requests like this one, if commands can be issued: there is a queue
    /// pair, and nobody waits.
    #[inline(always)]
    pub(super) fn short(
        &mut self,
        alike: Alike<'_, NamespaceInfo, P::Buffer>,
    ) -> Option<Short<'_, P>> {
        let ns = alike.file;
        let opcode = match alike.opcode {
            uapi::IORING_OP_READ_FIXED => nvm::READ,
            uapi::IORING_OP_WRITE_FIXED if !ns.read_only => nvm::WRITE,
            _ => return None,
        };
        if self.controller.state() != self.gate {
            return None;
        }
        let places = self.pair.sq.places(self.most - self.in_flight);
        let first = Command { opcode, nsid: ns.id, ..Command::default() }.words(0)[0];
        Some(Short {
            platform: self.controller.platform(),
            trackers: self.trackers,
            room: places.left(),
            places,
            stamp: stamp(self.pace.tick()),
            first,
            buffer: *alike.buffer,
            short_end: ns.short_end,
            most: PAGE as u32 >> ns.block_shift,
            shift: ns.block_shift.into(),
        })
    }

    /// This many short commands were issued.
    #[inline(always)]
    pub(super) fn went_short(&mut self, count: u32) {
        self.in_flight += count;
        self.pair.sq.filled(count);
    }
}

impl<P: Platform> Short<'_, P> {
    /// See [`NvmeBackend::went_short`].
    #[inline(always)]
    pub fn count(self) -> u32 {
        self.room - self.places.left()
    }

    /// How many commands can be issued, until the queue is full or its memory
    /// begins anew.
    #[inline(always)]
    pub fn room(&self) -> u32 {
        self.room
    }

    /// Issues commands for as long as short ones are all that there is to them.
    #[inline(always)]
    pub fn start_all(mut self, run: &mut impl Run) -> u32 {
        while let Some(piece) = run.next() {
            if !self.start(&piece) {
                // A piece that is kept for later costs those that are not.
                run.take_back();
                break;
            }
            if !run.answer(Start::Pending) {
                break;
            }
        }
        self.count()
    }

    /// Issues a command, if a short one is all that there is to it, and there
    /// is a place for it.
    #[inline(always)]
    pub fn start(&mut self, piece: &Piece) -> bool {
        let &Piece { token, addr, len, off } = piece;
        // Of no command in flight: the slot has just been given this request.
        let Some(tracker) = self.trackers.get_mut(token.index()) else { return false };
        (tracker.hot.token, tracker.hot.result) = (token, len as i32);
        // What is off the grid comes to the top, and is more than any number of
        // blocks; so is an empty request's last block.
        let block = off.rotate_right(self.shift);
        let last = len.rotate_right(self.shift).wrapping_sub(1);
        // On the grid, not empty, and no longer than a page, so in two at most,
        // for which no list is needed; a page away from the end.
        if block >= self.short_end || last >= self.most {
            return false;
        }
        let (buffer, addr) = (self.buffer, addr as usize);
        let span = self.platform.span(&buffer, addr);
        let Some(data2) = second_page(span, len as usize) else { return false };
        let Some(place) = self.places.take() else { return false };
        if P::NEEDS_SYNC {
            self.platform.sync_for_device(addr, len as usize);
            tracker.command = Command {
                opcode: self.first as u8,
                nsid: (self.first >> 32) as u32,
                data1: span.device,
                data2,
                dword10: block as u32,
                dword11: (block >> 32) as u32,
                dword12: last,
                ..Command::default()
            };
            (tracker.source, tracker.addr) = (Source::Mapped(buffer), addr);
            (tracker.position, tracker.block_shift) = (off, self.shift as u8);
            (tracker.part, tracker.left, tracker.chunk) = (len.into(), 0, NONE);
        }
        let cid = tracker.hot.issue(P::NEEDS_SYNC, self.stamp);
        place.fill([self.first | cid, span.device, data2, block, last.into()]);
        true
    }
}

/// The second PRP entry of a page's worth at most: 0 if that does not go into a
/// second page. `None` if it cannot be told in this way.
#[inline(always)]
fn second_page(span: Span, len: usize) -> Option<u64> {
    match span.device as usize % PAGE {
        0 => Some(0),
        offset if offset % 4 != 0 => None,
        offset if len <= PAGE - offset => Some(0),
        _ if fault::on(Fault::SecondPageLost) => Some(span.device),
        offset if span.len >= len => Some(span.device + (PAGE - offset) as u64),
        _ => None,
    }
}
