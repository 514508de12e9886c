//! Register calls besides tables of files and buffers, on a scripted backend.

mod common;

use annulus::config::{Config, Mode};
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::register::Call;
use annulus::served::Served;
use annulus::types::{CancelBuilder, Fd, Fixed, Timespec};
use annulus::uapi::*;
use common::*;
use std::sync::Arc;
use std::time::{Duration, Instant};

fn ring() -> Rig {
    rig(Config::new(16).submit_all(true).files(2))
}

fn enter(rig: &mut Rig, count: u32) {
    assert_eq!(rig.parts.engine.enter(count, 0, EnterFlags::empty(), None), Ok(count));
}

fn call(rig: &mut Rig, call: Call<'_>) -> Result<u32, Errno> {
    // SAFETY: no memory is registered.
    unsafe { rig.parts.engine.call(call) }
}

fn cancel(rig: &mut Rig, what: CancelBuilder, ms: Option<u32>) -> Result<u32, Errno> {
    let timeout = ms.map(|ms| Timespec::new().nsec(ms * 1_000_000));
    call(rig, Call::Cancel { what, timeout })
}

fn timeout(user_data: u64) -> annulus::squeue::Entry {
    let hour: &'static Timespec = Box::leak(Box::new(Timespec::new().sec(3600)));
    annulus::opcode::Timeout::new(hour).build().user_data(user_data)
}

#[test]
fn a_call_ends_what_has_not_begun() {
    let mut rig = ring();
    assert_eq!(cancel(&mut rig, CancelBuilder::user_data(1), None), Err(Errno::ENOENT));
    rig.push(&[timeout(1), timeout(2), timeout(2), timeout(3)]);
    enter(&mut rig, 4);
    assert_eq!(cancel(&mut rig, CancelBuilder::user_data(1), None), Ok(0));
    assert_eq!(rig.reap(), [(1, -125)], "its CQE is there when the call is back");
    assert_eq!(cancel(&mut rig, CancelBuilder::user_data(2).all(), None), Ok(2));
    assert_eq!(rig.reap(), [(2, -125), (2, -125)]);
    assert_eq!(cancel(&mut rig, CancelBuilder::any(), None), Ok(1));
    assert_eq!(rig.reap(), [(3, -125)]);
    assert_eq!(cancel(&mut rig, CancelBuilder::any(), None), Ok(0));
}

#[test]
fn a_call_that_cancels_looks_at_its_arguments() {
    let mut rig = ring();
    call(&mut rig, Call::RegisterFilesSparse(2)).unwrap();
    assert_eq!(cancel(&mut rig, CancelBuilder::fd(Fixed(0)), None), Err(Errno::EBADF));
    assert_eq!(cancel(&mut rig, CancelBuilder::fd(Fd(7)), None), Err(Errno::EBADF));
    assert_eq!(cancel(&mut rig, CancelBuilder::fd(Fd(AT_ONCE)), None), Err(Errno::ENOENT));
    let mut reg = io_uring_sync_cancel_reg { flags: 1 << 6, ..Default::default() };
    let arg = (&raw mut reg).cast();
    // SAFETY: the operation's argument.
    let answer = unsafe { rig.parts.engine.register(IORING_REGISTER_SYNC_CANCEL, arg, 1) };
    assert_eq!(answer, Errno::EINVAL.to_result());
    let mut bare = rig_without_held();
    assert_eq!(cancel(&mut bare, CancelBuilder::any(), None), Err(Errno::EINVAL));
}

fn rig_without_held() -> Rig {
    rig(Config::new(4).held(false))
}

#[test]
fn an_inline_call_drives_the_engine_until_what_is_under_way_has_ended() {
    let mut rig = ring();
    rig.push(&[read(LATER, 8, 1), read(LATER, 8, 1), read(LATER, 8, 2)]);
    enter(&mut rig, 3);
    assert_eq!(cancel(&mut rig, CancelBuilder::user_data(1), Some(5)), Err(Errno::ETIME));
    assert_eq!(cancel(&mut rig, CancelBuilder::user_data(1).all(), None), Ok(0), "no wait for all");
    let (log, completer) = (rig.log.clone(), rig.completer);
    let began = Instant::now();
    let other = std::thread::spawn(move || {
        for _ in 0..2 {
            std::thread::sleep(Duration::from_millis(30));
            let (token, _) = log.lock().unwrap().pending.remove(0);
            completer.complete(token, 8).unwrap();
        }
    });
    assert_eq!(cancel(&mut rig, CancelBuilder::user_data(1), None), Ok(0));
    assert!(began.elapsed() >= Duration::from_millis(60), "both have been waited for");
    assert_eq!(rig.reap(), [(1, 8), (1, 8)]);
    other.join().unwrap();
    rig.complete_first(8);
}

#[test]
fn a_call_from_outside_waits_without_the_engine() {
    for polled in [true, false] {
        let mode = if polled { Mode::SqPoll { idle_ms: 1 } } else { Mode::Served };
        let Rig { parts, log, completer, .. } = rig(Config::new(16).mode(mode));
        let annulus::engine::Parts { mut engine, mut sq, mut cq, remote } = parts;
        let served = if polled {
            std::thread::spawn(move || engine.poll_loop());
            None
        } else {
            let served = Arc::new(Served::new(engine, remote));
            let helper = served.clone();
            std::thread::spawn(move || helper.help());
            Some(served)
        };
        let submit = |count| match &served {
            Some(served) => served.enter(count, 0, EnterFlags::empty(), None).unwrap(),
            None => remote.enter(count, 0, EnterFlags::SQ_WAKEUP, None).unwrap(),
        };
        // SAFETY: no memory is registered.
        let call = |call: Call<'_>| unsafe {
            match &served {
                Some(served) => served.call(call),
                None => remote.call(call),
            }
        };
        let cancel = |timeout| call(Call::Cancel { what: CancelBuilder::user_data(1), timeout });
        push(&mut sq, &[read(LATER, 8, 1)]);
        submit(1);
        while log.lock().unwrap().pending.is_empty() {
            std::thread::yield_now();
        }
        let soon = Some(Timespec::new().nsec(5_000_000));
        assert_eq!(cancel(soon), Err(Errno::ETIME));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| cancel(None));
            // Others get their answers meanwhile.
            for n in 0..20 {
                push(&mut sq, &[nop(100 + n)]);
                submit(1);
                assert_eq!(call(Call::UnregisterFiles), Err(Errno::ENXIO));
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(!waiting.is_finished());
            let (token, _) = log.lock().unwrap().pending.remove(0);
            completer.complete(token, 8).unwrap();
            assert_eq!(waiting.join().unwrap(), Ok(0));
        });
        let seen: Vec<_> = cq.queue().map(|cqe| cqe.user_data()).collect();
        assert!(seen.contains(&1), "{seen:?}");
        assert_eq!(cancel(None), Err(Errno::ENOENT));
        remote.stop();
    }
}

/// How often the eventfd has been rung since the last look.
fn rung(rig: &Rig) -> u64 {
    rig.host.rung.swap(0, std::sync::atomic::Ordering::Relaxed)
}

fn bound(rig: &Rig) -> u64 {
    rig.host.eventfd.load(std::sync::atomic::Ordering::Relaxed)
}

#[test]
fn an_eventfd_is_registered_once() {
    let mut rig = ring();
    assert_eq!(call(&mut rig, Call::UnregisterEventfd), Err(Errno::ENXIO));
    let register = |fd, only_late| Call::RegisterEventfd { fd, only_late };
    assert_eq!(call(&mut rig, register(-1, false)), Err(Errno::EBADF));
    assert_eq!(call(&mut rig, register(7, false)), Ok(0));
    assert_eq!(call(&mut rig, register(8, true)), Err(Errno::EBUSY));
    assert_eq!(bound(&rig), 7);
    assert_eq!(call(&mut rig, Call::UnregisterEventfd), Ok(0));
    assert_eq!(bound(&rig), 0);
    assert_eq!(call(&mut rig, register(8, true)), Ok(0));
    rig.parts.engine.shutdown();
    assert_eq!(bound(&rig), 0, "given back with the ring");
}

#[test]
fn every_cqe_is_followed_by_a_signal() {
    for only_late in [false, true] {
        let mut rig = ring();
        rig.push(&[nop(1)]);
        enter(&mut rig, 1);
        call(&mut rig, Call::RegisterEventfd { fd: 7, only_late }).unwrap();
        assert_eq!(rung(&rig), 0, "what came before is nobody's business");
        for _ in 0..3 {
            rig.push(&[nop(1), read(AT_ONCE, 8, 2), nop(3)]);
            enter(&mut rig, 3);
            assert_eq!(rung(&rig), u64::from(!only_late));
            rig.push(&[read(LATER, 8, 4)]);
            enter(&mut rig, 1);
            assert_eq!(rung(&rig), 0);
            rig.complete_first(8);
            assert_eq!(rung(&rig), 1, "there is something to fetch");
            rig.push(&[nop(1)]);
            enter(&mut rig, 1);
            assert_eq!(rung(&rig), 1, "and it has been posted");
            rig.parts.cq.queue().disable_eventfd(true);
            rig.push(&[nop(1), read(LATER, 8, 4)]);
            enter(&mut rig, 2);
            rig.complete_first(8);
            enter(&mut rig, 0);
            assert_eq!(rung(&rig), 0, "switched off");
            rig.parts.cq.queue().disable_eventfd(false);
            rig.reap();
        }
        call(&mut rig, Call::UnregisterEventfd).unwrap();
        rig.push(&[nop(1)]);
        enter(&mut rig, 1);
        assert_eq!(rung(&rig), 0);
    }
}

#[test]
fn a_late_cqe_is_signalled_though_it_came_home_while_sqes_were_taken() {
    // The pool runs dry, so completions are collected in the middle of a batch.
    let mut rig = rig(Config::new(4).requests(1).cq_entries(16).submit_all(true));
    call(&mut rig, Call::RegisterEventfd { fd: 7, only_late: true }).unwrap();
    rig.push(&[read(LATER, 8, 1)]);
    enter(&mut rig, 1);
    rig.complete_first(8);
    rung(&rig);
    rig.push(&[nop(2), nop(3)]);
    enter(&mut rig, 2);
    assert_eq!(rung(&rig), 1);
    rig.push(&[nop(2), nop(3)]);
    enter(&mut rig, 2);
    assert_eq!(rung(&rig), 0);
}

#[test]
fn a_disabled_ring_takes_calls_only() {
    let mut rig = rig(Config::new(8).files(1).disabled(true));
    rig.push(&[nop(1)]);
    for count in [0, 1] {
        let entered = rig.parts.engine.enter(count, 0, EnterFlags::empty(), None);
        assert_eq!(entered, Err(Errno::EBADFD));
    }
    call(&mut rig, Call::RegisterFilesSparse(1)).unwrap();
    assert_eq!(call(&mut rig, Call::EnableRings), Ok(0));
    assert_eq!(call(&mut rig, Call::EnableRings), Err(Errno::EBADFD));
    enter(&mut rig, 1);
    assert_eq!(rig.reap(), [(1, 0)]);
}

#[test]
fn a_polling_thread_waits_for_its_ring_to_be_enabled() {
    let config = Config::new(8).disabled(true).mode(Mode::SqPoll { idle_ms: 1 });
    let Rig { parts, .. } = rig(config);
    let annulus::engine::Parts { mut engine, mut sq, mut cq, remote } = parts;
    let thread = std::thread::spawn(move || engine.poll_loop());
    push(&mut sq, &[nop(1)]);
    let entered = remote.enter(1, 0, EnterFlags::SQ_WAKEUP, None);
    assert_eq!(entered, Err(Errno::EBADFD));
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(cq.queue().len(), 0);
    // SAFETY: no memory is registered.
    unsafe { remote.call(Call::EnableRings) }.unwrap();
    assert_eq!(remote.enter(1, 1, EnterFlags::SQ_WAKEUP | EnterFlags::GETEVENTS, None), Ok(1));
    assert_eq!(cq.queue().next().unwrap().user_data(), 1);
    remote.stop();
    thread.join().unwrap();
}

#[test]
fn restrictions_hold_from_the_moment_the_ring_is_enabled() {
    use annulus::types::Restriction;
    let mut rig = rig(Config::new(8).files(1).submit_all(true).disabled(true));
    let rules = [
        Restriction::sqe_op(IORING_OP_NOP),
        Restriction::sqe_flags_allowed(IOSQE_IO_LINK),
        Restriction::register_op(IORING_UNREGISTER_FILES as u8),
    ];
    assert_eq!(call(&mut rig, Call::RegisterRestrictions(&rules)), Ok(0));
    assert_eq!(call(&mut rig, Call::RegisterRestrictions(&rules)), Err(Errno::EBUSY));
    call(&mut rig, Call::RegisterFilesSparse(1)).unwrap();
    call(&mut rig, Call::EnableRings).unwrap();
    assert_eq!(call(&mut rig, Call::RegisterFilesSparse(1)), Err(Errno::EACCES));
    assert_eq!(call(&mut rig, Call::UnregisterFiles), Ok(0));
    call(&mut rig, Call::Stats(&mut Default::default())).unwrap();
    for _ in 0..2 {
        let link = annulus::squeue::Flags::IO_LINK;
        rig.push(&[nop(1), read(AT_ONCE, 8, 2), nop(3).flags(link), nop(4)]);
        enter(&mut rig, 4);
        assert_eq!(rig.reap(), [(1, 0), (2, -13), (3, 0), (4, 0)]);
    }
}
