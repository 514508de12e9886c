//! What the engine holds back, cancels and times, on a device.

use crate::fake::Setup;
use crate::rig::*;
use annulus::errno::Errno;
use annulus::squeue::Flags;

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
