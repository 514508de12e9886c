//! Row *timeouts*: by each clock, on this machine's io_uring and on Annulus.

mod both;

use std::time::Duration;

use annulus_linux::{opcode, squeue, types};
use both::{Ring, Seen, same};
use rustix::time::{ClockId, clock_gettime};
use types::TimeoutFlags as Flags;

const CLOCKS: [(Flags, ClockId); 3] = [
    (Flags::empty(), ClockId::Monotonic),
    (Flags::REALTIME, ClockId::Realtime),
    (Flags::BOOTTIME, ClockId::Boottime),
];

/// A time of a clock, so many milliseconds from now.
fn after(clock: ClockId, ms: i64) -> types::Timespec {
    let now = clock_gettime(clock);
    let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32);
    let time = if ms < 0 { now - Duration::from_millis(-ms as u64) } else { now + span(ms as u64) };
    time.into()
}

fn span(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn timeout(time: &types::Timespec, flags: Flags) -> squeue::Entry {
    opcode::Timeout::new(time).flags(flags).build().user_data(1)
}

/// Runs entries, and waits until so many completions have come.
fn all_of(ring: &mut dyn Ring, entries: &[squeue::Entry], count: usize) -> Vec<Seen> {
    ring.start(entries, 0);
    let mut seen = ring.reap();
    while seen.len() < count {
        seen.extend(ring.run(&[], 1));
    }
    seen.sort_unstable();
    seen
}

#[test]
fn spans_and_points_in_time_end() {
    same(|ring| {
        let mut all = Vec::new();
        for (flags, clock) in CLOCKS {
            for ms in [30, 0, -1000] {
                let time = after(clock, ms);
                all.push(all_of(ring, &[timeout(&time, flags | Flags::ABS)], 1));
            }
            let time = types::Timespec::from(span(30));
            all.push(all_of(ring, &[timeout(&time, flags)], 1));
            let multi = opcode::Timeout::new(&time).count(3).flags(flags | Flags::MULTISHOT);
            all.push(all_of(ring, &[multi.build()], 3));
        }
        all
    });
}

#[test]
fn one_clock_and_no_repeated_point_in_time() {
    same(|ring| {
        let time = types::Timespec::from(span(1));
        let mut all = Vec::new();
        for flags in [
            Flags::REALTIME | Flags::BOOTTIME,
            Flags::REALTIME | Flags::BOOTTIME | Flags::ABS,
            Flags::ABS | Flags::MULTISHOT,
            Flags::ABS | Flags::MULTISHOT | Flags::BOOTTIME,
        ] {
            all.push(all_of(ring, &[timeout(&time, flags)], 1));
            let guard = opcode::LinkTimeout::new(&time).flags(flags).build().user_data(2);
            let nop = opcode::Nop::new().build().flags(squeue::Flags::IO_LINK);
            all.push(all_of(ring, &[nop, guard], 2));
        }
        all
    });
}

#[test]
fn guards_end_by_each_clock() {
    same(|ring| {
        let late = types::Timespec::from(span(3_600_000));
        let mut all = Vec::new();
        for (flags, clock) in CLOCKS {
            let guarded = timeout(&late, Flags::empty()).flags(squeue::Flags::IO_LINK);
            let (time, soon) = (after(clock, 30), types::Timespec::from(span(30)));
            let guard = opcode::LinkTimeout::new(&time).flags(flags | Flags::ABS).build();
            all.push(all_of(ring, &[guarded, guard.user_data(2)], 2));
            let guard = opcode::LinkTimeout::new(&soon).flags(flags).build();
            all.push(all_of(ring, &[guarded, guard.user_data(2)], 2));
        }
        all
    });
}

#[test]
fn an_update_keeps_the_clock() {
    same(|ring| {
        let late = types::Timespec::from(span(3_600_000));
        let mut all = Vec::new();
        for (flags, clock) in CLOCKS {
            ring.start(&[timeout(&late, flags)], 0);
            // It has no clock of its own.
            for with in [Flags::REALTIME, Flags::BOOTTIME] {
                let update = opcode::TimeoutUpdate::new(1, &late).flags(with | Flags::ABS).build();
                all.push(all_of(ring, &[update.user_data(3)], 1));
            }
            let time = after(clock, 30);
            let update = opcode::TimeoutUpdate::new(1, &time).flags(Flags::ABS).build();
            all.push(all_of(ring, &[update.user_data(4)], 2));
        }
        all
    });
}
