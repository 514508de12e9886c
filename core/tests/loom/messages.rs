//! Messages from ring to ring: the lane, and rings that get them.

use crate::script::{Hands, Rig, nop, push, read, reap, rig};
use annulus::config::{Config, Mode};
use annulus::cqe::Cqe;
use annulus::engine::{EnterFlags, Inbox, SentFile};
use annulus::errno::Errno;
use annulus::hal::{Request, Start, Token};
use annulus::model::MessageLane;
use annulus::register::Call;
use annulus::served::Served;
use annulus::sqe::Sqe;
use annulus::uapi::{IORING_FILE_INDEX_ALLOC, IOSQE_FIXED_FILE};
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

/// A ring with an empty table of one file, whose requests end at once.
fn with_table(config: Config) -> Rig {
    let mut rig = rig(config.files(1), |_, _, request| Start::Done(request.len as i32));
    // SAFETY: no memory is registered.
    let answer = unsafe { rig.parts.engine.call(Call::RegisterFilesSparse(1)) };
    assert_eq!(answer, Ok(0));
    rig
}

/// Sends a file for any place.
fn send_file(inbox: Inbox<'_>, user_data: Option<u64>) {
    let file = SentFile { number: 5, file_index: IORING_FILE_INDEX_ALLOC, user_data };
    assert_eq!(inbox.send_file(&file), Ok((0, None)));
}

/// A read of the registered file that has been sent.
fn of_sent(n: u64) -> Sqe {
    Sqe { flags: IOSQE_FIXED_FILE, ..read(n) }
}

/// A polled ring gets a message and a file, which whoever sent it has read at once:
/// the engine may not have been told of either, and finds the file.
pub fn file_polled() {
    let Rig { parts, arena } = with_table(Config::new(1).cq_entries(2).messages(2).mode(POLLED));
    let (mut engine, mut sq, mut cq, remote) = (parts.engine, parts.sq, parts.cq, parts.remote);
    let poller = thread::spawn(move || engine.poll_loop());
    let sender = send(remote.inbox(), 1);
    send_file(remote.inbox(), None);
    push(&mut sq, of_sent(7)).unwrap();
    if remote.need_wakeup() {
        remote.enter(0, 0, EnterFlags::SQ_WAKEUP, None).unwrap();
    }
    assert_eq!(remote.wait_cqes(2, None), Ok(()));
    let mut seen = reap(&mut cq);
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (7, 7)]);
    remote.stop();
    poller.join().unwrap();
    sender.join().unwrap();
    drop(arena);
}

/// The same, served: another thread may take the entry, which has looked for files
/// before one came.
pub fn file_served() {
    let Rig { parts, arena } = with_table(Config::new(1).messages(1).mode(Mode::Served));
    let (mut sq, mut cq, remote) = (parts.sq, parts.cq, parts.remote);
    let served = Arc::new(Served::new(parts.engine, remote));
    let helper = {
        let served = served.clone();
        thread::spawn(move || served.enter(1, 0, EnterFlags::empty(), None).unwrap())
    };
    send_file(remote.inbox(), None);
    push(&mut sq, of_sent(7)).unwrap();
    let own = served.enter(1, 0, EnterFlags::empty(), None).unwrap();
    assert_eq!(own + helper.join().unwrap(), 1);
    assert_eq!(reap(&mut cq), [(7, 7)]);
    drop(served);
    drop(arena);
}

/// The same, driven by the application.
pub fn file_inline() {
    let Rig { mut parts, arena } = with_table(Config::new(1).cq_entries(2).messages(2));
    let sender = send(parts.remote.inbox(), 1);
    let inbox = parts.remote.inbox();
    let friend = thread::spawn(move || send_file(inbox, None));
    friend.join().unwrap();
    push(&mut parts.sq, of_sent(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 2, WAIT, None), Ok(1));
    let mut seen = reap(&mut parts.cq);
    seen.sort_unstable();
    assert_eq!(seen, [(1, 1), (7, 7)]);
    sender.join().unwrap();
    drop(parts);
    drop(arena);
}

/// Who has seen the CQE of a file finds the file.
pub fn file_told() {
    let Rig { mut parts, arena } = with_table(Config::new(1).cq_entries(2).messages(1));
    let inbox = parts.remote.inbox();
    let sender = thread::spawn(move || send_file(inbox, Some(1)));
    // Not a wait: that would look once more before it sleeps.
    push(&mut parts.sq, nop(2)).unwrap();
    assert_eq!(parts.engine.enter(1, 0, EnterFlags::empty(), None), Ok(1));
    let mut seen = reap(&mut parts.cq);
    if seen.len() < 2 {
        assert_eq!(parts.engine.enter(0, 1, WAIT, None), Ok(0));
        seen.extend(reap(&mut parts.cq));
    }
    assert!(seen.contains(&(1, 0)), "{seen:?}");
    push(&mut parts.sq, of_sent(7)).unwrap();
    assert_eq!(parts.engine.enter(1, 1, WAIT, None), Ok(1));
    assert_eq!(reap(&mut parts.cq), [(7, 7)]);
    sender.join().unwrap();
    drop(parts);
    drop(arena);
}

/// A file is sent while the table ends: it is refused, or closed with the table.
pub fn file_table_ends() {
    let Rig { mut parts, arena } = with_table(Config::new(1).messages(1));
    let inbox = parts.remote.inbox();
    let sender = thread::spawn(move || {
        let place = IORING_FILE_INDEX_ALLOC;
        inbox.send_file(&SentFile { number: 5, file_index: place, user_data: None })
    });
    // SAFETY: no memory is registered.
    assert_eq!(unsafe { parts.engine.call(Call::UnregisterFiles) }, Ok(0));
    let closed = parts.engine.backend().closed;
    match sender.join().unwrap() {
        Ok(answer) => assert_eq!((answer, closed), ((0, None), 1)),
        Err(errno) => assert_eq!((errno, closed), (Errno::ENFILE, 0)),
    }
    drop(parts);
    drop(arena);
}
