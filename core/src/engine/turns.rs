//! Held requests whose turn has come: their start, their end, and what follows
//! them ([`super::links`]).

use super::Engine;
use super::submit::Issue;
use crate::cqe::Cqe;
use crate::errno::Errno;
use crate::fault::{self, Fault};
use crate::files::NONE;
use crate::hal::{Backend, Host};
use crate::held::{Marks, Order, Step};
use crate::op::{self, Kind};
use crate::request::HELD;

impl<B: Backend, H: Host> Engine<'_, B, H> {
    /// Puts a request where its turn comes.
    pub(super) fn queue(&mut self, index: u32, step: Step) {
        self.engaged = true;
        self.holding.held[index as usize].step = step;
        self.holding.queued.push(self.pool.outcomes, index);
    }

    /// Puts a request behind one that has ended: in a batch, after all that the
    /// batch itself has brought about.
    fn queue_next(&mut self, index: u32, step: Step) {
        if !self.holding.in_batch {
            return self.queue(index, step);
        }
        self.engaged = true;
        self.holding.held[index as usize].step = step;
        self.holding.later.push(self.pool.outcomes, index);
    }

    /// A batch is at its end: timeouts look at the clock, then count its CQEs,
    /// and what follows its requests has its turn.
    pub(super) fn end_batch(&mut self) {
        self.holding.in_batch = false;
        self.posted_early(self.cq.total().wrapping_sub(self.holding.batch_began));
        self.expire();
        self.count_out();
        while let Some(index) = self.holding.later.pop(self.pool.outcomes) {
            self.holding.queued.push(self.pool.outcomes, index);
        }
    }

    /// Has a request end with `res` when its turn comes.
    pub(super) fn queue_end(&mut self, index: u32, res: i32) {
        self.pool.outcomes[index as usize].res = res;
        self.queue(index, Step::End);
    }

    /// Starts a held request. False for want of room.
    pub(super) fn launch(&mut self, index: u32) -> bool {
        let held = &self.holding.held[index as usize];
        let sqe = held.sqe;
        let kind = op::kind(sqe.opcode);
        match kind {
            Kind::Nop => self.conclude(index, super::prepare::nop_result(&sqe)),
            Kind::Timeout => self.arm(index),
            Kind::TimeoutRemove => {
                let res = self.remove_timeout(index);
                self.conclude(index, res);
            }
            Kind::Cancel => {
                let res = self.cancel(&sqe);
                self.conclude(index, res);
            }
            _ => {
                if let Err(errno) = self.select(index) {
                    self.conclude(index, errno.to_result());
                    return true;
                }
                let sqe = self.holding.held[index as usize].sqe;
                self.pool.records[index as usize].what.set(HELD);
                if let Issue::NoRoom = self.issue_prepared(index, kind, &sqe) {
                    self.unselect(index);
                    return false;
                }
            }
        }
        // What is still under way has its guard look after it.
        if self.under_way(index) {
            self.spend_asked(index);
            let guard = self.holding.held[index as usize].link;
            if guard != NONE && self.guards(guard) {
                self.arm_guard(guard, index);
            }
        }
        true
    }

    fn under_way(&self, index: u32) -> bool {
        self.shared.slots.peek(index as usize).0
            || self.holding.held[index as usize].places[Order::Time as usize] != NONE
    }

    pub(super) fn guards(&self, index: u32) -> bool {
        self.holding.held[index as usize].marks.contains(Marks::GUARD)
    }

    /// A held request that was under way has ended with `res`.
    #[cold]
    pub(super) fn conclude_late(&mut self, index: u32, opcode: u8, res: i32) {
        if op::only_tells(opcode) && res != Errno::ECANCELED.to_result() {
            self.holding.held[index as usize].marks.insert(Marks::ALWAYS_SUCCESS);
        }
        self.conclude(index, res);
    }

    /// A held request has ended with `res`: its CQE, and what follows it.
    #[cold]
    pub(super) fn conclude(&mut self, index: u32, res: i32) {
        let at = index as usize;
        self.starved &= fault::on(Fault::StarvedForEver);
        if res == Errno::EBADF.to_result() {
            self.unselect_unopened(index);
        }
        if self.holding.held[at].marks.contains(Marks::UNSPENT) {
            self.spend_moved(index, res);
        }
        let held = &mut self.holding.held[at];
        let time = res == Errno::ETIME.to_result() && held.marks.contains(Marks::TIME_IS_SUCCESS);
        let short = held.whole.is_some_and(|whole| res >= 0 && whole != res as u32)
            && !fault::on(Fault::ShortKeepsChain);
        let failed = (res < 0 && !time || short) && !held.marks.contains(Marks::ALWAYS_SUCCESS);
        if failed {
            held.fail();
        }
        let marks = held.marks;
        let mut next = core::mem::replace(&mut held.link, NONE);
        if next != NONE && self.guards(next) {
            let guard = next;
            next = core::mem::replace(&mut self.holding.held[guard as usize].link, NONE);
            self.holding.timers.remove(self.holding.held, guard);
            self.pool.outcomes[guard as usize].res = Errno::ECANCELED.to_result();
            if !fault::on(Fault::GuardNotDisarmed) {
                self.queue_next(guard, Step::End);
            }
        }
        let breaks = failed && !marks.contains(Marks::HARD) && !fault::on(Fault::FailureKeepsChain);
        if next != NONE && breaks {
            let quiet = marks.contains(Marks::SKIP_LINKS) && !fault::on(Fault::SkippedChainSpeaks);
            self.quieten(next, quiet);
            self.queue_next(next, Step::Fail);
        } else if next != NONE {
            self.queue_next(next, Step::Start);
        }
        self.end_held(index, res);
    }

    /// The end of a held request with `res`: gives back what it has, and posts
    /// its CQE unless that is skipped.
    fn end_held(&mut self, index: u32, res: i32) {
        let at = index as usize;
        let record = &mut self.pool.records[at];
        record.what.clear(HELD);
        let user_data = record.user_data;
        let held = &self.holding.held[at];
        let (marks, flags) = (held.marks, super::buffers::flags(held));
        if marks.contains(Marks::KEPT) {
            self.backend.forget(at);
        }
        if marks.contains(Marks::SKIP) {
            self.pool.put(index);
        } else {
            self.complete_now(index, Cqe { user_data, res, flags });
        }
    }

    /// Whether the CQEs of a chain that is cancelled are posted.
    fn quieten(&mut self, first: u32, quiet: bool) {
        let mut index = first;
        while index != NONE {
            let held = &mut self.holding.held[index as usize];
            held.marks.set(Marks::SKIP, quiet);
            index = held.link;
        }
    }

    /// Ends a chain without a start.
    fn fail_chain(&mut self, first: u32) {
        let mut index = first;
        while index != NONE {
            let at = index as usize;
            let held = &mut self.holding.held[at];
            let next = core::mem::replace(&mut held.link, NONE);
            let res = match held.marks.contains(Marks::FAILED) {
                true => self.pool.outcomes[at].res,
                false => Errno::ECANCELED.to_result(),
            };
            self.end_held(index, res);
            index = next;
        }
        self.starved = false;
    }

    /// Takes what has come home, and goes through what has its turn. True if there
    /// was anything.
    fn take_turn(&mut self) -> bool {
        let count = self.holding.queued.len();
        // What has its turn may have got it from somebody who has sent a file.
        self.take_sent();
        // A batch, as in Linux: timeouts that start in it count the CQEs of what
        // has come home with them, and what follows that has its turn later.
        self.holding.batch_began = self.cq.total();
        self.holding.in_batch = true;
        // What has been cancelled comes home before what follows is started.
        let mut any = self.collect();
        let mut launched = false;
        for _ in 0..count {
            let Some(index) = self.holding.queued.pop(self.pool.outcomes) else { break };
            match self.holding.held[index as usize].step {
                Step::Start if !self.down => {
                    if !self.launch(index) {
                        self.holding.queued.push_first(self.pool.outcomes, index);
                        break;
                    }
                    launched = true;
                }
                Step::Start | Step::Fail => self.fail_chain(index),
                Step::End => {
                    let res = self.pool.outcomes[index as usize].res;
                    self.conclude(index, res);
                }
            }
            any = true;
        }
        self.holding.in_batch = false;
        if any {
            self.end_batch();
        }
        if launched {
            self.backend.kick();
        }
        any
    }

    /// Does everything that held requests wait for: turns, times, counts,
    /// drains. True if there was anything.
    #[cold]
    #[inline(never)]
    pub(super) fn settle(&mut self) -> bool {
        // What has come home before is counted before what follows it starts.
        let mut any = self.expire() | self.count_out();
        while self.take_turn() | self.count_out() | self.release_deferred() {
            any = true;
        }
        self.note_engaged();
        self.short = self.may_be_short();
        any
    }
}
