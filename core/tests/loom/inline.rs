//! A ring driven by the application's own thread, completed by others.

use crate::script::{
    Hands, Rig, Threads, by_threads, fixed, nop, push, read, reap, register, rig, rig_device,
    rig_resumed,
};
use annulus::config::Config;
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::hal::{Request, Start, Token};
use annulus::sqe::Sqe;
use annulus::sync::{AtomicU32, Ordering, UnsafeCell};
use loom::sync::{Arc, mpsc};
use loom::thread;

const WAIT: EnterFlags = EnterFlags::GETEVENTS;

/// A completion from another thread wakes the waiting engine, and brings what
/// was written before it.
pub fn inline_wait() {
    let threads = Threads::default();
    let data = Arc::new(UnsafeCell::new(0));
    let Rig { mut parts, arena } = rig(Config::new(1).cq_entries(1), {
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
    push(&mut parts.sq, read(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut parts.cq), [(7, 7)]);
    // SAFETY: its writer has completed the request.
    assert_eq!(data.with(|data| unsafe { *data }), 5);
    threads.join();
    drop(parts);
    drop(arena);
}

/// Two completers at once.
pub fn inline_two() {
    let threads = Threads::default();
    let Rig { mut parts, arena } = rig(Config::new(2).cq_entries(2), by_threads(&threads));
    push(&mut parts.sq, read(1)).unwrap();
    push(&mut parts.sq, read(2)).unwrap();
    assert_eq!(parts.engine.enter(2, 2, WAIT, None), Ok(2));
    let mut seen = reap(&mut parts.cq);
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2)]);
    threads.join();
    drop(parts);
    drop(arena);
}

/// Whatever the engine has not fetched, TASKRUN tells of.
pub fn taskrun() {
    let threads = Threads::default();
    let Rig { mut parts, arena } = rig(Config::new(2).cq_entries(2), by_threads(&threads));
    push(&mut parts.sq, read(1)).unwrap();
    push(&mut parts.sq, read(2)).unwrap();
    assert_eq!(parts.engine.enter(2, 0, EnterFlags::empty(), None), Ok(2));
    assert_eq!(parts.engine.enter(0, 0, WAIT, None), Ok(0));
    threads.join();
    let mut seen = reap(&mut parts.cq);
    if seen.len() < 2 {
        assert!(parts.sq.queue().taskrun(), "an application that looks comes and fetches");
        assert_eq!(parts.engine.enter(0, 0, WAIT, None), Ok(0));
        seen.extend(reap(&mut parts.cq));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2)]);
    drop(parts);
    drop(arena);
}

/// One slot, used three times. A completion may come before the start has
/// returned, and each token comes back twice.
pub fn slot_life() {
    slot_lives(read);
}

/// [`slot_life`] of fixed reads of a registered file.
pub fn slot_life_fixed() {
    slot_lives(fixed);
}

fn slot_lives(read: fn(u64) -> Sqe) {
    let threads = Threads::default();
    let mut early = true;
    let config = Config::new(1).cq_entries(1).files(1).buffers(1);
    let Rig { mut parts, arena } = rig(config, {
        let threads = threads.clone();
        move |hands: Hands, token: Token, request: &Request<(), ()>| {
            let result = request.len as i32;
            let twice = move || {
                hands.complete(token, result).unwrap();
                hands.complete(token, -1).expect_err("only once");
            };
            if std::mem::take(&mut early) {
                thread::spawn(twice).join().unwrap();
            } else {
                threads.spawn(twice);
            }
            Start::Pending
        }
    });
    register(&mut parts.engine);
    for n in 1..=3 {
        push(&mut parts.sq, read(n)).unwrap();
        assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
        assert_eq!(reap(&mut parts.cq), [(n, n as i32)]);
    }
    threads.join();
    assert_eq!(parts.engine.stats().stale, 3);
    drop(parts);
    drop(arena);
}

/// A request that goes on after a READY notice, and ends by another.
pub fn resumed() {
    let threads = Threads::default();
    let armed = Arc::new(AtomicU32::new(0));
    let start = {
        let (threads, armed) = (threads.clone(), armed.clone());
        move |hands: Hands, token: Token, _: &Request<(), ()>| {
            let armed = armed.clone();
            threads.spawn(move || {
                hands.ready(token).unwrap();
                while armed.load(Ordering::Acquire) == 0 {
                    thread::yield_now();
                }
                hands.ready(token).expect("the engine asked for it");
            });
            Start::Pending
        }
    };
    let resume = move |_| {
        if armed.fetch_add(1, Ordering::Release) == 0 { Start::Pending } else { Start::Done(9) }
    };
    let Rig { mut parts, arena } = rig_resumed(Config::new(1).cq_entries(1), start, resume);
    push(&mut parts.sq, read(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut parts.cq), [(7, 9)]);
    threads.join();
    drop(parts);
    drop(arena);
}

/// A pool of one and the reserve, a CQ of one, and a thread that completes:
/// every request gets its CQE, and `EBUSY` comes only while there is something
/// to wait or to reap for.
pub fn fallback() {
    const REQUESTS: u64 = 3;
    let (to, tokens) = mpsc::channel::<(Token, i32)>();
    let start = move |_: Hands, token: Token, request: &Request<(), ()>| {
        to.send((token, request.len as i32)).unwrap();
        Start::Pending
    };
    let Rig { mut parts, arena } = rig(Config::new(1).cq_entries(1), start);
    let hands = parts.engine.backend().hands;
    let completer = thread::spawn(move || {
        for _ in 0..REQUESTS {
            let (token, result) = tokens.recv().unwrap();
            hands.complete(token, result).unwrap();
        }
    });
    let (mut pushed, mut seen) = (0, Vec::new());
    while seen.len() < REQUESTS as usize {
        if pushed < REQUESTS && push(&mut parts.sq, read(pushed + 1)).is_ok() {
            pushed += 1;
        }
        let ready = parts.sq.ready();
        match parts.engine.enter(ready, 0, EnterFlags::empty(), None) {
            Ok(taken) => assert_eq!(taken, ready),
            Err(errno) => {
                assert_eq!(errno, Errno::EBUSY);
                let waits = parts.engine.pending() > 0 || parts.sq.queue().cq_overflow();
                assert!(waits, "reaping leads to progress");
            }
        }
        if pushed == REQUESTS || parts.sq.ready() > 0 {
            assert_eq!(parts.engine.enter(0, 1, WAIT, None), Ok(0));
        }
        seen.extend(reap(&mut parts.cq));
    }
    completer.join().unwrap();
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2), (3, 3)]);
    // Pool and reserve are whole again: one CQE in the ring, two that wait.
    for n in 4..=6 {
        push(&mut parts.sq, nop(n)).unwrap();
        assert_eq!(parts.engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    }
    drop(parts);
    drop(arena);
}

/// A ring dropped with work in flight waits for it.
pub fn drop_in_flight() {
    let threads = Threads::default();
    let Rig { mut parts, arena } = rig(Config::new(2).cq_entries(2), by_threads(&threads));
    push(&mut parts.sq, read(1)).unwrap();
    push(&mut parts.sq, nop(2)).unwrap();
    assert_eq!(parts.engine.enter(2, 0, EnterFlags::empty(), None), Ok(2));
    parts.engine.shutdown();
    assert_eq!(parts.engine.pending(), 0);
    assert_eq!(parts.engine.enter(0, 1, WAIT, None), Err(Errno::EOWNERDEAD));
    threads.join();
    drop(parts);
    drop(arena);
}

/// An interrupt wakes the waiting engine, which polls its backend.
pub fn inline_interrupt() {
    let threads = Threads::default();
    let Rig { mut parts, arena } = rig_device(Config::new(1).cq_entries(1), &threads);
    push(&mut parts.sq, read(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut parts.cq), [(7, 7)]);
    threads.join();
    drop(parts);
    drop(arena);
}

/// A ring dropped while its device is at work.
pub fn drop_interrupt() {
    let threads = Threads::default();
    let Rig { mut parts, arena } = rig_device(Config::new(1).cq_entries(1), &threads);
    push(&mut parts.sq, read(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    drop(parts);
    threads.join();
    drop(arena);
}

/// A READY notice that crosses the end which another one led to: it comes
/// home, has no effect, and leaves the slot to the next request.
pub fn crossing() {
    let threads = Threads::default();
    let start = {
        let threads = threads.clone();
        move |hands: Hands, token: Token, request: &Request<(), ()>| {
            let result = request.len as i32;
            threads.spawn(move || match result {
                1 => {
                    hands.ready(token).unwrap();
                    // It may be on the list still, or the request be over.
                    let _ = hands.ready(token);
                }
                _ => hands.complete(token, result).unwrap(),
            });
            Start::Pending
        }
    };
    let resume = |_| Start::Done(1);
    let Rig { mut parts, arena } = rig_resumed(Config::new(1).cq_entries(1), start, resume);
    for n in 1..=2 {
        push(&mut parts.sq, read(n)).unwrap();
        assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
        assert_eq!(reap(&mut parts.cq), [(n, n as i32)]);
    }
    assert_eq!(parts.engine.pending(), 0);
    threads.join();
    drop(parts);
    drop(arena);
}
