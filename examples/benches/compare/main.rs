//! Annulus beside what it is measured against, in one run: criterion's
//! figures for each, then the ratios, from short turns that alternate.
//!
//! `cargo bench --bench compare`, or with a part of a name behind it
//! (`-- nop`). What is measured, and how, is told in docs/performance.md.

mod cpu;
mod lane;
mod nop;
mod pair;
mod read;
mod sqpoll;
// What is shared with the other benchmark is not all used here.
#[allow(dead_code)]
#[path = "../support/mod.rs"]
mod support;

use criterion::Criterion;
use pair::Table;
use std::time::Duration;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .nresamples(10_000)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let mut table = Table::default();
    nop::compare(&mut criterion, &mut table);
    sqpoll::compare(&mut criterion, &mut table);
    lane::compare(&mut criterion, &mut table);
    read::compare(&mut criterion, &mut table);
    criterion.final_summary();
    table.print();
}
