//! What comes to its end by time or by others: timeouts, what removes and changes
//! them, and cancellation.

use annulus::uapi;

use super::super::program::{File, Time, What};
use super::{Draw, FIRST};

impl Draw {
    fn time(&mut self) -> Time {
        let ends = if self.times { 40 } else { 0 };
        match self.rng.weighted(&[60, ends, if self.counts { 0 } else { ends / 4 }, 1, 1, 1, 1]) {
            // What drains would wait for it.
            0 | 5 if self.drains != 0 => Time::Soon,
            0 => Time::Hour,
            1 => Time::Soon,
            2 => Time::Now,
            3 => Time::Negative,
            4 => Time::NegativeNanos,
            5 => Time::ManyNanos,
            _ => Time::Nowhere,
        }
    }

    /// A time that matters to somebody else.
    fn short_time(&mut self) -> Time {
        if self.times && self.rng.chance(50) { Time::Soon } else { self.time() }
    }

    pub(super) fn timeout(&mut self, workers: bool) -> What {
        let time = self.time();
        let mut flags = self.flags(&[(uapi::IORING_TIMEOUT_ETIME_SUCCESS, 15)]);
        let mut count = 0;
        if self.series && self.rng.chance(30) {
            flags |= uapi::IORING_TIMEOUT_MULTISHOT;
            count = self.rng.below(4) as u32;
            if count == 0 && time.ends() {
                count = 1;
            }
        } else if !workers && self.counts && self.rng.chance(45) {
            count = self.rng.range(1, 6) as u32;
        }
        if self.rng.chance(12) {
            flags |= uapi::IORING_TIMEOUT_ABS;
        } else if self.wall && self.rng.chance(20) {
            flags |= uapi::IORING_TIMEOUT_REALTIME;
        }
        if count != 0 && time.ends() && flags & uapi::IORING_TIMEOUT_MULTISHOT == 0 {
            // It may be over when it starts, and its count as well.
            flags &= !uapi::IORING_TIMEOUT_ABS;
        }
        What::Timeout { time, count, flags }
    }

    pub(super) fn link_timeout(&mut self) -> What {
        let flags = self.flags(&[(uapi::IORING_TIMEOUT_ABS, 15)]);
        What::LinkTimeout { time: self.short_time(), flags }
    }

    pub(super) fn timeout_remove(&mut self) -> What {
        let guard = |what: &What| matches!(what, What::LinkTimeout { .. });
        let plain = |what: &What| matches!(what, What::Timeout { .. });
        let hour = self.timed || self.series;
        let time = if hour { Time::Hour } else { self.short_time() };
        let (target, flags) = match self.rng.weighted(&[40, 35, 20, 5]) {
            0 => (self.target(plain), 0),
            1 => (self.target(plain), uapi::IORING_TIMEOUT_UPDATE),
            2 => (self.target(guard), uapi::IORING_LINK_TIMEOUT_UPDATE),
            _ => (self.target(|_| true), uapi::IORING_TIMEOUT_UPDATE_MASK),
        };
        let flags = match flags != 0 && !self.wall && self.rng.chance(15) {
            true => flags | uapi::IORING_TIMEOUT_ABS,
            false => flags,
        };
        What::TimeoutRemove { target, time, flags }
    }

    pub(super) fn cancel(&mut self) -> What {
        use uapi::{
            IORING_ASYNC_CANCEL_ALL as ALL, IORING_ASYNC_CANCEL_ANY as ANY,
            IORING_ASYNC_CANCEL_FD as FD, IORING_ASYNC_CANCEL_OP as OP,
            IORING_ASYNC_CANCEL_USERDATA as USERDATA,
        };
        // Which of several is the first is nobody's promise: all of them, or
        // those of one user data.
        let flags = match self.rng.weighted(&[45, 18, 16, 10, 6, 5]) {
            0 => *self.rng.pick(&[0, 0, ALL]),
            1 => FD | ALL,
            2 => OP | ALL,
            3 => ANY | *self.rng.pick(&[0, ALL]),
            4 => FD | OP | ALL,
            _ => USERDATA | *self.rng.pick(&[0, FD, OP, ANY, FD | ALL]),
        };
        let file = match self.rng.weighted(&[8, 1, 1]) {
            0 => self.pipe(),
            1 => File::Source,
            _ => File::None,
        };
        let ops = [
            uapi::IORING_OP_READ,
            uapi::IORING_OP_POLL_ADD,
            uapi::IORING_OP_TIMEOUT,
            uapi::IORING_OP_LINK_TIMEOUT,
            uapi::IORING_OP_NOP,
        ];
        let op = *self.rng.pick(&ops);
        let waits = |what: &What| {
            matches!(what, What::Timeout { .. } | What::Poll { .. } | What::LinkTimeout { .. })
                || what.touches_pipes() && what.opcode() != uapi::IORING_OP_ASYNC_CANCEL
        };
        What::Cancel { target: self.target(waits), file, op, flags }
    }

    /// The user data of something that `is`, drawn before or soon.
    pub(super) fn target(&mut self, is: impl Fn(&What) -> bool) -> u64 {
        let next = FIRST + self.made.len() as u64;
        if self.rng.chance(25) {
            // Of this round, or of none.
            return next + self.rng.below(12);
        }
        let fit: Vec<u64> =
            self.made.iter().filter(|sqe| is(&sqe.what)).map(|sqe| sqe.user_data).collect();
        if fit.is_empty() { next } else { *self.rng.pick(&fit) }
    }
}
