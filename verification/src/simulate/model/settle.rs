//! Whose turn it is, and what must have happened when the engine comes to rest.

use annulus::uapi::*;

use super::super::action::{Fate, Op};
use super::{Model, NONE, State};

const ECANCELED: i32 = -125;

impl Model {
    /// Whether everything that it waits for has ended.
    pub fn may_start(&self, id: u32) -> bool {
        let req = &self.reqs[id as usize];
        if req.pred != NONE {
            let pred = &self.reqs[req.pred as usize];
            return pred.state == State::Ended && !self.breaks(req.pred);
        }
        !self.blocked(id)
    }

    /// Whether what follows a request that has ended is cancelled.
    fn breaks(&self, id: u32) -> bool {
        let req = &self.reqs[id as usize];
        req.cancelled || req.failed && !req.spec.has(IOSQE_IO_HARDLINK)
    }

    /// Whether a drain keeps the first of a chain from starting.
    fn blocked(&self, id: u32) -> bool {
        let drains = self.reqs[id as usize].drains;
        let before = self.active.iter().take_while(|&&other| other < id);
        before.clone().any(|&other| drains || self.reqs[other as usize].drains)
    }

    /// Whether it may wait for longer than it has to.
    fn may_wait(&self, id: u32) -> bool {
        let req = &self.reqs[id as usize];
        // Turns are taken one after the other, and one before it finds no room.
        if self.stuck != NONE && id != self.stuck && req.held {
            return true;
        }
        let head = &self.reqs[req.head as usize];
        id == req.head && head.lazy && self.active.first().is_some_and(|&first| first < id)
    }

    /// Whether it is not known which requests have had their turn.
    pub fn is_vague(&self) -> bool {
        let waits = |&id: &u32| self.reqs[id as usize].state == State::Waiting;
        // What has come home may have been seen, and what follows it have begun;
        // what is polled for comes home at any time.
        let ends = |state| state == State::Home || self.setup.polled && state == State::Flying;
        let follows = |&id: &u32| {
            let pred = self.reqs[id as usize].pred;
            waits(&id) && pred != NONE && ends(self.reqs[pred as usize].state)
        };
        let counted = |&id: &u32| self.may_have_counted(id);
        (self.mood || self.stuck != NONE) && self.active.iter().any(waits)
            || self.active.iter().any(counted)
            || self.active.iter().any(follows)
    }

    /// Whether a request may have its turn, and find no room, before the next
    /// that is submitted.
    pub fn may_be_stuck(&self) -> bool {
        self.active.iter().any(|&id| {
            let req = &self.reqs[id as usize];
            matches!(req.spec.fate, Fate::NoRoom(_)) && req.state == State::Waiting
        })
    }

    /// Ends what ends by itself when its turn has come. Strictly: nothing whose
    /// turn has come may be left.
    pub fn settle(&mut self, strict: bool) {
        let mut again = true;
        while again {
            again = self.setup.timed && self.expire();
            let mut at = 0;
            while let Some(&id) = self.active.get(at) {
                let before = self.active.len();
                if self.reqs[id as usize].state == State::Waiting {
                    self.look_at(id, strict);
                }
                if self.active.len() == before {
                    at += 1;
                } else {
                    again = true;
                }
            }
        }
    }

    fn look_at(&mut self, id: u32, strict: bool) {
        let may_wait = self.may_wait(id);
        if may_wait || self.have_its_turn(id) || !strict || self.no_room {
            return;
        }
        if self.may_start(id) {
            self.fail(format!("request {id} has not been started, and could be"));
        }
    }

    /// Ends a request that ends by itself now that it has its turn.
    pub fn have_its_turn(&mut self, id: u32) -> bool {
        let req = self.reqs[id as usize];
        if req.state != State::Waiting || req.guards != NONE {
            return false;
        }
        if req.pred != NONE {
            let pred = self.reqs[req.pred as usize];
            if pred.state == State::Ended && self.breaks(req.pred) {
                self.cancel_one(id);
                return true;
            }
        }
        if !self.may_start(id) {
            return false;
        }
        if let Op::Timeout { .. } = req.spec.op {
            self.arm(id);
            self.arm_guard(id);
            return true;
        }
        let result = self.own_result(id);
        if let Some(result) = result {
            self.end_by_itself(id, result);
        }
        result.is_some()
    }

    /// A request that needs no backend has had its turn.
    pub fn end_by_itself(&mut self, id: u32, result: i32) {
        let req = self.req(id);
        req.result = result;
        req.failed = result < 0;
        let silent = req.spec.has(IOSQE_CQE_SKIP_SUCCESS) && !req.failed;
        self.end(id, !silent);
    }

    /// The chain of a request is broken before it.
    fn cancel_one(&mut self, id: u32) {
        let pred = self.reqs[self.reqs[id as usize].pred as usize];
        // What a chain says of its rest is the business of the one that broke it.
        let posts = match pred.cancelled && pred.pred != NONE {
            true => pred.posts,
            false => !pred.spec.has(IOSQE_CQE_SKIP_SUCCESS),
        };
        let req = self.req(id);
        if !req.failed {
            req.result = ECANCELED;
        }
        (req.failed, req.cancelled) = (true, true);
        self.end(id, posts);
    }
}
