//! Ring memory: where each word lies, and typed access to it.
//!
//! A ring is reached through a run-time table of offsets ([`Offsets`]), as an
//! application of Linux's io_uring reaches its mappings. Two tables exist
//! ([`Layout`]); code that works on a ring never knows which one it has.

mod cq;
mod entry;
mod lane;
mod sq;

pub use cq::{CompletionQueue, CqHalf};
pub(crate) use cq::{CqProducer, MadeRoom};
pub use entry::{CqeCell, SqeCell};
pub(crate) use entry::{Group, Head, Words};
pub use lane::{LaneEnd, Taken, lane};
pub use sq::{PushError, SqHalf, SubmissionQueue};
pub(crate) use sq::{SqConsumer, Stretch};

use crate::cqe::Cqe;
use crate::fault::{self, Fault};
use crate::sqe::Sqe;
use crate::sync::{AtomicU32, Ordering};
use core::ptr::NonNull;

/// How the words of a ring are laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layout {
    /// Every word that one side writes and the other reads has a cache line
    /// of its own: two cores do not disturb each other.
    #[default]
    Padded,
    /// Linux's `struct io_rings`: all indices in one 64-byte header.
    Uapi,
}

/// Bytes of a cache line, as far as layout is concerned.
pub(crate) const LINE: usize = 64;
const WORD: usize = size_of::<AtomicU32>();

/// The cell that a free-running index names.
#[inline(always)]
fn cell<T>(cells: &[T], index: u32, mask: u32) -> &T {
    debug_assert_eq!(cells.len(), mask as usize + 1);
    // SAFETY: the halves are made with a mask of the slice's length less
    // one (a power of two), so a masked index is inside.
    unsafe { cells.get_unchecked((index & mask) as usize) }
}

/// The cell of that index, if there is one.
#[inline(always)]
fn checked<T>(cells: &[T], index: u32, mask: u32) -> Option<&T> {
    debug_assert_eq!(cells.len(), mask as usize + 1);
    let checked = index <= mask || fault::on(Fault::IndexUnchecked);
    // SAFETY: no more than the slice's length less one, as above.
    checked.then(|| unsafe { cells.get_unchecked(index as usize) })
}

/// Byte offsets of a ring's parts from the start of its memory.
///
/// With [`Layout::Uapi`] the numbers are those of `struct io_sqring_offsets`
/// and `struct io_cqring_offsets` for a kernel ring with
/// `IORING_FEAT_SINGLE_MMAP`; the SQEs follow in the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the uapi's own names
pub struct Offsets {
    pub sq_head: usize,
    pub sq_tail: usize,
    pub sq_ring_mask: usize,
    pub sq_ring_entries: usize,
    pub sq_flags: usize,
    pub sq_dropped: usize,
    /// None with `IORING_SETUP_NO_SQARRAY`.
    pub sq_array: Option<usize>,
    pub cq_head: usize,
    pub cq_tail: usize,
    pub cq_ring_mask: usize,
    pub cq_ring_entries: usize,
    pub cq_flags: usize,
    pub cq_overflow: usize,
    pub cqes: usize,
    pub sqes: usize,
    /// Bytes in all.
    pub total: usize,
}

pub(crate) const fn align_up(n: usize, to: usize) -> usize {
    (n + to - 1) & !(to - 1)
}

impl Offsets {
    /// The table for a ring of `sq_entries` and `cq_entries` (powers of two).
    pub const fn new(layout: Layout, sq_entries: u32, cq_entries: u32, array: bool) -> Self {
        // A loom atomic is larger than four bytes: stride by what it takes,
        // so that the models run the same arithmetic.
        let (step, line) = match layout {
            Layout::Padded => (align_up(WORD, LINE), align_up(WORD, LINE)),
            Layout::Uapi => (WORD, LINE),
        };
        // The order of Linux's struct io_rings.
        let header = match layout {
            Layout::Padded => 12 * step,
            Layout::Uapi => align_up(12 * step, line),
        };
        let cqes = header;
        let after_cqes = align_up(cqes + CqeCell::SIZE * cq_entries as usize, line);
        let after_array = if array {
            align_up(after_cqes + WORD * sq_entries as usize, line)
        } else {
            after_cqes
        };
        Self {
            sq_head: 0,
            sq_tail: step,
            cq_head: 2 * step,
            cq_tail: 3 * step,
            sq_ring_mask: 4 * step,
            cq_ring_mask: 5 * step,
            sq_ring_entries: 6 * step,
            cq_ring_entries: 7 * step,
            sq_dropped: 8 * step,
            sq_flags: 9 * step,
            cq_flags: 10 * step,
            cq_overflow: 11 * step,
            cqes,
            sq_array: if array { Some(after_cqes) } else { None },
            sqes: after_array,
            total: align_up(after_array + SqeCell::SIZE * sq_entries as usize, LINE),
        }
    }
}

/// Typed pointers into one ring's memory. Copied freely between the halves.
#[derive(Clone, Copy)]
pub(crate) struct RingRef<'m> {
    pub sq_head: &'m AtomicU32,
    pub sq_tail: &'m AtomicU32,
    pub sq_flags: &'m AtomicU32,
    pub sq_dropped: &'m AtomicU32,
    pub sq_array: Option<&'m [AtomicU32]>,
    pub sqes: &'m [SqeCell],
    pub cq_head: &'m AtomicU32,
    pub cq_tail: &'m AtomicU32,
    pub cq_flags: &'m AtomicU32,
    pub cq_overflow: &'m AtomicU32,
    pub cqes: &'m [CqeCell],
}

// SAFETY: the cells inside are written by one half and read by the other,
// ordered by the index words; each half is a type of its own without Clone.
unsafe impl Send for RingRef<'_> {}
// SAFETY: as above; a shared RingRef gives no access to a cell by itself.
unsafe impl Sync for RingRef<'_> {}

impl<'m> RingRef<'m> {
    /// Initialises ring memory and returns access to it.
    ///
    /// # Safety
    /// `base` is valid for reads and writes of `offsets.total` bytes for
    /// `'m`, aligned to 64 bytes, and used through this ring only (or, in
    /// shared memory, by an application through the same offsets).
    pub unsafe fn init(
        base: NonNull<u8>,
        offsets: &Offsets,
        sq_entries: u32,
        cq_entries: u32,
    ) -> Self {
        let word = |offset: usize, value: u32| {
            // SAFETY: inside the memory, by the construction of Offsets.
            unsafe { base.add(offset).cast::<AtomicU32>().write(AtomicU32::new(value)) }
        };
        for zero in [
            offsets.sq_head,
            offsets.sq_tail,
            offsets.cq_head,
            offsets.cq_tail,
            offsets.sq_dropped,
            offsets.sq_flags,
            offsets.cq_flags,
            offsets.cq_overflow,
        ] {
            word(zero, 0);
        }
        word(offsets.sq_ring_mask, sq_entries - 1);
        word(offsets.cq_ring_mask, cq_entries - 1);
        word(offsets.sq_ring_entries, sq_entries);
        word(offsets.cq_ring_entries, cq_entries);
        if let Some(array) = offsets.sq_array {
            for i in 0..sq_entries {
                // The identity: an application that never touches the array
                // submits entry i at place i.
                word(array + WORD * i as usize, i);
            }
        }
        for i in 0..sq_entries as usize {
            // SAFETY: inside the memory, by the construction of Offsets.
            unsafe {
                base.add(offsets.sqes + SqeCell::SIZE * i)
                    .cast::<SqeCell>()
                    .write(SqeCell::new(Sqe::default()));
            }
        }
        for i in 0..cq_entries as usize {
            // SAFETY: as above.
            unsafe {
                base.add(offsets.cqes + CqeCell::SIZE * i)
                    .cast::<CqeCell>()
                    .write(CqeCell::new(Cqe::default()));
            }
        }
        // SAFETY: initialised just now, the rest is the caller's promise.
        unsafe { Self::attach(base, offsets, sq_entries, cq_entries) }
    }

    /// Access to ring memory that [`init`](Self::init) has initialised.
    ///
    /// Entry counts come from the caller, never from the memory, which the
    /// other side may write.
    ///
    /// # Safety
    /// As for [`init`](Self::init), and the memory is initialised.
    pub unsafe fn attach(
        base: NonNull<u8>,
        offsets: &Offsets,
        sq_entries: u32,
        cq_entries: u32,
    ) -> Self {
        // SAFETY: every part is inside the memory and aligned by the
        // construction of Offsets; valid for 'm by the caller's promise.
        unsafe {
            let word = |offset: usize| base.add(offset).cast::<AtomicU32>().as_ref();
            let slice = |offset: usize, len: u32| {
                core::slice::from_raw_parts(
                    base.add(offset).cast::<AtomicU32>().as_ptr(),
                    len as usize,
                )
            };
            Self {
                sq_head: word(offsets.sq_head),
                sq_tail: word(offsets.sq_tail),
                sq_flags: word(offsets.sq_flags),
                sq_dropped: word(offsets.sq_dropped),
                sq_array: match offsets.sq_array {
                    Some(array) => Some(slice(array, sq_entries)),
                    None => None,
                },
                sqes: core::slice::from_raw_parts(
                    base.add(offsets.sqes).cast::<SqeCell>().as_ptr(),
                    sq_entries as usize,
                ),
                cq_head: word(offsets.cq_head),
                cq_tail: word(offsets.cq_tail),
                cq_flags: word(offsets.cq_flags),
                cq_overflow: word(offsets.cq_overflow),
                cqes: core::slice::from_raw_parts(
                    base.add(offsets.cqes).cast::<CqeCell>().as_ptr(),
                    cq_entries as usize,
                ),
            }
        }
    }

    /// CQEs that the application has not taken yet, as anybody may ask.
    #[inline]
    pub fn cq_ready(&self) -> u32 {
        // Relaxed, both: only a number is wanted. Whoever then reads an entry
        // does so through CqHalf, which acquires a tail no older than this.
        // A stale head counts too many to a thread that does not own the half.
        let tail = self.cq_tail.load(Ordering::Relaxed);
        tail.wrapping_sub(self.cq_head.load(Ordering::Relaxed))
    }

    /// CQEs posted so far, as anybody may ask.
    #[inline]
    pub fn cq_total(&self) -> u32 {
        // Relaxed: as above.
        self.cq_tail.load(Ordering::Relaxed)
    }

    /// SQEs that the engine has not taken yet, as anybody may ask.
    #[inline]
    pub fn sq_ready(&self) -> u32 {
        // Relaxed, both: as above, the sides exchanged.
        let tail = self.sq_tail.load(Ordering::Relaxed);
        tail.wrapping_sub(self.sq_head.load(Ordering::Relaxed))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn uapi_layout_is_linux_io_rings() {
        let o = Offsets::new(Layout::Uapi, 8, 16, true);
        // Linux 6.18, as io_uring_setup(8) answers in sq_off and cq_off.
        assert_eq!((o.sq_head, o.sq_tail, o.cq_head, o.cq_tail), (0, 4, 8, 12));
        assert_eq!((o.sq_ring_mask, o.cq_ring_mask), (16, 20));
        assert_eq!((o.sq_ring_entries, o.cq_ring_entries), (24, 28));
        assert_eq!((o.sq_dropped, o.sq_flags), (32, 36));
        assert_eq!((o.cq_flags, o.cq_overflow, o.cqes), (40, 44, 64));
        assert_eq!(o.sq_array, Some(64 + 16 * 16));
    }

    #[test]
    fn padded_words_do_not_share_a_line() {
        let o = Offsets::new(Layout::Padded, 8, 16, true);
        let mut words = [o.sq_head, o.sq_tail, o.sq_flags, o.cq_head, o.cq_tail, o.cqes];
        words.sort_unstable();
        assert!(words.windows(2).all(|w| w[1] - w[0] >= LINE));
    }

    #[test]
    fn parts_do_not_overlap() {
        for layout in [Layout::Padded, Layout::Uapi] {
            for array in [false, true] {
                let o = Offsets::new(layout, 4, 32, array);
                let array_at = o.sq_array.unwrap_or(o.sqes);
                assert!(o.cq_overflow + 4 <= o.cqes);
                assert!(o.cqes + 32 * 16 <= array_at);
                assert!(array_at + if array { 16 } else { 0 } <= o.sqes);
                assert!(o.sqes + 4 * 64 <= o.total);
                assert_eq!(o.sqes % 64, 0);
            }
        }
    }
}
