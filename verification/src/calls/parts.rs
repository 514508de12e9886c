//! Rings of provided buffers that are used up by parts.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::Duration;

use annulus::types::BufRingEntry;
use annulus::uapi::*;
use annulus_linux::opcode::{AsyncCancel, Nop, Read, Readv};
use annulus_linux::squeue::{Entry, Flags};
use annulus_linux::types::{Fd, Iovec};

use super::ring::{Ring, Wish};
use super::{Row, Seen};

/// The scripts of this file.
pub const SCRIPTS: &[Row] = &[
    ("parts: arguments", Wish::PLAIN, arguments),
    ("parts: storage", Wish::PLAIN, storage),
    ("parts: devices", Wish::PLAIN, devices),
    ("parts: streams", Wish::PLAIN, streams),
    ("parts: waiting", Wish::PLAIN, waiting),
    ("parts: cancelled", Wish::PLAIN, cancelled),
    ("parts: errors", Wish::PLAIN, errors),
    ("parts: nothing left", Wish::PLAIN, nothing_left),
    ("parts: asynchronous", Wish::PLAIN, asynchronous),
    ("parts: not by parts", Wish::PLAIN, whole),
    ("parts: chains", Wish::PLAIN, chains),
    ("parts: the end of a ring", Wish::PLAIN, end),
];

const GROUP: u16 = 5;
const ENTRIES: u16 = 4;

/// A ring of buffers, and their memory, which last.
struct Parts {
    page: *mut BufRingEntry,
    memory: &'static mut [u8],
    tail: u16,
}

#[repr(C, align(4096))]
struct Page([BufRingEntry; 256]);

impl Parts {
    /// Registered, with buffers of these lengths, each 100 bytes behind the one
    /// before.
    fn new(ring: &mut dyn Ring, seen: &mut Seen, lens: &[u32]) -> Self {
        let page = Box::leak(Box::new(Page([const { BufRingEntry::new() }; 256])));
        let page = (&raw mut page.0).cast::<BufRingEntry>();
        let mut parts = Self { page, memory: vec![0; 1000].leak(), tail: 0 };
        parts.register(ring, seen, IOU_PBUF_RING_INC);
        lens.iter().for_each(|&len| parts.fill(len));
        parts
    }

    fn register(&mut self, ring: &mut dyn Ring, seen: &mut Seen, flags: u32) {
        let mut arg = io_uring_buf_reg {
            ring_addr: self.page.expose_provenance() as u64,
            ring_entries: ENTRIES.into(),
            bgid: GROUP,
            flags: flags as u16,
            ..Default::default()
        };
        ring.call(seen, IORING_REGISTER_PBUF_RING, &mut arg, 1);
    }

    fn unregister(&mut self, ring: &mut dyn Ring, seen: &mut Seen) {
        let mut arg = io_uring_buf_reg { bgid: GROUP, ..Default::default() };
        ring.call(seen, IORING_UNREGISTER_PBUF_RING, &mut arg, 1);
    }

    fn fill(&mut self, len: u32) {
        let addr = (&raw mut self.memory[100 * usize::from(self.tail)]).expose_provenance();
        self.fill_at(addr as u64, len);
    }

    fn fill_at(&mut self, addr: u64, len: u32) {
        // SAFETY: one of the entries; the tail is a word that the ring loads.
        unsafe {
            let entry = self.page.add(usize::from(self.tail % ENTRIES));
            (*entry).set_addr(addr);
            (*entry).set_len(len);
            (*entry).set_bid(10 + self.tail);
            self.tail += 1;
            let word = BufRingEntry::tail(self.page).cast_mut();
            // Release: pairs with the Acquire load of whoever picks a buffer.
            AtomicU16::from_ptr(word).store(self.tail, Ordering::Release);
        }
    }

    /// Tells of the ring's head, of the entries, and of the memory.
    fn look(&self, ring: &mut dyn Ring, seen: &mut Seen) {
        let mut status = io_uring_buf_status { buf_group: GROUP.into(), ..Default::default() };
        ring.call(seen, IORING_REGISTER_PBUF_STATUS, &mut status, 1);
        let first = self.memory.as_ptr().addr() as u64;
        for at in 0..usize::from(ENTRIES) {
            // SAFETY: one of the entries, as 16 bytes that are numbers.
            let words = unsafe { self.page.add(at).cast::<[u64; 2]>().read_volatile() };
            let memory = first..first + self.memory.len() as u64;
            let base = if memory.contains(&words[0]) { first } else { 0 };
            let addr = words[0] - base;
            seen.push(format!("entry {at}: {addr:#x}, {:#x}", words[1] as u32));
        }
        let sum = self.memory.iter().enumerate().map(|(at, &byte)| at as u64 * u64::from(byte));
        seen.push(format!("head {}, memory {}", status.head, sum.sum::<u64>()));
    }

    /// Submits a read, waits for it, and tells of everything.
    fn read(&self, ring: &mut dyn Ring, seen: &mut Seen, entry: Entry) {
        ring.run(seen, &[entry], 1);
        self.look(ring, seen);
    }
}

/// A read of a file at its start, or of a stream.
fn read(fd: RawFd, len: u32, user_data: u64) -> Entry {
    let entry = Read::new(Fd(fd), std::ptr::null_mut(), len).buf_group(GROUP);
    entry.build().flags(Flags::BUFFER_SELECT).user_data(user_data)
}

fn read_at(fd: RawFd, len: u32, off: u64, user_data: u64) -> Entry {
    Entry { off, ..read(fd, len, user_data) }
}

/// A file of 1,000 bytes.
fn file() -> File {
    let mut file = tempfile::tempfile().expect("a file");
    let bytes: Vec<u8> = (0..1000).map(|at| (at % 251) as u8 + 1).collect();
    file.write_all(&bytes).expect("room for it");
    file
}

fn arguments(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[10]);
    parts.register(ring, &mut seen, IOU_PBUF_RING_INC);
    parts.unregister(ring, &mut seen);
    for flags in [4, 6, 0x8002] {
        parts.register(ring, &mut seen, flags);
    }
    parts.register(ring, &mut seen, IOU_PBUF_RING_INC);
    let group = Entry { buf_index: GROUP, ..Entry::default() };
    let memory = parts.memory.as_ptr().expose_provenance() as u64;
    let remove = Entry { opcode: IORING_OP_REMOVE_BUFFERS, fd: 1, ..group };
    let provide = Entry { opcode: IORING_OP_PROVIDE_BUFFERS, fd: 1, addr: memory, len: 5, ..group };
    ring.run(&mut seen, &[remove], 1);
    ring.run(&mut seen, &[provide], 1);
    parts.look(ring, &mut seen);
    parts.unregister(ring, &mut seen);
    parts.unregister(ring, &mut seen);
    seen
}

fn storage(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let file = file();
    let fd = file.as_raw_fd();
    let mut parts = Parts::new(ring, &mut seen, &[100, 64, 50]);
    for (len, off) in [(10, 0), (30, 7), (0, 20), (60, 0), (5, 0), (20, 1000), (20, 990), (99, 5)] {
        parts.read(ring, &mut seen, read_at(fd, len, off, 1));
    }
    // Past the ring's end, and around.
    for _ in 0..3 {
        parts.fill(30);
    }
    for len in [20, 9, 20, 20, 1, 29, 30, 1] {
        parts.read(ring, &mut seen, read_at(fd, len, 100, 2));
    }
    parts.fill(30);
    for len in [0, 4, 5] {
        let iovec = Iovec::new(std::ptr::null_mut(), len);
        let entry = Readv::new(Fd(fd), &iovec, 1).buf_group(GROUP).build();
        parts.read(ring, &mut seen, entry.flags(Flags::BUFFER_SELECT));
    }
    ring.call(&mut seen, IORING_REGISTER_FILES, &mut { fd }, 1);
    parts.fill(30);
    parts.read(ring, &mut seen, read_at(0, 7, 10, 3).flags(Flags::FIXED_FILE));
    parts.read(ring, &mut seen, read_at(0, 7, 999, 3).flags(Flags::FIXED_FILE));
    seen
}

fn devices(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let _parts = Parts::new(ring, &mut seen, &[40, 10]);
    for (name, len) in [("/dev/null", 4), ("/dev/zero", 4), ("/dev/urandom", 0), ("/dev/null", 0)] {
        let file = File::open(name).expect("a device");
        ring.run(&mut seen, &[read(file.as_raw_fd(), len, 1)], 1);
        let mut status = io_uring_buf_status { buf_group: GROUP.into(), ..Default::default() };
        ring.call(&mut seen, IORING_REGISTER_PBUF_STATUS, &mut status, 1);
        seen.push(format!("head {}", status.head));
    }
    seen
}

fn streams(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[20, 10]);
    let (from, mut to) = std::io::pipe().expect("a pipe");
    let fd = from.as_raw_fd();
    to.write_all(b"eight of").expect("room");
    parts.read(ring, &mut seen, read(fd, 3, 1));
    // Not all that it asks for.
    parts.read(ring, &mut seen, read(fd, 0, 2));
    to.write_all(b"more than is left of it").expect("room");
    parts.read(ring, &mut seen, read(fd, 99, 3));
    ring.call(&mut seen, IORING_REGISTER_FILES, &mut { fd }, 1);
    parts.read(ring, &mut seen, read(0, 4, 4).flags(Flags::FIXED_FILE));
    drop(to);
    for len in [2, 9, 0] {
        parts.read(ring, &mut seen, read(fd, len, 5));
    }
    let (one, mut other) = std::os::unix::net::UnixStream::pair().expect("sockets");
    other.write_all(b"abc").expect("room");
    parts.fill(10);
    parts.read(ring, &mut seen, read(one.as_raw_fd(), 8, 6));
    seen
}

/// Gives the rings time to do what has become possible.
fn pause(ring: &mut dyn Ring, seen: &mut Seen) {
    sleep(Duration::from_millis(20));
    ring.run(seen, &[Nop::new().build()], 1);
}

fn waiting(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[10]);
    let file = file();
    let (from, mut to) = std::io::pipe().expect("a pipe");
    let fd = from.as_raw_fd();
    ring.run(&mut seen, &[read(fd, 4, 1)], 0);
    parts.look(ring, &mut seen);
    // Others have it meanwhile.
    parts.read(ring, &mut seen, read(file.as_raw_fd(), 3, 2));
    to.write_all(b"abcdef").expect("room");
    ring.run(&mut seen, &[], 1);
    parts.look(ring, &mut seen);
    parts.read(ring, &mut seen, read(fd, 2, 3));
    // One byte is left, and then none.
    ring.run(&mut seen, &[read(fd, 4, 4)], 0);
    to.write_all(b"xyz").expect("room");
    ring.run(&mut seen, &[], 1);
    parts.look(ring, &mut seen);
    parts.read(ring, &mut seen, read(fd, 2, 5));
    parts.fill(9);
    parts.read(ring, &mut seen, read(fd, 9, 6));
    ring.run(&mut seen, &[read(fd, 0, 7)], 0);
    parts.read(ring, &mut seen, read(file.as_raw_fd(), 0, 8));
    to.write_all(b"z").expect("room");
    ring.run(&mut seen, &[], 1);
    parts.look(ring, &mut seen);
    seen
}

fn cancelled(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let parts = Parts::new(ring, &mut seen, &[10]);
    let (from, mut to) = std::io::pipe().expect("a pipe");
    ring.run(&mut seen, &[read(from.as_raw_fd(), 4, 1)], 0);
    ring.run(&mut seen, &[AsyncCancel::new(1).build().user_data(2)], 2);
    parts.look(ring, &mut seen);
    to.write_all(b"abc").expect("room");
    parts.read(ring, &mut seen, read(from.as_raw_fd(), 4, 3));
    seen
}

fn errors(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[50]);
    let file = file();
    let directory = File::open("/").expect("a directory");
    let (from, mut to) = std::io::pipe().expect("a pipe");
    let sink = File::options().write(true).open("/dev/null").expect("a device");
    let fd = file.as_raw_fd();
    let good = read(fd, 5, 1);
    for entry in [
        read(-1, 5, 1),
        read(9999, 5, 1),
        read(to.as_raw_fd(), 5, 1),
        read(sink.as_raw_fd(), 5, 1),
        read(directory.as_raw_fd(), 5, 1),
        good.flags(Flags::FIXED_FILE),
        Entry { ioprio: 1, ..good },
        Entry { off: -5i64 as u64, ..good },
        Entry { op_flags: 0x8000, ..good },
        Entry { op_flags: RWF_NOWAIT as u32, ..read(from.as_raw_fd(), 5, 1) },
        Entry { opcode: IORING_OP_FSYNC, ..good },
        Entry { buf_index: GROUP + 1, ..good },
    ] {
        parts.read(ring, &mut seen, entry);
    }
    // Memory that is none.
    parts.unregister(ring, &mut seen);
    let mut parts = Parts::new(ring, &mut seen, &[]);
    to.write_all(b"abc").expect("room");
    for addr in [8, 1 << 63] {
        parts.fill_at(addr, 10);
        parts.read(ring, &mut seen, read(from.as_raw_fd(), 2, 2));
        parts.read(ring, &mut seen, read(fd, 2, 3));
        parts.read(ring, &mut seen, read(fd, 0, 4));
    }
    seen
}

fn nothing_left(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let parts = Parts::new(ring, &mut seen, &[0, 10]);
    let file = file();
    let (from, mut to) = std::io::pipe().expect("a pipe");
    to.write_all(b"abc").expect("room");
    for (fd, len) in [(file.as_raw_fd(), 5), (from.as_raw_fd(), 5), (file.as_raw_fd(), 0)] {
        parts.read(ring, &mut seen, read(fd, len, 1));
    }
    seen
}

fn asynchronous(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[40, 10]);
    let file = file();
    for (len, off) in [(2, 0), (3, 5000), (20, 990), (0, 0), (11, 0)] {
        let entry = read_at(file.as_raw_fd(), len, off, 1);
        parts.read(ring, &mut seen, entry.flags(Flags::BUFFER_SELECT | Flags::ASYNC));
    }
    parts.fill(10);
    let (from, mut to) = std::io::pipe().expect("a pipe");
    to.write_all(b"abc").expect("room");
    let read = |len, n| read(from.as_raw_fd(), len, n).flags(Flags::BUFFER_SELECT | Flags::ASYNC);
    parts.read(ring, &mut seen, read(5, 2));
    parts.fill(40);
    // Who waits has what was asked for.
    waits_with_its_buffer(ring, &mut seen, &parts, read(2, 3), &mut to);
    waits_with_its_buffer(ring, &mut seen, &parts, read(0, 4), &mut to);
    ring.run(&mut seen, &[read(7, 5)], 0);
    pause(ring, &mut seen);
    ring.run(&mut seen, &[AsyncCancel::new(5).build().user_data(6)], 2);
    parts.look(ring, &mut seen);
    seen
}

/// A read of a pipe that is to be done asynchronously.
fn waits_with_its_buffer(
    ring: &mut dyn Ring,
    seen: &mut Seen,
    parts: &Parts,
    entry: Entry,
    to: &mut impl Write,
) {
    ring.run(seen, &[entry], 0);
    pause(ring, seen);
    parts.look(ring, seen);
    to.write_all(b"z").expect("room");
    ring.run(seen, &[], 1);
    parts.look(ring, seen);
}

/// The same reads from a ring whose buffers are used whole.
fn whole(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[10, 10, 10]);
    parts.unregister(ring, &mut seen);
    parts.register(ring, &mut seen, 0);
    let directory = File::open("/").expect("a directory");
    let (from, mut to) = std::io::pipe().expect("a pipe");
    let fd = from.as_raw_fd();
    for entry in [
        read(to.as_raw_fd(), 5, 1),
        read(directory.as_raw_fd(), 5, 1),
        Entry { op_flags: RWF_NOWAIT as u32, ..read(fd, 5, 1) },
    ] {
        parts.read(ring, &mut seen, entry);
    }
    let asynchronous = Flags::BUFFER_SELECT | Flags::ASYNC;
    waits_with_its_buffer(ring, &mut seen, &parts, read(fd, 2, 2).flags(asynchronous), &mut to);
    parts.fill_at(8, 10);
    to.write_all(b"abc").expect("room");
    parts.read(ring, &mut seen, read(fd, 0, 3));
    to.write_all(b"abc").expect("room");
    for flags in [Flags::BUFFER_SELECT, Flags::BUFFER_SELECT, asynchronous, Flags::BUFFER_SELECT] {
        parts.read(ring, &mut seen, read(fd, 2, 4).flags(flags));
    }
    seen
}

fn chains(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[10, 10]);
    let file = file();
    let fd = file.as_raw_fd();
    let (select, link) = (Flags::BUFFER_SELECT, Flags::BUFFER_SELECT | Flags::IO_LINK);
    let chain = [
        read(fd, 4, 1).flags(link),
        read(fd, 0, 2).flags(link),
        read_at(fd, 3, 998, 3).flags(link),
        read(fd, 3, 4),
    ];
    ring.run(&mut seen, &chain, 4);
    parts.look(ring, &mut seen);
    let quiet = read(fd, 3, 5).flags(select | Flags::SKIP_SUCCESS);
    ring.run(&mut seen, &[quiet, Nop::new().build()], 1);
    parts.look(ring, &mut seen);
    parts.fill(10);
    let (from, mut to) = std::io::pipe().expect("a pipe");
    let stream = from.as_raw_fd();
    ring.run(&mut seen, &[read(stream, 2, 6).flags(link), read(stream, 3, 7)], 0);
    to.write_all(b"abcd").expect("room");
    ring.run(&mut seen, &[], 2);
    parts.look(ring, &mut seen);
    seen
}

fn end(ring: &mut dyn Ring) -> Seen {
    let mut seen = Seen::new();
    let mut parts = Parts::new(ring, &mut seen, &[10]);
    let (from, mut to) = std::io::pipe().expect("a pipe");
    let fd = from.as_raw_fd();
    ring.run(&mut seen, &[read(fd, 2, 1)], 0);
    parts.unregister(ring, &mut seen);
    to.write_all(b"abc").expect("room");
    ring.run(&mut seen, &[], 1);
    pause(ring, &mut seen);
    // Another kind of ring when it is woken.
    let mut byte = [0; 3];
    std::io::Read::read_exact(&mut { &from }, &mut byte).expect("what is there");
    let mut parts = Parts::new(ring, &mut seen, &[10]);
    ring.run(&mut seen, &[read(fd, 2, 2)], 0);
    parts.unregister(ring, &mut seen);
    parts.register(ring, &mut seen, 0);
    to.write_all(b"abc").expect("room");
    ring.run(&mut seen, &[], 1);
    parts.look(ring, &mut seen);
    seen
}
