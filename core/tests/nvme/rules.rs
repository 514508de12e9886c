//! A namespace behaves as a block device opened with `O_DIRECT`; and what is
//! durable when.

use crate::fake::{Fake, Fate, Rule, Setup};
use crate::rig::*;
use crate::ring::Ring;
use annulus::errno::Errno;
use annulus::uapi;

const PUNCH: i32 = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

#[test]
fn the_end_and_the_grid() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    // Namespace 1 has 256 blocks of 512, namespace 2 has 64 of 4096.
    for (nsid, block, end) in [(1, 512u64, 256 * 512u64), (2, 4096, 64 * 4096)] {
        for how in [How::Fixed(0), How::Plain(0), How::Vectored(vec![100, 1000])] {
            let mut read = |pos: u64, len: u64| {
                let id = ring.read(On::Fd(nsid), pos, len as usize, &how);
                ring.result(id)
            };
            let einval = errno(Errno::EINVAL);
            assert_eq!(read(end - block, block), block as i32);
            assert_eq!(read(end - block, 3 * block), block as i32, "cut at the end");
            assert_eq!(read(end, block), 0);
            assert_eq!(read(end + 7, 13), 0);
            assert_eq!(read(i64::MAX as u64, block), 0);
            assert_eq!(read(1 << 63, block), einval);
            assert_eq!(read(u64::MAX, block), einval, "there is no current position");
            assert_eq!(read(0, 0), 0);
            assert_eq!(read(1, block), einval);
            assert_eq!(read(block / 2, block), einval);
            assert_eq!(read(0, block - 1), einval);
            assert_eq!(read(0, block + 256), einval);
            let mut write = |pos: u64, len: u64| {
                let data = pattern(pos, len as usize);
                let id = ring.write(On::Fd(nsid), pos, &data, &how);
                ring.result(id)
            };
            assert_eq!(write(end - block, block), block as i32);
            assert_eq!(write(end - block, 3 * block), block as i32, "cut at the end");
            assert_eq!(write(end, block), errno(Errno::ENOSPC));
            assert_eq!(write(end, 0), 0);
            assert_eq!(write(i64::MAX as u64, block), errno(Errno::ENOSPC));
            assert_eq!(write(1 << 63, block), einval);
            assert_eq!(write(3, block), einval);
            assert_eq!(write(0, block + 1), einval);
        }
    }
    assert_eq!(ring.stats().failed, 0, "nothing of it was asked of the controller");
    ring.end();
    rig.end();
}

#[test]
fn a_namespace_that_grows_is_as_large_as_it_says() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    let read_block = |ring: &mut Ring, block: u32| {
        let id = ring.read(On::Fd(1), u64::from(block) * 512, 512, &How::Plain(0));
        ring.result(id)
    };
    assert_eq!(read_block(&mut ring, 256), 0, "the end");
    // Twice: the controller tells of the second when its log has been read.
    for round in 1..3u32 {
        rig.device().namespaces[0].blocks += 256;
        assert_eq!(read_block(&mut ring, 256 * round), 0, "not told yet");
        rig.device().events.push(2 | 4 << 16);
        rig.device().lies.hold = true;
        let held = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
        ring.turn();
        ring.pass_ms(200);
        rig.device().lies.hold = false;
        assert_eq!(ring.result(held), 512);
        assert_eq!(read_block(&mut ring, 256 * round), 512);
    }
    ring.end();
    rig.end();
}

#[test]
fn flags_that_are_kept_and_flags_that_are_not() {
    for (options, hipri) in [(seldom(), errno(Errno::EINVAL)), (polled(), 512)] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        let mut ring = rig.ring(&options);
        let data = pattern(1, 512);
        let cases = [
            (uapi::RWF_NOWAIT, 512),
            (uapi::RWF_HIPRI, hipri),
            (uapi::RWF_DSYNC | uapi::RWF_SYNC, 512),
            (uapi::RWF_APPEND, errno(Errno::EOPNOTSUPP)),
            (1 << 30, errno(Errno::EOPNOTSUPP)),
        ];
        for (flags, result) in cases {
            for how in [How::Fixed(0), How::Plain(0)] {
                let write = ring.write_flags(On::Fd(1), 0, &data, &how, flags);
                assert_eq!(ring.result(write), result, "{flags:#x}");
            }
        }
        ring.end();
        rig.end();
    }
}

#[test]
fn memory_that_is_none_is_refused() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    let read = annulus::opcode::Read::new(annulus::types::Fd(1), std::ptr::null_mut(), 512);
    let id = ring.push(read.build());
    assert_eq!(ring.result(id), errno(Errno::EFAULT));
    let top = std::ptr::without_provenance_mut(usize::MAX - 100);
    let read = annulus::opcode::Read::new(annulus::types::Fd(1), top, 512);
    let id = ring.push(read.build());
    assert_eq!(ring.result(id), errno(Errno::EFAULT));
    let huge = [annulus::types::Iovec { base: top.cast(), len: usize::MAX }];
    let read = annulus::opcode::Readv::new(annulus::types::Fd(1), huge.as_ptr(), 1);
    let id = ring.push(read.build());
    assert_eq!(ring.result(id), errno(Errno::EINVAL));
    ring.end();
    rig.end();
}

#[test]
fn a_read_only_namespace_is_not_written() {
    let fake = Fake::new(1, Setup::default());
    fake.device().namespaces[0].read_only = true;
    let rig = Rig::<false>::try_with(fake, quick()).unwrap();
    let mut ring = rig.ring(&seldom());
    let erofs = errno(Errno::EROFS);
    for how in [How::Fixed(0), How::Plain(0), How::Vectored(vec![5])] {
        let write = ring.write(On::Fd(1), 0, &pattern(1, 512), &how);
        assert_eq!(ring.result(write), erofs);
        let read = ring.read(On::Fd(1), 0, 512, &how);
        assert_eq!(ring.result(read), 512);
    }
    let punch = ring.fallocate(1, PUNCH, 0, 512);
    assert_eq!(ring.result(punch), erofs);
    ring.end();
    rig.end();
}

#[test]
fn the_controller_may_protect_a_namespace_while_it_is_used() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    ring.register(&[1]).unwrap();
    rig.device().namespaces[0].read_only = true;
    let write = ring.write(On::Fixed(0), 0, &pattern(1, 512), &How::Fixed(0));
    assert_eq!(ring.result(write), errno(Errno::EROFS));
    ring.end();
    rig.end();
}

#[test]
fn every_fsynced_block_survives_a_power_cut() {
    for seed in 0..if cfg!(miri) { 2 } else { 30 } {
        let fake = Fake::new(seed, Setup::default());
        let rig = Rig::<false>::try_with(fake.clone(), quick()).unwrap();
        let mut ring = rig.ring(&seldom());
        let data = pattern(seed, 64 * 512);
        ring.write(On::Fd(1), 0, &data, &How::Plain(0));
        ring.write(On::Fd(2), 0, &data, &How::Fixed(0));
        ring.finish();
        let fsync = ring.fsync(On::Fd(1));
        assert_eq!(ring.result(fsync), 0);
        // Neither flushed nor through: it may be lost.
        let lost = ring.write(On::Fd(1), 0x8000, &pattern(3, 8192), &How::Plain(0));
        // Through the cache, though in several parts.
        let through = pattern(4, 48 << 10);
        ring.write_flags(On::Fd(1), 0x10000, &through, &How::Fixed(4), uapi::RWF_DSYNC);
        assert_eq!(ring.result(lost), 8192);
        assert!(ring.results()[4] == 48 << 10);
        fake.device().power_cut();
        fake.device().lies.wild = true;
        std::mem::forget(ring);
        std::mem::forget(rig);
        let mut all = vec![0; 256 * 512];
        fake.device().namespaces[0].read(0, &mut all);
        assert!(all[..data.len()] == data, "what was fsynced");
        assert!(all[0x10000..][..through.len()] == through, "what went through");
    }
}

#[test]
fn fsync_asks_for_a_flush_where_there_is_a_cache_only() {
    for vwc in [true, false] {
        let rig = Rig::<false>::with(1, Setup { vwc, ..Setup::default() }, quick());
        let mut ring = rig.ring(&seldom());
        for nsid in [1, 2] {
            let fsync = ring.fsync(On::Fd(nsid));
            assert_eq!(ring.result(fsync), 0);
        }
        let data = pattern(1, 512);
        ring.write_flags(On::Fd(1), 0, &data, &How::Fixed(0), uapi::RWF_DSYNC);
        ring.finish();
        let io: Vec<_> = rig.device().log.iter().filter(|one| one.sqid != 0).copied().collect();
        let flushes: Vec<_> = io.iter().filter(|one| one.opcode == 0).map(|one| one.nsid).collect();
        assert_eq!(flushes, if vwc { vec![1, 2] } else { vec![] });
        let fua = io.last().unwrap().dword12 >> 30 & 1;
        assert_eq!(fua, u32::from(vwc));
        ring.end();
        rig.end();
    }
}

#[test]
fn a_flush_that_fails_is_told() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    rig.device().lies.rules = vec![Rule::io(Fate::Status(0x280), 1).opcode(0)];
    let fsync = ring.fsync(On::Fd(1));
    assert_eq!(ring.result(fsync), errno(Errno::ENODATA));
    let fsync = ring.fsync(On::Fd(77));
    assert_eq!(ring.result(fsync), errno(Errno::EBADF));
    ring.end();
    rig.end();
}

#[test]
fn fallocate_zeroes_and_punches() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    let data = pattern(5, 256 * 512);
    for (mode, deac) in
        [(FALLOC_FL_ZERO_RANGE, 0), (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0), (PUNCH, 1)]
    {
        let write = ring.write(On::Fd(1), 0, &data, &How::Fixed(0));
        assert_eq!(ring.result(write), data.len() as i32);
        let zero = ring.fallocate(1, mode, 3 * 512, 100 * 512);
        assert_eq!(ring.result(zero), 0, "{mode:#x}");
        let read = ring.read(On::Fd(1), 0, data.len(), &How::Fixed(0));
        ring.finish();
        let got = &ring.ended[&read].data;
        assert!(got[..3 * 512] == data[..3 * 512] && got[103 * 512..] == data[103 * 512..]);
        assert!(got[3 * 512..103 * 512].iter().all(|&byte| byte == 0));
        let last = rig.device().log.iter().rfind(|one| one.opcode == 8).copied().unwrap();
        assert_eq!(last.dword12 >> 25 & 1, deac, "{mode:#x}");
    }
    // The hint, by dataset management; what is read afterwards is not said.
    let hint = ring.fallocate(1, PUNCH | FALLOC_FL_NO_HIDE_STALE, 1024, 2048);
    assert_eq!(ring.result(hint), 0);
    assert_eq!(rig.device().deallocations, [(1, 1024, 2048)]);
    ring.end();
    rig.end();
}

#[test]
fn fallocate_refuses_what_a_block_device_refuses() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    let end = 256 * 512;
    let mut answer = |mode, pos, len| {
        let id = ring.fallocate(1, mode, pos, len);
        ring.result(id)
    };
    let (einval, unsupported) = (errno(Errno::EINVAL), errno(Errno::EOPNOTSUPP));
    for mode in [FALLOC_FL_ZERO_RANGE, PUNCH] {
        assert_eq!(answer(mode, 0, 0), einval);
        assert_eq!(answer(mode, end, 512), einval);
        assert_eq!(answer(mode, 1, 512), einval);
        assert_eq!(answer(mode, 0, 513), einval);
        assert_eq!(answer(mode, u64::MAX, 512), einval);
        assert_eq!(answer(mode, 0, u64::MAX), einval);
    }
    assert_eq!(answer(FALLOC_FL_ZERO_RANGE, end - 512, 1024), einval);
    assert_eq!(answer(PUNCH, end - 512, 1024), 0, "cut at the end");
    assert_eq!(answer(0, 0, 512), unsupported);
    assert_eq!(answer(FALLOC_FL_PUNCH_HOLE, 0, 512), unsupported);
    assert_eq!(answer(1 << 20, 0, 512), unsupported);
    ring.end();
    rig.end();

    let without = Setup { write_zeroes: false, ..Setup::default() };
    let rig = Rig::<false>::with(1, without, quick());
    let mut ring = rig.ring(&seldom());
    let punch = ring.fallocate(1, PUNCH, 0, 512);
    assert_eq!(ring.result(punch), unsupported);
    let hint = ring.fallocate(1, PUNCH | FALLOC_FL_NO_HIDE_STALE, 0, 512);
    assert_eq!(ring.result(hint), 0);
    ring.end();
    rig.end();

    let neither = Setup { write_zeroes: false, dsm: false, ..Setup::default() };
    let rig = Rig::<false>::with(1, neither, quick());
    let mut ring = rig.ring(&seldom());
    let punch = ring.fallocate(1, PUNCH, 0, 512);
    assert_eq!(ring.result(punch), einval, "the operation itself is not there");
    ring.end();
    rig.end();
}

#[test]
fn large_ranges_are_zeroed_and_given_back_in_parts() {
    // More blocks than Write Zeroes can name (2^16), and than a range of
    // Dataset Management can (2^32 - 1).
    let fake = Fake::new(1, Setup { mdts: 0, ..Setup::default() });
    let blocks = (1 << 33) + 5;
    fake.device().namespaces[0].blocks = blocks;
    let rig = Rig::<false>::try_with(fake, quick()).unwrap();
    let mut ring = rig.ring(&seldom());
    let at = 200_000 * 512;
    let write = ring.write(On::Fd(1), at, &pattern(1, 512), &How::Plain(0));
    assert_eq!(ring.result(write), 512);
    let zero = ring.fallocate(1, FALLOC_FL_ZERO_RANGE, 512, 300_000 * 512);
    assert_eq!(ring.result(zero), 0);
    let read = ring.read(On::Fd(1), at, 512, &How::Plain(0));
    assert_eq!(ring.result(read), 512);
    assert_eq!(ring.ended[&read].data, [0; 512]);

    let hint = ring.fallocate(1, PUNCH | FALLOC_FL_NO_HIDE_STALE, 512, (blocks - 1) * 512);
    assert_eq!(ring.result(hint), 0);
    let most = (u64::from(u32::MAX)) * 512;
    assert_eq!(
        rig.device().deallocations,
        [(1, 512, most), (1, 512 + most, most), (1, 512 + 2 * most, 6 * 512)]
    );
    ring.end();
    rig.end();
}

#[test]
fn row_iopoll_a_flush_is_polled_for() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&polled());
    let fsync = ring.fsync(On::Fd(1));
    assert_eq!(ring.result(fsync), 0, "a command like any other");
    let cancel = ring.push(annulus::opcode::AsyncCancel::new(1).build());
    assert_eq!(ring.result(cancel), errno(Errno::EINVAL));
    ring.end();
    rig.end();
}
