//! Entries in ring memory.

use crate::cqe::Cqe;
use crate::sqe::Sqe;
use crate::sync::UnsafeCell;
use core::mem::offset_of;

/// One SQE in ring memory, written by the application and read by the engine.
#[repr(transparent)]
pub struct SqeCell(UnsafeCell<Sqe>);

/// One CQE in ring memory, written by the engine and read by the application.
#[repr(transparent)]
pub struct CqeCell(UnsafeCell<Cqe>);

impl SqeCell {
    pub(crate) const SIZE: usize = size_of::<Self>();

    pub(super) fn new(sqe: Sqe) -> Self {
        Self(UnsafeCell::new(sqe))
    }

    /// Copies the entry out, once, by relaxed word-wide reads.
    ///
    /// An application that writes the entry after publishing it (against the
    /// contract, or in shared memory on purpose) makes the copy a mixture,
    /// and nothing worse: all checks are made on the copy (invariant 2).
    #[inline(always)]
    pub(crate) fn read(&self) -> Sqe {
        let mut copy = Sqe::default();
        let to = core::ptr::from_mut(&mut copy).cast::<usize>();
        self.0.with(|from| {
            for word in 0..Self::SIZE / size_of::<usize>() {
                // SAFETY: `word` is inside the entry and the copy, both
                // aligned for usize (Sqe has align 8) and made of integers.
                unsafe { *to.add(word) = load_word(from.cast::<usize>().add(word)) };
            }
        });
        copy
    }

    /// The entry for whoever wants less than all of it, or not at once.
    #[inline(always)]
    pub(crate) fn words(&self) -> Words<'_> {
        Words(self)
    }

    #[inline(always)]
    pub(super) fn write(&self, sqe: &Sqe) {
        // SAFETY: the application half is the only writer (`&mut SqHalf`),
        // and the engine does not read this entry before its publication.
        self.0.with_mut(|cell| unsafe { *cell = *sqe });
    }
}

/// An entry that is copied out word by word, by the same rule as
/// [`SqeCell::read`]: nobody asks for a word twice.
#[derive(Clone, Copy)]
pub(crate) struct Words<'a>(&'a SqeCell);

impl Words<'_> {
    /// The first eight bytes: opcode to file.
    #[inline(always)]
    pub fn head(self) -> Head {
        Head(self.wide(offset_of!(Sqe, opcode)))
    }

    #[inline(always)]
    pub fn off(self) -> u64 {
        self.wide(offset_of!(Sqe, off))
    }

    #[inline(always)]
    pub fn addr(self) -> u64 {
        self.wide(offset_of!(Sqe, addr))
    }

    /// The length, with the operation's flags in the upper half.
    #[inline(always)]
    pub fn len_and_flags(self) -> u64 {
        const { assert!(offset_of!(Sqe, op_flags) == offset_of!(Sqe, len) + 4) };
        let both = self.wide(offset_of!(Sqe, len));
        if cfg!(target_endian = "big") { both.rotate_left(32) } else { both }
    }

    #[inline(always)]
    pub fn op_flags(self) -> u32 {
        self.narrow(offset_of!(Sqe, op_flags))
    }

    #[inline(always)]
    pub fn user_data(self) -> u64 {
        self.wide(offset_of!(Sqe, user_data))
    }

    #[inline(always)]
    pub fn group(self) -> Group {
        Group(self.narrow(offset_of!(Sqe, buf_index)))
    }

    #[inline(always)]
    pub fn pad2(self) -> u64 {
        self.wide(offset_of!(Sqe, pad2))
    }

    #[inline(always)]
    fn narrow(self, at: usize) -> u32 {
        debug_assert!(at.is_multiple_of(4) && at < SqeCell::SIZE);
        // SAFETY: inside the entry, aligned, and made of integers.
        self.0.0.with(|from| unsafe { load32(from.byte_add(at).cast()) })
    }

    #[inline(always)]
    fn wide(self, at: usize) -> u64 {
        debug_assert!(at.is_multiple_of(8) && at < SqeCell::SIZE);
        if size_of::<usize>() == 8 {
            // SAFETY: as above; Sqe has align 8.
            return self.0.0.with(|from| unsafe { load_word(from.byte_add(at).cast()) as u64 });
        }
        let [first, second] = [self.narrow(at), self.narrow(at + 4)].map(u64::from);
        if cfg!(target_endian = "big") { first << 32 | second } else { second << 32 | first }
    }
}

/// Opcode, flags, I/O priority and file of an entry, as they lie in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head(u64);

impl Head {
    /// Opcode, flags and I/O priority: the four bytes as a word.
    #[inline(always)]
    pub fn row(self) -> u32 {
        self.halves().0
    }

    #[inline(always)]
    pub fn opcode(self) -> u8 {
        self.row().to_ne_bytes()[0]
    }

    pub fn flags(self) -> u8 {
        self.row().to_ne_bytes()[1]
    }

    #[inline(always)]
    pub fn fd(self) -> u32 {
        self.halves().1
    }

    #[inline(always)]
    fn halves(self) -> (u32, u32) {
        let (low, high) = (self.0 as u32, (self.0 >> 32) as u32);
        if cfg!(target_endian = "big") { (high, low) } else { (low, high) }
    }
}

/// Buffer index and personality of an entry, as they lie in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group(u32);

impl Group {
    #[inline(always)]
    pub fn buf_index(self) -> u16 {
        self.halves().0
    }

    #[inline(always)]
    pub fn personality(self) -> u16 {
        self.halves().1
    }

    #[inline(always)]
    fn halves(self) -> (u16, u16) {
        let (low, high) = (self.0 as u16, (self.0 >> 16) as u16);
        if cfg!(target_endian = "big") { (high, low) } else { (low, high) }
    }
}

#[cfg(not(loom))]
mod load {
    use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    /// Whoever else writes the entry may do so before each of its words is read.
    #[inline(always)]
    fn others() {
        #[cfg(fuzzing)]
        crate::sync::peer::act();
    }

    /// # Safety
    /// Valid for reads, aligned, not written but by the application.
    #[inline(always)]
    pub unsafe fn load32(from: *const u32) -> u32 {
        others();
        // SAFETY: the caller's promise.
        // Relaxed: ordered by the Acquire load of the SQ tail.
        unsafe { (*from.cast::<AtomicU32>()).load(Ordering::Relaxed) }
    }

    /// # Safety
    /// As for [`load32`].
    #[inline(always)]
    pub unsafe fn load_word(from: *const usize) -> usize {
        others();
        // SAFETY: the caller's promise.
        // Relaxed: as above.
        unsafe { (*from.cast::<AtomicUsize>()).load(Ordering::Relaxed) }
    }
}

/// The model application keeps the contract; loom fails the model when a
/// write of the entry is not ordered before these reads.
#[cfg(loom)]
mod load {
    /// # Safety
    /// Valid for reads and aligned.
    pub unsafe fn load32(from: *const u32) -> u32 {
        // SAFETY: the caller's promise.
        unsafe { *from }
    }

    /// # Safety
    /// As for [`load32`].
    pub unsafe fn load_word(from: *const usize) -> usize {
        // SAFETY: the caller's promise.
        unsafe { *from }
    }
}

use load::{load_word, load32};

impl CqeCell {
    pub(crate) const SIZE: usize = size_of::<Self>();

    pub(super) fn new(cqe: Cqe) -> Self {
        Self(UnsafeCell::new(cqe))
    }

    #[inline(always)]
    pub(super) fn read(&self) -> Cqe {
        // SAFETY: the engine published this entry (Acquire load of the CQ
        // tail) and does not write it again before the head passes it.
        self.0.with(|cqe| unsafe { *cqe })
    }

    #[inline(always)]
    pub(super) fn write(&self, cqe: Cqe) {
        let (res, flags) = (u64::from(cqe.res as u32), u64::from(cqe.flags));
        let second =
            if cfg!(target_endian = "big") { res << 32 | flags } else { flags << 32 | res };
        // SAFETY: the engine is the only producer, and the entry was given
        // back by the application (Acquire load of the CQ head). Two words
        // make a CQE.
        self.0.with_mut(|cell| unsafe { *cell.cast::<[u64; 2]>() = [cqe.user_data, second] });
    }
}
