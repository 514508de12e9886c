//! What a backend keeps of each request: one tracker a slot.
//!
//! The device cannot write here (DESIGN invariant 2): what a completion says
//! is checked against this.

use super::spec::Command;

/// No chunk, no block of vectors, end of a list.
pub(super) const NONE: u16 = u16::MAX;

/// The bits of a command identifier that name the slot; the rest is the
/// command's number, so that a late or repeated completion is seen to be one.
pub(super) const SLOT_BITS: u32 = 12;
/// The most slots of a queue pair.
pub(super) const MAX_SLOTS: usize = 1 << SLOT_BITS;

/// Where a tracker's request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// There is no request.
    Idle,
    /// It waits for a place in the queue, or for a bounce buffer.
    Waiting,
    /// The device has a command of it.
    Issued,
}

/// Where the data of a request are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<B> {
    /// There are none.
    None,
    /// In a registered buffer.
    Mapped(B),
    /// In memory that the device cannot reach, in one piece.
    Copied,
    /// The same, in pieces: this block of vectors.
    Vectors(u16),
}

/// The state of one slot's request. Made by [`Tracker::new`], given to
/// [`NvmeBackend::new`](super::NvmeBackend::new), one for each request of the
/// ring and one for the reserve.
#[derive(Debug)]
pub struct Tracker<B> {
    // What every command touches.
    /// The identifier of the command that the device has, or had.
    pub(super) cid: u16,
    pub(super) stage: Stage,
    /// More than one lookup is needed when the command ends well: there are
    /// more parts, or data to copy.
    pub(super) complex: bool,
    /// The tick in which the command was issued.
    pub(super) stamp: u16,
    /// An abort was asked for.
    pub(super) aborted: bool,
    pub(super) token: u32,
    /// The result if all goes well.
    pub(super) result: i32,
    // What only the others do.
    pub(super) next: u16,
    pub(super) chunk: u16,
    pub(super) command: Command,
    pub(super) source: Source<B>,
    pub(super) block_shift: u8,
    /// Memory: the address of the current part, or the bytes of the vectors
    /// that the parts before it have used.
    pub(super) addr: usize,
    /// The current part's position on the namespace, in bytes.
    pub(super) position: u64,
    /// Bytes of the current part, and after it.
    pub(super) part: u64,
    pub(super) left: u64,
}

impl<B> Tracker<B> {
    /// Of a slot without a request.
    pub const fn new() -> Self {
        Self {
            cid: 0,
            stage: Stage::Idle,
            complex: false,
            stamp: 0,
            aborted: false,
            token: 0,
            result: 0,
            next: NONE,
            chunk: NONE,
            command: Command {
                opcode: 0,
                psdt: 0,
                nsid: 0,
                data1: 0,
                data2: 0,
                dword10: 0,
                dword11: 0,
                dword12: 0,
            },
            source: Source::None,
            block_shift: 0,
            addr: 0,
            position: 0,
            part: 0,
            left: 0,
        }
    }

    /// The identifier of this slot's next command.
    #[inline(always)]
    pub(super) fn next_cid(&self) -> u16 {
        self.cid.wrapping_add(1 << SLOT_BITS)
    }
}

impl<B> Default for Tracker<B> {
    fn default() -> Self {
        Self::new()
    }
}

/// Requests that wait, in order, threaded through the trackers.
#[derive(Debug)]
pub(super) struct Waiting {
    first: u16,
    last: u16,
}

impl Waiting {
    pub const fn new() -> Self {
        Self { first: NONE, last: NONE }
    }

    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.first == NONE
    }

    pub fn first(&self) -> Option<u16> {
        (self.first != NONE).then_some(self.first)
    }

    pub fn push<B>(&mut self, trackers: &mut [Tracker<B>], index: u16) {
        trackers[usize::from(index)].next = NONE;
        match trackers.get_mut(usize::from(self.last)) {
            Some(last) if self.first != NONE => last.next = index,
            _ => self.first = index,
        }
        self.last = index;
    }

    /// Puts a request before all others.
    pub fn push_first<B>(&mut self, trackers: &mut [Tracker<B>], index: u16) {
        trackers[usize::from(index)].next = self.first;
        if self.is_empty() {
            self.last = index;
        }
        self.first = index;
    }

    pub fn pop<B>(&mut self, trackers: &[Tracker<B>]) -> Option<u16> {
        let index = self.first()?;
        self.first = trackers[usize::from(index)].next;
        Some(index)
    }
}
