//! Messages from ring to ring (MSG_RING), and the lane by which they come.

mod common;

use annulus::config::{Config, Mode};
use annulus::engine::{EnterFlags, Inbox, Remote};
use annulus::errno::Errno;
use annulus::opcode::MsgRingData;
use annulus::probe::Probe;
use annulus::register::Call;
use annulus::ring::CqHalf;
use annulus::served::Served;
use annulus::squeue::{Entry, Flags};
use annulus::types::{Fd, Timespec};
use annulus::{cqe::Cqe, opcode, uapi};
use common::*;
use std::thread;

const WAIT: EnterFlags = EnterFlags::GETEVENTS;
const NO_WAIT: EnterFlags = EnterFlags::empty();
const OTHER: i32 = RINGS;
const SELF: i32 = RINGS + 1;

/// A ring that knows another, and itself.
fn pair(config: Config, other: Config) -> (Rig, Rig) {
    let (one, other) = (rig(config), rig(other));
    let inboxes = [other.parts.remote.inbox(), one.parts.remote.inbox()];
    one.host.rings.lock().unwrap().extend(inboxes);
    (one, other)
}

fn message(fd: i32, n: u64) -> Entry {
    MsgRingData::new(Fd(fd), n as i32, 100 + n, None).build().user_data(n)
}

fn cqe(n: u64) -> Cqe {
    Cqe { user_data: n, res: n as i32, flags: 0 }
}

fn submit(rig: &mut Rig, entries: &[Entry]) -> Vec<(u64, i32)> {
    rig.push(entries);
    let count = entries.len() as u32;
    assert_eq!(rig.parts.engine.enter(count, 0, NO_WAIT, None), Ok(count));
    rig.reap()
}

/// What has come, once it has been fetched.
fn fetch(rig: &mut Rig) -> Vec<(u64, i32)> {
    assert_eq!(rig.parts.engine.enter(0, 0, WAIT, None), Ok(0));
    rig.reap()
}

#[test]
fn row_messages_are_completions_of_the_other_ring() {
    let (mut one, mut other) = pair(Config::new(4), Config::new(4).messages(4));
    assert_eq!(submit(&mut one, &[message(OTHER, 1)]), [(1, 0)]);
    assert!(other.parts.sq.queue().taskrun(), "there is something to fetch");
    assert_eq!(fetch(&mut other), [(101, 1)]);
    let flags = MsgRingData::new(Fd(OTHER), -7, 9, Some(0x8000_0001)).build();
    assert_eq!(submit(&mut one, &[flags]), [(0, 0)]);
    assert_eq!(other.parts.engine.enter(0, 1, WAIT, None), Ok(0));
    let all: Vec<_> = other.parts.cq.queue().collect();
    assert_eq!(all, [Cqe { user_data: 9, res: -7, flags: 0x8000_0001 }]);
}

#[test]
fn row_messages_have_fields_that_must_be_zero() {
    let (mut one, mut other) =
        pair(Config::new(4).submit_all(true).files(2), Config::new(4).messages(4));
    // SAFETY: no memory is registered.
    unsafe { one.parts.engine.call(Call::RegisterFiles(&[LATER, -1])) }.unwrap();
    let good = message(OTHER, 1);
    let fixed = |place| message(place, 1).flags(Flags::FIXED_FILE);
    let wrong = [
        (Entry { fd: -1, ..good }, Errno::EBADF),
        (Entry { fd: AT_ONCE, ..good }, Errno::EBADFD),
        (Entry { op_flags: 1, ..good }, Errno::EINVAL),
        (Entry { op_flags: 3, ..good }, Errno::EINVAL),
        (Entry { op_flags: 4, ..good }, Errno::EINVAL),
        (Entry { op_flags: 4, fd: -1, ..good }, Errno::EINVAL),
        (Entry { splice_fd_in: 1, ..good }, Errno::EINVAL),
        (Entry { addr3: 1, ..good }, Errno::EINVAL),
        (Entry { addr: 1, ..good }, Errno::EINVAL),
        (Entry { addr: 2, ..good }, Errno::EINVAL),
        (Entry { addr: 2, fd: AT_ONCE, ..good }, Errno::EBADFD),
        (Entry { ioprio: 1, ..good }, Errno::EINVAL),
        (Entry { buf_index: 1, ..good }, Errno::EINVAL),
        (Entry { personality: 1, ..good }, Errno::EINVAL),
        // What can be registered is no ring.
        (fixed(0), Errno::EBADFD),
        (fixed(1), Errno::EBADF),
    ];
    for (entry, errno) in wrong {
        assert_eq!(submit(&mut one, &[entry]), [(1, errno.to_result())], "{entry:?}");
    }
    assert_eq!(fetch(&mut other), []);
    for entry in [Entry { addr3: 1 << 32, ..good }, Entry { addr: 1 << 32, ..good }, good] {
        assert_eq!(submit(&mut one, &[entry]), [(1, 0)], "{entry:?}");
        assert_eq!(fetch(&mut other), [(101, 1)]);
    }
}

#[test]
fn row_messages_that_find_no_room_wait_in_their_order() {
    let (mut one, mut other) = pair(Config::new(8), Config::new(2).cq_entries(2).messages(5));
    let all: Vec<_> = (1..=6).map(|n| message(OTHER, n)).collect();
    let full = Errno::EOVERFLOW.to_result();
    assert_eq!(submit(&mut one, &all), [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, full)]);
    // Behind those that wait, and before those that come later.
    other.push(&[nop(7)]);
    assert_eq!(other.parts.engine.enter(1, 0, NO_WAIT, None), Ok(1));
    assert!(other.parts.sq.queue().cq_overflow());
    assert_eq!(submit(&mut one, &all[..3]), [(1, 0), (2, 0), (3, full)], "two are in the CQ");
    let mut seen = other.reap();
    while seen.len() < 8 {
        let more = fetch(&mut other);
        assert!(!more.is_empty(), "{seen:?}");
        seen.extend(more);
    }
    let names: Vec<_> = seen.iter().map(|&(name, _)| name).collect();
    assert_eq!(names, [101, 102, 103, 104, 105, 7, 101, 102]);
    assert!(!other.parts.sq.queue().cq_overflow());
    assert_eq!(other.parts.engine.stats().overflows, 6);
    // Every place is free again.
    assert_eq!(submit(&mut one, &all).last(), Some(&(6, full)));
}

#[test]
fn row_messages_that_wait_hold_nothing_up() {
    let (mut one, mut other) = pair(Config::new(8), Config::new(2).cq_entries(2).messages(5));
    submit(&mut one, &[1, 2, 3, 4].map(|n| message(OTHER, n)));
    // A drain waits for requests, of which there are none.
    other.push(&[nop(7).flags(Flags::IO_DRAIN)]);
    assert_eq!(other.parts.engine.enter(1, 0, NO_WAIT, None), Ok(1));
    assert_eq!(other.reap(), [(101, 1), (102, 2)]);
    assert_eq!(fetch(&mut other), [(103, 3), (104, 4)]);
    assert_eq!(fetch(&mut other), [(7, 0)]);
}

#[test]
fn row_messages_to_oneself_come_before_the_answer() {
    let (mut one, _) = pair(Config::new(4).messages(2), Config::new(4));
    assert_eq!(submit(&mut one, &[message(SELF, 1)]), [(101, 1), (1, 0)]);
    let linked = [message(SELF, 1).flags(Flags::IO_LINK), message(SELF, 2)];
    assert_eq!(submit(&mut one, &linked), [(101, 1), (1, 0), (102, 2), (2, 0)]);
}

#[test]
fn row_messages_that_fail_break_a_chain() {
    let (mut one, mut other) = pair(Config::new(4), Config::new(4).messages(4));
    let chain = [message(AT_ONCE, 1).flags(Flags::IO_LINK), message(OTHER, 2)];
    let (bad, cancelled) = (Errno::EBADFD.to_result(), Errno::ECANCELED.to_result());
    assert_eq!(submit(&mut one, &chain), [(1, bad), (2, cancelled)]);
    let quiet = message(OTHER, 3).flags(Flags::SKIP_SUCCESS);
    assert_eq!(submit(&mut one, &[quiet]), []);
    assert_eq!(fetch(&mut other), [(103, 3)]);
}

#[test]
fn row_messages_count_for_timeouts_and_ring_the_eventfd() {
    let (mut one, mut other) = pair(Config::new(4), Config::new(4).messages(4));
    // SAFETY: no memory is registered.
    unsafe {
        other.parts.engine.call(Call::RegisterEventfd { fd: AT_ONCE, only_late: false }).unwrap();
    }
    let time = Timespec::new().sec(1000);
    assert_eq!(submit(&mut other, &[opcode::Timeout::new(&time).count(1).build()]), []);
    submit(&mut one, &[message(OTHER, 1)]);
    assert_eq!(other.host.rung.load(annulus::sync::Ordering::Relaxed), 1);
    assert_eq!(fetch(&mut other), [(101, 1), (0, 0)]);
}

#[test]
fn row_messages_need_an_enabled_ring_that_lasts() {
    let disabled = Config::new(4).messages(4).disabled(true);
    let (mut one, mut other) = pair(Config::new(4), disabled);
    let bad = Errno::EBADFD.to_result();
    assert_eq!(submit(&mut one, &[message(OTHER, 1)]), [(1, bad)]);
    let fields = Entry { addr3: 1, ..message(OTHER, 1) };
    assert_eq!(submit(&mut one, &[fields]), [(1, Errno::EINVAL.to_result())]);
    // SAFETY: no memory is registered.
    unsafe { other.parts.engine.call(Call::EnableRings) }.unwrap();
    assert_eq!(submit(&mut one, &[message(OTHER, 1)]), [(1, 0)]);
    // Accepted before the end: it is there after it.
    other.parts.engine.shutdown();
    assert_eq!(other.reap(), [(101, 1)]);
    assert_eq!(submit(&mut one, &[message(OTHER, 2)]), [(2, bad)]);
    // One that has no room for any.
    let (mut one, _other) = pair(Config::new(4), Config::new(4));
    assert_eq!(submit(&mut one, &[message(OTHER, 1)]), [(1, Errno::EOVERFLOW.to_result())]);
}

#[test]
fn row_messages_are_told_of_by_the_probe() {
    let (mut one, mut other) = pair(Config::new(4), Config::new(4).messages(1));
    let mut probe = Probe::new();
    // SAFETY: no memory is registered.
    unsafe { one.parts.engine.call(Call::Probe(&mut probe)) }.unwrap();
    assert!(probe.is_supported(uapi::IORING_OP_MSG_RING));
    // A place that knows no rings.
    // SAFETY: as above.
    unsafe { other.parts.engine.call(Call::Probe(&mut probe)) }.unwrap();
    assert!(!probe.is_supported(uapi::IORING_OP_MSG_RING));
    let einval = Errno::EINVAL.to_result();
    assert_eq!(submit(&mut other, &[message(OTHER, 1)]), [(1, einval)]);
    let held = message(OTHER, 1).flags(Flags::SKIP_SUCCESS);
    assert_eq!(submit(&mut other, &[held]), [(1, einval)]);
}

/// Sends so many messages from each of two threads, as often as it takes.
fn send_from_two(inbox: Inbox<'static>, count: u64) -> [thread::JoinHandle<()>; 2] {
    [0, 1].map(|sender| {
        thread::spawn(move || {
            for n in 0..count {
                while let Err(errno) = inbox.send(cqe(sender * count + n)) {
                    assert_eq!(errno, Errno::EOVERFLOW);
                    thread::yield_now();
                }
            }
        })
    })
}

/// Every message once, those of one sender in their order.
fn check(seen: &[(u64, i32)], count: u64) {
    assert!(seen.iter().all(|&(name, res)| name == res as u64));
    for sender in [0, 1] {
        let range = sender * count..(sender + 1) * count;
        let of: Vec<u64> = seen.iter().map(|s| s.0).filter(|name| range.contains(name)).collect();
        assert!(of.iter().copied().eq(range), "{of:?}");
    }
    assert_eq!(seen.len() as u64, 2 * count);
}

const COUNT: u64 = if cfg!(miri) { 4 } else { 5_000 };

#[test]
fn row_messages_of_threads_end_an_inline_wait() {
    let mut rig = rig(Config::new(4).cq_entries(4).messages(3));
    let senders = send_from_two(rig.parts.remote.inbox(), COUNT);
    let mut seen = Vec::new();
    while (seen.len() as u64) < 2 * COUNT {
        assert_eq!(rig.parts.engine.enter(0, 1, WAIT, None), Ok(0));
        seen.extend(rig.reap());
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    check(&seen, COUNT);
}

/// What two threads send is all there, waited for from outside of the engine.
fn all_come(remote: Remote<'static, Place>, cq: &mut CqHalf<'static>) {
    let senders = send_from_two(remote.inbox(), COUNT);
    let mut seen = Vec::new();
    while (seen.len() as u64) < 2 * COUNT {
        assert_eq!(remote.wait_cqes(1, None), Ok(()));
        seen.extend(cq.queue().map(|cqe| (cqe.user_data, cqe.res)));
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    check(&seen, COUNT);
}

#[test]
fn row_messages_of_threads_wake_a_polled_ring() {
    let config = Config::new(4).cq_entries(4).messages(3).mode(Mode::SqPoll { idle_ms: 1 });
    let Rig { parts, .. } = rig(config);
    let (mut engine, mut cq, remote) = (parts.engine, parts.cq, parts.remote);
    let poller = thread::spawn(move || engine.poll_loop());
    all_come(remote, &mut cq);
    remote.stop();
    poller.join().unwrap();
    assert_eq!(remote.inbox().send(cqe(1)), Err(Errno::EBADFD));
}

#[test]
fn row_messages_of_threads_wake_a_served_ring() {
    let Rig { parts, .. } = rig(Config::new(4).cq_entries(4).messages(3).mode(Mode::Served));
    let (mut cq, remote) = (parts.cq, parts.remote);
    let served = std::sync::Arc::new(Served::new(parts.engine, remote));
    let helper = served.clone();
    let helper = thread::spawn(move || helper.help());
    all_come(remote, &mut cq);
    remote.stop();
    helper.join().unwrap();
}
