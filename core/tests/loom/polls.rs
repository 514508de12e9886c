//! Waits for readiness: armed, woken early and again, removed while they fire.

use crate::script::{Hands, Rig, Threads, nop, push, read, rig_resumed};
use annulus::config::Config;
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::hal::{Request, Start, Token};
use annulus::opcode::{PollAdd, PollRemove};
use annulus::ring::CqHalf;
use annulus::sqe::Sqe;
use annulus::sync::{AtomicU32, Ordering};
use annulus::types::Fd;
use annulus::uapi::IORING_OP_POLL_ADD;
use loom::sync::Arc;
use loom::thread;

const WAIT: EnterFlags = EnterFlags::GETEVENTS;
const NONE: EnterFlags = EnterFlags::empty();

/// The waits' `user_data`, and that of who removes them.
const WAITER: u64 = 1;
const REMOVER: u64 = 2;

fn add(multi: bool) -> Sqe {
    PollAdd::new(Fd(0), 1).multi(multi).build().user_data(WAITER)
}

fn remove() -> Sqe {
    PollRemove::new(WAITER).build().user_data(REMOVER)
}

/// What a file is ready for: 0, or a number that grows with each wake-up.
type Events = Arc<AtomicU32>;

/// A starter whose waits are woken by a thread, `wakes` times, the first of
/// them maybe before they are armed. It tries each once: a notice that is
/// refused is one that another has come for.
fn woken(
    threads: &Threads,
    events: &Events,
    wakes: u32,
) -> impl FnMut(Hands, Token, &Request<(), ()>) -> Start + 'static {
    let (threads, events) = (threads.clone(), events.clone());
    move |hands, token, request| {
        if request.opcode != IORING_OP_POLL_ADD {
            let result = request.len as i32;
            threads.spawn(move || hands.complete(token, result).expect("its own token"));
            return Start::Pending;
        }
        let events = events.clone();
        threads.spawn(move || {
            for n in 1..=wakes {
                // Relaxed: what a notice tells of, it orders itself.
                events.store(n, Ordering::Relaxed);
                let _ = hands.ready(token);
            }
        });
        Start::Pending
    }
}

/// What a woken wait finds.
fn found(events: &Events, multi: bool) -> impl FnMut(Token) -> Start + 'static {
    let events = events.clone();
    move |_| match events.load(Ordering::Relaxed) as i32 {
        0 => Start::Pending,
        now if multi => Start::More(now),
        now => Start::Done(now),
    }
}

/// Every CQE that is there, as (`user_data`, `res`, whether more come).
fn reap(cq: &mut CqHalf<'_>) -> Vec<(u64, i32, bool)> {
    let more = |flags| annulus::cqueue::more(flags);
    cq.queue().map(|cqe| (cqe.user_data, cqe.res, more(cqe.flags))).collect()
}

/// A multishot wait tells of the last wake-up, though its notice may have been
/// refused because the one before it was still there.
pub fn poll_wakes() {
    let (threads, events) = (Threads::default(), Events::default());
    let (start, resume) = (woken(&threads, &events, 2), found(&events, true));
    let Rig { mut parts, arena } = rig_resumed(Config::new(2).cq_entries(8), start, resume);
    push(&mut parts.sq, add(true)).unwrap();
    assert_eq!(parts.engine.enter(1, 0, NONE, None), Ok(1));
    let mut seen = Vec::new();
    while seen.last() != Some(&(WAITER, 2, true)) {
        assert_eq!(parts.engine.enter(0, 1, WAIT, None), Ok(0));
        seen.extend(reap(&mut parts.cq));
    }
    assert!(seen.iter().all(|&(who, _, more)| who == WAITER && more));
    threads.join();
    assert_eq!(parts.engine.pending(), 1, "it goes on");
    // A notice may be left over, then the removal comes too late for it.
    loop {
        push(&mut parts.sq, remove()).unwrap();
        assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
        seen.extend(reap(&mut parts.cq));
        if seen.contains(&(REMOVER, 0, false)) {
            break;
        }
    }
    while parts.engine.pending() != 0 {
        assert_eq!(parts.engine.enter(0, 1, WAIT, None), Ok(0));
    }
    seen.extend(reap(&mut parts.cq));
    let ends = seen.iter().filter(|&&(who, _, more)| who == WAITER && !more);
    assert_eq!(ends.collect::<Vec<_>>(), [&(WAITER, Errno::ECANCELED.to_result(), false)]);
    drop(parts);
    drop(arena);
}

/// A wait that is woken, twice, while it is removed: it ends once, as the
/// removal says, and its slot's next request hears nothing of it.
pub fn poll_remove() {
    let (threads, events) = (Threads::default(), Events::default());
    let (start, resume) = (woken(&threads, &events, 2), found(&events, false));
    let config = Config::new(2).requests(1).cq_entries(4);
    let Rig { mut parts, arena } = rig_resumed(config, start, resume);
    push(&mut parts.sq, add(false)).unwrap();
    push(&mut parts.sq, remove()).unwrap();
    // The pool's only record waits: the removal has the reserve.
    assert_eq!(parts.engine.enter(2, 2, WAIT, None), Ok(2));
    let mut seen = reap(&mut parts.cq);
    seen.sort_unstable();
    let [(WAITER, ended, false), (REMOVER, removed, false)] = seen[..] else {
        panic!("each ends once: {seen:?}");
    };
    match Errno::from_result(removed) {
        None => assert_eq!(ended, Errno::ECANCELED.to_result()),
        Some(errno) => {
            assert!(errno == Errno::EALREADY || errno == Errno::ENOENT);
            assert!(ended == 1 || ended == 2, "woken");
        }
    }
    push(&mut parts.sq, read(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut parts.cq), [(7, 7, false)]);
    assert_eq!(parts.engine.pending(), 0);
    threads.join();
    drop(parts);
    drop(arena);
}

/// A multishot wait whose CQE finds no room ends with it, though another
/// wake-up may be on its way.
pub fn poll_room() {
    let (threads, events) = (Threads::default(), Events::default());
    let (start, resume) = (woken(&threads, &events, 2), found(&events, true));
    let config = Config::new(1).requests(1).cq_entries(1);
    let Rig { mut parts, arena } = rig_resumed(config, start, resume);
    push(&mut parts.sq, nop(3)).unwrap();
    assert_eq!(parts.engine.enter(1, 0, NONE, None), Ok(1));
    push(&mut parts.sq, add(true)).unwrap();
    assert_eq!(parts.engine.enter(1, 0, NONE, None), Ok(1));
    while parts.engine.backend().ends == 0 {
        assert_eq!(parts.engine.enter(0, 0, WAIT, None), Ok(0));
        thread::yield_now();
    }
    let mut seen = reap(&mut parts.cq);
    // It may have to wait until a wake-up that crosses its end is home.
    assert_eq!(parts.engine.enter(0, 1, WAIT, None), Ok(0));
    seen.extend(reap(&mut parts.cq));
    let [(3, 0, false), (WAITER, 1 | 2, false)] = seen[..] else {
        panic!("one end, and nothing before it: {seen:?}");
    };
    push(&mut parts.sq, read(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut parts.cq), [(7, 7, false)]);
    assert_eq!(parts.engine.pending(), 0);
    threads.join();
    drop(parts);
    drop(arena);
}

/// A ring that ends with a wait that is being woken.
pub fn poll_shutdown() {
    let (threads, events) = (Threads::default(), Events::default());
    let (start, resume) = (woken(&threads, &events, 1), found(&events, false));
    let Rig { mut parts, arena } = rig_resumed(Config::new(1).cq_entries(1), start, resume);
    push(&mut parts.sq, add(false)).unwrap();
    assert_eq!(parts.engine.enter(1, 0, NONE, None), Ok(1));
    parts.engine.shutdown();
    assert_eq!(parts.engine.pending(), 0);
    threads.join();
    drop(parts);
    drop(arena);
}
