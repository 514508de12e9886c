//! The contract, as one who looks on from outside knows it: what each entry
//! must come to, when it may and when it must start, and what must be seen.
//!
//! It learns from the application what is asked for, from the backend what is
//! started and how it ends, and from the CQ what the engine says of it. It has
//! no pool, no lists and no slots: only requests in the order of their entries.

mod control;
mod observe;
mod polls;
mod provided;
mod request;
mod settle;
mod tables;
mod take;
mod timers;

use annulus::hal::{Request, Target};
use annulus::uapi::*;

use super::action::{Fate, Op, Setup, Spec, buffer_base};
use super::polls::FILES;
pub use control::cancel_flags;
pub use provided::Buffer;
pub use request::{Order, Req, State};
pub use tables::Tables;

/// No request.
pub const NONE: u32 = u32::MAX;

/// Who says that a request has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Its start.
    Start,
    /// Its start, which refuses the entry.
    Refusal,
    /// Its resumption.
    Resume,
    /// A poll.
    Poll,
    /// The completer.
    Completer,
}

/// Whether a start is one that may be.
pub enum Verdict {
    Go(Spec),
    Stop,
}

/// All of it.
pub struct Model {
    pub why: Option<String>,
    pub setup: Setup,
    pub reqs: Vec<Req>,
    /// The first entry that is not known to be taken.
    pub next: u32,
    /// The first of the current batch, and the first after it.
    pub batch: u32,
    pub limit: u32,
    /// The batch ended after a refused entry.
    pub stopped: bool,
    /// A chain that is larger than the pool is being refused.
    pub refusing: bool,
    /// Requests that are taken and have not ended, in order.
    pub active: Vec<u32>,
    /// A CQE has been skipped: nothing drains any more.
    pub skipped: bool,
    /// The next chain drains, because one in the middle of the last did.
    pub drain_next: bool,
    /// Something has drained. What comes then may wait for all before it: when
    /// that is over is the engine's own business.
    pub mood: bool,
    /// The backend had no room since the application entered.
    pub no_room: bool,
    /// A request whose turn it is, and for which there was no room.
    pub stuck: u32,
    /// CQEs that must come, and those that came.
    pub due: u32,
    pub seen: u32,
    pub told: u32,
    /// CQEs that the application has taken.
    pub reaped: u32,
    /// Of those that are due: some may still be on their way home.
    pub early: u32,
    /// Requests that have ended.
    pub ends: u32,
    /// Timeouts that have ended by time or count.
    pub fired: u32,
    pub counted_before: i64,
    /// CQEs had to wait for room since the first timeout was armed.
    pub overflowed: bool,
    /// Requests that the backend must be asked to end.
    pub asked: Vec<u32>,
    last_entry: u32,
    last_told: u32,
    pub tables: Tables,
    /// Handles that the backend has made in the current call.
    pub made: Vec<u32>,
    /// Events that hold, by file.
    pub ready: [u32; FILES],
    /// CQEs of waits that go on, by `user_data`.
    tells: Vec<(u64, i32)>,
    /// Waits that the backend must be told the events of.
    updates: Vec<(u32, Option<u32>)>,
    ages: u32,
    groups: Vec<provided::Group>,
}

impl Model {
    pub const fn new() -> Self {
        Self {
            why: None,
            setup: Setup::LEAST,
            reqs: Vec::new(),
            next: 0,
            batch: 0,
            limit: 0,
            stopped: false,
            refusing: false,
            active: Vec::new(),
            skipped: false,
            drain_next: false,
            mood: false,
            no_room: false,
            stuck: NONE,
            due: 0,
            seen: 0,
            told: 0,
            reaped: 0,
            early: 0,
            ends: 0,
            fired: 0,
            counted_before: 0,
            overflowed: false,
            asked: Vec::new(),
            last_entry: 0,
            last_told: 0,
            tables: Tables::new(),
            made: Vec::new(),
            ready: [0; FILES],
            tells: Vec::new(),
            updates: Vec::new(),
            ages: 0,
            groups: Vec::new(),
        }
    }

    /// Begins anew.
    pub fn reset(&mut self, setup: Setup) {
        self.why = None;
        self.setup = setup;
        self.reqs.clear();
        (self.next, self.batch, self.limit) = (0, 0, 0);
        self.active.clear();
        (self.stopped, self.no_room, self.mood) = (false, false, false);
        (self.skipped, self.drain_next, self.refusing) = (false, false, false);
        (self.stuck, self.early, self.ends) = (NONE, 0, 0);
        (self.due, self.seen, self.told, self.last_entry, self.last_told) = (0, 0, 0, 0, 0);
        self.reaped = 0;
        (self.fired, self.counted_before, self.overflowed) = (0, 0, false);
        self.asked.clear();
        self.tables.reset();
        self.made.clear();
        (self.ready, self.ages) = ([0; FILES], 0);
        self.tells.clear();
        self.updates.clear();
        self.reset_groups();
    }

    /// The contract is broken. The first time counts.
    #[cold]
    pub fn fail(&mut self, why: impl Into<String>) {
        if self.why.is_none() {
            self.why = Some(why.into());
        }
    }

    pub fn spec(&self, id: u32) -> Spec {
        self.reqs.get(id as usize).map_or(Spec::NOP, |req| req.spec)
    }

    pub fn req(&mut self, id: u32) -> &mut Req {
        &mut self.reqs[id as usize]
    }

    /// An entry is in the SQ.
    pub fn pushed(&mut self, spec: Spec) {
        self.reqs.push(Req::new(spec));
    }

    pub fn is_held(&self, id: u32) -> bool {
        self.reqs.get(id as usize).is_some_and(|req| req.held)
    }

    /// Entries in the SQ.
    pub fn waiting_entries(&self) -> u32 {
        self.reqs.len() as u32 - self.next
    }

    /// Records that must be in use, at most.
    pub fn in_use(&self) -> u32 {
        self.active.len() as u32 + self.due - self.seen
    }

    pub fn refusals(&self, id: u32) -> u8 {
        self.reqs.get(id as usize).map_or(0, |req| req.refusals)
    }

    pub fn no_room(&mut self, id: u32) {
        self.no_room = true;
        let req = self.req(id);
        req.refusals = req.refusals.saturating_add(1);
        // It was not started, and its entry may still be in the SQ.
        req.state = State::Waiting;
        let held = req.held;
        self.gives_back(id);
        if held {
            self.stuck = id;
        } else {
            self.untake(id);
        }
    }

    /// A handle was made for a file or a buffer.
    pub fn opened(&mut self, handle: u32) {
        self.made.push(handle);
    }

    /// The backend is asked to start a request.
    pub fn started(&mut self, id: u32, request: &Request<u32, u32>) -> Verdict {
        if id >= self.limit && id >= self.next {
            self.fail(format!("request {id} is started, and nobody has submitted it"));
            return Verdict::Stop;
        }
        self.take_up_to(id);
        if !self.may_start(id) {
            self.catch_up(id);
        }
        if self.reqs[id as usize].state != State::Waiting {
            let state = self.reqs[id as usize].state;
            self.fail(format!("request {id} is started: {state:?}"));
            return Verdict::Stop;
        }
        if !self.may_start(id) {
            self.fail(format!("request {id} is started before its turn"));
            return Verdict::Stop;
        }
        if self.spec(id).selects() && !self.picks(id) {
            self.fail(format!("request {id} is started, and there is no buffer for it"));
        }
        let spec = self.spec(id);
        let file = match request.target {
            Target::Registered(file) => Some(file),
            Target::Fd(_) => None,
        };
        let known = if spec.fixed { self.tables.files.get(spec.file) } else { None };
        if spec.fixed && known.is_none() || file != known {
            self.fail(format!("request {id} is started with file {file:?}, it is {known:?}"));
        }
        let known = if spec.is_fixed() { self.tables.buffers.get(spec.buffer) } else { None };
        if spec.is_fixed() && known.is_none() || request.buffer != known {
            let buffer = request.buffer;
            self.fail(format!("request {id} is started with buffer {buffer:?}, it is {known:?}"));
        }
        let mut entry = spec.entry(id);
        if spec.polls() {
            // Whether it goes on is said among the events.
            let once = if spec.polls_on() { 0 } else { EPOLLONESHOT };
            (entry.len, entry.op_flags) = (0, spec.events(id) | once);
            self.waits(id, spec.events(id));
        }
        if let Some(buffer) = self.reqs[id as usize].picked {
            entry.addr = buffer.addr;
        }
        let other = request.op_flags != entry.op_flags;
        if other
            || (request.opcode, request.addr, request.len) != (entry.opcode, entry.addr, entry.len)
        {
            self.fail(format!("request {id} is started as another: {request:?}"));
        }
        if spec.is_fixed() && !in_buffer(&spec, entry.addr) {
            self.fail(format!("request {id} is started beyond its buffer"));
        }
        self.req(id).state = State::Flying;
        if self.stuck == id {
            self.stuck = NONE;
        }
        self.arm_guard(id);
        let held = self.reqs[id as usize].held;
        let refused = spec.fate == Fate::Refused && held;
        let fate = if refused { Fate::Now(super::action::Outcome::Error) } else { spec.fate };
        Verdict::Go(Spec { fate, ..spec })
    }

    /// The backend has ended a request.
    pub fn ended(&mut self, id: u32, result: i32, by: By) {
        if self.reqs[id as usize].state != State::Flying {
            self.fail(format!("request {id} ends, and is not in flight"));
            return;
        }
        if by == By::Start && result == -9 {
            // Nothing has been read, for want of a file.
            self.gives_back(id);
        }
        self.told += 1;
        let told = self.told;
        let req = self.req(id);
        let late = matches!(by, By::Resume | By::Poll | By::Completer);
        let tells = req.spec.op == Op::Fsync && late && result != -125;
        let moves = req.spec.op != Op::Fsync && !req.spec.polls();
        let short = moves && result >= 0 && result != i32::from(req.spec.len);
        req.failed = (result < 0 || short) && !tells;
        req.result = result;
        req.order = match by {
            By::Completer | By::Poll => Order::Told(told),
            By::Start | By::Refusal if !req.held => Order::Entry,
            _ => Order::Any,
        };
        if by == By::Completer {
            req.state = State::Home;
        } else {
            let posts = !req.spec.has(IOSQE_CQE_SKIP_SUCCESS) || req.failed;
            self.end(id, posts);
        }
        if by == By::Refusal && !self.setup.submit_all {
            self.stopped = true;
        }
    }

    /// The engine looks: what has come home has ended.
    pub fn come_home(&mut self) {
        self.early = 0;
        self.bring_home(true);
    }

    /// The same for those only that others may wait for, if not `all`.
    pub fn bring_home(&mut self, all: bool) {
        for at in (0..self.active.len()).rev() {
            let id = self.active[at];
            let req = self.reqs[id as usize];
            if req.state == State::Home && (all || req.held) {
                self.end(id, !req.spec.has(IOSQE_CQE_SKIP_SUCCESS) || req.failed);
            }
        }
    }

    /// A request has ended, with a CQE or without.
    pub fn end(&mut self, id: u32, posts: bool) {
        let req = self.req(id);
        req.state = State::Ended;
        req.posts = posts;
        self.ends += 1;
        self.due += u32::from(posts);
        if self.stuck == id {
            // There is no buffer for it any more.
            self.stuck = NONE;
        }
        if let Ok(at) = self.active.binary_search(&id) {
            self.active.remove(at);
        }
        self.disarm_guard(id);
    }
}

/// Whether a range lies in its buffer.
pub fn in_buffer(spec: &Spec, addr: u64) -> bool {
    let base = buffer_base(spec.buffer);
    addr >= base && addr + u64::from(spec.len) <= base + u64::from(super::action::BUFFER)
}
