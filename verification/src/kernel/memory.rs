//! The memory that requests name: one arena with nothing before and after it,
//! and a place for arrays of buffers.

use std::io;
use std::ptr::NonNull;

/// Bytes of the arena.
pub const ARENA: u32 = 64 << 10;
const PAGE: usize = 4096;
const VECTORS: usize = 256 << 10;
/// Bytes for arrays of descriptors.
const FDS: usize = 4096;
/// Nothing, arena, nothing, arrays and paths, nothing, descriptors, nothing.
const TOTAL: usize = PAGE + ARENA as usize + PAGE + VECTORS + PAGE + FDS + PAGE;

/// The memory, mapped once a process.
pub struct Arena {
    map: NonNull<u8>,
    /// Bytes of the arrays in use.
    used: usize,
    /// Descriptors in use.
    fds_used: usize,
}

impl Arena {
    /// Maps it.
    ///
    /// # Errors
    /// No memory.
    pub fn new() -> io::Result<Self> {
        let (anonymous, none) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, libc::PROT_NONE);
        // SAFETY: a new mapping.
        let map = unsafe { libc::mmap(std::ptr::null_mut(), TOTAL, none, anonymous, -1, 0) };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let map = NonNull::new(map.cast::<u8>()).ok_or_else(io::Error::last_os_error)?;
        let arena = Self { map, used: 0, fds_used: 0 };
        for (at, len) in
            [(arena.base(), ARENA as usize), (arena.vectors(), VECTORS), (arena.fds(), FDS)]
        {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            // SAFETY: inside the mapping.
            if unsafe { libc::mprotect(at as *mut _, len, access) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(arena)
    }

    /// Where the arena begins.
    pub fn base(&self) -> u64 {
        (self.map.as_ptr() as usize + PAGE) as u64
    }

    /// An address at which nothing is for a page.
    pub fn unmapped(&self) -> u64 {
        self.base() + u64::from(ARENA)
    }

    fn vectors(&self) -> u64 {
        self.unmapped() + PAGE as u64
    }

    fn fds(&self) -> u64 {
        self.vectors() + (VECTORS + PAGE) as u64
    }

    /// All arrays of descriptors, as requests may have left them.
    pub fn fds_bytes(&self) -> &[u8] {
        // SAFETY: as for `bytes`.
        unsafe { std::slice::from_raw_parts(self.fds() as *const u8, FDS) }
    }

    /// The arena's content. Requests may be changing it meanwhile; programs
    /// are made so that what they do there does not overlap.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: mapped, initialised; see above.
        unsafe { std::slice::from_raw_parts(self.base() as *const u8, ARENA as usize) }
    }

    /// Fills the arena with its first content.
    pub fn reset(&mut self) {
        self.used = 0;
        self.fds_used = 0;
        // SAFETY: mapped, and nobody else's.
        unsafe { std::ptr::write_bytes(self.fds() as *mut u8, 0, FDS) };
        // SAFETY: mapped, and nobody else's: no request is in flight.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(self.base() as *mut u32, ARENA as usize / 4) };
        for (i, word) in bytes.iter_mut().enumerate() {
            *word = (i as u32).wrapping_mul(0x9e37_79b1) ^ 0x5bd1_e995;
        }
    }

    /// Stores an array of buffers, and answers its address.
    pub fn place(&mut self, list: &[(u64, u64)]) -> u64 {
        let at = self.vectors() + self.used as u64;
        let bytes = size_of_val(list);
        assert!(self.used + bytes <= VECTORS, "a program has few arrays");
        for (i, &(base, len)) in list.iter().enumerate() {
            // SAFETY: inside the arrays' part, checked above.
            unsafe { (at as *mut u64).add(2 * i).write(base) };
            // SAFETY: as above.
            unsafe { (at as *mut u64).add(2 * i + 1).write(len) };
        }
        self.used += bytes;
        at
    }

    /// Stores a path, and answers its address.
    pub fn place_path(&mut self, path: &str) -> u64 {
        let at = self.vectors() + self.used as u64;
        assert!(self.used + path.len() < VECTORS, "a program has few paths");
        // SAFETY: inside the arrays' part, checked above; the part is zero
        // from here on.
        unsafe { std::ptr::copy_nonoverlapping(path.as_ptr(), at as *mut u8, path.len()) };
        // SAFETY: as above.
        unsafe { (at as *mut u8).add(path.len()).write(0) };
        self.used += (path.len() + 1).next_multiple_of(8);
        at
    }

    /// Stores descriptors, at the end of memory if `edge`, and answers their
    /// address. They stay what they are until the next program.
    pub fn place_fds(&mut self, list: &[i32], edge: bool) -> u64 {
        let bytes = size_of_val(list);
        let at = if edge { FDS - bytes } else { 4 * self.fds_used };
        // The last places are for the one array at the edge.
        assert!(edge || at + bytes <= FDS - 256, "a program has few arrays");
        self.fds_used += if edge { 0 } else { list.len() };
        let at = self.fds() + at as u64;
        for (i, fd) in list.iter().enumerate() {
            // SAFETY: inside the part, checked above.
            unsafe { (at as *mut i32).add(i).write(*fd) };
        }
        at
    }

    /// What a STATX has written to `at`, without what differs from run to run
    /// (times, numbers of inodes, blocks); its place is cleared.
    pub fn take_attributes(&mut self, at: u32) -> String {
        let at = (self.base() + u64::from(at)) as *mut libc::statx;
        // SAFETY: inside the arena; the request has ended.
        let status = unsafe { at.read_unaligned() };
        // SAFETY: as above.
        unsafe { std::ptr::write_bytes(at.cast::<u8>(), 0, size_of::<libc::statx>()) };
        format!(
            "mask {:#x} attributes {:#x} of {:#x} mode {:#o} size {} nlink {} uid {} gid {} \
             blksize {} device {}:{}",
            status.stx_mask,
            status.stx_attributes,
            status.stx_attributes_mask,
            status.stx_mode,
            status.stx_size,
            status.stx_nlink,
            status.stx_uid,
            status.stx_gid,
            status.stx_blksize,
            status.stx_rdev_major,
            status.stx_rdev_minor,
        )
    }

    /// Overwrites all arrays with buffers that are none.
    pub fn scribble(&mut self) {
        // SAFETY: the arrays in use.
        unsafe { std::ptr::write_bytes(self.vectors() as *mut u8, 0xff, self.used) };
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: our mapping, with all its users gone.
        unsafe { libc::munmap(self.map.as_ptr().cast(), TOTAL) };
    }
}
