//! Chains, drains, timeouts and cancellation, on a scripted backend.
//! DESIGN row *links, drain, timeouts, cancel*.

mod common;

use annulus::config::Config;
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::opcode::{self, AsyncCancel, LinkTimeout, Timeout, TimeoutRemove, TimeoutUpdate};
use annulus::squeue::{Entry, Flags};
use annulus::types::{CancelBuilder, TimeoutFlags, Timespec};
use annulus::uapi::*;
use common::*;

const LINK: Flags = Flags::IO_LINK;
const ETIME: i32 = -62;
const ECANCELED: i32 = -125;
const EALREADY: i32 = -114;

fn ring() -> Rig {
    rig(Config::new(16).submit_all(true))
}

fn enter(rig: &mut Rig, count: u32) -> u32 {
    rig.parts.engine.enter(count, 0, EnterFlags::empty(), None).unwrap()
}

/// Submits them all, answers what is there then.
fn run(rig: &mut Rig, entries: &[Entry]) -> Vec<(u64, i32)> {
    rig.push(entries);
    assert_eq!(enter(rig, entries.len() as u32), entries.len() as u32);
    rig.reap()
}

/// The same, but waits until `count` CQEs have come: a time may be over at
/// once, where the machine is slow.
fn run_until(rig: &mut Rig, entries: &[Entry], count: usize) -> Vec<(u64, i32)> {
    let mut seen = run(rig, entries);
    while seen.len() < count {
        rig.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, None).unwrap();
        seen.extend(rig.reap());
    }
    seen
}

fn failing(user_data: u64) -> Entry {
    let mut entry = nop(user_data);
    entry.op_flags = IORING_NOP_INJECT_RESULT;
    entry.len = -5i32 as u32;
    entry
}

fn ms(n: u32) -> Timespec {
    Timespec::new().nsec(n * 1_000_000)
}

#[test]
fn a_chain_starts_one_after_the_other() {
    let mut rig = ring();
    let chain = [read(LATER, 8, 1).flags(LINK), read(LATER, 8, 2).flags(LINK), nop(3), nop(4)];
    assert_eq!(run(&mut rig, &chain), [(4, 0)]);
    assert_eq!(rig.log.lock().unwrap().pending.len(), 1, "the second waits for the first");
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(1, 8)]);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(2, 8), (3, 0)]);
}

#[test]
fn short_reads_and_errors_break_a_soft_chain_only() {
    for (result, hard, rest) in
        [(7, false, ECANCELED), (-5, false, ECANCELED), (7, true, 0), (-5, true, 0), (8, false, 0)]
    {
        let mut rig = ring();
        let flag = if hard { Flags::IO_HARDLINK } else { LINK };
        run(&mut rig, &[read(LATER, 8, 1).flags(flag), nop(2)]);
        rig.complete_first(result);
        enter(&mut rig, 0);
        assert_eq!(rig.reap(), [(1, result), (2, rest)], "{result} {hard}");
    }
}

#[test]
fn what_only_tells_of_its_error_does_not_break_its_chain() {
    for (fd, result, rest) in
        [(LATER, -5, 0), (LATER, ECANCELED, ECANCELED), (AT_ONCE - 1, -9, ECANCELED)]
    {
        let mut rig = ring();
        let sync = opcode::Fsync::new(annulus::types::Fd(fd)).build().user_data(1).flags(LINK);
        let mut there = run(&mut rig, &[sync, nop(2)]);
        if fd == LATER {
            rig.complete_first(result);
            enter(&mut rig, 0);
            there = rig.reap();
        }
        assert_eq!(there, [(1, result), (2, rest)], "{fd} {result}");
    }
}

#[test]
fn a_chain_ends_with_its_submission() {
    let mut rig = ring();
    assert_eq!(run(&mut rig, &[read(LATER, 8, 1).flags(LINK)]), []);
    assert_eq!(run(&mut rig, &[nop(2)]), [(2, 0)]);
}

#[test]
fn a_refused_entry_cancels_its_whole_chain() {
    let mut rig = ring();
    let mut bad = nop(2).flags(LINK);
    bad.ioprio = 1;
    let chain = [nop(1).flags(LINK), bad, nop(3), nop(4)];
    assert_eq!(run(&mut rig, &chain), [(1, ECANCELED), (4, 0), (2, -22), (3, ECANCELED)]);
}

#[test]
fn what_skips_its_cqe_speaks_when_it_fails_and_silences_its_chain() {
    let mut rig = ring();
    let skip = Flags::SKIP_SUCCESS;
    assert_eq!(run(&mut rig, &[nop(1).flags(skip), nop(2)]), [(2, 0)]);
    let chain = [failing(3).flags(skip | LINK), nop(4).flags(LINK), nop(5)];
    assert_eq!(run(&mut rig, &chain), [(3, -5)]);
    let chain = [failing(6).flags(LINK), nop(7).flags(skip)];
    assert_eq!(run(&mut rig, &chain), [(6, -5), (7, ECANCELED)]);
    assert_eq!(run(&mut rig, &[nop(8)]), [(8, 0)], "the records are back");
}

#[test]
fn a_chain_is_taken_whole_or_not_at_all() {
    let mut rig = rig(Config::new(16).requests(4).submit_all(true));
    rig.push(&[read(LATER, 8, 1), read(LATER, 8, 2)]);
    assert_eq!(enter(&mut rig, 2), 2);
    let chain = [nop(3).flags(LINK), nop(4).flags(LINK), nop(5)];
    rig.push(&chain);
    assert_eq!(
        rig.parts.engine.enter(3, 0, EnterFlags::empty(), None).unwrap_err().to_result(),
        -16
    );
    rig.complete_first(8);
    assert_eq!(enter(&mut rig, 3), 3);
    assert_eq!(rig.reap(), [(1, 8), (3, 0), (4, 0), (5, 0)]);
    // One that the pool could never hold.
    let link = |n| nop(n).flags(LINK);
    let chain = [link(6), link(7), link(8), link(9), nop(10), nop(11)];
    rig.push(&chain);
    enter(&mut rig, 6);
    let mut got = rig.reap();
    got.sort_unstable();
    let no = ECANCELED;
    assert_eq!(got, [(6, -12), (7, no), (8, no), (9, no), (10, no), (11, 0)]);
}

#[test]
fn a_chain_that_is_refused_ends_with_its_submission() {
    let mut rig = rig(Config::new(16).requests(1).submit_all(true));
    let link = |n| nop(n).flags(LINK);
    assert_eq!(run(&mut rig, &[link(1), link(2)]), [(1, -12), (2, ECANCELED)]);
    assert_eq!(run(&mut rig, &[nop(3), nop(4)]), [(3, 0), (4, 0)]);
}

#[test]
fn a_drain_waits_for_all_before_and_holds_all_after() {
    let mut rig = ring();
    let drained = read(LATER, 8, 2).flags(Flags::IO_DRAIN);
    assert_eq!(run(&mut rig, &[read(LATER, 8, 1), drained, nop(3)]), []);
    assert_eq!(rig.log.lock().unwrap().pending.len(), 1);
    assert_eq!(run(&mut rig, &[nop(4)]), [], "later submissions wait as well");
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(1, 8)]);
    assert_eq!(rig.log.lock().unwrap().pending.len(), 1, "the drained one runs, alone");
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(2, 8), (3, 0), (4, 0)]);
    assert_eq!(run(&mut rig, &[read(LATER, 8, 5), nop(6)]), [(6, 0)], "nothing drains any more");
}

#[test]
fn a_guard_ends_with_the_batch_that_ends_its_request() {
    let mut rig = ring();
    let hour = Timespec::new().sec(3600);
    let guard = |n| LinkTimeout::new(&hour).build().user_data(n);
    let mut update = TimeoutUpdate::new(9, &hour).build().user_data(3);
    update.op_flags |= IORING_LINK_TIMEOUT_UPDATE;
    let batch = [nop(1).flags(LINK), guard(9), update];
    assert_eq!(run(&mut rig, &batch), [(1, 0), (3, 0), (9, ECANCELED)]);
    assert_eq!(run(&mut rig, &[update]), [(3, -2)]);
}

#[test]
fn a_drain_that_is_refused_holds_what_follows() {
    let mut rig = ring();
    let mut bad = nop(2).flags(Flags::IO_DRAIN);
    bad.ioprio = 1;
    // As long as the batch goes on, what has ended in it is not behind it.
    let batch = [nop(1), bad, read(LATER, 8, 3)];
    assert_eq!(run(&mut rig, &batch), [(1, 0), (2, -22)]);
    assert_eq!(rig.log.lock().unwrap().pending.len(), 1, "it starts behind the batch");
    assert_eq!(run(&mut rig, &[nop(4)]), []);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(3, 8), (4, 0)]);
    assert_eq!(run(&mut rig, &[read(LATER, 8, 5), nop(6)]), [(6, 0)], "nothing drains any more");
}

#[test]
fn what_is_refused_for_its_buffer_has_skipped_nothing() {
    let mut rig = rig(Config::new(16).submit_all(true).provided(4, 1));
    let skip = Flags::SKIP_SUCCESS;
    let refused = nop(1).flags(skip | Flags::BUFFER_SELECT);
    assert_eq!(run(&mut rig, &[refused]), [(1, -95)]);
    assert_eq!(run(&mut rig, &[nop(2).flags(Flags::IO_DRAIN)]), [(2, 0)]);
    let skipped = nop(3).flags(skip);
    assert_eq!(run(&mut rig, &[skipped, nop(4).flags(Flags::IO_DRAIN)]), [(4, -95)]);
}

#[test]
fn a_drain_within_a_chain_drains_the_chain_and_what_follows() {
    let mut rig = ring();
    let chain =
        [read(LATER, 8, 1), nop(2).flags(LINK), read(LATER, 8, 3).flags(Flags::IO_DRAIN), nop(4)];
    assert_eq!(run(&mut rig, &chain), []);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(1, 8), (2, 0)]);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(3, 8), (4, 0)]);
}

#[test]
fn timeouts_end_by_time_or_by_count() {
    let mut rig = ring();
    let (soon, late) = (ms(1), Timespec::new().sec(3600));
    assert_eq!(run_until(&mut rig, &[Timeout::new(&soon).build().user_data(1)], 1), [(1, ETIME)]);
    let two = Timeout::new(&late).count(2).build().user_data(2);
    assert_eq!(run(&mut rig, &[two, nop(3)]), [(3, 0)]);
    assert_eq!(run(&mut rig, &[nop(4)]), [(4, 0), (2, 0)]);
    // The CQEs of its own batch that come before it count as well.
    let one = Timeout::new(&late).count(1).build().user_data(6);
    assert_eq!(run(&mut rig, &[nop(5), one]), [(5, 0), (6, 0)]);
    // Timeouts count for none.
    let one = Timeout::new(&late).count(1).build().user_data(7);
    run(&mut rig, &[one, Timeout::new(&Timespec::new()).build().user_data(8)]);
    assert_eq!(rig.reap(), []);
    assert_eq!(run(&mut rig, &[nop(9)]), [(9, 0), (7, 0)]);
}

#[test]
fn a_timeout_is_removed_and_updated() {
    let mut rig = ring();
    let (soon, late) = (ms(1), Timespec::new().sec(3600));
    run(&mut rig, &[Timeout::new(&late).build().user_data(1)]);
    let gone =
        [TimeoutRemove::new(1).build().user_data(2), TimeoutRemove::new(9).build().user_data(3)];
    assert_eq!(run(&mut rig, &gone), [(2, 0), (3, -2), (1, ECANCELED)]);
    run(&mut rig, &[Timeout::new(&late).count(1).build().user_data(4).flags(Flags::SKIP_SUCCESS)]);
    let update = TimeoutUpdate::new(4, &soon).build().user_data(5);
    assert_eq!(run_until(&mut rig, &[update], 2), [(5, 0), (4, ETIME)], "its count is gone");
}

#[test]
fn a_multishot_timeout_fires_as_often_as_it_should() {
    let mut rig = ring();
    let soon = ms(1);
    let multi = Timeout::new(&soon).count(3).flags(TimeoutFlags::MULTISHOT).build().user_data(1);
    rig.push(&[multi]);
    let mut cqes = Vec::new();
    while cqes.len() < 3 {
        // A timeout that ends ends a wait.
        let count = u32::from(cqes.is_empty());
        rig.parts.engine.enter(count, 3, EnterFlags::GETEVENTS, None).unwrap();
        cqes.extend(rig.parts.cq.queue().map(|cqe| (cqe.result(), cqe.flags())));
    }
    assert_eq!(cqes, [(ETIME, IORING_CQE_F_MORE), (ETIME, IORING_CQE_F_MORE), (ETIME, 0)]);
    // Without room for one more it ends, and its last is kept.
    let for_ever = Timeout::new(&soon).flags(TimeoutFlags::MULTISHOT).build().user_data(2);
    rig.push(&[for_ever]);
    enter(&mut rig, 1);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(100);
    while !rig.parts.sq.queue().cq_overflow() {
        assert!(std::time::Instant::now() < deadline, "it ends when there is no room");
        enter(&mut rig, 0);
    }
    assert_eq!(rig.parts.cq.queue().filter(|cqe| cqe.flags() == 0).count(), 0);
    enter(&mut rig, 0);
    let last: Vec<_> = rig.parts.cq.queue().map(|cqe| (cqe.result(), cqe.flags())).collect();
    assert_eq!(last, [(ETIME, 0)]);
}

#[test]
fn a_guard_ends_with_what_it_guards_or_tries_to_end_it() {
    let mut rig = ring();
    let (soon, late) = (ms(1), Timespec::new().sec(3600));
    // In time.
    let chain = [
        read(LATER, 8, 1).flags(LINK),
        LinkTimeout::new(&late).build().user_data(2).flags(LINK),
        nop(3),
    ];
    run(&mut rig, &chain);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(1, 8), (2, ECANCELED), (3, 0)]);
    // Too late, and under way: it ends by itself.
    let chain = [read(LATER, 8, 4).flags(LINK), LinkTimeout::new(&soon).build().user_data(5)];
    assert_eq!(run_until(&mut rig, &chain, 1), [(5, EALREADY)]);
    rig.complete_first(8);
    enter(&mut rig, 0);
    assert_eq!(rig.reap(), [(4, 8)]);
    // A timeout can be guarded, too, and its chain breaks.
    let chain = [
        Timeout::new(&late).build().user_data(6).flags(LINK),
        LinkTimeout::new(&soon).build().user_data(7).flags(LINK),
        nop(8),
    ];
    let ended = [(7, ETIME), (6, ECANCELED), (8, ECANCELED)];
    assert_eq!(run_until(&mut rig, &chain, 3), ended);
    // Nothing to guard.
    assert_eq!(run(&mut rig, &[LinkTimeout::new(&soon).build().user_data(9)]), [(9, -22)]);
}

#[test]
fn cancellation_finds_what_it_is_told_to() {
    let mut rig = ring();
    let late = Timespec::new().sec(3600);
    let timeout = |user_data| Timeout::new(&late).build().user_data(user_data);
    run(&mut rig, &[timeout(1), timeout(2), timeout(2), read(LATER, 8, 3), read(LATER + 1, 8, 4)]);
    let by = |builder, user_data| opcode::AsyncCancel2::new(builder).build().user_data(user_data);
    assert_eq!(
        run(&mut rig, &[AsyncCancel::new(1).build().user_data(10)]),
        [(10, 0), (1, ECANCELED)]
    );
    assert_eq!(run(&mut rig, &[AsyncCancel::new(1).build().user_data(11)]), [(11, -2)]);
    assert_eq!(run(&mut rig, &[AsyncCancel::new(3).build().user_data(12)]), [(12, EALREADY)]);
    let all = by(CancelBuilder::user_data(2).all(), 13);
    assert_eq!(run(&mut rig, &[all]), [(13, 2), (2, ECANCELED), (2, ECANCELED)]);
    let file = by(CancelBuilder::fd(annulus::types::Fd(LATER + 1)), 14);
    assert_eq!(run(&mut rig, &[file]), [(14, EALREADY)]);
    let other = by(CancelBuilder::fd(annulus::types::Fd(LATER + 2)), 15);
    assert_eq!(run(&mut rig, &[other]), [(15, -2)]);
    run(&mut rig, &[timeout(5)]);
    let op = by(CancelBuilder::op(IORING_OP_TIMEOUT).all(), 16);
    assert_eq!(run(&mut rig, &[op]), [(16, 1), (5, ECANCELED)]);
    run(&mut rig, &[timeout(6), timeout(7)]);
    let any = run(&mut rig, &[by(CancelBuilder::any(), 17)]);
    assert_eq!(any, [(17, 2), (6, ECANCELED), (7, ECANCELED)]);
}

#[test]
fn without_memory_for_them_they_are_refused() {
    let mut rig = rig(Config::new(16).held(false).submit_all(true));
    let late = ms(1);
    let refused = [
        nop(1).flags(LINK),
        nop(2).flags(Flags::IO_DRAIN),
        nop(3).flags(Flags::SKIP_SUCCESS),
        Timeout::new(&late).build().user_data(4),
        nop(5),
    ];
    assert_eq!(run(&mut rig, &refused), [(1, -22), (2, -22), (3, -22), (4, -22), (5, 0)]);
    assert_eq!(rig.parts.engine.features() & IORING_FEAT_CQE_SKIP, 0);
}

#[test]
fn shutting_down_ends_all_that_waits() {
    let mut rig = ring();
    let late = Timespec::new().sec(3600);
    run(
        &mut rig,
        &[
            read(LATER, 8, 1).flags(LINK),
            nop(2),
            Timeout::new(&late).build().user_data(3).flags(LINK),
            nop(4),
            nop(5).flags(Flags::IO_DRAIN),
            nop(6),
        ],
    );
    rig.parts.engine.shutdown();
    assert_eq!(rig.parts.engine.pending(), 0);
    let mut dump = String::new();
    rig.parts.engine.dump(&mut dump).unwrap();
    assert!(dump.contains("requests: 0 of 16 in use"), "{dump}");
}

#[test]
fn shutting_down_ends_a_guard_once() {
    let mut rig = ring();
    let late = Timespec::new().sec(3600);
    let guard = |user_data| LinkTimeout::new(&late).build().user_data(user_data);
    let read = read(LATER, 8, 1).flags(LINK);
    let timeout = Timeout::new(&late).build().user_data(3).flags(LINK);
    run(&mut rig, &[read, guard(2), timeout, guard(4)]);
    rig.parts.engine.shutdown();
    assert_eq!(rig.parts.engine.stats().cqes, 4);
}

#[test]
fn a_long_chain_is_no_recursion() {
    // Under Miri a round takes its time.
    let count: u32 = if cfg!(miri) { 128 } else { 16_384 };
    let mut rig = rig(Config::new(count).requests(count));
    let count = u64::from(count);
    for user_data in 0..count {
        let last = user_data == count - 1;
        rig.push(&[if last { nop(user_data) } else { nop(user_data).flags(LINK) }]);
    }
    assert_eq!(enter(&mut rig, count as u32), count as u32);
    assert!(rig.reap().iter().enumerate().all(|(at, &cqe)| cqe == (at as u64, 0)));
}

#[test]
fn row_fallback_requests_that_only_wait_make_room_when_they_end() {
    let mut rig = rig(Config::new(4).requests(1));
    let soon = Timespec::new().nsec(50_000_000);
    rig.push(&[Timeout::new(&soon).build().user_data(1)]);
    assert_eq!(rig.parts.engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    // The reserved request is not for what waits for ever: the backend has no room
    // for it, and nothing of the backend's is under way.
    rig.log.lock().unwrap().no_room = 1;
    rig.push(&[read(AT_ONCE, 7, 2)]);
    assert_eq!(rig.parts.engine.enter(1, 0, EnterFlags::empty(), None), Err(Errno::EBUSY));
    assert_eq!(rig.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, None), Ok(0));
    assert_eq!(rig.reap(), [(1, Errno::ETIME.to_result())]);
    assert_eq!(rig.parts.engine.enter(1, 1, EnterFlags::GETEVENTS, None), Ok(1));
    assert_eq!(rig.reap(), [(2, 7)]);
}
