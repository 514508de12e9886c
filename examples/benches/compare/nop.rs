//! NOP, submit to reap, one thread.

use crate::pair::{Side, Table, Work};
use crate::support::{Ends, nop_round, null_ring};
use annulus_linux as ours;
use criterion::Criterion;
use io_uring as theirs;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// The same words for Annulus and for the kernel's io_uring.
macro_rules! rounds {
    ($uring:ident, $batch:ident, $ring:expr) => {{
        let mut ring = $ring;
        move |rounds: u64| -> Duration {
            let start = Instant::now();
            for _ in 0..rounds {
                let mut queue = ring.submission();
                for i in 0..$batch {
                    let entry = $uring::opcode::Nop::new().build().user_data(i as u64);
                    // SAFETY: a NOP points to nothing.
                    unsafe { queue.push(&entry) }.expect("the batch fits");
                }
                drop(queue);
                let taken = ring.submit_and_wait($batch).expect("a NOP is taken");
                assert!(taken == $batch);
                let mut sum = 0;
                let mut queue = ring.completion();
                for _ in 0..$batch {
                    let cqe = queue.next().expect("waited for it");
                    assert!(cqe.result() == 0);
                    sum += cqe.user_data();
                }
                black_box(sum);
            }
            start.elapsed()
        }
    }};
}

fn engine<const BATCH: usize>() -> impl FnMut(u64) -> Duration {
    let mut ring = null_ring(64, Ends::AtOnce);
    move |rounds| {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(nop_round::<BATCH>(&mut ring));
        }
        start.elapsed()
    }
}

fn work<const BATCH: usize>(name: &'static str, target: f64) -> Work<'static> {
    let tuned: std::io::Result<theirs::IoUring> = theirs::IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_no_sqarray()
        .build(64);
    let mut opponents = vec![Side::new(
        "kernel",
        rounds!(theirs, BATCH, theirs::IoUring::new(64).expect("this kernel has io_uring")),
    )];
    // Linux 6.1 and 6.6 brought these flags; without them there is no such side.
    if let Ok(tuned) = tuned {
        opponents.push(Side::new("kernel, tuned", rounds!(theirs, BATCH, tuned)));
    }
    Work {
        name,
        ops: BATCH as u64,
        target,
        ours: vec![
            Side::new("annulus", rounds!(ours, BATCH, ours::Ring::new(64).expect("a small ring"))),
            Side::new("annulus, core alone", engine::<BATCH>()),
        ],
        theirs: opponents,
    }
}

pub fn compare(criterion: &mut Criterion, table: &mut Table) {
    table.compare(criterion, work::<32>("NOP, batch 32", 10.0));
    table.compare(criterion, work::<1>("NOP, batch 1", 40.0));
}
