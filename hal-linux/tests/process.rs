//! What touches or counts things of the whole process: one test at a time.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};

use annulus_linux::{Ring, opcode, squeue};
use common::*;

static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 % 251) as u8).collect()
}

fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn many_writes_of_one_batch_share_one_duplicate() {
    let _alone = alone();
    each(64, |ring| {
        let file = tempfile::tempfile().unwrap();
        let blocks: Vec<_> = (0..64u8).map(|i| vec![i; 4096]).collect();
        let writes: Vec<_> = (0..64)
            .map(|i| {
                opcode::Write::new(fd(&file), blocks[i].as_ptr(), 4096)
                    .offset(i as u64 * 4096)
                    .build()
                    .user_data(i as u64)
            })
            .collect();
        let before = descriptors();
        let cqes = run(ring, &writes);
        assert!(cqes.iter().all(|cqe| cqe.result() == 4096));
        assert_eq!(content(&file), blocks.concat());
        // Whoever sees the completions may count on the file being let go.
        // (The polling thread gives the batch's own reference back after it
        // has shown the SQEs as taken, so give it a moment.)
        for _ in 0..100 {
            if descriptors() == before {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{before:?} became {:?}", descriptors());
    });
}

#[test]
fn nowait_never_waits() {
    let _alone = alone();
    let mut ring = Ring::new(4).unwrap();
    let file = tempfile::tempfile().unwrap();
    let bytes = pattern(4096);
    let write =
        opcode::Write::new(fd(&file), bytes.as_ptr(), 4096).rw_flags(libc::RWF_NOWAIT).build();
    // Done at once where the file system can, EAGAIN where it cannot.
    let n = one(&mut ring, &write);
    assert!(n == 4096 || n == -libc::EAGAIN || n == -libc::EOPNOTSUPP, "{n}");
    assert_eq!(threads("annulus-wrk"), 0);
}

#[test]
fn without_spare_descriptors_storage_still_works() {
    let _alone = alone();
    let mut ring = Ring::new(8).unwrap();
    let file = tempfile::tempfile().unwrap();
    let bytes = pattern(100);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: room for one.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
    let low = libc::rlimit { rlim_cur: 0, ..limit };
    // SAFETY: reads one.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &low) }, 0);
    let write = opcode::Write::new(fd(&file), bytes.as_ptr(), 100).build();
    let results = [
        one(&mut ring, &write),
        one(&mut ring, &opcode::Fsync::new(fd(&file)).build()),
        one(&mut ring, &write.flags(squeue::Flags::ASYNC)),
    ];
    // SAFETY: reads one.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    assert_eq!(results, [100, 0, 100]);
    let mut back = Vec::new();
    (&file).read_to_end(&mut back).unwrap();
    assert_eq!(back, bytes);
}
