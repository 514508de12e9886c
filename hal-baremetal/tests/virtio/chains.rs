//! What the engine holds back, cancels and times, on a disk.

use crate::fake::{Fake, Fate, Mmio, Rule, Setup, bit};
use crate::rig::*;
use crate::ring::{Backend, Place, ROOM, ring};
use annulus::block::Medium;
use annulus::cqueue::buffer_select;
use annulus::engine::{EnterFlags, Parts};
use annulus::errno::Errno;
use annulus::opcode::{self, AsyncCancel, LinkTimeout, Timeout};
use annulus::probe::Probe;
use annulus::register::Call;
use annulus::squeue::{Entry, Flags};
use annulus::types::{Fd, Iovec, Timespec};
use annulus_baremetal::virtio::{Completions, QueueOptions};
use std::collections::HashMap;
use std::sync::Arc;

const LINK: Flags = Flags::IO_LINK;
const DISK: Fd = Fd(0);

/// A ring on a disk, and memory.
struct Story {
    fake: Arc<Fake>,
    // Before the memory of its requests, when a test fails.
    parts: Option<Parts<'static, Backend, Place>>,
    on: Option<Shared<Mmio, false>>,
    memory: Chunk,
    /// By user data: the result and the flags.
    ended: HashMap<u64, (i32, u32)>,
}

impl Story {
    fn new(setup: Setup, options: QueueOptions) -> Self {
        let fake = fake(setup);
        let (parts, on) = ring(&fake, &options);
        let (parts, on, ended) = (Some(parts), Some(on), HashMap::new());
        Self { fake, memory: Chunk::new(REGISTERED), parts, on, ended }
    }

    fn usual() -> Self {
        Self::new(Setup::default(), options(16))
    }

    fn at(&self, skip: usize) -> *mut u8 {
        self.memory.pointer().wrapping_add(skip)
    }

    /// A read of `len` bytes of the disk at `pos` to the same place in memory.
    fn read(&self, pos: usize, len: u32, user_data: u64) -> Entry {
        let read = opcode::Read::new(DISK, self.at(pos), len).offset(pos as u64);
        read.build().user_data(user_data)
    }

    /// Submits these, and sleeps until `count` more CQEs have come.
    fn enter(&mut self, entries: &[Entry], count: u32) {
        let parts = self.parts.as_mut().unwrap();
        for entry in entries {
            // SAFETY: the memory stays until the completion.
            unsafe { parts.sq.queue().push(entry) }.unwrap();
        }
        let submit = entries.len() as u32;
        let taken = parts.engine.enter(submit, count, EnterFlags::GETEVENTS, None);
        assert_eq!(taken, Ok(submit));
        for cqe in parts.cq.queue() {
            let ended = (cqe.result(), cqe.flags());
            assert_eq!(self.ended.insert(cqe.user_data(), ended), None, "ended twice");
        }
    }

    /// The results of these, which have ended.
    fn results<const N: usize>(&mut self, ids: [u64; N]) -> [i32; N] {
        ids.map(|id| self.ended.remove(&id).expect("it has ended").0)
    }

    fn waited(&self) -> u32 {
        self.parts.as_ref().unwrap().engine.backend().stats().waited
    }

    /// Lets go of a request that was lost.
    fn revive(&self) {
        self.fake.device().work.iter_mut().for_each(|chain| chain.lost = false);
    }

    /// The kinds of the requests that the device was given.
    fn told(&self) -> Vec<u32> {
        self.fake.device().carried_out.clone()
    }

    fn end(mut self) {
        self.parts = None;
        self.on = None;
        self.fake.check();
    }
}

fn options(depth: u32) -> QueueOptions {
    QueueOptions { depth, completions: Completions::Interrupt, ..polled() }
}

fn ms(ms: u32) -> Timespec {
    Timespec::new().nsec(ms * 1_000_000)
}

/// An array that is somebody else's as soon as it has been taken.
struct Array(Box<[Iovec]>);

impl Array {
    fn new<const N: usize>(vectors: [Iovec; N]) -> Self {
        Self(Box::new(vectors))
    }

    fn readv(&self, pos: u64, user_data: u64) -> Entry {
        let readv = opcode::Readv::new(DISK, self.0.as_ptr(), self.0.len() as u32).offset(pos);
        readv.build().user_data(user_data)
    }

    fn writev(&self, pos: u64, user_data: u64) -> Entry {
        let writev = opcode::Writev::new(DISK, self.0.as_ptr(), self.0.len() as u32).offset(pos);
        writev.build().user_data(user_data)
    }
}

impl Drop for Array {
    fn drop(&mut self) {
        self.0.fill(iovec(0, usize::MAX));
        std::hint::black_box(&self.0);
    }
}

#[test]
fn row_links_vectors_follow_each_other_on_a_disk() {
    let mut story = Story::usual();
    let data = noise(3, 8192);
    story.memory.put(0, &data[..1000]);
    story.memory.put(2000, &data[1000..]);
    let start = story.memory.addr();
    let from = Array::new([iovec(start, 1000), iovec(start + 2000, 7192)]);
    let to = start + 32768;
    let into = Array::new([iovec(to, 8000), iovec(to, 0), iovec(to + 10_000, 192)]);
    let chain = [
        from.writev(512, 1).flags(LINK),
        opcode::Fsync::new(DISK).build().user_data(2).flags(LINK),
        into.readv(512, 3),
    ];
    story.enter(&chain, 0);
    drop((from, into));
    story.enter(&[], 3);
    assert_eq!(story.results([1, 2, 3]), [8192, 0, 8192]);
    assert!(story.memory.get(32768, 8000) == data[..8000]);
    assert!(story.memory.get(42768, 192) == data[8000..]);
    assert_eq!(story.told(), [1, 4, 0], "one after the other");
    story.end();
}

#[test]
fn row_links_a_short_vectored_read_of_a_disk_breaks_its_chain() {
    let mut story = Story::usual();
    let end = story.on.as_ref().unwrap().info().bytes;
    let start = story.memory.addr();
    let vectors = || Array::new([iovec(start, 100), iovec(start + 200, 924)]);
    let (one, other, third) = (vectors(), vectors(), vectors());
    let cancelled = errno(Errno::ECANCELED);
    // The room for vectors is there again, however often.
    for _ in 0..=ROOM {
        let chain = [one.readv(end - 512, 1).flags(LINK), other.readv(0, 2)];
        story.enter(&chain, 2);
        assert_eq!(story.results([1, 2]), [512, cancelled]);
    }
    // More than there is room for is refused, with its chain, and all of it.
    for _ in 0..2 {
        let [a, b] = [one.readv(0, 1), other.readv(0, 2)].map(|entry| entry.flags(LINK));
        story.enter(&[a, b, third.readv(0, 3)], 3);
        assert_eq!(story.results([1, 2, 3]), [cancelled, cancelled, errno(Errno::ENOMEM)]);
    }
    // Behind a drain, and without a word.
    let quiet = other.readv(1024, 2).flags(Flags::SKIP_SUCCESS);
    story.enter(&[one.readv(0, 1).flags(Flags::IO_DRAIN), quiet, story.read(0, 512, 3)], 2);
    assert_eq!(story.results([1, 3]), [1024, 512]);
    assert!(story.ended.is_empty());
    story.end();
}

#[test]
fn row_cancel_what_the_disk_has_not_seen_ends_and_the_rest_goes_on() {
    for packed in [0, bit::PACKED] {
        let setup = Setup::default();
        let features = setup.features & !packed;
        let mut story = Story::new(Setup { features, ..setup }, options(1));
        story.fake.device().rules.push(Rule { kind: None, skip: 0, fate: Fate::Lost });
        let start = story.memory.addr();
        let vectors = Array::new([iovec(start, 100), iovec(start + 200, 412)]);
        let waiting = [story.read(512, 512, 2), vectors.readv(0, 3), story.read(1024, 512, 4)];
        story.enter(&[story.read(0, 512, 1)], 0);
        story.fake.device().run();
        story.enter(&waiting, 0);
        story.enter(&[story.read(2048, 512, 5)], 0);
        assert_eq!(story.waited(), 4);
        // The last but one, the first, the one between.
        for id in [4, 2, 3] {
            story.enter(&[AsyncCancel::new(id).build().user_data(10)], 2);
            assert_eq!(story.results([10, id]), [0, errno(Errno::ECANCELED)]);
        }
        let late = AsyncCancel::new(1).build().user_data(10);
        let gone = AsyncCancel::new(2).build().user_data(11);
        story.enter(&[late, gone], 2);
        assert_eq!(story.results([10, 11]), [errno(Errno::EALREADY), errno(Errno::ENOENT)]);
        assert_eq!(story.fake.device().slept, 0, "all of this without a sleep");
        story.revive();
        story.enter(&[], 2);
        assert_eq!(story.results([1, 5]), [512, 512]);
        // Bounce buffers and room for vectors are there again, and nobody waits.
        let waited = story.waited();
        story.enter(&[vectors.readv(0, 1).flags(LINK), vectors.readv(0, 2)], ROOM as u32);
        assert_eq!(story.results([1, 2]), [512; ROOM]);
        assert_eq!(story.waited(), waited);
        assert_eq!(story.told().len(), 2 + ROOM);
        story.end();
    }
}

#[test]
fn row_link_timeout_ends_what_waits_and_lets_go_on_what_the_disk_has() {
    let mut story = Story::new(Setup::default(), options(1));
    let (soon, cancelled) = (ms(10), errno(Errno::ECANCELED));
    let chain = |story: &Story| {
        let guard = LinkTimeout::new(&soon).build().user_data(2).flags(LINK);
        [story.read(0, 512, 1).flags(LINK), guard, story.read(512, 512, 3)]
    };
    let lose = |story: &Story| {
        story.fake.device().rules.push(Rule { kind: None, skip: 0, fate: Fate::Lost });
    };
    // The device has another, and no room.
    lose(&story);
    story.enter(&[story.read(1024, 512, 4)], 0);
    story.fake.device().run();
    story.enter(&chain(&story), 3);
    assert_eq!(story.results([1, 2, 3]), [cancelled, errno(Errno::ETIME), cancelled]);
    story.revive();
    story.enter(&[], 1);
    assert_eq!(story.results([4]), [512]);
    // It has this one, and takes its time: the chain goes on after it.
    lose(&story);
    story.enter(&chain(&story), 1);
    assert_eq!(story.results([2]), [errno(Errno::EALREADY)]);
    assert!(story.ended.is_empty());
    story.revive();
    story.enter(&[], 2);
    assert_eq!(story.results([1, 3]), [512, 512]);
    story.end();
}

#[test]
fn row_timeouts_end_the_sleep_of_a_ring_on_a_disk() {
    let mut story = Story::usual();
    let (long, short) = (Timespec::new().sec(3), ms(100));
    let begin = story.fake.device().now;
    story.enter(&[Timeout::new(&long).build().user_data(1)], 1);
    assert_eq!(story.results([1]), [errno(Errno::ETIME)]);
    let slept = story.fake.device().now - begin;
    assert!((3_000_000_000..3_100_000_000).contains(&slept), "{slept} ns");
    // With a request in flight, which is looked after meanwhile.
    story.fake.device().rules.push(Rule { kind: None, skip: 0, fate: Fate::Lost });
    let first = Timeout::new(&short).build().user_data(2);
    let counting = Timeout::new(&long).count(1).build().user_data(3);
    story.enter(&[story.read(0, 512, 1), first, counting], 1);
    assert_eq!(story.results([2]), [errno(Errno::ETIME)]);
    story.revive();
    story.enter(&[], 2);
    assert_eq!(story.results([1, 3]), [512, 0]);
    story.end();
}

#[test]
fn row_provided_buffers_are_read_into_through_bounce_memory() {
    const GROUP: u16 = 7;
    let mut story = Story::usual();
    let provide = opcode::ProvideBuffers::new(story.at(0), 4096, 2, GROUP, 0);
    let pick = |pos: u64| {
        let read = opcode::Read::new(DISK, std::ptr::null_mut(), 4096).offset(pos);
        read.buf_group(GROUP).build().user_data(pos).flags(Flags::BUFFER_SELECT)
    };
    story.enter(&[provide.build().user_data(1), pick(0), pick(4096), pick(8192)], 4);
    for pos in [0, 4096] {
        let (result, flags) = story.ended[&(pos as u64)];
        let buffer = buffer_select(flags).expect("a buffer") as usize;
        assert_eq!(result, 4096);
        let read = story.memory.get(buffer * 4096, 4096);
        assert!(read == story.fake.device().disk[pos..][..4096]);
    }
    assert_eq!(story.results([1, 8192]), [0, errno(Errno::ENOBUFS)]);
    let bounced = story.parts.as_ref().unwrap().engine.backend().stats().bounced;
    assert_eq!(bounced, 2);
    story.end();
}

#[test]
fn row_probe_says_what_a_ring_on_a_disk_carries_out() {
    for able in [true, false] {
        let setup = Setup::default();
        let lacks = if able { 0 } else { bit::DISCARD | bit::WRITE_ZEROES };
        let features = setup.features & !lacks;
        let mut story = Story::new(Setup { features, ..setup }, options(16));
        let mut probe = Probe::new();
        let engine = &mut story.parts.as_mut().unwrap().engine;
        // SAFETY: no memory is named.
        unsafe { engine.call(Call::Probe(&mut probe)) }.unwrap();
        // The table that docs/opcodes.md is made from.
        let table = Probe::of(Medium::carries_out);
        for op in 0..=u8::MAX {
            let done = table.is_supported(op) && (able || !Medium::asks_device(op));
            assert_eq!(probe.is_supported(op), done, "{op}");
            if !done {
                let mut entry = opcode::Nop::new().build().user_data(1);
                entry.opcode = op;
                story.enter(&[entry], 1);
                assert_eq!(story.results([1]), [errno(Errno::EINVAL)], "{op}");
            }
        }
        story.end();
    }
}
