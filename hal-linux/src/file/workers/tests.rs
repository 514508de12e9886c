//! Row *workers*, with threads that cannot be made as a script says.

use std::io::Write;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use annulus::hal::Token;

use super::super::FileBackend;
use super::*;
use crate::file::job::Op;
use crate::file::order::Inode;
use crate::ring::Ring;
use crate::threads::tests::{fail, left};
use crate::{opcode, types};

/// Workers of two classes, two each, whose completions nobody waits for. The
/// ring lends them its lane and has to outlive them.
fn workers() -> (Ring, Workers) {
    let mut workers = None;
    let ring = Ring::builder()
        .build_with(8, |slots, completer| {
            let lane = Lane { completer, bell: false };
            let limits = Limits { bounded: 2, unbounded: 2 };
            workers = Some(Workers::new(slots, limits, Blocks::new().unwrap(), lane));
            FileBackend::new(slots, limits, Blocks::new().unwrap(), completer, true, true)
        })
        .unwrap();
    (ring, workers.unwrap())
}

/// Queues a read that waits for a byte of the pipe, in a worker.
fn wait_for(workers: &mut Workers, index: usize, pipe: &impl AsRawFd, byte: &mut u8) {
    // SAFETY: not queued, so nobody else's.
    let job = unsafe { workers.shared.job(index) };
    (job.token, job.op, job.fd) = (Token::from_raw(index as u32), Op::Read, pipe.as_raw_fd());
    job.set_buffer((&raw mut *byte).addr(), 1);
    job.off = -1;
    workers.push(Class::Unbounded, index);
    workers.kick();
}

/// Queues a sync of a file for a bounded worker, as nobody's request.
fn queue(workers: &mut Workers, index: usize, op: Op, inode: Option<Inode>) {
    // SAFETY: not queued, so nobody else's.
    let job = unsafe { workers.shared.job(index) };
    (job.token, job.op, job.fd) = (Token::from_raw(index as u32), op, -1);
    job.set_buffer(4096, 10);
    (job.off, job.inode) = (index as i64 * 10, inode);
    workers.push(Class::Bounded, index);
}

/// Waits, not for ever.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn growth_that_fails_in_passing_is_tried_again() {
    let (_ring, mut workers) = workers();
    let (from, mut to) = std::io::pipe().unwrap();
    let (other, mut to_other) = std::io::pipe().unwrap();
    let (mut a, mut b) = (0, 0);
    wait_for(&mut workers, 0, &from, &mut a);
    until("the first worker takes its job", || workers.load(Class::Unbounded).queued == 0);
    fail(&[libc::EAGAIN, libc::EINTR]);
    wait_for(&mut workers, 1, &other, &mut b);
    assert!(workers.retry_at().is_some());
    // Not before its time, however often the engine comes by.
    workers.retry();
    workers.dispatch();
    assert_eq!((left(), workers.load(Class::Unbounded).workers), (1, 1));
    until("the second worker is made", || {
        workers.retry();
        workers.retry_at().is_none()
    });
    assert_eq!((left(), workers.load(Class::Unbounded).workers), (0, 2));
    // It gets on while the first one waits.
    to_other.write_all(b"b").unwrap();
    until("the second job is carried out", || workers.load(Class::Unbounded).idle == 1);
    to.write_all(b"a").unwrap();
    until("the first, too", || workers.load(Class::Unbounded).idle == 2);
    workers.stop();
    assert_eq!((a, b), (b'a', b'b'));
}

#[test]
fn growth_that_fails_for_good_is_not_fatal() {
    let (_ring, mut workers) = workers();
    let (from, mut to) = std::io::pipe().unwrap();
    let mut bytes = [0; 2];
    let [a, b] = &mut bytes;
    wait_for(&mut workers, 0, &from, a);
    until("the first worker takes its job", || workers.load(Class::Unbounded).queued == 0);
    fail(&[libc::EPERM]);
    wait_for(&mut workers, 1, &from, b);
    assert_eq!((left(), workers.retry_at()), (0, None));
    assert_eq!(workers.load(Class::Unbounded), Load { queued: 1, workers: 1, idle: 0 });
    to.write_all(b"xy").unwrap();
    until("one worker does both", || workers.load(Class::Unbounded).idle == 1);
    workers.stop();
    assert_eq!(bytes, *b"xy");
}

#[test]
fn a_stop_forgets_what_is_owed() {
    let (_ring, mut workers) = workers();
    let (from, _to) = std::io::pipe().unwrap();
    let mut byte = 0;
    fail(&[libc::EAGAIN]);
    wait_for(&mut workers, 0, &from, &mut byte);
    assert!(workers.retry_at().is_some());
    workers.cancel_queued();
    assert_eq!(workers.retry_at(), None);
    assert_eq!(workers.load(Class::Unbounded), Load::default());
    workers.stop();
}

#[test]
fn what_is_queued_can_be_cancelled_and_what_runs_cannot() {
    let (_ring, mut workers) = workers();
    let (from, mut to) = std::io::pipe().unwrap();
    let mut bytes = [0; 3];
    let [a, b, c] = &mut bytes;
    workers.set_limits(&mut [0, 1]);
    for (index, byte) in [a, b, c].into_iter().enumerate() {
        wait_for(&mut workers, index, &from, byte);
    }
    until("the first is begun", || workers.load(Class::Unbounded).queued == 2);
    let token = |index| Token::from_raw(index);
    assert_eq!([0, 1].map(|n| workers.cancel(token(n))), [Cancel::Running, Cancel::Ended]);
    assert_eq!(workers.cancel(token(1)), Cancel::Running, "once");
    assert_eq!(workers.load(Class::Unbounded).queued, 1);
    to.write_all(b"xy").unwrap();
    until("the others are carried out", || workers.load(Class::Unbounded).idle == 1);
    workers.stop();
    assert_eq!(bytes, [b'x', 0, b'y']);
}

#[test]
fn a_turn_is_given_on_by_who_is_cancelled() {
    let (_ring, mut workers) = workers();
    let file = Some(Inode::new(1, 2, 1000));
    let token = |index| Token::from_raw(index);
    for index in 0..4 {
        queue(&mut workers, index, Op::Write, file);
    }
    let queued = |workers: &Workers| workers.load(Class::Bounded).queued;
    assert_eq!(queued(&workers), 1, "the others wait for their turn");
    assert_eq!(workers.cancel(token(2)), Cancel::Ended);
    // Nobody is there yet: what follows is queued, and a worker is owed.
    fail(&[libc::EAGAIN; 2]);
    assert_eq!(workers.cancel(token(0)), Cancel::Ended);
    assert_eq!((queued(&workers), left()), (1, 1));
    assert!(workers.retry_at().is_some(), "somebody looks after it");
    assert_eq!([1, 3].map(|n| workers.cancel(token(n))), [Cancel::Ended; 2]);
    assert_eq!((queued(&workers), workers.retry_at()), (0, None));
    fail(&[]);
    workers.stop();
}

#[test]
fn nothing_is_left_of_a_chain_when_its_class_has_no_workers() {
    let (_ring, mut workers) = workers();
    for (index, op) in [Op::Write, Op::Read, Op::Write, Op::Read].into_iter().enumerate() {
        queue(&mut workers, index, op, Some(Inode::new(1, 2, 1000)));
    }
    fail(&[libc::EPERM]);
    workers.kick();
    assert_eq!(workers.load(Class::Bounded), Load::default());
    assert_eq!(workers.shared.order.take_waiting(), None);
    workers.stop();
}

fn sync(ring: &mut Ring, file: &impl AsRawFd) {
    let entry = opcode::Fsync::new(types::Fd(file.as_raw_fd())).build();
    // SAFETY: the file outlives the ring.
    unsafe { ring.submission().push(&entry) }.unwrap();
    ring.submit().unwrap();
}

#[test]
fn a_first_worker_that_fails_in_passing_is_made_later() {
    let file = tempfile::tempfile().unwrap();
    let mut ring = Ring::new(8).unwrap();
    fail(&[libc::EAGAIN, libc::EINTR, libc::ENOMEM]);
    sync(&mut ring, &file);
    assert_eq!(left(), 2, "the submitter does not wait");
    ring.submit_and_wait(1).unwrap();
    assert_eq!((left(), ring.completion().next().unwrap().result()), (0, 0));
}

#[test]
fn an_application_that_only_looks_gets_its_worker() {
    let file = tempfile::tempfile().unwrap();
    let mut ring = Ring::new(8).unwrap();
    fail(&[libc::EAGAIN; 3]);
    sync(&mut ring, &file);
    until("it completes", || ring.completion().next().is_some_and(|cqe| cqe.result() == 0));
    assert_eq!(left(), 0);
    assert!(!ring.submission().taskrun(), "and is not called any more");
}

#[test]
fn an_application_that_waits_on_the_eventfd_is_called() {
    let file = tempfile::tempfile().unwrap();
    let mut ring = Ring::builder().eventfd(true).build(8).unwrap();
    fail(&[libc::EAGAIN; 3]);
    sync(&mut ring, &file);
    loop {
        let eventfd = ring.eventfd().unwrap();
        let mut list = [rustix::event::PollFd::new(&eventfd, rustix::event::PollFlags::IN)];
        let time = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut list, Some(&time)), Ok(1), "nobody rings");
        rustix::io::read(eventfd, &mut [0; 8]).unwrap();
        if let Some(cqe) = ring.completion().next() {
            assert_eq!((left(), cqe.result()), (0, 0));
            return;
        }
    }
}

#[test]
fn a_first_worker_that_cannot_be_made_cancels() {
    let file = tempfile::tempfile().unwrap();
    let mut ring = Ring::new(8).unwrap();
    fail(&[libc::EPERM]);
    sync(&mut ring, &file);
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result(), -libc::ECANCELED);
    // The next may have one.
    sync(&mut ring, &file);
    ring.submit_and_wait(1).unwrap();
    assert_eq!(ring.completion().next().unwrap().result(), 0);
}
