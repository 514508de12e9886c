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
    /// The identifier of the command that the device has, or of the next, in
    /// bits 16..32, as in a command; flags below, and above the tick in which
    /// the command was issued. One word, so that one store writes it.
    id: u64,
    pub token: Token,
    /// The result if all goes well.
    pub result: i32,
}

/// Where the identifier is.
const CID: u32 = 16;
/// Where the tick is.
const TICK: u32 = 32;
/// The device has a command of the request, and when that ends well there is
/// nothing more to do. This bit is the phase tag's in a completion whose halves
/// are exchanged, the status lies above it, below the identifier: so a
/// completion with an error is equal to no identifier with this bit alone, nor
/// any completion to one without it.
const SIMPLE: u64 = 1;
/// The device has a command of the request, and one has to look further.
const SLOW: u64 = 1 << 1;
/// There is more to do when the command ends well: there are more parts, or
/// data to copy.
const COMPLEX: u64 = 1 << 2;
/// An abort was asked for.
const ABORTED: u64 = 1 << 3;

impl Hot {
    /// Of slot `index`, without a request.
    const fn of(index: u16) -> Self {
        Self { id: (index as u64) << CID, token: Token::NONE, result: 0 }
    }

    /// The identifier of the command that the device has, if it has one.
    pub fn cid(&self) -> u16 {
        (self.id >> CID) as u16
    }

    /// The tick in which that was issued.
    pub fn stamp(&self) -> u32 {
        (self.id >> TICK) as u32
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

    /// The device has no command of the request any more. The next has another
    /// identifier: the number above the slot's bits is the next.
    pub fn idle(&mut self) {
        if self.issued() {
            self.id = u64::from(next(self.id as u32 & !0 << CID));
        }
    }

    /// Ends a command if that is what `answer` says, a completion's dword 3 with
    /// the phase tag set, and nothing more: it went well, and there is nothing
    /// else to do. One comparison says that it is the command in flight, and of
    /// the simple kind.
    #[inline(always)]
    pub fn end_simple(&mut self, answer: u32) -> bool {
        let answer = answer.rotate_left(CID);
        if self.id as u32 != answer {
            return false;
        }
        self.id = u64::from(next(answer.wrapping_sub(SIMPLE as u32)));
        true
    }

    /// For the slot's next command, in tick `stamp << 32`. Answers its
    /// identifier, where a command has it.
    #[inline(always)]
    pub fn issue(&mut self, complex: bool, stamp: u64) -> u64 {
        let cid = self.id;
        let flags = if complex { SLOW | COMPLEX } else { SIMPLE };
        self.id = cid | flags | stamp;
        cid
    }
}

/// The identifier after this one, of the same slot.
#[inline(always)]
fn next(cid: u32) -> u32 {
    // What the number carries falls away.
    cid.wrapping_add(1 << (CID + SLOT_BITS))
}

/// A tick as [`Hot::issue`] wants it.
#[inline(always)]
pub(super) fn stamp(tick: u32) -> u64 {
    u64::from(tick) << TICK
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
    /// The vectors of one that has not started.
    pub(super) kept: u16,
    pub(super) command: Command,
    pub(super) source: Source<B>,
    pub(super) block_shift: u8,
    /// Memory: the address of the current part, or the bytes of the vectors
    /// that the parts before it have used.
    pub(super) addr: usize,
    /// The current part's position on the namespace, in bytes.
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
            hot: Hot::of(0),
            next: NONE,
            chunk: NONE,
            kept: NONE,
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

    /// Whether the device has seen anything of one that waits.
    pub(super) const fn has_begun(&self) -> bool {
        self.part != 0
    }

    /// Of slot `index`: that is what its commands' identifiers name.
    pub(super) const fn of(index: u16) -> Self {
        let mut tracker = Self::new();
        tracker.hot = Hot::of(index);
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

    /// Whether this answer would end the command.
    fn ends(hot: &Hot, answer: u32) -> bool {
        let mut copy = *hot;
        copy.end_simple(answer)
    }

    #[test]
    fn only_the_good_end_of_a_simple_command_is_simple() {
        let mut hot = Tracker::<()>::of(7).hot;
        assert!(!hot.issued());
        let mut last = None;
        for (complex, tick) in [(false, 0), (true, u32::MAX), (false, u32::MAX)] {
            let word = hot.issue(complex, stamp(tick));
            let cid = (word >> 16) as u32;
            assert_eq!((word & 0xffff, word >> 32), (0, 0));
            assert_eq!((cid & 0xfff, hot.issued(), hot.complex()), (7, true, complex));
            assert_eq!((u32::from(hot.cid()), hot.stamp()), (cid, tick));
            assert_ne!(last.replace(cid), Some(cid));
            assert_eq!(ends(&hot, cid | PHASE), !complex);
            // No status, alone or with others, is taken for a good end.
            for status in 1..1 << 15 {
                assert!(!ends(&hot, cid | PHASE | status << 17));
            }
            assert!(!ends(&hot, cid ^ 1 | PHASE) && !ends(&hot, cid ^ 0x1000 | PHASE));
            let mut ended = hot;
            assert_eq!(ended.end_simple(cid | PHASE), !complex);
            assert_eq!(ended.issued(), complex);
            hot.set_aborted();
            assert!(hot.issued() && hot.aborted() && !ends(&hot, cid | PHASE));
            for status in 0..1 << 15 {
                assert!(!ends(&hot, cid | PHASE | status << 17));
            }
            hot.idle();
            assert!(!hot.issued() && !hot.aborted() && !ends(&hot, cid | PHASE));
            assert!(complex || hot.cid() == ended.cid(), "however it ends");
            // And for the next, too, that the device does not have.
            assert!(!ends(&hot, u32::from(hot.cid()) | PHASE));
            hot.idle();
            assert_ne!(u32::from(hot.cid()), cid);
        }
    }

    #[test]
    fn a_slot_uses_its_identifiers_in_turn() {
        let mut hot = Tracker::<()>::of(0xabc).hot;
        let mut seen = [false; 16];
        for _ in 0..16 {
            let cid = (hot.issue(false, 0) >> 16) as u32;
            assert_eq!(cid & 0xfff, 0xabc);
            assert!(!core::mem::replace(&mut seen[(cid >> 12) as usize], true));
            assert!(hot.end_simple(cid | PHASE));
            assert!(!hot.end_simple(cid | PHASE), "no command ends twice");
        }
        assert_eq!(hot.cid(), 0xabc);
    }
}
