//! A ring that threads take turns to drive.

use crate::script::{Hands, Rig, Script, Threads, by_threads, nop, polled, push, read, reap, rig};
use annulus::config::{Config, Mode};
use annulus::engine::EnterFlags;
use annulus::errno::Errno;
use annulus::hal::{Request, Start, Token};
use annulus::model::Place;
use annulus::register::Call;
use annulus::served::Served;
use loom::sync::Arc;
use loom::thread;

const SMALL: Config = Config::new(1).cq_entries(1).mode(Mode::Served);
const WAIT: EnterFlags = EnterFlags::GETEVENTS;
const NO_WAIT: EnterFlags = EnterFlags::empty();

type Shared = Arc<Served<'static, Script, Place>>;

fn no_requests(_: Hands, _: Token, _: &Request<(), ()>) -> Start {
    unreachable!("only NOPs in this model")
}

fn helper(served: &Shared) -> thread::JoinHandle<()> {
    let served = served.clone();
    thread::spawn(move || served.help())
}

/// Two threads drive the engine by turns; it is never driven by both.
pub fn served_claim() {
    let Rig { parts, arena } = rig(SMALL, no_requests);
    let (mut sq, mut cq) = (parts.sq, parts.cq);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    let other = {
        let served = served.clone();
        thread::spawn(move || assert_eq!(served.enter(0, 0, WAIT, None), Ok(0)))
    };
    push(&mut sq, nop(7)).unwrap();
    assert_eq!(served.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut cq), [(7, 0)]);
    other.join().unwrap();
    drop(served);
    drop(arena);
}

/// A completion that comes while the application holds the claim, or while
/// nobody does and the helper falls asleep.
pub fn served_return() {
    let threads = Threads::default();
    let Rig { parts, arena } = rig(SMALL, by_threads(&threads));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    let helper = helper(&served);
    push(&mut sq, read(7)).unwrap();
    assert_eq!(served.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut cq), [(7, 7)]);
    remote.stop();
    helper.join().unwrap();
    threads.join();
    drop(served);
    drop(arena);
}

/// Whoever brings work and finds the engine claimed leaves it to the holder.
pub fn served_work() {
    let threads = Threads::default();
    let Rig { parts, arena } = rig(SMALL, by_threads(&threads));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    // No helper: the other thread's call goes by the mailbox, and it serves.
    push(&mut sq, read(7)).unwrap();
    assert_eq!(served.enter(1, 0, NO_WAIT, None), Ok(1));
    let driver = {
        let served = served.clone();
        thread::spawn(move || served.enter(0, 0, WAIT, None))
    };
    threads.join();
    // Complete by now; who of us two drives must see it.
    served.serve();
    assert_eq!(driver.join().unwrap(), Ok(0));
    assert_eq!(remote.wait_cqes(1, None), Ok(()));
    assert_eq!(reap(&mut cq), [(7, 7)]);
    drop(served);
    drop(arena);
}

/// A call by the mailbox, answered by the helper or by whoever drives.
pub fn served_mail() {
    let Rig { parts, arena } = rig(SMALL.files(1), no_requests);
    let remote = parts.remote;
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    let helper = helper(&served);
    // SAFETY: no memory is registered.
    let mailer = thread::spawn(move || unsafe { remote.call(Call::RegisterFilesSparse(1)) });
    // SAFETY: as above.
    let direct = unsafe { served.call(Call::RegisterFilesSparse(1)) };
    let by_mail = mailer.join().unwrap();
    assert!([direct, by_mail].contains(&Ok(0)), "one of two makes the table");
    assert!([direct, by_mail].contains(&Err(Errno::EBUSY)), "and the other finds it made");
    remote.stop();
    helper.join().unwrap();
    drop(served);
    drop(arena);
}

/// Room in the CQ wakes the helper, which posts what waited for it.
pub fn served_room() {
    let Rig { parts, arena } = rig(SMALL, no_requests);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    let helper = helper(&served);
    for n in 1..=2 {
        push(&mut sq, nop(n)).unwrap();
        assert_eq!(served.enter(1, 0, NO_WAIT, None), Ok(1));
    }
    for n in 1..=2 {
        assert_eq!(remote.wait_cqes(1, None), Ok(()));
        assert_eq!(reap(&mut cq), [(n, 0)]);
    }
    remote.stop();
    helper.join().unwrap();
    drop(served);
    drop(arena);
}

/// A request that only polling finds done is the helper's to find.
pub fn served_polled() {
    let Rig { parts, arena } = rig(SMALL, no_requests);
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    let helper = helper(&served);
    push(&mut sq, polled(7)).unwrap();
    assert_eq!(served.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut cq), [(7, 7)]);
    remote.stop();
    helper.join().unwrap();
    drop(served);
    drop(arena);
}

/// A stop while the application submits and waits: it gets its CQE or hears
/// that there will be none, and nothing is started after the end.
pub fn served_stop() {
    let threads = Threads::default();
    let Rig { parts, arena } = rig(SMALL, by_threads(&threads));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Arc::new(Served::new(parts.engine, parts.remote));
    let helper = helper(&served);
    let stopper = thread::spawn(move || remote.stop());
    push(&mut sq, read(7)).unwrap();
    let entered = served.enter(1, 1, WAIT, None);
    helper.join().unwrap();
    stopper.join().unwrap();
    threads.join();
    let seen = reap(&mut cq);
    match entered {
        Ok(taken) => {
            assert_eq!(taken, 1);
            assert!(seen.is_empty() || seen == [(7, 7)], "{seen:?}");
        }
        Err(errno) => assert_eq!((errno, seen), (Errno::EOWNERDEAD, vec![])),
    }
    drop(served);
    drop(arena);
}
