//! When to look at the clock.

/// How often a ring with requests in flight looks after them, in ns: a removed
/// device is noticed after this, at the latest.
pub const TICK_NS: u64 = 50_000_000;

/// Polls between two looks at the clock, less one, at most.
const SELDOM: u32 = 1023;

/// Deadlines that cost a running ring nothing: requests carry the number of a
/// tick ([`TICK_NS`]), and the clock is looked at every so many polls, some
/// times a tick, or when the ring is about to sleep.
#[derive(Debug)]
pub struct Pace {
    tick: u32,
    polls: u32,
    /// When none of these bits is set in `polls`, it is time to look at the
    /// clock. A ring that is polled rarely looks more often.
    look: u32,
    /// When that was last.
    looked: u64,
    next_tick: Option<u64>,
}

impl Pace {
    /// Before the first poll.
    pub const fn new() -> Self {
        Self { tick: 0, polls: 0, look: SELDOM, looked: 0, next_tick: None }
    }

    /// The number of the present tick, which a request is stamped with. It
    /// wraps.
    #[inline(always)]
    pub fn tick(&self) -> u32 {
        self.tick
    }

    /// How many ticks ago a request was stamped.
    #[inline(always)]
    pub fn age(&self, stamp: u32) -> u32 {
        self.tick.wrapping_sub(stamp)
    }

    /// Counts a poll. True if the clock is to be looked at in it, and
    /// [`is_due`](Self::is_due) to be asked.
    #[inline(always)]
    pub fn poll(&mut self) -> bool {
        self.polls = self.polls.wrapping_add(1);
        self.polls & self.look == 0
    }

    /// The clock was looked at, and said `now`, in ns. True if a tick is over,
    /// so that the requests in flight are to be looked after.
    pub fn is_due(&mut self, now: u64) -> bool {
        self.adapt(now);
        // Also between requests: a ring that is busy again and again, and idle
        // whenever it happens to look, has to learn that its device is wanted.
        let due = match self.next_tick {
            Some(at) if now < at => return false,
            Some(_) => true,
            None => false,
        };
        self.next_tick = Some(now + TICK_NS);
        self.tick = self.tick.wrapping_add(due.into());
        due
    }

    /// Sees to it that the clock is looked at some times a tick, whoever polls
    /// however often: deadlines are counted in ticks.
    fn adapt(&mut self, now: u64) {
        let since = now.saturating_sub(core::mem::replace(&mut self.looked, now));
        if since > TICK_NS / 2 {
            self.look = self.look.checked_shr((since / (TICK_NS / 4)).ilog2()).unwrap_or(0);
        } else if since < TICK_NS / 16 {
            self.look = (self.look << 1 | 1) & SELDOM;
        }
    }

    /// The ring is about to sleep with requests in flight: when it has to wake,
    /// on the clock that says `now`. The next poll looks at it.
    pub fn sleep(&mut self, now: u64) -> u64 {
        // The engine calls `poll` next, and that is to look at the clock.
        self.polls = u32::MAX;
        *self.next_tick.get_or_insert(now + TICK_NS)
    }

    /// The ring is about to sleep without requests: that time is not theirs.
    pub fn rest(&mut self) {
        self.next_tick = None;
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Polls until the clock is looked at, once more.
    fn polls(pace: &mut Pace) -> u32 {
        (1..).find(|_| pace.poll()).expect("some time")
    }

    #[test]
    fn whoever_polls_rarely_looks_more_often() {
        let mut pace = Pace::new();
        let mut now = 1;
        assert_eq!(polls(&mut pace), SELDOM + 1);
        assert!(!pace.is_due(now));
        // A poll every 10 ms: 10 s without a look, then some looks a tick.
        let poll_ns = 10_000_000;
        for _ in 0..4 {
            now += u64::from(polls(&mut pace)) * poll_ns;
            pace.is_due(now);
        }
        assert!(u64::from(polls(&mut pace)) * poll_ns <= TICK_NS);
        // And back again.
        for _ in 0..12 {
            now += u64::from(polls(&mut pace)) * 10;
            pace.is_due(now);
        }
        polls(&mut pace);
        assert_eq!(polls(&mut pace), SELDOM + 1);
    }

    #[test]
    fn ticks_are_counted_and_rest_is_not() {
        let mut pace = Pace::new();
        assert!(!pace.is_due(5) && !pace.is_due(5 + TICK_NS - 1));
        assert!(pace.is_due(5 + TICK_NS));
        assert_eq!((pace.tick(), pace.age(u32::MAX)), (1, 2));
        let now = 10 * TICK_NS;
        assert_eq!(pace.sleep(now), 5 + 2 * TICK_NS);
        assert!(pace.poll() && pace.is_due(now));
        pace.rest();
        assert_eq!(pace.sleep(20 * TICK_NS), 21 * TICK_NS);
        assert!(pace.poll() && !pace.is_due(20 * TICK_NS) && pace.is_due(21 * TICK_NS));
        assert_eq!(pace.tick(), 3);
    }
}
