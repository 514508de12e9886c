//! Tags of registered files and buffers.

use std::fs::File;
use std::io::{Write, pipe};
use std::os::fd::AsRawFd;

use annulus::uapi::*;
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::{opcode, types};

use super::ring::{Ring, Wish};
use super::{Row, Seen, eventfd};

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("tags: arguments", Wish::PLAIN, arguments),
    ("tags: of files", Wish::PLAIN, files),
    ("tags: of buffers", Wish::PLAIN, buffers),
    ("tags: after the last use", Wish::PLAIN, last_use),
    ("tags: of requests that change the table", Wish::PLAIN, by_requests),
    ("tags: count as completions", Wish::PLAIN, count),
    ("tags: ring eventfds", Wish::PLAIN, eventfds),
    ("tags: a full CQ", Wish { cq_entries: Some(8), ..Wish::PLAIN }, full),
    ("tags: none overtakes", Wish { cq_entries: Some(8), ..Wish::PLAIN }, in_order),
];

/// The tables, and what their elements are.
fn register<T>(ring: &mut dyn Ring, seen: &mut Seen, opcode: u32, data: &[T], tags: &[u64]) {
    let mut arg = io_uring_rsrc_register {
        nr: data.len() as u32,
        data: data.as_ptr() as u64,
        tags: if tags.is_empty() { 0 } else { tags.as_ptr() as u64 },
        ..Default::default()
    };
    ring.call(seen, opcode, &mut arg, 32);
}

fn update<T>(
    ring: &mut dyn Ring,
    seen: &mut Seen,
    (opcode, offset): (u32, u32),
    data: &[T],
    tags: &[u64],
) {
    let mut arg = io_uring_rsrc_update2 {
        offset,
        data: data.as_ptr() as u64,
        tags: if tags.is_empty() { 0 } else { tags.as_ptr() as u64 },
        nr: data.len() as u32,
        ..Default::default()
    };
    ring.call(seen, opcode, &mut arg, 32);
}

fn buffer(len: usize) -> types::Iovec {
    types::Iovec::new(vec![0; len].leak().as_mut_ptr(), len)
}

const NO_BUFFER: types::Iovec = types::Iovec::new(std::ptr::null_mut(), 0);

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_raw_fd();
    for opcode in [IORING_REGISTER_FILES2, IORING_REGISTER_BUFFERS2] {
        for nr_args in [0, 31, 33] {
            ring.call(&mut seen, opcode, &mut io_uring_rsrc_register::default(), nr_args);
        }
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_register::default(), 32);
        ring.call_null(&mut seen, opcode, 32);
        let good = io_uring_rsrc_register { nr: 2, flags: 1, ..Default::default() };
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_register { flags: 2, ..good }, 32);
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_register { resv2: 1, ..good }, 32);
        let data = [0u64; 8];
        let data = data.as_ptr() as u64;
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_register { data, ..good }, 32);
        let tags = [0u64, 7];
        let tagged = io_uring_rsrc_register { tags: tags.as_ptr() as u64, ..good };
        ring.call(&mut seen, opcode, &mut { tagged }, 32);
        let none = [0u64, 0];
        let untagged = io_uring_rsrc_register { tags: none.as_ptr() as u64, ..good };
        ring.call(&mut seen, opcode, &mut { untagged }, 32);
        ring.call(&mut seen, opcode, &mut { good }, 32);
        // There is a table.
        ring.call(&mut seen, opcode, &mut { tagged }, 32);
    }
    for opcode in [IORING_REGISTER_FILES_UPDATE2, IORING_REGISTER_BUFFERS_UPDATE] {
        let fds = [0u64; 8];
        let good = io_uring_rsrc_update2 { nr: 1, data: fds.as_ptr() as u64, ..Default::default() };
        for nr_args in [0, 16, 33] {
            ring.call(&mut seen, opcode, &mut { good }, nr_args);
        }
        ring.call_null(&mut seen, opcode, 32);
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_update2 { nr: 0, ..good }, 32);
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_update2 { resv: 1, ..good }, 32);
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_update2 { resv2: 1, ..good }, 32);
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_update2 { offset: 9, ..good }, 32);
        ring.call(&mut seen, opcode, &mut io_uring_rsrc_update2 { offset: u32::MAX, ..good }, 32);
    }
    // Tags are for places that have something.
    for (fds, tags) in [([-1, -1], [0, 5]), ([-2, fd], [5, 6]), ([fd, -1], [5, 6])] {
        update(ring, &mut seen, (IORING_REGISTER_FILES_UPDATE2, 0), &fds, &tags);
    }
    let buffers = [buffer(64), NO_BUFFER];
    update(ring, &mut seen, (IORING_REGISTER_BUFFERS_UPDATE, 0), &buffers, &[3, 4]);
    ring.look(&mut seen);
    seen
}

fn files(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_raw_fd();
    // A registration that fails posts nothing.
    register(ring, &mut seen, IORING_REGISTER_FILES2, &[fd, 9999], &[1, 2]);
    register(ring, &mut seen, IORING_REGISTER_FILES2, &[fd, -1], &[1, 2]);
    ring.look(&mut seen);
    register(ring, &mut seen, IORING_REGISTER_FILES2, &[fd, -1, fd, fd, fd], &[11, 0, 12, 0, 13]);
    ring.look(&mut seen);
    let op = IORING_REGISTER_FILES_UPDATE2;
    update(ring, &mut seen, (op, 0), &[fd, fd, -2], &[1 << 63, u64::MAX, 0]);
    ring.look(&mut seen);
    update(ring, &mut seen, (op, 0), &[-1], &[]);
    update(ring, &mut seen, (op, 1), &[fd, 9999, fd], &[14, 15, 16]);
    ring.look(&mut seen);
    let mut plain = io_uring_rsrc_update { offset: 4, resv: 0, data: (&raw const fd) as u64 };
    ring.call(&mut seen, IORING_REGISTER_FILES_UPDATE, &mut plain, 1);
    ring.look(&mut seen);
    update(ring, &mut seen, (op, 2), &[fd, fd], &[17, 18]);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    ring.look(&mut seen);
    register(ring, &mut seen, IORING_REGISTER_FILES2, &[fd], &[]);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    ring.look(&mut seen);
    seen
}

fn buffers(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let (one, other) = (buffer(64), buffer(4096));
    let bad = types::Iovec::new(std::ptr::null_mut(), 8);
    let op = IORING_REGISTER_BUFFERS2;
    register(ring, &mut seen, op, &[one, bad], &[1, 2]);
    register(ring, &mut seen, op, &[one, NO_BUFFER], &[1, 2]);
    ring.look(&mut seen);
    register(ring, &mut seen, op, &[one, NO_BUFFER, other], &[21, 0, 22]);
    let op = IORING_REGISTER_BUFFERS_UPDATE;
    update(ring, &mut seen, (op, 0), &[other, one], &[23, 24]);
    ring.look(&mut seen);
    // What is bad changes nothing.
    update(ring, &mut seen, (op, 0), &[bad], &[25]);
    update(ring, &mut seen, (op, 0), &[NO_BUFFER, one], &[0, 26]);
    ring.look(&mut seen);
    ring.call_null(&mut seen, IORING_UNREGISTER_BUFFERS, 0);
    ring.look(&mut seen);
    seen
}

fn last_use(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    for unregister in [false, true] {
        let (from, mut to) = pipe().unwrap();
        let fd = from.as_raw_fd();
        let memory = buffer(8);
        register(ring, &mut seen, IORING_REGISTER_FILES2, &[fd], &[31]);
        register(ring, &mut seen, IORING_REGISTER_BUFFERS2, &[memory], &[32]);
        let read = opcode::ReadFixed::new(types::Fixed(0), memory.base, 1, 0).offset(u64::MAX);
        let read = read.build();
        ring.run(&mut seen, &[read.user_data(1), read.user_data(2)], 0);
        if unregister {
            ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
            ring.call_null(&mut seen, IORING_UNREGISTER_BUFFERS, 0);
        } else {
            update(ring, &mut seen, (IORING_REGISTER_FILES_UPDATE2, 0), &[fd], &[33]);
            update(ring, &mut seen, (IORING_REGISTER_BUFFERS_UPDATE, 0), &[memory], &[34]);
        }
        // In use, so nothing yet.
        ring.look(&mut seen);
        to.write_all(b"x").unwrap();
        ring.run(&mut seen, &[], 1);
        to.write_all(b"x").unwrap();
        // The request, its file and its buffer.
        ring.run(&mut seen, &[], 3);
        if !unregister {
            ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
            ring.call_null(&mut seen, IORING_UNREGISTER_BUFFERS, 0);
        }
        ring.look(&mut seen);
    }
    seen
}

fn by_requests(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    let fd = file.as_raw_fd();
    register(ring, &mut seen, IORING_REGISTER_FILES2, &[fd; 5], &[41, 42, 43, 44, 45]);
    let fds: &'static [i32; 2] = Box::leak(Box::new([fd, -1]));
    let update = opcode::FilesUpdate::new(fds.as_ptr(), 2).offset(0).build().user_data(1);
    ring.run(&mut seen, &[update], 3);
    let close = opcode::Close::new(types::Fixed(2)).build().user_data(2);
    ring.run(&mut seen, &[close], 2);
    let null = types::DestinationSlot::try_from_slot_target(3).unwrap();
    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), c"/dev/null".as_ptr());
    let open: Entry = open.file_index(Some(null)).build().user_data(3);
    ring.run(&mut seen, &[open], 2);
    let skipped = opcode::Close::new(types::Fixed(4)).build().flags(Flags::SKIP_SUCCESS);
    ring.run(&mut seen, &[skipped], 1);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    ring.look(&mut seen);
    seen
}

/// What waits for completions is ended by tags as well.
fn count(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    let fds = [file.as_raw_fd(); 2];
    register(ring, &mut seen, IORING_REGISTER_FILES2, &fds, &[51, 52]);
    let hour: &'static types::Timespec = Box::leak(Box::new(types::Timespec::new().sec(3600)));
    let timeout = opcode::Timeout::new(hour).count(2).build().user_data(1);
    ring.run(&mut seen, &[timeout], 0);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    ring.run(&mut seen, &[], 3);
    // A chain ends as if nothing had been posted in its midst.
    register(ring, &mut seen, IORING_REGISTER_FILES2, &fds, &[53, 54]);
    let close = |place| opcode::Close::new(types::Fixed(place)).build();
    let chain = [
        close(0).user_data(2).flags(Flags::IO_LINK),
        close(0).user_data(3).flags(Flags::IO_LINK),
        close(1).user_data(4),
    ];
    ring.run(&mut seen, &chain, 4);
    ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    ring.look(&mut seen);
    seen
}

fn eventfds(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    for operation in [IORING_REGISTER_EVENTFD, IORING_REGISTER_EVENTFD_ASYNC] {
        let counter = eventfd::eventfd(libc::EFD_NONBLOCK);
        ring.call(&mut seen, operation, &mut counter.as_raw_fd(), 1);
        register(ring, &mut seen, IORING_REGISTER_FILES2, &[file.as_raw_fd()], &[61]);
        eventfd::rung(&mut seen, &counter);
        ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
        eventfd::rung(&mut seen, &counter);
        ring.look(&mut seen);
        ring.call_null(&mut seen, IORING_UNREGISTER_EVENTFD, 0);
    }
    seen
}

/// Tells of all completions in their order, after those in `all`. When there is
/// room for which of them is the mode's business.
fn everything(ring: &mut dyn Ring, mut all: Vec<(u64, i32, u32)>, mut seen: Seen) -> Seen {
    for _ in 0..8 {
        all.extend(ring.reap());
        let _ = ring.submit(&[], 0);
    }
    seen.push(format!("all: {all:?}"));
    seen
}

/// Room in the CQ is not for tags while others wait for it.
fn in_order(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = tempfile::tempfile().unwrap();
    let fds = [file.as_raw_fd(); 6];
    let tags = |round: u64| std::array::from_fn::<u64, 6, _>(|i| 100 * round + i as u64 + 1);
    let mut all = vec![];
    for round in 0..3 {
        register(ring, &mut seen, IORING_REGISTER_FILES2, &fds, &tags(round));
        if round == 2 {
            // It makes room, without a call that would use it.
            all.extend(ring.reap());
        }
        ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
    }
    everything(ring, all, seen)
}

/// More tags than the CQ has room for, before and behind requests.
fn full(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file: File = tempfile::tempfile().unwrap();
    let fds = [file.as_raw_fd(); 6];
    let nop = |user_data| opcode::Nop::new().build().user_data(user_data);
    for round in 0..3 {
        let tags: [u64; 6] = std::array::from_fn(|i| 100 * round + i as u64 + 1);
        register(ring, &mut seen, IORING_REGISTER_FILES2, &fds, &tags);
        ring.call_null(&mut seen, IORING_UNREGISTER_FILES, 0);
        let _ = ring.submit(&[nop(1000 + round)], 0);
    }
    everything(ring, vec![], seen)
}
