//! Whole passes of the engines over real files.

use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::*;
use crate::cli::{Cli, Command, Rw};
use clap::Parser;

fn plan(options: &str) -> Plan {
    let words = ["annulus", "bench"].into_iter().chain(options.split_whitespace());
    let Some(Command::Bench(args)) = Cli::parse_from(words).command else { unreachable!() };
    Plan::new(&args).unwrap()
}

/// Fills, runs, damages one block behind the engines' backs, and reads back through each engine.
#[test]
fn every_engine_finds_a_corrupted_block() {
    let plan = plan("--compare --verify --rw randrw --depth 8 --batch 4 --registered");
    let file = tempfile::tempfile().unwrap();
    let mut work = Work::new(file.as_raw_fd(), Rw::RandomMix, 4096, 64, plan.depth, true);
    let mut lanes = lanes(&plan, Some(&work), None).unwrap();
    assert!(lanes.len() >= 2);
    whole_file(&mut lanes[0], &mut work, Pass::Fill).unwrap();
    for lane in &mut lanes {
        round(lane, Some(&mut work), Pass::Timed, 1, Some(Duration::from_millis(20))).unwrap();
        whole_file(lane, &mut work, Pass::ReadBack).unwrap();
        assert_eq!((lane.errors, lane.first_error.as_deref()), (0, None), "{}", lane.engine.name());
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5 * 4096 + 1000).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 5 * 4096 + 1000).unwrap();
    for lane in &mut lanes {
        whole_file(lane, &mut work, Pass::ReadBack).unwrap();
        let first = lane.first_error.as_deref().unwrap();
        assert_eq!(lane.errors, 1, "{}", lane.engine.name());
        assert!(first.starts_with("--verify: offset 20480: expected generation"), "{first}");
        assert!(first.contains("damaged bytes"), "{first}");
    }
    assert!(matches!(verdict(&lanes, None), Err(Failure::Io(_))));
}

/// A file that ends before its size says: short reads are errors, not silence.
#[test]
fn every_engine_reports_a_short_read() {
    let plan = plan("--compare --depth 4");
    let file = tempfile::tempfile().unwrap();
    file.set_len(10_000).unwrap();
    let mut work = Work::new(file.as_raw_fd(), Rw::Read, 4096, 4, plan.depth, false);
    let mut lanes = lanes(&plan, Some(&work), None).unwrap();
    for lane in &mut lanes {
        whole_file(lane, &mut work, Pass::ReadBack).unwrap();
        assert_eq!(lane.errors, 2, "{}", lane.engine.name());
        let first = lane.first_error.as_deref().unwrap();
        assert_eq!(first, "read of 4096 bytes at offset 8192: only 1808 bytes were moved");
    }
}

/// The three engines count what they do.
#[test]
fn every_engine_runs_operations_that_do_nothing() {
    let plan = plan("--compare --nop --depth 7 --batch 3");
    let mut lanes = lanes(&plan, None, None).unwrap();
    for lane in &mut lanes {
        let ops = round(lane, None, Pass::Timed, 1, Some(Duration::from_millis(5))).unwrap();
        lane.note_round(ops);
        assert!(ops > 0 && lane.errors == 0 && lane.iops() > 0.0, "{}", lane.engine.name());
    }
}
