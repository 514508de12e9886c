//! What touches or counts things of the whole process: one test at a time.

mod common;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

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

#[test]
fn a_waiting_read_occupies_no_worker() {
    let _alone = alone();
    each(4, |ring| {
        for flags in [squeue::Flags::empty(), squeue::Flags::ASYNC] {
            let (from, to) = pipe(0);
            let mut byte = 0u8;
            push(ring, &[opcode::Read::new(fd(&from), &mut byte, 1).build().flags(flags)]);
            ring.submit().unwrap();
            nothing_comes(ring);
            while threads("annulus-poll") == 0 {
                // A thread gets its name when it first runs.
                std::thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(threads("annulus-wrk"), 0);
            put(&to, b"x");
            assert_eq!(reap(ring, 1)[0].result(), 1);
        }
    });
}

#[test]
fn dropping_a_ring_with_waiting_requests_is_prompt_and_clean() {
    let _alone = alone();
    let before = descriptors();
    let begun = Instant::now();
    each(64, |ring| {
        let (from, _to) = pipe(0);
        let mut buffers = [[0u8; 16]; 32];
        let reads: Vec<_> = buffers
            .iter_mut()
            .map(|buffer| opcode::Read::new(fd(&from), buffer.as_mut_ptr(), 16).build())
            .collect();
        push(ring, &reads);
        ring.submit().unwrap();
        nothing_comes(ring);
        // The ring goes before the buffers do.
        *ring = Ring::new(1).unwrap();
    });
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    assert_eq!(descriptors(), before);
    assert_eq!(threads("annulus"), 0);
}

#[test]
fn workers_grow_to_their_limit_and_no_class_means_no_work() {
    let _alone = alone();
    let file = tempfile::tempfile().unwrap();
    let syncs = [opcode::Fsync::new(fd(&file)).build(); 32];
    let mut ring = Ring::builder().max_workers(3, 0).build(32).unwrap();
    assert!(run(&mut ring, &syncs).iter().all(|cqe| cqe.result() == 0));
    let workers = threads("annulus-wrk");
    assert!((1..=3).contains(&workers), "{workers}");
    let mut ring = Ring::builder().max_workers(0, 1).build(32).unwrap();
    assert!(run(&mut ring, &syncs).iter().all(|cqe| cqe.result() == -libc::ECANCELED));
    assert_eq!(one(&mut ring, &opcode::Nop::new().build()), 0);
}

#[test]
fn limits_of_workers_are_read_and_set() {
    let _alone = alone();
    for (name, mut builder) in builders() {
        eprintln!("-- {name}");
        let file = tempfile::tempfile().unwrap();
        let syncs = [opcode::Fsync::new(fd(&file)).build(); 32];
        let mut ring = builder.max_workers(3, 5).build(32).unwrap();
        let set = |ring: &Ring, mut max: [u32; 2]| {
            ring.submitter().register_iowq_max_workers(&mut max).map(|()| max)
        };
        assert_eq!(set(&ring, [0, 0]).unwrap(), [3, 5]);
        assert_eq!(set(&ring, [1, 0]).unwrap(), [3, 5]);
        assert_eq!(set(&ring, [0, 7]).unwrap(), [1, 5]);
        assert_eq!(set(&ring, [0, 0]).unwrap(), [1, 7]);
        for bad in [[1 << 31, 2], [2, 1 << 31]] {
            assert_eq!(set(&ring, bad).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        assert_eq!(set(&ring, [0, 0]).unwrap(), [1, 7], "nothing was set");
        // They hold.
        assert!(run(&mut ring, &syncs).iter().all(|cqe| cqe.result() == 0));
        assert_eq!(threads("annulus-wrk"), 1);
        set(&ring, [4, 0]).unwrap();
        while threads("annulus-wrk") < 2 {
            assert!(run(&mut ring, &syncs).iter().all(|cqe| cqe.result() == 0));
        }
        // Workers beyond a lowered one leave.
        set(&ring, [1, 0]).unwrap();
        for _ in 0..1000 {
            if threads("annulus-wrk") == 1 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(threads("annulus-wrk"), 1);
        assert!(run(&mut ring, &syncs).iter().all(|cqe| cqe.result() == 0));
    }
}

#[test]
fn a_class_without_workers_can_be_given_some() {
    let _alone = alone();
    let file = tempfile::tempfile().unwrap();
    let sync = opcode::Fsync::new(fd(&file)).build();
    let mut ring = Ring::builder().max_workers(0, 1).build(8).unwrap();
    assert_eq!(one(&mut ring, &sync), -libc::ECANCELED);
    let mut max = [2, 0];
    ring.submitter().register_iowq_max_workers(&mut max).unwrap();
    assert_eq!(max, [0, 1]);
    assert_eq!(one(&mut ring, &sync), 0);
}

#[test]
fn idle_workers_leave() {
    let _alone = alone();
    let file = tempfile::tempfile().unwrap();
    let syncs = [opcode::Fsync::new(fd(&file)).build(); 8];
    let mut ring = Ring::new(8).unwrap();
    run(&mut ring, &syncs);
    assert!(threads("annulus-wrk") > 0);
    let begun = Instant::now();
    while threads("annulus-wrk") > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "they stay");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "after five seconds, as in io-wq");
    assert_eq!(one(&mut ring, &syncs[0]), 0);
}
