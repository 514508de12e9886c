//! The two rings, producer and consumer on a thread each.

use crate::place::Arena;
use annulus::config::Config;
use annulus::cqe::Cqe;
use annulus::model::{self, Ring};
use annulus::sqe::Sqe;
use loom::thread;

fn ring(config: Config) -> (Arena, Ring) {
    let arena = Arena::new(config.offsets().total);
    // SAFETY: large enough, aligned, and given back after the threads ended.
    let ring = unsafe { model::ring(&config, arena.base()) };
    (arena, ring)
}

fn sqe(n: u64) -> Sqe {
    Sqe { user_data: n, len: n as u32, ..Sqe::default() }
}

/// One SQE at a time through a ring of two, so that an entry is used again.
fn sq(array: bool) {
    let (arena, Ring { mut sq, mut taker, .. }) =
        ring(Config::new(2).cq_entries(2).index_array(array));
    let producer = thread::spawn(move || {
        for n in 1..=3 {
            // SAFETY: nothing is pointed to.
            while unsafe { sq.queue().push(&sqe(n)) }.is_err() {
                thread::yield_now();
            }
        }
    });
    let mut next = 1;
    while next <= 3 {
        let taken = taker.take_all(|entry| {
            assert_eq!(entry, Some(sqe(next)), "an entry as it was pushed");
            next += 1;
        });
        if taken == 0 {
            thread::yield_now();
        }
    }
    producer.join().unwrap();
    drop(arena);
}

pub fn sq_ring() {
    sq(false);
}

pub fn sq_ring_array() {
    sq(true);
}

/// An application that uses the index array itself: two entries in reverse,
/// then a place that names no entry.
pub fn sq_indices() {
    let (arena, Ring { mut sq, mut taker, .. }) = ring(Config::new(2).cq_entries(2));
    let producer = thread::spawn(move || {
        // SAFETY: nothing is pointed to.
        let push = |queue: &mut annulus::squeue::SubmissionQueue<'_, '_>, n, index| unsafe {
            queue.set_next_index(index);
            queue.push(&sqe(n))
        };
        let mut queue = sq.queue();
        push(&mut queue, 1, 1).unwrap();
        push(&mut queue, 2, 0).unwrap();
        queue.sync();
        // In a full queue the place is still the engine's, which must not see
        // this.
        // SAFETY: as above.
        unsafe { queue.set_next_index(7) };
        while queue.is_full() {
            thread::yield_now();
            queue.sync();
        }
        push(&mut queue, 3, 7).unwrap();
        drop(queue);
        sq
    });
    let mut seen = Vec::new();
    while seen.len() < 3 {
        if taker.take_all(|entry| seen.push(entry.map(|sqe| sqe.user_data))) == 0 {
            thread::yield_now();
        }
    }
    assert_eq!(seen, [Some(2), Some(1), None]);
    let mut sq = producer.join().unwrap();
    assert_eq!(sq.queue().dropped(), 1);
    drop(arena);
}

fn cqe(n: u64) -> Cqe {
    Cqe { user_data: n, res: n as i32, flags: 0 }
}

/// Three CQEs through a ring of two: full, and the head gives room.
pub fn cq_ring() {
    let (arena, Ring { mut writer, mut cq, .. }) = ring(Config::new(2).cq_entries(2));
    let engine = thread::spawn(move || {
        for n in 1..=3 {
            while !writer.post(cqe(n)) {
                thread::yield_now();
            }
        }
    });
    let mut next = 1;
    while next <= 3 {
        let mut any = false;
        for entry in cq.queue() {
            assert_eq!(entry, cqe(next), "an entry as it was posted");
            next += 1;
            any = true;
        }
        if !any {
            thread::yield_now();
        }
    }
    engine.join().unwrap();
    drop(arena);
}
