//! What only happens to messages here: rings that go while they are sent, forks,
//! descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Barrier;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::thread;

use annulus_linux::opcode::{Close, MsgRingData, Nop, Write};
use annulus_linux::squeue::Entry;
use annulus_linux::types::Fd;
use annulus_linux::{Probe, Ring, register_sync_msg};

fn message(fd: i32, n: u64) -> Entry {
    MsgRingData::new(Fd(fd), n as i32, n, None).build().user_data(1)
}

/// Submits an entry of which nothing is pointed to, or which lasts: its result.
fn result(ring: &mut Ring, entry: &Entry) -> i32 {
    // SAFETY: as said.
    unsafe { ring.submission().push(entry) }.unwrap();
    ring.submit_and_wait(1).unwrap();
    let cqe = ring.completion().next().expect("its own");
    assert_eq!(cqe.user_data(), entry.user_data);
    cqe.result()
}

fn raw(answer: io::Result<()>) -> i32 {
    answer.map_or_else(|e| e.raw_os_error().unwrap(), |()| 0)
}

#[test]
fn row_messages_have_their_places_from_the_builder() {
    let mut one = Ring::new(8).unwrap();
    let mut other = Ring::builder().messages(2).build(8).unwrap();
    let fd = other.as_raw_fd();
    let answers: Vec<_> = (0..3).map(|n| result(&mut one, &message(fd, n))).collect();
    assert_eq!(answers, [0, 0, -libc::EOVERFLOW]);
    assert_eq!(other.completion().map(|cqe| cqe.user_data()).collect::<Vec<_>>(), [0, 1]);
    let none = Ring::builder().messages(0).build(8).unwrap();
    assert_eq!(result(&mut one, &message(none.as_raw_fd(), 1)), -libc::EOVERFLOW);
    let mut probe = Probe::new();
    one.submitter().register_probe(&mut probe).unwrap();
    assert!(probe.is_supported(MsgRingData::CODE));
}

#[test]
fn row_messages_ring_the_bell_of_who_is_elsewhere() {
    for served in [false, true] {
        let mut builder = Ring::builder();
        if served {
            builder.setup_served();
        }
        let mut ring = builder.eventfd(true).build(8).unwrap();
        assert_eq!(raw(register_sync_msg(&message(ring.as_raw_fd(), 5))), 0);
        // A wait without an end if it is not rung.
        let bell = ring.eventfd().unwrap().try_clone_to_owned().unwrap();
        let mut list = [rustix::event::PollFd::new(&bell, rustix::event::PollFlags::IN)];
        rustix::event::poll(&mut list, None).unwrap();
        assert_eq!(ring.completion().next().map(|cqe| cqe.user_data()), Some(5));
    }
}

#[test]
fn row_messages_find_no_ring_that_has_gone() {
    let mut one = Ring::new(8).unwrap();
    let other = Ring::new(8).unwrap();
    let duplicate = other.as_fd().try_clone_to_owned().unwrap();
    let entry = message(duplicate.as_raw_fd(), 1);
    assert_eq!(result(&mut one, &entry), 0);
    drop(other);
    assert_eq!(result(&mut one, &entry), -libc::EBADFD);
    assert_eq!(raw(register_sync_msg(&entry)), libc::EBADFD);
    assert_eq!(raw(register_sync_msg(&message(-1, 1))), libc::EBADF);
    assert_eq!(raw(register_sync_msg(&Nop::new().build())), libc::EINVAL);
}

#[test]
fn a_rings_descriptor_is_nobodys_to_close_register_or_fill() {
    let mut one = Ring::new(8).unwrap();
    let fd = one.as_raw_fd();
    assert_eq!(result(&mut one, &Close::new(Fd(fd)).build()), -libc::EBADF);
    let refused = one.submitter().register_files(&[fd]).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBADF));
    let byte = 1;
    assert!(result(&mut one, &Write::new(Fd(fd), &byte, 1).build()) < 0);
    assert_eq!(raw(register_sync_msg(&message(fd, 1))), 0);
}

/// Rings come and go while messages are sent to the numbers that they had.
#[test]
fn row_messages_to_rings_that_come_and_go() {
    let (target, sent) = (AtomicI32::new(-1), AtomicU64::new(0));
    // The senders' own rings must not have a number that was a target's.
    let made = Barrier::new(3);
    let mut got = 0;
    thread::scope(|scope| {
        let senders: Vec<_> = (0..2)
            .map(|sender| {
                let (target, sent, made) = (&target, &sent, &made);
                scope.spawn(move || {
                    let builder = &mut Ring::builder();
                    let mut ring = match sender {
                        0 => builder.build(8),
                        _ => builder.setup_sqpoll(10).build(8),
                    }
                    .unwrap();
                    made.wait();
                    let mut all = [0; 4];
                    loop {
                        let fd = target.load(Ordering::Relaxed);
                        if fd == -2 {
                            return all;
                        }
                        let answer = result(&mut ring, &message(fd, 3));
                        let known = [0, -libc::EBADF, -libc::EBADFD, -libc::EOVERFLOW];
                        let at = known.iter().position(|&known| known == answer);
                        all[at.unwrap_or_else(|| panic!("{answer}"))] += 1;
                        if answer == 0 {
                            sent.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        made.wait();
        for round in 0..300 {
            let mut builder = Ring::builder();
            match round % 3 {
                0 => &mut builder,
                1 => builder.setup_sqpoll(1),
                _ => builder.setup_served(),
            };
            let mut ring = builder.messages(8).build(4).unwrap();
            target.store(ring.as_raw_fd(), Ordering::Relaxed);
            for _ in 0..3 {
                ring.submit_and_wait(1).unwrap();
                got += ring.completion().inspect(|cqe| assert_eq!(cqe.user_data(), 3)).count();
            }
            // Messages may be on their way while it ends.
        }
        target.store(-2, Ordering::Relaxed);
        let mut all = [0; 4];
        for sender in senders {
            let some = sender.join().unwrap();
            all.iter_mut().zip(some).for_each(|(all, some)| *all += some);
        }
        assert!(all[0] >= 900 && all[1] + all[2] != 0, "{all:?}");
    });
    assert!(got as u64 <= sent.into_inner());
}

#[test]
fn row_messages_of_a_forked_child_do_not_reach_its_parents_rings() {
    let mut ring = Ring::new(8).unwrap();
    let fd = ring.as_raw_fd();
    // SAFETY: the child makes a ring of its own, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let code = std::panic::catch_unwind(|| {
                assert_eq!(raw(register_sync_msg(&message(fd, 1))), libc::EBADFD);
                let mut own = Ring::new(8).unwrap();
                assert_eq!(result(&mut own, &message(fd, 1)), -libc::EBADFD);
                assert_eq!(raw(register_sync_msg(&message(own.as_raw_fd(), 2))), 0);
                assert_eq!(own.completion().next().unwrap().user_data(), 2);
            });
            // SAFETY: ends the child without its parent's exit handlers.
            unsafe { libc::_exit(i32::from(code.is_err())) }
        }
        child => {
            assert!(child > 0);
            let mut status = 0;
            // SAFETY: our child, and room for its status.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert_eq!(status, 0, "the child has seen what it should");
        }
    }
    assert_eq!(ring.completion().count(), 0);
    assert_eq!(raw(register_sync_msg(&message(fd, 3))), 0);
    assert_eq!(ring.completion().next().unwrap().user_data(), 3);
}
