//! When a request is late, a device fails or lies, or is gone.

use core::ops::Deref;

use annulus::block::TICK_NS;
use annulus::errno::Errno;

use super::backend::{DiskBackend, Failure, NO_QUEUE};
use super::disk::{GONE, KIND, RESETTING, RUNNING};
use super::spec::SECTOR_SHIFT;
use super::tracker::Issued;
use super::{Disk, Lie, Platform, Transport};

/// Between looks while another ring resets the device.
const RESET_LOOK_NS: u64 = 1_000_000;

/// Status bytes (section 5.2.6).
const OK: u8 = 0;
const UNSUPPORTED: u8 = 2;

impl<'m, P: Platform, T: Transport, D: Deref<Target = Disk<P, T>>> DiskBackend<'m, P, T, D> {
    /// When this ring's requests must be looked after next.
    pub(super) fn next_look(&mut self) -> Option<u64> {
        if self.in_flight == 0 && self.waiting.is_empty() {
            self.pace.rest();
            return None;
        }
        let now = self.disk.platform().now();
        if self.disk.state() & KIND == RESETTING {
            return Some(now + RESET_LOOK_NS);
        }
        Some(self.pace.sleep(now))
    }

    /// Looks at the clock, and at requests that have been in flight too long.
    #[cold]
    pub(super) fn look_at_clock(&mut self) {
        let now = self.disk.platform().now();
        let due = self.pace.is_due(now);
        if !self.asked {
            // Keeps the place where an interrupt comes as far away as can be.
            self.ring.hush();
        }
        if !due {
            return;
        }
        if self.disk.state() != self.seen {
            // Its registers say nothing while somebody resets it.
            return;
        }
        if self.disk.transport().is_gone() || self.disk.platform().leaving() {
            self.disk.retire(self.seen);
        } else if self.disk.wants_reset() || self.any_late() {
            self.ask_for_reset();
        }
        self.notice_state();
    }

    /// Ticks after which a request is late. Two more than the time has: it may
    /// have been issued at the end of its tick, and a tick that was due while
    /// nothing was in flight may come at once.
    fn late(&self) -> u32 {
        let timeout = u64::from(self.disk.options().timeout_ms) * 1_000_000;
        timeout.div_ceil(TICK_NS).min(1 << 30) as u32 + 2
    }

    fn any_late(&self) -> bool {
        let late = self.late();
        let mut issued = self.trackers.iter().filter(|t| t.hot.issued != Issued::No);
        issued.any(|tracker| self.pace.age(tracker.hot.stamp) >= late)
    }

    pub(super) fn ask_for_reset(&mut self) {
        self.stats.resets += 1;
        self.disk.reset(self.seen);
    }

    /// The device has lied: what else it says is worth nothing.
    #[cold]
    pub(super) fn accuse(&mut self, lie: Lie) {
        self.stats.lies += 1;
        self.stats.last_lie = Some(lie);
        self.ask_for_reset();
    }

    /// The configuration may be another.
    #[cold]
    pub(super) fn notice_changes(&mut self) {
        self.changes = self.disk.changes();
        // The same interrupt says that the device wants to be reset.
        if self.live() && self.disk.wants_reset() && !self.disk.transport().is_gone() {
            self.ask_for_reset();
            return;
        }
        let info = self.disk.look_at_config();
        self.know(info);
    }

    /// Acts on a state of the disk that is new to this ring.
    #[cold]
    pub(super) fn notice_state(&mut self) {
        let state = self.disk.state();
        if state & KIND == RESETTING {
            // Whoever resets it says when the device is quiet.
            self.armed = NO_QUEUE;
            self.set_gate();
            return;
        }
        let errno = if state & KIND == GONE { Errno::ENODEV } else { Errno::EIO };
        if state != self.seen {
            self.seen = state;
            self.armed = NO_QUEUE;
            self.set_gate();
            // The requests of the old incarnation will not end any more.
            self.end_issued(errno);
        }
        if state & KIND != RUNNING {
            self.end_waiting(errno);
        } else if self.armed == NO_QUEUE
            && let Some(attached) = self.disk.attach_again(self.queue)
        {
            // Of a later incarnation, perhaps: nothing is in flight in any.
            self.take_queue(attached);
            self.issue_waiting();
        }
    }

    /// Ends every request in flight. The device does not use their memory.
    fn end_issued(&mut self, errno: Errno) {
        let late = self.late();
        for id in 0..self.most as u16 {
            let hot = self.trackers[usize::from(id)].hot;
            if hot.issued == Issued::No {
                continue;
            }
            let age = self.pace.age(hot.stamp);
            let errno = if errno == Errno::EIO && age >= late { Errno::ETIMEDOUT } else { errno };
            self.free_place(id);
            self.in_flight -= 1;
            let token = annulus::hal::Token::from_raw(hot.token);
            self.end(token.index() as u16, hot.token, hot.issued == Issued::Complex, errno);
        }
        debug_assert_eq!(self.in_flight, 0);
    }

    /// Ends every request that waits.
    pub(super) fn end_waiting(&mut self, errno: Errno) {
        while let Some(index) = self.waiting.pop(self.trackers) {
            let token = self.trackers[usize::from(index)].token;
            self.end(index, token, true, errno);
        }
        self.set_gate();
    }

    /// Ends a request that the device does not have, in the poll that goes on or
    /// comes next.
    pub(super) fn end(&mut self, index: u16, token: u32, complex: bool, errno: Errno) {
        if complex {
            self.free_parts(index);
        }
        let tracker = &mut self.trackers[usize::from(index)];
        (tracker.token, tracker.result) = (token, errno.to_result());
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

    /// The device has ended a request with an error. Answers the request's
    /// result.
    #[cold]
    pub(super) fn failed(&mut self, kind: u32, position: u64, status: u8) -> i32 {
        debug_assert!(status != OK);
        self.stats.failed += 1;
        let sector = position >> SECTOR_SHIFT;
        self.stats.last_failure = Some(Failure { kind, sector, status });
        let errno = if status == UNSUPPORTED { Errno::EOPNOTSUPP } else { Errno::EIO };
        errno.to_result()
    }
}
