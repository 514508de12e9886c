//! What is seen: the answers of the engine, and the CQEs.

use annulus::cqueue::Entry as Cqe;
use annulus::uapi::IORING_CQE_F_MORE;

use super::super::action::TAG;
use super::super::polls::NAMES;
use super::{Model, NONE, Order, State};

impl Model {
    /// A CQE.
    pub fn cqe(&mut self, cqe: &Cqe) {
        let (user_data, result, flags) = (cqe.user_data(), cqe.result(), cqe.flags());
        if flags == IORING_CQE_F_MORE && self.told(user_data, result) {
            return;
        }
        let name = user_data.checked_sub(NAMES).map_or(0, |name| name as u8);
        let id = match name {
            0 => user_data.wrapping_sub(TAG),
            name => u64::from(self.named(name, result)),
        };
        if id >= u64::from(self.next) {
            return self.fail(format!("a CQE of nobody: {cqe:?}"));
        }
        let id = id as u32;
        if flags == IORING_CQE_F_MORE {
            return self.more(id, result);
        }
        if result == 0 && self.may_have_counted(id) {
            self.count_out(id);
        }
        if self.reqs[id as usize].state != State::Ended {
            self.catch_up(id);
        }
        let req = self.reqs[id as usize];
        if req.state != State::Ended {
            return self.fail(format!("a CQE of request {id}, which has not ended: {cqe:?}"));
        }
        if req.name != name {
            let name = req.name;
            return self.fail(format!("request {id} has the name {name} now: {cqe:?}"));
        }
        if !req.posts {
            return self.fail(format!("a CQE of request {id}, which says nothing: {cqe:?}"));
        }
        if req.seen {
            return self.fail(format!("a second CQE of request {id}: {cqe:?}"));
        }
        if req.result != result && req.other != Some(result) || flags != req.shown() {
            let (want, shown) = (req.result, req.shown());
            return self
                .fail(format!("a CQE of request {id}, {want}, {shown:#x} is right: {cqe:?}"));
        }
        match req.order {
            Order::Any => {}
            // Which of those that share a name it is, is not known.
            _ if name != 0 => {}
            Order::Entry if id < self.last_entry => {
                let last = self.last_entry;
                self.fail(format!("the CQE of request {id} comes after that of {last}"));
            }
            Order::Entry => self.last_entry = id,
            Order::Told(told) if told < self.last_told => {
                self.fail(format!("the CQE of request {id} comes after that of a later one"));
            }
            Order::Told(told) => self.last_told = told,
        }
        self.req(id).seen = true;
        self.seen += 1;
    }

    /// The engine is further than had to be.
    pub fn is_further(&mut self) {
        self.control_up_to_now();
        let (due, before) = (self.due, self.early);
        self.come_home();
        self.early = before + self.due - due;
        self.settle(false);
    }

    /// The engine is further than had to be: so are those before `id`, and it.
    pub fn catch_up(&mut self, id: u32) {
        self.is_further();
        let head = self.reqs[id as usize].head;
        for all in [false, true] {
            let mut at = 0;
            while let Some(&one) = self.active.get(at).filter(|&&one| one <= id) {
                if (all || one >= head) && self.have_its_turn(one) {
                    at = 0;
                } else {
                    at += 1;
                }
            }
            let waits = self.reqs[id as usize].state == State::Waiting;
            if !waits || self.may_start(id) {
                return;
            }
        }
    }

    /// The engine has come to rest, with or without CQEs that wait for room.
    pub fn at_rest(&mut self, overflowing: bool, unread: u32) {
        // Whoever starts what is held back looks for what has come home, too.
        if self.setup.timed {
            self.bring_home(false);
        }
        self.settle(true);
        self.polls_at_rest();
        self.last_of_several(overflowing);
        if let Some(id) = self.asked.pop() {
            self.fail(format!("the backend is not asked to end request {id}"));
        }
        let (due, seen) = (self.due, self.seen);
        if due < seen {
            return self.fail(format!("{seen} CQEs came, and {due} were due"));
        }
        if overflowing && due == seen && !self.may_be_further() {
            self.fail("CQEs are said to wait for room, and none does");
        }
        if overflowing && unread < self.setup.cq {
            self.fail(format!("CQEs wait for room, and there are only {unread} in the CQ"));
        }
        // Turns are taken one after the other: what is behind one that finds no
        // room has ended when that has.
        if !overflowing && due - seen > self.early && self.stuck == NONE {
            let missing = |req: &&super::Req| req.state == State::Ended && req.posts && !req.seen;
            let first = self.reqs.iter().position(|req| missing(&req)).unwrap_or(0);
            self.fail(format!("{due} CQEs are due, and {seen} came; that of request {first} not"));
        }
    }

    /// Whether the engine may have ended what is not known to have.
    fn may_be_further(&self) -> bool {
        self.active.iter().any(|&id| {
            let req = &self.reqs[id as usize];
            let vague = req.lazy || self.stuck != NONE;
            req.state == State::Home
                || self.may_have_counted(id)
                || vague && req.state == State::Waiting
        })
    }

    /// `enter` has taken so many entries, `before` being the records in use
    /// when it was called.
    pub fn entered(&mut self, count: u32, answer: Result<u32, i32>, before: u32) {
        let want = self.limit - self.batch;
        let taken = answer.unwrap_or(0);
        if taken > want {
            return self.fail(format!("{taken} entries are taken, of {want}"));
        }
        let end = self.batch + taken;
        if !self.has_taken(end) {
            return;
        }
        let early = taken < want && !self.stopped;
        self.refusing &= taken < want || want == 0;
        let chain = self.chain_at(end);
        // One record in reserve, which nothing that may wait can have.
        if early && !self.no_room && before + taken + chain <= self.setup.requests {
            self.fail(format!("only {taken} of {want} entries are taken, with {before} in use"));
        }
        match answer {
            Err(-16) if count == 0 || want == 0 => self.fail("EBUSY, and nothing is submitted"),
            Err(-62 | -4) if want != 0 && count != 0 => self.fail("an error hides what was taken"),
            Err(-16 | -62 | -4) | Ok(_) => {}
            Err(other) => self.fail(format!("enter answers {other}")),
        }
    }

    /// The entries before this one are taken, and no others. Whether that can be.
    fn has_taken(&mut self, end: u32) -> bool {
        if end + 1 == self.next && self.refusals(end) != 0 {
            // It was not held back after all, and is in the SQ still.
            if self.stuck == end {
                self.stuck = NONE;
            }
            self.untake(end);
        }
        if end < self.next {
            let next = self.next;
            self.fail(format!("{end} entries are said to be taken, and it was {next}"));
            return false;
        }
        if end > self.next {
            self.take_up_to(end - 1);
        }
        if self.next != end {
            let next = self.next;
            self.fail(format!("entries up to {next} belong together, taken are those to {end}"));
        }
        self.next == end
    }

    /// Somebody else submits what there is, as soon as it can be taken.
    pub fn submits_by_itself(&mut self) {
        let (no_room, ended) = (self.no_room, self.ends);
        self.enter(u32::MAX);
        // What found no room is tried again when something has ended.
        self.no_room = no_room && self.ends == ended;
    }

    /// It has taken the entries before this one, and has come to rest.
    pub fn has_submitted(&mut self, end: u32) {
        if !self.has_taken(end) {
            return;
        }
        let early = end < self.limit;
        self.refusing &= early;
        if early && !self.no_room && self.in_use() + self.chain_at(end) <= self.setup.requests {
            let limit = self.limit;
            self.fail(format!("only {end} of {limit} entries are taken, and there is room"));
        }
    }

    /// How many entries the chain at this one has.
    fn chain_at(&self, id: u32) -> u32 {
        let mut last = id;
        while self.links(last) && ((last + 1) as usize) < self.reqs.len() {
            last += 1;
        }
        last - id + 1
    }
}
