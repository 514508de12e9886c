//! Timeouts: by the clock, by a number of CQEs, and as the guards of others.
//!
//! The clock is read only while a timeout is armed: when one is, and in each
//! round of progress after that. A driver that sleeps is woken in time
//! ([`Engine::deadline`]).
//!
//! Other clocks than the host's own may be set, or run on in suspend. A timeout
//! by one of them never ends before its time there, and is looked at again every
//! second ([`LOOK`]): so long it may take until a change of that clock is seen.

use super::Engine;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Cancel, Host, OtherClock};
use crate::held::{Marks, Order};
use crate::request::CANCELLED;
use crate::sqe::Sqe;
use crate::types::Timespec;
use crate::uapi::{
    self, IORING_CQE_F_MORE, IORING_LINK_TIMEOUT_UPDATE, IORING_OP_POLL_ADD, IORING_TIMEOUT_ABS,
    IORING_TIMEOUT_ETIME_SUCCESS, IORING_TIMEOUT_MULTISHOT, IORING_TIMEOUT_UPDATE,
    IORING_TIMEOUT_UPDATE_MASK,
};

/// The longest time between two looks at another clock.
const LOOK: u64 = 1_000_000_000;

/// The clock that a timeout with these flags ends by, if it is not the host's
/// own. A span is the same by the wall clock.
fn other_clock(flags: u32, absolute: bool) -> Option<OtherClock> {
    match flags & uapi::IORING_TIMEOUT_CLOCK_MASK {
        uapi::IORING_TIMEOUT_BOOTTIME => Some(OtherClock::Boot),
        uapi::IORING_TIMEOUT_REALTIME if absolute && !fault::on(Fault::WallClockForgotten) => {
            Some(OtherClock::Wall)
        }
        _ => None,
    }
}

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Reads the time of a timeout.
    ///
    /// # Safety
    /// It is valid, for all that the backend cannot find out about that.
    unsafe fn fetch_time(&mut self, addr: u64) -> Result<u64, Errno> {
        let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
        let mut bytes = [0; size_of::<Timespec>()];
        // SAFETY: the caller's promise.
        unsafe { self.backend.read_memory(addr, &mut bytes)? };
        Timespec::from_bytes(bytes).checked_nanos().ok_or(Errno::EINVAL)
    }

    /// # Safety
    /// The SQE's time is valid.
    pub(super) unsafe fn prepare_timeout(&mut self, index: u32, sqe: &Sqe) -> Result<(), Errno> {
        let flag = |flag| sqe.op_flags & flag != 0;
        if let Some(clock) = other_clock(sqe.op_flags, flag(IORING_TIMEOUT_ABS)) {
            self.shared.host.time(clock).ok_or(Errno::EINVAL)?;
        }
        // SAFETY: the caller's promise.
        let span = unsafe { self.fetch_time(sqe.addr)? };
        let held = &mut self.holding.held[index as usize];
        held.span = span;
        held.marks.set(Marks::ABSOLUTE, flag(IORING_TIMEOUT_ABS));
        held.marks.set(Marks::TIME_IS_SUCCESS, flag(IORING_TIMEOUT_ETIME_SUCCESS));
        held.marks.set(Marks::MULTISHOT, flag(IORING_TIMEOUT_MULTISHOT));
        held.repeats = match flag(IORING_TIMEOUT_MULTISHOT) {
            true => sqe.off as u32,
            false => 0,
        };
        Ok(())
    }

    /// # Safety
    /// The SQE's time is valid, if it is to have one.
    pub(super) unsafe fn prepare_update(&mut self, index: u32, sqe: &Sqe) -> Result<(), Errno> {
        if sqe.op_flags & IORING_TIMEOUT_UPDATE_MASK != 0 {
            // SAFETY: the caller's promise. `addr2` lies where the offset does.
            let span = unsafe { self.fetch_time(sqe.off)? };
            self.holding.held[index as usize].span = span;
        }
        Ok(())
    }

    /// CQEs posted so far, as timeouts count them: not those of timeouts, and
    /// in a batch of SQEs not those of the batch.
    fn counted(&mut self) -> u64 {
        let total = self.cq.total();
        let holding = &mut self.holding;
        holding.events += u64::from(total.wrapping_sub(holding.seen));
        holding.seen = total;
        let batch = match holding.in_batch {
            true => total.wrapping_sub(holding.batch_began),
            false => 0,
        };
        let timeouts = if fault::on(Fault::TimeoutsCounted) { 0 } else { holding.timeouts };
        holding.events - u64::from(batch) - timeouts
    }

    /// Starts a timeout.
    pub(super) fn arm(&mut self, index: u32) {
        let counted = self.counted();
        let held = &self.holding.held[index as usize];
        let (span, absolute) = (held.span, held.marks.contains(Marks::ABSOLUTE));
        let count = match held.marks.contains(Marks::MULTISHOT) {
            true => 0,
            false => u64::from(held.sqe.off as u32),
        };
        let count = count + u64::from(count != 0 && fault::on(Fault::CountOffByOne));
        self.arm_time(index, span, absolute);
        if count != 0 {
            let holding = &mut self.holding;
            holding.counts.push(holding.held, index, counted + count);
        }
    }

    fn arm_time(&mut self, index: u32, span: u64, absolute: bool) {
        let host = &self.shared.host;
        let flags = self.holding.held[index as usize].sqe.op_flags;
        let other = other_clock(flags, absolute).and_then(|clock| {
            let time = if absolute { span } else { host.time(clock)?.saturating_add(span) };
            Some((clock, time))
        });
        self.holding.held[index as usize].other = other;
        let deadline = match other {
            Some(other) => self.next_look(other),
            None if absolute => span,
            None => host.now().saturating_add(span),
        };
        let holding = &mut self.holding;
        holding.stamp = holding.stamp.wrapping_add(1);
        holding.held[index as usize].stamp = holding.stamp;
        holding.timers.push(holding.held, index, deadline);
        self.engaged = true;
    }

    /// When to look at another clock for this time of it, by the host's own.
    fn next_look(&self, (clock, time): (OtherClock, u64)) -> u64 {
        let host = &self.shared.host;
        let left = time.saturating_sub(host.time(clock).unwrap_or(u64::MAX));
        host.now().saturating_add(left.min(LOOK))
    }

    /// Whether a timeout's time is over, as of `now`.
    fn is_over(&self, index: u32, now: u64) -> bool {
        let held = &self.holding.held[index as usize];
        match held.other {
            Some((clock, time)) => self.shared.host.time(clock).is_none_or(|now| now >= time),
            None => held.keys[Order::Time as usize] <= now,
        }
    }

    /// Starts the time of a guard: what it guards is under way.
    pub(super) fn arm_guard(&mut self, guard: u32, guarded: u32) {
        let held = &mut self.holding.held[guard as usize];
        held.guarded = guarded;
        let (span, absolute) = (held.span, held.marks.contains(Marks::ABSOLUTE));
        self.arm_time(guard, span, absolute);
    }

    /// Stops a timeout's time and count.
    pub(super) fn disarm(&mut self, index: u32) {
        let holding = &mut self.holding;
        holding.timers.remove(holding.held, index);
        holding.counts.remove(holding.held, index);
    }

    /// When the first timeout ends.
    pub(super) fn first_time(&self) -> Option<u64> {
        self.holding.timers.first(self.holding.held).map(|(_, deadline)| deadline)
    }

    /// Ends the timeouts whose time is over. True if there were any.
    pub(super) fn expire(&mut self) -> bool {
        let Some(mut deadline) = self.first_time() else { return false };
        let now = self.shared.host.now();
        let mut any = false;
        while deadline <= now {
            let Some((index, _)) = self.holding.timers.first(self.holding.held) else { break };
            if let Some(other) = self.holding.held[index as usize].other
                && !self.is_over(index, now)
            {
                let look = self.next_look(other).max(now + 1);
                let holding = &mut self.holding;
                holding.timers.remove(holding.held, index);
                holding.timers.push(holding.held, index, look);
            } else {
                if self.guards(index) {
                    self.fire_guard(index);
                } else {
                    self.fire(index);
                }
                any = true;
            }
            let Some(next) = self.first_time() else { break };
            // One that fires again and at once is not waited for here.
            deadline = next.max(deadline + 1);
        }
        any
    }

    /// Timeouts that have ended by time or count. Every wait ends with one.
    pub(super) fn ended_timeouts(&self) -> u32 {
        self.holding.timeouts as u32
    }

    /// A timeout's time is over.
    fn fire(&mut self, index: u32) {
        self.disarm(index);
        self.holding.timeouts += 1;
        let held = &mut self.holding.held[index as usize];
        let res = Errno::ETIME.to_result();
        let last = if fault::on(Fault::MultishotOnceMore) { u32::MAX } else { 1 };
        let again = held.marks.contains(Marks::MULTISHOT) && held.repeats != last;
        if again {
            let once_more = held.repeats == 1 && last != 1;
            held.repeats = if once_more { last } else { held.repeats.saturating_sub(1) };
            let span = held.span;
            let user_data = self.pool.records[index as usize].user_data;
            let cqe = Cqe { user_data, res, flags: IORING_CQE_F_MORE };
            // Without room it ends: it has one place for a CQE that waits.
            if self.overflow.is_empty() && self.cq.push(cqe) {
                return self.arm_time(index, span, false);
            }
        }
        self.conclude(index, res);
    }

    /// A guard's time is over: ends what it guards, if that has not begun.
    fn fire_guard(&mut self, guard: u32) {
        self.disarm(guard);
        let held = &mut self.holding.held[guard as usize];
        let guarded = core::mem::replace(&mut held.guarded, NONE);
        // It leaves the chain, which goes on without it.
        let rest = core::mem::replace(&mut held.link, NONE);
        self.holding.held[guarded as usize].link = rest;
        let ended = match fault::on(Fault::LinkTimeoutIgnored) {
            true => Cancel::Ended,
            false => self.end_request(guarded),
        };
        let res = match ended {
            Cancel::Ended => Errno::ETIME,
            Cancel::Running => Errno::EALREADY,
        };
        self.conclude(guard, res.to_result());
    }

    /// Ends a request that is under way, if it has not begun.
    pub(super) fn end_request(&mut self, index: u32) -> Cancel {
        if self.holding.held[index as usize].places[Order::Time as usize] != NONE {
            self.disarm(index);
            self.queue_end(index, Errno::ECANCELED.to_result());
            return Cancel::Ended;
        }
        // Linux too finds it until it has come home.
        if self.pool.records[index as usize].what.has(CANCELLED) {
            return Cancel::Ended;
        }
        let slots = &self.shared.slots;
        let (flies, comes_home, _) = slots.peek(index as usize);
        // A timeout that has ended, and waits for its turn to say so: the backend
        // has never had it.
        if !flies {
            return Cancel::Running;
        }
        // What is on its way home has ended, or will be looked after there. A
        // wait for readiness ends so even if it has been woken, and until it is
        // home it is found, and ended, as often as somebody wants.
        let wait = self.pool.records[index as usize].what.opcode() == IORING_OP_POLL_ADD;
        if comes_home && !wait {
            return Cancel::Running;
        }
        let cancel = self.backend.cancel(slots.token(index));
        if cancel == Cancel::Ended && !wait {
            self.pool.records[index as usize].what.set(CANCELLED);
        }
        cancel
    }

    /// Ends the timeouts whose CQEs have been posted. True if there were any.
    pub(super) fn count_out(&mut self) -> bool {
        let Some((_, mut first)) = self.holding.counts.first(self.holding.held) else {
            return false;
        };
        let counted = self.counted();
        if first > counted {
            return false;
        }
        while first <= counted {
            let Some((index, _)) = self.holding.counts.first(self.holding.held) else { break };
            self.disarm(index);
            self.holding.timeouts += 1;
            self.queue_end(index, 0);
            let Some((_, next)) = self.holding.counts.first(self.holding.held) else { break };
            first = next;
        }
        true
    }

    /// The timeout of this user data: the one that Linux would find first. Not
    /// one whose time is over, and who only waits to be told so.
    pub(super) fn timeout(&self, guards: bool, matches: impl Fn(u64, u8) -> bool) -> Option<u32> {
        let holding = &self.holding;
        let now = self.shared.host.now();
        let found = holding.timers.indices().iter().filter(|&&index| {
            let record = &self.pool.records[index as usize];
            let held = &holding.held[index as usize];
            self.guards(index) == guards
                && !self.is_over(index, now)
                && matches(record.user_data, held.sqe.opcode)
        });
        let place = |index: u32| {
            let held = &holding.held[index as usize];
            let counted = held.places[Order::Count as usize] != NONE;
            (if counted { held.keys[Order::Count as usize] } else { u64::MAX }, held.stamp)
        };
        found.copied().min_by_key(|&index| place(index))
    }

    /// What an update of a guard answers whose request has ended in this batch: as
    /// in Linux, the guard ends with the batch.
    fn ending_guard(&self, user_data: u64) -> i32 {
        let records = &self.pool.records;
        let mut later = self.holding.later.iter(self.pool.outcomes);
        match later
            .any(|index| self.guards(index) && records[index as usize].user_data == user_data)
        {
            true => 0,
            false => Errno::ENOENT.to_result(),
        }
    }

    /// TIMEOUT_REMOVE: the result.
    pub(super) fn remove_timeout(&mut self, index: u32) -> i32 {
        let held = &self.holding.held[index as usize];
        let (sqe, span) = (held.sqe, held.span);
        // A guard can only be updated, and that has to be said.
        let update = sqe.op_flags & IORING_TIMEOUT_UPDATE != 0;
        let guards = update && sqe.op_flags & IORING_LINK_TIMEOUT_UPDATE != 0;
        let Some(found) = self.timeout(guards, |user_data, _| user_data == sqe.addr) else {
            return if guards { self.ending_guard(sqe.addr) } else { Errno::ENOENT.to_result() };
        };
        // The clock is the old one, of which a point in time may need more.
        let absolute = update && sqe.op_flags & IORING_TIMEOUT_ABS != 0;
        let flags = self.holding.held[found as usize].sqe.op_flags;
        if let Some(clock) = other_clock(flags, absolute)
            && self.shared.host.time(clock).is_none()
        {
            return Errno::EINVAL.to_result();
        }
        self.disarm(found);
        if update {
            // It has no count any more.
            self.holding.held[found as usize].repeats = 0;
            self.holding.held[found as usize].span = span;
            if fault::on(Fault::UpdateKeepsTime) {
                let old = self.holding.held[found as usize].keys[Order::Time as usize];
                self.arm_time(found, old, true);
                return 0;
            }
            self.arm_time(found, span, absolute);
        } else {
            self.queue_end(found, Errno::ECANCELED.to_result());
        }
        0
    }
}
