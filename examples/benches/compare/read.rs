//! 4 KiB random reads of a file in the page cache, 32 at a time.

use crate::pair::{Side, Table, Work};
use annulus_linux as ours;
use criterion::Criterion;
use io_uring as theirs;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

const DEPTH: usize = 32;
const BLOCK: usize = 4096;
const BLOCKS: u64 = 16 * 1024;

/// A buffer of a block for each read, on pages of its own.
struct Buffers(NonNull<u8>);

const LAYOUT: Layout = match Layout::from_size_align(DEPTH * BLOCK, BLOCK) {
    Ok(layout) => layout,
    Err(_) => panic!("a power of two"),
};

impl Buffers {
    fn new() -> Self {
        // SAFETY: the size is not zero.
        let at = unsafe { alloc_zeroed(LAYOUT) };
        Self(NonNull::new(at).expect("128 KiB of memory"))
    }

    fn at(&self, i: usize) -> *mut u8 {
        self.0.as_ptr().wrapping_add(i * BLOCK)
    }

    fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.0.as_ptr().cast(), iov_len: DEPTH * BLOCK }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: from `alloc_zeroed` with this layout.
        unsafe { dealloc(self.0.as_ptr(), LAYOUT) };
    }
}

/// The same sequence of offsets for every side (xorshift64).
struct Offsets(u64);

impl Offsets {
    #[inline]
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % BLOCKS * BLOCK as u64
    }
}

/// The same words for Annulus and for the kernel's io_uring, with the entry
/// that reads block `i` in `$entry`.
macro_rules! rounds {
    ($ring:ident, $buffers:ident, |$i:ident| $entry:expr) => {{
        let mut offsets = Offsets(0x9e37_79b9_7f4a_7c15);
        move |rounds: u64| -> Duration {
            let start = Instant::now();
            for _ in 0..rounds {
                let mut queue = $ring.submission();
                for $i in 0..DEPTH {
                    let entry = $entry.offset(offsets.next()).build().user_data($i as u64);
                    // SAFETY: the buffers and the file live until the round
                    // is over, by which time every read has ended.
                    unsafe { queue.push(&entry) }.expect("the batch fits");
                }
                drop(queue);
                let taken = $ring.submit_and_wait(DEPTH).expect("a read is taken");
                assert!(taken == DEPTH);
                let mut queue = $ring.completion();
                for _ in 0..DEPTH {
                    let cqe = queue.next().expect("waited for it");
                    assert!(cqe.result() == BLOCK as i32);
                }
            }
            start.elapsed()
        }
    }};
}

macro_rules! side {
    ($uring:ident, $name:literal, $ring:expr, $fd:expr) => {{
        let (mut ring, fd, buffers) = ($ring, $uring::types::Fd($fd), Buffers::new());
        Side::new(
            $name,
            rounds!(ring, buffers, |i| $uring::opcode::Read::new(fd, buffers.at(i), BLOCK as u32)),
        )
    }};
    ($uring:ident, $name:literal, $ring:expr, $fd:expr, registered) => {{
        let (mut ring, fd, buffers) = ($ring, $uring::types::Fixed(0), Buffers::new());
        ring.submitter().register_files(&[$fd]).expect("a file can be registered");
        // SAFETY: the buffers are dropped with the closure, like the ring, and
        // after its last read.
        unsafe { ring.submitter().register_buffers(&[buffers.iovec()]) }
            .expect("128 KiB can be registered (see ulimit -l)");
        Side::new(
            $name,
            rounds!(ring, buffers, |i| $uring::opcode::ReadFixed::new(
                fd,
                buffers.at(i),
                BLOCK as u32,
                0
            )),
        )
    }};
}

fn file() -> io::Result<File> {
    // Where cargo builds: an ordinary file system, not one in memory.
    let mut file = tempfile::tempfile_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mut state = Offsets(1);
    for _ in 0..BLOCKS {
        let word = state.next() ^ state.0;
        file.write_all(&word.to_ne_bytes().repeat(BLOCK / 8))?;
    }
    // What is still to be written back would be read by nobody else.
    file.sync_all()?;
    Ok(file)
}

fn ours_ring() -> ours::Ring {
    ours::Ring::new(DEPTH as u32).expect("a small ring")
}

fn theirs_ring() -> theirs::IoUring {
    theirs::IoUring::new(DEPTH as u32).expect("this kernel has io_uring")
}

pub fn compare(criterion: &mut Criterion, table: &mut Table) {
    let file = file().expect("64 MiB in the build directory");
    let fd: RawFd = file.as_raw_fd();
    table.compare(
        criterion,
        Work {
            name: "4 KiB random read, page cache, QD 32",
            ops: DEPTH as u64,
            target: 1.0,
            ours: vec![side!(ours, "annulus", ours_ring(), fd)],
            theirs: vec![side!(theirs, "kernel", theirs_ring(), fd)],
        },
    );
    table.compare(
        criterion,
        Work {
            name: "the same, file and buffers registered",
            ops: DEPTH as u64,
            target: 0.9,
            ours: vec![side!(ours, "annulus", ours_ring(), fd, registered)],
            theirs: vec![side!(theirs, "kernel", theirs_ring(), fd, registered)],
        },
    );
}
