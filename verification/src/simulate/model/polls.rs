//! Waits for readiness: which of them a `user_data` means, what they are told
//! to wait for, and the CQEs of those that go on.

use super::super::action::Op;
use super::super::polls::{MARKS, marked, user_data};
use super::{Model, NONE, State};

const ENOENT: i32 = -2;
const EALREADY: i32 = -114;

impl Model {
    /// The request that waits for these events and has not begun.
    pub fn marked(&self, events: u32) -> u32 {
        let begins = |id: u32| {
            let req = self.reqs.get(id as usize);
            req.is_some_and(|req| matches!(req.state, State::Pushed | State::Waiting))
        };
        (marked(events)..self.reqs.len() as u32)
            .step_by(MARKS as usize)
            .find(|&id| begins(id) && self.spec(id).polls())
            .unwrap_or(NONE)
    }

    /// A wait begins, and is the newest.
    pub fn waits(&mut self, id: u32, events: u32) {
        self.ages += 1;
        let age = self.ages;
        let req = self.req(id);
        (req.age, req.events) = (age, events);
    }

    /// The newest of the waits that `target` means, or those of a name.
    pub fn newest(&self, name: u8, target: u32) -> Option<u32> {
        let means = |&id: &u32| {
            let req = &self.reqs[id as usize];
            let meant = if name == 0 { id == target } else { true };
            meant && req.name == name && req.waits()
        };
        let waits = self.active.iter().copied().filter(means);
        waits.max_by_key(|&id| self.reqs[id as usize].age)
    }

    /// Carries out a removal or an update: its result.
    pub fn change_poll(&mut self, id: u32) -> i32 {
        let spec = self.spec(id);
        let Some(target) = self.newest(spec.name, id.wrapping_sub(spec.target.into())) else {
            return ENOENT;
        };
        if self.reqs[target as usize].woken {
            return EALREADY;
        }
        let (events, name) = match spec.op {
            Op::Repoll { events, name } => (events, name),
            _ => (false, 0),
        };
        if !events && name == 0 {
            self.req(target).removed = true;
            self.asked.push(target);
            return 0;
        }
        let before = self.reqs[target as usize];
        let new = events.then(|| spec.events(id));
        let wants = new.unwrap_or(before.events);
        self.waits(target, wants);
        self.updates.push((target, new));
        let ready = self.ready[before.spec.watched()] & wants != 0;
        let req = self.req(target);
        // What is ready already counts.
        req.woken = ready;
        if name != 0 {
            req.name = name;
        }
        0
    }

    /// The backend is told what a wait waits for.
    pub fn updated(&mut self, id: u32, new: Option<u32>) {
        self.control_up_to_now();
        if self.updates.is_empty() || self.updates.remove(0) != (id, new) {
            self.fail(format!(
                "request {id} is to wait for {new:x?}, and nobody has asked for that"
            ));
        }
    }

    /// A wait that goes on tells of events.
    pub fn tells(&mut self, id: u32, events: i32) {
        let name = self.reqs[id as usize].name;
        self.tells.push((user_data(id, name), events));
        self.due += 1;
    }

    /// It has found no room for that, and ends with it.
    pub fn tells_no_more(&mut self, id: u32) {
        let Some((_, events)) = self.tells.pop() else {
            return self.fail(format!("request {id} ends, and has told of nothing"));
        };
        // What is not known to have ended may have, and been posted; and nothing
        // passes what waits for room.
        let unknown = self.active.len() as u32 + self.limit - self.next;
        if !self.overflowed && self.due - self.reaped + unknown <= self.setup.cq {
            self.fail(format!("request {id} ends for want of room, and there is some"));
        }
        self.due -= 1;
        let req = self.req(id);
        (req.result, req.failed) = (events, false);
        self.end(id, true);
    }

    /// A CQE with `F_MORE` of a wait, if it is one: in the order in which they
    /// were told of, since none waits for room.
    pub fn told(&mut self, user_data: u64, result: i32) -> bool {
        let is = self.tells.first() == Some(&(user_data, result));
        if is {
            self.tells.remove(0);
            self.seen += 1;
        }
        is
    }

    /// The request of a name that has ended with this result. Which of several
    /// is nothing that can be seen.
    pub fn named(&mut self, name: u8, result: i32) -> u32 {
        let fits = |model: &Self, id: u32| {
            let req = &model.reqs[id as usize];
            let ended = req.state == State::Ended && req.posts && !req.seen;
            req.name == name && ended && req.result == result
        };
        for further in 0..3 {
            if further == 1 {
                // What need not be guessed at comes first.
                self.is_further();
            }
            for id in 0..self.next {
                let req = &self.reqs[id as usize];
                if further == 2 && req.name == name && req.state == State::Waiting {
                    self.catch_up(id);
                }
                if fits(self, id) {
                    return id;
                }
            }
        }
        NONE
    }

    /// The engine must look at what has been woken before it rests.
    pub fn must_look(&mut self) {
        for at in 0..self.active.len() {
            let id = self.active[at];
            let req = self.req(id);
            req.overdue |= req.woken;
        }
    }

    /// At rest.
    pub fn polls_at_rest(&mut self) {
        if let Some(&id) = self.active.iter().find(|&&id| self.reqs[id as usize].overdue) {
            self.fail(format!("request {id} was woken, and nobody has looked"));
        }
        if let Some(&(id, _)) = self.updates.first() {
            self.fail(format!("the backend is not told of the update of request {id}"));
        }
        if let Some((user_data, events)) = self.tells.first() {
            self.fail(format!("{user_data:#x} has events {events:#x}, and no CQE says so"));
        }
    }

    /// Whether nothing waits for the end of something else.
    pub fn nothing_waits(&self) -> bool {
        !self.active.iter().any(|&id| self.reqs[id as usize].state == State::Waiting)
    }
}

impl super::Req {
    /// Whether it waits for readiness, and nobody has removed it.
    pub fn waits(&self) -> bool {
        self.spec.polls() && self.state == State::Flying && !self.removed
    }
}
