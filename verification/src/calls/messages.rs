//! Messages from ring to ring.

use std::os::fd::{AsRawFd, RawFd};

use annulus::uapi::*;
use annulus_linux::opcode::{MsgRingData, Nop, Timeout};
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::types::{Fd, Timespec};

use super::ring::{Ring, Wish};
use super::{Row, Seen};

/// As small as a CQ can be here.
const SMALL: Wish = Wish { cq_entries: Some(8), disabled: false };

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("messages: completions of the other ring", Wish::PLAIN, data),
    ("messages: arguments", Wish::PLAIN, arguments),
    ("messages: without a ring", Wish::PLAIN, without_a_ring),
    ("messages: to oneself", Wish::PLAIN, to_oneself),
    ("messages: no room", Wish::PLAIN, no_room),
    ("messages: disabled rings", Wish::PLAIN, disabled),
    ("messages: rings among files", Wish::PLAIN, among_files),
    ("messages: counted", Wish::PLAIN, counted),
];

fn message(fd: RawFd, n: u64) -> Entry {
    MsgRingData::new(Fd(fd), n as i32, 100 + n, None).build().user_data(n)
}

fn data(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    for (result, user_data, flags) in
        [(0, 0, None), (-5, u64::MAX, None), (i32::MIN, 1, Some(0)), (7, 2, Some(u32::MAX))]
    {
        let message = MsgRingData::new(Fd(other.fd()), result, user_data, flags).build();
        ring.run(&mut seen, &[message.user_data(9)], 1);
        other.run(&mut seen, &[], 1);
    }
    let quiet = message(other.fd(), 1).flags(Flags::SKIP_SUCCESS);
    ring.run(&mut seen, &[quiet], 0);
    other.run(&mut seen, &[], 1);
    ring.run(&mut seen, &[message(other.fd(), 1).flags(Flags::ASYNC)], 1);
    other.run(&mut seen, &[], 1);
    let linked = [message(-1, 1).flags(Flags::IO_LINK), message(other.fd(), 2)];
    ring.run(&mut seen, &linked, 2);
    other.run(&mut seen, &[Nop::new().build()], 1);
    seen
}

/// Entries that are wrong in some way, and some that only look so.
fn odd(good: Entry, file: RawFd) -> Vec<Entry> {
    vec![
        good,
        Entry { fd: -1, ..good },
        Entry { fd: 9999, ..good },
        Entry { fd: file, ..good },
        Entry { op_flags: 1, ..good },
        Entry { op_flags: 3, ..good },
        Entry { op_flags: 4, ..good },
        Entry { op_flags: 4, fd: -1, ..good },
        Entry { splice_fd_in: 1, ..good },
        Entry { splice_fd_in: -1, op_flags: 2, ..good },
        Entry { addr3: 1, ..good },
        Entry { addr3: 1, fd: file, ..good },
        Entry { addr3: 1 << 32, ..good },
        Entry { addr: 2, ..good },
        Entry { addr: 2, fd: file, ..good },
        Entry { addr: 2, fd: -1, ..good },
        Entry { addr: 1 << 32, ..good },
        Entry { ioprio: 1, ..good },
        Entry { buf_index: 1, ..good },
        Entry { personality: 1, ..good },
        Entry { pad2: 1, ..good },
    ]
}

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    let file = tempfile::tempfile().unwrap();
    let good = message(other.fd(), 1);
    for entry in odd(good, file.as_raw_fd()) {
        ring.run(&mut seen, &[entry], 1);
        // The NOP comes behind the message, if there is one.
        other.run(&mut seen, &[Nop::new().build()], 1);
    }
    for flags in [Flags::FIXED_FILE, Flags::BUFFER_SELECT] {
        ring.run(&mut seen, &[good.flags(flags)], 1);
    }
    seen
}

fn without_a_ring(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    let file = tempfile::tempfile().unwrap();
    let good = message(other.fd(), 1).user_data(0);
    let mut all = odd(good, file.as_raw_fd());
    all.extend([
        Entry { addr: 1, ..good },
        good.flags(Flags::ASYNC),
        good.flags(Flags::FIXED_FILE),
        Entry { opcode: IORING_OP_NOP, ..good },
    ]);
    for entry in all {
        seen.push(format!("sent: {}", ring.send(&entry)));
        other.run(&mut seen, &[Nop::new().build()], 1);
    }
    // To a ring it is none of its operations.
    ring.call(&mut seen, IORING_REGISTER_SEND_MSG_RING, &mut { good }, 1);
    seen
}

fn to_oneself(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    ring.run(&mut seen, &[message(ring.fd(), 1)], 2);
    for _ in 0..2 {
        let answer = ring.submit(&[message(ring.fd(), 1)], 2).unwrap();
        seen.push(format!("in their order: {answer}, {:?}", ring.reap()));
    }
    seen
}

fn no_room(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(SMALL);
    for round in 0..3 {
        for n in 0..12 {
            ring.run(&mut seen, &[message(other.fd(), 20 * round + n)], 1);
        }
        other.run(&mut seen, &[], 8);
        other.run(&mut seen, &[Nop::new().build()], 1);
    }
    seen
}

fn disabled(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish { disabled: true, ..Wish::PLAIN });
    let file = tempfile::tempfile().unwrap();
    for entry in odd(message(other.fd(), 1), file.as_raw_fd()) {
        ring.run(&mut seen, &[entry], 1);
    }
    seen.push(format!("sent: {}", ring.send(&message(other.fd(), 1))));
    other.call_null(&mut seen, IORING_REGISTER_ENABLE_RINGS, 0);
    ring.run(&mut seen, &[message(other.fd(), 1)], 1);
    other.run(&mut seen, &[], 1);
    seen
}

fn among_files(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let other = ring.another(Wish::PLAIN);
    let file = tempfile::tempfile().unwrap();
    for fd in [ring.fd(), other.fd()] {
        ring.call(&mut seen, IORING_REGISTER_FILES, &mut { fd }, 1);
    }
    ring.call(&mut seen, IORING_REGISTER_FILES, &mut [file.as_raw_fd(), -1], 2);
    for place in [0, 1, 2] {
        ring.run(&mut seen, &[message(place, 1).flags(Flags::FIXED_FILE)], 1);
    }
    // SAFETY: a duplicate of ours.
    let duplicate = unsafe { libc::dup(other.fd()) };
    ring.run(&mut seen, &[message(duplicate, 1)], 1);
    // SAFETY: as above.
    unsafe { libc::close(duplicate) };
    ring.run(&mut seen, &[message(duplicate, 1)], 1);
    let gone = other.fd();
    drop(other);
    ring.run(&mut seen, &[message(gone, 1)], 1);
    seen
}

fn counted(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut other = ring.another(Wish::PLAIN);
    let time = Timespec::new().sec(1000);
    other.run(&mut seen, &[Timeout::new(&time).count(2).build()], 0);
    ring.run(&mut seen, &[message(other.fd(), 1)], 1);
    other.run(&mut seen, &[], 1);
    ring.run(&mut seen, &[message(other.fd(), 2)], 1);
    other.run(&mut seen, &[], 2);
    seen
}
