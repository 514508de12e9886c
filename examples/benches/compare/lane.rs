//! The SQ lane alone, from one thread to another, beside `rtrb` with elements
//! of the same size: entries go in at one end and are looked at, once, at the
//! other.

use crate::cpu;
use crate::pair::{Side, Table, Work};
use crate::support::{memory, nop};
use annulus::config::Config;
use annulus::ring::{LaneEnd, SqHalf, lane};
use annulus::squeue::Entry;
use criterion::Criterion;
use rtrb::chunks::ChunkError;
use rtrb::{Consumer, Producer, RingBuffer};
use std::hint::{black_box, spin_loop};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

/// Places in either lane.
const PLACES: usize = 256;
const BATCH: usize = 32;

/// Runs both ends, each on its CPU, and says how long it took until the last
/// entry had come out.
fn both_ends(
    cpus: (u32, u32),
    entries: u64,
    push: impl FnOnce(),
    take: impl FnOnce() -> u64 + Send,
) -> Duration {
    let together = Barrier::new(2);
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            cpu::on(cpus.1, || {
                together.wait();
                (take(), Instant::now())
            })
        });
        cpu::on(cpus.0, || {
            together.wait();
            let start = Instant::now();
            push();
            let (taken, end) = other.join().expect("the other end takes everything");
            assert_eq!(taken, entries, "every entry comes out once");
            end.duration_since(start)
        })
    })
}

/// Pushes `entries` in batches of `batch`, each published at once.
fn push(sq: &mut SqHalf<'static>, entries: u64, batch: usize) {
    for _ in 0..entries / batch as u64 {
        let mut queue = sq.queue();
        while queue.capacity() - queue.len() < batch {
            queue.sync();
            spin_loop();
        }
        for i in 0..batch {
            // SAFETY: nobody looks behind a NOP.
            unsafe { queue.push(&nop(i as u64)) }.expect("there is room");
        }
    }
}

/// Takes what is there, again and again, no more than [`BATCH`] before the
/// places are given back.
fn take(end: &mut LaneEnd<'static>, entries: u64) -> u64 {
    let mut taken = 0;
    while taken != entries {
        let before = taken;
        for entry in end.take().take(BATCH) {
            black_box(&entry);
            taken += 1;
        }
        if taken == before {
            spin_loop();
        }
    }
    taken
}

/// [`push`] for `rtrb`.
fn push_chunks(producer: &mut Producer<Entry>, entries: u64) {
    for _ in 0..entries / BATCH as u64 {
        loop {
            match producer.write_chunk_uninit(BATCH) {
                Ok(chunk) => {
                    chunk.fill_from_iter((0..BATCH as u64).map(nop));
                    break;
                }
                Err(ChunkError::TooFewSlots(_)) => spin_loop(),
            }
        }
    }
}

/// [`take`] for `rtrb`.
fn take_chunks(consumer: &mut Consumer<Entry>, entries: u64) -> u64 {
    let mut taken = 0;
    while taken != entries {
        let there = consumer.slots().min(BATCH);
        if there == 0 {
            spin_loop();
            continue;
        }
        for entry in consumer.read_chunk(there).expect("they are there") {
            black_box(&entry);
            taken += 1;
        }
    }
    taken
}

fn push_each(producer: &mut Producer<Entry>, entries: u64) {
    for i in 0..entries {
        while producer.push(nop(i)).is_err() {
            spin_loop();
        }
    }
}

fn take_each(consumer: &mut Consumer<Entry>, entries: u64) -> u64 {
    let mut taken = 0;
    while taken != entries {
        match consumer.pop() {
            Ok(entry) => {
                black_box(&entry);
                taken += 1;
            }
            Err(_) => spin_loop(),
        }
    }
    taken
}

fn ours(cpus: (u32, u32), batch: usize) -> Side<'static> {
    let config = Config::new(PLACES as u32);
    let (mut sq, mut end) =
        lane(&config, memory(config.offsets().total)).expect("a lane of a power of two");
    Side::new("annulus", move |rounds| {
        let entries = rounds * BATCH as u64;
        both_ends(cpus, entries, || push(&mut sq, entries, batch), || take(&mut end, entries))
    })
}

fn theirs(
    cpus: (u32, u32),
    name: &'static str,
    push: fn(&mut Producer<Entry>, u64),
    take: fn(&mut Consumer<Entry>, u64) -> u64,
) -> Side<'static> {
    let (mut producer, mut consumer) = RingBuffer::new(PLACES);
    Side::new(name, move |rounds| {
        let entries = rounds * BATCH as u64;
        both_ends(cpus, entries, || push(&mut producer, entries), || take(&mut consumer, entries))
    })
}

pub fn compare(criterion: &mut Criterion, table: &mut Table) {
    let Some(cpus) = cpu::two() else {
        eprintln!("SQ lane: left out, it takes two CPUs");
        return;
    };
    table.compare(
        criterion,
        Work {
            name: "SQ lane, batch 32",
            ops: BATCH as u64,
            target: 1.0,
            ours: vec![ours(cpus, BATCH)],
            theirs: vec![theirs(cpus, "rtrb, chunks", push_chunks, take_chunks)],
        },
    );
    table.compare(
        criterion,
        Work {
            name: "SQ lane, one at a time",
            ops: BATCH as u64,
            target: 1.0,
            ours: vec![ours(cpus, 1)],
            theirs: vec![
                theirs(cpus, "rtrb, push and pop", push_each, take_each),
                theirs(cpus, "rtrb, push, chunks out", push_each, take_chunks),
            ],
        },
    );
}
