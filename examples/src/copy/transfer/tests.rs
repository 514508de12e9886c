//! The steps of a slot, one by one, and a whole copy.

use super::*;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const LEN: u32 = 4096;

fn reading(transfer: &mut Transfer) {
    let chunk = Chunk { offset: 8192, len: LEN, hole: false };
    transfer.slots[0] = Slot { step: Step::Read, chunk, moved: 0, index: 0 };
    transfer.sums = vec![Sum { chunk, crc: 0 }];
}

fn over_files(depth: u32) -> Transfer {
    Transfer::new(depth, LEN as usize, None, None).unwrap()
}

#[test]
fn short_reads_and_writes_are_continued() {
    let mut transfer = over_files(1);
    reading(&mut transfer);
    assert!(transfer.advance(0, 1000).unwrap());
    assert_eq!((transfer.slots[0].step, transfer.slots[0].moved), (Step::Read, 1000));
    assert!(transfer.advance(0, -libc::EINTR).unwrap());
    assert!(transfer.advance(0, 3096).unwrap());
    assert_eq!((transfer.slots[0].step, transfer.slots[0].moved), (Step::Write, 0));
    assert!(transfer.advance(0, 4095).unwrap());
    assert_eq!((transfer.slots[0].step, transfer.slots[0].moved), (Step::Write, 4095));
    assert!(!transfer.advance(0, 1).unwrap(), "the chunk is done");
}

#[test]
fn faults_say_where_they_happened() {
    let mut transfer = over_files(1);
    reading(&mut transfer);
    transfer.advance(0, 1000).unwrap();
    assert!(matches!(transfer.advance(0, 0), Err(Fault::Ended { offset: 9192 })));
    assert!(matches!(transfer.advance(0, -libc::EIO), Err(Fault::Read { offset: 9192, .. })));
    transfer.slots[0].step = Step::Write;
    assert!(matches!(transfer.advance(0, -libc::ENOSPC), Err(Fault::Write { offset: 9192, .. })));
    assert!(matches!(transfer.advance(0, 0), Err(Fault::Write { offset: 9192, .. })));
    transfer.slots[0].step = Step::Reread;
    assert!(matches!(transfer.advance(0, 0), Err(Fault::Reread { offset: 9192, .. })));
}

#[test]
fn what_is_left_of_a_block_is_padded_with_zeroes() {
    let mut transfer = over_files(1);
    (transfer.src.grid, transfer.dst.grid) = (512, 4096);
    reading(&mut transfer);
    transfer.slots[0].chunk.len = 700;
    // SAFETY: nothing is in flight.
    unsafe { transfer.buffers.bytes(0) }.fill(7);
    assert_eq!(transfer.length(transfer.slots[0]), 1024);
    assert!(transfer.advance(0, 1024).unwrap());
    assert_eq!(transfer.length(transfer.slots[0]), 4096);
    let mut padded = [0; LEN as usize];
    padded[..700].fill(7);
    // SAFETY: as above.
    assert!(unsafe { transfer.buffers.bytes(0) } == padded);
    assert_eq!(transfer.sums[0].crc, crc32fast::hash(&padded));
}

#[test]
fn holes_are_written_as_zeroes_by_the_device_or_by_us() {
    let mut transfer = over_files(1);
    reading(&mut transfer);
    transfer.slots[0].chunk.hole = true;
    // SAFETY: nothing is in flight.
    unsafe { transfer.buffers.bytes(0) }.fill(7);
    assert_eq!(transfer.fill_hole(0), Step::Write);
    assert_eq!(transfer.sums[0].crc, crc32fast::hash(&[0; LEN as usize]));
    transfer.dst.zeroes = true;
    transfer.slots[0].step = transfer.fill_hole(0);
    assert_eq!(transfer.slots[0].step, Step::Zero);
    assert!(!transfer.advance(0, 0).unwrap());
    assert!(matches!(
        transfer.advance(0, -libc::EOPNOTSUPP),
        Err(Fault::Write { offset: 8192, .. })
    ));
}

#[test]
fn a_damaged_copy_is_found() {
    let (src, dst) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    src.write_all_at(&[7; 20_000], 0).unwrap();
    let mut transfer = over_files(3);
    let chunks = (0..5)
        .map(|i| Ok(Chunk { offset: i * 4096, len: if i == 4 { 3616 } else { LEN }, hole: false }));
    let sums = transfer.copy(src.as_raw_fd(), dst.as_raw_fd(), chunks, |_| {}).unwrap();
    transfer.sync(dst.as_raw_fd()).unwrap();
    transfer.verify(dst.as_raw_fd(), &sums, |_| {}).unwrap();
    dst.write_all_at(&[8], 10_000).unwrap();
    let fault = transfer.verify(dst.as_raw_fd(), &sums, |_| {}).unwrap_err();
    assert!(matches!(fault, Fault::Differs { offset: 8192, .. }), "{fault:?}");
    dst.set_len(5000).unwrap();
    let fault = transfer.verify(dst.as_raw_fd(), &sums, |_| {}).unwrap_err();
    assert!(matches!(fault, Fault::Reread { .. } | Fault::Differs { .. }), "{fault:?}");
}
