//! Row *poll*: readiness of real files, as the kernel reports it.

mod common;

use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use annulus_linux::{Ring, cqueue, opcode, squeue, types};
use common::*;

const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;
const HUP: u32 = libc::POLLHUP as u32;
const ERR: u32 = libc::POLLERR as u32;
const RDHUP: u32 = libc::POLLRDHUP as u32;

fn add(file: &impl AsRawFd, events: u32, user_data: u64) -> squeue::Entry {
    opcode::PollAdd::new(fd(file), events).build().user_data(user_data)
}

fn multi(file: &impl AsRawFd, events: u32, user_data: u64) -> squeue::Entry {
    opcode::PollAdd::new(fd(file), events).multi(true).build().user_data(user_data)
}

fn remove(user_data: u64) -> squeue::Entry {
    opcode::PollRemove::new(user_data).build().user_data(REMOVER)
}

const REMOVER: u64 = 1000;

/// Submits without waiting; under SQPOLL until the entries are taken.
fn submit(ring: &mut Ring, entries: &[squeue::Entry]) {
    push(ring, entries);
    // A polling thread may have taken some before they are counted.
    let count = ring.submit().unwrap();
    assert!(count == entries.len() || ring.params().is_setup_sqpoll(), "{count}");
    while !ring.submission().is_empty() {
        std::thread::yield_now();
        ring.submission().sync();
    }
}

fn told(cqes: &[cqueue::Entry]) -> Vec<(u64, i32)> {
    cqes.iter().map(|cqe| (cqe.user_data(), cqe.result())).collect()
}

fn eventfd() -> OwnedFd {
    // SAFETY: the number is ours.
    unsafe { OwnedFd::from_raw_fd(libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)) }
}

fn count(event: &OwnedFd) {
    put(event, &1u64.to_ne_bytes());
}

fn drain(from: &impl AsRawFd) {
    let mut bytes = [0u8; 64];
    // SAFETY: room for them.
    let n = unsafe { libc::read(from.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
    assert!(n > 0);
}

#[test]
fn row_poll_what_is_ready_completes_at_once() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        assert_eq!(one(ring, &add(&to, OUT, 1)), OUT as i32);
        put(&to, b"x");
        assert_eq!(one(ring, &add(&from, IN, 1)), IN as i32);
        assert_eq!(one(ring, &add(&from, 0xffff, 1)), (IN | libc::POLLRDNORM as u32) as i32);
        // What lies above the events is not looked at.
        assert_eq!(one(ring, &add(&from, IN | 0x0fff_0000, 1)), IN as i32);
        // Not asked for, and always told.
        drop(to);
        assert_eq!(one(ring, &add(&from, 0, 1)), HUP as i32);
        let (from, to) = pipe(0);
        drop(from);
        assert_eq!(one(ring, &add(&to, IN, 1)), ERR as i32);
        let event = eventfd();
        assert_eq!(one(ring, &add(&event, IN | OUT, 1)), OUT as i32);
    });
}

#[test]
fn row_poll_files_that_wake_nobody() {
    each(4, |ring| {
        let file = tempfile::tempfile().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        for file in [&file, &null] {
            assert_eq!(one(ring, &add(file, IN, 1)), IN as i32);
            assert_eq!(one(ring, &add(file, u32::from(u16::MAX), 1)), 0x145);
            assert_eq!(one(ring, &add(file, libc::POLLPRI as u32, 1)), -libc::EINVAL);
            assert_eq!(one(ring, &add(file, 0, 1)), -libc::EINVAL);
            let cqe = run(ring, &[multi(file, IN, 1)])[0];
            assert_eq!((cqe.result(), cqueue::more(cqe.flags())), (IN as i32, false));
        }
        assert_eq!(one(ring, &opcode::PollAdd::new(types::Fd(-1), IN).build()), -libc::EBADF);
        assert_eq!(one(ring, &opcode::PollAdd::new(types::Fd(9999), IN).build()), -libc::EBADF);
        assert_eq!(one(ring, &opcode::PollAdd::new(types::Fixed(0), IN).build()), -libc::EBADF);
        // Nothing was left behind.
        assert_eq!(one(ring, &remove(1)), -libc::ENOENT);
    });
}

#[test]
fn row_poll_waits_for_pipe_eventfd_and_socket() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        submit(ring, &[add(&from, IN, 1)]);
        nothing_comes(ring);
        put(&to, b"x");
        assert_eq!(told(&reap(ring, 1)), [(1, IN as i32)]);
        put(&to, b"x");
        nothing_comes(ring);

        let event = eventfd();
        submit(ring, &[add(&event, IN, 2)]);
        count(&event);
        assert_eq!(told(&reap(ring, 1)), [(2, IN as i32)]);

        let (mut a, b) = UnixStream::pair().unwrap();
        submit(ring, &[add(&b, IN, 3)]);
        nothing_comes(ring);
        a.write_all(b"ping").unwrap();
        assert_eq!(told(&reap(ring, 1)), [(3, IN as i32)]);
        (&b).read_exact(&mut [0; 4]).unwrap();
        submit(ring, &[add(&b, IN, 4)]);
        nothing_comes(ring);
        a.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(told(&reap(ring, 1)), [(4, (IN | RDHUP) as i32)]);
        drop(a);
        assert_eq!(one(ring, &add(&b, 0, 5)), (HUP | RDHUP) as i32);
    });
}

#[test]
fn row_poll_registered_files_and_flags() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        ring.submitter().register_files(&[from.as_raw_fd()]).unwrap();
        let fixed = opcode::PollAdd::new(types::Fixed(0), IN).build();
        submit(ring, &[fixed.user_data(1), fixed.user_data(2).flags(squeue::Flags::ASYNC)]);
        // The registration may go; the requests keep the file.
        ring.submitter().unregister_files().unwrap();
        nothing_comes(ring);
        put(&to, b"x");
        let mut cqes = told(&reap(ring, 2));
        cqes.sort_unstable();
        assert_eq!(cqes, [(1, IN as i32), (2, IN as i32)]);
    });
}

#[test]
fn row_poll_closing_the_number_ends_nothing() {
    each(4, |ring| {
        let (from, to) = pipe(libc::O_NONBLOCK);
        submit(ring, &[add(&from, IN, 1), multi(&from, IN, 2)]);
        drop(from);
        nothing_comes(ring);
        // The waits are the last readers.
        put(&to, b"x");
        let mut cqes = told(&reap(ring, 2));
        cqes.sort_unstable();
        assert_eq!(cqes, [(1, IN as i32), (2, IN as i32)]);
        submit(ring, &[remove(2)]);
        assert_eq!(told(&reap(ring, 2)), [(REMOVER, 0), (2, -libc::ECANCELED)]);
        // With them the last reader has gone.
        assert_eq!(one(ring, &add(&to, 0, 3)), ERR as i32);
    });
}

#[test]
fn row_poll_a_removal_ends_the_newest() {
    each(8, |ring| {
        let (from, to) = pipe(0);
        assert_eq!(one(ring, &remove(1)), -libc::ENOENT);
        let other = eventfd();
        submit(ring, &[add(&other, IN, 1), add(&from, IN, 1)]);
        push(ring, &[remove(1)]);
        ring.submit().unwrap();
        assert_eq!(told(&reap(ring, 2)), [(REMOVER, 0), (1, -libc::ECANCELED)]);
        put(&to, b"x");
        nothing_comes(ring);
        count(&other);
        assert_eq!(told(&reap(ring, 1)), [(1, IN as i32)]);
        assert_eq!(one(ring, &remove(1)), -libc::ENOENT);
        // In one batch; the second finds nothing any more.
        drain(&from);
        submit(ring, &[add(&from, IN, 1), remove(1), remove(1)]);
        let mut cqes = told(&reap(ring, 3));
        cqes.sort_unstable();
        assert_eq!(cqes, [(1, -libc::ECANCELED), (REMOVER, -libc::ENOENT), (REMOVER, 0)]);
        // A read is not a poll.
        let mut byte = 0u8;
        submit(ring, &[opcode::Read::new(fd(&from), &mut byte, 1).build().user_data(7)]);
        assert_eq!(one(ring, &remove(7)), -libc::ENOENT);
        put(&to, b"y");
        assert_eq!(told(&reap(ring, 1)), [(7, 1)]);
    });
}

#[test]
fn row_poll_multishot_goes_on_until_it_is_removed() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        submit(ring, &[multi(&from, IN, 1)]);
        for _ in 0..3 {
            nothing_comes(ring);
            put(&to, b"x");
            let cqe = reap(ring, 1)[0];
            assert_eq!((cqe.result(), cqueue::more(cqe.flags())), (IN as i32, true));
        }
        drop(to);
        let cqe = reap(ring, 1)[0];
        assert_eq!(cqe.result(), (IN | HUP) as i32);
        assert!(cqueue::more(cqe.flags()));
        push(ring, &[remove(1)]);
        ring.submit().unwrap();
        let cqes = reap(ring, 2);
        assert_eq!(told(&cqes), [(REMOVER, 0), (1, -libc::ECANCELED)]);
        assert!(!cqueue::more(cqes[1].flags()));
        // One that is ready already says so first.
        submit(ring, &[multi(&from, IN, 2)]);
        assert_eq!(told(&reap(ring, 1)), [(2, (IN | HUP) as i32)]);
        nothing_comes(ring);
    });
}

#[test]
fn row_poll_a_multishot_ends_where_its_completion_has_no_room() {
    for (name, mut builder) in builders() {
        eprintln!("-- {name}");
        let mut ring = builder.setup_cqsize(2).build(2).unwrap();
        let event = eventfd();
        submit(&mut ring, &[multi(&event, IN, 1)]);
        let mut overflowed = false;
        for _ in 0..2000 {
            count(&event);
            std::thread::sleep(std::time::Duration::from_millis(1));
            // Inline, somebody has to drive the ring.
            let flags = annulus::uapi::IORING_ENTER_GETEVENTS;
            // SAFETY: nothing is submitted.
            unsafe { ring.submitter().enter(0, 0, flags, None) }.unwrap();
            overflowed = ring.submission().cq_overflow();
            if overflowed {
                break;
            }
        }
        assert!(overflowed);
        let cqes = reap(&mut ring, 3);
        let more: Vec<_> = cqes.iter().map(|cqe| cqueue::more(cqe.flags())).collect();
        assert_eq!(more, [true, true, false]);
        assert!(cqes.iter().all(|cqe| cqe.result() == IN as i32));
        count(&event);
        nothing_comes(&mut ring);
        assert_eq!(one(&mut ring, &remove(1)), -libc::ENOENT);
    }
}

#[test]
fn row_poll_an_update_changes_events_and_user_data() {
    each(4, |ring| {
        let (from, to) = pipe(0);
        let update = |old| opcode::PollUpdate::new(old);
        let by = |entry: opcode::PollUpdate| entry.build().user_data(REMOVER);
        submit(ring, &[add(&from, IN, 1)]);
        assert_eq!(one(ring, &by(update(1).new_user_data(2))), 0);
        assert_eq!(one(ring, &by(update(1).new_user_data(3))), -libc::ENOENT);
        assert_eq!(one(ring, &by(update(2).events(libc::POLLPRI as u32))), 0);
        put(&to, b"x");
        nothing_comes(ring);
        push(ring, &[by(update(2).events(IN).new_user_data(4))]);
        ring.submit().unwrap();
        assert_eq!(told(&reap(ring, 2)), [(REMOVER, 0), (4, IN as i32)]);
        assert_eq!(one(ring, &by(update(4).events(IN))), -libc::ENOENT);

        // A multishot wait stays one; what is ready counts again.
        submit(ring, &[multi(&from, IN, 5)]);
        assert_eq!(told(&reap(ring, 1)), [(5, IN as i32)]);
        push(ring, &[by(update(5).new_user_data(6))]);
        ring.submit().unwrap();
        assert_eq!(told(&reap(ring, 2)), [(REMOVER, 0), (6, IN as i32)]);
        put(&to, b"x");
        let cqe = reap(ring, 1)[0];
        assert_eq!((cqe.user_data(), cqueue::more(cqe.flags())), (6, true));
        assert_eq!(one(ring, &by(update(6).events(0))), 0);
        put(&to, b"x");
        nothing_comes(ring);
        drop(to);
        assert_eq!(told(&reap(ring, 1)), [(6, HUP as i32)]);
    });
}

#[test]
fn row_fallback_a_wait_does_not_take_the_reserve() {
    let mut ring = Ring::builder().requests(1).build(4).unwrap();
    let (from, to) = pipe(0);
    push(&mut ring, &[add(&from, IN, 1), add(&to, OUT, 2), add(&from, IN, 3), remove(1)]);
    // The second ends at once, the third would wait; the removal is behind it.
    assert_eq!(ring.submit().unwrap(), 2);
    assert_eq!(told(&reap(&mut ring, 1)), [(2, OUT as i32)]);
    assert_eq!(ring.submit().unwrap_err().raw_os_error(), Some(libc::EBUSY));
    put(&to, b"x");
    assert_eq!(told(&reap(&mut ring, 1)), [(1, IN as i32)]);
    assert_eq!(ring.submit_and_wait(2).unwrap(), 2);
    let cqes: Vec<_> = ring.completion().collect();
    assert_eq!(told(&cqes), [(3, IN as i32), (REMOVER, -libc::ENOENT)]);

    // Nothing is in the reserve, so a removal gets through.
    drain(&from);
    push(&mut ring, &[add(&from, IN, 1), remove(1)]);
    assert_eq!(ring.submit().unwrap(), 2);
    assert_eq!(told(&reap(&mut ring, 2)), [(REMOVER, 0), (1, -libc::ECANCELED)]);
}

#[test]
fn row_poll_a_ring_ends_with_waits_and_leaves_nothing() {
    for (name, builder) in builders() {
        eprintln!("-- {name}");
        let (from, to) = pipe(0);
        let mut ring = builder.build(8).unwrap();
        submit(&mut ring, &[add(&from, IN, 1), multi(&from, IN, 2)]);
        // One of them is on its way when the ring ends.
        put(&to, b"x");
        drop(ring);
        drop(from);
        let mut to = std::fs::File::from(to);
        let error = to.write(b"y").unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "the last reader has gone");
    }
}

/// A thread makes files ready while the waits are armed, changed and removed:
/// each ends exactly once, whatever comes first.
#[test]
fn row_poll_each_ends_once_whatever_comes_first() {
    const ROUNDS: u64 = 500;
    each(64, |ring| {
        let event = eventfd();
        let stop = std::sync::atomic::AtomicBool::new(false);
        let mut ends = [0u32; 3];
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    count(&event);
                    drain_any(&event);
                    std::thread::yield_now();
                }
            });
            let thread = Stop(&stop);
            for round in 0..ROUNDS {
                let wait = if round % 2 == 0 { add(&event, IN, 1) } else { multi(&event, IN, 1) };
                let change = match round % 3 {
                    0 => opcode::PollUpdate::new(1).events(IN).build().user_data(REMOVER),
                    _ => opcode::Nop::new().build().user_data(REMOVER),
                };
                submit(ring, &[wait, change]);
                submit(ring, &[remove(1).user_data(REMOVER + 1)]);
                let (mut removed, mut ended, mut changed) = (None, None, false);
                while removed.is_none() || !changed || ended.is_none() {
                    for cqe in reap(ring, 1) {
                        match cqe.user_data() {
                            REMOVER => changed = true,
                            1 if cqueue::more(cqe.flags()) => assert_eq!(cqe.result(), IN as i32),
                            1 => assert_eq!(ended.replace(cqe.result()), None, "a second end"),
                            _ => removed = Some(cqe.result()),
                        }
                    }
                    if removed == Some(-libc::EALREADY) && round % 2 == 1 && ended.is_none() {
                        // It goes on; once more.
                        removed = None;
                        submit(ring, &[remove(1).user_data(REMOVER + 1)]);
                    }
                }
                let removed = removed.unwrap();
                match ended.unwrap() {
                    e if e == -libc::ECANCELED => assert_eq!(removed, 0),
                    mask => {
                        assert_eq!(mask, IN as i32);
                        assert!(removed == -libc::ENOENT || removed == -libc::EALREADY);
                    }
                }
                ends[match removed {
                    0 => 0,
                    e if e == -libc::ENOENT => 1,
                    _ => 2,
                }] += 1;
            }
            drop(thread);
        });
        eprintln!("removed, gone, already: {ends:?}");
    });
}

/// Ends the other thread, also if this one fails.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Reads the counter, if it is not zero.
fn drain_any(event: &OwnedFd) {
    let mut bytes = [0u8; 8];
    // SAFETY: room for them.
    unsafe { libc::read(event.as_raw_fd(), bytes.as_mut_ptr().cast(), 8) };
}

#[test]
fn row_poll_probe_shows_it() {
    each(4, |ring| {
        let mut probe = annulus::probe::Probe::new();
        ring.submitter().register_probe(&mut probe).unwrap();
        assert!(probe.is_supported(opcode::PollAdd::CODE));
        assert!(probe.is_supported(opcode::PollRemove::CODE));
    });
}
