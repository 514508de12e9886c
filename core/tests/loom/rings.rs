//! The two rings, producer and consumer on a thread each.

use annulus::config::Config;
use annulus::cqe::Cqe;
use annulus::model;
use annulus::model::Arena;
use annulus::ring::{LaneEnd, SqHalf, SubmissionQueue, lane};
use annulus::sqe::Sqe;
use loom::thread;

const TWO: Config = Config::new(2).cq_entries(2);

fn sq_of(config: Config) -> (Arena, SqHalf<'static>, LaneEnd<'static>) {
    let arena = Arena::new(config.offsets().total);
    // SAFETY: given back when every thread has ended.
    let (sq, end) = lane(&config, unsafe { arena.memory() }).unwrap();
    (arena, sq, end)
}

fn sqe(n: u64) -> Sqe {
    Sqe { user_data: n, len: n as u32, ..Sqe::default() }
}

/// One SQE at a time through a queue of two, so that an entry is used again.
fn sq(array: bool) {
    let (arena, mut sq, mut end) = sq_of(TWO.index_array(array));
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
        if end.is_empty() {
            thread::yield_now();
            continue;
        }
        for entry in end.take() {
            assert_eq!(entry, sqe(next), "an entry as it was pushed");
            next += 1;
        }
    }
    producer.join().unwrap();
    drop(arena);
}

/// Without an index array.
pub fn sq_ring() {
    sq(false);
}

/// With an index array that nobody touches.
pub fn sq_ring_array() {
    sq(true);
}

/// An application that uses the index array itself: two entries in reverse,
/// then a place that names no entry.
pub fn sq_indices() {
    let (arena, mut sq, mut end) = sq_of(TWO);
    let producer = thread::spawn(move || {
        // SAFETY: nothing is pointed to.
        let push = |queue: &mut SubmissionQueue<'_, '_>, n, index| unsafe {
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
        queue.sync();
        while queue.dropped() == 0 {
            thread::yield_now();
        }
    });
    let mut seen = Vec::new();
    let mut taken = 0;
    while taken < 3 {
        if end.is_empty() {
            thread::yield_now();
            continue;
        }
        taken += end.len();
        seen.extend(end.take().map(|sqe| sqe.user_data));
    }
    assert_eq!(seen, [2, 1]);
    producer.join().unwrap();
    drop(arena);
}

fn cqe(n: u64) -> Cqe {
    Cqe { user_data: n, res: n as i32, flags: 0 }
}

/// Three CQEs through a queue of two: full, and the head gives room.
pub fn cq_ring() {
    let arena = Arena::new(TWO.offsets().total);
    // SAFETY: large enough, aligned, and given back after the threads ended.
    let (mut writer, mut cq) = unsafe { model::cq(&TWO, arena.base()) };
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
