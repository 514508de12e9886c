//! Timeouts: by the clock, by a number of CQEs, and as the guards of others.

use annulus::uapi::*;

use super::super::action::Op;
use super::super::place::now;
use super::{Model, NONE, State};

const ECANCELED: i32 = -125;
const ETIME: i32 = -62;
const EALREADY: i32 = -114;

impl Model {
    /// CQEs as timeouts count them: those of timeouts are none.
    fn counted(&self) -> i64 {
        i64::from(self.due) - i64::from(self.fired)
    }

    /// A batch of entries begins: its CQEs count for its timeouts.
    pub fn begin_counting(&mut self) {
        self.counted_before = self.counted();
    }

    /// A timeout starts.
    pub fn arm(&mut self, id: u32) {
        let alone = self.reqs[id as usize].head == id && id >= self.batch;
        let before = self.counted_before;
        // With others in its batch, or with records short, what came home before
        // it and what after is not known.
        let one = self.limit - self.batch == 1;
        let plenty = self.in_use() < self.setup.requests;
        let exact = alone && one && plenty && !self.overflowed;
        self.told += 1;
        let armed = self.told;
        let req = self.req(id);
        (req.state, req.armed) = (State::Armed, armed);
        req.deadline = now() + u64::from(req.spec.time);
        if let Op::Timeout { count, .. } = req.spec.op {
            req.count = (count != 0).then_some(before + i64::from(count));
            req.exact = exact;
        }
    }

    /// What a request is guarded by, once it is under way.
    pub fn guard_of(&self, id: u32) -> Option<u32> {
        let guard = id + 1;
        let req = self.reqs.get(guard as usize)?;
        (req.guards == id).then_some(guard)
    }

    /// A request is under way: so is its guard.
    pub fn arm_guard(&mut self, id: u32) {
        if let Some(guard) = self.guard_of(id)
            && self.reqs[guard as usize].state == State::Waiting
        {
            self.arm(guard);
        }
    }

    /// A request has ended: its guard has nothing to look after.
    pub fn disarm_guard(&mut self, id: u32) {
        if let Some(guard) = self.guard_of(id)
            && matches!(self.reqs[guard as usize].state, State::Waiting | State::Armed)
        {
            let guarded = self.reqs[id as usize];
            let posts = match guarded.cancelled && guarded.pred != NONE {
                // It goes with the rest of a broken chain.
                true => guarded.posts,
                false => !self.spec(guard).has(IOSQE_CQE_SKIP_SUCCESS),
            };
            self.req(guard).result = ECANCELED;
            self.end(guard, posts);
        }
    }

    /// Ends timeouts whose time is over, or whose CQEs have been posted. True
    /// if there were any.
    pub fn expire(&mut self) -> bool {
        let late = |req: &super::Req| req.state == State::Armed && req.deadline <= now();
        let time = self.active.iter().copied().filter(|&id| late(&self.reqs[id as usize]));
        let first = |&id: &u32| (self.reqs[id as usize].deadline, self.reqs[id as usize].armed);
        let time = time.min_by_key(first);
        if let Some(id) = time {
            match self.reqs[id as usize].guards {
                NONE => self.fire(id),
                guarded => self.fire_guard(id, guarded),
            }
            return true;
        }
        if self.due - self.reaped > self.setup.cq {
            // Some will have to wait for room, and count later.
            self.active.iter().for_each(|&id| self.reqs[id as usize].exact = false);
        }
        let counted = self.counted();
        let full = |req: &super::Req| {
            req.state == State::Armed && req.exact && req.count.is_some_and(|at| at <= counted)
        };
        let count = self.active.iter().copied().find(|&id| full(&self.reqs[id as usize]));
        if let Some(id) = count {
            self.count_out(id);
        }
        count.is_some()
    }

    /// Whether a timeout may have ended by its count, and it is not known.
    pub fn may_have_counted(&self, id: u32) -> bool {
        let req = &self.reqs[id as usize];
        req.state == State::Armed && req.count.is_some() && !req.exact
    }

    /// A timeout ends by its count.
    pub fn count_out(&mut self, id: u32) {
        self.fired += 1;
        let silent = self.spec(id).has(IOSQE_CQE_SKIP_SUCCESS);
        self.req(id).result = 0;
        self.end(id, !silent);
    }

    fn fire(&mut self, id: u32) {
        self.fired += 1;
        self.told += 1;
        let told = self.told;
        let req = self.req(id);
        let (repeats, good) = match req.spec.op {
            Op::Timeout { repeats, good, .. } => (repeats, good),
            _ => (0, false),
        };
        if req.repeats < repeats {
            // One of several: whether there was room is seen later.
            req.repeats += 1;
            if req.repeats < repeats {
                req.deadline = now() + u64::from(req.spec.time);
                req.armed = told;
                req.more += 1;
                self.due += 1;
                return;
            }
        }
        req.other = (req.count.is_some() && !req.exact).then_some(0);
        req.result = ETIME;
        req.failed = !good;
        let silent = req.spec.has(IOSQE_CQE_SKIP_SUCCESS) && good;
        self.end(id, !silent);
    }

    /// A guard's time is over: what it guards is ended, if that can be.
    fn fire_guard(&mut self, guard: u32, guarded: u32) {
        let other = self.reqs[guarded as usize];
        self.req(guard).guards = NONE;
        let ended = match other.state {
            State::Armed => {
                self.cancelled(guarded);
                true
            }
            State::Flying => other.spec.can_end && !other.woken,
            State::Home => other.ended_by_us,
            _ => false,
        };
        let req = self.req(guard);
        req.result = if ended { ETIME } else { EALREADY };
        let silent = req.spec.has(IOSQE_CQE_SKIP_SUCCESS);
        if ended && other.state == State::Flying {
            self.asked.push(guarded);
        }
        self.end(guard, !silent);
    }

    /// A timeout is ended by somebody.
    pub fn cancelled(&mut self, id: u32) {
        let req = self.req(id);
        (req.result, req.failed) = (ECANCELED, true);
        self.end(id, true);
    }

    /// The backend is asked to end a request.
    pub fn asked_to_end(&mut self, id: u32) {
        self.settle(false);
        // A guard asks before what is submitted does.
        if !self.asked.contains(&id) {
            self.control_up_to_now();
        }
        match self.asked.iter().position(|&asked| asked == id) {
            Some(at) => drop(self.asked.swap_remove(at)),
            None if self.spec(id).can_end => {
                self.fail(format!("request {id} is ended, and nobody has asked for that"));
            }
            None => {}
        }
        if self.spec(id).can_end {
            self.req(id).ended_by_us = true;
        }
    }

    /// The engine goes on after a sleep. A guard whose time is over may look
    /// before what has come home does.
    pub fn goes_on(&mut self) {
        for at in 0..self.active.len() {
            let id = self.active[at];
            let req = self.reqs[id as usize];
            let late = req.state == State::Armed && req.deadline <= now();
            if late && req.guards != NONE && self.reqs[req.guards as usize].state == State::Home {
                self.req(id).other = Some(EALREADY);
            }
        }
        self.looks();
    }

    /// A CQE with `F_MORE`.
    pub fn more(&mut self, id: u32, result: i32) {
        let req = self.req(id);
        if !matches!(req.spec.op, Op::Timeout { .. }) || req.more == 0 || result != ETIME {
            let more = req.more;
            return self.fail(format!("request {id} says {result} and goes on; {more} are due"));
        }
        req.more -= 1;
        self.seen += 1;
    }

    /// The engine has come to rest, and `full` says that CQEs wait for room.
    /// One of several that found none was the last.
    pub fn last_of_several(&mut self, full: bool) {
        self.overflowed = full;
        for at in (0..self.active.len()).rev() {
            let id = self.active[at];
            let req = &mut self.reqs[id as usize];
            if full {
                req.exact = false;
            }
            if req.more != 0 && req.state == State::Armed && full {
                (req.more, req.result) = (0, ETIME);
                let good = matches!(req.spec.op, Op::Timeout { good: true, .. });
                req.failed = !good;
                self.due -= 1;
                self.end(id, true);
            }
        }
    }
}
