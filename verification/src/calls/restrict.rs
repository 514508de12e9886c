//! Rings that start disabled, and restrictions.

use annulus::uapi::*;
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::{opcode, types};

use super::ring::{Ring, Wish};
use super::{Row, Seen};

const DISABLED: Wish = Wish { disabled: true, ..Wish::PLAIN };

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("restrictions: a ring that is enabled", Wish::PLAIN, enabled),
    ("restrictions: a disabled ring", DISABLED, disabled),
    ("restrictions: arguments", DISABLED, arguments),
    ("restrictions: calls", DISABLED, calls),
    ("restrictions: requests", DISABLED, requests),
    ("restrictions: flags that are demanded", DISABLED, demanded),
];

fn rule(opcode: u32, arg: u8) -> io_uring_restriction {
    io_uring_restriction { opcode: opcode as u16, arg, ..Default::default() }
}

fn restrict(ring: &mut dyn Ring, seen: &mut Seen, rules: &mut [io_uring_restriction]) {
    let count = rules.len() as u32;
    // One that can be pointed to, if there is none.
    let mut all = rules.to_vec();
    all.push(rule(0, 0));
    ring.call(seen, IORING_REGISTER_RESTRICTIONS, &mut all[0], count);
}

fn enable(ring: &mut dyn Ring, seen: &mut Seen) {
    ring.call_null(seen, IORING_REGISTER_ENABLE_RINGS, 0);
}

fn nop(user_data: u64) -> Entry {
    opcode::Nop::new().build().user_data(user_data)
}

fn enabled(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    restrict(ring, &mut seen, &mut [rule(IORING_RESTRICTION_SQE_OP, 0)]);
    enable(ring, &mut seen);
    ring.run(&mut seen, &[nop(1)], 1);
    seen
}

fn disabled(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    ring.run(&mut seen, &[nop(1)], 1);
    ring.run(&mut seen, &[], 1);
    ring.run(&mut seen, &[], 0);
    ring.call(&mut seen, IORING_REGISTER_ENABLE_RINGS, &mut 0, 0);
    ring.call_null(&mut seen, IORING_REGISTER_ENABLE_RINGS, 1);
    enable(ring, &mut seen);
    enable(ring, &mut seen);
    restrict(ring, &mut seen, &mut [rule(IORING_RESTRICTION_SQE_OP, 0)]);
    // What has been pushed before is taken now.
    ring.run(&mut seen, &[nop(2)], 2);
    seen
}

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    ring.call_null(&mut seen, IORING_REGISTER_RESTRICTIONS, 1);
    ring.call_null(&mut seen, IORING_REGISTER_RESTRICTIONS, 0);
    for bad in [
        rule(4, 0),
        rule(u32::from(u16::MAX), 0),
        rule(IORING_RESTRICTION_REGISTER_OP, IORING_REGISTER_LAST as u8),
        rule(IORING_RESTRICTION_SQE_OP, IORING_OP_LAST),
    ] {
        restrict(ring, &mut seen, &mut [rule(IORING_RESTRICTION_SQE_OP, 0), bad]);
    }
    restrict(ring, &mut seen, &mut vec![rule(IORING_RESTRICTION_SQE_OP, 0); 200]);
    // Fields that are not looked at.
    let odd = io_uring_restriction { resv: 1, resv2: [1; 3], ..rule(1, 0) };
    restrict(ring, &mut seen, &mut [odd]);
    restrict(ring, &mut seen, &mut [odd]);
    restrict(ring, &mut seen, &mut []);
    enable(ring, &mut seen);
    ring.run(&mut seen, &[nop(1)], 1);
    seen
}

fn calls(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let allowed = [IORING_REGISTER_FILES, IORING_REGISTER_SYNC_CANCEL];
    let mut rules = allowed.map(|op| rule(IORING_RESTRICTION_REGISTER_OP, op as u8));
    restrict(ring, &mut seen, &mut rules);
    // Anything goes before it is enabled.
    ring.call(&mut seen, IORING_REGISTER_FILES, &mut -1, 1);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    enable(ring, &mut seen);
    // Refused before their arguments are looked at, or built at all.
    for opcode in 0..IORING_REGISTER_LAST + 2 {
        ring.call_null(&mut seen, opcode, 0);
    }
    ring.call(&mut seen, IORING_REGISTER_FILES, &mut -1, 1);
    ring.call(&mut seen, IORING_REGISTER_FILES, &mut -1, 1);
    seen
}

fn requests(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut rules = [
        rule(IORING_RESTRICTION_SQE_OP, IORING_OP_NOP),
        rule(IORING_RESTRICTION_SQE_OP, IORING_OP_WRITE),
        rule(IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IOSQE_IO_LINK | IOSQE_ASYNC),
    ];
    restrict(ring, &mut seen, &mut rules);
    enable(ring, &mut seen);
    let buffer = Box::leak(Box::new([0; 8])).as_mut_ptr();
    let file = tempfile::tempfile().unwrap();
    let fd = types::Fd(std::os::fd::AsRawFd::as_raw_fd(&file));
    let write = opcode::Write::new(fd, buffer, 8).build().user_data(20);
    let read = opcode::Read::new(fd, buffer, 8).build().user_data(30);
    let mut unknown = nop(40);
    unknown.opcode = IORING_OP_LAST;
    let mut odd = nop(50);
    odd.ioprio = 1;
    for entry in [
        nop(1),
        write,
        write.flags(Flags::ASYNC),
        read,
        nop(3).flags(Flags::FIXED_FILE),
        nop(4).flags(Flags::SKIP_SUCCESS),
        unknown,
        odd,
        opcode::Fsync::new(fd).build().user_data(60),
    ] {
        ring.run(&mut seen, &[entry], 1);
    }
    // One that is refused ends its batch, and its chain.
    ring.run(&mut seen, &[nop(5), read, nop(6)], 2);
    ring.run(&mut seen, &[], 1);
    let link = Flags::IO_LINK;
    ring.run(&mut seen, &[nop(7).flags(link), read.flags(link), nop(8)], 3);
    ring.run(&mut seen, &[nop(9).flags(link), nop(10), nop(11)], 3);
    // The last: in the kernel, what follows a drain that is refused is late.
    ring.run(&mut seen, &[nop(2).flags(Flags::IO_DRAIN)], 1);
    seen
}

fn demanded(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut rules = [
        rule(IORING_RESTRICTION_SQE_OP, IORING_OP_NOP),
        rule(IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IOSQE_IO_DRAIN),
        // The last one of a kind holds.
        rule(IORING_RESTRICTION_SQE_FLAGS_ALLOWED, IOSQE_IO_LINK),
        rule(IORING_RESTRICTION_SQE_FLAGS_REQUIRED, IOSQE_ASYNC),
    ];
    restrict(ring, &mut seen, &mut rules);
    enable(ring, &mut seen);
    for flags in [Flags::empty(), Flags::ASYNC, Flags::ASYNC | Flags::IO_LINK, Flags::IO_LINK] {
        ring.run(&mut seen, &[nop(1).flags(flags)], 1);
    }
    ring.run(&mut seen, &[nop(1).flags(Flags::ASYNC | Flags::IO_DRAIN)], 1);
    seen
}
