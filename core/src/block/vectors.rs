//! Copies of `iovec` arrays: the application may reuse its own as soon as the
//! SQE was taken (`IORING_FEAT_SUBMIT_STABLE`).

use super::NONE;
use crate::errno::Errno;
use crate::types::Iovec;

/// The most segments of a request (`UIO_MAXIOV`).
const MOST: usize = 1024;

/// Room for one request's `iovec`s. A ring needs at least one to carry out
/// READV and WRITEV, and as many as it shall have in flight at once, those
/// included that wait in a chain or behind a drain (beyond that: `-ENOMEM`).
#[derive(Debug)]
pub struct Vectors {
    used: u16,
    next: u16,
    segments: [Segment; MOST],
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    addr: usize,
    len: usize,
}

impl Vectors {
    /// Unused room.
    pub const fn new() -> Self {
        Self { used: 0, next: NONE, segments: [Segment { addr: 0, len: 0 }; MOST] }
    }

    /// Copies the segments that have bytes.
    pub(super) fn fill(&mut self, segments: impl Iterator<Item = Iovec>) {
        self.used = 0;
        for segment in segments.filter(|segment| segment.len != 0).take(MOST) {
            self.segments[usize::from(self.used)] =
                Segment { addr: segment.base.expose_provenance(), len: segment.len };
            self.used += 1;
        }
    }

    /// The bytes of all segments.
    pub(super) fn bytes(&self) -> u64 {
        let segments = &self.segments[..usize::from(self.used)];
        segments.iter().fold(0, |sum, segment| sum.saturating_add(segment.len as u64))
    }

    /// The pieces of memory of `len` bytes from the `skip`th byte on.
    pub(super) fn pieces(&self, mut skip: usize, mut len: usize, mut f: impl FnMut(usize, usize)) {
        for segment in &self.segments[..usize::from(self.used)] {
            if skip >= segment.len {
                skip -= segment.len;
                continue;
            }
            let piece = (segment.len - skip).min(len);
            if piece == 0 {
                return;
            }
            f(segment.addr + skip, piece);
            skip = 0;
            len -= piece;
        }
    }
}

impl Default for Vectors {
    fn default() -> Self {
        Self::new()
    }
}

/// The segments of a request.
///
/// # Safety
/// There are `count` vectors at `addr`, for as long as they are gone through.
pub(super) unsafe fn segments(addr: u64, count: u32) -> impl Iterator<Item = Iovec> {
    let first = core::ptr::with_exposed_provenance::<Iovec>(addr as usize);
    // SAFETY: the caller's promise.
    (0..count as usize).map(move |at| unsafe { first.add(at).read_unaligned() })
}

/// The bytes of all vectors of a request.
///
/// # Errors
/// What it is refused with.
///
/// # Safety
/// There are `count` vectors at `addr`, if that is not 0.
pub(super) unsafe fn bytes(addr: u64, count: u32) -> Result<u64, Errno> {
    if count != 0 && addr == 0 {
        return Err(Errno::EFAULT);
    }
    let mut bytes: u64 = 0;
    // SAFETY: the caller's promise.
    for segment in unsafe { segments(addr, count) } {
        if segment.len > isize::MAX as usize {
            return Err(Errno::EINVAL);
        }
        if segment.len != 0 && segment.base.addr().checked_add(segment.len).is_none() {
            return Err(Errno::EFAULT);
        }
        bytes = bytes.saturating_add(segment.len as u64);
    }
    Ok(bytes)
}

/// The free ones, threaded through them.
#[derive(Debug)]
pub(super) struct FreeVectors {
    first: u16,
}

impl FreeVectors {
    pub fn new(all: &mut [Vectors]) -> Self {
        let count = all.len().min(usize::from(NONE)) as u16;
        for (index, vectors) in (1..).zip(all.iter_mut()) {
            vectors.next = if index < count { index } else { NONE };
        }
        Self { first: if count == 0 { NONE } else { 0 } }
    }

    pub fn take(&mut self, all: &[Vectors]) -> Option<u16> {
        let index = self.first;
        self.first = all.get(usize::from(index))?.next;
        Some(index)
    }

    pub fn put(&mut self, all: &mut [Vectors], index: u16) {
        all[usize::from(index)].next = self.first;
        self.first = index;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn pieces_go_through_the_segments() {
        let mut vectors = std::boxed::Box::new(Vectors::new());
        let at = |addr: usize, len| Iovec { base: core::ptr::without_provenance_mut(addr), len };
        vectors.fill([at(1000, 5), at(1, 0), at(2000, 7), at(3000, 4)].into_iter());
        let pieces = |skip, len| {
            let mut all = Vec::new();
            vectors.pieces(skip, len, |addr, len| all.push((addr, len)));
            all
        };
        assert_eq!(pieces(0, 16), [(1000, 5), (2000, 7), (3000, 4)]);
        assert_eq!(pieces(5, 7), [(2000, 7)]);
        assert_eq!(pieces(3, 5), [(1003, 2), (2000, 3)]);
        assert_eq!(pieces(15, 1), [(3003, 1)]);
        assert_eq!(vectors.bytes(), 16);
    }

    #[test]
    fn room_is_given_out_once() {
        let mut all = [Vectors::new(), Vectors::new()];
        let mut free = FreeVectors::new(&mut all);
        assert_eq!([free.take(&all), free.take(&all), free.take(&all)], [Some(0), Some(1), None]);
        free.put(&mut all, 1);
        assert_eq!([free.take(&all), free.take(&all)], [Some(1), None]);
        assert_eq!(FreeVectors::new(&mut []).take(&[]), None);
    }
}
