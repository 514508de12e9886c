//! A ring whose engine is a thread that polls, and sleeps at once when there
//! is nothing (the idle period is none, in a model).

use crate::script::{
    Hands, Rig, Script, Threads, by_threads, nop, push, read, reap, rig, rig_device, rig_on,
};
use annulus::config::{Config, Mode};
use annulus::engine::{Engine, EnterFlags, Remote};
use annulus::errno::Errno;
use annulus::hal::{Request, Start, Token};
use annulus::model::Place;
use annulus::register::Call;
use annulus::ring::SqHalf;
use annulus::sqe::Sqe;
use annulus::sync::UnsafeCell;
use annulus::types::Timespec;
use annulus::uapi::IORING_OP_TIMEOUT;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

const SMALL: Config = Config::new(1).cq_entries(1).mode(Mode::SqPoll { idle_ms: 0 });

fn no_requests(_: Hands, _: Token, _: &Request<(), ()>) -> Start {
    unreachable!("only NOPs in this model")
}

fn poll(mut engine: Engine<'static, Script, Place>) -> JoinHandle<()> {
    thread::spawn(move || engine.poll_loop())
}

/// Pushes one SQE and wakes the engine if it asks for it, as a program does.
fn submit(sq: &mut SqHalf<'_>, remote: &Remote<'_, Place>, n: Sqe) {
    push(sq, n).unwrap();
    if remote.need_wakeup() {
        assert_eq!(remote.enter(1, 0, EnterFlags::SQ_WAKEUP, None), Ok(1));
    }
}

/// An SQE wakes the sleeping engine, its CQE the waiting application, and the
/// stop the engine again.
pub fn sqpoll_submit() {
    let Rig { parts, arena } = rig(SMALL, no_requests);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    submit(&mut sq, &remote, nop(7));
    assert_eq!(remote.wait_cqes(1, None), Ok(()));
    assert_eq!(reap(&mut cq), [(7, 0)]);
    remote.stop();
    engine.join().unwrap();
    assert!(remote.stopped());
    drop(arena);
}

/// A completion wakes the sleeping engine, and what was written before it the
/// application reads after the CQE.
pub fn sqpoll_return() {
    returned(Place::new());
}

/// The same, where sleep and wake-up order nothing by themselves.
pub fn sqpoll_unordered() {
    returned(Place::unordered());
}

fn returned(place: Place) {
    let threads = Threads::default();
    let data = Arc::new(UnsafeCell::new(0));
    let Rig { parts, arena } = rig_on(place, SMALL, {
        let (threads, data) = (threads.clone(), data.clone());
        move |hands: Hands, token: Token, request: &Request<(), ()>| {
            let (data, result) = (data.clone(), request.len as i32);
            threads.spawn(move || {
                // SAFETY: the application reads it after the CQE only.
                data.with_mut(|data| unsafe { *data = 5 });
                hands.complete(token, result).unwrap();
            });
            Start::Pending
        }
    });
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    submit(&mut sq, &remote, read(7));
    assert_eq!(remote.wait_cqes(1, None), Ok(()));
    assert_eq!(reap(&mut cq), [(7, 7)]);
    // SAFETY: its writer has completed the request.
    assert_eq!(data.with(|data| unsafe { *data }), 5);
    remote.stop();
    engine.join().unwrap();
    threads.join();
    drop(arena);
}

/// An SQ of one: the application waits for its place.
pub fn sqpoll_sq_room() {
    let Rig { parts, arena } = rig(SMALL.cq_entries(2), no_requests);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    submit(&mut sq, &remote, nop(1));
    assert_eq!(remote.enter(0, 0, EnterFlags::SQ_WAIT, None), Ok(0));
    submit(&mut sq, &remote, nop(2));
    assert_eq!(remote.wait_cqes(2, None), Ok(()));
    assert_eq!(reap(&mut cq), [(1, 0), (2, 0)]);
    remote.stop();
    engine.join().unwrap();
    drop(arena);
}

/// A CQ of one: room in it wakes the engine that has a CQE waiting for it.
pub fn sqpoll_cq_room() {
    let Rig { parts, arena } = rig(SMALL, no_requests);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    submit(&mut sq, &remote, nop(1));
    assert_eq!(remote.wait_sq_room(None), Ok(()));
    submit(&mut sq, &remote, nop(2));
    for n in 1..=2 {
        assert_eq!(remote.wait_cqes(1, None), Ok(()));
        assert_eq!(reap(&mut cq), [(n, 0)]);
    }
    remote.stop();
    engine.join().unwrap();
    assert!(!sq.queue().cq_overflow());
    drop(arena);
}

/// A call wakes the sleeping engine, its answer the caller.
pub fn sqpoll_mail() {
    let Rig { parts, arena } = rig(SMALL.files(1), no_requests);
    let remote = parts.remote;
    let engine = poll(parts.engine);
    // SAFETY: no memory is registered.
    let call = |call| unsafe { remote.call(call) };
    assert_eq!(call(Call::RegisterFilesSparse(1)), Ok(0));
    remote.stop();
    assert_eq!(
        call(Call::RegisterFilesSparse(1)).map_err(|e| e == Errno::ENXIO || e == Errno::EBUSY),
        Err(true)
    );
    engine.join().unwrap();
    drop(arena);
}

/// A timeout that ends, ends a wait for more, which then sees its CQE and those
/// before it. Otherwise what comes from elsewhere does.
pub fn sqpoll_timeout() {
    let threads = Threads::default();
    let config = Config::new(4).requests(3).mode(Mode::SqPoll { idle_ms: 0 });
    let Rig { parts, arena } = rig(config, by_threads(&threads));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    // It ends by the count, of one.
    let never = Timespec::new().sec(1 << 40);
    let timeout = Sqe {
        opcode: IORING_OP_TIMEOUT,
        addr: (&raw const never) as u64,
        len: 1,
        off: 1,
        ..nop(1)
    };
    for sqe in [read(3), timeout, nop(2)] {
        push(&mut sq, sqe).unwrap();
    }
    if remote.need_wakeup() {
        assert_eq!(remote.enter(3, 0, EnterFlags::SQ_WAKEUP, None), Ok(3));
    }
    assert_eq!(remote.wait_cqes(3, None), Ok(()));
    let seen: Vec<_> = reap(&mut cq).into_iter().map(|(user_data, _)| user_data).collect();
    assert!(seen.contains(&1) && seen.len() >= 2, "{seen:?}");
    remote.stop();
    engine.join().unwrap();
    threads.join();
    drop(arena);
}

/// An interrupt wakes the sleeping engine, which polls its backend.
pub fn sqpoll_interrupt() {
    let threads = Threads::default();
    let Rig { parts, arena } = rig_device(SMALL, &threads);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    submit(&mut sq, &remote, read(7));
    assert_eq!(remote.wait_cqes(1, None), Ok(()));
    assert_eq!(reap(&mut cq), [(7, 7)]);
    remote.stop();
    engine.join().unwrap();
    threads.join();
    drop(arena);
}

/// A pool of one and the reserve, both taken: the next SQE waits in the ring.
/// When they have ended, it is taken, and so is one that comes when the
/// engine falls asleep.
pub fn sqpoll_starved() {
    let threads = Threads::default();
    let mut first = None;
    let Rig { parts, arena } = rig(SMALL.cq_entries(4), {
        let threads = threads.clone();
        move |hands: Hands, token: Token, _: &Request<(), ()>| {
            match first {
                None => first = Some(token),
                Some(first) => threads.spawn(move || {
                    hands.complete(first, 1).unwrap();
                    hands.complete(token, 2).unwrap();
                }),
            }
            Start::Pending
        }
    });
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    for sqe in [read(1), read(2), nop(3), nop(4)] {
        assert_eq!(remote.wait_sq_room(None), Ok(()));
        submit(&mut sq, &remote, sqe);
    }
    assert_eq!(remote.wait_cqes(4, None), Ok(()));
    let mut seen = reap(&mut cq);
    // The third may pass the second, in the first one's place.
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2), (3, 0), (4, 0)]);
    remote.stop();
    engine.join().unwrap();
    threads.join();
    drop(arena);
}

/// A stop with work in flight: the engine ends when the work has.
pub fn sqpoll_stop() {
    let threads = Threads::default();
    let Rig { parts, arena } = rig(SMALL, by_threads(&threads));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    submit(&mut sq, &remote, read(7));
    remote.stop();
    engine.join().unwrap();
    assert!(remote.stopped());
    assert_eq!(remote.enter(0, 1, EnterFlags::GETEVENTS, None), Err(Errno::EOWNERDEAD));
    let seen = reap(&mut cq);
    assert!(seen.is_empty() || seen == [(7, 7)], "{seen:?}");
    threads.join();
    drop(arena);
}

/// The engine is stopped while the application waits: it gets its CQE, or
/// hears that none will come.
pub fn sqpoll_stop_waiting() {
    let Rig { parts, arena } = rig(SMALL, no_requests);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let engine = poll(parts.engine);
    let stopper = thread::spawn(move || remote.stop());
    submit_to_dying(&mut sq, &remote);
    let waited = remote.wait_cqes(1, None);
    engine.join().unwrap();
    stopper.join().unwrap();
    match waited {
        Ok(()) => assert_eq!(reap(&mut cq), [(7, 0)]),
        Err(errno) => {
            assert_eq!(errno, Errno::EOWNERDEAD);
            assert!(reap(&mut cq).is_empty(), "the end comes after the last CQE");
        }
    }
    drop(arena);
}

/// As [`submit`], to an engine that may have ended.
fn submit_to_dying(sq: &mut SqHalf<'_>, remote: &Remote<'_, Place>) {
    push(sq, nop(7)).unwrap();
    if remote.need_wakeup() {
        let entered = remote.enter(1, 0, EnterFlags::SQ_WAKEUP, None);
        assert!(entered == Ok(1) || entered == Err(Errno::EOWNERDEAD));
    }
}
