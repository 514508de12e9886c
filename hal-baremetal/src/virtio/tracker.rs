//! What a backend keeps of its requests: one tracker a slot.
//!
//! The device cannot write here (DESIGN invariant 2): what a used entry says
//! is checked against this.

use annulus::block::{Linked, NONE, Source};

/// Where the request of a place stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Issued {
    /// The device has nothing of this place.
    No,
    /// When the device is done there is nothing more to do.
    Simple,
    /// There is: more parts, or data to copy.
    Complex,
}

/// What every request touches: what its used entry must say, and what the
/// request's end then is. Of a place, whose number is what the device is told.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(super) struct Hot {
    pub token: u32,
    /// The result if all goes well.
    pub result: i32,
    /// The tick in which it was issued.
    pub stamp: u32,
    /// The most bytes that the device may write.
    pub most: u32,
    /// Places of the queue's ring that it takes.
    pub count: u16,
    /// The next free place, of one that is free.
    pub next: u16,
    pub issued: Issued,
}

/// The state of one slot's request, and of one place of the queue. Made by
/// [`Tracker::new`], given to [`DiskBackend::new`](super::DiskBackend::new),
/// one for each request of the ring and one for the reserve.
#[derive(Debug)]
pub struct Tracker<B> {
    /// Of the place of this number; all the rest is of the slot.
    pub(super) hot: Hot,
    pub(super) token: u32,
    pub(super) result: i32,
    pub(super) next: u16,
    pub(super) chunk: u16,
    /// The vectors of one that has not started.
    pub(super) kept: u16,
    /// The request type.
    pub(super) kind: u32,
    /// Flags of a range.
    pub(super) flags: u32,
    /// A flush follows the last part.
    pub(super) sync: bool,
    pub(super) source: Source<B>,
    /// Memory: the address of the current part, or the bytes of the vectors
    /// that the parts before it have used.
    pub(super) addr: usize,
    /// The current part's position on the disk, in bytes.
    pub(super) position: u64,
    /// Bytes of the current part, or of the last one while it waits, and after
    /// it.
    pub(super) part: u64,
    pub(super) left: u64,
}

impl<B> Tracker<B> {
    /// Of a slot without a request.
    pub const fn new() -> Self {
        Self {
            hot: Hot {
                token: 0,
                result: 0,
                stamp: 0,
                most: 0,
                count: 0,
                next: NONE,
                issued: Issued::No,
            },
            token: 0,
            result: 0,
            next: NONE,
            chunk: NONE,
            kept: NONE,
            kind: 0,
            flags: 0,
            sync: false,
            source: Source::None,
            addr: 0,
            position: 0,
            part: 0,
            left: 0,
        }
    }

    /// Whether the device has seen anything of one that waits.
    pub(super) const fn has_begun(&self) -> bool {
        self.part != 0
    }
}

impl<B> Default for Tracker<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Linked for Tracker<B> {
    fn next(&mut self) -> &mut u16 {
        &mut self.next
    }
}
