//! Register calls of a ring over files, however it is driven.

mod common;

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;

use annulus_linux::{opcode, squeue, types};
use common::*;

const ASYNC: squeue::Flags = squeue::Flags::ASYNC;

fn errno<T>(result: io::Result<T>) -> Result<T, i32> {
    result.map_err(|error| error.raw_os_error().unwrap())
}

#[test]
fn a_cancellation_waits_for_what_a_worker_is_at() {
    each(8, |ring| {
        // Who opens a named pipe waits for its other end, in a worker.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pipe");
        let c_path = CString::new(path.clone().into_os_string().into_vec()).unwrap();
        // SAFETY: a path.
        assert_eq!(unsafe { libc::mkfifo(c_path.as_ptr(), 0o600) }, 0);
        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c_path.as_ptr());
        push(ring, &[open.flags(libc::O_RDONLY).build().flags(ASYNC).user_data(1)]);
        ring.submit().unwrap();
        let cancel = |ms: Option<u32>| {
            let timeout = ms.map(|ms| types::Timespec::new().nsec(ms * 1_000_000));
            let what = types::CancelBuilder::user_data(1);
            errno(ring.submitter().register_sync_cancel(timeout, what))
        };
        // It may be cancelled before a worker has begun with it.
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert_eq!(cancel(Some(20)), Err(libc::ETIME));
        let other = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::OpenOptions::new().write(true).open(path).unwrap()
        });
        assert_eq!(cancel(None), Ok(()));
        assert_eq!(cancel(None), Err(libc::ENOENT));
        let opened = reap(ring, 1)[0].result();
        assert!(opened >= 0);
        // SAFETY: new, and nobody else's.
        unsafe { libc::close(opened) };
        drop(other.join().unwrap());
    });
}

#[test]
fn a_cancellation_ends_who_waits_for_a_file() {
    each(8, |ring| {
        let (from, _to) = pipe(0);
        let file = types::Fd(from.as_raw_fd());
        push(ring, &[opcode::PollAdd::new(file, libc::POLLIN as _).build()]);
        ring.submit().unwrap();
        let what = types::CancelBuilder::fd(file);
        while errno(ring.submitter().register_sync_cancel(None, what)) == Err(libc::ENOENT) {
            // A polling thread has not taken it yet.
            std::thread::yield_now();
        }
        assert_eq!(reap(ring, 1)[0].result(), -libc::ECANCELED);
    });
}
