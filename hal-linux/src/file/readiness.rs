//! POLL_ADD: waiting until a file is ready, and nothing else.
//!
//! ```text
//!   start ── poll(2) ──┬── ready, one shot ─────────────────▶ done
//!                      └── else ──▶ armed ◀──── nothing ──────┐
//!                                     │                       │
//!                                     └─ wake-up ─▶ poll(2) ──┼── ready, one shot ─▶ done
//!                                           ▲                 └── ready, multishot ─▶ more
//!                                           └───────────────────────────┘
//! ```
//!
//! What has come is asked of the file when the engine takes the wake-up, so a
//! result is never older than that, and a wake-up that somebody else has used
//! up meanwhile is none. (The kernel reports what the wake-up itself said, if
//! it was the only one; for most files that is less, for sockets it is more
//! than is true.)
//!
//! A file that cannot wake anybody (storage, `/dev/null`) is what it is: it is
//! ready at once, for a multishot wait too, and what it is not ready for is
//! `-EINVAL`.

use annulus::hal::{Cancel, Request, Start, Target, Token};
use annulus::uapi::EPOLLONESHOT;

use super::job::{Hold, Op};
use super::rw::number;
use super::{File, FileBackend, Wait};
use crate::sys;

impl FileBackend {
    /// POLL_ADD.
    pub(super) fn poll_add(&mut self, token: Token, request: &Request<File, ()>) -> Start {
        let events = request.op_flags;
        let now = match sys::poll(number(request.target), events) {
            Ok(now) => now,
            Err(e) => return Start::Done(e),
        };
        if now != 0 && events & EPOLLONESHOT != 0 {
            return Start::Done(now as i32);
        }
        if request.fallback {
            // It may wait for ever, and the reserved slot must not.
            return Start::NoRoom;
        }
        let own = match request.target {
            Target::Fd(number) => self.batch.own(&self.workers.shared.held, number),
            // The same file may be waited for twice; an epoll set takes a
            // descriptor once.
            Target::Registered(file) => sys::duplicate(file.fd),
        };
        let fd = match own {
            Ok(fd) => fd,
            Err(e) => return Start::Done(e),
        };
        let shared = &self.workers.shared;
        // SAFETY: the slot has just been taken, its record is the engine's.
        let job = unsafe { shared.job(token.index()) };
        (job.token, job.op) = (token, Op::Poll { events });
        (job.fd, job.hold, job.block) = (fd, Hold::Own, None);
        let refused = match self.armed(token) {
            Ok(()) => return Start::Pending,
            Err(e) => e,
        };
        // SAFETY: it was not armed, so the engine's.
        let job = unsafe { self.workers.shared.job(token.index()) };
        job.let_go(&self.workers.shared.held, &self.workers.shared.blocks);
        Start::Done(match refused {
            // It wakes nobody.
            libc::EPERM if now != 0 => now as i32,
            libc::EPERM => -libc::EINVAL,
            e => -e,
        })
    }

    /// A POLL_ADD has been woken.
    pub(super) fn poll_woken(&mut self, index: usize) -> Start {
        let shared = &self.workers.shared;
        // SAFETY: armed, so the engine's.
        let job = unsafe { shared.job(index) };
        let Op::Poll { events } = job.op else { return Start::Pending };
        let now = match sys::poll(job.fd, events) {
            Ok(now) => now as i32,
            Err(e) => return self.end_wait(index, e),
        };
        match (now, events & EPOLLONESHOT != 0) {
            // Somebody else was faster, or it was not for these events.
            (0, true) => self.rearm(index),
            (0, false) => Start::Pending,
            (now, true) => self.end_wait(index, now),
            (now, false) => Start::More(now),
        }
    }

    /// Asks once more for what an armed slot waits for. What is ready by now
    /// wakes it again.
    fn rearm(&mut self, index: usize) -> Start {
        let Some(poller) = &self.poller else { return Start::Pending };
        // SAFETY: armed, so the engine's.
        let job = unsafe { self.workers.shared.job(index) };
        match poller.rearm(job.fd, job.op, job.token) {
            Ok(()) => Start::Pending,
            Err(_) => self.end_wait(index, -libc::ENOMEM),
        }
    }

    /// Changes what an armed POLL_ADD waits for.
    pub(super) fn update(&mut self, token: Token, new: Option<u32>) {
        let index = token.index();
        if self.waits[index] != Wait::Armed {
            return;
        }
        // SAFETY: armed, so the engine's.
        let job = unsafe { self.workers.shared.job(index) };
        if let (Op::Poll { events }, Some(new)) = (job.op, new) {
            job.op = Op::Poll { events: events & EPOLLONESHOT | new };
        }
        let (fd, op) = (job.fd, job.op);
        let poller = self.poller.as_ref();
        if poller.is_none_or(|poller| poller.rearm(fd, op, token).is_err()) {
            self.cancel_wait(token);
        }
    }

    /// Ends a wait that is armed with `-ECANCELED`, by way of
    /// [`try_again`](Self::try_again).
    pub(super) fn cancel_wait(&mut self, token: Token) -> Cancel {
        let wait = &mut self.waits[token.index()];
        match *wait {
            Wait::None => return Cancel::Running,
            Wait::Armed => *wait = Wait::Cancelled,
            Wait::Cancelled => return Cancel::Ended,
        }
        // Stale: a notice is on its way already, and will do.
        let _ = self.workers.shared.lane.ready(token);
        Cancel::Ended
    }
}
