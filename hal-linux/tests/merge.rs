//! Row *sequential merge*: what is punted of one file follows each other in one
//! worker, as far as it is sequential, and changes no result.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use annulus_linux::{Ring, opcode, squeue};
use common::*;

const BLOCK: usize = 4096;
const BLOCKS: usize = 32;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|i| (i / 7 * 31 % 251) as u8).collect()
}

fn content(file: &File) -> Vec<u8> {
    let mut back = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut back, 0).unwrap();
    back
}

/// Writes of the file's blocks in this order, straight by workers.
fn writes(file: &File, from: &[u8], blocks: &[usize]) -> Vec<squeue::Entry> {
    let write = |&block: &usize| {
        opcode::Write::new(fd(file), from[block * BLOCK..].as_ptr(), BLOCK as u32)
            .offset((block * BLOCK) as u64)
            .build()
            .flags(squeue::Flags::ASYNC)
    };
    blocks.iter().map(write).collect()
}

/// Hand-overs, and requests merged, of one batch.
fn counted(ring: &mut Ring, entries: &[squeue::Entry]) -> (u64, u64) {
    let before = ring.stats();
    for (cqe, entry) in run(ring, entries).iter().zip(entries) {
        assert!(cqe.result() > 0, "{entry:?}: {cqe:?}");
    }
    let after = ring.stats();
    (after.handovers - before.handovers, after.merged - before.merged)
}

fn in_order() -> Vec<usize> {
    (0..BLOCKS).collect()
}

/// A batch of 128 KiB fits into one run of any file that is read ahead.
#[test]
fn a_batch_of_sequential_writes_is_handed_over_once() {
    let (file, from) = (tempfile::tempfile().unwrap(), pattern(BLOCKS * BLOCK));
    let entries = writes(&file, &from, &in_order());
    let mut ring = Ring::new(64).unwrap();
    assert_eq!(counted(&mut ring, &entries), (1, BLOCKS as u64 - 1));
    assert_eq!(content(&file), from);
}

#[test]
fn what_is_not_sequential_is_not_merged() {
    let (file, from) = (tempfile::tempfile().unwrap(), pattern(BLOCKS * BLOCK));
    let backwards: Vec<_> = in_order().into_iter().rev().collect();
    let entries = writes(&file, &from, &backwards);
    let mut ring = Ring::new(64).unwrap();
    assert_eq!(counted(&mut ring, &entries), (BLOCKS as u64, 0));
    assert_eq!(content(&file), from);
}

#[test]
fn without_merging_each_is_handed_over() {
    let (file, from) = (tempfile::tempfile().unwrap(), pattern(BLOCKS * BLOCK));
    let entries = writes(&file, &from, &in_order());
    let mut ring = Ring::builder().merge_sequential(false).build(64).unwrap();
    assert_eq!(counted(&mut ring, &entries), (BLOCKS as u64, 0));
    assert_eq!(content(&file), from);
}

/// More than one run of eight times 128 KiB, in every way to drive a ring.
#[test]
fn runs_are_bounded_and_change_nothing() {
    let size = 64 << 10;
    let (count, from) = (256, pattern(256 * size));
    each(256, |ring| {
        let file = tempfile::tempfile().unwrap();
        let write = |i: usize| {
            opcode::Write::new(fd(&file), from[i * size..].as_ptr(), size as u32)
                .offset((i * size) as u64)
                .build()
                .flags(squeue::Flags::ASYNC)
        };
        let entries: Vec<_> = (0..count).map(write).collect();
        let (handovers, merged) = counted(ring, &entries);
        assert!(merged > 0);
        assert_eq!(handovers + merged, count as u64);
        assert_eq!(content(&file), from);
    });
}

/// Reads are merged when their data is not in the page cache.
#[test]
fn reads_of_what_is_not_there_follow_each_other() {
    let file = tempfile::tempfile().unwrap();
    let from = pattern(64 * BLOCK);
    file.write_all_at(&from, 0).unwrap();
    let mut ring = Ring::new(64).unwrap();
    let mut merged = 0;
    // How much of a batch is tried before its pages come in is the device's.
    for _ in 0..200 {
        file.sync_all().unwrap();
        // SAFETY: no memory is passed.
        unsafe { libc::posix_fadvise(fd(&file).0, 0, 0, libc::POSIX_FADV_DONTNEED) };
        let mut to = vec![0u8; from.len()];
        let base = to.as_mut_ptr();
        let read = |i: usize| {
            opcode::Read::new(fd(&file), base.wrapping_add(i * BLOCK), BLOCK as u32)
                .offset((i * BLOCK) as u64)
                .build()
        };
        merged += counted(&mut ring, &(0..64).map(read).collect::<Vec<_>>()).1;
        assert_eq!(to, from);
        if merged > 0 {
            return;
        }
    }
    not_run("the data of this file system is always there, so no read was punted, and none merged");
}
