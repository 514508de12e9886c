//! Register calls of a ring over files, however it is driven.

mod common;

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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
        let open = open.flags(libc::O_RDONLY).build().flags(ASYNC).user_data(1);
        let cancel = |ring: &annulus_linux::Ring, ms: Option<u32>| {
            let timeout = ms.map(|ms| types::Timespec::new().nsec(ms * 1_000_000));
            let what = types::CancelBuilder::user_data(1);
            errno(ring.submitter().register_sync_cancel(timeout, what))
        };
        // It may be cancelled before a worker has begun with it.
        loop {
            push(ring, std::slice::from_ref(&open));
            ring.submit().unwrap();
            std::thread::sleep(std::time::Duration::from_millis(50));
            match cancel(ring, Some(20)) {
                Ok(()) => assert_eq!(reap(ring, 1)[0].result(), -libc::ECANCELED),
                other => break assert_eq!(other, Err(libc::ETIME)),
            }
        }
        let other = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::OpenOptions::new().write(true).open(path).unwrap()
        });
        assert_eq!(cancel(ring, None), Ok(()));
        assert_eq!(cancel(ring, None), Err(libc::ENOENT));
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

/// A counter that starts at 0, and does not block.
fn counter() -> OwnedFd {
    // SAFETY: a new descriptor.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
}

/// Waits until the counter is not 0, and takes it.
fn take(counter: &OwnedFd) {
    let mut poll = libc::pollfd { fd: counter.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut count = 0u64;
    // SAFETY: one descriptor, then eight bytes.
    unsafe {
        assert_eq!(libc::poll(&mut poll, 1, 10_000), 1, "rung within 10 s");
        assert_eq!(libc::read(poll.fd, (&raw mut count).cast(), 8), 8);
    }
}

#[test]
fn an_event_loop_lives_on_a_registered_eventfd() {
    each(8, |ring| {
        // A polling thread may take the read when there is something to read.
        let kinds = if ring.params().is_setup_sqpoll() { 1 } else { 2 };
        for only_late in [false, true].into_iter().take(kinds) {
            let counter = counter();
            let submitter = ring.submitter();
            match only_late {
                false => submitter.register_eventfd(counter.as_raw_fd()).unwrap(),
                true => submitter.register_eventfd_async(counter.as_raw_fd()).unwrap(),
            }
            let (from, to) = pipe(0);
            let mut to = File::from(to);
            let mut byte = 0;
            for n in 0..20 {
                let read = opcode::Read::new(types::Fd(from.as_raw_fd()), &mut byte, 1);
                push(ring, &[read.offset(u64::MAX).build().user_data(n)]);
                ring.submit().unwrap();
                let writer = std::thread::spawn(move || {
                    to.write_all(b"x").unwrap();
                    to
                });
                // Whoever only waits for the counter gets to see every CQE.
                loop {
                    take(&counter);
                    if let Some(cqe) = ring.completion().next() {
                        assert_eq!((cqe.user_data(), cqe.result()), (n, 1));
                        break;
                    }
                }
                to = writer.join().unwrap();
            }
            ring.submitter().unregister_eventfd().unwrap();
            assert_eq!(errno(ring.submitter().unregister_eventfd()), Err(libc::ENXIO));
        }
    });
}

#[test]
fn a_full_counter_blocks_nobody() {
    each(8, |ring| {
        // SAFETY: a new descriptor, of the kind whose writes may block.
        let full = unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC)) };
        let most = (u64::MAX - 1).to_ne_bytes();
        // SAFETY: eight bytes.
        assert_eq!(unsafe { libc::write(full.as_raw_fd(), most.as_ptr().cast(), 8) }, 8);
        ring.submitter().register_eventfd(full.as_raw_fd()).unwrap();
        assert_eq!(one(ring, &opcode::Nop::new().build()), 0);
        take(&full);
    });
}
