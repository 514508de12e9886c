//! Timeouts by other clocks than the monotonic one, which jump here. DESIGN row
//! *links, drain, timeouts, cancel*.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Footprint};
use annulus::engine::{EnterFlags, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Cancel, Clock, Host, OtherClock, Park, Parked, Request, Start, Token};
use annulus::opcode::{LinkTimeout, Timeout, TimeoutUpdate};
use annulus::register::Call;
use annulus::squeue::{Entry, Flags};
use annulus::types::{SubmitArgs, TimeoutFlags, Timespec};
use common::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HOUR: u64 = 3600 * 1_000_000_000;
const ETIME: i32 = -62;
const ABS: TimeoutFlags = TimeoutFlags::ABS;
const WALL: TimeoutFlags = TimeoutFlags::REALTIME;
const BOOT: TimeoutFlags = TimeoutFlags::BOOTTIME;

fn ring() -> Rig {
    let rig = rig(Config::new(16).submit_all(true));
    for clock in [OtherClock::Wall, OtherClock::Boot] {
        set(&rig, clock, 10 * HOUR);
    }
    rig
}

/// Sets a clock, to be so far ahead.
fn set(rig: &Rig, clock: OtherClock, ahead: u64) {
    rig.host.ahead[clock as usize].store(ahead, Ordering::Relaxed);
}

/// The time of a clock, and some more.
fn after(rig: &Rig, clock: OtherClock, nanos: u64) -> Timespec {
    let time = Place(rig.host.clone()).time(clock).unwrap() + nanos;
    Timespec::from(Duration::from_nanos(time))
}

fn timeout(time: &Timespec, flags: TimeoutFlags) -> Entry {
    Timeout::new(time).flags(flags).build().user_data(1)
}

fn run(rig: &mut Rig, entries: &[Entry]) -> Vec<(u64, i32)> {
    rig.push(entries);
    let count = entries.len() as u32;
    assert_eq!(rig.parts.engine.enter(count, 0, EnterFlags::empty(), None), Ok(count));
    rig.reap()
}

/// What comes within so many milliseconds.
fn within(rig: &mut Rig, ms: u64) -> Vec<(u64, i32)> {
    let deadline = Place(rig.host.clone()).now() + ms * 1_000_000;
    let waited = rig.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, Some(deadline));
    let seen = rig.reap();
    assert_eq!(waited.err(), seen.is_empty().then_some(Errno::ETIME));
    seen
}

/// What comes of entries, at once or within half a minute: on a slow machine a
/// short time is over before it is waited for.
fn comes(rig: &mut Rig, entries: &[Entry]) -> Vec<(u64, i32)> {
    let seen = run(rig, entries);
    if seen.is_empty() { within(rig, 30_000) } else { seen }
}

#[test]
fn a_point_in_time_of_another_clock_comes() {
    for (flags, clock) in [(WALL, OtherClock::Wall), (BOOT, OtherClock::Boot)] {
        let mut rig = ring();
        let time = after(&rig, clock, 30_000_000);
        let began = Instant::now();
        assert_eq!(comes(&mut rig, &[timeout(&time, ABS | flags)]), [(1, ETIME)]);
        assert!(began.elapsed() >= Duration::from_millis(20));
        // One that has passed.
        assert_eq!(run(&mut rig, &[timeout(&time, ABS | flags)]), [(1, ETIME)]);
    }
}

#[test]
fn a_clock_that_is_set_forward_is_noticed() {
    for (flags, clock) in [(WALL, OtherClock::Wall), (BOOT, OtherClock::Boot)] {
        let mut rig = ring();
        let time = after(&rig, clock, HOUR);
        run(&mut rig, &[timeout(&time, ABS | flags)]);
        assert_eq!(within(&mut rig, 10), []);
        set(&rig, clock, 12 * HOUR);
        assert_eq!(within(&mut rig, 30_000), [(1, ETIME)]);
    }
}

#[test]
fn a_clock_that_is_set_back_ends_nothing_too_early() {
    const SOON: Duration = Duration::from_millis(300);
    // Again if it was over before the clock was set.
    let mut rig = loop {
        let mut rig = ring();
        let began = Instant::now();
        let time = after(&rig, OtherClock::Wall, SOON.as_nanos() as u64);
        run(&mut rig, &[timeout(&time, ABS | WALL)]);
        set(&rig, OtherClock::Wall, 9 * HOUR);
        if began.elapsed() < SOON {
            break rig;
        }
    };
    assert_eq!(within(&mut rig, 400), []);
    // It is still found, and has a place of its own among others.
    let soon = Timespec::new().nsec(1_000_000);
    let other = Timeout::new(&soon).build().user_data(2);
    assert_eq!(comes(&mut rig, &[other]), [(2, ETIME)]);
    let soon = after(&rig, OtherClock::Wall, 1_000_000);
    let update = TimeoutUpdate::new(1, &soon).flags(ABS).build().user_data(3);
    let mut seen = run(&mut rig, &[update]);
    while seen.len() < 2 {
        seen.extend(within(&mut rig, 30_000));
    }
    assert_eq!(seen, [(3, 0), (1, ETIME)]);
}

#[test]
fn a_span_runs_on_in_suspend_by_one_clock_only() {
    let mut rig = ring();
    let hour = Timespec::from(Duration::from_nanos(HOUR));
    run(&mut rig, &[timeout(&hour, WALL), timeout(&hour, BOOT).user_data(2)]);
    for clock in [OtherClock::Wall, OtherClock::Boot] {
        set(&rig, clock, 12 * HOUR);
    }
    assert_eq!(within(&mut rig, 30_000), [(2, ETIME)]);
    assert_eq!(within(&mut rig, 0), []);
}

#[test]
fn guards_have_clocks_too() {
    let mut rig = ring();
    let time = after(&rig, OtherClock::Wall, HOUR);
    let guard = LinkTimeout::new(&time).flags(ABS | WALL).build().user_data(2);
    let hour = Timespec::from(Duration::from_nanos(HOUR));
    let guarded = Timeout::new(&hour).build().user_data(1).flags(Flags::IO_LINK);
    run(&mut rig, &[guarded, guard]);
    assert_eq!(within(&mut rig, 10), []);
    set(&rig, OtherClock::Wall, 12 * HOUR);
    assert_eq!(within(&mut rig, 30_000), [(2, ETIME), (1, Errno::ECANCELED.to_result())]);
}

#[test]
fn a_clock_that_there_is_not_is_refused() {
    let mut rig = ring();
    let time = Timespec::new().sec(3600);
    run(&mut rig, &[timeout(&time, WALL)]);
    for clock in [OtherClock::Wall, OtherClock::Boot] {
        set(&rig, clock, 0);
    }
    let einval = Errno::EINVAL.to_result();
    for flags in [ABS | WALL, ABS | BOOT, BOOT] {
        assert_eq!(run(&mut rig, &[timeout(&time, flags).user_data(5)]), [(5, einval)]);
    }
    let update = TimeoutUpdate::new(1, &time).flags(ABS).build().user_data(6);
    assert_eq!(run(&mut rig, &[update]), [(6, einval)]);
}

fn register(rig: &mut Rig, clock: u32) -> Result<u32, Errno> {
    // SAFETY: no memory is registered.
    unsafe { rig.parts.engine.call(Call::RegisterClock(clock)) }
}

/// How long a wait for nothing takes, of who drives the engine, and of another.
fn waits(rig: &mut Rig, args: &SubmitArgs, absolute: bool) -> [Duration; 2] {
    let began = Instant::now();
    let until = rig.parts.engine.until(args, absolute);
    let waited = rig.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, until);
    assert_eq!(waited, Err(Errno::ETIME));
    let first = began.elapsed();
    let until = rig.parts.remote.until(args, absolute);
    assert_eq!(rig.parts.remote.wait_cqes(1, until), Err(Errno::ETIME));
    [first, began.elapsed() - first]
}

#[test]
fn row_enter_waits_go_by_the_clock_that_is_registered() {
    const SOON: Duration = Duration::from_millis(20);
    let mut rig = ring();
    for clock in [0, 2, 8, 11, u32::MAX] {
        assert_eq!(register(&mut rig, clock), Err(Errno::EINVAL), "{clock}");
    }
    let soon = SubmitArgs::new().timespec(&Timespec::from(SOON));
    for clock in [1, 7, 1] {
        assert_eq!(register(&mut rig, clock), Ok(0));
        assert!(waits(&mut rig, &soon, false).iter().all(|took| *took >= SOON));
        let least = SubmitArgs::new().min_wait_usec(SOON.as_micros() as u32);
        assert!(waits(&mut rig, &least, false).iter().all(|took| *took >= SOON));
    }
    register(&mut rig, 7).unwrap();
    // By the other clock it would be ten hours.
    let began = Instant::now();
    let time = after(&rig, OtherClock::Boot, SOON.as_nanos() as u64);
    waits(&mut rig, &SubmitArgs::new().timespec(&time), true);
    assert!(began.elapsed() >= SOON);
    // And this is over.
    let time = Place(rig.host.clone()).now() + HOUR;
    let time = Timespec::from(Duration::from_nanos(time));
    waits(&mut rig, &SubmitArgs::new().timespec(&time), true);
}

#[test]
fn row_enter_a_wait_runs_on_in_suspend() {
    let mut rig = ring();
    register(&mut rig, 7).unwrap();
    let hour = SubmitArgs::new().timespec(&Timespec::new().sec(3600));
    let until = rig.parts.engine.until(&hour, false);
    let remote = rig.parts.remote;
    let others = remote.until(&hour, false);
    let other = std::thread::spawn(move || remote.wait_cqes(1, others));
    std::thread::sleep(Duration::from_millis(30));
    // An hour passes, and some more.
    set(&rig, OtherClock::Boot, 12 * HOUR);
    let waited = rig.parts.engine.enter(0, 1, EnterFlags::GETEVENTS, until);
    assert_eq!(waited, Err(Errno::ETIME));
    assert_eq!(other.join().unwrap(), Err(Errno::ETIME));
}

#[test]
fn no_wait_goes_by_a_clock_that_there_is_not() {
    let mut rig = rig(Config::new(4));
    assert_eq!(register(&mut rig, 7), Err(Errno::EINVAL));
    assert_eq!(register(&mut rig, 1), Ok(0));
}

/// A clock that each look moves.
#[derive(Clone, Default)]
struct Ticking(Arc<AtomicU64>);

impl Clock for Ticking {
    fn now(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}

impl Park for Ticking {
    fn park(&self, _: &annulus::sync::AtomicU32, _: u32, _: Option<u64>) -> Parked {
        Parked::Interrupted
    }

    fn unpark(&self, _: &annulus::sync::AtomicU32) {}
}

impl Host for Ticking {}

/// It is never asked for anything.
struct Nobody;

impl Backend for Nobody {
    no_handles!();

    fn supports(&self, _: u8) -> bool {
        false
    }

    unsafe fn start(&mut self, _: Token, _: &Request<(), ()>) -> Start {
        unreachable!("nothing is for the backend")
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        panic!("{token:?} is cancelled, which the backend never had")
    }
}

/// Its guard's time is over between the end of a timeout and what says so.
#[test]
fn a_guard_of_a_timeout_that_has_just_ended_asks_nobody() {
    let hour = Timespec::new().sec(3600);
    let mut late = 0;
    for ns in 1..60 {
        let config = Config::new(8);
        let need = Footprint::of::<Nobody, Ticking>(&config).total();
        let host = Ticking::default();
        let mut parts = build(&config, memory(need), RingMemory::Inside, host, |_| Nobody).unwrap();
        let time = Timespec::new().nsec(ns);
        let ends = Timeout::new(&hour).count(1).build().flags(Flags::IO_LINK).user_data(1);
        push(&mut parts.sq, &[ends, LinkTimeout::new(&time).build().user_data(2)]);
        parts.engine.enter(2, 0, EnterFlags::empty(), None).unwrap();
        push(&mut parts.sq, &[nop(3)]);
        parts.engine.enter(1, 0, EnterFlags::empty(), None).unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            parts.engine.enter(0, 0, EnterFlags::GETEVENTS, Some(0)).ok();
            seen.extend(parts.cq.queue().map(|cqe| (cqe.user_data(), cqe.result())));
        }
        seen.sort_unstable();
        let by = |timeout: i32, guard: i32| vec![(1, timeout), (2, guard), (3, 0)];
        let cancelled = Errno::ECANCELED.to_result();
        let allowed = [
            by(0, cancelled),
            by(0, Errno::EALREADY.to_result()),
            by(cancelled, Errno::ETIME.to_result()),
        ];
        assert!(allowed.contains(&seen), "{ns} ns: {seen:?}");
        late += u32::from(seen == allowed[1]);
    }
    assert_ne!(late, 0, "no guard was late");
}
