//! Messages from ring to ring: the lane, and rings that get them.

use crate::script::{Hands, Rig, reap, rig};
use annulus::config::{Config, Mode};
use annulus::cqe::Cqe;
use annulus::engine::{EnterFlags, Inbox};
use annulus::errno::Errno;
use annulus::hal::{Request, Start, Token};
use annulus::model::MessageLane;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

const POLLED: Mode = Mode::SqPoll { idle_ms: 0 };
const WAIT: EnterFlags = EnterFlags::GETEVENTS;

fn no_requests(_: Hands, _: Token, _: &Request<(), ()>) -> Start {
    unreachable!("only messages in this model")
}

fn message(n: u64) -> Cqe {
    Cqe { user_data: n, res: n as i32, flags: 0 }
}

/// Sends one message from a thread of its own, as often as it takes.
fn send(inbox: Inbox<'static>, n: u64) -> JoinHandle<()> {
    thread::spawn(move || {
        while let Err(errno) = inbox.send(message(n)) {
            assert_eq!(errno, Errno::EOVERFLOW);
            thread::yield_now();
        }
    })
}

/// Room for one message, and two that come: each comes once, and whole.
pub fn message_lane() {
    let lane = Arc::new(MessageLane::new(1));
    let sender = {
        let lane = lane.clone();
        thread::spawn(move || {
            for n in 1..=2 {
                loop {
                    match lane.send(message(n)) {
                        Ok(first) => break assert!(first, "the only one there can be"),
                        Err(errno) => assert_eq!(errno, Errno::EOVERFLOW),
                    }
                    thread::yield_now();
                }
            }
        })
    };
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let before = seen.len();
        lane.take(false, |cqe| seen.push(cqe));
        if seen.len() == before {
            thread::yield_now();
        }
    }
    assert_eq!(seen, [message(1), message(2)]);
    sender.join().unwrap();
}

/// Two senders meet the lane's end: what was accepted has come, and of two that
/// are accepted one finds the lane empty.
pub fn message_end() {
    let lane = Arc::new(MessageLane::new(2));
    let senders = [1, 2].map(|n| {
        let lane = lane.clone();
        thread::spawn(move || lane.send(message(n)))
    });
    let mut seen = Vec::new();
    lane.take(true, |cqe| seen.push(cqe.user_data));
    let answers = senders.map(|sender| sender.join().unwrap());
    let mut accepted = Vec::new();
    for (n, answer) in [1, 2].into_iter().zip(answers) {
        match answer {
            Ok(_) => accepted.push(n),
            Err(errno) => assert_eq!(errno, Errno::EBADFD),
        }
    }
    let firsts = answers.into_iter().filter(|&answer| answer == Ok(true)).count();
    assert_eq!(firsts, accepted.len().min(1), "the engine is told once");
    seen.sort_unstable();
    assert_eq!(seen, accepted);
    lane.take(false, |_| panic!("after the end nothing comes"));
    assert_eq!(lane.send(message(3)), Err(Errno::EBADFD));
}

/// Messages end the wait of a ring that its application drives.
pub fn message_inline() {
    let Rig { mut parts, arena } = rig(Config::new(1).cq_entries(2).messages(2), no_requests);
    let senders = [1, 2].map(|n| send(parts.remote.inbox(), n));
    assert_eq!(parts.engine.enter(0, 2, WAIT, None), Ok(0));
    let mut seen = reap(&mut parts.cq);
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2)]);
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    drop(parts);
    drop(arena);
}

/// Messages wake a polled ring that sleeps, and whoever waits for its CQEs.
pub fn message_wakes() {
    let config = Config::new(1).cq_entries(2).messages(2).mode(POLLED);
    let Rig { parts, arena } = rig(config, no_requests);
    let (mut engine, mut cq, remote) = (parts.engine, parts.cq, parts.remote);
    let poller = thread::spawn(move || engine.poll_loop());
    let sender = send(remote.inbox(), 1);
    remote.inbox().send(message(2)).unwrap();
    assert_eq!(remote.wait_cqes(2, None), Ok(()));
    let mut seen = reap(&mut cq);
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (2, 2)]);
    remote.stop();
    poller.join().unwrap();
    sender.join().unwrap();
    drop(arena);
}

/// Room for one message, and for one CQE: a second waits for its place, and for
/// room in the CQ.
pub fn message_room() {
    let config = Config::new(1).cq_entries(1).messages(1).mode(POLLED);
    let Rig { parts, arena } = rig(config, no_requests);
    let (mut engine, mut cq, remote) = (parts.engine, parts.cq, parts.remote);
    let poller = thread::spawn(move || engine.poll_loop());
    remote.inbox().send(message(1)).unwrap();
    let sender = send(remote.inbox(), 2);
    for n in 1..=2 {
        assert_eq!(remote.wait_cqes(1, None), Ok(()));
        assert_eq!(reap(&mut cq), [(n, n as i32)]);
    }
    remote.stop();
    poller.join().unwrap();
    sender.join().unwrap();
    drop(arena);
}

/// A message to a ring that is stopped: it was accepted, and is there after the
/// end, or it was not.
pub fn message_stop() {
    let config = Config::new(1).cq_entries(2).messages(1).mode(POLLED);
    let Rig { parts, arena } = rig(config, no_requests);
    let (mut engine, mut cq, remote) = (parts.engine, parts.cq, parts.remote);
    let poller = thread::spawn(move || engine.poll_loop());
    let inbox = remote.inbox();
    let sender = thread::spawn(move || inbox.send(message(7)));
    remote.stop();
    poller.join().unwrap();
    let seen = reap(&mut cq);
    match sender.join().unwrap() {
        Ok(()) => assert_eq!(seen, [(7, 7)]),
        Err(errno) => assert_eq!((errno, seen), (Errno::EBADFD, vec![])),
    }
    drop(arena);
}
