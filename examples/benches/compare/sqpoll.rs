//! NOP through submission polling: the application on one CPU, the poller on
//! another.

use crate::cpu;
use crate::pair::{Side, Table, Work};
use annulus_linux as ours;
use criterion::Criterion;
use io_uring as theirs;
use std::hint::{black_box, spin_loop};
use std::thread::sleep;
use std::time::{Duration, Instant};

const BATCH: usize = 32;
/// NOPs in flight at most: the application goes on while the poller works.
const DEPTH: usize = 4 * BATCH;
/// Milliseconds until an idle poller sleeps: long against a round, short
/// against the wait before a turn.
const IDLE: u32 = 1;

/// The same words for Annulus and for the kernel's io_uring: every round
/// pushes a batch and submits it, then reaps until there is room for another.
macro_rules! rounds {
    ($uring:ident, $cpu:expr, $ring:expr) => {{
        let mut ring = $ring;
        let mut work = move |rounds: u64| {
            let mut in_flight = 0;
            for left in (0..rounds).rev() {
                let mut queue = ring.submission();
                for i in 0..BATCH {
                    let entry = $uring::opcode::Nop::new().build().user_data(i as u64);
                    // SAFETY: a NOP points to nothing.
                    unsafe { queue.push(&entry) }.expect("the batch fits");
                }
                drop(queue);
                // Counts what the poller has not taken by now: anything goes.
                ring.submit().expect("a NOP is taken");
                in_flight += BATCH;
                let most = if left == 0 { 0 } else { DEPTH - BATCH };
                let mut sum = 0;
                while in_flight > most {
                    let before = in_flight;
                    for cqe in ring.completion() {
                        assert!(cqe.result() == 0);
                        sum += cqe.user_data();
                        in_flight -= 1;
                    }
                    if in_flight == before {
                        spin_loop();
                    }
                }
                black_box(sum);
            }
        };
        move |rounds: u64| -> Duration {
            cpu::on($cpu, || {
                // The other side's poller goes to sleep, and ours wakes up.
                sleep(Duration::from_millis(2 * u64::from(IDLE)));
                work(1);
                let start = Instant::now();
                work(rounds);
                start.elapsed()
            })
        }
    }};
}

pub fn compare(criterion: &mut Criterion, table: &mut Table) {
    let Some((application, poller)) = cpu::two() else {
        eprintln!("NOP through SQPOLL: left out, it takes two CPUs");
        return;
    };
    let ours_ring = ours::Ring::builder()
        .setup_sqpoll(IDLE)
        .setup_sqpoll_cpu(poller)
        .build(2 * DEPTH as u32)
        .expect("a small ring");
    let theirs_ring: theirs::IoUring = theirs::IoUring::builder()
        .setup_sqpoll(IDLE)
        .setup_sqpoll_cpu(poller)
        .build(2 * DEPTH as u32)
        .expect("this kernel has io_uring");
    table.compare(
        criterion,
        Work {
            name: "NOP through SQPOLL, batch 32",
            ops: BATCH as u64,
            target: 5.0,
            ours: vec![Side::new("annulus", rounds!(ours, application, ours_ring))],
            theirs: vec![Side::new("kernel", rounds!(theirs, application, theirs_ring))],
        },
    );
}
