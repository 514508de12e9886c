//! Row *messages*: what rings send each other comes alike on this machine's
//! io_uring and on Annulus, however the two are driven.

mod both;

use std::sync::mpsc;
use std::time::Duration;

use annulus::uapi::IORING_ENTER_GETEVENTS as GETEVENTS;
use annulus_linux::{opcode, squeue, types};
use both::{Make, Ring, Seen, pairs};

fn message(ring: &dyn Ring, n: u64) -> squeue::Entry {
    to(ring.fd(), n)
}

fn to(fd: i32, n: u64) -> squeue::Entry {
    let flags = n.is_multiple_of(3).then_some(n as u32);
    opcode::MsgRingData::new(types::Fd(fd), n as i32, n, flags).build().user_data(1000 + n)
}

/// All that comes, up to so many.
fn take(ring: &mut dyn Ring, count: usize) -> Vec<Seen> {
    ring.start(&[], count);
    ring.reap()
}

#[test]
fn row_messages_come_in_the_order_in_which_they_were_sent() {
    pairs(|one, other| {
        let (mut one, mut other) = (one(), other());
        let mut all = Vec::new();
        for n in 0..20 {
            all.extend(one.run(&[message(&*other, n)], 1));
        }
        // More than the CQ holds.
        while all.len() < 40 {
            let before = all.len();
            all.extend(take(&mut *other, 1));
            let done = other.enter(0, 0, GETEVENTS, None);
            assert!(done == 0 && all.len() > before);
        }
        all
    });
}

#[test]
fn row_messages_to_oneself_come_first() {
    pairs(|one, _| {
        let mut one = one();
        (0..10).map(|n| one.run(&[message(&*one, n)], 2)).collect::<Vec<_>>()
    });
}

/// A thread with a ring of its own that sends so many messages, one by one.
fn send(make: Make<'_>, fd: i32, first: u64, count: u64) {
    let mut ring = make();
    for n in first..first + count {
        let seen = ring.run(&[to(fd, n)], 1);
        assert_eq!(seen, [(1000 + n, 0, 0)]);
    }
}

#[test]
fn row_messages_end_a_wait() {
    pairs(|one, other| {
        let mut other = other();
        let fd = other.fd();
        std::thread::scope(|scope| {
            let (go, gone) = mpsc::channel();
            scope.spawn(move || {
                gone.recv().unwrap();
                std::thread::sleep(Duration::from_millis(30));
                send(one, fd, 5, 2);
            });
            go.send(()).unwrap();
            let done = other.enter(0, 2, GETEVENTS, None);
            (done, other.reap())
        })
    });
}

#[test]
fn row_messages_of_many_rings_come_once_each() {
    const SENDERS: u64 = 3;
    const COUNT: u64 = 100;
    pairs(|one, other| {
        let mut other = other();
        let fd = other.fd();
        let mut seen: Vec<Seen> = Vec::new();
        std::thread::scope(|scope| {
            for sender in 0..SENDERS {
                // Annulus has room for so many that wait.
                scope.spawn(move || send(one, fd, sender * COUNT / 3, COUNT / 3));
            }
            while (seen.len() as u64) < SENDERS * (COUNT / 3) {
                assert_eq!(other.enter(0, 1, GETEVENTS, None), 0);
                seen.extend(other.reap());
            }
        });
        for sender in 0..SENDERS {
            let of = sender * COUNT / 3..sender * COUNT / 3 + COUNT / 3;
            let of = seen.iter().filter(|(n, _, _)| of.contains(n)).map(|seen| seen.0);
            assert!(of.is_sorted(), "{seen:?}");
        }
        seen.sort_unstable();
        seen
    });
}
