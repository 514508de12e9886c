//! What an application sees: as of a block device.

use crate::fake::{Fate, Rule, Setup, bit, mmio};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::hal::{Backend, Start};
use annulus::uapi::*;
use annulus_baremetal::virtio::{Options, QueueOptions};

const READ: u8 = IORING_OP_READ_FIXED;
const WRITE: u8 = IORING_OP_WRITE_FIXED;

#[test]
fn ends_and_grids() {
    let fake = fake(Setup { block: 4096, ..Setup::default() });
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    let (end, at) = (on.info().bytes, side.buffer.addr());
    let invalid = errno(Errno::EINVAL);
    for (ask, result) in [
        (Ask::new(READ, at, 4096, end), 0),
        (Ask::new(READ, at, 4096, end + 4096), 0),
        (Ask::new(WRITE, at, 4096, end), errno(Errno::ENOSPC)),
        (Ask::new(READ, at, 8192, end - 4096), 4096),
        (Ask::new(WRITE, at, 8192, end - 4096), 4096),
        (Ask::new(READ, at, 0, 0), 0),
        (Ask::new(READ, at, 512, 0), invalid),
        (Ask::new(READ, at, 4096, 512), invalid),
        (Ask::new(WRITE, at, 4096, u64::MAX), invalid),
        (Ask::new(READ, at, 4096, 1 << 63), invalid),
        (Ask::new(IORING_OP_READ, 0, 4096, 0), errno(Errno::EFAULT)),
        (Ask { flags: 0x8000, ..Ask::new(READ, at, 4096, 0) }, errno(Errno::EOPNOTSUPP)),
        (Ask { flags: RWF_HIPRI as u32, ..Ask::new(READ, at, 4096, 0) }, 4096),
    ] {
        assert_eq!(side.run(ask), result, "{ask:?}");
    }
    assert!(side.backend().is_open(0) && !side.backend().is_open(1));
    assert_eq!(side.backend().open(1), Err(Errno::EBADF));
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn vectors_are_copied_when_they_are_submitted() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    let memory = Chunk::new(1 << 16);
    let data = noise(3, 20 * 512);
    memory.put(100, &data[..3000]);
    memory.put(8000, &data[3000..]);
    let mut list = [
        iovec(memory.addr() + 100, 3000),
        iovec(0, 0),
        iovec(memory.addr() + 8000, data.len() - 3000),
    ];
    let at = list.as_ptr().expose_provenance();
    let ask = Ask::new(IORING_OP_WRITEV, at, 3, 512);
    let slot = side.pending(ask);
    list.fill(iovec(1, 1));
    side.kick();
    side.finish();
    assert_eq!(side.ended, [(slot, data.len() as i32)]);
    side.ended.clear();
    assert!(side.device().disk[512..][..data.len()] == data);
    let list = [iovec(memory.addr() + 30000, 777), iovec(memory.addr() + 40000, 512 * 8 - 777)];
    let ask = Ask::new(IORING_OP_READV, list.as_ptr().expose_provenance(), 2, 1024);
    assert_eq!(side.run(ask), 4096);
    let read = [memory.get(30000, 777), memory.get(40000, 4096 - 777)].concat();
    assert!(read == data[512..][..4096]);
    // No more at once than there is room for.
    side.pending(ask);
    side.pending(ask);
    assert_eq!(side.start(ask), Err(Start::NoRoom));
    side.kick();
    side.finish();
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn flushes() {
    let setup = Setup::default();
    // Feature bits, the cache's mode, what is asked for; whether it is flushed.
    for (without, mode, asked, flushed) in [
        (0, true, None, true),
        (0, false, None, false),
        (0, true, Some(false), false),
        (0, false, Some(true), true),
        (bit::CONFIG_WCE, false, Some(true), true),
        (bit::FLUSH, true, None, false),
        (bit::FLUSH | bit::CONFIG_WCE, false, None, false),
    ] {
        let features = setup.features & !without;
        let fake = fake(Setup { features, write_back: mode, ..setup.clone() });
        let options = Options { write_back: asked, ..quick() };
        let on = disk::<_, false>(&fake, mmio(&fake), options).unwrap();
        assert_eq!(on.info().write_cache, flushed);
        let mut side = Side::new(&on, &polled(), 8).unwrap();
        side.buffer.put(0, &noise(9, 512));
        assert_eq!(side.run(Ask::new(WRITE, side.buffer.addr(), 512, 0)), 512);
        assert_eq!(side.run(Ask::flush()), 0);
        assert_eq!(side.device().carried_out.contains(&4), flushed);
        // On a disk with a cache a flush follows what shall last.
        side.device().carried_out.clear();
        let ask = Ask::new(WRITE, side.buffer.addr(), 1024, 512);
        assert_eq!(side.run(Ask { flags: RWF_DSYNC as u32, ..ask }), 1024);
        let expected: &[u32] = if flushed { &[1, 4] } else { &[1] };
        assert_eq!(side.device().carried_out, expected);
        if flushed {
            let device = side.device();
            assert!(device.durable == device.disk);
        }
        side.end();
        drop(on);
        fake.check();
    }
}

#[test]
fn ranges() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    assert!(side.backend().supports(IORING_OP_FALLOCATE));
    let (punch, keep) = (FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE);
    let end = on.info().bytes;
    // In parts: the device takes 64 sectors.
    for (mode, from, bytes, filled, parts) in [
        (FALLOC_FL_ZERO_RANGE, 512, 200 * 512, 0, [13; 4].as_slice()),
        (punch | keep, 400 * 512, 512, 0, &[13]),
        (punch | keep | FALLOC_FL_NO_HIDE_STALE, 500 * 512, 65 * 512, 0xdd, &[11, 11]),
        (FALLOC_FL_ZERO_RANGE | keep, end - 512, 1 << 40, 0, &[13]),
    ] {
        side.device().carried_out.clear();
        let mut model = side.device().disk.clone();
        model[from as usize..].iter_mut().take(bytes as usize).for_each(|byte| *byte = filled);
        assert_eq!(side.run(Ask::allocate(mode, from, bytes)), 0);
        assert!(side.device().disk == model, "{mode:#x}");
        assert_eq!(side.device().carried_out, parts);
    }
    let invalid = errno(Errno::EINVAL);
    for (mode, from, bytes, result) in [
        (FALLOC_FL_ZERO_RANGE, 0, 0, invalid),
        (FALLOC_FL_ZERO_RANGE, 1, 512, invalid),
        (FALLOC_FL_ZERO_RANGE, 0, 100, invalid),
        (FALLOC_FL_ZERO_RANGE, end, 512, invalid),
        (FALLOC_FL_ZERO_RANGE, end - 512, 1024, invalid),
        (punch, 0, 512, errno(Errno::EOPNOTSUPP)),
        (0, 0, 512, errno(Errno::EOPNOTSUPP)),
    ] {
        assert_eq!(side.run(Ask::allocate(mode, from, bytes)), result);
    }
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn a_disk_that_is_read_only() {
    let setup = Setup::default();
    let features = setup.features | bit::RO;
    let fake = fake(Setup { features, ..setup });
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    let (at, refused) = (side.buffer.addr(), errno(Errno::EROFS));
    assert_eq!(side.run(Ask::new(READ, at, 512, 0)), 512);
    assert_eq!(side.run(Ask::new(WRITE, at, 512, 0)), refused);
    assert_eq!(side.run(Ask::allocate(FALLOC_FL_ZERO_RANGE, 0, 512)), refused);
    assert_eq!(side.run(Ask::flush()), 0);
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn errors_keep_their_meaning() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    let at = side.buffer.addr();
    for (status, result) in [(1, Errno::EIO), (2, Errno::EOPNOTSUPP), (77, Errno::EIO)] {
        // Of a short one, and of the second part of a long one.
        for (len, skip) in [(512, 0), (128 << 10, 1)] {
            let rule = Rule { kind: Some(0), skip, fate: Fate::Status(status) };
            side.device().rules.push(rule);
            assert_eq!(side.run(Ask::new(READ, at, len, 0)), errno(result));
            let failure = side.backend().stats().last_failure.unwrap();
            assert_eq!((failure.kind, failure.status), (0, status));
            assert_eq!(failure.sector, if skip == 1 { 128 } else { 0 });
            assert_eq!(side.run(Ask::new(READ, at, len, 0)), len as i32, "and it goes on");
        }
    }
    assert_eq!(side.backend().stats().failed, 6);
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn a_disk_that_grows() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    let (end, at) = (on.info().bytes, side.buffer.addr());
    assert_eq!(side.run(Ask::new(READ, at, 512, end)), 0);
    side.device().resize(4096);
    let cause = on.acknowledge();
    assert!(cause.config && !cause.queue);
    assert_eq!(on.acknowledge(), Default::default(), "the device has taken it back");
    side.poll();
    assert_eq!(side.run(Ask::new(READ, at, 512, end)), 512);
    assert_eq!(on.info().bytes, 4096 * 512);
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn more_requests_than_places_and_buffers() {
    let fake = fake(Setup::default());
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let options = QueueOptions { depth: 3, bounce_buffers: 2, ..polled() };
    let mut side = Side::new(&on, &options, 30).unwrap();
    let memory = Chunk::new(30 * 512);
    for round in 0..3 {
        for part in 0..30u64 {
            let plain = part % 2 == 0;
            let opcode = if plain { IORING_OP_READ } else { READ };
            let base = if plain { memory.addr() } else { side.buffer.addr() };
            side.pending(Ask::new(
                opcode,
                base + part as usize * 512,
                512,
                part * 512 + round * 512,
            ));
        }
        side.kick();
        side.finish();
        for part in 0..30 {
            let memory = if part % 2 == 0 { &memory } else { &side.buffer };
            let at = (part + round as usize) * 512;
            assert!(memory.get(part * 512, 512) == side.device().disk[at..at + 512]);
        }
    }
    assert!(side.backend().stats().waited > 0);
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn one_notification_a_batch() {
    for bits in [0, bit::EVENT_IDX, bit::PACKED, bit::PACKED | bit::EVENT_IDX] {
        let setup = Setup::default();
        let features = setup.features & !bits;
        let fake = fake(Setup { features, ..setup });
        let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
        let mut side = Side::new(&on, &polled(), 16).unwrap();
        let at = side.buffer.addr();
        for round in 1..=20u32 {
            for part in 0..16 {
                side.pending(Ask::new(READ, at + part * 512, 512, 0));
            }
            side.kick();
            side.kick();
            assert_eq!(side.device().notifications, round);
            side.finish();
        }
        assert_eq!(side.device().interrupts, 0, "a ring that looks is not interrupted");
        assert_eq!(side.backend().stats().notifications, 20);
        side.end();
        drop(on);
        fake.check();
    }
}
