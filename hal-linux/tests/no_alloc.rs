//! Nothing is allocated after set-up on the submission and completion paths.
//! Alone in its process: every thread's allocations count.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use annulus_linux::{Ring, opcode, squeue, types};
use common::*;

struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicUsize = AtomicUsize::new(0);

fn count() {
    if ON.load(Ordering::Relaxed) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the system's allocator, counted.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what `f` allocates and frees, in all threads.
fn counted(f: impl FnOnce()) -> usize {
    COUNT.store(0, Ordering::Relaxed);
    ON.store(true, Ordering::SeqCst);
    f();
    ON.store(false, Ordering::SeqCst);
    COUNT.load(Ordering::Relaxed)
}

/// Submits and reaps everything once; asserts success.
fn round(ring: &mut Ring, entries: &[squeue::Entry]) {
    let mut sq = ring.submission();
    for entry in entries {
        // SAFETY: everything lives as long as the test.
        unsafe { sq.push(entry) }.expect("room");
    }
    drop(sq);
    let mut left = entries.len();
    while left > 0 {
        ring.submit_and_wait(left).expect("submitted");
        for cqe in ring.completion() {
            assert!(cqe.result() >= 0 || cqe.user_data() == 99, "{cqe:?}");
            left -= 1;
        }
    }
}

#[test]
fn nothing_is_allocated_after_set_up() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let (from, to) = pipe(0);
    let mut buffer = vec![0u8; 65536];
    let p = buffer.as_mut_ptr();
    let iovecs: Vec<_> = (0..20)
        .map(|i| libc::iovec { iov_base: p.wrapping_add(i * 100).cast(), iov_len: 100 })
        .collect();
    let vectors = iovecs.as_ptr().cast();
    let fixed = types::Fixed(0);
    let fast = [
        opcode::Nop::new().build(),
        opcode::Read::new(fd(&file), p, 4096).build(),
        opcode::Readv::new(fd(&file), vectors, 3).build(),
        opcode::ReadFixed::new(fixed, p, 4096, 0).build(),
        opcode::Read::new(fd(&file), p, 4096).offset((1 << 20) - 100).build(),
        // Errors are answers, too.
        opcode::Write::new(fd(&full), p, 10).build().user_data(99),
        opcode::Read::new(types::Fd(9999), p, 10).build().user_data(99),
        opcode::Read::new(fd(&file), 16 as *mut u8, 10).build().user_data(99),
    ];
    let punted = [
        opcode::Write::new(fd(&file), p, 4096).build(),
        opcode::Write::new(fd(&file), p, 4096).build().flags(squeue::Flags::ASYNC),
        opcode::WriteFixed::new(fixed, p, 4096, 0).build(),
        opcode::Writev::new(fd(&file), vectors, 20).build(),
        opcode::Read::new(fd(&file), p, 4096).build().flags(squeue::Flags::ASYNC),
        opcode::Fsync::new(fd(&file)).build(),
    ];
    for (name, mut builder) in builders() {
        // One worker, so that growth does not depend on timing: making a
        // thread does allocate, and is set-up in this sense.
        let mut ring = builder.max_workers(1, 1).build(16).unwrap();
        ring.submitter().register_files(&[file.as_raw_fd()]).unwrap();
        let all = [libc::iovec { iov_base: p.cast(), iov_len: 65536 }];
        // SAFETY: the buffer outlives the ring.
        unsafe { ring.submitter().register_buffers(&all) }.unwrap();
        let waiting = [opcode::Read::new(fd(&from), p, 1).build()];
        let wait = |ring: &mut Ring, first: bool| {
            let mut sq = ring.submission();
            // SAFETY: as above.
            unsafe { sq.push(&waiting[0]) }.expect("room");
            drop(sq);
            ring.submit().expect("submitted");
            let args = types::SubmitArgs::new().timespec(&Duration::from_millis(1).into());
            let _ = ring.submitter().submit_with_args(1, &args);
            while first && threads("annulus-poll") == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
            put(&to, b"x");
            while ring.completion().next().is_none() {
                ring.submit_and_wait(1).expect("waited");
            }
        };
        // Threads come up, the poller and /dev/null are opened.
        round(&mut ring, &fast);
        round(&mut ring, &punted);
        wait(&mut ring, true);
        let paths: [(&str, usize); 3] = [
            ("tried", counted(|| (0..100).for_each(|_| round(&mut ring, &fast)))),
            ("punted", counted(|| (0..100).for_each(|_| round(&mut ring, &punted)))),
            ("polled for", counted(|| (0..20).for_each(|_| wait(&mut ring, false)))),
        ];
        for (path, count) in paths {
            assert_eq!(count, 0, "{name}: {path}");
        }
    }
}
