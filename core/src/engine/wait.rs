//! Waiting for completions, and how long.

use super::Engine;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Clock, Host, Parked};
use crate::sync::rest;
use crate::types::SubmitArgs;

/// How long a wait for completions lasts, on the host's clock.
///
/// A deadline alone, or its absence, is an `Option<u64>`, which becomes one of
/// these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    // Two words, which are passed in registers: no time is 0 here and the last
    // one there.
    least: u64,
    deadline: u64,
}

impl Default for Until {
    #[inline(always)]
    fn default() -> Self {
        Self { least: 0, deadline: u64::MAX }
    }
}

impl From<Option<u64>> for Until {
    #[inline(always)]
    fn from(deadline: Option<u64>) -> Self {
        Self { least: 0, deadline: deadline.unwrap_or(u64::MAX) }
    }
}

impl Until {
    /// What the arguments of an `io_uring_enter` that begins now say. Its time
    /// is a point in time if `absolute` (`IORING_ENTER_ABS_TIMER`).
    #[must_use]
    pub fn new(args: &SubmitArgs, absolute: bool, clock: &impl Clock) -> Self {
        let now = clock.now();
        let time = args.timeout().map(|time| time.as_nanos());
        let until =
            Self::from(time.map(|time| if absolute { time } else { now.saturating_add(time) }));
        match args.min_wait() {
            0 => until,
            least => until.least(now.saturating_add(u64::from(least) * 1000)),
        }
    }

    /// From `time` on one completion is enough (`min_wait_usec`). If there is
    /// none then, the next one is; or the wait is at its end, if it has no
    /// deadline.
    #[must_use]
    pub const fn least(self, time: u64) -> Self {
        Self { least: time, ..self }
    }

    fn deadline(&self) -> Option<u64> {
        (self.deadline != u64::MAX).then_some(self.deadline)
    }
}

/// A wait that has begun.
pub(super) struct Waiting {
    want: u32,
    until: Until,
    /// CQEs posted, and timeouts that had ended, when it began.
    posted: u32,
    timeouts: u32,
}

impl Waiting {
    pub fn new(want: u32, until: Until, posted: u32, timeouts: u32) -> Self {
        Self { want, until, posted, timeouts }
    }

    /// Whether it has what it waits for. As in Linux, a timeout that ends ends
    /// every wait.
    pub fn is_over(&self, unread: u32, timeouts: u32) -> bool {
        unread >= self.want || timeouts != self.timeouts
    }

    /// When to look again, whatever comes.
    pub fn time(&self) -> Option<u64> {
        match self.until.least {
            0 => self.until.deadline(),
            least => Some(least),
        }
    }

    /// That time has come. Whether the wait is at its end.
    pub fn times_out(&mut self, unread: u32, posted: u32) -> bool {
        let least = core::mem::take(&mut self.until.least) != 0;
        if !least || self.until.deadline().is_none() || unread != 0 || posted != self.posted {
            return true;
        }
        self.want = 1;
        false
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Drives the engine until `want` CQEs are there.
    #[inline(never)]
    pub(super) fn wait(&mut self, want: u32, until: Until) -> Result<(), Errno> {
        let want = want.min(self.cq.entries());
        self.progress();
        let mut looks = 0;
        let mut waiting = Waiting::new(want, until, self.cq.total(), self.ended_timeouts());
        loop {
            if waiting.is_over(self.cq.unread(), self.ended_timeouts()) {
                return Ok(());
            }
            // What is there may be what somebody else waits for.
            self.publish();
            // CQEs that wait for room while too few are there: somebody has just
            // made room.
            let again = !self.overflow.is_empty();
            let why = self.pause(&mut looks, waiting.time(), again);
            self.progress();
            let errno = match why {
                Parked::Woken => continue,
                _ if waiting.is_over(self.cq.unread(), self.ended_timeouts()) => return Ok(()),
                Parked::TimedOut if !waiting.times_out(self.cq.unread(), self.cq.total()) => {
                    continue;
                }
                Parked::TimedOut => Errno::ETIME,
                Parked::Interrupted => Errno::EINTR,
            };
            // As in Linux, one CQE is enough for a good answer.
            let enough = fault::on(Fault::TimeoutForgotten) || self.cq.unread() >= want.min(1);
            return if enough { Ok(()) } else { Err(errno) };
        }
    }

    /// Sleeps, or spins once if something is only found by polling. Does neither
    /// if there is something to be done, or `again` says so.
    pub(super) fn pause(&mut self, looks: &mut u32, deadline: Option<u64>, again: bool) -> Parked {
        if self.backend.polling() {
            let over = deadline.is_some_and(|deadline| self.shared.host.now() >= deadline);
            rest(looks);
            return if over { Parked::TimedOut } else { Parked::Woken };
        }
        let key = self.shared.engine_wait.prepare();
        let again = self.must_not_sleep() || again;
        if again && !fault::on(Fault::WaitNoRecheck) {
            return Parked::Woken;
        }
        self.sleep(key, deadline)
    }
}
