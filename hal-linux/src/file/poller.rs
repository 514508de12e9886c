//! Waiting for files to become ready: one epoll thread a ring.
//!
//! Made when the first request has to wait. Each waiting request has a
//! descriptor of its own in the epoll set, one-shot (but for a multishot
//! POLL_ADD): an event is one `ready(token)` for the engine, which tries again
//! and re-arms if somebody else was faster. Adding a file that is ready already fires at once, so a
//! wake-up between the try and the arming is not lost. A notice that comes
//! after its request ended carries an old generation and is refused.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::thread::JoinHandle;

use annulus::hal::Token;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::job::Op;
use super::lane::Lane;
use crate::own::Own;
use crate::threads;

/// The event that ends the thread; no token is this large.
const STOP: u64 = u64::MAX;

/// The epoll set and its thread.
#[derive(Debug)]
pub struct Poller {
    epoll: Own,
    stop: Own,
    thread: Option<JoinHandle<()>>,
}

fn events(op: Op) -> EventFlags {
    match op {
        // Its flag for one shot is epoll's. One of several is told of once:
        // what is ready then is looked up each time.
        Op::Poll { events } => EventFlags::from_bits_retain(events) | EventFlags::ET,
        // Errors and hang-ups are always reported, and count as ready: the
        // retried call says what they mean.
        Op::Write => EventFlags::OUT | EventFlags::ONESHOT,
        _ => EventFlags::IN | EventFlags::RDHUP | EventFlags::ONESHOT,
    }
}

fn data(token: Token) -> EventData {
    EventData::new_u64(u64::from(token.to_raw()))
}

/// A descriptor of a job's own, for one call.
fn borrow<'a>(fd: RawFd) -> BorrowedFd<'a> {
    // SAFETY: open until the job lets it go, which is after every call here.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

impl Poller {
    /// # Errors
    /// No descriptors, no memory, or no thread.
    pub fn new(lane: Lane) -> io::Result<Self> {
        let epoll = Own::from(epoll::create(CreateFlags::CLOEXEC)?);
        let stop = Own::from(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        epoll::add(&epoll, &stop, EventData::new_u64(STOP), EventFlags::IN)?;
        let set = epoll.try_clone()?;
        let thread = threads::spawn("annulus-poll", move || watch(&set, lane))?;
        Ok(Self { epoll, stop, thread: Some(thread) })
    }

    /// Asks for a notice when `fd`, the job's own, is ready for `op`.
    ///
    /// # Errors
    /// `EPERM` if the file cannot be polled, `ENOSPC` or `ENOMEM` if the
    /// kernel watches too many.
    pub fn arm(&self, fd: RawFd, op: Op, token: Token) -> Result<(), Errno> {
        epoll::add(&self.epoll, borrow(fd), data(token), events(op))
    }

    /// Asks again. What is ready by now counts.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rearm(&self, fd: RawFd, op: Op, token: Token) -> Result<(), Errno> {
        epoll::modify(&self.epoll, borrow(fd), data(token), events(op))
    }

    /// Ends the wait, before `fd` is closed. The set refers to the open
    /// file, which the application may keep open: closing our descriptor
    /// alone would leave the entry behind.
    pub fn disarm(&self, fd: RawFd) {
        // Only fails for an entry that is not there.
        let _ = epoll::delete(&self.epoll, borrow(fd));
    }
}

impl Drop for Poller {
    fn drop(&mut self) {
        // A fresh counter takes it.
        let _ = rustix::io::write(self.stop.as_fd(), &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // It does not panic; if it did, it is gone all the same.
            let _ = thread.join();
        }
    }
}

fn watch(set: &Own, lane: Lane) {
    let none = Event { flags: EventFlags::empty(), data: EventData::new_u64(0) };
    let mut events = [none; 64];
    loop {
        let count = match epoll::wait(set, &mut events[..], None) {
            Ok(count) => count,
            // Signals are blocked; a stop and continue may still interrupt.
            Err(Errno::INTR) => continue,
            // The set and the array are ours and good.
            Err(e) => unreachable!("epoll_wait: {e}"),
        };
        for event in &events[..count] {
            let data = event.data;
            match data.u64() {
                STOP => return,
                // Stale: the request ended meanwhile.
                token => drop(lane.ready(Token::from_raw(token as u32))),
            }
        }
    }
}
