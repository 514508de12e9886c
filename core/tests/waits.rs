//! How long `enter` waits, whoever drives the engine. DESIGN row *enter*.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Mode};
use annulus::engine::{EnterFlags, Until};
use annulus::errno::Errno;
use annulus::hal::Clock;
use annulus::opcode::Timeout;
use annulus::served::Served;
use annulus::squeue::Entry;
use annulus::types::{SubmitArgs, Timespec};
use common::*;
use std::thread;
use std::time::{Duration, Instant};

/// An interpreter may take a while from a timeout's start to the wait for it.
const STEP: Duration = Duration::from_millis(if cfg!(miri) { 1000 } else { 40 });
const HOUR: u64 = 3600 * 1_000_000_000;

/// A ring that waits, by whichever way it is driven.
trait Waits {
    fn submit(&mut self, entries: &[Entry]);
    fn wait(&mut self, want: u32, until: Until) -> Result<u32, Errno>;
    fn reap(&mut self) -> Vec<(u64, i32)>;
    fn completer(&self) -> annulus::engine::Completer<'static, Place>;
    fn log(&self) -> std::sync::Arc<std::sync::Mutex<Log>>;
    fn now(&self) -> u64;
}

struct Inline(Rig);

impl Waits for Inline {
    fn submit(&mut self, entries: &[Entry]) {
        self.0.push(entries);
        let count = entries.len() as u32;
        assert_eq!(self.0.parts.engine.enter(count, 0, EnterFlags::empty(), None), Ok(count));
    }

    fn wait(&mut self, want: u32, until: Until) -> Result<u32, Errno> {
        self.0.parts.engine.enter(0, want, EnterFlags::GETEVENTS, until)
    }

    fn reap(&mut self) -> Vec<(u64, i32)> {
        self.0.reap()
    }

    fn completer(&self) -> annulus::engine::Completer<'static, Place> {
        self.0.completer
    }

    fn log(&self) -> std::sync::Arc<std::sync::Mutex<Log>> {
        self.0.log.clone()
    }

    fn now(&self) -> u64 {
        Place(self.0.host.clone()).now()
    }
}

/// Under SQPOLL, or with whoever serves it.
struct Driven<'a> {
    sq: annulus::ring::SqHalf<'static>,
    cq: annulus::ring::CqHalf<'static>,
    enter: &'a dyn Fn(u32, u32, EnterFlags, Until) -> Result<u32, Errno>,
    completer: annulus::engine::Completer<'static, Place>,
    log: std::sync::Arc<std::sync::Mutex<Log>>,
    host: std::sync::Arc<TestHost>,
}

impl Waits for Driven<'_> {
    fn submit(&mut self, entries: &[Entry]) {
        push(&mut self.sq, entries);
        let count = entries.len() as u32;
        let none = Until::default();
        assert_eq!((self.enter)(count, 0, EnterFlags::SQ_WAKEUP, none), Ok(count));
        // Until they have been taken.
        while self.sq.ready() != 0 {
            thread::yield_now();
        }
    }

    fn wait(&mut self, want: u32, until: Until) -> Result<u32, Errno> {
        (self.enter)(0, want, EnterFlags::GETEVENTS, until)
    }

    fn reap(&mut self) -> Vec<(u64, i32)> {
        self.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())).collect()
    }

    fn completer(&self) -> annulus::engine::Completer<'static, Place> {
        self.completer
    }

    fn log(&self) -> std::sync::Arc<std::sync::Mutex<Log>> {
        self.log.clone()
    }

    fn now(&self) -> u64 {
        Place(self.host.clone()).now()
    }
}

/// Runs `test` on a ring driven in each of the three ways.
fn each(test: impl Fn(&mut dyn Waits)) {
    let config = Config::new(8);
    test(&mut Inline(rig(config)));

    let Rig { parts, log, completer, host } = rig(config.mode(Mode::SqPoll { idle_ms: 1 }));
    let (mut engine, remote) = (parts.engine, parts.remote);
    thread::scope(|scope| {
        scope.spawn(move || engine.poll_loop());
        let enter = |count, want, flags, until: Until| remote.enter(count, want, flags, until);
        test(&mut Driven { sq: parts.sq, cq: parts.cq, enter: &enter, completer, log, host });
        remote.stop();
    });

    let Rig { parts, log, completer, host } = rig(config.mode(Mode::Served));
    let remote = parts.remote;
    let served = Served::new(parts.engine, remote);
    thread::scope(|scope| {
        scope.spawn(|| served.help());
        let enter = |count, want, flags, until: Until| served.enter(count, want, flags, until);
        test(&mut Driven { sq: parts.sq, cq: parts.cq, enter: &enter, completer, log, host });
        remote.stop();
    });
}

/// Steps from now.
fn after(ring: &dyn Waits, steps: u64) -> u64 {
    ring.now() + steps * STEP.as_nanos() as u64
}

#[test]
fn row_enter_ends_at_its_deadline_or_its_least_time() {
    each(|ring| {
        for (least, deadline, steps) in
            [(None, Some(2), 2), (Some(2), None, 2), (Some(1), Some(2), 2), (Some(2), Some(1), 2)]
        {
            let began = Instant::now();
            let until = Until::from(deadline.map(|steps| after(ring, steps)));
            let until = least.map_or(until, |steps| until.least(after(ring, steps)));
            assert_eq!(ring.wait(1, until), Err(Errno::ETIME));
            assert!(began.elapsed() >= steps * STEP, "{least:?} {deadline:?}");
        }
    });
}

#[test]
fn row_enter_is_content_with_less_at_its_least_time() {
    each(|ring| {
        ring.submit(&[nop(1)]);
        let began = Instant::now();
        let until = Until::from(Some(ring.now() + HOUR)).least(after(ring, 2));
        assert_eq!(ring.wait(3, until), Ok(0));
        assert!(began.elapsed() >= 2 * STEP);
        assert_eq!(ring.reap(), [(1, 0)]);
        // What there is already needs no time.
        ring.submit(&[nop(2), nop(3)]);
        let until = Until::default().least(ring.now() + HOUR);
        assert_eq!(ring.wait(2, until), Ok(0));
        assert_eq!(ring.reap(), [(2, 0), (3, 0)]);
    });
}

#[test]
fn row_enter_takes_the_next_completion_after_its_least_time() {
    each(|ring| {
        ring.submit(&[read(LATER, 8, 1), read(LATER, 8, 2)]);
        let (completer, log) = (ring.completer(), ring.log());
        let until = Until::from(Some(ring.now() + HOUR)).least(after(ring, 1));
        let began = Instant::now();
        thread::scope(|scope| {
            scope.spawn(move || {
                thread::sleep(4 * STEP);
                let (token, _) = log.lock().unwrap().pending.remove(0);
                completer.complete(token, 8).unwrap();
            });
            assert_eq!(ring.wait(2, until), Ok(0));
        });
        assert!(began.elapsed() >= 4 * STEP);
        assert_eq!(ring.reap(), [(1, 8)]);
    });
}

#[test]
fn a_timeout_ends_every_wait() {
    each(|ring| {
        let soon = Timespec::from(STEP);
        ring.submit(&[Timeout::new(&soon).build().user_data(1)]);
        let began = Instant::now();
        assert_eq!(ring.wait(5, None.into()), Ok(0));
        assert!(began.elapsed() >= STEP / 2);
        assert_eq!(ring.reap(), [(1, Errno::ETIME.to_result())]);
    });
}

#[test]
fn arguments_become_points_in_time() {
    struct Noon;
    impl Clock for Noon {
        fn now(&self) -> u64 {
            1_000_000
        }
    }
    let args = SubmitArgs::new();
    assert_eq!(Until::new(&args, false, &Noon), Until::default());
    let args = args.timespec(&Timespec::new().nsec(5)).min_wait_usec(u32::MAX);
    let least = 1_000_000 + u64::from(u32::MAX) * 1000;
    assert_eq!(Until::new(&args, false, &Noon), Until::from(Some(1_000_005)).least(least));
    assert_eq!(Until::new(&args, true, &Noon), Until::from(Some(5)).least(least));
    let for_ever = SubmitArgs::new().timespec(&Timespec::new().sec(u64::MAX));
    assert_eq!(Until::new(&for_ever, false, &Noon), Until::default());
}
