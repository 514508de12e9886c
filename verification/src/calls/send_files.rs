//! Registered files that one ring sends another.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};

use annulus::uapi::*;
use annulus_linux::opcode::{FilesUpdate, MsgRingSendFd, Nop, Read};
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::types::{DestinationSlot, Fd, Fixed};

use super::ring::{Ring, Wish};
use super::{Row, Seen};
use crate::kernel::rng::Rng;

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("sent files: arguments", Wish::PLAIN, arguments),
    ("sent files: tables", Wish::PLAIN, tables),
    ("sent files: disabled rings", Wish::PLAIN, disabled),
    ("sent files: tags", Wish::PLAIN, tags),
    ("sent files: at random", Wish::PLAIN, at_random),
];

/// A file that begins with this byte.
fn file(byte: u8) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[byte]).unwrap();
    file
}

fn register(ring: &mut dyn Ring, seen: &mut Seen, mut fds: Vec<RawFd>) {
    let count = fds.len() as u32;
    ring.call(seen, IORING_REGISTER_FILES, &mut fds[0], count);
}

fn update(ring: &mut dyn Ring, seen: &mut Seen, offset: u32, mut fd: RawFd) {
    let mut arg = io_uring_rsrc_update { offset, data: &raw mut fd as u64, ..Default::default() };
    ring.call(seen, IORING_REGISTER_FILES_UPDATE, &mut arg, 1);
}

/// What a place has: the first byte, or why there is none.
fn first_byte(ring: &mut dyn Ring, seen: &mut Seen, place: u32) {
    let byte: &'static mut [u8; 1] = Box::leak(Box::new([0]));
    let read = Read::new(Fixed(place), byte.as_mut_ptr(), 1).offset(0).build();
    ring.run(seen, &[read.user_data(u64::from(place) + 1000)], 1);
    seen.push(format!("place {place}: {byte:?}"));
}

/// What there is to be told, behind which comes a NOP.
fn news(ring: &mut dyn Ring, seen: &mut Seen) {
    ring.run(seen, &[Nop::new().build()], 1);
}

fn place(at: u32) -> DestinationSlot {
    DestinationSlot::try_from_slot_target(at).unwrap()
}

const ANY: DestinationSlot = DestinationSlot::auto_target();

fn send(to: RawFd, from: u32, at: DestinationSlot) -> MsgRingSendFd {
    MsgRingSendFd::new(Fd(to), Fixed(from), at, 77)
}

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    let (one, two) = (file(1), file(2));
    register(ring, &mut seen, vec![one.as_raw_fd(), -1, two.as_raw_fd()]);
    register(&mut *other, &mut seen, vec![-1; 3]);
    let good = send(other.fd(), 2, place(1)).build().user_data(9);
    let all = [
        good,
        Entry { fd: -1, ..good },
        Entry { fd: one.as_raw_fd(), ..good },
        Entry { fd: ring.fd(), ..good },
        Entry { fd: ring.fd(), len: 1, ..good },
        Entry { len: 1, ..good },
        Entry { op_flags: IORING_MSG_RING_CQE_SKIP, ..good },
        Entry { op_flags: IORING_MSG_RING_FLAGS_PASS, ..good },
        Entry { op_flags: 3, ..good },
        Entry { op_flags: 4, ..good },
        Entry { splice_fd_in: 0, ..good },
        Entry { splice_fd_in: 3, ..good },
        Entry { splice_fd_in: 4, ..good },
        Entry { splice_fd_in: -2, ..good },
        Entry { splice_fd_in: -1, ..good },
        Entry { addr3: 1, ..good },
        Entry { addr3: 3, ..good },
        Entry { addr3: 1, splice_fd_in: 4, ..good },
        Entry { addr3: 1, len: 1, ..good },
        Entry { addr3: 1 << 32, ..good },
        Entry { addr: 1 | 1 << 32, ..good },
        Entry { addr: 2, ..good },
        Entry { ioprio: 1, ..good },
        Entry { buf_index: 1, ..good },
        Entry { personality: 1, ..good },
        Entry { pad2: 1, ..good },
        good.flags(Flags::FIXED_FILE),
        good.flags(Flags::ASYNC),
        good.flags(Flags::SKIP_SUCCESS),
    ];
    for entry in all {
        // A skipped one brings none.
        let wait = usize::from(entry.flags & Flags::SKIP_SUCCESS.bits() == 0);
        ring.run(&mut seen, &[entry], wait);
        news(&mut *other, &mut seen);
        (0..3).for_each(|place| first_byte(&mut *other, &mut seen, place));
        for at in 0..3 {
            update(&mut *other, &mut seen, at, -1);
        }
    }
    // Without a ring there is no table to send from.
    seen.push(format!("sent: {}", ring.send(&good.user_data(0))));
    let linked = [send(other.fd(), 1, ANY).build().flags(Flags::IO_LINK), good];
    ring.run(&mut seen, &linked, 2);
    let linked = [good.flags(Flags::IO_LINK), send(other.fd(), 0, ANY).build()];
    ring.run(&mut seen, &linked, 2);
    news(&mut *other, &mut seen);
    (0..3).for_each(|place| first_byte(&mut *other, &mut seen, place));
    seen
}

fn tables(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    let one = file(1);
    let (any, at) = (send(other.fd(), 0, ANY).build(), send(other.fd(), 0, place(0)).build());
    ring.run(&mut seen, &[any], 1);
    register(ring, &mut seen, vec![one.as_raw_fd()]);
    // No table, a table, a full one, none again, and another.
    for entry in [any, at] {
        ring.run(&mut seen, &[entry], 1);
    }
    register(&mut *other, &mut seen, vec![-1, one.as_raw_fd(), -1]);
    for _ in 0..3 {
        ring.run(&mut seen, &[any], 1);
    }
    ring.run(&mut seen, &[at], 1);
    // Not looked at before it ends.
    other.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    for entry in [any, at] {
        ring.run(&mut seen, &[entry], 1);
    }
    register(&mut *other, &mut seen, vec![-1; 2]);
    (0..2).for_each(|place| first_byte(&mut *other, &mut seen, place));
    // It is the file that has gone over, not its place.
    ring.run(&mut seen, &[any], 1);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    drop(one);
    (0..2).for_each(|place| first_byte(&mut *other, &mut seen, place));
    news(&mut *other, &mut seen);
    seen
}

fn disabled(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish { disabled: true, ..Wish::PLAIN });
    let one = file(1);
    register(ring, &mut seen, vec![one.as_raw_fd()]);
    register(&mut *other, &mut seen, vec![-1]);
    for entry in [
        send(other.fd(), 0, ANY).build(),
        send(other.fd(), 5, ANY).build(),
        Entry { len: 1, ..send(other.fd(), 0, ANY).build() },
    ] {
        ring.run(&mut seen, &[entry], 1);
    }
    other.call_null(&mut seen, IORING_REGISTER_ENABLE_RINGS, 0);
    ring.run(&mut seen, &[send(other.fd(), 0, ANY).build()], 1);
    first_byte(&mut *other, &mut seen, 0);
    seen
}

/// What is replaced has its tag posted.
fn tags(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    let (one, two) = (file(1), file(2));
    register(ring, &mut seen, vec![one.as_raw_fd()]);
    let (fds, tags) = ([two.as_raw_fd(), two.as_raw_fd()], [500_u64, 501]);
    let mut arg = io_uring_rsrc_register {
        nr: 2,
        data: fds.as_ptr() as u64,
        tags: tags.as_ptr() as u64,
        ..Default::default()
    };
    other.call(&mut seen, IORING_REGISTER_FILES2, &mut arg, 32);
    for at in [1, 1, 0] {
        ring.run(&mut seen, &[send(other.fd(), 0, place(at)).build()], 1);
        news(&mut *other, &mut seen);
    }
    (0..2).for_each(|place| first_byte(&mut *other, &mut seen, place));
    other.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    news(&mut *other, &mut seen);
    seen
}

/// Two tables, and whatever changes them.
fn at_random(ring: &mut dyn Ring) -> Seen {
    let (mut seen, mut rng) = (Seen::new(), Rng::new(1));
    let mut other = ring.another(Wish::PLAIN);
    let files: Vec<_> = (1..5).map(file).collect();
    for _ in 0..1500 {
        let (from, to): (&mut dyn Ring, &mut dyn Ring) = match rng.chance(70) {
            true => (ring, &mut *other),
            false => (&mut *other, ring),
        };
        let fd = match rng.below(8) {
            0 | 1 => -1,
            // None.
            2 => 9999,
            _ => rng.pick(&files).as_raw_fd(),
        };
        match rng.weighted(&[45, 14, 10, 15, 12, 3, 5]) {
            0 => {
                let at = match rng.chance(50) {
                    true => ANY,
                    false => place(rng.below(5) as u32),
                };
                let skip = u32::from(rng.chance(30)) * IORING_MSG_RING_CQE_SKIP;
                let sent = send(to.fd(), rng.below(5) as u32, at).opcode_flags(skip).build();
                from.run(&mut seen, &[sent], 1);
            }
            1 => update(to, &mut seen, rng.below(5) as u32, fd),
            2 => {
                let number: &'static mut [RawFd; 1] = Box::leak(Box::new([fd]));
                let any = FilesUpdate::new(number.as_ptr(), 1).offset(-1).build();
                to.run(&mut seen, &[any], 1);
                // What it was given is not the same number on both.
                seen.push(format!("chosen: {}", if number[0] == fd { -1 } else { number[0] }));
            }
            3 => first_byte(to, &mut seen, rng.below(4) as u32),
            4 => news(to, &mut seen),
            5 => to.call_null(&mut seen, IORING_UNREGISTER_FILES, 0),
            _ => register(to, &mut seen, vec![fd, -1, fd, -1]),
        }
    }
    seen
}
