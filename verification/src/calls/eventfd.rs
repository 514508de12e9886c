//! Registered eventfds. How often one is rung is not compared, only whether.

use std::io::{Write, pipe};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use annulus::uapi::*;
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::{opcode, types};

use super::ring::{Ring, Wish};
use super::{Row, Seen};

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("eventfd: arguments", Wish::PLAIN, arguments),
    ("eventfd: for all completions", Wish::PLAIN, all),
    ("eventfd: for late completions", Wish::PLAIN, late),
    ("eventfd: switched off", Wish::PLAIN, switched_off),
];

/// A counter.
pub fn eventfd(flags: i32) -> OwnedFd {
    // SAFETY: a new descriptor.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | flags)) }
}

/// Whether it has been rung since the last look.
pub fn rung(seen: &mut Seen, eventfd: &OwnedFd) {
    let mut count = 0u64;
    // SAFETY: eight bytes.
    let read = unsafe { libc::read(eventfd.as_raw_fd(), (&raw mut count).cast(), 8) };
    seen.push(format!("rung: {}", read == 8 && count != 0));
}

fn nop() -> Entry {
    opcode::Nop::new().build().user_data(1)
}

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    let one = eventfd(libc::EFD_NONBLOCK);
    for opcode in [IORING_REGISTER_EVENTFD, IORING_REGISTER_EVENTFD_ASYNC] {
        for nr_args in [0, 2] {
            ring.call(&mut seen, opcode, &mut one.as_raw_fd(), nr_args);
        }
        ring.call_null(&mut seen, opcode, 1);
        for fd in [-1, 9999, file.as_raw_fd(), one.as_raw_fd()] {
            ring.call(&mut seen, opcode, &mut { fd }, 1);
        }
        for again in [IORING_REGISTER_EVENTFD, IORING_REGISTER_EVENTFD_ASYNC] {
            ring.call(&mut seen, again, &mut one.as_raw_fd(), 1);
            ring.call(&mut seen, again, &mut -1, 1);
        }
        ring.call(&mut seen, IORING_UNREGISTER_EVENTFD, &mut 0, 0);
        for nr_args in [1, 0, 0] {
            ring.call_null(&mut seen, IORING_UNREGISTER_EVENTFD, nr_args);
        }
    }
    seen
}

fn all(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    for flags in [0, libc::EFD_NONBLOCK] {
        let counter = eventfd(flags);
        let watch = counter.try_clone().unwrap();
        let fd = counter.as_raw_fd();
        ring.run(&mut seen, &[nop()], 1);
        ring.call(&mut seen, IORING_REGISTER_EVENTFD, &mut { fd }, 1);
        // The ring has its own from here on.
        drop(counter);
        // SAFETY: a descriptor of ours, which may not block from here on.
        unsafe { libc::fcntl(watch.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        rung(&mut seen, &watch);
        ring.run(&mut seen, &[nop(), nop()], 2);
        rung(&mut seen, &watch);
        rung(&mut seen, &watch);
        let (from, mut to) = pipe().unwrap();
        let buffer = Box::leak(Box::new([0; 8])).as_mut_ptr();
        let read = opcode::Read::new(types::Fd(from.as_raw_fd()), buffer, 1).offset(u64::MAX);
        ring.run(&mut seen, &[read.build().user_data(2)], 0);
        rung(&mut seen, &watch);
        to.write_all(b"x").unwrap();
        ring.run(&mut seen, &[], 1);
        rung(&mut seen, &watch);
        ring.call_null(&mut seen, IORING_UNREGISTER_EVENTFD, 0);
        ring.run(&mut seen, &[nop()], 1);
        rung(&mut seen, &watch);
    }
    seen
}

fn late(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let counter = eventfd(libc::EFD_NONBLOCK);
    ring.call(&mut seen, IORING_REGISTER_EVENTFD_ASYNC, &mut counter.as_raw_fd(), 1);
    // In the page cache, so that it is read at once: a write may have to wait.
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(b"x", 0).unwrap();
    let mut byte = 0u8;
    let read = opcode::Read::new(types::Fd(file.as_raw_fd()), &raw mut byte, 1).build();
    for _ in 0..2 {
        ring.run(&mut seen, &[nop(), read.user_data(2), nop()], 3);
        rung(&mut seen, &counter);
        // A worker's.
        ring.run(&mut seen, &[read.flags(Flags::ASYNC).user_data(3)], 1);
        rung(&mut seen, &counter);
        // Chains end where they are submitted, too.
        ring.run(&mut seen, &[nop().flags(Flags::IO_LINK), nop()], 2);
        rung(&mut seen, &counter);
    }
    seen
}

fn switched_off(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let counter = eventfd(libc::EFD_NONBLOCK);
    ring.call(&mut seen, IORING_REGISTER_EVENTFD, &mut counter.as_raw_fd(), 1);
    for off in [true, false, true] {
        ring.disable_eventfd(off);
        ring.run(&mut seen, &[nop()], 1);
        rung(&mut seen, &counter);
    }
    seen
}
