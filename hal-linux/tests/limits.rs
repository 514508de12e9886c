//! Row *workers*: limits are read and set as this machine's kernel does it.
// The machines that the io-uring crate has bindings for.
#![cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64"))]

mod common;

use std::io;

/// `IORING_REGISTER_IOWQ_MAX_WORKERS`: what comes back, and what is refused.
#[test]
fn limits_of_workers_are_the_kernels() {
    let Ok(kernel) = io_uring::IoUring::new(8) else {
        return common::not_run("the kernel gives no io_uring to compare with");
    };
    let ours = annulus_linux::Ring::new(8).unwrap();
    let most = i32::MAX as u32;
    let sets = [
        [3, 5],
        [0, 0],
        [0, 1 << 30],
        [0, 0],
        [most, 2],
        [0, 0],
        [1 << 31, 7],
        [7, 1 << 31],
        [0, 0],
    ];
    for (nth, set) in sets.into_iter().enumerate() {
        let (mut a, mut b) = (set, set);
        let errno = |done: io::Result<()>| done.err().and_then(|e| e.raw_os_error());
        let theirs = errno(kernel.submitter().register_iowq_max_workers(&mut a));
        let mine = errno(ours.submitter().register_iowq_max_workers(&mut b));
        if nth == 0 {
            // As many as there may be threads there, fewer here: a meant
            // difference.
            (a[1], b[1]) = (0, 0);
        }
        assert_eq!((mine, b), (theirs, a), "call {nth}: {set:?}");
    }
}
