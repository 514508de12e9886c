//! Row *provided buffers*: the same steps on this machine's io_uring and on
//! Annulus give the same completions, buffer numbers included.

mod both;

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

use annulus_linux::{opcode, squeue, types};
use both::{Seen, errno, pipe};

/// One of the two.
trait Ring: both::Ring {
    fn buf_ring(&mut self, base: u64, entries: u16, group: u16) -> i32;
    fn end_buf_ring(&mut self, group: u16) -> i32;

    /// Submits an entry, waits for `want` completions, answers all there are.
    fn one(&mut self, entry: &squeue::Entry, want: u32) -> Vec<Seen> {
        self.run(std::slice::from_ref(entry), want)
    }
}

fn answer(result: std::io::Result<()>) -> i32 {
    errno(result).map_or_else(|e| e, |()| 0)
}

macro_rules! rings {
    ($($ring:ty),+) => {$(
        impl Ring for $ring {
            fn buf_ring(&mut self, base: u64, entries: u16, group: u16) -> i32 {
                let submitter = self.submitter();
                // SAFETY: the ring lasts.
                answer(unsafe { submitter.register_buf_ring_with_flags(base, entries, group, 0) })
            }

            fn end_buf_ring(&mut self, group: u16) -> i32 {
                answer(self.submitter().unregister_buf_ring(group))
            }
        }
    )+};
}

rings!(io_uring::IoUring, annulus_linux::Ring);

/// What a script has besides the ring.
struct World {
    memory: &'static mut [u8],
    file: File,
    directory: File,
    from: OwnedFd,
    to: File,
}

impl World {
    fn new() -> Self {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[7; 10_000]).unwrap();
        let (from, to) = pipe();
        let directory = File::open("/").unwrap();
        Self { memory: vec![0; 1 << 16].leak(), file, directory, from, to: to.into() }
    }

    fn provide(&mut self, len: i32, count: u16, group: u16, id: u16) -> squeue::Entry {
        let addr = self.memory.as_mut_ptr();
        opcode::ProvideBuffers::new(addr, len, count, group, id).build().user_data(1)
    }

    fn read(&self, fd: i32, len: u32, group: u16) -> squeue::Entry {
        opcode::Read::new(types::Fd(fd), std::ptr::null_mut(), len)
            .offset(if fd == self.from.as_raw_fd() { u64::MAX } else { 0 })
            .buf_group(group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT)
            .user_data(2)
    }
}

/// Runs a script on both.
fn same(script: impl Fn(&mut dyn Ring, &mut World) -> Vec<Vec<Seen>>) {
    let kernel = script(&mut io_uring::IoUring::new(8).unwrap(), &mut World::new());
    let ours = script(&mut annulus_linux::Ring::new(8).unwrap(), &mut World::new());
    assert_eq!(ours, kernel);
}

#[test]
fn groups_are_filled_and_emptied() {
    same(|ring, world| {
        let mut all = Vec::new();
        let mut run = |entry: squeue::Entry| all.push(ring.one(&entry, 1));
        run(opcode::RemoveBuffers::new(3, 5).build());
        run(world.provide(64, 4, 5, 10));
        run(opcode::RemoveBuffers::new(3, 5).build());
        run(opcode::RemoveBuffers::new(3, 5).build());
        run(opcode::RemoveBuffers::new(3, 5).build());
        let good = world.provide(64, 4, 5, 10);
        type Change = fn(&mut squeue::Entry);
        let changes: [Change; 12] = [
            |sqe| sqe.op_flags = 1,
            |sqe| sqe.splice_fd_in = 1,
            |sqe| sqe.fd = 0,
            |sqe| sqe.fd = 65_537,
            |sqe| sqe.fd = -1,
            |sqe| sqe.len = 0,
            |sqe| sqe.len = u32::MAX,
            |sqe| sqe.addr = u64::MAX - 3,
            |sqe| sqe.addr = 1 << 63,
            |sqe| sqe.off = 65_536,
            |sqe| sqe.off = 65_534,
            |sqe| sqe.ioprio = 1,
        ];
        for change in changes {
            let mut bad = good;
            change(&mut bad);
            run(bad);
        }
        let good = opcode::RemoveBuffers::new(3, 5).build();
        let changes: [Change; 7] = [
            |sqe| sqe.op_flags = 1,
            |sqe| sqe.addr = 1,
            |sqe| sqe.len = 1,
            |sqe| sqe.off = 1,
            |sqe| sqe.fd = 0,
            |sqe| sqe.fd = 65_537,
            |sqe| sqe.splice_fd_in = 1,
        ];
        for change in changes {
            let mut bad = good;
            change(&mut bad);
            run(bad);
        }
        all
    });
}

#[test]
fn reads_pick_their_buffers() {
    same(|ring, world| {
        let (file, directory) = (world.file.as_raw_fd(), world.directory.as_raw_fd());
        let mut all = Vec::new();
        all.push(ring.one(&world.read(file, 100, 5), 1));
        all.push(ring.one(&world.provide(64, 6, 5, 10), 1));
        for (fd, len) in [(file, 0), (file, 10), (file, 100), (-1, 10), (directory, 10), (999, 8)] {
            all.push(ring.one(&world.read(fd, len, 5), 1));
        }
        // READV of one buffer, and of more.
        for count in [1, 2] {
            let iovec = types::Iovec::new(std::ptr::null_mut(), 20);
            let readv = opcode::Readv::new(types::Fd(file), &raw const iovec, count)
                .buf_group(5)
                .build()
                .flags(squeue::Flags::BUFFER_SELECT);
            all.push(ring.one(&readv, 1));
        }
        for _ in 0..3 {
            all.push(ring.one(&world.read(file, 100, 5), 1));
        }
        let other = opcode::Fsync::new(types::Fd(file)).build().flags(squeue::Flags::BUFFER_SELECT);
        all.push(ring.one(&other, 1));
        let nop = opcode::Nop::new().build().flags(squeue::Flags::BUFFER_SELECT);
        all.push(ring.one(&nop, 1));
        all
    });
}

/// Feeds a pipe that reads wait for, byte by byte.
fn feed(ring: &mut dyn Ring, world: &mut World, all: &mut Vec<Vec<Seen>>, waits: &[u32]) {
    for &wait in waits {
        world.to.write_all(b"x").unwrap();
        // And one for the NOP.
        let mut seen = ring.one(&opcode::Nop::new().build(), wait + 1);
        seen.sort_unstable();
        all.push(seen);
    }
}

#[test]
fn who_waits_keeps_a_buffer_of_a_list() {
    same(|ring, world| {
        let from = world.from.as_raw_fd();
        let mut all = vec![ring.one(&world.provide(64, 1, 5, 10), 1)];
        all.push(ring.one(&world.read(from, 1, 5), 0));
        all.push(ring.one(&world.read(from, 1, 5), 1));
        all.push(ring.one(&opcode::RemoveBuffers::new(1, 5).build(), 1));
        feed(ring, world, &mut all, &[1]);
        all.push(ring.one(&world.provide(64, 1, 5, 10), 1));
        all.push(ring.one(&world.read(from, 1, 5), 0));
        let mut cancelled = ring.one(&opcode::AsyncCancel::new(2).build(), 2);
        cancelled.sort_unstable();
        all.push(cancelled);
        all
    });
}

/// A ring of four buffers.
struct Page {
    base: *mut types::BufRingEntry,
    tail: u16,
}

impl Page {
    fn new() -> Self {
        #[repr(align(4096))]
        struct Entries([types::BufRingEntry; 256]);
        let page = Box::leak(Box::new(Entries([const { types::BufRingEntry::new() }; 256])));
        Self { base: page.0.as_mut_ptr(), tail: 0 }
    }

    fn address(&self) -> u64 {
        self.base.expose_provenance() as u64
    }

    fn fill(&mut self, world: &mut World, id: u16) {
        // SAFETY: one of the four; the tail is a word that the ring loads.
        unsafe {
            let entry = self.base.add(usize::from(self.tail % 4));
            (*entry).set_addr(world.memory.as_mut_ptr() as u64 + 64 * u64::from(id));
            (*entry).set_len(64);
            (*entry).set_bid(id);
            self.tail += 1;
            let word = types::BufRingEntry::tail(self.base).cast_mut();
            AtomicU16::from_ptr(word).store(self.tail, Ordering::Release);
        }
    }
}

#[test]
fn who_waits_has_no_buffer_of_a_ring() {
    same(|ring, world| {
        let from = world.from.as_raw_fd();
        let mut page = Page::new();
        let mut all = vec![vec![(0, ring.buf_ring(page.address(), 4, 5), 0)]];
        page.fill(world, 3);
        all.push(ring.one(&world.read(from, 1, 5), 0));
        all.push(ring.one(&world.read(from, 1, 5), 0));
        // Both are woken: one has it, the other finds none.
        feed(ring, world, &mut all, &[2, 0]);
        page.fill(world, 2);
        all.push(ring.one(&world.read(from, 1, 5), 1));
        all
    });
}

#[test]
fn a_ring_of_buffers() {
    same(|ring, world| {
        let file = world.file.as_raw_fd();
        let mut page = Page::new();
        let address = page.address();
        let mut all = Vec::new();
        for (address, entries, group) in [
            (address, 3, 1),
            (address + 16, 4, 1),
            (address, 0, 1),
            (0, 4, 1),
            (address, 4, 1),
            (address, 4, 1),
        ] {
            all.push(vec![(0, ring.buf_ring(address, entries, group), 0)]);
        }
        for id in [3, 9, 5] {
            page.fill(world, id);
        }
        for (fd, len) in [(file, 10), (file, 0), (-1, 9), (file, 99), (file, 1)] {
            all.push(ring.one(&world.read(fd, len, 1), 1));
        }
        all.push(ring.one(&opcode::RemoveBuffers::new(3, 1).build(), 1));
        all.push(ring.one(&world.provide(64, 1, 1, 0), 1));
        for group in [1, 1] {
            all.push(vec![(0, ring.end_buf_ring(group), 0)]);
        }
        all.push(ring.one(&world.provide(64, 1, 2, 0), 1));
        all.push(vec![(0, ring.end_buf_ring(2), 0)]);
        all.push(vec![(0, ring.buf_ring(address, 4, 2), 0)]);
        all
    });
}
