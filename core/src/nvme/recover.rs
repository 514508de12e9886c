//! When a command is late, a controller fails, or a device is gone.

use core::ops::Deref;

use super::backend::{NO_PAIR, NvmeBackend};
use super::controller::{GONE, KIND, RESETTING, RUNNING};
use super::{Controller, Error, Platform, RecentError, Status, regs};
use crate::block::TICK_NS;
use crate::errno::Errno;
use crate::fault::{self, Fault};

/// Between looks while another ring resets the controller.
const RESET_LOOK_NS: u64 = 1_000_000;
/// Resets for a queue pair that cannot be created.
const MOST_TRIES: u8 = 3;

impl<'m, P: Platform, C: Deref<Target = Controller<P>>> NvmeBackend<'m, P, C> {
    /// When this ring's requests must be looked after next. The ring is about to
    /// sleep: the device gets back what it lacks, for it may tell of new
    /// completions by what has been taken of the old.
    pub(super) fn next_look(&mut self) -> Option<u64> {
        if self.pair.cq.keeps() && self.live() {
            let rung = self.pair.cq.release(self.controller.platform());
            self.stats.doorbells += u32::from(rung);
        }
        if self.in_flight == 0 && self.waiting.is_empty() {
            self.pace.rest();
            return None;
        }
        let now = self.controller.platform().now();
        if self.controller.state() & KIND == RESETTING {
            return Some(now + RESET_LOOK_NS);
        }
        Some(self.pace.sleep(now))
    }

    /// Looks at the clock, and at commands that have been in flight too long.
    #[cold]
    pub(super) fn look_at_clock(&mut self) {
        let now = self.controller.platform().now();
        if !self.pace.is_due(now) {
            return;
        }
        if self.controller.state() != self.seen {
            // Its registers say nothing while somebody resets it.
            return;
        }
        let csts = self.controller.platform().read32(regs::CSTS);
        if csts == regs::GONE || self.controller.platform().leaving() {
            self.controller.retire(self.seen, GONE);
        } else if csts & regs::CSTS_CFS != 0 {
            self.controller.reset(self.seen);
        } else {
            if let Some(changes) = self.controller.look_after()
                && changes != self.changes
            {
                self.changes = changes;
                self.known = [None; 4];
            }
            self.find_late();
        }
        self.notice_state();
    }

    /// Aborts what is late, and resets the controller for what stays so.
    fn find_late(&mut self) {
        let ticks = |ms: u64| (ms * 1_000_000).div_ceil(TICK_NS).clamp(1, 1 << 30) as u32;
        let timeout = u64::from(self.controller.options().timeout_ms);
        // Two more: a command may have been issued at the end of its tick, and a
        // tick that was due while nothing was in flight may come at once.
        let (late, lost) = (ticks(timeout) + 2, ticks(2 * timeout) + 2);
        let mut reset = false;
        let queue = self.pair.qid;
        for tracker in self.trackers.iter_mut().filter(|tracker| tracker.hot.issued()) {
            let age = self.pace.age(tracker.hot.stamp());
            if age >= lost {
                reset = true;
            } else if age >= late && !tracker.hot.aborted() {
                let cid = tracker.hot.cid();
                let asked =
                    self.controller.try_admin(|platform, admin| admin.abort(platform, queue, cid));
                if asked == Some(true) {
                    tracker.hot.set_aborted();
                    self.stats.aborts += 1;
                }
            }
        }
        if reset {
            self.stats.resets += 1;
            self.controller.reset(self.seen);
        }
    }

    /// Acts on a state of the controller that is new to this ring.
    #[cold]
    pub(super) fn notice_state(&mut self) {
        let state = self.controller.state();
        if state & KIND == RESETTING {
            // Whoever resets it says when the device is quiet.
            self.armed = NO_PAIR;
            self.set_gate();
            return;
        }
        if state != self.seen {
            self.seen = state;
            // They may be others by now.
            self.known = [None; 4];
            (self.armed, self.lost) = (NO_PAIR, false);
            self.set_gate();
            // The commands of the old incarnation will not end any more.
            let errno = if state & KIND == GONE { Errno::ENODEV } else { Errno::EIO };
            if !fault::on(Fault::ResetForgets) {
                self.end_issued(errno);
            }
        }
        if state & KIND != RUNNING || self.lost {
            let errno = if state & KIND == GONE { Errno::ENODEV } else { Errno::EIO };
            self.end_waiting(errno);
        } else if self.armed == NO_PAIR {
            match self.create_pair() {
                Ok(()) => {
                    self.tries = 0;
                    self.issue_waiting();
                }
                Err(Error::Gone) => self.controller.retire(state, GONE),
                // It has come up and yet does not do this: once more, from
                // the start, but not for ever.
                Err(error) if self.tries < MOST_TRIES && !error.is_no_queue() => {
                    self.tries += 1;
                    self.controller.reset(state);
                }
                // Other rings may be better off.
                Err(_) => {
                    self.lost = true;
                    self.end_waiting(Errno::EIO);
                }
            }
        }
    }

    /// Ends every command in flight. The device does not use their memory.
    fn end_issued(&mut self, errno: Errno) {
        let late = u64::from(self.controller.options().timeout_ms) * 1_000_000 / TICK_NS + 1;
        for index in 0..self.trackers.len() {
            let tracker = &self.trackers[index];
            if !tracker.hot.issued() {
                continue;
            }
            let age = u64::from(self.pace.age(tracker.hot.stamp()));
            let errno = if errno == Errno::EIO && age > late { Errno::ETIMEDOUT } else { errno };
            self.in_flight -= 1;
            self.end(index as u16, errno);
        }
        debug_assert_eq!(self.in_flight, 0);
    }

    /// Ends every request that waits.
    pub(super) fn end_waiting(&mut self, errno: Errno) {
        while let Some(index) = self.waiting.pop(self.trackers) {
            self.end(index, errno);
        }
        self.set_gate();
    }

    /// Ends a request that the device does not have, in the poll that goes on or
    /// comes next.
    pub(super) fn end(&mut self, index: u16, errno: Errno) {
        self.free_parts(index);
        self.trackers[usize::from(index)].hot.result = errno.to_result();
        self.ended.push(self.trackers, index);
    }

    /// Issues what waits, as far as there is room.
    pub(super) fn issue_waiting(&mut self) {
        while let Some(index) = self.waiting.first() {
            if !self.live() || !self.issue(index) {
                break;
            }
            self.waiting.pop(self.trackers);
        }
        self.set_gate();
    }

    /// A command has failed. Answers the request's result.
    #[cold]
    pub(super) fn failed(&mut self, index: u16, status: Status) -> i32 {
        let slot = usize::from(index);
        let tracker = &self.trackers[slot];
        let error = RecentError {
            queue: self.pair.qid,
            command: tracker.hot.cid(),
            opcode: 0xff,
            nsid: 0,
            block: 0,
            status,
        };
        // The short way keeps no copy of its command.
        let error = match tracker.hot.complex() {
            true => RecentError {
                opcode: tracker.command.opcode,
                nsid: tracker.command.nsid,
                block: tracker.position >> tracker.block_shift,
                ..error
            },
            false => error,
        };
        // Not waited for: another ring may be at it.
        self.controller.try_admin(|_, admin| admin.errors.note(error));
        self.stats.failed += 1;
        self.stats.last_failure = Some(error);
        let late = tracker.hot.aborted() && status.errno() == Errno::ECANCELED;
        self.free_parts(index);
        if late { Errno::ETIMEDOUT.to_result() } else { status.errno().to_result() }
    }
}
