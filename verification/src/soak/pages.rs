//! Memory on page boundaries, for files that are opened with `O_DIRECT`; of the
//! system's, so that it is gone when it is given back.

use std::ptr::NonNull;

/// Some pages.
pub struct Pages {
    base: NonNull<u8>,
    len: usize,
}

impl Pages {
    /// `len` bytes, more than 0, of zeroes.
    pub fn new(len: usize) -> Self {
        let (access, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: new memory, wherever there is room.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "no memory for {len} bytes");
        let base = NonNull::new(base.cast()).expect("nothing is mapped at 0");
        Self { base, len }
    }

    /// Where `at` is.
    pub fn at(&self, at: usize) -> *mut u8 {
        assert!(at <= self.len);
        // SAFETY: inside, or the end.
        unsafe { self.base.as_ptr().add(at) }
    }

    /// All bytes.
    pub fn all(&mut self) -> &mut [u8] {
        // SAFETY: all of it was set, and it is ours alone: what is lent to
        // requests by address is not in use by them (the callers' care).
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped so, and nobody has it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
