//! What a backend keeps of each request: one tracker a slot.
//!
//! The device cannot write here (DESIGN invariant 2): what a completion says
//! is checked against this.

use super::spec::Command;
use crate::block::{Linked, NONE, Source};
use crate::hal::Token;

/// The bits of a command identifier that name the slot; the rest is the
/// command's number, so that a late or repeated completion is seen to be one.
pub(super) const SLOT_BITS: u32 = 12;
/// The most slots of a queue pair.
pub(super) const MAX_SLOTS: usize = 1 << SLOT_BITS;

/// What every command touches, in as few words as can be: what its completion
/// must say, and what the request's end then is.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(16))]
pub(super) struct Hot {
    /// The identifier of the command that the device has, or had, with
    /// the flags above it.
    id: u32,
    /// The tick in which the command was issued.
    pub stamp: u32,
    pub token: Token,
    /// The result if all goes well.
    pub result: i32,
}

/// Of a command.
const ID: u32 = 0xffff;
/// The device has a command of the request, and when that ends well there is
/// nothing more to do. This bit is the phase tag's in a completion, the status
/// lies above it: so a completion with an error is equal to no identifier with
/// this bit, nor any completion to one without it.
const SIMPLE: u32 = ID + 1;
/// The device has a command of the request, and one has to look further.
const SLOW: u32 = 1 << 17;
/// There is more to do when the command ends well: there are more parts, or
/// data to copy.
const COMPLEX: u32 = 1 << 18;
/// An abort was asked for.
const ABORTED: u32 = 1 << 19;

impl Hot {
    /// The identifier of the command that the device has, or had.
    pub fn cid(&self) -> u16 {
        self.id as u16
    }

    /// Whether the device has a command of the request.
    #[inline(always)]
    pub fn issued(&self) -> bool {
        self.id & (SIMPLE | SLOW) != 0
    }

    /// Whether the command's end is not all that there is to do.
    pub fn complex(&self) -> bool {
        self.id & COMPLEX != 0
    }

    /// Whether an abort was asked for.
    pub fn aborted(&self) -> bool {
        self.id & ABORTED != 0
    }

    /// Notes that an abort was asked for.
    pub fn set_aborted(&mut self) {
        self.id = self.id & !SIMPLE | SLOW | ABORTED;
    }

    /// The device has no command of the request any more; all flags go.
    #[inline(always)]
    pub fn idle(&mut self) {
        self.id &= ID;
    }

    /// Whether `answer`, a completion's dword 3 with the phase tag set, ends a
    /// command well after which there is nothing to do. One comparison says that it is the
    /// command in flight, and of the simple kind.
    #[inline(always)]
    pub fn is_simple_end(&self, answer: u32) -> bool {
        self.id == answer
    }

    /// For the slot's next command. Answers its identifier, and more in the
    /// bits above it, for whoever shifts them out.
    #[inline(always)]
    pub fn issue(&mut self, complex: bool, stamp: u32, token: Token, result: i32) -> u32 {
        // The number above the slot's bits is the next. What it carries falls
        // into the lowest flag, and away.
        let cid = self.id.wrapping_add(1 << SLOT_BITS);
        let id = if complex { cid & ID | SLOW | COMPLEX } else { cid | SIMPLE };
        *self = Self { id, stamp, token, result };
        id
    }
}

/// The state of one slot's request. Made by [`Tracker::new`], given to
/// [`NvmeBackend::new`](super::NvmeBackend::new), one for each request of the
/// ring and one for the reserve.
#[derive(Debug)]
pub struct Tracker<B> {
    pub(super) hot: Hot,
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
            hot: Hot { id: 0, stamp: 0, token: Token::NONE, result: 0 },
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

    /// Of slot `index`: that is what its commands' identifiers name.
    pub(super) const fn of(index: u16) -> Self {
        let mut tracker = Self::new();
        tracker.hot.id = index as u32;
        tracker
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PHASE: u32 = 1 << 16;

    #[test]
    fn only_the_good_end_of_a_simple_command_is_simple() {
        let mut hot = Tracker::<()>::of(7).hot;
        assert!(!hot.issued());
        for complex in [false, true] {
            let cid = hot.issue(complex, 0, Token::NONE, 0) & ID;
            assert_eq!((cid & 0xfff, hot.issued(), hot.complex()), (7, true, complex));
            assert_eq!(hot.is_simple_end(cid | PHASE), !complex);
            // No status, alone or with others, is taken for a good end.
            for status in 1..1 << 15 {
                assert!(!hot.is_simple_end(cid | PHASE | status << 17));
            }
            assert!(
                !hot.is_simple_end(cid ^ 1 | PHASE) && !hot.is_simple_end(cid ^ 0x1000 | PHASE)
            );
            hot.set_aborted();
            assert!(hot.issued() && hot.aborted() && !hot.is_simple_end(cid | PHASE));
            for status in 0..1 << 15 {
                assert!(!hot.is_simple_end(cid | PHASE | status << 17));
            }
            hot.idle();
            assert!(!hot.issued() && !hot.is_simple_end(cid | PHASE));
        }
    }
}
