//! What the engine holds back, cancels and times, on a device.

use crate::fake::{Aborts, Fate, Rule, Setup, meanwhile};
use crate::rig::*;
use crate::ring::Chunk;
use annulus::block::Medium;
use annulus::cqueue::buffer_select;
use annulus::errno::Errno;
use annulus::nvme::{Completions, QueueOptions};
use annulus::opcode::{self, AsyncCancel, LinkTimeout, Timeout};
use annulus::probe::Probe;
use annulus::register::Call;
use annulus::squeue::Flags;
use annulus::types::{Fd, Timespec};
use annulus::uapi;
use std::cell::RefCell;
use std::rc::Rc;

const READ: u8 = 2;
const WRITE: u8 = 1;
const FLUSH: u8 = 0;
/// Room for vectors of a [`Rig`]'s ring.
const ROOM: usize = 4;

fn set_up() -> (Rig, Ring) {
    let rig = Rig::with(1, Setup::default(), quick());
    let ring = rig.ring(&seldom());
    (rig, ring)
}

/// What the device was told to do, in order.
fn told(rig: &Rig) -> Vec<u8> {
    rig.device().log.iter().filter(|command| command.sqid != 0).map(|c| c.opcode).collect()
}

fn scattered() -> How {
    How::Vectored(vec![100, 4000, 1])
}

/// A chain of reads, that begins with `first` bytes at `pos`.
fn reads(ring: &mut Ring, pos: u64, first: usize, count: usize) -> Vec<u64> {
    let mut ids = Vec::new();
    for n in 0..count {
        ring.flags = if n + 1 == count { Flags::empty() } else { Flags::IO_LINK };
        let len = if n == 0 { first } else { 512 };
        ids.push(ring.read(On::Fd(1), pos, len, &scattered()));
    }
    ring.finish();
    ids
}

#[test]
fn row_links_vectors_follow_each_other_on_a_device() {
    let (rig, mut ring) = set_up();
    let data = pattern(3, 4 * 4096);
    ring.flags = Flags::IO_LINK;
    let write = ring.write(On::Fd(1), 0, &data, &scattered());
    let sync = ring.fsync(On::Fd(1));
    let first = ring.read(On::Fd(1), 0, 8192, &How::Vectored(vec![1, 5000]));
    ring.flags = Flags::empty();
    let second = ring.read(On::Fd(1), 8192, 8192, &scattered());
    ring.finish();
    assert_eq!([write, sync, first, second].map(|id| ring.ended[&id].res), [16384, 0, 8192, 8192]);
    assert!(ring.ended[&first].data == data[..8192] && ring.ended[&second].data == data[8192..]);
    assert_eq!(told(&rig), [WRITE, WRITE, FLUSH, READ, READ], "one after the other");
    ring.end();
    rig.end();
}

#[test]
fn row_links_a_short_vectored_read_breaks_its_chain() {
    let (rig, mut ring) = set_up();
    let end = 256 * 512;
    let cancelled = errno(Errno::ECANCELED);
    // The room for vectors is there again, however often.
    for _ in 0..=ROOM {
        let ids = reads(&mut ring, end - 512, 1024, 3);
        let results: Vec<_> = ids.iter().map(|id| ring.ended[id].res).collect();
        assert_eq!(results, [512, cancelled, cancelled]);
    }
    // More than there is room for is refused, with its chain, and all of it.
    for _ in 0..2 {
        let ids = reads(&mut ring, 0, 512, ROOM + 1);
        let results: Vec<_> = ids.iter().map(|id| ring.ended[id].res).collect();
        let mut expected = vec![cancelled; ROOM];
        expected.push(errno(Errno::ENOMEM));
        assert_eq!(results, expected);
    }
    let ids = reads(&mut ring, 0, 512, ROOM);
    assert!(ids.iter().all(|id| ring.ended[id].res == 512));
    ring.end();
    rig.end();
}

#[test]
fn row_links_vectors_wait_behind_a_drain_and_skip_their_cqe() {
    let (rig, mut ring) = set_up();
    let data = pattern(5, 1024);
    let write = ring.write(On::Fd(1), 0, &data, &How::Fixed(0));
    ring.flags = Flags::IO_DRAIN;
    let drained = ring.read(On::Fd(1), 0, 512, &scattered());
    ring.flags = Flags::empty();
    let behind = ring.read(On::Fd(1), 512, 512, &scattered());
    ring.finish();
    assert_eq!(told(&rig), [WRITE, READ, READ]);
    assert_eq!(ring.ended[&write].res, 1024);
    assert!(ring.ended[&drained].data == data[..512] && ring.ended[&behind].data == data[512..]);
    ring.flags = Flags::SKIP_SUCCESS;
    let quiet = ring.read(On::Fd(1), 0, 512, &scattered());
    let loud = ring.read(On::Fd(1), 256 * 512, 512, &scattered());
    ring.flags = Flags::empty();
    ring.turn();
    rig.fake.run(8);
    assert!(ring.skipped(quiet) == data[..512]);
    ring.finish();
    assert_eq!(ring.ended[&loud].res, 0);
    ring.end();
    rig.end();
}

#[test]
fn row_links_a_ring_that_ends_starts_nothing_that_waits() {
    let (rig, mut ring) = set_up();
    rig.device().lies.hold = true;
    ring.flags = Flags::IO_LINK;
    ring.read(On::Fd(1), 0, 512, &scattered());
    ring.read(On::Fd(1), 0, 512, &scattered());
    ring.flags = Flags::IO_DRAIN;
    ring.read(On::Fd(1), 0, 512, &scattered());
    ring.flags = Flags::empty();
    ring.read(On::Fd(1), 0, 512, &scattered());
    ring.turn();
    rig.fake.run(4);
    rig.device().lies.hold = false;
    ring.end();
    assert_eq!(told(&rig), [READ]);
    rig.end();
}

fn ms(ms: u32) -> Timespec {
    Timespec::new().nsec(ms * 1_000_000)
}

/// A ring whose device has one command at a time, and has got one that it
/// keeps; a request that waits in the driver for each of `hows`.
fn busy(completions: Completions, hows: &[How]) -> (Rig, Ring, u64, Vec<u64>) {
    let rig = Rig::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&QueueOptions { depth: 1, completions, ..seldom() });
    rig.device().lies.hold = true;
    let started = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
    let queued = hows.iter().map(|how| ring.read(On::Fd(1), 512, 512, how)).collect();
    ring.turn();
    rig.fake.run(4);
    assert_eq!(ring.stats().waited as usize, hows.len());
    (rig, ring, started, queued)
}

#[test]
fn row_cancel_what_the_device_has_not_seen_ends_and_the_rest_goes_on() {
    let hows = [How::Fixed(0), How::Plain(0), scattered(), How::Fixed(0)];
    for completions in [Completions::Interrupt(0), Completions::Adaptive(0)] {
        let (rig, mut ring, started, mut queued) = busy(completions, &hows);
        let left = queued.remove(0);
        let cancel = |ring: &mut Ring, id: u64| ring.push(AsyncCancel::new(id).build());
        // The last, the first, then the only one of them.
        for id in [queued[2], queued[0], queued[1]] {
            let found = cancel(&mut ring, id);
            ring.turn();
            ring.turn();
            assert_eq!(ring.ended[&found].res, 0);
            assert_eq!(ring.ended[&id].res, errno(Errno::ECANCELED));
        }
        let late = cancel(&mut ring, started);
        let gone = cancel(&mut ring, queued[0]);
        ring.turn();
        assert_eq!(ring.ended[&late].res, errno(Errno::EALREADY));
        assert_eq!(ring.ended[&gone].res, errno(Errno::ENOENT));
        assert_eq!(ring.in_flight(), 2);
        rig.device().lies.hold = false;
        ring.finish();
        assert_eq!([started, left].map(|id| ring.ended[&id].res), [512, 512]);
        // Chunks and room for vectors are there again, and nobody waits.
        let waited = ring.stats().waited;
        let ids = reads(&mut ring, 0, 512, ROOM);
        assert!(ids.iter().all(|id| ring.ended[id].res == 512));
        assert_eq!(ring.stats().waited, waited);
        assert_eq!(told(&rig).len(), 2 + ROOM, "the device saw nothing of the others");
        ring.end();
        rig.end();
    }
}

#[test]
fn row_cancel_what_ends_by_it_wakes_its_ring() {
    let (rig, mut ring, started, queued) = busy(Completions::Interrupt(0), &[How::Plain(0)]);
    let begin = rig.device().now;
    ring.push(AsyncCancel::new(queued[0]).build());
    // For both CQEs, in one call that must not sleep.
    ring.enter(2);
    assert!(rig.device().now - begin < 10_000_000, "it has slept");
    rig.device().lies.hold = false;
    ring.enter(1);
    assert_eq!(ring.ended[&started].res, 512);
    assert_eq!(ring.ended[&queued[0]].res, errno(Errno::ECANCELED));
    // What is issued anew does not wait for what has been cancelled.
    let waited = ring.stats().waited;
    let again = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
    assert_eq!((ring.ended.len(), ring.stats().waited), (3, waited));
    assert_eq!(ring.result(again), 512);
    ring.end();
    rig.end();
}

#[test]
fn row_cancel_what_waits_for_a_controller_under_reset_ends_at_once() {
    let (rig, mut one) = set_up();
    let mut two = rig.ring(&seldom());
    two.register(&[1]).unwrap();
    rig.device().lies.hold = true;
    rig.device().lies.aborts = Aborts::Ignored;
    one.read(On::Fd(1), 0, 512, &How::Fixed(0));
    one.turn();
    rig.fake.run(10);
    let two = Rc::new(RefCell::new(two));
    let other = two.clone();
    // While ring `one` resets the controller.
    let during = move || {
        let mut ring = other.borrow_mut();
        if ring.ended.is_empty() {
            let waits = ring.read(On::Fixed(0), 0, 512, &How::Plain(0));
            ring.turn();
            ring.push(AsyncCancel::new(waits).build());
            ring.turn();
            ring.turn();
            assert_eq!(ring.results(), [errno(Errno::ECANCELED), 0]);
        }
    };
    meanwhile(during, || one.pass_ms(600));
    rig.device().lies.hold = false;
    one.finish();
    let two = Rc::into_inner(two).unwrap().into_inner();
    assert_eq!(two.results().len(), 2, "there was a reset");
    one.end();
    two.end();
    rig.end();
}

#[test]
fn row_link_timeout_ends_what_waits_and_lets_go_on_what_the_device_has() {
    let soon = ms(10);
    let (rig, mut ring, started, _) = busy(Completions::Interrupt(0), &[]);
    let guarded = |ring: &mut Ring| {
        ring.flags = Flags::IO_LINK;
        let read = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
        let guard = ring.push(LinkTimeout::new(&soon).build());
        ring.flags = Flags::empty();
        let next = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
        ring.turn();
        [read, guard, next]
    };
    let results = |ring: &Ring, ids: [u64; 3]| ids.map(|id| ring.ended[&id].res);
    let cancelled = errno(Errno::ECANCELED);
    let waiting = guarded(&mut ring);
    rig.fake.advance_ms(20);
    ring.turn();
    ring.turn();
    assert_eq!(results(&ring, waiting), [cancelled, errno(Errno::ETIME), cancelled]);
    rig.device().lies.hold = false;
    assert_eq!(ring.result(started), 512);
    // The device has it, and takes its time: the chain goes on after it.
    rig.device().lies.rules = vec![Rule::io(Fate::Lost, 1)];
    let running = guarded(&mut ring);
    rig.fake.run(4);
    rig.fake.advance_ms(20);
    ring.turn();
    assert_eq!(ring.ended[&running[1]].res, errno(Errno::EALREADY));
    assert_eq!(ring.in_flight(), 2);
    rig.device().revive();
    ring.finish();
    assert_eq!(results(&ring, running), [512, errno(Errno::EALREADY), 512]);
    ring.end();
    rig.end();
}

#[test]
fn row_timeouts_end_the_sleep_of_a_ring_on_a_device() {
    let (rig, mut ring) = set_up();
    let (long, short) = (Timespec::new().sec(3), ms(100));
    let begin = rig.device().now;
    let alone = ring.push(Timeout::new(&long).build());
    ring.enter(1);
    assert_eq!(ring.ended[&alone].res, errno(Errno::ETIME));
    let slept = rig.device().now - begin;
    assert!((3_000_000_000..3_100_000_000).contains(&slept), "{slept} ns");
    // With a command in flight, which is looked after meanwhile.
    rig.device().lies.hold = true;
    let read = ring.read(On::Fd(1), 0, 512, &How::Fixed(0));
    let first = ring.push(Timeout::new(&short).build());
    let counting = ring.push(Timeout::new(&long).count(1).build());
    ring.enter(1);
    assert_eq!(ring.ended[&first].res, errno(Errno::ETIME));
    rig.device().lies.hold = false;
    ring.enter(1);
    ring.finish();
    assert_eq!([read, counting].map(|id| ring.ended[&id].res), [512, 0]);
    ring.end();
    rig.end();
}

#[test]
fn row_provided_buffers_are_read_into_through_bounce_memory() {
    const GROUP: u16 = 7;
    let (rig, mut ring) = set_up();
    let data = pattern(9, 8192);
    let write = ring.write(On::Fd(1), 0, &data, &How::Fixed(0));
    assert_eq!(ring.result(write), 8192);
    let memory = Chunk::new(8192, 4096);
    memory.addr();
    ring.push(opcode::ProvideBuffers::new(memory.at(0), 4096, 2, GROUP, 0).build());
    ring.flags = Flags::BUFFER_SELECT;
    let reads = [0, 4096, 0].map(|pos| {
        let read = opcode::Read::new(Fd(1), std::ptr::null_mut(), 4096).offset(pos);
        ring.push(read.buf_group(GROUP).build())
    });
    ring.flags = Flags::empty();
    ring.finish();
    for (id, at) in reads[..2].iter().zip([0, 4096]) {
        let ended = &ring.ended[id];
        let buffer = buffer_select(ended.flags).expect("a buffer") as usize;
        // SAFETY: no request is in flight there.
        let read = unsafe { std::slice::from_raw_parts(memory.at(buffer * 4096), 4096) };
        assert_eq!(ended.res, 4096);
        assert!(read == &data[at..at + 4096]);
    }
    assert_eq!(ring.ended[&reads[2]].res, errno(Errno::ENOBUFS));
    assert_eq!(ring.stats().bounced, 2);
    ring.end();
    rig.end();
}

#[test]
fn row_probe_says_what_a_ring_on_a_device_carries_out() {
    for able in [true, false] {
        let setup = Setup { write_zeroes: able, dsm: able, ..Setup::default() };
        let rig = Rig::<false>::with(1, setup, quick());
        let mut ring = rig.ring(&seldom());
        let mut probe = Probe::new();
        // SAFETY: no memory is named.
        unsafe { ring.parts().engine.call(Call::Probe(&mut probe)) }.unwrap();
        // The table that docs/opcodes.md is made from.
        let table = Probe::of(Medium::carries_out);
        for op in 0..=u8::MAX {
            let done = table.is_supported(op) && (able || !Medium::asks_device(op));
            assert_eq!(probe.is_supported(op), done, "{op}");
            if !done {
                let mut entry = opcode::Nop::new().build();
                entry.opcode = op;
                let id = ring.push(entry);
                assert_eq!(ring.result(id), errno(Errno::EINVAL), "{op}");
            }
        }
        assert_eq!(probe.is_supported(uapi::IORING_OP_FALLOCATE), able);
        ring.end();
        rig.end();
    }
}
