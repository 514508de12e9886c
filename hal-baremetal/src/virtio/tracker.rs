//! What a backend keeps of its requests: one tracker a slot.
//!
//! The device cannot write here (DESIGN invariant 2): what a used entry says
//! is checked against this.

/// No place, no chunk, no block of vectors, end of a list.
pub(super) const NONE: u16 = u16::MAX;

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

/// Where the data of a request are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<B> {
    /// There are none.
    None,
    /// In a registered buffer.
    Mapped(B),
    /// In memory that the device may not reach, in one piece.
    Copied,
    /// The same, in pieces: this block of vectors.
    Vectors(u16),
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
    /// Bytes of the current part, and after it.
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
