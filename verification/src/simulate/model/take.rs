//! What an entry is when it is taken: refused, of a chain, held back.

use annulus::uapi::*;

use super::super::action::{Drive, Flaw, Op, Spec};
use super::{Model, NONE, Order, State, in_buffer};

const EINVAL: i32 = -22;
const EBADF: i32 = -9;
const ENOMEM: i32 = -12;
const EFAULT: i32 = -14;
const EOPNOTSUPP: i32 = -95;
const ECANCELED: i32 = -125;

/// Flags that need memory for requests that are held back.
const HOLDING: u8 = IOSQE_IO_LINK
    | IOSQE_IO_HARDLINK
    | IOSQE_IO_DRAIN
    | IOSQE_CQE_SKIP_SUCCESS
    | IOSQE_BUFFER_SELECT;

impl Model {
    /// The application enters with so many entries to submit.
    pub fn enter(&mut self, count: u32) {
        self.looks();
        self.batch = self.next;
        self.limit = self.next + count.min(self.waiting_entries());
        (self.stopped, self.no_room) = (false, false);
    }

    /// The engine looks for what has come home.
    pub fn looks(&mut self) {
        self.come_home();
        self.must_look();
        self.settle(false);
    }

    /// The entries up to this one have been taken.
    pub fn take_up_to(&mut self, id: u32) {
        while self.next <= id && (self.next as usize) < self.reqs.len() {
            if self.stopped && self.setup.drive == Drive::Polled {
                // Nobody asks it to go on: that is another batch.
                (self.batch, self.stopped) = (self.next, false);
            }
            if self.stopped {
                let next = self.next;
                self.fail(format!("request {next} is taken after one that was refused"));
            }
            self.take();
        }
    }

    /// It was taken and is not, for want of room.
    pub fn untake(&mut self, id: u32) {
        if self.next == id + 1 {
            self.next = id;
            self.req(id).state = State::Pushed;
            if let Ok(at) = self.active.binary_search(&id) {
                self.active.remove(at);
            }
        }
    }

    /// What an entry is refused with, by itself.
    fn refusal(&mut self, spec: &Spec) -> Option<i32> {
        match spec.flaw {
            Flaw::Opcode | Flaw::Flag => return Some(EINVAL),
            _ => {}
        }
        if !self.setup.held && spec.flags & HOLDING != 0 {
            return Some(EINVAL);
        }
        if spec.selects() && self.setup.groups == 0 {
            return Some(EINVAL);
        }
        if spec.selects() && spec.op != Op::Read {
            return Some(EOPNOTSUPP);
        }
        let skips = spec.has(IOSQE_CQE_SKIP_SUCCESS);
        self.skipped |= skips;
        if spec.has(IOSQE_IO_DRAIN) && self.skipped {
            return Some(EOPNOTSUPP);
        }
        let several = spec.polls_on() && skips;
        (several || matches!(spec.flaw, Flaw::Priority | Flaw::Personality)).then_some(EINVAL)
    }

    /// Takes the next entry, and with it its chain.
    fn take(&mut self) {
        let head = self.next;
        if head == self.batch && self.setup.timed {
            // What has come home before has ended before.
            self.bring_home(false);
            self.settle(false);
            self.begin_counting();
        }
        if head == self.batch && self.setup.groups != 0 {
            // What can start has picked its buffer before.
            self.settle(false);
        }
        let mut last = head;
        while self.links(last) && last + 1 < self.limit {
            last += 1;
        }
        if self.refusing || self.links(head) && last - head + 1 > self.setup.requests {
            return self.refuse_one(head);
        }
        let slow = self.mood;
        let chained = self.links(head);
        let (mut refused, mut inner) = (NONE, false);
        let mut drains = self.drain_next;
        for id in head..=last {
            let spec = self.spec(id);
            let refusal = self.refusal(&spec);
            let req = self.req(id);
            req.state = State::Waiting;
            req.pred = if id == head { NONE } else { id - 1 };
            req.head = head;
            let guards = |spec: Spec| spec.op == Op::Guard && spec.flaw != Flaw::Opcode;
            let alone = guards(spec) && (id == head || guards(self.spec(id - 1)));
            let refusal = refusal.or(alone.then_some(EINVAL));
            let req = self.req(id);
            (req.result, req.failed) = (refusal.unwrap_or(0), refusal.is_some());
            if refusal.is_some() && refused == NONE {
                refused = id;
            }
            let sound = !matches!(refusal, Some(EOPNOTSUPP))
                && !matches!(spec.flaw, Flaw::Opcode | Flaw::Flag)
                && self.setup.held;
            if sound && id == head {
                self.drain_next = false;
            }
            if spec.has(IOSQE_IO_DRAIN) && sound {
                drains = true;
                inner |= id != head;
            }
        }
        self.drain_next |= inner;
        self.mood |= drains;
        let holding = spec_holds(self.spec(head)) && self.setup.held;
        for id in head..=last {
            let req = self.req(id);
            req.held = chained || slow || drains || holding;
            (req.drains, req.lazy) = (drains, slow && !drains);
        }
        self.set_guards(head, last);
        self.next = last + 1;
        if refused != NONE {
            return self.refuse(head, last);
        }
        self.active.extend(head..=last);
        if !self.reqs[head as usize].held {
            self.at_once(head);
        } else if self.setup.timed || self.setup.groups != 0 {
            // Nothing drains, so the first of a chain begins here.
            self.have_its_turn(head);
        }
    }

    /// An entry of a chain that is larger than the pool.
    fn refuse_one(&mut self, id: u32) {
        let first = !self.refusing;
        self.refusing = self.links(id);
        self.next = id + 1;
        let req = self.req(id);
        req.result = if first { ENOMEM } else { ECANCELED };
        (req.failed, req.cancelled, req.head) = (true, true, id);
        self.end(id, true);
    }

    /// A chain with an entry that is refused, or such an entry alone.
    fn refuse(&mut self, head: u32, last: u32) {
        let stops = !self.links(last) && self.reqs[last as usize].failed;
        let req = self.req(head);
        if !req.failed {
            req.result = ECANCELED;
        }
        (req.failed, req.cancelled) = (true, true);
        req.order = if req.held { Order::Any } else { Order::Entry };
        self.active.extend(head + 1..=last);
        self.end(head, true);
        self.stopped |= stops && !self.setup.submit_all;
    }

    /// What is guarded, and what follows it, in a chain.
    fn set_guards(&mut self, head: u32, last: u32) {
        for id in head + 1..=last {
            let pred = self.reqs[id as usize].pred;
            // It stands behind what is guarded, not behind the guard.
            let pred = match self.reqs[pred as usize].guards {
                NONE => pred,
                guarded => guarded,
            };
            let sound = !self.reqs[id as usize].failed;
            let guards = self.spec(id).op == Op::Guard && sound;
            let req = self.req(id);
            (req.pred, req.guards) = (pred, if guards { pred } else { NONE });
        }
    }

    /// Whether an entry is linked to the next.
    pub fn links(&self, id: u32) -> bool {
        self.setup.held && self.spec(id).links()
    }

    /// A request that nothing holds back: what needs no backend ends.
    fn at_once(&mut self, id: u32) {
        let op = self.spec(id).op;
        if matches!(op, Op::Timeout { .. }) {
            return self.arm(id);
        }
        if op.is_control() {
            let result = self.control(id);
            self.req(id).result = result;
            return self.end(id, true);
        }
        if let Some(result) = self.own_result(id) {
            let req = self.req(id);
            req.result = result;
            req.failed = result < 0;
            req.order = Order::Entry;
            self.end(id, true);
        }
    }

    /// What a request comes to without the backend.
    pub fn own_result(&self, id: u32) -> Option<i32> {
        let spec = self.spec(id);
        if let Op::Nop(inject) = spec.op {
            return Some(inject.map_or(0, i32::from));
        }
        if spec.fixed && self.tables.files.get(spec.file).is_none() {
            return Some(EBADF);
        }
        if let Some(result) = self.without_buffer(&spec) {
            return Some(result);
        }
        if spec.is_fixed() {
            let mapped = self.tables.buffers.get(spec.buffer).is_some();
            if !mapped || !in_buffer(&spec, spec.entry(id).addr) {
                // In Linux the file comes first.
                let open = spec.fixed || spec.file < super::super::action::OPEN_FILES;
                return Some(if open { EFAULT } else { EBADF });
            }
        }
        None
    }
}

fn spec_holds(spec: Spec) -> bool {
    spec.flags & HOLDING != 0
}
