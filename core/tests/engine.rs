//! The engine, driven inline, row by row of the contract (DESIGN section 2).
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Policy};
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::opcode::{Fsync, Nop, ReadFixed};
use annulus::register::Call;
use annulus::types::{Fd, Fixed, FsyncFlags, Iovec};
use annulus::uapi;
use common::*;

const NONE: EnterFlags = EnterFlags::empty();

fn submit(rig: &mut Rig) -> Result<u32, Errno> {
    let ready = rig.parts.sq.ready();
    rig.parts.engine.enter(ready, 0, NONE, None)
}

// -- rows rings, enter ----------------------------------------------------

#[test]
fn row_rings_nops_go_round_many_times() {
    for array in [true, false] {
        let mut rig = rig(Config::new(4).index_array(array));
        for round in 0..10u64 {
            rig.push(&[nop(round), nop(round + 100), nop(round + 200)]);
            assert_eq!(submit(&mut rig), Ok(3));
            assert_eq!(rig.reap(), [(round, 0), (round + 100, 0), (round + 200, 0)]);
        }
        assert_eq!(rig.parts.engine.stats().sqes, 30);
        assert_eq!(rig.parts.engine.stats().cqes, 30);
    }
}

#[test]
fn row_rings_a_full_queue_says_so_and_keeps_what_is_in_it() {
    let mut rig = rig(Config::new(2));
    {
        let mut queue = rig.parts.sq.queue();
        // SAFETY: NOPs point to nothing.
        unsafe {
            queue.push_multiple(&[nop(1), nop(2)]).unwrap();
            assert!(queue.push(&nop(3)).is_err());
            assert!(queue.push_multiple(&[nop(3)]).is_err());
        }
        assert!(queue.is_full());
    }
    assert_eq!(submit(&mut rig), Ok(2));
    assert_eq!(rig.reap(), [(1, 0), (2, 0)]);
}

#[test]
fn row_rings_a_bad_index_counts_as_dropped_and_harms_nothing() {
    let mut rig = rig(Config::new(4));
    {
        let mut queue = rig.parts.sq.queue();
        // SAFETY: NOPs point to nothing.
        unsafe {
            queue.push(&nop(1)).unwrap();
            queue.set_next_index(77);
            queue.push(&nop(2)).unwrap();
            queue.push(&nop(3)).unwrap();
        }
    }
    assert_eq!(submit(&mut rig), Ok(1), "the batch ends at the bad place");
    assert_eq!(rig.parts.sq.queue().dropped(), 1);
    assert_eq!(submit(&mut rig), Ok(1), "and goes on behind it");
    assert_eq!(rig.reap(), [(1, 0), (3, 0)]);
}

#[test]
fn row_rings_an_array_may_name_entries_in_any_order() {
    let mut rig = rig(Config::new(4));
    {
        let mut queue = rig.parts.sq.queue();
        // SAFETY: NOPs point to nothing.
        unsafe {
            for (i, index) in [2, 1, 0].into_iter().enumerate() {
                queue.set_next_index(index);
                queue.push(&nop(i as u64)).unwrap();
            }
        }
    }
    assert_eq!(submit(&mut rig), Ok(3));
    assert_eq!(rig.reap(), [(2, 0), (1, 0), (0, 0)]);
}

#[test]
fn row_enter_a_batch_stops_after_a_failing_sqe_unless_submit_all() {
    let mut bad = nop(2);
    bad.ioprio = 1;
    let mut plain = rig(Config::new(4));
    plain.push(&[nop(1), bad, nop(3)]);
    assert_eq!(submit(&mut plain), Ok(2), "the failing one is counted");
    assert_eq!(plain.reap(), [(1, 0), (2, -22)]);
    assert_eq!(submit(&mut plain), Ok(1));
    assert_eq!(plain.reap(), [(3, 0)]);

    let mut all = rig(Config::new(4).submit_all(true));
    all.push(&[nop(1), bad, nop(3)]);
    assert_eq!(submit(&mut all), Ok(3));
    assert_eq!(all.reap(), [(1, 0), (2, -22), (3, 0)]);
}

#[test]
fn row_enter_counts_are_of_what_was_there() {
    let mut rig = rig(Config::new(4));
    rig.push(&[nop(1), nop(2)]);
    assert_eq!(rig.parts.engine.enter(1, 0, NONE, None), Ok(1));
    assert_eq!(rig.parts.engine.enter(9, 0, NONE, None), Ok(1));
    assert_eq!(rig.parts.engine.enter(9, 0, NONE, None), Ok(0));
    // Fewer than asked for: no wait, though nothing has come.
    assert_eq!(rig.parts.engine.enter(9, 5, EnterFlags::GETEVENTS, None), Ok(0));
    assert_eq!(EnterFlags::checked(1 << 30), Err(Errno::EINVAL));
}

#[test]
fn row_enter_waits_end_by_completion_and_by_deadline() {
    let mut rig = rig(Config::new(4));
    let soon = annulus::hal::Clock::now(&Place(rig.host.clone())) + 20_000_000;
    let waited = rig.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, Some(soon));
    assert_eq!(waited, Err(Errno::ETIME));

    rig.push(&[read(LATER, 7, 1)]);
    let completer = rig.completer;
    let log = rig.log.clone();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            loop {
                if let Some((token, _)) = log.lock().unwrap().pending.pop() {
                    completer.complete(token, 7).unwrap();
                    break;
                }
                std::thread::yield_now();
            }
        });
        assert_eq!(rig.parts.engine.enter(1, 1, EnterFlags::GETEVENTS, None), Ok(1));
    });
    assert_eq!(rig.reap(), [(1, 7)]);
}

// -- row ops --------------------------------------------------------------

#[test]
fn row_ops_what_is_not_built_is_einval() {
    let mut rig = rig(Config::new(4).submit_all(true));
    let mut poll = nop(1);
    poll.opcode = uapi::IORING_OP_POLL_ADD;
    let mut beyond = nop(2);
    beyond.opcode = 255;
    // The backend of this test does not write.
    let mut write = read(AT_ONCE, 1, 3);
    write.opcode = uapi::IORING_OP_WRITE;
    rig.push(&[poll, beyond, write]);
    assert_eq!(submit(&mut rig), Ok(3));
    assert_eq!(rig.reap(), [(1, -22), (2, -22), (3, -22)]);

    let mut probe = annulus::probe::Probe::new();
    // SAFETY: no buffer is registered by it.
    unsafe { rig.parts.engine.call(Call::Probe(&mut probe)) }.unwrap();
    for opcode in 0..=255 {
        let built = [
            uapi::IORING_OP_NOP,
            uapi::IORING_OP_READ,
            uapi::IORING_OP_READV,
            uapi::IORING_OP_READ_FIXED,
            uapi::IORING_OP_FSYNC,
            uapi::IORING_OP_OPENAT,
            uapi::IORING_OP_CLOSE,
            uapi::IORING_OP_FILES_UPDATE,
            uapi::IORING_OP_TIMEOUT,
            uapi::IORING_OP_TIMEOUT_REMOVE,
            uapi::IORING_OP_ASYNC_CANCEL,
            uapi::IORING_OP_LINK_TIMEOUT,
        ];
        assert_eq!(probe.is_supported(opcode), built.contains(&opcode), "opcode {opcode}");
    }
}

#[test]
fn row_ops_fields_that_must_be_zero_are_looked_at() {
    let cases: [fn(&mut annulus::squeue::Entry); 5] = [
        |sqe| sqe.ioprio = 1,
        |sqe| sqe.personality = 1,
        |sqe| sqe.flags = uapi::IOSQE_BUFFER_SELECT,
        |sqe| sqe.flags = 0x80,
        |sqe| sqe.pad2 = 1,
    ];
    let mut rig = rig(Config::new(16).submit_all(true));
    for (i, case) in cases.iter().enumerate() {
        let mut sqe = read(AT_ONCE, 1, i as u64);
        case(&mut sqe);
        rig.push(&[sqe]);
        submit(&mut rig).unwrap();
        assert_eq!(rig.reap(), [(i as u64, -22)]);
    }
    let fsync = Fsync::new(Fd(AT_ONCE)).flags(FsyncFlags::DATASYNC).build();
    rig.push(&[fsync]);
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(0, 0)]);
    let mut bad = fsync;
    bad.addr = 1;
    let mut flags = fsync;
    flags.op_flags = 2;
    let mut before = fsync;
    before.off = u64::MAX;
    rig.push(&[bad, flags, before, Nop::new().build().user_data(5)]);
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(0, -22), (0, -22), (0, -22), (5, 0)]);
}

#[test]
fn row_byte_order_addresses_beyond_a_pointer_are_efault() {
    let mut rig = rig(Config::new(2));
    let mut sqe = read(AT_ONCE, 1, 1);
    sqe.addr = u64::MAX;
    rig.push(&[sqe]);
    submit(&mut rig).unwrap();
    let expected = if usize::BITS == 64 { 1 } else { -14 };
    assert_eq!(rig.reap(), [(1, expected)]);
}

// -- rows request pool, fallback ------------------------------------------

#[test]
fn row_fallback_reaping_always_leads_to_progress() {
    let mut rig = rig(Config::new(8).requests(2));
    rig.push(&(0..6).map(|i| read(LATER, i, u64::from(i))).collect::<Vec<_>>());
    assert_eq!(submit(&mut rig), Ok(3), "two of the pool and the reserve");
    assert_eq!(rig.parts.engine.stats().fallbacks, 1);
    assert_eq!(rig.parts.engine.stats().in_use, 3);
    assert_eq!(submit(&mut rig), Err(Errno::EBUSY));
    rig.complete_first(0);
    assert_eq!(submit(&mut rig), Ok(1));
    assert_eq!(submit(&mut rig), Err(Errno::EBUSY));
    let mut seen = rig.reap();
    while seen.len() < 6 {
        rig.complete_first(0);
        let _ = submit(&mut rig);
        seen.extend(rig.reap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..6).map(|i| (i, 0)).collect::<Vec<_>>());
    assert_eq!(rig.parts.engine.stats().in_use, 0);
}

#[test]
fn row_fallback_is_not_taken_by_what_may_wait_for_ever() {
    let mut rig = rig(Config::new(4).requests(1));
    rig.push(&[read(FOR_EVER, 1, 1), read(FOR_EVER, 1, 2)]);
    assert_eq!(submit(&mut rig), Ok(1));
    assert_eq!(submit(&mut rig), Err(Errno::EBUSY));
    // The reserve is still free: what ends at submission gets through once
    // it is at the head.
    assert_eq!(rig.log.lock().unwrap().pending.len(), 1);
    rig.complete_first(9);
    rig.push(&[nop(3)]);
    assert_eq!(submit(&mut rig), Ok(2));
    assert_eq!(rig.reap(), [(1, 9), (3, 0)]);
}

#[test]
fn row_request_pool_no_room_in_the_backend_loses_nothing() {
    let mut rig = rig(Config::new(4));
    rig.push(&[read(LATER, 1, 1)]);
    assert_eq!(submit(&mut rig), Ok(1));
    rig.log.lock().unwrap().no_room = 1;
    rig.push(&[read(LATER, 1, 2), nop(3)]);
    assert_eq!(submit(&mut rig), Err(Errno::EBUSY));
    assert_eq!(submit(&mut rig), Ok(2));
    rig.complete_first(5);
    rig.complete_first(6);
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(3, 0), (1, 5), (2, 6)]);

    // With nothing in flight waiting would be for ever: an error instead.
    rig.log.lock().unwrap().no_room = 1;
    rig.push(&[read(LATER, 1, 4)]);
    assert_eq!(submit(&mut rig), Ok(1));
    assert_eq!(rig.reap(), [(4, -12)]);
}

// -- row references -------------------------------------------------------

#[test]
fn row_references_a_token_completes_once() {
    let mut rig = rig(Config::new(4));
    rig.push(&[read(LATER, 1, 1)]);
    submit(&mut rig).unwrap();
    let token = rig.complete_first(11);
    assert!(rig.completer.complete(token, 12).is_err(), "queued");
    submit(&mut rig).unwrap();
    assert!(rig.completer.complete(token, 13).is_err(), "ended");
    let invented = annulus::hal::Token::from_raw(0xffff_ffff);
    assert!(rig.completer.complete(invented, 14).is_err());
    // The slot's next request is not ended by the old token.
    rig.push(&[read(LATER, 1, 2)]);
    submit(&mut rig).unwrap();
    assert!(rig.completer.complete(token, 15).is_err());
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(1, 11)]);
    assert_eq!(rig.parts.engine.stats().stale, 4);
}

#[test]
fn a_notice_resumes_and_the_next_one_ends() {
    let mut rig = rig(Config::new(4));
    rig.push(&[read(LATER, 21, 1)]);
    submit(&mut rig).unwrap();
    let token = rig.log.lock().unwrap().pending[0].0;
    rig.completer.ready(token).unwrap();
    assert!(rig.completer.ready(token).is_err(), "one notice at a time");
    assert!(rig.parts.sq.queue().taskrun(), "there is something to fetch");
    submit(&mut rig).unwrap();
    assert!(!rig.parts.sq.queue().taskrun());
    assert_eq!(rig.reap(), []);
    rig.completer.ready(token).unwrap();
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(1, 21)]);
}

#[test]
fn completions_keep_the_order_they_came_in() {
    let mut rig = rig(Config::new(8));
    rig.push(&(0..5).map(|i| read(LATER, 1, i)).collect::<Vec<_>>());
    submit(&mut rig).unwrap();
    let tokens: Vec<_> = rig.log.lock().unwrap().pending.iter().map(|(token, _)| *token).collect();
    for i in [3, 0, 4, 1, 2] {
        rig.completer.complete(tokens[i], i as i32).unwrap();
    }
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(3, 3), (0, 0), (4, 4), (1, 1), (2, 2)]);
}

// -- row CQ full ----------------------------------------------------------

#[test]
fn row_cq_full_loses_nothing_and_keeps_order() {
    let mut rig = rig(Config::new(4).cq_entries(4).requests(16));
    for i in 0..3 {
        rig.push(&(0..4).map(|j| nop(i * 4 + j)).collect::<Vec<_>>());
        assert_eq!(submit(&mut rig), Ok(4));
    }
    assert!(rig.parts.sq.queue().cq_overflow());
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.extend(rig.reap());
        rig.parts.engine.enter(0, 0, EnterFlags::GETEVENTS, None).unwrap();
    }
    assert_eq!(seen, (0..12).map(|i| (i, 0)).collect::<Vec<_>>());
    assert!(!rig.parts.sq.queue().cq_overflow());
    assert_eq!(rig.parts.cq.queue().overflow(), 0, "none was lost");
    assert_eq!(rig.parts.engine.stats().overflows, 8);
}

#[test]
fn row_cq_full_holds_slots_until_there_is_room() {
    let mut rig = rig(Config::new(4).cq_entries(4).requests(2));
    rig.push(&(0..4).map(nop).collect::<Vec<_>>());
    assert_eq!(submit(&mut rig), Ok(4));
    rig.push(&(4..8).map(nop).collect::<Vec<_>>());
    assert_eq!(submit(&mut rig), Ok(3), "the pool and the reserve wait for room");
    assert_eq!(submit(&mut rig), Err(Errno::EBUSY));
    assert_eq!(rig.reap().len(), 4);
    assert_eq!(submit(&mut rig), Ok(1));
    assert_eq!(rig.reap(), [(4, 0), (5, 0), (6, 0), (7, 0)]);
}

// -- rows registered files, registered buffers ----------------------------

fn call(rig: &mut Rig, call: Call<'_>) -> Result<u32, Errno> {
    // SAFETY: the test backend touches no memory.
    unsafe { rig.parts.engine.call(call) }
}

fn read_at(place: u32, user_data: u64) -> annulus::squeue::Entry {
    annulus::opcode::Read::new(Fixed(place), std::ptr::null_mut(), 3).build().user_data(user_data)
}

#[test]
fn row_registered_files_failure_leaves_everything_as_it_was() {
    let mut rig = rig(Config::new(4).files(4));
    assert_eq!(call(&mut rig, Call::UnregisterFiles), Err(Errno::ENXIO));
    assert_eq!(call(&mut rig, Call::RegisterFiles(&[100, 101, 5])), Err(Errno::EBADF));
    assert_eq!(rig.log.lock().unwrap().open, [], "given back");
    assert_eq!(call(&mut rig, Call::RegisterFiles(&[])), Err(Errno::EINVAL));
    assert_eq!(call(&mut rig, Call::RegisterFiles(&[100; 5])), Err(Errno::EMFILE));
    assert_eq!(call(&mut rig, Call::RegisterFiles(&[100, -1])), Ok(0));
    assert_eq!(call(&mut rig, Call::RegisterFiles(&[100])), Err(Errno::EBUSY));
    rig.push(&[read_at(0, 1), read_at(1, 2), read_at(2, 3)]);
    assert_eq!(submit(&mut rig), Ok(3));
    assert_eq!(rig.reap(), [(1, 3), (2, -9), (3, -9)]);
    assert_eq!(call(&mut rig, Call::UnregisterFiles), Ok(0));
    assert_eq!(rig.log.lock().unwrap().open, []);
}

#[test]
fn row_registered_files_update_with_requests_in_flight() {
    let mut rig = rig(Config::new(4).files(2));
    call(&mut rig, Call::RegisterFiles(&[LATER, -1])).unwrap();
    rig.push(&[read_at(0, 1), read_at(0, 2)]);
    submit(&mut rig).unwrap();
    let old = rig.log.lock().unwrap().open[0];
    let update = Call::UpdateFiles { offset: 0, fds: &[AT_ONCE, -2] };
    assert_eq!(call(&mut rig, update), Ok(2));
    assert!(rig.log.lock().unwrap().open.contains(&old), "in use");
    rig.push(&[read_at(0, 3)]);
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(3, 3)], "the new file");
    rig.complete_first(1);
    submit(&mut rig).unwrap();
    assert!(rig.log.lock().unwrap().open.contains(&old), "still in use");
    rig.complete_first(2);
    submit(&mut rig).unwrap();
    assert_eq!(rig.log.lock().unwrap().closed, [old]);
    let beyond = Call::UpdateFiles { offset: 1, fds: &[AT_ONCE, AT_ONCE] };
    assert_eq!(call(&mut rig, beyond), Err(Errno::EINVAL));
    let partly = Call::UpdateFiles { offset: 0, fds: &[AT_ONCE, 3] };
    assert_eq!(call(&mut rig, partly), Ok(1), "the first was done");
    let log = rig.log.clone();
    drop(rig);
    assert_eq!(log.lock().unwrap().open, [], "teardown gives everything back");
}

#[test]
fn row_registered_buffers_any_sub_range_and_nothing_outside() {
    let mut rig = rig(Config::new(8).buffers(2).submit_all(true));
    let base = std::ptr::without_provenance_mut::<u8>(0x10_0000);
    let iovec = Iovec::new(base, 4096);
    // SAFETY: the test backend touches no memory.
    assert_eq!(
        call(&mut rig, Call::RegisterBuffers(&[iovec, Iovec::new(base, 0)])),
        Err(Errno::EFAULT)
    );
    assert_eq!(rig.log.lock().unwrap().unmapped, 1, "the first was given back");
    let bad = Iovec::new(std::ptr::without_provenance_mut(0xbad0), 16);
    assert_eq!(call(&mut rig, Call::RegisterBuffers(&[iovec, bad])), Err(Errno::EFAULT));
    assert_eq!(call(&mut rig, Call::RegisterBuffers(&[iovec; 3])), Err(Errno::ENOMEM));
    assert_eq!(call(&mut rig, Call::RegisterBuffers(&[iovec])), Ok(0));
    assert_eq!(call(&mut rig, Call::RegisterBuffers(&[iovec])), Err(Errno::EBUSY));
    let cases = [
        (0u64, 4096u32, 0u16, 4096),
        (4095, 1, 0, 1),
        (1, 4096, 0, -14),
        (4096, 1, 0, -14),
        (4096, 0, 0, 0),
        (u64::MAX - 0x10_0000, 2, 0, -14),
        (0, 1, 1, -14),
    ];
    for (offset, len, index, expected) in cases {
        let at = base.wrapping_add(offset as usize);
        let mut sqe = ReadFixed::new(Fd(AT_ONCE), at, len, index).build().user_data(offset);
        sqe.addr = 0x10_0000u64.wrapping_add(offset);
        if usize::BITS == 32 && sqe.addr > u64::from(u32::MAX) {
            continue;
        }
        rig.push(&[sqe]);
        submit(&mut rig).unwrap();
        assert_eq!(rig.reap(), [(offset, expected)], "{offset} + {len}");
    }
    let mut before = ReadFixed::new(Fd(AT_ONCE), base, 8, 0).build();
    before.addr = 0x0f_ffff;
    rig.push(&[before]);
    submit(&mut rig).unwrap();
    assert_eq!(rig.reap(), [(0, -14)]);
    assert_eq!(call(&mut rig, Call::UnregisterBuffers), Ok(0));
    assert_eq!(call(&mut rig, Call::UnregisterBuffers), Err(Errno::ENXIO));
    let log = rig.log.lock().unwrap();
    assert_eq!(log.mapped, log.unmapped);
}

// -- row SQPOLL (its inline half), features -------------------------------

#[test]
fn features_are_those_whose_promise_is_kept() {
    let rig_ = rig(Config::new(2));
    let features = rig_.parts.engine.features();
    assert_ne!(features & uapi::IORING_FEAT_NODROP, 0);
    assert_ne!(features & uapi::IORING_FEAT_SQPOLL_NONFIXED, 0);
    assert_eq!(features & uapi::IORING_FEAT_POLL_32BITS, 0);
    assert_ne!(features & uapi::IORING_FEAT_MIN_TIMEOUT, 0);
    assert_eq!(features & uapi::IORING_FEAT_REG_REG_RING, 0);
    let seed = rig(Config::new(2).policy(Policy::Seed));
    assert_eq!(seed.parts.engine.features() & uapi::IORING_FEAT_SQPOLL_NONFIXED, 0);
}

#[test]
fn a_dump_tells_what_hangs() {
    let mut rig = rig(Config::new(4).requests(1).files(2));
    call(&mut rig, Call::RegisterFiles(&[LATER])).unwrap();
    rig.push(&[read(LATER, 1, 0xabcd), read(FOR_EVER, 1, 2)]);
    submit(&mut rig).unwrap();
    let mut text = String::new();
    rig.parts.engine.dump(&mut text).unwrap();
    for part in
        ["READ, user_data 0xabcd", "1 pending", "1 of 1 in use", "SQEs wait", "1 of 1 places"]
    {
        assert!(text.contains(part), "{part:?} is not in:\n{text}");
    }
}

#[test]
fn dropping_a_ring_ends_what_is_in_flight() {
    let mut rig = rig(Config::new(4).files(1));
    call(&mut rig, Call::RegisterFiles(&[LATER])).unwrap();
    rig.push(&[read_at(0, 1), read(LATER, 1, 2)]);
    submit(&mut rig).unwrap();
    let log = rig.log.clone();
    drop(rig);
    let log = log.lock().unwrap();
    assert!(log.pending.is_empty() && log.open.is_empty());
}
