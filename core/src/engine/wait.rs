//! Waiting for completions, and how long.

use super::{Engine, Shared};
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::hal::{Backend, Clock, Host, OtherClock, Parked};
use crate::sync::{Ordering, rest};
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
        Self { least: 0, deadline: deadline.filter(|&time| time < BOOT).unwrap_or(u64::MAX) }
    }
}

/// Marks a time of the clock that runs on in suspend. Of neither clock are
/// there so large times: the first would come after 292 years.
const BOOT: u64 = 1 << 63;

/// Linux's numbers of clocks.
const CLOCK_MONOTONIC: u32 = 1;
const CLOCK_BOOTTIME: u32 = 7;

/// How long a wait by that clock sleeps before it looks at it again: so long it
/// may take until a change of it is seen.
const LOOK: u64 = 1_000_000_000;

impl Until {
    /// What the arguments of an `io_uring_enter` that begins now say. Its time
    /// is a point in time if `absolute` (`IORING_ENTER_ABS_TIMER`). By the
    /// monotonic clock; [`Remote::until`](super::Remote::until) asks which one it
    /// is to be.
    #[must_use]
    pub fn new(args: &SubmitArgs, absolute: bool, clock: &impl Clock) -> Self {
        Self::at(args, absolute, clock.now())
    }

    /// [`new`](Self::new) by the clock that runs on in suspend, if there is one.
    pub(super) fn new_by_boot(args: &SubmitArgs, absolute: bool, clock: &impl Clock) -> Self {
        let Some(now) = clock.time(OtherClock::Boot) else {
            return Self::new(args, absolute, clock);
        };
        let Self { least, deadline } = Self::at(args, absolute, now);
        let of_boot = |time: u64, none| if time == none { none } else { time | BOOT };
        Self { least: of_boot(least, 0), deadline: of_boot(deadline, u64::MAX) }
    }

    fn at(args: &SubmitArgs, absolute: bool, now: u64) -> Self {
        let time = args.timeout().map(|time| time.as_nanos());
        let until = Self::from(time.map(|time| match absolute {
            true if fault::on(Fault::PointInTimeIsOver) => now,
            true => time,
            false => now.saturating_add(time),
        }));
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

    /// The time that comes first, if there is one.
    fn first(&self) -> Option<u64> {
        let time = if self.least == 0 { self.deadline } else { self.least };
        (time != u64::MAX).then_some(time)
    }
}

impl<H: Host> Shared<'_, H> {
    /// What arguments of a wait that begins now say.
    pub fn until(&self, args: &SubmitArgs, absolute: bool) -> Until {
        // Relaxed: see `register_clock`.
        match self.boot_clock.load(Ordering::Relaxed) {
            0 => Until::new(args, absolute, &self.host),
            _ => Until::new_by_boot(args, absolute, &self.host),
        }
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
    pub fn time(&self, clock: &impl Clock) -> Option<u64> {
        let time = self.until.first()?;
        if time & BOOT == 0 {
            return Some(time);
        }
        Some(clock.now().saturating_add(left(time, clock).min(LOOK)))
    }

    /// That time has come. Whether the wait is at its end.
    pub fn times_out(&mut self, unread: u32, posted: u32, clock: &impl Clock) -> bool {
        if self.until.first().is_some_and(|time| time & BOOT != 0 && left(time, clock) != 0) {
            return false;
        }
        let least = core::mem::take(&mut self.until.least) != 0;
        if least && self.until.deadline != u64::MAX && fault::on(Fault::LeastTimeForgotten) {
            return false;
        }
        if !least || self.until.deadline == u64::MAX || unread != 0 || posted != self.posted {
            return true;
        }
        self.want = 1;
        false
    }
}

/// What is left until a time of the clock that runs on in suspend.
fn left(time: u64, clock: &impl Clock) -> u64 {
    clock.time(OtherClock::Boot).map_or(0, |now| (time & !BOOT).saturating_sub(now))
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// [`Until::new`] by the clock that has been registered for waits.
    #[must_use]
    pub fn until(&self, args: &SubmitArgs, absolute: bool) -> Until {
        self.shared.until(args, absolute)
    }

    /// The clock that waits go by.
    pub(super) fn register_clock(&self, clock: u32) -> Result<u32, Errno> {
        let boot = match clock {
            CLOCK_MONOTONIC => 0,
            CLOCK_BOOTTIME if self.shared.host.time(OtherClock::Boot).is_some() => 1,
            _ => return Err(Errno::EINVAL),
        };
        // Relaxed: the answer to the call orders it for who waits after it.
        self.shared.boot_clock.store(boot, Ordering::Relaxed);
        Ok(0)
    }

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
            let why = self.pause(&mut looks, waiting.time(&self.shared.host), again);
            self.progress();
            let errno = match why {
                Parked::Woken => continue,
                _ if waiting.is_over(self.cq.unread(), self.ended_timeouts()) => return Ok(()),
                Parked::TimedOut
                    if !waiting.times_out(self.cq.unread(), self.cq.total(), &self.shared.host) =>
                {
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
