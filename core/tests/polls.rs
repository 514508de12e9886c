//! Row *poll* in the engine, with a backend whose files become ready when the
//! test says so.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Footprint};
use annulus::engine::{Completer, EnterFlags, Parts, RingMemory, build};
use annulus::errno::Errno;
use annulus::hal::{Backend, Cancel, Request, Start, Token};
use annulus::opcode::{Nop, PollAdd, PollRemove, PollUpdate};
use annulus::probe::Probe;
use annulus::register::Call;
use annulus::squeue::Entry;
use annulus::types::Fd;
use annulus::uapi::*;
use common::{Place, TestHost, memory, no_handles, push};
use std::sync::{Arc, Mutex};

const WAIT: EnterFlags = EnterFlags::GETEVENTS;
const NONE: EnterFlags = EnterFlags::empty();

/// A wait as the backend knows it.
#[derive(Clone, Copy, Debug)]
struct Armed {
    token: Token,
    events: u32,
    cancelled: bool,
}

#[derive(Default)]
struct Log {
    /// What the one file is ready for.
    ready: u32,
    armed: Vec<Armed>,
    /// Told that there was no room for a further CQE.
    ended: u32,
    /// Every wait is under way, and cannot be cancelled.
    running: bool,
    /// Has no waits at all.
    without: bool,
}

/// One file; a multishot wait that finds it ready says so at once.
struct Files<'m> {
    log: Arc<Mutex<Log>>,
    completer: Completer<'m, Place>,
}

impl Backend for Files<'_> {
    no_handles!();

    fn supports(&self, opcode: u8) -> bool {
        opcode == IORING_OP_POLL_ADD && !self.log.lock().unwrap().without
    }

    unsafe fn start(&mut self, token: Token, request: &Request<(), ()>) -> Start {
        let mut log = self.log.lock().unwrap();
        assert_eq!((request.opcode, request.len), (IORING_OP_POLL_ADD, 0));
        let events = request.op_flags;
        let now = log.ready & events;
        if now != 0 && events & EPOLLONESHOT != 0 {
            return Start::Done(now as i32);
        }
        if request.fallback {
            return Start::NoRoom;
        }
        log.armed.push(Armed { token, events, cancelled: false });
        if now != 0 { Start::More(now as i32) } else { Start::Pending }
    }

    unsafe fn resume(&mut self, token: Token) -> Start {
        let mut log = self.log.lock().unwrap();
        let at = log.armed.iter().position(|wait| wait.token == token).expect("an armed wait");
        let wait = log.armed[at];
        let now = log.ready & wait.events;
        if wait.cancelled {
            log.armed.remove(at);
            return Start::Done(Errno::ECANCELED.to_result());
        }
        match (now, wait.events & EPOLLONESHOT != 0) {
            (0, _) => Start::Pending,
            (now, false) => Start::More(now as i32),
            (now, true) => {
                log.armed.remove(at);
                Start::Done(now as i32)
            }
        }
    }

    fn update_poll(&mut self, token: Token, events: Option<u32>) {
        let mut log = self.log.lock().unwrap();
        let wait = log.armed.iter_mut().find(|wait| wait.token == token).expect("an armed wait");
        wait.events = events.map_or(wait.events, |events| wait.events & EPOLLONESHOT | events);
        let _ = self.completer.ready(token);
    }

    fn end(&mut self, token: Token) {
        let mut log = self.log.lock().unwrap();
        log.ended += 1;
        log.armed.retain(|wait| wait.token != token);
    }

    fn cancel(&mut self, token: Token) -> Cancel {
        let mut log = self.log.lock().unwrap();
        if log.running {
            return Cancel::Running;
        }
        let wait = log.armed.iter_mut().find(|wait| wait.token == token).expect("an armed wait");
        wait.cancelled = true;
        let _ = self.completer.ready(token);
        Cancel::Ended
    }

    fn cancel_all(&mut self) {
        let tokens: Vec<_> = self.log.lock().unwrap().armed.iter().map(|wait| wait.token).collect();
        for token in tokens {
            self.log.lock().unwrap().running = false;
            self.cancel(token);
        }
    }
}

struct Rig {
    parts: Parts<'static, Files<'static>, Place>,
    log: Arc<Mutex<Log>>,
    completer: Completer<'static, Place>,
}

impl Rig {
    fn new(config: Config) -> Self {
        let need = Footprint::of::<Files<'static>, Place>(&config).total();
        let log = Arc::new(Mutex::new(Log::default()));
        let mut given = None;
        let parts =
            build(&config, memory(need), RingMemory::Inside, Place(TestHost::new()), |completer| {
                given = Some(completer);
                Files { log: log.clone(), completer }
            });
        Rig { parts: parts.unwrap(), log, completer: given.unwrap() }
    }

    /// Submits entries one batch; what it leads to as (user_data, res, more).
    fn run(&mut self, entries: &[Entry]) -> Vec<(u64, i32, bool)> {
        push(&mut self.parts.sq, entries);
        let n = entries.len() as u32;
        assert_eq!(self.parts.engine.enter(n, 0, NONE, None), Ok(n));
        self.fetch()
    }

    fn fetch(&mut self) -> Vec<(u64, i32, bool)> {
        assert_eq!(self.parts.engine.enter(0, 0, WAIT, None), Ok(0));
        let seen = |cqe: annulus::cqueue::Entry| {
            (cqe.user_data(), cqe.result(), annulus::cqueue::more(cqe.flags()))
        };
        self.parts.cq.queue().map(seen).collect()
    }

    /// The file is ready for this, and all who wait are woken.
    fn ready(&mut self, events: u32) {
        self.log.lock().unwrap().ready = events;
        self.wake();
    }

    fn wake(&mut self) {
        let tokens: Vec<_> = self.log.lock().unwrap().armed.iter().map(|wait| wait.token).collect();
        for token in tokens {
            // It may have been woken already.
            let _ = self.completer.ready(token);
        }
    }
}

fn add(events: u32, user_data: u64) -> Entry {
    PollAdd::new(Fd(3), events).build().user_data(user_data)
}

fn multi(events: u32, user_data: u64) -> Entry {
    PollAdd::new(Fd(3), events).multi(true).build().user_data(user_data)
}

fn remove(user_data: u64) -> Entry {
    PollRemove::new(user_data).build().user_data(99)
}

const ECANCELED: i32 = -125;
const ENOENT: i32 = -2;
const EALREADY: i32 = -114;
const EINVAL: i32 = -22;

#[test]
fn row_poll_ready_now_ready_later_woken_in_vain() {
    let mut rig = Rig::new(Config::new(4));
    assert_eq!(rig.run(&[add(EPOLLIN, 1)]), []);
    rig.wake();
    assert_eq!(rig.fetch(), [], "woken for nothing");
    rig.ready(EPOLLOUT);
    assert_eq!(rig.fetch(), [], "not for this");
    rig.ready(EPOLLIN | EPOLLOUT);
    assert_eq!(rig.fetch(), [(1, 1, false)]);
    assert_eq!(rig.run(&[add(EPOLLOUT | EPOLLIN | EPOLLPRI, 2)]), [(2, 5, false)]);
    assert_eq!(rig.parts.engine.pending(), 0);
    // Not asked for.
    rig.ready(EPOLLHUP);
    assert_eq!(rig.run(&[add(0, 3)]), [(3, EPOLLHUP as i32, false)]);
}

#[test]
fn row_poll_a_removal_and_what_it_answers() {
    let mut rig = Rig::new(Config::new(8));
    assert_eq!(rig.run(&[remove(1)]), [(99, ENOENT, false)]);
    assert_eq!(rig.run(&[add(EPOLLIN, 1), remove(1)]), [(99, 0, false), (1, ECANCELED, false)]);
    // Twice in one batch: the first has it.
    let both = [add(EPOLLIN, 1), remove(1), remove(1)];
    assert_eq!(rig.run(&both), [(99, 0, false), (99, ENOENT, false), (1, ECANCELED, false)]);
    // Woken, and not looked at yet: what is in the queue of a batch that has
    // begun. The wake-up wins.
    rig.log.lock().unwrap().running = true;
    assert_eq!(rig.run(&[add(EPOLLIN, 1), remove(1)]), [(99, EALREADY, false)]);
    rig.ready(EPOLLIN);
    assert_eq!(rig.run(&[remove(1)]), [(1, 1, false), (99, ENOENT, false)]);
}

#[test]
fn row_poll_the_newest_of_those_that_match() {
    let mut rig = Rig::new(Config::new(8));
    // The first one's slot is used anew, so that slots do not lie in order.
    rig.run(&[add(EPOLLIN, 7), add(EPOLLPRI, 1), remove(7)]);
    assert_eq!(rig.run(&[add(EPOLLIN, 1), remove(1)]), [(99, 0, false), (1, ECANCELED, false)]);
    rig.ready(EPOLLIN);
    assert_eq!(rig.fetch(), [], "the older one waits for something else");
    // An update makes it the newest.
    rig.ready(0);
    rig.run(&[add(EPOLLIN, 2), PollUpdate::new(1).new_user_data(2).build()]);
    assert_eq!(rig.run(&[remove(2)]), [(99, 0, false), (2, ECANCELED, false)]);
    rig.ready(EPOLLIN);
    assert_eq!(rig.fetch(), [(2, 1, false)]);
}

#[test]
fn row_poll_multishot() {
    let mut rig = Rig::new(Config::new(4));
    rig.ready(EPOLLIN);
    assert_eq!(rig.run(&[multi(EPOLLIN, 1)]), [(1, 1, true)]);
    for _ in 0..3 {
        rig.wake();
        // A second wake-up before the first is looked at is the same one.
        rig.wake();
        assert_eq!(rig.fetch(), [(1, 1, true)]);
    }
    assert_eq!(rig.run(&[remove(1)]), [(99, 0, false), (1, ECANCELED, false)]);
    assert_eq!(rig.parts.engine.pending(), 0);
}

#[test]
fn row_cq_full_a_multishot_ends_when_its_cqe_cannot_be_posted() {
    for late in [false, true] {
        let mut rig = Rig::new(Config::new(2).cq_entries(2));
        rig.log.lock().unwrap().ready = if late { 0 } else { EPOLLIN };
        push(&mut rig.parts.sq, &[Nop::new().build(), Nop::new().build()]);
        assert_eq!(rig.parts.engine.enter(2, 0, NONE, None), Ok(2));
        push(&mut rig.parts.sq, &[multi(EPOLLIN, 1)]);
        assert_eq!(rig.parts.engine.enter(1, 0, NONE, None), Ok(1));
        rig.ready(EPOLLIN);
        assert_eq!(rig.parts.engine.enter(0, 0, WAIT, None), Ok(0));
        assert!(rig.parts.sq.queue().cq_overflow());
        assert_eq!(rig.log.lock().unwrap().ended, 1);
        assert_eq!(rig.fetch(), [(0, 0, false), (0, 0, false)]);
        assert_eq!(rig.fetch(), [(1, 1, false)]);
        assert_eq!(rig.parts.engine.pending(), 0);
        assert_eq!(rig.run(&[remove(1)]), [(99, ENOENT, false)]);
    }
}

#[test]
fn row_poll_updates() {
    let mut rig = Rig::new(Config::new(8));
    let update = |old: u64| PollUpdate::new(old);
    let by = |entry: PollUpdate| entry.build().user_data(99);
    assert_eq!(rig.run(&[by(update(1).events(EPOLLIN))]), [(99, ENOENT, false)]);
    rig.run(&[add(EPOLLIN, 1)]);
    rig.log.lock().unwrap().ready = EPOLLOUT;
    assert_eq!(rig.run(&[by(update(1).new_user_data(2))]), [(99, 0, false)]);
    let changed = rig.run(&[by(update(2).events(EPOLLOUT).new_user_data(3))]);
    assert_eq!(changed, [(99, 0, false), (3, EPOLLOUT as i32, false)]);
    // It does not make a multishot wait of one, nor the other way.
    rig.run(&[add(EPOLLIN, 4), multi(EPOLLIN, 5)]);
    let mut many = by(update(4).events(EPOLLOUT));
    many.len |= IORING_POLL_ADD_MULTI;
    assert_eq!(rig.run(&[many]), [(99, 0, false), (4, EPOLLOUT as i32, false)]);
    let once = by(update(5).events(EPOLLOUT | EPOLLONESHOT));
    assert_eq!(rig.run(&[once]), [(99, 0, false), (5, EPOLLOUT as i32, true)]);
    // Woken, and then changed in the same turn of the engine: too late.
    let both = [by(update(5).events(EPOLLIN)), by(update(5).events(EPOLLIN))];
    assert_eq!(rig.run(&both), [(99, 0, false), (99, EALREADY, false)]);
}

#[test]
fn row_fallback_a_wait_never_takes_the_reserve_and_a_removal_may() {
    let mut rig = Rig::new(Config::new(4).requests(1));
    push(&mut rig.parts.sq, &[add(EPOLLIN, 1), add(EPOLLIN, 2)]);
    assert_eq!(rig.parts.engine.enter(2, 0, NONE, None), Ok(1));
    assert_eq!(rig.parts.engine.enter(1, 0, NONE, None), Err(Errno::EBUSY));
    rig.ready(EPOLLIN);
    assert_eq!(rig.fetch(), [(1, 1, false)]);
    assert_eq!(rig.parts.engine.enter(1, 0, NONE, None), Ok(1));
    assert_eq!(rig.fetch(), [(2, 1, false)]);
    rig.log.lock().unwrap().ready = 0;
    let all = rig.run(&[add(EPOLLIN, 1), remove(1)]);
    assert_eq!(all, [(99, 0, false), (1, ECANCELED, false)]);
}

#[test]
fn row_poll_what_cannot_be_meant_is_refused() {
    let mut rig = Rig::new(Config::new(4));
    let bad = [
        Entry { buf_index: 1, ..add(EPOLLIN, 1) },
        Entry { len: IORING_POLL_ADD_LEVEL, ..add(EPOLLIN, 1) },
        add(EPOLLIN | EPOLLEXCLUSIVE, 1),
        Entry { len: IORING_POLL_ADD_MULTI, ..remove(1) },
        Entry { off: 1, ..remove(1) },
    ];
    for entry in bad {
        assert_eq!(rig.run(&[entry])[0].1, EINVAL, "{entry:?}");
    }
    let mut probe = Probe::new();
    // SAFETY: no memory is registered.
    unsafe { rig.parts.engine.call(Call::Probe(&mut probe)) }.unwrap();
    assert!(probe.is_supported(IORING_OP_POLL_ADD) && probe.is_supported(IORING_OP_POLL_REMOVE));
    // Where nothing can be waited for, nothing can be removed.
    rig.log.lock().unwrap().without = true;
    // SAFETY: as above.
    unsafe { rig.parts.engine.call(Call::Probe(&mut probe)) }.unwrap();
    assert!(!probe.is_supported(IORING_OP_POLL_ADD) && !probe.is_supported(IORING_OP_POLL_REMOVE));
    assert_eq!(rig.run(&[add(EPOLLIN, 1)])[0].1, EINVAL);
    assert_eq!(rig.run(&[remove(1)])[0].1, EINVAL);
}

#[test]
fn row_poll_a_ring_ends_with_waits() {
    let mut rig = Rig::new(Config::new(4));
    rig.run(&[add(EPOLLIN, 1), multi(EPOLLIN, 2)]);
    // One is on its way already.
    rig.ready(EPOLLIN);
    rig.parts.engine.shutdown();
    assert_eq!(rig.parts.engine.pending(), 0);
    assert!(rig.log.lock().unwrap().armed.is_empty());
    drop(rig);
}
