//! Row *poll* where there is no kernel to ask: signals.
#![cfg(not(loom))]

mod common;

use annulus::config::{Config, Footprint, Mode};
use annulus::engine::{Completer, EnterFlags, Parts, RingMemory, build};
use annulus::opcode::{Nop, PollAdd, PollRemove, PollUpdate};
use annulus::register::Call;
use annulus::signal::{Signal, SignalBackend};
use annulus::squeue::Entry;
use annulus::types::{Fd, Fixed};
use annulus::uapi::{EPOLLIN, EPOLLOUT, EPOLLPRI};
use common::{Place, TestHost, memory, push};

const WAIT: EnterFlags = EnterFlags::GETEVENTS;
const NONE: EnterFlags = EnterFlags::empty();
const IN: i32 = EPOLLIN as i32;
const OUT: i32 = EPOLLOUT as i32;
const ECANCELED: i32 = -125;
const EBADF: i32 = -9;
const EINVAL: i32 = -22;

type Signals = [Signal<2>; 2];
type Waits = SignalBackend<'static, &'static Signals, Place, 2, 2>;

struct Rig {
    parts: Parts<'static, Waits, Place>,
    completer: Completer<'static, Place>,
}

fn rig(config: Config, signals: &'static Signals) -> Rig {
    let need = Footprint::of::<Waits, Place>(&config).total();
    let mut given = None;
    let host = Place(TestHost::new());
    let parts = build(&config, memory(need), RingMemory::Inside, host, |completer| {
        given = Some(completer);
        SignalBackend::new(signals, completer)
    });
    Rig { parts: parts.unwrap(), completer: given.unwrap() }
}

impl Rig {
    /// Submits entries; what comes of it.
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
}

fn add(file: i32, events: u32, user_data: u64) -> Entry {
    PollAdd::new(Fd(file), events).build().user_data(user_data)
}

#[test]
fn row_poll_events_hold_until_they_are_lowered() {
    static SIGNALS: Signals = [Signal::new(), Signal::new()];
    let mut rig = rig(Config::new(8).files(2), &SIGNALS);
    assert_eq!(rig.run(&[add(0, EPOLLIN, 1)]), []);
    SIGNALS[1].raise(EPOLLIN, &rig.completer);
    SIGNALS[0].raise(EPOLLOUT, &rig.completer);
    assert_eq!(rig.fetch(), [], "another signal, another event");
    SIGNALS[0].raise(EPOLLIN, &rig.completer);
    assert_eq!(rig.fetch(), [(1, IN, false)]);
    assert_eq!(rig.run(&[add(0, EPOLLIN | EPOLLOUT, 2)]), [(2, IN | OUT, false)]);
    SIGNALS[0].lower(EPOLLIN);
    assert_eq!(SIGNALS[0].events(), EPOLLOUT);
    assert_eq!(rig.run(&[add(0, EPOLLIN, 3)]), []);
    // Lowered before anybody has looked: as if it had not been.
    SIGNALS[0].raise(EPOLLIN, &rig.completer);
    SIGNALS[0].lower(EPOLLIN);
    assert_eq!(rig.fetch(), []);
    SIGNALS[0].raise(EPOLLIN, &rig.completer);
    assert_eq!(rig.fetch(), [(3, IN, false)]);
}

#[test]
fn row_poll_several_waits_removals_updates() {
    static SIGNALS: Signals = [Signal::new(), Signal::new()];
    let mut rig = rig(Config::new(8).files(2), &SIGNALS);
    // SAFETY: no memory is registered.
    unsafe { rig.parts.engine.call(Call::RegisterFiles(&[1, 0])) }.unwrap();
    let multi = PollAdd::new(Fixed(1), EPOLLIN).multi(true).build().user_data(1);
    assert_eq!(rig.run(&[multi, add(0, EPOLLIN, 2)]), []);
    // Two may wait for one signal: the next one finds no room.
    push(&mut rig.parts.sq, &[add(0, EPOLLIN, 3)]);
    assert!(rig.parts.engine.enter(1, 0, NONE, None).is_err());
    SIGNALS[0].raise(EPOLLIN, &rig.completer);
    assert_eq!(rig.fetch(), [(1, IN, true), (2, IN, false)]);
    assert_eq!(rig.parts.engine.enter(1, 0, NONE, None), Ok(1));
    assert_eq!(rig.fetch(), [(3, IN, false)]);
    SIGNALS[0].raise(EPOLLIN, &rig.completer);
    assert_eq!(rig.fetch(), [(1, IN, true)]);
    // What holds is an event to an update.
    let update = |entry: PollUpdate| entry.build().user_data(9);
    assert_eq!(rig.run(&[update(PollUpdate::new(1).events(EPOLLPRI))]), [(9, 0, false)]);
    SIGNALS[0].raise(EPOLLIN, &rig.completer);
    assert_eq!(rig.fetch(), []);
    let changed = rig.run(&[update(PollUpdate::new(1).events(EPOLLIN).new_user_data(4))]);
    assert_eq!(changed, [(9, 0, false), (4, IN, true)]);
    let removed = rig.run(&[PollRemove::new(4).build().user_data(9)]);
    assert_eq!(removed, [(9, 0, false), (4, ECANCELED, false)]);
    assert_eq!(
        rig.run(&[add(2, EPOLLIN, 5), add(-1, EPOLLIN, 6)])[..],
        [(5, EBADF, false), (6, EBADF, false)]
    );
    let read = annulus::opcode::Read::new(Fd(0), std::ptr::null_mut(), 1).build();
    assert_eq!(rig.run(&[read]), [(0, EINVAL, false)]);
    assert_eq!(rig.parts.engine.pending(), 0);
}

/// A ring that sleeps, or is driven by a thread, while others raise: each
/// notification arrives.
#[test]
fn row_poll_other_threads_raise() {
    static SIGNALS: [Signals; 2] = [const { [Signal::new(), Signal::new()] }; 2];
    const ROUNDS: u64 = if cfg!(miri) { 20 } else { 2_000 };
    for (signals, polled) in SIGNALS.iter().zip([false, true]) {
        let mode = if polled { Mode::SqPoll { idle_ms: 1 } } else { Mode::Inline };
        let Rig { parts, completer } = rig(Config::new(4).mode(mode), signals);
        let Parts { mut engine, mut sq, mut cq, remote } = parts;
        std::thread::scope(|scope| {
            let mut engine = match polled {
                false => Some(engine),
                true => {
                    scope.spawn(move || engine.poll_loop());
                    None
                }
            };
            let (to, from) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || {
                for () in from {
                    signals[0].raise(EPOLLIN, &completer);
                }
            });
            for round in 0..ROUNDS {
                push(&mut sq, &[add(0, EPOLLIN, round), Nop::new().build().user_data(u64::MAX)]);
                to.send(()).unwrap();
                let mut come = 0;
                while come < 2 {
                    let ready = sq.ready();
                    match &mut engine {
                        Some(engine) => {
                            let _ = engine.enter(ready, 1, WAIT, None);
                        }
                        None => {
                            let flags =
                                if remote.need_wakeup() { EnterFlags::SQ_WAKEUP } else { NONE };
                            let _ = remote.enter(ready, 1, WAIT | flags, None);
                        }
                    }
                    for cqe in cq.queue() {
                        come += 1;
                        if cqe.user_data() != u64::MAX {
                            assert_eq!((cqe.user_data(), cqe.result()), (round, IN));
                        }
                    }
                }
                signals[0].lower(EPOLLIN);
            }
            drop(to);
            remote.stop();
        });
    }
}
