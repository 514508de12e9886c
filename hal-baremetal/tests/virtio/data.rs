//! What is written is what is read, whatever way it goes.

use crate::fake::{Fake, Rng, Setup, bit, mmio, pci};
use crate::rig::*;
use annulus::uapi::*;
use annulus_baremetal::virtio::Transport;
use std::sync::Arc;

/// Writes and reads of all kinds, as many at once as there is room for, with a
/// disk to compare with.
fn exercise<T: Transport, const SYNC: bool>(
    fake: &Arc<Fake>,
    transport: T,
    scatter: bool,
    rounds: usize,
) {
    fake.device().memory.scatter = scatter;
    let disk = disk::<T, SYNC>(fake, transport, quick()).unwrap();
    let mut side = Side::new(&disk, &polled(), 20).unwrap();
    let plain = Chunk::new(64 << 10);
    let mut model = fake.device().disk.clone();
    let mut rng = Rng::new(7);
    for round in 0..rounds {
        let block = disk.info().block as usize;
        let blocks = model.len() / block;
        // Each has an area of its own, of the disk and of memory.
        let (areas, each) = (8, blocks / 8);
        let mut expected = Vec::new();
        for area in 0..areas {
            let at = (area * each + rng.below(each)) * block;
            let most = ((area + 1) * each * block - at).min(REGISTERED / areas - 512);
            let len = (1 + rng.below(most / block)) * block;
            let (skip, write) = (area * REGISTERED / areas + 4 * rng.below(128), rng.below(2) == 0);
            let fixed = rng.below(2) == 0 || len > plain_room(areas);
            let (memory, skip) = match fixed {
                true => (&side.buffer, skip),
                false => (&plain, area * plain_room(areas)),
            };
            let data = noise(round as u64 * 64 + area as u64, len);
            if write {
                memory.put(skip, &data);
                model[at..at + len].copy_from_slice(&data);
            }
            let opcode = match (fixed, write) {
                (true, true) => IORING_OP_WRITE_FIXED,
                (true, false) => IORING_OP_READ_FIXED,
                (false, true) => IORING_OP_WRITE,
                (false, false) => IORING_OP_READ,
            };
            let ask = Ask::new(opcode, memory.addr() + skip, len, at as u64);
            let slot = side.pending(ask);
            if rng.below(3) == 0 {
                side.kick();
                side.device().step();
            }
            expected.push((slot, write, fixed, skip, at, len));
        }
        side.kick();
        side.finish();
        for (slot, write, fixed, skip, at, len) in expected {
            let end = side.ended.iter().find(|(ended, _)| *ended == slot).unwrap();
            assert_eq!(end.1, len as i32);
            if !write {
                let memory = if fixed { &side.buffer } else { &plain };
                assert!(memory.get(skip, len) == model[at..at + len], "{len} bytes at {at:#x}");
            }
        }
        side.ended.clear();
    }
    assert!(side.device().disk == model, "what is on the disk");
    side.end();
    drop(disk);
    fake.check();
}

fn plain_room(areas: usize) -> usize {
    (64 << 10) / areas
}

const ROUNDS: usize = if cfg!(miri) { 1 } else { 40 };

fn without(bits: u64) -> Setup {
    let setup = Setup::default();
    Setup { features: setup.features & !bits, queue_size: 32, ..setup }
}

#[test]
fn split_and_packed_with_and_without_tables_and_events() {
    for packed in [0, bit::PACKED] {
        for indirect in [0, bit::INDIRECT] {
            for events in [0, bit::EVENT_IDX] {
                let fake = fake(without(packed | indirect | events));
                exercise::<_, false>(&fake, mmio(&fake), packed != events, ROUNDS);
            }
        }
    }
}

#[test]
fn over_pci() {
    let fake = fake(Setup { block: 4096, ..Setup::default() });
    exercise::<_, false>(&fake, pci(&fake), true, ROUNDS);
}

#[test]
fn memory_that_is_not_coherent() {
    for packed in [0, bit::PACKED] {
        let fake = fake(without(packed));
        exercise::<_, true>(&fake, mmio(&fake), true, ROUNDS);
    }
}

#[test]
fn small_pieces() {
    let setup = Setup::default();
    for (segments, segment_bytes) in [(1, 512), (3, 1024), (2, 4096), (1, 1 << 20)] {
        let features = setup.features | bit::SIZE_MAX;
        let fake = fake(Setup { features, segments, segment_bytes, ..setup.clone() });
        exercise::<_, false>(&fake, mmio(&fake), true, ROUNDS / 4 + 1);
    }
}

#[test]
fn a_queue_of_four() {
    for bits in [0, bit::INDIRECT, bit::PACKED, bit::PACKED | bit::INDIRECT] {
        let fake = fake(Setup { queue_size: 4, ..without(bits) });
        exercise::<_, false>(&fake, mmio(&fake), false, ROUNDS);
    }
}
