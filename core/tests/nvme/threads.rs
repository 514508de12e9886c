//! Rings of several threads on one controller.
//!
//! Not under Miri: to it the device, which is run by whichever thread waits,
//! is one more thread, and memory that is shared with a device is read and
//! written without atomics.
#![cfg(not(miri))]

use crate::fake::{Aborts, Fate, Rng, Rule, Setup};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::nvme::QueueOptions;
use std::thread;

/// Each thread has blocks of its own, and knows what is in them unless a write
/// there has failed.
fn work(rig: &Rig, thread: u64, options: &QueueOptions) {
    let mut ring = rig.ring(options);
    let mut rng = Rng::new(thread);
    let first = thread * 64;
    let mut known: Vec<Option<Vec<u8>>> = vec![Some(vec![0; 512]); 64];
    for round in 0..200 {
        let count = 1 + rng.below(20);
        let mut writes = Vec::new();
        let mut reads = Vec::new();
        let mut used = Vec::new();
        for _ in 0..count {
            let block = rng.below(64);
            if used.contains(&block) {
                continue;
            }
            used.push(block);
            let pos = (first + block as u64) * 512;
            let how = if rng.below(2) == 0 { How::Fixed(0) } else { How::Plain(1) };
            if rng.below(2) == 0 {
                let data = pattern(rng.next(), 512);
                writes.push((ring.write(On::Fd(1), pos, &data, &how), block, data));
            } else {
                reads.push((ring.read(On::Fd(1), pos, 512, &how), block));
            }
        }
        if thread == 0 && round % 20 == 10 {
            // One that never ends: an abort, or a reset under everybody.
            let mut device = rig.device();
            let ignored = rng.below(2) == 0;
            device.lies.aborts = if ignored { Aborts::Ignored } else { Aborts::Work };
            device.lies.rules = vec![Rule::io(Fate::Lost, 1)];
        }
        ring.finish();
        let fine = |res: i32| {
            let lost = [errno(Errno::EIO), errno(Errno::ETIMEDOUT)];
            assert!(res == 512 || lost.contains(&res), "{res}");
            res == 512
        };
        for (id, block) in reads {
            let ended = &ring.ended[&id];
            if fine(ended.res)
                && let Some(known) = &known[block]
            {
                assert!(ended.data == *known, "block {block} of thread {thread}");
            }
        }
        for (id, block, data) in writes {
            known[block] = fine(ring.ended[&id].res).then_some(data);
        }
        ring.ended.clear();
        rig.fake.patience();
    }
    ring.end();
}

#[test]
fn rings_in_threads_share_a_controller_through_resets() {
    for (seed, options) in [(1, seldom()), (2, polled())] {
        let rig = Rig::<false>::with(seed, Setup::default(), quick());
        rig.device().lies.racing = true;
        thread::scope(|scope| {
            for number in 0..3 {
                let (rig, options) = (&rig, &options);
                scope.spawn(move || work(rig, number, options));
            }
        });
        assert!(rig.controller().resets() > 0);
        rig.end();
    }
}
