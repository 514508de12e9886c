//! Reads and writes that are one command with a short data pointer: the way of
//! most.

use core::ops::Deref;

use super::backend::NvmeBackend;
use super::identify::NamespaceInfo;
use super::queue::Places;
use super::spec::{Command, nvm};
use super::tracker::Tracker;
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
    places: Places<'a>,
    /// The tail at which there is no more room.
    full: u32,
    tick: u32,
    /// What the commands have in common of their first word.
    first: u64,
    buffer: P::Buffer,
    short_end: u64,
    /// Bits of a position that are not on the grid.
    grid: u32,
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
        let places = self.pair.sq.places();
        let room = self.most - self.in_flight;
        let first = Command { opcode, nsid: ns.id, ..Command::default() }.words(0)[0];
        Some(Short {
            platform: self.controller.platform(),
            trackers: self.trackers,
            full: places.tail().wrapping_add(room),
            places,
            tick: self.pace.tick(),
            first,
            buffer: *alike.buffer,
            short_end: ns.short_end,
            grid: ns.block() - 1,
            shift: ns.block_shift.into(),
        })
    }

    /// Short commands were issued, and this is the tail now.
    #[inline(always)]
    pub(super) fn went_short(&mut self, tail: u32) {
        self.in_flight += self.pair.sq.filled(tail);
    }
}

impl<P: Platform> Short<'_, P> {
    /// See [`NvmeBackend::went_short`].
    #[inline(always)]
    pub fn tail(self) -> u32 {
        self.places.tail()
    }

    /// How many commands can be issued.
    #[inline(always)]
    pub fn room(&self) -> u32 {
        self.full.wrapping_sub(self.places.tail())
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
        self.tail()
    }

    /// Issues a command, if a short one is all that there is to it. The caller
    /// sees to it that there is [`room`](Self::room).
    #[inline(always)]
    pub fn start(&mut self, piece: &Piece) -> bool {
        let &Piece { token, addr, len, off, op_flags } = piece;
        // Not empty, and no longer than a page, so in two at most, for which no
        // list is needed; on the grid; no flags: one test for all of these.
        let pages = len.wrapping_sub(1) / PAGE as u32;
        let odd = pages | (len | off as u32) & self.grid | op_flags;
        // A page away from the end.
        if odd != 0 || off >= self.short_end {
            return false;
        }
        let (buffer, addr) = (self.buffer, addr as usize);
        let span = self.platform.span(&buffer, addr);
        let data2 = match span.device & (PAGE as u64 - 1) == 0 {
            true => 0,
            false => match second_page(span, len as usize) {
                Some(second) => second,
                None => return false,
            },
        };
        let Some(tracker) = self.trackers.get_mut(token.index()) else { return false };
        let block = off.wrapping_shr(self.shift);
        let range = [block, u64::from(len).wrapping_shr(self.shift) - 1];
        if P::NEEDS_SYNC {
            self.platform.sync_for_device(addr, len as usize);
            tracker.command = Command {
                opcode: self.first as u8,
                nsid: (self.first >> 32) as u32,
                data1: span.device,
                data2,
                dword10: block as u32,
                dword11: (block >> 32) as u32,
                dword12: range[1] as u32,
                ..Command::default()
            };
            (tracker.source, tracker.addr) = (Source::Mapped(buffer), addr);
            (tracker.position, tracker.block_shift) = (off, self.shift as u8);
            (tracker.part, tracker.left, tracker.chunk) = (len.into(), 0, NONE);
        }
        let cid = tracker.hot.issue(P::NEEDS_SYNC, self.tick, token, len as i32);
        self.places.push([
            self.first | u64::from(cid << 16),
            span.device,
            data2,
            range[0],
            range[1],
        ]);
        true
    }
}

/// The second PRP entry of a page's worth at most that does not lie at a page's
/// start: 0 if it does not go into the next page. `None` if it cannot be told in
/// this way.
#[inline(never)]
fn second_page(span: Span, len: usize) -> Option<u64> {
    match span.device as usize % PAGE {
        offset if offset % 4 != 0 => None,
        offset if len <= PAGE - offset => Some(0),
        _ if fault::on(Fault::SecondPageLost) => Some(span.device),
        offset if span.len >= len => Some(span.device + (PAGE - offset) as u64),
        _ => None,
    }
}
