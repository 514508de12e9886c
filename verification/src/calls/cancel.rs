//! Synchronous cancellation.

use std::io::{PipeReader, PipeWriter, Write, pipe};
use std::os::fd::AsRawFd;

use annulus::uapi::*;
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::{opcode, types};

use super::ring::{Ring, Wish};
use super::{Row, Seen};

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("cancel: arguments", Wish::PLAIN, arguments),
    ("cancel: by every key", Wish::PLAIN, keys),
    ("cancel: what is under way", Wish::PLAIN, under_way),
];

fn cancel(addr: u64, fd: i32, flags: u32) -> io_uring_sync_cancel_reg {
    let timeout = __kernel_timespec { tv_sec: -1, tv_nsec: -1 };
    io_uring_sync_cancel_reg { addr, fd, flags, timeout, ..Default::default() }
}

fn sync_cancel(ring: &mut dyn Ring, seen: &mut Seen, mut reg: io_uring_sync_cancel_reg) {
    ring.call(seen, IORING_REGISTER_SYNC_CANCEL, &mut reg, 1);
}

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let good = cancel(1, -1, 0);
    sync_cancel(ring, &mut seen, good);
    for nr_args in [0, 2] {
        ring.call(&mut seen, IORING_REGISTER_SYNC_CANCEL, &mut { good }, nr_args);
    }
    for nr_args in [0, 1] {
        ring.call_null(&mut seen, IORING_REGISTER_SYNC_CANCEL, nr_args);
    }
    for bit in 0..8 {
        sync_cancel(ring, &mut seen, cancel(1, -1, 1 << bit));
    }
    sync_cancel(ring, &mut seen, io_uring_sync_cancel_reg { pad: [0, 0, 1, 0, 0, 0, 0], ..good });
    sync_cancel(ring, &mut seen, io_uring_sync_cancel_reg { pad2: [0, 0, 1], ..good });
    let file = IORING_ASYNC_CANCEL_FD;
    sync_cancel(ring, &mut seen, cancel(1, 0, file));
    sync_cancel(ring, &mut seen, cancel(1, 0, file | IORING_ASYNC_CANCEL_FD_FIXED));
    sync_cancel(ring, &mut seen, cancel(1, -1, file | IORING_ASYNC_CANCEL_ANY));
    sync_cancel(ring, &mut seen, cancel(1, 0, file | IORING_ASYNC_CANCEL_ANY));
    sync_cancel(ring, &mut seen, cancel(1, 0, IORING_ASYNC_CANCEL_OP | IORING_ASYNC_CANCEL_ANY));
    seen
}

/// Reads that wait, on two pipes, and a timeout.
fn waiting(from: [&PipeReader; 2]) -> Vec<Entry> {
    let buffer = Box::leak(Box::new([0; 8])).as_mut_ptr();
    let hour: &'static types::Timespec = Box::leak(Box::new(types::Timespec::new().sec(3600)));
    let [one, other] = from.map(|pipe| types::Fd(pipe.as_raw_fd()));
    let read = |fd| opcode::Read::new(fd, buffer, 1).offset(u64::MAX).build();
    vec![
        read(one).user_data(1),
        read(other).user_data(1),
        read(other).user_data(2),
        opcode::PollAdd::new(one, libc::POLLIN as _).build().user_data(3),
        opcode::Timeout::new(hour).build().user_data(4),
    ]
}

fn keys(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let ((one, _ends_one), (other, _ends_other)) = (pipe().unwrap(), pipe().unwrap());
    let waiting = waiting([&one, &other]);
    let fd = other.as_raw_fd();
    let by_opcode = io_uring_sync_cancel_reg { opcode: IORING_OP_TIMEOUT, ..cancel(9, -1, 0) };
    let op = IORING_ASYNC_CANCEL_OP;
    for reg in [
        cancel(1, -1, 0),
        cancel(1, -1, IORING_ASYNC_CANCEL_ALL),
        cancel(3, -1, IORING_ASYNC_CANCEL_USERDATA),
        cancel(4, -1, 0),
        cancel(9, fd, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL),
        cancel(2, fd, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_USERDATA),
        cancel(4, fd, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_USERDATA),
        cancel(9, fd, IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ANY),
        io_uring_sync_cancel_reg { flags: op, ..by_opcode },
        io_uring_sync_cancel_reg { flags: op | IORING_ASYNC_CANCEL_USERDATA, ..by_opcode },
        io_uring_sync_cancel_reg { flags: IORING_ASYNC_CANCEL_ANY, ..by_opcode },
    ] {
        ring.run(&mut seen, &waiting, 0);
        sync_cancel(ring, &mut seen, reg);
        // There already, whatever they are.
        ring.run(&mut seen, &[], 0);
        sync_cancel(ring, &mut seen, cancel(0, -1, IORING_ASYNC_CANCEL_ANY));
        ring.run(&mut seen, &[], 0);
    }
    seen
}

/// What has begun and cannot be ended is waited for.
fn under_way(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let (from, mut to): (PipeReader, PipeWriter) = pipe().unwrap();
    let buffer = Box::leak(Box::new([0; 8])).as_mut_ptr();
    let read = opcode::Read::new(types::Fd(from.as_raw_fd()), buffer, 1).offset(u64::MAX);
    let read = read.build().flags(Flags::ASYNC).user_data(1);
    ring.run(&mut seen, &[read], 0);
    to.write_all(b"x").unwrap();
    ring.run(&mut seen, &[], 1);
    // Whether a long write to a file has begun or not, nothing is left of it.
    let file = tempfile::tempfile().unwrap();
    let data = vec![7; 64 << 20].leak();
    let write = opcode::Write::new(types::Fd(file.as_raw_fd()), data.as_ptr(), data.len() as u32);
    let write = write.build().flags(Flags::ASYNC).user_data(2);
    for _ in 0..4 {
        let answer = ring.submit(&[write], 0);
        std::thread::sleep(std::time::Duration::from_millis(2));
        // How far a polling thread has come by then is its own.
        ring.rest().unwrap();
        let mut reg = cancel(2, -1, 0);
        let arg = (&raw mut reg).cast();
        // SAFETY: the operation's argument.
        let cancelled = unsafe { ring.register(IORING_REGISTER_SYNC_CANCEL, arg, 1) };
        // SAFETY: as above.
        let again = unsafe { ring.register(IORING_REGISTER_SYNC_CANCEL, arg, 1) };
        let ended = ring.reap().len();
        seen.push(format!("{answer:?}: {cancelled}, then {again}, {ended} CQE"));
    }
    seen
}
