//! Rows *cancel* and *workers*: requests that wait for a worker, or for their
//! turn at their file, end when they are cancelled, and hold up nobody.

mod common;

use std::fs::File;
use std::os::unix::fs::FileExt;

use annulus_linux::{opcode, squeue};
use common::*;

const CANCEL: u64 = 100;

/// A byte at its own place, straight by a worker.
fn write(file: &File, byte: &u8) -> squeue::Entry {
    let entry = opcode::Write::new(fd(file), byte, 1).offset((*byte).into()).build();
    entry.flags(squeue::Flags::ASYNC).user_data((*byte).into())
}

fn cancel(user_data: u64) -> squeue::Entry {
    opcode::AsyncCancel::new(user_data).build().user_data(CANCEL + user_data)
}

/// The results, by user data.
fn results(ring: &mut annulus_linux::Ring, entries: &[squeue::Entry]) -> Vec<(u64, i32)> {
    push(ring, entries);
    ring.submit().unwrap();
    let mut results: Vec<_> =
        reap(ring, entries.len()).iter().map(|cqe| (cqe.user_data(), cqe.result())).collect();
    results.sort_unstable();
    results
}

/// What of places 0 to 5 has been written.
fn written(file: &File) -> [u8; 6] {
    let mut bytes = [0; 6];
    file.set_len(6).unwrap();
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

const BYTES: [u8; 6] = [0, 1, 2, 3, 4, 5];

#[test]
fn what_is_queued_in_a_batch_can_be_cancelled_by_it() {
    // Driven inline: no worker is called before the batch has been taken. A ring
    // for each, as a worker that is there from the batch before may still look.
    let ring = || annulus_linux::Ring::new(32).unwrap();
    let gone = -libc::ECANCELED;
    for (which, left) in [(1, [0, 0, 2, 3, 0, 0]), (2, [0, 1, 0, 3, 0, 0])] {
        let file = tempfile::tempfile().unwrap();
        let mut entries: Vec<_> = BYTES[1..4].iter().map(|byte| write(&file, byte)).collect();
        entries.push(cancel(which));
        let mut expected: Vec<_> =
            (1..4).map(|byte| (byte, if byte == which { gone } else { 1 })).collect();
        expected.push((CANCEL + which, 0));
        assert_eq!(results(&mut ring(), &entries), expected);
        assert_eq!(written(&file), left);
    }
    let mut ring = ring();
    // All of them. The first last: whoever has its turn after it may begin.
    let file = tempfile::tempfile().unwrap();
    let mut entries: Vec<_> = BYTES[1..4].iter().map(|byte| write(&file, byte)).collect();
    entries.extend([3, 2, 1].map(cancel));
    let expected: Vec<_> =
        (1..4).map(|n| (n, gone)).chain((1..4).map(|n| (CANCEL + n, 0))).collect();
    assert_eq!(results(&mut ring, &entries), expected);
    assert_eq!(written(&file), [0; 6]);
    // Nothing of it is left behind.
    assert_eq!(results(&mut ring, &[write(&file, &BYTES[5])]), [(5, 1)]);
}

#[test]
fn cancelled_or_carried_out_whoever_is_faster() {
    each(64, |ring| {
        let mut counts = [0; 3];
        for round in 0..200 {
            let file = tempfile::tempfile().unwrap();
            let mut entries: Vec<_> = BYTES[1..].iter().map(|byte| write(&file, byte)).collect();
            if round % 2 == 0 {
                push(ring, &entries);
                ring.submit().unwrap();
                entries.clear();
            }
            entries.extend([3, 1, 5, 2, 4].map(cancel));
            push(ring, &entries);
            ring.submit().unwrap();
            let mut results = [0; 2 * CANCEL as usize];
            for cqe in reap(ring, 10) {
                results[cqe.user_data() as usize] = cqe.result();
            }
            let bytes = written(&file);
            for n in 1..6 {
                let (result, answer) = (results[n], results[CANCEL as usize + n]);
                let whole = result == 1 && bytes[n] == n as u8;
                let (what, good) = match -answer {
                    0 => (0, result == -libc::ECANCELED && bytes[n] == 0),
                    libc::EALREADY => (1, whole),
                    libc::ENOENT => (2, whole),
                    e => panic!("cancel answered {e}"),
                };
                assert!(good, "{n}: {result}, cancel {answer}, {bytes:?}");
                counts[what] += 1;
            }
        }
        eprintln!("cancelled, begun, gone: {counts:?}");
    });
}
