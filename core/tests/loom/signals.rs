//! Signals: raised while they are waited for, again, and while a wait is
//! removed.

use crate::script::push;
use annulus::config::{Config, Footprint};
use annulus::engine::{Completer, EnterFlags, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::model::{Arena, Place};
use annulus::opcode::{PollAdd, PollRemove};
use annulus::signal::{Signal, SignalBackend};
use annulus::sqe::Sqe;
use annulus::sync::UnsafeCell;
use annulus::types::Fd;
use annulus::uapi::{EPOLLIN, EPOLLOUT};
use loom::thread;
use std::sync::Arc;

const WAIT: EnterFlags = EnterFlags::GETEVENTS;
const NONE: EnterFlags = EnterFlags::empty();
const WAITER: u64 = 1;
const REMOVER: u64 = 2;

type Signals = Arc<[Signal<1>; 1]>;
type Waits = SignalBackend<'static, Signals, Place, 1, 1>;
type Hands = Completer<'static, Place>;

struct Rig {
    parts: Parts<'static, Waits, Place>,
    signals: Signals,
    hands: Hands,
    /// To be dropped when every thread has ended.
    arena: Arena,
}

fn rig(config: Config) -> Rig {
    let arena = Arena::new(Footprint::of::<Waits, Place>(&config).total());
    let signals = Signals::new([Signal::new()]);
    let mut hands = None;
    // SAFETY: given back when every thread has ended.
    let memory = unsafe { arena.memory() };
    let parts = build(&config, memory, RingMemory::Inside, Place::new(), |completer| {
        hands = Some(completer);
        SignalBackend::new(signals.clone(), completer)
    });
    let parts = parts.expect("a good configuration");
    Rig { parts, signals, hands: hands.expect("given to the backend"), arena }
}

fn add(events: u32, multi: bool) -> Sqe {
    PollAdd::new(Fd(0), events).multi(multi).build().user_data(WAITER)
}

/// Every CQE that is there, as (`user_data`, `res`, whether more come).
fn reap(rig: &mut Rig) -> Vec<(u64, i32, bool)> {
    let more = |flags| annulus::cqueue::more(flags);
    rig.parts.cq.queue().map(|cqe| (cqe.user_data, cqe.res, more(cqe.flags))).collect()
}

/// Raised before, while or after it is waited for: the wait ends, and whoever
/// sees that sees what was written before.
pub fn signal_arm() {
    let mut rig = rig(Config::new(1).cq_entries(1));
    #[allow(clippy::arc_with_non_send_sync)] // loom has one thread of the machine
    let data = Arc::new(UnsafeCell::new(0));
    let raiser = {
        let (signals, hands, data) = (rig.signals.clone(), rig.hands, data.clone());
        thread::spawn(move || {
            // SAFETY: the application reads it after the CQE only.
            data.with_mut(|data| unsafe { *data = 5 });
            signals[0].raise(EPOLLIN, &hands);
        })
    };
    push(&mut rig.parts.sq, add(EPOLLIN, false)).unwrap();
    assert_eq!(rig.parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut rig), [(WAITER, EPOLLIN as i32, false)]);
    // SAFETY: the events say that it was written.
    assert_eq!(data.with(|data| unsafe { *data }), 5);
    raiser.join().unwrap();
    drop(rig.parts);
    drop(rig.arena);
}

/// A multishot wait hears of what is raised after its first event.
pub fn signal_again() {
    let mut rig = rig(Config::new(1).cq_entries(8));
    let raiser = {
        let (signals, hands) = (rig.signals.clone(), rig.hands);
        thread::spawn(move || {
            signals[0].raise(EPOLLIN, &hands);
            signals[0].raise(EPOLLOUT, &hands);
        })
    };
    push(&mut rig.parts.sq, add(EPOLLIN | EPOLLOUT, true)).unwrap();
    assert_eq!(rig.parts.engine.enter(1, 0, NONE, None), Ok(1));
    let mut seen = Vec::new();
    while seen.last() != Some(&(WAITER, (EPOLLIN | EPOLLOUT) as i32, true)) {
        assert_eq!(rig.parts.engine.enter(0, 1, WAIT, None), Ok(0));
        seen.extend(reap(&mut rig));
    }
    raiser.join().unwrap();
    rig.parts.engine.shutdown();
    assert_eq!(rig.parts.engine.pending(), 0);
    drop(rig.parts);
    drop(rig.arena);
}

/// Raised while the wait is removed: it ends once, as the removal says, and
/// the next one in its place hears what still holds.
pub fn signal_remove() {
    let mut rig = rig(Config::new(2).requests(1).cq_entries(4));
    let raiser = {
        let (signals, hands) = (rig.signals.clone(), rig.hands);
        thread::spawn(move || signals[0].raise(EPOLLIN, &hands))
    };
    push(&mut rig.parts.sq, add(EPOLLIN, false)).unwrap();
    let remove = PollRemove::new(WAITER).build().user_data(REMOVER);
    push(&mut rig.parts.sq, remove).unwrap();
    assert_eq!(rig.parts.engine.enter(2, 2, WAIT, None), Ok(2));
    let mut seen = reap(&mut rig);
    seen.sort_unstable();
    let [(WAITER, ended, false), (REMOVER, removed, false)] = seen[..] else {
        panic!("each ends once: {seen:?}");
    };
    match Errno::from_result(removed) {
        None => assert_eq!(ended, Errno::ECANCELED.to_result()),
        Some(errno) => {
            assert!(errno == Errno::EALREADY || errno == Errno::ENOENT);
            assert_eq!(ended, EPOLLIN as i32);
        }
    }
    push(&mut rig.parts.sq, add(EPOLLIN, false)).unwrap();
    assert_eq!(rig.parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut rig), [(WAITER, EPOLLIN as i32, false)]);
    assert_eq!(rig.parts.engine.pending(), 0);
    raiser.join().unwrap();
    drop(rig.parts);
    drop(rig.arena);
}
