//! The engine driven by somebody else: polled submission, served.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Mode, Policy};
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::register::Call;
use annulus::served::Served;
use annulus::uapi;
use common::*;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Waits (with a limit) until `ready`.
fn until(what: &str, mut ready: impl FnMut() -> bool) {
    let start = Instant::now();
    while !ready() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} never came");
        std::thread::yield_now();
    }
}

/// A ring under SQPOLL while `body` runs.
fn polled(config: Config, body: impl FnOnce(&mut Rest)) {
    let Rig { parts, log, completer, host } = rig(config);
    let (mut engine, remote) = (parts.engine, parts.remote);
    let mut rest = Rest { sq: parts.sq, cq: parts.cq, remote, log, completer, host };
    std::thread::scope(|scope| {
        let driver = scope.spawn(move || engine.poll_loop());
        let stop = Stop(remote);
        body(&mut rest);
        drop(stop);
        driver.join().unwrap();
        assert!(remote.stopped());
        assert_eq!(remote.enter(0, 0, EnterFlags::empty(), None), Err(Errno::EOWNERDEAD));
    });
}

/// Stops the engine, so that a test that fails ends.
struct Stop(annulus::engine::Remote<'static, Place>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

struct Rest {
    sq: annulus::ring::SqHalf<'static>,
    cq: annulus::ring::CqHalf<'static>,
    remote: annulus::engine::Remote<'static, Place>,
    log: std::sync::Arc<std::sync::Mutex<Log>>,
    completer: annulus::engine::Completer<'static, Place>,
    host: std::sync::Arc<TestHost>,
}

impl Rest {
    fn submit(&mut self, entries: &[annulus::squeue::Entry]) {
        push(&mut self.sq, entries);
        if self.remote.need_wakeup() {
            self.remote.enter(0, 0, EnterFlags::SQ_WAKEUP, None).unwrap();
        }
    }

    fn reap(&mut self, count: u32) -> Vec<(u64, i32)> {
        self.remote.enter(0, count, EnterFlags::GETEVENTS, None).unwrap();
        self.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())).collect()
    }
}

fn sqpoll(idle_ms: u32) -> Config {
    Config::new(4).requests(16).mode(Mode::SqPoll { idle_ms })
}

#[test]
fn row_sqpoll_needs_no_enter_while_it_polls() {
    polled(sqpoll(60_000), |ring| {
        for i in 0..20 {
            ring.submit(&[nop(i), read(AT_ONCE, 5, i + 100)]);
            let mut seen = Vec::new();
            until("completions", || {
                seen.extend(ring.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())));
                seen.len() == 2
            });
            assert_eq!(seen, [(i, 0), (i + 100, 5)]);
        }
        assert!(ring.host.bells.load(Ordering::Relaxed) > 0);
    });
}

#[test]
fn row_sqpoll_sleeps_when_idle_and_is_woken() {
    polled(sqpoll(1), |ring| {
        let mut stats = annulus::Stats::default();
        let mut rounds = 0..1_000;
        while stats.sleeps < 4 {
            let i = rounds.next().expect("it sleeps, unless it finds something at its second look");
            until("sleep", || ring.remote.need_wakeup());
            ring.submit(&[nop(i)]);
            assert_eq!(ring.reap(1), [(i, 0)]);
            // SAFETY: registers nothing.
            unsafe { ring.remote.call(Call::Stats(&mut stats)) }.unwrap();
        }
        assert_eq!(ring.remote.enter(3, 0, EnterFlags::empty(), None), Ok(3), "to_submit");
    });
}

#[test]
fn row_sqpoll_a_sleeping_engine_hears_completions_calls_and_room() {
    polled(sqpoll(1).cq_entries(4).files(2), |ring| {
        ring.submit(&[read(LATER, 1, 7)]);
        until("start", || !ring.log.lock().unwrap().pending.is_empty());
        until("sleep", || ring.remote.need_wakeup());
        let (token, _) = ring.log.lock().unwrap().pending.remove(0);
        ring.completer.complete(token, 70).unwrap();
        assert_eq!(ring.reap(1), [(7, 70)]);

        until("sleep", || ring.remote.need_wakeup());
        // SAFETY: the test backend touches no memory.
        let registered = unsafe { ring.remote.call(Call::RegisterFiles(&[AT_ONCE, -1])) };
        assert_eq!(registered, Ok(0));

        // Six completions, room for four; then it sleeps.
        ring.submit(&(0..4).map(nop).collect::<Vec<_>>());
        ring.remote.enter(0, 0, EnterFlags::SQ_WAIT | EnterFlags::SQ_WAKEUP, None).unwrap();
        until("room in the SQ", || ring.sq.ready() == 0);
        ring.submit(&[nop(4), nop(5)]);
        until("overflow", || ring.sq.queue().cq_overflow());
        until("sleep", || ring.remote.need_wakeup());
        // Only peeking: the room itself wakes the engine.
        let mut seen = Vec::new();
        until("the rest", || {
            seen.extend(ring.cq.queue().map(|cqe| cqe.user_data()));
            seen.len() == 6
        });
        assert_eq!(seen, [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn row_sqpoll_a_starved_engine_sleeps_and_goes_on() {
    polled(sqpoll(1).requests(1), |ring| {
        ring.submit(&[read(LATER, 1, 1), read(LATER, 1, 2), read(LATER, 1, 3)]);
        until("two in flight", || ring.log.lock().unwrap().pending.len() == 2);
        until("sleep", || ring.remote.need_wakeup());
        let mut seen = Vec::new();
        while seen.len() < 3 {
            until("one in flight", || !ring.log.lock().unwrap().pending.is_empty());
            let (token, _) = ring.log.lock().unwrap().pending.remove(0);
            ring.completer.complete(token, 0).unwrap();
            seen.extend(ring.reap(1));
        }
        assert_eq!(seen, [(1, 0), (2, 0), (3, 0)]);
    });
}

#[test]
fn row_sqpoll_policy_seed_takes_registered_files_only() {
    polled(sqpoll(1).policy(Policy::Seed).files(1), |ring| {
        // SAFETY: the test backend touches no memory.
        unsafe { ring.remote.call(Call::RegisterFiles(&[AT_ONCE])) }.unwrap();
        let fixed = annulus::opcode::Read::new(annulus::types::Fixed(0), std::ptr::null_mut(), 4);
        ring.submit(&[read(AT_ONCE, 4, 1), fixed.build().user_data(2), nop(3)]);
        assert_eq!(ring.reap(3), [(1, -9), (2, 4), (3, 0)]);
    });
}

#[test]
fn row_sqpoll_stops_cleanly_with_work_in_flight() {
    let mut log = None;
    polled(sqpoll(60_000).files(1), |ring| {
        // SAFETY: the test backend touches no memory.
        unsafe { ring.remote.call(Call::RegisterFiles(&[LATER])) }.unwrap();
        ring.submit(&[read(LATER, 1, 1), read(LATER, 1, 2)]);
        until("start", || ring.log.lock().unwrap().pending.len() == 2);
        log = Some(ring.log.clone());
    });
    let log = log.unwrap();
    let log = log.lock().unwrap();
    assert!(log.pending.is_empty() && log.open.is_empty());
}

#[test]
fn a_call_to_a_stopped_engine_is_enxio() {
    let Rig { parts, .. } = rig(sqpoll(1));
    let (mut engine, remote) = (parts.engine, parts.remote);
    remote.stop();
    engine.poll_loop();
    // SAFETY: registers nothing.
    assert_eq!(unsafe { remote.call(Call::UnregisterFiles) }, Err(Errno::ENXIO));
    let mut text = String::new();
    remote.dump(&mut text).unwrap();
    assert!(text.contains("stopped 1"));
}

// -- served ---------------------------------------------------------------

#[test]
fn served_completions_come_without_enter() {
    let Rig { parts, log, completer, .. } = rig(Config::new(4).mode(Mode::Served).files(1));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Served::new(parts.engine, remote);
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| served.help());
        for i in 0..10 {
            push(&mut sq, &[read(LATER, 1, i), nop(i + 100)]);
            assert_eq!(served.enter(2, 1, EnterFlags::GETEVENTS, None), Ok(2));
            assert_eq!(cq.queue().next().map(|cqe| cqe.user_data()), Some(i + 100));
            let (token, _) = log.lock().unwrap().pending.remove(0);
            completer.complete(token, 9).unwrap();
            // Only peeking.
            let mut seen = None;
            until("completion", || {
                seen = cq.queue().next().map(|cqe| (cqe.user_data(), cqe.result()));
                seen.is_some()
            });
            assert_eq!(seen, Some((i, 9)));
        }
        // SAFETY: the test backend touches no memory.
        assert_eq!(unsafe { served.call(Call::RegisterFiles(&[LATER])) }, Ok(0));
        push(&mut sq, &[read(LATER, 1, 1)]);
        served.enter(1, 0, EnterFlags::empty(), None).unwrap();
        remote.stop();
        helper.join().unwrap();
        assert_eq!(served.enter(0, 0, EnterFlags::empty(), None), Err(Errno::EOWNERDEAD));
        // SAFETY: registers nothing.
        assert_eq!(unsafe { served.call(Call::UnregisterFiles) }, Err(Errno::ENXIO));
    });
    assert!(log.lock().unwrap().open.is_empty());
}

#[test]
fn served_threads_share_one_ring() {
    const THREADS: u64 = if cfg!(miri) { 2 } else { 4 };
    const ROUNDS: u64 = if cfg!(miri) { 5 } else { 500 };
    let Rig { parts, log, completer, .. } =
        rig(Config::new(8).cq_entries(8).requests(3).mode(Mode::Served));
    let remote = parts.remote;
    let sq = std::sync::Mutex::new(parts.sq);
    let cq = std::sync::Mutex::new(parts.cq);
    let served = Served::new(parts.engine, remote);
    let done = AtomicBool::new(false);
    let seen = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let helper = scope.spawn(|| served.help());
        // A device that completes whatever is pending.
        let device = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                let first = log.lock().unwrap().pending.pop();
                match first {
                    Some((token, request)) => {
                        completer.complete(token, request.len as i32).unwrap()
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (served, sq, cq, seen) = (&served, &sq, &cq, &seen);
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        let id = thread << 32 | round;
                        loop {
                            let mut sq = sq.lock().unwrap();
                            // SAFETY: the test backend touches no memory.
                            let full = unsafe { sq.queue().push(&read(LATER, 3, id)) }.is_err();
                            drop(sq);
                            if !full {
                                break;
                            }
                            let _ = served.enter(8, 0, EnterFlags::empty(), None);
                        }
                        // EBUSY, or taken by another thread: the reaping
                        // below makes room.
                        let _ = served.enter(1, 0, EnterFlags::empty(), None);
                        let mut cq = cq.lock().unwrap();
                        seen.lock().unwrap().extend(cq.queue().map(|cqe| cqe.user_data()));
                    }
                })
            })
            .collect();
        for worker in workers {
            worker.join().unwrap();
        }
        until("everything", || {
            let _ = served.enter(8, 0, EnterFlags::empty(), None);
            let mut cq = cq.lock().unwrap();
            let mut seen = seen.lock().unwrap();
            seen.extend(cq.queue().map(|cqe| cqe.user_data()));
            seen.len() as u64 == THREADS * ROUNDS
        });
        done.store(true, Ordering::Release);
        device.join().unwrap();
        remote.stop();
        helper.join().unwrap();
    });
    let mut seen = seen.into_inner().unwrap();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len() as u64, THREADS * ROUNDS, "each exactly once");
    let _ = uapi::IORING_OP_NOP;
}
